"""Whoever reads what the gateway publishes, and checks every value of it: MQTT 3.1.1, QoS 1, by hand, in one process.

Spec: MQTT 3.1.1 (OASIS), sections 2.2.3 (remaining length), 3.1 CONNECT, 3.3 PUBLISH, 3.4 PUBACK, 3.8 SUBSCRIBE.
Started by the bench with `python -m bega_simulators.bench.subscriber`; asked on standard input, one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import struct
import sys
import time
from array import array
from dataclasses import dataclass, field
from typing import Any

from bega_simulators.bench.numbered import derived, names, read_at_s

TOPIC = b"city/+/+/+/+/up"
CLIENT = b"bench-reader"
PUBLISH, PUBACK_HEAD = 3, b"\x40\x02"
CONNECT_AGAIN_S = 0.2
SHOWN = 5  # of what is wrong
METER = re.compile(r"m\d+")


@dataclass
class Heard:
    """What came of one boot since `begin`."""

    arrived_s: array[float] = field(default_factory=lambda: array("d"))
    delay_ms: array[float] = field(default_factory=lambda: array("d"))


class Seen:
    """Counts how often each whole number came; they begin near 1."""

    def __init__(self) -> None:
        self._times = bytearray(1024)
        self.highest = 0

    def add(self, number: int) -> int:
        """Note one; return how often it has come now (255 stands for more)."""
        if number >= len(self._times):
            self._times.extend(bytes(max(len(self._times), number + 1 - len(self._times))))
        self.highest = max(self.highest, number)
        self._times[number] = min(255, self._times[number] + 1)
        return self._times[number]

    def missing(self) -> list[int]:
        """Return the numbers from 1 to the highest that never came."""
        return [number for number in range(1, self.highest + 1) if not self._times[number]]


class Ledger:
    """All that arrived, held against what the meters say."""

    def __init__(self, floats: int, computes: bool = False) -> None:
        """computes: what a gateway computes comes too, as readings behind the meter's own and under other names."""
        self._computes = computes
        self._names = names(floats)
        self._derived = floats - 4
        self._heard: dict[int, Heard] = {}
        self._identities: dict[tuple[str, int], Seen] = {}
        self._reads: dict[int, Seen] = {}
        self._octets = 0
        self.messages = 0
        self.doubled = 0  # the same identity once more: readers drop it
        self.doubled_reads = 0  # the same read under two identities: readers cannot
        self.wrong = 0
        self.examples: list[str] = []
        self.stamps: dict[int, list[tuple[int, float]]] | None = None  # meter -> (read, seconds of its record)

    def begin(self) -> None:
        """Begin a window."""
        self._heard = {}
        self._octets = 0

    def take(self, payload: bytes, now_s: float) -> None:
        """Check one message that arrived at `now_s`."""
        self.messages += 1
        self._octets += len(payload)
        try:
            pack = json.loads(payload)
            self._check(pack, [entry["v"] for entry in pack], now_s)
        except (ValueError, KeyError, IndexError, TypeError):
            self._say_wrong(payload)

    def _check(self, pack: list[dict[str, Any]], values: list[float], now_s: float) -> None:
        head = pack[0]
        source, device, _ = head["bn"].split("/")
        if self._computes:
            if not METER.fullmatch(device):
                return
            pack, values = pack[: len(self._names)], values[: len(self._names)]
        read, second, microsecond, meter = map(int, values[:4])
        right = [entry["n"] for entry in pack] == self._names and values[4:] == derived(meter, read, self._derived)
        if not right or device != f"m{meter}":
            self._say_wrong(json.dumps(pack).encode())
            return
        boot = head["boot"]
        if self._identities.setdefault((source, boot), Seen()).add(head["seq"]) > 1:
            self.doubled += 1
            return
        if self._reads.setdefault(meter, Seen()).add(read) > 1:
            self.doubled_reads += 1
        if self.stamps is not None:
            self.stamps.setdefault(meter, []).append((read, head["bt"]))
        heard = self._heard.setdefault(boot, Heard())
        heard.arrived_s.append(now_s)
        heard.delay_ms.append(1000 * (now_s - read_at_s(second, microsecond, now_s)))

    def _say_wrong(self, payload: bytes) -> None:
        self.wrong += 1
        if len(self.examples) < SHOWN:
            self.examples.append(payload[:300].decode(errors="replace"))

    def report(self) -> dict[str, Any]:
        """Return what came since `begin`: for each boot when, and how late."""
        return {
            "octets": self._octets,
            "boots": {
                str(boot): {"arrived_s": list(heard.arrived_s), "delay_ms": list(heard.delay_ms)}
                for boot, heard in self._heard.items()
            },
        }

    def totals(self) -> dict[str, Any]:
        """Return what came since the start."""
        return {
            "messages": self.messages,
            "doubled": self.doubled,
            "doubled_reads": self.doubled_reads,
            "wrong": self.wrong,
            "examples": self.examples,
            "missing": {str(meter): seen.missing() for meter, seen in self._reads.items()},
            "highest": {str(meter): seen.highest for meter, seen in self._reads.items()},
            "stamps": {str(meter): stamps for meter, stamps in (self.stamps or {}).items()},
        }


class Session:
    """A connection that the broker remembers (clean session 0), made anew whenever it breaks."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self._port = port
        self._ledger = ledger
        self._rest = b""
        self.socket: socket.socket | None = None

    def connect(self) -> bool:
        """Connect and subscribe; return whether that worked."""
        try:
            connection = socket.create_connection(("127.0.0.1", self._port), 2)
            variable = b"\0\4MQTT\4\0\0\0"  # level 4, no flags: the session is kept; no keep-alive
            connection.sendall(_packet(0x10, variable + _text(CLIENT)))
            connection.sendall(_packet(0x82, b"\0\1" + _text(TOPIC) + b"\1"))
        except OSError:
            return False
        connection.settimeout(2)
        self.socket, self._rest = connection, b""
        return True

    def read(self) -> None:
        """Take what has come, acknowledge it; a connection that broke is let go."""
        assert self.socket
        try:
            octets = self.socket.recv(1 << 18)
            if octets:
                acknowledgements = self._cut(self._rest + octets, time.monotonic())
                if acknowledgements:
                    self.socket.sendall(acknowledgements)
                return
        except OSError:
            pass
        self.socket.close()
        self.socket = None

    def _cut(self, octets: bytes, now_s: float) -> bytes:
        """Hand on each whole PUBLISH in `octets`; return their acknowledgements."""
        acknowledgements = []
        at = 0
        while (found := _body(octets, at)) is not None:
            start, end = found
            if octets[at] >> 4 == PUBLISH:
                topic_end = start + 2 + (octets[start] << 8 | octets[start + 1])
                if octets[at] & 6:
                    acknowledgements.append(PUBACK_HEAD + octets[topic_end : topic_end + 2])
                    topic_end += 2
                self._ledger.take(octets[topic_end:end], now_s)
            at = end
        self._rest = octets[at:]
        return b"".join(acknowledgements)


def _body(octets: bytes, at: int) -> tuple[int, int] | None:
    """Return where the body of the packet at `at` begins and ends, None while it is not whole."""
    length = shift = 0
    start = at + 1
    while start < len(octets):
        octet = octets[start]
        length |= (octet & 127) << shift
        shift += 7
        start += 1
        if octet < 128:
            return (start, start + length) if start + length <= len(octets) else None
    return None


def _packet(head: int, body: bytes) -> bytes:
    length, octets = len(body), bytearray([head])
    while length > 127:
        octets.append(length & 127 | 128)
        length >>= 7
    return bytes(octets) + bytes([length]) + body


def _text(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def answer(ledger: Ledger, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the bench wants to know."""
    if asked["verb"] == "begin":
        ledger.begin()
        return {}
    if asked["verb"] == "messages":
        return {"messages": ledger.messages}
    return ledger.report() if asked["verb"] == "report" else ledger.totals()


def main(argv: list[str]) -> None:
    """Read until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--floats", type=int, required=True)
    parser.add_argument("--keep-stamps", action="store_true")
    parser.add_argument("--computes", action="store_true")
    args = parser.parse_args(argv)
    ledger = Ledger(args.floats, args.computes)
    if args.keep_stamps:
        ledger.stamps = {}
    session = Session(args.port, ledger)
    print("{}" if session.connect() else '{"error": "no broker"}', flush=True)
    asked = b""
    while True:
        watched = [0] if session.socket is None else [0, session.socket.fileno()]
        ready = select.select(watched, (), (), CONNECT_AGAIN_S)[0]
        if session.socket is None:
            session.connect()
        elif session.socket.fileno() in ready:
            session.read()
        if 0 in ready:
            octets = os.read(0, 65536)
            if not octets:
                return
            *lines, asked = (asked + octets).split(b"\n")
            for line in lines:
                print(json.dumps(answer(ledger, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
