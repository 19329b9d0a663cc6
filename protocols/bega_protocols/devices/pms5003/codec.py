"""Plantower dust sensors, the PMS5003 and its relatives: bytes <-> numbers.

Spec: PMS5003 series data manual V2.3, Appendix I, "transport
protocol-Active Mode", and Appendix II for the commands; PMS7003 manual V2.5.
The frames of the PMS3003 and of the 5003T, S and ST are as two independent
open implementations read them (PyPMS, ESPHome). Words are big-endian. No IO,
no clock, no floats.
"""

import struct
from collections import namedtuple

from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

HEAD = b"\x42\x4d"  # start characters 1 and 2
REPLY_SIZE = 8  # what the sensor answers to a command: head, length word, command, data, check word
MASSES_AT, COUNTS_AT = 10, 16

SLEEP, WAKE = (0xE4, 0), (0xE4, 1)
PASSIVE, ACTIVE = (0xE1, 0), (0xE1, 1)
READ = (0xE2, 0)  # in passive mode

if TYPE_CHECKING:
    from typing import NamedTuple

    class Model(NamedTuple):
        """Length of a data frame, how many counts it has, and where the other words stand; 0: it has none."""

        size: int
        counts: int
        formaldehyde_at: int
        climate_at: int
        takes_commands: bool

    class Air(NamedTuple):
        """masses: PM1, 2.5 and 10 in µg/m³ at ambient conditions. counts: particles larger than each size per 0.1 L.

        formaldehyde_ugm3, temperature_dcel and humidity_dpct (tenths) are None where the model does not measure them.
        """

        masses_ugm3: tuple[int, ...]
        counts: tuple[int, ...]
        formaldehyde_ugm3: int | None
        temperature_dcel: int | None
        humidity_dpct: int | None

else:
    Model = namedtuple("Model", ("size", "counts", "formaldehyde_at", "climate_at", "takes_commands"))
    Air = namedtuple("Air", ("masses_ugm3", "counts", "formaldehyde_ugm3", "temperature_dcel", "humidity_dpct"))

# Three of them have frames of one length and give the last words other meanings: a frame does not tell its model.
MODELS = {
    "pms3003": Model(24, 0, 0, 0, False),
    "pms5003": Model(32, 6, 0, 0, True),
    "pms7003": Model(32, 6, 0, 0, True),
    "pmsa003": Model(32, 6, 0, 0, True),
    "pms5003t": Model(32, 4, 0, 24, True),
    "pms5003s": Model(32, 6, 28, 0, True),
    "pms5003st": Model(40, 6, 28, 30, True),
}


def size_of(so_far: bytes, model: Model) -> "int | None":
    """Return the length of the frame that begins here: data and command replies share one head. 0: neither."""
    if len(so_far) < 4:
        return None
    size = 4 + struct.unpack_from(">H", so_far, 2)[0]
    return size if size in (model.size, REPLY_SIZE) else 0


def decode(frame: bytes, model: Model) -> "Air | None":
    """Return what a data frame says, None for a reply to a command.

    Data 1 to 3 repeat the masses for the factory's calibration dust ("CF=1");
    street air is not that dust, so they are left out.

    Raises WireError if this is no frame of this model or holds impossible air, ChecksumError if it was one.
    """
    if len(frame) < REPLY_SIZE or frame[:2] != HEAD or len(frame) != size_of(frame, model):
        raise WireError("not a frame of this Plantower model", frame)
    if sum(frame[:-2]) & 0xFFFF != struct.unpack_from(">H", frame, len(frame) - 2)[0]:
        raise ChecksumError("Plantower check word differs", frame)
    if len(frame) == REPLY_SIZE:
        return None
    masses = struct.unpack_from(">3H", frame, MASSES_AT)
    counts = struct.unpack_from(">%dH" % model.counts, frame, COUNTS_AT) if model.counts else ()
    # PM1 is a part of PM2.5, and that of PM10; what is larger than 1 µm is also larger than 0.5 µm.
    if sorted(masses) != list(masses) or sorted(counts, reverse=True) != list(counts):
        raise WireError("masses fall or counts rise with size", frame)
    formaldehyde = struct.unpack_from(">H", frame, model.formaldehyde_at)[0] if model.formaldehyde_at else None
    climate = struct.unpack_from(">hH", frame, model.climate_at) if model.climate_at else (None, None)
    return Air(masses, counts, formaldehyde, climate[0], climate[1])


def reply_to(code: "tuple[int, int]") -> bytes:
    """Return the 8 bytes with which a command, e.g. SLEEP, is confirmed."""
    return _with_sum(HEAD + bytes((0, 4) + code))


def command(code: "tuple[int, int]") -> bytes:
    """Return the 7 bytes of a command, e.g. SLEEP; the check word is the plain sum, as in a data frame."""
    return _with_sum(HEAD + bytes((code[0], 0, code[1])))


def _with_sum(body: bytes) -> bytes:
    return body + struct.pack(">H", sum(body))
