"""The parts of a gateway that read no wire: they take the records of others and give records of their own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from bega.clock import CLOCK_FLOOR_MS
from bega_gateway.build import Part
from bega_gateway.edge import tables, us_aqi
from bega_gateway.edge.air_index import BANDS_UGM3, HOUR_MS, ParticulateHour, minutes_of
from bega_gateway.edge.derive import (
    EnergyEfficiency,
    IntervalMeans,
    IntervalTotals,
    MinimumNightFlow,
    NetworkBalance,
    ThresholdAlarm,
)
from bega_gateway.edge.us_aqi import ParticulateHours
from bega_protocols.reading import GOOD, Reading, parse_decimal

if TYPE_CHECKING:
    from bega_gateway.build import Ground
    from bega_gateway.config import Config
    from bega_gateway.edge.derive import Calculation, Given
    from bega_protocols.record import Record

MOST_WAITING = 10_000  # records of a calculation that may wait; then the oldest are left out
LATE_MS = 900_000  # what is older when it arrives raises and clears no alarm


async def computed(ground: Ground, config: Config, place: str, state: bytes) -> Part:
    """Return the part at `place` ("totals.cellar") of a configuration that is known to be good.

    state: what the calculation asked to keep.
    """
    section, _, name = place.partition(".")
    table = config.edge[section][name]
    if isinstance(table, tables.AirIndex):
        return await _air_index(ground, config, name, table)
    return _calculated(ground, config, name, table, _calculation(config, table, state))


def _calculation(config: Config, table: tables.Derived | tables.Treated, state: bytes) -> Calculation:
    zone = tables.zone(config.gateway.time_zone)
    assert zone
    if isinstance(table, tables.Totals):
        return IntervalTotals(table, zone, state)
    if isinstance(table, tables.Means):
        return IntervalMeans(table, zone, tables.sample_ms(config, table, table.input))
    if isinstance(table, tables.NightFlow):
        return MinimumNightFlow(table, zone)
    if isinstance(table, tables.Balance):
        feeds, consumers = ([config.input_of(name) for name in names] for names in (table.feeds, table.consumers))
        percents = [
            tables.exact(table.classes.get(name, table.class_percent)) for name in table.feeds + table.consumers
        ]
        return NetworkBalance(table, feeds, consumers, percents)
    if isinstance(table, tables.Efficiency):
        produced, delivered = ([config.input_of(name) for name in names] for names in (table.produced, table.delivered))
        return EnergyEfficiency(table, produced, delivered)
    assert isinstance(table, tables.Alarm)
    return ThresholdAlarm(table, state)


def _calculated(
    ground: Ground, config: Config, name: str, table: tables.Derived | tables.Treated, calculation: Calculation
) -> Part:
    """Return what brings each record of the inputs to `calculation`, and a task that records what it gives.

    Most records only change what it remembers, so it takes them as they come: a task each would cost more than the
    calculation. A line never waits for what is to be recorded; where that lies far behind, the oldest is left out.
    """
    recorder = ground.recorder
    alarm = calculation if isinstance(calculation, ThresholdAlarm) else None
    waiting: deque[tuple[Given, _Kept | None, bool]] = deque(maxlen=MOST_WAITING)
    faults: list[Exception] = []
    filled = asyncio.Event()

    def take(record: Record, arrival_ms: int, simulated: bool) -> None:
        time_ms = _time_of(record, arrival_ms, alarm is not None)
        if time_ms is None or faults:
            return
        device = record.source, record.device
        try:
            found = list(calculation.take(device, record.readings, time_ms, recorder.serial_of(device)))
        except Exception as fault:  # it is this part that ends, and not the line that has read the record
            faults.append(fault)
            filled.set()
            return
        if found:
            # With the last one, so that a fall of power in between gives a record twice and never none.
            kept = _Kept(calculation.state())
            waiting.extend((given, kept if given is found[-1] else None, simulated) for given in found)
            filled.set()

    async def give() -> None:
        while True:
            await filled.wait()
            filled.clear()
            if faults:
                raise faults.pop()
            while waiting:
                given, kept, simulated = waiting.popleft()
                await recorder.record(
                    name,
                    [given.readings],
                    given.time_ms,
                    keeps=kept,
                    simulated=simulated,
                    at_once=calculation.at_once,
                )

    inputs = [config.input_of(given) for given in tables.inputs_of(table)]
    return Part([(name, give)], let_go=recorder.listen(take, inputs), alarm=alarm, calculation=calculation)


class _Kept:
    """What a calculation asked to keep, as of the record that it gave."""

    def __init__(self, state: bytes) -> None:
        self._state = state

    def state(self) -> bytes:
        return self._state


def _time_of(record: Record, arrival_ms: int, is_for_alarm: bool) -> int | None:
    """Return the time that a calculation takes a record for, None if it is nothing to compute with.

    Nothing is measured after it arrived: a node whose clock is ahead would otherwise end every interval up to its time,
    and hold up all that is measured before. Without any clock only an alarm has a use for a record; and an alarm is of
    what is now, so that it has none for what a node brings late.
    """
    if arrival_ms < CLOCK_FLOOR_MS:
        return record.time_ms if record.time_ms is not None or not is_for_alarm else arrival_ms
    time_ms = arrival_ms if record.time_ms is None else min(record.time_ms, arrival_ms)
    return None if is_for_alarm and arrival_ms - time_ms > LATE_MS else time_ms


async def _air_index(ground: Ground, config: Config, name: str, table: tables.AirIndex) -> Part:
    """Return what gives the index of some devices, beginning with the hour that the feed remembers."""
    clocks, feed_store = ground.clocks, ground.feed_store
    # How long a sample of each input stands for, in minutes.
    inputs = {config.input_of(given): minutes_of(tables.sample_ms(config, table, given)) for given in table.inputs}
    hour = ParticulateHour()
    hours = ParticulateHours() if table.us_aqi else None
    simulated_until_ms = 0
    since_ms = clocks.wall_ms() - (us_aqi.HOURS if hours else 1) * HOUR_MS
    for (source, device), minutes in inputs.items() if feed_store else ():
        assert feed_store
        for quantity, point in await feed_store.points(source, device, since_ms):
            if quantity in BANDS_UGM3 and point.value is not None and point.quality == GOOD:
                readings = [Reading(quantity, *parse_decimal(point.value))]
                hour.add(point.time_ms, readings, minutes)
                if hours:
                    hours.add(point.time_ms, readings, minutes)
                simulated_until_ms = max(simulated_until_ms, point.time_ms * point.simulated)

    def take(record: Record, arrival_ms: int, simulated: bool) -> None:
        time_ms = _time_of(record, arrival_ms, False)
        minutes = inputs[record.source, record.device]
        if time_ms is not None:
            hour.add(time_ms, record.readings, minutes)
            if hours:
                hours.add(time_ms, record.readings, minutes)

    async def give() -> None:
        while True:
            now_ms = clocks.wall_ms()
            simulated = now_ms - simulated_until_ms < HOUR_MS
            readings = hour.readings(now_ms) + (hours.readings(now_ms) if hours else [])
            await ground.recorder.record(name, [readings], now_ms, simulated=simulated)
            await asyncio.sleep(table.every_s)

    return Part([(name, give)], let_go=ground.recorder.listen(take, inputs))
