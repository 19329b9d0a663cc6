"""Modbus on a serial line: PDU <-> frame, the silences between frames, and what a listener makes of a line.

Spec: MODBUS over Serial Line V1.02, sections 2.5.1 (frame, CRC, silences) and
MODBUS Application Protocol V1.1b3, sections 6.3, 6.4 and 7 (reads, exceptions).
A frame is unit, PDU, CRC-16 with the low byte first. Only reads of registers
(function codes 3 and 4) are known here: Bega asks nothing else.
"""

import struct
from collections import namedtuple

from bega_protocols.checks import crc16_modbus
from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

READ_HOLDING, READ_INPUT = 3, 4
READS = (READ_HOLDING, READ_INPUT)
MAX_COUNT = 125  # registers in one read: the byte count is one byte
EXCEPTION = 0x80  # this bit of the function code marks an answer as a refusal
QUESTION_SIZE = 8  # unit, function, address, count, CRC
REFUSAL_SIZE = 5  # unit, function, exception code, CRC
ANSWER_EXTRA = 5  # unit, function, byte count, CRC
MAX_FRAME = 256  # section 2.5.1.1

if TYPE_CHECKING:

    class Exchange(NamedTuple):
        """One question heard on a line, and the answer to it."""

        unit: int
        question: bytes  # PDU
        answer: bytes  # PDU

else:
    Exchange = namedtuple("Exchange", ("unit", "question", "answer"))


def frame(unit: int, pdu: bytes) -> bytes:
    """Return the bytes that carry `pdu` to or from `unit`."""
    body = bytes((unit,)) + pdu
    return body + struct.pack("<H", crc16_modbus(body))


def unframe(whole: bytes) -> "tuple[int, bytes]":
    """Return (unit, PDU); raises WireError if it is too short for a frame, ChecksumError if the CRC differs."""
    if len(whole) < 4:
        raise WireError("too short for Modbus RTU", whole)
    if not _is_whole(whole):
        raise ChecksumError("Modbus CRC differs", whole)
    return whole[0], whole[1:-2]


def answer_size(question: bytes) -> int:
    """Return how long the frame is that answers the PDU `question`, a read."""
    return ANSWER_EXTRA + 2 * (question[3] << 8 | question[4])


def answer_in(heard: bytes, unit: int, question: bytes) -> "bytes | None":
    """Return the PDU that answers `question`, a read of `unit`, in what was heard since; None if there is none.

    What stands in front of it may be noise, or another unit's late answer; what a refusal says is an answer too.
    """
    for at in range(len(heard) - REFUSAL_SIZE + 1):
        if heard[at] != unit:
            continue
        size = 0
        if heard[at + 1] == question[0] | EXCEPTION:
            size = REFUSAL_SIZE
        elif heard[at + 1] == question[0] and heard[at + 2] == 2 * question[4]:
            size = answer_size(question)
        whole = heard[at : at + size]
        if size and len(whole) == size and _is_whole(whole):
            return whole[1:-2]
    return None


def silence_us(baud: int) -> int:
    """Return how long the line must be silent between two frames, in µs: 3.5 characters of 11 bits.

    Above 19200 baud it is fixed at 1.75 ms (section 2.5.1.1).
    """
    return 1750 if baud > 19200 else 38500000 // baud + 1


def characters_us(count: int, baud: int) -> int:
    """Return how long `count` characters of 11 bits take on the wire, in µs."""
    return count * 11000000 // baud


class RtuListener:
    """Pairs the questions and answers heard on a line, whatever stands between them.

    A capture has lost the silences, so frames are found by what they must
    look like: a question by its CRC, an answer by its CRC and by the question
    in front of it, which fixes unit, function and length. So no length that
    noise invented is ever waited for.
    """

    def __init__(self) -> None:
        self._waiting = b""
        self._offset = 0  # of the first waiting byte, counted from the start of the stream
        self._asked: tuple[int, bytes] | None = None  # unit and PDU of the question that waits for its answer
        self._junk = b""  # what was no frame, since the last one
        self._junk_offset = 0

    def feed(self, chunk: bytes, damaged: "list[tuple[int, WireError]]") -> "list[Exchange]":
        """Return the exchanges that `chunk` completes; each stretch that was no frame becomes one WireError."""
        data = self._waiting + chunk
        found: list[Exchange] = []
        at = 0
        while at < len(data):
            size = self._take(data[at : at + MAX_FRAME], found)
            if size is None:
                break
            if size:
                self._flush(damaged)
            else:  # a false start costs one byte: a true frame may begin right behind it
                size = 1
                self._skip(data[at : at + 1], self._offset + at, damaged)
            at += size
        self._waiting = data[at:]
        self._offset += at
        return found

    def _take(self, data: bytes, found: "list[Exchange]") -> "int | None":
        """Return the length of the frame that begins here, 0 if none does, None if more bytes are needed to tell."""
        if len(data) < 3:
            return None
        size = self._answer_size(data)
        if size and len(data) >= size and self._asked is not None and _is_whole(data[:size]):
            found.append(Exchange(data[0], self._asked[1], data[1 : size - 2]))
            self._asked = None
            return size
        if _is_question(data):
            self._asked = (data[0], data[1 : QUESTION_SIZE - 2])
            return QUESTION_SIZE
        if len(data) < size or (data[1] in READS and len(data) < QUESTION_SIZE):
            return None
        return 0

    def _answer_size(self, data: bytes) -> int:
        """Return how long the answer to the last question is if one begins here, 0 if none can."""
        if self._asked is None or data[0] != self._asked[0]:
            return 0
        question = self._asked[1]
        byte_count = 2 * (question[3] << 8 | question[4])
        if data[1] == question[0] and data[2] == byte_count:
            return ANSWER_EXTRA + byte_count
        return REFUSAL_SIZE if data[1] == question[0] | EXCEPTION else 0

    def _skip(self, octet: bytes, offset: int, damaged: "list[tuple[int, WireError]]") -> None:
        if not self._junk:
            self._junk_offset = offset
        self._junk += octet
        if len(self._junk) >= MAX_FRAME:
            self._flush(damaged)

    def _flush(self, damaged: "list[tuple[int, WireError]]") -> None:
        if self._junk:
            damaged.append((self._junk_offset, WireError("no Modbus RTU frame", self._junk)))
            self._junk = b""


def _is_whole(whole: bytes) -> bool:
    return (whole[-2] | whole[-1] << 8) == crc16_modbus(whole[:-2])


def _is_question(data: bytes) -> bool:
    if len(data) < QUESTION_SIZE or data[1] not in READS:
        return False
    return 1 <= (data[4] << 8 | data[5]) <= MAX_COUNT and _is_whole(data[:QUESTION_SIZE])
