"""`bega gateway scan`: look, write, and say how it ended."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bega.clock import mono_ms, wall_ms
from bega.tables import LARGEST_PORT, is_host
from bega_protocols.errors import ConfigError, LineError

if TYPE_CHECKING:
    from bega.service import Verbs
    from bega_gateway.scan.search import Search

log = logging.getLogger(__name__)

EXAMPLES = """examples:
  bega gateway scan -o cellar.toml                            everything that this machine has: minutes
  bega gateway scan --port /dev/ttyUSB0 --baud 19200 --all-units
  bega gateway scan --modbus-tcp 192.168.10.20 --ble hci0 --json

Without an option that names a place, it looks at every serial port, at hci0 and at i2c-1. Meters are only read; an
air sensor that sleeps is woken, as its driver does it. Ctrl-C, or the end of --for, writes what was found until then.
Exit code: 0 found, 1 nothing found."""
FIRST_UNITS = range(1, 33)
ALL_UNITS = range(1, 248)
RATES = ((9600, "N"), (9600, "E"), (19200, "E"), (19200, "N"))  # as meters leave the factory
MBUS_BAUDS = (2400, 300, 9600)
LISTEN_S = 11.0  # a P1 meter before version 5 speaks every ten seconds
AIR_S = 12.0  # sensors that spare their battery advertise every ten seconds
LONGEST_S = 86_400.0
SLOWEST_BAUD, FASTEST_BAUD = 50, 4_000_000
MODBUS_TCP_PORT = 502
BLUETOOTH = Path("/sys/class/bluetooth/hci0")
I2C = Path("/dev/i2c-1")


def add_scan(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "scan",
        help="find what hangs on this machine, and write the configuration that reads it",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the configuration here, else print it")
    parser.add_argument("--force", action="store_true", help="overwrite FILE")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--port", action="append", default=[], metavar="P", help="this serial port, and no other")
    parser.add_argument(
        "--modbus-tcp", action="append", default=[], metavar="HOST[:PORT]", help="a meter or converter on the network"
    )
    parser.add_argument("--ble", action="append", default=[], metavar="ADAPTER", help="Bluetooth, as hci0")
    parser.add_argument("--i2c", action="append", type=int, default=[], metavar="N", help="the bus /dev/i2c-N")
    parser.add_argument(
        "--baud", action="append", type=_baud, default=[], metavar="N", help="of Modbus and M-Bus, instead of the usual"
    )
    parser.add_argument(
        "--parity", action="append", choices=["N", "E", "O"], default=[], help="of Modbus, instead of N and E"
    )
    parser.add_argument("--all-units", action="store_true", help="Modbus units 1 to 247, not only 1 to 32")
    parser.add_argument(
        "--listen", type=_seconds, default=LISTEN_S, metavar="S", help="for talkers (default 11; 0: not)"
    )
    parser.add_argument("--for", dest="for_s", type=_seconds, metavar="S", help="end after so many seconds")
    parser.set_defaults(command=scan)


def scan(args: argparse.Namespace) -> int:
    """Look everywhere at once, one place after the other where they share a wire."""
    from bega_gateway.scan.document import as_json, configuration
    from bega_gateway.scan.findings import Findings
    from bega_gateway.scan.progress import Progress
    from bega_gateway.scan.search import Search

    if args.output and args.output.exists() and not args.force:
        raise ConfigError(f"{args.output} is there already; --force overwrites it")
    if args.output and not os.access(args.output if args.output.exists() else args.output.parent, os.W_OK):
        raise ConfigError(f"{args.output} cannot be written: is the folder there, and is it yours?")
    findings = Findings()
    search = Search(
        findings,
        Progress(sys.stderr),
        mono_ms,
        args.listen,
        ALL_UNITS if args.all_units else FIRST_UNITS,
        _rates(args.baud, args.parity),
        args.baud or MBUS_BAUDS,
    )
    places = _places(search, args)
    if not places:
        raise ConfigError("this machine has no serial port, no Bluetooth and no I2C bus: name a place (--help)")
    asyncio.run(_look(places, args.for_s))
    if args.json:
        print(as_json(findings))
    if not findings.found():
        print("\n".join(["bega gateway scan: nothing was found", *findings.notes]), file=sys.stderr)
        return 1
    text = configuration(findings, _gateway_name(), wall_ms())
    if args.output:
        _write(args.output, text, args.force)
        counts = f"{len(findings.found())} lines, {sum(len(line.devices) for line in findings.found())} devices"
        print(f"{args.output}: {counts}; next: bega gateway check --config {args.output}", file=sys.stderr)
    elif not args.json:
        print(text, end="")
    return 0


async def _kept_apart(search: Search, place: str, work: Coroutine[Any, Any, None]) -> None:
    """Carry out `work`; a defect in it is said, and costs this place alone."""
    try:
        await work
    except asyncio.CancelledError:
        search.findings.notes.append(f"{place}: the scan was broken off before it was through there")
        raise
    except Exception as error:
        log.exception("scan failed place=%s", place)
        search.findings.notes.append(
            f"{place}: the scan failed there ({type(error).__name__}): a defect, please report it"
        )
    finally:
        search.progress.done(place)


async def _look(places: list[Coroutine[Any, Any, None]], for_s: float | None) -> None:
    """Carry all of it out until it is done, the time is over, or a signal ends it; a second one kills."""
    loop = asyncio.get_running_loop()
    looking = asyncio.gather(*places)

    def leave() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        looking.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    with suppress(TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(for_s):
            await looking


def _places(search: Search, args: argparse.Namespace) -> list[Coroutine[Any, Any, None]]:
    """Return what there is to do: what was named, or all that this machine has."""
    from bega_gateway.scan.serial_port import scan_port

    named = bool(args.port or args.modbus_tcp or args.ble or args.i2c)
    ports = [(port, "") for port in args.port] if named else _serial_ports()
    places = [(port, scan_port(search, port, about)) for port, about in ports]
    places += [(given, _scan_server(search, *_host_and_port(given))) for given in args.modbus_tcp]
    adapters = args.ble if named else [BLUETOOTH.name] * BLUETOOTH.exists()
    if adapters:
        from bega_gateway.scan.radio import scan_air

        places += [(adapter, scan_air(search, adapter, AIR_S)) for adapter in adapters]
    buses = args.i2c if named else [1] * I2C.exists()
    if buses:
        from bega_gateway.scan.i2c import scan_bus

        places += [(f"i2c-{number}", scan_bus(search, number)) for number in buses]
    return [_kept_apart(search, place, work) for place, work in places]


async def _scan_server(search: Search, host: str, port: int) -> None:
    from bega_gateway.scan.modbus import scan_tcp
    from bega_gateway.scan.search import note_of

    place = f"{host}:{port}"
    try:
        if not await scan_tcp(search, host, port):
            search.findings.notes.append(f"{place}: no Modbus unit answered")
    except LineError as error:
        search.findings.notes.append(note_of(error))
        search.progress.say(search.findings.notes[-1])


def _serial_ports() -> list[tuple[str, str]]:
    """Return each serial port with what it is called, by the name that does not change owner where it has one."""
    from serial.tools.list_ports import comports

    folder = Path("/dev/serial/by-id")
    lasting = {os.path.realpath(link): str(link) for link in sorted(folder.iterdir())} if folder.is_dir() else {}
    return [
        (lasting.get(os.path.realpath(port.device), port.device), port.description)
        for port in sorted(comports(), key=lambda port: port.device)
    ]


def _host_and_port(given: str) -> tuple[str, int]:
    """Return ("192.168.10.20", 502) of "192.168.10.20"; raises ConfigError."""
    host, colon, port = given.rpartition(":") if re.search(r"(^[^:]+|\]):[0-9]+$", given) else (given, "", "")
    host, number = host.strip("[]"), int(port) if colon else MODBUS_TCP_PORT
    if not is_host(host) or not 1 <= number <= LARGEST_PORT:
        raise ConfigError(f"--modbus-tcp {given}: write a name or an address, and a port if it is not 502")
    return host, number


def _rates(bauds: list[int], parities: list[str]) -> list[tuple[int, str]]:
    """Return the pairs of baud and parity to try on an RS-485 bus."""
    if not bauds and not parities:
        return list(RATES)
    usual = list(dict.fromkeys(baud for baud, _ in RATES))
    return [(baud, parity) for baud in bauds or usual for parity in parities or ("N", "E")]


def _baud(text: str) -> int:
    """Return a number of bits a second; raises ArgumentTypeError."""
    with suppress(ValueError):
        if SLOWEST_BAUD <= (number := int(text)) <= FASTEST_BAUD:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {SLOWEST_BAUD} to {FASTEST_BAUD}")


def _seconds(text: str) -> float:
    """Return a number of seconds, 0 or more; raises ArgumentTypeError."""
    with suppress(ValueError):
        if 0 <= (number := float(text)) <= LONGEST_S:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to {LONGEST_S:g}")


def _gateway_name() -> str:
    return "gw-" + (re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-")[:40] or "1")


def _write(path: Path, text: str, force: bool) -> None:
    """Write `text` for its owner and group only: it may name a household's meter. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o640)
        os.fchmod(descriptor, 0o640)  # one that was there may have had another
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from None
