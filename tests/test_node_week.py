"""A week without a way out, then back: each record arrives once, or the node has declared that it dropped it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bega_simulators.board.flash import SHIM

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
BLOCKS = 512  # of 4 kB: the file system of a 4 MB ESP32
SHORT = 54

pytestmark = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")


def week(folder: Path, blocks: int, every_s: int) -> dict[str, Any]:
    """Return the counts of seven days in which two devices measured at this pace."""
    flash = folder / "flash"
    flash.write_bytes(b"\xff" * 4096 * blocks)
    outcome = subprocess.run(
        [
            *(MICROPYTHON, "-X", "heapsize=1m", ROOT / "tests/micropython/node_week.py"),
            *(flash, str(blocks), "7", str(every_s)),
        ],
        env={"MICROPYPATH": f"{SHIM}:{ROOT / 'protocols'}:{ROOT / 'firmware/node'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=1150,
    )
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    counts: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    assert counts["taken"] == 2 * 7 * 86400 // every_s
    return counts


def test_week_within_the_capacity_arrives_whole_and_with_its_times(tmp_path):
    """At one a minute it fills half of an ESP32's flash; by day a slower pace on a smaller one."""
    counts = week(tmp_path, BLOCKS, 60) if IS_NIGHT else week(tmp_path, SHORT, 600)
    assert (counts["came"], counts["declared"]) == (counts["taken"], 0)
    assert [quality for quality, _ in counts["qualities"]] == [0, 1], (
        "synchronised near the time it was told, else estimated"
    )


def test_week_beyond_the_capacity_declares_what_it_dropped_and_brings_the_rest(tmp_path):
    """Seven days at 20 s are half as much again as an ESP32's flash holds."""
    counts = week(tmp_path, BLOCKS, 20) if IS_NIGHT else week(tmp_path, SHORT // 3, 600)
    assert counts["declared"] > 0 and counts["came"] > 0
    assert counts["came"] + counts["declared"] == counts["taken"]
