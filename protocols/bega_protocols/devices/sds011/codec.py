"""Nova SDS011 dust sensor: bytes <-> numbers.

Spec: SDS011 specification V1.3 (data frame) and "Laser Dust Sensor Control
Protocol V1.3" (commands). Words are little-endian, the sensor's id is as it is
printed. No IO, no clock, no floats.
"""

from collections import namedtuple

from bega_protocols.checks import sum8
from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

HEAD = b"\xaa"
TAIL = 0xAB
ANSWER_SIZE, COMMAND_SIZE = 10, 19
MEASURED, REPLY, ASKED = 0xC0, 0xC5, 0xB4  # the second byte: what kind of frame this is
REPORT_MODE, QUERY, SLEEP_WORK, FIRMWARE, PERIOD = 2, 4, 6, 7, 8  # commands
ACTIVE_MODE, QUERY_MODE = 0, 1
SLEEP, WORK = 0, 1
ANY_ID = 0xFFFF
LONGEST_PERIOD_MIN = 30
TOP_TENTHS = 9999  # 999.9 µg/m³ is where the range ends

if TYPE_CHECKING:
    from typing import NamedTuple

    class Answer(NamedTuple):
        """kind: MEASURED (data: PM2.5, PM10, two words of 0.1 µg/m³) or REPLY (data: command and three more bytes)."""

        kind: int
        data: bytes
        device_id: int

else:
    Answer = namedtuple("Answer", ("kind", "data", "device_id"))


def size_of(so_far: bytes) -> "int | None":
    """Return the length of the frame that begins here, None if more is needed to tell, 0 if it is none."""
    if len(so_far) < 2:
        return None
    if so_far[1] == ASKED:
        return COMMAND_SIZE
    return ANSWER_SIZE if so_far[1] in (MEASURED, REPLY) else 0


def decode(frame: bytes) -> "Answer | None":
    """Return what the sensor said; None for a command, which a listener hears too.

    Raises WireError if this is no SDS011 frame, ChecksumError if it was one.
    """
    if len(frame) < ANSWER_SIZE or frame[:1] != HEAD or len(frame) != size_of(frame) or frame[-1] != TAIL:
        raise WireError("not an SDS011 frame", frame)
    if sum8(frame[2:-2]) != frame[-2]:
        raise ChecksumError("SDS011 check byte differs", frame)
    if frame[1] == ASKED:
        return None
    return Answer(frame[1], frame[2:6], frame[6] << 8 | frame[7])


def masses_tenths(data: bytes) -> "tuple[int, int]":
    """Return PM2.5 and PM10 in tenths of µg/m³.

    Raises WireError if PM2.5 exceeds PM10, of which it is a part: no air is like that.
    """
    pm2_5, pm10 = data[0] | data[1] << 8, data[2] | data[3] << 8
    if pm2_5 > pm10:
        raise WireError("more PM2.5 than PM10", data)
    return pm2_5, pm10


def command(code: int, value: "int | None" = None, device_id: int = ANY_ID) -> bytes:
    """Return the command `code`, which sets `value` (None: asks for it), for the sensor `device_id`."""
    data = bytes((code, 0, 0)) if value is None else bytes((code, 1, value))
    body = data + bytes(10) + bytes((device_id >> 8, device_id & 0xFF))
    return HEAD + bytes((ASKED,)) + body + bytes((sum8(body), TAIL))
