"""`bega kiosk`: run a kiosk's pages, or check its configuration."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bega.clock import wall_ms
from bega.settings import parse_assignments
from bega_kiosk import config as settings
from bega_protocols.errors import ConfigError

EXAMPLES = """examples:
  bega kiosk check --config kiosk.toml
  bega kiosk run --config kiosk.toml --set kiosk.panel=10in --set feed.url=http://gw-corner:8080"""
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    args = _parser().parse_args(argv)
    try:
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except ConfigError as error:
        print(f"bega kiosk {args.verb}: {error}", file=sys.stderr)
        return 1


def check(args: argparse.Namespace) -> int:
    """Say every problem of the file, each with its place; a feed that is away is found by `run`, and tried again."""
    config, problems = settings.examine(args.config, parse_assignments(args.set))
    if config is None:
        print("\n".join(problems), file=sys.stderr)
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)}", file=sys.stderr)
        return 1
    panel = config.panel
    print(f"{args.config}: good; {panel.width_px} x {panel.height_px} pixels on {panel.diagonal_in:g} inches")
    return 0


def run(args: argparse.Namespace) -> int:
    """Serve the pages until SIGTERM or SIGINT."""
    from bega_kiosk import app

    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    for loud in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(loud).setLevel(logging.ERROR)
    config = settings.load(args.config, parse_assignments(args.set))

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await app.run(config, wall_ms, args.ready_file, stop)

    asyncio.run(until_signalled())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega kiosk",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _verb(verbs, "check", check, "say whether a configuration is good, with every problem and its place")
    runner = _verb(verbs, "run", run, "serve the pages until told to stop")
    runner.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once the pages are up")
    runner.add_argument("--verbose", action="store_true", help="log more")
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    purpose: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=purpose, description=purpose)
    verb.add_argument("--config", type=Path, required=True, metavar="FILE", help="the kiosk's configuration (TOML)")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="lay a value over the file's")
    verb.set_defaults(command=command)
    return verb
