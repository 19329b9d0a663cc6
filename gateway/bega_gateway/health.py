"""Who was heard last, and what was counted. Said on the change, not on every beat."""

from __future__ import annotations

import asyncio
import logging

from bega.clock import Clock
from bega_gateway.lines.station import Station

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
SILENT_AFTER_PERIODS = 3
SHORTEST_SILENCE_S = 10.0  # a device that speaks each second may catch its breath


class Health:
    """Watches stations and says once when one falls silent, once when it is back."""

    def __init__(self, mono_ms: Clock) -> None:
        self._mono_ms = mono_ms
        self._watched: list[tuple[str, Station]] = []
        self._silent: set[str] = set()

    def watch(self, line: str, station: Station) -> None:
        """Watch one device of a line."""
        self._watched.append((line, station))

    async def run(self) -> None:
        """Look at all devices again and again, until cancelled."""
        started_ms = self._mono_ms()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for line, station in self._watched:
                self._look(line, station, started_ms)

    def _look(self, line: str, station: Station, started_ms: int) -> None:
        heard_ms = station.heard_mono_ms if station.heard_mono_ms is not None else started_ms
        quiet_s = (self._mono_ms() - heard_ms) / 1000
        silent = quiet_s > max(SHORTEST_SILENCE_S, SILENT_AFTER_PERIODS * station.every_s)
        if silent and station.name not in self._silent:
            self._silent.add(station.name)
            log.warning(
                "device silent line=%s device=%s for_s=%d damaged=%d",
                line, station.name, quiet_s, station.counters.damaged,
            )  # fmt: skip
        if not silent and station.name in self._silent:
            self._silent.discard(station.name)
            log.info("device back line=%s device=%s", line, station.name)
