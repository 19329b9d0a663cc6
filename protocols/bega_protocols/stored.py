"""A record as it lies in a node's ring: what all records of a device share once a segment, the rest in few bytes.

The shape is text: the device, then each reading's quantity, part, exp10 and
quality. The body is the time (quality, 8 bytes of ms) and each value as a
varint, zigzag: a PMS5003's nine readings take 27 bytes, their SenML 430.
Identity (boot, seq) is the ring's, the source is the node's own name.
"""

import struct

from bega_protocols.reading import Reading
from bega_protocols.record import UNKNOWN

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Stored(NamedTuple):
        """`time_ms` is Unix time, None if `time_quality` is UNKNOWN, ms since the boot began if it is WAITING."""

        device: str
        time_ms: int | None
        time_quality: int
        readings: list[Reading]

else:
    from collections import namedtuple

    Stored = namedtuple("Stored", ("device", "time_ms", "time_quality", "readings"))

WAITING = 3  # behind the three time qualities: not yet known, and not yet sent


def store(stored: Stored) -> "tuple[bytes, bytes]":
    """Return (shape, body) for `Ring.append`."""
    rows = ["%s,%s,%d,%d" % (row.quantity, row.part, row.exp10, row.quality) for row in stored.readings]
    body = struct.pack(">BQ", stored.time_quality, stored.time_ms or 0)
    return "|".join([stored.device] + rows).encode(), body + b"".join([_varint(row.value) for row in stored.readings])


def restore(shape: bytes, body: bytes) -> Stored:
    """Return what `store` was given."""
    device, *rows = shape.decode().split("|")
    time_quality, time_ms = struct.unpack_from(">BQ", body)
    at = 9
    readings = []
    for row in rows:
        quantity, part, exp10, quality = row.split(",")
        value, at = _read_varint(body, at)
        readings.append(Reading(quantity, value, int(exp10), part, int(quality)))
    return Stored(device, None if time_quality == UNKNOWN else time_ms, time_quality, readings)


def _varint(value: int) -> bytes:
    rest = 2 * value if value >= 0 else -2 * value - 1
    octets = bytearray()
    while rest > 127:
        octets.append(rest & 127 | 128)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)


def _read_varint(body: bytes, at: int) -> "tuple[int, int]":
    rest = shift = 0
    while True:
        octet = body[at]
        rest |= (octet & 127) << shift
        at += 1
        shift += 7
        if octet < 128:
            return (rest >> 1 if rest & 1 == 0 else -(rest + 1 >> 1)), at
