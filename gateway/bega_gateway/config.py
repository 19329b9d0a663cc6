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

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
NAME_RULE = "a name has up to 64 letters, digits, - and _ (it becomes part of a topic)"
RESERVED = ("cmd", "result", "status", "probe")  # the gateway's own topics stand where a source's name stands
RESERVED_RULE = f"{', '.join(RESERVED)} are topics of the gateway itself: take another name"
LARGEST_PORT = 65_535
Port = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PORT)]
YEAR_S = 366 * 86_400
Seconds = Annotated[float, msgspec.Meta(gt=0, le=YEAR_S)]
LONGEST_SHOWN = 60  # characters of a value in a message
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
        if source != self.gateway.name:
            return "operator"  # a node that was taken out, a gateway that had another name
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
        if source != self.gateway.name:
            return ""
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
    except OSError as error:
        return None, [f"{path}: cannot be read: {error.strerror}"]
    except UnicodeDecodeError as error:
        return None, [f"{path}: is no text in UTF-8: {error.reason} at byte {error.start}"]
    except (ValueError, RecursionError) as error:  # no TOML, a number of thousands of digits, a nest without end
        return None, [_no_toml(path, str(error))]
    tables = _accept_single_broker(merge(tables, dict(assignments or {})))
    problems = [*_shape_problems(tables)]
    if not problems:
        config = _convert(tables, path.parent)
        problems = [*_sense_problems(config)]
        if not problems:
            return config, []
    return None, [f"{path}{_line_of(text, place)}: {_on_one_line(f'{place}: {why}')}" for place, why in problems]


def _no_toml(path: Path, why: str) -> str:
    """Return the message of the TOML reader, its line where all our messages have it."""
    text, _, rest = why.partition(" (at line ")
    line = rest.partition(",")[0]
    return f"{path}:{line}: no TOML: {text}" if line else f"{path}: no TOML: {why}"


def _on_one_line(text: str) -> str:
    """Return `text` with what a terminal or a log would stumble over written as an escape."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


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
    if not isinstance(kind, str) or kind not in LINES:
        yield f"{place}.kind", f"must be one of {', '.join(LINES)}, not {_shown(kind)}"
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
        except (msgspec.ValidationError, OverflowError) as error:
            why = NAME_RULE if "regex" in str(error) else str(error)
            # The settings of a device may hold a key: they are never shown.
            yield f"{place}.{key}", why if key == "settings" else f"{why}, not {_shown(value)}"
    for key, field in fields.items():
        if field.required and key not in table:
            yield f"{place}.{key}", "is missing"


def _shown(value: Any) -> str:
    """Return `value` as a message can bear it."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def _convert(tables: dict[str, Any], folder: Path) -> Config:
    lines = {
        name: msgspec.convert({key: value for key, value in row.items() if key != "kind"}, LINES[row["kind"]])
        for name, row in tables.get("lines", {}).items()
    }
    return Config(
        gateway=msgspec.convert(tables["gateway"], Gateway),
        uplink=msgspec.convert(tables["uplink"], Uplink),
        feed=msgspec.convert(tables["feed"], Feed) if "feed" in tables else None,
        lines=lines,
        devices={
            name: _with_profile_beside(msgspec.convert(row, Device), folder)
            for name, row in tables.get("devices", {}).items()
        },
        nodes=msgspec.convert(tables.get("nodes", {}), dict[str, Node]),
        air_index=msgspec.convert(tables.get("air_index", {}), dict[str, AirIndex]),
    )


def _with_profile_beside(device: Device, folder: Path) -> Device:
    """A profile of one's own lies beside the configuration, wherever the gateway is started."""
    profile = device.settings.get("profile")
    if not isinstance(profile, str) or not profile.endswith(".toml"):
        return device
    return msgspec.structs.replace(device, settings={**device.settings, "profile": str(folder / profile)})


def _sense_problems(config: Config) -> Iterator[tuple[str, str]]:
    """What each table alone cannot know: names that point nowhere, wires that do not fit, settings a driver refuses."""
    if config.gateway.name in RESERVED:
        yield "gateway.name", RESERVED_RULE
    if not config.uplink.brokers:
        yield "uplink.brokers", "name at least one broker"
    for index, broker in enumerate(config.uplink.brokers):
        yield from _broker_problems(f"uplink.brokers[{index}]", broker)
    yield from _credential_problems("uplink", config.uplink.brokers, config.uplink)
    if config.feed and not _is_address(config.feed.listen):
        yield "feed.listen", f"write host:port, not {_shown(config.feed.listen)}"
    for name, line in config.lines.items():
        if isinstance(line, MqttLine):
            yield from _broker_problems(f"lines.{name}.broker", line.broker)
            yield from _credential_problems(f"lines.{name}", [line.broker], line)
    for name, device in config.devices.items():
        yield from _device_problems(config, f"devices.{name}", device)
    yield from _sharing_problems(config)
    for name, node in config.nodes.items():
        if not isinstance(config.lines.get(node.line), MqttLine):
            yield f"nodes.{name}.line", f"{node.line!r} is no line of the kind mqtt"
        if name == config.gateway.name:
            yield f"nodes.{name}", "is the gateway's own name"
        if name in RESERVED:
            yield f"nodes.{name}", RESERVED_RULE
    for name, air_index in config.air_index.items():
        if name in config.devices:
            yield f"air_index.{name}", "a device has this name"
        if not air_index.inputs:
            yield f"air_index.{name}.inputs", "name at least one device"
        for given in air_index.inputs:
            source, device_name = config.input_of(given)
            ours = source == config.gateway.name and device_name in config.devices
            if not ours and not (source in config.nodes and device_name):
                yield f"air_index.{name}.inputs", f"there is no device {given!r}; a node's is written node/device"


def _broker_problems(place: str, address: str) -> Iterator[tuple[str, str]]:
    scheme, _, rest = address.partition("://")
    if scheme not in ("mqtt", "mqtts") or not (_is_address(rest) or _is_address(f"{rest}:1")):
        yield place, f"write mqtt://host:port or mqtts://host:port, not {_shown(address)}"


def _is_address(text: str) -> bool:
    """Return whether `text` is host:port or [IPv6 address]:port."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > LARGEST_PORT:
        return False
    if re.fullmatch(r"\[[0-9a-fA-F:.]+\]", host):
        return True
    # Parts of up to 63 characters with points between: others cannot be looked up (RFC 1123, section 2.1).
    return all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part) for part in host.removesuffix(".").split("."))


def _credential_problems(place: str, brokers: list[str], table: Uplink | MqttLine) -> Iterator[tuple[str, str]]:
    """A certificate that is given and not used would leave the operator in the belief that it is."""
    given = [key for key in ("ca_file", "cert_file", "key_file") if getattr(table, key) is not None]
    if given and not any(broker.startswith("mqtts://") for broker in brokers):
        yield f"{place}.{given[0]}", "is used with mqtts:// only, and no broker here has that"
    if table.key_file is not None and table.cert_file is None:
        yield f"{place}.key_file", "needs cert_file beside it"


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
    except Exception as error:  # a driver should refuse what it cannot use; where it stumbles, this is still the place
        yield f"{place}.settings", f"{device.driver} cannot use them ({type(error).__name__})"
        return
    if isinstance(line, BleLine) and wire_of(driver) == "ble" and not getattr(loaded, "address", b""):
        yield f"{place}.settings.address", "is missing; a line finds a Bluetooth sensor by its address"


def _sharing_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Two devices on one serial port, or with one address on one line, would answer for each other."""
    ports: dict[str, str] = {}
    for name, table in config.lines.items():
        key, port = _port_of(table)
        other = ports.setdefault(port, name) if port else name
        if other != name:
            yield f"lines.{name}.{key}", f"line {other} has {port} already"
    taken: dict[tuple[str, str], str] = {}
    for name, device in config.devices.items():
        line = config.lines.get(device.line)
        address = device.settings.get("address")
        seat = "the port" if isinstance(line, SerialLine) else repr(address)
        if isinstance(line, BleLine) and isinstance(address, str):
            seat = address.replace(":", "").upper()  # both spellings are one sensor
        other = taken.setdefault((device.line, seat), name)
        if other != name:
            what = "is alone on a serial port" if isinstance(line, SerialLine) else f"has the address {seat}"
            yield f"devices.{name}.line", f"{other} already {what} on {device.line}"


def _port_of(line: Line) -> tuple[str, str]:
    """Return (key, value) of what only one line can have; the value is '' where any number may share."""
    if isinstance(line, SerialLine | ModbusRtuLine):
        return "port", line.port
    if isinstance(line, BleLine):
        return "adapter", line.adapter
    return "", ""


def _line_of(text: str, place: str) -> str:
    """Return ":12" where the file names `place`, as near as a search can tell; '' for what --set gave."""
    parts = re.sub(r"\[\d+\]", "", place).split(".")
    lines = text.splitlines()
    for size in range(len(parts), 0, -1):
        header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(map(re.escape, parts[:size])) + r"\s*[\].]")
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
