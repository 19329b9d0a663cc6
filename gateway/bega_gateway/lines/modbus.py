"""Modbus lines, RTU and TCP: which device is asked when, and what becomes of its answers.

The wire itself, with pymodbus on it, is in modbus_bus.py; who is next and how long to wait, in polling.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bega.clock import mono_s
from bega.devices import asked
from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.errand import CUT, DOWN, LATE, SILENT, Done, always
from bega_gateway.lines.modbus_bus import Outcome, bus_of
from bega_gateway.lines.modbus_write import Permit, Write, question_of, raw_in, reading_back, value_of
from bega_gateway.lines.polling import PRIORITIES, Patience, PollClock, Schedule, Seat, phase_ms
from bega_protocols.errors import ConfigError, LineError
from bega_protocols.modbus_rtu import EXCEPTION, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from bega.clock import Clock, FineClock
    from bega_gateway.lines.station import Station
    from bega_protocols.ask import Ask
    from bega_protocols.driver import Exchange
    from bega_protocols.reading import Reading

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between attempts to open
HELD_UP_MS = 5_000  # a measurement that stands still for so long ends with what it has
# A converter says so when the device behind it is silent (application protocol V1.1b3, section 7).
SILENT_BEHIND = (0x0A, 0x0B)
# Of the exceptions to a write these alone say that nothing was done: function, address, value, busy (the same section).
# After 4 it was begun, after 5 it goes on, after 0x0B the converter has put it on the wire.
NOTHING_DONE = (1, 2, 3, 6)


class _Poll:
    """One station on the line, and the measurement that it is in the middle of."""

    def __init__(self, station: Station, seat: Seat) -> None:
        self.station = station
        self.seat = seat
        self.measurement: Exchange | None = None
        self.ask: Ask | None = None  # the question that is next
        self.is_repeated = False  # it was put before
        self.has_waited = False  # a question was put once more after a silence, when there were values already
        self.has_values = False
        self.read_ms = 0  # wall clock: when the first values of the measurement came
        self.read_mono_ms = 0  # when the latest came
        self.lacking: list[str] = []
        self.to_set: list[str] = []
        self.waiters: list[asyncio.Future[Done]] = []  # commands that wait for the end of a measurement

    def answer_waiters(self, done: Done) -> None:
        """Tell the commands that waited."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(done)
        self.waiters = []


@dataclass
class _Errand:
    """A write that a command asked for."""

    station: Station
    unit: int
    write: Write
    raw: int
    in_time: Callable[[], bool]
    done: asyncio.Future[Done]


class ModbusLine:
    """Polls every station in its period, one question on the wire at a time, until it is cancelled.

    One task for all stations of the line: who is asked next is the schedule's business, and nobody waits for a lock.
    """

    def __init__(
        self,
        name: str,
        settings: ModbusRtuLine | ModbusTcpLine,
        stations: list[Station],
        mono_ms: Clock,
        wall_ms: Clock,
        mono_s: FineClock = mono_s,
        permits: tuple[Permit, ...] = (),
    ) -> None:
        """permits: what commands may write; () is nothing."""
        self._name = name
        self._bus = bus_of(settings, mono_s, self._answered_late, permits)
        self._errands: deque[_Errand] = deque()
        self._stations = stations
        self._mono_ms = mono_ms
        self._wall_ms = wall_ms
        self._longest_ms = round(1000 * settings.timeout_s)
        self._is_tcp = isinstance(settings, ModbusTcpLine)
        self._schedule = Schedule()
        self._polls: dict[Seat, _Poll] = {}
        self._by_unit: dict[int, _Poll] = {}
        self._alarm: asyncio.Future[None] | None = None
        self._finishing = False
        self._finished = asyncio.Event()
        self._is_down = False  # as it was said last
        self._pause_s = FIRST_PAUSE_S  # before the next attempt to open
        self.tries = 0  # to open the wire, since the start

    async def run(self) -> None:
        """Run until cancelled. Trouble on the wire ends nothing; raises ConfigError if a driver wants to write."""
        self._schedule = Schedule()
        self._polls.clear()
        for index, station in enumerate(self._stations):
            period_ms = max(1, round(1000 * station.every_s))
            phase = phase_ms(self._name, index, len(self._stations), period_ms)
            clock = PollClock(self._mono_ms(), period_ms, phase)
            seat = Seat(clock, Patience(self._longest_ms, self._is_tcp), PRIORITIES[station.priority])
            self._polls[seat] = _Poll(station, seat)
            self._schedule.add(seat)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_open())
                tasks.create_task(self._ask_in_turn())
        except* ConfigError as errors:
            raise errors.exceptions[0] from None
        finally:
            self._bus.close()
            self._drop_errands(CUT)
            for poll in self._polls.values():
                poll.answer_waiters(CUT)

    async def read_now(self, station: Station) -> Done:
        """Measure `station` as soon as its device may be asked; its period stays as it is.

        A measurement that is in hand is the one. The record goes the way of all others.
        """
        poll = next((poll for poll in self._polls.values() if poll.station is station), None)
        if poll is None or self._finishing or not self._bus.opened.is_set():
            return DOWN
        done: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        poll.waiters.append(done)
        if not poll.seat.in_hand:
            poll.seat.clock.due_ms = self._mono_ms()
            self._schedule.put_back(poll.seat)
        if self._alarm:
            _ring(self._alarm)
        return await done

    async def write(
        self, station: Station, unit: int, write: Write, raw: int, in_time: Callable[[], bool] = always
    ) -> Done:
        """Write `raw` between two questions, and read it back where the device lets it be read.

        in_time(): asked when its turn has come; nothing is written any more if not
        """
        if self._finishing or not self._bus.opened.is_set():
            return DOWN
        errand = _Errand(station, unit, write, raw, in_time, asyncio.get_running_loop().create_future())
        self._errands.append(errand)
        if self._alarm:
            _ring(self._alarm)
        return await errand.done

    async def finish(self) -> None:
        """Begin no further measurement; return when those in hand have ended and are handed on.

        One that waits because its device was silent has nothing on the wire: it ends at once, with what it has.
        """
        self._finishing = True
        if self._alarm:
            _ring(self._alarm)
        if self._in_hand():
            await self._finished.wait()

    async def _keep_open(self) -> None:
        while True:
            self.tries += 1
            try:
                await self._bus.open()
                await self._bus.until_lost()
            except LineError as error:
                if not self._is_down:
                    log.warning("line down line=%s port=%s error=%s", self._name, self._bus.port, error)
                self._is_down = True
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _works(self) -> None:
        """An answer came: only that shows that the line is back. Anybody takes a connection."""
        if self._is_down:
            log.info("line back line=%s port=%s", self._name, self._bus.port)
        self._is_down, self._pause_s = False, FIRST_PAUSE_S

    async def _ask_in_turn(self) -> None:
        """Put one question after the other; what was missed is counted and never made up for."""
        schedule = self._schedule
        was_errand = False
        while True:
            if not self._bus.opened.is_set():
                await self._break_off(self._in_hand())
            if self._finishing or not self._bus.opened.is_set():
                self._drop_errands(DOWN)
            elif self._errands and not was_errand:  # a question between two of them: many must not end the readings
                was_errand = True
                await self._run(self._errands.popleft())
                continue
            was_errand = False
            now_ms = self._mono_ms()
            if self._finishing:
                await self._break_off([poll for poll in self._in_hand() if poll.seat.patience.ready_ms > now_ms])
                if not self._in_hand():
                    self._finished.set()
                    return
            if not self._bus.opened.is_set():
                await self._bus.opened.wait()
                continue
            seat = schedule.next(now_ms)
            if self._finishing and seat and not seat.in_hand:
                continue
            if seat is None:
                if not self._errands:
                    await self._sleep_until(schedule.wake_ms(), now_ms)
                continue
            for late in schedule.waiting():
                if not late.in_hand:
                    self._polls[late].station.counters.skipped += late.clock.missed(now_ms)
            poll = self._polls[seat]
            try:
                await self._ask(poll, now_ms)
            except LineError:  # the line is opened again elsewhere; this measurement is over
                await self._break_off([poll])
            schedule.put_back(seat)

    async def _run(self, errand: _Errand) -> None:
        done = CUT
        try:
            done = await self._written(errand) if errand.in_time() else LATE
        except LineError:
            done = Done(False, "the line went down; look whether it was done")
        finally:
            if not errand.done.done():
                errand.done.set_result(done)

    async def _written(self, errand: _Errand) -> Done:
        """Write, and let what can be read back say what came of it: an answer that noise has eaten says nothing."""
        write = errand.write
        answer = await self._told(errand, question_of(write, errand.raw))
        said = "the device said yes" if answer else "no answer came"
        if answer and answer[0] & EXCEPTION:
            if answer[-1] in NOTHING_DONE:
                return Done(False, f"the device refuses it (Modbus exception {answer[-1]})")
            said, answer = f"Modbus exception {answer[-1]} came", None
        if not write.read_back:
            return Done(True) if answer else Done(False, f"{said}; look whether it was done")
        found = await self._told(errand, reading_back(write))
        if found is None or found[0] & EXCEPTION:
            return Done(False, f"{said}, and it cannot be read back; look whether it was done")
        raw = raw_in(write, found)
        if raw != errand.raw:
            doubt = "" if answer else f"{said}; look again whether it was done: "
            return Done(False, f"{doubt}something else stands there", value_of(write, raw))
        return Done(True, "", value_of(write, raw))

    async def _told(self, errand: _Errand, question: bytes) -> bytes | None:
        outcome = await self._bus.write(errand.unit, question, self._longest_ms)
        if errand.station.tap:
            _tap(errand.station.tap, errand.unit, question, outcome.answer)
        return outcome.answer

    def _drop_errands(self, why: Done) -> None:
        while self._errands:
            errand = self._errands.popleft()
            if not errand.done.done():
                errand.done.set_result(why)

    async def _sleep_until(self, wake_ms: int | None, now_ms: int) -> None:
        """Sleep; `_answered_late` may ring before."""
        loop = asyncio.get_running_loop()
        alarm = self._alarm = loop.create_future()
        timer = loop.call_later((wake_ms - now_ms) / 1000, _ring, alarm) if wake_ms is not None else None
        try:
            await alarm
        finally:
            self._alarm = None
            if timer:
                timer.cancel()

    async def _ask(self, poll: _Poll, now_ms: int) -> None:
        """Put the next question of a measurement, which begins where there is none, and hand on what it ends with.

        A question that noise or chance has eaten is put once more; on a serial line, after a silence, not before its
        answer can no longer come: it would be taken for that of the next question, and its own for that of the one
        after.
        """
        seat, counters = poll.seat, poll.station.counters
        if poll.measurement is None:
            counters.skipped += seat.clock.start(now_ms)
            poll.measurement = asked(poll.station.driver).measure(self._mono_ms())
            poll.has_waited = poll.has_values = False
            seat.in_hand = True
            if not await self._go_on(poll, None):
                return
        elif poll.has_values and now_ms - poll.read_mono_ms > HELD_UP_MS:
            await self._break_off([poll])  # what came now would be of another time than the record's
            return
        ask, patience = poll.ask, seat.patience
        assert ask
        unit = ask.line["unit"]
        self._by_unit[unit] = poll
        outcome = await self._bus.exchange(unit, ask.write, patience.wait_ms(), patience.is_silent)
        ended_ms = self._mono_ms()
        if poll.station.tap:
            _tap(poll.station.tap, unit, ask.write, outcome.answer)
        self._note(poll, outcome, ended_ms, ended_ms - now_ms)
        seat.rest_until_ms = ended_ms + ask.line.get("pause_ms", 0)
        answer = None if _is_silence(outcome) else outcome.answer
        if answer is None and self._may_repeat(poll, outcome):
            return
        if answer is not None and not answer[0] & EXCEPTION:
            self._stamp(poll, ended_ms)
        await self._go_on(poll, answer)

    def _may_repeat(self, poll: _Poll, outcome: Outcome) -> bool:
        """Return whether the question is put once more, and note it.

        After a silence that takes seconds: only once where values wait for it, since a record has one time.
        """
        if outcome.is_late or poll.seat.patience.is_silent or poll.is_repeated:
            return False
        if not outcome.noise and poll.has_values:
            if poll.has_waited:
                return False
            poll.has_waited = True
        poll.is_repeated = True
        return True

    def _stamp(self, poll: _Poll, now_ms: int) -> None:
        """Values came: the record's time is that of the first, so that none is ever said to be newer than it is."""
        if not poll.has_values:
            poll.read_ms = self._wall_ms()
        poll.has_values = True
        poll.read_mono_ms = now_ms

    async def _go_on(self, poll: _Poll, answer: bytes | None) -> bool:
        """Hand `answer` to the measurement; return whether it has a further question."""
        assert poll.measurement
        poll.is_repeated = False
        try:
            poll.ask = poll.measurement.send(answer)
        except StopIteration as stop:
            try:
                await self._deliver(poll, stop.value)  # still in hand: whoever ends the line waits for it
                poll.answer_waiters(Done(True) if stop.value else SILENT)
            finally:
                self._end(poll)
            return False
        return True

    async def _break_off(self, polls: list[_Poll]) -> None:
        """End the measurements of `polls` as if their questions had got no answer: what they have is handed on."""
        for poll in polls:
            if poll.measurement and await self._go_on(poll, None):
                self._end(poll)

    def _in_hand(self) -> list[_Poll]:
        return [poll for seat, poll in self._polls.items() if seat.in_hand]

    def _end(self, poll: _Poll) -> None:
        if poll.measurement:
            poll.measurement.close()
        poll.measurement = poll.ask = None
        poll.answer_waiters(SILENT)
        poll.is_repeated = poll.seat.in_hand = False

    async def _deliver(self, poll: _Poll, groups: list[list[Reading]]) -> None:
        station = poll.station
        if station.driver.damaged:
            station.take_damage()
        lacking = getattr(station.driver, "lacking", None)
        if lacking and (names := lacking()) != poll.lacking:
            poll.lacking = names
            log.warning(
                "device refuses line=%s device=%s numbers=%s", self._name, station.said_name, ", ".join(names) or "-"
            )
        to_set = getattr(station.driver, "to_set", None)
        if to_set and (advice := to_set()) != poll.to_set:
            poll.to_set = advice
            log.warning(
                "device set wrongly line=%s device=%s advice=%s",
                self._name, station.said_name, "; ".join(advice) or "none: it is right now",
            )  # fmt: skip
        if groups:
            station.heard_mono_ms = self._mono_ms()
            station.counters.records += len(groups)
            await station.deliver(groups, poll.read_ms)

    def _note(self, poll: _Poll, outcome: Outcome, now_ms: int, cost_ms: int) -> None:
        """Count what came of a question that held the bus for `cost_ms`, and learn from it."""
        counters, patience = poll.station.counters, poll.seat.patience
        counters.asked += 1
        counters.refused += outcome.refused
        self._schedule.took(poll.seat, now_ms, cost_ms)
        if outcome.answer is not None or outcome.is_late:
            self._works()
        if not _is_silence(outcome):
            patience.answered(outcome.took_ms)
        elif outcome.noise:
            counters.damaged += 1
            patience.disturbed(now_ms, cost_ms)
        else:
            counters.silent += 1
            if outcome.is_late:
                patience.answered(outcome.took_ms)
            else:
                patience.silent(now_ms, cost_ms)

    def _answered_late(self, unit: int, answer: bytes, took_ms: int) -> None:
        """A unit that was given up has answered after all: it lives, and this is how slow it is."""
        poll = self._by_unit[unit]
        poll.station.counters.refused += 1
        self._works()
        if _is_silent_behind(answer):
            return
        poll.seat.patience.answered(took_ms)
        self._schedule.put_back(poll.seat)
        if self._alarm:
            _ring(self._alarm)


def _is_silence(outcome: Outcome) -> bool:
    """Return whether the device said nothing, be it that nothing came or that a converter said so."""
    return outcome.answer is None or _is_silent_behind(outcome.answer)


def _is_silent_behind(answer: bytes) -> bool:
    return bool(answer[0] & EXCEPTION) and answer[-1] in SILENT_BEHIND


def _tap(tap: Callable[[str, bytes], None], unit: int, question: bytes, answer: bytes | None) -> None:
    """Hand on an exchange as it stands on a serial line, whatever the wire: so a driver's `feed` reads it."""
    tap("out", frame(unit, question))
    if answer is not None:
        tap("in", frame(unit, answer))


def _ring(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)
