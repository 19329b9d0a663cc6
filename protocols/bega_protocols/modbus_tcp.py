"""Modbus over TCP: what a listener makes of both directions of one connection.

Spec: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, section 3.1.3: the
header is transaction, protocol 0, length of what follows, unit. There is no
check value: TCP carries one.
"""

import struct

from bega_protocols.errors import WireError
from bega_protocols.modbus_rtu import EXCEPTION, MAX_COUNT, READS, Exchange

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

HEADER_SIZE = 7  # transaction, protocol, length, unit
MAX_LENGTH = 254  # unit and a PDU of at most 253 bytes
MOST_UNANSWERED = 16  # questions kept for an answer: section 4.2 recommends at most 16 in flight


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """Return the bytes that carry `pdu` to or from `unit` under the number `transaction`."""
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


class TcpListener:
    """Pairs the questions and answers heard on a connection by transaction and unit."""

    def __init__(self) -> None:
        self._waiting = b""
        self._offset = 0  # of the first waiting byte, counted from the start of the stream
        self._in_step = True
        self._asked: list[tuple[bytes, bytes]] = []  # (transaction and unit, PDU), oldest first

    def feed(self, chunk: bytes, damaged: "list[tuple[int, WireError]]") -> "list[Exchange]":
        """Return the exchanges that `chunk` completes; each header that is none goes to `damaged`."""
        data = self._waiting + chunk
        found: list[Exchange] = []
        at = 0
        while len(data) - at > HEADER_SIZE:
            protocol, length = struct.unpack_from(">HH", data, at + 2)
            if protocol != 0 or not 3 <= length <= MAX_LENGTH:
                if self._in_step:
                    damaged.append((self._offset + at, WireError("no Modbus TCP header", data[at : at + HEADER_SIZE])))
                    self._in_step = False
                at += 1  # nothing marks where the next frame begins
                continue
            if len(data) - at < 6 + length:
                break
            self._take(data[at : at + 2] + data[at + 6 : at + 7], data[at + 7 : at + 6 + length], found)
            self._in_step = True
            at += 6 + length
        self._waiting = data[at:]
        self._offset += at
        return found

    def _take(self, key: bytes, pdu: bytes, found: "list[Exchange]") -> None:
        """A question is a read of five bytes; an answer of that length has a byte count of 3, and no read has that."""
        if pdu[0] in READS and len(pdu) == 5 and 1 <= struct.unpack_from(">H", pdu, 3)[0] <= MAX_COUNT:
            self._asked = self._asked[-MOST_UNANSWERED:] + [(key, pdu)]
            return
        for index, (asked_key, question) in enumerate(self._asked):
            if asked_key == key and pdu[0] & ~EXCEPTION == question[0]:
                found.append(Exchange(key[2], question, pdu))
                self._asked = self._asked[:index] + self._asked[index + 1 :]
                return
