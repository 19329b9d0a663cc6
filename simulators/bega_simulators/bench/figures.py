"""What a bench found: rows of a table, each with what was to hold, what was measured, and what others do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """One number that must hold, and by how much of it a shared machine may be excused with --strict."""

    words: str
    limit: float
    tolerance: float = 0.1  # share of the limit
    at_least: bool = False  # else at most

    def holds(self, value: float) -> bool:
        """Return whether `value` reaches the goal itself; nan reaches none."""
        return value >= self.limit if self.at_least else value <= self.limit

    def is_near(self, value: float) -> bool:
        """Return whether `value` reaches the goal within its tolerance."""
        slack = self.limit * self.tolerance
        return value >= self.limit - slack if self.at_least else value <= self.limit + slack


@dataclass(frozen=True)
class Row:
    """One line of the table. `value` is what the goal is held against; without a goal it only informs."""

    what: str
    measured: str
    goal: Goal | None = None
    value: float | None = None
    floor: str = ""
    peers: str = ""  # quoted: measured elsewhere on the same work, see docs/bench.md

    @property
    def verdict(self) -> str:
        """Return "holds", "near" (missed, within the tolerance), "misses", or "" where there is no goal."""
        if self.goal is None:
            return ""
        if self.value is None:
            return "not measured"
        if self.goal.holds(self.value):
            return "holds"
        return "near" if self.goal.is_near(self.value) else "misses"


@dataclass
class Findings:
    """What one scenario brought."""

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)  # all that was measured, for --json
    plots: dict[str, str] = field(default_factory=dict)  # name -> SVG

    def as_json(self) -> dict[str, Any]:
        rows = [asdict(row) | {"verdict": row.verdict} for row in self.rows]
        return {"rows": rows, "figures": self.figures}


def spread(values: list[float], form: str = "{:.3g}") -> str:
    """Return the median of some windows, with the least and the most of them beside it."""
    if not values:
        return "none"
    ordered = sorted(values)
    middle = form.format(median(values))
    if len(ordered) == 1:
        return middle
    return f"{middle} ({form.format(ordered[0])} to {form.format(ordered[-1])})"


def median(values: list[float]) -> float:
    """Return the middle one; of an even number the lower of the two."""
    return sorted(values)[(len(values) - 1) // 2] if values else float("nan")
