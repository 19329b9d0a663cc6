"""The two clocks. Pass them in wherever time is needed, so that a test can bring its own."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
FineClock = Callable[[], float]

# A wall clock that shows less than the date of this release has not been set.
CLOCK_FLOOR_MS = 1_793_500_000_000  # 2026-11-01


def wall_ms() -> int:
    """Return Unix time in ms. It may be wrong, and it may step."""
    return time.time_ns() // 1_000_000


def mono_ms() -> int:
    """Return ms that only ever rise, from an arbitrary start. For periods, time-outs and ages."""
    return time.monotonic_ns() // 1_000_000


def mono_s() -> float:
    """Return seconds that only ever rise, from an arbitrary start, to the microsecond: for silences on a wire.

    The event loop's own clock is no substitute: a loop may read it once a turn.
    """
    return time.monotonic()
