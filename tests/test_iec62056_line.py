"""A meter with an optical head on a real port: 300 baud, then its own rate, and what goes wrong with that.

The meter's wire is 7E1 and the port is open as 8N1 (a pty knows no parity), so the driver makes and checks the parity.
"""

import asyncio
import contextlib
from decimal import Decimal

import pytest

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway.config import SerialLine
from bega_gateway.lines import asked as asked_module
from bega_gateway.lines.asked import AskedLine
from bega_gateway.lines.serial import rate_and_frame
from bega_gateway.lines.station import Station
from bega_gateway.lines.wire_serial import SerialWire
from bega_protocols.devices.iec62056_meter.sim import Sim
from bega_protocols.reading import Reading
from bega_simulators.hosts.pty import PtyHost

ENERGY = Reading("active_energy_import", 2841377, -3)
VOLTAGE = Reading("voltage", 2316, -1, "l1")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asked_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(asked_module, "LONGEST_PAUSE_S", 0.05)


class Bench:
    """A meter on a port, and the gateway's line that reads it over and over."""

    def __init__(self, path, settings) -> None:
        self.path = path
        self.meter = Sim({}, seed=1)
        self.meter.texts = self.meter.texts[:2]
        self.meter.answer_after_ms = 200
        self.meter.set("active_energy_import", "", Decimal("2841.377"))
        self.meter.set("voltage", "l1", Decimal("231.6"))
        self.groups: list[list[Reading]] = []
        driver = load_driver(
            "iec62056_meter", {"parity_in_bit_7": True, "reaction_ms": 1000, "gap_ms": 400, **settings}
        )
        self.driver = driver
        self.reasons: list[str] = []
        self.station = Station("meter", driver, 0.05, self._deliver)
        line = SerialLine(port=str(path), baud=300, parity="N", data_bits=8)
        wire = SerialWire(line.port, *rate_and_frame(line, driver.line), mono_ms)
        self.line = AskedLine("head", wire, [self.station], mono_ms, wall_ms)
        self._tasks: list[asyncio.Task[None]] = []

    async def _deliver(self, groups, read_ms) -> None:
        self.groups += groups

    def plug_in(self) -> None:
        self.host = PtyHost(self.meter, 300, wall_ms, "7E1")
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(self.host.port)
        self._serving = asyncio.create_task(self.host.run())

    async def unplug(self) -> None:
        self._serving.cancel()
        await asyncio.wait([self._serving])
        self.host.close()
        self.path.unlink()

    async def until(self, condition) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  # counters that go up
                await asyncio.sleep(0.02)

    async def heals(self) -> None:
        """Whatever it was: without the fault the next readout, or the one after a broken one, is heard."""
        self.meter.faults.clear()
        before = len(self.groups)
        await self.until(lambda: len(self.groups) > before)


@contextlib.asynccontextmanager
async def reading(tmp_path, **settings):
    bench = Bench(tmp_path / "head", settings)
    bench.plug_in()
    running = asyncio.create_task(bench.line.run())
    try:
        yield bench
        assert all(group == [ENERGY, VOLTAGE] for group in bench.groups), "a value that the meter never showed"
    finally:
        running.cancel()
        await asyncio.wait([running])
        await bench.unplug()


def test_meter_is_read_at_the_rate_that_it_names(tmp_path):
    async def work():
        async with reading(tmp_path) as bench:
            await bench.until(lambda: len(bench.groups) >= 2)
            assert bench.meter.answer_baud in (300, 9600)
            assert bench.station.counters.damaged == 0
            assert bench.driver.attributes["0.0.0"] == "00000001"

    asyncio.run(work())


@pytest.mark.parametrize(("settings", "stays"), [({"stay_at_300": True}, 0), ({"data_baud": 300}, 300)])
def test_meter_that_stays_at_300_baud_is_read_once_that_is_said(tmp_path, settings, stays):
    async def work():
        async with reading(tmp_path, **settings) as bench:
            bench.meter.stays = stays
            await bench.until(lambda: bench.groups)
            assert bench.station.counters.damaged == 0

    asyncio.run(work())


@pytest.mark.slow
def test_meter_that_speaks_at_another_rate_is_damage_and_no_value(tmp_path):
    async def work():
        async with reading(tmp_path) as bench:
            bench.meter.stays = 300
            await bench.until(lambda: bench.station.counters.damaged >= 1)
            assert bench.groups == []
            bench.meter.stays = 0
            await bench.heals()

    asyncio.run(work())


@pytest.mark.parametrize("fault", ["bcc", "noise", "cut", "wrong device", "no_readout"])
def test_readout_that_is_not_whole_is_damage_and_heals(tmp_path, fault):
    async def work():
        async with reading(tmp_path) as bench:
            bench.meter.faults.add(fault)
            await bench.until(lambda: bench.station.counters.damaged >= 1)
            assert bench.groups == []
            await bench.heals()

    asyncio.run(work())


def test_silent_meter_is_counted_and_heard_again(tmp_path):
    async def work():
        async with reading(tmp_path) as bench:
            bench.meter.faults.add("silent")
            await bench.until(lambda: bench.station.counters.silent >= 1)
            assert (bench.groups, bench.station.counters.damaged) == ([], 0)
            await bench.heals()

    asyncio.run(work())


def test_meter_that_never_stops_sending_is_left_after_its_time(tmp_path):
    async def work():
        async with reading(tmp_path, readout_s=1) as bench:
            bench.meter.faults.add("endless")
            await bench.until(lambda: bench.station.counters.damaged >= 1)
            assert bench.groups == []
            await bench.heals()

    asyncio.run(work())


def test_head_that_is_unplugged_in_a_readout_is_read_again_when_it_is_back(tmp_path):
    async def work():
        async with reading(tmp_path) as bench:
            await bench.until(lambda: bench.meter.answer_baud == 9600)  # the readout is on its way
            await bench.unplug()
            tries = bench.line.tries
            await bench.until(lambda: bench.line.tries > tries + 1)
            bench.plug_in()
            await bench.heals()

    asyncio.run(work())


def test_meter_of_mode_a_is_read_at_300_baud_without_a_check_character(tmp_path):
    async def work():
        async with reading(tmp_path, check_character=False) as bench:
            bench.meter.announced, bench.meter.has_check = " ", False
            await bench.until(lambda: bench.groups)
            assert bench.station.counters.damaged == 0

    asyncio.run(work())


def test_battery_meter_is_woken_before_it_is_asked(tmp_path):
    async def work():
        async with reading(tmp_path, wake_ms=2100, wake_rest_ms=200) as bench:
            bench.meter.sleeps = True
            await bench.until(lambda: bench.groups)

    asyncio.run(work())
