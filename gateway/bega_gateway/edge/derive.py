"""From records to records: each calculation takes those of its inputs, in any order, and gives records of its own.

Pure but for what it remembers: whoever drives it brings each record and the time that it has, and takes what comes out.
`state()` is what it needs to go on after a restart; it is stored in the commit that stores what it gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from fractions import Fraction
from typing import NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from bega_gateway.edge import rules
from bega_gateway.edge.balance import Metered, balance
from bega_gateway.edge.efficiency import efficiency, joules
from bega_gateway.edge.intervals import end_of, start_of
from bega_gateway.edge.night_flow import QUARTER_MS, minimum_night_flow, net_night_flow, night_of
from bega_gateway.edge.register import Sample, scaled
from bega_gateway.edge.tables import (
    SUFFIX,
    Alarm,
    Balance,
    Efficiency,
    Means,
    NightFlow,
    Totals,
    exact,
    register_limits,
)
from bega_gateway.edge.totals import Total
from bega_gateway.edge.totals import Totals as RegisterTotals
from bega_gateway.edge.treatment import Device, quantity_value, reading_of
from bega_protocols.reading import GOOD, SUSPECT, Reading, ucum

Kept = TypeVar("Kept")

MINUTE_MS = 60_000
MOST_OPEN = 400  # intervals of a balance that wait for a meter; four days of quarter-hours
ACKNOWLEDGED = "acknowledged"  # the part of an alarm's record that says that somebody knows
COVERAGE = "coverage"
PERCENT_PLACES = -2
RATIO_PLACES = -4
LOSS_PLACES = -6  # of an uncertainty: a root has as many as one likes
FLOW_PLACES = -6
MEAN_PLACES = -3


class Given(NamedTuple):
    """What a calculation gives: the readings of one record, and the time that it has."""

    time_ms: int
    readings: list[Reading]


class Calculation(Protocol):
    """What a part of the edge does."""

    at_once: bool  # its records are for somebody who waits

    @property
    def left_out(self) -> int:
        """Return how many readings, or of intervals of several meters how many of these, it could not use."""

    def take(self, device: Device, readings: list[Reading], time_ms: int, serial: str) -> Iterator[Given]:
        """Take a record of an input; serial: its meter's number, '' if it tells none."""

    def state(self) -> bytes:
        """Return what a later object needs to go on from here."""


class IntervalTotals:
    """Totals of some registers of one device, a record for each interval."""

    at_once = False

    def __init__(self, table: Totals, zone: ZoneInfo, state: bytes = b"") -> None:
        self._table = table
        self._quantities = frozenset(table.quantities)  # looked up for each reading of each record
        self._zone = zone
        self._registers: dict[tuple[str, str], RegisterTotals] = {}
        self._kept = _decoded(state, dict[str, bytes], {})

    @property
    def left_out(self) -> int:
        """Return how many readings were not later than the one before."""
        return sum(register.ignored for register in self._registers.values())

    def take(self, device: Device, readings: list[Reading], time_ms: int, serial: str) -> Iterator[Given]:
        """Give a record for each interval that ended, of all registers that were read together."""
        wanted = self._quantities
        ended: dict[int, list[tuple[Reading, Total]]] = {}
        for reading in readings:
            if reading.quantity not in wanted or reading.quality != GOOD:
                continue
            sample = Sample(time_ms, reading.value, reading.exp10, serial)
            for total in self._register(reading).add(sample):
                ended.setdefault(total.end_ms, []).append((reading, total))
        for end_ms in sorted(ended):
            yield Given(end_ms, self._readings(ended[end_ms]))

    def state(self) -> bytes:
        """Return the registers' states, by quantity and part."""
        kept = {f"{quantity}:{part}": register.state() for (quantity, part), register in self._registers.items()}
        return msgspec.msgpack.encode({**self._kept, **kept})

    def _register(self, reading: Reading) -> RegisterTotals:
        key = reading.quantity, reading.part
        if key not in self._registers:
            kept = self._kept.pop(f"{reading.quantity}:{reading.part}", b"")
            self._registers[key] = RegisterTotals(
                self._table.period, self._zone, register_limits(self._table), self._table.longest_gap_s, kept
            )
        return self._registers[key]

    def _readings(self, ended: list[tuple[Reading, Total]]) -> list[Reading]:
        found = [Reading(COVERAGE, min(total.covered_ms for _, total in ended) // MINUTE_MS)]
        for reading, total in ended:
            if total.amount is not None:
                name = reading.quantity + SUFFIX[self._table.period]
                quality = GOOD if total.is_whole else SUSPECT
                found.append(Reading(name, total.amount, total.exp10, reading.part, quality))
        return found


class IntervalMeans:
    """Mean, least and most of some sampled quantities of one device, a record for each interval."""

    at_once = False

    def __init__(self, table: Means, zone: ZoneInfo, sample_ms: int = MINUTE_MS) -> None:
        """sample_ms: how long a sample stands for; what is measured more often than once a minute counts by minute."""
        self._sample_ms = max(MINUTE_MS, sample_ms)
        self._table = table
        self._quantities = frozenset(table.quantities)
        self._zone = zone
        self._start_ms: int | None = None
        self._samples: dict[tuple[str, str], _Samples] = {}
        self.left_out = 0  # readings that came when their interval was over

    def take(self, device: Device, readings: list[Reading], time_ms: int, serial: str) -> Iterator[Given]:
        """Give the record of the interval that ended, if a later one has begun; what comes late for it is left out."""
        start_ms = start_of(self._table.period, time_ms, self._zone)
        if self._start_ms is not None and start_ms > self._start_ms:
            yield from self._closed(self._start_ms)
        if self._start_ms is None or start_ms > self._start_ms:
            self._start_ms, self._samples = start_ms, {}
        if start_ms < self._start_ms:
            self.left_out += sum(reading.quantity in self._quantities for reading in readings)
            return
        wanted = self._quantities
        for reading in readings:
            if reading.quantity in wanted and reading.quality == GOOD:
                key = reading.quantity, reading.part
                if key not in self._samples:
                    self._samples[key] = _Samples(reading.exp10)
                self._samples[key].add((time_ms - start_ms) // self._sample_ms, reading.value, reading.exp10)

    def state(self) -> bytes:
        """Return nothing: the interval that a restart interrupts has less coverage."""
        return b""

    def _closed(self, start_ms: int) -> Iterator[Given]:
        if not self._samples:
            return
        end_ms = end_of(self._table.period, start_ms, self._zone)
        length_ms = end_ms - start_ms
        covered = {key: min(length_ms, len(found.stretches) * self._sample_ms) for key, found in self._samples.items()}
        found = [Reading(COVERAGE, max(covered.values()) // MINUTE_MS)]
        for (quantity, part), samples in self._samples.items():
            is_enough = 4 * covered[quantity, part] >= 3 * length_ms  # 75 %: 2008/50/EC, Annex VII
            quality = GOOD if is_enough else SUSPECT
            suffix = SUFFIX[self._table.period]
            for name, value in (("mean", samples.mean), ("min", samples.least), ("max", samples.most)):
                found.append(reading_of(f"{quantity}_{name}{suffix}", value, MEAN_PLACES, part, quality))
        yield Given(end_ms, found)


class _Samples:
    """What one quantity was in an interval: as much memory however often it is measured."""

    def __init__(self, exp10: int) -> None:
        self._exp10 = exp10  # of all numbers here: the finest that came
        self._range: tuple[int, int] | None = None
        self.stretches: dict[int, tuple[int, int]] = {}  # of its minutes, or what a sample stands for: count, and sum

    def add(self, stretch: int, value: int, exp10: int) -> None:
        """Take value x 10^exp10, measured in `stretch` of the interval."""
        if exp10 < self._exp10:
            self._refine(exp10)
        elif exp10 > self._exp10:
            value = scaled(value, exp10, self._exp10)
        count, total = self.stretches.get(stretch, (0, 0))
        self.stretches[stretch] = count + 1, total + value
        least, most = self._range or (value, value)
        if not least < value < most:
            self._range = min(least, value), max(most, value)

    @property
    def mean(self) -> Fraction:
        """Return the mean of the stretches' means: one in which it is measured more often weighs no more."""
        means = sum((Fraction(total, count) for count, total in self.stretches.values()), Fraction(0))
        return means * Fraction(10) ** self._exp10 / len(self.stretches)

    @property
    def least(self) -> Fraction:
        assert self._range
        return self._range[0] * Fraction(10) ** self._exp10

    @property
    def most(self) -> Fraction:
        assert self._range
        return self._range[1] * Fraction(10) ** self._exp10

    def _refine(self, exp10: int) -> None:
        factor = scaled(1, self._exp10, exp10)
        self._exp10 = exp10
        self.stretches = {stretch: (count, total * factor) for stretch, (count, total) in self.stretches.items()}
        if self._range:
            self._range = self._range[0] * factor, self._range[1] * factor


class _Together:
    """The totals of some meters, by the end of their interval, until those of every meter are there."""

    def __init__(self, quantities: Mapping[Device, str]) -> None:
        """quantities: what is taken of each meter, in the order in which they are wanted."""
        self._quantities = quantities
        self._open: dict[int, dict[Device, list[Reading]]] = {}
        self.given_up = 0  # intervals of which some total never came

    def add(self, device: Device, readings: list[Reading], time_ms: int) -> list[list[Reading]] | None:
        """Take a record; return the totals of all meters once they are there, each with its coverage if it has one."""
        wanted = self._quantities[device]
        total = [row for row in readings if row.quantity == wanted and not row.part][:1]
        if not total:
            return None
        interval = self._open.setdefault(time_ms, {})
        interval[device] = total + [row for row in readings if row.quantity == COVERAGE][:1]
        if len(interval) == len(self._quantities):
            del self._open[time_ms]
            return [interval[meter] for meter in self._quantities]
        while len(self._open) > MOST_OPEN:
            del self._open[min(self._open)]
            self.given_up += 1
        return None


class NetworkBalance:
    """The loss of a network, a record for each interval of which every meter's total is there."""

    at_once = False

    def __init__(self, table: Balance, feeds: list[Device], consumers: list[Device], percents: list[Fraction]) -> None:
        """percents: accuracy class of each meter, feeds first."""
        self._table = table
        self._feeds = len(feeds)
        self._percents = percents
        self._together = _Together(dict.fromkeys(feeds + consumers, table.quantity))

    @property
    def left_out(self) -> int:
        """Return of how many intervals some total never came."""
        return self._together.given_up

    def take(self, device: Device, readings: list[Reading], time_ms: int, serial: str) -> Iterator[Given]:
        """Give the balance of the interval that ends at `time_ms` once all are there; a doubted total makes none."""
        totals = self._together.add(device, readings, time_ms)
        if totals:
            yield from self._balance(time_ms, [total for total, *_ in totals])

    def state(self) -> bytes:
        """Return nothing: the intervals that are open at a restart have no balance."""
        return b""

    def _balance(self, time_ms: int, totals: list[Reading]) -> Iterator[Given]:
        metered = [
            Metered(quantity_value(total) if total.quality == GOOD else None, percent)
            for total, percent in zip(totals, self._percents, strict=True)
        ]
        found = balance(metered[: self._feeds], metered[self._feeds :])
        if found is None:
            return
        exp10 = min(total.exp10 for total in totals)
        quality = GOOD if found.is_certain else SUSPECT
        readings = [
            reading_of(f"{self._table.quantity}_loss", found.loss, exp10, quality=quality),
            reading_of(f"{self._table.quantity}_loss_uncertainty", found.uncertainty, min(exp10, LOSS_PLACES)),
        ]
        if found.loss_percent is not None:
            readings.append(reading_of("loss_percent", found.loss_percent, PERCENT_PLACES, quality=quality))
        yield Given(time_ms, readings)


class EnergyEfficiency:
    """What comes out of what is put in, a record for each interval of which every meter's total is there.

    Unlike a loss it is told of doubted totals too, as suspect and with their coverage: a day is long, and one restart
    of one of fifty meters' lines must not leave the city without its figure.
    """

    at_once = False

    def __init__(self, table: Efficiency, produced: list[Device], delivered: list[Device]) -> None:
        """produced, delivered: the meters, in the order of the table."""
        self._names = table.produced + table.delivered
        self._quantities = [table.quantity_of(name) for name in self._names]
        self._percents = [exact(table.classes.get(name, table.class_percent)) for name in self._names]
        self._kwh_per_m3 = None if table.kwh_per_m3 is None else exact(table.kwh_per_m3)
        self._produced = len(produced)
        self._together = _Together(dict(zip(produced + delivered, self._quantities, strict=True)))

    @property
    def left_out(self) -> int:
        """Return of how many intervals some total never came."""
        return self._together.given_up

    def take(self, device: Device, readings: list[Reading], time_ms: int, serial: str) -> Iterator[Given]:
        """Give the figures of the interval that ends at `time_ms` once all totals are there."""
        found = self._together.add(device, readings, time_ms)
        if found:
            yield Given(time_ms, self._readings([total for total, *_ in found], [rest for _, *rest in found]))

    def state(self) -> bytes:
        """Return nothing: the intervals that are open at a restart have no figures."""
        return b""

    def _readings(self, totals: list[Reading], coverages: list[list[Reading]]) -> list[Reading]:
        readings = []
        if all(coverages):
            readings.append(Reading(COVERAGE, min(coverage[0].value for coverage in coverages)))
        metered = [
            Metered(joules(quantity_value(total), ucum(total.quantity), self._kwh_per_m3), percent)
            for total, percent in zip(totals, self._percents, strict=True)
        ]
        found = efficiency(metered[: self._produced], metered[self._produced :])
        assert found
        is_doubted = any(total.quality != GOOD for total in totals)
        is_of_one_kind = len(set(self._quantities)) == 1  # heat over heat: more cannot come out than was put in
        quality = SUSPECT if is_doubted or (is_of_one_kind and found.is_more_than_whole) else GOOD
        for quantity, value, places in (
            ("produced_over_delivered", found.produced_over_delivered, RATIO_PLACES),
            ("efficiency_percent", found.percent, PERCENT_PLACES),
            ("efficiency_percent_uncertainty", found.uncertainty_percent, PERCENT_PLACES),
        ):
            if value is not None:
                readings.append(reading_of(quantity, value, places, quality=quality))
        return readings


class MinimumNightFlow:
    """The least that flowed into a zone in an hour of the night, a record each morning."""

    at_once = False

    def __init__(self, table: NightFlow, zone: ZoneInfo, state: bytes = b"") -> None:
        self._table = table
        self._zone = zone
        self._night: date | None = None
        self.left_out = 0  # nights without a whole hour
        self._quarters: dict[int, Fraction] = {}

    def take(self, device: Device, readings: list[Reading], time_ms: int, serial: str) -> Iterator[Given]:
        """Take a quarter-hour's total, which ends at `time_ms`; give the night's figure with the first one after it."""
        totals = [row for row in readings if row.quantity == self._table.quantity and not row.part]
        if not totals:
            return
        start_ms = time_ms - QUARTER_MS
        night = night_of(start_ms, self._zone)
        if self._night is not None and night != self._night:
            yield from self._closed()
        if night is None:
            return
        self._night = night
        if totals[0].quality == GOOD:
            self._quarters[start_ms] = quantity_value(totals[0])

    def state(self) -> bytes:
        """Return nothing: a night with a restart in it has a gap, and no hour over the gap counts."""
        return b""

    def _closed(self) -> Iterator[Given]:
        quarters = sorted(self._quarters.items())
        self._night, self._quarters = None, {}
        minimum = minimum_night_flow(quarters)
        if minimum is None:
            self.left_out += 1
            return
        net = net_night_flow(minimum, exact(self._table.legitimate_m3_per_hour))
        yield Given(
            quarters[-1][0] + QUARTER_MS,
            [
                reading_of("minimum_night_flow", minimum, FLOW_PLACES),
                reading_of("net_night_flow", net, FLOW_PLACES),
            ],
        )


class _Raised(msgspec.Struct):
    """What an alarm keeps over a restart."""

    is_raised: bool
    is_acknowledged: bool = False


class ThresholdAlarm:
    """An alarm: a record when it is raised, one when somebody says that he knows of it, one when it is cleared."""

    at_once = True

    def __init__(self, table: Alarm, state: bytes = b"") -> None:
        self._table = table
        self.left_out = 0  # an alarm takes every value that is good
        kept = _decoded(state, _Raised, _Raised(False))
        self._alarm = rules.Alarm(threshold(table), kept.is_raised)
        self.is_acknowledged = kept.is_raised and kept.is_acknowledged

    @property
    def is_raised(self) -> bool:
        """Whether the value is still one to raise it for."""
        return self._alarm.is_raised

    def acknowledge(self) -> Reading:
        """Note that somebody knows of it, until it is raised anew; return what to put on record.

        The part keeps it apart from the alarm itself, which is raised as before.
        """
        self.is_acknowledged = True
        return Reading("alarm", int(self.is_raised), 0, ACKNOWLEDGED)

    def take(self, device: Device, readings: list[Reading], time_ms: int, serial: str) -> Iterator[Given]:
        """Give a record with `alarm` 1 or 0, and the value that made it so."""
        quantity, part = self._table.quantity, self._table.part
        for reading in readings:
            if reading.quantity != quantity or reading.part != part or reading.quality != GOOD:
                continue
            change = self._alarm.add(time_ms, quantity_value(reading))
            if change:
                self.is_acknowledged = False
                yield Given(time_ms, [Reading("alarm", int(change == "raised")), reading])

    def state(self) -> bytes:
        """Return whether it is raised, and whether somebody knows."""
        return msgspec.msgpack.encode(_Raised(self._alarm.is_raised, self.is_acknowledged))


def threshold(table: Alarm) -> rules.Threshold:
    """Return the bounds that a table says."""
    bound = table.above if table.above is not None else table.below
    assert bound is not None
    clear = bound if table.clear is None else table.clear
    return rules.Threshold(
        exact(bound),
        exact(clear),
        table.above is not None,
        round(1000 * table.for_s),
        round(1000 * table.clear_for_s),
    )


def _decoded(state: bytes, kind: type[Kept], otherwise: Kept) -> Kept:
    """Return what `state` holds, `otherwise` if it cannot be read."""
    try:
        return msgspec.msgpack.decode(state, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return otherwise
