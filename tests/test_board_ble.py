"""A virtual board's Bluetooth: what its firmware advertises, heard by the gateway through bleak's usual way."""

import asyncio
from types import SimpleNamespace

import pytest

from bega_simulators.board.control import serve_control
from bega_simulators.hosts.ble_board import Beacon, follow
from tests.ble_park import Listener, park, until
from tests.shim_bench import MICROPYTHON, Bench

pytestmark = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")

# BTHome v2, "BTHome data format": flags; service data of FCD2: plain, packet id 9, temperature 21.34.
PACKET = "020106" + "0916d2fc40" + "0009" + "025608"
FIRST = f"""
import bluetooth, json, time
ble = bluetooth.BLE()
seen = [bluetooth.BLE().active(), ble.active()]
try:
    ble.gap_advertise(100000, b"x")
except OSError as error:
    seen.append(error.errno)
seen.append(ble.active(True))
kind, mac = ble.config("mac")
ble.gap_advertise(100000, adv_data=bytes.fromhex("{PACKET}"), connectable=False)
print("go")
"""


def test_what_is_advertised_is_shown_with_its_address_until_it_ends():
    bench = Bench(seed=5)
    shown = []
    program = f"""{FIRST}
time.sleep_ms(200)
ble.gap_advertise(500000)
time.sleep_ms(200)
ble.gap_advertise(None)
print(json.dumps(seen + [kind, mac.hex()]))
"""

    async def look(peripherals):
        for _ in range(3):
            shown.append(peripherals.state()["advertises"])
            await asyncio.sleep(0.2)

    assert bench.run(program, look) == [False, False, 19, True, 0, "240ac4000016"]
    first = {"address": "24:0A:C4:00:00:16", "data": PACKET, "interval_ms": 100, "connectable": False}
    assert shown[0] == first
    assert bench.peripherals.state()["advertises"] is None
    again = {**first, "interval_ms": 500, "connectable": True}
    assert all(what in (first, again, None) for what in shown)


def test_reset_ends_the_advertisement():
    bench = Bench()
    assert bench.run(FIRST + "import machine; machine.reset()") is None
    bench.reboot()
    assert bench.peripherals.state()["advertises"] is None


def test_too_long_an_advertisement_is_refused():
    program = """
import bluetooth
ble = bluetooth.BLE()
ble.active(True)
try:
    ble.gap_advertise(100000, bytes(32))
except ValueError:
    print("true")
"""
    assert Bench().run(program) is True


def test_beacon_sends_once_an_interval_and_at_once_what_is_new():
    beacon = Beacon()
    assert beacon.tick(0) == b""
    beacon.set({"address": "", "data": "01", "interval_ms": 100})
    assert [beacon.tick(now_ms) for now_ms in (5, 50, 104, 105, 204, 210)] == [b"\1", b"", b"", b"\1", b"", b"\1"]
    beacon.set({"address": "", "data": "02", "interval_ms": 100})
    assert beacon.tick(211) == b"\2"
    beacon.set(None)
    assert beacon.tick(1000) == b""


def test_gateway_hears_the_board_as_it_hears_any_sensor(monkeypatch, tmp_path):
    async def scenario():
        bench = Bench()
        path = tmp_path / "control"
        server = await serve_control(path, bench.peripherals, SimpleNamespace(resets=0, in_rom=False))
        async with park(monkeypatch) as there:
            following = asyncio.create_task(follow(there.air, path))
            program = asyncio.create_task(bench.running(FIRST + "time.sleep(9)\nprint(1)"))
            listener = Listener({"board": {"address": "24:0A:C4:00:00:06"}})
            async with listener.running():
                await until(lambda: listener.of("board"))
            for task in (program, following):
                task.cancel()
            await asyncio.gather(program, following, return_exceptions=True)
        server.close()
        return listener.of("board")[0]

    assert asyncio.run(scenario())["temperature"] == "21.34"
