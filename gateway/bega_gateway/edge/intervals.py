"""Where quarter-hours, hours and days begin, in Unix milliseconds; a place's days have 23, 24 or 25 hours."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Period = Literal["15min", "hour", "day"]

QUARTER_MS, HOUR_MS = 900_000, 3_600_000


def start_of(period: Period, time_ms: int, zone: ZoneInfo) -> int:
    """Return when the interval that holds `time_ms` began.

    Quarter-hours and hours are those of UTC: every time zone in use today is a whole number of quarter-hours away
    from it, and those of Europe a whole number of hours.
    """
    if period == "15min":
        return time_ms - time_ms % QUARTER_MS
    if period == "hour":
        return time_ms - time_ms % HOUR_MS
    local = datetime.fromtimestamp(time_ms / 1000, zone)
    return _midnight_ms(local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0, tzinfo=None), zone)


def end_of(period: Period, start_ms: int, zone: ZoneInfo) -> int:
    """Return when the interval that begins at `start_ms` ends, which is when the next one begins."""
    if period == "15min":
        return start_ms + QUARTER_MS
    if period == "hour":
        return start_ms + HOUR_MS
    local = datetime.fromtimestamp(start_ms / 1000, zone).replace(tzinfo=None, fold=0)
    noon = local.replace(hour=12, minute=0, second=0, microsecond=0)
    following = (noon + timedelta(days=1)).replace(hour=0)
    return _midnight_ms(following, zone)


def _midnight_ms(naive: datetime, zone: ZoneInfo) -> int:
    return round(naive.replace(tzinfo=zone).timestamp()) * 1000
