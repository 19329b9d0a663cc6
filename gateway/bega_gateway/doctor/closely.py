"""A line on which nobody is heard is tried: at its own rate, at the usual others, at other units.

Only reads leave the gateway here, as in a scan. A line that the gateway holds it lends for that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bega.devices import driver_class, load_driver, must_be_asked
from bega_gateway import config as settings
from bega_gateway.control import ask_to_lend
from bega_gateway.doctor.finding import DEVICE, LINE, Finding
from bega_gateway.doctor.heard import is_deaf
from bega_gateway.doctor.look import Look
from bega_gateway.doctor.ports import of_error
from bega_gateway.lending import LONGEST_S
from bega_gateway.lines.port import Inbox, open_port
from bega_gateway.lines.serial import rate_and_frame
from bega_gateway.lines.wire_serial import SerialWire
from bega_gateway.scan.attempt import drivers_on, loaded, measured
from bega_gateway.scan.search import taken_frame
from bega_gateway.status import Status
from bega_protocols.errors import ConfigError, LineError

if TYPE_CHECKING:
    from bega_protocols.driver import Driver

Rate = tuple[int, str]

USUAL_BAUDS = (9600, 115_200, 19_200, 4800, 2400, 38_400, 57_600, 1200)
FRAMES = ("8N1", "8E1", "7E1")
MBUS_RATES = ((2400, "8E1"), (300, "8E1"), (9600, "8E1"), (2400, "8N1"))
ANOTHER_S = 4.0  # a talker that spoke within this is given so long at another rate
ANSWER_S = 8.0  # so long may a device that is asked take, at one rate
ASKED_FOR_S = 20.0  # the devices of a line, one after the other: an M-Bus segment has 250 meters
SPARE_S = 10.0  # before the gateway takes a line back
SENSE_BYTES = 2_000  # after so many without a frame a rate makes no sense
Serial = settings.SerialLine | settings.MbusLine


async def of_wires(config: settings.Config, status: Status | None, look: Look, explained: set[str]) -> list[Finding]:
    """Return what was found out on the lines that nobody is heard on, those in `explained` left out."""
    found: list[Finding] = []
    for name, line in config.lines.items():
        devices = {key: device for key, device in config.devices.items() if device.line == name}
        if not devices or name in explained or (status and not is_deaf(status, name)):
            continue
        if isinstance(line, settings.MqttLine | settings.BleLine | settings.I2cLine):
            continue
        async with _lent(config, name, status) as is_ours:
            if not is_ours:
                continue
            look.say(f"lines.{name}: trying what is heard and who answers")
            try:
                async with asyncio.timeout(LONGEST_S - SPARE_S if status else None):
                    nearer = await _of_line(name, line, devices, look)
                found += nearer or _answers_us(status, name)
            except TimeoutError:  # the gateway takes it back; its counters must do
                look.say(f"lines.{name}: it takes too long to try")
            except LineError as error:
                place = f"lines.{name}.{'host' if isinstance(line, settings.ModbusTcpLine) else 'port'}"
                found.append(_of_error(place, line, error))
    return found


@asynccontextmanager
async def _lent(config: settings.Config, name: str, status: Status | None) -> AsyncIterator[bool]:
    """Have the line for the block; yields whether it is ours."""
    if status is None:
        yield True
        return
    try:
        writer = await ask_to_lend(Path(config.gateway.state_dir), name)
    except ConfigError:
        yield False
        return
    try:
        yield True
    finally:
        writer.transport.abort()


def _answers_us(status: Status | None, name: str) -> list[Finding]:
    """Return the finding for a line of a gateway that hears nobody on it, where everybody answers the doctor."""
    devices = [device for device in status.devices if device.line == name] if status else []
    if not devices or any(device.lacking or device.to_set or device.counts.refused for device in devices):
        return []  # why is told by what they refuse
    return [
        Finding(
            "heard by the doctor",
            "the doctor hears what the gateway does not: the file was changed since it was read, or it works again",
            f"lines.{name}",
            f"with the file as it is {len(devices)} of {len(devices)} devices answer; the gateway hears none",
            "systemctl reload bega-gateway; bega gateway status after a minute; again and again: a loose plug",
            True,
            LINE,
        )
    ]


async def _of_line(name: str, line: settings.Line, devices: dict[str, settings.Device], look: Look) -> list[Finding]:
    if isinstance(line, settings.ModbusRtuLine | settings.ModbusTcpLine):
        from bega_gateway.doctor.modbus import of_bus

        return await of_bus(name, line, devices, look)
    assert isinstance(line, Serial)
    device_name, device = next(iter(devices.items()))
    driver = load_driver(device.driver, device.settings)
    if must_be_asked(driver):
        return await _of_asked(name, line, devices, look)
    return await _of_talker(name, line, device_name, device, look)


# ------------------------------------------------------------------ who talks by itself


@dataclass
class _Heard:
    """What came at one rate."""

    size: int = 0
    first_s: float = 0.0
    by: dict[str, int] = field(default_factory=dict)  # driver: frames that it understood


async def _of_talker(name: str, line: Serial, device_name: str, device: settings.Device, look: Look) -> list[Finding]:
    assert isinstance(line, settings.SerialLine)
    own = rate_and_frame(line, driver_class(device.driver).line)
    others = [other for other in drivers_on("serial") if other != device.driver]
    heard = await _listened(line.port, own, [device.driver, *others], device, look.listen_s)
    where = f"lines.{name}"
    if device.driver in heard.by:
        return []
    if not heard.size:
        return [_nothing_comes(where, device_name, own, look.listen_s)]
    if heard.by:
        return [_another_talks(where, device_name, device.driver, heard)]
    within_s = ANOTHER_S if heard.first_s < ANOTHER_S - 1 else look.listen_s
    for rate in _other_rates(line.port, own):
        look.say(f"{where}: listening at {rate[0]} {rate[1]}")
        again = await _listened(line.port, rate, [device.driver, *others], device, within_s)
        if again.by:
            return [_wrong_rate(where, own, rate, heard, again)]
    return [_no_sense(where, own, heard)]


async def _listened(port: str, rate: Rate, names: list[str], device: settings.Device, within_s: float) -> _Heard:
    """Listen until somebody is understood; raises LineError."""
    drivers = dict(_talkers(names, device))
    heard = _Heard()
    loop = asyncio.get_running_loop()
    wire = open_port(port, rate[0], taken_frame(port, rate[1]))
    inbox = Inbox(wire.fileno())
    began_s = loop.time()
    try:
        async with asyncio.timeout(within_s):
            while device.driver not in heard.by and heard.size < SENSE_BYTES:
                chunk = await inbox.take()
                heard.first_s = heard.first_s or loop.time() - began_s
                heard.size += len(chunk)
                for name, driver in drivers.items():
                    groups = driver.feed(chunk, round(1000 * loop.time()))
                    driver.damaged.clear()
                    if groups:
                        heard.by[name] = heard.by.get(name, 0) + len(groups)
                if heard.by and max(heard.by.values()) > 1:
                    break
    except TimeoutError:
        pass
    except OSError as error:
        raise LineError(f"{port} failed while it was listened to: {error.strerror}") from None
    finally:
        inbox.close()
        wire.close()
    return heard


def _talkers(names: list[str], device: settings.Device) -> Iterator[tuple[str, Driver]]:
    for name in names:
        driver = loaded(name, device.settings if name == device.driver else {})
        if driver and not must_be_asked(driver):
            yield name, driver


def _other_rates(port: str, own: Rate) -> list[Rate]:
    """Return what to try: the same rate with another frame, then the usual rates."""
    rates = [(own[0], taken_frame(port, frame)) for frame in FRAMES]
    rates += [(baud, taken_frame(port, own[1])) for baud in USUAL_BAUDS]
    return [rate for rate in dict.fromkeys(rates) if rate != (own[0], taken_frame(port, own[1]))]


def _nothing_comes(where: str, device: str, own: Rate, for_s: float) -> Finding:
    return Finding(
        "talker silent",
        f"{device} says nothing: not one byte came. At a wrong rate or with swapped wires there would be garbage",
        where,
        f"0 bytes in {for_s:.0f} s at {own[0]} {own[1]}",
        "see its supply (5 V?), that its TX goes to our RX, and for P1 that the request line is high; is it this port?",
        True,
        LINE,
    )


def _another_talks(where: str, device: str, driver: str, heard: _Heard) -> Finding:
    other = max(heard.by, key=heard.by.__getitem__)
    return Finding(
        "another device",
        f"what talks here is a {other}, not a {driver}",
        where,
        f"{heard.by[other]} frames of a {other}, none of a {driver}, in {heard.size} bytes",
        f'write driver = "{other}" into devices.{device}, or put the right device on this port',
        True,
        LINE,
    )


def _wrong_rate(where: str, own: Rate, rate: Rate, heard: _Heard, again: _Heard) -> Finding:
    is_parity = own[0] == rate[0]
    key = "parity" if is_parity else "baud"
    value = f'"{rate[1][1]}" (frame {rate[1]})' if is_parity else str(rate[0])
    who = max(again.by, key=again.by.__getitem__)
    return Finding(
        f"wrong {key}",
        f"the line is read at {own[0]} {own[1]}, and the device speaks at {rate[0]} {rate[1]}",
        f"{where}.{key}",
        f"{heard.size} bytes without sense at {own[0]} {own[1]}; at {rate[0]} {rate[1]} a frame of a {who} within"
        f" {again.size} bytes",
        f"write {key} = {value} into [{where}], then: systemctl reload bega-gateway",
        True,
        LINE,
    )


def _no_sense(where: str, own: Rate, heard: _Heard) -> Finding:
    seen = f"{heard.size} bytes at {own[0]} {own[1]}; no usual rate makes sense"
    return Finding(
        "bytes make no sense",
        "bytes come that no driver understands at any usual rate: the level is the wrong way round (A and B swapped, or"
        " a P1 cable that does not invert), it is another device, or noise",
        where,
        seen,
        "swap A and B at this end, for P1 take a cable that inverts; else see what device it is, its screen and ground",
        True,
        LINE,
    )


# ------------------------------------------------------------------ who must be asked


async def _of_asked(name: str, line: Serial, devices: dict[str, settings.Device], look: Look) -> list[Finding]:
    """Ask each device of a port or an M-Bus segment, then the first one at other rates."""
    where = f"lines.{name}"
    first = next(iter(devices.values()))
    usual = rate_and_frame(line, driver_class(first.driver).line) if isinstance(line, settings.SerialLine) else None
    own = usual or (line.baud or 2400, f"8{line.parity}1")
    spoke: dict[str, bool] = {}
    until_ms = look.mono_ms() + 1000 * ASKED_FOR_S
    for device_name, device in devices.items():
        if spoke and look.mono_ms() >= until_ms:
            look.say(f"{where}: {len(devices) - len(spoke)} of {len(devices)} devices are not asked, it takes too long")
            break
        look.say(f"{where}: asking {device_name} at {own[0]} {own[1]}")
        spoke[device_name] = await _speaks(line.port, own, device, look)
    if all(spoke.values()):
        return []
    silent = [device_name for device_name, said in spoke.items() if not said]
    if len(silent) < len(spoke):
        return [_silent_among(device_name, len(spoke) - len(silent), own) for device_name in silent]
    rates = list(MBUS_RATES) if isinstance(line, settings.MbusLine) else _other_rates(line.port, own)
    taken = dict.fromkeys((baud, taken_frame(line.port, frame)) for baud, frame in rates)
    for rate in taken:
        if rate == (own[0], taken_frame(line.port, own[1])):
            continue
        look.say(f"{where}: asking at {rate[0]} {rate[1]}")
        if await _speaks(line.port, rate, _at(first, rate), look):
            heard, again = _Heard(), _Heard(by={first.driver: 1})
            return [_wrong_rate(where, own, rate, heard, again)]
    return [nobody_answers(where, f"{own[0]} {own[1]}", len(spoke), 0, len(devices) - len(spoke))]


def _at(device: settings.Device, rate: Rate) -> settings.Device:
    """Return the device as it must be told of another rate, where its driver has a setting for it."""
    if "baud" not in device.settings:
        return device
    return msgspec.structs.replace(device, settings={**device.settings, "baud": rate[0]})


async def _speaks(port: str, rate: Rate, device: settings.Device, look: Look) -> bool:
    driver = load_driver(device.driver, device.settings)
    wire = SerialWire(port, rate[0], taken_frame(port, rate[1]), look.mono_ms)
    await wire.open()
    try:
        async with asyncio.timeout(ANSWER_S), wire.turn():
            outcome = await measured(wire, driver, look.mono_ms)
    except TimeoutError:
        return False
    finally:
        wire.close()
    return bool(outcome.readings)


def _silent_among(device: str, others: int, own: Rate) -> Finding:
    return Finding(
        "device silent",
        f"{device} is silent, and others on its line answer: it is this device, not the line",
        f"devices.{device}",
        f"no answer at {own[0]} {own[1]}; {others} others answer",
        f"see its supply and devices.{device}.settings.address; bega gateway scan finds every address",
        True,
        DEVICE,
    )


def nobody_answers(where: str, how: str, devices: int, noise: int, unasked: int = 0) -> Finding:
    """Return the finding for a line that is silent at every rate, or where nothing but `noise` bytes came.

    devices: that were asked; unasked: others, for which there was no time
    """
    rest = f"; {unasked} others were not asked" if unasked else ""
    if noise:
        return Finding(
            "A and B swapped",
            "bytes come and no answer at any usual rate: most likely A and B are swapped, or there is no termination",
            where,
            f"{noise} bytes without sense upon questions at {how}, 0 answers of {devices} devices{rest}",
            "swap A and B at this end only; then 120 ohm at both ends of the bus and nowhere else, and a common ground",
            True,
            LINE,
        )
    return Finding(
        "line silent",
        "nobody answers at any usual rate: no supply, a broken wire, or A and B swapped (then a bus may be silent too)",
        where,
        f"0 answers of {devices} devices at {how} and the usual other rates{rest}",
        "measure the supply of a device; swap A and B at this end; put one device on a short cable to the adapter",
        True,
        LINE,
    )


def _of_error(place: str, line: settings.Line, error: LineError) -> Finding:
    if not isinstance(line, settings.ModbusTcpLine):
        return of_error(place, getattr(line, "port", ""), error)
    seen, _, remedy = str(error).removesuffix("; trying again").partition(": ")
    what = "the Modbus TCP server cannot be reached"
    return Finding("server away", what, place, seen, remedy or f"ping {line.host}", True, LINE)
