"""Who gets an update next, and when it stops by itself. Pure: what nodes say and the time in, what to do out.

Spec: docs/updates.md, "Rollout". Every state is read from what nodes say of themselves, so that a word that is lost,
comes twice, or was said before the gateway's last power cut does no harm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from bega_gateway.lines.node_said import UpdateSaid
from bega_protocols.errors import WireError
from bega_protocols.update import version_of

State = Literal[
    "waiting", "offered", "loading", "ready", "trial", "confirmed", "failed", "left out", "to go back", "gone back"
]
RINGS = ("canary", "10 %", "all")
CANARY, TENTH, ALL = 0, 1, 2
IN_HAND = ("offered", "loading", "ready", "trial")
NOTHING_YET = ("waiting", "offered", "loading")  # unless it has asked for pieces
TAKEN = ("loading", "ready", "trial")
HAVING = (*IN_HAND, "confirmed")  # it has that version, or may have it soon
SETTLED = ("confirmed", "failed", "left out", "gone back")
THERE_MS = 90_000  # heard so lately a node on mains can be told something, and
AWAKE_MS = 10_000  # one on a battery
ANSWER_MS = 90_000  # of an offer
PAUSE_MS = 60_000  # before a node is offered the same again
AWAY_MS = 900_000  # a node that is silent for so long while it loads keeps no other one waiting
LOST_MS = 3_600_000  # and one that was to start with the new version, and is silent for so long, has failed
FULL_MS = 900_000  # before a node that had no room for it is asked again: it may restart to look at the offer
MOST_RELAPSES = 3
LOWER_WORDS = 2  # in a row: one may have come late
NEVER_MS = 1 << 60
BY_HAND = "by hand"
CUT_OFF = "it is cut off"  # firmware/node/pull.py: nobody gave it any more
LATER = "ask again"  # firmware/node/offer.py: what stands in the way will be over
GONE = "it is no node of this gateway any more"
NOT_ITS_TURN = "it went back before this one's turn came"
EXPIRED = "the bundle has expired: sign it again and publish it"
NO_BUNDLE = "its bundle is gone or damaged: publish it again"

Quiet = Callable[[str], "int | None"]  # node: ms since it was heard, None if it never was


class Seat(msgspec.Struct, kw_only=True):
    """One node in a rollout."""

    ring: int
    state: State = "waiting"
    why: str = ""
    firmware: str = ""  # as it said last
    was_offered: bool = False  # and nothing says that it is of another board: its words of this version are of ours
    is_said: bool = False  # by itself: it runs a version of this name, and not on trial
    was_taken: bool = False  # the node has had some of it in this rollout: whatever becomes of it now is no old story
    is_to_leave: bool = False  # this version, whenever it says that it runs it
    lower: int = 0  # words in a row by which it runs a lower version than the one that it had confirmed
    relapses: int = 0  # times that it had all of it and then knew nothing of it
    got: int = 0
    of: int = 0
    every_ms: int = 0  # it sleeps between its words, and says how long; 0: it is on mains
    since_ms: int = 0  # in this state, by the monotonic clock of the gateway that runs
    pause_until_ms: int = 0


class Rollout(msgspec.Struct, kw_only=True):
    """One bundle on its way to the nodes of one gateway."""

    hardware: str
    version: str
    lowest: str  # to update from
    sha256: str
    expires_s: int
    at_once: int
    failures_percent: int
    seats: dict[str, Seat]
    stopped: str = ""  # why nobody is offered it any more, "" while it goes on
    is_going_back: bool = False
    is_limited: bool = False  # to nodes that were named: those that come to the gateway later are not its affair
    forgiven: list[int] = msgspec.field(default_factory=lambda: [0] * len(RINGS))  # failures, by whoever resumed it

    @property
    def ring(self) -> int:
        """Return the ring whose turn it is; beyond the last one when all is over."""
        return min((seat.ring for seat in self.seats.values() if seat.state not in SETTLED), default=len(RINGS))

    @property
    def is_over(self) -> bool:
        """Return whether no node is left to be updated."""
        return self.ring == len(RINGS)

    def count(self) -> Counter[str]:
        """Return how many nodes are in each state."""
        return Counter(seat.state for seat in self.seats.values())

    def failures(self, ring: int) -> int:
        """Return how many nodes of a ring failed, those forgiven left out."""
        return sum(seat.ring == ring and seat.state == "failed" for seat in self.seats.values()) - self.forgiven[ring]

    def know(self, nodes: Iterable[str], now_ms: int) -> bool:
        """Take in who is new, leave out who is gone from the configuration; return whether something changed."""
        known = set(nodes)
        new = [] if self.is_limited or self.is_going_back else sorted(known - self.seats.keys())
        for node in new:
            self.seats[node] = Seat(ring=ALL, since_ms=now_ms)
        gone = [seat for node, seat in self.seats.items() if node not in known and seat.state not in SETTLED]
        for seat in gone:
            _move(seat, "left out", now_ms, GONE)
        again = [node for node in known & self.seats.keys() if self.seats[node].why == GONE and not self.is_going_back]
        for node in again:
            self.seats[node] = Seat(ring=ALL, since_ms=now_ms)
        self._fill_canary()
        return bool(new or gone or again)

    def take_status(
        self, node: str, firmware: str, hardware: str, update: UpdateSaid | None, every_ms: int, now_ms: int
    ) -> bool:
        """Take what a node says of itself; return whether that was news. every_ms: how rarely it speaks, 0 on mains.

        hardware: "" if it does not say. Boards have versions of one name: of one that was never offered ours, and does
        not say which board it is, what it says of a version is not believed; what it answers to the offer is.
        """
        seat = self.seats.get(node)
        if seat is None:
            return False
        before = seat.state, seat.why, seat.firmware, seat.got, seat.lower
        seat.firmware, seat.every_ms = firmware, every_ms
        if self.is_going_back and (seat.is_to_leave or seat.state in SETTLED):
            self._take_going_back(seat, firmware, now_ms)
        elif not (seat.was_offered or seat.was_taken or hardware == self.hardware):
            seat.is_said = firmware == self.version and not (
                update and update.version == self.version and update.state != "confirmed"
            )
            if seat.state == "waiting" and (why := self._why_not(firmware, hardware)):
                _move(seat, "left out", now_ms, why)
        elif seat.state == "confirmed":
            self._watch(seat, firmware, update, now_ms)
        elif update and update.version == self.version:
            self._take_ours(seat, firmware, update, now_ms)
        elif firmware == self.version:
            _move(seat, "confirmed", now_ms)
        elif seat.state in ("ready", "trial"):
            self._relapse(seat, firmware, now_ms)
        elif seat.state == "loading":  # its flash was erased, or somebody gave it another one
            _move(seat, "waiting", now_ms)
            seat.pause_until_ms = now_ms + PAUSE_MS  # one that restarts to look at an offer must not do so for ever
        elif seat.state == "waiting" and (why := self._why_not(firmware, hardware)):
            _move(seat, "left out", now_ms, why)
        self._look_at_rings()
        return before != (seat.state, seat.why, seat.firmware, seat.got, seat.lower)

    def take_answer(self, node: str, is_done: bool, reason: str, is_later: bool, now_ms: int) -> None:
        """Take what a node answered to an offer, or to going back; is_later: asked again it may say yes."""
        seat = self.seats.get(node)
        if seat is None:
            return
        if seat.state == "to go back":
            if is_done or seat.firmware not in ("", self.version):
                _move(seat, "gone back", now_ms)
            elif is_later:
                seat.pause_until_ms = now_ms + PAUSE_MS
            else:
                _move(seat, "failed", now_ms, reason or "it does not go back")
        elif seat.state == "offered":
            if seat.is_said and reason == f"version {self.version} runs already":  # another board says that it is one
                _move(seat, "confirmed", now_ms)
            elif is_done:
                _move(seat, "loading", now_ms)
            elif is_later:
                _move(seat, "waiting", now_ms, reason)
                seat.pause_until_ms = now_ms + PAUSE_MS
            else:
                _leave_out(seat, now_ms, reason or "it refuses and does not say why")
        self._look_at_rings()

    def look(self, now_ms: int, quiet_ms: Quiet) -> bool:
        """See whose time is over; return whether something changed."""
        changed = False
        for node, seat in self.seats.items():
            waited_ms = now_ms - seat.since_ms
            if seat.state == "offered" and waited_ms > ANSWER_MS:
                _move(seat, "waiting", now_ms)
                seat.pause_until_ms = now_ms + PAUSE_MS
                changed = True
            elif seat.state in ("ready", "trial"):
                silent_ms = min(waited_ms, _silence(node, quiet_ms))
                if silent_ms > max(LOST_MS, 3 * seat.every_ms):
                    _move(seat, "failed", now_ms, "it has not been heard since it had all of it")
                    changed = True
        self._look_at_rings()
        return changed

    def due(self, now_ms: int, now_s: int, quiet_ms: Quiet) -> list[tuple[str, str]]:
        """Return (node, verb) of the commands to send now; who is offered something counts as in hand from now on.

        now_s: Unix time. Asked again before an answer came it says nothing new.
        """
        if self.is_going_back:
            return self._due_back(now_ms, quiet_ms)
        if self.stopped:
            return []
        if now_s >= self.expires_s:
            if not self.is_over:
                self.stopped = EXPIRED
            return []
        ring = self.ring
        room = self.at_once - sum(
            seat.state in IN_HAND and not (seat.state == "loading" and _is_away(node, seat, quiet_ms))
            for node, seat in self.seats.items()
        )
        found = [
            node
            for node, seat in sorted(self.seats.items())
            if seat.ring == ring
            and seat.state == "waiting"
            and now_ms >= seat.pause_until_ms
            and _is_there(node, seat, quiet_ms)
        ][: max(0, room)]
        for node in found:
            _move(self.seats[node], "offered", now_ms)
            self.seats[node].was_offered = True
        return [(node, "update") for node in found]

    def away(self, quiet_ms: Quiet) -> list[str]:
        """Return the nodes that are waited for and not heard."""
        return [
            node
            for node, seat in sorted(self.seats.items())
            if seat.state not in SETTLED and _is_away(node, seat, quiet_ms)
        ]

    def may_pull(self, node: str) -> bool:
        """Return whether a node is given pieces: of a version that was stopped nobody gets the rest."""
        return not self.stopped and not self.is_going_back and node in self.seats

    def note_pull(self, node: str, at: int, of: int, now_ms: int) -> None:
        """Note how far a node is, by the piece that it asks for."""
        seat = self.seats[node]
        if seat.state in ("waiting", "offered"):  # its answer was lost, or is on its way
            _move(seat, "loading", now_ms)
        if seat.state == "loading":
            seat.got, seat.of = at, of

    def renew(self, expires_s: int) -> None:
        """Take a later end of the same bundle."""
        if expires_s > self.expires_s or self.stopped == NO_BUNDLE:
            self.expires_s = max(expires_s, self.expires_s)
            self.stopped = "" if self.stopped in (EXPIRED, NO_BUNDLE) else self.stopped

    def stop(self, why: str) -> None:
        """Offer it to nobody any more."""
        self.stopped = self.stopped or why

    def resume(self, failures_percent: int | None) -> None:
        """Go on where it stopped; what failed so far is forgiven."""
        self.stopped = ""
        self.failures_percent = self.failures_percent if failures_percent is None else failures_percent
        for ring in range(len(RINGS)):
            self.forgiven[ring] += self.failures(ring)

    def go_back(self, nodes: Iterable[str], now_ms: int) -> list[str]:
        """Have nodes go back to the version before; return those that will. It is offered to nobody any more.

        Who loads it may have all of it, and be about to start with it; who failed may have been away.
        """
        self.is_going_back, self.stopped = True, f"gone back {BY_HAND}"
        chosen = [node for node in nodes if self.seats[node].was_offered or self.seats[node].state in HAVING]
        for node in chosen:
            self.seats[node].is_to_leave, self.seats[node].relapses = True, 0
        asked = [node for node in chosen if self.seats[node].state in HAVING]
        for node in asked:
            _move(self.seats[node], "to go back", now_ms)
        self._look_at_rings()
        return asked

    def _take_ours(self, seat: Seat, firmware: str, update: UpdateSaid, now_ms: int) -> None:
        said = update.state
        if said in ("confirmed", "refused") and firmware == self.version:  # refused: what it runs already
            _move(seat, "confirmed", now_ms)
        elif seat.state in ("confirmed", "failed", "left out", "gone back"):
            return  # an old word, come late or twice
        elif said == "loading":
            _move(seat, "loading", now_ms)
            seat.got, seat.of = update.got, update.of
        elif said == "waiting":
            _move(seat, "ready", now_ms)
        elif said == "trial":
            _move(seat, "trial", now_ms)
        elif said == "refused" and update.why.startswith(CUT_OFF):
            _move(seat, "waiting", now_ms, update.why)  # we were away, or had stopped: no fault of the version
            seat.pause_until_ms = now_ms + PAUSE_MS
        elif said in ("refused", "rolled back"):
            why = update.why or said
            if said == "refused" and LATER in why:
                _move(seat, "waiting", now_ms, why)
                seat.pause_until_ms = now_ms + FULL_MS
            elif said == "refused" and seat.state in NOTHING_YET and not seat.of:  # it answers, and then looks at it
                _leave_out(seat, now_ms, why)
            elif seat.was_taken:
                _move(seat, "failed", now_ms, why)
            else:
                _move(seat, "left out", now_ms, f"it had this version before: {why}")

    def _relapse(self, seat: Seat, firmware: str, now_ms: int) -> None:
        """Offer it anew: an old word may have come late. Who says it again and again has failed."""
        seat.relapses += 1
        if seat.relapses < MOST_RELAPSES:
            _move(seat, "waiting", now_ms)
        else:
            _move(seat, "failed", now_ms, f"it runs {firmware or 'another version'} again and does not say why")

    def _watch(self, seat: Seat, firmware: str, update: UpdateSaid | None, now_ms: int) -> None:
        """See whether one that had confirmed it runs it still: another board may have its name by now."""
        try:
            is_lower = version_of(firmware) < version_of(self.version)
        except WireError:
            return
        seat.lower = seat.lower + 1 if is_lower else 0
        if seat.lower < LOWER_WORDS:
            return
        seat.lower = 0
        if update and update.version == self.version and update.state == "rolled back":  # somebody has told it to
            _move(seat, "gone back", now_ms, update.why)
        else:
            self._relapse(seat, firmware, now_ms)

    def _take_going_back(self, seat: Seat, firmware: str, now_ms: int) -> None:
        if (
            seat.is_to_leave
            and seat.state != "to go back"
            and firmware == self.version
            and seat.relapses < MOST_RELAPSES
        ):
            seat.relapses += 1
            seat.pause_until_ms = 0
            _move(seat, "to go back", now_ms)
        elif seat.state == "to go back" and seat.pause_until_ms and firmware not in ("", self.version):  # it was told
            _move(seat, "gone back", now_ms)

    def _due_back(self, now_ms: int, quiet_ms: Quiet) -> list[tuple[str, str]]:
        found = [
            node
            for node, seat in sorted(self.seats.items())
            if seat.state == "to go back" and now_ms >= seat.pause_until_ms and _is_there(node, seat, quiet_ms)
        ][: self.at_once]
        for node in found:
            self.seats[node].pause_until_ms = now_ms + ANSWER_MS
        return [(node, "rollback") for node in found]

    def _why_not(self, firmware: str, hardware: str) -> str:
        """Return why a node that says this of itself cannot have it, '' if it may; it looks again itself."""
        if hardware and hardware != self.hardware:
            return f"it is a {hardware}"
        try:
            runs = version_of(firmware)
        except WireError:
            return ""
        if runs > version_of(self.version):
            return f"it runs {firmware}, which is higher"
        return f"it runs {firmware}, and it takes {self.lowest} at least" if runs < version_of(self.lowest) else ""

    def _look_at_rings(self) -> None:
        for seat in self.seats.values() if self.is_going_back else ():
            if seat.state == "waiting":
                _move(seat, "left out", seat.since_ms, NOT_ITS_TURN)
        self._fill_canary()
        for ring, name in enumerate(RINGS):
            size = sum(seat.ring == ring and seat.state != "left out" for seat in self.seats.values())
            # One that had failed, and was forgiven, may have confirmed since.
            self.forgiven[ring] = max(0, self.forgiven[ring] + min(0, self.failures(ring)))
            failures = self.failures(ring)
            allowed = 0 if ring == CANARY else self.failures_percent * size // 100
            if failures > allowed and not self.stopped:
                self.stopped = f"{failures} of {size} nodes of the ring {name!r} failed, and at most {allowed} may"

    def _fill_canary(self) -> None:
        """Let another node go first where those that should are left out: nothing goes to all that nobody tried."""
        if any(seat.ring == CANARY and seat.state != "left out" for seat in self.seats.values()):
            return
        for _, seat in sorted(self.seats.items()):
            if seat.state == "waiting":
                seat.ring = CANARY
                return


def begun(
    manifest: dict[str, Any],
    nodes: Iterable[str],
    canary: Iterable[str],
    at_once: int,
    failures_percent: int,
    now_ms: int,
) -> Rollout:
    """Return the rollout of a bundle to `nodes`; `canary` go first, one of them where nobody is named."""
    there = sorted(nodes)
    first = [node for node in canary if node in there] or there[:1]
    rest = [node for node in there if node not in first]
    tenth = rest[: -(-len(there) // 10)]
    rings = dict.fromkeys(first, CANARY) | dict.fromkeys(tenth, TENTH)
    return Rollout(
        hardware=manifest["hardware"],
        version=manifest["version"],
        lowest=manifest["from"],
        sha256=manifest["sha256"],
        expires_s=manifest["expires"],
        at_once=at_once,
        failures_percent=failures_percent,
        seats={node: Seat(ring=rings.get(node, ALL), since_ms=now_ms) for node in there},
    )


def taken_up(text: bytes, now_ms: int) -> Rollout:
    """Return a rollout as an earlier gateway wrote it; raises msgspec.MsgspecError, ValueError, WireError.

    Times are of the clock that ended with that gateway: each patience begins anew.
    """
    rollout = msgspec.json.decode(text, type=Rollout)
    if len(rollout.forgiven) != len(RINGS) or not all(CANARY <= seat.ring <= ALL for seat in rollout.seats.values()):
        raise ValueError("rings that are none")
    version_of(rollout.version), version_of(rollout.lowest)
    for seat in rollout.seats.values():
        seat.since_ms, seat.pause_until_ms = now_ms, 0
        if seat.state == "offered":  # whether that was sent nobody knows; a node answers the second as the first
            seat.state = "waiting"
    return rollout


def _move(seat: Seat, state: State, now_ms: int, why: str = "") -> None:
    if seat.state != state:
        seat.since_ms, seat.got, seat.of = now_ms, 0, 0
    seat.state, seat.why = state, why
    seat.was_taken = seat.was_taken or state in TAKEN


def _leave_out(seat: Seat, now_ms: int, why: str) -> None:
    """It takes none of it; what it says of a version of that name is of another board's, or an old story."""
    _move(seat, "left out", now_ms, why)
    seat.was_offered = seat.was_taken = False


def _is_there(node: str, seat: Seat, quiet_ms: Quiet) -> bool:
    return _silence(node, quiet_ms) <= (AWAKE_MS if seat.every_ms else THERE_MS)


def _is_away(node: str, seat: Seat, quiet_ms: Quiet) -> bool:
    return _silence(node, quiet_ms) > max(AWAY_MS, 3 * seat.every_ms)


def _silence(node: str, quiet_ms: Quiet) -> int:
    quiet = quiet_ms(node)
    return NEVER_MS if quiet is None else quiet
