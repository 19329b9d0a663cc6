"""Sensirion SPS30 on its serial interface: SHDLC frames <-> commands and replies.

Spec: SPS30 datasheet version 1.0 (March 2020), section 5 (frame layer 5.1,
commands 5.3). Words are big-endian. No IO, no clock, no floats.

Departures from the paper: it prints the wake-up command without stuffing its
11, and two of its example replies with a wrong check value.
"""

from collections import namedtuple

from bega_protocols.errors import ChecksumError, WireError
from bega_protocols.sensirion import OUTPUTS_SIZE

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

FLAG, ESCAPE, MASK = 0x7E, 0x7D, 0x20
STUFFED = (0x7E, 0x7D, 0x11, 0x13)  # table 10: inside a frame these are ESCAPE and the byte with bit 5 turned over
LONGEST = 2 * (5 + 255)  # bytes between two flags

START, STOP, READ, SLEEP, WAKE, CLEAN, CLEAN_EACH = 0x00, 0x01, 0x03, 0x10, 0x11, 0x56, 0x80
INFORMATION, VERSION, STATUS, RESET = 0xD0, 0xD1, 0xD2, 0xD3
AS_FLOATS = b"\x01\x03"
SERIAL_NUMBER = b"\x03"
KEEP, CLEAR = b"\x00", b"\x01"  # what reading the status register does to it
WAKE_PULSE = b"\xff"  # any byte that pulls the line low; the command must follow within 100 ms

OK, UNKNOWN, NOT_NOW = 0x00, 0x02, 0x43
STATES = {
    0x01: "wrong length",
    UNKNOWN: "unknown command",
    0x03: "no access",
    0x04: "bad parameter",
    0x28: "out of its internal range",
    NOT_NOW: "not allowed now",
}

if TYPE_CHECKING:
    from typing import NamedTuple

    class Reply(NamedTuple):
        """state: the low seven bits, OK or a key of STATES; has_error: its status register says more."""

        command: int
        state: int
        has_error: bool
        data: bytes

else:
    Reply = namedtuple("Reply", ("command", "state", "has_error", "data"))


def request(command: int, data: bytes = b"") -> bytes:
    """Return the frame of a command."""
    body = bytes((0, command, len(data))) + data
    framed = bytearray((FLAG,))
    for byte in body + bytes((_check(body),)):
        if byte in STUFFED:
            framed.append(ESCAPE)
            byte ^= MASK
        framed.append(byte)
    framed.append(FLAG)
    return bytes(framed)


def is_reply(so_far: bytes) -> bool:
    """Return whether a frame is whole: something stands between two flags."""
    begin = so_far.find(b"\x7e")
    while 0 <= begin < len(so_far) - 1 and so_far[begin + 1] == FLAG:
        begin += 1
    return begin >= 0 and so_far.find(b"\x7e", begin + 1) > 0


def decode(stuffed: bytes) -> Reply:
    """Return the reply that stood between two flags.

    Raises WireError if none did, ChecksumError if the check value differs.
    """
    body = _unstuffed(stuffed)
    if len(body) < 5 or body[0] != 0 or len(body) != 5 + body[3]:
        raise WireError("no SHDLC reply", stuffed)
    if _check(body[:-1]) != body[-1]:
        raise ChecksumError("SHDLC check value differs", stuffed)
    return Reply(body[1], body[2] & 0x7F, bool(body[2] & 0x80), body[4:-1])


def outputs(reply: Reply) -> "bytes | None":
    """Return the ten floats of a reply to READ; None if nothing new was measured.

    Raises WireError if it holds something else.
    """
    if reply.command != READ or reply.state != OK or len(reply.data) not in (0, OUTPUTS_SIZE):
        raise WireError("no outputs of an SPS30: %s" % STATES.get(reply.state, "other length"), reply.data)
    return reply.data or None


class Replies:
    """Cuts what stands between flags out of a stream that may begin, break and lie anywhere."""

    def __init__(self) -> None:
        self._waiting = b""
        self._offset = 0  # of the first waiting byte, counted from the start of the stream

    def feed(self, chunk: bytes, damaged: "list[tuple[int, WireError]]") -> "list[Reply]":
        """Return the replies that `chunk` completes; what is none goes to `damaged`."""
        found = []
        pieces = (self._waiting + chunk).split(b"\x7e")
        for stuffed in pieces[:-1]:
            if stuffed:
                try:
                    found.append(decode(stuffed))
                except WireError as error:
                    damaged.append((self._offset, error))
            self._offset += len(stuffed) + 1
        self._waiting = pieces[-1]
        if len(self._waiting) > LONGEST:
            damaged.append((self._offset, WireError("no flag for too long", self._waiting[:16])))
            self._offset += len(self._waiting) - 1
            self._waiting = self._waiting[-1:]  # what follows is no frame either, and its flag shows that
        return found


def _check(body: bytes) -> int:
    return ~sum(body) & 0xFF


def _unstuffed(stuffed: bytes) -> bytes:
    plain = bytearray()
    escaped = False
    for byte in stuffed:
        if escaped and byte ^ MASK not in STUFFED:
            raise WireError("impossible stuffing", stuffed)
        if byte == ESCAPE and not escaped:
            escaped = True
            continue
        plain.append(byte ^ MASK if escaped else byte)
        escaped = False
    if escaped:
        raise WireError("frame ends in an escape", stuffed)
    return bytes(plain)
