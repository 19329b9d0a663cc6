"""Our own link from a gateway to its nodes over a serial line: frames, and the messages that they carry.

Spec: docs/uplink.md, whose sections are named here. The gateway asks, one
node answers, nobody else speaks: the same rule serves RS-485 with many nodes
and a cable with one.
"""

import struct
from collections import namedtuple

from bega_protocols import cobs
from bega_protocols.checks import crc32
from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Frame(NamedTuple):
        """`body` is what the seal covers, first octet included; `seal` is b"" where there is none."""

        kind: int
        body: bytes
        seal: bytes

else:
    Frame = namedtuple("Frame", ("kind", "body", "seal"))

VERSION = 1
HELLO, WELCOME, POLL, ANSWER, MORE = 1, 2, 3, 4, 5  # section "Frames"; MORE is an ANSWER with more behind it
SEALED = 8  # in the low half of the first octet, beside the kind
LARGEST_FRAME = 254  # octets before stuffing: one code octet, and a receive buffer of 512 holds one and a half
LONGEST_BLOCK = (
    LARGEST_FRAME + 2
)  # one octet more than stuffing makes of it: what is cut off here cannot pass for whole
SEAL_SIZE = 8
NONCE_SIZE = 8
KEY_SIZE = 32
TURN_HEAD = 6  # first octet, session, number

# Messages from a node, and to it (section "Messages").
STATUS, SHAPE, RECORD, RESULT, WANT = 1, 2, 3, 4, 5
ACK, TIME, COMMAND, PIECE = 1, 2, 3, 4
LARGEST_MESSAGE = 8192
_HEAD_SIZE = 3
_RECORD = ">IIB"  # boot, seq, shape; then the record as it is stored
_ACK_SIZE = 8


def encode(kind: int, rest: bytes, key: bytes = b"", context: bytes = b"") -> bytes:
    """Return a frame for the wire, sealed with `key` if there is one; `context` as for `seal`."""
    body = bytes((VERSION << 4 | (SEALED if key else 0) | kind,)) + rest
    data = body + seal(key, context, body)
    return b"\0" + cobs.encode(data + struct.pack(">I", crc32(data))) + b"\0"


def decode(block: bytes) -> Frame:
    """Return the frame in what stood between two zeros; raises WireError, ChecksumError where only the sum is wrong."""
    data = cobs.decode(block)
    if len(data) < 5 or crc32(data[:-4]) != struct.unpack_from(">I", data, len(data) - 4)[0]:
        raise ChecksumError("uplink frame damaged", data[:16])
    if data[0] >> 4 != VERSION:
        raise WireError("uplink version %d" % (data[0] >> 4), data[:16])
    kind, end = data[0] & 7, len(data) - 4
    seal_at = end - SEAL_SIZE if data[0] & SEALED else end
    if not HELLO <= kind <= MORE or seal_at < 1 or len(data) > LARGEST_FRAME:
        raise WireError("no uplink frame", data[:16])
    return Frame(kind, data[:seal_at], data[seal_at:end])


def room(sealed: bool) -> int:
    """Return how many octets of messages one POLL or ANSWER has room for."""
    return LARGEST_FRAME - TURN_HEAD - 4 - (SEAL_SIZE if sealed else 0)


class Blocks:
    """Cuts a stream at its zeros."""

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, chunk: bytes) -> "list[bytes]":
        """Return the blocks that `chunk` ends, oldest first; of one that is too long for a frame only the beginning."""
        found = []
        pieces = chunk.split(b"\0")
        for piece in pieces[:-1]:
            block = (self._waiting + piece)[:LONGEST_BLOCK]
            self._waiting = b""
            if block:
                found.append(block)
        self._waiting = (self._waiting + pieces[-1])[:LONGEST_BLOCK]
        return found

    @property
    def is_between(self) -> bool:
        """Return whether nothing of another frame has come behind the last one."""
        return not self._waiting


def message(kind: int, payload: bytes) -> bytes:
    """Return a message for the stream of one direction."""
    return struct.pack(">HB", len(payload), kind) + payload


class Messages:
    """Joins what frames carried to messages again; one may begin in one frame and end many later."""

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, piece: bytes) -> "list[tuple[int, bytes]]":
        """Return (kind, payload) of each message that `piece` ends. Raises WireError for one that is too large."""
        data = self._waiting + piece
        found = []
        at = 0
        while len(data) - at >= _HEAD_SIZE:
            size, kind = struct.unpack_from(">HB", data, at)
            if size > LARGEST_MESSAGE:
                raise WireError("uplink message of %d octets" % size, data[at : at + 16])
            end = at + _HEAD_SIZE + size
            if end > len(data):
                break
            found.append((kind, data[at + _HEAD_SIZE : end]))
            at = end
        self._waiting = data[at:]
        return found


def record(boot: int, seq: int, shape: int, body: bytes) -> bytes:
    """Return the payload of a RECORD; `body` as stored.py has it, its time settled."""
    return struct.pack(_RECORD, boot, seq, shape) + body


def read_record(payload: bytes) -> "tuple[int, int, int, bytes]":
    """Return (boot, seq, shape, body); raises WireError."""
    if len(payload) < 9:
        raise WireError("no record", payload)
    boot, seq, shape = struct.unpack_from(_RECORD, payload)
    return boot, seq, shape, payload[9:]


def acknowledgement(pairs: "list[tuple[int, int]]") -> bytes:
    """Return the payload of an ACK."""
    return b"".join([struct.pack(">II", boot, seq) for boot, seq in pairs])


def read_acknowledgement(payload: bytes) -> "list[tuple[int, int]]":
    """Return the (boot, seq) of an ACK; raises WireError."""
    if len(payload) % _ACK_SIZE:
        raise WireError("no acknowledgement", payload[:16])
    return [struct.unpack_from(">II", payload, at) for at in range(0, len(payload), _ACK_SIZE)]


def session_of(name: str, asked: bytes, answered: bytes) -> bytes:
    """Return the four octets that stand for a session in each frame (section "Sessions")."""
    return struct.pack(">I", crc32(asked + answered + name.encode()))


def session_key(key: bytes, name: str, asked: bytes, answered: bytes) -> bytes:
    """Return the key of one session, b"" without a key of the node (section "Seal")."""
    return hmac_sha256(key, b"session" + asked + answered + name.encode()) if key else b""


def seal(key: bytes, context: bytes, body: bytes) -> bytes:
    """Return the seal of a frame, b"" without a key; `context` is what both know and the frame does not say."""
    return hmac_sha256(key, context + body)[:SEAL_SIZE] if key else b""


def is_sealed(frame: Frame, key: bytes, context: bytes) -> bool:
    """Return whether the frame bears the seal that `key` asks for, none if there is no key."""
    expected = seal(key, context, frame.body)
    differs = len(expected) ^ len(frame.seal)
    for one, other in zip(expected, frame.seal):  # all of them, whatever the first are: the time must tell nothing
        differs |= one ^ other
    return differs == 0


def count_context(count: int) -> bytes:
    """Return the context of the frames of a session: how many exchanges there were, of which a frame says 8 bits."""
    return struct.pack(">I", count & 0xFFFFFFFF)


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """Return the HMAC-SHA256 of `data` (RFC 2104); a key of at most 64 octets. MicroPython has no hmac."""
    import hashlib  # only here: a link without keys does not need it

    padded = key + bytes(64 - len(key))
    inner = hashlib.sha256(bytes([octet ^ 0x36 for octet in padded]) + data).digest()
    return hashlib.sha256(bytes([octet ^ 0x5C for octet in padded]) + inner).digest()
