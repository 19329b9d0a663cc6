# Exchanges on the node's buses, each against a wire that answers by a script. Run as: micropython wires_exchange.py
import asyncio
import io
import json
import sys
import time

POLL, READABLE, WRITABLE = 3, 1, 4
ABSENT = 0x10


class FakeUart(io.IOBase):
    """Answers each write with pieces, each so many ms after it; `said` is [(baud at which it left, bytes), ...]."""

    def __init__(self, id, **form):
        self.said = []
        self.pieces = []
        self.script = []
        self.init(**form)

    def init(self, **form):
        self.baud = form["baudrate"]

    def write(self, octets):
        self.said.append((self.baud, octets))
        now = time.ticks_ms()
        self.pieces += [(time.ticks_add(now, after_ms), piece) for after_ms, piece in self.script]
        return len(octets)

    def read(self, size=-1):
        heard = b""
        while len(heard) < size and self.pieces and time.ticks_diff(time.ticks_ms(), self.pieces[0][0]) >= 0:
            came, piece = self.pieces.pop(0)
            room = size - len(heard)
            heard += piece[:room]
            if piece[room:]:
                self.pieces.insert(0, (came, piece[room:]))
        return heard or None

    def ioctl(self, request, argument):
        if request != POLL:
            return 0
        ready = self.pieces and time.ticks_diff(time.ticks_ms(), self.pieces[0][0]) >= 0
        return argument & (WRITABLE | (READABLE if ready else 0))


class FakeI2c:
    """Notes each transfer with its time; those in ABSENT do not acknowledge."""

    def __init__(self, id, **pins):
        self.transfers = []

    def writeto(self, address, octets):
        self._note(address, "w", octets)

    def readfrom(self, address, size):
        self._note(address, "r", size)
        return bytes([address]) * size

    def _note(self, address, way, what):
        self.transfers.append((address, way, what, time.ticks_ms()))
        if address == ABSENT:
            raise OSError(19)


class FakeMachine:
    UART = FakeUart
    I2C = FakeI2c

    @staticmethod
    def Pin(number):
        return number


sys.modules["machine"] = FakeMachine
import wires  # noqa: E402

from bega_protocols.ask import Ask  # noqa: E402


def uart(script, before=()):
    bus = wires.Uart({"id": 1, "tx": 33, "rx": 32}, "serial 9600 8N1")
    bus.port.script = script
    bus.port.pieces = [(time.ticks_ms(), piece) for piece in before]
    return bus


async def asked(script, ask, before=()):
    """Return [answer as hex, its length if it is long, or None; ms that it took]."""
    bus = uart(script, before)
    began = time.ticks_ms()
    answer = await bus.exchange(ask)
    took_ms = time.ticks_diff(time.ticks_ms(), began)
    if answer is None:
        return [None, took_ms]
    return [answer.hex() if len(answer) < 20 else len(answer), took_ms]


def ends_with_f(so_far):
    return so_far[-1:] == b"\x0f"


async def serial():
    later = [(20, b"\x01\x02"), (40, b"\x03\x04"), (3000, b"\x05")]
    return {
        "whole": await asked(later, Ask(b"?", 2000, 4)),
        "by a function": await asked([(20, b"\x01"), (60, b"\x0f")], Ask(b"?", 200, ends_with_f)),
        "nothing": await asked([], Ask(b"?", 100, 4)),
        "in part": await asked([(20, b"\x01\x02")], Ask(b"?", 300, 4)),
        "too late": await asked([(3000, b"\x01\x02\x03\x04")], Ask(b"?", 100, 4)),
        "what came before": await asked([(20, b"\x01\x02")], Ask(b"?", 100, 2), before=[b"\x07" * 200, b"\x08"]),
        "long with a gap": await asked([(t, b"\x01") for t in range(50, 350, 50)], Ask(b"?", 100, 6, gap_ms=100)),
        "gap too long": await asked([(50, b"\x01"), (3000, b"\x02")], Ask(b"?", 1000, 2, gap_ms=80)),
        "for minutes": await asked(
            [(t, b"\x01") for t in range(20, 2000, 20)], Ask(b"?", 100, 200, gap_ms=100, total_ms=300)
        ),
        "flood": await asked([(1, b"\x01" * 128)] * 80, Ask(b"?", 1000, 9000)),
        "nothing expected": await asked([(20, b"\x01")], Ask(b"?", 60, 0)),
    }


async def rates():
    """Asks at 9600, goes on at 300, and begins the next measurement at 9600."""
    bus = uart([(5, b"\x01")])
    await bus.exchange(Ask(b"a", 100, 1, baud=300))
    await bus.exchange(Ask(b"b", 100, 1))
    bus.begin()
    await bus.exchange(Ask(b"c", 100, 1))
    return [[baud, octets.decode()] for baud, octets in bus.port.said]


async def shared():
    """One measures for 300 ms; another is asked meanwhile; a third asks the first's address and has to wait."""
    bus = wires.I2c({"id": 0, "scl": 22, "sda": 21}, "i2c 100000")
    began = time.ticks_ms()
    answers = await asyncio.gather(
        bus.exchange(Ask(b"\x01", 300, 2, address=0x62)),
        bus.exchange(Ask(b"\x02", 10, 1, address=0x44)),
        bus.exchange(Ask(b"\x03", 1, 2, address=0x62)),
        bus.exchange(Ask(b"\x04", 0, 1, address=ABSENT)),
        bus.exchange(Ask(b"", 20, 0, address=0x44)),
        bus.exchange(Ask(b"\x05", 0, 0, address=0x45)),
        bus.exchange(Ask(b"", 0, 3, address=0x46)),
    )
    order = [
        [address, way, what.hex() if way == "w" else what, time.ticks_diff(at, began)]
        for address, way, what, at in bus._bus.transfers
    ]
    return {"answers": [None if answer is None else answer.hex() for answer in answers], "order": order}


async def main():
    print(json.dumps({"serial": await serial(), "rates": await rates(), "shared": await shared()}))


asyncio.run(main())
