"""The processes of a bench: broker, meters, reader, floor, and the gateway by its own command. None is left behind."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bega.broker import EmbeddedBroker, accepts_mqtt, free_port
from bega_protocols.errors import LineError
from bega_simulators.bench.numbered import register_map
from bega_simulators.children import Children

LOOK_AGAIN_S = 0.05
UP_S, DOWN_S = 20.0, 10.0
MOSQUITTO_CONFIGURATION = """
listener {port} 127.0.0.1
user {user}
allow_anonymous true
persistence true
persistence_location {directory}/
autosave_on_changes {at_each_change}
autosave_interval 1
max_queued_messages 100000
max_inflight_messages 100
"""


def eventually(holds: Callable[[], object], what: str, timeout_s: float = UP_S) -> None:
    """Wait until `holds()`; raises LineError that says `what` did not come true."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise LineError(f"not within {timeout_s:g} s: {what}")
        time.sleep(LOOK_AGAIN_S)


class Process:
    """One child that leads a session of its own; its standard error goes to a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, children: Children, **environment: str) -> None:
        with log.open("ab") as errors:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        self._children = children
        self.log = log
        self.pid = self._child.pid
        children.keep(self.pid)

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    def hear(self) -> dict[str, Any]:
        """Return the next line that it says; raises LineError if it ended instead."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            raise LineError(f"a process of the bench ended: see {self.log}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, verb: str, **facts: Any) -> dict[str, Any]:
        """Return its answer to `verb`."""
        assert self._child.stdin
        self._child.stdin.write(json.dumps({"verb": verb, **facts}).encode() + b"\n")
        self._child.stdin.flush()
        return self.hear()

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end, by force if it takes too long."""
        if self.ended:
            return
        self._child.send_signal(number)
        try:
            self._child.wait(DOWN_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._children.release(self.pid)


class Mosquitto:
    """A mosquitto with what docs/gateway.md asks of a durable broker.

    at_each_change: it writes its whole state to disk at each change, which holds it at some 600 messages a second
    (docs/decisions/016); else once a second.
    """

    name = "mosquitto"

    def __init__(self, directory: Path, program: str, children: Children, at_each_change: bool, port: int) -> None:
        self._directory = directory
        self._program = program
        self._children = children
        self._process: Process | None = None
        self.port = port
        directory.mkdir(parents=True)
        text = MOSQUITTO_CONFIGURATION.format(
            port=self.port, directory=directory, user=getpass.getuser(), at_each_change=str(at_each_change).lower()
        )
        (directory / "mosquitto.conf").write_text(text, encoding="utf-8")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and not self._process.ended else None

    def start(self) -> None:
        command = [self._program, "-c", str(self._directory / "mosquitto.conf")]
        process = self._process = Process(command, self._directory / "log", self._children)
        eventually(lambda: process.ended or accepts_mqtt("127.0.0.1", self.port), "mosquitto accepts connections")
        if process.ended:
            raise LineError(f"mosquitto ended at once: see {process.log}")

    def stop(self) -> None:
        if self._process:
            self._process.end()


class Embedded(EmbeddedBroker):
    """The broker that Bega brings along, where there is no mosquitto."""

    name = "nats-server"


def make_broker(directory: Path, children: Children, at_each_change: bool, port: int) -> Mosquitto | Embedded:
    """Return mosquitto where it is installed, else the embedded broker; not yet started."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    return Mosquitto(directory, program, children, at_each_change, port) if program else Embedded(directory, port)


class Gateway:
    """`bega gateway run --config`, as shipped; it may be killed and started again on the same state."""

    def __init__(self, directory: Path, configuration: str, floats: int, children: Children) -> None:
        self._children = children
        self._config = directory / "gateway.toml"
        self._ready = directory / "gateway.ready"
        self._process: Process | None = None
        self.directory = directory
        self.log = directory / "gateway.log"
        self.facts: dict[str, Any] = {}  # of its ready file: boot, addresses of feed and metrics
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "numbered.toml").write_text(register_map(floats), encoding="utf-8")
        self._config.write_text(configuration, encoding="utf-8")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self, **environment: str) -> int:
        """Start it, wait until it says that it is up; return its boot number."""
        self._ready.unlink(missing_ok=True)
        command = ["gateway", "run", "--config", str(self._config), "--ready-file", str(self._ready)]
        self._process = Process([sys.executable, "-m", "bega", *command], self.log, self._children, **environment)
        process = self._process
        eventually(lambda: self._ready.exists() or process.ended, "the gateway is up")
        if process.ended:
            raise LineError(f"the gateway ended at once: {self.log.read_text(encoding='utf-8')[-400:]}")
        self.facts = json.loads(self._ready.read_text(encoding="utf-8"))
        boot: int = self.facts["boot"]
        return boot

    def stop(self) -> None:
        if self._process:
            self._process.end()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process:
            self._process.end(signal.SIGKILL)


def gateway_configuration(
    directory: Path, broker_ports: Sequence[int], lines: str, devices: str, window_s: float, name: str = "gw-bench"
) -> str:
    """Return the TOML of a gateway whose state is under `directory`."""
    brokers = ", ".join(f'"mqtt://127.0.0.1:{port}"' for port in broker_ports)
    head = f'[gateway]\nname = "{name}"\ncity = "bench"\nstate_dir = "{directory / "state"}"\n'
    return f"{head}commit_window_s = {window_s}\n[uplink]\nbrokers = [{brokers}]\n{lines}{devices}"


def tcp_lines(ports: Sequence[int]) -> str:
    """Return one line for each meter, line l0 for the first port."""
    return "".join(
        f'[lines.l{number}]\nkind = "modbus-tcp"\nhost = "127.0.0.1"\nport = {port}\n'
        for number, port in enumerate(ports)
    )


def devices(lines: Sequence[str], every_s: float, addresses: Sequence[int] | None = None) -> str:
    """Return a meter m0, m1, ... for each entry of `lines` (the line that it hangs on)."""
    units = addresses or [1] * len(lines)
    return "".join(
        f'[devices.m{number}]\nline = "{line}"\ndriver = "modbus_meter"\nevery_s = {every_s}\n'
        f'settings = {{ profile = "numbered.toml", address = {unit} }}\n'
        for number, (line, unit) in enumerate(zip(lines, units, strict=True))
    )


class Programs:
    """Starts them, and ends all of them with the block; each stage of a bench has one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.children = Children(directory)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.children.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def broker(self, at_each_change: bool = False, port: int = 0) -> Mosquitto | Embedded:
        """Start a broker.

        port: who starts several at the same moment finds their ports first, or two would find the same one free.
        """
        broker = make_broker(self.directory / "broker", self.children, at_each_change, port or free_port())
        broker.start()
        self._stack.callback(broker.stop)
        return broker

    def farm(self, meters: int, floats: int, keep_times: bool = False) -> tuple[Process, list[int]]:
        """Start meters; return the process and their ports."""
        more = ["--keep-times"] if keep_times else []
        farm = self.module("farm", "--meters", str(meters), "--floats", str(floats), *more)
        return farm, farm.hear()["ports"]

    def subscriber(self, port: int, floats: int, keep_stamps: bool = False, computes: bool = False) -> Process:
        """Start whoever reads at the broker."""
        more = ["--keep-stamps"] * keep_stamps + ["--computes"] * computes
        subscriber = self.module("subscriber", "--port", str(port), "--floats", str(floats), *more)
        if "error" in subscriber.hear():
            raise LineError("the bench's reader cannot reach the broker")
        return subscriber

    def module(self, name: str, *arguments: str) -> Process:
        """Start a module of this package as a process."""
        command = [sys.executable, "-m", f"bega_simulators.bench.{name}", *arguments]
        process = Process(command, self.directory / f"{name}.log", self.children)
        self._stack.callback(process.end)
        return process

    def gateway(self, name: str, configuration: Callable[[Path], str], floats: int) -> Gateway:
        """Make a gateway in a directory of its own; it is not started."""
        directory = self.directory / name
        gateway = Gateway(directory, configuration(directory), floats, self.children)
        self._stack.callback(gateway.stop)
        return gateway


def remove(directory: Path) -> None:
    """Remove what a bench has written."""
    shutil.rmtree(directory, ignore_errors=True)
