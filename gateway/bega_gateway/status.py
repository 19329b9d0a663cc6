"""How a gateway is doing, as data: what the one that runs tells on its control socket, and how it is shown."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bega import __version__
from bega.clock import CLOCK_FLOOR_MS, wall_ms
from bega.settings import parse_assignments
from bega_gateway import config as settings
from bega_gateway import node_status
from bega_gateway.control import NoAnswer, NoGateway, ask_status
from bega_gateway.health import quiet_after_s
from bega_gateway.node_status import OfNode, lasting
from bega_gateway.updates.told import OfUpdate
from bega_gateway.updates.told import line as of_update
from bega_protocols.reading import GOOD, STALE

if TYPE_CHECKING:
    from bega.outbox.publish import Publisher
    from bega.outbox.spool import Spool
    from bega_gateway.health import Watched
    from bega_gateway.home_assistant.link import Link
    from bega_gateway.lines.ble_counters import BleCounters
    from bega_gateway.lines.node_said import Nodes
    from bega_gateway.lines.station import Station
    from bega_protocols.record import Record

QUALITIES = ("good", "suspect", "stale")
DRAIN_OVER_S = 1.0
SPOOL_FILE = "spool.db"
SETTLED_S = 300.0  # a sensor that warms up is suspect, and nothing is wrong
FULL_SHARE = 0.9  # of the spool's quota
NEXT_STEP = "  > why, and what to do: sudo bega gateway doctor --config {}"
COUNTED = {
    "asked": "questions",
    "silent": "unanswered",
    "records": "records",
    "damaged": "damaged frames",
    "refused": "answers of another or too late",
    "skipped": "not asked",
}


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one device since its line was begun."""

    asked: int = 0
    records: int = 0
    silent: int = 0
    damaged: int = 0
    skipped: int = 0
    refused: int = 0


class OfDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device that the gateway reads, or one node that it hears."""

    name: str
    line: str
    is_node: bool = False
    driver: str = ""
    audience: str = "operator"
    every_s: float = 0.0
    watched_s: float = 0.0  # so long is it waited for
    quiet_after_s: float = 0.0  # what counts as silent
    since_heard_s: float | None = None  # None: never
    quality: int | None = None  # the worst of its last record; None: there was none
    counts: Counts = Counts()
    damage: str = ""  # what was wrong with the last damaged frame
    lacking: list[str] = []  # numbers that a Modbus device refuses
    to_set: list[str] = []  # what somebody set wrongly on it
    node: OfNode | None = None  # what a node says of itself; None: not a node, or it has said nothing yet

    @property
    def is_heard(self) -> bool:
        """Whether it was heard within the time in which it should be."""
        return self.since_heard_s is not None and self.since_heard_s <= self.quiet_after_s

    @property
    def is_silent(self) -> bool:
        """Whether it was not heard for longer than it may be."""
        return not self.is_heard and self.watched_s > self.quiet_after_s

    @property
    def is_doubted(self) -> bool:
        """Whether it is heard and what it says is suspect or stale, for longer than it takes to warm up."""
        return self.is_heard and bool(self.quality) and (self.quality == STALE or self.watched_s > SETTLED_S)


class OfSpool(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on the disk and for it."""

    messages: int = 0
    uncommitted: int = 0
    committed: int = 0
    is_failing: bool = False  # the disk takes nothing
    set_aside: int = 0
    dropped: int = 0
    refused: int = 0
    used_bytes: int = 0
    quota_bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it is at its quota, or nearly."""
        return self.used_bytes > FULL_SHARE * self.quota_bytes > 0


class OfUplink(msgspec.Struct, frozen=True, kw_only=True):
    """The way to the broker."""

    connected_to: str | None = None
    attempts: int = 0
    acknowledged: int = 0
    in_flight: int = 0


class OfHomeAssistant(msgspec.Struct, frozen=True, kw_only=True):
    """What Home Assistant is told."""

    connected_to: str | None = None
    entities: int = 0
    sent: int = 0
    keeps: bool | None = None  # whether its broker keeps retained messages; None: not known yet


class OfAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """What a Bluetooth adapter heard."""

    line: str
    adapter: str
    ours: int = 0
    foreign: int = 0
    resets: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway that runs, as it is now."""

    gateway: str
    boot: int
    version: str = __version__
    wall_ms: int
    mono_ms: int
    up_s: float
    lag_s: float = 0.0
    lines: list[str] = []
    devices: list[OfDevice] = []
    spool: OfSpool = OfSpool()
    uplink: OfUplink = OfUplink()
    adapters: list[OfAdapter] = []
    home_assistant: OfHomeAssistant | None = None  # None: it is not configured
    updates: list[OfUpdate] = []


class Qualities:
    """Remembers the worst quality in the last record of each device; a listener of the recorder."""

    def __init__(self) -> None:
        self._worst: dict[tuple[str, str], int] = {}

    def take(self, record: Record, arrival_ms: int, simulated: bool) -> None:
        """Take note of a record."""
        self._worst[record.source, record.device] = max(reading.quality for reading in record.readings)

    def of(self, source: str, device: str) -> int | None:
        """Return the worst quality of the last record, None if there was none; of a node that of all its devices."""
        if device:
            return self._worst.get((source, device))
        return max((worst for (of, _), worst in self._worst.items() if of == source), default=None)


def of_device(
    config: settings.Config, line: str, station: Station, watched: Iterable[Watched], qualities: Qualities, now_ms: int
) -> OfDevice:
    """Return how a device is doing that the gateway itself reads."""
    driver = station.driver
    since_ms = next((who.since_ms for who in watched if (who.line, who.name) == (line, station.name)), now_ms)
    device = config.devices.get(station.name)
    return OfDevice(
        name=station.name,
        line=line,
        driver=device.driver if device else "",
        audience=device.audience if device else "operator",
        every_s=station.every_s,
        watched_s=(now_ms - since_ms) / 1000,
        quiet_after_s=quiet_after_s(station.every_s),
        since_heard_s=_since_s(station.heard_mono_ms, now_ms),
        quality=qualities.of(config.gateway.name, station.name),
        counts=Counts(**vars(station.counters)),
        damage=station.damage,
        lacking=list(driver.lacking()) if hasattr(driver, "lacking") else [],
        to_set=list(driver.to_set()) if hasattr(driver, "to_set") else [],
    )


def of_node(config: settings.Config, who: Watched, qualities: Qualities, nodes: Nodes, now_ms: int) -> OfDevice:
    """Return how a node is doing."""
    return OfDevice(
        name=who.name,
        line=who.line,
        is_node=True,
        audience=config.nodes[who.name].audience if who.name in config.nodes else "operator",
        watched_s=(now_ms - who.since_ms) / 1000,
        quiet_after_s=who.quiet_after_s,
        since_heard_s=_since_s(who.heard_mono_ms(), now_ms),
        quality=qualities.of(who.name, ""),
        counts=Counts(damaged=who.damaged()),
        node=node_status.of(nodes, who.name, now_ms),
    )


def of_spool(spool: Spool) -> OfSpool:
    """Return what the spool counts."""
    return OfSpool(
        messages=spool.depth,
        uncommitted=spool.waiting,
        committed=spool.committed,
        is_failing=spool.failing,
        set_aside=spool.set_aside,
        dropped=sum(spool.dropped.values()),
        refused=sum(spool.refused.values()),
        used_bytes=spool.used_bytes,
        quota_bytes=spool.quota_bytes,
    )


def of_uplink(publisher: Publisher) -> OfUplink:
    """Return what the publisher counts."""
    return OfUplink(
        connected_to=publisher.connected_to,
        attempts=publisher.attempts,
        acknowledged=publisher.acknowledged,
        in_flight=publisher.in_flight,
    )


def of_adapters(adapters: Iterable[tuple[str, BleCounters]]) -> list[OfAdapter]:
    """Return what each Bluetooth adapter heard."""
    return [
        OfAdapter(line=line, adapter=each.adapter, ours=each.ours, foreign=each.foreign, resets=each.resets)
        for line, each in adapters
    ]


def of_home_assistant(link: Link | None) -> OfHomeAssistant | None:
    """Return what Home Assistant is told, None where it is not."""
    if link is None:
        return None
    return OfHomeAssistant(connected_to=link.connected_to, entities=link.entities, sent=link.sent, keeps=link.keeps)


def asked(state: Path) -> Status:
    """Return what the gateway says whose state lies in `state`.

    Raises NoGateway where none runs, NoAnswer where it hangs or is of another release, ConfigError where we
    may not ask.
    """
    answer = ask_status(state)
    try:
        return msgspec.json.decode(answer, type=Status)
    except msgspec.MsgspecError as error:
        raise NoAnswer(f"the gateway that runs is of another release ({error}); restart it") from None


def status(args: argparse.Namespace) -> int:
    """Print how the gateway is doing, what is wrong first; 1 if something is, or if none runs."""
    config = settings.load(args.config, parse_assignments(args.set))
    state = Path(config.gateway.state_dir)
    try:
        before = asked(state)
    except NoGateway as error:
        if args.json:
            print(msgspec.json.encode({"running": False, "state": left_behind(state)}).decode())
        else:
            print(f"{config.gateway.name} does not run: {error}")
            print("\n".join(f"  {word}: {told}" for word, told in left_behind(state).items()))
            print(NEXT_STEP.format(args.config))
        return 1
    time.sleep(DRAIN_OVER_S)
    now = asked(state)
    per_s = drain_per_s(before, now)
    if args.json:
        print(msgspec.json.encode({"running": True, "drain_per_s": per_s, **msgspec.to_builtins(now)}).decode())
    else:
        print("\n".join(text(now, per_s, args.config)))
    return 1 if list(troubles(now)) else 0


def drain_per_s(before: Status, now: Status) -> float:
    """Return how many messages a second the broker acknowledged between two looks."""
    passed_s = max(1, now.mono_ms - before.mono_ms) / 1000
    return round(max(0, now.uplink.acknowledged - before.uplink.acknowledged) / passed_s, 1)


def left_behind(state: Path) -> dict[str, str]:
    """Return what the files of a gateway that does not run tell, in words."""
    if state.exists() and not state.is_dir():
        return {"state": f"{state} is no folder"}
    if not state.is_dir():
        return {"state": f"{state} is not there: it has never run with this configuration"}
    told = {"state": str(state)}
    spool = state / SPOOL_FILE
    try:
        file = spool.stat()
        age_s = max(0, wall_ms() / 1000 - file.st_mtime)
        told["spool"] = f"{file.st_size / 1e6:.1f} MB, written {ago(age_s)}"
        told["waiting"] = f"{_waiting(spool)} messages"
    except FileNotFoundError:
        told["spool"] = "none"
    except OSError as error:
        told["spool"] = f"cannot be read ({error.strerror}): run this as root, or as the gateway's user"
    damaged = sorted(path.name for path in state.glob(f"{SPOOL_FILE}.damaged*"))
    if damaged:
        told["damaged"] = ", ".join(damaged)
    return told


def _waiting(spool: Path) -> str:
    """Return the number of messages in a spool that nobody has open; it is read and not changed."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True, timeout=1)) as database:
            return str(database.execute("SELECT count(*) FROM outbox").fetchone()[0])
    except sqlite3.Error as error:
        return f"cannot be counted ({error})"


def troubles(now: Status) -> Iterator[str]:
    """Yield what is wrong, one line each: first what stops readings now, last what did and is over."""
    spool, uplink = now.spool, now.uplink
    lost = f"{spool.dropped} messages dropped, {spool.refused} refused since the start"
    if spool.is_failing:
        yield f"disk: takes nothing, {spool.uncommitted} messages wait in memory"
    if spool.is_full:
        yield f"spool: full, {lost}" if spool.dropped or spool.refused else "spool: nearly full"
    for device in now.devices:
        if device.is_silent:
            kind = "node" if device.is_node else "device"
            heard = "never heard" if device.since_heard_s is None else f"last heard {ago(device.since_heard_s)}"
            yield f"{kind} {device.name} on {device.line}: silent, {heard}"
        elif device.node:
            yield from (f"node {device.name} on {device.line}: {what}" for what in node_status.troubles(device.node))
    if uplink.connected_to is None:
        yield f"uplink: down, {uplink.attempts} attempts, {spool.messages} messages wait"
    if now.wall_ms < CLOCK_FLOOR_MS:
        yield "clock: not set, records go without a time"
    for device in now.devices:
        if device.quality and device.is_doubted:
            yield f"device {device.name} on {device.line}: its last record is {QUALITIES[device.quality]}"
    if now.home_assistant and now.home_assistant.connected_to is None:
        yield "home assistant: its broker is down, it is told nothing"
    if now.home_assistant and now.home_assistant.keeps is False:
        yield "home assistant: its broker keeps no retained messages, it forgets every device when it starts anew"
    yield from (of_update(update) for update in now.updates if update.is_stopped)
    if spool.set_aside:
        yield f"spool: {spool.set_aside} messages set aside, which nobody would take"
    if not spool.is_full and (spool.dropped or spool.refused):
        yield f"spool: it was full, {lost}"


def text(now: Status, per_s: float, file: Path) -> Iterator[str]:
    """Yield one screen: what is wrong, then how all of it is doing. file: the configuration."""
    found = list(troubles(now))
    awaited = sum(not device.is_heard and not device.is_silent for device in now.devices)
    still = f", {awaited} not heard yet" if awaited else ""
    yield f"{now.gateway}: {f'{len(found)} wrong' if found else 'nothing wrong'}{still}; up for {lasting(now.up_s)}"
    yield from (f"  ! {line}" for line in found)
    if found:
        yield NEXT_STEP.format(file)
    spool, uplink = now.spool, now.uplink
    if uplink.connected_to:
        yield f"uplink  {uplink.connected_to}, {uplink.acknowledged} acknowledged, {per_s:g} a second"
    if now.home_assistant and now.home_assistant.connected_to:
        yield f"home assistant  {now.home_assistant.connected_to}, {now.home_assistant.entities} entities"
    yield from (of_update(update) for update in now.updates if not update.is_stopped)
    share = 100 * spool.used_bytes / spool.quota_bytes if spool.quota_bytes else 0
    drained = f", empty in {lasting(spool.messages / per_s)}" if spool.messages > 1000 and per_s else ""
    yield f"spool   {spool.messages} waiting, {spool.uncommitted} in memory, {share:.0f} % of its quota{drained}"
    yield f"loop    at most {1000 * now.lag_s:.0f} ms late in the last minute"
    width = max((len(device.name) for device in now.devices), default=0)
    for line in now.lines:
        yield f"line {line}"
        for device in (device for device in now.devices if device.line == line):
            told = node_status.line(device.node) if device.node else _counts(device.counts)
            yield f"  {device.name:{width}}  {_heard(device):18} {_quality(device):8} {told}".rstrip()
    for adapter in now.adapters:
        heard = f"{adapter.ours} heard of ours, {adapter.foreign} of others"
        yield f"{adapter.adapter}  {heard}, {adapter.resets} times switched off and on"


def ago(seconds: float) -> str:
    """Return "5 min ago"."""
    return f"{lasting(seconds)} ago"


def _heard(device: OfDevice) -> str:
    return "never" if device.since_heard_s is None else ago(device.since_heard_s)


def _quality(device: OfDevice) -> str:
    return "-" if device.quality is None else QUALITIES[max(GOOD, device.quality)]


def _counts(counts: Counts) -> str:
    return ", ".join(f"{value} {words}" for key, words in COUNTED.items() if (value := getattr(counts, key)))


def _since_s(heard_ms: int | None, now_ms: int) -> float | None:
    return None if heard_ms is None else (now_ms - heard_ms) / 1000
