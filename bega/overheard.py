"""What is said on a serial line between a gateway and its nodes, as somebody hears it who only listens.

Spec: docs/uplink.md. A seal is not proved here, since that takes the key; what is said is never encrypted.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from bega_protocols import uplink
from bega_protocols.errors import WireError
from bega_protocols.stored import restore

MOST_SESSIONS = 1000
TO_NODE = {uplink.TIME: "time", uplink.COMMAND: "command"}
TO_GATEWAY = {uplink.STATUS: "status", uplink.RESULT: "result"}
LARGEST_VALUE, LARGEST_EXPONENT = 1 << 63, 18  # as the gateway takes them


class Overheard:
    """`feed` returns an object for each message; `damaged` are (offset, error) of what made no sense."""

    def __init__(self) -> None:
        self.damaged: list[tuple[int, WireError]] = []
        self._offset = 0
        self._blocks = uplink.Blocks()
        self._sessions: dict[bytes, _Session] = {}

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """Return what the frames say that `chunk` ends, oldest first."""
        self._offset += len(chunk)
        found: list[dict[str, Any]] = []
        for block in self._blocks.feed(chunk):
            try:
                found += self._frame(uplink.decode(block))
            except WireError as error:
                self.damaged.append((self._offset, error))
        return found

    def _frame(self, frame: uplink.Frame) -> list[dict[str, Any]]:
        if frame.kind == uplink.HELLO:
            return [{"asked for": frame.body[1 + uplink.NONCE_SIZE :].decode("ascii", "replace")}]
        if frame.kind == uplink.WELCOME:
            name, _, chip = frame.body[5 + uplink.NONCE_SIZE :].decode("ascii", "replace").partition("/")
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[frame.body[1:5]] = _Session(name)
            return [{"node": name, "chip": chip, "session": frame.body[1:5].hex(), "sealed": frame.seal != b""}]
        session = self._sessions.get(frame.body[1:5])
        if session is None:
            return []  # it began before we listened: nobody can tell where a message begins
        return session.turn(frame.kind == uplink.POLL, frame.body[5:6], frame.body[uplink.TURN_HEAD :])


class _Session:
    def __init__(self, node: str) -> None:
        self._node = node
        self._messages = {True: uplink.Messages(), False: uplink.Messages()}
        self._numbers = {True: b"", False: b""}
        self._shapes: dict[int, bytes] = {}

    def turn(self, is_question: bool, number: bytes, piece: bytes) -> list[dict[str, Any]]:
        """Return what a POLL or an answer completes; one that is said again completes nothing."""
        if number == self._numbers[is_question]:
            return []
        self._numbers[is_question] = number
        said = []
        for kind, payload in self._messages[is_question].feed(piece):
            facts = self._to_node(kind, payload) if is_question else self._to_gateway(kind, payload)
            said += [{"node": self._node, **facts}] if facts else []
        return said

    def _to_node(self, kind: int, payload: bytes) -> dict[str, Any]:
        if kind == uplink.ACK:
            return {"ack": uplink.read_acknowledgement(payload)}
        return {TO_NODE.get(kind, f"kind {kind}"): _text(payload.replace(b"\0", b" "))}

    def _to_gateway(self, kind: int, payload: bytes) -> dict[str, Any]:
        if kind == uplink.SHAPE and payload:
            self._shapes[payload[0]] = payload[1:]
            return {}
        if kind != uplink.RECORD:
            return {TO_GATEWAY.get(kind, f"kind {kind}"): _text(payload)}
        boot, seq, shape, body = uplink.read_record(payload)
        try:
            stored = restore(self._shapes[shape], body)
        except (KeyError, ValueError, IndexError, struct.error):
            raise WireError("no record", payload) from None
        if any(abs(each.value) >= LARGEST_VALUE or abs(each.exp10) > LARGEST_EXPONENT for each in stored.readings):
            raise WireError("a number beyond all devices", payload[:16])
        return {"boot": boot, "seq": seq, **stored._asdict()}


def _text(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode("utf-8", "replace")
