"""Nodes by the book (docs/updates.md) on a broker, which take updates: many of them in one client."""

import base64
import hashlib
import json
import random
import struct
import threading
from typing import Any

import paho.mqtt.client as paho

from bega.update_bundle import unpack
from bega_protocols.update import read_manifest, why_not, why_unsigned

OLD = "1.2.3"
STATUS_EACH = 8  # turns: a gateway answers each status with the time, and a hundred a second would be its whole work


class NodeByTheBook:
    """One node: takes an update, loads it piece by piece, tries it, and confirms it or goes back."""

    def __init__(self, name: str, keys: bytes, *, crashes: bool = False, hardware: str = "esp32_devkitc") -> None:
        self.name = name
        self.crashes = crashes
        self.hardware = hardware
        self.firmware = OLD
        self.update: dict[str, Any] | None = None
        self.offers = 0
        self.trials = 0
        self.pieces = 0
        self.files: dict[str, bytes] = {}
        self._keys = keys
        self._failed = ""
        self._manifest: dict[str, Any] = {}
        self._payload = b""

    def status(self) -> bytes:
        said = {"firmware": self.firmware, "hardware": self.hardware, "update": self.update, "holds": [], "up_s": 1}
        return json.dumps(said).encode()

    def take(self, kind: str, payload: bytes) -> list[tuple[str, bytes]]:
        """Return what it says to a message."""
        if kind == "cmd/update":
            return self._offered(json.loads(payload))
        if kind == "cmd/rollback":
            return self._go_back(json.loads(payload))
        return self._loaded(payload) if kind == "piece" else []

    def again(self) -> list[tuple[str, bytes]]:
        """Return what it says after a while in which nothing came."""
        loads = self.update is not None and self.update["state"] == "loading"
        return [self._want()] if loads else []

    def _offered(self, asked: dict[str, Any]) -> list[tuple[str, bytes]]:
        self.offers += 1
        text = asked["manifest"].encode()
        manifest = read_manifest(text)
        facts = {"version": self.firmware, "hardware": self.hardware}
        why = why_unsigned(text, base64.b64decode(asked["signature"]), manifest["key"], self._keys)
        why = why or why_not(manifest, facts, self._failed, ["pms5003"], "broker")
        result = json.dumps({"id": asked["id"], "done": not why, "reason": why}).encode()
        if why:
            return [("result", result)]
        if self._manifest != manifest:
            self._manifest, self._payload = manifest, b""
        return [("result", result), self._say("loading", got=len(self._payload), of=manifest["size"]), self._want()]

    def _want(self) -> tuple[str, bytes]:
        want = {"sha256": self._manifest["sha256"][:16], "at": len(self._payload), "most": 2048}
        return "want", json.dumps(want).encode()

    def _loaded(self, piece: bytes) -> list[tuple[str, bytes]]:
        (at,) = struct.unpack_from(">I", piece, 8)
        if piece[:8].hex() != self._manifest["sha256"][:16] or at != len(self._payload):
            return []  # of another update, or one that came twice
        self.pieces += 1
        self._payload += piece[12:]
        if len(self._payload) < self._manifest["size"]:
            return [self._want()]
        assert hashlib.sha256(self._payload).hexdigest() == self._manifest["sha256"]
        self.files = unpack(self._payload, self._manifest["unpacked"])
        said = [self._say("waiting")]
        self.firmware, before = self._manifest["version"], self.firmware
        self.trials += 1
        said.append(self._say("trial"))
        if self.crashes:
            self.firmware, self._failed = before, self._manifest["version"]
            return [*said, self._say("rolled back", why="two starts failed")]
        return [*said, self._say("confirmed")]

    def _go_back(self, asked: dict[str, Any]) -> list[tuple[str, bytes]]:
        is_it = asked["version"] == self.firmware
        if is_it:
            self.firmware, self.update = OLD, None
        result = {"id": asked["id"], "done": is_it, **({} if is_it else {"reason": f"it runs {self.firmware}"})}
        return [("result", json.dumps(result).encode()), ("status", self.status())]

    def _say(self, state: str, **more: Any) -> tuple[str, bytes]:
        self.update = {"version": self._manifest["version"], "state": state, "got": 0, "of": 0, "why": "", **more}
        return "status", self.status()


class Fleet:
    """Nodes on one broker; a share of the pieces, wants and statuses is lost (a lost command costs a test minutes)."""

    def __init__(self, url: str, nodes: list[NodeByTheBook], lost: float = 0.0, again_s: float = 0.3) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._lost = lost
        self._chance = random.Random(1)
        self._again_s = again_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        host, port = url.removeprefix("mqtt://").split(":")
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="fleet", clean_session=False)
        self._client.on_connect = self._begin
        self._client.on_message = self._take
        self._client.connect(host, int(port), keepalive=10)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(5)
        self._client.disconnect()
        self._client.loop_stop()

    def _begin(self, client: paho.Client, *_: Any) -> None:
        for kind in ("cmd/#", "piece"):
            client.subscribe(f"node/+/{kind}", 1)
        for node in self.nodes.values():
            self._say(node, [("status", node.status())])

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        _, name, kind = message.topic.split("/", 2)
        with self._lock:
            if name in self.nodes and not self._loses(kind):
                node = self.nodes[name]
                self._say(node, node.take(kind, message.payload))

    def _run(self) -> None:
        """Have each node say again what may have been lost, as nodes do."""
        turn = 0
        while not self._over.wait(self._again_s):
            turn += 1
            with self._lock:
                for number, node in enumerate(self.nodes.values()):
                    is_told = (number + turn) % STATUS_EACH == 0
                    self._say(node, [*node.again(), *([("status", node.status())] if is_told else [])])

    def _say(self, node: NodeByTheBook, said: list[tuple[str, bytes]]) -> None:
        for kind, payload in said:
            if not self._loses(kind):
                self._client.publish(f"node/{node.name}/{kind}", payload, qos=1)

    def _loses(self, kind: str) -> bool:
        return kind in ("piece", "want", "status") and self._chance.random() < self._lost
