"""Each device of a node is read over its cable: by its own driver, which runs here, on the wires that the node has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bega.clock import mono_ms
from bega.devices import asked, load_driver, must_be_asked, wire_of
from bega_firmware.proof.buses import Sleep, Wires, usual_line
from bega_firmware.proof.found import Device
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import Reading

if TYPE_CHECKING:
    from bega_protocols.ask import Ask
    from bega_protocols.driver import Driver, Exchange

SUPPLIED_S = 1.0  # from power to the first answer of the slowest sensor (SCD41)
METERS = ("dsmr_p1", "sml_meter", "iec62056_meter", "mbus_meter", "modbus_meter")
LISTEN_MS, LISTEN_TO_METERS_MS = 6_000, 12_000  # to what talks by itself; a P1 port speaks each 10 s at least
LOOK_EVERY_MS = 250
AGAIN = 10  # measurements of a quick I2C sensor: ten that are the same, byte for byte, are one that hangs
QUICK_MS = 1500  # a sensor that is slower is measured once
OTHER_MS = 2500  # to whether another device, or another rate, explains what is heard
RATES = (9600, 115200, 19200)  # beside the driver's own
COUNTER = "pulses"  # the word for a contact's driver (firmware/node/sensors.py)
NOW_MS = 1  # zero is the clock of a capture (bega_protocols/doubt.py)


@dataclass
class Heard:
    """What came of one device."""

    device: Device
    kind: str  # of its wire: "serial", "i2c", "modbus", "mbus", "pulses"
    groups: list[list[Reading]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # why frames were none
    octets: int = 0
    unanswered: int = 0
    asked: int = 0
    doubt: str = ""  # what its driver says of the last frame
    repeats: bool = False  # ten answers in a row were the same
    speaks_at: str = ""  # "19200 8N1", the line on which it makes sense instead
    is_another: str = ""  # the device of the configuration whose driver understands it
    scl_sda: tuple[bool, bool] = (True, True)  # levels of its bus before it was used
    addresses: Sequence[int] = ()  # that acknowledge on its bus
    address: int | None = None  # its own
    level: int | None = None  # of a contact
    closings: int | None = None  # that were counted, None: nobody was asked to close it
    period_s: int = 0  # of one that speaks so seldom that we may have missed it
    refused: str = ""  # why it could not be tried
    took_ms: int = 0


class Bench:
    """Reads all devices of a node; those on I2C and those that talk by themselves at the same time."""

    def __init__(
        self,
        wires: Wires,
        clock: Callable[[], int] = mono_ms,
        sleep: Sleep = time.sleep,
        ask: Callable[[str], None] = lambda words: None,
    ) -> None:
        """ask(words): what the technician is to do with his hands, now."""
        self._wires = wires
        self._ask = ask
        self._clock = clock
        self._sleep = sleep
        self._began_ms = clock()

    def read(self, devices: Iterable[Device], taps_s: float = 0.0) -> list[Heard]:
        """Return what came of each device. taps_s: how long contacts are counted. Raises CableError."""
        found = [Heard(device, kind_of(device)) for device in devices]
        pins = {each.device.power_pin for each in found if each.device.power_pin is not None}
        for pin in sorted(pins):
            self._wires.supply(pin)
        if pins:
            self._sleep(SUPPLIED_S)
        tries = [each for each in (self._begun(one) for one in found if one.kind != COUNTER) if each is not None]
        self._open(tries)
        self._together([each for each in tries if each.steps_alone is False])
        for each in tries:
            if each.steps_alone:
                self._alone(each)
        for each in tries:
            self._explain(each, tries)
        for one in found:
            if one.kind == COUNTER:
                self._count(one, taps_s)
        return found

    def _begun(self, heard: Heard) -> Try | None:
        try:
            driver = load_driver(heard.device.driver, heard.device.settings)
        except ConfigError as error:
            heard.refused = str(error)
            return None
        return Try(heard, driver, heard.device.line or usual_line(driver.line), self._clock())

    def _open(self, tries: list[Try]) -> None:
        opened: dict[str, tuple[tuple[bool, bool], list[int]]] = {}
        for each in tries:
            device = each.heard.device
            if each.heard.kind == "i2c":
                if device.bus not in opened:
                    levels = self._wires.levels(device.wiring)
                    opened[device.bus] = levels, self._wires.open_i2c(device.bus, device.wiring)
                each.heard.scl_sda, each.heard.addresses = opened[device.bus]
            elif device.bus not in opened:
                self._wires.open_uart(device.bus, device.wiring, each.line)

    def _together(self, tries: list[Try]) -> None:
        """Measure what waits for itself, and listen meanwhile to what talks."""
        began_ms = self._clock()
        for each in tries:
            each.begin(began_ms)
        talkers = [each for each in tries if each.listens]
        while True:
            due = [each for each in tries if each.ask is not None]
            listening = [
                each for each in talkers if not each.heard.groups and self._clock() - began_ms < each.listen_ms
            ]
            if not due and not listening:
                return
            self._listen(listening)
            for each in due:
                if not each.is_put:
                    self._put(each)
                elif each.due_ms <= self._clock():
                    self._take(each)
            waits = [each.due_ms - self._clock() for each in due if each.ask is not None]
            self._sleep(max(0, min([LOOK_EVERY_MS if listening else 1000, *waits])) / 1000)

    def _listen(self, talkers: list[Try]) -> None:
        for bus, chunk in self._wires.said([each.heard.device.bus for each in talkers]).items():
            for each in talkers:
                if each.heard.device.bus == bus and chunk:
                    each.take(chunk, self._clock())

    def _put(self, each: Try) -> None:
        """Put its question; where the wait for the answer is short, the chip has done all of it."""
        assert each.ask is not None
        is_short = self._wires.is_short(each.ask)
        written = self._wires.write_i2c(each.heard.device.bus, each.ask) if each.ask.write or is_short else b""
        if is_short or written is None:  # nobody took it: then nobody will answer
            self._answered(each, written)
        else:
            each.is_put = True
            each.due_ms = self._clock() + each.ask.wait_ms + 1

    def _take(self, each: Try) -> None:
        """Take the answer that is due."""
        assert each.ask is not None
        self._answered(each, self._wires.read_i2c(each.heard.device.bus, each.ask))

    def _answered(self, each: Try, octets: bytes | None) -> None:
        each.answer(octets, self._clock())
        if each.ask is None and each.wants_more(self._clock()):
            each.begin(self._clock())

    def _alone(self, each: Try) -> None:
        """Measure a device that is asked on a UART."""
        device = each.heard.device
        self._wires.open_uart(device.bus, device.wiring, each.line)
        each.begin(self._clock())
        while each.ask is not None:
            each.answer(self._wires.ask(device, each.ask, each.heard.kind), self._clock())

    def _explain(self, each: Try, others: list[Try]) -> None:
        """Find out why a serial device gave nothing: another device hangs there, or it speaks at another rate."""
        heard = each.heard
        if heard.kind not in ("serial", "modbus", "mbus") or heard.groups or heard.refused:
            return
        for other in others:
            could_be = other is not each and other.heard.kind == heard.kind == "serial" and other.listens
            if could_be and self._makes_sense(other.heard.device, heard.device, other.line):
                heard.is_another = other.heard.device.name
                return
        if each.listens and heard.octets:
            bits = each.line.split()[1]
            for line in dict.fromkeys([each.usual, *(f"{baud} {bits}" for baud in RATES)]):
                if line != each.line and self._makes_sense(heard.device, heard.device, line):
                    heard.speaks_at = line
                    return

    def _makes_sense(self, whose: Device, place: Device, line: str) -> bool:
        """Return whether the driver of `whose` understands what is said at `place` with this line."""
        driver = load_driver(whose.driver, whose.settings)
        self._wires.open_uart(place.bus, place.wiring, line)
        end_ms = self._clock() + OTHER_MS
        while self._clock() < end_ms:
            self._sleep(LOOK_EVERY_MS / 1000)
            chunk = self._wires.said([place.bus]).get(place.bus, b"")
            if chunk and driver.feed(chunk, NOW_MS):
                return True
        return False

    def _count(self, heard: Heard, taps_s: float) -> None:
        pin = heard.device.wiring["pin"]
        if taps_s:
            self._ask(f"now: close the contact {heard.device.name} on GPIO {pin}, some times within {taps_s:.0f} s")
        level, count = self._wires.closings(pin, taps_s)
        heard.level, heard.closings = level, count if taps_s else None


class Try:
    """One device while it is tried."""

    def __init__(self, heard: Heard, driver: Driver, line: str, began_ms: int) -> None:
        self.heard = heard
        self.line = line
        self.ask: Ask | None = None
        self.is_put = False
        self.due_ms = began_ms
        self.usual = usual_line(driver.line)
        self.listens = not must_be_asked(driver)
        self.listen_ms = LISTEN_TO_METERS_MS if heard.device.driver in METERS else LISTEN_MS
        self.steps_alone = must_be_asked(driver) and heard.kind != "i2c"
        self._driver = driver
        self._steps: Exchange | None = None
        period_ms = getattr(driver, "period_ms", 0)
        heard.period_s = period_ms // 1000 if self.listens and period_ms > self.listen_ms else 0
        self._began_ms = self._asked_ms = began_ms
        self._frames: list[bytes] = []

    def begin(self, now_ms: int) -> None:
        """Put the first question of a measurement."""
        if self.listens:
            return
        self._asked_ms = now_ms
        self._frames.append(b"")
        self._steps = asked(self._driver).measure(NOW_MS + now_ms - self._began_ms)
        self._next(lambda steps: next(steps), now_ms)

    def answer(self, octets: bytes | None, now_ms: int) -> None:
        """Give the driver what came; `ask` is its next question, None once it has measured."""
        if octets is None:
            self.heard.unanswered += 1
        self.heard.octets += len(octets or b"")
        self._frames[-1] += octets or b""
        self._next(lambda steps: steps.send(octets), now_ms)

    def take(self, chunk: bytes, now_ms: int) -> None:
        """Give the driver what it said by itself."""
        self.heard.octets += len(chunk)
        self._keep(self._driver.feed(chunk, NOW_MS + now_ms - self._began_ms), now_ms)

    def wants_more(self, now_ms: int) -> bool:
        """Return whether a quick sensor is to be measured again, to see whether it repeats itself."""
        frames = self._frames[1:]  # the first one has its set-up in it
        self.heard.repeats = len(frames) >= AGAIN and len(set(frames)) == 1
        is_quick = now_ms - self._asked_ms <= QUICK_MS
        return bool(self.heard.groups) and is_quick and len(frames) < AGAIN

    def _next(self, step: Callable[[Exchange], Ask], now_ms: int) -> None:
        assert self._steps is not None
        self.is_put = False
        self.due_ms = now_ms
        try:
            self.ask = step(self._steps)
            self.heard.asked += 1
            if "address" in self.ask.line:
                self.heard.address = self.ask.line["address"]
        except StopIteration as stop:
            self.ask = None
            self._keep(stop.value or [], now_ms)

    def _keep(self, groups: list[list[Reading]], now_ms: int) -> None:
        self.heard.groups += groups
        self.heard.damaged += [_why(error) for _, error in self._driver.damaged]
        self._driver.damaged.clear()
        self.heard.doubt = self._driver.attributes.get("doubt", "")
        self.heard.took_ms = now_ms - self._began_ms


def kind_of(device: Device) -> str:
    """Return the kind of wire that a device hangs on. Raises ConfigError if there is no such driver."""
    from bega.devices import driver_class

    return COUNTER if device.driver == COUNTER else wire_of(driver_class(device.driver))


def _why(error: WireError) -> str:
    return error.why
