"""What a line says and hears, copied for the page: the last rows, for five minutes, and what each frame was read as.

The line works as ever. Bytes come by the tap of each station, as for a recording; what they were read as is what the
line hands on, so the page shows the driver's own reading and no second opinion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega_gateway.lines.station import Station
    from bega_protocols.reading import Reading

LISTENS_FOR_MS = 300_000
MOST_ROWS = 200
MOST_BYTES = 256  # of a chunk; a telegram of a P1 meter has up to 2,000
MOST_READINGS = 60  # of a row
JOINED_WITHIN_MS = 100  # a serial port hands over 4 or 5 bytes at a time; three characters at 300 baud take 100 ms
MOST_JOINED = 4_096  # bytes: noise without a pause begins new rows

Deliver = Callable[[list[list["Reading"]], int], Awaitable[None]]


@dataclass
class Row:
    """One chunk, or those of a serial port that came without a pause, and what it was read as."""

    time_ms: int
    device: str
    way: str  # "in": the device said it; "out": it was asked
    octets: bytes  # the first of them
    size: int
    readings: list[Reading]
    damaged: int = 0  # frames in it that broke their specification
    ends_ms: int = 0  # when the last of it was heard

    def take(self, octets: bytes, mono_ms: int) -> None:
        """Put what follows behind it; beyond MOST_BYTES it is only counted."""
        self.octets += bytes(octets[: max(0, MOST_BYTES - len(self.octets))])
        self.size += len(octets)
        self.ends_ms = mono_ms


class Listening:
    """Copies rows from the moment it is made until `end`."""

    def __init__(self, stations: list[Station], mono_ms: Clock, wall_ms: Clock, joins: bool = False) -> None:
        """Raises ConfigError if one of `stations` is being recorded.

        joins: chunks are pieces of a stream; what comes without a pause is one row, until something is read of it.
        """
        if any(station.tap for station in stations):
            raise ConfigError("this line is being recorded, and one at a time can listen")
        self.stations = stations
        self.rows: deque[Row] = deque(maxlen=MOST_ROWS)
        self.ends_ms = mono_ms() + LISTENS_FOR_MS
        self._mono_ms = mono_ms
        self._wall_ms = wall_ms
        self._joins = joins
        self._damaged = {station.name: station.counters.damaged for station in stations}
        self._deliver: dict[str, Deliver] = {}
        for station in stations:
            self._deliver[station.name] = station.deliver
            station.tap = partial(self._hear, station)
            station.deliver = partial(self._read, station, station.deliver)

    def end(self) -> None:
        """Give every station back its own."""
        for station in self.stations:
            station.tap = None
            station.deliver = self._deliver[station.name]

    def _hear(self, station: Station, way: str, octets: bytes) -> None:
        self._count_damage(station)
        now_ms = self._mono_ms()
        last = self.rows[-1] if self.rows else None
        if last and self._joins and _goes_on(last, station.name, way, now_ms):
            last.take(octets, now_ms)
            return
        row = Row(self._wall_ms(), station.name, way, b"", 0, [])
        row.take(octets, now_ms)
        self.rows.append(row)

    async def _read(self, station: Station, deliver: Deliver, groups: list[list[Reading]], wall_ms: int) -> None:
        heard = self._last_heard(station)
        if heard:
            room = MOST_READINGS - len(heard.readings)
            heard.readings += [reading for group in groups for reading in group][:room]
        self._count_damage(station)
        await deliver(groups, wall_ms)

    def _count_damage(self, station: Station) -> None:
        """Say with the last chunk that was heard which damage has come since: it is counted after it was heard."""
        damaged = station.counters.damaged
        heard = self._last_heard(station)
        if heard:
            heard.damaged += damaged - self._damaged[station.name]
        self._damaged[station.name] = damaged

    def settle(self) -> None:
        """Count the damage of the last chunk of each station, which nothing has followed yet."""
        for station in self.stations:
            self._count_damage(station)

    def _last_heard(self, station: Station) -> Row | None:
        rows = (row for row in reversed(self.rows) if row.device == station.name and row.way == "in")
        return next(rows, None)


def _goes_on(row: Row, device: str, way: str, mono_ms: int) -> bool:
    """Return whether a chunk heard now belongs to `row`: nothing was read of it yet, and there was no pause."""
    is_same = (row.device, row.way, way) == (device, "in", "in")
    is_open = not row.readings and not row.damaged and row.size < MOST_JOINED
    return is_same and is_open and mono_ms - row.ends_ms <= JOINED_WITHIN_MS
