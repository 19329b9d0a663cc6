"""`bega sim ble`: a park with two BTHome sensors and strangers, behind org.bluez on a D-Bus of its own.

A gateway that is started with DBUS_SYSTEM_BUS_ADDRESS set to the ready file's `bus` hears them through bleak's usual
way, as it hears a Raspberry Pi's own adapter.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from bega.clock import wall_ms
from bega.ready import require_place, write_ready
from bega_protocols.devices.bthome.sim import OBJECTS, Sim
from bega_protocols.errors import ConfigError
from bega_simulators.hosts.ble_air import Air, host_on
from bega_simulators.hosts.ble_board import follow
from bega_simulators.hosts.ble_strangers import strangers
from bega_simulators.hosts.org_bluez import OrgBluez
from bega_simulators.hosts.private_bus import BusMissing, PrivateBus
from bega_simulators.town import Town, TownClock, town_speed

ADAPTER_ADDRESS = "00:1A:7D:DA:71:13"
# The sensors of gateway/examples/corner.toml: site of the town and what a gateway must know of the sensor there.
SENSORS: dict[str, dict[str, object]] = {
    "park-1": {"address": "F0:CA:FE:00:00:01"},
    "park-2": {"address": "F0:CA:FE:00:00:02", "key": "231d39c1d7cc1ab1aee224cd096db932"},
}
AIR_CHANGES_EVERY_S = 1.0

DESCRIPTION = """Two BTHome v2 sensors (one encrypted) and strangers in simulated Bluetooth air, heard through org.bluez
on a private D-Bus. Runs until SIGTERM or SIGINT."""
EXAMPLE = """example:
  bega sim ble --ready-file ble.json &
  DBUS_SYSTEM_BUS_ADDRESS=<its "bus"> bega gateway run --config gateway/examples/corner.toml"""


def main(argv: list[str]) -> int:
    """Run until SIGTERM or SIGINT; return 0 then, 1 if it cannot be run here."""
    args = _parser().parse_args(argv)
    try:
        require_place(args.ready_file)
        asyncio.run(_run(args))
    except (BusMissing, ConfigError) as error:
        print(f"bega sim ble: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega sim ble",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of the town and of the air")
    parser.add_argument("--epoch", type=float, help="Unix seconds at which the town's day begins to run; default now")
    parser.add_argument(
        "--speed", type=town_speed, default=1.0, help="how fast the town's day runs; advertising does not"
    )
    parser.add_argument("--beacons", type=int, default=20, help="strangers that advertise too (default 20)")
    parser.add_argument(
        "--board",
        action="append",
        default=[],
        type=Path,
        metavar="CONTROL",
        help="a virtual board whose Bluetooth is on this air: the `control` of its ready file",
    )
    parser.add_argument("--ready-file", type=Path, help="JSON with bus and sensors, written once all is up")
    return parser


async def _run(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = TownClock(wall_ms() / 1000 if args.epoch is None else args.epoch, args.speed)
    air = Air(args.seed, wall_ms)
    sims = {site: Sim(settings, args.seed) for site, settings in SENSORS.items()}
    for site, sim in sims.items():
        air.place(str(SENSORS[site]["address"]), sim.tick)
    for address, tick in strangers(args.beacons, args.seed):
        air.place(address, tick)
    bus = PrivateBus()
    try:
        await bus.start()
        bluez = OrgBluez(bus.address, await host_on(air, "hci0", ADAPTER_ADDRESS))
        await bluez.start()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(air.run()), tasks.create_task(_live(Town(args.seed), clock, sims))]
            running += [tasks.create_task(follow(air, control)) for control in args.board]
            write_ready(args.ready_file, _facts(bus.address))
            await stop.wait()
            for task in running:
                task.cancel()
        await bluez.stop()
    finally:
        await bus.close()


def _facts(bus_address: str) -> dict[str, Any]:
    return {"bus": bus_address, "adapter": "hci0", "sensors": SENSORS}


async def _live(town: Town, clock: TownClock, sims: dict[str, Sim]) -> None:
    """Let the sensors stand in the town's air, whose day moves on."""
    while True:
        for site, sim in sims.items():
            for (quantity, part), value in town.readings(site, clock.town_s(wall_ms() / 1000)).items():
                if quantity in OBJECTS:
                    sim.set(quantity, part, Decimal(str(value)))
        await asyncio.sleep(AIR_CHANGES_EVERY_S)
