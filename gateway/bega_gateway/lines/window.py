"""Faster talkers give the last good frame of each window."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bega_protocols.reading import Reading

Group = list[Reading]
Deliver = Callable[[list[Group], int], Awaitable[None]]


class Window:
    """Stands between a talking device and its records: at most one record of each kind in `every_s`.

    The very first frame goes through at once: whoever installs a device wants to see that it lives.
    A kind is what a group speaks of, so that a meter's gas does not replace its electricity.
    """

    def __init__(self, every_s: float, deliver: Deliver) -> None:
        self._every_s = every_s
        self._deliver = deliver
        self._last: dict[tuple[tuple[str, str], ...], tuple[Group, int]] = {}
        self._filled = asyncio.Event()
        self._opened: Callable[[], None] = lambda: None
        self.is_closed = False  # whether what is taken now only replaces what was taken before

    def when_open(self, opened: Callable[[], None]) -> None:
        """Call `opened()` whenever it opens: who is asked to say something again need not say it meanwhile."""
        self._opened = opened

    async def take(self, groups: list[Group], wall_ms: int) -> None:
        """Keep the newest group of each kind, with the time at which it was read."""
        for group in groups:
            self._last[tuple((reading.quantity, reading.part) for reading in group)] = (group, wall_ms)
            self._filled.set()

    async def run(self) -> None:
        """Hand on what was kept, window after window, until cancelled."""
        while True:
            self.is_closed = False
            self._opened()
            await self._filled.wait()
            self._filled.clear()
            self.is_closed = True
            kept, self._last = self._last, {}
            for group, wall_ms in kept.values():
                await self._deliver([group], wall_ms)
            await asyncio.sleep(self._every_s)
