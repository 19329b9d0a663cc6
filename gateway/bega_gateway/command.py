"""`bega gateway`: run a gateway, check its configuration, load a history into its public feed."""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import partial
from pathlib import Path

from bega.clock import mono_ms, wall_ms
from bega.service import add_run, add_verb, carry_out, command_line, log_to_stderr, report, until_signalled
from bega.settings import parse_assignments
from bega_gateway import config as settings

EXAMPLES = """examples:
  bega gateway check --config corner.toml
  bega gateway run --config corner.toml --set lines.pms.port=/dev/ttyUSB1"""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    return carry_out(_parser(), argv)


def check(args: argparse.Namespace) -> int:
    """Read the file only: missing ports and refusing brokers are found by `run`, said, and retried."""
    config, problems = settings.examine(args.config, parse_assignments(args.set))
    if config is None:
        return report(problems)
    devices = len(config.devices) + len(config.nodes)
    print(f"{args.config}: good; {len(config.lines)} lines, {devices} devices and nodes")
    return 0


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    from bega_gateway import app

    log_to_stderr(args.verbose, "pymodbus", "asyncio", "bleak", "dbus_fast")
    examine = partial(settings.examine, args.config, parse_assignments(args.set))
    config = settings.load(args.config, parse_assignments(args.set))
    clocks = app.Clocks(wall_ms, mono_ms)
    asyncio.run(until_signalled(lambda stop: app.run(config, examine, clocks, args.ready_file, stop)))
    return 0


def reload(args: argparse.Namespace) -> int:
    """Have the gateway that runs read its configuration again; 1 if it refuses it, and then nothing has changed."""
    from bega_gateway.control import ask_reload

    config, problems = settings.examine(args.config, parse_assignments(args.set))
    if config is None:
        return report(problems)
    outcome = ask_reload(Path(config.gateway.state_dir))
    print("\n".join(outcome.said), file=sys.stdout if outcome.applied else sys.stderr)
    return 0 if outcome.applied else 1


def backfill(args: argparse.Namespace) -> int:
    """Load records, one SenML pack a line, into the public feed: history from elsewhere, or of a simulated town."""
    from bega_gateway.backfill import load_history

    config = settings.load(args.config, parse_assignments(args.set))
    loaded, left_out = load_history(config, args.source, args.simulated)
    print(f"{loaded} records loaded, {left_out} left out (not public, or not readable)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser, verbs = command_line("bega gateway", __doc__, EXAMPLES)
    add_verb(verbs, "check", check, "say whether a configuration is good, with every problem and its place")
    add_run(verbs, run, "run the gateway until it is told to stop")
    add_verb(verbs, "reload", reload, "have the gateway that runs read its configuration again")
    filler = add_verb(verbs, "backfill", backfill, "load a history into the public feed")
    filler.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FILE", help="SenML packs, one a line"
    )
    filler.add_argument("--simulated", action="store_true", help="mark it as simulated wherever it is shown")
    return parser
