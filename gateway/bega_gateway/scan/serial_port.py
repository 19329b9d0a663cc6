"""A serial port: is it in use, does somebody talk, does somebody answer, and if not, is it a bus?

What answers first is what the port is for: nothing else is tried on it then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from bega.devices import driver_class, must_be_asked
from bega_gateway.lines.port import Inbox, open_port
from bega_gateway.lines.wire_serial import SerialWire
from bega_gateway.scan import mbus, modbus
from bega_gateway.scan.attempt import drivers_on, loaded, measured
from bega_gateway.scan.findings import name_of_port
from bega_gateway.scan.search import holder, note_of, taken_frame
from bega_protocols.errors import LineError

if TYPE_CHECKING:
    from bega_gateway.scan.search import Search
    from bega_protocols.driver import Driver
    from bega_protocols.reading import Reading

Rate = tuple[int, str]  # baud and frame

USUAL_RATE = (9600, "8N1")
NOISE_BYTES = 16  # an RS-485 adapter with nothing on it makes up a few
REST_OF_FRAME_S = 0.5  # who is understood may have more to say


class Way(NamedTuple):
    """How a device may be spoken with."""

    name: str  # of its driver
    rate: Rate
    settings: dict[str, Any]
    is_usual: bool  # the line that its driver names first


@dataclass
class Understood:
    """A driver, and what it made of what came."""

    way: Way
    driver: Driver
    readings: list[Reading] = field(default_factory=list)


async def scan_port(search: Search, port: str, about: str) -> None:
    """Add what hangs on `port`, or a note on why nothing was found. about: what the port is called."""
    said = f"{port} ({about})" if about else port
    if user := holder(port):
        search.findings.notes.append(f"{said} is in use by {user}: left alone")
        search.progress.say(search.findings.notes[-1])
        return
    try:
        if not await _examined(search, port, said):
            search.findings.notes.append(f"{said}: nothing answered")
    except LineError as error:
        search.findings.notes.append(note_of(error))
        search.progress.say(search.findings.notes[-1])


async def _examined(search: Search, port: str, said: str) -> bool:
    """Return whether there is no more to say of the port."""
    if search.listen_s and (understood := await _somebody_talks(search, port, said)) is not None:
        if not understood:
            why = "something talks that no driver understands, so nothing was asked (--listen 0 asks all the same)"
            search.findings.notes.append(f"{said}: {why}")
        return True
    for attempt in (_somebody_answers, mbus.scan_segment, modbus.scan_rtu):  # the last one takes longest
        if await attempt(search, port, said):
            return True
    return False


async def _somebody_talks(search: Search, port: str, about: str) -> bool | None:
    """Return whether a talker was understood, None if nobody talks; what was understood is added."""
    talked = False
    for usual in (True, False):
        ways = [way for way in ways_on(port) if way.is_usual == usual]
        for rate in sorted(dict.fromkeys(way.rate for way in ways), key=lambda rate: rate != USUAL_RATE):
            search.progress.step(port, f"listening at {rate[0]} {rate[1]}")
            heard, size = await _hear(search, port, rate, [way for way in ways if way.rate == rate])
            if heard:
                _add(search, port, about, _clearest(heard), "heard")
                return True
            if size < NOISE_BYTES and not talked:
                return None  # at a wrong rate a talker would be garbage, not silence
            talked = True
    return False


async def _hear(search: Search, port: str, rate: Rate, ways: list[Way]) -> tuple[list[Understood], int]:
    """Listen until somebody is understood; return who was, and how many bytes came."""
    loop = asyncio.get_running_loop()
    listeners = [Understood(way, driver) for way in ways if (driver := loaded(way.name, way.settings))]
    wire = open_port(port, *rate)
    inbox = Inbox(wire.fileno())
    size = 0
    end_s = loop.time() + search.listen_s
    try:
        while True:
            async with asyncio.timeout_at(end_s):
                chunk = await inbox.take()
            size += len(chunk)
            for listener in listeners:
                groups = listener.driver.feed(chunk, search.mono_ms())
                listener.driver.damaged.clear()
                if groups:
                    listener.readings = [reading for group in groups for reading in group]
                    end_s = min(end_s, loop.time() + REST_OF_FRAME_S)
    except TimeoutError:
        return [listener for listener in listeners if listener.readings], size
    except OSError as error:
        raise LineError(f"{port} failed while it was listened to: {error.strerror}") from None
    finally:
        inbox.close()
        wire.close()


def _clearest(heard: list[Understood]) -> Understood:
    """Return who understood best: a driver that listens before one that would ask, then the one with most readings."""
    return max(heard, key=lambda one: (not must_be_asked(one.driver), len(one.readings), -len(one.way.settings)))


async def _somebody_answers(search: Search, port: str, about: str) -> bool:
    """Return whether a device alone on the port answered its driver."""
    for way in ways_on(port):
        driver = loaded(way.name, way.settings)
        if driver is None or not must_be_asked(driver):
            continue
        search.progress.step(port, f"asking {way.name} at {way.rate[0]} {way.rate[1]}")
        wire = SerialWire(port, *way.rate, search.mono_ms)
        await wire.open()
        try:
            async with wire.turn():
                outcome = await measured(wire, driver, search.mono_ms)
        finally:
            wire.close()
        if outcome.readings:
            _add(search, port, about, Understood(way, driver, outcome.readings), "answered")
            return True
    return False


def _add(search: Search, port: str, about: str, found: Understood, how: str) -> None:
    way = found.way
    table: dict[str, Any] = {"port": port}
    baud, frame = _rate(found.driver.line)
    if way.rate[0] != baud:
        table["baud"] = way.rate[0]
    if way.rate[1][0] != frame[0]:
        table["data_bits"] = int(way.rate[1][0])
    if way.rate[1][1] != frame[1]:
        table["parity"] = way.rate[1][1]
    heard = f"{how} at {way.rate[0]} {way.rate[1]}"
    line = search.findings.line(name_of_port(port), "serial", about, table)
    facts = {"readings": found.readings, "attributes": dict(found.driver.attributes)}
    search.findings.add(line, way.name, way.name, way.settings, heard=heard, **facts)
    search.progress.say(f"{port}: {way.name} {heard}")


def ways_on(port: str) -> list[Way]:
    """Return every way to speak with a device of ours on `port`: its usual line, and those that its driver adds.

    A driver names in `also_found` where else such devices are found, as ("serial 9600 7E1", {}), each with the settings
    that it needs there.
    """
    ways = []
    for name in drivers_on("serial"):
        driver = driver_class(name)
        for line, settings in ((driver.line, {}), *getattr(driver, "also_found", ())):
            baud, frame = _rate(line)
            ways.append(Way(name, (baud, taken_frame(port, frame)), settings, line == driver.line))
    return ways


def _rate(line: str) -> Rate:
    """Return (9600, "8N1") of "serial 9600 8N1", or of "serial" alone."""
    _, *usual = line.split()
    return (int(usual[0]), usual[1]) if len(usual) == 2 else USUAL_RATE
