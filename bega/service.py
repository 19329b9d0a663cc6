"""What the commands of long-running services share: `--config`, `--set`, `check`, logging, an end on a signal."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bega.ready import require_place
from bega_protocols.errors import ConfigError

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
JOURNAL_FORMAT = "%(name)s %(message)s"  # journald has time and level of its own
# sd-daemon(3): how a line says its level to journald
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

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
    # Until a loop minds signals, an interrupt just ends us, without a traceback: nothing is open yet.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
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
    handler = logging.StreamHandler(sys.stderr)
    to_journal = is_journal(os.environ.get("JOURNAL_STREAM", ""), sys.stderr)
    handler.setFormatter(JournalFormatter(JOURNAL_FORMAT) if to_journal else logging.Formatter(LOG_FORMAT))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    for library in quiet:
        logging.getLogger(library).setLevel(logging.ERROR)


def is_journal(journal_stream: str, stream: TextIO) -> bool:
    """Return whether what is written to `stream` goes to journald: JOURNAL_STREAM is its "device:inode"."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


class JournalFormatter(logging.Formatter):
    """A level before every line, those of a traceback too: to journald each line is a message of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record, each with "<3>" or the like before it."""
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


async def until_signalled(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `work(stop)`, where SIGTERM or SIGINT sets `stop`."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(stop)
