"""What each device said last, and its last hour: bounded, in memory, gone with the gateway."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from bega_protocols.reading import SUSPECT, Reading
from bega_protocols.record import Record

STEP_MS = 30_000
STEPS = 120  # an hour
MOST_SERIES = 2_000  # about 1 kB each; whoever has more devices sees the latest values of all, and plots of so many
MOST_DEVICES = 2_000
MOST_READINGS = 100  # of one device that are remembered

Device = tuple[str, str]  # (source, device)


class Last(NamedTuple):
    """The latest reading of one quantity, and when it was measured."""

    reading: Reading
    time_ms: int
    is_simulated: bool


class Sample(NamedTuple):
    """The last value of half a minute."""

    time_ms: int
    value: float
    is_suspect: bool = False


class Series:
    """The last hour of one quantity: the last value of each half minute."""

    def __init__(self) -> None:
        self._values = array("d", [math.nan] * STEPS)
        self._doubts = bytearray(STEPS)
        self._newest: int | None = None  # number of the newest step

    def add(self, time_ms: int, value: float, is_suspect: bool = False) -> None:
        """Take a value; one of more than an hour before the newest means that the clock was set back."""
        step = time_ms // STEP_MS
        if self._newest is None or not -STEPS < step - self._newest < STEPS:
            self._values = array("d", [math.nan] * STEPS)
            self._newest = step
        for passed in range(self._newest + 1, step + 1):
            self._values[passed % STEPS] = math.nan
        self._newest = max(self._newest, step)
        self._values[step % STEPS] = value
        self._doubts[step % STEPS] = is_suspect

    def points(self, now_ms: int) -> list[Sample]:
        """Return the hour before `now_ms`, oldest first."""
        if self._newest is None:
            return []
        first = max(self._newest - STEPS + 1, now_ms // STEP_MS - STEPS + 1)
        steps = range(first, min(self._newest, now_ms // STEP_MS) + 1)
        found = [(step * STEP_MS, step % STEPS) for step in steps]
        return [
            Sample(time_ms, self._values[at], bool(self._doubts[at]))
            for time_ms, at in found
            if not math.isnan(self._values[at])
        ]


@dataclass
class _Known:
    last: dict[tuple[str, str], Last] = field(default_factory=dict)  # by (quantity, part)
    series: dict[tuple[str, str], Series] = field(default_factory=dict)


class Recent:
    """Listens to the recorder; `is_wanted` says of whom anything may be kept."""

    def __init__(self) -> None:
        self._devices: dict[Device, _Known] = {}
        self._series = 0

    def take(self, record: Record, arrival_ms: int, simulated: bool) -> None:
        """Remember what a record says."""
        device = record.source, record.device
        known = self._devices.get(device)
        if known is None:
            if len(self._devices) >= MOST_DEVICES:
                return
            known = self._devices[device] = _Known()
        time_ms = arrival_ms if record.time_ms is None else record.time_ms
        for reading in record.readings:
            key = reading.quantity, reading.part
            before = known.last.get(key)
            if before is None and len(known.last) >= MOST_READINGS:
                continue
            if before is None or time_ms >= before.time_ms or before.time_ms > arrival_ms:
                known.last[key] = Last(reading, time_ms, simulated)
            if time_ms > arrival_ms - STEPS * STEP_MS:  # a backlog is no part of the hour, and no clock set back
                self._plot(known, key, time_ms, reading)

    def forget(self, device: Device) -> None:
        """Keep nothing of `device` any longer."""
        known = self._devices.pop(device, None)
        self._series -= len(known.series) if known else 0

    def devices(self) -> list[Device]:
        """Return everybody who is remembered."""
        return list(self._devices)

    def last(self, device: Device) -> list[Last]:
        """Return the latest reading of each quantity of `device`."""
        known = self._devices.get(device)
        return list(known.last.values()) if known else []

    def points(self, device: Device, quantity: str, part: str, now_ms: int) -> list[Sample]:
        """Return the last hour."""
        known = self._devices.get(device)
        series = known.series.get((quantity, part)) if known else None
        return series.points(now_ms) if series else []

    def _plot(self, known: _Known, key: tuple[str, str], time_ms: int, reading: Reading) -> None:
        series = known.series.get(key)
        if series is None:
            if self._series >= MOST_SERIES:
                return
            series = known.series[key] = Series()
            self._series += 1
        value = as_float(reading)
        if value is not None and reading.quality < 2:  # a stale one was not measured
            series.add(time_ms, value, reading.quality == SUSPECT)


def as_float(reading: Reading) -> float | None:
    """Return the value for a picture; None where it is too large for one."""
    try:
        value = float(f"{reading.value}e{reading.exp10}")
    except ValueError:  # more digits than Python turns into text
        return None
    return value if math.isfinite(value) else None
