"""Plantower PMS5003 dust sensor: bytes <-> numbers.

Spec: PMS5003 series data manual V2.3, Appendix I, "transport
protocol-Active Mode", and Appendix II for the commands. Words are
big-endian. No IO, no clock, no floats.
"""

import struct
from collections import namedtuple

from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

HEAD = b"\x42\x4d"  # start characters 1 and 2
DATA_SIZE = 32  # head, length word, 13 data words, check word
REPLY_SIZE = 8  # what the sensor answers to a command: head, length word, command, data, check word

SLEEP, WAKE = (0xE4, 0), (0xE4, 1)
PASSIVE, ACTIVE = (0xE1, 0), (0xE1, 1)
READ = (0xE2, 0)  # in passive mode

if TYPE_CHECKING:
    from typing import NamedTuple

    class Dust(NamedTuple):
        """Mass in µg/m³ at ambient conditions; number of particles larger than the size per 0.1 L."""

        pm1_ugm3: int
        pm2_5_ugm3: int
        pm10_ugm3: int
        over_0_3_um: int
        over_0_5_um: int
        over_1_um: int
        over_2_5_um: int
        over_5_um: int
        over_10_um: int

else:
    Dust = namedtuple(
        "Dust",
        ("pm1_ugm3", "pm2_5_ugm3", "pm10_ugm3")
        + ("over_0_3_um", "over_0_5_um", "over_1_um", "over_2_5_um", "over_5_um", "over_10_um"),
    )


def size_of(so_far: bytes) -> "int | None":
    """Return the length of the frame that begins here: data and command replies share one head. 0: neither."""
    if len(so_far) < 4:
        return None
    size = 4 + struct.unpack_from(">H", so_far, 2)[0]
    return size if size in (DATA_SIZE, REPLY_SIZE) else 0


def decode(frame: bytes) -> "Dust | None":
    """Return the dust of a data frame (data 4 to 12), None for a reply to a command.

    Data 1 to 3 repeat the masses for the factory's calibration dust ("CF=1");
    street air is not that dust, so they are left out.

    Raises WireError if this is no PMS5003 frame, ChecksumError if it was one.
    """
    if len(frame) < REPLY_SIZE or frame[:2] != HEAD or len(frame) != size_of(frame):
        raise WireError("not a PMS5003 frame", frame)
    if sum(frame[:-2]) & 0xFFFF != struct.unpack_from(">H", frame, len(frame) - 2)[0]:
        raise ChecksumError("PMS5003 check word differs", frame)
    if len(frame) == REPLY_SIZE:
        return None
    return Dust(*struct.unpack_from(">9H", frame, 10))


def command(code: "tuple[int, int]") -> bytes:
    """Return the 7 bytes of a command, e.g. SLEEP; the check word is the plain sum, as in a data frame."""
    body = HEAD + bytes((code[0], 0, code[1]))
    return body + struct.pack(">H", sum(body))
