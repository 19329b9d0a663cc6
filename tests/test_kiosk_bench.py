"""The kiosk's bench: it must see a leak and a slow answer where there is one, or its figures mean nothing."""

import os
import subprocess
import sys

import pytest

from bega_simulators.bench.kiosk import TAP_P50, TAP_P99, _tap_rows
from bega_simulators.bench.screens import Sample, _rows, family, growth_percent, slope

at_night = pytest.mark.skipif(os.environ.get("BEGA_PROFILE") != "nightly", reason="a minute: make nightly PART=kiosk")


def walk(leak_mb=0.0, heap_leak_mb=0.0, node_leak=0):
    """Return samples of a walk whose browser fills its caches first, and leaks by so much a thousand screens."""
    return [
        Sample(
            count,
            0.6 + heap_leak_mb * count / 1000,
            120 + node_leak * count // 1000,
            300 + min(count, 1000) / 10 + leak_mb * count / 1000,
            58.0,
        )
        for count in range(100, 20_001, 100)
    ]


def test_browser_that_fills_its_caches_and_stays_so_holds():
    assert [row.verdict for row in _rows(walk(), 1.0)] == ["holds", "holds", "holds", ""]


@pytest.mark.parametrize(
    ("leak", "missed"), [({"leak_mb": 3.0}, 0), ({"heap_leak_mb": 0.1}, 1), ({"node_leak": 20}, 2)]
)
def test_leak_is_seen(leak, missed):
    assert [row.verdict for row in _rows(walk(**leak), 1.0)][missed] == "misses"


def test_slope_and_growth_are_what_they_say():
    assert slope([(0, 5.0), (1, 7.0), (2, 9.0)]) == pytest.approx(2.0)
    assert slope([(3, 1.0)]) == 0.0
    assert growth_percent([10, 30, 10, 30, 12, 30, 11, 30]) == pytest.approx(10.0)


def test_slow_taps_miss_their_goals():
    assert [row.verdict for row in _tap_rows("tap", [20.0] * 99 + [200.0], TAP_P50, TAP_P99)] == ["holds", "misses"]
    assert [row.verdict for row in _tap_rows("tap", [90.0] * 99 + [100.0], TAP_P50, TAP_P99)] == ["misses", "holds"]


def test_family_of_a_process_is_found():
    with subprocess.Popen(["/bin/sh", "-c", "sleep 30 & wait"], start_new_session=True) as shell:
        while len(found := family(shell.pid)) < 2:
            pass
        assert shell.pid in found
        assert os.getpid() not in found
        for pid in found:
            os.kill(pid, 9)


@at_night
@pytest.mark.slow
@pytest.mark.parametrize("name", ["kiosk", "screens"])
def test_bench_runs_in_short(name, tmp_path):
    bench = [sys.executable, "-m", "bega", "bench", name, "--quick", "--dir", tmp_path]
    told = subprocess.run(bench, capture_output=True, text=True, timeout=110)
    assert told.returncode == 0, told.stderr
    assert "not measured" not in told.stdout
