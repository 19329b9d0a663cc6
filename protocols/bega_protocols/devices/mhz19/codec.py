"""Winsen MH-Z19B and MH-Z19C CO2 sensor: bytes <-> numbers.

Spec: MH-Z19B user's manual v1.5 (communication protocol); MH-Z19C manual v1.2
for the commands that both have. Words are big-endian. No IO, no clock, no
floats.
"""

from bega_protocols.errors import ChecksumError, WireError

SIZE = 9
HEAD = b"\xff\x86"  # every answer begins so: the read command is the only one that is answered
ANSWERED, ASKED = 0x86, 0x01  # the second byte of an answer, and of a command (the sensor's number)
READ, SET_ABC, ZERO, SPAN, RANGE = 0x86, 0x79, 0x87, 0x88, 0x99
ABC_ON = b"\xa0"
RANGES_PPM = (2000, 5000, 10000)


def size_of(so_far: bytes) -> "int | None":
    """Return the length of the frame that begins here."""
    return SIZE


def decode(frame: bytes) -> int:
    """Return CO2 in ppm from an answer to the read command.

    Bytes 4 to 7 are not in the manual: a temperature and a state according to
    others, and not read here.

    Raises WireError if this is no such answer, ChecksumError if it was one.
    """
    if len(frame) != SIZE or frame[:2] != HEAD:
        raise WireError("not an MH-Z19 answer", frame)
    if checksum(frame) != frame[8]:
        raise ChecksumError("MH-Z19 check byte differs", frame)
    return frame[2] << 8 | frame[3]


def command(code: int, data: bytes = b"") -> bytes:
    """Return the 9 bytes of a command; `data` begins at byte 3."""
    body = b"\xff\x01" + bytes((code,)) + data + bytes(5 - len(data))
    return body + bytes((checksum(body),))


def set_range(range_ppm: int) -> bytes:
    """Return the command for one of RANGES_PPM; its word stands in the last two bytes of the data."""
    return command(RANGE, b"\0\0\0" + range_ppm.to_bytes(2, "big"))


def checksum(frame: bytes) -> int:
    """Return 256 less the sum of bytes 1 to 7, in a byte."""
    return -sum(frame[1:8]) & 0xFF
