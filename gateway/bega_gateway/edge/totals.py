"""Totals of a counting register by quarter-hour, hour or day, with what they rest on.

A register is read now and then, an interval ends when it ends: between two
readings the flow is taken as even, and what falls to either side of a boundary
is rounded so that the parts always add up to the whole. So the sum of all
totals is what the register counted, to its last digit.

An interval is given when the register is read at or after its end. Its coverage
is the part of it that lies between readings not farther apart than
`longest_gap_s`: what is estimated over a longer gap is in the amount, and not in
the coverage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import msgspec

from bega_gateway.edge.intervals import Period, end_of, start_of
from bega_gateway.edge.register import Flow, Limits, Sample, flow, scaled


@dataclass(frozen=True)
class Total:
    """What flowed in one interval: `amount` x 10^exp10, None if nothing of it is known."""

    start_ms: int
    end_ms: int
    amount: int | None
    exp10: int
    covered_ms: int
    whys: tuple[str, ...]  # "rollover", "exchange", "reset", "implausible", each once, in order

    @property
    def is_whole(self) -> bool:
        """Whether every moment of it lies between readings that are close enough."""
        return self.covered_ms == self.end_ms - self.start_ms


@dataclass
class _Open:
    """The interval that has not ended."""

    start_ms: int
    end_ms: int
    amount: int = 0
    exp10: int = 0
    known_ms: int = 0
    covered_ms: int = 0
    whys: tuple[str, ...] = ()

    def add(self, amount: int | None, exp10: int, length_ms: int, is_close: bool, why: str) -> None:
        if why and why not in self.whys:
            self.whys += (why,)
        if amount is None:
            return
        if exp10 == self.exp10:
            self.amount += amount
        else:
            finer = min(self.exp10, exp10)
            self.amount = scaled(self.amount, self.exp10, finer) + scaled(amount, exp10, finer)
            self.exp10 = finer
        self.known_ms += length_ms
        self.covered_ms += length_ms if is_close else 0

    def closed(self) -> Total:
        amount = self.amount if self.known_ms else None
        return Total(self.start_ms, self.end_ms, amount, self.exp10, self.covered_ms, self.whys)


@dataclass
class _Kept:
    """What a restart needs."""

    period: Period
    last: Sample
    open: _Open


class Totals:
    """One register's totals over intervals of one period."""

    def __init__(
        self, period: Period, zone: ZoneInfo, limits: Limits, longest_gap_s: float, state: bytes = b""
    ) -> None:
        """state: what `state()` returned before a restart; one that cannot be read is as none."""
        self._period = period
        self._zone = zone
        self._limits = limits
        self._longest_gap_ms = round(1000 * longest_gap_s)
        self._last: Sample | None = None
        self._open: _Open | None = None
        self.ignored = 0  # readings that were not later than the one before
        self._restore(state)

    def add(self, sample: Sample) -> list[Total]:
        """Take a reading; return the intervals that it completes, oldest first."""
        before, self._last = self._last, sample
        if before is None or self._open is None:
            self._open = self._begun(sample.time_ms)
            return []
        if sample.time_ms <= before.time_ms:
            self._last = before
            self.ignored += 1
            return []
        flown = flow(before, sample, self._limits)
        if sample.time_ms < self._open.end_ms:  # nearly every reading: nothing to share out
            length_ms = flown.end_ms - flown.start_ms
            self._open.add(flown.amount, flown.exp10, length_ms, length_ms <= self._longest_gap_ms, flown.why)
            return []
        return list(self._split(flown))

    def state(self) -> bytes:
        """Return what a later object needs to go on from here."""
        if self._last is None or self._open is None:
            return b""
        return msgspec.json.encode(_Kept(self._period, self._last, self._open))

    def _split(self, flown: Flow) -> Iterator[Total]:
        """Share what flowed out over the intervals that it touches, and give those that have ended."""
        assert self._open
        length_ms = flown.end_ms - flown.start_ms
        is_close = length_ms <= self._longest_gap_ms
        at_ms, shared = flown.start_ms, 0
        while True:
            until_ms = min(flown.end_ms, self._open.end_ms)
            amount = None
            if flown.amount is not None:
                by_then = flown.amount * (until_ms - flown.start_ms) // length_ms
                amount, shared = by_then - shared, by_then
            self._open.add(amount, flown.exp10, until_ms - at_ms, is_close, flown.why)
            at_ms = until_ms
            if self._open.end_ms > at_ms:
                return
            yield self._open.closed()
            self._open = self._begun(at_ms)
            if at_ms == flown.end_ms:
                return

    def _begun(self, time_ms: int) -> _Open:
        start_ms = start_of(self._period, time_ms, self._zone)
        return _Open(start_ms, end_of(self._period, start_ms, self._zone))

    def _restore(self, state: bytes) -> None:
        try:
            kept = msgspec.json.decode(state, type=_Kept)
        except msgspec.DecodeError:
            return
        if kept.period == self._period:
            self._last, self._open = kept.last, kept.open
