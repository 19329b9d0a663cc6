"""A gateway's configuration: TOML into frozen types. A typo stops the start, with its place in the file.

`gateway/examples/corner.toml` shows every table with its reasons.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from bega import tables
from bega.devices import driver_class, load_driver, wire_of, with_profile
from bega.listen import is_this_machine
from bega.settings import merge
from bega.tables import (
    LARGEST_PORT,
    NAME_RULE,
    Name,
    Problem,
    Table,
    Tables,
    is_address,
    is_host,
    is_within,
    salvage,
    shown,
    table_problems,
)
from bega_gateway.commands.table import Commands
from bega_gateway.edge import tables as edge_tables
from bega_gateway.edge.tables import EDGE, Derived, Treated, inputs_of
from bega_gateway.lines import modbus_write
from bega_gateway.page.password import is_hash
from bega_protocols.errors import ConfigError
from bega_protocols.reading import QUANTITIES

RESERVED = ("cmd", "result", "status", "probe")  # the gateway's own topics stand where a source's name stands
RESERVED_RULE = f"{', '.join(RESERVED)} are topics of the gateway itself: take another name"
Port = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PORT)]
CREDENTIALS = ("ca_file", "cert_file", "key_file")
YEAR_S = 366 * 86_400
Seconds = Annotated[float, msgspec.Meta(gt=0, le=YEAR_S)]
Audience = Literal["public", "operator", "personal"]
Priority = Literal["high", "normal", "low"]
Kept = Literal["routine", "billing"]


class Gateway(Table, frozen=True, kw_only=True):
    """Who this gateway is, and where it keeps what must survive."""

    name: Name  # the name in its certificate: topics, client id and `source` of what it reads itself
    city: Name
    state_dir: str = "/var/lib/bega"
    time_zone: str = "UTC"  # whose days and nights are meant, as Europe/Bucharest
    commit_window_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0  # at most this much is lost at a power cut
    spool_quota_mb: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 1000  # what may wait on disk for the uplink


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


class Metrics(Table, frozen=True, kw_only=True):
    """Counters for Prometheus over HTTP: GET /metrics."""

    listen: str = "127.0.0.1:9100"


class Page(Table, frozen=True, kw_only=True):
    """The technician's local page over HTTP."""

    listen: str = "127.0.0.1:8090"
    password_hash: str = ""  # of `bega gateway password`; where anybody but this machine can ask there must be one


class SerialLine(Table, frozen=True, kw_only=True):
    """One device on one serial port."""

    port: str  # /dev/serial/by-id/...: ttyUSB0 changes owner at reboot
    baud: int | None = None  # left out: what the driver says
    parity: Literal["N", "E", "O"] | None = None
    data_bits: Literal[7, 8] | None = None


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


class MbusLine(Table, frozen=True, kw_only=True):
    """One M-Bus segment behind a level converter; several meters share it, each with its own `address`."""

    port: str
    baud: Literal[300, 600, 1200, 2400, 4800, 9600, 19200, 38400] = 2400  # all meters of a segment have one
    parity: Literal["N", "E", "O"] = "E"


class I2cLine(Table, frozen=True, kw_only=True):
    """One I2C bus of this machine; several sensors share it."""

    bus: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1  # of /dev/i2c-1


class BleLine(Table, frozen=True, kw_only=True):
    """One Bluetooth adapter that listens for advertisements."""

    adapter: str = "hci0"


class MqttLine(Table, frozen=True, kw_only=True):
    """The broker that our own nodes publish to."""

    broker: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


Line = SerialLine | ModbusRtuLine | ModbusTcpLine | MbusLine | I2cLine | BleLine | MqttLine
LINES: dict[str, type[Line]] = {
    "serial": SerialLine,
    "modbus-rtu": ModbusRtuLine,
    "modbus-tcp": ModbusTcpLine,
    "mbus": MbusLine,
    "i2c": I2cLine,
    "ble": BleLine,
    "mqtt": MqttLine,
}
# Which drivers a kind of line can carry, by the first word of the driver's `line`.
WIRES = {
    "serial": "serial",
    "modbus-rtu": "modbus",
    "modbus-tcp": "modbus",
    "mbus": "mbus",
    "i2c": "i2c",
    "ble": "ble",
}


class Device(Table, frozen=True, kw_only=True):
    """One device that the gateway itself reads."""

    line: str
    driver: str  # a folder name under protocols/bega_protocols/devices
    every_s: Seconds = 60.0  # faster talkers give the last good frame of each window
    audience: Audience = "operator"  # left out for a meter that hangs in households: "personal"
    storage_class: Kept = "routine"  # a full spool drops the oldest routine records, and never one of billing
    label: str = ""  # where it stands, in words for citizens
    stale_after_s: Seconds | None = None  # not heard for so long, its quantities are said to be stale, once
    priority: Priority = "normal"  # on a Modbus line that is asked too much, low ones are left out first
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    tags: list[dict[str, Any]] = msgspec.field(default_factory=list)  # numbers of a Modbus device without a profile
    actions: list[str] = msgspec.field(default_factory=list)  # of its driver's, those that commands may have done
    writes: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)  # what commands may write (modbus_write.py)


class Node(Table, frozen=True, kw_only=True):
    """One of our own nodes: it allots its own numbers and names its own devices."""

    line: str
    audience: Audience = "operator"
    storage_class: Kept = "routine"  # a full spool drops the oldest routine records, and never one of billing
    label: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, whole and consistent."""

    gateway: Gateway
    uplink: Uplink
    feed: Feed | None
    lines: dict[str, Line]
    devices: dict[str, Device]
    nodes: dict[str, Node]
    edge: dict[str, dict[str, Derived | Treated]] = msgspec.field(default_factory=dict)  # what is computed, by table
    metrics: Metrics | None = None
    commands: Commands | None = None
    page: Page | None = None

    def audience_of(self, source: str, device: str) -> Audience:
        """Return who may see what `device` of `source` says; what the file does not name is the operator's."""
        if source in self.nodes:
            return self.nodes[source].audience
        if source != self.gateway.name:
            return "operator"  # a node that was taken out, a gateway that had another name
        if device in self.devices:
            return self.devices[device].audience
        return self._audience_of_computed(device, set())

    def _audience_of_computed(self, device: str, seen: set[str]) -> Audience:
        """Return the narrowest audience of its inputs; those that lead back to itself say nothing."""
        table = self.computed().get(device)
        if table is None or device in seen:
            return "operator" if table is None else "public"
        audiences: list[Audience] = []
        for name in inputs_of(table):
            source, input_device = self.input_of(name)
            if source == self.gateway.name and input_device not in self.devices:
                audiences.append(self._audience_of_computed(input_device, seen | {device}))
            else:
                audiences.append(self.audience_of(source, input_device))
        return max(audiences, key=("public", "operator", "personal").index, default="operator")

    def computed(self) -> dict[str, Derived]:
        """Return what gives records of its own, by the name that these have as a device."""
        return {
            name: table for rows in self.edge.values() for name, table in rows.items() if not isinstance(table, Treated)
        }

    def is_known(self, device: str) -> bool:
        """Return whether the gateway itself gives records of `device`."""
        return device in self.devices or device in self.computed()

    def storage_class_of(self, source: str, device: str) -> Kept | Literal["alarm"]:
        """Return what becomes of a record when the spool is full; what the file does not name is routine.

        That an alarm was raised is never dropped for others, so that nobody need say it in the file.
        """
        if source in self.nodes:
            return self.nodes[source].storage_class
        if source == self.gateway.name and device in self.devices:
            return self.devices[device].storage_class
        is_alarm = source == self.gateway.name and device in self.edge.get("alarms", {})
        return "alarm" if is_alarm else "routine"

    def label_of(self, source: str, device: str) -> str:
        """Return the words for where `device` of `source` stands, or ''."""
        if source in self.nodes:
            return self.nodes[source].label
        if source != self.gateway.name:
            return ""
        place = self.devices.get(device) or self.computed().get(device)
        return place.label if place else ""

    def input_of(self, name: str) -> tuple[str, str]:
        """Return (source, device) of an input: "air-1/pms" is a node's, "roadside-air" is read by the gateway."""
        source, slash, device = name.partition("/")
        return (source, device) if slash else (self.gateway.name, name)


SECTIONS: dict[str, type[Table]] = {
    "gateway": Gateway,
    "uplink": Uplink,
    "feed": Feed,
    "metrics": Metrics,
    "commands": Commands,
    "page": Page,
}
NAMED: dict[str, type[Table]] = {"devices": Device, "nodes": Node, **EDGE}


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
    given = _with_texts(assignments or {})
    return tables.examine(path, given, lambda whole: _understood(whole, path.parent))


def check(path: Path, assignments: Mapping[str, Any] | None = None) -> tuple[Config | None, list[str]]:
    """Return what `examine` does, and as a problem also a file of the uplink or of a line that is not there.

    A gateway starts without it, as it starts without a serial port: it measures, and says what the uplink lacks.
    """

    def understood(whole: Tables) -> tuple[Config, list[Problem]]:
        config, found = _understood(whole, path.parent)
        return config, found + list(_missing_files(config))

    return tables.examine(path, _with_texts(assignments or {}), understood)


def cautions(config: Config) -> list[str]:
    """Return what is allowed and may not be meant: what everybody on the way can read."""
    lines = [line.broker for line in config.lines.values() if isinstance(line, MqttLine)]
    foreign = [broker for broker in [*config.uplink.brokers, *lines] if not _is_private(broker)]
    said = [f"{broker} is not encrypted: mqtts:// is, for any other machine" for broker in dict.fromkeys(foreign)]
    if config.page and not is_this_machine(config.page.listen.rpartition(":")[0]):
        way = "an SSH tunnel to 127.0.0.1 is"
        said.append(f"page.listen {config.page.listen} is not encrypted, the password can be read on the way: {way}")
    return said


def _is_private(broker: str) -> bool:
    scheme, _, rest = broker.partition("://")
    return scheme == "mqtts" or bool(re.match(r"(localhost|127\.[0-9.]+|\[::1\])(:|$)", rest))


def problems(config: Config) -> list[str]:
    """Return what makes no sense in a configuration that was put together of two, each with its place."""
    return [f"{place}: {why}" for place, why in _sense_problems(config)]


def _shape_problems(whole: Tables) -> Iterator[Problem]:
    for key in whole.keys() - {*SECTIONS, *NAMED, "lines"}:
        yield key, f"unknown table; known are {', '.join([*SECTIONS, 'lines', *NAMED])}"
    for section in ("gateway", "uplink"):
        if section not in whole:
            yield section, "this table is missing"
    for section, kind in SECTIONS.items():
        if section in whole:
            yield from table_problems(section, whole[section], kind)
    for section in (*NAMED, "lines"):
        rows = whole.get(section, {})
        if not isinstance(rows, dict):
            yield section, f"write [{section}.NAME]"
            continue
        for name, row in rows.items():
            yield from _row_problems(section, name, row)


def _row_problems(section: str, name: str, row: Any) -> Iterator[Problem]:
    place = f"{section}.{name}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        yield place, NAME_RULE
    if not isinstance(row, dict):
        yield place, f"write [{place}]"
        return
    if section != "lines":
        yield from table_problems(place, row, NAMED[section])
        return
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in LINES:
        yield f"{place}.kind", f"must be one of {', '.join(LINES)}, not {shown(kind)}"
        return
    yield from table_problems(place, {key: value for key, value in row.items() if key != "kind"}, LINES[kind])


def _accept_single_broker(whole: Tables) -> Tables:
    """`--set uplink.brokers=mqtt://...` gives one text where the file has a list."""
    uplink = whole.get("uplink")
    if isinstance(uplink, dict) and isinstance(uplink.get("brokers"), str):
        return {**whole, "uplink": {**uplink, "brokers": [uplink["brokers"]]}}
    return whole


def _with_texts(assignments: Mapping[str, Any]) -> dict[str, Any]:
    """`--set gateway.name=12345` is a text where the key wants one; only a file can tell 12345 from "12345"."""
    kinds: dict[tuple[str, ...], type[Table]] = {(section,): kind for section, kind in SECTIONS.items()}
    for section, kind in NAMED.items():
        rows = assignments.get(section)
        kinds.update({(section, name): kind for name in (rows if isinstance(rows, dict) else ())})
    overlay: dict[str, Any] = dict(assignments)
    for place, kind in kinds.items():
        row: Any = assignments
        for part in place:
            row = row.get(part) if isinstance(row, dict) else None
        if isinstance(row, dict):
            words = {key: str(row[key]) for key in _text_keys(kind) if type(row.get(key)) in (int, float)}
            laid: dict[str, Any] = {**row, **words}
            for part in reversed(place):
                laid = {part: laid}
            overlay = merge(overlay, laid)
    return overlay


def _text_keys(kind: type[Table]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.type in (str, str | None, Name)]


def _understood(whole: Tables, folder: Path) -> tuple[Config, list[Problem]]:
    """Return the configuration and every problem in it; what is good is looked at even beside what is not."""
    whole = _accept_single_broker(whole)
    found = list(_shape_problems(whole))
    config, stand_ins = _salvaged(whole, folder)
    sense = (problem for problem in _sense_problems(config, stand_ins) if not is_within(problem[0], stand_ins))
    return config, found + list(sense)


def _salvaged(whole: Tables, folder: Path) -> tuple[Config, set[str]]:
    """Return a configuration of what is good in `whole`, and the places in it that are no more than stand-ins."""
    stand_ins: set[str] = set()

    def taken(place: str, table: Any, kind: type[Any]) -> Any:
        row, bad = salvage(place, table, kind)
        stand_ins.update(bad)
        return row

    lines: dict[str, Line] = {}
    for name, row in _rows(whole, "lines", stand_ins).items():
        kind = row.get("kind") if isinstance(row, dict) else None
        if isinstance(kind, str) and kind in LINES:
            plain = {key: value for key, value in row.items() if key != "kind"}
            lines[name] = taken(f"lines.{name}", plain, LINES[kind])
        else:
            stand_ins.add(f"lines.{name}")
    rows = {section: _rows(whole, section, stand_ins) for section in NAMED}
    rows["devices"] = {name: _with_audience(row) for name, row in rows["devices"].items()}
    named = {
        section: {name: taken(f"{section}.{name}", row, kind) for name, row in rows[section].items()}
        for section, kind in NAMED.items()
    }
    profiles: dict[str, Any] = {}
    config = Config(
        gateway=taken("gateway", whole.get("gateway"), Gateway),
        uplink=taken("uplink", whole.get("uplink"), Uplink),
        feed=taken("feed", whole["feed"], Feed) if "feed" in whole else None,
        metrics=taken("metrics", whole["metrics"], Metrics) if "metrics" in whole else None,
        commands=taken("commands", whole["commands"], Commands) if "commands" in whole else None,
        page=taken("page", whole["page"], Page) if "page" in whole else None,
        lines=lines,
        devices={name: _with_profile(device, folder, profiles) for name, device in named["devices"].items()},
        nodes=named["nodes"],
        edge={section: named[section] for section in EDGE},
    )
    return config, stand_ins


def _rows(whole: Tables, section: str, stand_ins: set[str]) -> dict[str, Any]:
    rows = whole.get(section, {})
    if isinstance(rows, dict):
        return rows
    stand_ins.add(section)
    return {}


def _with_audience(row: Any) -> Any:
    """Return a device's table, with the audience of a household's meter where it says none."""
    if not isinstance(row, dict) or "audience" in row or not isinstance(row.get("driver"), str):
        return row
    try:
        is_households = getattr(driver_class(row["driver"]), "is_households", False)
    except ConfigError:
        return row
    return {**row, "audience": "personal"} if is_households else row


def _with_profile(device: Device, folder: Path, profiles: dict[str, Any]) -> Device:
    """Put the register map in the place of its name. One of one's own lies beside the configuration.

    Devices of one kind share it (`profiles`), and a reload sees what changed in it. Where it cannot be read its name
    stays, and whoever loads the driver says why.
    """
    if device.tags:
        return msgspec.structs.replace(device, settings={**device.settings, "tags": device.tags})
    name = device.settings.get("profile")
    if not isinstance(name, str):
        return device
    place = str(folder / name) if name.endswith(".toml") else name
    if place not in profiles:
        try:
            profiles[place] = with_profile({"profile": place})["profile"]
        except ConfigError:
            profiles[place] = place
    return msgspec.structs.replace(device, settings={**device.settings, "profile": profiles[place]})


def _sense_problems(config: Config, stand_ins: Collection[str] = ()) -> Iterator[Problem]:
    """What each table alone cannot know: names that point nowhere, wires that do not fit, settings a driver refuses.

    stand_ins: places where the file has something that is not fit to be looked at.
    """
    if config.gateway.name in RESERVED:
        yield "gateway.name", RESERVED_RULE
    if not config.gateway.state_dir.startswith("/"):
        yield "gateway.state_dir", f"write the whole path, from / on, not {shown(config.gateway.state_dir)}"
    if edge_tables.zone(config.gateway.time_zone) is None:
        yield "gateway.time_zone", f"there is no time zone {shown(config.gateway.time_zone)}; write Europe/Bucharest"
    yield from _uplink_problems(config, stand_ins)
    yield from _listen_problems(config)
    for name, line in config.lines.items():
        if isinstance(line, ModbusTcpLine) and not is_host(line.host):
            yield f"lines.{name}.host", f"write a name or an address and nothing else, not {shown(line.host)}"
        if isinstance(line, MqttLine):
            yield from _broker_problems(f"lines.{name}.broker", line.broker)
            if not is_within(f"lines.{name}.broker", stand_ins):
                yield from _credential_problems(f"lines.{name}", [line.broker], line)
    for name, device in config.devices.items():
        yield from _device_problems(config, f"devices.{name}", device, stand_ins)
    yield from _sharing_problems(config)
    for name, node in config.nodes.items():
        if not isinstance(config.lines.get(node.line), MqttLine) and not is_within(f"lines.{node.line}", stand_ins):
            yield f"nodes.{name}.line", f"{node.line!r} is no line of the kind mqtt"
        if name == config.gateway.name:
            yield f"nodes.{name}", "is the gateway's own name"
        if name in RESERVED:
            yield f"nodes.{name}", RESERVED_RULE
    yield from _edge_problems(config, stand_ins)


def _uplink_problems(config: Config, stand_ins: Collection[str]) -> Iterator[Problem]:
    brokers = config.uplink.brokers
    if not brokers:
        yield "uplink.brokers", "name at least one broker"
    for index, broker in enumerate(brokers):
        yield from _broker_problems(f"uplink.brokers[{index}]", broker)
        if broker in brokers[:index]:
            yield f"uplink.brokers[{index}]", f"{shown(broker)} is in the list already"
    if not is_within("uplink.brokers", stand_ins):
        yield from _credential_problems("uplink", brokers, config.uplink)


def _listen_problems(config: Config) -> Iterator[Problem]:
    tables: dict[str, Feed | Metrics | Page | None] = {
        "feed": config.feed,
        "metrics": config.metrics,
        "page": config.page,
    }
    there = {place: table.listen for place, table in tables.items() if table}
    for place, listen in there.items():
        if not is_address(listen):
            yield f"{place}.listen", f"write host:port, not {shown(listen)}"
    for (place, listen), (other, other_listen) in combinations(there.items(), 2):
        host, _, port = listen.rpartition(":")
        other_host, _, other_port = other_listen.rpartition(":")
        everywhere = {"0.0.0.0", "[::]"} & {host, other_host}  # noqa: S104 - it is looked for, not listened on
        if port == other_port != "0" and (host == other_host or everywhere):
            yield f"{other}.listen", f"{place}.listen has {listen} already"
    if config.page:
        yield from _page_problems(config.page)


def _page_problems(page: Page) -> Iterator[Problem]:
    if page.password_hash and not is_hash(page.password_hash):
        yield "page.password_hash", "is none; `bega gateway password` prints one"
    if not page.password_hash and is_address(page.listen) and not is_this_machine(page.listen.rpartition(":")[0]):
        why = "others than this machine can ask there: set page.password_hash (`bega gateway password` prints one)"
        yield "page.listen", why


def _edge_problems(config: Config, stand_ins: Collection[str]) -> Iterator[Problem]:
    """What makes no sense in what is computed: names of nobody, one name for two, and circles."""
    taken: dict[str, str] = {name: f"devices.{name}" for name in config.devices}
    for section, rows in config.edge.items():
        for name, table in rows.items():
            place = f"{section}.{name}"
            if not isinstance(table, Treated):
                other = taken.setdefault(name, place)
                if other.startswith("devices.") or other != place:
                    yield place, "a device has this name" if other.startswith("devices.") else f"{other} has this name"
            for problem in edge_tables.problems(config, place, table):
                if not any(_is_unclear(config, given, stand_ins) for given in inputs_of(table)):
                    yield problem
    for name in config.computed():
        if name in _upstream(config, name):
            yield next(place for taken_name, place in taken.items() if taken_name == name), "computes from itself"


def _is_unclear(config: Config, given: str, stand_ins: Collection[str]) -> bool:
    source, _ = config.input_of(given)
    return is_within(f"devices.{given}", stand_ins) or is_within(f"nodes.{source}", stand_ins)


def _upstream(config: Config, name: str) -> set[str]:
    """Return the names of all that `name` is computed from, over any number of steps."""
    computed = config.computed()
    found: set[str] = set()
    pending = [name]
    while pending:
        table = computed.get(pending.pop())
        for given in inputs_of(table) if table else ():
            if given not in found:
                found.add(given)
                pending.append(given)
    return found


def _broker_problems(place: str, address: str) -> Iterator[Problem]:
    scheme, _, rest = address.partition("://")
    if scheme not in ("mqtt", "mqtts") or not (is_address(rest) or is_address(f"{rest}:1")):
        why = f"write mqtt://host:port or mqtts://host:port, not {shown(address)}"
        if scheme in ("mqtt", "mqtts") and "@" in rest:
            why = "write mqtt://host:port: a gateway shows a certificate (cert_file), it has no name and password"
        yield place, why


def _credential_problems(place: str, brokers: list[str], table: Uplink | MqttLine) -> Iterator[Problem]:
    """A certificate that is given and not used would leave the operator in the belief that it is."""
    given = [key for key in CREDENTIALS if getattr(table, key) is not None]
    if given and not any(broker.startswith("mqtts://") for broker in brokers):
        yield f"{place}.{given[0]}", "is used with mqtts:// only, and no broker here has that"
    if table.key_file is not None and table.cert_file is None:
        yield f"{place}.key_file", "needs cert_file beside it"


def _missing_files(config: Config) -> Iterator[Problem]:
    """Only what is surely not there: a file that the gateway's user alone may see is no affair of who checks."""
    for key in ("public_key", "led") if config.commands else ():
        file = getattr(config.commands, key)
        if file is not None and _is_missing(file):
            yield f"commands.{key}", f"there is no file {file}"
    with_files = {f"lines.{name}": line for name, line in config.lines.items() if isinstance(line, MqttLine)}
    for place, table in [("uplink", config.uplink), *with_files.items()]:
        for key in CREDENTIALS:
            file = getattr(table, key)
            if file is not None and _is_missing(file):
                yield f"{place}.{key}", f"there is no file {file}"


def _is_missing(file: str) -> bool:
    try:
        Path(file).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in it
        return True
    except OSError:
        return False
    return False


def _device_problems(config: Config, place: str, device: Device, stand_ins: Collection[str]) -> Iterator[Problem]:
    line = config.lines.get(device.line)
    if line is None and not is_within(f"lines.{device.line}", stand_ins):
        there = f"the file has {', '.join(config.lines) or 'none'}"
        yield f"{place}.line", f"there is no line {device.line!r}; {_nearest(device.line, config.lines) or there}"
    try:
        driver = driver_class(device.driver)
    except ConfigError as error:
        yield f"{place}.driver", str(error)
        return
    kinds = [kind for kind, table in LINES.items() if isinstance(line, table)]
    if kinds and WIRES.get(kinds[0]) != wire_of(driver):
        yield f"{place}.line", f"{device.driver} speaks {wire_of(driver)}, and {device.line} is a {kinds[0]} line"
    if device.priority != "normal" and wire_of(driver) != "modbus":
        yield f"{place}.priority", "is for devices that share a Modbus line"
    yield from _command_problems(place, device, driver, stand_ins)
    if is_within(f"{place}.settings", stand_ins) or is_within(f"{place}.tags", stand_ins):
        return
    try:
        loaded = load_driver(device.driver, device.settings)
    except ConfigError as error:
        yield from (_setting_problem(place, line) for line in str(error).splitlines())
        return
    except Exception as error:  # a driver should refuse what it cannot use; where it stumbles, this is still the place
        yield f"{place}.settings", f"{device.driver} cannot use them ({type(error).__name__})"
        return
    if isinstance(line, BleLine) and wire_of(driver) == "ble" and not getattr(loaded, "address", b""):
        yield f"{place}.settings.address", "is missing; a line finds a Bluetooth sensor by its address"
    if isinstance(line, MbusLine) and wire_of(driver) == "mbus":
        if "address" not in device.settings:
            yield f"{place}.settings.address", "is missing; 0 is that of a meter that nobody has given one"
        baud = getattr(loaded, "baud", line.baud)
        if baud != line.baud:
            yield f"{place}.settings.baud", f"is {baud} and the line's {line.baud}: the driver waits by its own"


def _command_problems(place: str, device: Device, driver: type[Any], stand_ins: Collection[str]) -> Iterator[Problem]:
    """What commands may do to a device must be something that it can."""
    known = getattr(driver, "actions", ())
    for index, action in enumerate(device.actions):
        if action not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            yield f"{place}.actions[{index}]", f"{device.driver} has no action {shown(action)}; {there}"
    if device.writes and wire_of(driver) != "modbus" and not is_within(f"{place}.writes", stand_ins):
        yield f"{place}.writes", "is for devices on a Modbus line"
    for name, row in device.writes.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            yield f"{place}.writes.{name}", NAME_RULE
        yield from modbus_write.problems(f"{place}.writes.{name}", row)


def _setting_problem(place: str, said: str) -> Problem:
    """Return one line of a driver's complaint at its place: a tag that it names, or the settings."""
    if unknown := re.search(r"there is no quantity '(\w+)'$", said):
        hint = _nearest(unknown[1], QUANTITIES)
        said += f"; {hint}" if hint else ""
    key, colon, why = said.partition(": ")
    if colon and re.fullmatch(r"tags\[\d+\].*", key):
        return f"{place}.{key}", why
    return f"{place}.settings", said


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return "is it X or Y?" with what may be meant, or ''."""
    near = difflib.get_close_matches(name, list(known))
    return f"is it {' or '.join(near)}?" if near else ""


def _sharing_problems(config: Config) -> Iterator[Problem]:
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
        if isinstance(line, I2cLine):
            seat = repr(address or f"of every {device.driver}")
        elif address is None and not isinstance(line, SerialLine):
            continue  # the driver says that it is missing
        if isinstance(line, BleLine) and isinstance(address, str):
            seat = address.replace(":", "").upper()  # both spellings are one sensor
        other = taken.setdefault((device.line, seat), name)
        if other != name and line is not None:
            what = "is alone on a serial port" if isinstance(line, SerialLine) else f"has the address {seat}"
            yield f"devices.{name}.line", f"{other} already {what} on {device.line}"


def _port_of(line: Line) -> tuple[str, str]:
    """Return (key, value) of what only one line can have; the value is '' where any number may share."""
    if isinstance(line, SerialLine | ModbusRtuLine | MbusLine):
        return "port", line.port
    if isinstance(line, I2cLine):
        return "bus", f"/dev/i2c-{line.bus}"
    if isinstance(line, BleLine):
        return "adapter", line.adapter
    return "", ""
