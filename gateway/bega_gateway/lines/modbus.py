"""Modbus lines, RTU and TCP: which device is polled when, and what becomes of its answers.

The wire itself, with pymodbus on it, is in modbus_bus.py.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bega.devices import asked
from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.modbus_bus import Bus, Outcome
from bega_gateway.lines.polling import Patience, PollClock, phase_ms
from bega_protocols.errors import ConfigError, LineError
from bega_protocols.modbus_rtu import EXCEPTION

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega_gateway.lines.station import Counters, Station
    from bega_protocols.ask import Ask
    from bega_protocols.reading import Reading

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between attempts to open
SETTLED_S = 1.0  # a connection that stands so long is said to be back
# A converter says so when the device behind it is silent (application protocol V1.1b3, section 7).
SILENT_BEHIND = (0x0A, 0x0B)


class ModbusLine:
    """Polls every station in its period, one question on the wire at a time, until it is cancelled."""

    def __init__(
        self,
        name: str,
        settings: ModbusRtuLine | ModbusTcpLine,
        stations: list[Station],
        mono_ms: Clock,
        wall_ms: Clock,
    ) -> None:
        self._name = name
        self._bus = Bus(settings)
        self._stations = stations
        self._mono_ms = mono_ms
        self._wall_ms = wall_ms
        self._longest_ms = round(1000 * settings.timeout_s)
        self._rest_until_ms: dict[int, int] = {}  # by unit: some meters need a pause after an answer
        self._in_hand = 0  # measurements under way
        self._finishing = False
        self._finished = asyncio.Event()
        self.tries = 0  # to open the wire, since the start

    async def run(self) -> None:
        """Run until cancelled. Trouble on the wire ends nothing; raises ConfigError if a driver wants to write."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_open())
                for index, station in enumerate(self._stations):
                    period_ms = max(1, round(1000 * station.every_s))
                    phase = phase_ms(self._name, index, len(self._stations), period_ms)
                    tasks.create_task(self._poll(station, PollClock(self._mono_ms(), period_ms, phase)))
        except* ConfigError as errors:
            raise errors.exceptions[0] from None
        finally:
            self._bus.close()

    async def finish(self) -> None:
        """Begin no further measurement; return when those in hand have ended."""
        self._finishing = True
        if self._in_hand:
            await self._finished.wait()

    async def _keep_open(self) -> None:
        pause_s = FIRST_PAUSE_S
        down = False
        while True:
            self.tries += 1
            try:
                await self._bus.open()
                stands = await self._bus.stands_for(SETTLED_S)
                if stands and down:
                    log.info("line back line=%s port=%s", self._name, self._bus.port)
                if stands:
                    down, pause_s = False, FIRST_PAUSE_S
                await self._bus.until_lost()
            except LineError as error:
                if not down:
                    log.warning("line down line=%s port=%s why=%s", self._name, self._bus.port, error)
                down = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _poll(self, station: Station, clock: PollClock) -> None:
        """Measure in every period; what was missed is counted and never made up for."""
        patience = Patience(self._longest_ms)
        while not self._finishing:
            # A silent device is tried in its own time: less often than a short period, more often than a long one.
            due_ms = patience.ready_ms if patience.is_silent else max(clock.due_ms, patience.ready_ms)
            await self._sleep_until(due_ms)
            await self._bus.opened.wait()
            if self._finishing:
                break
            station.counters.skipped += clock.start(self._mono_ms())
            self._in_hand += 1
            try:
                await self._measure(station, patience)
            finally:
                self._in_hand -= 1
                if self._finishing and not self._in_hand:
                    self._finished.set()

    async def _sleep_until(self, mono_ms: int) -> None:
        await asyncio.sleep(max(0, mono_ms - self._mono_ms()) / 1000)

    async def _measure(self, station: Station, patience: Patience) -> None:
        """Carry one measurement to its end and hand its readings on."""
        measurement = asked(station.driver).measure(self._wall_ms())
        read_ms = self._wall_ms()
        try:
            ask = next(measurement)
            while True:
                answer = await self._ask(station, patience, ask)
                if answer is not None:
                    read_ms = self._wall_ms()
                ask = measurement.send(answer)
        except StopIteration as stop:
            await self._deliver(station, stop.value, read_ms)
        except LineError:
            measurement.close()  # the line is opened again elsewhere; this measurement is over

    async def _deliver(self, station: Station, groups: list[list[Reading]], read_ms: int) -> None:
        station.take_damage()
        if groups:
            station.heard_mono_ms = self._mono_ms()
            station.counters.records += len(groups)
            await station.deliver(groups, read_ms)

    async def _ask(self, station: Station, patience: Patience, ask: Ask) -> bytes | None:
        """Return the answer to `ask`, None if there was none.

        A question that noise or chance has eaten is put once more, after a silence not before its answer can no
        longer come: it would be taken for that of the next question, and its own for that of the one after.
        """
        unit = ask.line["unit"]
        for _ in range(2):
            await self._sleep_until(max(patience.ready_ms, self._rest_until_ms.get(unit, 0)))
            outcome = await self._bus.exchange(unit, ask.write, patience.wait_ms(), patience.is_silent)
            now_ms = self._mono_ms()
            self._rest_until_ms[unit] = now_ms + ask.line.get("pause_ms", 0)
            _note(outcome, station.counters, patience, now_ms)
            if outcome.answer is not None or outcome.is_late or patience.is_silent:
                return outcome.answer
        return None


def _note(outcome: Outcome, counters: Counters, patience: Patience, now_ms: int) -> None:
    counters.asked += 1
    counters.refused += outcome.refused
    if outcome.answer is not None:
        if outcome.answer[0] & EXCEPTION and outcome.answer[-1] in SILENT_BEHIND:
            patience.silent(now_ms)
        else:
            patience.answered(outcome.took_ms)
    elif outcome.noise:
        counters.damaged += 1
        patience.disturbed(now_ms)
    else:
        counters.silent += 1
        if outcome.is_late:
            patience.answered(outcome.took_ms)
        else:
            patience.silent(now_ms)
