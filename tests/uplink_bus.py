"""An RS-485 bus in this process: a pty for the gateway, nodes of the node's own parts, and what wires do to both."""

import asyncio
import json
import os
import pty
import random
import tty
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bega_protocols import uplink
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED
from bega_protocols.ring import Ring, Window
from bega_protocols.stored import Stored, store
from bega_protocols.uplink_node import NodeEnd

NOW_MS = 1_795_300_123_456
BITS_A_BYTE = 10
PIECE = 64  # as an adapter hands on


class Flash:
    """Segments that survive a power cut."""

    def __init__(self) -> None:
        self.files: dict[int, bytes] = {}

    def numbers(self) -> list[int]:
        return list(self.files)

    def read(self, number: int) -> bytes:
        return self.files[number]

    def append(self, number: int, data: bytes) -> None:
        self.files[number] = self.files.get(number, b"") + data

    def remove(self, number: int) -> None:
        self.files.pop(number, None)


def dust(number: int) -> list[Reading]:
    """Return the nine readings of a PMS5003."""
    masses = [Reading(name, number % 1000) for name in ("pm1", "pm2_5", "pm10")]
    sizes = ("0_3", "0_5", "1", "2_5", "5", "10")
    return masses + [Reading(f"particles_{size}", 7 * number % 6000, -2) for size in sizes]


class BusNode:
    """Ring, window and the node's end of the link, put together as firmware/node does."""

    def __init__(
        self,
        flash: Flash,
        boot: int,
        *,
        name: str = "air-1",
        key: bytes = b"",
        chip: str = "a1",
        seed: int = 1,
        resend_ms: int = 300,
    ) -> None:
        self.ring = Ring(flash, 1000, 4096)
        self.boot = max(boot, self.ring.last_boot() + 1)
        self.time: dict[str, Any] = {}
        self.commands: list[bytes] = []
        self.is_away = False
        self._window = Window(self.ring, 20, resend_ms)
        self._seq = 0
        self._shapes: list[bytes] = []
        self._open = False
        self.end = NodeEnd(name, chip, key, random.Random(seed).randbytes, self._take, self._begin)

    def measure(self, count: int = 1, readings: Callable[[int], list[Reading]] = dust) -> None:
        for _ in range(count):
            self._seq += 1
            shape, body = store(Stored("pms", NOW_MS + self._seq, SYNCHRONISED, readings(self._seq)))
            self.ring.append([(self.boot, self._seq, shape, body)])

    def hear(self, chunk: bytes, now_ms: int) -> bytes:
        if self.is_away:
            return b""
        if self._open:
            self._send(now_ms)
        self._now_ms = now_ms
        return self.end.hear(chunk)

    def _begin(self) -> None:
        self._open = True
        self._shapes = []
        self._window.restart(self._now_ms)
        self._say_status()

    def _say_status(self) -> None:
        status = {"holds": self.ring.holds(), "dropped": self.ring.dropped()}
        self.end.say(uplink.STATUS, json.dumps(status).encode())

    def _send(self, now_ms: int) -> None:
        if self._window.stalled(now_ms):
            self._window.resend(now_ms)
            self._say_status()
        while self.end.waiting < 512 and (held := self._window.next()) is not None:
            self._window.sent(held, now_ms)
            if held.shape not in self._shapes:
                self._shapes.append(held.shape)
                self.end.say(uplink.SHAPE, bytes((len(self._shapes) - 1,)) + held.shape)
            number = self._shapes.index(held.shape)
            self.end.say(uplink.RECORD, uplink.record(held.boot, held.seq, number, held.body))

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == uplink.ACK:
            self._window.acknowledged(uplink.read_acknowledgement(payload), self._now_ms)
        elif kind == uplink.TIME:
            self.time = json.loads(payload)
        elif kind == uplink.COMMAND:
            self.commands.append(payload)
            self.end.say(uplink.RESULT, json.dumps({"id": "a", "done": True}).encode())


class Bus:
    """Carries what the gateway says to every node, and back what they answer; `spoil` may change either on its way."""

    def __init__(self, *nodes: Any, baud: int = 0) -> None:
        """baud: at whose pace; 0: at once."""
        self.nodes = list(nodes)
        self.spoil: Callable[[bytes], bytes] = bytes
        self.octets = 0  # on the wire
        self._baud = baud
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(self._master, there.set)
        try:
            while True:
                await there.wait()
                there.clear()
                with suppress(BlockingIOError):
                    await self._carry(os.read(self._master, 4096))
        finally:
            loop.remove_reader(self._master)

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)

    async def _carry(self, question: bytes) -> None:
        await self._take_time(question)
        now_ms = round(1000 * asyncio.get_running_loop().time())
        question = self.spoil(question)
        answers = [answer for node in self.nodes if (answer := node.hear(question, now_ms))]
        if len(answers) > 1:  # they collide: each octet is what both make of it
            answers = [bytes(one & other for one, other in zip(*answers[:2], strict=False))]
        for answer in map(self.spoil, answers):
            for at in range(0, len(answer), PIECE):
                await self._take_time(answer[at : at + PIECE])
                with suppress(BlockingIOError):
                    os.write(self._master, answer[at : at + PIECE])

    async def _take_time(self, octets: bytes) -> None:
        self.octets += len(octets)
        if self._baud:
            await asyncio.sleep(len(octets) * BITS_A_BYTE / self._baud)


def bad_wire(seed: int, share: float) -> Callable[[bytes], bytes]:
    """Return what spoils this share of what passes: lost, cut, turned, with noise before or behind."""
    chance = random.Random(seed)

    def spoil(octets: bytes) -> bytes:
        if chance.random() >= share:
            return octets
        at = chance.randrange(len(octets))
        turned = octets[:at] + bytes((octets[at] ^ 1 << chance.randrange(8),)) + octets[at + 1 :]
        noise = chance.randbytes(chance.randrange(1, 40))
        return chance.choice([b"", octets[:at], octets[at:], turned, noise + octets, octets + noise])

    return spoil
