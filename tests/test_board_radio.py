"""The virtual chip's Wi-Fi by script, and TLS where the IDF's heap has no room."""

import asyncio
import json

import pytest

from bega_protocols.errors import ConfigError
from bega_simulators.board.peripherals import AirPeripherals
from bega_simulators.board.scenario import play, read_scenario
from tests.shim_bench import MICROPYTHON, Bench

pytestmark = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")

WIFI = """
import json, network, time
wlan = network.WLAN(network.WLAN.IF_STA)
def outcome(do, *args):
    try:
        return do(*args)
    except OSError as error:
        return list(error.args)
def statuses(for_ms):
    seen = []
    for _ in range(for_ms // 10):
        if seen[-1:] != [wlan.status()]:
            seen.append(wlan.status())
        time.sleep_ms(10)
    return seen
"""


def test_station_that_is_off_cannot_connect_and_one_on_its_way_cannot_be_told_again():
    program = f"""{WIFI}
off = [wlan.status(), outcome(wlan.connect, "city", "key"), outcome(wlan.status, "rssi")]
on = wlan.active(True)
wlan.connect("city", "key")
again = outcome(wlan.connect, "city", "key")
seen = statuses(400)
print(json.dumps([off, on, again, seen, wlan.isconnected(), wlan.status("rssi"), wlan.active(False), wlan.status()]))
"""
    off = [1000, ["Wifi Not Started"], ["Wifi Not Connected"]]
    expected = [off, True, ["Wifi Internal State Error"], [1001, 1010], True, -60, False, 1000]
    assert Bench().run(program) == expected


def test_states_follow_the_script_after_each_connect():
    """An ESP32 says "wrong password" of a right one, until it has slept."""
    bench = Bench()
    bench.peripherals.obey({"wifi": {"statuses": [[1001, 100], [202, 100], [201, 100], [1010, 0]], "rssi": -81}})
    program = f"""{WIFI}
wlan.active(True)
wlan.connect("city", "key")
first = statuses(600)
wlan.disconnect()
wlan.connect("city", "key")
print(json.dumps([first, statuses(600), wlan.status("rssi")]))
"""
    assert bench.run(program) == [[1001, 202, 201, 1010], [1001, 202, 201, 1010], -81]


@pytest.mark.parametrize(("key", "status"), [("right", 1010), ("wrong", 202)])
def test_password_is_checked_where_the_bench_sets_one(key, status):
    bench = Bench()
    bench.peripherals.obey({"wifi": {"password": "right"}})
    program = f"{WIFI}\nwlan.active(True)\nwlan.connect('city', '{key}')\ntime.sleep_ms(300)\nprint(wlan.status())"
    assert bench.run(program) == status


def test_connection_that_drops_comes_back_with_the_next_connect():
    program = f"""{WIFI}
wlan.active(True)
wlan.connect("city", "key")
time.sleep_ms(300)
print("go")
time.sleep_ms(200)
lost = [wlan.isconnected(), wlan.status()]
wlan.connect("city", "key")
time.sleep_ms(300)
print(json.dumps([lost, wlan.isconnected()]))
"""
    drop = lambda peripherals: peripherals.obey({"wifi": {"drop": 200}})  # noqa: E731
    assert Bench().run(program, drop) == [[False, 200], True]


TLS = """
import esp32, json, socket, ssl
heap = max(region[2] for region in esp32.idf_heap_info(esp32.HEAP_DATA))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.verify_mode = ssl.CERT_NONE
try:
    context.wrap_socket(socket.socket(), do_handshake_on_connect=False)
    outcome = 0
except OSError as error:
    outcome = error.errno
import ssl as again
print(json.dumps([heap, outcome, again.SSLContext is ssl.SSLContext]))
"""


@pytest.mark.parametrize(("largest", "outcome"), [(20_000, 0), (16_000, 12)])
def test_tls_needs_room_in_one_piece_of_the_heap_that_is_not_micropythons(largest, outcome):
    bench = Bench()
    bench.peripherals.obey({"idf_heap": {"free": 60_000, "largest": largest}})
    assert bench.run(TLS) == [largest, outcome, True]


def test_tls_has_room_on_a_board_that_nobody_starved():
    assert Bench().run(TLS) == [72_704, 0, True]


def test_scenario_gives_its_orders_at_their_times(tmp_path):
    file = tmp_path / "scenario.json"
    rows = [{"at_s": 0.2, "pins": {"4": 1}}, {"at_s": 0, "wifi": {"rssi": -70}, "pins": {"5": 1}}]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    peripherals = AirPeripherals(1, dict, ())

    async def scenario():
        playing = asyncio.create_task(play(read_scenario(file), peripherals))
        await asyncio.sleep(0.1)
        early = [peripherals.pins.level(pin) for pin in (4, 5)]
        await playing
        return early, peripherals.pins.level(4)

    assert asyncio.run(scenario()) == ([0, 1], 1)


@pytest.mark.parametrize("line", ["[]", '{"pins": {}}', '{"at_s": -1}', '{"at_s": 1, "colour": 1}', "nonsense"])
def test_scenario_that_cannot_be_is_refused_before_the_board_starts(tmp_path, line):
    (tmp_path / "scenario.json").write_text('{"at_s": 1, "reset": true}\n' + line)
    with pytest.raises(ConfigError, match=r"scenario\.json, line 2"):
        read_scenario(tmp_path / "scenario.json")
