"""What the page says of lines, devices and alarms: rows of plain words for the templates. Nothing here is HTML."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from bega_gateway import config as settings
from bega_gateway import node_status
from bega_gateway.doctor.finding import Finding
from bega_gateway.doctor.look import Look
from bega_gateway.doctor.ports import of_ports
from bega_gateway.edge.tables import Band
from bega_gateway.health import NODE_SILENCE_S, quiet_after_s
from bega_gateway.lines.station import PERSONAL
from bega_gateway.node_status import OfNode
from bega_gateway.page import words
from bega_gateway.page.recent import Device, Recent

if TYPE_CHECKING:
    from bega.outbox.publish import Publisher
    from bega_gateway.build import Ground
    from bega_gateway.config import Config
    from bega_gateway.edge.derive import ThresholdAlarm
    from bega_gateway.health import Watched
    from bega_gateway.lines.station import Station
    from bega_protocols.reading import Reading

MOST_VALUES = 4  # of a device in the overview
COMPUTED_GAP_MS = 300_000  # what is computed comes when it does; what is farther apart is drawn as dots
SETTINGS_TOLD = ("address", "secondary_address", "unit", "profile", "baud")  # what tells one device from its neighbours


def _ports_now(config: Config) -> Iterable[Finding]:
    return of_ports(config, Look())


@dataclass(frozen=True)
class Seen:
    """The gateway, as the page needs it."""

    ground: Ground
    publisher: Publisher
    config: Callable[[], Config]  # what it runs by now
    stations: Callable[[], list[tuple[str, Station]]]  # every device that is read, with the name of its line
    alarms: Callable[[], dict[str, ThresholdAlarm]]  # by name
    restart_line: Callable[[str], Awaitable[bool]]  # whether it runs; raises ConfigError where nothing was done
    acknowledge: Callable[[str], Awaitable[None]]  # raises ConfigError if there is nothing to know
    examine: Callable[[], Awaitable[list[Finding]]]  # what `bega gateway doctor` finds; it may take a minute
    ports: Callable[[Config], Iterable[Finding]] = _ports_now  # what is wrong with them; quick


@dataclass
class DeviceRow:
    """One device in a list."""

    id: str
    name: str
    address: str
    words: str
    kind: str  # "heard", "silent" or "waiting"
    quality: str
    label: str = ""
    is_personal: bool = False
    values: list[tuple[str, str]] = field(default_factory=list)
    more: int = 0
    counted: str = ""


@dataclass
class LineRow:
    """One line with its devices."""

    name: str
    how: str
    devices: list[DeviceRow]
    can_listen: bool = False
    can_restart: bool = False
    why_not: str = ""
    hidden: int = 0  # devices that are not shown


class AlarmRow(NamedTuple):
    """One alarm."""

    name: str
    address: str
    label: str
    words: str
    kind: str
    value: str
    may_acknowledge: bool


class View:
    """Reads the gateway as it is at this moment."""

    def __init__(self, seen: Seen, recent: Recent, shows_personal: bool) -> None:
        self._seen = seen
        self._recent = recent
        self._shows_personal = shows_personal

    def is_shown(self, device: Device) -> bool:
        """Return whether what `device` says may be on the page: a household's only where there is a password."""
        return self._shows_personal or self._seen.config().audience_of(*device) != PERSONAL

    def watched(self) -> list[Watched]:
        """Return who should be heard and is shown."""
        own = self._seen.config().gateway.name
        return [
            who
            for who in self._seen.ground.health.watched
            if self.is_shown((own, who.name) if who.kind == "device" else (who.name, ""))
        ]

    def hidden(self) -> int:
        """Return how many devices and nodes are not shown."""
        config = self._seen.config()
        own = [(config.gateway.name, name) for name in config.devices] + [(name, "") for name in config.nodes]
        return sum(not self.is_shown(device) for device in own)

    def of_shown(self, findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings that name nobody who is not shown."""
        config = self._seen.config()
        own = [(config.gateway.name, name) for name in config.devices] + [(name, "") for name in config.nodes]
        hidden = [name or source for source, name in own if not self.is_shown((source, name))]
        if not hidden:
            return list(findings)
        words_of = "|".join(map(re.escape, hidden))
        named = re.compile(rf"(?<![A-Za-z0-9_-])({words_of})(?![A-Za-z0-9_-])")
        return [
            each
            for each in findings
            if not named.search("\n".join((each.what, each.where, each.evidence, each.remedy)))
        ]

    def lines(self) -> list[LineRow]:
        """Return every line, those with silent devices first."""
        stations: dict[str, list[Station]] = {}
        for name, station in self._seen.stations():
            stations.setdefault(name, []).append(station)
        rows = [self.line(name, stations.get(name, [])) for name in self._seen.config().lines]
        return sorted(rows, key=lambda row: not any(device.kind == "silent" for device in row.devices))

    def line(self, name: str, stations: list[Station] | None = None) -> LineRow:
        """Return one line; raises KeyError."""
        table = self._seen.config().lines[name]
        if stations is None:
            stations = [station for line, station in self._seen.stations() if line == name]
        own = self._seen.config().gateway.name
        shown = [station for station in stations if self.is_shown((own, station.name))]
        rows = [self._station_row(station) for station in shown] + list(self._node_rows(name))
        is_node_line = isinstance(table, settings.MqttLine | settings.UplinkLine)
        why_not = "Nodes bring records: there are no bytes to show." if is_node_line else "No device is read here."
        if len(shown) < len(stations):
            why_not = "A household's device is on this line: its bytes are shown only after a login."
        can_listen = bool(stations) and len(shown) == len(stations)
        can_restart = bool(stations) or is_node_line
        return LineRow(name, how(table), rows, can_listen, can_restart, why_not, len(stations) - len(shown))

    def computed(self) -> list[DeviceRow]:
        """Return what the gateway computes, alarms left out."""
        config = self._seen.config()
        alarms = config.edge.get("alarms", {})
        names = [name for name in config.computed() if name not in alarms]
        shown = [(config.gateway.name, name) for name in names if self.is_shown((config.gateway.name, name))]
        return [self._recorded_row(device, device[1]) for device in shown]

    def alarms(self) -> list[AlarmRow]:
        """Return every alarm, those that nobody has acknowledged first."""
        config = self._seen.config()
        rows = []
        for name, alarm in self._seen.alarms().items():
            device = config.gateway.name, name
            if not self.is_shown(device):
                continue
            kind = ("acknowledged" if alarm.is_acknowledged else "raised") if alarm.is_raised else "cleared"
            state = {"acknowledged": "raised, acknowledged", "raised": "raised", "cleared": "not raised"}[kind]
            values = [last for last in self._recent.last(device) if last.reading.quantity != "alarm"]
            value = ", ".join(" ".join(said(last.reading)) for last in values[:1]) if alarm.is_raised else ""
            label = config.label_of(*device)
            rows.append(AlarmRow(name, address(device), label, state, kind, value, kind == "raised"))
        return sorted(rows, key=lambda row: ("raised", "acknowledged", "cleared").index(row.kind))

    def device(self, device: Device) -> DeviceRow:
        """Return one device; raises KeyError if there is none, or none that is shown."""
        config = self._seen.config()
        source, name = device
        if not self.is_shown(device):
            raise KeyError(name)
        if source == config.gateway.name:
            for _, station in self._seen.stations():
                if station.name == name:
                    return self._station_row(station)
        if config.is_known(name) if source == config.gateway.name else source in config.nodes:
            return self._recorded_row(device, name if source == config.gateway.name else f"{source}/{name}")
        raise KeyError(name)

    def line_of(self, device: Device) -> str:
        """Return the name of the line that `device` is on, '' if it is computed."""
        config = self._seen.config()
        source, name = device
        table = config.devices.get(name) if source == config.gateway.name else config.nodes.get(source)
        return table.line if table else ""

    def gap_ms(self, device: Device, quantity: str) -> int:
        """Return for how long nothing may come of a quantity while all is well."""
        config = self._seen.config()
        source, name = device
        bands = [table for rows in config.edge.values() for table in rows.values() if isinstance(table, Band)]
        on_change = [
            band.longest_s for band in bands if (config.input_of(band.input), band.quantity) == (device, quantity)
        ]
        if source != config.gateway.name:
            quiet_s = self._node_quiet_s(source)
        elif name in config.devices:
            quiet_s = quiet_after_s(config.devices[name].every_s)
        else:
            return COMPUTED_GAP_MS
        return int(1000 * max([quiet_s, *on_change]))

    def where(self, device: Device) -> list[tuple[str, str]]:
        """Return how to find `device`: no driver can have its device blink, so its place and its signs must do."""
        config = self._seen.config()
        source, name = device
        found: list[tuple[str, str]] = []
        if label := config.label_of(source, name):
            found.append(("Stands at", label))
        if node := config.nodes.get(source):
            found += [("Node", source), ("Line", f"{node.line}: {how(config.lines[node.line])}")]
            return found + self._said_of(source, name)
        table = config.devices.get(name)
        if table is None:
            return [*found, ("Computed", "by this gateway, from what others say")]
        found.append(("Line", f"{table.line}: {how(config.lines[table.line])}"))
        found.append(("Driver", table.driver))
        for key in SETTINGS_TOLD:
            if key in table.settings:
                told = table.settings[key]
                found.append(
                    (key.replace("_", " "), str(told.get("part", "its own")) if isinstance(told, dict) else str(told))
                )
        for _, station in self._seen.stations():
            if station.name == name:
                attributes = getattr(station.driver, "attributes", {})
                found += [(str(key).replace("_", " "), str(value)) for key, value in list(attributes.items())[:20]]
        return found

    def _said_of(self, node: str, device: str) -> list[tuple[str, str]]:
        """Return what a node says of itself, or of one of its sensors."""
        said = self._node(node)
        if said is None:
            return [] if device else [("Says of itself", "nothing yet; it does at its next connect")]
        if not device:
            return list(node_status.facts(said))
        sensor = said.said.devices.get(device)
        return [("Its node says", node_status.in_words(sensor))] if sensor else []

    def _node(self, name: str) -> OfNode | None:
        ground = self._seen.ground
        return node_status.of(ground.nodes, name, ground.clocks.mono_ms())

    def _station_row(self, station: Station) -> DeviceRow:
        own = self._seen.config().gateway.name
        device = own, station.name
        row = self._row(device, station.name, station.heard_mono_ms, 1000 * quiet_after_s(station.every_s))
        counters = station.counters
        asked = f"asked {counters.asked} times, {counters.silent} of them in vain; " if counters.asked else ""
        more = [
            f"{number} {of}"
            for number, of in (
                (counters.damaged, "frames damaged"),
                (counters.refused, "answers of another device, or too late"),
                (counters.skipped, "times not asked, since the line had no time or the device was silent"),
            )
            if number
        ]
        row.counted = "; ".join([f"{asked}{counters.records} records made", *more])
        return row

    def _node_rows(self, line: str) -> Iterator[DeviceRow]:
        """Yield each node of a line, and below it its own devices, which it names itself."""
        for who in self._seen.ground.health.watched:
            if (who.line, who.kind) != (line, "node") or not self.is_shown((who.name, "")):
                continue
            spoken = [device for device in self._recent.devices() if device[0] == who.name]
            node = self._node(who.name)
            yield self._node_row(who, node)
            said = [(who.name, name) for name in node.said.devices] if node else []
            for device in dict.fromkeys(spoken + said):
                yield self._recorded_row(device, f"{device[0]}/{device[1]}")

    def _node_row(self, who: Watched, node: OfNode | None) -> DeviceRow:
        row = self._row((who.name, ""), who.name, who.heard_mono_ms(), 1000 * who.quiet_after_s)
        row.counted = f"our node: {node_status.line(node)}" if node else "one of our nodes: it asks its devices itself"
        if node and row.kind != "silent" and any(node.said.faults()):
            row.quality = "safe mode" if node.said.safe else "fault"
        return row

    def _node_quiet_s(self, node: str) -> float:
        """Return after how long what a node measures counts as silent: when the node itself would."""
        watched = self._seen.ground.health.watched
        return next((who.quiet_after_s for who in watched if (who.kind, who.name) == ("node", node)), NODE_SILENCE_S)

    def _recorded_row(self, device: Device, name: str) -> DeviceRow:
        """Return a row of somebody who is known by records alone."""
        readings = self._recent.last(device)
        newest_ms = max((last.time_ms for last in readings), default=None)
        row = self._row(device, name, None, 0)
        if newest_ms is not None:
            age_ms = self._seen.ground.clocks.wall_ms() - newest_ms
            is_silent = device[0] in self._seen.config().nodes and age_ms > 1000 * self._node_quiet_s(device[0])
            row.words = f"silent for {words.lasting(age_ms)}" if is_silent else f"{words.lasting(age_ms)} ago"
            row.kind = "silent" if is_silent else "heard"
            row.quality = "" if is_silent else row.quality
        node = self._node(device[0]) if device[0] in self._seen.config().nodes else None
        sensor = node.said.devices.get(device[1]) if node else None
        if sensor and sensor.is_faulty:
            row.words, row.kind, row.quality = f"{node_status.state(sensor)}, says its node", "silent", ""
        return row

    def _row(self, device: Device, name: str, heard_ms: int | None, quiet_after_ms: float) -> DeviceRow:
        config = self._seen.config()
        readings = self._recent.last(device)
        state, kind = "not heard yet", "waiting"
        now_ms = self._seen.ground.clocks.mono_ms()
        if heard_ms is not None:
            age_ms = now_ms - heard_ms
            kind = "silent" if age_ms > quiet_after_ms else "heard"
            state = f"silent for {words.lasting(age_ms)}" if kind == "silent" else f"heard {words.lasting(age_ms)} ago"
        elif any(who.silent for who in self._seen.ground.health.watched if who.name in device and who.name):
            state, kind = "never heard", "silent"
        return DeviceRow(
            "-".join(device).rstrip("-"),
            name,
            address(device),
            state,
            kind,
            "" if kind == "silent" else words.quality(readings),  # what was good then says nothing of now
            config.label_of(*device),
            config.audience_of(*device) == PERSONAL,
            [said(last.reading) for last in readings[:MOST_VALUES]],
            max(0, len(readings) - MOST_VALUES),
        )


def address(device: Device) -> str:
    """Return where `device` has its page. A node's own devices bear names that the node gave them."""
    return "/devices/" + "/".join(quote(name, safe="") for name in device if name)


def how(table: settings.Line) -> str:
    """Return how a line is reached, in words."""
    if isinstance(table, settings.SerialLine):
        return f"serial port {table.port}"
    if isinstance(table, settings.ModbusRtuLine):
        return f"Modbus on {table.port}, {table.baud} 8{table.parity}{table.stop_bits}"
    if isinstance(table, settings.ModbusTcpLine):
        return f"Modbus TCP at {table.host}:{table.port}"
    if isinstance(table, settings.MbusLine):
        return f"M-Bus on {table.port}, {table.baud} 8{table.parity}1"
    if isinstance(table, settings.I2cLine):
        return f"I2C bus /dev/i2c-{table.bus}"
    if isinstance(table, settings.BleLine):
        return f"Bluetooth adapter {table.adapter}"
    if isinstance(table, settings.UplinkLine):
        return f"our nodes on {table.port}, {table.baud} 8N1"
    return f"our nodes, by {table.broker}"


def said(reading: Reading) -> tuple[str, str]:
    """Return what was measured, and its value with the unit."""
    return words.name(reading.quantity, reading.part), words.value(reading)
