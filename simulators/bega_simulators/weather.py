"""The town's calendar, chance and weather: everything that its air and its meters have in common.

Pure and deterministic: a value depends on the seed and the moment only, never
on which process asks, or in which order. Moments are Unix seconds.
"""

from __future__ import annotations

import itertools
import math
import random
from datetime import date, datetime
from typing import NamedTuple
from zlib import crc32
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Europe/Bucharest")
DAY_S = 86_400
YEAR_S = 365.2425 * DAY_S
COLDEST_S = 1_705_536_000  # 18 January 2024; the years that follow are as cold on the same date
WORDS = 0xFFFFFFFFFFFFFFFF


class Moment(NamedTuple):
    """A moment as the town's people live it. `day_part` is 0 at local midnight and 1 at the next.

    On the two days a year that have 23 or 25 hours the habits of the day stretch with it: no jump at 3 o'clock,
    and what is used in a day stays a closed form.
    """

    town_s: float
    day: int  # proleptic ordinal of the local date
    day_part: float
    day_length_s: int

    @property
    def weekend(self) -> bool:
        return is_weekend(self.day)


class Calendar:
    """Local days of the town; it remembers where they begin, since time zones are slow to ask."""

    def __init__(self) -> None:
        self._midnights_s: dict[int, int] = {}

    def moment(self, town_s: float) -> Moment:
        day = datetime.fromtimestamp(town_s, ZONE).toordinal()
        start_s = self.midnight_s(day)
        length_s = self.midnight_s(day + 1) - start_s
        return Moment(town_s, day, (town_s - start_s) / length_s, length_s)

    def midnight_s(self, day: int) -> int:
        """Return the Unix seconds at which the local day begins."""
        if day not in self._midnights_s:
            local = date.fromordinal(day)
            self._midnights_s[day] = int(datetime(local.year, local.month, local.day, tzinfo=ZONE).timestamp())
        return self._midnights_s[day]


def is_weekend(day: int) -> bool:
    return day % 7 in (6, 0)  # ordinal 1 was a Monday


def day_number(year: int, month: int, day: int) -> int:
    return date(year, month, day).toordinal()


class Shape:
    """A habit of the day: straight lines between (hour, value) knots from 0 to 24, with its exact integrals."""

    def __init__(self, *knots: tuple[float, float]) -> None:
        assert (knots[0][0], knots[-1][0]) == (0, 24), "a shape is of a whole day"
        assert math.isclose(knots[0][1], knots[-1][1]), "a day ends as it begins"
        self._parts = [
            (start / 24, left, (right - left) / (end - start) * 24)
            for (start, left), (end, right) in itertools.pairwise(knots)
        ]
        self._area = [0.0]
        self._moment = [0.0]
        for (start, _, _), end in zip(self._parts, [*(part[0] for part in self._parts[1:]), 1.0], strict=True):
            area, moment = self._within(len(self._area) - 1, end - start)
            self._area.append(self._area[-1] + area)
            self._moment.append(self._moment[-1] + moment)

    def at(self, day_part: float) -> float:
        start, value, slope = self._parts[self._index(day_part)]
        return value + slope * (day_part - start)

    def integrals(self, day_part: float) -> tuple[float, float]:
        """Return (integral of the shape, integral of day_part x shape) from midnight, over day_part."""
        index = self._index(day_part)
        area, moment = self._within(index, day_part - self._parts[index][0])
        return self._area[index] + area, self._moment[index] + moment

    def _within(self, index: int, width: float) -> tuple[float, float]:
        start, value, slope = self._parts[index]
        area = value * width + slope * width * width / 2
        return area, start * area + value * width * width / 2 + slope * width**3 / 3

    def _index(self, day_part: float) -> int:
        index = len(self._parts) - 1
        while index and self._parts[index][0] > day_part:
            index -= 1
        return index


class Chance:
    """Seeded chance without a sequence: each draw is a function of its name and number."""

    def __init__(self, seed: int, place: str = "") -> None:
        self._key = _mix((seed & WORDS) ^ (crc32(place.encode()) << 32))
        self._streams: dict[str, int] = {}

    def draw(self, name: str, number: int) -> float:
        """Return a number in [0, 1)."""
        if name not in self._streams:
            self._streams[name] = _mix(self._key ^ crc32(name.encode()))
        return _mix((self._streams[name] + number * 0x9E3779B97F4A7C15) & WORDS) / 2**64

    def sequence(self, name: str, number: int) -> random.Random:
        """Return a generator for many draws in a row; the same again for the same name and number."""
        return random.Random(int(self.draw(name, number) * 2**53))

    def drift(self, name: str, town_s: float, period_s: float) -> float:
        """Return a smooth wandering between -1 and 1 that turns about once in `period_s`."""
        number = math.floor(town_s / period_s)
        part = town_s / period_s - number
        left, right = self.draw(name, number), self.draw(name, number + 1)
        return 2 * (left + (right - left) * part * part * (3 - 2 * part)) - 1


class StillAir(NamedTuple):
    """Hours in which a lid of cold air lies lower than the season has it: the air holds `factor` times as much."""

    since_s: float
    until_s: float
    factor: float
    turns_s: float = 3600.0  # so long it takes to come and to go

    def held(self, town_s: float) -> float:
        """Return the factor at a moment, 1 when it is over."""
        inside_s = min(town_s - self.since_s, self.until_s - town_s)
        return 1 + (self.factor - 1) * min(1.0, max(0.0, inside_s / self.turns_s))


class Weather:
    """The sky over the whole town: every site lives under the same one."""

    # How much of a calm night's cold air still lies on the town: most before the sun breaks it, least at three.
    LID = Shape((0, 0.75), (5, 0.95), (7.5, 1.0), (9.5, 0.8), (12, 0.25), (15, 0.1), (17, 0.35), (20, 0.6), (24, 0.75))
    COLDEST_HOUR, WARMEST_HOUR = 6.5, 15.0

    def __init__(self, seed: int, still_air: StillAir | None = None) -> None:
        self._still_air = still_air
        self._chance = Chance(seed, "weather")

    def winter(self, town_s: float) -> float:
        """Return 1 in mid-January, 0 in mid-July."""
        return 0.5 + 0.5 * math.cos(2 * math.pi * (town_s - COLDEST_S) / YEAR_S)

    def calm(self, town_s: float) -> float:
        """Return 0 in a fresh wind, 1 in still air."""
        return 0.5 + 0.5 * self._chance.drift("wind", town_s, 2.5 * DAY_S)

    def cloud(self, town_s: float) -> float:
        """Return 0 for a clear sky, 1 for a covered one."""
        return 0.5 + 0.5 * self._chance.drift("cloud", town_s, 1.2 * DAY_S)

    def inversion(self, moment: Moment) -> float:
        """Return by what factor the air holds more of what is let into it than well-mixed air does; at least 1."""
        town_s = moment.town_s
        strength = self.calm(town_s) * (0.4 + 2.0 * self.winter(town_s))
        held = 1 + strength * self.LID.at(moment.day_part)
        return held * self._still_air.held(town_s) if self._still_air else held

    def mean_temperature_cel(self, town_s: float) -> float:
        """Return the temperature without its daily swing (Timișoara: 0 in January, 23 in July)."""
        slow = 3.5 * self._chance.drift("front", town_s, 4 * DAY_S) + 1.2 * self._chance.drift("air", town_s, DAY_S)
        return 23 - 23 * self.winter(town_s) + slow

    def temperature_cel(self, moment: Moment) -> float:
        town_s = moment.town_s
        swing = (6.5 - 3.5 * self.winter(town_s)) * (1 - 0.55 * self.cloud(town_s))
        return (
            self.mean_temperature_cel(town_s)
            + swing * self._sun(moment.day_part * 24)
            + 0.15 * self._chance.drift("gust", town_s, 900)
        )

    def dew_point_cel(self, town_s: float) -> float:
        """Return the dew point: it stays nearly the same all day, which is why humidity falls as the day warms."""
        spread = 2.5 + 6.5 * (1 - self.winter(town_s)) + 1.5 * self._chance.drift("dew", town_s, 2 * DAY_S)
        return self.mean_temperature_cel(town_s) - spread

    def heating(self, town_s: float) -> float:
        """Return how hard the town heats: 0 from 16 degrees in the mean up, 1 at -8."""
        return min(1.0, max(0.0, (16 - self.mean_temperature_cel(town_s)) / 24))

    def _sun(self, hour: float) -> float:
        """Return -1 at the coldest hour, 1 at the warmest: a quick morning, a slow evening."""
        rise_h = self.WARMEST_HOUR - self.COLDEST_HOUR
        since_h = (hour - self.COLDEST_HOUR) % 24
        if since_h < rise_h:
            return -math.cos(math.pi * since_h / rise_h)
        return math.cos(math.pi * (since_h - rise_h) / (24 - rise_h))


def relative_humidity(temperature_cel: float, dew_point_cel: float) -> float:
    """Return % of saturation over water (Magnus formula, constants of Sonntag 1990).

    From 92 % on it nears 99 without reaching it: fog, but no sensor that hangs at its limit for half a night.
    """

    def vapour(cel: float) -> float:
        return math.exp(17.62 * cel / (243.12 + cel))

    percent = 100 * vapour(dew_point_cel) / vapour(temperature_cel)
    return percent if percent < 92 else 99 - 7 * math.exp((92 - percent) / 7)


def _mix(word: int) -> int:
    """Return 64 well-mixed bits (the finaliser of SplitMix64)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORDS
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORDS
    return word ^ (word >> 31)
