"""The hourly index of the particulates, in the bands of the European Air Quality Index.

Source: European Air Quality Index, revised 2025 (EEA; basis ETC HE Report
2024/17, DOI 10.5281/zenodo.15781195): hourly means, the worst pollutant
decides. A station's index needs more pollutants than a dust sensor gives:
this is a *PM index*, and says so.

The bands are published as ranges of whole numbers; between them we take the
upper bound as inclusive, on the mean rounded to 0.1 µg/m³ (our choice).
Coverage: an hourly mean needs 75 % of the hour (2008/50/EC, Annex VII). The
hour is counted in minutes; a sensor that measures less often has its sample
stand for each minute since the one before, for a quarter of an hour at most:
three samples are the least that an hour's mean is made of (our choice).
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from math import floor

from bega_protocols.reading import GOOD, Reading

# Upper bounds of bands 1 to 5 in µg/m³; above the last is band 6.
BANDS_UGM3 = {"pm2_5": (5, 15, 50, 90, 140), "pm10": (15, 45, 120, 195, 270)}
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
NEEDED_MINUTES = 45
LONGEST_MINUTES = 15  # that one sample stands for
AHEAD_MS = 60_000  # what is measured by a clock that is this much ahead still counts, once its time has come


def minutes_of(sample_ms: int) -> int:
    """Return how many minutes a sample stands for that is taken every `sample_ms`; 1 where that is not known (0)."""
    return max(1, min(LONGEST_MINUTES, -(-sample_ms // MINUTE_MS)))


def band(quantity: str, mean_tenths: int) -> int:
    """Return the band, 1 to 6, of an hourly mean in tenths of µg/m³."""
    return 1 + bisect_left([10 * bound for bound in BANDS_UGM3[quantity]], mean_tenths)


def hour_mean(samples: list[tuple[int, Fraction]], now_ms: int) -> tuple[int | None, int]:
    """Return (mean in tenths of µg/m³ or None, minutes with data) of the hour before `now_ms`.

    samples: (time in ms, value in µg/m³). Each minute counts once however often it was measured,
    so that a sensor which speaks faster in changing air does not weigh more.
    """
    minutes: dict[int, list[Fraction]] = {}
    for time_ms, value in samples:
        age_ms = now_ms - time_ms
        if 0 <= age_ms < HOUR_MS:
            minutes.setdefault(age_ms // MINUTE_MS, []).append(value)
    if not minutes:
        return None, 0
    means = [sum(values, Fraction(0)) / len(values) for values in minutes.values()]
    tenths = sum(means, Fraction(0)) / len(means) * 10
    return floor(tenths + Fraction(1, 2)), len(minutes)


class ParticulateHour:
    """The last hour of the particulates of one place, from one or several devices."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[int, Fraction]]] = {quantity: [] for quantity in BANDS_UGM3}

    def add(self, time_ms: int, readings: list[Reading], minutes: int = 1) -> None:
        """Take the good readings of particulates from one record, measured at `time_ms`.

        minutes: so long a sample of this device stands for, up to the moment when it is measured.
        """
        for reading in readings:
            if reading.quantity in self._samples and reading.quality == GOOD and not reading.part:
                value = Fraction(reading.value) * Fraction(10) ** reading.exp10
                times_ms = range(time_ms, time_ms - minutes * MINUTE_MS, -MINUTE_MS)
                self._samples[reading.quantity] += [(each_ms, value) for each_ms in times_ms]

    def readings(self, now_ms: int) -> list[Reading]:
        """Return the index and what it rests on: `coverage` always, means and `pm_index` where 45 minutes hold data."""
        means: dict[str, int] = {}
        coverage = 0
        for quantity, samples in self._samples.items():
            # They come in any order: a node's backlog is late, and a clock that is set steps either way.
            samples[:] = [sample for sample in samples if -AHEAD_MS <= now_ms - sample[0] < HOUR_MS]
            mean, minutes = hour_mean(samples, now_ms)
            coverage = max(coverage, minutes)
            if mean is not None and minutes >= NEEDED_MINUTES:
                means[quantity] = mean
        found = [Reading("coverage", coverage)]
        found += [Reading(f"{quantity}_mean_1h", mean, -1) for quantity, mean in means.items()]
        if means:
            found.insert(0, Reading("pm_index", max(band(quantity, mean) for quantity, mean in means.items())))
        return found
