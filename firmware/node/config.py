"""The node's configuration, config.json on its flash: every key known, or it says which is not."""

import json

from bega_protocols.errors import ConfigError
from bega_protocols.settings import only, whole_number

DEFAULT_EVERY_S = 10


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
    only(config, "node", "made_s", "wifi", "broker", "devices", "watchdog_s", "ring_segments")
    broker = _table(config, "broker")
    only(broker, "host", "port", "keep_alive_s", "tls")
    wifi = _table(config, "wifi")
    only(wifi, "ssid", "key")
    return {
        "node": _name(config, "node"),
        "made_s": whole_number(config, "made_s", 0, 4000000000, 0),
        "wifi": {"ssid": _word(wifi, "wifi.ssid", "ssid"), "key": _wifi_key(wifi)},
        "host": _word(broker, "broker.host", "host"),
        "port": whole_number(broker, "port", 1, 65535, 8883 if broker.get("tls") else 1883),
        "keep_alive_s": whole_number(broker, "keep_alive_s", 2, 3600, 20),
        "tls": _tls(broker),
        "watchdog_s": whole_number(config, "watchdog_s", 5, 3600, 60),
        "ring_segments": whole_number(config, "ring_segments", 0, 100000, 0),
        "devices": _devices(_table(config, "devices"), board),
    }


def _devices(devices, board):
    found = []
    for name in sorted(devices):
        device = dict(board.DEVICES.get(name, {}))
        device.update(_table(devices, name))
        only(device, "driver", "bus", "every_s", "settings")
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
                "name": _name({"name": name}, "name"),
                "driver": _word(device, "devices.%s.driver" % name, "driver"),
                "bus": bus,
                "every_ms": int(every_s * 1000),
                "settings": settings,
            }
        )
    if not found:
        raise ConfigError("devices names no device")
    return found


def _wifi_key(wifi):
    key = wifi.get("key", "")
    if not isinstance(key, str):
        raise ConfigError("wifi.key must be text")  # never the value: it is a secret
    return key


def _tls(broker):
    """Return the file names of authority, certificate and key (DER), None if the link is plain."""
    if "tls" not in broker:
        return None
    tls = _table(broker, "tls")
    only(tls, "ca", "certificate", "key")
    return {part: _word(tls, "broker.tls." + part, part) for part in ("ca", "certificate", "key")}


def _table(tables, key):
    value = tables.get(key)
    if not isinstance(value, dict):
        raise ConfigError("%s is missing, or no table" % key)
    return value


def _word(table, place, key):
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError("%s must be text" % place)
    return value


def _name(table, key):
    """Return a name that may stand in a topic: letters, digits, - and _."""
    name = _word(table, key, key)
    for letter in name:
        if not (letter.isalpha() or letter.isdigit() or letter in "-_") or ord(letter) > 127:
            raise ConfigError("%s must be letters, digits, - and _, not %r" % (key, name))
    return name
