"""The node's end of the serial link to its gateway: octets in, at most one frame out. No IO, no clock.

Spec: docs/uplink.md, sections "Sessions", "Turns" and "Seal".
"""

from bega_protocols import uplink
from bega_protocols.errors import WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable


class NodeEnd:
    """Answers the gateway when it is asked, each time with what waits; says nothing otherwise."""

    def __init__(
        self,
        name: str,
        chip: str,
        key: bytes,
        chance: "Callable[[int], bytes]",
        take: "Callable[[int, bytes], None]",
        begun: "Callable[[], None]",
    ) -> None:
        """chip: what no other board says of itself; chance(n): n random octets.

        take(kind, payload) receives the gateway's messages; begun() is called when a session begins: what was said in
        the one before may never have arrived.
        """
        self.damaged = 0  # frames that noise spoiled, and those of another protocol
        self.refused = 0  # frames for us without the seal that our key asks for
        self._name = name
        self._chip = chip
        self._key = key
        self._chance = chance
        self._take = take
        self._begun = begun
        self._blocks = uplink.Blocks()
        self._messages = uplink.Messages()
        self._offered = (b"", b"")  # session and key that were answered to a HELLO, and not yet used
        self._session = b""
        self._session_key = b""
        self._count = 0  # exchanges of this session
        self._last = b""  # the answer to the last of them
        self._outgoing = b""

    @property
    def waiting(self) -> int:
        """Return how many octets wait to be asked for."""
        return len(self._outgoing)

    def say(self, kind: int, payload: bytes) -> None:
        """Give it to the gateway, in order, when that asks."""
        self._outgoing += uplink.message(kind, payload)

    def forget(self) -> None:
        """Say nothing of what waits; the session is over too, since half of a message may be on its way."""
        self._outgoing = self._last = self._session = b""

    def hear(self, chunk: bytes) -> bytes:
        """Return what to send now, b"" for nothing.

        A question behind which others follow was asked long ago: by now somebody else may be speaking.
        """
        reply = b""
        for block in self._blocks.feed(chunk):
            try:
                reply = self._reply(uplink.decode(block))
            except WireError:
                self.damaged += 1
                reply = b""
        return reply if self._blocks.is_between else b""

    def _reply(self, frame: uplink.Frame) -> bytes:
        if frame.kind == uplink.HELLO:
            return self._welcome(frame)
        if frame.kind == uplink.POLL and len(frame.body) >= uplink.TURN_HEAD:
            return self._turn(frame)
        return b""

    def _welcome(self, frame: uplink.Frame) -> bytes:
        """Offer a session; it begins with the first question in it, so that a stray HELLO ends none."""
        asked = frame.body[1 : 1 + uplink.NONCE_SIZE]
        if frame.body[1 + uplink.NONCE_SIZE :] != self._name.encode():
            return b""
        if not uplink.is_sealed(frame, self._key, b""):
            self.refused += 1
            return b""
        answered = self._chance(uplink.NONCE_SIZE)
        session = uplink.session_of(self._name, asked, answered)
        self._offered = session, uplink.session_key(self._key, self._name, asked, answered)
        rest = session + answered + (self._name + "/" + self._chip).encode()
        return uplink.encode(uplink.WELCOME, rest, self._key, asked)

    def _turn(self, frame: uplink.Frame) -> bytes:
        session, number = frame.body[1:5], frame.body[5]
        is_first = session == self._offered[0] and session != b""
        if not is_first and session != self._session:
            return b""
        key, count = self._offered[1] if is_first else self._session_key, 0 if is_first else self._count
        is_again = not is_first and number == count & 0xFF
        if not is_again:
            count += 1
        if number != count & 0xFF or not uplink.is_sealed(frame, key, uplink.count_context(count)):
            self.refused += 1
            return b""
        if is_again:
            return self._last
        if is_first:
            self._begin(session, key)
        self._count = count
        self._last = b""  # should anything fail from here on, the question comes again and finds no answer
        try:
            messages = self._messages.feed(frame.body[uplink.TURN_HEAD :])
        except WireError:
            self.forget()
            raise
        for kind, payload in messages:
            self._take(kind, payload)
        self._last = self._answer()
        return self._last

    def _begin(self, session: bytes, key: bytes) -> None:
        self._offered = b"", b""
        self._session, self._session_key = session, key
        self._messages = uplink.Messages()
        self._outgoing = b""
        self._begun()

    def _answer(self) -> bytes:
        room = uplink.room(self._session_key != b"")
        piece, self._outgoing = self._outgoing[:room], self._outgoing[room:]
        kind = uplink.MORE if self._outgoing else uplink.ANSWER
        rest = self._session + bytes((self._count & 0xFF,)) + piece
        return uplink.encode(kind, rest, self._session_key, uplink.count_context(self._count))
