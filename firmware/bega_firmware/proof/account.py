"""What is kept of a test: the report, for people and for machines, and a line in the bench book."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bega_firmware import book, report
from bega_firmware.outcome import Outcome, worst
from bega_firmware.proof.found import Found
from bega_firmware.report import Report

TEST = "test"  # in the node's folder: a setup's report stays beside it
SENSORS_ALONE = "by its sensors alone"
PROVED = {"bench": report.BENCH, "on-site": report.ON_SITE, None: SENSORS_ALONE}


def report_of(
    found: Found | None, outcomes: Sequence[Outcome], where: str | None, port: str, site: str, at_ms: int, took_s: float
) -> Report:
    """Return the report of a test.

    found: the node, None if it was never read; where: as `proof.command.test` takes it; site: its name, or ''.
    """
    made = Report(
        kind=TEST,
        at_ms=at_ms,
        outcomes=tuple(outcomes),
        site=site,
        proved=PROVED[where],
        port=book.port_name(port),
        took_s=took_s,
    )
    if found is None:
        return made
    board, chip = found.board or {}, found.chip
    return replace(
        made,
        node=found.name,
        board=str(board.get("NAME", "")),
        chip=str(board.get("CHIP", "")),
        mac=":".join(chip.mac[at : at + 2] for at in range(0, len(chip.mac), 2)),
        firmware=str(found.facts.get("version", "")),
        interpreter=f"MicroPython {chip.release}",
    )


def keep(made: Report, folder: Path, out: Path | None, found: Found | None, secret: str = "") -> tuple[Path, str]:
    """Write the report into `out`, or into the node's folder below `folder`; note the test in the book of `folder`.

    secret: what must not stand in it either, beside the keys that the node has.
    Returns the page's path, and a sentence about the book ('' if nothing is wrong with it). Raises ConfigError if the
    report cannot be written.
    """
    keys = list(_secrets(found.config)) if found and found.config else []
    page = report.write(made, out or report.folder_of(folder, made.node, made.port) / TEST, [secret, *keys])
    telling = worst(made.outcomes)
    words = f"{telling.step}: {telling.words}" if telling else f"proved {made.proved}"
    board = str(found.facts.get("hardware", "")) if found else ""
    complaint = book.note(
        folder,
        book.TESTED,
        telling.passed if telling else True,
        words,
        port=made.port,
        node=made.node,
        site=made.site,
        board=board,
        chip=made.chip,
        mac=made.mac,
        firmware=made.firmware,
    )
    return page, complaint


def _secrets(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a node's configuration keeps under a `key` that is no file's path."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _secrets(value)
        elif name == "key" and isinstance(value, str) and not value.startswith("/"):
            yield value
