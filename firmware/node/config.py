"""The node's configuration, config.json on its flash: every key known, or it says which is not."""

import json

from bega_protocols.errors import ConfigError
from bega_protocols.settings import only, whole_number

DEFAULT_EVERY_S = 10
FORMS = ("8N1", "8E1", "8O1", "8N2", "7E1")
WAYS = ("broker", "uplink", "beacon")  # out of the node, each a module that reads its own part of the configuration


def read_config(path, board):
    """Return the configuration, whole, with what `board` says of each device filled in. Raises ConfigError."""
    try:
        with open(path) as file:
            config = json.load(file)
    except OSError:
        raise ConfigError("%s is missing" % path)
    except ValueError:
        raise ConfigError("%s is no JSON" % path)
    if not isinstance(config, dict):
        raise ConfigError("%s is no table" % path)
    only(
        config, "node", "made_s", "wifi", "devices", "watchdog_s", "ring_segments", "battery", "buses", "led_pin", *WAYS
    )
    ways = [way for way in WAYS if way in config]
    if len(ways) != 1:
        raise ConfigError("name one way out, not %s: %s" % (" and ".join(ways) or "none", ", ".join(WAYS)))
    way = ways[0]
    try:
        module = __import__(way)
    except ImportError:
        raise ConfigError("this firmware was built without the way %s" % way)
    return {
        "node": name_in(config, "node"),
        "made_s": whole_number(config, "made_s", 0, 4000000000, 0),
        "way": way,
        way: module.read(config),
        "watchdog_s": whole_number(config, "watchdog_s", 5, 3600, 60),
        "ring_segments": whole_number(config, "ring_segments", 0, 100000, 0),
        "battery": _battery(config),
        "buses": _buses(table_in(config, "buses"), board) if "buses" in config else {},
        "led_pin": _pin(config, "led_pin", board) if "led_pin" in config else getattr(board, "LIGHT", {}).get("led"),
        "devices": _devices(table_in(config, "devices"), board),
    }


def _battery(config):
    """Return how often a node on a battery wakes, and how often it sends; None for one on mains."""
    if "battery" not in config:
        return None
    battery = table_in(config, "battery")
    only(battery, "every_s", "send_every_s")
    every_s = whole_number(battery, "every_s", 5, 86400, 600)
    return {"every_s": every_s, "send_every_s": whole_number(battery, "send_every_s", every_s, 86400, every_s)}


def _buses(lines, board):
    """Return the rate and form of the lines that are not spoken on as their drivers usually do, by the bus's name."""
    for name in lines:
        baud, _, form = str(lines[name]).partition(" ")
        is_uart = name in board.BUSES and board.BUSES[name]["kind"] == "uart"
        if not is_uart or not baud.isdigit() or not 300 <= int(baud) <= 115200 or form not in FORMS:
            raise ConfigError('buses.%s: name a UART of this board, and "9600 8N1" or the like' % name)
    return lines


def _devices(devices, board):
    found = []
    for name in sorted(devices):
        device = dict(board.DEVICES.get(name, {}))
        device.update(table_in(devices, name))
        only(device, "driver", "bus", "every_s", "settings", "power_pin", "beside", "actions")
        bus = device.get("bus")
        if bus not in board.BUSES:
            raise ConfigError("devices.%s.bus is %r; this board has %s" % (name, bus, ", ".join(sorted(board.BUSES))))
        every_s = device.get("every_s", DEFAULT_EVERY_S)
        if not isinstance(every_s, (int, float)) or isinstance(every_s, bool) or not 0.1 <= every_s <= 86400:
            raise ConfigError("devices.%s.every_s must be a number from 0.1 to 86400, not %r" % (name, every_s))
        settings = device.get("settings", {})
        if not isinstance(settings, dict):
            raise ConfigError("devices.%s.settings must be a table" % name)
        found.append(
            {
                "name": name_in({"name": name}, "name"),
                "driver": word_in(device, "devices.%s.driver" % name, "driver"),
                "bus": bus,
                "every_ms": int(every_s * 1000),
                "settings": settings,
                "power_pin": _pin(device, "power_pin", board) if "power_pin" in device else None,
                "beside": _beside(device, name, devices),
                "actions": _actions(device, "devices.%s.actions" % name),
            }
        )
    if not found:
        raise ConfigError("devices names no device")
    return found


def _pin(table, key, board):
    """Return the pin table[key]; raises ConfigError if it is no pin, or one of a bus."""
    pin = whole_number(table, key, 0, 48)
    for name in board.BUSES:
        for end in board.BUSES[name]:
            if end not in ("id", "kind") and board.BUSES[name][end] == pin:
                raise ConfigError("%s: pin %d is that of bus %s" % (key, pin, name))
    return pin


def _beside(device, name, devices):
    """Return which other device's measurements this one's driver is told, "" for none."""
    other = device.get("beside", "")
    if other and ("beside" not in devices.get(name, {}) and other not in devices):
        return ""  # the board file's: that one is not plugged in
    if not isinstance(other, str) or other == name or (other and other not in devices):
        raise ConfigError("devices.%s.beside must be another device, not %r" % (name, other))
    return other


def _actions(device, place):
    actions = device.get("actions", [])
    if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
        raise ConfigError("%s must be a list of names" % place)
    if actions:
        try:
            __import__("acts")
        except ImportError:
            raise ConfigError("%s: this firmware was built without actions" % place)
    return actions


def table_in(tables, key):
    """Return the table tables[key]; raises ConfigError if it is missing."""
    value = tables.get(key)
    if not isinstance(value, dict):
        raise ConfigError("%s is missing, or no table" % key)
    return value


def word_in(table, place, key):
    """Return the text table[key], which the technician knows as `place`; raises ConfigError."""
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError("%s must be text" % place)
    return value


def name_in(table, key):
    """Return a name that may stand in a topic: letters, digits, - and _."""
    name = word_in(table, key, key)
    for letter in name:
        if not (letter.isalpha() or letter.isdigit() or letter in "-_") or ord(letter) > 127:
            raise ConfigError("%s must be letters, digits, - and _, not %r" % (key, name))
    return name
