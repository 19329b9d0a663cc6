"""What the commands of long-running services share: `--config`, `--set`, `check`, logging, an end on a signal."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bega.ready import require_place
from bega_protocols.errors import ConfigError

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

Verb = Callable[[argparse.Namespace], int]
if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def command_line(prog: str, description: str | None, examples: str) -> tuple[argparse.ArgumentParser, Verbs]:
    """Return a parser for `prog`, and where `add_verb` puts its verbs."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser, parser.add_subparsers(dest="verb", required=True, metavar="VERB")


def add_verb(verbs: Verbs, name: str, verb: Verb, purpose: str) -> argparse.ArgumentParser:
    """Add a verb that works on a configuration."""
    parser = verbs.add_parser(name, help=purpose, description=purpose)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="lay a value over the file's")
    parser.set_defaults(command=verb)
    return parser


def add_run(verbs: Verbs, run: Verb, purpose: str) -> None:
    """Add the verb `run`."""
    parser = add_verb(verbs, "run", run, purpose)
    parser.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once it is up")
    parser.add_argument("--verbose", action="store_true", help="log more")


def carry_out(parser: argparse.ArgumentParser, argv: list[str]) -> int:
    """Run the verb asked for; return its exit code, 1 after saying on standard error what is wrong and what to do."""
    args = parser.parse_args(argv)
    verb: Verb = args.command
    try:
        require_place(getattr(args, "ready_file", None))
        return verb(args)
    except ConfigError as error:
        print(f"{parser.prog} {args.verb}: {error}", file=sys.stderr)
        return 1


def report(problems: list[str]) -> int:
    """Print every problem and their number; return the exit code of a `check` that found them."""
    print("\n".join(problems), file=sys.stderr)
    print(f"{len(problems)} problem{'s' * (len(problems) > 1)}", file=sys.stderr)
    return 1


def log_to_stderr(verbose: bool, *quiet: str) -> None:
    """Log our events; libraries named in `quiet` tell of their own troubles only, ours are told once by us."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    for library in quiet:
        logging.getLogger(library).setLevel(logging.ERROR)


async def until_signalled(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `work(stop)`, where SIGTERM or SIGINT sets `stop`."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(stop)
