"""`bega sim corner`: the wired devices of the demo's corner, each on its own wire, all living in one town."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, Protocol

from bega.clock import wall_ms
from bega.devices import with_profile
from bega.ready import require_place, write_ready
from bega_protocols.devices.dsmr_p1.sim import Sim as P1Meter
from bega_protocols.devices.modbus_meter.sim import Sim as ModbusMeter
from bega_protocols.devices.pms5003.sim import Sim as DustSensor
from bega_protocols.errors import ConfigError
from bega_simulators.hosts.pty import PtyHost
from bega_simulators.hosts.rs485 import Rs485Segment
from bega_simulators.hosts.tcp import ModbusTcpServer
from bega_simulators.town import Town, TownClock, town_speed

EXAMPLE = """example, with the third meter silent from the 20th to the 40th second:
  bega sim corner --ready-file corner.json --dead-meter 3:20:20

On standard input, if that is a pipe, it takes lines: `silence cellar-3` lets a device answer nobody, `restore cellar-3`
lets it speak again. The devices: roadside-air, household, cellar-1 to cellar-3, city-hall."""
LOOPBACK = "127.0.0.1"
CELLAR_UNITS = (1, 2, 3)
CELLAR_BAUD = 9600  # as the SDM630 leaves the factory, and gateway/examples/corner.toml expects
LIVE_EVERY_S = 0.5  # how often the devices look at the town


class Sim(Protocol):
    """What every device's sim.py offers."""

    faults: set[str]

    def set(self, quantity: str, part: str, value: float) -> None: ...

    def tick(self, now_ms: int) -> bytes: ...

    def answer(self, request: bytes) -> bytes | None: ...


class Silence(NamedTuple):
    """When a unit of the cellar stops answering, and for how long."""

    unit: int
    after_s: float
    for_s: float


def main(argv: list[str]) -> int:
    """Return 0 once told to end, 1 if a port cannot be had."""
    args = _parser().parse_args(argv)
    try:
        require_place(args.ready_file)
        asyncio.run(_run(args))
    except (ConfigError, OSError) as error:
        print(f"bega sim corner: {error}", file=sys.stderr)
        return 1
    return 0


class Inhabitant:
    """A device that stands at a site of the town and measures what is there.

    It is a Sim to the wire. The RS-485 segment asks from a thread of its own: no answer falls between the two halves
    of a value that is just being set.
    """

    def __init__(self, sim: Sim, site: str, town: Town) -> None:
        self.faults = sim.faults
        self._sim = sim
        self._site = site
        self._town = town
        self._wordless: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def live(self, town_s: float) -> None:
        """Let the device measure its site; what it has no word for (its Sim raises KeyError) is left out."""
        readings = self._town.readings(self._site, town_s)
        with self._lock:
            for key, value in readings.items():
                if key in self._wordless:
                    continue
                try:
                    self._sim.set(*key, value)
                except KeyError:
                    self._wordless.add(key)

    def tick(self, now_ms: int) -> bytes:
        with self._lock:
            return self._sim.tick(now_ms)

    def answer(self, request: bytes) -> bytes | None:
        with self._lock:
            return self._sim.answer(request)


def town_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what puts all simulators into the same town at the same time of its day."""
    parser.add_argument("--seed", type=int, default=1, help="which town (default 1)")
    parser.add_argument("--epoch", type=float, metavar="UNIX_S", help="when town and wall agreed (default: now)")
    parser.add_argument("--speed", type=town_speed, default=1.0, help="how fast the town's day runs (default 1)")
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once all is up")


def town_clock(args: argparse.Namespace) -> TownClock:
    return TownClock(wall_ms() / 1000 if args.epoch is None else args.epoch, args.speed)


async def _run(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    town, clock = Town(args.seed), town_clock(args)
    dust = Inhabitant(DustSensor({}, args.seed), "roadside", town)
    household = Inhabitant(P1Meter({}, args.seed), "household", town)
    cellar = {unit: Inhabitant(_meter("sdm630", unit, args.seed), f"cellar-{unit}", town) for unit in CELLAR_UNITS}
    hall = Inhabitant(_meter("iem3155", 1, args.seed), "city-hall", town)
    devices = {"roadside-air": dust, "household": household, "city-hall": hall}
    devices |= {f"cellar-{unit}": meter for unit, meter in cellar.items()}
    inhabitants = list(devices.values())
    look(inhabitants, clock)  # before the first byte: no device was ever in a town without air
    server = ModbusTcpServer({1: hall})
    with ExitStack() as stack:
        pms = stack.enter_context(closing(PtyHost(dust, 9600, wall_ms)))
        p1 = stack.enter_context(closing(PtyHost(household, 115_200, wall_ms)))
        segment = stack.enter_context(Rs485Segment(dict(cellar), CELLAR_BAUD, args.seed))
        hall_port = await server.start(LOOPBACK, args.hall_port)
        works = [pms.run(), p1.run(), live_in(inhabitants, clock), _obey(devices)]
        if args.dead_meter:
            works.append(_fall_silent(args.dead_meter, cellar[args.dead_meter.unit].faults))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work) for work in works]
            hall_address = f"{LOOPBACK}:{hall_port}"
            write_ready(args.ready_file, {"pms": pms.port, "p1": p1.port, "cellar": segment.port, "hall": hall_address})
            await stop.wait()
            for task in running:
                task.cancel()
        await server.stop()


def _meter(profile: str, address: int, seed: int) -> ModbusMeter:
    return ModbusMeter(with_profile({"profile": profile, "address": address}), seed)


async def live_in(inhabitants: list[Inhabitant], clock: TownClock) -> None:
    """Let them look at the town again and again, until cancelled."""
    while True:
        await asyncio.sleep(LIVE_EVERY_S)
        look(inhabitants, clock)


def look(inhabitants: list[Inhabitant], clock: TownClock) -> None:
    """Let each measure what is at its site now."""
    town_s = clock.town_s(wall_ms() / 1000)
    for inhabitant in inhabitants:
        inhabitant.live(town_s)


async def _obey(devices: dict[str, Inhabitant]) -> None:
    """Silence and restore devices as the lines on standard input say; a terminal or nothing there is left alone."""
    if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        verb, _, name = line.decode(errors="replace").strip().partition(" ")
        if name in devices and verb in ("silence", "restore"):
            change = devices[name].faults.add if verb == "silence" else devices[name].faults.discard
            change("silent")
        else:
            print(f"bega sim corner: not understood: {line!r}", file=sys.stderr)


async def _fall_silent(silence: Silence, faults: set[str]) -> None:
    await asyncio.sleep(silence.after_s)
    faults.add("silent")
    await asyncio.sleep(silence.for_s)
    faults.discard("silent")


def _silence(text: str) -> Silence:
    """Return UNIT:AFTER_S:FOR_S; raises ArgumentTypeError."""
    try:
        unit, after_s, for_s = text.split(":")
        silence = Silence(int(unit), float(after_s), float(for_s))
        if silence.unit not in CELLAR_UNITS:
            raise ValueError
        return silence
    except ValueError:
        raise argparse.ArgumentTypeError(f"write UNIT:AFTER_S:FOR_S, as in 3:20:20, not {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega sim corner",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    town_arguments(parser)
    parser.add_argument(
        "--dead-meter",
        type=_silence,
        metavar="UNIT:AFTER_S:FOR_S",
        help="a meter of the cellar (1 to 3) that stops answering for a while",
    )
    parser.add_argument("--hall-port", type=int, default=0, metavar="N", help="of Modbus TCP (default: a free one)")
    return parser
