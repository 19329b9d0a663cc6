"""The two clocks. Pass them in wherever time is needed, so that a test can bring its own."""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def wall_ms() -> int:
    """Return Unix time in ms. It may be wrong, and it may step."""
    return time.time_ns() // 1_000_000


def mono_ms() -> int:
    """Return ms that only ever rise, from an arbitrary start. For periods, time-outs and ages."""
    return time.monotonic_ns() // 1_000_000
