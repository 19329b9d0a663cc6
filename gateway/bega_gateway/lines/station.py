"""What a line knows of one configured device: its driver, and where its readings go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bega_gateway.lines.window import Window
    from bega_protocols.driver import Driver
    from bega_protocols.errors import WireError
    from bega_protocols.reading import Reading


PERSONAL = "personal"  # in log and metrics it stands for every device of a household: its name may be a flat's


def _nobodys() -> bool:
    return False


@dataclass
class Counters:
    """What happened to one device since the start."""

    asked: int = 0  # exchanges begun, for devices that must be asked
    records: int = 0  # groups of readings handed on
    silent: int = 0  # time-outs
    damaged: int = 0  # frames that broke their specification
    skipped: int = 0  # polls left out: the bus had no time, or the device was known to be silent
    refused: int = 0  # answers that were no answer to the question: late ones, another unit's


@dataclass
class Station:
    """One device on a line. The line calls `deliver`; it does not know about records, spool or brokers.

    deliver(groups, wall_ms): takes what one frame gave, with the time at which it was read.
    It returns when the gateway has taken it, so that a line slows down instead of queueing without end.
    """

    name: str
    driver: Driver
    every_s: float
    deliver: Callable[[list[list[Reading]], int], Awaitable[None]]
    priority: str = "normal"  # "high", "normal" or "low": who goes first on a bus that is asked too much
    counters: Counters = field(default_factory=Counters)
    heard_mono_ms: int | None = None  # when the device last gave readings
    # Takes ("in" or "out", bytes): what the device says and hears, as its driver's `feed` reads it. None: nobody does.
    tap: Callable[[str, bytes], None] | None = None
    window: Window | None = None  # what its groups wait in, if it speaks by itself
    damage: str = ""  # what was wrong with its last damaged frame
    is_personal: Callable[[], bool] = _nobodys  # whether it is a household's now: a reload may change that

    @property
    def said_name(self) -> str:
        """The name for a log: a log never holds a household."""
        return PERSONAL if self.is_personal() else self.name

    def take_damage(self) -> list[tuple[int, WireError]]:
        """Empty the driver's list of damaged frames, count them, and return them."""
        damaged, self.driver.damaged = self.driver.damaged, []
        self.counters.damaged += len(damaged)
        if damaged:
            self.damage = damaged[-1][1].why
        return damaged
