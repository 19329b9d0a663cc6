"""A counting register over the years: what flowed between two readings, through rollover, reset and exchange.

A meter's register only counts up. When it reads less than before, one of three
things has happened, and they must not be taken for each other:

- it *rolled over*: same meter, the old reading near the top, the new one near
  the bottom, and no more flowed than the connection can carry;
- the meter was *exchanged*: another serial number, whatever the figures are;
- it was *reset*, or replaced by one that does not tell its number.

What flowed across an exchange or a reset is not known and not invented: the
old series ends with its last reading, the new one begins with its first.

Whole numbers throughout, in units of 10^exp10: sums over parts are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

NEAR_TOP_PERCENT = 10  # a register rolls over from its last tenth into its first


class Sample(msgspec.Struct, frozen=True):
    """One reading of a register."""

    time_ms: int
    value: int  # x 10^exp10 of the quantity's unit
    exp10: int = 0
    serial: str = ""  # the meter's number; '' if it does not tell it


@dataclass(frozen=True)
class Limits:
    """What is known of a register beforehand."""

    wraps_at: tuple[int, int] | None = None  # (value, exp10) of the first number that it cannot show; None: unknown
    most_per_hour: tuple[int, int] | None = None  # (value, exp10): more than this cannot flow in an hour


class Flow(msgspec.Struct, frozen=True):
    """What flowed between two readings: `amount` x 10^exp10. None: not known, `why` says what happened."""

    start_ms: int
    end_ms: int
    amount: int | None
    exp10: int
    why: str = ""  # "", "rollover", "exchange", "reset", "implausible"


def flow(before: Sample, after: Sample, limits: Limits) -> Flow:
    """Return what flowed between two readings; `after` is the later one.

    Raises ValueError if it is not.
    """
    if after.time_ms <= before.time_ms:
        raise ValueError("readings must be in order of time")
    exp10 = min(before.exp10, after.exp10)
    if limits.wraps_at is not None:
        exp10 = min(exp10, limits.wraps_at[1])  # a register that counts in tens wraps at a number that is told in ones
    amount, why = _flown(before, after, exp10, limits)
    return Flow(before.time_ms, after.time_ms, amount, exp10, why)


def _flown(before: Sample, after: Sample, exp10: int, limits: Limits) -> tuple[int | None, str]:
    """Return the amount x 10^exp10, None if it is not known, and what happened."""
    if before.serial and after.serial and before.serial != after.serial:
        return None, "exchange"
    if before.exp10 == after.exp10 == exp10:
        amount = after.value - before.value
    else:
        amount = scaled(after.value, after.exp10, exp10) - scaled(before.value, before.exp10, exp10)
    if amount >= 0:
        return (amount, "") if _can_flow(amount, exp10, before, after, limits) else (None, "implausible")
    rolled = _over_the_top(before, after, exp10, limits)
    if rolled is not None and _can_flow(rolled, exp10, before, after, limits):
        return rolled, "rollover"
    return None, "reset"


def scaled(value: int, exp10: int, to_exp10: int) -> int:
    """Return value x 10^exp10 counted in units of 10^to_exp10, which must not be coarser."""
    factor: int = 10 ** (exp10 - to_exp10)
    return value * factor


def _over_the_top(before: Sample, after: Sample, exp10: int, limits: Limits) -> int | None:
    """Return what flowed if the register rolled over in between; None if it is not near its top and its bottom."""
    if limits.wraps_at is None:
        return None
    top = scaled(*limits.wraps_at, exp10)
    old, new = scaled(before.value, before.exp10, exp10), scaled(after.value, after.exp10, exp10)
    if not (top - top * NEAR_TOP_PERCENT // 100 <= old < top and 0 <= new <= top * NEAR_TOP_PERCENT // 100):
        return None
    return top - old + new


def _can_flow(amount: int, exp10: int, before: Sample, after: Sample, limits: Limits) -> bool:
    """Return whether the connection can carry so much in this time; where that is unknown, yes.

    One of the register's last digit is always possible: what it shows in one step may have flowed for hours.
    """
    if limits.most_per_hour is None:
        return True
    value, limit_exp10 = limits.most_per_hour
    finer = min(exp10, limit_exp10)
    hour_ms = 3_600_000
    elapsed_ms = after.time_ms - before.time_ms
    step = scaled(1, max(before.exp10, after.exp10), finer)
    return (scaled(amount, exp10, finer) - step) * hour_ms <= scaled(value, limit_exp10, finer) * elapsed_ms
