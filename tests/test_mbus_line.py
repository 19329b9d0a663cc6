"""An M-Bus line of the gateway on a simulated segment: who is heard, what a dead or a colliding meter costs."""

import asyncio
import contextlib
from decimal import Decimal

import pytest

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway.config import examine
from bega_gateway.lines import asked as asked_module
from bega_gateway.lines.asked import AskedLine
from bega_gateway.lines.station import Station
from bega_gateway.lines.wire_serial import SerialWire
from bega_protocols.devices.mbus_meter.sim import Sim
from bega_protocols.mbus_search import PrimarySearch, SecondarySearch
from bega_simulators.hosts.mbus import MbusSegment
from tests.contract import exact

BAUD = 9600  # a pty knows no parity: 8N1 on it, eleven bits a character on the simulated wire all the same
PATIENCE_S = 45.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asked_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(asked_module, "LONGEST_PAUSE_S", 0.05)


def meter(energy_kwh: int, **settings: object) -> Sim:
    sim = Sim(settings, seed=energy_kwh)
    sim.set("heat_energy", "", Decimal(energy_kwh) * 3_600_000)
    return sim


class Cellar:
    """A line with its stations on a segment, and what they gave: energies in kWh, by station."""

    def __init__(self, segment: MbusSegment, every_s: float = 0.2, **addresses: object) -> None:
        self.heard: dict[str, list[Decimal]] = {name: [] for name in addresses}
        self.stations = {name: self._station(name, address, every_s) for name, address in addresses.items()}
        wire = SerialWire(segment.port, round(1 / segment._bit_s), "8N1", mono_ms)
        self.line = AskedLine("cellar", wire, list(self.stations.values()), mono_ms, wall_ms)

    def _station(self, name: str, address: object, every_s: float) -> Station:
        async def deliver(groups, read_ms):
            for reading in (reading for group in groups for reading in group if reading.quantity == "heat_energy"):
                self.heard[name].append(exact(reading) / 3_600_000)

        driver = load_driver("mbus_meter", {"address": address, "baud": BAUD})
        return Station(name, driver, every_s, deliver)

    async def until(self, enough):
        async with asyncio.timeout(PATIENCE_S):
            while not enough():  # noqa: ASYNC110 - what is waited for is a count, not an event
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(cellar: Cellar):
    task = asyncio.create_task(cellar.line.run())
    try:
        yield cellar
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def on(sims, work, link=None):
    """Run `work(segment)` on a segment with these meters."""
    with MbusSegment(sims, BAUD, link=link) as segment:
        return asyncio.run(work(segment))


def test_meters_by_primary_and_secondary_address_are_heard_beside_a_dead_one():
    sims = [meter(100, address=1), meter(200, address=2), meter(300, address="00000300", primary=0)]

    async def work(segment):
        async with running(Cellar(segment, first=1, second=2, third="00000300.PAD.01.04", dead=4)) as cellar:
            names = ("first", "second", "third")
            await cellar.until(lambda: all(len(cellar.heard[name]) >= 3 for name in names))
            assert [set(cellar.heard[name]) for name in names] == [{100}, {200}, {300}]
            assert not cellar.heard["dead"]
            assert cellar.stations["dead"].counters.silent >= 3

    on(sims, work)


def test_two_meters_at_one_address_give_nothing_and_disturb_nobody_else():
    sims = [meter(111, address=1), meter(222, address=1, identification="99999999"), meter(300, address=2)]

    async def work(segment):
        async with running(Cellar(segment, both=1, other=2)) as cellar:
            await cellar.until(lambda: len(cellar.heard["other"]) >= 3 and cellar.stations["both"].counters.damaged)
            assert not cellar.heard["both"]
            assert set(cellar.heard["other"]) == {300}
        assert segment.counts.collisions >= 2

    on(sims, work)


def test_noise_on_the_wire_gives_no_wrong_value():
    sims = [meter(12345, address=1)]

    async def work(segment):
        segment.bit_errors(0.0004)  # one telegram in three is hit, more or less
        async with running(Cellar(segment, every_s=0.01, only=1)) as cellar:
            counters = cellar.stations["only"].counters
            await cellar.until(lambda: len(cellar.heard["only"]) >= 10 and counters.damaged >= 2)
            assert set(cellar.heard["only"]) == {12345}

    on(sims, work)


def test_babbling_on_the_wire_ends_and_the_meter_is_heard_again():
    async def work(segment):
        async with running(Cellar(segment, only=1)) as cellar:
            await cellar.until(lambda: cellar.heard["only"])
            segment.jam(1.0)
            had = len(cellar.heard["only"])
            await cellar.until(lambda: len(cellar.heard["only"]) >= had + 3)
            assert set(cellar.heard["only"]) == {500}

    on([meter(500, address=1)], work)


def test_meter_that_babbles_costs_its_own_turn_and_no_more():
    sims = [meter(100, address=1), meter(200, address=2)]
    sims[0].faults.add("babble")

    async def work(segment):
        async with running(Cellar(segment, babbler=1, quiet=2)) as cellar:
            await cellar.until(lambda: len(cellar.heard["quiet"]) >= 3)
            assert not cellar.heard["babbler"]
            assert cellar.stations["babbler"].counters.damaged >= 3

    on(sims, work)


def test_slow_meter_is_waited_for_as_long_as_the_standard_allows():
    sims = [meter(100, address=1), meter(200, address=2)]

    async def work(segment):
        segment.late(0, 330 / BAUD + 0.05)  # the latest allowed
        async with running(Cellar(segment, slow=1, quick=2)) as cellar:
            await cellar.until(lambda: len(cellar.heard["slow"]) >= 2 and len(cellar.heard["quick"]) >= 2)
            assert set(cellar.heard["slow"]) == {100}

    on(sims, work)


def test_late_answer_is_never_taken_for_another_meters():
    """A meter that is later than allowed answers into the next one's turn: refused by its address, never believed."""
    sims = [meter(100, address=1), meter(200, address=2)]

    async def work(segment):
        segment.late(0, 0.25)
        async with running(Cellar(segment, late=1, other=2)) as cellar:
            await cellar.until(lambda: len(cellar.heard["other"]) >= 5)
            assert set(cellar.heard["other"]) == {200}
            assert set(cellar.heard["late"]) <= {100}

    on(sims, work)


def test_converter_that_is_pulled_out_comes_back(tmp_path):
    async def work(segment):
        async with running(Cellar(segment, only=1)) as cellar:
            await cellar.until(lambda: cellar.heard["only"])
            segment.unplug()
            await cellar.until(lambda: cellar.line.tries >= 3)
            had = len(cellar.heard["only"])
            segment.open()
            await cellar.until(lambda: len(cellar.heard["only"]) >= had + 2)
            assert set(cellar.heard["only"]) == {700}

    on([meter(700, address=1)], work, link=tmp_path / "mbus")


def test_stored_values_come_through_in_a_second_telegram():
    sim = meter(900, address=1)
    sim.set("heat_energy", "s1", Decimal(800) * 3_600_000)
    sim.set("measured_at", "", 1_767_221_940)

    async def work(segment):
        async with running(Cellar(segment, only=1)) as cellar:
            await cellar.until(lambda: len(cellar.heard["only"]) >= 3)
            assert cellar.heard["only"][:3] == [900, 800, 900]

    on([sim], work)


async def carry_out(segment, search):
    wire = SerialWire(segment.port, BAUD, "8N1", mono_ms)
    await wire.open()
    asks, answer = search.asks(), None
    try:
        while True:
            ask = asks.send(answer)
            ask.wait_ms *= 3  # meters that live in this process are as late as a busy machine lets it run
            answer = await wire.exchange(ask)
            await asyncio.sleep(ask.line.get("pause_ms", 0) / 1000)
    except StopIteration:
        return search
    finally:
        wire.close()


def test_primary_search_finds_the_meters_of_a_segment():
    sims = [meter(100, address=2), meter(200, address=4), meter(300, address=4, identification="87654321")]
    search = on(sims, lambda segment: carry_out(segment, PrimarySearch(BAUD, 1, 6)))
    assert [identity.primary for identity in search.found] == [2]
    assert search.collisions == [4]


def test_secondary_search_finds_meters_that_nobody_has_given_an_address():
    """Two answer in the same moment (their E5 is one clean E5), the third a little later (theirs is torn)."""
    names = ["02345678", "12345678", "52345678"]
    sims = [meter(100 + at, primary=0, identification=name) for at, name in enumerate(names)]

    async def work(segment):
        segment.late(2, 0.004)
        return await carry_out(segment, SecondarySearch(BAUD))

    search = on(sims, work)
    assert sorted(identity.identification for identity in search.found) == names
    assert search.complete


CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = 0.1
[uplink]
brokers = ["{broker}"]
[lines.cellar]
kind = "mbus"
port = "{port}"
baud = 9600
parity = "N"
[devices.heat]
line = "cellar"
driver = "mbus_meter"
every_s = 1
audience = "operator"
settings = {{ address = 1, baud = 9600 }}
[devices.flat]
line = "cellar"
driver = "mbus_meter"
every_s = 1
audience = "operator"
settings = {{ address = "00000300", baud = 9600 }}
"""


def test_check_wants_an_address_and_the_lines_own_rate(tmp_path):
    """Else two meters without an address would be one, and answers at 300 Bd be cut as if they came at 2400."""
    text = CONFIGURATION.format(broker="mqtt://127.0.0.1", port="/dev/ttyUSB0")
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    assert examine(file)[1] == []
    file.write_text(text.replace("address = 1, baud = 9600", "").replace('"00000300", baud = 9600', '"00000300"'))
    assert [problem.partition(": ")[2] for problem in examine(file)[1]] == [
        "devices.heat.settings.address: is missing; 0 is that of a meter that nobody has given one",
        "devices.heat.settings.baud: is 2400 and the line's 9600: the driver waits by its own",
        "devices.flat.settings.baud: is 2400 and the line's 9600: the driver waits by its own",
    ]


def test_gateway_as_started_brings_meters_to_the_broker(mosquitto, make_gateway, make_reader, eventually):
    """Two meters on one segment; of one, what it stored at the turn of the year is a record of its own."""
    sims = [meter(100, address=1), meter(300, address="00000300", primary=0)]
    sims[0].set("heat_energy", "s1", Decimal(90) * 3_600_000)
    sims[0].set("measured_at", "", 1_767_221_940)
    with MbusSegment(sims, BAUD) as segment:
        gateway = make_gateway(CONFIGURATION.format(broker=mosquitto.url, port=segment.port))
        reader = make_reader(mosquitto.url)
        gateway.start()

        def energies() -> dict[tuple[str, str], Decimal]:
            return {
                (record.device, reading.part): exact(reading) / 3_600_000
                for record in list(reader.records)
                for reading in record.readings
                if reading.quantity == "heat_energy"
            }

        eventually(lambda: len(energies()) == 3, "all three energies arrive")
        assert energies() == {("heat", ""): 100, ("heat", "s1"): 90, ("flat", ""): 300}
        stored = next(record for record in reader.records if any(row.part == "s1" for row in record.readings))
        assert ("measured_at", 1_767_221_940) in {(row.quantity, row.value) for row in stored.readings}
        assert gateway.stop() == 0
