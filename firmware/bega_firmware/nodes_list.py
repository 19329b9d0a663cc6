"""`bega node list`: the boards that were on this bench, from the bench book."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from bega_firmware.book import FLASHED, LABELLED, PROVISIONED, TESTED, WIPED, Event, read
from bega_firmware.data_folder import data_folder

PURPOSE = "what was flashed where, by which version, and how it tested"
EXAMPLES = """examples:
  bega node list --problems
  bega node list --csv > nodes.csv
  bega node list --events --json      every step that was ever noted, newest first"""
WELL, WRONG, OPEN = "ok", "wrong", "open"
WORDS = {True: WELL, False: WRONG, None: OPEN}


@dataclass(frozen=True)
class Row:
    """One board as it stands: by its node id, or by its MAC address as long as it has none."""

    node: str = ""
    site: str = ""
    state: str = OPEN  # ok, wrong, open (something is still to do), wiped
    words: str = ""  # what is wrong or still to do, else what the last step said
    board: str = ""
    chip: str = ""
    mac: str = ""
    port: str = ""
    firmware: str = ""
    interpreter: str = ""
    flashed_ms: int | None = None
    provisioned_ms: int | None = None
    tested_ms: int | None = None
    labelled_ms: int | None = None
    last_ms: int = 0


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "list",
        help=PURPOSE,
        description=f"{PURPOSE}; newest first",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--problems", action="store_true", help="what is wrong or not finished comes first")
    parser.add_argument("--events", action="store_true", help="every step, in place of one row a board")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="comma-separated, for a spreadsheet")
    form.add_argument("--json", action="store_true", help="one JSON list")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the book."""
    events, complaint = read(data_folder())
    if complaint:
        print(f"bega node list: {complaint}", file=sys.stderr)
    found: list[Any] = list(reversed(events)) if args.events else rows(events, problems_first=args.problems)
    if args.events and args.problems:
        found.sort(key=lambda event: event.passed is not False)
    if args.json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=1))
    elif args.csv:
        _write_csv(found, Event if args.events else Row)
    elif not found:
        print("nothing was done on this bench yet: `bega node setup --help` says how to begin")
    else:
        print("\n".join(_event_lines(found) if args.events else _row_lines(found)))
    return 0


def rows(events: Iterable[Event], *, problems_first: bool = False) -> list[Row]:
    """Return one row a board, the one that was handled last first. `events` are oldest first."""
    stories: dict[str, list[Event]] = {}
    wears: dict[str, str] = {}  # by MAC address: whose story it is now
    for event in events:
        key = event.node or wears.get(event.mac) or event.mac or event.port
        if event.node and event.mac:
            nameless = stories.pop(event.mac, [])  # it was flashed before it had a name
            stories.setdefault(key, []).extend(nameless)
            wears[event.mac] = key
        stories.setdefault(key, []).append(event)
        if event.what == WIPED:
            wears = {mac: node for mac, node in wears.items() if node != key}  # what comes next is another's beginning
    found = sorted((_row(story) for story in stories.values()), key=lambda row: row.last_ms, reverse=True)
    if problems_first:
        found.sort(key=lambda row: (WRONG, OPEN, WELL).index(row.state) if row.state in (WRONG, OPEN, WELL) else 3)
    return found


def _row(story: list[Event]) -> Row:
    row = Row()
    last: dict[str, Event] = {}
    for event in story:
        known = {name: getattr(event, name) for name in _SHARED if getattr(event, name)}
        row = replace(row, last_ms=event.at_ms, **known)
        last[event.what] = event
    dated: dict[str, Any] = {f"{what}_ms": last[what].at_ms for what in _DATED if what in last}
    state, words = _state(story, last)
    return replace(row, state=state, words=words, **dated)


def _state(story: list[Event], last: dict[str, Event]) -> tuple[str, str]:
    """Return how a board stands, in a word and in a sentence."""
    newest = story[-1]
    if newest.what == WIPED:
        return ("wiped" if newest.passed else WRONG), newest.words
    tested = last.get(TESTED)
    steps = [last[what] for what in _BEFORE_TEST if what in last]
    since = [step for step in steps if tested is None or step.at_ms > tested.at_ms]
    for step in reversed([*since, *([tested] if tested else [])]):
        if step.passed is False:
            return WRONG, step.words
    if tested is None or since:
        return OPEN, "not tested" + (" since it was last " + since[-1].what if tested else "")
    return (OPEN if tested.passed is None else WELL), tested.words


def _row_lines(found: list[Row]) -> list[str]:
    table = [["", "node", "site", "board", "firmware", "MAC", "port", "flashed", "tested", ""]]
    table += [
        [
            "!" if row.state == WRONG else "",
            row.node or "(no id)",
            row.site,
            row.board or row.chip,
            row.firmware,
            row.mac,
            row.port,
            _day(row.flashed_ms),
            _day(row.tested_ms),
            f"{row.state}: {row.words}" if row.words else row.state,
        ]
        for row in found
    ]
    return _aligned(table)


def _event_lines(found: list[Event]) -> list[str]:
    return _aligned(
        [
            [
                _day(event.at_ms),
                event.node or event.mac or event.port,
                event.what,
                WORDS[event.passed],
                event.firmware,
                event.words,
            ]
            for event in found
        ]
    )


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    kept = [column for column, width in enumerate(widths) if width]  # a column that nobody fills is not shown
    return ["  ".join(row[column].ljust(widths[column]) for column in kept).rstrip() for row in table]


def _write_csv(found: list[Any], kind: type) -> None:
    names = [field.name for field in fields(kind)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(name.removesuffix("_ms") for name in names)  # a time in words, no number
    writer.writerows([_cell(name, getattr(one, name)) for name in names] for one in found)


def _cell(name: str, value: Any) -> Any:
    """Return a cell: times as a spreadsheet reads them, and no text that it would take for a formula."""
    if name.endswith("_ms") and value is not None:
        return datetime.fromtimestamp(value / 1000).astimezone().isoformat(timespec="seconds")
    if name == "passed":
        return WORDS[value]
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _day(at_ms: int | None) -> str:
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


_SHARED = ("node", "site", "board", "chip", "mac", "port", "firmware", "interpreter")
_BEFORE_TEST = (FLASHED, PROVISIONED)  # in this order
_DATED = (FLASHED, PROVISIONED, TESTED, LABELLED)
