"""Minimum night flow: what flows into a zone when hardly anybody draws, and how much of it is leakage.

The lowest mean over an hour between 02:00 and 04:00 of the place's clock, from
quarter-hourly totals. Net night flow is what is left when the legitimate night
use is taken off (households, tanks that fill at night: configured, since it
differs from zone to zone).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

FIRST_HOUR, END_HOUR = 2, 4
QUARTER_MS = 900_000
QUARTERS = 4  # an hour


def night_of(start_ms: int, zone: ZoneInfo) -> date | None:
    """Return the day whose night holds the quarter-hour that begins at `start_ms`; None by day."""
    local = datetime.fromtimestamp(start_ms / 1000, zone)
    return local.date() if FIRST_HOUR <= local.hour < END_HOUR else None


def minimum_night_flow(quarters: Sequence[tuple[int, Fraction]]) -> Fraction | None:
    """Return the least that flowed in an hour, in the quarters' unit an hour; None if no whole hour is there.

    quarters: (start in ms, amount) of one night, in order. In spring the hour from 02:00 is missing, in autumn that
    before it comes twice: the quarters follow each other in time, and that is all that counts.
    """
    hours = [quarters[index : index + QUARTERS] for index in range(len(quarters) - QUARTERS + 1)]
    unbroken = [hour for hour in hours if hour[-1][0] - hour[0][0] == (QUARTERS - 1) * QUARTER_MS]
    return min((sum((amount for _, amount in hour), Fraction(0)) for hour in unbroken), default=None)


def net_night_flow(minimum: Fraction, legitimate: Fraction) -> Fraction:
    """Return what is taken for leakage, not below 0; both in the same unit an hour."""
    return max(Fraction(0), minimum - legitimate)
