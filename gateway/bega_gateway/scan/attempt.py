"""One attempt: a driver's questions on a wire, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bega.devices import asked, device_names, driver_class, load_driver, wire_of
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator

    from bega.clock import Clock
    from bega_protocols.ask import Ask
    from bega_protocols.driver import Driver
    from bega_protocols.reading import Reading

WITHIN_S = 150.0  # a readout at 300 baud takes minutes; nothing else of what is asked here takes longer
TIMES = 3  # a sensor that just woke has its first value a while later
REST_S = 2.0

Answer = TypeVar("Answer")


class Exchanging(Protocol):
    """A wire that a question can be put on."""

    async def exchange(self, ask: Ask) -> bytes | None:
        """Return the answer, None where nothing came; raises LineError if the wire fails."""


@dataclass
class Outcome:
    """What a device said when its driver asked."""

    readings: list[Reading] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    spoke: bool = False  # some answer came
    damage: str = ""


class _Counting:
    """A wire, and whether anything came of it."""

    def __init__(self, wire: Exchanging) -> None:
        self._wire = wire
        self.answers = 0

    async def exchange(self, ask: Ask) -> bytes | None:
        answer = await self._wire.exchange(ask)
        self.answers += bool(answer)
        return answer


async def converse(wire: Exchanging, questions: Generator[Ask, bytes | None, Answer]) -> Answer:
    """Put each of `questions` on `wire` and return what they end with; raises LineError if the wire fails."""
    answer: bytes | None = None
    try:
        while True:
            try:
                ask = questions.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # typeshed has it as Any
            answer = await wire.exchange(ask)
            await asyncio.sleep(ask.line.get("pause_ms", 0) / 1000)
    finally:
        questions.close()


async def measured(wire: Exchanging, driver: Driver, mono_ms: Clock) -> Outcome:
    """Ask as `driver` asks, again while the device answers and has no value yet; raises LineError."""
    outcome = Outcome()
    counting = _Counting(wire)
    for attempt in range(TIMES):
        if attempt:
            await asyncio.sleep(REST_S)
        try:
            async with asyncio.timeout(WITHIN_S):
                groups = await converse(counting, asked(driver).measure(mono_ms()))
        except TimeoutError:
            break
        outcome.readings = [reading for group in groups for reading in group]
        outcome.attributes = dict(driver.attributes)
        outcome.damage = driver.damaged[0][1].why if driver.damaged else ""
        driver.damaged.clear()
        outcome.spoke = counting.answers > 0
        if outcome.readings or not outcome.spoke or outcome.damage:
            break
    return outcome


def drivers_on(wire: str) -> list[str]:
    """Return the names of all devices that hang on this kind of wire: a new folder is tried by itself."""
    return [name for name in device_names() if wire_of(driver_class(name)) == wire]


def loaded(name: str, settings: Mapping[str, Any]) -> Driver | None:
    """Return a new driver, None if `settings` do not suffice: it needs what cannot be guessed, as a register map."""
    try:
        return load_driver(name, settings)
    except ConfigError:
        return None
