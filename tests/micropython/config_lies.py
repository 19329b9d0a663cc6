# Each value of a configuration in turn is something else that JSON can say: it is taken, or refused as a configuration.
# Run as: micropython config_lies.py FILE; FILE is written again and again. Its last line is "<n> lies".
import json
import sys


class Board:
    BUSES = {  # noqa: RUF012 - a board file's names
        "i2c0": {"id": 0, "kind": "i2c", "sda": 1, "scl": 2},
        "uart1": {"id": 1, "kind": "uart", "tx": 3, "rx": 4},
        "s0": {"kind": "pulses", "pin": 5},
    }
    DEVICES = {"sht": {"driver": "sht4x", "bus": "i2c0"}}  # noqa: RUF012


sys.modules["board"] = Board

from config import read_config  # noqa: E402 - a way reads the board when it is loaded

from bega_protocols.errors import ConfigError  # noqa: E402

COMMON = {
    "node": "air-1",
    "made_s": 1795300000,
    "watchdog_s": 60,
    "ring_segments": 3,
    "led_pin": 9,
    "devices": {"sht": {"every_s": 1, "settings": {"precision": "high"}, "power_pin": 8, "actions": ["x"]}},
}
WIFI = {
    "wifi": {"ssid": "city", "key": "secret"},
    "broker": {"host": "h", "port": 1, "keep_alive_s": 20, "tls": {"ca": "a", "certificate": "b", "key": "c"}},
    "battery": {"every_s": 60, "send_every_s": 600},
    "buses": {"uart1": "9600 8N1"},
}
CABLE = {"uplink": {"bus": "uart1", "baud": 9600, "key": "00" * 32}}
LIES = [None, 5, -1, 1 << 70, 1.5, "x", "", "é", [], [[]], [1], {}, {"a": 1}, {"sht": 5}, {"uart1": []}, True]


def places(table, path=()):
    yield path
    if isinstance(table, dict):
        for key in table:
            for place in places(table[key], path + (key,)):
                yield place


def with_lie(table, path, lie):
    if not path:
        return lie
    changed = dict(table)
    changed[path[0]] = with_lie(table[path[0]], path[1:], lie)
    return changed


def read(table):
    with open(sys.argv[1], "w") as file:
        json.dump(table, file)
    return read_config(sys.argv[1], Board)


told = 0
for way in (WIFI, CABLE):
    whole = dict(COMMON)
    whole.update(way)
    read(whole)
    for path in list(places(whole)):
        for lie in LIES:
            told += 1
            try:
                read(with_lie(whole, path, lie))
            except ConfigError:
                pass
            except Exception as error:
                print(path, lie, repr(error))
                raise
print("%d lies" % told)
