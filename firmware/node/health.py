"""The watchdog's feeder. Each task says that it made progress; one that stops saying so lets the watchdog bite.

Fed from a timer, a watchdog would watch the timer. It is fed only while
measuring, storing and the way out all move on, each within its own limit.
"""

import asyncio

import machine

EVERY_MS = 1000


class Health:
    """Feeds the watchdog while every task that was named here has moved within its limit."""

    def __init__(self, mono, watchdog_ms):
        self._mono = mono
        self._limits = {}  # task: ms that it may take
        self._moved = {}  # task: when it moved last
        self._late = ()
        self._watchdog = machine.WDT(timeout=watchdog_ms)

    def expect(self, task, limit_ms):
        """From now on `task` must move at least every `limit_ms`."""
        self._limits[task] = limit_ms
        self.moved(task)

    def moved(self, task):
        """Note that `task` made progress just now."""
        self._moved[task] = self._mono()

    def late(self):
        """Return the names of the tasks that are beyond their limit."""
        now_ms = self._mono()
        return [task for task in sorted(self._limits) if now_ms - self._moved[task] > self._limits[task]]

    async def run(self):
        """Feed, until cancelled; what is late is said once, before the watchdog says it."""
        while True:
            late = self.late()
            if not late:
                self._watchdog.feed()
            elif late != self._late:
                print("bega: no progress: %s; the watchdog is not fed" % ", ".join(late))
            self._late = late
            await asyncio.sleep_ms(EVERY_MS)
