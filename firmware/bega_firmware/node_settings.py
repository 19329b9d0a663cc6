"""A node's /config.json: what the site, the board file and the firmware on it say, made into one table.

What its keys mean is docs/firmware.md, "Configuration".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bega.devices import load_driver
from bega_firmware.board import Board, board_names, read_board
from bega_firmware.cable import Cable, CableError
from bega_firmware.contents import COUNTER
from bega_firmware.node_identity import TLS
from bega_firmware.site import Site
from bega_protocols.errors import ConfigError
from bega_protocols.pulses import read_settings as read_contact

CONFIG, LEFT_OVER = "/config.json", ("/config.new", "/config.new~", "/config.trial", "/config.good", "/config.json~")
SLOTS, STATE = ("a", "b"), "/state/slot"
WAYS = {"wifi": "broker", "serial": "uplink", "ble": "beacon"}  # our word, and the firmware's (node/config.py)
SOONEST_S, SELDOM_S = 0.1, 86_400  # of every_s, or the node refuses it (firmware/node/config.py)
OURS = ("node", "made_s", "wifi", "broker", "uplink", "beacon", "devices")


@dataclass(frozen=True)
class OnBoard:
    """What lies on a board."""

    board: Board
    version: str
    drivers: tuple[str, ...]
    ways: tuple[str, ...]
    chip: str  # its number, in hex
    config: dict[str, Any] | None  # its settings now: with secrets


def look(cable: Cable, board_key: str | None = None) -> OnBoard:
    """Return what is on the board. board_key: what the technician says it is. Raises ConfigError."""
    files = cable.listing()
    facts = _facts(cable, files)
    hardware = facts["hardware"]
    if board_key is not None and board_key != hardware:
        raise ConfigError(f"the firmware at {cable.port} is for {hardware}, and not for {board_key}: flash it anew")
    if hardware not in board_names():
        raise ConfigError(f"the firmware at {cable.port} is for {hardware}, which this Bega does not know: update it")
    chip = cable.run("import machine, binascii\nprint(binascii.hexlify(machine.unique_id()).decode())").strip()
    return OnBoard(
        read_board(hardware),
        str(facts["version"]),
        tuple(facts["devices"]),
        tuple(facts["ways"]),
        chip,
        read_settings(cable) if CONFIG in files else None,
    )


def read_settings(cable: Cable) -> dict[str, Any] | None:
    """Return the settings that are on the board, None if there are none that can be read."""
    try:
        found = json.loads(cable.get(CONFIG, is_secret=True))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def settings(
    there: OnBoard,
    site: Site,
    node: str,
    way: str,
    secret: str,
    devices: Sequence[str] = (),
    every_s: float | None = None,
    now_s: int = 0,
    own: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a node's settings. secret: the Wi-Fi password, or the key that it shares with its gateway.

    devices: NAME of the board file, or NAME=DRIVER@BUS; none: what it has, else all that board file and firmware know.
    own: DEVICE.SETTING=VALUE each. Settings of the node that are none of ours (battery, watchdog_s) stay, and so does
    made_s if nothing changes. Raises ConfigError, also for what a driver refuses: the node would, at each start.
    """
    if every_s is not None and not SOONEST_S <= every_s <= SELDOM_S:
        raise ConfigError(f"--every-s is from {SOONEST_S} to {SELDOM_S} seconds")
    before = there.config if there.config is not None and there.config.get("node") == node else {}
    whole: dict[str, Any] = {"node": node, "made_s": now_s, **_way(site, way, secret)}
    whole["devices"] = _devices(
        there, before, devices, every_s, site.uplink.bus if way == "serial" and site.uplink else ""
    )
    for text in own:
        _set(whole["devices"], text, there)
    _require_settings(whole["devices"], there)
    whole.update({key: value for key, value in before.items() if key not in OURS})
    if before.get("made_s") and {**before, "made_s": 0} == {**whole, "made_s": 0}:
        return dict(before)
    return whole


def way_of(site: Site, asked: str | None) -> str:
    """Return the way out of a node: the one asked for, or the only one that the site has. Raises ConfigError."""
    has = {"wifi": site.wifi, "serial": site.uplink, "ble": site.beacon}
    ways = [way for way, table in has.items() if table is not None]
    if asked is not None:
        if asked not in ways:
            raise ConfigError(f"site {site.name} has no {asked}: it has {', '.join(ways)}")
        return asked
    if len(ways) != 1:
        raise ConfigError(f"site {site.name} has {', '.join(ways)}: name one with --uplink")
    return ways[0]


def require_way(there: OnBoard, way: str) -> None:
    """Raise ConfigError if the firmware on the board was built without this way out."""
    if WAYS[way] not in there.ways:
        raise ConfigError(f"the firmware on the board was built without {WAYS[way]} (--way): flash one that has it")


def _way(site: Site, way: str, secret: str) -> dict[str, Any]:
    if way == "serial":
        assert site.uplink is not None
        return {"uplink": {"bus": site.uplink.bus, "baud": site.uplink.baud, "key": secret}}
    if way == "ble":
        assert site.beacon is not None
        return {"beacon": {"key": secret, "interval_ms": site.beacon.interval_ms}}
    assert site.wifi is not None
    row = site.brokers[0]
    broker: dict[str, Any] = {"host": row.host, "port": row.port}
    if row.tls:
        broker["tls"] = {"ca": TLS["ca.der"], "certificate": TLS["node.der"], "key": TLS["node.key"]}
    return {"wifi": {"ssid": site.wifi.ssid, "key": secret}, "broker": broker}


def _devices(
    there: OnBoard, before: Mapping[str, Any], asked: Sequence[str], every_s: float | None, taken: str
) -> dict[str, dict[str, Any]]:
    known = {name: row for name, row in there.board.devices.items() if row.get("bus") != taken}
    had = before.get("devices")
    found: dict[str, dict[str, Any]]
    if asked:
        found = dict(_device(text, there, taken) for text in asked)
        for name, row in found.items():
            kept = had.get(name) if isinstance(had, dict) else None
            if isinstance(kept, dict) and {**kept, **row} == kept:
                found[name] = dict(kept)  # named again, it keeps what it was told
    elif isinstance(had, dict) and had:
        found = {name: dict(row) for name, row in had.items() if isinstance(row, dict)}
    else:
        # A contact is not taken for granted: an open one counts nothing, as one does that nobody has connected.
        found = {name: {} for name, row in known.items() if row["driver"] in there.drivers and row["driver"] != COUNTER}
    if not found:
        raise ConfigError(
            f"no device of the board file {there.board.key} has a driver in the firmware on it "
            f"({', '.join(there.drivers) or 'none'}): name one with --device"
        )
    for row in found.values():
        if every_s is not None:
            row["every_s"] = int(every_s) if every_s == int(every_s) else every_s
    return found


def _device(text: str, there: OnBoard, taken: str) -> tuple[str, dict[str, Any]]:
    name, equals, rest = text.partition("=")
    driver, at, bus = rest.partition("@")
    usual = there.board.devices.get(name)
    if equals and not at:
        raise ConfigError(f"--device {text}: write it as NAME, or NAME=DRIVER@BUS")
    if not equals and usual is None:
        raise ConfigError(f"the board file {there.board.key} has no device {name}: {', '.join(there.board.devices)}")
    if not equals and usual is not None:
        driver, bus = usual["driver"], usual["bus"]
    if bus not in there.board.buses:
        raise ConfigError(f"--device {text}: {there.board.key} has the buses {', '.join(there.board.buses)}")
    if bus == taken:
        raise ConfigError(f"--device {text}: {bus} is the way to the gateway")
    if driver not in there.drivers:
        raise ConfigError(
            f"the firmware on the board has no driver {driver} (it has {', '.join(there.drivers)}): "
            f"build one with --device {driver}, and flash it"
        )
    return name, {"driver": driver, "bus": bus} if equals else {}


def _set(devices: dict[str, dict[str, Any]], text: str, there: OnBoard) -> None:
    """Give a device the setting in "DEVICE.SETTING=VALUE"; a value is as in JSON, and what is none there is text."""
    place, equals, value = text.partition("=")
    name, _, key = place.partition(".")
    if not equals or not key:
        raise ConfigError("--set is written as DEVICE.SETTING=VALUE, as grid.address=3")
    if name not in devices:
        raise ConfigError(f"--set {place}: this node has the devices {', '.join(devices)}")
    if key == "key":
        raise ConfigError(f"--set {place}: a key is a secret, and what stands on a command line is none")
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    usual = there.board.devices.get(name, {}).get("settings", {})
    devices[name]["settings"] = {**usual, **devices[name].get("settings", {}), key: found}


def _require_settings(devices: Mapping[str, dict[str, Any]], there: OnBoard) -> None:
    """Raise ConfigError for settings that a device's driver refuses."""
    for name, row in devices.items():
        table = {**there.board.devices.get(name, {}), **row}
        try:
            if table["driver"] == COUNTER:
                read_contact(table.get("settings", {}))
            else:
                load_driver(table["driver"], table.get("settings", {}))
        except ConfigError as error:
            why = "; ".join(str(error).splitlines())
            raise ConfigError(f"device {name} ({table['driver']}): {why}: --set {name}.SETTING=VALUE") from None


def _facts(cable: Cable, files: Mapping[str, int]) -> dict[str, Any]:
    """Return what the application that will run says of itself."""
    there = [slot for slot in SLOTS if f"/{slot}/facts.json" in files]
    if STATE in files:
        said = cable.get(STATE).decode("ascii", "replace").split(" ")[0]
        there = [said] if said in there else there
    if not there:
        what = "no firmware of Bega on it" if files else "an empty file system"
        raise CableError(f"the board at {cable.port} has {what}: `bega node flash --port {cable.port}`")
    try:
        facts = json.loads(cable.get(f"/{there[0]}/facts.json"))
        if all(key in facts for key in ("hardware", "version", "devices", "ways")):
            return dict(facts)
    except (ValueError, TypeError):
        pass
    raise CableError(f"the firmware at {cable.port} is damaged: `bega node flash --port {cable.port}`")
