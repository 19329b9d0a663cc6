"""`bega node doctor`: what is wrong with a node, in words, and what to do. It reads the node and restarts it.

For nodes that do not come: in safe mode, at a prompt, with a configuration that cannot be, or without a program. The
grammar is that of `bega gateway doctor`: a finding is a cause, where it is, what shows it, what to do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bega_firmware.cable import Cable
from bega_firmware.proof.found import GOOD, LENT, NEW, OWN, STATE, Found, read_node
from bega_firmware.proof.way import Told
from bega_protocols.checks import crc32

PURPOSE = "say what is wrong with a node on this cable, and what to do"
EXAMPLES = """examples:
  bega node doctor --port /dev/ttyUSB0
  bega node doctor --port /dev/ttyUSB0 --json

Its program is stopped and started again. Exit code: 0 nothing wrong, 1 something. A node that runs and does not arrive:
bega node test --on-site."""
CRASHES, POWERS = 5, 10  # of firmware/node/starts.py
NO_SPACE_KB = 64
LEFT_FREE, NEARLY_KB = 8, 32  # a store takes all but an eighth of the flash (node/flash.py), and what else there is
EARLIEST_YEAR = 2026  # a clock that shows less was not set
LISTEN_S, QUIET_S = 12.0, 4.0  # to the start; and so long after it said that it runs
LEAST_HEAP_KB = 80
MOST_ERROR = 400
EMPTY = "no firmware"
REFUSED, UNREADABLE = "configuration refused", "configuration"
CAUSES = {1: "power came", 2: "a reset by its program", 3: "its watchdog", 4: "it woke from sleep", 5: "a soft reset"}


@dataclass(frozen=True)
class Finding:
    """A cause, where it is, what shows it, and what to do; as in bega_gateway/doctor/finding.py."""

    cause: str  # a short name that stays the same over releases
    what: str
    where: str
    evidence: str
    remedy: str
    stops_readings: bool


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "doctor",
        help=PURPOSE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", required=True, metavar="PORT", help="where the node is, as /dev/ttyUSB0")
    parser.add_argument("--json", action="store_true", help="print facts and findings as JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Examine; 1 if something is wrong."""
    facts, found = examine(args.port)
    if args.json:
        print(json.dumps({"facts": facts, "findings": [asdict(each) for each in found]}, ensure_ascii=False))
    else:
        print("\n".join([*as_table(facts), "", *text(found)]))
    return 1 if found else 0


def examine(port: str) -> tuple[dict[str, str], list[Finding]]:
    """Return the facts of the node at `port` in words, and what is wrong. Raises CableError if it cannot be asked."""
    with Cable(port) as cable:
        node = read_node(cable)
        cause = cable.reset_cause
        cable.restart()
        said = Told()
        lines = heard(cable, said)
    return facts_of(node, cause, said), findings(node, cause, said, lines)


def findings(node: Found, cause: int | None, said: Told, lines: list[str]) -> list[Finding]:
    """Return what is wrong, what stops readings first; the program's own words of its configuration are the better."""
    found = [*of_node(node, cause), *of_start(said, lines)]
    if node.board is None:
        return [each for each in found if each.cause == EMPTY]
    if any(each.cause == REFUSED for each in found):
        found = [each for each in found if each.cause != UNREADABLE]
    return in_order(found)


def heard(cable: Cable, said: Told) -> list[str]:
    """Return what the program says as it starts."""
    from bega.clock import mono_s

    lines, runs_s = [], 0.0
    for line in cable.lines(LISTEN_S):
        lines.append(line)
        said.take(line)
        if said.stopped or said.pairs:
            break
        runs_s = runs_s or (mono_s() if said.runs else 0.0)
        if runs_s and mono_s() - runs_s > QUIET_S:
            break
    return lines


def facts_of(node: Found, cause: int | None, said: Told) -> dict[str, str]:
    """Return the facts in words, each with its name. No secret is among them."""
    chip = node.chip
    crashes, powers = starts(node.texts.get(f"{STATE}/starts"))
    held = sum(size for _, size in node.ring)
    return {
        "node": node.name or "it has no name",
        "board": str((node.board or {}).get("NAME") or "no board file"),
        "firmware": f"{node.facts.get('version', 'unknown')} in {chip.slot or '/'}, MicroPython {chip.release}",
        "mac": chip.mac,
        "last start": f"{CAUSES.get(cause or 0, 'unknown')}; since it last worked for a minute"
        f" {crashes} by itself, {powers} by power",
        "now": said.runs or said.stopped or "it says nothing",
        "clock": str(chip.year) if chip.year < EARLIEST_YEAR else "set",
        "store": f"{len(node.ring)} segments, {held // 1024} kB",
        "flash": f"{chip.flash_free_kb} of {chip.flash_kb} kB free",
        "heap": f"{chip.heap_free // 1024} of {chip.heap_bytes // 1024} kB free, its program being stopped",
        "last error": last_error(node) or "none",
    }


def of_node(node: Found, cause: int | None) -> Iterator[Finding]:
    """Yield what its flash and its chip show."""
    if node.board is None:
        yield _finding(EMPTY, "there is no firmware of Bega on this board", "/", _slots(node), "bega node flash")
        return
    if node.config is None:
        stops = node.texts.get(GOOD) is None
        remedy = "bega node provision --site SITE" + ("" if stops else "; until then it uses the last good one")
        yield _finding(UNREADABLE, "the configuration cannot be used", OWN, node.problem, remedy, stops)
    if node.texts.get(LENT) is not None:
        yield _lent()
    yield from _of_starts(node, cause)
    if node.texts.get(NEW) is not None:
        words = "a new configuration waits for the next start, to be tried there"
        yield _finding("configuration waits", words, NEW, f"{NEW} is there", "let it run for ten minutes", False)
    yield from _of_room(node)
    if node.chip.heap_bytes < LEAST_HEAP_KB * 1024:
        words = "its heap is small for the air application with certificates"
        evidence = f"{node.chip.heap_bytes // 1024} kB in all"
        yield _finding("little heap", words, "the chip", evidence, "fewer devices, or a board with more memory", False)


def _of_starts(node: Found, cause: int | None) -> Iterator[Finding]:
    crashes, powers = starts(node.texts.get(f"{STATE}/starts"))
    error = last_error(node)
    shown = f"{crashes} starts by a defect or the watchdog, {powers} by power, none of them a minute long"
    if crashes >= CRASHES:
        remedy = (
            "was its configuration or a sensor changed? undo it; else flash the release before, and report the error"
        )
        words = "it fails again and again, and was in safe mode or is about to be"
        yield _finding("fails", words, "its program", f"{shown}; {_end(error)}", remedy)
    elif powers >= POWERS:
        remedy = "measure its 5 V while it sends (Wi-Fi takes 0.5 A for moments): a shorter cable, 1 A, 470 uF there"
        yield _finding("supply", "its supply fails under load, or is switched", "its supply", shown, remedy)
    elif error:
        words = "its program has failed once"
        remedy = "once is nothing to do; again and again: report it; `bega node log` shows the next one"
        yield _finding("failed", words, "its program", _end(error), remedy, False)
    elif cause == 3:
        words = "its watchdog has ended it the last time"
        yield _finding("failed", words, "its program", "reset cause 3", "bega node log shows what it did last", False)


def _of_room(node: Found) -> Iterator[Finding]:
    chip = node.chip
    most = (node.config or {}).get("ring_segments", 0)
    is_full = bool(node.ring) and chip.flash_free_kb < chip.flash_kb // LEFT_FREE + NEARLY_KB
    if is_full or chip.flash_free_kb < NO_SPACE_KB or (isinstance(most, int) and 0 < most <= len(node.ring)):
        words = "its store is full: from now on records are dropped, oldest first"
        words += ", and no update fits" if chip.flash_free_kb < NO_SPACE_KB else ""
        evidence = f"{chip.flash_free_kb} of {chip.flash_kb} kB free, {len(node.ring)} segments of records"
        remedy = "why are its records not taken? bega node test --on-site"
        yield _finding("flash full", words, "its flash", evidence, remedy, False)


def of_start(said: Told, lines: list[str]) -> Iterator[Finding]:
    """Yield what its program says of itself when it starts."""
    if said.stopped.startswith("configuration"):
        why = said.stopped.partition(": ")[2]
        words = "the program refuses its configuration"
        yield _finding(REFUSED, words, OWN, why, "bega node provision --site SITE")
    elif said.stopped:
        why = said.stopped.partition(": ")[2]
        words = "it is in safe mode: it measures nothing for half an hour, then it tries again"
        remedy = "what stands beside it explains it; it has been restarted just now and tries again at once"
        yield _finding("safe mode", words, "its program", why, remedy)
    elif not said.runs:
        tail = " | ".join(line.strip() for line in lines if line.strip())[-MOST_ERROR:]
        words, remedy = "its program does not come to work", "bega node flash"
        if "MemoryError" in tail:
            words = "its program does not come to work: it has no memory for all of its devices"
            remedy = "fewer devices on this node (bega node provision --device), or a board with more memory"
        yield _finding("does not start", words, "its program", tail or "it says nothing", remedy)
    elif said.down:
        words = "its way to the gateway does not open"
        yield _finding("way closed", words, "its way out", said.down, "bega node test --on-site says which step fails")


def starts(content: bytes | None) -> tuple[int, int]:
    """Return how often it started by a crash and by power without coming to work; "0,3 <CRC-32>" (node/starts.py)."""
    try:
        text, check = (content or b"").split(b" ")
        crashes, powers = text.split(b",")
        return (int(crashes), int(powers)) if int(check, 16) == crc32(text) else (0, 0)
    except ValueError:
        return 0, 0


def last_error(node: Found) -> str:
    """Return the end of its last traceback, '' if there was none; fit for a terminal."""
    text = (node.texts.get(f"{STATE}/error") or b"").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text).strip()


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return them without repeats, what stops readings first."""
    return sorted(dict.fromkeys(findings), key=lambda finding: not finding.stops_readings)


def text(findings: list[Finding]) -> Iterator[str]:
    """Yield findings in words, one after the other."""
    if not findings:
        yield "nothing wrong was found"
    for number, finding in enumerate(findings, start=1):
        yield f"{number}. {finding.where}: {finding.what}"
        yield f"   seen: {finding.evidence}"
        yield f"   do:   {finding.remedy}"


def as_table(facts: dict[str, str]) -> Iterator[str]:
    """Yield a line a fact."""
    for name, words in facts.items():
        yield f"{name:11} {words.splitlines()[-1] if words else ''}"


def _finding(cause: str, what: str, where: str, evidence: str, remedy: str, stops: bool = True) -> Finding:
    return Finding(cause, what, where, evidence, remedy, stops)


def _lent() -> Finding:
    words = "a test on a bench was cut off: its configuration may be the bench's, and its records wait beside it"
    return _finding("lent", words, "/bench", f"{LENT} is there", "bega node test --port PORT puts them back")


def _slots(node: Found) -> str:
    return (
        "neither /a nor /b holds a whole application" if not node.chip.slot else f"{node.chip.slot} has no board file"
    )


def _end(error: str) -> str:
    line = error.splitlines()[-1] if error else "no error was kept"
    return line[-MOST_ERROR:]
