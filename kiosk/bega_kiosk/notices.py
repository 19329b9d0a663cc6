"""Notices of the city: what is closed or cut off, on which streets, from when until when. Signed, kept, given out.

A desk takes what staff publish and gives it out; a kiosk fetches it and shows it. Both keep it here, and both believe
the city's signature and nothing else: not the network, not the desk, not the kiosk's own disk. Each notice is signed by
itself, and which of them hold now says a list that is signed as a whole (notice_list.py, decision 085).

The file has a notice a line, each by itself, so that half a file is half of the notices and not a broken one; then the
list, and when the desk gave it.
"""

from __future__ import annotations

import binascii
import logging
import os
import re
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from bega.clock import CLOCK_FLOOR_MS, Clock
from bega.tables import Name
from bega_kiosk import signed
from bega_kiosk.notice_list import AHEAD_MS, BELIEVED_DAYS, DAY_MS, MOST_LISTED, NoticeList, digest, read_list
from bega_protocols.errors import WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

log = logging.getLogger("bega.kiosk.notices")

MOST_BYTES = 8_192  # of one message
MOST_NOTICES = 2 * MOST_LISTED
LIST = b"list "  # what its line begins with
LONGEST_MS = 400 * 86_400_000  # a work that takes longer is no notice any more
LAST_MS = 4_102_444_800_000  # 2100: a day that a page can name

Effect = Literal[
    "water_stop",
    "water_low",
    "heat_stop",
    "heat_water_only",
    "power_stop",
    "gas_stop",
    "road_closed",
    "road_limited",
    "transport_detour",
]
Reason = Literal["repair", "fault", "connection", "cleaning", "works", "event", "weather"]
Place = Annotated[str, msgspec.Meta(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f<>]+\Z")]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class Notice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One notice: words that every language has, and the names of places as people say them."""

    id: Name
    city: Name
    published_ms: Milliseconds  # of two with one id the later is true
    effect: Effect
    streets: Annotated[list[Place], msgspec.Meta(min_length=1, max_length=40)]
    from_ms: Milliseconds
    until_ms: Milliseconds  # it is shown until then
    is_end_known: bool = True
    districts: Annotated[list[Place], msgspec.Meta(max_length=20)] = []
    section_from: Place | None = None
    section_to: Place | None = None
    detour: Annotated[list[Place], msgspec.Meta(max_length=10)] = []
    lines: Annotated[list[Place], msgspec.Meta(max_length=20)] = []  # of buses and trams that go another way
    reason: Reason | None = None
    who: Place | None = None
    can_walk: bool | None = None
    is_example: bool = False
    is_withdrawn: bool = False

    @property
    def kind(self) -> str:
        """Return what it is about: water, heat, power, gas, road, transport."""
        return self.effect.partition("_")[0]

    def is_over(self, now_ms: int) -> bool:
        """Return whether it is past its end."""
        return now_ms >= self.until_ms

    def is_now(self, now_ms: int) -> bool:
        """Return whether it is so at this moment."""
        return self.from_ms <= now_ms < self.until_ms


NOTICE = signed.Kind("bega notice 1", "notice", Notice, MOST_BYTES)


def nonsense(notice: Notice) -> str:
    """Return what the types alone cannot know, "" for nothing."""
    if notice.until_ms <= notice.from_ms:
        return "it ends before it begins"
    if notice.until_ms - notice.from_ms > LONGEST_MS:
        return "it lasts more than 400 days"
    if max(notice.published_ms, notice.until_ms) > LAST_MS:
        return "it speaks of a day after the year 2099"
    if (notice.section_from is None) != (notice.section_to is None):
        return "a section has two ends, and one is missing"
    return ""


def write_notice(key: Ed25519PrivateKey, notice: Notice) -> bytes:
    """Return the signed message of a notice."""
    return signed.sign(key, NOTICE.signed_as, msgspec.json.encode(notice))


def read_notice(keys: Sequence[Ed25519PublicKey], city: str, message: bytes) -> Notice:
    """Return a notice of this city; raises WireError."""
    notice = signed.read(keys, NOTICE, city, message)
    if why := nonsense(notice):
        raise WireError(f"signed, but no notice: {why}")
    return notice


Known = dict[str, tuple[Notice, bytes]]  # by the notice's id: what it says, and the message that was signed


class _State(NamedTuple):
    """All of a board: replaced as a whole, so that who reads needs to wait for nobody."""

    known: Known
    listed: NoticeList | None = None
    names: frozenset[str] = frozenset()  # of the notices that are on the list
    list_message: bytes = b""

    def holds(self, notice: Notice, message: bytes) -> bool:
        """Return whether a notice is true: on the list, or not withdrawn where there is no list."""
        return not notice.is_withdrawn and (self.listed is None or digest(message) in self.names)


class NotNext(WireError):
    """A list does not follow the one that is here: another was signed meanwhile. Fetch it, and sign again."""


class Board:
    """The notices that are known, each verified; in a file, or in memory alone.

    What changes it may be called from any thread, one at a time; what reads it sees all of a change or nothing.
    """

    def __init__(self, path: Path | None, keys: Sequence[Ed25519PublicKey], city: str, wall_ms: Clock) -> None:
        """Read what the file has; one that is not there or not readable is an empty one."""
        self.heard_ms: int | None = None  # when the desk said last which notices there are
        self.refused = 0
        self._path = path
        self._keys = keys
        self._city = city
        self._wall_ms = wall_ms
        self._now = _State({})
        self._changing = threading.Lock()
        self._is_failing = False
        self._load()

    def publish(self, messages: Sequence[bytes], list_message: bytes) -> NoticeList:
        """Keep what is published now with the list that names it, whole or not at all, and return the list.

        Raises WireError if something of it is not the city's, or the list does not follow the one that is here, or it
        cannot be written: who publishes is told, since a kiosk that has it refuses the list that would come back. A
        stamp from days to come is refused: until then no later word could put it right; and one that is so old that no
        kiosk would believe the list.
        """
        with self._changing:
            listed, have = self._verified_list(list_message), self.listed
            if list_message == self._now.list_message:  # sent once more by who did not hear that it came
                return listed
            if have is not None and (listed.follows != have.number or listed.number <= have.number):
                raise NotNext(f"list {have.number} is here, and {listed.number} does not follow it")
            if self._is_from_days_to_come(listed.signed_ms):
                raise WireError("the list is stamped later than now; is the clock right where it was signed?")
            if self._is_from_long_ago(listed.signed_ms):
                raise WireError(f"the list was signed more than {BELIEVED_DAYS} days ago; was the clock right there?")
            known, names = dict(self._now.known), frozenset(listed.notices)
            for message in messages:
                self._put_published(known, message, names)
            _require_whole(known, listed)
            after = _State(known, listed, names, list_message)
            if why := self._save(after):
                raise WireError(f"it cannot be kept here ({why}), so it was not published")
            self._now = after
        return listed

    def take_all(self, messages: Iterable[bytes], list_message: bytes) -> None:
        """Keep what the desk gives out, now; a notice that is not the city's is counted and left out.

        Raises WireError, and changes nothing, unless the list is the city's, whole, and no older than the one here.
        """
        with self._changing:
            self._now = self._after(messages, list_message)
            self.heard_ms = self._wall_ms()
            self._save(self._now)

    def require_good(self, messages: Iterable[bytes], list_message: bytes) -> None:
        """Raise WireError where `take_all` would; nothing is changed."""
        self._after(messages, list_message)

    def is_heard_by_this_clock(self, within_ms: int) -> bool:
        """Return whether the list came at most so long ago; otherwise the clock was set since it came."""
        return self.heard_ms is not None and -AHEAD_MS <= self._wall_ms() - self.heard_ms <= within_ms

    @property
    def listed(self) -> NoticeList | None:
        """Return the list that says which notices hold; None where nobody has said so: then all of them do."""
        return self._now.listed

    @property
    def list_message(self) -> bytes:
        """Return that list as it was signed, b"" for none."""
        return self._now.list_message

    def find(self, name: str) -> Notice | None:
        """Return a notice, also one that is over, but none that was withdrawn."""
        now = self._now
        notice, message = now.known.get(name, (None, b""))
        return notice if notice is not None and now.holds(notice, message) else None

    def every(self) -> list[Notice]:
        """Return all that were not withdrawn, the first to begin first, also those that are over."""
        now = self._now
        notices = [notice for notice, message in now.known.values() if now.holds(notice, message)]
        return sorted(notices, key=lambda notice: (notice.from_ms, notice.until_ms, notice.id))

    def messages(self) -> list[bytes]:
        """Return what others may fetch: each as it was signed, the withdrawn too."""
        return [message for _, message in self._now.known.values()]

    def _after(self, messages: Iterable[bytes], list_message: bytes) -> _State:
        """Return what is known after this was given out; raises WireError."""
        listed, have = self._verified_list(list_message), self.listed
        if have is not None and listed.number < have.number:
            raise WireError(f"it gives list {listed.number}, and list {have.number} is here already")
        if have is not None and listed.number == have.number and list_message != self._now.list_message:
            raise WireError(f"there are two lists with the number {listed.number}")
        known, names = dict(self._now.known), frozenset(listed.notices)
        there = set(self.messages())
        for message in messages:
            if message not in there:
                with suppress(WireError):
                    _put(known, self._verified(message), message, names)
        _require_whole(known, listed)
        return _State(known, listed, names, list_message)

    def _verified(self, message: bytes) -> Notice:
        try:
            return read_notice(self._keys, self._city, message)
        except WireError as error:
            self.refused += 1
            if self.refused == 1:  # the others are a number
                log.warning("notice refused why=%s", error.why)
            raise

    def _verified_list(self, message: bytes) -> NoticeList:
        return read_list(self._keys, self._city, message)

    def _is_from_days_to_come(self, stamp_ms: int) -> bool:
        now_ms = self._wall_ms()
        return now_ms >= CLOCK_FLOOR_MS and stamp_ms > now_ms + AHEAD_MS

    def _is_from_long_ago(self, stamp_ms: int) -> bool:
        now_ms = self._wall_ms()
        return now_ms >= CLOCK_FLOOR_MS and now_ms - stamp_ms > BELIEVED_DAYS * DAY_MS

    def _put_published(self, known: Known, message: bytes, names: frozenset[str]) -> Notice:
        notice = self._verified(message)
        if self._is_from_days_to_come(notice.published_ms):
            raise WireError("it is stamped later than now; is the clock right where it was signed?")
        is_here = message in self.messages()  # sent once more by who did not hear that it came
        if not is_here and (why := _put(known, notice, message, names)):
            raise WireError(why)
        return notice

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("notices cannot be read path=%s error=%s", self._path, error.strerror)
            return
        for line in lines:
            if found := re.fullmatch(rb"heard (\d{1,15})", line):
                self.heard_ms = int(found[1])
                continue
            with suppress(binascii.Error, WireError):  # half a line, or one that somebody else wrote
                if line.startswith(LIST):
                    message = b64decode(line.removeprefix(LIST), validate=True)
                    listed = self._verified_list(message)
                    self._now = _State(self._now.known, listed, frozenset(listed.notices), message)
                else:
                    message = b64decode(line, validate=True)
                    _put(self._now.known, self._verified(message), message, frozenset())
        try:
            if self.listed is not None:
                _require_whole(self._now.known, self.listed)
                return
        except WireError as error:
            log.warning("notices are not whole until they are fetched path=%s why=%s", self._path, error.why)
        self.heard_ms = None  # of another list, or of one of which a part is lost

    def _save(self, state: _State) -> str:
        """Write it, and return "" or why that cannot be."""
        if self._path is None:
            return ""
        lines = [b64encode(message) for _, message in state.known.values()]
        if state.list_message:
            lines.append(LIST + b64encode(state.list_message))
        if self.heard_ms is not None:
            lines.append(b"heard %d" % self.heard_ms)
        part = self._path.with_name(self._path.name + ".part")
        try:
            with part.open("wb") as file:
                file.write(b"".join(line + b"\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:  # a full or worn-out card: a kiosk's notices go on from memory
            if not self._is_failing:
                log.warning("notices cannot be written error=%s", error.strerror)
            self._is_failing = True
            return error.strerror or type(error).__name__
        self._is_failing = False
        return ""


def _put(known: Known, notice: Notice, message: bytes, names: frozenset[str]) -> str:
    """Put a notice into `known` and return "", or return why it is not kept; what `names` has is not let go of."""
    old, _ = known.get(notice.id, (None, b""))
    if old is not None and notice.published_ms <= old.published_ms and digest(message) not in names:
        return "a later word of this id is here; is the clock right where it was signed?"
    known[notice.id] = (notice, message)
    if len(known) > MOST_NOTICES:
        least = _least(known, names)
        del known[least.id]
        if least is notice:
            return f"there are {MOST_NOTICES} notices that end later"
    return ""


def _require_whole(known: Known, listed: NoticeList) -> None:
    missing = len({*listed.notices} - {digest(message) for _, message in known.values()})
    if missing:
        raise WireError(f"of the {len(listed.notices)} notices of list {listed.number} {missing} are missing")


def _least(known: Known, names: frozenset[str]) -> Notice:
    """Return what can be spared most: what ends first, not by the clock, which may be wrong; nothing that is listed.

    The withdrawn ones last for 300 days. They have half of the room and lose the oldest of them beyond it, or a
    year of withdrawals would leave no room for what is cut off today.
    """
    notices = [notice for notice, message in known.values() if digest(message) not in names]
    gone = [notice for notice in notices if notice.is_withdrawn]
    others = [notice for notice in notices if not notice.is_withdrawn]
    if len(gone) > MOST_NOTICES // 2 or not others:
        return min(gone, key=lambda notice: notice.published_ms)
    return min(others, key=lambda notice: notice.until_ms)
