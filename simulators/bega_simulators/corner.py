"""`bega sim corner`: the wired devices of the demo's corner, each on its own wire, all living in one town."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, Protocol

from bega.clock import wall_ms
from bega.ready import write_ready
from bega_protocols.devices.dsmr_p1.sim import Sim as P1Meter
from bega_protocols.devices.pms5003.sim import Sim as DustSensor
from bega_simulators.hosts.pty import PtyHost
from bega_simulators.town import Town, TownClock

EXAMPLE = """example, with the third meter silent from the 20th to the 40th second:
  bega sim corner --ready-file corner.json --dead-meter 3:20:20"""
LIVE_EVERY_S = 0.5  # how often the devices look at the town


class Sim(Protocol):
    """What every device's sim.py offers."""

    faults: set[str]

    def set(self, quantity: str, part: str, value: float) -> None: ...


class Silence(NamedTuple):
    """When a unit of the cellar stops answering, and for how long."""

    unit: int
    after_s: float
    for_s: float


def main(argv: list[str]) -> int:
    """Return 0 once told to end, 1 if a port cannot be had."""
    args = _parser().parse_args(argv)
    try:
        asyncio.run(_run(args))
    except OSError as error:
        print(f"bega sim corner: {error}", file=sys.stderr)
        return 1
    return 0


class Inhabitant:
    """A device that stands at a site of the town and measures what is there."""

    def __init__(self, sim: Sim, site: str, town: Town) -> None:
        self._sim = sim
        self._site = site
        self._town = town
        self._wordless: set[tuple[str, str]] = set()

    def live(self, town_s: float) -> None:
        """Let the device measure its site; what it has no word for (its Sim raises KeyError) is left out."""
        for key, value in self._town.readings(self._site, town_s).items():
            if key in self._wordless:
                continue
            try:
                self._sim.set(*key, value)
            except KeyError:
                self._wordless.add(key)


def town_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what puts all simulators into the same town at the same time of its day."""
    parser.add_argument("--seed", type=int, default=1, help="which town (default 1)")
    parser.add_argument("--epoch", type=float, metavar="UNIX_S", help="when town and wall agreed (default: now)")
    parser.add_argument("--speed", type=float, default=1.0, help="how fast the town's day runs (default 1)")
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once all is up")


def town_clock(args: argparse.Namespace) -> TownClock:
    return TownClock(wall_ms() / 1000 if args.epoch is None else args.epoch, args.speed)


async def _run(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    town, clock = Town(args.seed), town_clock(args)
    with ExitStack() as stack:
        dust, household = DustSensor({}, args.seed), P1Meter({}, args.seed)
        inhabitants = [Inhabitant(dust, "roadside", town), Inhabitant(household, "household", town)]
        pms = stack.enter_context(closing(PtyHost(dust, 9600, wall_ms)))
        p1 = stack.enter_context(closing(PtyHost(household, 115_200, wall_ms)))
        _look(inhabitants, clock)  # before the first byte: no device was ever in a town without air
        async with asyncio.TaskGroup() as tasks:
            works = [pms.run(), p1.run(), _live(inhabitants, clock)]
            running = [tasks.create_task(work) for work in works]
            write_ready(args.ready_file, {"pms": pms.port, "p1": p1.port})
            await stop.wait()
            for task in running:
                task.cancel()


async def _live(inhabitants: list[Inhabitant], clock: TownClock) -> None:
    while True:
        await asyncio.sleep(LIVE_EVERY_S)
        _look(inhabitants, clock)


def _look(inhabitants: list[Inhabitant], clock: TownClock) -> None:
    town_s = clock.town_s(wall_ms() / 1000)
    for inhabitant in inhabitants:
        inhabitant.live(town_s)


async def _fall_silent(silence: Silence, faults: set[str]) -> None:
    await asyncio.sleep(silence.after_s)
    faults.add("silent")
    await asyncio.sleep(silence.for_s)
    faults.discard("silent")


def _silence(text: str) -> Silence:
    """Return UNIT:AFTER_S:FOR_S; raises ArgumentTypeError."""
    try:
        unit, after_s, for_s = text.split(":")
        return Silence(int(unit), float(after_s), float(for_s))
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
    return parser
