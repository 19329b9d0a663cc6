"""`bega desk`: where reports of a city's kiosks arrive, and where staff say how they are."""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bega.clock import wall_ms
from bega.service import carry_out, command_line, log_to_stderr, until_signalled
from bega.tables import NAME_RULE
from bega_kiosk.config import Reports, broker_problems
from bega_kiosk.desk.store import FILE, DeskStore, Row
from bega_kiosk.report import PERSONAL, STATES, read_code, spaced
from bega_protocols.errors import ConfigError
from bega_protocols.senml import is_name

if TYPE_CHECKING:
    from bega_kiosk.desk.app import Settings

EXAMPLES = """examples:
  bega desk run --data /var/lib/bega-desk --city timisoara --mqtt mqtt://127.0.0.1:1883
  bega desk list --data /var/lib/bega-desk
  bega desk set K7TM R4QX --data /var/lib/bega-desk --state work --number 20114
  bega desk forget K7TM R4QX --data /var/lib/bega-desk
  bega desk doctor --data /var/lib/bega-desk --mqtt mqtt://127.0.0.1:1883 --backup /mnt/backup"""


def main(argv: list[str]) -> int:
    """Return 0, or 1 after saying on standard error what is wrong and what to do."""
    return carry_out(_parser(), argv)


def run(args: argparse.Namespace) -> int:
    """Receive reports and answer for them until SIGTERM or SIGINT."""
    from bega_kiosk.desk import app

    log_to_stderr(args.verbose, "asyncio")
    settings = _settings(args)
    asyncio.run(until_signalled(lambda stop: app.run(settings, wall_ms, args.ready_file, stop)))
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Say what is wrong with this desk, and what people still owe it; 1 if a citizen suffers from something now."""
    from bega_kiosk.desk.doctor import look

    found = [*look(_settings(args), args.backup, wall_ms)]
    if args.json:
        print(json.dumps([finding._asdict() for finding in found], ensure_ascii=False))
    else:
        print("\n".join(f"{finding.state:6} {finding.what:11} {finding.says}" for finding in found))
    return int(any(finding.state == "wrong" for finding in found))


def _settings(args: argparse.Namespace) -> Settings:
    """Return how the desk is run; raises ConfigError."""
    from bega.mqtt import Credentials
    from bega_kiosk.desk import app

    way = Reports(mqtt=args.mqtt, ca_file=args.ca_file, cert_file=args.cert_file, key_file=args.key_file)
    for key, why in broker_problems(way):
        raise ConfigError(f"--{key.replace('_', '-')}: {why.replace('cert_file', '--cert-file')}")
    if not is_name(args.city):
        raise ConfigError(f"--city {args.city}: {NAME_RULE}")
    credentials = Credentials(args.ca_file, args.cert_file, args.key_file)
    listen = f"{args.host}:{args.port}"
    return app.Settings(args.data, args.city, listen, args.mqtt, args.name, credentials, args.city_key)


def listing(args: argparse.Namespace) -> int:
    """Print the newest reports."""
    with _existing(args.data) as store:
        rows = store.rows(args.limit)
    if args.json:
        print(json.dumps([_as_json(row) for row in rows]))  # ASCII: strangers wrote it, and a terminal obeys letters
    else:
        print("\n".join(_as_line(row) for row in rows) or "no reports yet")
    return 0


def change(args: argparse.Namespace) -> int:
    """Say how a report is; its kiosk is told by the desk that runs on this folder."""
    code = _code(args)
    if args.state is None and args.number is None and args.detail is None:
        raise ConfigError("nothing to change: give --state, --number or --detail")
    with _existing(args.data) as store:
        status = store.change(code, args.state, args.number, args.detail)
    if status is None:
        raise _no_such(code)
    print(f"{spaced(code)}: {status.state} {status.number} {status.detail}".rstrip())
    return 0


def forget(args: argparse.Namespace) -> int:
    """Overwrite name and contact of who wrote a report, once they were answered; what is reported stays."""
    code = _code(args)
    with _existing(args.data) as store:
        if not store.forget(code):
            raise _no_such(code)
    print(f"{spaced(code)}: nobody here knows any more who wrote it")
    return 0


def _code(args: argparse.Namespace) -> str:
    code = read_code("".join(args.code))
    if code is None:
        raise ConfigError(f"{' '.join(args.code)!r} is no code of a report: it has eight letters and digits")
    return code


def _no_such(code: str) -> ConfigError:
    return ConfigError(f"there is no report {spaced(code)} here; see bega desk list")


@contextmanager
def _existing(folder: Path) -> Iterator[DeskStore]:
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder}: no desk keeps its reports there; see --data of bega desk run")
    with closing(DeskStore(folder, wall_ms)) as store:
        try:
            yield store
        except sqlite3.Error as error:
            raise ConfigError(f"{folder / FILE}: {error}; is the disk full, is the file whole?") from None


def _as_json(row: Row) -> dict[str, object]:
    return {**msgspec.to_builtins(row.report), **msgspec.to_builtins(row.status), "heard_ms": row.heard_ms}


def _as_line(row: Row) -> str:
    when = datetime.fromtimestamp(row.heard_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = "; ".join(
        f"{name}: {_on_one_line(text)[:80]}" for name, text in row.report.answers.items() if name not in PERSONAL
    )
    return f"{spaced(row.status.code)}  {when}  {row.status.state:9}  {row.report.source}  {row.report.kind}  {said}"


def _on_one_line(text: str) -> str:
    """Return a stranger's text without what a terminal would obey, or show from right to left."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _parser() -> argparse.ArgumentParser:
    parser, verbs = command_line("bega desk", __doc__, EXAMPLES)

    def verb(name: str, command: object, purpose: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=purpose, description=purpose)
        added.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the desk keeps its reports")
        added.set_defaults(command=command)
        return added

    running = verb("run", run, "receive reports until told to stop")
    _add_way(running)
    running.add_argument("--ready-file", type=Path, metavar="PATH", help="written as JSON once it is up")
    running.add_argument("--verbose", action="store_true", help="log more")
    looking = verb("doctor", doctor, "say what is wrong with a desk; give it what `run` is given")
    _add_way(looking)
    looking.add_argument("--backup", type=Path, metavar="DIR", help="where copies of the desk's file lie")
    looking.add_argument("--json", action="store_true", help="as a list of objects")
    listed = verb("list", listing, "print the newest reports; names and contacts with --json only")
    listed.add_argument("--limit", type=int, default=100)
    listed.add_argument("--json", action="store_true", help="whole, as a list of objects")
    changed = verb("set", change, "say how a report is")
    changed.add_argument("code", nargs="+", help="the citizen's code")
    changed.add_argument("--state", choices=[state for state in STATES if state != "unknown"])
    changed.add_argument("--number", help="city hall's registration number")
    changed.add_argument("--detail", help="to which office it went, or why it is refused")
    forgotten = verb("forget", forget, "overwrite name and contact of who wrote a report")
    forgotten.add_argument("code", nargs="+", help="the citizen's code")
    return parser


def _add_way(running: argparse.ArgumentParser) -> None:
    """Let a verb take who the desk is, and how it is reached."""
    running.add_argument("--city", default="timisoara", help="whose kiosks: the second part of their topics")
    running.add_argument("--mqtt", metavar="URL", help="the city's broker: mqtts://host:port; left out: HTTP only")
    running.add_argument("--name", default="desk", help="the name in its certificate")
    running.add_argument("--ca-file", metavar="FILE", help="who signed the broker's certificate")
    running.add_argument("--cert-file", metavar="FILE", help="the desk's certificate")
    running.add_argument("--key-file", metavar="FILE", help="its key")
    running.add_argument(
        "--city-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="public key of who may publish notices",
    )
    running.add_argument("--host", default="127.0.0.1", help="where it answers over HTTP")
    running.add_argument("--port", type=int, default=8090)
