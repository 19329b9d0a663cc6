"""When a value becomes an alarm, when it is none any more, and when a value is worth reporting at all."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Change = Literal["raised", "cleared"]


@dataclass(frozen=True)
class Threshold:
    """An alarm's bounds, in the quantity's unit."""

    raise_at: Fraction
    clear_at: Fraction  # on the other side of raise_at, or equal: the distance is the hysteresis
    is_above: bool = True  # False: too little is the alarm
    raise_after_ms: int = 0  # so long must it last
    clear_after_ms: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError if it would clear where it is raised."""
        if (self.clear_at > self.raise_at) if self.is_above else (self.clear_at < self.raise_at):
            raise ValueError("clear_at must not lie beyond raise_at")

    def raises(self, value: Fraction) -> bool:
        """Return whether `value` is one to raise an alarm for."""
        return value >= self.raise_at if self.is_above else value <= self.raise_at

    def clears(self, value: Fraction) -> bool:
        """Return whether `value` ends an alarm; at the bound itself it does not, unless there is no hysteresis."""
        return value < self.clear_at if self.is_above else value > self.clear_at


class Alarm:
    """One threshold watched over time. A value between the bounds changes nothing and breaks no hold time."""

    def __init__(self, threshold: Threshold, is_raised: bool = False) -> None:
        self._threshold = threshold
        self.is_raised = is_raised
        self._since_ms: int | None = None  # the state has wanted to change since then

    def add(self, time_ms: int, value: Fraction) -> Change | None:
        """Take a value measured at `time_ms`; return what it changes."""
        wants = self._threshold.clears(value) if self.is_raised else self._threshold.raises(value)
        if self._since_ms is not None and time_ms < self._since_ms:
            self._since_ms = time_ms  # the clock was set back: the hold time begins anew
        stays = self._threshold.raises(value) if self.is_raised else self._threshold.clears(value)
        if stays:
            self._since_ms = None
        elif wants and self._since_ms is None:
            self._since_ms = time_ms
        hold_ms = self._threshold.clear_after_ms if self.is_raised else self._threshold.raise_after_ms
        if self._since_ms is None or not wants or time_ms - self._since_ms < hold_ms:
            return None
        self._since_ms = None
        self.is_raised = not self.is_raised
        return "raised" if self.is_raised else "cleared"


class Deadband:
    """Lets a value through when it differs enough from the last one that went through, or when that is long ago."""

    def __init__(self, width: Fraction, longest_ms: int) -> None:
        self._width = width
        self._longest_ms = longest_ms
        self._last: tuple[int, Fraction] | None = None

    def passes(self, time_ms: int, value: Fraction) -> bool:
        """Return whether the value is worth a record."""
        if self._last is not None:
            since_ms, last = self._last
            if abs(value - last) < self._width and 0 <= time_ms - since_ms < self._longest_ms:
                return False
        self._last = (time_ms, value)
        return True
