"""Who else advertises in a park: phones, beacons, other makers' sensors, a neighbour's BTHome thermometer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Tick = Callable[[int], bytes]

PERIOD_MS = 1000
JITTER_MS = 10  # advDelay, Core specification volume 6, part B, section 4.4.2.2
FLAGS = (0x01, b"\x06")


def strangers(count: int, seed: int) -> Iterator[tuple[str, Tick]]:
    """Return address and advertising of `count` strangers, the same ones for the same seed."""
    chance = random.Random(f"strangers {seed}")
    kinds = (_phone, _beacon, _eddystone, _ruuvi, _xiaomi, _thermometer, _name)
    for number in range(count):
        address = bytes([0xC0 | chance.randrange(0x30), *chance.randbytes(5)])  # static random, not one of our F0:...
        yield address.hex(":").upper(), _paced(kinds[number % len(kinds)](chance), chance)


def _paced(payload: Callable[[], bytes], chance: random.Random) -> Tick:
    """Advertise about once a second, beginning at any moment of it."""
    next_ms: int | None = None

    def tick(now_ms: int) -> bytes:
        nonlocal next_ms
        if next_ms is None:
            next_ms = now_ms + chance.randrange(PERIOD_MS)
        if now_ms < next_ms:
            return b""
        next_ms = now_ms + PERIOD_MS + chance.randint(0, JITTER_MS)
        return payload()

    return tick


def _advertisement(*structures: tuple[int, bytes]) -> bytes:
    return b"".join(bytes((len(data) + 1, ad_type)) + data for ad_type, data in structures)


def _phone(chance: random.Random) -> Callable[[], bytes]:
    """Apple's Continuity, "nearby info": a few bytes that change each time."""
    return lambda: _advertisement(FLAGS, (0xFF, bytes.fromhex("4c001005") + chance.randbytes(5)))


def _beacon(chance: random.Random) -> Callable[[], bytes]:
    """iBeacon: UUID, major, minor, power."""
    same = _advertisement(FLAGS, (0xFF, bytes.fromhex("4c000215") + chance.randbytes(20) + b"\xc5"))
    return lambda: same


def _eddystone(chance: random.Random) -> Callable[[], bytes]:
    """Eddystone-UID."""
    frame = bytes.fromhex("aafe00e7") + chance.randbytes(16)
    same = _advertisement(FLAGS, (0x03, bytes.fromhex("aafe")), (0x16, frame))
    return lambda: same


def _ruuvi(chance: random.Random) -> Callable[[], bytes]:
    """RuuviTag, data format 5."""
    return lambda: _advertisement(FLAGS, (0xFF, bytes.fromhex("990405") + chance.randbytes(23)))


def _xiaomi(chance: random.Random) -> Callable[[], bytes]:
    """Xiaomi MiBeacon, encrypted."""
    head = bytes.fromhex("95fe58585b05") + chance.randbytes(1)
    return lambda: _advertisement(FLAGS, (0x16, head + chance.randbytes(14)))


def _thermometer(chance: random.Random) -> Callable[[], bytes]:
    """A neighbour's BTHome thermometer: our format, not our sensor."""
    packets = iter(range(1, 1 << 30))
    place = chance.randrange(-500, 3500).to_bytes(2, "little", signed=True)
    return lambda: _advertisement(
        FLAGS, (0x16, bytes.fromhex("d2fc4000") + bytes([next(packets) % 256]) + b"\x02" + place)
    )


def _name(chance: random.Random) -> Callable[[], bytes]:
    """Something that only says its name."""
    same = _advertisement(FLAGS, (0x09, f"Ceas {chance.randrange(1000)}".encode()))
    return lambda: same
