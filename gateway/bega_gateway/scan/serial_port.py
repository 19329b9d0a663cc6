"""A serial port: is it in use, does somebody talk, does somebody answer, and if not, is it a bus?

What answers first is what the port is for: nothing else is tried on it then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bega.devices import driver_class, load_driver, must_be_asked
from bega_gateway.lines.port import Inbox, open_port
from bega_gateway.lines.wire_serial import SerialWire
from bega_gateway.scan import mbus, modbus
from bega_gateway.scan.attempt import drivers_on, loadable, measured
from bega_gateway.scan.findings import name_of_port
from bega_gateway.scan.search import holder, taken_frame
from bega_protocols.errors import LineError

if TYPE_CHECKING:
    from bega_gateway.scan.search import Search
    from bega_protocols.driver import Driver
    from bega_protocols.reading import Reading

Rate = tuple[int, str]  # baud and frame

USUAL_RATE = (9600, "8N1")
NOISE_BYTES = 16  # an RS-485 adapter with nothing on it makes up a few
REST_OF_FRAME_S = 0.5  # who is understood may have more to say
SHOWN_BYTES = 16


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
        search.findings.notes.append(str(error).removesuffix("; trying again"))
        search.progress.say(search.findings.notes[-1])


async def _examined(search: Search, port: str, said: str) -> bool:
    """Return whether there is no more to say of the port."""
    if search.listen_s and (understood := await _somebody_talks(search, port, said)) is not None:
        if not understood:
            why = "something talks that no driver understands, so nothing was asked (--listen 0 asks all the same)"
            search.findings.notes.append(f"{said}: {why}")
        return True
    for attempt in (_somebody_answers, modbus.scan_rtu, mbus.scan_segment):
        if await attempt(search, port, said):
            return True
    return False


async def _somebody_talks(search: Search, port: str, about: str) -> bool | None:
    """Return whether a talker was understood, None if nobody talks; what was understood is added."""
    talked = False
    for rate in _rates(port):
        search.progress.step(port, f"listening at {rate[0]} {rate[1]}")
        drivers = dict(loadable([name for name in drivers_on("serial") if rate in _rates_of(name, port)], {}))
        heard, octets = await _hear(search, port, rate, drivers)
        if heard:
            _add(search, port, about, rate, _clearest(heard, drivers), f"heard at {rate[0]} {rate[1]}")
            return True
        if len(octets) < NOISE_BYTES and not talked:
            return None  # at a wrong rate a talker would be garbage, not silence
        talked = True
    return False


async def _hear(
    search: Search, port: str, rate: Rate, drivers: dict[str, Driver]
) -> tuple[dict[str, tuple[Driver, list[Reading]]], bytes]:
    """Listen until somebody is understood; return the readings by driver, and the first bytes that came."""
    loop = asyncio.get_running_loop()
    wire = open_port(port, *rate)
    inbox = Inbox(wire.fileno())
    understood: dict[str, tuple[Driver, list[Reading]]] = {}
    octets = b""
    end_s = loop.time() + search.listen_s
    try:
        while True:
            async with asyncio.timeout_at(end_s):
                chunk = await inbox.take()
            octets = (octets + chunk)[:NOISE_BYTES]
            for name, driver in drivers.items():
                readings = [reading for group in driver.feed(chunk, search.mono_ms()) for reading in group]
                if readings:
                    understood[name] = (driver, readings)
                    end_s = min(end_s, loop.time() + REST_OF_FRAME_S)
                driver.damaged.clear()
    except TimeoutError:
        return understood, octets
    except OSError as error:
        raise LineError(f"{port} failed while it was listened to: {error.strerror}") from None
    finally:
        inbox.close()
        wire.close()


def _clearest(
    heard: dict[str, tuple[Driver, list[Reading]]], drivers: dict[str, Driver]
) -> tuple[str, Driver, list[Reading]]:
    """Return who understood best: a driver that listens before one that would ask, then the one with most readings."""
    name = max(heard, key=lambda name: (not must_be_asked(drivers[name]), len(heard[name][1])))
    return name, *heard[name]


async def _somebody_answers(search: Search, port: str, about: str) -> bool:
    """Return whether a device alone on the port answered its driver."""
    for name, driver in loadable(drivers_on("serial"), {}):
        if not must_be_asked(driver):
            continue
        for rate in _rates_of(name, port):
            search.progress.step(port, f"asking {name} at {rate[0]} {rate[1]}")
            wire = SerialWire(port, *rate, search.mono_ms)
            await wire.open()
            try:
                async with wire.turn():
                    outcome = await measured(wire, load_driver(name, {}), search.wall_ms())
            finally:
                wire.close()
            if outcome.readings:
                driver.attributes.update(outcome.attributes)
                found = (name, driver, outcome.readings)
                _add(search, port, about, rate, found, f"answered at {rate[0]} {rate[1]}")
                return True
    return False


def _add(
    search: Search, port: str, about: str, rate: Rate, found: tuple[str, Driver, list[Reading]], heard: str
) -> None:
    name, driver, readings = found
    table: dict[str, Any] = {"port": port}
    baud, frame = _rate(driver.line)
    if rate[0] != baud:
        table["baud"] = rate[0]
    if rate[1][0] != frame[0]:
        table["data_bits"] = int(rate[1][0])
    if rate[1][1] != frame[1]:
        table["parity"] = rate[1][1]
    line = search.findings.line(name_of_port(port), "serial", about, table)
    search.findings.add(line, name, name, {}, readings=readings, attributes=dict(driver.attributes), heard=heard)
    search.progress.say(f"{port}: {name} {heard}")


def _rates(port: str) -> list[Rate]:
    """Return every rate that a device of ours may talk at, each once, the most usual first."""
    rates = dict.fromkeys(rate for name in drivers_on("serial") for rate in _rates_of(name, port))
    return sorted(rates, key=lambda rate: rate != USUAL_RATE)


def _rates_of(name: str, port: str) -> list[Rate]:
    """Return the rates at which devices called `name` are found: the usual one, and those that the driver adds."""
    driver = driver_class(name)
    lines = [driver.line, *getattr(driver, "other_lines", ())]
    return [(baud, taken_frame(port, frame)) for baud, frame in map(_rate, lines)]


def _rate(line: str) -> Rate:
    """Return (9600, "8N1") of "serial 9600 8N1", or of "serial" alone."""
    _, *usual = line.split()
    return (int(usual[0]), usual[1]) if len(usual) == 2 else USUAL_RATE
