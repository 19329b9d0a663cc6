"""Notices of the city: what is closed or cut off, on which streets, from when until when. Signed, kept, given out.

A desk takes what staff publish and gives it out; a kiosk fetches it and shows it. Both keep it here, and both believe
the city's signature and nothing else: not the network, not the desk, not the kiosk's own disk.

The file has a notice a line, each by itself, so that half a file is half of the notices and not a broken one.
"""

from __future__ import annotations

import binascii
import logging
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from bega.clock import CLOCK_FLOOR_MS, Clock
from bega.tables import Name
from bega_kiosk.signed import opened, sign
from bega_protocols.errors import WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

log = logging.getLogger("bega.kiosk.notices")

SIGNED_AS = "bega notice 1"
MOST_BYTES = 8_192  # of one message
MOST_NOTICES = 500
LONGEST_MS = 400 * 86_400_000  # a work that takes longer is no notice any more
LAST_MS = 4_102_444_800_000  # 2100: a day that a page can name
AHEAD_MS = 120_000  # a stamp farther ahead than this comes from a clock that is wrong

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
    return sign(key, SIGNED_AS, msgspec.json.encode(notice))


def read_notice(keys: Sequence[Ed25519PublicKey], city: str, message: bytes) -> Notice:
    """Return a notice of this city; raises WireError. Nothing of it is parsed before its signature was found good."""
    if len(message) > MOST_BYTES:
        raise WireError(f"a notice of more than {MOST_BYTES} bytes")
    body = opened(keys, SIGNED_AS, message)
    try:
        notice = msgspec.json.decode(body, type=Notice)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"signed, but no notice: {error}") from None
    if notice.city != city:
        raise WireError(f"a notice of the city {notice.city}, not {city}")
    if why := nonsense(notice):
        raise WireError(f"signed, but no notice: {why}")
    return notice


class Board:
    """The notices that are known, each verified; in a file, or in memory alone."""

    def __init__(self, path: Path | None, keys: Sequence[Ed25519PublicKey], city: str, wall_ms: Clock) -> None:
        """Read what the file has; one that is not there or not readable is an empty one."""
        self.heard_ms: int | None = None  # when the desk said last which notices there are
        self.refused = 0
        self._path = path
        self._keys = keys
        self._city = city
        self._wall_ms = wall_ms
        self._known: dict[str, tuple[Notice, bytes]] = {}
        self._is_failing = False
        self._load()

    def take(self, message: bytes) -> Notice:
        """Keep a notice that is published now, and return it; raises WireError if it is not the city's or not kept.

        A stamp from days to come is refused: until then no later word could put it right.
        """
        notice = self._verified(message)
        now_ms = self._wall_ms()
        if now_ms >= CLOCK_FLOOR_MS and notice.published_ms > now_ms + AHEAD_MS:
            raise WireError("it is stamped later than now; is the clock right where it was signed?")
        if message in self.messages():  # sent once more by who did not hear that it came
            return notice
        if why := self._put(notice, message):
            raise WireError(why)
        self._save()
        return notice

    def take_all(self, messages: Iterable[bytes]) -> None:
        """Keep what the desk gives out, now; what is not the city's is counted and left out."""
        known = set(self.messages())
        for message in messages:
            if message not in known:
                with suppress(WireError):
                    self._put(self._verified(message), message)
        self.heard_ms = self._wall_ms()
        self._save()

    def find(self, name: str) -> Notice | None:
        """Return a notice, also one that is over, but none that was withdrawn."""
        notice, _ = self._known.get(name, (None, b""))
        return None if notice is None or notice.is_withdrawn else notice

    def every(self) -> list[Notice]:
        """Return all that were not withdrawn, the first to begin first, also those that are over."""
        notices = [notice for notice, _ in self._known.values() if not notice.is_withdrawn]
        return sorted(notices, key=lambda notice: (notice.from_ms, notice.until_ms, notice.id))

    def messages(self) -> list[bytes]:
        """Return what others may fetch: each as it was signed, the withdrawn too."""
        return [message for _, message in self._known.values()]

    def _verified(self, message: bytes) -> Notice:
        try:
            return read_notice(self._keys, self._city, message)
        except WireError as error:
            self.refused += 1
            if self.refused == 1:  # the others are a number
                log.warning("notice refused why=%s", error.why)
            raise

    def _put(self, notice: Notice, message: bytes) -> str:
        """Keep a notice and return "", or return why it is not kept."""
        old, _ = self._known.get(notice.id, (None, b""))
        if old is not None and notice.published_ms <= old.published_ms:
            return "a later word of this id is here; is the clock right where it was signed?"
        self._known[notice.id] = (notice, message)
        if len(self._known) > MOST_NOTICES:
            least = self._least()
            del self._known[least.id]
            if least is notice:
                return f"there are {MOST_NOTICES} notices that end later"
        return ""

    def _least(self) -> Notice:
        """Return what can be spared most: what ends first, not by the clock, which may be wrong.

        The withdrawn ones last for 300 days. They have half of the room and lose the oldest of them beyond it, or a
        year of withdrawals would leave no room for what is cut off today.
        """
        notices = [notice for notice, _ in self._known.values()]
        gone = [notice for notice in notices if notice.is_withdrawn]
        if len(gone) > MOST_NOTICES // 2:
            return min(gone, key=lambda notice: notice.published_ms)
        return min((notice for notice in notices if not notice.is_withdrawn), key=lambda notice: notice.until_ms)

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
                message = b64decode(line, validate=True)
                self._put(self._verified(message), message)

    def _save(self) -> None:
        if self._path is None:
            return
        lines = [b64encode(message) for message in self.messages()]
        if self.heard_ms is not None:
            lines.append(b"heard %d" % self.heard_ms)
        part = self._path.with_name(self._path.name + ".part")
        try:
            with part.open("wb") as file:
                file.write(b"".join(line + b"\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:  # a full or worn-out card: the notices go on from memory
            if not self._is_failing:
                log.warning("notices cannot be written error=%s", error.strerror)
            self._is_failing = True
            return
        self._is_failing = False
