"""A node whose way out is Bluetooth: what it advertises, heard by the gateway through bleak's usual way."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bega_protocols.reading import Reading, decimal_text
from bega_simulators.hosts.ble_board import follow
from tests.ble_park import Listener, park, skip_without_dbus_daemon
from tests.node_park import MICROPYTHON, NODE, NodeProcess
from tests.shim_bench import Bench
from tests.test_ble_gateway import ParkInAThread
from tests.test_bthome import reference

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)

IS_NIGHTLY = os.environ.get("BEGA_PROFILE") == "nightly"
at_night = pytest.mark.skipif(not IS_NIGHTLY, reason="a minute of waiting: make nightly PART=firmware")
ROOT = Path(__file__).parent.parent
KEY = "231d39c1d7cc1ab1aee224cd096db932"
ADDRESS = "24:0A:C4:00:00:06"  # of the virtual board
SETTINGS = {"address": ADDRESS, "key": KEY}
MADE_S = 1_795_300_000
WITHIN_S = 30.0
GATEWAY = f"""
[gateway]
name = "gw-park"
city = "timisoara"
commit_window_s = 0.05
[uplink]
brokers = ["{{broker}}"]
[lines.park]
kind = "ble"
[devices.board]
line = "park"
driver = "bthome"
every_s = 0.2
settings = {{{{ address = "{ADDRESS}", key = "{KEY}" }}}}
"""


class BeaconProcess(NodeProcess):
    """`bega sim board` with a beacon's configuration."""

    def __init__(self, directory: Path, *arguments: str, **config: Any) -> None:
        beacon = {"key": KEY, "interval_ms": 300, "name": "Bega 7"}
        super().__init__(directory, 0, made_s=MADE_S, **{"beacon": beacon, **config})
        self._arguments = arguments

    def start(self, *arguments: str, comes_up: bool = True) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bega", "sim", "board", "--config", self._config, "--flash", self.flash]
        more = ["--ready-file", self._ready, "--verbose", *self._arguments, *arguments]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen([*command, *more], stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while comes_up and not self._ready.exists():
            assert self._child.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def control(self) -> Path:
        return Path(json.loads(self._ready.read_text())["control"])

    def on_air(self) -> bytes:
        """Return what is advertised now, b"" if nothing is."""
        with socket.socket(socket.AF_UNIX) as bench:
            bench.settimeout(5)
            bench.connect(str(self.control()))
            bench.sendall(b"{}\n")
            advertised = json.loads(bench.makefile().readline())["advertises"]
        return bytes.fromhex(advertised["data"]) if advertised else b""


async def until(listener: Listener, condition: Any, within_s: float = WITHIN_S) -> dict[str, str]:
    """Wait for a record of the board that fits, and return it."""
    async with asyncio.timeout(within_s):
        while True:
            found = next((record for record in listener.of("board") if condition(record)), None)
            if found:
                return found
            await asyncio.sleep(0.05)


def ids(listener: Listener) -> list[int]:
    return [int(record["packet_id"]) for record in listener.of("board")]


def test_gateway_hears_what_a_beacon_measures_and_after_a_power_cut_no_number_twice(monkeypatch, tmp_path):
    node = BeaconProcess(tmp_path, "--sensor", "sht=sht4x@i2c0", "--heap", "60wk", devices={"sht": {"every_s": 1}})
    listener = Listener({"board": SETTINGS})
    driver = listener.stations["board"].driver

    async def scenario():
        async with park(monkeypatch) as there, listener.running():
            await asyncio.to_thread(node.start)
            following = asyncio.create_task(follow(there.air, node.control()))
            node.order(air={"temperature": 21.34, "humidity": 48.76})
            heard = await until(listener, lambda record: record.get("temperature") == "21.34")
            assert (heard["humidity"], heard["problem"]) == ("48.76", "0")
            said = node.on_air()
            assert said[:3] == b"\x02\x01\x06" and len(said) <= 31
            by_reference = reference(SETTINGS, said[7:])
            assert by_reference["temperature", ""] == Decimal("21.34")

            node.kill()
            following.cancel()
            before = ids(listener)
            await asyncio.to_thread(node.start)
            following = asyncio.create_task(follow(there.air, node.control()))
            node.order(air={"temperature": 3.2})
            await until(listener, lambda record: record.get("temperature") == "3.20")
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            return said, before

    try:
        said, before = asyncio.run(scenario())
    finally:
        node.stop()
    found = ids(listener)
    assert found == sorted(set(found)), "no packet twice, none out of order"
    assert before[0] == MADE_S + 1
    assert found[len(before)] == MADE_S + 257, "what was left of the step is left out"
    assert listener.stations["board"].counters.damaged == 0
    assert driver.feed(said, 0) == []
    assert "a replay" in driver.damaged[0][1].why


@at_night
def test_gateway_as_shipped_publishes_what_a_beacon_measured(tmp_path, embedded, make_gateway, make_reader, eventually):
    skip_without_dbus_daemon()
    node = BeaconProcess(tmp_path, "--sensor", "sht=sht4x@i2c0", devices={"sht": {"every_s": 1}})
    reader = make_reader(embedded.url)
    with contextlib.closing(ParkInAThread()) as there:
        gateway = make_gateway(GATEWAY.format(broker=embedded.url))
        gateway.start(DBUS_SYSTEM_BUS_ADDRESS=there.park.bus.address)
        node.start()
        try:
            node.order(air={"temperature": 21.34, "humidity": 48.76})
            following = asyncio.run_coroutine_threadsafe(follow(there.park.air, node.control()), there._loop)

            def found():
                wanted = {Reading("temperature", 2134, -2), Reading("humidity", 4876, -2), Reading("problem", 0)}
                return [record for record in list(reader.records) if wanted <= set(record.readings)]

            eventually(found, "what was measured is published")
            assert (found()[0].source, found()[0].device) == ("gw-park", "board"), "who hears a beacon is its source"
            following.cancel()
        finally:
            node.stop()
        assert gateway.stop() == 0
    assert "Traceback" not in gateway.log.read_text()


@at_night
def test_of_a_silent_sensor_no_value_is_said_and_a_problem_is(monkeypatch, tmp_path):
    node = BeaconProcess(tmp_path, "--sensor", "sht=sht4x@i2c0", devices={"sht": {"every_s": 1}})
    listener = Listener({"board": SETTINGS})

    async def scenario():
        async with park(monkeypatch) as there, listener.running():
            await asyncio.to_thread(node.start)
            following = asyncio.create_task(follow(there.air, node.control()))
            await until(listener, lambda record: "temperature" in record)
            node.order(faults={"sht": ["silent"]})
            heard = await until(listener, lambda record: record["problem"] == "1")
            assert set(heard) == {"packet_id", "problem"}
            node.order(faults={"sht": []}, air={"temperature": -5})
            heard = await until(listener, lambda record: record.get("temperature") == "-5.00")
            assert heard["problem"] == "0"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    try:
        asyncio.run(scenario())
    finally:
        node.stop()


@at_night
def test_total_of_a_pulse_meter_goes_on_over_a_power_cut(monkeypatch, tmp_path):
    flat = {"driver": "pulses", "bus": "s0", "every_s": 1}
    flat["settings"] = {"pulses_per_kwh": 1000, "start": "123456.789"}
    node = BeaconProcess(tmp_path, "--kind", "meter", "--sensor", "main=dsmr_p1@uart1", devices={"flat": flat})
    listener = Listener({"board": SETTINGS})

    async def scenario():
        async with park(monkeypatch) as there, listener.running():
            for shown in ("123456.789", "123456.794"):
                await asyncio.to_thread(node.start)
                following = asyncio.create_task(follow(there.air, node.control()))
                await until(listener, lambda record, shown=shown: record.get("active_energy_total") == shown)
                if shown.endswith("789"):
                    node.order(pulses={"27": {"times": 5, "low_ms": 40, "high_ms": 40}})
                    await until(listener, lambda record: record.get("active_energy_total") == "123456.794")
                    node.kill()
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    try:
        asyncio.run(scenario())
    finally:
        node.stop()
    totals = [record["active_energy_total"] for record in listener.of("board") if "active_energy_total" in record]
    assert totals == sorted(totals)


@at_night
def test_beacon_on_a_battery_counts_on_through_its_sleeps(tmp_path):
    """Each wake measures, is heard, and uses one number; none is left out, since the chip's memory keeps the last."""
    node = BeaconProcess(
        tmp_path,
        *("--sensor", "sht=sht4x@i2c0"),
        devices={"sht": {}},
        battery={"every_s": 5},
        beacon={"key": KEY, "interval_ms": 100},
    )
    listener = Listener({"board": SETTINGS})
    heard: list[int] = []
    node.start()
    try:
        deadline = time.monotonic() + 90
        while len(heard) < 5 and time.monotonic() < deadline:
            packet = node.on_air()
            for group in listener.stations["board"].driver.feed(packet, 0) if packet else []:
                heard.append(next(row.value for row in group if row.quantity == "packet_id"))
            time.sleep(0.1)
    finally:
        node.stop()
    assert heard == [MADE_S + number for number in range(1, 6)], node.said()
    assert node.said().count("sleeps for") >= 4


@at_night
def test_configuration_by_which_it_measured_for_a_minute_is_kept(tmp_path):
    """Nobody can confirm it to who hears nobody; a reset before that minute would lead back to the former one."""
    node = BeaconProcess(tmp_path, "--sensor", "sht=sht4x@i2c0", devices={"sht": {"every_s": 1}})
    new = {
        "node": NODE,
        "made_s": MADE_S,
        "beacon": {"key": KEY, "interval_ms": 200},
        "devices": {"sht": {"every_s": 1}},
    }
    (tmp_path / "new.json").write_text(json.dumps(new))
    intervals = []
    try:
        for put, rest_s in ((("--put", f"{tmp_path / 'new.json'}=/config.new"), 75), ((), 5)):
            node.start("--as-is" if not put else "--verbose", *put)
            time.sleep(rest_s)
            intervals.append(node.order()["advertises"]["interval_ms"])
            node.kill()
    finally:
        node.stop()
    assert intervals == [200, 200], node.said()


# ------------------------------------------------------------------ its parts, on the chip

ON_CHIP = f"""
import json, sys
sys.path[:0] = [{str(ROOT / "firmware/node")!r}, {str(ROOT / "protocols")!r}, {str(ROOT / "firmware/boards")!r}]
import esp32_devkitc
sys.modules["board"] = esp32_devkitc
import beacon
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, STALE, SUSPECT, Reading

class Numbers:
    last = 7
    def next(self):
        self.last += 1
        return self.last

class Device:
    def __init__(self, name, state="ok", every_ms=10000):
        self.name, self.state, self.every_ms = name, state, every_ms

def air(*devices, interval_ms=1000, battery=False):
    table = beacon.read({{"beacon": {{"key": "{KEY}", "interval_ms": interval_ms}}}})
    made = beacon.Air(table, Numbers(), battery)
    made.sensors = devices
    return made
"""


def objects_of(*steps: str) -> Any:
    return Bench().run(ON_CHIP + "\n".join(steps))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('{"beacon": {}}', "key must be 16 bytes in hex"),
        ('{"beacon": {"key": "00"}}', "key must be 16 bytes in hex, not 1"),
        ('{"beacon": {"key": "%s", "interval_ms": 50}}' % KEY, "interval_ms must be a whole number from 100 to 10240"),
        ('{"beacon": {"key": "%s", "name": "%s"}}' % (KEY, "x" * 30), "beacon.name has more than 29 bytes"),
        ('{"beacon": {"key": "%s", "power": 1}}' % KEY, "unknown setting power"),
        ('{"beacon": {"key": "%s"}, "wifi": {}}' % KEY, "no meaning for a beacon"),
        ('{"beacon": {"key": "%s"}, "battery": {"send_every_s": 60}}' % KEY, "no meaning for a beacon"),
    ],
    ids=["no key", "short key", "interval", "name", "unknown", "wifi", "send"],
)
def test_configuration_that_cannot_be_is_said(table, words):
    steps = ["try:", f"    beacon.read({table})", "except ConfigError as error:", "    print(json.dumps(str(error)))"]
    said = objects_of(*steps)
    assert words in said
    assert KEY not in said


def test_what_is_doubted_or_has_no_place_is_not_said_and_a_quantity_has_one_sayer():
    said = objects_of(
        "it = air(Device('bme'), Device('pms'), Device('sht', 'silent'), Device('z'))",
        "it.take('pms', 0, [Reading('pm1', 3), Reading('pm2_5', 12), Reading('pm10', 20, 0, '', SUSPECT)])",
        "it.take('bme', 0, [Reading('temperature', 2100, -2), Reading('pressure', 0, 0, '', STALE)])",
        "it.take('sht', 0, [Reading('temperature', 2300, -2), Reading('humidity', 50)])",
        "it.take('z', 0, [Reading('active_energy_total', 5), Reading('active_energy_import', 6)])",
        "found = [one.hex() for one in it._objects()]",
        "print(json.dumps([found, it._left_out]))",
    )
    # temperature 21 of bme alone; humidity not, since sht is silent, which is the problem
    assert sorted(said[0]) == sorted(["2601", "0d0c00", "023408", "4d88130000"])
    assert said[1] == [["pms", "pm1", ""], ["sht", "temperature", ""], ["z", "active_energy_import", ""]]


def test_packet_is_on_the_air_for_its_share_of_a_window():
    said = objects_of(
        "slow, fast = Device('a', 'ok', 600000), Device('b', 'ok', 4000)",
        "turns = [air(slow)._turn_ms(2, False), air(slow)._turn_ms(2, True)]",
        "turns.append(air(slow, battery=True)._turn_ms(1, True))",
        "turns += [air(slow, fast)._turn_ms(2, False), air(fast, interval_ms=100)._turn_ms(2, False)]",
        "print(json.dumps(turns))",
    )
    assert said == [10000, 3000, 10000, 3000, 1000]


def test_several_packets_take_turns_each_with_a_number_of_its_own():
    """Nine quantities are three packets; the gateway hears all of them."""
    quantities = {"temperature": 21, "humidity": 50, "pressure": 1013, "pm2_5": 12, "pm10": 20, "co2": 800}
    quantities |= {"illuminance": 300, "battery": 90, "tvoc": 40}
    readings = ", ".join(f"Reading({name!r}, {value})" for name, value in quantities.items())
    program = [
        "import asyncio",
        "it = air(Device('all', 'ok', 1000), interval_ms=100)",
        f"it.take('all', 0, [{readings}])",
        "async def main():",
        "    speaking = asyncio.create_task(it.run(lambda: None))",
        "    print('go')",
        "    await asyncio.sleep(4)",
        "asyncio.run(main())",
        "print(json.dumps(it.seq))",
    ]
    heard: list[str] = []

    async def look(peripherals):
        for _ in range(38):
            now = peripherals.state()["advertises"]
            if now and now["data"] not in heard:
                heard.append(now["data"])
            await asyncio.sleep(0.1)

    assert Bench().run(ON_CHIP + "\n".join(program), look) == 10
    listener = Listener({"board": SETTINGS})
    groups = [listener.stations["board"].driver.feed(bytes.fromhex(data), 0)[0] for data in heard]
    assert [group[0].value for group in groups] == [8, 9, 10]
    values = {row.quantity: Decimal(decimal_text(row.value, row.exp10)) for group in groups for row in group[1:]}
    assert values == {**quantities, "problem": 0}
