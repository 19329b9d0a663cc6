"""`bega gateway`: run a gateway, check its configuration, load a history into its public feed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bega.clock import mono_ms, wall_ms
from bega.settings import parse_assignments
from bega_gateway import config as settings
from bega_protocols.errors import ConfigError

EXAMPLES = """examples:
  bega gateway check --config corner.toml
  bega gateway run --config corner.toml --set lines.pms.port=/dev/ttyUSB1"""
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    args = _parser().parse_args(argv)
    try:
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except ConfigError as error:
        print(f"bega gateway {args.verb}: {error}", file=sys.stderr)
        return 1


def check(args: argparse.Namespace) -> int:
    """Read the file only: missing ports and refusing brokers are found by `run`, said, and retried."""
    config, problems = settings.examine(args.config, parse_assignments(args.set))
    if config is None:
        print("\n".join(problems), file=sys.stderr)
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)}", file=sys.stderr)
        return 1
    devices = len(config.devices) + len(config.nodes)
    print(f"{args.config}: good; {len(config.lines)} lines, {devices} devices and nodes")
    return 0


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    from bega_gateway import app

    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    for loud in ("pymodbus", "asyncio", "bleak", "dbus_fast"):
        logging.getLogger(loud).setLevel(logging.ERROR)
    config = settings.load(args.config, parse_assignments(args.set))

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await app.run(config, app.Clocks(wall_ms, mono_ms), args.ready_file, stop)

    asyncio.run(until_signalled())
    return 0


def backfill(args: argparse.Namespace) -> int:
    """Load records, one SenML pack a line, into the public feed: history from elsewhere, or of a simulated town."""
    from bega_gateway.backfill import load_history

    config = settings.load(args.config, parse_assignments(args.set))
    loaded, left_out = load_history(config, args.source, args.simulated)
    print(f"{loaded} records loaded, {left_out} left out (not public, or not readable)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega gateway",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _verb(verbs, "check", check, "say whether a configuration is good, with every problem and its place")
    runner = _verb(verbs, "run", run, "run the gateway until it is told to stop")
    runner.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once the gateway is up")
    runner.add_argument("--verbose", action="store_true", help="log more")
    filler = _verb(verbs, "backfill", backfill, "load a history into the public feed")
    filler.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FILE", help="SenML packs, one a line"
    )
    filler.add_argument("--simulated", action="store_true", help="mark it as simulated wherever it is shown")
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    purpose: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=purpose, description=purpose)
    verb.add_argument("--config", type=Path, required=True, metavar="FILE", help="the gateway's configuration (TOML)")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="lay a value over the file's")
    verb.set_defaults(command=command)
    return verb
