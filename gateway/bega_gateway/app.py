"""Every task of a gateway, each owned by one of two TaskGroups. It polls and stores before the first broker answers.

The stores are in the outer group: they end last, so that what the others bring at the end is committed too.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bega import mqtt
from bega.clock import CLOCK_FLOOR_MS, Clock
from bega.devices import load_driver
from bega.outbox.boot import raise_boot
from bega.outbox.publish import Publisher
from bega.outbox.spool import Spool
from bega.ready import write_ready
from bega.threads import UnwaitedThreads
from bega_gateway import config as settings
from bega_gateway.config import Config
from bega_gateway.edge.air_index import BANDS_UGM3, HOUR_MS, ParticulateHour
from bega_gateway.feed_store import FeedStore
from bega_gateway.health import Health
from bega_gateway.lines.station import Station
from bega_gateway.lines.window import Window
from bega_gateway.recorder import Recorder
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, Reading, parse_decimal
from bega_protocols.record import Record

log = logging.getLogger(__name__)

FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0  # before a task that a defect ended is begun again

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Clocks:
    """The two clocks, passed in so that a test can bring its own."""

    wall_ms: Clock
    mono_ms: Clock


async def run(config: Config, clocks: Clocks, ready_file: Path | None, stop: asyncio.Event) -> None:
    """Run the gateway that `config` describes until `stop` is set.

    Raises ConfigError for what makes running impossible: no place for the state, a feed port that is taken.
    A missing serial port or a refusing broker is no reason to stop: it is said, and tried again.
    """
    asyncio.get_running_loop().set_default_executor(UnwaitedThreads())
    async with AsyncExitStack() as stack:
        gateway = await _build(config, clocks, stack)
        facts = {"gateway": config.gateway.name, "boot": gateway.boot, "feed": gateway.feed_address}
        try:
            write_ready(ready_file, facts)
        except OSError as error:
            raise ConfigError(f"--ready-file {ready_file} cannot be written ({error.strerror})") from None
        log.info("gateway up name=%s boot=%d lines=%d", config.gateway.name, gateway.boot, len(config.lines))
        async with _owned(gateway.stores), _owned(gateway.tasks):
            await stop.wait()
            log.info("gateway stops")
            if gateway.feed_store:
                gateway.feed_store.end_events()


@asynccontextmanager
async def _owned(works: list[tuple[str, Work]]) -> AsyncIterator[None]:
    """Run `works` while the block runs, and end them with it; a defect in one of them ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_named(name, work)) for name, work in works]
        yield
        for task in tasks:
            task.cancel()


@dataclass
class _Built:
    boot: int
    feed_address: str | None
    feed_store: FeedStore | None
    stores: list[tuple[str, Work]]
    tasks: list[tuple[str, Work]]


async def _build(config: Config, clocks: Clocks, stack: AsyncExitStack) -> _Built:
    """Open what must survive, then name every task; what the stack closes is closed when all of them have ended."""
    state = Path(config.gateway.state_dir)
    _make_state_dir(state)
    boot = raise_boot(state, clocks.wall_ms() // 1000)
    spool = await _open_spool(state / "spool.db", _thread(stack, "spool"), config.gateway.commit_window_s)
    stack.push_async_callback(spool.close)
    stores: list[tuple[str, Work]] = [("spool", spool.run)]
    tasks: list[tuple[str, Work]] = []
    feed_store = None
    feed_address = None
    if config.feed:
        from bega import web  # Starlette and uvicorn cost memory: only where a feed is configured
        from bega_gateway.feed import Feed

        listener = web.bind("feed.listen", config.feed.listen)
        stack.callback(listener.close)
        feed_store = await FeedStore.open(state / "feed.db", _thread(stack, "feed"), config.feed.keep_hours)
        stack.push_async_callback(feed_store.close)
        stores.append(("feed store", feed_store.run))
        tasks.append(("feed", partial(web.serve, Feed(config, feed_store, clocks.wall_ms).app(), listener)))
        feed_address = web.address_of(listener)
    recorder = Recorder(config, boot, spool, feed_store)
    health = Health(clocks.mono_ms)
    tasks.append(("publisher", _kept_up("publisher", _publisher(config, spool, clocks).run)))
    for name, work in await _line_tasks(config, clocks, spool, recorder, health):
        tasks.append((name, _kept_up(name, work)))
    for name, table in config.air_index.items():
        work = await _air_index(config, name, table, recorder, feed_store, clocks)
        tasks.append((name, _kept_up(name, work)))
    tasks.append(("health", _kept_up("health", health.run)))
    return _Built(boot, feed_address, feed_store, stores, tasks)


async def _open_spool(path: Path, executor: ThreadPoolExecutor, window_s: float) -> Spool:
    try:
        return await Spool.open(path, executor, window_s=window_s)
    except sqlite3.OperationalError as error:
        why = f"gateway.state_dir: {path} cannot be opened ({error})"
        raise ConfigError(f"{why}; see who owns it, and whether the disk is full") from None


def _make_state_dir(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"gateway.state_dir: {state} cannot be made ({error.strerror})"
        raise ConfigError(f"{why}; give a place that the gateway's user may write") from None


def _thread(stack: AsyncExitStack, name: str) -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    stack.callback(executor.shutdown, wait=False)
    return executor


def _publisher(config: Config, spool: Spool, clocks: Clocks) -> Publisher:
    name = config.gateway.name
    uplink = config.uplink
    credentials = _credentials(uplink.ca_file, uplink.cert_file, uplink.key_file)

    def connect(broker: str) -> AbstractAsyncContextManager[mqtt.Session]:
        return mqtt.connect(broker, name, credentials)

    probe_topic = f"city/{config.gateway.city}/{name}/probe"
    return Publisher(spool, uplink.brokers, connect, probe_topic, clocks.mono_ms)


def _credentials(ca_file: str | None, cert_file: str | None, key_file: str | None) -> mqtt.Credentials | None:
    return mqtt.Credentials(ca_file, cert_file, key_file) if ca_file or cert_file else None


async def _line_tasks(
    config: Config, clocks: Clocks, spool: Spool, recorder: Recorder, health: Health
) -> list[tuple[str, Work]]:
    """Return a task for each line, and one for each talker's window. Each kind is imported only where it is used."""
    states = await spool.driver_states()
    tasks: list[tuple[str, Work]] = []
    for line_name, line in config.lines.items():
        if isinstance(line, settings.MqttLine):
            tasks.append((line_name, await _node_line(config, clocks, line_name, line, spool, recorder)))
            continue
        talks = isinstance(line, settings.SerialLine | settings.BleLine)
        stations = []
        for name, device in config.devices.items():
            if device.line != line_name:
                continue
            station, window = _station(name, device, states.get(name, b""), recorder, talks)
            stations.append(station)
            health.watch(line_name, station)
            if window:
                tasks.append((name, window.run))
        if stations:
            tasks.append((line_name, _device_line(line_name, line, stations, clocks)))
    return tasks


def _station(
    name: str, device: settings.Device, state: bytes, recorder: Recorder, talks: bool
) -> tuple[Station, Window | None]:
    driver = load_driver(device.driver, device.settings, state)

    async def deliver(groups: list[list[Reading]], wall_ms: int) -> None:
        await recorder.record(name, groups, wall_ms, driver=driver)

    if not talks:
        return Station(name, driver, device.every_s, deliver), None
    window = Window(device.every_s, deliver)
    return Station(name, driver, device.every_s, window.take), window


def _device_line(name: str, line: settings.Line, stations: list[Station], clocks: Clocks) -> Work:
    if isinstance(line, settings.SerialLine):
        from bega_gateway.lines.serial import SerialLine

        return SerialLine(name, line, stations, clocks.mono_ms, clocks.wall_ms).run
    if isinstance(line, settings.BleLine):
        from bega_gateway.lines.ble import BleLine

        return BleLine(name, line, stations, clocks.mono_ms, clocks.wall_ms).run
    assert isinstance(line, settings.ModbusRtuLine | settings.ModbusTcpLine)
    from bega_gateway.lines.modbus import ModbusLine

    return ModbusLine(name, line, stations, clocks.mono_ms, clocks.wall_ms).run


async def _node_line(
    config: Config, clocks: Clocks, name: str, line: settings.MqttLine, spool: Spool, recorder: Recorder
) -> Work:
    from bega_gateway.lines.mqtt import NodeLine

    nodes = [node for node, table in config.nodes.items() if table.line == name]
    credentials = _credentials(line.ca_file, line.cert_file, line.key_file)
    client_id = f"{config.gateway.name}-{name}"  # the uplink's session on the same broker has the plain name

    def trusted_wall_ms() -> int | None:
        wall_ms = clocks.wall_ms()
        return wall_ms if wall_ms >= CLOCK_FLOOR_MS else None

    node_line = NodeLine(
        name,
        nodes,
        connect=lambda: mqtt.connect(line.broker, client_id, credentials),
        store=lambda record, pack, head: recorder.record_of_node(record, pack, head, clocks.wall_ms()),
        skip_to=spool.set_head,
        heads=await spool.heads(),
        wall_ms=trusted_wall_ms,
        mono_ms=clocks.mono_ms,
        has_room=spool.has_room,
    )
    return node_line.run


async def _air_index(
    config: Config,
    name: str,
    table: settings.AirIndex,
    recorder: Recorder,
    feed_store: FeedStore | None,
    clocks: Clocks,
) -> Work:
    """Return the task that gives the index of some devices, beginning with the hour that the feed remembers."""
    inputs = [config.input_of(given) for given in table.inputs]
    hour = ParticulateHour()
    simulated_until_ms = 0
    since_ms = clocks.wall_ms() - HOUR_MS
    for source, device in inputs if feed_store else []:
        assert feed_store
        for quantity, point in await feed_store.points(source, device, since_ms):
            if quantity in BANDS_UGM3 and point.value is not None and point.quality == GOOD:
                hour.add(point.time_ms, [Reading(quantity, *parse_decimal(point.value))])
                simulated_until_ms = max(simulated_until_ms, point.time_ms * point.simulated)

    def take(record: Record, arrival_ms: int, simulated: bool) -> None:
        if (record.source, record.device) in inputs:
            hour.add(arrival_ms if record.time_ms is None else record.time_ms, record.readings)

    recorder.listen(take)

    async def give() -> None:
        while True:
            now_ms = clocks.wall_ms()
            simulated = now_ms - simulated_until_ms < HOUR_MS
            await recorder.record(name, [hour.readings(now_ms)], now_ms, simulated=simulated)
            await asyncio.sleep(table.every_s)

    return give


def _kept_up(name: str, work: Work) -> Work:
    """Return `work` so that a defect in it is logged and costs only a pause: the other lines must not fall with it.

    Only a damaged spool ends the gateway: the next start sets it aside.
    """

    async def run() -> None:
        rest_s = FIRST_REST_S
        while True:
            try:
                await work()
            except Exception as error:
                if _is_damage(error):
                    raise
                log.exception("task failed, it is begun again name=%s after_s=%d", name, rest_s)
            await asyncio.sleep(rest_s)
            rest_s = min(2 * rest_s, LONGEST_REST_S)

    return run


def _is_damage(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_damage, error.exceptions))
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


async def _named(name: str, work: Work) -> None:
    """Run a task that should never end by itself; a defect in it is logged with its name and ends the gateway."""
    try:
        await work()
    except Exception:
        log.exception("task failed name=%s", name)
        raise
    finally:
        log.debug("task ended name=%s", name)
