"""Copies what the devices of a line say and hear, while the line works as ever.

A line never waits for a tape: what nobody took in time is lost to the tape, and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Self

from bega_gateway.record_file import Row
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega_gateway.lines.station import Station

MOST_WAITING_BYTES = 1_000_000


class Tape:
    """The rows of some stations, from the moment in which the block begins until it ends.

    with Tape(stations, mono_ms) as tape:
        rows = await tape.take(within_s=1)
    """

    def __init__(self, stations: list[Station], mono_ms: Clock) -> None:
        """Raises ConfigError if one of `stations` is recorded already."""
        if any(station.tap for station in stations):
            raise ConfigError("this line is being recorded already, or listened to on the page: one at a time")
        self.lost = 0  # rows
        self._stations = stations
        self._mono_ms = mono_ms
        self._began_ms = mono_ms()
        self._waiting: deque[Row] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()

    def __enter__(self) -> Self:
        for station in self._stations:
            station.tap = partial(self._hear, station.name)
        return self

    def __exit__(self, *error: object) -> None:
        for station in self._stations:
            station.tap = None

    async def take(self, within_s: float) -> list[Row]:
        """Return what came since the last time: at once if there is something, else when something comes, [] if not."""
        try:
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        except TimeoutError:
            return []
        rows, self._waiting = list(self._waiting), deque()
        self._waiting_bytes = 0
        self._arrived.clear()
        return rows

    def _hear(self, device: str, way: str, octets: bytes) -> None:
        self._arrived.set()
        if self._waiting_bytes + len(octets) > MOST_WAITING_BYTES:
            self.lost += 1
            return
        self._waiting_bytes += len(octets)
        self._waiting.append(Row(self._mono_ms() - self._began_ms, device, way, bytes(octets)))
