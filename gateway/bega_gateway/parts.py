"""The parts of a gateway that run: its lines and indices, each a few tasks that begin and end together."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bega_gateway.build import Ground, Line, Part, Work, part
from bega_gateway.config import Config
from bega_gateway.lines.ble_counters import BleCounters
from bega_gateway.lines.station import Station
from bega_gateway.progress import Sight
from bega_gateway.reload import Plan, parts

if TYPE_CHECKING:
    from bega_gateway.edge.derive import Calculation, ThresholdAlarm

log = logging.getLogger(__name__)

FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0  # before a task that a defect ended is begun again
CANCEL_AGAIN_S = 1.5  # longer than a line takes to close its wire
FINISH_WITHIN_S = 5.0  # an exchange in hand may take so long; then it is cut off


@dataclass
class _Running:
    part: Part
    tasks: list[asyncio.Task[None]]


class Parts:
    """Owns the tasks of all parts, by the part's place in the file."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._group = asyncio.TaskGroup()
        self._running: dict[str, _Running] = {}
        self._leaving: list[_Running] = []  # those that still finish what they have in hand
        self._ending = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own them while the block runs, and end them with it; a damaged spool ends the block."""
        async with self._group:
            yield
            self._ending = True  # a reload may be under way: it begins nothing more
            await ended([task for running in [*self._running.values(), *self._leaving] for task in running.tasks])

    async def begin_all(self, config: Config, states: dict[str, bytes]) -> None:
        """Begin every part of `config`; states: what each device's driver asked to keep, as the spool has it."""
        for place in parts(config):
            await self._begin(place, config, states)

    async def change(self, plan: Plan, config: Config, states: dict[str, bytes]) -> list[str]:
        """End and begin what `plan` says, the others are not touched; return the places that could not be begun.

        These are begun at the next change, whatever its plan says of them. Nothing is read from the spool here: half
        a change must not fail for its disk. states: as the spool had them before.
        """
        ended = self._leaving = [self._running.pop(place) for place in plan.end if place in self._running]
        await asyncio.gather(*map(_end, ended))
        self._leaving = []
        # Newer than what the spool has committed.
        stations = [station for running in ended for station in running.part.stations]
        states = states | {
            station.name: station.driver.state() for station in stations if hasattr(station.driver, "state")
        }
        missing = [place for place in plan.keep if place not in self._running]
        return [place for place in plan.begin + missing if not await self._begun(place, config, states)]

    def stations(self) -> list[tuple[str, Station]]:
        """Return every device that is read, with the name of its line."""
        return [
            (place.removeprefix("lines."), station)
            for place, running in self._running.items()
            for station in running.part.stations
        ]

    def line(self, name: str) -> Line | None:
        """Return what drives the line `name`, None if it does not run."""
        running = self._running.get(f"lines.{name}")
        return running.part.line if running else None

    def adapters(self) -> list[tuple[str, BleCounters]]:
        """Return what is counted of each Bluetooth adapter, with the name of its line."""
        counted = [
            (place.removeprefix("lines."), getattr(running.part.line, "counters", None))
            for place, running in self._running.items()
        ]
        return [(line, counters) for line, counters in counted if isinstance(counters, BleCounters)]

    def alarms(self) -> dict[str, ThresholdAlarm]:
        """Return every alarm by its name."""
        return {
            place.partition(".")[2]: running.part.alarm
            for place, running in self._running.items()
            if running.part.alarm
        }

    def calculations(self) -> list[tuple[str, Calculation]]:
        """Return every calculation by its place."""
        return [
            (place, running.part.calculation) for place, running in self._running.items() if running.part.calculation
        ]

    def sights(self) -> list[Sight]:
        """Return how far each line is with what it must ask."""
        found = [running.part.sight(place) for place, running in self._running.items()]
        return [sight for sight in found if sight]

    async def _begun(self, place: str, config: Config, states: dict[str, bytes]) -> bool:
        try:
            await self._begin(place, config, states)
        except Exception:  # a defect, or a file that went away since it was checked: the other lines go on
            log.exception("line cannot begin place=%s", place)
            table, _, name = place.partition(".")
            if table == "lines":  # an index may have the name of a line
                self._ground.health.forget(name)
            return False
        return True

    async def _begin(self, place: str, config: Config, states: dict[str, bytes]) -> None:
        made = await part(self._ground, config, place, states)
        if self._ending:
            return
        tasks = [self._group.create_task(kept_up(name, work)(), name=name) for name, work in made.works]
        self._running[place] = _Running(made, tasks)


async def _end(running: _Running) -> None:
    """End a part after the exchange in hand, if it has one and that is soon over."""
    finish = getattr(running.part.line, "finish", None)
    if finish:
        try:
            async with asyncio.timeout(FINISH_WITHIN_S):
                await finish()
        except TimeoutError:
            log.debug("exchange in hand cut off")
        except Exception:  # a defect: whatever it is, what comes after it must be begun
            log.exception("exchange in hand failed")
    await ended(running.tasks)
    running.part.let_go()


async def ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel `tasks` until they have ended.

    Once is not enough on Python 3.11: a cancellation that comes in the very turn in which a TaskGroup ends with an
    error is lost with it (asyncio.TaskGroup, "propagate_cancellation_error"), and the line would open its wire again.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


def kept_up(name: str, work: Work) -> Work:
    """Return `work` so that a defect in it is logged and costs only a pause: the other lines must not fall with it.

    Only a damaged spool ends the gateway: the next start sets it aside.
    """

    async def run() -> None:
        rest_s = FIRST_REST_S
        while True:
            try:
                await work()
            except Exception as error:
                if _is_damage(error):
                    log.exception("task failed name=%s", name)
                    raise
                log.exception("task failed, it is begun again name=%s after_s=%d", name, rest_s)
            await asyncio.sleep(rest_s)
            rest_s = min(2 * rest_s, LONGEST_REST_S)

    return run


def _is_damage(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_damage, error.exceptions))
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
