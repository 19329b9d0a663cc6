"""A watchdog that is fed only while the gateway polls, stores and sends; and a line of status for whoever asks systemd.

A process that hangs looks as alive as one that works. So each feed is earned: see progress.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from bega.clock import Clock
from bega.notify import Notifier
from bega.outbox.publish import Publisher
from bega.outbox.spool import Spool
from bega_gateway.progress import Progress, Sight

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
FEEDS_A_PERIOD = 4  # one that comes late must not end us
LAGS_KEPT = 60
STORE_PATIENCE_S = 20.0  # a slow card under load takes seconds for a commit, no more
UPLINK_PATIENCE_S = 90.0  # the longest pause between connects (45 s), a connect and a probe (8 s each), and a third


class Supervision:
    """Looks every second, feeds four times in the watchdog's period."""

    def __init__(
        self,
        notifier: Notifier,
        watchdog_s: float | None,
        sights: Callable[[], list[Sight]],
        status: Callable[[], str],
        mono_ms: Clock,
    ) -> None:
        """watchdog_s: the period of the manager's watchdog; None: nobody watches, and what is stuck is only said."""
        self._notifier = notifier
        self._feed_ms = None if watchdog_s is None else round(1000 * watchdog_s / FEEDS_A_PERIOD)
        self._look_s = LOOK_EVERY_S if watchdog_s is None else min(LOOK_EVERY_S, watchdog_s / FEEDS_A_PERIOD)
        self._sights = sights
        self._status = status
        self._mono_ms = mono_ms
        self._progress = Progress()
        self._fed_ms: int | None = None
        self._told = ""
        self._stuck: set[str] = set()
        self._lags_ms: deque[int] = deque(maxlen=LAGS_KEPT)

    @property
    def lag_s(self) -> float:
        """Return how late the loop came at worst, over the last minute."""
        return max(self._lags_ms, default=0) / 1000

    async def run(self) -> None:
        """Look and feed until cancelled."""
        while True:
            now_ms = self._mono_ms()
            self._tell(now_ms)
            await asyncio.sleep(self._look_s)
            self._lags_ms.append(max(0, self._mono_ms() - now_ms - round(1000 * self._look_s)))

    def _tell(self, now_ms: int) -> None:
        stuck = self._progress.look(self._sights(), now_ms)
        for duty, for_s in stuck:
            if duty not in self._stuck:
                log.error("duty stuck, the watchdog is fed no more duty=%s for_s=%d", duty, for_s)
        names = {duty for duty, _ in stuck}
        for duty in sorted(self._stuck - names):
            log.info("duty goes on duty=%s", duty)
        self._stuck = names
        status = "stuck: " + ", ".join(sorted(names)) if names else self._status()
        assignments = [f"STATUS={status}"] if status != self._told else []
        if self._feed_ms is not None and not names and (self._fed_ms is None or now_ms - self._fed_ms >= self._feed_ms):
            assignments.append("WATCHDOG=1")
            self._fed_ms = now_ms
        if assignments:
            self._notifier.tell(*assignments)
            self._told = status


def spool_sight(spool: Spool, window_s: float) -> Sight:
    """Return how far the spool is. A commit that the disk refused is work: a restart would only lose what waits."""
    return Sight("spool", spool.tries, spool.waiting > 0, STORE_PATIENCE_S + window_s)


def uplink_sight(publisher: Publisher, spool: Spool) -> Sight:
    """Return how far the publisher is. Away from every broker its work is to try, and each try has an end."""
    owes = publisher.connected_to is None or spool.depth > 0
    done = publisher.acknowledged + publisher.attempts + spool.set_aside
    return Sight("uplink", done, owes, UPLINK_PATIENCE_S)
