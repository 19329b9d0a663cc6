"""What came of one step of a technician's work, as data: lines, JSON and report are made of it where it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

MARKS = {True: "ok", False: "WRONG", None: "open"}


@dataclass(frozen=True)
class Outcome:
    """One step, and what it proved. No word of it is a secret: it is printed, kept, and handed to others."""

    step: str  # what was tried, in a few words that stay the same over releases: "flash", "PM sensor pms", "Wi-Fi"
    passed: bool | None  # None: not proved, which `words` explain
    words: str  # what was seen, in a sentence
    what_to_do: str = ""  # '' if there is nothing to do
    took_s: float = 0.0


def all_well(outcomes: Iterable[Outcome]) -> bool:
    """Return whether nothing went wrong; what could not be proved is said and is no failure."""
    return all(outcome.passed is not False for outcome in outcomes)


def worst(outcomes: Iterable[Outcome]) -> Outcome | None:
    """Return the first that is wrong, else the first that is not proved, None if all is well."""
    found = list(outcomes)
    for verdict in (False, None):
        for outcome in found:
            if outcome.passed is verdict:
                return outcome
    return None


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield an outcome in words: its mark and what was seen, then what to do."""
    took = f" ({outcome.took_s:.1f} s)" if outcome.took_s >= 0.1 else ""
    yield f"{MARKS[outcome.passed]:5}  {outcome.step}: {outcome.words}{took}"
    if outcome.what_to_do:
        yield f"       do: {outcome.what_to_do}"


def as_facts(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Return outcomes as JSON takes them."""
    return [asdict(outcome) | {"took_s": round(outcome.took_s, 3)} for outcome in outcomes]
