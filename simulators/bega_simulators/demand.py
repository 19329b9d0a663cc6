"""What a building draws, and what its register has counted: the register is the exact integral of the draw.

A day's draw is a sum of terms that all have a closed integral: a habit (straight lines between knots) under a
weight that runs straight from midnight to midnight, a steady base, appliances that are on or off, and a restless
part of sines that are zero at both midnights. So a register is the sum of whole days since the meter was hung,
plus today's integral: monotonic, and the same to the last digit in every process.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from bega_simulators.weather import Calendar, Chance, Moment, Shape, day_number, is_weekend

HUNG_ON = day_number(2026, 1, 1)  # the day on which every meter of the town began to count
PLANS_KEPT = 64
RESTLESS_TURNS = (11, 29, 83, 233, 641, 1823, 5501)  # per day; the last one turns in 16 s


class Appliance(NamedTuple):
    """Something that is switched on `times` a day, at about one of `hours`, for `minutes`, drawing `draw`."""

    name: str
    draw: float
    minutes: float
    hours: tuple[float, ...]
    times: int = 1
    likely: float = 1.0  # share of the times that it happens


class Leak(NamedTuple):
    """A pipe that is broken from one moment until it is mended."""

    since_s: float
    mended_s: float
    m3_per_hour: float

    def lost_m3(self, town_s: float) -> float:
        """Return what has flowed out of it by then."""
        return self.m3_per_hour * max(0.0, min(town_s, self.mended_s) - self.since_s) / 3600


class Habit(NamedTuple):
    """What one phase (or one pipe) draws. `weight(day)` scales the shapes at that day's first midnight."""

    base: float
    workday: Shape
    weekend: Shape
    weight: Callable[[int], float]
    restless: float = 0.0  # share of the base that comes and goes
    appliances: tuple[Appliance, ...] = ()


class Demand:
    """One draw and its register, in units of `draw` and `draw` x hours."""

    def __init__(self, habit: Habit, calendar: Calendar, chance: Chance, name: str) -> None:
        self._habit = habit
        self._calendar = calendar
        self._chance = chance
        self._name = name
        self._plans: dict[int, _Plan] = {}
        self._counted = [0.0]  # at the midnights since HUNG_ON; a cache that is always filled in order

    def draw(self, moment: Moment) -> float:
        return self._plan(moment.day).draw(moment.day_part)

    def counted(self, moment: Moment) -> float:
        """Return what the register has counted since HUNG_ON; before that day it stands still, as new meters do."""
        if moment.day < HUNG_ON:
            return 0.0
        return self._at_midnight(moment.day) + self._plan(moment.day).counted(moment.day_part)

    def counted_within(self, day: int, start: float, end: float) -> float:
        """Return what is counted between two parts of a day."""
        plan = self._plan(day)
        return plan.counted(end) - plan.counted(start)

    def _at_midnight(self, day: int) -> float:
        index = day - HUNG_ON
        while len(self._counted) <= index:
            whole_day = self._plan(HUNG_ON + len(self._counted) - 1).counted(1.0)
            self._counted.append(self._counted[-1] + whole_day)
        return self._counted[index]

    def _plan(self, day: int) -> _Plan:
        plan = self._plans.get(day)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            plan = self._plans[day] = self._make_plan(day)
        return plan

    def _make_plan(self, day: int) -> _Plan:
        habit = self._habit
        chance = self._chance.sequence(self._name, day)
        weight = habit.weight(day)
        amplitude = habit.base * habit.restless / len(RESTLESS_TURNS)
        sines = tuple((amplitude * chance.uniform(-1, 1), 2 * math.pi * turns) for turns in RESTLESS_TURNS)
        return _Plan(
            length_h=(self._calendar.midnight_s(day + 1) - self._calendar.midnight_s(day)) / 3600,
            base=habit.base,
            shape=habit.weekend if is_weekend(day) else habit.workday,
            weight=weight,
            rise=habit.weight(day + 1) - weight,
            sines=sines if amplitude else (),
            runs=tuple(run for appliance in habit.appliances for run in _runs(appliance, chance)),
        )


def _runs(appliance: Appliance, chance: random.Random) -> list[tuple[float, float, float]]:
    """Return (start, end, draw) of a day's runs as parts of the day; all of them begin and end within it."""
    runs = []
    for _ in range(appliance.times):
        happens = chance.random() < appliance.likely
        hour = appliance.hours[int(chance.random() * len(appliance.hours))] + 1.2 * (chance.random() - 0.5)
        lasts_h = appliance.minutes / 60 * (0.7 + 0.6 * chance.random())
        start_h = min(max(0.0, hour), 24 - lasts_h)
        if happens:
            runs.append((start_h / 24, (start_h + lasts_h) / 24, appliance.draw))
    return runs


class _Plan(NamedTuple):
    """One local day of one draw."""

    length_h: float
    base: float
    shape: Shape
    weight: float
    rise: float
    sines: tuple[tuple[float, float], ...]
    runs: tuple[tuple[float, float, float], ...]

    def draw(self, day_part: float) -> float:
        total = self.base + self.shape.at(day_part) * (self.weight + self.rise * day_part)
        for amplitude, turn in self.sines:
            total += amplitude * math.sin(turn * day_part)
        for start, end, draw in self.runs:
            if start <= day_part < end:
                total += draw
        return total

    def counted(self, day_part: float) -> float:
        area, moment = self.shape.integrals(day_part)
        total = self.base * day_part + self.weight * area + self.rise * moment
        for amplitude, turn in self.sines:
            total += amplitude / turn * (1 - math.cos(turn * day_part))
        for start, end, draw in self.runs:
            if day_part > start:
                total += draw * (min(day_part, end) - start)
        return total * self.length_h
