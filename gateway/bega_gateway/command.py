"""`bega gateway`: run a gateway, check and reload its configuration, install it as a service."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tomllib
from contextlib import suppress
from functools import partial
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from bega.clock import mono_ms, wall_ms
from bega.service import Verb, add_run, add_verb, carry_out, command_line, log_to_stderr, report, until_signalled
from bega.settings import merge, parse_assignments
from bega_gateway import config as settings
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.service import Verbs

SWITCH_S = 0.0005  # so long, not 5 ms, may the loop keep the spool's thread waiting at each step of a commit

EXAMPLES = """examples:
  bega gateway example > corner.toml
  bega gateway check --config corner.toml
  bega gateway run --config corner.toml --set lines.pms.port=/dev/ttyUSB1"""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    return carry_out(_parser(), argv)


def check(args: argparse.Namespace) -> int:
    """Read the file only: missing ports and refusing brokers are found by `run`, said, and retried."""
    config, problems = settings.check(args.config, parse_assignments(args.set))
    if config is None:
        return report(problems)
    for caution in settings.cautions(config):
        print(f"{args.config}: {caution}", file=sys.stderr)
    devices = len(config.devices) + len(config.nodes)
    print(f"{args.config}: good; {len(config.lines)} lines, {devices} devices and nodes")
    return 0


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    from bega_gateway import app
    from bega_gateway.control import Origin

    log_to_stderr(args.verbose, "pymodbus", "asyncio", "bleak", "dbus_fast")
    examine = partial(settings.examine, args.config, parse_assignments(args.set))
    source = app.Source(Origin(str(args.config.absolute()), args.set), examine)
    config = settings.load(args.config, parse_assignments(args.set))
    clocks = app.Clocks(wall_ms, mono_ms)
    sys.setswitchinterval(SWITCH_S)
    _keep_to_ourselves()
    asyncio.run(until_signalled(lambda stop: app.run(config, source, clocks, args.ready_file, stop)))
    return 0


def reload(args: argparse.Namespace) -> int:
    """Have the gateway that runs read its configuration again; 1 if it refuses it, and then nothing has changed."""
    from bega_gateway.control import Origin, ask_reload

    checked = Origin(str(args.config.absolute()), args.set)
    config, problems = settings.examine(args.config, parse_assignments(args.set))
    if config is None:
        with suppress(ConfigError):  # it refuses the file too, and so its own log has it
            ask_reload(_state_dir(args), checked)
        return report(problems)
    outcome = ask_reload(Path(config.gateway.state_dir), checked)
    print("\n".join(outcome.said), file=sys.stdout if outcome.applied else sys.stderr)
    return 0 if outcome.applied else 1


def status(args: argparse.Namespace) -> int:
    """Show how the gateway is doing, what is wrong first; 1 if something is, or if it does not run."""
    from bega_gateway.status import status

    return status(args)


def password(args: argparse.Namespace) -> int:
    """Ask for a password, twice, and print what to write under [page]."""
    from bega_gateway.page.password import hashed

    given = getpass("password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if sys.stdin.isatty() and getpass("the same again: ") != given:
        raise ConfigError("these were two different ones")
    print(f'password_hash = "{hashed(given)}"')
    return 0


def _state_dir(args: argparse.Namespace) -> Path:
    """Return where the state lies, as far as a configuration with problems says it."""
    from bega_gateway.install import STATE

    try:
        tables = merge(tomllib.loads(args.config.read_text(encoding="utf-8")), parse_assignments(args.set))
    except (OSError, ValueError, RecursionError):
        tables = parse_assignments(args.set)
    gateway = tables.get("gateway")
    state = gateway.get("state_dir") if isinstance(gateway, dict) else None
    return Path(state if isinstance(state, str) else STATE)


def backfill(args: argparse.Namespace) -> int:
    """Load records, one SenML pack a line, into the public feed: history from elsewhere, or of a simulated town."""
    from bega_gateway.backfill import load_history

    config = settings.load(args.config, parse_assignments(args.set))
    _keep_to_ourselves()
    loaded, left_out = load_history(config, args.source, args.simulated)
    print(f"{loaded} records loaded, {left_out} left out (not public, or not readable)")
    return 1 if left_out and not loaded else 0


def example(args: argparse.Namespace) -> int:
    """Print a configuration with every table and its reasons, to begin with."""
    from bega_gateway.install import example

    print(example(f"{args.example}.toml"), end="")
    return 0


def install(args: argparse.Namespace) -> int:
    """Make the gateway a service: user, unit, names of ports, places. What is there already stays as it is."""
    from bega_gateway.install import config_of, install, next_steps

    config = config_of(args.root, args.config)
    said = install(args.root, config, args.dry_run)
    print("\n".join(said + ([] if args.dry_run else next_steps(args.root, config))))
    return 1 if any(line.startswith("failed") for line in said) else 0


def uninstall(args: argparse.Namespace) -> int:
    """Remove what install made; configuration and state stay, unless --purge."""
    from bega_gateway.install import config_of, uninstall

    said = uninstall(args.root, config_of(args.root, args.config), args.purge, args.dry_run)
    print("\n".join(said))
    return 1 if any(line.startswith("failed") for line in said) else 0


def _keep_to_ourselves() -> None:
    """Have what we write from here on be for our user and group only: households' readings are in it."""
    os.umask(os.umask(0o077) | 0o027)


def _parser() -> argparse.ArgumentParser:
    from bega_gateway.commands.send import add_command
    from bega_gateway.doctor.command import add_doctor
    from bega_gateway.record import add_record
    from bega_gateway.replay import add_replay
    from bega_gateway.scan.command import add_scan

    parser, verbs = command_line("bega gateway", __doc__, EXAMPLES)
    add_scan(verbs)
    add_verb(verbs, "check", check, "say whether a configuration is good, with every problem and its place")
    add_run(verbs, run, "run the gateway until it is told to stop")
    add_verb(verbs, "reload", reload, "have the gateway that runs read its configuration again")
    teller = add_verb(verbs, "status", status, "show how the gateway that runs is doing, what is wrong first")
    teller.add_argument("--json", action="store_true", help="print it as JSON")
    add_doctor(verbs)
    add_command(verbs)
    plain = verbs.add_parser("example", help="print a commented configuration", description=example.__doc__)
    one = plain.add_mutually_exclusive_group()
    one.add_argument(
        "--tags", action="store_const", dest="example", const="tags", help="one for a Modbus device that has no profile"
    )
    one.add_argument(
        "--edge", action="store_const", dest="example", const="edge", help="one with all that the gateway computes"
    )
    one.add_argument(
        "--commands", action="store_const", dest="example", const="commands", help="one that takes commands"
    )
    plain.set_defaults(command=example, example="corner")
    asker = verbs.add_parser("password", help="print a password_hash for the page", description=password.__doc__)
    asker.set_defaults(command=password)
    _add_installing(verbs, "install", install, "make the gateway a service of this machine")
    remover = _add_installing(verbs, "uninstall", uninstall, "remove what install made")
    add_record(verbs)
    add_replay(verbs)
    remover.add_argument("--purge", action="store_true", help="remove configuration and state too: what waits is lost")
    filler = add_verb(verbs, "backfill", backfill, "load a history into the public feed")
    filler.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FILE", help="SenML packs, one a line"
    )
    filler.add_argument("--simulated", action="store_true", help="mark it as simulated wherever it is shown")
    return parser


def _add_installing(verbs: Verbs, name: str, verb: Verb, purpose: str) -> argparse.ArgumentParser:
    from bega_gateway.install import DEFAULT_CONFIG

    parser = verbs.add_parser(name, help=purpose, description=verb.__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="an image's root instead of /")
    parser.add_argument(
        "--config", metavar="FILE", help=f"the service's configuration (as it is installed, else {DEFAULT_CONFIG})"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.set_defaults(command=verb)
    return parser
