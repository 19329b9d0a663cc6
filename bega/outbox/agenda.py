"""Which of the stored messages go next over one connection: what is new first, what waited in the room that is left.

While a backlog drains, a reading of now is not late; and where the link cannot carry even what is new, the newest
still comes: what lies more than `LATE_MS` behind becomes backlog, to be sent when there is room.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega.outbox.spool import Row, Spool

LATE_MS = 30_000  # the promise is 60 s; what is found late at 30 has the rest for its way
MARK_EVERY_MS = 1_000
MOST_STRETCHES = 100


class Agenda:
    """The messages of `spool` for one connection: each once, but for those that a long overload put back."""

    def __init__(self, spool: Spool, mono_ms: Clock) -> None:
        """Whatever is stored now counts as backlog."""
        self._spool = spool
        self._mono_ms = mono_ms
        self._live_after = spool.last_id
        self._backlog: deque[tuple[int, int]] = deque([(0, spool.last_id)])  # (behind this id, up to this), in order
        self._marks: deque[tuple[int, int]] = deque()  # (when, newest id then): how late the live ones are

    @property
    def behind(self) -> int:
        """How many messages came since and were not given out yet."""
        return self._spool.last_id - self._live_after

    async def next(self, limit: int) -> list[Row]:
        """Return up to `limit` messages to send now; none if all has been given out."""
        self._let_go_of_the_late()
        rows = await self._spool.take(self._live_after, limit)
        if rows:
            self._live_after = rows[-1].id
        while len(rows) < limit and self._backlog:
            after, up_to = self._backlog[0]
            old = await self._spool.take(after, limit - len(rows), up_to)
            if old:
                rows += old
                self._backlog[0] = (old[-1].id, up_to)
            else:
                self._backlog.popleft()
        return rows

    def _let_go_of_the_late(self) -> None:
        now_ms, newest = self._mono_ms(), self._spool.last_id
        while self._marks and self._marks[0][1] <= self._live_after:
            self._marks.popleft()
        if self._marks and now_ms - self._marks[0][0] > LATE_MS:
            self._backlog.append((self._live_after, newest))
            self._live_after = newest
            self._marks.clear()
            if len(self._backlog) > MOST_STRETCHES:  # between the two lies only what was sent long ago
                (after, _), (_, up_to) = self._backlog.popleft(), self._backlog.popleft()
                self._backlog.appendleft((after, up_to))
        if newest > self._live_after and (not self._marks or now_ms - self._marks[-1][0] >= MARK_EVERY_MS):
            self._marks.append((now_ms, newest))
