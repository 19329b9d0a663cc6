"""`bega node setup`: from a blank board to "record seen", and again after a pulled plug. The whole of it by night."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bega.clock import wall_ms
from bega_firmware import book, setup, setup_steps
from bega_firmware.bench_site import bench_site
from bega_firmware.ca_folder import CaFolder
from bega_firmware.interrupt import ends_in_order
from bega_firmware.loader import Chip
from bega_firmware.outcome import Outcome
from bega_firmware.proof.command import Table
from bega_firmware.report import BENCH
from bega_firmware.setup_steps import STEPS, Job
from bega_protocols.errors import ConfigError

NIGHTLY = pytest.mark.skipif(
    os.environ.get("BEGA_PROFILE") != "nightly", reason="at night: make nightly PART=technician"
)
WITHIN_S = 300
NOW_MS = wall_ms()  # the bench's authority is made now
GOOD = ["find", "build", "flash", "identity", "clock", "settings", "start"]


class Bench:
    """A technician's data folder and a blank virtual board, as anyone starts it."""

    def __init__(self, folder: Path, seed: int = 1, kind: str = "air", data: Path | None = None) -> None:
        self.folder, self.kind, self.seed = folder, kind, seed
        self.folder.mkdir(exist_ok=True)
        self.data = data or folder / "data"
        self.flash = folder / "flash"
        self._child = None

    def plug_in(self, how: str = "--blank") -> "Bench":
        ready = self.folder / "board.json"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bega", "sim", "board", "--kind", self.kind, "--seed", str(self.seed), how]
        command += ["--flash", str(self.flash), "--ready-file", str(ready)]
        with (self.folder / "board.log").open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert self._child.poll() is None and time.monotonic() < deadline, (self.folder / "board.log").read_text()
            time.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        return self

    def pull(self) -> None:
        """Pull the plug: the board with everything on it."""
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(10)

    def begin(self, port: str = "serial", *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "bega", "node", "setup", "--port", self.ready[port], "--site", "none-yet"]
        command += ["--kind", self.kind, "--uplink", "wifi", "--bench", "--json", *more]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"BEGA_DATA": str(self.data)},
        )

    def setup(self, port: str = "serial", *more: str) -> dict:
        out, err = self.begin(port, *more).communicate(timeout=WITHIN_S)
        assert out, err.decode()
        return json.loads(out)

    def issued(self) -> list[str]:
        """Return the ids that have ever had a certificate."""
        return sorted(CaFolder(self.data / "bench-ca").names())


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path / "bench")
    yield bench
    bench.pull()


def steps(report):
    return [step["step"] for step in report["steps"] if step["passed"]]


# ------------------------------------------------------------------ by day: what holds the steps together


def job(tmp_path, **keys):
    fields = {
        "port": "/dev/ttyUSB0",
        "asked_site": "park",
        "kind": "air",
        "uplink": "wifi",
        "is_bench": True,
        "asked_id": "",
        "again": False,
        "asked_board": "",
        "asked_devices": (),
        "image": None,
        "table": Table(),
        "update_keys": (),
        "support_until": "",
        "folder": tmp_path,
        "builds": tmp_path / "builds",
        "out": None,
        "tell": lambda outcome: None,
        "progress": lambda done, whole: None,
    }
    return Job(**(fields | keys))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigError("the board at /dev/ttyUSB0 says nothing"), "says nothing"),
        (OSError(28, "No space left on device", "/data/x"), "/data/x: No space left"),
    ],
)
def test_a_step_that_fails_is_an_outcome_and_the_last_one(tmp_path, monkeypatch, error, words):
    begun = []

    def fail(job):
        raise error

    monkeypatch.setattr(setup, "STEPS", (("find", lambda job: None), ("flash", fail), ("test", begun.append)))
    work = job(tmp_path)
    setup.carry_out(work, lambda number, of, name: None)
    assert [(each.step, each.passed) for each in work.outcomes] == [("flash", False)]
    assert words in work.outcomes[0].words and not begun


def test_ctrl_c_ends_what_was_started_and_says_how_to_go_on(tmp_path, monkeypatch):
    ended = []

    def lent(job):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            ended.append(True)

    monkeypatch.setattr(setup, "STEPS", (("test", lent), ("label", ended.append)))
    work = job(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    with ends_in_order():
        setup.carry_out(work, lambda number, of, name: None)
    assert ended == [True] and work.outcomes[0].words == "interrupted"
    assert "again" in work.outcomes[0].what_to_do and signal.getsignal(signal.SIGINT) == before


def test_a_node_that_fails_its_test_gets_no_label(tmp_path, monkeypatch):
    drawn = []
    silent = Outcome("sensor pms", False, "silent", "Check its 5 V.")
    monkeypatch.setattr(setup, "STEPS", (("test", lambda job: job.add(silent)), ("label", drawn.append)))
    work = job(tmp_path)
    setup.carry_out(work, lambda number, of, name: None)
    assert not drawn and not work.report(0, 0.0).is_well


def test_what_would_end_the_work_later_is_said_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path))
    site = bench_site()
    setup_steps._require_ready(job(tmp_path), site, NOW_MS)
    for wrong, now_ms, words in [
        (job(tmp_path, support_until="2020-01"), NOW_MS, "--support-until"),
        (job(tmp_path), 0, "1970-01-01: set it"),
        (job(tmp_path), NOW_MS + 800 * 86_400_000, "issuing key of .* ended"),
    ]:
        with pytest.raises(ConfigError, match=words):
            setup_steps._require_ready(wrong, site, now_ms)
    with pytest.raises(ConfigError, match="has no serial"):
        setup_steps._require_ready(job(tmp_path, uplink="serial"), dataclasses.replace(site, uplink=None), NOW_MS)
    site.secrets_path.unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(ConfigError, match="nobody is here to type it"):
        setup_steps._require_ready(job(tmp_path), site, NOW_MS)


def test_without_its_file_a_site_is_refused_and_on_a_bench_made(tmp_path, monkeypatch):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="no site park"):
        setup_steps._site(job(tmp_path, is_bench=False))
    work = job(tmp_path, kind="meter")
    site = setup_steps._site(work)
    assert (site.name, site.uplink.bus) == ("bench", "meters")
    assert "There is no site park" in work.notes[0]
    assert setup_steps._site(job(tmp_path)).ca == site.ca


def test_a_board_file_for_another_chip_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path))
    monkeypatch.setattr(setup_steps, "board_at", lambda port: Chip("esp32", "24:0a:c4:00:00:04", 4))
    with pytest.raises(ConfigError, match="has an esp32, and esp32_c3 is a board with an esp32c3"):
        setup_steps.find(job(tmp_path, asked_board="esp32_c3"))


def test_what_could_not_be_proved_is_open_in_the_book(tmp_path):
    work = job(tmp_path)
    work.provisioned, work.proved = object(), BENCH
    work.add(Outcome("sensor pms", True, "right"))
    assert [one.passed for _, one in work.milestones()] == [True]
    work.add(Outcome("record seen", None, "not heard here"))
    assert [(one.passed, one.words) for _, one in work.milestones()] == [(None, "record seen: not heard here")]


def test_the_book_learns_of_what_went_wrong(tmp_path):
    work = job(tmp_path)
    work.node, work.provisioned = "air-7", object()
    work.add(Outcome("flash", True, "written"))
    work.add(Outcome("sensor pms", False, "silent"))
    for what, outcome in work.milestones():
        work.note(what, outcome)
    found, _ = book.read(tmp_path)
    assert [(one.what, one.passed, one.words, one.port) for one in found] == [
        (book.TESTED, False, "sensor pms: silent", "ttyUSB0")
    ]


# ------------------------------------------------------------------ by night: the whole


@NIGHTLY
@pytest.mark.parametrize("port", ["serial", "rfc2217"])
def test_a_blank_board_becomes_a_proved_node_in_one_go_and_keeps_its_identity(bench, port):
    bench.plug_in()
    report = bench.setup(port)
    assert report["is_well"], report
    assert steps(report)[:7] == GOOD and steps(report)[-2:] == ["record seen", "label"]
    assert report["proved"] == BENCH and "no site none-yet" in report["notes"][0]
    assert Path(report["report"]).exists() and report["took_s"] < 60
    again = bench.setup(port)
    assert again["is_well"] and again["node"] == report["node"]
    assert bench.issued() == [report["node"]]
    assert "kept" in next(step["words"] for step in again["steps"] if step["step"] == "identity")
    events, _ = book.read(bench.data)
    assert [event.what for event in events if event.node][-1] == book.LABELLED
    assert {event.passed for event in events} == {True}


@NIGHTLY
@pytest.mark.parametrize("port", ["serial", "rfc2217"])
def test_a_node_of_another_bench_is_not_erased(bench, tmp_path, port):
    """Two laptops share an authority: the second one never heard of this board."""
    bench.plug_in()
    node = bench.setup(port)["node"]
    other = tmp_path / "other"
    for name in ("sites", "bench-ca"):
        shutil.copytree(bench.data / name, other / name)
    (other / "sites" / "bench.toml").write_text(
        (other / "sites" / "bench.toml").read_text().replace(str(bench.data), str(other))
    )
    bench.data = other
    report = bench.setup(port)
    assert report["is_well"] and report["node"] == node, report
    shutil.rmtree(other / "bench-ca")
    shutil.rmtree(other / "sites")
    foreign = bench.setup(port)  # and one of another city's is refused
    assert "another authority" in foreign["steps"][-1]["words"], foreign


@NIGHTLY
def test_a_meter_node_is_proved_too(tmp_path):
    bench = Bench(tmp_path / "meter", kind="meter").plug_in()
    try:
        report = bench.setup("serial")
        assert report["is_well"], report
    finally:
        bench.pull()


@NIGHTLY
def test_a_silent_sensor_is_a_node_that_is_not_ready(bench):
    bench.plug_in()
    report = bench.setup("serial", "--device", "pms", "--device", "co2")  # no SCD41 hangs on this board
    assert not report["is_well"] and "label" not in steps(report)
    assert next(step for step in report["steps"] if step["passed"] is False)["what_to_do"]
    assert bench.issued() == [report["node"]]


@NIGHTLY
@pytest.mark.parametrize("port", ["serial", "rfc2217"])
def test_a_plug_that_is_pulled_anywhere_leaves_work_for_a_second_run_and_one_identity(tmp_path, port):
    """Cuts through the whole of it, of the board's power and of the setup itself."""
    whole = Bench(tmp_path / "whole").plug_in()
    began_s = time.monotonic()
    assert whole.setup(port)["is_well"]
    took_s = time.monotonic() - began_s
    whole.pull()
    for cut in range(1, 9):
        bench = Bench(tmp_path / f"cut-{cut}", data=tmp_path / f"data-{cut}").plug_in()
        shutil.copytree(whole.data / "builds", bench.data / "builds", dirs_exist_ok=True)
        try:
            first = bench.begin(port)
            time.sleep(took_s * cut / 9)
            bench.pull()
            if cut % 2:
                first.kill()
            first.communicate(timeout=WITHIN_S)
            bench.plug_in("--as-is")
            report = bench.setup(port)
            assert report["is_well"], (cut, report)
            assert bench.issued() == [report["node"]], cut
        finally:
            bench.pull()


@NIGHTLY
def test_ten_boards_at_once_are_done_in_four_minutes(tmp_path):
    data = tmp_path / "data"
    benches = [Bench(tmp_path / f"board-{seed}", seed=seed, data=data) for seed in range(1, 11)]
    try:
        for bench in benches:
            bench.plug_in()
        began_s = time.monotonic()
        running = [bench.begin("rfc2217") for bench in benches]
        reports = [json.loads(child.communicate(timeout=WITHIN_S)[0]) for child in running]
        took_s = time.monotonic() - began_s
        assert all(report["is_well"] for report in reports), reports
        assert len({report["node"] for report in reports}) == 10
        assert took_s < 240, took_s
    finally:
        for bench in benches:
            bench.pull()


def test_every_step_has_its_name():
    assert [name for name, _ in STEPS] == ["find", "build", "flash", "provision", "test", "label"]
