"""Modbus, RTU and TCP: which units answer, and which profile fits each. Only reads leave the gateway."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bega.clock import mono_s
from bega.devices import load_driver, profile_names, with_profile
from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.modbus import SILENT_BEHIND
from bega_gateway.lines.modbus_bus import Outcome, bus_of
from bega_gateway.scan import attempt
from bega_gateway.scan.attempt import converse, drivers_on, measured
from bega_gateway.scan.findings import name_of_port
from bega_gateway.scan.search import taken_frame
from bega_protocols.errors import ConfigError, LineError
from bega_protocols.modbus_rtu import EXCEPTION, READ_HOLDING, READ_INPUT

if TYPE_CHECKING:
    from bega_gateway.scan.findings import FoundLine
    from bega_gateway.scan.search import Search
    from bega_protocols.ask import Ask

TRY_MS = 200  # so long may a unit on a serial line think: meters answer within 100
LONGEST_S = 1.0  # and so long one behind a converter, which has a line of its own to ask on
LAST_UNIT = 247
# Two registers from 0: some meters refuse an odd number. A refusal shows that a unit lives just as well as an answer.
PROBES = tuple(bytes((function, 0, 0, 0, 2)) for function in (READ_INPUT, READ_HOLDING))


class ModbusWire:
    """A Modbus bus for one question at a time; a connection that is lost is made anew once for each."""

    def __init__(self, settings: ModbusRtuLine | ModbusTcpLine) -> None:
        self.late: set[int] = set()  # units that answered when they had been given up
        self._bus = bus_of(settings, mono_s, lambda unit, answer, _: self._answered_late(unit, answer))
        self._try_ms = TRY_MS if isinstance(settings, ModbusRtuLine) else round(1000 * LONGEST_S)

    async def open(self) -> None:
        """Open the port or connect; raises LineError."""
        await self._bus.open()

    def close(self) -> None:
        """Close; does nothing if it is closed."""
        self._bus.close()

    async def exchange(self, ask: Ask) -> bytes | None:
        """Return the PDU of the answer, None where nobody answered; raises LineError if the wire is gone."""
        outcome = await self._put(ask.line["unit"], ask.write, min(ask.wait_ms, round(1000 * LONGEST_S)), False)
        return outcome.answer

    async def lives(self, unit: int, question: bytes) -> bool:
        """Return whether `unit` says anything upon `question`; raises LineError if the wire is gone."""
        outcome = await self._put(unit, question, self._try_ms, True)
        if outcome.answer is None:
            return outcome.is_late
        return not _is_silent_behind(outcome.answer)

    async def _put(self, unit: int, question: bytes, wait_ms: int, is_try: bool) -> Outcome:
        """Put a question, once more if the connection was over: a TCP bus ends it after some silences in a row."""
        for _ in range(2):
            try:
                return await self._bus.exchange(unit, question, wait_ms, is_try)
            except LineError:
                self._bus.close()
                await self._bus.open()
        return Outcome(None)

    def _answered_late(self, unit: int, answer: bytes) -> None:
        if not _is_silent_behind(answer):
            self.late.add(unit)


async def scan_rtu(search: Search, port: str, about: str) -> bool:
    """Look for units on a serial port at each of the usual settings; return whether there were any.

    The units of a bus have one setting: where some answered, no other is tried. Raises LineError.
    """
    rates = dict.fromkeys((baud, taken_frame(port, f"8{parity}1")) for baud, parity in search.modbus_rates)
    for question in PROBES:
        for baud, frame in rates:
            table: dict[str, Any] = {"port": port, "baud": baud, "parity": frame[1], "timeout_s": LONGEST_S}
            settings = ModbusRtuLine(**table)
            how = f"{baud} {frame}"
            line = search.findings.line(name_of_port(port), "modbus-rtu", about, table)
            if await _scan_bus(search, ModbusWire(settings), line, port, how, question):
                return True
            search.findings.withdraw(line)
    return False


async def scan_tcp(search: Search, host: str, port: int) -> bool:
    """Look for units behind a Modbus TCP server; return whether there were any. Raises LineError."""
    settings = ModbusTcpLine(host=host, port=port, timeout_s=LONGEST_S)
    table: dict[str, Any] = {"host": host, "port": port}
    place = f"{host}:{port}"
    for question in PROBES:
        line = search.findings.line(f"tcp-{host}", "modbus-tcp", f"Modbus TCP at {place}", table)
        if await _scan_bus(search, ModbusWire(settings), line, place, "Modbus TCP", question):
            return True
        search.findings.withdraw(line)
    return False


async def _scan_bus(search: Search, wire: ModbusWire, line: FoundLine, place: str, how: str, question: bytes) -> bool:
    await wire.open()
    try:
        units = search.units
        if line.kind == "modbus-tcp" and await wire.lives(LAST_UNIT, question) and await wire.lives(1, question):
            units = (1,)  # who answers for everybody does not look at the unit: one meter, not 247
        for done, unit in enumerate(units):
            search.progress.step(place, f"Modbus units at {how}", done, len(units))
            if await wire.lives(unit, question):
                wire.late.discard(unit)
                await _found(search, wire, line, place, unit, how)
        for unit in sorted(wire.late & set(units)):  # a converter was still busy with a silent unit before them
            await _found(search, wire, line, place, unit, how)
    finally:
        wire.close()
    return bool(line.devices)


async def _found(search: Search, wire: ModbusWire, line: FoundLine, place: str, unit: int, how: str) -> None:
    """Add the unit with the profile that fits best, the others named beside it."""
    heard = f"unit {unit} answered at {how}"
    search.progress.say(f"{place}: {heard}")
    for driver in drivers_on("modbus"):
        fitting = await _fitting(wire, driver, unit)
        choices = [{"profile": name, "address": unit} for name in fitting]
        for number, choice in enumerate(choices):
            outcome = await _outcome(search, wire, driver, choice)
            if outcome.readings:
                others = choices[number + 1 :]
                facts = {"readings": outcome.readings, "attributes": outcome.attributes, "fits_too": others}
                search.findings.add(line, f"{fitting[number]}-{unit}", driver, choice, heard=heard, **facts)
                return
        lacks = "no profile that Bega brings fits it: write one, or list tags (bega gateway example --tags)"
        search.findings.add(line, f"unit-{unit}", driver, {"address": unit}, heard=heard, lacks=lacks)
        return


async def _fitting(wire: ModbusWire, driver: str, unit: int) -> list[str]:
    """Return the names of the profiles that fit what `unit` says, best first."""
    name = f"bega_protocols.devices.{driver}.identify"
    if importlib.util.find_spec(name) is None:
        return []
    profiles = {profile: with_profile({"profile": profile})["profile"] for profile in profile_names()}
    names: Sequence[str] = await converse(wire, importlib.import_module(name).identification(unit, profiles))
    return list(names)


async def _outcome(search: Search, wire: ModbusWire, driver: str, settings: dict[str, Any]) -> attempt.Outcome:
    try:
        return await measured(wire, load_driver(driver, settings), search.mono_ms)
    except ConfigError:
        return attempt.Outcome()


def _is_silent_behind(answer: bytes) -> bool:
    return bool(answer[0] & EXCEPTION) and answer[-1] in SILENT_BEHIND
