"""The Air Quality Index of the US EPA for particulates, beside the European one on demand.

Source: EPA-454/B-24-002 (2024): concentrations truncated to 0.1 (PM2.5) or 1
(PM10) µg/m³, straight lines between break points. Of the last twelve hours
NowCast makes one figure: weights that fall off the faster, the more the air
changes, at least by half an hour to hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor

from bega_protocols.reading import GOOD, Reading

# (concentration low, high, index low, high); concentrations in the last digit that counts
PM2_5_TENTHS = (
    (0, 90, 0, 50), (91, 354, 51, 100), (355, 554, 101, 150), (555, 1254, 151, 200), (1255, 2254, 201, 300),
    (2255, 3254, 301, 500),
)  # fmt: skip
PM10_UNITS = ((0, 54, 0, 50), (55, 154, 51, 100), (155, 254, 101, 150), (255, 354, 151, 200), (355, 424, 201, 300))
HIGHEST = 500
LEAST_WEIGHT = Fraction(1, 2)
HOURS = 12
MINUTE_MS, HOUR_MINUTES = 60_000, 60
NEEDED_MINUTES = 45  # of an hour, as for the European index
NEEDED_OF_LATEST = 2  # of the three latest hours


def nowcast(hours: Sequence[Fraction | None]) -> Fraction | None:
    """Return the weighted mean of hourly means in µg/m³, the latest hour first; None with too few of the latest."""
    hours = hours[:HOURS]
    known = [mean for mean in hours if mean is not None]
    if sum(mean is not None for mean in hours[:3]) < NEEDED_OF_LATEST:
        return None
    most = max(known)
    weight = max(LEAST_WEIGHT, min(known) / most) if most else Fraction(1)
    pairs = [(weight**age, mean) for age, mean in enumerate(hours) if mean is not None]
    return sum((share * mean for share, mean in pairs), Fraction(0)) / sum((share for share, _ in pairs), Fraction(0))


def us_aqi(quantity: str, mean_ugm3: Fraction) -> int | None:
    """Return the index of a concentration, at most 500; None for PM10 beyond the break points that we hold."""
    if quantity == "pm2_5":
        return _on_lines(PM2_5_TENTHS, floor(10 * mean_ugm3), HIGHEST)
    return _on_lines(PM10_UNITS, floor(mean_ugm3), None)


class ParticulateHours:
    """The last twelve hours of the particulates of one place, by minute, from one or several devices."""

    def __init__(self) -> None:
        self._minutes: dict[str, dict[int, tuple[int, Fraction]]] = {"pm2_5": {}, "pm10": {}}

    def add(self, time_ms: int, readings: Sequence[Reading], minutes: int = 1) -> None:
        """Take the good readings of particulates from one record, measured at `time_ms`.

        minutes: so long a sample of this device stands for, up to the moment when it is measured.
        """
        latest = time_ms // MINUTE_MS
        for reading in readings:
            known = self._minutes.get(reading.quantity)
            if known is None or reading.quality != GOOD or reading.part:
                continue
            value = Fraction(reading.value) * Fraction(10) ** reading.exp10
            for minute in range(latest - minutes + 1, latest + 1):
                count, total = known.get(minute, (0, Fraction(0)))
                known[minute] = count + 1, total + value

    def readings(self, now_ms: int) -> list[Reading]:
        """Return `us_aqi`, the worse of the two, where at least two of the latest three hours hold data.

        Nothing where PM10 lies beyond the break points that we hold: the index of PM2.5 alone would be too low.
        """
        now_minute = now_ms // MINUTE_MS
        found = []
        for minutes in self._minutes.values():
            for minute in [minute for minute in minutes if minute <= now_minute - HOURS * HOUR_MINUTES]:
                del minutes[minute]
        for quantity, minutes in self._minutes.items():
            mean = nowcast([_hour_mean(minutes, now_minute - hour * HOUR_MINUTES) for hour in range(HOURS)])
            if mean is None:
                continue
            index = us_aqi(quantity, mean)
            if index is None:
                return []
            found.append(index)
        return [Reading("us_aqi", max(found))] if found else []


def _hour_mean(minutes: Mapping[int, tuple[int, Fraction]], end_minute: int) -> Fraction | None:
    """Return the mean of the hour up to `end_minute`, each minute counting once; None with too little of it."""
    known = [minutes[minute] for minute in range(end_minute - HOUR_MINUTES + 1, end_minute + 1) if minute in minutes]
    if len(known) < NEEDED_MINUTES:
        return None
    return sum((total / count for count, total in known), Fraction(0)) / len(known)


def _on_lines(lines: tuple[tuple[int, int, int, int], ...], concentration: int, beyond: int | None) -> int | None:
    for low, high, index_low, index_high in lines:
        if concentration <= high:
            exact = Fraction((index_high - index_low) * (concentration - low), high - low) + index_low
            return floor(exact + Fraction(1, 2))
    return beyond
