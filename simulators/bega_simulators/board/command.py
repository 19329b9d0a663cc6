"""`bega sim board`: an ESP32 as a process, running the real firmware on the real MicroPython."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bega.clock import wall_ms
from bega.devices import device_names
from bega.ready import require_place, write_ready
from bega_protocols.errors import ConfigError
from bega_simulators.board.board import Board
from bega_simulators.board.cable import Cable, Plug, cables, plugs
from bega_simulators.board.contact import EnergyMeter
from bega_simulators.board.control import serve_control
from bega_simulators.board.flash import build_firmware, check_flash, find_micropython, make_blank, put_on_flash
from bega_simulators.board.line import SerialLine
from bega_simulators.board.peripherals import USUAL_SENSORS, AirPeripherals
from bega_simulators.board.port import INTERPRETER
from bega_simulators.board.scenario import play, read_scenario
from bega_simulators.board.scratch import scratch_folder
from bega_simulators.town import Town, TownClock, town_speed

DESCRIPTION = "An ESP32 as a process: its flash is a file, its program the node's own firmware on the real MicroPython."
EXAMPLE = """examples:
  bega sim board --kind air --broker 127.0.0.1:1883
  bega sim board --config node.json --flash air-1.flash --ready-file air-1.json --verbose

  bega sim board --kind meter --broker 127.0.0.1:1883 --plug uart2=/dev/pts/7:9600
  bega sim board --sensor pms=pms5003@uart2 --sensor co2=scd41@i2c0 --sensor bme=bme280@i2c0:0x77

node.json (made_s is filled in; firmware/boards/esp32_devkitc.py says what hangs where):
  {"node": "air-1", "wifi": {"ssid": "city", "key": "..."}, "broker": {"host": "127.0.0.1", "port": 1883},
   "devices": {"pms": {"every_s": 10}, "sht": {"every_s": 10}}}

The control socket that the ready file names takes a JSON object a line:
  {"faults": {"pms": ["silent"], "sht": [], "wifi": ["away"]}}  {"air": {"pm2_5": 12}}  {"reset": true}  {}
  {"hung": {"sht": ["stuck"]}}  {"pulses": {"4": {"times": 20}}}  {"wifi": {"statuses": [[202, 3000], [1010, 0]]}}
  {"power_cut": {"after": 12, "torn": true}}  {"brownout": true}; docs/virtual-chip.md has them all, --scenario times
  {"download": true} presses BOOT and EN: the port is then the ROM's, until the loader's `run` or a reset

The port that it names as `serial` is the board's only one (docs/virtual-board.md):
  bega sim board --blank --flash air-1.flash --ready-file board.json
  esptool --port /dev/pts/5 --before no-reset --after no-reset-stub write-flash 0x200000 vfs.img
  mpremote connect /dev/pts/5 fs ls"""

BOARDS = {"air": "esp32_devkitc", "meter": "meter_carrier"}
SITES = {"air": "pole", "meter": "household"}
DEFAULT_DEVICES: dict[str, dict[str, Any]] = {
    "air": {"pms": {"every_s": 10}, "sht": {"every_s": 10}},
    "meter": {"main": {"every_s": 10}, "flat": {"every_s": 10}},
}
SENSORS = {"air": USUAL_SENSORS, "meter": ("main=dsmr_p1@uart1",)}
CONTACTS = {"air": (), "meter": ("27=1000",)}


def main(argv: list[str]) -> int:
    """Run one board until SIGTERM or SIGINT (exit 0); 1 if it cannot be, or its program ended by itself."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        require_place(args.ready_file)
        find_micropython()
        with scratch_folder() as folder:
            return asyncio.run(_run(args, folder))
    except (ConfigError, OSError) as error:
        print(f"bega sim board: {error}", file=sys.stderr)
        return 1


async def _run(args: argparse.Namespace, folder: Path) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    micropython = find_micropython()
    clock, town = TownClock(args.epoch, args.speed), Town(args.seed)
    wired: dict[str, Cable | Plug] = {**cables(args.cable), **plugs(args.plug)}
    peripherals = AirPeripherals(
        args.seed,
        lambda: town.readings(SITES[args.kind], clock.town_s(wall_ms() / 1000)),
        args.sensor or [text for text in SENSORS[args.kind] if text.partition("@")[2] not in wired],
    )
    for sensor in args.sensor:
        if (uart := sensor.partition("@")[2].partition("/")[0]) in wired:
            raise ConfigError(f"sensor {sensor}: a cable or a plug is in {uart} already")
    peripherals.cables = wired
    usual = () if args.sensor or args.plug else CONTACTS[args.kind]
    meters = [EnergyMeter(text, peripherals) for text in args.pulses or usual]
    steps = read_scenario(args.scenario) if args.scenario else []
    flash = args.flash or folder / "flash"
    node = None if args.blank or args.as_is else await _prepare(args, micropython, flash, folder, peripherals)
    if args.blank:
        make_blank(flash)
    check_flash(flash)
    line = SerialLine()
    await line.open()
    control = folder / "control"
    facts: dict[str, Any] = {"node": node} if node else {}
    facts |= {
        "serial": line.port,
        "rom": line.url,
        "rfc2217": line.rfc2217,
        "control": str(control),
        "flash": str(flash),
    }
    facts |= {"interpreter": INTERPRETER, "pid": os.getpid()}

    told = asyncio.Event()

    def is_up() -> None:
        write_ready(args.ready_file, facts)
        if args.ready_file is None and not told.is_set():
            print(json.dumps(facts), flush=True)  # or nobody knew its ports
        told.set()

    def ready() -> None:
        if node is None:
            is_up()

    def said(text: str) -> None:
        if args.verbose:
            print(f"{node or 'board'}: {text}", file=sys.stderr, flush=True)
        if node and text.startswith(f"bega: node {node} runs"):
            is_up()
        elif text.startswith("bega: configuration"):
            print(f"bega sim board: {text}", file=sys.stderr)

    board = Board(micropython, flash, args.heap, peripherals, line, folder, said)
    server = await serve_control(control, peripherals, board)
    powered = asyncio.create_task(board.run(ready, attended=node is None))
    stopping = asyncio.create_task(stop.wait())
    playing = asyncio.gather(play(steps, peripherals), *(meter.run() for meter in meters))
    await asyncio.wait([powered, stopping], return_when=asyncio.FIRST_COMPLETED)
    server.close()
    ended = powered.done()
    for task in (powered, stopping, playing):
        task.cancel()
    outcome, *_ = await asyncio.gather(powered, stopping, playing, return_exceptions=True)
    await line.close()
    if not ended:
        return 0
    if isinstance(outcome, BaseException):
        raise outcome
    print(f"bega sim board: the program of {node or 'the board'} ended by itself", file=sys.stderr)
    return 1


async def _prepare(
    args: argparse.Namespace, micropython: Path, flash: Path, folder: Path, peripherals: AirPeripherals
) -> str:
    """Put the firmware and a configuration on the flash, as a technician does; return the node's name."""
    config = _config(args.config, args.broker, args.kind)
    config_file = folder / "config.json"
    config_file.write_text(json.dumps(config))
    contents = [
        *await build_firmware(
            BOARDS[args.kind], [*peripherals.devices, *_drivers(config)], folder / "firmware", _has_actions(config)
        ),
        (config_file, "/config.json"),
        *_more_files(args.put),
    ]
    await put_on_flash(micropython, flash, contents)
    return str(config["node"])


def _config(path: Path | None, broker: str | None, kind: str) -> dict[str, Any]:
    """Return the node's configuration, completed; raises ConfigError if it cannot be read."""
    config: dict[str, Any] = {"node": f"{kind}-1", "devices": DEFAULT_DEVICES[kind]}
    if path is not None:
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from None
        if not isinstance(config, dict) or not isinstance(config.get("node"), str):
            raise ConfigError(f"{path} names no node")
    config.setdefault("made_s", wall_ms() // 1000)
    if not config.keys() & {"uplink", "beacon"}:
        config.setdefault("wifi", {"ssid": "city", "key": ""})
        config.setdefault("broker", {"host": "127.0.0.1", "port": 1883})
    if broker is not None and "broker" not in config:
        raise ConfigError(f"--broker {broker}: the configuration has another way out")
    if broker is not None:
        host, colon, port = broker.rpartition(":")
        if not colon or not port.isdigit():
            raise ConfigError(f"--broker {broker}: write it as HOST:PORT")
        config["broker"] = {**config["broker"], "host": host, "port": int(port)}
    return config


def _drivers(config: dict[str, Any]) -> list[str]:
    """Return the drivers that the configuration names itself; those of the board file come with what hangs there."""
    return [device["driver"] for device in _devices(config) if device.get("driver") in device_names()]


def _has_actions(config: dict[str, Any]) -> bool:
    return any(device.get("actions") for device in _devices(config))


def _devices(config: dict[str, Any]) -> list[dict[str, Any]]:
    devices = config.get("devices")
    named = devices.values() if isinstance(devices, dict) else ()
    return [device for device in named if isinstance(device, dict)]


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
    parser.add_argument("--kind", choices=["air", "meter"], default="air", help="what hangs on it (default: air)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the node's configuration (default: a node air-1)")
    parser.add_argument("--broker", metavar="HOST:PORT", help="where its gateway's broker is, above the configuration")
    parser.add_argument(
        "--flash", type=Path, metavar="FILE", help="its flash, made if missing; without, it is forgotten"
    )
    contents = parser.add_mutually_exclusive_group()
    contents.add_argument(
        "--blank", action="store_true", help="as from the factory: the flash is erased, the board waits in its ROM"
    )
    contents.add_argument("--as-is", action="store_true", help="start what is on the flash, and put nothing on it")
    parser.add_argument("--put", action="append", default=[], metavar="FILE=/PATH", help="one more file for its flash")
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME=DEVICE@BUS[:0xADDRESS][/PIN]",
        help=f"what hangs on its wires, and the pin that switches its supply (an air node: {' '.join(USUAL_SENSORS)};"
        f" a meter node: {SENSORS['meter'][0]})",
    )
    parser.add_argument(
        "--pulses",
        action="append",
        default=[],
        metavar="PIN=PER_KWH",
        help=f"a meter's contact on this pin, so many times a kWh of the town (a meter node: {CONTACTS['meter'][0]})",
    )
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="orders of the control socket, an object a line, each with at_s"
    )
    parser.add_argument(
        "--cable",
        action="append",
        default=[],
        metavar="UART=PATH",
        help="a port of this machine on one of its UARTs, as for a gateway whose node has `uplink`",
    )
    parser.add_argument(
        "--plug",
        action="append",
        default=[],
        metavar="UART=PORT:BAUD",
        help="put one of its UARTs on a bus of meters of another simulator, such as the cellar of `bega sim corner`",
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
        "--ready-file",
        type=Path,
        metavar="PATH",
        help="written as JSON once the node's application runs; with --blank or --as-is, once its port answers"
        " (default: printed)",
    )
    parser.add_argument("--verbose", action="store_true", help="print the node's console on standard error")
    return parser
