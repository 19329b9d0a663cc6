"""Hardware in the loop: the tests name roles; this file fills them, from simulators or from a real bench.

`pytest hil_tests` or `--bench=sim`: every role is simulated, each process started by its own command.
`--bench=my-bench.toml`: a bench with real devices and a gateway that runs; `hil_tests/bench.example.toml` explains it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as paho
import pytest

from bega.broker import EmbeddedBroker
from bega_protocols import senml
from bega_protocols.record import Record

GATEWAY_TOML = """
[gateway]
name = "gw-bench"
city = "bench"
commit_window_s = 0.1
[uplink]
brokers = ["{broker}"]
[lines.cellar]
kind = "modbus-rtu"
port = "{cellar}"
timeout_s = 0.5
[lines.nodes]
kind = "mqtt"
broker = "{broker}"
[nodes.air-1]
line = "nodes"
"""
BUS_DEVICE_TOML = """
[devices.{name}]
line = "cellar"
driver = "modbus_meter"
every_s = 1
settings = {{ profile = "sdm630", address = {address} }}
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bench", default="sim", metavar="sim|FILE.toml", help="who plays the roles of hil_tests")


class Gateway:
    """The role `gateway`: whoever publishes the bench's records. Seen from outside, at its broker."""

    def __init__(self, broker: str) -> None:
        self._records: list[Record] = []
        host, _, port = broker.removeprefix("mqtt://").partition(":")
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("city/+/+/+/+/up", 1)
        self._client.on_message = lambda client, data, message: self._records.append(senml.decode(message.payload))
        self._client.connect(host, int(port or 1883), keepalive=10)
        self._client.loop_start()

    def records(self, *, source: str | None = None, device: str | None = None) -> list[Record]:
        """Return what came so far, of one source or device if asked, each record once."""
        seen = {(record.source, record.boot, record.seq): record for record in list(self._records)}
        return [
            record for record in seen.values() if source in (None, record.source) and device in (None, record.device)
        ]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class AirNode(Protocol):
    """The role `air_node`: a node with a particulate sensor."""

    name: str

    def restart(self) -> None:
        """Cut its power and give it back."""


class Bus(Protocol):
    """The role `bus`: several meters on one pair of wires, one of which can be made to fall silent."""

    devices: list[str]
    mortal: str
    every_s: float

    def silence(self) -> None:
        """Let `mortal` answer nobody."""

    def restore(self) -> None:
        """Let it answer again."""


class Bench(Protocol):
    """Everything that the roles are played by."""

    gateway: Gateway
    air_node: AirNode
    bus: Bus


class RealBench:
    """Devices on a table: what a test wants done to them is done by the commands that the bench's file names."""

    def __init__(self, file: Path) -> None:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        self.gateway = Gateway(tables["gateway"]["broker"])
        self.air_node = RealAirNode(tables["air_node"])
        self.bus = RealBus(tables["bus"])


class RealAirNode:
    def __init__(self, table: dict[str, Any]) -> None:
        self.name = table["name"]
        self._power_off, self._power_on = table["power_off"], table["power_on"]

    def restart(self) -> None:
        subprocess.run(shlex.split(self._power_off), check=True)
        time.sleep(2)
        subprocess.run(shlex.split(self._power_on), check=True)


class RealBus:
    def __init__(self, table: dict[str, Any]) -> None:
        self.devices, self.mortal, self.every_s = table["devices"], table["mortal"], table["every_s"]
        self._silence, self._restore = table["silence"], table["restore"]

    def silence(self) -> None:
        subprocess.run(shlex.split(self._silence), check=True)

    def restore(self) -> None:
        subprocess.run(shlex.split(self._restore), check=True)


class SimBench:
    """All roles simulated; each process by its own command, and the gateway as shipped."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        broker = stack.enter_context(EmbeddedBroker(directory / "broker"))
        corner = Process(directory, stack, "corner", "sim", "corner", "--seed", "7")
        address = broker.url.removeprefix("mqtt://")
        flash = directory / "air-1.flash"
        board = Process(
            directory, stack, "board", "sim", "board", "--kind", "air", "--broker", address, "--flash", str(flash)
        )
        devices = ["cellar-1", "cellar-2", "cellar-3"]
        text = GATEWAY_TOML.format(broker=broker.url, cellar=corner.facts["cellar"])
        text += "".join(BUS_DEVICE_TOML.format(name=name, address=name[-1]) for name in devices)
        configuration = directory / "gateway.toml"
        configuration.write_text(text)
        state = f"gateway.state_dir={directory / 'gateway'}"
        self.gateway = Gateway(broker.url)
        stack.callback(self.gateway.close)
        Process(directory, stack, "gateway", "gateway", "run", "--config", str(configuration), "--set", state)
        self.air_node = SimAirNode(board)
        self.bus = SimBus(corner, devices)


class Process:
    """One of our commands, from its start until it says that it is up."""

    def __init__(self, directory: Path, stack: ExitStack, name: str, *command: str) -> None:
        self._command = [sys.executable, "-m", "bega", *command]
        self._ready = directory / f"{name}.ready"
        self._log = directory / f"{name}.log"
        self.facts: dict[str, Any] = {}
        self.start()
        stack.callback(self.stop)

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self._command, "--ready-file", str(self._ready)], stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while not self._ready.exists():
            assert self._child.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        self.facts = json.loads(self._ready.read_text())

    def say(self, line: str) -> None:
        assert self._child.stdin
        self._child.stdin.write(line.encode() + b"\n")
        self._child.stdin.flush()

    def stop(self) -> None:
        if self._child.poll() is None:
            self._child.terminate()
            self._child.wait(10)


class SimAirNode:
    def __init__(self, board: Process) -> None:
        self._board = board
        self.name = board.facts["node"]

    def restart(self) -> None:
        self._board.stop()
        self._board.start()


class SimBus:
    every_s = 1.0

    def __init__(self, corner: Process, devices: list[str]) -> None:
        self._corner = corner
        self.devices = devices
        self.mortal = devices[-1]

    def silence(self) -> None:
        self._corner.say(f"silence {self.mortal}")

    def restore(self) -> None:
        self._corner.say(f"restore {self.mortal}")


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    chosen = request.config.getoption("--bench")
    if chosen != "sim":
        yield RealBench(Path(chosen))
        return
    if "BEGA_MICROPYTHON" not in os.environ and not Path(sys.executable).with_name("micropython").exists():
        pytest.skip("no MicroPython for this machine: bring one as BEGA_MICROPYTHON=PATH")
    with ExitStack() as stack:
        yield SimBench(tmp_path_factory.mktemp("bench"), stack)


@pytest.fixture
def gateway(bench: Bench) -> Gateway:
    return bench.gateway


@pytest.fixture
def air_node(bench: Bench) -> AirNode:
    return bench.air_node


@pytest.fixture
def bus(bench: Bench) -> Bus:
    return bench.bus


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], str, float], None]:
    """Wait until something holds; fail with what did not come true."""

    def wait(holds: Callable[[], object], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            time.sleep(0.1)

    return wait
