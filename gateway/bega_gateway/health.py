"""Who was heard last. Said on the change, not on every beat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from bega.clock import Clock

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
SILENT_AFTER_PERIODS = 3
SHORTEST_SILENCE_S = 10.0  # a device that speaks each second may catch its breath
NODE_SILENCE_S = 600.0  # no node on mains speaks as rarely as this; one on a battery says how often it does


def quiet_after_s(every_s: float) -> float:
    """Return after how many seconds a device that is read every `every_s` counts as silent."""
    return max(SHORTEST_SILENCE_S, SILENT_AFTER_PERIODS * every_s)


def _none() -> int:
    return 0


def _never() -> float:
    return 0.0


@dataclass
class Watched:
    """Somebody who should be heard."""

    line: str
    kind: str  # "device" or "node"
    name: str
    least_quiet_s: float  # it may be quiet for so long, or for three periods of its own
    heard_mono_ms: Callable[[], int | None]
    damaged: Callable[[], int] = _none
    since_ms: int = 0  # watched since
    silent: bool = False
    said_name: Callable[[], str] | None = None  # the name for the log at this moment; None: the name itself
    speaks_every_s: Callable[[], float] = _never  # as it says itself, 0 where it does not

    @property
    def quiet_after_s(self) -> float:
        """After so many seconds it counts as silent."""
        return max(self.least_quiet_s, SILENT_AFTER_PERIODS * self.speaks_every_s())


class Health:
    """Watches devices and nodes, and says once when one falls silent, once when it is back."""

    def __init__(self, mono_ms: Clock) -> None:
        self._mono_ms = mono_ms
        self.watched: list[Watched] = []

    def watch(self, who: Watched) -> None:
        """Watch somebody from now on."""
        who.since_ms = self._mono_ms()
        self.watched.append(who)

    def forget(self, line: str) -> None:
        """Watch nobody of a line any longer."""
        self.watched = [who for who in self.watched if who.line != line]

    def heard(self) -> int:
        """Return how many of those who are watched were heard and are not silent."""
        return sum(who.heard_mono_ms() is not None and not who.silent for who in self.watched)

    async def run(self) -> None:
        """Look at all of them again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for who in self.watched:
                self._look(who)

    def _look(self, who: Watched) -> None:
        heard_ms = who.heard_mono_ms()
        quiet_s = (self._mono_ms() - (who.since_ms if heard_ms is None else heard_ms)) / 1000
        name = who.said_name() if who.said_name else who.name
        silent = quiet_s > who.quiet_after_s
        if silent and not who.silent:
            log.warning(
                "%s silent line=%s %s=%s for_s=%d damaged=%d",
                who.kind, who.line, who.kind, name, quiet_s, who.damaged(),
            )  # fmt: skip
        if who.silent and not silent:
            log.info("%s back line=%s %s=%s", who.kind, who.line, who.kind, name)
        who.silent = silent
