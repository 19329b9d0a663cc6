"""When to poll a device on a shared bus, how long to wait for it, and who is next. Pure: time is passed in, in ms.

A unit that answers quickly is given up quickly; one that stays silent is asked ever more rarely, and each other time
only briefly. So a dead unit costs the others at most 2 % of the bus; one that returns is heard within 30 s, and if it
has become slow, within 60 s.
"""

from __future__ import annotations

import heapq
import zlib
from dataclasses import dataclass, field

SHORTEST_WAIT_MS = 100  # a device that usually answers in 5 ms may be writing to its flash
UNKNOWN_TRY_MS = 200  # short wait for a unit that was never heard: most meters answer within 100
DISTURBED_LIMIT = 5  # so many questions in a row that got nothing but noise count as a silence
SLACK_MS = 50  # what the operating system and a USB adapter may add (latency timer 16 ms)
SILENT_AFTER = 2  # so many silences in a row, and the unit is only tried
NUMBERED_PAUSE_MS = (
    1_000  # after a first silence on TCP: a converter waits about so long for a device, and for nobody else
)
PAUSES_MS = (2_000, 8_000, 28_000)  # before each try, the last one for good
LONG_TRY_MS = 700  # enough for a unit that was heard before; one that never was gets all the time there is
PAUSE_TO_COST = 49  # the pause between tries is so many times what they cost: 2 % of the bus
LONGEST_PAUSE_MS = 120_000
FORGET = 16  # a slow answer is forgotten with the inverse of this at each quicker one
BURST_MS = 1_000  # a device may take so much more than its share of the bus before others go first

HIGH, NORMAL, LOW = 0, 1, 2
PRIORITIES = {"high": HIGH, "normal": NORMAL, "low": LOW}


def phase_ms(line: str, index: int, devices: int, period_ms: int) -> int:
    """Return where in its period device `index` of `devices` is polled.

    The devices of a line stand evenly over the period, and lines apart from each other.
    """
    return (index * period_ms // devices + zlib.crc32(line.encode()) % period_ms) % period_ms


class PollClock:
    """Polls stand at fixed times, so that a slow one moves none after it; what was missed is not made up for."""

    def __init__(self, now_ms: int, period_ms: int, phase_ms: int) -> None:
        """The first poll is due at once; the others `phase_ms` (less than a period) after `now_ms`, each period."""
        self._origin_ms = now_ms + phase_ms
        self._period_ms = period_ms
        self._next = 0 if 2 * phase_ms >= period_ms else 1  # never two polls within half a period
        self.due_ms = now_ms

    def missed(self, now_ms: int) -> int:
        """Return how many polls were left out since the last call: each that another one has come after."""
        latest = (now_ms - self._origin_ms) // self._period_ms
        left_out = max(0, latest - self._next)
        self._next += left_out
        return left_out

    def start(self, now_ms: int) -> int:
        """A poll begins: it is for the latest time that has come. Return how many before it were left out."""
        left_out = self.missed(now_ms)
        if now_ms >= self._origin_ms + self._next * self._period_ms:
            self._next += 1
        self.due_ms = self._origin_ms + self._next * self._period_ms
        return left_out


class Patience:
    """One unit's manners."""

    def __init__(self, longest_ms: int, numbered: bool = False) -> None:
        """longest_ms: the longest that the unit may take to answer.

        numbered: answers carry the number of their question (TCP), so a late one is never taken for another's
        """
        self._longest_ms = longest_ms
        self._numbered = numbered
        self._slowest_ms: int | None = None  # fading maximum of what it took
        self._silences = 0
        self._disturbances = 0
        self._last_cost_ms = 0
        self.ready_ms = 0  # not to be asked before

    @property
    def is_silent(self) -> bool:
        """Whether the unit is only tried, whatever its period."""
        return self._silences >= SILENT_AFTER

    def wait_ms(self) -> int:
        """Return how long the next answer may take to begin."""
        if self._slowest_ms is None:
            is_short = self.is_silent and self._is_short_try()
            return min(self._longest_ms, UNKNOWN_TRY_MS) if is_short else self._longest_ms
        if self._silences == 0:
            return self._usual_ms()
        if self._is_short_try():
            return min(self._longest_ms, max(SHORTEST_WAIT_MS, self._slowest_ms + SLACK_MS))
        return min(self._longest_ms, max(LONG_TRY_MS, self._usual_ms()))

    def answered(self, took_ms: int) -> None:
        """Note an answer, in time or late."""
        slowest_ms = self._slowest_ms
        if slowest_ms is None or took_ms >= slowest_ms:
            self._slowest_ms = took_ms
        else:
            self._slowest_ms = max(took_ms, slowest_ms - (slowest_ms - took_ms) // FORGET)
        self._silences = self._disturbances = 0
        self.ready_ms = 0

    def disturbed(self, now_ms: int, cost_ms: int = 0) -> None:
        """Note that only noise came: that is the line's fault, unless it never ends."""
        self._disturbances += 1
        if self._disturbances >= DISTURBED_LIMIT:
            self.silent(now_ms, cost_ms)

    def silent(self, now_ms: int, cost_ms: int) -> None:
        """Note that nothing came, for which the bus was held for `cost_ms`.

        Where answers carry no number, the next question waits until none to this one can come: it would be taken for
        its own. Where they do, it waits until a converter is likely to be free again.
        """
        self._silences += 1
        pause_ms = 2 * self._longest_ms
        if self._numbered:
            pause_ms = min(pause_ms, NUMBERED_PAUSE_MS)
        if self.is_silent:
            tries = self._tries()
            pause_ms = max(pause_ms, PAUSES_MS[min(tries, len(PAUSES_MS) - 1)])
            if tries >= len(PAUSES_MS) - 1:  # short and long tries take turns
                mean_cost_ms = (self._last_cost_ms + cost_ms) // 2
                pause_ms = max(pause_ms, min(PAUSE_TO_COST * mean_cost_ms, LONGEST_PAUSE_MS))
            self._last_cost_ms = cost_ms
        self.ready_ms = now_ms + pause_ms

    def _usual_ms(self) -> int:
        assert self._slowest_ms is not None
        return min(self._longest_ms, max(SHORTEST_WAIT_MS, 2 * self._slowest_ms + SLACK_MS))

    def _tries(self) -> int:
        return self._silences - SILENT_AFTER

    def _is_short_try(self) -> bool:
        """The tries before the last pause are short, and then each other one."""
        beyond = self._tries() - (len(PAUSES_MS) - 1)
        return self.is_silent and (beyond < 0 or beyond % 2 == 1)


@dataclass(eq=False)
class Seat:
    """One device's place on a bus."""

    clock: PollClock
    patience: Patience
    priority: int = NORMAL
    rest_until_ms: int = 0  # some meters need a pause after an answer
    in_hand: bool = False  # its poll has begun and has more to ask
    due_ms: int = 0  # of the poll in hand, or of the one that waits
    entry: int = 0  # its latest place in the queue; older ones do not count
    over_ms: int = 0  # what it took of the bus beyond its share
    counted_ms: int = 0  # when that was reckoned last

    def ready_ms(self) -> int:
        """Return from when on it may be asked."""
        wanted_ms = 0 if self.in_hand or self.patience.is_silent else self.clock.due_ms
        return max(wanted_ms, self.patience.ready_ms, self.rest_until_ms)


@dataclass
class Schedule:
    """Who is asked next on one bus.

    Of those that are due the higher priority goes first; among equals one that has had no more than its share of the
    bus; then the one that was due earliest. Nothing is queued: a poll that was not begun when the next one of its
    device is due is left out.
    """

    _seats: int = 0
    _entries: int = 0
    _waiting: list[tuple[int, int, Seat]] = field(default_factory=list)  # heap: from when on, entry, seat
    _due: list[Seat] = field(default_factory=list)

    def add(self, seat: Seat) -> None:
        """Take another device in."""
        self._seats += 1
        self.put_back(seat)

    def put_back(self, seat: Seat) -> None:
        """The question to `seat` is over, or something about it has changed: find out when it is next."""
        if not seat.in_hand:
            seat.due_ms = seat.clock.due_ms
        self._entries = seat.entry = self._entries + 1
        heapq.heappush(self._waiting, (seat.ready_ms(), seat.entry, seat))

    def took(self, seat: Seat, now_ms: int, for_ms: int) -> None:
        """Note that a question to `seat`, which ends now, held the bus for `for_ms`."""
        share_ms = (now_ms - seat.counted_ms) // self._seats
        seat.over_ms = max(0, seat.over_ms - share_ms) + for_ms
        seat.counted_ms = now_ms

    def next(self, now_ms: int) -> Seat | None:
        """Return who is to be asked now, and take it out until it is put back; None if nobody is due."""
        waiting, due = self._waiting, self._due
        while waiting and waiting[0][0] <= now_ms:
            _, entry, seat = heapq.heappop(waiting)
            if entry == seat.entry and seat not in due:
                due.append(seat)
        if not due:
            return None
        seat = due[0] if len(due) == 1 else min(due, key=lambda seat: self._rank(seat, now_ms))
        due.remove(seat)
        return seat

    def waiting(self) -> list[Seat]:
        """Return who is due and not asked yet."""
        return self._due

    def wake_ms(self) -> int | None:
        """Return when the next one is due, None if nobody will be."""
        return self._waiting[0][0] if self._waiting else None

    def _rank(self, seat: Seat, now_ms: int) -> tuple[int, bool, int]:
        over_ms = seat.over_ms - (now_ms - seat.counted_ms) // self._seats
        return seat.priority, over_ms > BURST_MS, seat.due_ms
