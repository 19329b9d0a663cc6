"""Sensors that are connected to: GATT server and Bumble's stack, org.bluez, bleak's default backend, the line."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway import config
from bega_gateway.lines import ble, ble_gatt, ble_power
from bega_gateway.lines.ble import BleLine
from bega_gateway.lines.station import Station
from bega_protocols.devices.environmental_sensing.driver import Driver
from bega_protocols.devices.environmental_sensing.sim import SERVICES
from bega_protocols.devices.environmental_sensing.sim import Sim as Climate
from bega_protocols.errors import LineError
from bega_simulators.hosts import org_bluez_links
from bega_simulators.hosts.ble_air import host_on
from bega_simulators.hosts.ble_gatt import connectable
from bega_simulators.hosts.org_bluez import OrgBluez
from tests.ble_park import ADAPTER_ADDRESS, PLAIN, SECRET, Listener, park, said, until

CLIMATE = {"address": "C0:FF:EE:00:00:01"}
ABSENT = {"address": "C0:FF:EE:00:00:02"}
EVERY_S = 0.3


async def place_climate(there, **quantities):
    """Put a GATT sensor into the park; its advertising runs with the air's own, faster clock."""
    sim = Climate(CLIMATE, seed=1)
    for quantity, value in quantities.items():
        sim.set(quantity, "", value)
    await connectable(there.air, CLIMATE["address"], sim.tick, SERVICES, sim.answer)
    return sim


class Asker(Listener):
    """A line with GATT sensors beside those that only advertise."""

    def __init__(self, asked, listened=None, every_s=EVERY_S, adapter="hci0", deaf_after_s=60.0) -> None:
        super().__init__(listened or {}, deaf_after_s=deaf_after_s, adapter=adapter)
        for name, settings in asked.items():
            driver = load_driver("environmental_sensing", settings)
            self.stations[name] = Station(name, driver, every_s, self.take(name))
        self.line = BleLine(
            "park", config.BleLine(adapter=adapter), [*self.stations.values()], mono_ms, wall_ms, deaf_after_s
        )


def test_values_of_a_sensor_that_is_connected_to_arrive_as_they_were_set(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            sim = await place_climate(there, temperature="-5.12", humidity="81.25", pressure="1013.253", battery=93)
            asker = Asker({"climate": CLIMATE})
            async with asker.running():
                await until(lambda: asker.of("climate"))
                sim.set("temperature", "", 21)
                await until(lambda: asker.of("climate")[-1]["temperature"] == "21.00")
            return asker

    asker = asyncio.run(scenario())
    expected = {"temperature": "-5.12", "humidity": "81.25", "pressure": "1013.253", "battery": "93"}
    assert asker.of("climate")[0] == expected
    assert asker.line.counters.failed_connects == 0
    assert asker.line.counters.connects >= 2
    assert asker.stations["climate"].heard_mono_ms


def test_polls_take_nothing_from_those_who_only_advertise(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            await place_climate(there, temperature=20)
            asker = Asker({"climate": CLIMATE}, {"park-1": PLAIN, "park-2": SECRET}, every_s=0.05)
            async with asker.running():
                await until(lambda: len(asker.of("climate")) >= 5 and len(asker.of("park-2")) >= 4)
                ids = [int(values["packet_id"]) for values in asker.of("park-2")]
            return ids

    ids = asyncio.run(scenario())
    assert ids == list(range(ids[0], ids[0] + len(ids))), "every packet of the other was heard"


def test_two_sensors_are_connected_to_one_after_the_other(monkeypatch):
    second = {"address": "C0:FF:EE:00:00:03"}

    async def scenario():
        async with park(monkeypatch) as there:
            await place_climate(there, temperature=20)
            sim = Climate(second, seed=1)
            sim.set("temperature", "", 30)
            await connectable(there.air, second["address"], sim.tick, SERVICES, sim.answer)
            asker = Asker({"climate": CLIMATE, "second": second}, every_s=0.05)
            async with asker.running():
                await until(lambda: len(asker.of("climate")) >= 4 and len(asker.of("second")) >= 4)
            return asker

    asker = asyncio.run(scenario())
    assert asker.line.counters.failed_connects == 0
    assert {values["temperature"] for values in asker.of("climate")} == {"20.00"}
    assert {values["temperature"] for values in asker.of("second")} == {"30.00"}


def test_who_listens_to_a_poll_hears_what_its_driver_reads(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            await place_climate(there, temperature=20, battery=50)
            asker = Asker({"climate": CLIMATE})
            heard = []
            asker.stations["climate"].tap = lambda direction, chunk: heard.append((direction, chunk))
            async with asker.running():
                await until(lambda: asker.of("climate"))
            return heard

    heard = asyncio.run(scenario())
    assert {direction for direction, _ in heard} == {"in"}
    driver = load_driver("environmental_sensing", CLIMATE)
    groups = [group for _, chunk in heard for group in driver.feed(chunk, 0)]
    assert [group[0].quantity for group in groups[:2]] == ["temperature", "battery"]


def test_absent_sensor_costs_no_attempt_and_the_others_nothing(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            await place_climate(there, temperature=20)
            asker = Asker({"climate": CLIMATE, "absent": ABSENT}, every_s=0.1)
            async with asker.running():
                await until(lambda: len(asker.of("climate")) >= 4)
            return asker

    asker = asyncio.run(scenario())
    assert asker.line.counters.failed_connects == 0
    assert asker.stations["absent"].counters.silent >= 4
    assert not asker.of("absent")


def test_sensor_that_accepts_no_connection_is_said_once_and_tried_ever_more_rarely(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ble_gatt, "CONNECT_WITHIN_S", 0.2)
    monkeypatch.setattr(ble_gatt, "PAUSES_MS", (0, 0, 1500))

    async def scenario():
        async with park(monkeypatch) as there:
            sim = await place_climate(there, temperature=20)
            asker = Asker({"climate": CLIMATE}, {"park-1": PLAIN}, every_s=0.05)
            async with asker.running():
                await until(lambda: asker.of("climate"))
                sim.faults.add("silent")
                await until(lambda: asker.line.counters.failed_connects >= 2)
                silences, count = asker.stations["climate"].counters.silent, len(asker.of("park-1"))
                await until(lambda: asker.stations["climate"].counters.silent >= silences + 5 * 4)
                assert asker.line.counters.failed_connects == 2, "these polls made no attempt"
                await until(lambda: len(asker.of("park-1")) > count)
                sim.faults.clear()
                count = len(asker.of("climate"))
                await until(lambda: len(asker.of("climate")) > count)

    asyncio.run(scenario())
    assert len(said(caplog, "sensor not read line=park device=climate")) == 1
    assert len(said(caplog, "sensor is read again")) == 1
    assert CLIMATE["address"] not in caplog.text and CLIMATE["address"].replace(":", "_") not in caplog.text


def test_sensor_that_hangs_in_the_middle_of_a_poll_gives_what_it_had_said(monkeypatch):
    monkeypatch.setattr("bega_protocols.devices.environmental_sensing.driver.WAIT_MS", 200)

    async def scenario():
        async with park(monkeypatch) as there:
            sim = await place_climate(there, temperature=20, battery=50)
            answer = sim.answer
            monkeypatch.setattr(sim, "answer", lambda request: None if request == b"\x2a\x19" else answer(request))
            await connectable(there.air, CLIMATE["address"], sim.tick, SERVICES, sim.answer)
            asker = Asker({"climate": CLIMATE})
            async with asker.running():
                await until(lambda: asker.of("climate"))
            return asker

    assert asyncio.run(scenario()).of("climate")[0] == {"temperature": "20.00"}


def test_gatt_sensor_is_told_by_what_it_advertises(monkeypatch):
    heard = []

    async def scenario():
        async with park(monkeypatch) as there:
            await place_climate(there, temperature=20)
            asker = Asker({"climate": CLIMATE})
            hear = asker.line._hear
            monkeypatch.setattr(
                asker.line,
                "_hear",
                lambda device, advertisement: (heard.append((device.address, ble.structures(advertisement))),
                                               hear(device, advertisement)),
            )  # fmt: skip
            async with asker.running():
                await until(lambda: [address for address, _ in heard if address == CLIMATE["address"]])

    asyncio.run(scenario())
    assert {address for address, chunk in heard if Driver.recognises(chunk)} == {CLIMATE["address"]}


def test_adapter_that_stays_deaf_is_switched_off_and_on_and_hears_again(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ble_power, "OFF_FOR_S", 0.05)

    async def scenario():
        async with park(monkeypatch) as there:
            listener = Listener(deaf_after_s=0.4)
            async with listener.running():
                await until(lambda: listener.of("park-1"))
                there.bluez.deafen()
                await until(lambda: listener.line.counters.resets)
                count = len(listener.delivered)
                await until(lambda: len(listener.delivered) > count)
            return there, listener

    there, listener = asyncio.run(scenario())
    assert there.bluez.power_cycles == 1
    assert listener.line.counters.resets == 1
    assert listener.line.counters.restarted == 2
    assert len(said(caplog, "switched off and on")) == 1
    assert not said(caplog, "line down")


def test_silent_place_is_not_reset_again_and_again(monkeypatch):
    monkeypatch.setattr(ble_power, "OFF_FOR_S", 0.01)

    async def scenario():
        async with park(monkeypatch) as there:
            for sim in there.sims.values():
                sim.faults.add("silent")
            listener = Listener(deaf_after_s=0.05)
            async with listener.running():
                await until(lambda: listener.line.counters.restarted >= 9)
            return listener

    counters = asyncio.run(scenario()).line.counters
    assert counters.resets == (counters.restarted - ble.RESET_AT) // ble.RESET_EVERY + 1


def test_adapter_that_we_switched_off_is_switched_on_though_we_are_ended_meanwhile(monkeypatch):
    monkeypatch.setattr(ble_power, "OFF_FOR_S", 30.0)

    async def scenario():
        async with park(monkeypatch) as there:
            listener = Listener(deaf_after_s=0.1)
            async with listener.running():
                await until(lambda: listener.of("park-1"))
                there.bluez.deafen()
                await until(lambda: not there.bluez.is_on())
            await until(there.bluez.is_on)

    asyncio.run(scenario())


def test_adapter_that_could_not_be_switched_on_again_is_switched_on_by_the_next_attempt(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ble, "FIRST_PAUSE_S", 0.1)

    async def scenario():
        async with park(monkeypatch) as there:

            async def off_only(adapter):
                there.bluez.switch(False)
                raise LineError(f"{adapter} cannot be switched on")

            monkeypatch.setattr(ble, "power_cycle", off_only)
            listener = Listener(deaf_after_s=0.2)
            async with listener.running():
                await until(lambda: listener.of("park-1"))
                there.bluez.deafen()
                await until(lambda: said(caplog, "line down"))
                count = len(listener.delivered)
                await until(lambda: len(listener.delivered) > count)

    asyncio.run(scenario())
    assert "cannot be switched on" in said(caplog, "line down")[0]
    assert len(said(caplog, "line back")) == 1


def test_two_adapters_are_two_lines(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            await there.bluez.stop()
            hosts = [await host_on(there.air, f"hci{n}", ADAPTER_ADDRESS[:-1] + str(n)) for n in range(2)]
            there.bluez = OrgBluez(there.bus.address, *hosts)
            await there.bluez.start()
            await place_climate(there, temperature=20)
            first = Listener({"park-1": PLAIN}, adapter="hci0")
            second = Asker({"climate": CLIMATE}, {"park-2": SECRET}, adapter="hci1")
            async with first.running(), second.running():
                await until(lambda: first.of("park-1") and second.of("park-2") and second.of("climate"))
                there.bluez.switch(False, 1)
                count = len(first.of("park-1"))
                await until(lambda: len(first.of("park-1")) > count + 1)

    asyncio.run(scenario())


def test_line_ends_while_it_connects(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            sim = await place_climate(there, temperature=20)
            asker = Asker({"climate": CLIMATE})
            async with asker.running():
                await until(lambda: asker.of("climate"))
                sim.faults.add("silent")
                await until(lambda: there.bluez.is_connecting())
            await until(lambda: not there.bluez.is_connecting())

    monkeypatch.setattr(org_bluez_links, "GIVE_UP_AFTER_S", 60.0)
    asyncio.run(scenario())


@pytest.mark.parametrize("number", [0x2A6E, 0x6E400001B5A3F393E0A9E50E24DCCA9E])
def test_characteristic_is_found_by_its_whole_or_short_uuid(number):
    rows = [
        SimpleNamespace(uuid="00002a6e-0000-1000-8000-00805f9b34fb", handle=9),
        SimpleNamespace(uuid="00002a6e-0000-1000-8000-00805f9b34fb", handle=5),
        SimpleNamespace(uuid="6e400001-b5a3-f393-e0a9-e50e24dcca9e", handle=5),
    ]
    client = SimpleNamespace(services=[SimpleNamespace(characteristics=rows)])
    assert ble_gatt._find(client, number).handle == 5
    assert ble_gatt._find(client, 0x2A6F) is None
