"""Whether a gateway still does what it is for. Pure: what was seen is passed in, and so is the time.

"Connected" and "running" say little; what counts is what was done. Each duty has a number that changes with each
piece of its work, and whether it owes any at the moment: a spool with nothing to store owes nothing, nor does a line
whose devices are not due. A try that fails is work too, since a restart would do no more than try again; a try that
never ends is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Sight(NamedTuple):
    """One duty, as it looks now."""

    duty: str  # its name for the log
    done: int  # changes with each piece of work
    owes: bool  # whether there is work that it could do
    patience_s: float  # so long may one piece take


class Stuck(NamedTuple):
    """A duty that owes work and does none."""

    duty: str
    for_s: float


class Progress:
    """Remembers when each duty last got on."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}  # duty: what was done, and since when nothing more

    def look(self, sights: Iterable[Sight], now_ms: int) -> list[Stuck]:
        """Return the duties that owed work and did none for longer than they may, none if all is well.

        now_ms: from a clock that only rises. A duty that is not among `sights` is forgotten.
        """
        before, self._last = self._last, {}
        stuck = []
        for sight in sights:
            done, since_ms = before.get(sight.duty, (None, now_ms))
            if done != sight.done or not sight.owes:
                since_ms = now_ms
            self._last[sight.duty] = (sight.done, since_ms)
            if now_ms - since_ms > 1000 * sight.patience_s:
                stuck.append(Stuck(sight.duty, (now_ms - since_ms) / 1000))
        return stuck
