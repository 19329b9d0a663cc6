"""A day of the town on which a pipe breaks and the air stands still: what the edge makes of it, minute by minute.

The readings go through a real recorder, spool and the parts of a configuration; only the time is not the real one.
BEGA_DRAW=1 draws the picture in docs/ anew.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from bega.clock import mono_ms
from bega.outbox.spool import Spool
from bega_gateway import config as settings
from bega_gateway.build import Clocks, Ground
from bega_gateway.computed import computed
from bega_gateway.health import Health
from bega_gateway.lines.node_said import Nodes
from bega_gateway.recorder import Recorder
from bega_protocols.reading import Reading
from bega_simulators.bench.plots import Series, plot
from bega_simulators.demand import Leak
from bega_simulators.town import Town
from bega_simulators.weather import StillAir

PICTURE = Path(__file__).parent.parent / "docs/edge-day.svg"
SEED = 7
DAY_MINUTES = 1440

FILE = """
[gateway]
name = "gw-1"
city = "timisoara"
time_zone = "Europe/Bucharest"
[uplink]
brokers = ["mqtt://localhost"]
[lines.chamber]
kind = "mbus"
port = "/dev/chamber"
[devices.zone]
line = "chamber"
driver = "mbus_meter"
settings = { address = 1 }
[lines.pms]
kind = "serial"
port = "/dev/pms"
[devices.street]
line = "pms"
driver = "pms5003"
[totals.zone-15min]
input = "zone"
quantities = ["water_volume"]
[night_flows.zone-night]
input = "zone-15min"
legitimate_m3_per_hour = 2.8      # the most of ten nights of the town, in which nothing was broken
[alarms.leak]
input = "zone-night"
quantity = "net_night_flow"
above = 0.5
clear = 0.25
[alarms.bad-air]
input = "street"
quantity = "pm2_5"
above = 50
clear = 40
for_s = 600
clear_for_s = 1800
"""


def at_s(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Bucharest")).timestamp()


START_S = at_s("2026-11-24 00:00")
LEAK = Leak(at_s("2026-11-24 00:37"), at_s("2026-11-24 14:20"), 1.4)
STILL_AIR = StillAir(at_s("2026-11-24 05:30"), at_s("2026-11-24 11:00"), 3.5)


class Told(NamedTuple):
    """An alarm's record, in minutes from midnight: when the gateway gave it, and the time that it has."""

    given: int
    time: int
    name: str
    is_raised: bool
    value: float


async def day(directory: Path, town: Town, minutes: int) -> list[Told]:
    """Return what the alarms said of a day on which water is read each 5 minutes and dust each minute."""
    path = directory / "gateway.toml"
    path.write_text(FILE)
    config = settings.load(path)
    told: list[Told] = []
    minute = 0
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.open(directory / "spool.db", executor, window_s=0.05)
        recorder = Recorder(config, 1_795_000_000, spool, None)
        ground = Ground(Clocks(lambda: 0, mono_ms), 1, spool, None, recorder, Health(mono_ms), Nodes(mono_ms))
        tasks = [asyncio.create_task(spool.run())]
        for section, rows in config.edge.items():
            for name in rows:
                part = await computed(ground, config, f"{section}.{name}", b"")
                tasks += [asyncio.create_task(work()) for _, work in part.works]

        def hear(record, arrival_ms, simulated):
            if record.device in config.edge["alarms"]:
                state, value = record.readings
                time = round(record.time_ms / 1000 - START_S) // 60
                told.append(Told(minute, time, record.device, bool(state.value), value.value * 10.0**value.exp10))

        recorder.listen(hear)
        try:
            for minute in range(minutes):
                wall_ms = round(1000 * (START_S + 60 * minute))
                if minute % 5 == 0:
                    litres = round(1000 * town.readings("substation", START_S + 60 * minute)["water_volume", ""])
                    await recorder.record("zone", [[Reading("water_volume", litres, -3)]], wall_ms)
                await recorder.record("street", [[Reading("pm2_5", dust(town, minute))]], wall_ms)
                for _ in range(20):
                    await asyncio.sleep(0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await spool.close()
    return told


def dust(town: Town, minute: int) -> int:
    return round(town.readings("roadside", START_S + 60 * minute)["pm2_5", ""])


def first_minute(values: list[int], after: int, hold: int, wanted, broken) -> int:
    """Return the first minute whose value is wanted, since a wanted one at least `hold` before, none broken between."""
    for minute in range(after, len(values)):
        for since in range(after, minute - hold + 1):
            if wanted(values[since]) and wanted(values[minute]) and not any(map(broken, values[since : minute + 1])):
                return minute
    raise AssertionError("never")


def test_a_leak_is_told_in_the_morning_and_bad_air_ten_minutes_after_it_came(tmp_path):
    town = Town(SEED, LEAK, STILL_AIR)
    told = asyncio.run(day(tmp_path, town, DAY_MINUTES + 300))
    values = [dust(town, minute) for minute in range(DAY_MINUTES)]
    came = first_minute(values, 0, 10, lambda value: value >= 50, lambda value: value < 40)
    went = first_minute(values, came + 1, 30, lambda value: value < 40, lambda value: value >= 50)
    assert [row[:4] for row in told] == [
        (255, 240, "leak", True),  # the night ends at 04:00, and the first quarter after it at 04:15
        (came, came, "bad-air", True),
        (went, went, "bad-air", False),
        (DAY_MINUTES + 255, DAY_MINUTES + 240, "leak", False),
    ]
    healthy = [Town(SEED).readings("substation", START_S + 7200 + 900 * n)["water_volume", ""] for n in range(9)]
    least = min(later - earlier for earlier, later in zip(healthy, healthy[4:], strict=False))
    assert told[0].value == pytest.approx(least + 1.4 - 2.8, abs=0.01)
    picture = drawn(town, told)
    if os.environ.get("BEGA_DRAW"):
        PICTURE.write_text(picture, encoding="utf-8")
    assert PICTURE.read_text(encoding="utf-8") == picture, "docs/ shows another day: BEGA_DRAW=1 draws it anew"


def test_an_ordinary_day_raises_no_alarm(tmp_path):
    assert asyncio.run(day(tmp_path, Town(SEED), DAY_MINUTES + 300)) == []


def drawn(town: Town, told: list[Told]) -> str:
    """Return the day as SVG: dust, flow, and each alarm as long as it lasts."""
    hours = [minute / 60 for minute in range(0, DAY_MINUTES, 5)]
    volumes = [town.readings("substation", START_S + 3600 * hour)["water_volume", ""] for hour in [*hours, 24.0]]
    flow = [later - earlier for earlier, later in zip(volumes, volumes[3:], strict=False)]  # in a quarter of an hour
    lines = [
        Series("PM2.5, ug/m3", [(hour, float(dust(town, round(60 * hour)))) for hour in hours]),
        Series(
            "water, 0.1 m3/h",
            [(hour + 0.25, 40 * amount) for hour, amount in zip(hours, flow, strict=False)],
        ),
    ]
    for name, height in (("leak", 85.0), ("bad-air", 80.0)):
        begin, end = (
            next((row.given / 60 for row in told if row.name == name and row.is_raised is state), 24.0)
            for state in (True, False)
        )
        end = min(end, 24.0)
        lines.append(Series(f"alarm: {name}", [(begin, 0.0), (begin, height), (end, height), (end, 0.0)]))
    return plot("A day with a leak and an inversion", lines, "hour of the day", "ug/m3, 0.1 m3/h")
