"""A wire whose devices speak when asked: a serial port, an M-Bus segment, an I2C bus.

Who is asked when, and what becomes of the answers. The wires themselves are in wire_serial.py and wire_i2c.py; Modbus,
where many devices crowd on one bus, has a schedule of its own (modbus.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from bega.devices import asked
from bega_gateway.lines.errand import CUT, DOWN, LATE, SILENT, UNANSWERED, Done, always
from bega_gateway.lines.polling import LONGEST_PAUSE_MS, PAUSE_TO_COST, PollClock, phase_ms
from bega_protocols.errors import ConfigError, LineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bega.clock import Clock
    from bega_gateway.lines.station import Station
    from bega_protocols.ask import Ask
    from bega_protocols.driver import ActingDriver, Exchange
    from bega_protocols.reading import Reading

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between attempts to open
SILENT_AFTER = 2  # so many measurements in a row without any answer, and the device is asked more rarely


class Wire(Protocol):
    """What carries questions and answers."""

    began_ms: int  # when the first byte of the last answer came, by the monotonic clock

    async def open(self) -> None:
        """Raise LineError that says what to do if it cannot be opened."""

    def close(self) -> None:
        """Close; does nothing if it is closed."""

    def turn(self) -> AbstractAsyncContextManager[object]:
        """Return what a measurement holds from its first question to its last answer."""

    async def exchange(self, ask: Ask) -> bytes | None:
        """Return what ask.py promises to a driver; raises LineError if the wire fails."""


class AskedLine:
    """Measures every station in its period until it is cancelled; a wire that fails is opened again."""

    def __init__(self, name: str, wire: Wire, stations: list[Station], mono_ms: Clock, wall_ms: Clock) -> None:
        self._name = name
        self._wire = wire
        self._stations = stations
        self._mono_ms = mono_ms
        self._wall_ms = wall_ms
        self._down = False
        self._failed: set[str] = set()  # stations whose driver has a defect
        self._pause_s = FIRST_PAUSE_S
        self._finishing = False
        self._in_hand = 0  # measurements
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy = {station.name: asyncio.Lock() for station in stations}  # a driver does one thing at a time
        self._tasks: asyncio.TaskGroup | None = None  # while the wire is open
        self.tries = 0  # to open the wire, since the start

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self.tries += 1
            try:
                await self._wire.open()
                try:
                    await self._poll_all()
                finally:
                    self._wire.close()
            except* LineError as errors:
                if not self._down:
                    log.warning("line down line=%s error=%s", self._name, _first(errors))
                self._down = True
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def finish(self) -> None:
        """Begin no further measurement; return when those in hand have ended and are handed on."""
        self._finishing = True
        await self._idle.wait()

    async def _poll_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, station in enumerate(self._stations):
                    tasks.create_task(self._poll(station, index))
                self._tasks = tasks
        finally:
            self._tasks = None

    async def read_now(self, station: Station) -> Done:
        """Measure `station` once more; its period stays as it is. The record goes the way of all others."""

        async def measure() -> Done:
            before = station.counters.records
            await self._carry_out(station)
            return Done(True) if station.counters.records > before else SILENT

        return await self._errand(station, measure)

    async def act(self, station: Station, name: str, value: int | None, in_time: Callable[[], bool] = always) -> Done:
        """Have the driver of `station` carry out one of its actions.

        in_time(): asked when its turn has come; nothing is done any more if not
        """

        async def act() -> Done:
            return await self._act(station, name, value) if in_time() else LATE

        return await self._errand(station, act)

    async def _errand(self, station: Station, work: Callable[[], Awaitable[Done]]) -> Done:
        """Do `work` in a turn of its own, as one of the line's tasks: it ends when the line does."""
        done: asyncio.Future[Done] = asyncio.get_running_loop().create_future()

        async def carry_out() -> None:
            came = CUT
            try:
                async with self._wire.turn():
                    if self._finishing:
                        came = DOWN
                        return
                    async with self._hold(station):
                        came = await work()
            finally:
                if not done.done():
                    done.set_result(came)

        if self._tasks is None or self._finishing:
            return DOWN
        carrying_out = carry_out()
        try:
            task = self._tasks.create_task(carrying_out)
        except RuntimeError:  # the line ends at this moment
            carrying_out.close()
            return DOWN
        await asyncio.wait([task])
        return done.result() if done.done() else DOWN  # one that was cancelled before its first step sets nothing

    async def _act(self, station: Station, name: str, value: int | None) -> Done:
        driver: ActingDriver = station.driver  # type: ignore[assignment]  # whoever lists actions has looked for them
        command = driver.act(name, value)
        answer: bytes | None = None
        try:
            while True:
                ask = command.send(answer)
                answer = await self._wire.exchange(ask)
                if station.tap:
                    _tap(station.tap, ask, answer)
                await asyncio.sleep(ask.line.get("pause_ms", 0) / 1000)
        except StopIteration as stop:
            if stop.value:
                return Done(True)
            return UNANSWERED if answer is None else Done(False, "the device did not take it")
        except ConfigError as error:
            return Done(False, str(error))
        finally:
            command.close()

    async def _poll(self, station: Station, index: int) -> None:
        """Measure one station at its times; one that is silent, where others wait, more rarely."""
        period_ms = max(1, round(1000 * station.every_s))
        phase = phase_ms(self._name, index, len(self._stations), period_ms)
        clock = PollClock(self._mono_ms(), period_ms, phase)
        silences = 0
        not_before_ms = 0
        while True:
            await asyncio.sleep(max(0, clock.due_ms - self._mono_ms(), not_before_ms - self._mono_ms()) / 1000)
            async with self._wire.turn():
                if self._finishing:
                    return
                station.counters.skipped += clock.start(self._mono_ms())
                began_ms = self._mono_ms()
                silences = 0 if await self._measured(station) else silences + 1
            if silences >= SILENT_AFTER and len(self._stations) > 1:
                cost_ms = self._mono_ms() - began_ms
                not_before_ms = self._mono_ms() + min(PAUSE_TO_COST * cost_ms, LONGEST_PAUSE_MS)

    async def _measured(self, station: Station) -> bool:
        """Carry out one measurement and hand on what it gives; return whether the device said anything."""
        async with self._hold(station):
            return await self._carry_out(station)

    @asynccontextmanager
    async def _hold(self, station: Station) -> AsyncIterator[None]:
        """Have the driver for oneself; a line that ends waits for it."""
        async with self._busy[station.name]:
            self._in_hand += 1
            self._idle.clear()
            try:
                yield
            finally:
                self._in_hand -= 1
                if not self._in_hand:
                    self._idle.set()

    async def _carry_out(self, station: Station) -> bool:
        measurement = asked(station.driver).measure(self._mono_ms())
        read_ms = self._wall_ms()
        spoke = False
        answer: bytes | None = None
        try:
            while True:
                ask, groups = self._next(station, measurement, answer)
                if ask is None:
                    break
                station.counters.asked += 1
                answer = await self._wire.exchange(ask)
                if station.tap:
                    _tap(station.tap, ask, answer)
                if answer is None:
                    station.counters.silent += 1
                elif ask.read:
                    spoke = True
                    # Of a measurement with several answers the last one holds the values: what came before it woke
                    # the device, or chose it.
                    read_ms = self._wall_ms() - (self._mono_ms() - self._wire.began_ms)
                    self._works()
                await asyncio.sleep(ask.line.get("pause_ms", 0) / 1000)
        finally:
            measurement.close()
        station.take_damage()
        if groups:
            station.heard_mono_ms = self._mono_ms()
            station.counters.records += len(groups)
            await station.deliver(groups, read_ms)
        return spoke

    def _next(
        self, station: Station, measurement: Exchange, answer: bytes | None
    ) -> tuple[Ask | None, list[list[Reading]]]:
        """Return (next question, []), or (None, what the measurement ended with).

        A defect of one driver is logged once and costs its own measurement: the others of the line go on.
        """
        try:
            return measurement.send(answer), []
        except StopIteration as stop:
            return None, stop.value or []
        except Exception:
            if station.name not in self._failed:
                log.exception("driver failed line=%s device=%s", self._name, station.said_name)
            self._failed.add(station.name)
            return None, []

    def _works(self) -> None:
        """An answer came: only that shows that the line is back. A port opens with nothing behind it."""
        if self._down:
            log.info("line back line=%s", self._name)
        self._down, self._pause_s = False, FIRST_PAUSE_S


def _tap(tap: Callable[[str, bytes], None], ask: Ask, answer: bytes | None) -> None:
    """Say what went over the wire; behind a characteristic's UUID where a question names one, as `feed` reads it."""
    number = ask.line.get("characteristic")
    head = b"" if number is None else number.to_bytes(2 if number < 1 << 16 else 16, "big")
    if ask.write:
        tap("out", head + ask.write)
    if answer:
        tap("in", head + answer)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
