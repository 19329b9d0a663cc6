"""One thing that is wrong, as data. Text is made of it where it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

# What comes first among findings that stop readings, and among those that do not: that which explains the others.
# A gateway that does not run reads nothing at all; one whose port is gone runs, and reads its other lines.
CONFIGURATION, DISK, STATE, NOT_RUNNING, CLOCK_UNSET, PORT, LINE, DEVICE, UPLINK, WARNING = range(0, 100, 10)


@dataclass(frozen=True)
class Finding:
    """A cause, where it is, what shows it, and what to do."""

    cause: str  # a short name that stays the same over releases: "port gone"
    what: str  # in a sentence
    where: str  # its place in the configuration: "lines.cellar", "devices.meter-1", "uplink", "gateway.state_dir"
    evidence: str  # the figure that shows it
    remedy: str  # what to do, with the command where there is one
    stops_readings: bool  # some reading is not taken, or does not arrive, now
    rank: int = WARNING


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return `findings` without repeats: first what stops readings now, and of that first what explains the rest."""
    return sorted(dict.fromkeys(findings), key=lambda finding: (not finding.stops_readings, finding.rank))


def text(findings: list[Finding]) -> Iterator[str]:
    """Yield findings in words, one after the other."""
    if not findings:
        yield "nothing wrong was found"
    for number, finding in enumerate(findings, start=1):
        yield f"{number}. {finding.where}: {finding.what}"
        yield f"   seen: {finding.evidence}"
        yield f"   do:   {finding.remedy}"


def as_json(findings: list[Finding]) -> str:
    """Return findings as a JSON list."""
    return json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=1)
