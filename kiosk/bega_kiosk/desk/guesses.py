"""A code is found by who holds it, and not by who tries them all."""

from __future__ import annotations

from collections import Counter

from bega.clock import Clock

MOST_GUESSES, MOST_ASKERS = 30, 10_000  # in a minute: one report of 10,000 is found in some 250 days of guessing


class Guesses:
    """How many codes that nobody has each address, or each kiosk, has asked for in this minute."""

    def __init__(self, mono_ms: Clock) -> None:
        self._mono_ms = mono_ms
        self._minute = 0
        self._by_asker: Counter[str] = Counter()

    def are_too_many(self, asker: str) -> bool:
        """Return whether this one is told nothing more for the rest of the minute."""
        minute = self._mono_ms() // 60_000
        if minute != self._minute:
            self._minute = minute
            self._by_asker.clear()
        return self._by_asker[asker] >= MOST_GUESSES or len(self._by_asker) > MOST_ASKERS

    def note(self, asker: str) -> None:
        """Count one."""
        self._by_asker[asker] += 1
