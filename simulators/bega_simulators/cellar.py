"""`bega sim cellar`: what hangs in a cellar and stands on no list: every kind of wire that a gateway can find."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import ExitStack, closing
from decimal import Decimal
from typing import Any

from bega.clock import wall_ms
from bega.devices import with_profile
from bega.ready import require_place, write_ready
from bega_protocols.devices.dsmr_p1.sim import Sim as P1Meter
from bega_protocols.devices.iec62056_meter.sim import Sim as OpticalMeter
from bega_protocols.devices.mbus_meter.sim import Sim as MbusMeter
from bega_protocols.devices.mhz19.sim import Sim as Co2Sensor
from bega_protocols.devices.modbus_meter.sim import Sim as ModbusMeter
from bega_protocols.devices.pms5003.sim import Sim as DustSensor
from bega_protocols.devices.sml_meter.sim import Sim as SmlMeter
from bega_protocols.errors import ConfigError
from bega_simulators.corner import LOOPBACK, Inhabitant, live_in, look, town_arguments, town_clock
from bega_simulators.hosts.mbus import MbusSegment
from bega_simulators.hosts.pty import PtyHost
from bega_simulators.hosts.rs485 import Rs485Segment
from bega_simulators.hosts.tcp import ModbusTcpServer
from bega_simulators.town import Town

EXAMPLE = """example: what a gateway finds there
  bega sim cellar --ready-file cellar.json &
  bega gateway scan --port ... -o cellar.toml     with the ports that cellar.json names"""
BUS_BAUD = 9600
BUS = {3: "sdm630", 7: "sdm120", 12: "em340"}  # unit: profile
MBUS_BAUD = 2400
MBUS = (
    {"address": 5, "identification": "11223344", "manufacturer": "KAM", "version": 0x1B, "medium": 0x04},
    {"address": 9, "identification": "55667788", "manufacturer": "SEN", "version": 0x19, "medium": 0x07},
)
CO2_PPM = 812
HEAT_J, WATER_M3 = 41_400_000_000, Decimal("128.470")


def main(argv: list[str]) -> int:
    """Return 0 once told to end, 1 if a port cannot be had."""
    parser = argparse.ArgumentParser(
        prog="bega sim cellar",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    town_arguments(parser)
    args = parser.parse_args(argv)
    try:
        require_place(args.ready_file)
        asyncio.run(_run(args))
    except (ConfigError, OSError) as error:
        print(f"bega sim cellar: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    town, clock = Town(args.seed), town_clock(args)
    devices = {
        "p1": Inhabitant(P1Meter({}, args.seed), "household", town),
        "dust": Inhabitant(DustSensor({}, args.seed), "roadside", town),
        "tcp": Inhabitant(_meter("iem3155", 1, args.seed), "city-hall", town),
    }
    bus = {unit: Inhabitant(_meter(profile, unit, args.seed), "cellar-1", town) for unit, profile in BUS.items()}
    head = OpticalMeter({}, args.seed)
    inhabitants = [*devices.values(), *bus.values()]
    look(inhabitants, clock)
    _supply(head)
    server = ModbusTcpServer({1: devices["tcp"]})
    with ExitStack() as stack:
        hosts = {
            "p1": PtyHost(devices["p1"], 115_200, wall_ms),
            "dust": PtyHost(devices["dust"], 9600, wall_ms),
            "co2": PtyHost(_co2(args.seed), 9600, wall_ms),
            "sml": PtyHost(Inhabitant(SmlMeter({}, args.seed), "household", town), 9600, wall_ms),
            "iec": PtyHost(head, 300, wall_ms, "7E1"),
        }
        for host in hosts.values():
            stack.enter_context(closing(host))
        segment = stack.enter_context(Rs485Segment(dict(bus), BUS_BAUD, args.seed))
        mbus = stack.enter_context(MbusSegment([_mbus(told, args.seed) for told in MBUS], MBUS_BAUD))
        tcp_port = await server.start(LOOPBACK)
        works = [host.run() for host in hosts.values()] + [live_in(inhabitants, clock)]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work) for work in works]
            facts = {name: host.port for name, host in hosts.items()}
            facts |= {"rs485": segment.port, "mbus": mbus.port, "tcp": f"{LOOPBACK}:{tcp_port}"}
            write_ready(args.ready_file, facts)
            await stop.wait()
            for task in running:
                task.cancel()
        await server.stop()


def _meter(profile: str, address: int, seed: int) -> ModbusMeter:
    return ModbusMeter(with_profile({"profile": profile, "address": address}), seed)


def _supply(meter: OpticalMeter) -> None:
    meter.set("active_energy_import", "", Decimal("20417.382"))
    meter.set("active_power_import", "", 1466)
    meter.set("voltage", "l1", Decimal("231.4"))


def _co2(seed: int) -> Co2Sensor:
    sensor = Co2Sensor({}, seed)
    sensor.set("co2", "", CO2_PPM)
    return sensor


def _mbus(told: dict[str, Any], seed: int) -> MbusMeter:
    meter = MbusMeter(told, seed)
    if told["medium"] == 0x04:
        meter.set("heat_energy", "", HEAT_J)
    else:
        meter.set("water_volume", "", WATER_M3)
    return meter
