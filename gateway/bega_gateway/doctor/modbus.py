"""A Modbus line on which nobody is heard: who answers at the line's own settings, at others, at other units."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from bega.clock import mono_s
from bega_gateway import config as settings
from bega_gateway.doctor.closely import nobody_answers
from bega_gateway.doctor.finding import DEVICE, LINE, Finding
from bega_gateway.doctor.look import Look
from bega_gateway.lines.modbus_bus import RtuBus, TcpBus, bus_of
from bega_gateway.scan.search import taken_frame
from bega_protocols.errors import LineError
from bega_protocols.modbus_rtu import EXCEPTION, READ_HOLDING, READ_INPUT

Line = settings.ModbusRtuLine | settings.ModbusTcpLine

# As meters leave the factory, the commonest first.
RATES = (
    (9600, "N"), (9600, "E"), (19200, "E"), (19200, "N"), (2400, "N"), (4800, "N"), (38400, "N"), (115_200, "N"),
    (9600, "O"), (57_600, "N"),
)  # fmt: skip
PROBES = tuple(bytes((function, 0, 0, 0, 2)) for function in (READ_INPUT, READ_HOLDING))
TRY_MS, TCP_MS = 250, 1_500
MOST_TRIED = 4  # configured units, at each other rate
FIRST_UNITS = range(1, 33)
ASKED_FOR_S = 10.0  # configured units, and as long again others: each may cost two silences, and a line has 247
SILENT_BEHIND = {0x0A: "no way to it", 0x0B: "the device behind does not answer"}


class _Bus:
    """A bus on which units are tried for a while, with what was seen of each."""

    def __init__(self, line: Line, look: Look) -> None:
        self._look = look
        self._until_ms = look.mono_ms() + 1000 * ASKED_FOR_S
        self._bus: RtuBus | TcpBus = bus_of(line, mono_s)
        self._wait_ms = TRY_MS if isinstance(line, settings.ModbusRtuLine) else TCP_MS
        self.noisy = 0  # questions upon which nothing but noise came
        self.behind: dict[int, int] = {}  # unit: the code with which a converter said that it is silent

    async def __aenter__(self) -> _Bus:
        await self._bus.open()
        return self

    @property
    def has_time(self) -> bool:
        """Return whether another unit may be asked."""
        return self._look.mono_ms() < self._until_ms

    def begin_anew(self) -> None:
        """Have as much time again."""
        self._until_ms = self._look.mono_ms() + 1000 * ASKED_FOR_S

    async def __aexit__(self, *error: object) -> None:
        self._bus.close()

    async def lives(self, unit: int, probes: tuple[bytes, ...] = PROBES) -> bool:
        """Return whether `unit` says anything, be it that it refuses; raises LineError."""
        for question in probes:
            try:
                outcome = await self._bus.exchange(unit, question, self._wait_ms, True)
            except LineError:  # a TCP server is left after some silences, and taken anew
                self._bus.close()
                await asyncio.sleep(0.1)
                await self._bus.open()
                continue
            self.noisy += outcome.noise
            answer = outcome.answer
            if answer is None:
                continue
            if answer[0] & EXCEPTION and answer[-1] in SILENT_BEHIND:
                self.behind[unit] = answer[-1]
                return False
            return True
        return False


async def of_bus(name: str, line: Line, devices: dict[str, settings.Device], look: Look) -> list[Finding]:
    """Return why none of `devices` is heard; raises LineError."""
    where = f"lines.{name}"
    units = {device_name: _unit(device) for device_name, device in devices.items()}
    async with _Bus(line, look) as bus:
        asked = await _asked(bus, where, units, look)
        dead = [device_name for device_name, lives in asked.items() if not lives]
        if not dead:
            return []  # they answer: it was the gateway's question, or it is over
        if bus.behind:
            return [_silent_behind(device_name, units[device_name], bus.behind) for device_name in dead]
        if len(dead) < len(asked):
            others = len(asked) - len(dead)
            return await _of_dead(bus, where, line, units, dead, others, look)
        noisy = bus.noisy
    if isinstance(line, settings.ModbusRtuLine):
        tried = list(units.values())[:MOST_TRIED]
        for baud, parity in RATES:
            if found := await _at_rate(where, line, baud, parity, tried, look):
                return [found]
    async with _Bus(line, look) as bus:
        return await _of_dead(bus, where, line, units, dead, 0, look, noisy)


async def _asked(bus: _Bus, where: str, units: dict[str, int], look: Look) -> dict[str, bool]:
    """Return which devices live, of those that there is time to ask; the first one is asked in any case.

    A server that takes questions and says nothing costs two silences a unit: with forty it would be two minutes.
    """
    found: dict[str, bool] = {}
    for number, (device_name, unit) in enumerate(units.items(), 1):
        if found and not bus.has_time:
            look.say(f"{where}: {len(units) - len(found)} of {len(units)} devices are not asked, it takes too long")
            break
        look.say(f"{where}: asking unit {unit}, {number} of {len(units)}")
        found[device_name] = await bus.lives(unit)
    return found


async def _of_dead(
    bus: _Bus,
    where: str,
    line: Line,
    units: dict[str, int],
    dead: list[str],
    alive: int,
    look: Look,
    noisy: int = 0,
) -> list[Finding]:
    look.say(f"{where}: trying units {FIRST_UNITS[0]} to {FIRST_UNITS[-1]}")
    bus.begin_anew()
    strangers, last = [], 0
    for unit in FIRST_UNITS:
        if not bus.has_time:
            look.say(f"{where}: units from {unit} on are not asked, it takes too long")
            break
        if unit not in units.values() and await bus.lives(unit, PROBES[:1]):
            strangers.append(unit)
        last = unit
    if strangers:
        return [_wrong_unit(device_name, units[device_name], strangers) for device_name in dead]
    if alive:
        return [_silent(device_name, units[device_name], alive, last) for device_name in dead]
    unasked = len(units) - len(dead)
    if isinstance(line, settings.ModbusTcpLine):
        return [_mute(where, line, len(dead), unasked, last)]
    return [nobody_answers(where, f"{line.baud} 8{line.parity}1", len(dead), noisy + bus.noisy, unasked)]


async def _at_rate(
    where: str, line: settings.ModbusRtuLine, baud: int, parity: str, units: list[int], look: Look
) -> Finding | None:
    taken = taken_frame(line.port, f"8{parity}1")[1]
    if (baud, taken) == (line.baud, line.parity):
        return None
    other: Any = msgspec.structs.replace(line, baud=baud, parity=taken)
    look.say(f"{where}: asking at {baud} 8{taken}1")
    async with _Bus(other, look) as bus:
        for unit in units:
            if await bus.lives(unit, PROBES[:1]):
                key = "parity" if baud == line.baud else "baud"
                wanted = f'parity = "{taken}"' if key == "parity" else f"baud = {baud}"
                if key == "baud" and taken != line.parity:
                    wanted += f', parity = "{taken}"'
                return Finding(
                    f"wrong {key}",
                    f"the bus is asked at {line.baud} 8{line.parity}1, and its devices speak at {baud} 8{taken}1",
                    f"{where}.{key}",
                    f"unit {unit} answers at {baud} 8{taken}1; at {line.baud} 8{line.parity}1 none of {len(units)}",
                    f"write {wanted} into [{where}], then: systemctl reload bega-gateway",
                    True,
                    LINE,
                )
    return None


def _wrong_unit(device: str, unit: int, strangers: list[int]) -> Finding:
    one = len(strangers) == 1
    who = f"unit {strangers[0]} answers" if one else f"units {', '.join(map(str, strangers))} answer"
    return Finding(
        "wrong unit",
        f"{device} is asked as unit {unit}, where nobody is; another unit answers",
        f"devices.{device}.settings.address",
        f"unit {unit} is silent, {who} and nobody is configured there",
        f"write address = {strangers[0]} into devices.{device}.settings, or set the meter to {unit}; then reload",
        True,
        DEVICE,
    )


def _mute(where: str, line: settings.ModbusTcpLine, dead: int, unasked: int, last: int) -> Finding:
    rest = f", {unasked} others were not asked" if unasked else ""
    return Finding(
        "server mute",
        "the Modbus TCP server takes the connection and answers nothing",
        where,
        f"{line.host}:{line.port}: 0 answers of {dead} devices{rest}, none of units 1 to {last}",
        "end other programs that are connected to it, most serve few; switch it off and on; is it the right port?",
        True,
        LINE,
    )


def _silent(device: str, unit: int, alive: int, last: int) -> Finding:
    return Finding(
        "device silent",
        f"{device} is silent, and others on its line answer: it is this device, not the line",
        f"devices.{device}",
        f"unit {unit} does not answer; {alive} others do, and no unit of 1 to {last} that is not configured",
        f"see the supply of {device}, its terminals, and which unit and baud its display shows",
        True,
        DEVICE,
    )


def _silent_behind(device: str, unit: int, behind: dict[int, int]) -> Finding:
    code = behind.get(unit, 0x0B)
    return Finding(
        "silent behind a converter",
        f"the converter is well, and {device} behind it does not answer",
        f"devices.{device}",
        f"unit {unit}: Modbus exception 0x{code:02X}, {SILENT_BEHIND[code]}",
        f"see the supply of {device}, its unit ({unit}), and that the converter has the baud and parity of its bus",
        True,
        DEVICE,
    )


def _unit(device: settings.Device) -> int:
    address = device.settings.get("address", 1)
    return address if isinstance(address, int) else 1
