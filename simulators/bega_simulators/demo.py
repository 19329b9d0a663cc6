"""`bega demo`: a whole city corner on this machine, no hardware and no root.

Broker, simulators, gateway and kiosk are processes, each started by its own command. The demo knows them from outside
only, as an operator does: by their commands, their ready files, and by what arrives at the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live as Screen

from bega.broker import LOOPBACK, EmbeddedBroker, free_ports, require_free_port
from bega.clock import mono_ms, wall_ms
from bega.extras import how_to_install, require_extras
from bega.mqtt import SessionLost, connect
from bega.ready import require_place, write_ready
from bega_protocols import senml
from bega_protocols.errors import ConfigError, LineError, WireError
from bega_simulators.children import Child, Children
from bega_simulators.history import corner_diaries, write_history
from bega_simulators.live import Live
from bega_simulators.town import Town, town_speed

EXAMPLES = """examples:
  bega demo                        until Ctrl-C; the kiosk's address is on top
  bega demo --for 60 --speed 1     a minute, with the town's day at its real pace
  bega demo --ready-file up.json --http-port 8000 --mqtt-port 1883"""
NODE = "air-1"
# Process, kind of board, its name, and what it is given beside the town. A household's pulses keep the pace of its day:
# in one that passes sixty times as fast they would tell of sixty times its power.
NODES = (("node", "air", NODE, ()), ("meter", "meter", "meter-1", ("--speed", "1")))
DEAD_METER = "3:20:20"  # unit 3 of the cellar falls silent 20 s after the start, for 20 s
UP_TIMEOUT_S = 20.0
DRAW_EVERY_S, LOG_EVERY_S, WATCH_EVERY_S, CONNECT_AGAIN_S = 0.5, 1.0, 0.5, 1.0
CHILDREN_GRACE_S, BROKER_GRACE_S = 2.0, 0.5  # together, and with what it takes to look: less than three seconds


def main(argv: list[str]) -> int:
    """Return 0 after the demo has run, 1 if it could not, after saying why on standard error."""
    args = _parser().parse_args(argv)
    try:
        require_extras("the demo", "gateway", "kiosk")
        require_place(args.ready_file)
        with _directory(args.dir) as directory:
            return asyncio.run(_run(args, directory))
    except BrokenPipeError:
        raise
    except (ConfigError, LineError, OSError) as error:
        print(f"bega demo: {error}", file=sys.stderr)
        return 1


class Plan(NamedTuple):
    """All that is chosen before anything starts."""

    directory: Path
    kept: bool  # after the end
    gateway_config: Path
    kiosk_config: Path
    gateway: str  # its name
    lines: dict[str, str]  # of each device and node
    mqtt: str
    feed: str
    kiosk: str
    seed: int
    epoch_s: int
    speed: float

    @property
    def town(self) -> list[str]:
        """Return the arguments that put a simulator into this town."""
        return ["--seed", str(self.seed), "--epoch", str(self.epoch_s), "--speed", str(self.speed)]


class Corner:
    """The processes of the demo, brought up in the order in which they need each other."""

    def __init__(self, plan: Plan, children: Children, live: Live) -> None:
        self._plan = plan
        self._children = children
        self._live = live
        self._running: dict[str, Child] = {}

    async def bring_up(self) -> dict[str, Any]:
        """Start everything; return what to tell about it. What does not come up is in `live.missing`, with the reason.

        The gateway is started with its history in place and its ports known; kiosk and node come beside it.
        """
        plan = self._plan
        self._start("corner", "sim", "corner", *plan.town, "--dead-meter", DEAD_METER)
        self._start("park", "sim", "ble", *plan.town)
        _, corner, park = await asyncio.gather(self._load_history(), self._up("corner"), self._up("park"))
        # Without the simulated air no gateway of a demo may listen to the machine's own radio.
        bus = park.get("bus", f"unix:path={plan.directory / 'no-bluetooth'}")
        settings = _gateway_settings(plan) | _line_settings(corner)
        command = ["gateway", "run", "--config", str(plan.gateway_config), *_set(settings)]
        self._start("gateway", *command, environment={"DBUS_SYSTEM_BUS_ADDRESS": bus})
        self._start("kiosk", "kiosk", "run", "--config", str(plan.kiosk_config), *_set(_kiosk_settings(plan)))
        broker = plan.mqtt.removeprefix("mqtt://")
        for name, kind, its_name, more in NODES:
            board = ["--kind", kind, "--broker", broker, "--flash", str(plan.directory / f"{its_name}.flash")]
            self._start(name, "sim", "board", *board, *plan.town, *more)
        names = ("gateway", "kiosk", *(row[0] for row in NODES))
        gateway, kiosk, node, meter = await asyncio.gather(*(self._up(name) for name in names))
        return {
            "mqtt": plan.mqtt,
            "kiosk": kiosk.get("kiosk"),
            "gateway": gateway.get("feed"),
            "ports": corner | {"bus": park.get("bus")},
            "node": node,
            "meter": meter,
            "dir": str(plan.directory),
            "pids": {name: child.pid for name, child in self._running.items()},
            "missing": self._live.missing,
        }

    async def watch(self) -> None:
        """Say when one of the processes ends before the demo does."""
        while True:
            for name, child in list(self._running.items()):
                if child.ended:
                    await self._gone(name)
            await asyncio.sleep(WATCH_EVERY_S)

    def _start(self, name: str, *command: str, environment: dict[str, str] | None = None) -> None:
        ready_file = self._plan.directory / f"{name}.ready.json"
        self._running[name] = self._children.start(name, [*command, "--ready-file", str(ready_file)], environment)

    async def _up(self, name: str) -> dict[str, Any]:
        """Return what a process says once it is up; {} if it does not come up."""
        child = self._running[name]
        facts = await self._children.until_ready(child, UP_TIMEOUT_S)
        if facts is None and child.ended:
            await self._gone(name)
        elif facts is None:
            self._live.missing[name] = f"not up after {UP_TIMEOUT_S:g} s: {child.last_words()}"
        return facts or {}

    async def _gone(self, name: str) -> None:
        child = self._running.pop(name, None)
        if child:
            exit_code = await self._children.until_ended(child, 0)
            how = f"ended by signal {-exit_code}: " if exit_code and exit_code < 0 else ""
            self._live.missing[name] = how + child.last_words()

    async def _load_history(self) -> None:
        """Put the 24 h before now into the gateway's public feed, marked as simulated."""
        plan = self._plan
        packs = plan.directory / "history.jsonl"
        await asyncio.to_thread(write_history, packs, Town(plan.seed), corner_diaries(plan.gateway, NODE), plan.epoch_s)
        command = ["gateway", "backfill", "--config", str(plan.gateway_config), "--simulated", "--from", str(packs)]
        child = self._children.start("history", [*command, *_set(_gateway_settings(plan))])
        if await self._children.until_ended(child, UP_TIMEOUT_S) != 0:
            self._live.missing["history"] = child.last_words()


async def _run(args: argparse.Namespace, directory: Path) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if args.for_s:
        asyncio.get_running_loop().call_later(args.for_s, stop.set)
    plan = _plan(args, directory)
    live = Live(plan.gateway, plan.lines)
    async with _processes(plan) as children:
        corner = Corner(plan, children, live)
        works = [_bring_up(corner, args.ready_file), corner.watch(), _listen(plan, live), _show(plan, live)]
        await _until(stop, works)
    return 1 if "gateway" in live.missing else 0


async def _until(stop: asyncio.Event, works: list[Coroutine[Any, Any, None]]) -> None:
    """Do all works until `stop`; raises OSError if our output cannot be written: BrokenPipeError for `... | head`."""
    unwritten: OSError | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work) for work in works]
            await stop.wait()
            for task in running:
                task.cancel()
    except* OSError as errors:
        unwritten = _first(errors)
    if unwritten:
        raise unwritten


def _first(errors: BaseExceptionGroup[OSError]) -> OSError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _plan(args: argparse.Namespace, directory: Path) -> Plan:
    """Choose and check; raises ConfigError for a taken port or a missing package."""
    gateway_config = example_of("bega_gateway", "gateway")
    table = tomllib.loads(gateway_config.read_text(encoding="utf-8"))
    mqtt_port, kiosk_port, feed_port = _ports(args.mqtt_port, args.http_port)
    on_lines = (table.get("devices", {}) | table.get("nodes", {})).items()
    return Plan(
        directory=directory,
        kept=args.dir is not None,
        gateway_config=gateway_config,
        kiosk_config=example_of("bega_kiosk", "kiosk"),
        gateway=table["gateway"]["name"],
        lines={name: device["line"] for name, device in on_lines},
        mqtt=f"mqtt://{LOOPBACK}:{mqtt_port}",
        feed=f"http://{LOOPBACK}:{feed_port}",
        kiosk=f"http://{LOOPBACK}:{kiosk_port}",
        seed=args.seed,
        epoch_s=wall_ms() // 1000,
        speed=args.speed,
    )


@asynccontextmanager
async def _processes(plan: Plan) -> AsyncIterator[Children]:
    """Start the broker; afterwards end it and everything else that was started, within three seconds."""
    children = Children(plan.directory)
    broker = EmbeddedBroker(plan.directory / "broker", _port_of(plan.mqtt))
    try:
        broker.start()
        assert broker.pid is not None
        children.keep(broker.pid)
        yield children
    finally:
        await children.stop(CHILDREN_GRACE_S)
        pid = broker.pid
        broker.stop(BROKER_GRACE_S)
        if pid is not None:
            children.release(pid)
        children.close()


async def _bring_up(corner: Corner, ready_file: Path | None) -> None:
    write_ready(ready_file, await corner.bring_up())


async def _listen(plan: Plan, live: Live) -> None:
    """Take what any reader of the broker may have: the records of all devices."""
    while True:
        try:
            async with connect(plan.mqtt, f"demo-{os.getpid()}", keep=False) as session:
                await session.subscribe("city/+/+/+/+/up")
                async for message in session.messages():
                    try:
                        live.take(senml.decode(message.payload), wall_ms())
                    except WireError as error:
                        live.missing["broker"] = f"{message.topic}: {error}"
        except SessionLost:
            await asyncio.sleep(CONNECT_AGAIN_S)


async def _show(plan: Plan, live: Live) -> None:
    """Draw a table in a terminal; elsewhere print a line a second."""
    if sys.stdout.isatty():
        await _draw(plan, live)
    began_ms = mono_ms()
    told: dict[str, str] = {}
    print("\n".join(_heading(plan)), flush=True)
    while True:
        await asyncio.sleep(LOG_EVERY_S)
        for name, why in live.missing.items():
            if told.get(name) != why:
                print(f"{name}: {why}", flush=True)
        told = dict(live.missing)
        print(live.log_line((mono_ms() - began_ms) // 1000, wall_ms()), flush=True)


async def _draw(plan: Plan, live: Live) -> None:
    console = Console()
    with Screen(console=console, auto_refresh=False, vertical_overflow="crop") as screen:
        size = console.size
        while True:
            if console.size != size:  # the terminal has wrapped the lines anew: nobody knows where they are
                size = console.size
                console.clear()
            screen.update(live.table(_heading(plan), console.size.height, wall_ms()), refresh=True)
            await asyncio.sleep(DRAW_EVERY_S)


def _heading(plan: Plan) -> list[str]:
    return [
        f"The kiosk: {plan.kiosk}/",
        f"feed {plan.feed}/public/v1/latest   broker {plan.mqtt}",
        f"state and logs in {plan.directory}" + ("" if plan.kept else ", gone at the end; --dir DIR keeps them"),
    ]


def _gateway_settings(plan: Plan) -> dict[str, str]:
    return {
        "gateway.state_dir": str(plan.directory / "gateway"),
        "uplink.brokers": plan.mqtt,
        "feed.listen": plan.feed.removeprefix("http://"),
        "lines.nodes.broker": plan.mqtt,
    }


def _line_settings(corner: dict[str, str]) -> dict[str, str]:
    """Return where the corner's wires are; one that is not there keeps the example's port, and the gateway says so."""
    settings = {f"lines.{line}.port": corner[line] for line in ("pms", "p1", "cellar") if line in corner}
    if "hall" in corner:
        settings["lines.hall.host"], _, settings["lines.hall.port"] = corner["hall"].rpartition(":")
    return settings


def _kiosk_settings(plan: Plan) -> dict[str, str]:
    return {
        "kiosk.state_dir": str(plan.directory / "kiosk"),
        "server.listen": plan.kiosk.removeprefix("http://"),
        "feed.url": plan.feed,
    }


def _set(settings: dict[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def example_of(package: str, extra: str) -> Path:
    """Return the commented example of a package: inside it in a wheel, beside it in a checkout.

    It is looked for, never imported: the demo starts gateway and kiosk by their commands.
    """
    spec = find_spec(package)
    folders = [Path(place) for place in spec.submodule_search_locations or []] if spec else []
    for folder in (place for found in folders for place in (found, found.parent)):
        if (folder / "examples" / "corner.toml").is_file():
            return folder / "examples" / "corner.toml"
    raise ConfigError(f"the demo needs the {extra}; {how_to_install(extra)}")


def _ports(mqtt: int, kiosk: int) -> tuple[int, int, int]:
    """Return (broker, kiosk, feed): the ports asked for, others where 0 was; raises ConfigError naming a taken one."""
    for asked in (mqtt, kiosk):
        if asked:
            require_free_port(LOOPBACK, asked)
    if mqtt and mqtt == kiosk:
        raise ConfigError(f"broker and kiosk cannot share port {mqtt}")
    free = [port for port in free_ports(5) if port not in (mqtt, kiosk)]
    return mqtt or free[0], kiosk or free[1], free[2]


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@contextmanager
def _directory(asked: Path | None) -> Iterator[Path]:
    """Yield the directory for everything that the demo writes: the one asked for stays, ours goes with the demo."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bega-demo-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535, or 0 for a free one")


def _duration_s(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega demo",
        description="A city corner on this machine: simulated devices on real wires, a gateway, a broker, a kiosk.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--for", dest="for_s", type=_duration_s, metavar="S", help="end after S seconds (default: Ctrl-C)"
    )
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once all is up")
    parser.add_argument("--http-port", type=_port, default=0, metavar="N", help="the kiosk's (default: a free one)")
    parser.add_argument("--mqtt-port", type=_port, default=0, metavar="N", help="the broker's (default: a free one)")
    parser.add_argument(
        "--speed",
        type=town_speed,
        default=60.0,
        help="how fast the town's day runs; wires and stamps stay real (default 60)",
    )
    parser.add_argument("--seed", type=int, default=1, help="which town (default 1)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="keep state and logs there (default: a temporary one)")
    return parser
