"""Sensirion SGP41 gas sensor: bytes <-> numbers.

Spec: Sensirion's driver embedded-i2c-sgp41 (c9a981e), whose command table is the datasheet's. Words and their check
values: sensirion_i2c.py. No IO, no clock, no floats.
"""

from collections import namedtuple

from bega_protocols.sensirion_i2c import WORD_SIZE, words

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

ADDRESS = 0x59
SIGNALS_SIZE = 2 * WORD_SIZE
# command: (code, ms until it is carried out)
CONDITION = (0x2612, 50)  # at power-up, never longer than ten seconds
MEASURE = (0x2619, 50)
SELF_TEST = (0x280E, 320)
HEATER_OFF = (0x3615, 1)
SERIAL = (0x3682, 1)
FAULTS = 0x000F  # bits of a self test: which of the two sensors failed

if TYPE_CHECKING:
    from typing import NamedTuple

    class Signals(NamedTuple):
        """What the two gas sensors say, in ticks: no concentration, and comparable with nothing but themselves."""

        voc_ticks: int
        nox_ticks: int

else:
    Signals = namedtuple("Signals", ("voc_ticks", "nox_ticks"))


def decode(answer: bytes) -> Signals:
    """Return the raw signals that an answer to MEASURE holds.

    Raises WireError if this is no such answer, ChecksumError if a check value differs.
    """
    voc, nox = words(answer, 2)
    return Signals(voc, nox)


def humidity_ticks(percent: int) -> int:
    """Return relative humidity as the sensor takes it: 65535 is 100 %. (An SHT4x's ticks are others.)"""
    return (2 * 65535 * percent + 100) // 200


def temperature_ticks(cel: int) -> int:
    """Return degrees Celsius as the sensor takes them: 0 is -45, 65535 is 130."""
    return (2 * 65535 * (cel + 45) + 175) // 350
