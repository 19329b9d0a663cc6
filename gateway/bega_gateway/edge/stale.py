"""A value that is not measured any more says so itself: nobody downstream need guess how old is too old."""

from __future__ import annotations

from collections.abc import Sequence

from bega_protocols.reading import STALE, Reading


class Staleness:
    """What one device last spoke of, and whether that is too long ago."""

    def __init__(self, after_ms: int) -> None:
        self._after_ms = after_ms
        self._names: dict[tuple[str, str], int] = {}  # quantity and part: when it was last measured

    def heard(self, readings: Sequence[Reading], mono_ms: int) -> None:
        """Take the readings of one record."""
        for reading in readings:
            if reading.quality != STALE:
                self._names[reading.quantity, reading.part] = mono_ms

    def overdue(self, mono_ms: int) -> list[Reading]:
        """Return a stale reading for each quantity that has become too old, once."""
        old = [name for name, heard_ms in self._names.items() if mono_ms - heard_ms >= self._after_ms]
        for name in old:
            del self._names[name]
        return [Reading(quantity, 0, 0, part, STALE) for quantity, part in old]

    def wait_ms(self, mono_ms: int) -> int:
        """Return how long until the next one can be too old."""
        oldest_ms = min(self._names.values(), default=mono_ms)
        return max(0, oldest_ms + self._after_ms - mono_ms)
