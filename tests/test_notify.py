"""What is told to systemd, read from a real datagram socket; and the watchdog of a real gateway that hangs or works."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bega.broker import free_port
from bega.notify import Notifier, watchdog_s

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = 0.05
[uplink]
brokers = ["{broker}"]
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
every_s = 0.1
"""
MODBUS = """
[lines.hall]
kind = "modbus-tcp"
host = "127.0.0.1"
port = {port}
[devices.hall]
line = "hall"
driver = "modbus_meter"
every_s = 0.5
settings = {{ profile = "sdm630", address = 1 }}
"""
WATCHDOG_S = 2.0


class ServiceManager:
    """The end of the socket where systemd sits: every message, with the time at which it came."""

    def __init__(self, address: str) -> None:
        self.heard: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self._socket.close()

    def lines(self) -> list[str]:
        return [line for _, message in list(self.heard) for line in message.split("\n")]

    def fed(self, since: float = 0.0) -> int:
        return sum("WATCHDOG=1" in message for moment, message in list(self.heard) if moment >= since)

    def _listen(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                message = self._socket.recv(4096).decode()
                self.heard.append((time.monotonic(), message))


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ServiceManager, str]]:
    address = f"{tmp_path}/notify" if request.param == "a path" else f"@bega-test-{os.getpid()}-{tmp_path.name}"
    made = ServiceManager(address)
    yield made, address
    made.close()


@pytest.fixture
def run(tmp_path: Path, sensor) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], ServiceManager, Path]]]:
    """Run a gateway under a service manager, with some lines of Python before it."""
    with contextlib.ExitStack() as stack:

        def begin(
            broker: str, before: str = "", more: str = ""
        ) -> tuple[subprocess.Popen[bytes], ServiceManager, Path]:
            file, log = tmp_path / "gateway.toml", tmp_path / "log"
            file.write_text(CONFIGURATION.format(broker=broker, port=sensor.port) + more)
            manager = ServiceManager(f"{tmp_path}/notify")
            stack.callback(manager.close)
            code = before + "\nimport sys\nfrom bega.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
            command = [sys.executable, "-c", code, "gateway", "run", "--config", str(file)]
            environment = {"NOTIFY_SOCKET": f"{tmp_path}/notify", "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
            with log.open("wb") as said:
                child = subprocess.Popen(
                    [*command, "--set", f"gateway.state_dir={tmp_path}/state"],
                    stderr=said,
                    env={**os.environ, **environment},
                )
            stack.callback(child.wait, 10)
            stack.callback(child.kill)
            return child, manager, log

        yield begin


# ------------------------------------------------------------------ the datagram


def test_assignments_arrive_as_one_message(manager, eventually):
    listening, address = manager
    notifier = Notifier(address)
    notifier.tell("READY=1", "STATUS=12 of 13 devices heard")
    eventually(lambda: listening.heard, "the message arrives")
    assert listening.heard[0][1] == "READY=1\nSTATUS=12 of 13 devices heard"
    notifier.close()


@pytest.mark.parametrize("address", [None, "", "/no/such/socket", "@nobody-listens-here", "vsock:2:1", "nonsense"])
def test_a_manager_that_is_not_there_is_no_trouble(address):
    notifier = Notifier(address)
    notifier.tell("READY=1")
    notifier.close()


def test_a_manager_that_does_not_read_does_not_hold_us_up(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(f"{tmp_path}/notify")
        notifier = Notifier(f"{tmp_path}/notify")
        for _ in range(2_000):
            notifier.tell("WATCHDOG=1")
        notifier.close()


@pytest.mark.parametrize(
    ("environment", "period_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_watchdog_is_the_one_that_watches_us(environment, period_s):
    assert watchdog_s(environment) == period_s


# ------------------------------------------------------------------ a gateway under a manager


def test_gateway_says_that_it_is_ready_how_it_is_and_that_it_stops(run, mosquitto, eventually):
    child, manager, log = run(mosquitto.url)
    eventually(lambda: "READY=1" in manager.lines(), "it is ready")
    eventually(lambda: "STATUS=1 of 1 heard, 0 waiting, uplink up" in manager.lines(), "its status is told")
    eventually(lambda: manager.fed() >= 3, "the watchdog is fed")
    child.terminate()
    assert child.wait(5) == 0, log.read_text()
    assert manager.lines()[-1] == "STOPPING=1"


def test_a_reload_is_told_with_its_time_and_that_it_is_over(run, mosquitto, eventually):
    child, manager, _ = run(mosquitto.url)
    eventually(lambda: "READY=1" in manager.lines(), "it is ready")
    before_us = time.monotonic_ns() // 1000
    child.send_signal(signal.SIGHUP)
    eventually(lambda: manager.lines().count("READY=1") == 2, "the reload is over")
    (told,) = [message for _, message in manager.heard if "RELOADING=1" in message]
    began, moment = told.split("\n")
    assert began == "RELOADING=1"
    # The clock has whole milliseconds, rounded down.
    assert before_us - 1000 <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert manager.lines().index("RELOADING=1") < len(manager.lines()) - manager.lines()[::-1].index("READY=1")


@pytest.mark.slow
def test_gateway_without_any_broker_tries_on_and_is_left_alone(run, eventually):
    _, manager, log = run(f"mqtt://127.0.0.1:{free_port()}")
    eventually(lambda: any(line.endswith("uplink down") for line in manager.lines()), "the status says so")
    begun = time.monotonic()
    time.sleep(3 * WATCHDOG_S)
    assert manager.fed(since=begun) >= 6, log.read_text()


@pytest.mark.slow
def test_a_meter_that_is_not_there_is_tried_again_and_that_is_no_hang(run, mosquitto, eventually):
    impatient = "from bega_gateway import build\nbuild.LINE_PATIENCE_S, build.PAUSES_OF_SILENT = 4.0, 0"
    _, manager, log = run(mosquitto.url, impatient, MODBUS.format(port=free_port()))
    eventually(lambda: "line down line=hall" in log.read_text(), "it is said")
    begun = time.monotonic()
    time.sleep(3 * WATCHDOG_S)
    assert manager.fed(begun) >= 6, log.read_text()
    assert "stuck" not in log.read_text()


@pytest.mark.slow
def test_a_broker_that_went_dark_is_no_reason_to_be_restarted(run, mosquitto, make_relay, eventually):
    """The relay keeps the sockets open and passes nothing: the publisher gives up, tries again, and that is work."""
    relay = make_relay(mosquitto.port)
    _, manager, log = run(relay.url)
    eventually(lambda: any(line.endswith("uplink up") for line in manager.lines()), "it sends")
    relay.stall()
    begun = time.monotonic()
    time.sleep(14)
    assert manager.fed(since=begun + 9) >= 6, log.read_text()
    assert "uplink down" in log.read_text()


HUNG_DISK = """
import threading
from bega_gateway import supervision
supervision.STORE_PATIENCE_S = 1.0
from bega.outbox.spool_file import SpoolFile
commit, calls = SpoolFile.commit, []

def hanging(*given):
    calls.append(1)
    if len(calls) > 20:
        threading.Event().wait(60)
    return commit(*given)

SpoolFile.commit = hanging
"""
REFUSING_DISK = """
import sqlite3
from bega_gateway import supervision
supervision.STORE_PATIENCE_S = 1.0
from bega.outbox import spool
spool.RETRY_S = 0.1
from bega.outbox.spool_file import SpoolFile
commit, calls = SpoolFile.commit, []

def refusing(*given):
    calls.append(1)
    if len(calls) > 20:
        raise sqlite3.OperationalError("disk I/O error")
    return commit(*given)

SpoolFile.commit = refusing
"""
HUNG_PUBLISHER = """
import asyncio
from bega_gateway import supervision
supervision.UPLINK_PATIENCE_S = 1.0
from bega.outbox.publish import Publisher

async def hanging(self, session):
    await asyncio.sleep(3600)

Publisher._send_all = hanging
"""
HUNG_LINE = """
import asyncio
from bega_gateway import build
build.LINE_PATIENCE_S, build.PAUSES_OF_SILENT = 1.0, 0
from bega_gateway.lines.modbus_bus import TcpBus

async def hanging(self, *given):
    await asyncio.sleep(3600)

TcpBus.exchange = hanging
"""
BLOCKED_LOOP = """
import asyncio, time
from bega_gateway.lines.window import Window

async def blocking(self):
    await asyncio.sleep(2)
    time.sleep(60)

Window.run = blocking
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hang", "duty"),
    [
        pytest.param(HUNG_DISK, "spool", id="a commit that never ends"),
        pytest.param(HUNG_PUBLISHER, "uplink", id="a publisher that is connected and sends nothing"),
        pytest.param(HUNG_LINE, "lines.hall", id="a question that never ends"),
        pytest.param(BLOCKED_LOOP, "", id="a blocked loop"),
    ],
)
def test_a_gateway_that_hangs_is_fed_no_more(hang, duty, run, mosquitto, eventually):
    modbus = MODBUS.format(port=mosquitto.port) if duty == "lines.hall" else ""
    child, manager, log = run(mosquitto.url, hang, modbus)
    eventually(lambda: manager.fed() >= 2, "at first it is fed")
    eventually(
        lambda: (
            time.monotonic() - manager.heard[-1][0] > 1.5 * WATCHDOG_S or f"STATUS=stuck: {duty}" in manager.lines()
        ),
        "it hangs",
    )
    since = time.monotonic()
    time.sleep(1.5 * WATCHDOG_S)
    assert manager.fed(since) == 0
    assert child.poll() is None, "it is systemd's to end it"
    if duty:
        assert log.read_text().count(f"duty stuck, the watchdog is fed no more duty={duty}") == 1


@pytest.mark.slow
def test_a_disk_that_refuses_is_tried_again_and_that_is_no_hang(run, mosquitto, eventually):
    """A restart would lose what waits in memory, and could do no more than try again."""
    _, manager, log = run(mosquitto.url, REFUSING_DISK)
    eventually(lambda: "spool cannot store" in log.read_text(), "the disk refuses")
    begun = time.monotonic()
    time.sleep(2 * WATCHDOG_S)
    assert manager.fed(begun) >= 4
    assert "stuck" not in log.read_text()
