"""The gateway's end of the serial link to one node: what to ask next, and what its answer says. No IO, no clock.

Spec: docs/uplink.md, sections "Sessions", "Turns" and "Seal".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bega_protocols import uplink
from bega_protocols.errors import WireError

GIVE_UP_AFTER = 5  # questions without an answer, and the session is over: the node may have lost it with its power
MOST_QUEUED = 100  # messages to one node; a command more than that is refused by who would send it


class Session:
    """One node: `ask` says what to send, `hear` takes what came back, `unanswered` says that nothing did."""

    def __init__(self, name: str, key: bytes, chance: Callable[[int], bytes]) -> None:
        """chance(n): n random octets."""
        self.damaged = 0
        self.refused = 0  # answers without the seal that the key asks for
        self.sessions = 0
        self.silence = 0  # questions in a row without an answer
        self.has_more = False  # the node said so, or we have more for it
        self.chip = ""  # of the board that answers
        self._name = name
        self._key = key
        self._chance = chance
        self._nonce = b""
        self._session = b""
        self._session_key = b""
        self._count = 0
        self._asked = b""  # the question that is open
        self._messages = uplink.Messages()
        self._outgoing = b""
        self._queued: deque[tuple[int, bytes]] = deque()

    @property
    def is_open(self) -> bool:
        """Return whether there is a session."""
        return self._session != b""

    @property
    def is_asking(self) -> bool:
        """Return whether a question is open, into which nothing more can be put."""
        return self._asked != b""

    @property
    def has_room(self) -> bool:
        """Return whether `say` would queue."""
        return len(self._queued) < MOST_QUEUED

    def say(self, kind: int, payload: bytes) -> None:
        """Give it to the node with the next question that has room; beyond the queue it is forgotten."""
        if self.has_room:
            self._queued.append((kind, payload))

    @property
    def is_behind(self) -> bool:
        """Return whether what is said now must wait for what was said before."""
        return bool(self._outgoing or self._queued)

    @property
    def has_something(self) -> bool:
        """Return whether a question is worth while now."""
        return bool(self.has_more or self._outgoing or self._queued)

    def ask(self) -> bytes:
        """Return the frame to send now: the same again while it is not answered."""
        if not self.is_open:
            self._nonce = self._chance(uplink.NONCE_SIZE)
            return uplink.encode(uplink.HELLO, self._nonce + self._name.encode(), self._key)
        if not self._asked:
            self._count += 1
            room = uplink.room(self._key != b"")
            while self._queued and len(self._outgoing) < room:
                self._outgoing += uplink.message(*self._queued.popleft())
            piece, self._outgoing = self._outgoing[:room], self._outgoing[room:]
            rest = self._session + bytes((self._count & 0xFF,)) + piece
            self._asked = uplink.encode(uplink.POLL, rest, self._session_key, uplink.count_context(self._count))
        return self._asked

    def unanswered(self) -> None:
        """Nothing that makes sense came back in time."""
        self.silence += 1
        if self.silence >= GIVE_UP_AFTER:
            self.end()

    def hear(self, block: bytes, may_begin: Callable[[str], bool]) -> list[tuple[int, bytes]] | None:
        """Return the messages that an answer completes; None if this is no answer to what was asked.

        may_begin(chip): whether a board that says this of itself may be this node.
        """
        try:
            frame = uplink.decode(block)
        except WireError:
            self.damaged += 1
            return None
        if frame.kind == uplink.WELCOME and not self.is_open:
            return self._begin(frame, may_begin)
        if frame.kind in (uplink.ANSWER, uplink.MORE) and self.is_open and self._asked:
            return self._answered(frame)
        return None  # our own question as the bus returns it, or another node's late answer

    def _begin(self, frame: uplink.Frame, may_begin: Callable[[str], bool]) -> list[tuple[int, bytes]] | None:
        session, answered = frame.body[1:5], frame.body[5 : 5 + uplink.NONCE_SIZE]
        name, _, chip = frame.body[5 + uplink.NONCE_SIZE :].decode("ascii", "replace").partition("/")
        if name != self._name or session != uplink.session_of(name, self._nonce, answered):
            return None
        if not uplink.is_sealed(frame, self._key, self._nonce):
            self.refused += 1
            return None
        if not may_begin(chip):
            return None
        self.end()
        self._session = session
        self._session_key = uplink.session_key(self._key, name, self._nonce, answered)
        self._nonce = b""  # an answer that comes twice begins nothing
        self.chip = chip
        self.sessions += 1
        self.has_more = True
        return []

    def _answered(self, frame: uplink.Frame) -> list[tuple[int, bytes]] | None:
        if frame.body[1:5] != self._session or frame.body[5:6] != bytes((self._count & 0xFF,)):
            return None
        if not uplink.is_sealed(frame, self._session_key, uplink.count_context(self._count)):
            self.refused += 1
            return None
        self._asked = b""
        self.silence = 0
        self.has_more = frame.kind == uplink.MORE
        try:
            return self._messages.feed(frame.body[uplink.TURN_HEAD :])
        except WireError:
            self.damaged += 1
            self.end()
            return None

    def end(self) -> None:
        """Forget the session; what was on its way in it is lost, what is queued is not."""
        self._session = self._session_key = self._asked = self._outgoing = b""
        self._messages = uplink.Messages()
        self._count = 0
        self.silence = 0
        self.has_more = False
