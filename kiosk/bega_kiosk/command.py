"""`bega kiosk`: run a kiosk's pages, or check its configuration."""

from __future__ import annotations

import argparse
import asyncio

from bega.clock import wall_ms
from bega.service import add_run, add_verb, carry_out, command_line, log_to_stderr, report, until_signalled
from bega.settings import parse_assignments
from bega_kiosk import config as settings

EXAMPLES = """examples:
  bega kiosk check --config kiosk.toml
  bega kiosk run --config kiosk.toml --set kiosk.panel=10in --set feed.url=http://gw-corner:8080"""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    return carry_out(_parser(), argv)


def check(args: argparse.Namespace) -> int:
    """Say every problem of the file, each with its place; a feed that is away is found by `run`, and tried again."""
    config, problems = settings.examine(args.config, parse_assignments(args.set))
    if config is None:
        return report(problems)
    panel = config.panel
    print(f"{args.config}: good; {panel.width_px} x {panel.height_px} pixels on {panel.diagonal_in:g} inches")
    return 0


def run(args: argparse.Namespace) -> int:
    """Serve the pages until SIGTERM or SIGINT."""
    from bega_kiosk import app

    log_to_stderr(args.verbose, "httpx", "httpcore", "asyncio")
    config = settings.load(args.config, parse_assignments(args.set))
    asyncio.run(until_signalled(lambda stop: app.run(config, wall_ms, args.ready_file, stop)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser, verbs = command_line("bega kiosk", __doc__, EXAMPLES)
    add_verb(verbs, "check", check, "say whether a configuration is good, with every problem and its place")
    add_run(verbs, run, "serve the pages until told to stop")
    return parser
