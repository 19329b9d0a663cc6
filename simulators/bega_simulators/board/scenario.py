"""A board's day by a file: orders of the bench, each with the second at which it is given."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from bega_protocols.errors import ConfigError
from bega_simulators.board.peripherals import AirPeripherals

Step = tuple[float, dict[str, Any]]


def read_scenario(path: Path) -> list[Step]:
    """Return (second since the board's start, order) of each line, in time; raises ConfigError that names the line.

    A line is a JSON object: `at_s`, and the words of the control socket (AirPeripherals.obey).
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    steps = [_step(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    return sorted(steps, key=lambda step: step[0])


async def play(steps: list[Step], peripherals: AirPeripherals) -> None:
    """Give each order at its time. Raises what `obey` raises."""
    done_s = 0.0
    for at_s, order in steps:
        await asyncio.sleep(at_s - done_s)
        done_s = at_s
        peripherals.obey(order)


def _step(line: str, place: str) -> Step:
    try:
        order = json.loads(line)
        at_s = float(order.pop("at_s"))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{place}: write it as an object with at_s and what happens then") from None
    if not 0 <= at_s < 1e9:
        raise ConfigError(f"{place}: at_s is no time since the board's start")
    unknown = [word for word in order if not AirPeripherals.knows(word)]
    if unknown:
        raise ConfigError(f"{place}: there is no order {unknown[0]}")
    return at_s, order
