"""A gateway from its start to its end. It polls and stores before the first broker answers.

What runs ends from the inside out: first the lines, then what sends, last the stores, so that what the others bring
at the end is committed too. Lines and indices can be ended and begun while the rest goes on: see parts.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bega.listen import address_of, bind
from bega.notify import Notifier, watchdog_s
from bega.outbox.alone import hold_alone
from bega.outbox.boot import raise_boot
from bega.ready import write_ready
from bega.threads import UnwaitedThreads
from bega_gateway import build, node_status, status
from bega_gateway import config as settings
from bega_gateway.build import Clocks, Ground, Work
from bega_gateway.config import Config
from bega_gateway.control import Control, Origin, Outcome, Wanted
from bega_gateway.feed_store import FeedStore
from bega_gateway.health import Health
from bega_gateway.lending import lent
from bega_gateway.lines.ble_counters import BleCounters
from bega_gateway.lines.node_said import Nodes
from bega_gateway.lines.station import Station
from bega_gateway.owned import owned
from bega_gateway.owner import require_owner
from bega_gateway.pace import Pace
from bega_gateway.parts import Parts, kept_up
from bega_gateway.progress import Sight
from bega_gateway.record_file import head_of
from bega_gateway.recorder import Recorder
from bega_gateway.reload import Plan, parts, plan, settled
from bega_gateway.state_dir import make_state_dir, open_spool, settle, thread_of
from bega_gateway.status import Qualities, Status
from bega_gateway.supervision import Supervision, spool_sight, uplink_sight
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.mqtt import Message
    from bega_gateway import metrics
    from bega_gateway.commands.desk import Desk
    from bega_gateway.commands.table import Commands
    from bega_gateway.doctor.finding import Finding
    from bega_gateway.feed import Feed
    from bega_gateway.home_assistant.link import Link
    from bega_gateway.updates.told import OfUpdate

__all__ = ["Clocks", "run"]

FINISH_S = 0.5  # for the broker's answers at the end, out of the two seconds that a gateway has to stop

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where the configuration comes from."""

    origin: Origin
    examine: Callable[[], tuple[Config | None, list[str]]]  # reads it again: the configuration, or every problem


async def run(config: Config, source: Source, clocks: Clocks, ready_file: Path | None, stop: asyncio.Event) -> None:
    """Run the gateway that `config` describes until `stop` is set.

    source: where `config` comes from; it is read again when SIGHUP or `bega gateway reload` asks for it.
    Raises ConfigError for what makes running impossible: no place for the state, a feed port that is taken.
    A missing serial port or a refusing broker is no reason to stop: it is said, and tried again.
    """
    asyncio.get_running_loop().set_default_executor(UnwaitedThreads())
    async with AsyncExitStack() as stack:
        notifier = Notifier(os.environ.get("NOTIFY_SOCKET"))
        stack.callback(notifier.close)
        gateway = await Gateway.opened(config, source, clocks, notifier, stack)
        facts = {
            "gateway": config.gateway.name,
            "boot": gateway.boot,
            "feed": gateway.feed_address,
            "metrics": gateway.metrics_address,
            "page": gateway.page_address,
        }
        try:
            write_ready(ready_file, facts)
        except OSError as error:
            raise ConfigError(f"--ready-file {ready_file} cannot be written ({error.strerror})") from None
        log.info("gateway up name=%s boot=%d lines=%d", config.gateway.name, gateway.boot, len(config.lines))
        async with gateway.running():
            notifier.tell("READY=1")
            await stop.wait()
            notifier.tell("STOPPING=1")
            log.info("gateway stops")


class Gateway:
    """Every task, and the one configuration that all of them run by."""

    def __init__(self, config: Config, source: Source, ground: Ground, notifier: Notifier) -> None:
        """Use `opened`."""
        self._config = config
        self._source = source
        self._ground = ground
        self._notifier = notifier
        self._parts = Parts(ground)
        self._desk: Desk | None = None
        hear = self._hear if config.commands else None
        self._publisher = build.publisher(config, ground.spool, ground.clocks, hear)
        self._supervision = Supervision(
            notifier, watchdog_s(os.environ), self._sights, self._status, ground.clocks.mono_ms
        )
        self._pace = Pace(self._publisher, ground.clocks.mono_ms)
        ground.recorder.keep(self._pace)
        self._qualities = Qualities()
        ground.recorder.listen(self._qualities.take)
        self._began_ms = ground.clocks.mono_ms()
        self._feed: Feed | None = None
        self._home_assistant: Link | None = None
        self._stores: list[tuple[str, Work]] = [("spool", ground.spool.run)]
        self._tasks: list[tuple[str, Work]] = []
        self._hangup = asyncio.Event()
        self._lines_begun = asyncio.Event()
        self._changing = asyncio.Lock()
        self.boot = ground.boot
        self.revocations = ground.revocations
        self.feed_address: str | None = None
        self.metrics_address: str | None = None
        self.page_address: str | None = None

    @classmethod
    async def opened(
        cls, config: Config, source: Source, clocks: Clocks, notifier: Notifier, stack: AsyncExitStack
    ) -> Gateway:
        """Open all that outlives a reload; what the stack closes is closed when every task has ended."""
        state = Path(config.gateway.state_dir)
        make_state_dir(state)
        require_owner(state, os.geteuid())
        stack.callback(os.close, hold_alone(state))
        boot = raise_boot(state, clocks.wall_ms() // 1000)
        spool = await open_spool(state / "spool.db", thread_of(stack, "spool"), config.gateway)
        stack.push_async_callback(spool.close)
        feed_store = None
        if config.feed:
            feed_store = await FeedStore.open(state / "feed.db", thread_of(stack, "feed"), config.feed.keep_hours)
            stack.push_async_callback(feed_store.close)
        recorder = Recorder(config, boot, spool, feed_store)
        nodes = Nodes(clocks.mono_ms)
        updates, revocations = build.updates(config, state, clocks, nodes), build.revocations(config, state)
        ground = Ground(clocks, boot, spool, feed_store, recorder, Health(clocks.mono_ms), nodes, updates, revocations)
        gateway = cls(config, source, ground, notifier)
        gateway._listen(config, state, stack)
        return gateway

    def _listen(self, config: Config, state: Path, stack: AsyncExitStack) -> None:
        """Name every task that is no part's, and open what they listen on."""
        self._keep("publisher", self._publisher.run)
        self._keep("pace", self._pace.run)
        self._keep("health", self._ground.health.run)
        self._keep("supervision", self._supervision.run)
        self._keep("reload", self._heed_hangups)
        if config.feed:
            self._serve_feed(config, config.feed, stack)
        if config.commands:
            self._take_commands(config, config.commands, state, stack)
        if config.metrics:
            self._serve_metrics(config.metrics, stack)
        if config.page:
            self._serve_page(config.page, stack)
        if config.home_assistant:
            from bega_gateway.home_assistant.opening import opened  # only where it is told

            self._home_assistant = opened(config, config.home_assistant, self._ground, self._parts.alarms)
            self._keep("home assistant", self._home_assistant.run)
        if self.revocations:
            self._keep("revocation", self.revocations.run)
        if updates := self._ground.updates:
            self._keep("updates", partial(updates.run, self))
        updating = updates.asked if updates else None
        commands = Control(state, self.reload, self._recording, self._told_status, self._lending, updating)
        stack.callback(commands.close)
        self._keep("control", commands.run)

    def _serve_feed(self, config: Config, table: settings.Feed, stack: AsyncExitStack) -> None:
        from bega import web  # Starlette and uvicorn cost memory: only where a feed is configured
        from bega_gateway.feed import Feed

        feed_store = self._ground.feed_store
        assert feed_store
        listener = web.bind("feed.listen", table.listen)
        stack.callback(listener.close)
        self._feed = Feed(config, feed_store, self._ground.clocks.wall_ms)
        self._stores.append(("feed store", feed_store.run))
        self._tasks.append(("feed", partial(web.serve, self._feed.app(), listener)))
        self.feed_address = web.address_of(listener)

    def _serve_metrics(self, table: settings.Metrics, stack: AsyncExitStack) -> None:
        from bega_gateway import metrics

        listener = bind("metrics.listen", table.listen)
        stack.callback(listener.close)
        ground = self._ground

        def now() -> str:
            return metrics.text(metrics.families(self, ground.spool, self._publisher, ground.clocks.mono_ms))

        self._keep("metrics", partial(metrics.serve, listener, now))
        self.metrics_address = address_of(listener)

    def _serve_page(self, table: settings.Page, stack: AsyncExitStack) -> None:
        from bega import web  # Starlette, uvicorn and Jinja2 cost memory: only where a page is configured
        from bega_gateway.page.site import Site
        from bega_gateway.page.view import Seen

        listener = web.bind("page.listen", table.listen)
        stack.callback(listener.close)
        seen = Seen(
            self._ground,
            self._publisher,
            config=lambda: self._config,
            stations=self._parts.stations,
            alarms=self._parts.alarms,
            restart_line=self.restart_line,
            acknowledge=self.acknowledge,
            examine=self.examine,
        )
        site = Site(table, seen)
        self._keep("page's clock", site.run)
        self._tasks.append(("page", partial(web.serve, site.app(), listener)))
        self.page_address = web.address_of(listener)

    async def restart_line(self, name: str) -> bool:
        """End a line and begin it anew; return whether it runs. Raises ConfigError where nothing was done."""
        place = f"lines.{name}"
        async with self._changing:
            if place not in parts(self._config):
                raise ConfigError(f"there is no line {name!r} that has something to read")
            try:
                states = await self._ground.spool.driver_states()
            except sqlite3.Error as error:
                raise ConfigError(f"the spool cannot be read ({error}); nothing was done, see the disk") from None
            return not await self._parts.change(Plan([], [place], [place]), self._config, states)

    async def examine(self) -> list[Finding]:
        """Return what `bega gateway doctor` finds, for the page."""
        from bega_gateway.doctor.examine import findings

        return await findings(self._config, self.status())

    async def acknowledge(self, alarm: str) -> None:
        """Note that somebody knows of an alarm, and put it on record; raises ConfigError if it is not raised."""
        watched = self._parts.alarms().get(alarm)
        if watched is None or not watched.is_raised or watched.is_acknowledged:
            raise ConfigError(f"{alarm} is not raised, or somebody has acknowledged it already")
        now_ms = self._ground.clocks.wall_ms()
        said = [watched.acknowledge()]
        await self._ground.recorder.record(alarm, [said], now_ms, keeps=watched, at_once=True)

    def _take_commands(self, config: Config, table: Commands, state: Path, stack: AsyncExitStack) -> None:
        from bega_gateway.commands.opening import opened  # only where they are heard

        gateway, clocks = config.gateway, self._ground.clocks
        executor = thread_of(stack, "commands")
        root = f"city/{gateway.city}/{gateway.name}/"
        self._desk, close = opened(root, table, state, executor, self._ground.spool, self, clocks.wall_ms)
        stack.push_async_callback(close)
        self._keep("commands", partial(self._do_commands, self._desk))

    async def _do_commands(self, desk: Desk) -> None:
        """Do commands, once there are lines: the broker hands over at the connect what came while we were away."""
        await self._lines_begun.wait()
        await desk.run()

    def _hear(self, message: Message) -> None:
        if self._desk:
            self._desk.hear(message)

    def config(self) -> Config:
        """Return the configuration that runs now."""
        return self._config

    def line(self, name: str) -> build.Line | None:
        """Return what drives a line, None if it does not run."""
        return self._parts.line(name)

    def station(self, device: str) -> tuple[build.Line, Station] | None:
        """Return what drives the line of a device, and its station; None if it is not read now."""
        for name, station in self._parts.stations():
            if station.name == device and (line := self._parts.line(name)):
                return line, station
        return None

    def figures(self) -> dict[str, Any]:
        """Return how it is, in a few figures without the name of any device."""
        heard, watched = self.heard()
        spool, connected = self._ground.spool, self._publisher.connected_to is not None
        return {
            "boot": self.boot,
            "heard": heard,
            "watched": watched,
            "waiting": spool.depth,
            "can_store": not spool.failing,
            "uplink": "up" if connected else "down",
        }

    def devices(self) -> list[tuple[str, Station, str]]:
        """Return every device that is read: its line, what is counted of it, and who may see it."""
        return [
            (line, station, self._config.devices[station.name].audience) for line, station in self._parts.stations()
        ]

    def nodes(self) -> list[metrics.Node]:
        """Return what each of our own nodes says of itself, those left out that have said nothing yet."""
        known, now_ms = self._ground.nodes, self._ground.clocks.mono_ms()
        found = [(table, name, node_status.of(known, name, now_ms)) for name, table in self._config.nodes.items()]
        return [(table.line, name, node, table.audience) for table, name, node in found if node]

    def adapters(self) -> list[tuple[str, BleCounters]]:
        """Return what is counted of each Bluetooth adapter, with the name of its line."""
        return self._parts.adapters()

    def left_out(self) -> list[tuple[str, int, str]]:
        """Return the place of each calculation, what it could not use, and who may see it."""
        source, config = self._config.gateway.name, self._config
        found = self._parts.calculations()
        return [(place, each.left_out, config.audience_of(source, place.partition(".")[2])) for place, each in found]

    def commanded(self) -> Mapping[tuple[str, str], int] | None:
        """Return how many commands came to what end, a refusal with its kind; None where none are taken."""
        return self._desk.counted if self._desk else None

    def heard(self) -> tuple[int, int]:
        """Return how many devices and nodes are heard, and of how many."""
        return self._ground.health.heard(), len(self._ground.health.watched)

    def status(self) -> Status:
        """Return how all of it is doing now."""
        ground, config = self._ground, self._config
        now_ms = ground.clocks.mono_ms()
        watched = ground.health.watched
        devices = [
            status.of_device(config, line, station, watched, self._qualities, now_ms)
            for line, station in self._parts.stations()
        ]
        nodes = [
            status.of_node(config, who, self._qualities, ground.nodes, now_ms) for who in watched if who.kind == "node"
        ]
        return Status(
            gateway=config.gateway.name,
            boot=ground.boot,
            wall_ms=ground.clocks.wall_ms(),
            mono_ms=now_ms,
            up_s=(now_ms - self._began_ms) / 1000,
            lag_s=self.lag_s(),
            lines=list(config.lines),
            devices=devices + nodes,
            spool=status.of_spool(ground.spool),
            uplink=status.of_uplink(self._publisher),
            adapters=status.of_adapters(self.adapters()),
            home_assistant=status.of_home_assistant(self._home_assistant),
            updates=self.updates(),
        )

    def updates(self) -> list[OfUpdate]:
        """Return how each rollout of an update to nodes is."""
        return self._ground.updates.status() if self._ground.updates else []

    def _told_status(self) -> bytes:
        return msgspec.json.encode(self.status())

    def lag_s(self) -> float:
        """Return how late the loop came at worst, in the last minute."""
        return self._supervision.lag_s

    def _keep(self, name: str, work: Work) -> None:
        self._tasks.append((name, kept_up(name, work)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all of it while the block runs; a defect that no new attempt can mend ends the block."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        async with owned(self._stores), owned(self._tasks):
            async with self._parts.running():
                async with self._changing:
                    await self._parts.begin_all(self._config, await self._ground.spool.driver_states())
                self._lines_begun.set()
                yield
                if self._ground.feed_store:
                    self._ground.feed_store.end_events()
            await self._publisher.finish(FINISH_S)
        loop.remove_signal_handler(signal.SIGHUP)

    async def reload(self, asked: Origin | None = None) -> Outcome:
        """Read the configuration again and put it to use. One with problems changes nothing.

        asked: what whoever asks believes that the gateway runs by; where that is something else, nothing changes.
        """
        async with self._changing:
            self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={1000 * self._ground.clocks.mono_ms()}")
            try:
                why_not = self._source.origin.why_not(asked) if asked else ""
                outcome = Outcome(False, [f"refused error={why_not}"]) if why_not else await self._reload()
            finally:
                self._notifier.tell("READY=1")
        for said in outcome.said:
            log.log(logging.INFO if outcome.applied else logging.ERROR, "reload %s", said)
        return outcome

    async def _reload(self) -> Outcome:
        wanted, problems = await asyncio.to_thread(self._source.examine)  # it may read a hundred drivers: polls go on
        if wanted is None:
            return Outcome(False, [f"refused error={problem}" for problem in problems])
        after, waiting = settled(self._config, wanted)
        problems = settings.problems(after)
        if problems:
            return Outcome(False, [f"refused without a restart error={problem}" for problem in problems])
        before, spool = self._config, self._ground.spool
        try:  # first all that can fail: whatever comes after it is done whole
            states = await spool.driver_states()
            await settle(spool, after.gateway)
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                await settle(spool, before.gateway)
            return Outcome(False, [f"refused error=spool: {error}; nothing has changed, see the disk"])
        self._config = after
        self._ground.recorder.use(after)
        if self._feed:
            self._feed.use(after)
        if self._home_assistant:
            self._home_assistant.use(after)
        changes = plan(before, after)
        failed = await self._parts.change(changes, after, states)
        ended = [place for place in changes.end if place not in changes.begin]
        said = [f"waits for a restart place={place}" for place in waiting]
        said += [f"ended place={place}" for place in ended]
        said += [f"{'changed' if place in changes.end else 'begun'} place={place}" for place in changes.begin]
        said += [f"failed, see the log place={place}" for place in failed]
        said.append(f"done kept={len(changes.keep)} ended={len(changes.end)} begun={len(changes.begin)}")
        return Outcome(not failed, said)

    def _recording(self, wanted: Wanted, is_over: Callable[[], bool]) -> AsyncGenerator[str, None]:
        """Return the texts of a recording of one line, as of now; raises ConfigError if it cannot be recorded."""
        from bega_gateway.record import taped

        clocks = self._ground.clocks
        head = head_of(self._config, wanted.line, clocks.wall_ms())

        def stations() -> list[Station]:
            return [station for line, station in self._parts.stations() if line == wanted.line]

        recorded = stations()

        def why_over() -> str:
            if is_over():
                return "nobody takes it"
            return (
                "" if list(map(id, stations())) == list(map(id, recorded)) else "the line was begun anew, or taken out"
            )

        return taped(head, recorded, wanted.for_s, clocks.mono_ms, why_over)

    async def _lending(self, line: str, is_over: Callable[[], bool]) -> AsyncGenerator[str, None]:
        """Return a text once a line on which nobody is heard was let go of; it is taken back when `is_over()`."""
        ground = self._ground
        async with self._changing:
            lending = lent(line, self._config, self._parts, ground.spool, ground.clocks.mono_ms, is_over)
            async with contextlib.aclosing(lending) as texts:
                async for text in texts:
                    yield text

    async def _heed_hangups(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            await self.reload()

    def _sights(self) -> list[Sight]:
        spool = self._ground.spool
        stored = spool_sight(spool, self._config.gateway.commit_window_s)
        return [stored, uplink_sight(self._publisher, spool), *self._parts.sights()]

    def _status(self) -> str:
        heard, watched = self.heard()
        uplink = "up" if self._publisher.connected_to else "down"
        spool = self._ground.spool
        status = f"{heard} of {watched} heard, {spool.depth} waiting, uplink {uplink}"
        return f"spool cannot store, {spool.waiting} in memory; {status}" if spool.failing else status
