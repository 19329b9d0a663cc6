"""From a configuration to tasks: the publisher, and a part for each line and each index. Nothing is opened here.

Each kind of line is imported only where one is configured: what a gateway does not use costs it no memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bega import mqtt
from bega.clock import CLOCK_FLOOR_MS, Clock
from bega.devices import load_driver, must_be_asked
from bega.outbox.publish import Hear, Publisher
from bega.outbox.spool import Spool
from bega_gateway import config as settings
from bega_gateway.config import Config
from bega_gateway.edge.stale import Staleness
from bega_gateway.edge.tables import EDGE
from bega_gateway.feed_store import FeedStore
from bega_gateway.health import NODE_SILENCE_S, Health, Watched, quiet_after_s
from bega_gateway.lines.modbus_write import Permit, writes_of
from bega_gateway.lines.node_said import Nodes
from bega_gateway.lines.station import PERSONAL, Station
from bega_gateway.lines.window import Window
from bega_gateway.progress import Sight
from bega_gateway.recorder import Recorder
from bega_protocols.reading import Reading
from bega_protocols.record import Record

if TYPE_CHECKING:
    from bega_gateway.edge.derive import Calculation, ThresholdAlarm
    from bega_gateway.lines.asked import Wire
    from bega_gateway.lines.nodes import NodeRecords
    from bega_gateway.revocation import Revocations
    from bega_gateway.updates.desk import Updates

Work = Callable[[], Coroutine[Any, Any, None]]

# A line that is asked every second and one that is down have done nothing for at most: its longest pause between
# attempts to open (30 s), or one between tries of silent devices.
LINE_PATIENCE_S = 60.0
PAUSES_OF_SILENT = 30
LOOK_EVERY_MS = 100  # at what may be stale, at most


@dataclass(frozen=True)
class Clocks:
    """The two clocks, passed in so that a test can bring its own."""

    wall_ms: Clock
    mono_ms: Clock


@dataclass(frozen=True)
class Ground:
    """What every part stands on. It outlives every reload."""

    clocks: Clocks
    boot: int
    spool: Spool
    feed_store: FeedStore | None
    recorder: Recorder
    health: Health
    nodes: Nodes
    updates: Updates | None = None
    revocations: Revocations | None = None


class Line(Protocol):
    """What drives a wire."""

    tries: int  # to open the wire, since the start

    async def run(self) -> None:
        """Run until cancelled."""


@dataclass
class Part:
    """What begins and ends together: a line with its devices, or an index."""

    works: list[tuple[str, Work]]  # by name
    line: Line | None = None
    stations: list[Station] = field(default_factory=list)
    patience_s: float = LINE_PATIENCE_S  # so long may it do nothing
    let_go: Callable[[], None] = lambda: None  # called when all of its works have ended
    asked: Callable[[], int] | None = None  # how many questions it has asked, where that is not its stations' affair
    alarm: ThresholdAlarm | None = None  # what it watches, for whoever acknowledges it
    calculation: Calculation | None = None  # what it computes, for whoever counts what could not be used

    def sight(self, place: str) -> Sight | None:
        """Return how far it is with what must be asked; None for what waits to be spoken to, as a radio does."""
        if self.asked and self.line:
            return Sight(place, self.line.tries + self.asked(), True, self.patience_s)
        asked = [station for station in self.stations if must_be_asked(station.driver)]
        if not asked or self.line is None:
            return None
        counters = [station.counters for station in asked]
        done = self.line.tries + sum(each.asked + each.skipped for each in counters)
        return Sight(place, done, True, self.patience_s)


def publisher(config: Config, spool: Spool, clocks: Clocks, hear: Hear | None = None) -> Publisher:
    """Return what sends the spool's records to the first of the brokers that answers.

    hear: takes the commands that come from there; None: none is asked for
    """
    name = config.gateway.name
    uplink = config.uplink
    credentials = _credentials(uplink.ca_file, uplink.cert_file, uplink.key_file)

    def connect(broker: str) -> AbstractAsyncContextManager[mqtt.Session]:
        return mqtt.connect(broker, name, credentials)

    root = f"city/{config.gateway.city}/{name}/"
    listens_to = (f"{root}cmd/#", hear) if hear else None
    return Publisher(spool, uplink.brokers, connect, f"{root}probe", clocks.mono_ms, listens_to=listens_to)


def revocations(config: Config, state: Path) -> Revocations | None:
    """Return what knows who is revoked, None where the configuration has no [revocation]."""
    if config.revocation is None:
        return None
    from bega_gateway.revocation import Revocations  # cryptography costs memory

    return Revocations(config.revocation, state)


def updates(config: Config, state: Path, clocks: Clocks, nodes: Nodes) -> Updates | None:
    """Return what hands out updates of nodes, None where the configuration has no [updates]."""
    if config.updates is None:
        return None
    from bega_gateway.updates.desk import opened

    found = opened(config.updates, state, clocks)
    nodes.told = found.take
    return found


async def part(ground: Ground, config: Config, place: str, states: dict[str, bytes]) -> Part:
    """Return the part at `place` ("lines.cellar", "air_index.air") of a configuration that is known to be good.

    states: what each device's driver asked to keep.
    """
    from bega_gateway.computed import computed

    table, _, name = place.partition(".")
    if table in EDGE:
        return await computed(ground, config, place, states.get(name, b""))
    line = config.lines[name]
    if isinstance(line, settings.MqttLine):
        return await _node_line(ground, config, name, line)
    if isinstance(line, settings.UplinkLine):
        return await _uplink_line(ground, config, name, line)
    return _device_line(ground, config, name, line, states)


def _device_line(ground: Ground, config: Config, name: str, line: settings.Line, states: dict[str, bytes]) -> Part:
    works: list[tuple[str, Work]] = []
    stations = []
    for device_name, device in config.devices.items():
        if device.line != name:
            continue
        station, window = _station(ground.recorder, device_name, device, states.get(device_name, b""))
        station.is_personal = _is_personal(ground.recorder, config.gateway.name, device_name, device.audience)
        stations.append(station)
        ground.health.watch(_watched(name, station))
        if window:
            works.append((f"{name}, a window", window.run))  # without the device's name: it may be a flat's
        if device.stale_after_s:
            works.append((f"{name}, staleness", partial(_tell_stale, ground, device_name, device.stale_after_s)))
    driven = _driven(name, line, stations, ground.clocks, _permits(config, name))
    works.append((name, driven.run))
    longest_wait_s = line.timeout_s if isinstance(line, settings.ModbusRtuLine | settings.ModbusTcpLine) else 0.0
    shortest_period_s = min(station.every_s for station in stations)
    patience_s = LINE_PATIENCE_S + PAUSES_OF_SILENT * longest_wait_s + 2 * shortest_period_s
    return Part(works, driven, stations, patience_s, let_go=lambda: ground.health.forget(name))


def line_alone(config: Config, name: str, clocks: Clocks) -> tuple[Work, list[Station]]:
    """Return what drives the line `name` without a gateway, and its stations: what they read goes nowhere."""

    async def deliver(groups: list[list[Reading]], wall_ms: int) -> None:
        pass

    stations = [
        Station(device_name, load_driver(device.driver, device.settings), device.every_s, deliver, device.priority)
        for device_name, device in config.devices.items()
        if device.line == name
    ]
    return _driven(name, config.lines[name], stations, clocks).run, stations


async def _tell_stale(ground: Ground, device: str, after_s: float) -> None:
    """Give a record of what `device` has not measured for so long."""
    mono_ms, recorder = ground.clocks.mono_ms, ground.recorder
    staleness = Staleness(round(1000 * after_s))

    def take(record: Record, arrival_ms: int, simulated: bool) -> None:
        if (record.source, record.device) == (recorder.source, device):
            staleness.heard(record.readings, mono_ms())

    ends = recorder.listen(take)
    try:
        while True:
            await asyncio.sleep(max(LOOK_EVERY_MS, staleness.wait_ms(mono_ms())) / 1000)
            await recorder.record(device, [staleness.overdue(mono_ms())], ground.clocks.wall_ms())
    finally:
        ends()


def _watched(line: str, station: Station) -> Watched:
    return Watched(
        line,
        "device",
        station.name,
        quiet_after_s(station.every_s),
        heard_mono_ms=lambda: station.heard_mono_ms,
        damaged=lambda: station.counters.damaged,
        said_name=lambda: station.said_name,
    )


def _is_personal(recorder: Recorder, source: str, device: str, begun: str) -> Callable[[], bool]:
    """Return what says whether a device is a household's now; one that was just taken out is what it was, `begun`."""
    return lambda: (recorder.audience_of(source, device) or begun) == PERSONAL


def _said_node(recorder: Recorder, node: str, begun: str) -> Callable[[], str]:
    is_personal = _is_personal(recorder, node, "", begun)
    return lambda: PERSONAL if is_personal() else node


def _station(recorder: Recorder, name: str, device: settings.Device, state: bytes) -> tuple[Station, Window | None]:
    driver = load_driver(device.driver, device.settings, state)

    async def deliver(groups: list[list[Reading]], wall_ms: int) -> None:
        await recorder.record(name, groups, wall_ms, keeps=driver)

    if must_be_asked(driver):
        return Station(name, driver, device.every_s, deliver, device.priority), None
    window = Window(device.every_s, deliver)
    return Station(name, driver, device.every_s, window.take, window=window), window


def _permits(config: Config, line: str) -> tuple[Permit, ...]:
    """Return what commands may write on a line: nothing where there are no commands."""
    if config.commands is None:
        return ()
    return tuple(
        Permit(device.settings["address"], write)
        for device in config.devices.values()
        if device.line == line
        for write in writes_of(device.writes).values()
    )


def _driven(
    name: str, line: settings.Line, stations: list[Station], clocks: Clocks, permits: tuple[Permit, ...] = ()
) -> Line:
    if isinstance(line, settings.SerialLine) and not must_be_asked(stations[0].driver):
        from bega_gateway.lines.serial import SerialLine

        return SerialLine(name, line, stations, clocks.mono_ms, clocks.wall_ms)
    if isinstance(line, settings.SerialLine | settings.MbusLine | settings.I2cLine):
        from bega_gateway.lines.asked import AskedLine

        return AskedLine(name, _wire(line, stations, clocks), stations, clocks.mono_ms, clocks.wall_ms)
    if isinstance(line, settings.BleLine):
        from bega_gateway.lines.ble import BleLine

        return BleLine(name, line, stations, clocks.mono_ms, clocks.wall_ms)
    assert isinstance(line, settings.ModbusRtuLine | settings.ModbusTcpLine)
    from bega_gateway.lines.modbus import ModbusLine

    return ModbusLine(name, line, stations, clocks.mono_ms, clocks.wall_ms, permits=permits)


def _wire(
    line: settings.SerialLine | settings.MbusLine | settings.I2cLine, stations: list[Station], clocks: Clocks
) -> Wire:
    if isinstance(line, settings.I2cLine):
        from bega_gateway.lines.wire_i2c import I2cWire

        return I2cWire(line.bus, clocks.mono_ms)
    from bega_gateway.lines.wire_serial import SerialWire

    if isinstance(line, settings.MbusLine):
        return SerialWire(line.port, line.baud, f"8{line.parity}1", clocks.mono_ms)
    from bega_gateway.lines.serial import rate_and_frame

    return SerialWire(line.port, *rate_and_frame(line, stations[0].driver.line), clocks.mono_ms)


async def _node_line(ground: Ground, config: Config, name: str, line: settings.MqttLine) -> Part:
    """Return the line of our own nodes.

    It begins with the heads that the spool has committed. A record that the line before it took and that is not
    committed yet may so come a second time, with its number; none is ever acknowledged too early.
    """
    from bega_gateway.lines.mqtt import NodeLine

    nodes, said = _nodes_of(ground, config, name)
    credentials = _credentials(line.ca_file, line.cert_file, line.key_file)
    client_id = f"{config.gateway.name}-{name}"  # the uplink's session on the same broker has the plain name
    node_line = NodeLine(
        name,
        nodes,
        connect=lambda: mqtt.connect(line.broker, client_id, credentials),
        records=await _node_records(ground, said),
        wall_ms=partial(_trusted_wall_ms, ground.clocks),
        mono_ms=ground.clocks.mono_ms,
        pieces=ground.updates.piece if ground.updates else None,
        is_pulling=ground.updates.is_pulling if ground.updates else _nobody,
    )
    for node in nodes:
        heard = _heard(node_line.heard_mono_ms, node)
        every_s = partial(ground.nodes.speaks_every_s, node)
        ground.health.watch(
            Watched(name, "node", node, NODE_SILENCE_S, heard, said_name=said[node], speaks_every_s=every_s)
        )
    return Part([(name, node_line.run)], node_line, let_go=lambda: ground.health.forget(name))


async def _uplink_line(ground: Ground, config: Config, name: str, line: settings.UplinkLine) -> Part:
    """Return the line of our own nodes on a serial port; of its heads holds what is said above."""
    from bega_gateway.lines.uplink import UplinkLine, node_key

    nodes, said = _nodes_of(ground, config, name)
    uplink_line = UplinkLine(
        name,
        line,
        nodes,
        records=await _node_records(ground, said),
        key_of=lambda node: node_key(config.nodes[node].key_file),
        chance=secrets.token_bytes,
        wall_ms=partial(_trusted_wall_ms, ground.clocks),
        mono_ms=ground.clocks.mono_ms,
        pieces=ground.updates.piece if ground.updates else None,
    )
    for node in nodes:
        heard, damaged = _heard(uplink_line.heard_mono_ms, node), partial(uplink_line.damaged, node)
        ground.health.watch(Watched(name, "node", node, NODE_SILENCE_S, heard, damaged, said_name=said[node]))
    works: list[tuple[str, Work]] = [(name, uplink_line.run)]
    return Part(works, uplink_line, let_go=lambda: ground.health.forget(name), asked=lambda: uplink_line.asked)


def _nodes_of(ground: Ground, config: Config, line: str) -> tuple[list[str], dict[str, Callable[[], str]]]:
    """Return the nodes of a line, and what gives the name of each for the log."""
    nodes = [node for node, table in config.nodes.items() if table.line == line]
    return nodes, {node: _said_node(ground.recorder, node, config.nodes[node].audience) for node in nodes}


async def _node_records(ground: Ground, said: dict[str, Callable[[], str]]) -> NodeRecords:
    from bega_gateway.lines.nodes import NodeRecords

    clocks, spool, recorder = ground.clocks, ground.spool, ground.recorder
    return NodeRecords(
        store=lambda record, pack, head: recorder.record_of_node(record, pack, head, clocks.wall_ms()),
        skip_to=spool.set_head,
        heads=await spool.heads(),
        has_room=spool.has_room,
        said_name=lambda node: said[node](),
        said=ground.nodes,
        is_barred=ground.revocations.is_barred if ground.revocations else _nobody,
    )


def _trusted_wall_ms(clocks: Clocks) -> int | None:
    wall_ms = clocks.wall_ms()
    return wall_ms if wall_ms >= CLOCK_FLOOR_MS else None


def _nobody(node: str) -> bool:
    return False


def _heard(heard_mono_ms: dict[str, int], node: str) -> Callable[[], int | None]:
    return lambda: heard_mono_ms.get(node)


def _credentials(ca_file: str | None, cert_file: str | None, key_file: str | None) -> mqtt.Credentials | None:
    return mqtt.Credentials(ca_file, cert_file, key_file) if ca_file or cert_file else None
