"""A wall clock that was never set, or steps: nothing is lost, nothing comes twice, and no order hangs on it.

The gateway runs whole, on a real broker and a serial port, with a clock of the test's in the place that main gives it.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

from bega.clock import CLOCK_FLOOR_MS, mono_ms
from bega_gateway import app
from bega_gateway import config as settings
from bega_gateway.control import Origin
from bega_protocols.record import SYNCHRONISED, UNKNOWN

CONFIGURATION = """
[gateway]
name = "gw"
city = "timisoara"
state_dir = "{state}"
commit_window_s = 0.05

[uplink]
brokers = ["{broker}"]

[feed]
listen = "127.0.0.1:0"

[lines.pms]
kind = "serial"
port = "{port}"

[devices.air]
line = "pms"
driver = "pms5003"
every_s = 0.05
audience = "public"
"""
HOUR_MS = 3_600_000
TODAY_MS = CLOCK_FLOOR_MS + 30 * 24 * HOUR_MS


class WallClock:
    """Runs beside the monotonic clock, from wherever it was set."""

    def __init__(self, shows_ms: int) -> None:
        self.set(shows_ms)

    def set(self, shows_ms: int) -> None:
        self._ahead_ms = shows_ms - mono_ms()

    def step(self, by_ms: int) -> None:
        self._ahead_ms += by_ms

    def __call__(self) -> int:
        return mono_ms() + self._ahead_ms


@contextlib.asynccontextmanager
async def gateway(directory: Path, broker: str, port: str, wall: WallClock):
    file = directory / "gateway.toml"
    file.write_text(CONFIGURATION.format(state=directory / "state", broker=broker, port=port))
    stop = asyncio.Event()
    clocks = app.Clocks(wall, mono_ms)
    running = asyncio.create_task(
        app.run(
            settings.load(file),
            app.Source(Origin(str(file), []), lambda: settings.examine(file)),
            clocks,
            directory / "ready",
            stop,
        )
    )
    try:
        yield
    finally:
        stop.set()
        await running


async def until(holds: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - the reader has a thread of its own
            await asyncio.sleep(0.02)
    assert holds(), what


def in_order(records) -> list:
    return sorted(records, key=lambda record: (record.boot, record.seq))


def assert_none_lost_none_doubled(records) -> None:
    """Each seq from 1 on, once, at each boot; and the sensor's own numbers rise with them."""
    for _, of_boot in itertools.groupby(in_order(records), key=lambda record: record.boot):
        records = list(of_boot)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        numbers = [record.readings[1].value for record in records]
        assert numbers == sorted(set(numbers))


def test_with_a_clock_at_1970_all_is_sent_without_a_time_and_with_one_once_it_is_set(
    mosquitto, make_reader, sensor, tmp_path
):
    reader = make_reader(mosquitto.url)
    wall = WallClock(5_000)

    async def work():
        async with gateway(tmp_path, mosquitto.url, sensor.port, wall):
            await until(lambda: len(reader.records) >= 10, "records come without a time")
            wall.set(TODAY_MS)
            await until(lambda: sum(record.time_ms is not None for record in reader.records) >= 10, "and then with one")

    asyncio.run(work())
    assert_none_lost_none_doubled(reader.records)
    records = in_order(reader.records)
    known = [record.time_ms is not None for record in records]
    assert known == sorted(known), "once it is set, every record has its time"
    assert {record.time_quality for record in records if record.time_ms is None} == {UNKNOWN}
    assert {record.time_quality for record in records if record.time_ms is not None} == {SYNCHRONISED}
    assert all(record.time_ms is None or record.time_ms >= TODAY_MS for record in records), "no record is of 1970"


def test_two_boots_with_a_clock_at_1970_have_different_numbers(mosquitto, make_reader, sensor, tmp_path):
    reader = make_reader(mosquitto.url)

    async def work():
        for boot in (1, 2):
            async with gateway(tmp_path, mosquitto.url, sensor.port, WallClock(5_000)):
                await until(
                    lambda boot=boot: len({record.boot for record in reader.records}) == boot, "a boot is heard"
                )

    asyncio.run(work())
    assert_none_lost_none_doubled(reader.records)


def test_a_clock_stepped_back_an_hour_loses_nothing_and_orders_nothing(mosquitto, make_reader, sensor, tmp_path):
    reader = make_reader(mosquitto.url)
    wall = WallClock(TODAY_MS)

    async def work():
        async with gateway(tmp_path, mosquitto.url, sensor.port, wall):
            await until(lambda: len(reader.records) >= 10, "records come")
            wall.step(-HOUR_MS)
            before = len(reader.records)
            await until(lambda: len(reader.records) >= before + 15, "and go on")
        async with gateway(tmp_path, mosquitto.url, sensor.port, wall):
            await until(lambda: len({record.boot for record in reader.records}) == 2, "the next boot is heard")

    asyncio.run(work())
    assert_none_lost_none_doubled(reader.records)
    times = [record.time_ms for record in in_order(reader.records)]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert sum(step < 0 for step in steps) == 1, "one step back, and every record has the time that the clock showed"
    first, second = sorted({record.boot for record in reader.records})
    assert second > first, "a boot's number rises though the clock went back"


def test_a_clock_stepped_while_the_broker_is_away_loses_nothing(mosquitto, make_reader, sensor, tmp_path):
    """What waits in the spool is kept by its number: a queue by time would have thrown the newest away."""
    reader = make_reader(mosquitto.url)
    wall = WallClock(TODAY_MS)

    async def work():
        async with gateway(tmp_path, mosquitto.url, sensor.port, wall):
            await until(lambda: len(reader.records) >= 5, "records come")
            await asyncio.to_thread(mosquitto.stop)
            for step_ms in (-HOUR_MS, 10 * 365 * 24 * HOUR_MS, -TODAY_MS):
                before = sensor.sent
                await until(lambda before=before: sensor.sent > before + 10, "the sensor goes on")
                wall.step(step_ms)
            await asyncio.to_thread(mosquitto.start)
            sent = sensor.sent
            await until(
                lambda: any(record.readings[1].value > sent for record in list(reader.records)), "what is new comes"
            )
            await until(
                lambda: len(reader.identities()) == max(record.seq for record in reader.records), "and all before it"
            )

    asyncio.run(work())
    # What was under way when the broker went comes twice, under the same identity: readers drop it.
    assert_none_lost_none_doubled({(record.boot, record.seq): record for record in reader.records}.values())
