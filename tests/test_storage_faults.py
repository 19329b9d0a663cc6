"""The disk's faults, against the gateway as shipped: it starts, it measures, it calls nothing stored that is not.

Each test has a section in `docs/runbook-gateway.md`.
"""

import contextlib
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from bega_protocols import senml
from tests.conftest import CountingSensor

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = {window_s}
[uplink]
brokers = ["{broker}"]
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.001
"""
NOWHERE = "mqtt://127.0.0.1:1"


class Disk:
    """A small disk of its own, with ext4 on it."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.place = directory / "gateway"  # where GatewayProcess keeps its state
        self.place.mkdir()
        self._run("truncate", "-s", "24M", self._image)
        self._run("mkfs.ext4", "-qF", self._image)
        self._run("mount", "-o", "loop,noatime", self._image, self.place)

    def fill(self) -> None:
        """Leave no room for anybody."""
        with (self.place / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        (self.place / "ballast").unlink()

    def turn(self, mode: str) -> None:
        """Make it "ro" or "rw"."""
        if mode == "ro":  # as the kernel does after an error: what is open for writing does not prevent it
            self._run("mount", "-o", "remount,abort", self.place, fails=True)
        self._run("mount", "-o", f"remount,{mode}", self.place, fails=True)

    def close(self) -> None:
        self._run("umount", self.place)

    def _run(self, *command: object, fails: bool = False) -> None:
        told = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert fails or told.returncode == 0, told.stderr


@pytest.fixture
def disk(tmp_path):
    try:
        small = Disk(tmp_path)
    except (AssertionError, OSError) as error:
        pytest.skip(f"a disk of its own cannot be mounted here: {error}")
    yield small
    small.close()


@pytest.fixture
def quick_gateway(tmp_path, make_gateway):
    """One that stores fifty times a second: its journal, which has its room beforehand, is full so much sooner."""
    with contextlib.closing(CountingSensor(tmp_path, per_s=100)) as sensor:
        yield make_gateway(CONFIGURATION.format(broker=NOWHERE, port=sensor.port, window_s=0.02))


@pytest.fixture
def gateway(sensor, make_gateway):
    """A gateway without a broker: what it reads is in its spool, or lost."""
    return make_gateway(CONFIGURATION.format(broker=NOWHERE, port=sensor.port, window_s=0.1))


def stored(gateway) -> list[tuple[int, int]]:
    """Return (boot, seq) of what another process sees in the spool."""
    uri = f"file:{gateway.state}/spool.db?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        payloads = database.execute("SELECT payload FROM outbox ORDER BY id").fetchall()
    records = [senml.decode(payload) for (payload,) in payloads]
    return [(record.boot, record.seq) for record in records]


def seqs(gateway) -> list[int]:
    return [seq for _, seq in stored(gateway)]


def without_holes(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# ------------------------------------------------------------------ a full disk


@pytest.mark.slow
def test_full_disk_costs_nothing_while_it_is_full_and_everything_is_stored_when_it_is_not(
    disk, quick_gateway, eventually
):
    gateway = quick_gateway
    gateway.start()
    eventually(lambda: len(stored(gateway)) > 10, "it stores")
    disk.fill()
    eventually(lambda: "spool cannot store" in gateway.log.read_text(), "its journal is full too, it says so", 90)
    time.sleep(2)
    disk.make_room()
    eventually(lambda: "spool stores again" in gateway.log.read_text(), "it says so once it is over")
    before = len(stored(gateway))
    eventually(lambda: len(stored(gateway)) > before + 20, "it goes on")
    assert gateway.stop() == 0
    assert without_holes(seqs(gateway)) and seqs(gateway)[0] == 1
    assert gateway.log.read_text().count("spool cannot store") == 1


def test_disk_that_is_full_at_the_start_does_not_prevent_it(disk, gateway, eventually):
    disk.fill()
    gateway.start()
    time.sleep(2)
    assert "spool cannot store, what comes waits in memory" in gateway.log.read_text()
    disk.make_room()
    eventually(lambda: "spool stores again" in gateway.log.read_text(), "it says so")
    eventually(lambda: len(stored(gateway)) > 60, "what was measured meanwhile is stored")
    assert gateway.stop() == 0
    assert without_holes(seqs(gateway)) and seqs(gateway)[0] == 1


# ------------------------------------------------------------------ a disk that can only be read


def test_disk_that_turns_read_only_costs_nothing_that_was_stored_and_records_wait_in_memory(
    disk, gateway, mosquitto, sensor, make_gateway, make_reader, eventually
):
    """What was stored is sent all the same; what is read meanwhile is lost at a power cut, and said."""
    gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, port=sensor.port, window_s=0.1))
    mosquitto.stop()
    gateway.start()
    eventually(lambda: len(stored(gateway)) > 40, "it stores")
    disk.turn("ro")
    eventually(lambda: "spool cannot store" in gateway.log.read_text(), "it says so")
    mosquitto.start()
    reader = make_reader(mosquitto.url)
    eventually(lambda: len(reader.identities()) > 40, "what was stored is sent")
    before = sensor.sent
    eventually(lambda: sensor.sent > before + 20, "it goes on reading")
    assert gateway.log.read_text().count("spool cannot store") == 1
    gateway.kill()


def test_disk_that_is_read_only_at_the_start_does_not_prevent_it_and_what_was_stored_is_sent(
    disk, sensor, mosquitto, make_gateway, make_reader, eventually
):
    gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, port=sensor.port, window_s=0.1))
    mosquitto.stop()
    gateway.start()
    first = gateway.boot
    eventually(lambda: len(stored(gateway)) > 10, "it stores")
    assert gateway.stop() == 0, "in order: no journal lies beside the spool"
    before = set(stored(gateway))
    time.sleep(1.1)
    disk.turn("ro")
    mosquitto.start()
    reader = make_reader(mosquitto.url)
    gateway.start()
    assert gateway.boot > first
    log = gateway.log.read_text()
    assert "boot number cannot be kept, the clock stands in for it" in log
    assert "spool cannot store, what comes waits in memory" in log
    eventually(lambda: before <= {(boot, seq) for _, boot, seq in reader.identities()}, "what was stored is sent")
    second = gateway.boot
    sent = sensor.sent
    eventually(lambda: sensor.sent > sent + 20, "and something waits in memory")
    assert gateway.stop() == 0
    assert "records could not be stored and are lost" in gateway.log.read_text()
    gateway.start()
    assert gateway.boot > second, "no number is given twice"
    gateway.kill()


# ------------------------------------------------------------------ a disk that lies


def test_after_a_failed_fsync_nothing_is_called_stored_before_the_file_was_reopened_and_compared(
    gateway, eventually, tmp_path
):
    gateway.start()
    eventually(lambda: len(stored(gateway)) > 10, "it stores")
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    rule = "inject=fdatasync,fsync:error=EIO"
    command = ["strace", "-f", "-qq", "-o", tmp_path / "strace", "-e", "trace=fdatasync,fsync", "-e", rule]
    tracer = subprocess.Popen([*command, "-p", str(gateway._child.pid)], stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: "spool cannot store" in gateway.log.read_text() or tracer.poll() is not None, "it says so")
        if tracer.poll() is not None:
            pytest.skip(f"strace may not attach here: {tracer.stderr.read()}")
        time.sleep(2)
        assert "reopened and compared" not in gateway.log.read_text()
        assert "stores again" not in gateway.log.read_text()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
    eventually(lambda: "spool stores again" in gateway.log.read_text(), "it stores again")
    log = gateway.log.read_text()
    assert log.index("spool cannot store") < log.index("reopened and compared") < log.index("spool stores again")
    before = len(stored(gateway))
    eventually(lambda: len(stored(gateway)) > before + 20, "it goes on")
    assert gateway.stop() == 0
    numbers = seqs(gateway)
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), "none lost, none twice"


# ------------------------------------------------------------------ a damaged file


def test_damaged_database_at_the_start_is_salvaged_and_what_was_saved_is_sent(
    sensor, mosquitto, gateway, make_gateway, make_reader, eventually
):
    gateway.start()
    eventually(lambda: len(stored(gateway)) > 100, "it stores")
    assert gateway.stop() == 0
    before = set(stored(gateway))
    file = gateway.state / "spool.db"
    octets = bytearray(file.read_bytes())
    octets[8192:12288] = random.Random(3).randbytes(4096)
    file.write_bytes(octets)
    gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, port=sensor.port, window_s=0.1))
    reader = make_reader(mosquitto.url)
    gateway.start()
    log = gateway.log.read_text()
    assert "spool damaged, set aside and begun anew" in log
    saved = int(log.split("saved=")[1].split()[0])
    assert saved >= 0.6 * len(before)
    eventually(lambda: sum((boot, seq) in before for _, boot, seq in reader.identities()) >= saved, "it is sent")
    assert gateway.stop() == 0


def test_every_fault_has_a_section_in_the_runbook():
    runbook = (Path(__file__).parent.parent / "docs/runbook-gateway.md").read_text()
    titles = [line.removeprefix("## ") for line in runbook.splitlines() if line.startswith("## ")]
    faults = ("Full disk", "A full spool", "Read-only disk", "A disk that is full or read-only at the start")
    for fault in (*faults, "A failed fsync", "Damaged spool"):
        assert any(title.startswith(fault) for title in titles), fault
