"""What can be said of the air from what the feed said, and what can not. No words and no IO here.

The index is the gateway's: European Air Quality Index as revised in 2025 (European Environment Agency; ETC HE Report
2024/17, DOI 10.5281/zenodo.15781195), bands 1 good to 6 extremely poor, each pollutant by its mean of an hour; ours
knows particulates only. 45 minutes of an hour are the least that make a mean (Directive 2008/50/EC, Annex VII: 75 %).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeGuard

import msgspec

from bega_kiosk.config import Air
from bega_kiosk.store import AHEAD_MS, Series, Store, Value
from bega_protocols.reading import STALE

INDEX, COVERAGE = "pm_index", "coverage"
DUST, MEAN_PM2_5, MEAN_PM10 = "pm2_5", "pm2_5_mean_1h", "pm10_mean_1h"
QUANTITIES = (INDEX, COVERAGE, MEAN_PM2_5, MEAN_PM10, DUST)
PLOTTED = (DUST,)

BAND_COUNT = 6
PM2_5_UPPER_UGM3 = (5, 15, 50, 90, 140)  # upper bounds of bands 1 to 5, µg/m³, from the same report
ENOUGH_MINUTES = 45
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
MOST_UGM3 = 5_000.0

State = Literal["known", "not_yet", "unknown"]


class Verdict(msgspec.Struct, frozen=True):
    """Known: `band` 1 to 6. Not yet: `minutes` of data so far. Unknown: older than the limit, or never heard.

    `age_ms` of an unknown one is that of the last measurement; None: never, or stamped by a clock that is wrong.
    """

    state: State
    band: int | None = None
    minutes: int | None = None
    age_ms: int | None = None
    is_simulated: bool = False


class Dust(msgspec.Struct, frozen=True):
    """PM2.5 at this moment, µg/m³; `value_ugm3` is None where it is not known now."""

    value_ugm3: float | None
    place: str
    age_ms: int | None
    is_simulated: bool = False


class AirNow(msgspec.Struct, frozen=True):
    """All that the air page says."""

    verdict: Verdict
    dust: Dust
    mean_pm2_5_ugm3: float | None
    mean_pm10_ugm3: float | None
    day: Series | None


class At(msgspec.Struct, frozen=True):
    """What a store knows of one place alone: a label of the feed, or a device."""

    store: Store
    place: str

    def values(self, quantity: str) -> list[Value]:
        """Return the newest value of each device of this place."""
        return [value for value in self.store.values(quantity) if self.place in (value.label, value.device)]

    def series(self, quantity: str) -> list[Series]:
        """Return the series of this place."""
        return [series for series in self.store.series(quantity) if self.place in (series.label, series.device)]


def air_at(store: Store, now_ms: int, limits: Air, places: Iterable[str]) -> AirNow:
    """Return what is known of the air at the worst of `places`: a mean would hide it from whoever lives there."""
    every = msgspec.structs.replace(limits, index=None, dust=None)  # these name the kiosk's own place
    found = [air_now(At(store, place), now_ms, every) for place in places]
    nothing = AirNow(Verdict("unknown"), Dust(None, "", None), None, None, None)
    return max(found, key=_says, default=nothing)


def _says(air: AirNow) -> tuple[int, int, bool, int]:
    """Return how much is known: a verdict before none and the worse first, then dust, then the latest of old ones."""
    states = {"known": 2, "not_yet": 1, "unknown": 0}
    age_ms = air.verdict.age_ms
    newest = -age_ms if age_ms is not None else -(1 << 62)
    return states[air.verdict.state], air.verdict.band or 0, air.dust.value_ugm3 is not None, newest


def air_now(store: Store | At, now_ms: int, limits: Air) -> AirNow:
    """Return what is known of the air at `now_ms`."""
    index = _index_record(store, now_ms, limits)
    newest = _dust_value(store.values(DUST), index, now_ms, limits)
    dust = _dust(newest, now_ms, limits)
    verdict = _verdict(index, dust, now_ms, limits)
    is_known = verdict.state == "known"
    return AirNow(
        verdict=verdict,
        dust=dust,
        mean_pm2_5_ugm3=_mean(index.get(MEAN_PM2_5)) if is_known else None,
        mean_pm10_ugm3=_mean(index.get(MEAN_PM10)) if is_known else None,
        day=_day(store.series(DUST), newest, limits),
    )


def is_air(value_ugm3: float | None) -> TypeGuard[float]:
    """Return whether a street can have such air; what no street has is a fault of the sensor and is not shown."""
    return value_ugm3 is not None and 0 <= value_ugm3 <= MOST_UGM3


def _index_record(store: Store | At, now_ms: int, limits: Air) -> dict[str, Value]:
    """Return the newest index record by quantity, {} if there is none.

    Of several fresh ones the first by name is taken, not the newest: the page must not jump between two places.
    """
    records: dict[tuple[str, str], dict[str, Value]] = {}
    for quantity in (INDEX, COVERAGE, MEAN_PM2_5, MEAN_PM10):
        for value in store.values(quantity):
            if limits.index in (None, value.device) and not value.part:
                records.setdefault((value.device, value.source), {})[quantity] = value
    newest = {name: _of_one_time(record) for name, record in sorted(records.items())}
    fresh = [
        record
        for record in newest.values()
        if _is_fresh(next(iter(record.values())), now_ms, limits.verdict_limit_minutes)
    ]
    if fresh:
        return fresh[0]
    return max(newest.values(), key=lambda record: next(iter(record.values())).time_ms, default={})


def _of_one_time(record: dict[str, Value]) -> dict[str, Value]:
    """Drop what an older record said: an index that is no longer computed is no index."""
    time_ms = max(value.time_ms for value in record.values())
    return {quantity: value for quantity, value in record.items() if value.time_ms == time_ms}


def _verdict(record: dict[str, Value], dust: Dust, now_ms: int, limits: Air) -> Verdict:
    """Return what may be said of the last hour.

    An index that is not there yet and one that is there no more look alike in the record; what tells them apart is
    whether dust is being measured now.
    """
    any_value = next(iter(record.values()), None)
    band = _whole(record.get(INDEX), 1, BAND_COUNT)
    minutes = _whole(record.get(COVERAGE), 0, 60)
    if any_value is None or not _is_fresh(any_value, now_ms, limits.verdict_limit_minutes):
        if any_value is None and dust.value_ugm3 is not None:
            return Verdict("not_yet")
        return Verdict("unknown", age_ms=_age_ms(any_value, now_ms) if any_value else dust.age_ms)
    is_simulated = any(value.is_simulated for value in record.values())
    if band is not None and (minutes is None or minutes >= ENOUGH_MINUTES):
        return Verdict("known", band=band, age_ms=_age_ms(any_value, now_ms), is_simulated=is_simulated)
    if dust.value_ugm3 is not None:
        return Verdict("not_yet", minutes=minutes, is_simulated=is_simulated)
    return Verdict("unknown", age_ms=dust.age_ms)


def _dust_value(values: Sequence[Value], index: dict[str, Value], now_ms: int, limits: Air) -> Value | None:
    """Return the dust value that belongs to the index: with its label, else of its source, else the first by name."""
    allowed = [value for value in values if limits.dust in (None, value.device) and not value.part]
    fresh = [value for value in allowed if _is_fresh(value, now_ms, limits.live_limit_minutes)]
    of_index = next(iter(index.values()), None)

    def distance(value: Value) -> tuple[bool, bool]:
        if of_index is None:
            return (False, False)
        return (not value.label or value.label != of_index.label, value.source != of_index.source)

    if fresh:
        return min(fresh, key=distance)
    return max(allowed, key=lambda value: value.time_ms, default=None)


def _dust(value: Value | None, now_ms: int, limits: Air) -> Dust:
    if value is None:
        return Dust(None, "", None)
    is_known = _is_fresh(value, now_ms, limits.live_limit_minutes)
    return Dust(_ugm3(value) if is_known else None, value.label, _age_ms(value, now_ms), value.is_simulated)


def _day(series: Iterable[Series], dust: Value | None, limits: Air) -> Series | None:
    """Return the series of the device whose value is shown; before there is a value, the first by name."""
    allowed = [one for one in series if limits.dust in (None, one.device) and not one.part]
    if dust is not None:
        allowed = [one for one in allowed if (one.source, one.device) == (dust.source, dust.device)]
    return next((one for one in allowed if one.samples), None)


def _is_fresh(value: Value | None, now_ms: int, limit_minutes: int) -> bool:
    age_ms = None if value is None else _age_ms(value, now_ms)
    return age_ms is not None and age_ms <= limit_minutes * MINUTE_MS


def _age_ms(value: Value, now_ms: int) -> int | None:
    """Return how old a value is; None where it comes from the future, since then a clock is wrong, here or there."""
    age_ms = now_ms - value.time_ms
    return max(age_ms, 0) if age_ms >= -AHEAD_MS else None


def _ugm3(value: Value) -> float | None:
    return value.value if value.quality != STALE and is_air(value.value) else None


def _mean(value: Value | None) -> float | None:
    return None if value is None else _ugm3(value)


def _whole(value: Value | None, least: int, most: int) -> int | None:
    """Return a whole number within its bounds, or None for anything else."""
    if value is None or value.value is None or value.quality == STALE:
        return None
    return int(value.value) if least <= value.value <= most and float(value.value).is_integer() else None
