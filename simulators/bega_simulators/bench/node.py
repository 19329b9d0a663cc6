"""How soon a node publishes its first record: after power-on, and after deep sleep, with mutual TLS."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bega.broker import accepts_mqtt, free_ports
from bega.clock import wall_ms
from bega_protocols.errors import LineError
from bega_simulators.bench.figures import Findings, Goal, Row, spread
from bega_simulators.bench.programs import Process, Programs, eventually
from bega_simulators.bench.stage import Bench

NODE = "air-1"
AFTER_RESET = Goal("8 s", 8.0)
AFTER_SLEEP = Goal("3 s", 3.0)
LOOK_S = 0.01
RECORD_S = 30.0
SLEEP_S = 8  # from one wake to the next
AWAKE_FIRST_S = 60.0  # a node on a battery stays awake for half a minute after power-on
ISSUE_BROKER = ["issue", "broker-1", "--for", "broker", "--host", "localhost"]
BROKER = """
per_listener_settings true
user {user}
listener {plain} 127.0.0.1
allow_anonymous true
listener {secured} 127.0.0.1
require_certificate true
use_identity_as_username true
cafile {identity}/ca.pem
certfile {identity}/broker-1.pem
keyfile {identity}/broker-1.key
"""
ON_MAINS = {"devices": {"pms": {"every_s": 1}, "sht": {"every_s": 1}}}
ON_BATTERY = {"devices": {"sht": {}}, "battery": {"every_s": SLEEP_S, "send_every_s": SLEEP_S}}


def node(bench: Bench) -> Findings:
    """Cut the power of a virtual board some times, and let another wake from deep sleep; the clock is the real one."""
    times = bench.count(5, 1)
    with Programs(bench.directory / "node") as programs, _Broker(programs) as broker:
        bench.say(f"node: {times} power cuts")
        published, recorded = _after_resets(programs, broker, times)
        bench.say(f"node: {times} wakes from deep sleep")
        woken = _after_sleeps(programs, broker, times)
    rows = [
        _row("power-on to first publish", published, AFTER_RESET),
        _row("power-on to first new record, one each second", recorded, AFTER_RESET),
        _row("deep sleep to first new record", woken, AFTER_SLEEP),
    ]
    return Findings(rows, {"published_s": published, "recorded_s": recorded, "woken_s": woken})


def _row(what: str, found: list[float], goal: Goal) -> Row:
    return Row(what, f"{spread(found, '{:.2f}')} s, mutual TLS", goal, max(found))


def _after_resets(programs: Programs, broker: _Broker, times: int) -> tuple[list[float], list[float]]:
    """Return after how many seconds something, and a record of the new boot, came."""
    board = _Board(programs, broker, "reset", ON_MAINS)
    published, recorded = [], []
    for _ in range(times):
        boot = broker.waits_for_a_record()[0]
        broker.boot_s.clear()
        began_s = time.monotonic()
        board.order({"power_cut": True})  # the fifth reset in a row would be answered by safe mode
        while broker.waits_for_a_record()[0] <= boot:
            pass  # one that was on its way, or is offered again
        recorded.append(time.monotonic() - began_s)
        published.append(min(at_s for number, at_s in broker.boot_s.items() if number > boot) - began_s)
    board.end()
    return published, recorded


def _after_sleeps(programs: Programs, broker: _Broker, times: int) -> list[float]:
    """Return after how many seconds a record of that wake came."""
    board = _Board(programs, broker, "battery", ON_BATTERY)
    found: list[float] = []
    deadline_s = time.monotonic() + AWAKE_FIRST_S + 3 * SLEEP_S * times
    was_asleep = False
    while len(found) < times:
        if time.monotonic() > deadline_s:
            raise LineError("the node did not wake as often as it was to")
        is_asleep = board.order({})["asleep"]
        if was_asleep and not is_asleep:
            began_s, newest = time.monotonic(), broker.newest
            while broker.waits_for_a_record() <= newest:
                pass
            found.append(time.monotonic() - began_s)
        was_asleep = is_asleep
        time.sleep(LOOK_S)
    board.end()
    return found


class _Board:
    """`bega sim board`, as anyone starts it."""

    def __init__(self, programs: Programs, broker: _Broker, name: str, config: dict[str, Any]) -> None:
        directory = programs.directory / f"{name}-{time.monotonic_ns()}"
        directory.mkdir()
        tls = {"ca": "/tls/ca.der", "certificate": "/tls/node.der", "key": "/tls/node.key"}
        file, ready = directory / "node.json", directory / "ready"
        file.write_text(json.dumps({"node": NODE, "broker": {"tls": tls}, **config}), encoding="utf-8")
        command: list[str | Path] = [sys.executable, "-m", "bega", "sim", "board", "--kind", "air", "--config", file]
        command += ["--flash", directory / "flash", "--ready-file", ready, "--broker", f"localhost:{broker.secured}"]
        command += [f"--put={path}=/tls/{path.name}" for path in broker.node_files()]
        process = self._process = Process(command, directory / "log", programs.children)
        eventually(lambda: ready.exists() or process.ended, "the board is up")
        if process.ended:
            raise LineError(f"the board ended at once: see {process.log}")
        self._control = json.loads(ready.read_text(encoding="utf-8"))["control"]

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Tell its bench something; return its state."""
        with socket.socket(socket.AF_UNIX) as bench:
            bench.settimeout(5)
            bench.connect(self._control)
            bench.sendall(json.dumps(order).encode() + b"\n")
            state: dict[str, Any] = json.loads(bench.makefile().readline())
        return state

    def end(self) -> None:
        self._process.end()


class _Broker:
    """A mosquitto with an authority of its own, and a gateway that tells the time and acknowledges all it hears."""

    def __init__(self, programs: Programs) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise LineError("a node's broker with TLS is mosquitto, which is not installed")
        self._folder = programs.directory / "authority"
        self.newest = self._last = (0, 0)  # (boot, seq) of records
        self.boot_s: dict[int, float] = {}  # when each boot was heard of first
        self._heads: dict[int, int] = {}
        self._heard = threading.Condition()
        self._records = 0
        plain, self.secured = free_ports(2)
        for arguments in (
            ["init", "--name", "City"],
            ["issue", NODE],
            ["issue", "broker-1", "--for", "broker", "--host", "localhost"],
        ):
            command = [sys.executable, "-m", "bega", "ca", *arguments, "--ca", str(self._folder)]
            subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=True)
        file = programs.directory / "broker.conf"
        identity = self._folder / "identities/broker-1"
        file.write_text(
            BROKER.format(user=getpass.getuser(), plain=plain, secured=self.secured, identity=identity),
            encoding="utf-8",
        )
        self._process = Process([program, "-c", file], programs.directory / "broker.log", programs.children)
        eventually(lambda: self._process.ended or accepts_mqtt("127.0.0.1", plain), "mosquitto accepts connections")
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", plain)
        self._client.subscribe([(f"node/{NODE}/up", 1), (f"node/{NODE}/status", 1)])
        self._client.loop_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.loop_stop()
        self._process.end()

    def node_files(self) -> list[Path]:
        return sorted((self._folder / "identities" / NODE).iterdir())

    def waits_for_a_record(self) -> tuple[int, int]:
        """Return (boot, seq) of the next record; raises LineError if none comes."""
        with self._heard:
            before = self._records
            if not self._heard.wait_for(lambda: self._records > before, RECORD_S):
                raise LineError(f"no record within {RECORD_S:g} s")
            return self._last

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        now_s = time.monotonic()
        if message.topic.endswith("/up"):
            head = json.loads(message.payload)[0]
            self._last = head["boot"], head["seq"]
            self.newest = max(self.newest, self._last)
            self._heads[head["boot"]] = max(self._heads.get(head["boot"], 0), head["seq"])
            self.boot_s.setdefault(head["boot"], now_s)
            with self._heard:
                self._records += 1
                self._heard.notify_all()
        else:
            self.boot_s.setdefault(json.loads(message.payload).get("boot", 0), now_s)
            client.publish(f"node/{NODE}/time", json.dumps({"unix_ms": wall_ms()}))
        client.publish(f"node/{NODE}/ack", json.dumps(sorted(self._heads.items())), qos=1)
