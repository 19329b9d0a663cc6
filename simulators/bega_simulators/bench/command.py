"""`bega bench`: what must hold, measured on this machine in one run, beside a floor; others' figures are quoted.

Everything runs as it is shipped: the gateway by its own command and configuration, with nothing that knows of a bench.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bega.extras import require_extras
from bega_protocols.errors import ConfigError, LineError
from bega_simulators.bench.figures import Findings, Row
from bega_simulators.bench.stage import Bench, Say

EXAMPLES = """examples:
  bega bench                       all but the long ones, about twenty minutes
  bega bench load most             some
  bega bench --quick               short windows: does it work?
  bega bench --json found.json --plots pictures"""
NARROWEST_COLUMNS = 150


class Scenario(NamedTuple):
    """One part of the bench, and where it is."""

    module: str
    function: str
    purpose: str
    is_long: bool = False


SCENARIOS = {
    "load": Scenario("load", "load", "100 meters x 30 values x 1 Hz: CPU beside the floor, latency, memory"),
    "most": Scenario("load", "most", "the most values a second, and what happens beyond"),
    "edge": Scenario(
        "edge", "edge", "the ordinary day with a correction, a limit, totals, means, an alarm on each meter: CPU"
    ),
    "outages": Scenario("outages", "outages", "broker stopped, black hole, gateway killed twice: what arrives"),
    "dead-unit": Scenario("dead_unit", "dead_unit", "one silent meter of ten on one connection, and its return"),
    "rs485": Scenario("rs485", "rs485", "three meters on a bus: how well the wire is used, and whether faults lie"),
    "ble": Scenario("ble", "ble", "300 Bluetooth sensors each second, and each 100 ms: CPU, all heard, none starved"),
    "drain": Scenario("drain", "drain", "a day of records waits: how fast they go, and how late live ones are"),
    "flash": Scenario("flash", "flash", "bytes on flash a record, for four commit windows (needs root)"),
    "node": Scenario("node", "node", "a node on a virtual board: how soon it publishes after power-on and deep sleep"),
    "kiosk": Scenario("kiosk", "kiosk", "a kiosk: tap to answer painted, start, memory, first paint (needs Chromium)"),
    "screens": Scenario("screens", "screens", "20,000 screens of a kiosk: the browser's memory (long)", is_long=True),
    "million": Scenario("million", "million", "a million records: memory and descriptors (long)", is_long=True),
}


def main(argv: list[str]) -> int:
    """Return 0 after the table was printed; 1 if something could not run or, with --strict, a goal was missed."""
    args = _parser().parse_args(argv)
    if args.list:
        print("\n".join(f"{name:12}{scenario.purpose}" for name, scenario in SCENARIOS.items()))
        return 0
    unknown = [name for name in args.name if name not in SCENARIOS]
    if unknown:
        print(f"bega bench: there is no {unknown[0]!r}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    names = args.name or [name for name, scenario in SCENARIOS.items() if args.all or not scenario.is_long]
    try:
        require_extras("the bench", "gateway")
        found = _run_all(names, args)
        if args.plots:
            _write_plots(args.plots, found)
        if args.json:
            args.json.write_text(json.dumps(_as_json(found, args.quick), indent=1) + "\n", encoding="utf-8")
    except (ConfigError, OSError) as error:
        print(f"bega bench: {error}", file=sys.stderr)
        return 1
    rows = [row for findings in found.values() for row in findings.rows]
    _print_table(rows, args.quick)
    missed = any(row.verdict in ("misses", "not measured") for row in rows)
    return 1 if len(found) < len(names) or (args.strict and missed) else 0


def _run_all(names: list[str], args: argparse.Namespace) -> dict[str, Findings]:
    """Run scenarios in turn; one that cannot run is said, and the others go on."""
    found: dict[str, Findings] = {}
    with _directory(args.dir) as directory, _progress() as say:
        for name in names:
            bench = Bench(directory, args.quick, say)
            say(name)
            try:
                found[name] = _function(SCENARIOS[name])(bench)
            except (ConfigError, LineError) as error:
                print(f"bega bench: {name}: {error}", file=sys.stderr)
    return found


def _function(scenario: Scenario) -> Callable[[Bench], Findings]:
    module = __import__(f"bega_simulators.bench.{scenario.module}", fromlist=[scenario.function])
    function: Callable[[Bench], Findings] = getattr(module, scenario.function)
    return function


@contextmanager
def _directory(chosen: Path | None) -> Iterator[Path]:
    """Yield where the bench writes: the chosen place is kept, our own is removed."""
    if chosen:
        chosen.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix="run-", dir=chosen.resolve()))
        return
    with tempfile.TemporaryDirectory(prefix="bega-bench-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@contextmanager
def _progress() -> Iterator[Say]:
    """Yield what says on standard error what is being measured: in place on a terminal, else line by line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: print(words, file=sys.stderr, flush=True)
        return
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, refresh_per_second=1
    ) as progress:
        task = progress.add_task("")
        yield lambda words: progress.update(task, description=words)


def _print_table(rows: list[Row], quick: bool) -> None:
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=max(console.width, NARROWEST_COLUMNS))
    warning = "; quick: the figures say nothing about speed" if quick else ""
    table = Table(title=_machine() + warning, show_lines=True)
    for column, ratio in (("", 3), ("goal", 2), ("measured", 5), ("", 1), ("floor", 2), ("peers, quoted", 3)):
        table.add_column(column, ratio=ratio, overflow="fold")
    for row in rows:
        goal = row.goal.words if row.goal else ""
        table.add_row(row.what, goal, row.measured, row.verdict, row.floor, row.peers)
    console.print(table)


def _machine() -> str:
    return f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, CPython {platform.python_version()}"


def _as_json(found: dict[str, Findings], quick: bool) -> dict[str, object]:
    scenarios = {name: findings.as_json() for name, findings in found.items()}
    return {"machine": _machine(), "quick": quick, "scenarios": scenarios}


def _write_plots(directory: Path, found: dict[str, Findings]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for findings in found.values():
        for name, picture in findings.plots.items():
            (directory / f"{name}.svg").write_text(picture, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bega bench", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", help="what to measure (see --list); all but the long ones if left out")
    parser.add_argument("--list", action="store_true", help="name what can be measured")
    parser.add_argument("--all", action="store_true", help="the long ones too")
    parser.add_argument("--quick", action="store_true", help="short windows and few meters: shows that it works")
    parser.add_argument("--strict", action="store_true", help="end with 1 if a goal is clearly missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write curves as SVG")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="keep logs and spools there")
    return parser
