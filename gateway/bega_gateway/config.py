"""A gateway's configuration: TOML into frozen types. A typo stops the start, with its place in the file.

`gateway/examples/corner.toml` shows every table with its reasons.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from bega.devices import driver_class, load_driver, wire_of
from bega.settings import merge
from bega_protocols.errors import ConfigError

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
NAME_RULE = "a name has up to 64 letters, digits, - and _ (it becomes part of a topic)"
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Audience = Literal["public", "operator", "personal"]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file."""


class Gateway(Table, frozen=True, kw_only=True):
    """Who this gateway is, and where it keeps what must survive."""

    name: Name  # the name in its certificate: topics, client id and `source` of what it reads itself
    city: Name
    state_dir: str = "/var/lib/bega"
    commit_window_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0  # at most this much is lost at a power cut


class Uplink(Table, frozen=True, kw_only=True):
    """Where records go. Nothing is deleted here before the broker has acknowledged it."""

    brokers: list[str]  # mqtt://host:port or mqtts://host:port, tried in this order
    ca_file: str | None = None  # with mqtts: who signed the broker's certificate
    cert_file: str | None = None
    key_file: str | None = None


class Feed(Table, frozen=True, kw_only=True):
    """The public feed over HTTP: only what has the audience `public`."""

    listen: str = "127.0.0.1:8080"
    keep_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 72


class SerialLine(Table, frozen=True, kw_only=True):
    """One device on one serial port."""

    port: str  # /dev/serial/by-id/...: ttyUSB0 changes owner at reboot
    baud: int | None = None  # left out: what the driver says
    parity: Literal["N", "E", "O"] | None = None


class ModbusRtuLine(Table, frozen=True, kw_only=True):
    """One RS-485 bus; several devices share it, each with its own `address` under settings."""

    port: str
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    stop_bits: Literal[1, 2] = 1
    timeout_s: Seconds = 1.0  # the longest that a device may take; quick ones are given up sooner


class ModbusTcpLine(Table, frozen=True, kw_only=True):
    """One Modbus TCP server: a meter, or a converter with several behind it."""

    host: str
    port: Port = 502
    timeout_s: Seconds = 3.0


class BleLine(Table, frozen=True, kw_only=True):
    """One Bluetooth adapter that listens for advertisements."""

    adapter: str = "hci0"


class MqttLine(Table, frozen=True, kw_only=True):
    """The broker that our own nodes publish to."""

    broker: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


Line = SerialLine | ModbusRtuLine | ModbusTcpLine | BleLine | MqttLine
LINES: dict[str, type[Line]] = {
    "serial": SerialLine,
    "modbus-rtu": ModbusRtuLine,
    "modbus-tcp": ModbusTcpLine,
    "ble": BleLine,
    "mqtt": MqttLine,
}
# Which drivers a kind of line can carry, by the first word of the driver's `line`.
WIRES = {"serial": "serial", "modbus-rtu": "modbus", "modbus-tcp": "modbus", "ble": "ble"}


class Device(Table, frozen=True, kw_only=True):
    """One device that the gateway itself reads."""

    line: str
    driver: str  # a folder name under protocols/bega_protocols/devices
    every_s: Seconds = 60.0  # faster talkers give the last good frame of each window
    audience: Audience = "operator"
    label: str = ""  # where it stands, in words for citizens
    settings: dict[str, Any] = {}


class Node(Table, frozen=True, kw_only=True):
    """One of our own nodes: it allots its own numbers and names its own devices."""

    line: str
    audience: Audience = "operator"
    label: str = ""


class AirIndex(Table, frozen=True, kw_only=True):
    """The hourly index of the particulates of some devices, as a record of its own."""

    inputs: list[str]  # devices, or node/device
    label: str = ""
    every_s: Seconds = 60.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, whole and consistent."""

    gateway: Gateway
    uplink: Uplink
    feed: Feed | None
    lines: dict[str, Line]
    devices: dict[str, Device]
    nodes: dict[str, Node]
    air_index: dict[str, AirIndex]

    def audience_of(self, source: str, device: str) -> Audience:
        """Return who may see what `device` of `source` says; what the file does not name is the operator's."""
        if source in self.nodes:
            return self.nodes[source].audience
        if device in self.devices:
            return self.devices[device].audience
        if device in self.air_index:
            inputs = [self.audience_of(*self.input_of(name)) for name in self.air_index[device].inputs]
            return max(inputs, key=("public", "operator", "personal").index, default="operator")
        return "operator"

    def label_of(self, source: str, device: str) -> str:
        """Return the words for where `device` of `source` stands, or ''."""
        if source in self.nodes:
            return self.nodes[source].label
        place = self.devices.get(device) or self.air_index.get(device)
        return place.label if place else ""

    def input_of(self, name: str) -> tuple[str, str]:
        """Return (source, device) of an input: "air-1/pms" is a node's, "roadside-air" is read by the gateway."""
        source, slash, device = name.partition("/")
        return (source, device) if slash else (self.gateway.name, name)


SECTIONS: dict[str, type[Table]] = {"gateway": Gateway, "uplink": Uplink, "feed": Feed}
NAMED: dict[str, type[Table]] = {"devices": Device, "nodes": Node, "air_index": AirIndex}


def load(path: Path, assignments: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration in `path` with `assignments` (from --set) laid over it.

    Raises ConfigError whose text lists every problem, one a line, each with its place.
    """
    config, problems = examine(path, assignments)
    if config is None:
        raise ConfigError("\n".join(problems))
    return config


def examine(path: Path, assignments: Mapping[str, Any] | None = None) -> tuple[Config | None, list[str]]:
    """Return (configuration, []) or (None, every problem with its place)."""
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{path}: cannot be read: {error}"]
    except tomllib.TOMLDecodeError as error:
        return None, [f"{path}: no TOML: {error}"]
    tables = _accept_single_broker(merge(tables, dict(assignments or {})))
    problems = [*_shape_problems(tables)]
    if not problems:
        config = _convert(tables)
        problems = [*_sense_problems(config)]
        if not problems:
            return config, []
    return None, [f"{path}{_line_of(text, place)}: {place}: {why}" for place, why in problems]


def _accept_single_broker(tables: dict[str, Any]) -> dict[str, Any]:
    """`--set uplink.brokers=mqtt://...` gives one text where the file has a list."""
    uplink = tables.get("uplink")
    if isinstance(uplink, dict) and isinstance(uplink.get("brokers"), str):
        return {**tables, "uplink": {**uplink, "brokers": [uplink["brokers"]]}}
    return tables


def _shape_problems(tables: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in tables.keys() - {*SECTIONS, *NAMED, "lines"}:
        yield key, f"unknown table; known are {', '.join([*SECTIONS, 'lines', *NAMED])}"
    for section in ("gateway", "uplink"):
        if section not in tables:
            yield section, "this table is missing"
    for section, kind in SECTIONS.items():
        if section in tables:
            yield from _table_problems(section, tables[section], kind)
    for section in (*NAMED, "lines"):
        rows = tables.get(section, {})
        if not isinstance(rows, dict):
            yield section, f"write [{section}.NAME]"
            continue
        for name, row in rows.items():
            yield from _row_problems(section, name, row)


def _row_problems(section: str, name: str, row: Any) -> Iterator[tuple[str, str]]:
    place = f"{section}.{name}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        yield place, NAME_RULE
    if not isinstance(row, dict):
        yield place, f"write [{place}]"
        return
    if section != "lines":
        yield from _table_problems(place, row, NAMED[section])
        return
    kind = row.get("kind")
    if kind not in LINES:
        yield f"{place}.kind", f"must be one of {', '.join(LINES)}, not {kind!r}"
        return
    yield from _table_problems(place, {key: value for key, value in row.items() if key != "kind"}, LINES[kind])


def _table_problems(place: str, table: Any, kind: type[Table]) -> Iterator[tuple[str, str]]:
    if not isinstance(table, dict):
        yield place, "must be a table"
        return
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in fields:
            yield f"{place}.{key}", f"unknown key; known are {', '.join(fields)}"
            continue
        try:
            msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            why = NAME_RULE if "regex" in str(error) else str(error)
            yield f"{place}.{key}", f"{why}, not {value!r}"
    for key, field in fields.items():
        if field.required and key not in table:
            yield f"{place}.{key}", "is missing"


def _convert(tables: dict[str, Any]) -> Config:
    lines = {
        name: msgspec.convert({key: value for key, value in row.items() if key != "kind"}, LINES[row["kind"]])
        for name, row in tables.get("lines", {}).items()
    }
    return Config(
        gateway=msgspec.convert(tables["gateway"], Gateway),
        uplink=msgspec.convert(tables["uplink"], Uplink),
        feed=msgspec.convert(tables["feed"], Feed) if "feed" in tables else None,
        lines=lines,
        devices=msgspec.convert(tables.get("devices", {}), dict[str, Device]),
        nodes=msgspec.convert(tables.get("nodes", {}), dict[str, Node]),
        air_index=msgspec.convert(tables.get("air_index", {}), dict[str, AirIndex]),
    )


def _sense_problems(config: Config) -> Iterator[tuple[str, str]]:
    """What each table alone cannot know: names that point nowhere, wires that do not fit, settings a driver refuses."""
    if not config.uplink.brokers:
        yield "uplink.brokers", "name at least one broker"
    for index, broker in enumerate(config.uplink.brokers):
        yield from _broker_problems(f"uplink.brokers[{index}]", broker)
    if config.feed and not re.fullmatch(r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", config.feed.listen):
        yield "feed.listen", f"write host:port, not {config.feed.listen!r}"
    for name, line in config.lines.items():
        if isinstance(line, MqttLine):
            yield from _broker_problems(f"lines.{name}.broker", line.broker)
    for name, device in config.devices.items():
        yield from _device_problems(config, f"devices.{name}", device)
    yield from _sharing_problems(config)
    for name, node in config.nodes.items():
        if not isinstance(config.lines.get(node.line), MqttLine):
            yield f"nodes.{name}.line", f"{node.line!r} is no line of the kind mqtt"
        if name == config.gateway.name:
            yield f"nodes.{name}", "is the gateway's own name"
    for name, air_index in config.air_index.items():
        if name in config.devices:
            yield f"air_index.{name}", "a device has this name"
        for given in air_index.inputs:
            source, device_name = config.input_of(given)
            if source not in config.nodes and device_name not in config.devices:
                yield f"air_index.{name}.inputs", f"there is no device {given!r}; a node's is written node/device"


def _broker_problems(place: str, address: str) -> Iterator[tuple[str, str]]:
    if not re.fullmatch(r"mqtts?://[^\s/:]+(:\d{1,5})?", address):
        yield place, f"write mqtt://host:port or mqtts://host:port, not {address!r}"


def _device_problems(config: Config, place: str, device: Device) -> Iterator[tuple[str, str]]:
    line = config.lines.get(device.line)
    if line is None:
        yield f"{place}.line", f"there is no line {device.line!r}; the file has {', '.join(config.lines) or 'none'}"
    try:
        driver = driver_class(device.driver)
    except ConfigError as error:
        yield f"{place}.driver", str(error)
        return
    kinds = [kind for kind, table in LINES.items() if isinstance(line, table)]
    if kinds and WIRES.get(kinds[0]) != wire_of(driver):
        yield f"{place}.line", f"{device.driver} speaks {wire_of(driver)}, and {device.line} is a {kinds[0]} line"
    try:
        loaded = load_driver(device.driver, device.settings)
    except ConfigError as error:
        yield f"{place}.settings", str(error)
        return
    if isinstance(line, BleLine) and not getattr(loaded, "address", b""):
        yield f"{place}.settings.address", "is missing; a line finds a Bluetooth sensor by its address"


def _sharing_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Two devices on one serial port, or with one address on one line, would answer for each other."""
    taken: dict[tuple[str, object], str] = {}
    for name, device in config.devices.items():
        line = config.lines.get(device.line)
        seat = "the port" if isinstance(line, SerialLine) else device.settings.get("address")
        if isinstance(line, BleLine) and isinstance(seat, str):
            seat = seat.replace(":", "").upper()  # both spellings are one sensor
        other = taken.setdefault((device.line, seat), name)
        if other != name:
            what = "is alone on a serial port" if isinstance(line, SerialLine) else f"has the address {seat}"
            yield f"devices.{name}.line", f"{other} already {what} on {device.line}"


def _line_of(text: str, place: str) -> str:
    """Return ":12" where the file names `place`, as near as a search can tell; '' for what --set gave."""
    parts = re.sub(r"\[\d+\]", "", place).split(".")
    lines = text.splitlines()
    for size in range(len(parts), 0, -1):
        header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(map(re.escape, parts[:size])) + r"\s*\]")
        start = next((number for number, line in enumerate(lines) if header.match(line)), None)
        if start is None:
            continue
        for number in range(start + 1, len(lines)):
            if size == len(parts) or lines[number].lstrip().startswith("["):
                break
            if re.match(rf"\s*{re.escape(parts[size])}\s*=", lines[number]):
                return f":{number + 1}"
        return f":{start + 1}"
    return ""
