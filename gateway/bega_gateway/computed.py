"""The parts of a gateway that read no wire: they take the records of others and give records of their own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from bega_gateway.build import Part
from bega_gateway.edge import tables, us_aqi
from bega_gateway.edge.air_index import BANDS_UGM3, HOUR_MS, ParticulateHour
from bega_gateway.edge.derive import (
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
    from bega_gateway.edge.derive import Calculation
    from bega_protocols.record import Record

MOST_WAITING = 10_000  # records that a calculation may lie behind; then the oldest are left out


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
        return IntervalMeans(table, zone)
    if isinstance(table, tables.NightFlow):
        return MinimumNightFlow(table, zone)
    if isinstance(table, tables.Balance):
        feeds, consumers = ([config.input_of(name) for name in names] for names in (table.feeds, table.consumers))
        percents = [
            tables.exact(table.classes.get(name, table.class_percent)) for name in table.feeds + table.consumers
        ]
        return NetworkBalance(table, feeds, consumers, percents)
    assert isinstance(table, tables.Alarm)
    return ThresholdAlarm(table, state)


def _calculated(
    ground: Ground, config: Config, name: str, table: tables.Derived | tables.Treated, calculation: Calculation
) -> Part:
    """Return what brings each record of the inputs to `calculation`, in a task of its own.

    A line never waits for it; one that lies far behind leaves the oldest out.
    """
    recorder = ground.recorder
    inputs = [config.input_of(given) for given in tables.inputs_of(table)]
    waiting: deque[tuple[Record, int, bool]] = deque(maxlen=MOST_WAITING)
    filled = asyncio.Event()

    def take(record: Record, arrival_ms: int, simulated: bool) -> None:
        if (record.source, record.device) in inputs:
            waiting.append((record, arrival_ms if record.time_ms is None else record.time_ms, simulated))
            filled.set()

    async def give() -> None:
        while True:
            await filled.wait()
            filled.clear()
            while waiting:
                record, time_ms, simulated = waiting.popleft()
                device = record.source, record.device
                for given in calculation.take(device, record.readings, time_ms, recorder.serial_of(device)):
                    await recorder.record(
                        name,
                        [given.readings],
                        given.time_ms,
                        keeps=calculation,
                        simulated=simulated,
                        at_once=calculation.at_once,
                    )

    alarm = calculation if isinstance(calculation, ThresholdAlarm) else None
    return Part([(name, give)], let_go=recorder.listen(take), alarm=alarm)


async def _air_index(ground: Ground, config: Config, name: str, table: tables.AirIndex) -> Part:
    """Return what gives the index of some devices, beginning with the hour that the feed remembers."""
    clocks, feed_store = ground.clocks, ground.feed_store
    inputs = [config.input_of(given) for given in table.inputs]
    hour = ParticulateHour()
    hours = ParticulateHours() if table.us_aqi else None
    simulated_until_ms = 0
    since_ms = clocks.wall_ms() - (us_aqi.HOURS if hours else 1) * HOUR_MS
    for source, device in inputs if feed_store else []:
        assert feed_store
        for quantity, point in await feed_store.points(source, device, since_ms):
            if quantity in BANDS_UGM3 and point.value is not None and point.quality == GOOD:
                readings = [Reading(quantity, *parse_decimal(point.value))]
                hour.add(point.time_ms, readings)
                if hours:
                    hours.add(point.time_ms, readings)
                simulated_until_ms = max(simulated_until_ms, point.time_ms * point.simulated)

    def take(record: Record, arrival_ms: int, simulated: bool) -> None:
        if (record.source, record.device) in inputs:
            time_ms = arrival_ms if record.time_ms is None else record.time_ms
            hour.add(time_ms, record.readings)
            if hours:
                hours.add(time_ms, record.readings)

    async def give() -> None:
        while True:
            now_ms = clocks.wall_ms()
            simulated = now_ms - simulated_until_ms < HOUR_MS
            readings = hour.readings(now_ms) + (hours.readings(now_ms) if hours else [])
            await ground.recorder.record(name, [readings], now_ms, simulated=simulated)
            await asyncio.sleep(table.every_s)

    return Part([(name, give)], let_go=ground.recorder.listen(take))
