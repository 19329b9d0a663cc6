"""`bega sim board`: an ESP32 as a process, running the real firmware on the real MicroPython."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from bega.clock import wall_ms
from bega.devices import device_names
from bega.ready import require_place, write_ready
from bega_protocols.errors import ConfigError
from bega_simulators.board.board import Board
from bega_simulators.board.control import serve_control
from bega_simulators.board.flash import build_firmware, find_micropython, put_on_flash
from bega_simulators.board.peripherals import USUAL_SENSORS, AirPeripherals
from bega_simulators.town import Town, TownClock, town_speed

DESCRIPTION = "An ESP32 as a process: its flash is a file, its program the node's own firmware on the real MicroPython."
EXAMPLE = """examples:
  bega sim board --kind air --broker 127.0.0.1:1883
  bega sim board --config node.json --flash air-1.flash --ready-file air-1.json --verbose

  bega sim board --sensor pms=pms5003@uart2 --sensor co2=scd41@i2c0 --sensor bme=bme280@i2c0:0x77

node.json (made_s is filled in; firmware/boards/esp32_devkitc.py says what hangs where):
  {"node": "air-1", "wifi": {"ssid": "city", "key": "..."}, "broker": {"host": "127.0.0.1", "port": 1883},
   "devices": {"pms": {"every_s": 10}, "sht": {"every_s": 10}}}

The control socket that the ready file names takes a JSON object a line:
  {"faults": {"pms": ["silent"], "sht": [], "wifi": ["away"]}}  {"air": {"pm2_5": 12}}  {"reset": true}  {}"""

BOARD = "esp32_devkitc"
SITE = "pole"
DEFAULT_DEVICES = {"pms": {"every_s": 10}, "sht": {"every_s": 10}}


def main(argv: list[str]) -> int:
    """Run one board until SIGTERM or SIGINT (exit 0); 1 if it cannot be, or its program ended by itself."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        require_place(args.ready_file)
        with tempfile.TemporaryDirectory(prefix="bega-board-") as folder:
            return asyncio.run(_run(args, Path(folder)))
    except (ConfigError, OSError) as error:
        print(f"bega sim board: {error}", file=sys.stderr)
        return 1


async def _run(args: argparse.Namespace, folder: Path) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    micropython = find_micropython()
    config = _config(args.config, args.broker)
    flash = args.flash or folder / "flash"
    config_file = folder / "config.json"
    config_file.write_text(json.dumps(config))
    clock, town = TownClock(args.epoch, args.speed), Town(args.seed)
    peripherals = AirPeripherals(
        args.seed, lambda: town.readings(SITE, clock.town_s(wall_ms() / 1000)), args.sensor or USUAL_SENSORS
    )
    contents = [
        *await build_firmware(BOARD, [*peripherals.devices, *_drivers(config)], folder / "firmware"),
        (config_file, "/config.json"),
        *_more_files(args.put),
    ]
    await put_on_flash(micropython, flash, contents)
    control = folder / "control"
    facts = {"node": config["node"], "flash": str(flash), "control": str(control)}

    def said(line: str) -> None:
        if args.verbose:
            print(f"{config['node']}: {line}", file=sys.stderr, flush=True)
        if line.startswith(f"bega: node {config['node']} runs"):
            write_ready(args.ready_file, {**facts, "pid": os.getpid()})
        elif line.startswith("bega: configuration"):
            print(f"bega sim board: {line}", file=sys.stderr)

    board = Board(micropython, flash, args.heap, peripherals, said)
    server = await serve_control(control, peripherals, board)
    powered = asyncio.create_task(board.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([powered, stopping], return_when=asyncio.FIRST_COMPLETED)
    server.close()
    if powered.done():
        stopping.cancel()
        print(f"bega sim board: the program of {config['node']} ended by itself", file=sys.stderr)
        powered.result()
        return 1
    powered.cancel()
    await asyncio.gather(powered, return_exceptions=True)
    return 0


def _config(path: Path | None, broker: str | None) -> dict[str, Any]:
    """Return the node's configuration, completed; raises ConfigError if it cannot be read."""
    config: dict[str, Any] = {"node": "air-1", "devices": DEFAULT_DEVICES}
    if path is not None:
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from None
        if not isinstance(config, dict) or not isinstance(config.get("node"), str):
            raise ConfigError(f"{path} names no node")
    config.setdefault("made_s", wall_ms() // 1000)
    config.setdefault("wifi", {"ssid": "city", "key": ""})
    config.setdefault("broker", {"host": "127.0.0.1", "port": 1883})
    if broker is not None:
        host, colon, port = broker.rpartition(":")
        if not colon or not port.isdigit():
            raise ConfigError(f"--broker {broker}: write it as HOST:PORT")
        config["broker"] = {**config["broker"], "host": host, "port": int(port)}
    return config


def _drivers(config: dict[str, Any]) -> list[str]:
    """Return the drivers that the configuration names itself; those of the board file come with what hangs there."""
    devices = config.get("devices")
    named = devices.values() if isinstance(devices, dict) else ()
    return [device["driver"] for device in named if isinstance(device, dict) and device.get("driver") in device_names()]


def _more_files(puts: list[str]) -> list[tuple[Path, str]]:
    found = []
    for put in puts:
        source, equals, target = put.rpartition("=")
        if not equals or not target.startswith("/") or not Path(source).is_file():
            raise ConfigError(f"--put {put}: write it as FILE=/path/on/the/board, FILE being there")
        found.append((Path(source), target))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega sim board",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", choices=["air"], default="air", help="what the board is: an air node")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the node's configuration (default: a node air-1)")
    parser.add_argument("--broker", metavar="HOST:PORT", help="where its gateway's broker is, above the configuration")
    parser.add_argument(
        "--flash", type=Path, metavar="FILE", help="its flash, made if missing; without, it is forgotten"
    )
    parser.add_argument("--put", action="append", default=[], metavar="FILE=/PATH", help="one more file for its flash")
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME=DEVICE@BUS[:0xADDRESS]",
        help=f"what hangs on its wires (default: {' '.join(USUAL_SENSORS)})",
    )
    parser.add_argument("--seed", type=int, default=1, help="the town that it breathes in (default 1)")
    parser.add_argument("--epoch", type=float, default=0.0, metavar="UNIX_S", help="when the town's day was set going")
    parser.add_argument(
        "--speed", type=town_speed, default=1.0, metavar="X", help="how fast that day passes; wires stay real"
    )
    parser.add_argument(
        "--heap", default="120wk", help="MicroPython's heap (default 120wk: as many objects as 120 kB there)"
    )
    parser.add_argument(
        "--ready-file", type=Path, metavar="PATH", help="written as JSON once the node's application runs"
    )
    parser.add_argument("--verbose", action="store_true", help="print the node's console on standard error")
    return parser
