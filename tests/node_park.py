"""Nodes for tests: the board as anyone starts it, and a gateway's side of a node's topics."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from bega.clock import wall_ms
from bega_protocols import senml
from bega_protocols.record import Record

MICROPYTHON = Path(sys.executable).with_name("micropython")
NODE = "air-7"
FAST = {"pms": {"every_s": 1}, "sht": {"every_s": 0.5}}


class GatewayDouble:
    """The gateway's side of a node's topics, by the book: the next seq of a boot is stored, and the head acknowledged.

    `mute` acknowledges nothing; `deaf` does not even store; `timeless` tells no time.
    """

    def __init__(self, url: str, node: str = NODE) -> None:
        self.mute = self.deaf = self.timeless = False
        self.records: list[Record] = []
        self.refused = 0
        self.statuses: list[dict[str, Any]] = []
        self.heads: dict[int, int] = {}
        self._node = node
        self._lock = threading.Lock()
        host, port = url.removeprefix("mqtt://").split(":")
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="gateway", clean_session=False)
        self._client.reconnect_delay_set(0.2, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"node/{node}/up", 1), (f"node/{node}/status", 1)]
        )
        self._client.on_message = self._take
        self._client.connect_async(host, int(port), keepalive=5)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, kind: str, payload: bytes) -> None:
        self._client.publish(f"node/{self._node}/{kind}", payload, qos=1)

    def acknowledge(self) -> None:
        self.publish("ack", json.dumps(sorted(self.heads.items())).encode())

    def of(self, device: str) -> list[Record]:
        return [record for record in list(self.records) if record.device == device]

    def identities(self) -> list[tuple[int, int]]:
        return [(record.boot, record.seq) for record in list(self.records)]

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        with self._lock:
            if message.topic.endswith("/status"):
                self._take_status(json.loads(message.payload))
            elif not self.deaf:
                self._take_record(senml.decode(message.payload))

    def _take_status(self, status: dict[str, Any]) -> None:
        self.statuses.append(status)
        for boot, first, _ in status.get("holds", []):
            self.heads[boot] = max(self.heads.get(boot, 0), first - 1)
        for boot, first, last in status.get("dropped", []):
            if self.heads.get(boot, 0) >= first - 1:
                self.heads[boot] = max(self.heads.get(boot, 0), last)
        if not self.timeless:
            self.publish("time", json.dumps({"unix_ms": wall_ms()}).encode())
        if not self.mute and self.heads:
            self.acknowledge()

    def _take_record(self, record: Record) -> None:
        assert record.source == self._node
        head = self.heads.get(record.boot, 0)
        if record.seq == head + 1:
            self.records.append(record)
            self.heads[record.boot] = record.seq
        elif record.seq > head:
            self.refused += 1
        if not self.mute:
            self.publish("ack", json.dumps([[record.boot, self.heads.get(record.boot, 0)]]).encode())


class Commander(GatewayDouble):
    """A gateway that hands commands to its node, and keeps what comes back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.results: list[dict[str, Any]] = []
        self._client.message_callback_add(f"node/{NODE}/result", self._take_result)
        self._client.subscribe(f"node/{NODE}/result", 1)

    def command(self, verb: str, id_: str, **keys: Any) -> None:
        asked = {"id": id_, "expires": int(time.time()) + 60, **keys}
        self.publish(f"cmd/{verb}", json.dumps(asked).encode())

    def result(self, id_: str) -> dict[str, Any] | None:
        return next((result for result in self.results if result["id"] == id_), None)

    def _take_result(self, client: object, userdata: object, message: Any) -> None:
        self.results.append(json.loads(message.payload))


class NodeProcess:
    """`bega sim board`, as anyone starts it."""

    def __init__(self, directory: Path, broker_port: int, host: str = "127.0.0.1", **config: Any) -> None:
        self.flash = directory / "flash"
        self._config = directory / "node.json"
        self._config.write_text(json.dumps({"node": NODE, "devices": FAST, **config}))
        self._ready = directory / "node.ready"
        self.log = directory / "node.log"
        self._broker = f"{host}:{broker_port}"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, comes_up: bool = True) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bega", "sim", "board", "--kind", "air", "--config", self._config]
        more = ["--flash", self.flash, "--broker", self._broker, "--ready-file", self._ready, "--verbose", *arguments]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen([*command, *more], stderr=log, start_new_session=True)
        deadline = time.monotonic() + 45
        while comes_up and not self._ready.exists():
            assert self._child.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        return self.log.read_text()

    def order(self, **order: Any) -> dict[str, Any]:
        """Tell the bench something; return the board's state."""
        with socket.socket(socket.AF_UNIX) as bench:
            bench.settimeout(20)
            bench.connect(json.loads(self._ready.read_text())["control"])
            bench.sendall(json.dumps(order).encode() + b"\n")
            answer: dict[str, Any] = json.loads(bench.makefile().readline())
        assert "error" not in answer, answer
        return answer

    def interpreter(self) -> int:
        """Return the process id of the interpreter that runs on the board."""
        pid = self._child.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return next(int(child) for child in children if b"rom.py" in Path(f"/proc/{child}/cmdline").read_bytes())

    def kill(self) -> None:
        """Cut the power: the board with everything on it."""
        os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait(10)

    def stop(self) -> int:
        if self._child is None or self._child.poll() is not None:
            return self._child.returncode if self._child else 0
        self._child.terminate()
        try:
            return self._child.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
