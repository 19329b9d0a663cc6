"""Sensirion SPS30 on I2C: pointers, and the answers to them.

Spec: SPS30 datasheet version 1.0 (March 2020), section 6.2 (transfer types)
and 6.3 (pointers). A pointer is two bytes; words follow it or are read from
it, each with its check value. No IO, no clock, no floats.
"""

import struct

from bega_protocols.sensirion import OUTPUTS_SIZE
from bega_protocols.sensirion_i2c import with_crc, without_crc

ADDRESS = 0x69
START, STOP, READY, READ = 0x0010, 0x0104, 0x0202, 0x0300
SLEEP, WAKE, CLEAN, RESET = 0x1001, 0x1103, 0x5607, 0xD304
SERIAL, VERSION, STATUS, CLEAR_STATUS = 0xD033, 0xD100, 0xD206, 0xD210
AS_FLOATS = 0x0300
ANSWER_SIZE = OUTPUTS_SIZE * 3 // 2
WORD_SIZE, LONG_SIZE, SERIAL_SIZE = 3, 6, 48

START_MS, CLEAN_MS, RESET_MS = 20, 5, 100  # how long each takes, table of section 6.3; stop takes as long as start


def to(pointer: int, *arguments: int) -> bytes:
    """Return what is written to point there, and to set `arguments`."""
    return struct.pack(">H", pointer) + b"".join([with_crc(argument) for argument in arguments])


def outputs(answer: bytes) -> bytes:
    """Return the ten floats; raises WireError as `without_crc` does."""
    return without_crc(answer)
