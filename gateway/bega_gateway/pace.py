"""What a machine at its limit leaves out: polls, not the sending of what is stored.

Reading and sending share one loop. Where it has more to do than it can, it would read on and send ever later; so
whoever brings records is held for a moment while much waits to be sent *and* the publisher finds no time to fill its
window. A link that is slower than the readings holds nobody: its window is full, what comes is stored, and sent when
there is room.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bega.mqtt import WINDOW

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega.outbox.publish import Publisher

LOOK_EVERY_S = 0.05
LATE_MS = 20  # a loop that comes later than this has more to do than it can
BEHIND = 1_000  # messages stored and not yet sent, a quarter of a second at the limit
LONGEST_HOLD_MS = 1_000  # if it was the link after all


class Pace:
    """Tells whoever brings records when to wait."""

    def __init__(self, publisher: Publisher, mono_ms: Clock) -> None:
        self._publisher = publisher
        self._mono_ms = mono_ms
        self._go = asyncio.Event()
        self._go.set()
        self._held_since_ms = 0
        self.held = 0  # how often a record had to wait, since the start

    @property
    def holds(self) -> bool:
        """Whether to wait; `turn` waits."""
        return not self._go.is_set()

    async def turn(self) -> None:
        """Wait while the machine has more to do than it can."""
        self.held += 1
        await self._go.wait()

    async def run(self) -> None:
        """Look twenty times a second how the publisher gets on and how late the loop comes, until cancelled."""
        try:
            while True:
                due_ms = self._mono_ms() + round(1000 * LOOK_EVERY_S)
                await asyncio.sleep(LOOK_EVERY_S)
                self.look(self._mono_ms() - due_ms)
        finally:
            self._go.set()

    def look(self, late_ms: int) -> None:
        """Decide anew; the loop has come `late_ms` late."""
        behind = self._publisher.behind
        starves = late_ms > LATE_MS or self._publisher.in_flight < WINDOW
        if self._go.is_set() and starves and behind > BEHIND:
            self._go.clear()
            self._held_since_ms = self._mono_ms()
        elif not self._go.is_set():
            by_the_link = not starves and self._mono_ms() - self._held_since_ms > LONGEST_HOLD_MS
            if behind < BEHIND // 2 or by_the_link:
                self._go.set()
