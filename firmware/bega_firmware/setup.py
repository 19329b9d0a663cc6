"""`bega node setup`: from a blank board to a node that is proved, labelled and written down, in one go.

Each step is another verb's own work (build, flash, provision, test, label), done by the same functions. What was done
is not done again: the same command after a pulled plug goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bega.clock import mono_s, wall_ms
from bega_firmware.board import board_names
from bega_firmware.data_folder import data_folder
from bega_firmware.interrupt import Interrupted, ends_in_order
from bega_firmware.outcome import Outcome, all_well, lines
from bega_firmware.proof.command import Table
from bega_firmware.report import Report, facts, folder_of, write
from bega_firmware.setup_plan import KINDS, UPLINKS
from bega_firmware.setup_steps import STEPS, Job
from bega_firmware.site import read_wifi_key_file
from bega_protocols.errors import ConfigError

PURPOSE = "build, flash, provision, test, label and report: a blank board becomes a node, in one go"
EXAMPLES = """examples:
  bega node setup --port /dev/ttyUSB0 --site timisoara --kind air --uplink wifi
  bega node setup --port /dev/ttyUSB0 --site cellar --kind meter --uplink serial --id heat-2 --device heat
  bega node setup --port rfc2217://127.0.0.1:4000 --site timisoara --kind air --uplink wifi --bench --json

Run it again after a pulled plug: it goes on, and the board keeps the identity that was begun. --bench proves the node
on this table, by a broker and a gateway on this machine; `bega node test --on-site` is the second half, at the pole."""
AGAIN = "Run the same command again: it goes on."
BUILDS, UPDATE_KEYS = "builds", "update-keys"


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "setup",
        help=PURPOSE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", required=True, metavar="P", help="/dev/ttyUSB0, socket:// or rfc2217://HOST:PORT")
    parser.add_argument("--site", required=True, metavar="S", help="a site of `bega site new`, or a path to its .toml")
    parser.add_argument("--kind", required=True, choices=tuple(KINDS), help="what the node is for")
    parser.add_argument("--uplink", required=True, choices=tuple(UPLINKS), help="its way out")
    parser.add_argument("--id", metavar="ID", help="its name (default: the one it has, else a new one)")
    parser.add_argument("--again", action="store_true", help="it takes the place of another board of this id")
    parser.add_argument("--board", choices=board_names(), metavar="BOARD", help="its board file (default: by its chip)")
    parser.add_argument(
        "--device", action="append", default=[], metavar="NAME", help="a device of the board file (default: the kind's)"
    )
    parser.add_argument(
        "--firmware", type=Path, metavar="IMAGE", help="the interpreter's image (default: the one in the data folder)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--bench", action="store_true", help="prove it by a broker and a gateway on this machine")
    where.add_argument("--on-site", action="store_true", help="prove it against the site's own gateway (default)")
    parser.add_argument("--host", default="", metavar="ADDRESS", help="--bench: this machine, as the node reaches it")
    parser.add_argument("--wifi", metavar="NAME", help="--bench: a network on the table (default: the site's own)")
    parser.add_argument("--wifi-key-file", type=Path, metavar="FILE", help="--bench: its password, in a file of 0600")
    parser.add_argument(
        "--uplink-port", default="", metavar="PORT", help="--bench: of this machine, on the node's serial line"
    )
    parser.add_argument(
        "--update-key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="public key of its updates, may come twice (default: update-keys/*.pub in the data folder)",
    )
    parser.add_argument("--support-until", default="", metavar="YYYY-MM", help="as of `bega node label`")
    parser.add_argument("--reuse", type=Path, metavar="DIR", help="where builds are kept (default: in the data folder)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where report and label go (default: reports/ID there)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Set up one board; say each step as it ends; 1 if one went wrong."""
    began_s = mono_s()
    folder = data_folder()
    told = _Told(quiet=args.json)
    job = Job(
        port=args.port,
        asked_site=args.site,
        kind=args.kind,
        uplink=args.uplink,
        is_bench=args.bench,
        asked_id=args.id or "",
        again=args.again,
        asked_board=args.board or "",
        asked_devices=tuple(args.device),
        image=args.firmware,
        table=Table(args.host, _wifi(args), args.uplink_port),
        update_keys=tuple(args.update_key or sorted((folder / UPDATE_KEYS).glob("*.pub"))),
        support_until=args.support_until,
        folder=folder,
        builds=args.reuse or folder / BUILDS,
        out=args.out,
        tell=told.say,
        progress=told.progress,
    )
    with ends_in_order():
        carry_out(job, told.begin)
    place = job.out or folder_of(folder, job.node, args.port)
    report = job.report(wall_ms(), mono_s() - began_s)
    written = write(report, place, job.secrets())
    for what, outcome in job.milestones():
        job.note(what, outcome)
    for complaint in job.complaints:
        print(f"bega node setup: {complaint}", file=sys.stderr)
    if args.json:
        print(json.dumps(facts(report) | {"report": str(written)}, ensure_ascii=False))
    else:
        told.end(report, written)
    return 0 if report.is_well else 1


def carry_out(job: Job, begin: Callable[[int, int, str], None]) -> None:
    """Do every step until one goes wrong; begin(number, of, name) is told of each."""
    for number, (name, step) in enumerate(STEPS, start=1):
        begin(number, len(STEPS), name)
        began_s = mono_s()
        try:
            step(job)
        except ConfigError as error:
            job.add(Outcome(name, False, str(error), took_s=mono_s() - began_s))
        except Interrupted:
            job.add(Outcome(name, False, "interrupted", AGAIN, mono_s() - began_s))
        except OSError as error:
            words = f"{error.filename or 'the disk'}: {error.strerror}"
            job.add(Outcome(name, False, words, "Make room, or see who may write there.", mono_s() - began_s))
        if not all_well(job.outcomes):
            return


def _wifi(args: argparse.Namespace) -> dict[str, str] | None:
    """Return the network on the table, None if the site's own is there."""
    if args.wifi is None:
        return None
    return {"ssid": args.wifi, "key": read_wifi_key_file(args.wifi_key_file) if args.wifi_key_file else ""}


class _Told:
    """What the technician sees: each step's name while it is done, each outcome when it is there."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._draws = not quiet and sys.stderr.isatty()
        self._doing = ""

    def begin(self, number: int, of: int, name: str) -> None:
        self._doing = f"{number}/{of} {name}"
        self._draw(f"{self._doing} ...")

    def progress(self, done: int, whole: int) -> None:
        percent = 100 * done // max(1, whole)
        self._draw(f"{self._doing} [{'#' * (percent // 5):20}] {percent} %")

    def say(self, outcome: Outcome) -> None:
        self._draw("")
        if not self._quiet:
            print("\n".join(lines(outcome)), flush=True)
        if self._doing:
            self._draw(f"{self._doing} ...")

    def end(self, report: Report, written: Path) -> None:
        self._draw("")
        print("\n".join(["", report.verdict, *report.notes, f"report: {written}"]))

    def _draw(self, text: str) -> None:
        if self._draws:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
