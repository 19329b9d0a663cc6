"""The whole corner with one command: every source to the broker, public ones to the feed; then nothing is left."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from bega.mqtt import connect
from bega_protocols import senml

pytestmark = pytest.mark.slow
BEGA = [sys.executable, "-m", "bega"]
SOURCES = {
    ("gw-corner", "roadside-air"): "pm2_5",
    ("gw-corner", "household"): "active_power_import",
    ("gw-corner", "cellar-1"): "active_power",
    ("gw-corner", "cellar-2"): "active_power",
    ("gw-corner", "cellar-3"): "active_power",
    ("gw-corner", "city-hall"): "active_energy_import",
    ("gw-corner", "park-1"): "temperature",
    ("gw-corner", "park-2"): "temperature",
    ("gw-corner", "air"): "pm_index",
    ("air-1", "pms"): "pm2_5",
    ("air-1", "sht"): "humidity",
    ("meter-1", "main"): "active_power_import",
    ("meter-1", "flat"): "active_energy_import",
}
PUBLIC = {"roadside-air", "park-1", "park-2", "air", "pms", "sht"}


class Demo:
    """One run of the command, seen from outside."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.directory = directory
        self.ready_file = directory / "up.json"
        self.output = directory / "output"
        self.directory.mkdir()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*BEGA, "demo", "--dir", str(directory), "--ready-file", str(self.ready_file), *options],
                stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment, start_new_session=True,
            )  # fmt: skip

    def ready(self):
        deadline = time.monotonic() + 60
        while not self.ready_file.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)
        return json.loads(self.ready_file.read_text())

    def left(self) -> list[str]:
        """Return what still runs of all that this demo started, by its environment."""
        mark = f"BEGA_DEMO={self.directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def end(self, how: signal.Signals) -> float:
        """Return the seconds that the demo took to end, everything included."""
        began = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(20)
        return time.monotonic() - began


@pytest.fixture
def demo(tmp_path):
    started = []

    def start(*options, **environment):
        started.append(Demo(tmp_path / "d", *options, **environment))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.kill()  # a test has failed; its keeper ends the rest
            run.process.wait(5)


def hear(broker: str, wanted: dict[tuple[str, str], str], timeout_s: float) -> dict[tuple[str, str], set[str]]:
    """Return the quantities that each (source, device) sent, once every wanted one was among them."""
    heard: dict[tuple[str, str], set[str]] = {}

    async def listen() -> None:
        async with connect(broker, "test-reader", keep=False) as session:
            await session.subscribe("city/+/+/+/+/up")
            async for message in session.messages():
                record = senml.decode(message.payload)
                assert message.topic == f"city/timisoara/gw-corner/{record.source}/{record.device}/up"
                quantities = heard.setdefault((record.source, record.device), set())
                quantities |= {reading.quantity for reading in record.readings}
                if all(quantity in heard.get(who, ()) for who, quantity in wanted.items()):
                    return

    async def within() -> None:
        async with asyncio.timeout(timeout_s):
            await listen()

    try:
        asyncio.run(within())
    except TimeoutError:
        silent = {who for who, quantity in wanted.items() if quantity not in heard.get(who, ())}
        pytest.fail(f"not heard within {timeout_s} s: {silent}")
    return heard


def get(address: str) -> bytes:
    with urlopen(address, timeout=10) as answer:
        assert answer.status == 200
        return answer.read()


def test_every_source_reaches_the_broker_and_only_public_ones_the_feed(demo):
    run = demo()
    up = run.ready()
    assert up["missing"] == {}
    hear(up["mqtt"], SOURCES, 60)
    latest = json.loads(get(f"{up['gateway']}/public/v1/latest"))["readings"]
    assert {reading["device"] for reading in latest} == PUBLIC
    day = json.loads(get(f"{up['gateway']}/public/v1/series?quantity=pm2_5&hours=24&device=roadside-air"))
    points = day["series"][0]["points"]
    assert len(points) > 280, "24 hours at five minutes"
    assert points[0][3], "history of the town is marked as simulated"
    assert not any(reading["simulated"] for reading in latest if reading["device"] == "roadside-air")
    assert b"<html" in get(up["kiosk"])
    assert run.end(signal.SIGINT) < 3.5
    assert run.process.returncode == 0
    assert run.left() == []


def test_demo_tells_of_a_process_that_is_gone_and_killed_itself_leaves_none(demo):
    run = demo()
    up = run.ready()
    assert len(run.left()) > 5
    os.kill(up["pids"]["kiosk"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while "kiosk: ended by signal 9" not in run.output.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "kiosk: ended by signal 9" in run.output.read_text()
    run.process.kill()
    run.process.wait(5)
    deadline = time.monotonic() + 6
    while run.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.left() == []


def test_demo_without_micropython_and_dbus_says_so_and_runs_on(demo):
    run = demo("--for", "15", PATH="/nonexistent", BEGA_MICROPYTHON="/nonexistent/micropython")
    up = run.ready()
    assert set(up["missing"]) == {"node", "meter", "park"}
    rest = {who: quantity for who, quantity in SOURCES.items() if who[0] == "gw-corner" and "park" not in who[1]}
    hear(up["mqtt"], rest, 14)
    run.process.wait(30)
    lines = run.output.read_text().splitlines()
    assert [line for line in lines if "dbus-daemon" in line and "apt" in line]
    assert [line for line in lines if "BEGA_MICROPYTHON=PATH" in line]
    assert run.process.returncode == 0
    assert run.left() == []


def test_demo_interrupted_while_it_comes_up_leaves_nothing(demo):
    run = demo()
    deadline = time.monotonic() + 20
    while not (run.directory / "corner.log").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert run.end(signal.SIGINT) < 3.5
    assert run.process.returncode == 0
    assert run.left() == []


def test_demo_whose_output_nobody_reads_ends_too(tmp_path):
    run = subprocess.Popen([*BEGA, "demo", "--dir", str(tmp_path / "d")], stdout=subprocess.PIPE)
    assert run.stdout and run.stdout.readline().startswith(b"The kiosk: http://")
    run.stdout.close()
    assert run.wait(10) == 0
