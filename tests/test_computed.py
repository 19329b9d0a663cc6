"""What the edge computes, through a real recorder and spool: treated readings, and records of its own."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from bega.clock import mono_ms
from bega.outbox.spool import Head, Spool
from bega_gateway import config as settings
from bega_gateway.build import Clocks, Ground
from bega_gateway.computed import computed
from bega_gateway.edge import tables as edge_tables
from bega_gateway.health import Health
from bega_gateway.lines.node_said import Nodes
from bega_gateway.recorder import Recorder
from bega_gateway.reload import plan
from bega_protocols import senml
from bega_protocols.reading import GOOD, SUSPECT, Reading
from bega_protocols.record import SYNCHRONISED, Record

QUARTER_MS, HOUR_MS = 900_000, 3_600_000
START_MS = round(datetime(2026, 11, 20, 0, 0, tzinfo=ZoneInfo("Europe/Bucharest")).timestamp()) * 1000

FILE = """
[gateway]
name = "gw-1"
city = "timisoara"
time_zone = "Europe/Bucharest"
[uplink]
brokers = ["mqtt://localhost"]
[lines.nodes]
kind = "mqtt"
broker = "mqtt://localhost"
[nodes.air-1]
line = "nodes"
audience = "public"
[lines.p1]
kind = "serial"
port = "/dev/p1"
[devices.home]
line = "p1"
driver = "dsmr_p1"
audience = "personal"
[lines.pms]
kind = "serial"
port = "/dev/pms"
[devices.street]
line = "pms"
driver = "pms5003"
audience = "public"
"""


class Meter:
    """What a driver tells of its meter."""

    def __init__(self, serial: str) -> None:
        self.attributes = {"serial_number": serial}


def configuration(tmp_path, text):
    path = tmp_path / "gateway.toml"
    path.write_text(FILE + text)
    config, problems = settings.examine(path)
    assert not problems
    return config


def complaints(tmp_path, text):
    path = tmp_path / "gateway.toml"
    path.write_text(FILE + text)
    return [problem.partition(": ")[2] for problem in settings.examine(path)[1]]


@asynccontextmanager
async def running(tmp_path, config, states=None):
    """A recorder with every computed part of `config` behind it."""
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.open(tmp_path / "spool.db", executor, window_s=0.0)
        recorder = Recorder(config, 1_790_000_000, spool, None)
        ground = Ground(Clocks(lambda: START_MS, mono_ms), 1, spool, None, recorder, Health(mono_ms), Nodes(mono_ms))
        tasks = [asyncio.create_task(spool.run())]
        kept = await spool.driver_states()
        for section, rows in config.edge.items():
            for name, table in rows.items():
                if not isinstance(table, settings.Treated):
                    part = await computed(ground, config, f"{section}.{name}", kept.get(name, b""))
                    tasks += [asyncio.create_task(work()) for _, work in part.works]
        records = []
        recorder.listen(lambda record, arrival_ms, simulated: records.append(record))
        try:
            yield recorder, records
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await spool.close()


async def settle():
    for _ in range(30):
        await asyncio.sleep(0)


def of(records, device):
    return [record for record in records if record.device == device]


def readings_of(records, device):
    return [list(record.readings) for record in of(records, device)]


TOTALS = """
[totals.home-15min]
input = "home"
quantities = ["active_energy_import"]
wraps_at = 1000000
"""


def test_totals_are_records_of_their_own_and_go_on_after_a_restart(tmp_path):
    config = configuration(tmp_path, TOTALS)

    async def read(minutes):
        async with running(tmp_path, config) as (recorder, records):
            for minute in minutes:
                reading = Reading("active_energy_import", 1000 + minute, -3, "t1")
                await recorder.record("home", [[reading]], START_MS + minute * 60_000, keeps=Meter("7"))
                await settle()
            return records

    first = asyncio.run(read(range(0, 40, 5)))
    second = asyncio.run(read(range(40, 65, 5)))
    given = of(first, "home-15min") + of(second, "home-15min")
    assert [record.time_ms for record in given] == [START_MS + n * QUARTER_MS for n in (1, 2, 3, 4)]
    for record in given:
        assert list(record.readings) == [
            Reading("coverage", 15),
            Reading("active_energy_import_15min", 15, -3, "t1"),
        ]


def test_another_meter_is_told_by_its_number(tmp_path):
    config = configuration(tmp_path, TOTALS)

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for minute, value, serial in ((0, 500, "a"), (5, 505, "a"), (10, 600, "b"), (15, 610, "b")):
                reading = Reading("active_energy_import", value, 0)
                await recorder.record("home", [[reading]], START_MS + minute * 60_000, keeps=Meter(serial))
                await settle()
            return readings_of(records, "home-15min")

    assert asyncio.run(read()) == [[Reading("coverage", 10), Reading("active_energy_import_15min", 15, 0, "", SUSPECT)]]


def test_what_is_computed_of_a_household_is_a_households(tmp_path):
    config = configuration(tmp_path, TOTALS + '[means.street-1h]\ninput = "street"\nquantities = ["pm2_5"]\n')
    assert config.audience_of("gw-1", "home-15min") == "personal"
    assert config.audience_of("gw-1", "street-1h") == "public"


CHAIN = """
[totals.feed]
input = "air-1/feed"
quantities = ["water_volume"]
[totals.house]
input = "air-1/house"
quantities = ["water_volume"]
[balances.zone]
feeds = ["feed"]
consumers = ["house"]
quantity = "water_volume_15min"
class_percent = 1
[night_flows.zone-night]
input = "feed"
legitimate_m3_per_hour = 0.1
[alarms.leak]
input = "zone-night"
quantity = "net_night_flow"
above = 0.5
clear = 0.25
label = "water is lost in the zone"
"""


def test_totals_make_a_balance_a_night_flow_and_an_alarm(tmp_path):
    """A day in which the zone loses 0.2 m3 in each quarter-hour: five times 1 % of what the meters say."""
    config = configuration(tmp_path, CHAIN)

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for quarter in range(0, 25):
                time_ms = START_MS + quarter * QUARTER_MS
                for device, step in (("feed", 1200), ("house", 1000)):
                    reading = Reading("water_volume", quarter * step, -3)
                    await feed_node(recorder, device, quarter + 1, reading, time_ms)
                    await settle()
            return records

    records = asyncio.run(read())
    losses = readings_of(records, "zone")
    assert len(losses) == 24
    assert losses[0][0] == Reading("water_volume_15min_loss", 200, -3)
    assert losses[0][1].quantity == "water_volume_15min_loss_uncertainty" and losses[0][1].value == 15620
    assert losses[0][2] == Reading("loss_percent", 1667, -2)
    [night] = of(records, "zone-night")
    assert night.time_ms == START_MS + 4 * HOUR_MS
    assert list(night.readings) == [
        Reading("minimum_night_flow", 4_800_000, -6),
        Reading("net_night_flow", 4_700_000, -6),
    ]
    assert readings_of(records, "leak") == [[Reading("alarm", 1), Reading("net_night_flow", 4_700_000, -6)]]


HEAT = """
[totals.plant]
input = "air-1/plant"
quantities = ["heat_energy"]
period = "hour"
[totals.block]
input = "air-1/block"
quantities = ["heat_energy"]
period = "hour"
[efficiencies.heat]
produced = ["plant"]
delivered = ["block"]
quantity = "heat_energy_1h"
class_percent = 1
"""


async def heat_of(tmp_path, config, hours, left_out=()):
    """(plant, block) MJ in each hour, read every quarter of an hour but in the quarters that are left out."""
    async with running(tmp_path, config) as (recorder, records):
        counted = {"plant": 0, "block": 0}
        for quarter in range(4 * len(hours) + 1):
            if quarter not in left_out:
                time_ms = START_MS + quarter * QUARTER_MS
                for device, mj in counted.items():
                    await feed_node(recorder, device, quarter + 1, Reading("heat_energy", mj * 250, 3), time_ms)
                    await settle()
            for device, mj in zip(counted, hours[min(quarter // 4, len(hours) - 1)], strict=True):
                counted[device] += mj
        return readings_of(records, "heat")


def test_heat_produced_over_heat_delivered_says_what_it_rests_on(tmp_path):
    config = configuration(tmp_path, HEAT)
    [first, second] = asyncio.run(heat_of(tmp_path, config, [(400, 320), (400, 300)], left_out=(1, 2, 3)))
    assert first == [
        Reading("coverage", 0),
        Reading("produced_over_delivered", 12500, -4, quality=SUSPECT),
        Reading("efficiency_percent", 8000, -2, quality=SUSPECT),
        Reading("efficiency_percent_uncertainty", 113, -2, quality=SUSPECT),
    ]
    assert second[:2] == [Reading("coverage", 60), Reading("produced_over_delivered", 13333, -4)]


def test_more_heat_delivered_than_produced_is_doubted_and_none_has_no_quotient(tmp_path):
    config = configuration(tmp_path, HEAT)
    hours = asyncio.run(heat_of(tmp_path, config, [(400, 402), (400, 420), (400, 0), (0, 0), (0, 4)]))
    assert [
        {reading.quantity: reading.quality for reading in readings if reading.quantity != "coverage"}
        for readings in hours
    ] == [
        {"produced_over_delivered": GOOD, "efficiency_percent": GOOD, "efficiency_percent_uncertainty": GOOD},
        {"produced_over_delivered": SUSPECT, "efficiency_percent": SUSPECT, "efficiency_percent_uncertainty": SUSPECT},
        {"efficiency_percent": GOOD, "efficiency_percent_uncertainty": GOOD},
        {},
        {"produced_over_delivered": SUSPECT},
    ]


async def feed_node(recorder, device, seq, reading, time_ms):
    record = Record("air-1", 5, seq, device, time_ms, SYNCHRONISED, [reading])
    stored = recorder.record_of_node(record, senml.encode(record), Head("air-1", 5, seq), time_ms)
    await stored


def test_an_alarm_that_was_raised_is_not_raised_again_after_a_restart(tmp_path):
    config = configuration(tmp_path, '[alarms.dust]\ninput = "street"\nquantity = "pm2_5"\nabove = 50\nclear = 40\n')

    async def read(values):
        async with running(tmp_path, config) as (recorder, records):
            for minute, value in enumerate(values):
                await recorder.record("street", [[Reading("pm2_5", value)]], START_MS + minute * 60_000)
                await settle()
            return readings_of(records, "dust")

    assert asyncio.run(read([10, 60, 70])) == [[Reading("alarm", 1), Reading("pm2_5", 60)]]
    assert asyncio.run(read([70, 45, 39])) == [[Reading("alarm", 0), Reading("pm2_5", 39)]]


def test_means_say_least_and_most_and_what_they_rest_on(tmp_path):
    config = configuration(tmp_path, '[means.street-1h]\ninput = "street"\nquantities = ["pm2_5"]\n')

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for minute in range(0, 61):
                await recorder.record("street", [[Reading("pm2_5", minute)]], START_MS + minute * 60_000)
                await settle()
            return records

    [record] = of(asyncio.run(read()), "street-1h")
    assert record.time_ms == START_MS + HOUR_MS
    assert list(record.readings) == [
        Reading("coverage", 60),
        Reading("pm2_5_mean_1h", 29500, -3),
        Reading("pm2_5_min_1h", 0, -3),
        Reading("pm2_5_max_1h", 59000, -3),
    ]


CORRECTED = """
[corrections.dry]
input = "street"
quantity = "pm2_5"
formula = "kappa_koehler"
kappa = 0.4
humidity_from = "air-1/sht"
[corrections.offset]
input = "street"
quantity = "pm10"
slope = 0.92
offset = -1.5
[limits.street]
input = "street"
quantity = "pm10"
most = 900
"""


def test_a_corrected_value_stands_beside_the_raw_one(tmp_path):
    config = configuration(tmp_path, CORRECTED)

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            await recorder.record("street", [[Reading("pm2_5", 100), Reading("pm10", 12)]], START_MS)
            await feed_node(recorder, "sht", 1, Reading("humidity", 900, -1), START_MS)
            await recorder.record("street", [[Reading("pm2_5", 100), Reading("pm10", 950)]], START_MS + 60_000)
            await recorder.record("street", [[Reading("pm2_5", 100)]], START_MS + HOUR_MS)
            return readings_of(records, "street")

    assert asyncio.run(read()) == [
        [Reading("pm2_5", 100), Reading("pm10", 12), Reading("pm10_corrected", 95, -1)],
        [
            Reading("pm2_5", 100),
            Reading("pm10", 950, 0, "", SUSPECT),
            Reading("pm2_5_corrected", 314, -1),
            Reading("pm10_corrected", 8725, -1, "", SUSPECT),
        ],
        [Reading("pm2_5", 100)],
    ]


def test_a_nodes_record_keeps_its_number_when_a_value_is_corrected(tmp_path):
    config = configuration(
        tmp_path, '[corrections.warm]\ninput = "air-1/sht"\nquantity = "temperature"\noffset = -0.5\n'
    )

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            await feed_node(recorder, "sht", 3, Reading("temperature", 2150, -2), START_MS)
            batch = await recorder._spool.take(0, 10)
            return records, [json.loads(row.payload) for row in batch]

    records, _ = asyncio.run(read())
    assert (records[0].source, records[0].boot, records[0].seq) == ("air-1", 5, 3)
    assert list(records[0].readings) == [
        Reading("temperature", 2150, -2),
        Reading("temperature_corrected", 2100, -2),
    ]


def test_what_stands_still_is_left_out_but_for_a_sign_of_life(tmp_path):
    config = configuration(
        tmp_path, '[bands.street]\ninput = "street"\nquantity = "pm2_5"\nwidth = 2\nlongest_s = 600\n'
    )

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for minute in range(21):
                await recorder.record("street", [[Reading("pm2_5", 10 + minute % 2)]], START_MS + minute * 60_000)
            return [(record.time_ms - START_MS) // 60_000 for record in of(records, "street")]

    assert asyncio.run(read()) == [0, 10, 20]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[totals.x]\ninput = "nobody"\nquantities = ["gas_volume"]\n', "there is no device 'nobody'"),
        ('[totals.x]\ninput = "home"\nquantities = ["luck"]\n', "there is no quantity 'luck'"),
        ('[totals.home]\ninput = "home"\nquantities = ["gas_volume"]\n', "a device has this name"),
        ('[alarms.x]\ninput = "home"\nquantity = "voltage"\n', "say `above` or `below`"),
        ('[alarms.x]\ninput = "home"\nquantity = "voltage"\nabove = 5\nclear = 6\n', "must not be more than `above`"),
        ('[corrections.x]\ninput = "street"\nquantity = "pm10"\nformula = "barkjohn_2021"\n', "pm2_5 alone"),
        ('[bands.x]\ninput = "air-1/pms"\nquantity = "pm10"\nwidth = 1\n', "kept whole"),
        ('[night_flows.x]\ninput = "home"\nquantity = "gas_volume_1h"\n', "quarter-hourly"),
        ('[balances.x]\nfeeds = ["home"]\nconsumers = []\nquantity = "gas_volume_1h"\n', "at least one of"),
        (
            '[alarms.a]\ninput = "b"\nquantity = "alarm"\nabove = 1\n'
            '[alarms.b]\ninput = "a"\nquantity = "alarm"\nabove = 1\n',
            "computes from itself",
        ),
        (
            '[means.x]\ninput = "home"\nquantities = ["voltage"]\n'
            '[alarms.x]\ninput = "home"\nquantity = "voltage"\nabove = 5\n',
            "has this name",
        ),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path, text, said):
    assert any(said in complaint for complaint in complaints(tmp_path, text)), complaints(tmp_path, text)


def test_a_time_zone_that_is_none_is_told(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(FILE.replace("Europe/Bucharest", "Europe/Timisoara"))
    assert "there is no time zone 'Europe/Timisoara'" in settings.examine(path)[1][0]


async def late_of_node(recorder, device, seq, reading, time_ms, arrival_ms):
    record = Record("air-1", 5, seq, device, time_ms, SYNCHRONISED, [reading])
    await recorder.record_of_node(record, senml.encode(record), Head("air-1", 5, seq), arrival_ms)
    await settle()


def test_a_node_whose_clock_is_ahead_ends_no_interval_before_its_time(tmp_path):
    config = configuration(tmp_path, '[totals.feed]\ninput = "air-1/feed"\nquantities = ["water_volume"]\n')

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for minute in range(0, 31, 5):
                now_ms = START_MS + minute * 60_000
                ahead_ms = 74 * 365 * 24 * HOUR_MS if minute == 10 else 0
                reading = Reading("water_volume", minute)
                await late_of_node(recorder, "feed", minute + 1, reading, now_ms + ahead_ms, now_ms)
            return readings_of(records, "feed")[-2:], len(of(records, "feed"))

    last, count = asyncio.run(read())
    assert last[-1] == [Reading("coverage", 15), Reading("water_volume_15min", 15)]
    assert count == 7 + 2, "the node's own records, and two quarter-hours"


def test_before_the_clock_is_set_only_alarms_are_computed(tmp_path):
    alarm = '[alarms.high]\ninput = "home"\nquantity = "active_energy_import"\nabove = 5\n'
    config = configuration(tmp_path, TOTALS + alarm)

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for time_ms, value in ((1000, 10), (2000, 11), (START_MS, 12), (START_MS + QUARTER_MS, 13)):
                await recorder.record("home", [[Reading("active_energy_import", value)]], time_ms)
                await settle()
            return records

    records = asyncio.run(read())
    assert readings_of(records, "high") == [[Reading("alarm", 1), Reading("active_energy_import", 10)]]
    assert readings_of(records, "home-15min") == [[Reading("coverage", 15), Reading("active_energy_import_15min", 1)]]


def test_what_a_node_brings_late_ends_no_alarm_of_now(tmp_path):
    config = configuration(tmp_path, '[alarms.dust]\ninput = "air-1/pms"\nquantity = "pm2_5"\nabove = 50\n')

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            await late_of_node(recorder, "pms", 9, Reading("pm2_5", 60), START_MS, START_MS)
            await late_of_node(recorder, "pms", 1, Reading("pm2_5", 5), START_MS - 3 * HOUR_MS, START_MS + 1000)
            await late_of_node(recorder, "pms", 10, Reading("pm2_5", 5), START_MS + 60_000, START_MS + 61_000)
            return [(record.time_ms, record.readings[0].value) for record in of(records, "dust")]

    assert asyncio.run(read()) == [(START_MS, 1), (START_MS + 60_000, 0)]


def test_a_fault_in_a_calculation_is_not_one_of_the_line_that_reads(tmp_path, monkeypatch):
    config = configuration(tmp_path, TOTALS)

    def fail(*_):
        raise ZeroDivisionError

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            recorder_part = await computed(
                Ground(Clocks(lambda: START_MS, mono_ms), 1, None, None, recorder, Health(mono_ms), Nodes(mono_ms)),
                config,
                "totals.home-15min",
                b"",
            )
            await recorder.record("home", [[Reading("active_energy_import", 1)]], START_MS)
            [(_, work)] = recorder_part.works
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(work(), 5)
            return readings_of(records, "home")

    monkeypatch.setattr("bega_gateway.edge.derive.IntervalTotals.take", fail)
    assert asyncio.run(read()) == [[Reading("active_energy_import", 1)]]


def test_a_part_that_was_let_go_hears_nothing_more(tmp_path):
    config = configuration(tmp_path, "")
    heard = []

    async def read():
        async with running(tmp_path, config) as (recorder, _):
            end = recorder.listen(lambda record, *_: heard.append(record.device), [("gw-1", "home"), ("gw-1", "home")])
            for device in ("home", "street"):
                await recorder.record(device, [[Reading("pm2_5", 1)]], START_MS)
            end()
            await recorder.record("home", [[Reading("pm2_5", 1)]], START_MS)

    asyncio.run(read())
    assert heard == ["home"]


def test_a_sensor_that_is_read_every_five_minutes_has_a_whole_hour(tmp_path):
    text = FILE.replace('driver = "pms5003"', 'driver = "pms5003"\nevery_s = 300')
    path = tmp_path / "gateway.toml"
    path.write_text(text + '[means.street-1h]\ninput = "street"\nquantities = ["pm2_5"]\n')
    config, problems = settings.examine(path)
    assert not problems

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for minute in range(0, 121, 5):
                if not 60 <= minute < 80:
                    await recorder.record("street", [[Reading("pm2_5", 8)]], START_MS + minute * 60_000)
            await settle()
            return readings_of(records, "street-1h")

    whole, broken = asyncio.run(read())
    assert whole[:2] == [Reading("coverage", 60), Reading("pm2_5_mean_1h", 8000, -3)]
    assert broken[:2] == [Reading("coverage", 40), Reading("pm2_5_mean_1h", 8000, -3, "", SUSPECT)]


@pytest.mark.parametrize(
    ("device", "table", "every_min", "coverage"),
    [
        ("every_s = 600", "", 10, 60),
        ("every_s = 60", "sample_every_s = 600", 10, 60),
        ("every_s = 90", "", 1.5, 60),
        ("every_s = 600", "", 15, 40),  # as slow as that, and called a ten-minute sensor: a third is missing
        ("every_s = 3600", "", 30, 30),  # a sample stands for a quarter of an hour at most
        ("every_s = 60", "", 10, 6),
    ],
)
def test_the_index_of_a_slow_sensor_rests_on_what_its_samples_stand_for(tmp_path, device, table, every_min, coverage):
    text = FILE.replace('driver = "pms5003"', f'driver = "pms5003"\n{device}')
    index = f'[air_index.air]\ninputs = ["street"]\nus_aqi = true\nevery_s = 0.01\n{table}\n'
    (tmp_path / "gateway.toml").write_text(text + index)
    config, problems = settings.examine(tmp_path / "gateway.toml")
    assert not problems

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for step in range(round(180 / every_min)):
                time_ms = START_MS - round(step * every_min * 60_000)
                await recorder.record("street", [[Reading("pm2_5", 8)]], time_ms)
            await asyncio.sleep(0.1)
            return {reading.quantity: reading.value for reading in readings_of(records, "air")[-1]}

    told = asyncio.run(read())
    enough = {"pm_index": 2, "pm2_5_mean_1h": 80, "us_aqi": 44}
    assert told == {"coverage": coverage, **(enough if coverage >= 45 else {})}


def test_a_sample_stands_for_a_quarter_of_an_hour_at_most(tmp_path):
    told = complaints(tmp_path, '[air_index.air]\ninputs = ["street"]\nsample_every_s = 1800\n')
    assert len(told) == 1 and "sample_every_s" in told[0], told


def test_a_full_spool_drops_no_alarm(tmp_path):
    config = configuration(tmp_path, '[alarms.dust]\ninput = "street"\nquantity = "pm2_5"\nabove = 50\n')
    assert config.storage_class_of("gw-1", "dust") == "alarm"
    assert config.storage_class_of("gw-1", "street") == "routine"
    assert config.storage_class_of("air-1", "dust") == "routine"


EFFICIENCY = '[totals.a]\ninput = "home"\nquantities = ["gas_volume"]\n[efficiencies.x]\nproduced = ["a"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("delivered = []\n", "at least one of `produced`"),
        ('delivered = ["gw-1/a"]\n', "is there twice"),
        ('delivered = ["home"]\nquantities = { b = "gas_volume_1d" }\n', "b is neither produced nor delivered"),
        ('delivered = ["home"]\nquantities = { a = "gas_volume_1d" }\n', "how much energy is in a cubic metre"),
        ('delivered = ["home"]\nkwh_per_m3 = 10\n', "no meter here counts gas_volume"),
        ('delivered = ["home"]\nquantities = { a = "active_energy_import_1h" }\n', "of the same period"),
        ('delivered = ["home"]\nquantity = "water_volume_1h"\n', "water_volume_1h is no energy"),
        ('delivered = ["home"]\nquantity = "heat_energy"\n', "heat_energy is no total"),
    ],
)
def test_an_efficiency_that_makes_no_sense_is_told(tmp_path, text, said):
    told = complaints(tmp_path, EFFICIENCY + text)
    assert [complaint for complaint in told if said in complaint] and len(told) == 1, told


BALANCE = '[totals.a]\ninput = "home"\nquantities = ["gas_volume"]\n[balances.x]\nquantity = "gas_volume_15min"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[alarms.x]\ninput = "home"\nquantity = "voltage"\nabove = nan\n', "neither inf nor nan"),
        ('[corrections.x]\ninput = "street"\nquantity = "pm10"\nslope = inf\n', "neither inf nor nan"),
        (BALANCE + 'feeds = ["a"]\nconsumers = ["home"]\nclasses = { a = inf }\n', "neither inf nor nan"),
        (BALANCE + 'feeds = ["a"]\nconsumers = ["home"]\nclasses = { a = -2 }\n', "a must be from 0 to 100"),
        (EFFICIENCY + 'delivered = ["home"]\nclasses = { home = 300 }\n', "home must be from 0 to 100"),
        (BALANCE + 'feeds = ["a"]\nconsumers = ["a"]\n', "a is there twice"),
        ('[totals.x]\ninput = "home"\nquantities = ["gas_volume"]\nwraps_at = 0\n', "wraps_at"),
        ('[limits.x]\ninput = "home"\nquantity = "voltage"\nleast = 260\nmost = 180\n', "must not be more than `most`"),
        (
            '[corrections.x]\ninput = "street"\nquantity = "temperature"\nformula = "kappa_koehler"\n',
            "for particulates alone",
        ),
        (
            '[corrections.x]\ninput = "street"\nquantity = "pm2_5"\nformula = "barkjohn_2021"\n'
            'humidity_from = "home"\n',
            "is personal, and what street says is public",
        ),
    ],
)
def test_what_would_give_wrong_figures_or_tell_of_a_household_is_told(tmp_path, text, said):
    assert any(said in complaint for complaint in complaints(tmp_path, text)), complaints(tmp_path, text)


EDGE = Path(__file__).parent.parent / "gateway/examples/edge.toml"


def test_the_example_that_a_newcomer_copies_gives_a_record_of_each_of_its_calculations(tmp_path):
    """Thirteen hours of its meters and its node: each figure follows from what was put in."""
    config, problems = settings.examine(EDGE)
    assert not problems
    assert set(config.edge) == set(edge_tables.EDGE), "each table is shown"
    flows = {"zone-feed": 125, "house-1": 25, "house-2": 25}  # litres in five minutes: 0.9 m3 are lost in an hour
    heat = {"plant": 9_540_000, "block-3": 7_632_000}  # J in five minutes, of 300 l of gas

    async def read():
        async with running(tmp_path, config) as (recorder, records):
            for step in range(13 * 12 + 1):
                time_ms = START_MS + step * 300_000
                for device, litres in flows.items():
                    rows = [Reading("water_volume", step * litres, -3), Reading("flow_temperature", 80, -1)]
                    await recorder.record(device, [rows], time_ms)
                for device, joules in heat.items():
                    await recorder.record(device, [[Reading("heat_energy", step * joules)]], time_ms)
                await recorder.record("plant-gas", [[Reading("gas_volume", step * 300, -3)]], time_ms)
                for minute in range(5):
                    number, at_ms = 10 * step + 2 * minute + 1, time_ms + minute * 60_000
                    dust = 60 if 100 <= step < 130 else 10
                    for device, reading in (("sht", Reading("humidity", 80)), ("pms", Reading("pm2_5", dust))):
                        record = Record("street", 5, number + (device == "pms"), device, at_ms, SYNCHRONISED, [reading])
                        head = Head("street", 5, record.seq)
                        await recorder.record_of_node(record, senml.encode(record), head, at_ms)
                await settle()
            return records

    records = asyncio.run(read())
    silent = [name for name in config.computed() if not of(records, name)]
    assert silent == []
    [night] = readings_of(records, "zone-night")
    assert night == [Reading("minimum_night_flow", 1_500_000, -6), Reading("net_night_flow", 1_450_000, -6)]
    assert readings_of(records, "zone-loss")[0][0] == Reading("water_volume_15min_loss", 225, -3)
    assert {reading.quantity: (reading.value, reading.quality) for reading in readings_of(records, "heat")[0]} == {
        "coverage": (60, GOOD),
        "produced_over_delivered": (12500, GOOD),
        "efficiency_percent": (8000, GOOD),
        "efficiency_percent_uncertainty": (339, GOOD),  # 80 x the root of 3 % and 3 %, squared
    }
    # 9.54 MJ of 300 l at 10.6 kW.h/m3
    assert readings_of(records, "boilers")[0][2] == Reading("efficiency_percent", 8333, -2)
    raised, cleared = of(records, "bad-air")
    assert (raised.time_ms - START_MS) // 60_000 == 100 * 5 + 10
    assert (cleared.time_ms - START_MS) // 60_000 == 130 * 5 + 30
    temperatures = [row for record in of(records, "zone-feed") for row in record.readings if row.value == 80]
    assert len(temperatures) == 14, "once an hour, as it stands still"
    # (0.95 x 10 + 0.3) / (1 + 0.4 / 1.65 x 80 / 20)
    assert Reading("pm2_5_corrected", 50, -1) in of(records, "pms")[0].readings


def test_what_is_made_of_samples_begins_anew_when_its_device_is_read_at_another_pace(tmp_path):
    mean = '[means.street-1h]\ninput = "street"\nquantities = ["pm2_5"]\n' + TOTALS
    mean += '[air_index.air]\ninputs = ["street"]\n'
    before = configuration(tmp_path, mean)
    slower = msgspec.structs.replace(before.devices["street"], every_s=300.0)
    after = msgspec.structs.replace(before, devices={**before.devices, "street": slower})
    assert plan(before, before).begin == []
    assert set(plan(before, after).begin) == {"lines.pms", "means.street-1h", "air_index.air"}
