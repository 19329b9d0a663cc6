"""From a sensor's bytes in the air to readings: Bumble, org.bluez, D-Bus, bleak's default backend, the line."""

import asyncio
import itertools
import json
import logging
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from bleak.backends.scanner import AdvertisementData

from bega_gateway import config
from bega_gateway.lines import ble
from bega_gateway.lines.ble import structures
from bega_protocols.errors import ConfigError
from bega_simulators.hosts import org_bluez
from bega_simulators.hosts.ble_strangers import strangers
from bega_simulators.town import Town
from tests.ble_park import PLAIN, SECRET, SENSORS, WITHIN_S, Listener, park, said, skip_without_dbus_daemon, until


@pytest.fixture
def impatient(monkeypatch):
    """Pauses are the same, only shorter."""
    monkeypatch.setattr(ble, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(ble, "LONGEST_PAUSE_S", 0.2)


def test_values_arrive_as_they_were_set_and_strangers_never(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "bumble")  # the air itself may talk of those who are in it
    others = dict(strangers(20, seed=3))

    async def scenario():
        async with park(monkeypatch) as there:
            there.sims["park-1"].set("pm2_5", "", 37)
            there.sims["park-2"].set("temperature", "", Decimal("-5.12"))
            there.sims["park-2"].set("humidity", "", Decimal("81.25"))
            for address, tick in others.items():
                there.air.place(address, tick)
            listener = Listener()
            async with listener.running():
                await until(lambda: len(listener.of("park-1")) >= 2 and len(listener.of("park-2")) >= 2)
                await until(lambda: listener.line.counters.foreign >= 40)
            return listener

    listener = asyncio.run(scenario())
    assert listener.of("park-1")[-1].items() >= {"temperature": "21.50", "pm2_5": "37"}.items()
    assert listener.of("park-2")[-1].items() >= {"temperature": "-5.12", "humidity": "81.25"}.items()
    ids = [values["packet_id"] for values in listener.of("park-2")]
    assert len(ids) == len(set(ids)), "repeats are no records"
    assert all(station.counters.damaged == 0 for station in listener.stations.values())
    assert not [address for address in others if address in caplog.text or address.replace(":", "_") in caplog.text]


def test_wrong_key_is_said_once_and_the_other_sensor_goes_on(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    wrong = {"park-1": PLAIN, "park-2": {**SECRET, "key": "00" * 16}}

    async def scenario():
        async with park(monkeypatch):
            listener = Listener(wrong)
            async with listener.running():
                await until(
                    lambda: listener.stations["park-2"].counters.damaged >= 3 and len(listener.of("park-1")) > 2
                )
            return listener

    listener = asyncio.run(scenario())
    assert not listener.of("park-2")
    assert len(said(caplog, "the key does not fit")) == 1
    assert "00" * 16 not in caplog.text


def test_replay_is_refused_also_after_a_restart(monkeypatch, caplog):
    async def scenario():
        async with park(monkeypatch) as there:
            before = Listener()
            async with before.running():
                await until(lambda: len(before.of("park-2")) >= 2)
            there.sims["park-2"].faults.add("replay")
            state = before.stations["park-2"].driver.state()
            after = Listener(states={"park-2": state})
            async with after.running():
                await until(lambda: after.stations["park-2"].counters.damaged >= 2)
            return after

    after = asyncio.run(scenario())
    assert not after.of("park-2")
    assert len(said(caplog, "a replay")) == 1


def test_silent_sensor_is_forgotten_by_bluetoothd_and_heard_again_when_it_returns(monkeypatch):
    monkeypatch.setattr(org_bluez, "FORGOTTEN_AFTER_S", 0.3)
    monkeypatch.setattr(org_bluez, "LOOK_EVERY_S", 0.1)

    async def scenario():
        async with park(monkeypatch) as there:
            listener = Listener()
            async with listener.running():
                await until(lambda: listener.of("park-1"))
                there.sims["park-1"].faults.add("silent")
                await until(lambda: len(there.bluez.devices) == 1)
                count = len(listener.of("park-1"))
                there.sims["park-1"].faults.clear()
                await until(lambda: len(listener.of("park-1")) > count)

    asyncio.run(scenario())


def test_line_comes_back_when_bluetoothd_was_killed_and_started(monkeypatch, caplog, impatient):
    caplog.set_level(logging.INFO)

    async def scenario():
        async with park(monkeypatch) as there:
            listener = Listener(deaf_after_s=0.5)
            async with listener.running():
                await until(lambda: listener.of("park-1"))
                await there.bluez.stop()
                await until(lambda: said(caplog, "line down"))
                await asyncio.sleep(0.5)
                count = len(listener.delivered)
                await there.start_bluez()
                await until(lambda: len(listener.delivered) > count + 1)

    asyncio.run(scenario())
    assert len(said(caplog, "line down")) == len(said(caplog, "line back")) == 1
    assert "systemctl start bluetooth" in said(caplog, "line down")[0]


def test_line_comes_back_when_the_bus_was_killed_and_started(monkeypatch, caplog, impatient):
    caplog.set_level(logging.INFO)

    async def scenario():
        async with park(monkeypatch) as there:
            listener = Listener(deaf_after_s=0.5)
            async with listener.running():
                await until(lambda: listener.of("park-1"))
                await there.bluez.stop()
                await there.bus.stop()
                await until(lambda: said(caplog, "line down"))
                count = len(listener.delivered)
                await there.bus.start()
                await there.start_bluez()
                await until(lambda: len(listener.delivered) > count + 1)

    asyncio.run(scenario())
    assert len(said(caplog, "line down")) == len(said(caplog, "line back")) == 1
    assert "D-Bus is not there" in said(caplog, "line down")[0]


def test_line_waits_for_a_bus_that_is_not_there_yet(monkeypatch, caplog, impatient):
    caplog.set_level(logging.INFO)

    async def scenario():
        async with park(monkeypatch, bus=False) as there:
            listener = Listener()
            async with listener.running():
                await until(lambda: said(caplog, "D-Bus is not there"))
                await there.bus.start()
                await there.start_bluez()
                await until(lambda: listener.of("park-1"))

    asyncio.run(scenario())
    assert len(said(caplog, "line down")) == 1


@pytest.mark.parametrize(
    ("gone", "advice"), [("switched off", "bluetoothctl power on"), ("unplugged", "there is no adapter hci0")]
)
def test_adapter_that_is_gone_is_said_and_found_again(monkeypatch, caplog, impatient, gone, advice):
    caplog.set_level(logging.INFO)

    async def scenario():
        async with park(monkeypatch) as there:
            listener = Listener(deaf_after_s=0.5)
            async with listener.running():
                await until(lambda: listener.of("park-1"))
                there.bluez.switch(False) if gone == "switched off" else there.bluez.unplug()
                await until(lambda: said(caplog, "line down"))
                assert advice in said(caplog, "line down")[0]
                count = len(listener.delivered)
                if gone == "switched off":
                    there.bluez.switch(True)
                else:
                    await there.bluez.stop()
                    await there.start_bluez()
                await until(lambda: len(listener.delivered) > count + 1)

    asyncio.run(scenario())
    assert len(said(caplog, "line back")) == 1


def test_scan_that_hears_nothing_at_all_is_begun_anew_and_said_once(monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    async def scenario():
        async with park(monkeypatch) as there:
            for sim in there.sims.values():
                sim.faults.add("silent")
            listener = Listener(deaf_after_s=0.2)
            async with listener.running():
                await until(lambda: listener.line.counters.restarted >= 3)
                there.sims["park-1"].faults.clear()
                await until(lambda: listener.of("park-1"))
            return listener

    asyncio.run(scenario())
    assert len(said(caplog, "line deaf")) == 1
    assert not said(caplog, "line down")


def test_foreign_voices_keep_a_scan_alive(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            for sim in there.sims.values():
                sim.faults.add("silent")
            for address, tick in strangers(20, seed=3):
                there.air.place(address, tick)
            listener = Listener(deaf_after_s=0.5)
            async with listener.running():
                await until(lambda: listener.line.counters.foreign >= 100)
            return listener

    assert asyncio.run(scenario()).line.counters.restarted == 0


def test_storm_costs_the_older_advertisements_and_no_memory(monkeypatch):
    async def scenario():
        async with park(monkeypatch) as there:
            numbers = itertools.count()
            head = bytes.fromhex("0201060716d2fc400d")  # PM2.5, rising with each advertisement
            there.air.place(PLAIN["address"], lambda _: head + next(numbers).to_bytes(2, "little"))
            listener = Listener({"park-1": PLAIN})
            listener.hold.clear()
            async with listener.running():
                await until(lambda: listener.line.counters.overtaken >= 20)
                assert len(listener.line._waiting) <= 1
                listener.hold.set()
                await until(lambda: len(listener.of("park-1")) >= 2)
            first, second = (int(values["pm2_5"]) for values in listener.of("park-1")[:2])
            assert second - first >= 20, "the newest one is kept"

    asyncio.run(scenario())


def test_line_without_an_address_or_with_one_twice_is_refused():
    with pytest.raises(ConfigError, match=r"devices\.a\.settings\.address: is missing"):
        Listener({"a": {}})
    with pytest.raises(ConfigError, match="a has it already"):
        Listener({"a": {"address": "F0:CA:FE:00:00:01"}, "b": {"address": "f0cafe000001"}})


def test_configuration_finds_a_sensor_without_address_and_one_that_is_named_twice(tmp_path):
    file = tmp_path / "park.toml"
    head = '[gateway]\nname = "g"\ncity = "c"\n[uplink]\nbrokers = ["mqtt://h"]\n[lines.park]\nkind = "ble"\n'
    device = '[devices.{}]\nline = "park"\ndriver = "bthome"\nsettings = {}\n'
    file.write_text(head + device.format("a", "{}"))
    assert "devices.a.settings.address: is missing" in config.examine(file)[1][0]
    twice = device.format("a", '{address = "F0:CA:FE:00:00:01"}') + device.format("b", '{address = "f0cafe000001"}')
    file.write_text(head + twice)
    assert "devices.b" in config.examine(file)[1][0]


def test_structures_are_those_that_went_over_the_air():
    advertisement = AdvertisementData(
        None,
        {0x004C: b"\x10\x05"},
        {
            "0000fcd2-0000-1000-8000-00805f9b34fb": b"\x40\x01\x5d",
            "12345678-0000-1000-8000-00805f9b34fb": b"\x01",
            "6e400001-b5a3-f393-e0a9-e50e24dcca9e": b"\x02",
        },
        [], None, -60, (),
    )  # fmt: skip
    assert structures(advertisement).hex() == (
        "0616d2fc40015d" + "062078563412" + "01" + "12219ecadc240ee5a9e093f3a3b50100406e02" + "05ff4c001005"
    )


def start_sim(tmp_path, *arguments, **kwargs):
    command = [sys.executable, "-m", "bega", "sim", "ble", "--ready-file", tmp_path / "ready.json", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)


def test_command_puts_the_towns_park_on_the_air_and_ends_cleanly(monkeypatch, tmp_path):
    skip_without_dbus_daemon()
    epoch = 1_790_000_000
    process = start_sim(tmp_path, "--seed", "7", "--epoch", str(epoch), "--speed", "0", "--beacons", "5")
    try:
        deadline = time.monotonic() + WITHIN_S
        while not (tmp_path / "ready.json").exists():
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        facts = json.loads((tmp_path / "ready.json").read_text())
        assert facts["sensors"] == SENSORS
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", facts["bus"])

        async def scenario():
            listener = Listener(facts["sensors"])
            async with listener.running():
                await until(lambda: listener.of("park-1") and listener.of("park-2"))
            return listener

        listener = asyncio.run(scenario())
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=2) == 0
    assert not Path(facts["bus"].removeprefix("unix:path=")).exists()
    assert process.stderr.read() == ""
    for name in SENSORS:
        town = Town(7).readings(name, epoch)
        heard = listener.of(name)[0]
        assert set(heard) >= {"temperature", "humidity", "pm2_5", "pm10", "battery"}
        assert abs(float(heard["temperature"]) - town["temperature", ""]) <= 0.005
        assert abs(float(heard["pm2_5"]) - town["pm2_5", ""]) <= 0.5


def test_command_says_what_is_missing_where_there_is_no_dbus_daemon(tmp_path):
    process = start_sim(tmp_path, env={"PATH": str(tmp_path)})
    _, said_text = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert said_text.splitlines() == [
        "bega sim ble: dbus-daemon is missing, which simulated Bluetooth needs: apt-get install dbus"
    ]
