"""Words with a check value, as Sensirion's sensors speak on I2C: each 16-bit word is followed by its CRC-8.

Spec: SHT4x datasheet version 1 (October 2020), section 4.4; SPS30 datasheet version 1.0, section 6.1; the same for
SCD4x and SGP41.
"""

import struct

from bega_protocols.checks import crc8_sensirion
from bega_protocols.errors import ChecksumError, WireError

WORD_SIZE = 3  # two bytes, high byte first, and their CRC


def with_crc(word: int) -> bytes:
    """Return the word as it goes over the wire, its check value behind it."""
    octets = struct.pack(">H", word)
    return octets + bytes((crc8_sensirion(octets),))


def command(code: int, *arguments: int) -> bytes:
    """Return what is written to have `code` carried out: two bytes, then each argument as a word with its CRC."""
    return struct.pack(">H", code) + b"".join([with_crc(argument) for argument in arguments])


def without_crc(answer: bytes) -> bytes:
    """Return what stands in an answer without the check values.

    Raises WireError if it does not consist of words, ChecksumError if a check value differs.
    """
    if not answer or len(answer) % WORD_SIZE:
        raise WireError("no words with check values", answer)
    held = b""
    for at in range(0, len(answer), WORD_SIZE):
        if crc8_sensirion(answer[at : at + 2]) != answer[at + 2]:
            raise ChecksumError("check value of word %d differs" % (at // WORD_SIZE), answer)
        held += answer[at : at + 2]
    return held


def words(answer: bytes, count: int) -> "list[int]":
    """Return the `count` words of an answer.

    Raises WireError if it has another length, ChecksumError if a check value differs.
    """
    if len(answer) != count * WORD_SIZE:
        raise WireError("an answer of %d words has %d bytes" % (count, count * WORD_SIZE), answer)
    return list(struct.unpack(">%dH" % count, without_crc(answer)))
