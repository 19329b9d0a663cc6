"""`bega gateway doctor`: what is wrong, in words, and what to do."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bega.service import add_verb
from bega.settings import parse_assignments

if TYPE_CHECKING:
    from bega.service import Verbs
    from bega_gateway import config as settings
    from bega_gateway.doctor.finding import Finding
    from bega_gateway.status import Status

EXAMPLES = """examples:
  sudo bega gateway doctor --config /etc/bega/gateway.toml
  bega gateway doctor --config corner.toml --json --no-wires

A line on which nobody is heard is tried at other rates and units; the gateway lends it for that time, and loses
nothing there, since nobody is heard. Run it as root: others may not enter the state. Exit code: 0 nothing wrong,
1 something."""


def add_doctor(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "doctor", doctor, "say what is wrong and what to do, what stops readings first")
    parser.description = __doc__
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--no-wires", action="store_true", help="try no line, only look")


def doctor(args: argparse.Namespace) -> int:
    """Examine; 1 if something is wrong."""
    from bega_gateway import config as settings
    from bega_gateway.doctor.finding import as_json, text

    config, problems = settings.examine(args.config, parse_assignments(args.set))
    found = [_of_problem(problem) for problem in problems] if config is None else asyncio.run(_examined(args, config))
    print(as_json(found) if args.json else "\n".join(text(found)))
    return 1 if found else 0


async def _examined(args: argparse.Namespace, config: settings.Config) -> list[Finding]:
    from bega_gateway.control import NoAnswer
    from bega_gateway.doctor.examine import findings
    from bega_gateway.doctor.look import Look

    look = Look(say=lambda said: print(f"... {said}", file=sys.stderr))
    try:
        status = _status(config)
    except NoAnswer as error:  # it holds its lines all the same
        return await findings(config, None, look, unanswered=str(error))
    return await findings(config, status, look, closely=not args.no_wires)


def _status(config: settings.Config) -> Status | None:
    """Return what the gateway that runs says, None if none does; raises ConfigError if it may not be asked."""
    from bega_gateway.control import NoGateway
    from bega_gateway.status import asked

    try:
        return asked(Path(config.gateway.state_dir))
    except NoGateway:
        return None


def _of_problem(problem: str) -> Finding:
    """Return the finding for what `check` says too: a gateway does not start with it, nor reload."""
    from bega_gateway.doctor.finding import CONFIGURATION, Finding

    file, _, rest = problem.partition(": ")
    place, _, why = rest.partition(": ")
    if " " in place:  # it is about the whole file
        place, why = file, f"{place}: {why}"
    remedy = "correct it; bega gateway check --config FILE lists every problem"
    if "cannot be read" in problem:
        remedy = "is this its path? ls -l; on a gateway it is --config /etc/bega/gateway.toml, and needs sudo"
    return Finding(
        "configuration", "the configuration cannot be used", place, f"{file}: {why}", remedy, True, CONFIGURATION
    )
