"""What becomes of advertisements while a sensor's window is closed: the last few are kept, and none is looked at."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

from bleak.backends.scanner import AdvertisementData

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway import config
from bega_gateway.lines.ble import KEPT, MOST_SAID, BleLine
from bega_gateway.lines.station import Station
from bega_gateway.lines.window import Window
from bega_protocols.devices.bthome.sim import Sim
from bega_protocols.errors import WireError
from tests.ble_park import PLAIN, SECRET

UUID = "0000fcd2-0000-1000-8000-00805f9b34fb"
EVERY_S = 0.2
HEAD = len("0201060016d2fc") // 2  # flags, and what stands before a BTHome packet


def packet(number: int) -> bytes:
    """Return a plain packet whose PM2.5 is its number."""
    return b"\x40\x0d" + number.to_bytes(2, "little")


def sealed(count: int) -> list[bytes]:
    """Return packets of the encrypted sensor, each a measurement of its own."""
    sim = Sim(SECRET, seed=1)
    sim.advertise_ms = sim.measure_ms = 100
    sim.set("temperature", "", 20)
    heard = (sim.tick(now_ms)[HEAD:] for now_ms in range(0, 400 * count, 50))
    return [chunk for chunk in heard if chunk][:count]


class Watched:
    """A line with one sensor behind a window, without the scan: a test says what is heard."""

    def __init__(self, settings, every_s=EVERY_S) -> None:
        self.groups = []
        self.fed = []
        self.settings = settings
        self.driver = load_driver("bthome", settings)
        self.window = Window(every_s, self.take)
        self.station = Station("s", self.driver, every_s, self.window.take, window=self.window)
        self.line = BleLine("park", config.BleLine(), [self.station], mono_ms, wall_ms)
        feed = self.driver.feed
        self.driver.feed = lambda chunk, now_ms: (self.fed.append(chunk), feed(chunk, now_ms))[1]

    async def take(self, groups, heard_wall_ms):
        self.groups += [{row.quantity: row.value for row in group} for group in groups]

    def hear(self, service_data: bytes) -> None:
        device = SimpleNamespace(address=self.settings["address"])
        self.line._hear(device, AdvertisementData(None, {}, {UUID: service_data}, [], None, -60, ()))

    @asynccontextmanager
    async def running(self):
        tasks = [asyncio.create_task(self.line._listen()), asyncio.create_task(self.window.run())]
        self.line._heard_ms = mono_ms()
        try:
            await asyncio.sleep(0)
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 20))


def test_of_a_window_full_of_advertisements_the_last_few_are_looked_at_and_the_newest_recorded():
    async def scenario():
        async with Watched(PLAIN).running() as watched:
            watched.hear(packet(0))
            await asyncio.sleep(0.02)
            assert watched.groups == [{"pm2_5": 0}], "the first goes through at once"
            for number in range(1, 101):
                watched.hear(packet(number))
            await asyncio.sleep(0.02)
            assert len(watched.fed) == 1
            await asyncio.sleep(EVERY_S + 0.1)
            assert watched.groups == [{"pm2_5": 0}, {"pm2_5": 100}]
            assert len(watched.fed) == 1 + KEPT
            assert watched.line.counters.ours == 101
            assert watched.line.counters.overtaken == 0

    run(scenario)


def test_sensor_that_says_its_quantities_by_turns_loses_none_of_them():
    async def scenario():
        async with Watched(PLAIN).running() as watched:
            for number in range(1, 21):
                for _ in range(5):  # each packet is sent several times
                    watched.hear(packet(number))
                for _ in range(5):
                    watched.hear(b"\x40\x02" + number.to_bytes(2, "little"))
                await asyncio.sleep(0.001)
            await asyncio.sleep(2 * EVERY_S)
            assert {"pm2_5": 20} in watched.groups and {"temperature": 20} in watched.groups
            assert len(watched.groups) <= 4

    run(scenario)


def test_forgeries_at_the_end_of_a_window_cost_no_record():
    """Whoever floods the air in a sensor's name with packets of no key makes its next true one wait for nobody."""
    first, second, third = sealed(3)
    forged = [second[:-1] + bytes((second[-1] ^ change,)) for change in range(1, 21)]

    async def scenario():
        async with Watched(SECRET).running() as watched:
            watched.hear(first)
            await asyncio.sleep(0.02)
            for packet_of_nobody in forged:
                watched.hear(packet_of_nobody)
            await asyncio.sleep(EVERY_S + 0.05)
            assert len(watched.groups) == 1
            assert watched.station.counters.damaged == KEPT
            watched.hear(third)
            await asyncio.sleep(0.02)
            assert len(watched.groups) == 2, "the window stays open until something is believed"

    run(scenario)


def test_replay_of_what_was_recorded_is_refused_though_newer_ones_were_never_looked_at():
    packets = sealed(30)

    async def scenario():
        async with Watched(SECRET).running() as watched:
            watched.hear(packets[0])
            await asyncio.sleep(0.02)
            for chunk in packets[1:]:
                watched.hear(chunk)
            await asyncio.sleep(EVERY_S + 0.05)
            recorded = [group["packet_id"] for group in watched.groups]
            for chunk in packets:
                watched.hear(chunk)
            watched.hear(packets[0])
            await asyncio.sleep(2 * EVERY_S)
            assert [group["packet_id"] for group in watched.groups] == recorded
            assert recorded == sorted(set(recorded)) and len(recorded) == 2

    run(scenario)


def test_who_listens_to_everything_hears_everything():
    async def scenario():
        async with Watched(PLAIN, every_s=60).running() as watched:
            heard = []
            watched.station.tap = lambda direction, chunk: heard.append(chunk)
            for number in range(10):
                watched.hear(packet(number))
                await asyncio.sleep(0.005)
            assert len(heard) == 10
            assert watched.groups == [{"pm2_5": 0}]

    run(scenario)


def test_sensor_that_speaks_less_often_than_its_window_is_recorded_at_once():
    async def scenario():
        async with Watched(PLAIN, every_s=0.05).running() as watched:
            for number in range(4):
                watched.hear(packet(number))
                await asyncio.sleep(0.02)
                assert watched.groups[-1] == {"pm2_5": number}
                await asyncio.sleep(0.08)

    run(scenario)


def test_nonsense_of_a_thousand_kinds_is_counted_and_fills_neither_log_nor_memory(caplog):
    """Whoever takes the sensor's address may say anything; each kind once an hour is still a thousand lines."""

    async def scenario():
        watched = Watched(PLAIN)
        watched.driver.feed = lambda chunk, now_ms: watched.driver.damaged.append((0, WireError(chunk.hex()))) or []
        async with watched.running():
            for number in range(1000):
                watched.hear(packet(number))
                await asyncio.sleep(0)
        return watched

    watched = asyncio.run(scenario())
    assert watched.station.counters.damaged > 100
    assert len([record for record in caplog.records if "advertisement refused" in record.getMessage()]) == MOST_SAID
