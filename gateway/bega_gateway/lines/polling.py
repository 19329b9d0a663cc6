"""When to poll a device on a shared bus, and how long to wait for it. Pure: time is passed in, in ms.

A unit that answers quickly is given up quickly; one that was missed once is given all the time that it may take; one
that stays silent is asked ever more rarely, and each other time only briefly. A dead unit so costs the others at most
a short and a long wait in half a minute, less than 5 % of the bus; one that returns is heard within 20 s, and if it has
become slow, within 30 s.
"""

from __future__ import annotations

import zlib

SHORTEST_WAIT_MS = 100  # a device that usually answers in 5 ms may be writing to its flash
UNKNOWN_TRY_MS = 200  # short wait for a unit that was never heard: most meters answer within 100
DISTURBED_LIMIT = 5  # so many questions in a row that got nothing but noise count as a silence
SLACK_MS = 50  # what the operating system and a USB adapter may add (latency timer 16 ms)
SILENT_AFTER = 2  # so many silences in a row, and the unit is only tried
PAUSES_MS = (2_000, 4_000, 8_000, 13_000)  # before each try, the last one for good
LONG_TRY_MS = 700  # enough for a unit that was heard before; one that never was gets all the time there is
PAUSE_TO_WAIT = 22  # the pause after a try is so many times its wait: that bounds what tries cost the others
FORGET = 16  # a slow answer is forgotten with the inverse of this at each quicker one


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

    def start(self, now_ms: int) -> int:
        """A poll begins: it is for the latest time that has come. Return how many before it were left out."""
        latest = (now_ms - self._origin_ms) // self._period_ms
        left_out = max(0, latest - self._next)
        self._next = max(self._next, latest + 1)
        self.due_ms = self._origin_ms + self._next * self._period_ms
        return left_out


class Patience:
    """One unit's manners."""

    def __init__(self, longest_ms: int) -> None:
        """longest_ms: the longest that the unit may take to answer."""
        self._longest_ms = longest_ms
        self._slowest_ms: int | None = None  # fading maximum of what it took
        self._silences = 0
        self._disturbances = 0
        self.ready_ms = 0  # not to be asked before

    @property
    def is_silent(self) -> bool:
        """Whether the unit is only tried, whatever its period."""
        return self._silences >= SILENT_AFTER

    def wait_ms(self) -> int:
        """Return how long the next answer may take to begin."""
        if self._silences == 0:
            return self._longest_ms if self._slowest_ms is None else self._usual_ms()
        if self._is_short_try():
            return min(self._longest_ms, UNKNOWN_TRY_MS) if self._slowest_ms is None else self._usual_ms()
        if not self.is_silent or self._slowest_ms is None:
            return self._longest_ms
        return min(self._longest_ms, max(LONG_TRY_MS, self._usual_ms()))

    def answered(self, took_ms: int) -> None:
        """Note an answer, in time or late."""
        slowest_ms = took_ms if self._slowest_ms is None else self._slowest_ms
        self._slowest_ms = max(took_ms, slowest_ms - (slowest_ms - took_ms) // FORGET)
        self._silences = self._disturbances = 0
        self.ready_ms = 0

    def disturbed(self, now_ms: int) -> None:
        """Note that only noise came: that is the line's fault, unless it never ends."""
        self._disturbances += 1
        if self._disturbances >= DISTURBED_LIMIT:
            self.silent(now_ms)

    def silent(self, now_ms: int) -> None:
        """Note that nothing came.

        The next question waits until no answer to this one can come any more: it would be taken for its own.
        """
        pause_ms = max(2 * self._longest_ms, PAUSE_TO_WAIT * self.wait_ms() if self.is_silent else 0)
        self._silences += 1
        if self.is_silent:
            pause_ms = max(pause_ms, PAUSES_MS[min(self._tries(), len(PAUSES_MS) - 1)])
        self.ready_ms = now_ms + pause_ms

    def _usual_ms(self) -> int:
        assert self._slowest_ms is not None
        return min(self._longest_ms, max(SHORTEST_WAIT_MS, 2 * self._slowest_ms + SLACK_MS))

    def _tries(self) -> int:
        return self._silences - SILENT_AFTER

    def _is_short_try(self) -> bool:
        """The tries before the last pause are short, and then each other one."""
        tries = self._tries()
        return 0 <= tries < len(PAUSES_MS) - 1 or (tries > 0 and tries % 2 == 0)
