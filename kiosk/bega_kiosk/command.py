"""`bega kiosk`: run a kiosk's pages, or check its configuration."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bega.clock import wall_ms
from bega.service import Verb, add_verb, carry_out, command_line, log_to_stderr, report, until_signalled
from bega.settings import parse_assignments
from bega_kiosk import config as settings
from bega_kiosk.content import FORMS, load_content
from bega_kiosk.given import add_settings, given_config
from bega_kiosk.notice_command import add_verbs
from bega_kiosk.signed import read_public_keys
from bega_kiosk.timetable_command import add_verb as add_timetable
from bega_kiosk.words import DEFAULT, LANGUAGES
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.service import Verbs

EXAMPLES = """examples:
  bega kiosk check --config kiosk.toml
  bega kiosk run --port 8000 --data /var/lib/bega --feed http://gw-corner:8080 --panel 10
  bega kiosk doctor --config kiosk.toml
  bega kiosk screens --config kiosk.toml --json
  bega kiosk shots pictures --feed http://gw-corner:8080 --panel 10 --lang hu
  bega kiosk forms --config kiosk.toml --paper a4
  bega kiosk run --config kiosk.toml --set kiosk.panel=10 --set feed.url=http://gw-corner:8080"""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    return carry_out(_parser(), argv)


def check(args: argparse.Namespace) -> int:
    """Say every problem of the file, each with its place; a feed that is away is found by `run`, and tried again."""
    config, problems = settings.examine(args.config, parse_assignments(args.set))
    if config is None:
        return report(problems)
    if left_out := load_content(config.content_folder).problems:
        return report(left_out)
    read_public_keys([Path(file) for file in config.notices.keys])
    panel = config.panel
    print(f"{args.config}: good; {panel.width_px} x {panel.height_px} pixels on {panel.diagonal_in:g} inches")
    return 0


def screens(args: argparse.Namespace) -> int:
    """Print every screen of this configuration: its address and its heading, so that a review misses none."""
    from bega_kiosk.places import every_screen

    config = given_config(args)
    found = every_screen(config, wall_ms, args.lang)
    if args.json:
        print(json.dumps([{"address": address, "title": title} for address, title in found], ensure_ascii=False))
    else:
        print("\n".join(f"{address:32} {title}" for address, title in found))
    return 0


def run(args: argparse.Namespace) -> int:
    """Serve the pages until SIGTERM or SIGINT."""
    gc.disable()  # until the first page was given: all that is made before it stays (app.py)
    from bega_kiosk import app

    log_to_stderr(args.verbose, "httpx", "httpcore", "asyncio")
    config = given_config(args)
    asyncio.run(until_signalled(lambda stop: app.run(config, wall_ms, args.ready_file, stop)))
    return 0


def agent(args: argparse.Namespace) -> int:
    """Carry reports to the desk until SIGTERM or SIGINT. `run` starts it where [reports] names a broker."""
    from bega_kiosk import agent as carrying

    log_to_stderr(args.verbose, "asyncio")
    config = given_config(args)
    asyncio.run(until_signalled(lambda stop: carrying.run(config, stop)))
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Say what is wrong with this kiosk, and what people still owe it; 1 if a citizen suffers from something now."""
    from bega_kiosk.doctor import look

    found = [*look(given_config(args), wall_ms)]
    if args.json:
        print(json.dumps([finding._asdict() for finding in found], ensure_ascii=False))
    else:
        print("\n".join(f"{finding.state:6} {finding.what:10} {finding.says}" for finding in found))
    return int(any(finding.state == "wrong" for finding in found))


def shots(args: argparse.Namespace) -> int:
    """Write a picture of every screen; 1 if one could not be drawn."""
    import tempfile

    from bega_kiosk.shots import INDEX, draw, every_look, every_path

    with tempfile.TemporaryDirectory(prefix="bega-shots-") as nothing:
        args.data = args.data or (None if args.config else nothing)
        paths = [path for path in every_path(args) if path.startswith(args.only)]
        if not paths:
            raise ConfigError(f"no screen's address begins with {args.only!r}; see bega kiosk screens")
        looks = every_look(args.lang or [*LANGUAGES], args.every_look)
        with counted() as say:
            failed = draw(args, args.folder, looks, paths, say)
    print(f"{args.folder / INDEX} shows them all", *failed, sep="\n")
    return int(bool(failed))


def forms(args: argparse.Namespace) -> int:
    """Make a sheet to print of every form that has no file; 1 if one could not be made."""
    from bega_kiosk.sheets import PAPERS, make

    config = given_config(args)
    with counted() as say:
        failed = make(config, PAPERS[args.paper], args.lang or [*LANGUAGES], wall_ms(), say)
    print(f"{Path(config.kiosk.state_dir) / FORMS} has them", *failed, sep="\n")
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser, verbs = command_line("bega kiosk", __doc__, EXAMPLES)
    add_verb(verbs, "check", check, "say whether a configuration is good, with every problem and its place")
    listing = _add(verbs, "screens", screens, "list every screen: address and heading")
    listing.add_argument("--lang", choices=LANGUAGES, default=DEFAULT, help="in which language")
    listing.add_argument("--json", action="store_true", help="as a list of objects")
    looking = _add(verbs, "doctor", doctor, "say what is wrong with a kiosk, and what people still owe it")
    looking.add_argument("--json", action="store_true", help="as a list of objects")
    drawing = _add(verbs, "shots", shots, "write a picture of every screen, in every language, on every panel")
    drawing.add_argument("folder", type=Path, metavar="DIR", help="where the pictures go; its index.html shows them")
    drawing.add_argument("--lang", action="append", choices=LANGUAGES, help="in this language only")
    drawing.add_argument("--only", default="/", metavar="PATH", help="only screens whose address begins so, as in /air")
    drawing.add_argument("--every-look", action="store_true", help="also dark, large and reach: eight times as many")
    making = _add(verbs, "forms", forms, "make a sheet to print of every form that has no file, marked as an example")
    making.add_argument(
        "--paper", choices=("a4", "slip"), default="a4", help="a slip is 72 mm wide, on a roll of 80 mm"
    )
    making.add_argument("--lang", action="append", choices=LANGUAGES, help="in this language only")
    carrying = _add(verbs, "agent", agent, "carry reports to the desk until told to stop; `run` starts it by itself")
    carrying.add_argument("--verbose", action="store_true", help="log more")
    add_verbs(verbs)
    add_timetable(verbs)
    running = _add(verbs, "run", run, "serve the pages until told to stop")
    running.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once it is up")
    running.add_argument("--verbose", action="store_true", help="log more")
    return parser


@contextmanager
def counted() -> Iterator[Callable[[int, str], None]]:
    """Yield what counts steps of a whole on standard error, in place on a terminal, and not at all elsewhere."""
    done = 0

    def step(whole: int, what: str) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            bar = "#" * (30 * done // whole)
            print(f"\r[{bar:30}] {done}/{whole} {what[:40]:40}", end="", file=sys.stderr, flush=True)

    try:
        yield step
    finally:
        if done and sys.stderr.isatty():
            print(file=sys.stderr)


def _add(verbs: Verbs, name: str, verb: Verb, purpose: str) -> argparse.ArgumentParser:
    """Add a verb that works on a kiosk, with a file or without one."""
    parser = verbs.add_parser(name, help=purpose, description=purpose)
    add_settings(parser)
    parser.set_defaults(command=verb)
    return parser
