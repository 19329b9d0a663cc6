"""Words with a check value, as Sensirion's sensors speak on I2C: each 16-bit word is followed by its CRC-8.

Spec: SHT4x datasheet version 1 (October 2020), section 4.4; the same for SCD4x, SGP41 and SPS30.
"""

import struct

from bega_protocols.checks import crc8_sensirion
from bega_protocols.errors import ChecksumError, WireError

WORD_SIZE = 3  # two bytes, high byte first, and their CRC


def command(code: int, *arguments: int) -> bytes:
    """Return what is written to have `code` carried out: two bytes, then each argument as a word with its CRC."""
    written = struct.pack(">H", code)
    for argument in arguments:
        octets = struct.pack(">H", argument)
        written += octets + bytes((crc8_sensirion(octets),))
    return written


def words(answer: bytes, count: int) -> "list[int]":
    """Return the `count` words of an answer.

    Raises WireError if it has another length, ChecksumError if a check value differs.
    """
    if len(answer) != count * WORD_SIZE:
        raise WireError("an answer of %d words has %d bytes" % (count, count * WORD_SIZE), answer)
    found = []
    for at in range(0, len(answer), WORD_SIZE):
        if crc8_sensirion(answer[at : at + 2]) != answer[at + 2]:
            raise ChecksumError("check value of a word differs", answer)
        found.append(struct.unpack_from(">H", answer, at)[0])
    return found
