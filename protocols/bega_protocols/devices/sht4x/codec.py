"""Sensirion SHT4x temperature and humidity sensor: bytes <-> numbers.

Spec: SHT4x datasheet version 1 (October 2020): section 4.4 checksum, 4.5
commands, 4.6 conversion. An answer is two words, each followed by its CRC.
No IO, no clock, no floats.
"""

import struct
from collections import namedtuple

from bega_protocols.checks import crc8_sensirion
from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

ANSWER_SIZE = 6
ADDRESSES = (0x44, 0x45, 0x46)  # SHT4x-A, -B, -C
# precision: (command, ms until the answer is ready, the datasheet's maximum rounded up)
MEASURE = {"high": (0xFD, 10), "medium": (0xF6, 5), "low": (0xE0, 2)}

if TYPE_CHECKING:
    from typing import NamedTuple

    class Climate(NamedTuple):
        """Hundredths of a degree Celsius, hundredths of a percent relative humidity."""

        temperature_ccel: int
        humidity_cpct: int

else:
    Climate = namedtuple("Climate", ("temperature_ccel", "humidity_cpct"))


def is_answer(data: bytes) -> bool:
    """Return whether `data` has the length of an answer and both check values hold."""
    return len(data) == ANSWER_SIZE and crc8_sensirion(data[:2]) == data[2] and crc8_sensirion(data[3:5]) == data[5]


def decode(answer: bytes) -> Climate:
    """Return what an answer to a measurement says, to the nearest hundredth (halves up), humidity cropped to 0..100 %.

    T = -45 + 175 w / 65535 and RH = -6 + 125 w / 65535 (section 4.6). 0.01 is
    the resolution that the datasheet states; one step of w is 0.0027 degrees.

    Raises WireError if this has no answer's length, ChecksumError if a check value differs.
    """
    if len(answer) != ANSWER_SIZE:
        raise WireError("an SHT4x answers with 6 bytes", answer)
    if not is_answer(answer):
        raise ChecksumError("SHT4x check value differs", answer)
    temperature, humidity = struct.unpack_from(">H", answer)[0], struct.unpack_from(">H", answer, 3)[0]
    return Climate(_scaled(temperature, 17500) - 4500, max(0, min(10000, _scaled(humidity, 12500) - 600)))


def _scaled(word: int, full: int) -> int:
    return (2 * full * word + 65535) // 131070
