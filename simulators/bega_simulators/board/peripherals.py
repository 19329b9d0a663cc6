"""The chip's own parts and what hangs on its pins: answers the shims, one request a line, and obeys the bench."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from bega.clock import mono_ms
from bega_protocols.errors import ConfigError
from bega_simulators.board.cable import Cable, Plug
from bega_simulators.board.chip import DEEPSLEEP_RESET, HARD_RESET, PIN_WAKE, PWRON_RESET, WDT_RESET, Chip
from bega_simulators.board.cut import Cut, FlashFile, PowerCut
from bega_simulators.board.nvs import Nvs
from bega_simulators.board.partitions import DATA, NVS, Bootloader
from bega_simulators.board.pins import Pins, Pulses
from bega_simulators.board.radio import Bluetooth, Wifi
from bega_simulators.board.remote import Remote
from bega_simulators.board.sensors import I2C_PINS, UART_PINS, Form, Sensor, Values, hang
from bega_simulators.hosts.i2c import I2cBus, NotAcknowledged

__all__ = ["HARD_RESET", "PWRON_RESET", "UART_PINS", "USUAL_SENSORS", "WDT_RESET", "AirPeripherals"]

NO_SUCH_DEVICE, TIMED_OUT = 19, 116  # errnos of the ESP32's I2C: nobody acknowledges; a line is held down
BREATHE_EVERY_MS = 1000
FASTEST_I2C_HZ = 100_000  # of the slowest of them, an SCD41
BITS_A_BYTE = 10  # start, eight, stop
INVERTS_RX = 4  # machine.UART.INV_RX
RX, RX_IDLE = 1, 4096  # interrupts of a UART
INTERRUPT_BYTES = 16  # each, since MicroPython reads on until it has what it asked for
USUAL_SENSORS = ("pms=pms5003@uart2", "sht=sht4x@i2c0")


class AirPeripherals:
    """The peripherals of one node from power-on to power-off.

    faults: {"pms": {...}, "sht": {...}, "wifi": {"away"}, "i2c0": {"nak", "held", "no pull-ups"}, "uart2": {"noise"}},
    those of the sensors with the names that the devices' simulators give them.
    """

    def __init__(self, seed: int, air: Callable[[], Values], sensors: Iterable[str] = USUAL_SENSORS) -> None:
        """`air` returns what the air is like now, each value in its quantity's unit; sensors: see hang.

        Raises ConfigError if a sensor cannot be, or two are in each other's way.
        """
        self.chip = Chip(seed)
        self.pins = Pins(self._interrupt)
        self.wifi = Wifi()
        self.cables: dict[str, Cable | Plug] = {}  # by the UART that they hang on
        self.bluetooth = Bluetooth(self.chip.address(2), lambda: None)
        self._parts: list[Any] = [self, self.chip, self.pins, self.wifi, self.bluetooth]
        self._sensors = {sensor.name: sensor for sensor in (hang(text, seed) for text in sensors)}
        places = [(sensor.bus, sensor.address) for sensor in self._sensors.values()]
        if len(set(places)) < len(places):
            raise ConfigError("two sensors on one serial line, or at one address")
        self.pins.moved.append(self._moved)
        self._seed = seed
        self._air = air
        self._fixed: Values = {}
        self._i2c = I2cBus({s.address: s for s in self._sensors.values() if s.bus in I2C_PINS}, mono_us)
        self._i2c_wired = False
        self._uart_forms: dict[str, Form] = {}
        self._uart_irqs: dict[str, tuple[int, str]] = {}  # when, and the interrupt's name
        self._uart_bytes: dict[str, int] = {}  # sent to the board since its boot
        self._wire_faults: dict[str, set[str]] = {wire: set() for wire in (*UART_PINS, *I2C_PINS)}
        self._wake_on: dict[int, int] = {}
        self._events: socket.socket | None = None
        self.cut = Cut()
        self._flash_path: Path | None = None
        self._flash: FlashFile | None = None
        self._stored: list[Any] = []  # the parts that live on the flash
        self._remote = Remote(lambda op, **facts: self.answer({"op": op, **facts}), lambda: self.reset_asked)
        self._parts.append(self._remote)
        self._breathed_ms = mono_ms() - BREATHE_EVERY_MS
        for bus in I2C_PINS:
            self._pull_up(bus)

    @property
    def devices(self) -> list[str]:
        """Return which devices hang here, by their folders' names."""
        return [sensor.device for sensor in self._sensors.values()]

    @property
    def cause(self) -> int:
        """Return why the chip booted last."""
        return self.chip.cause

    @property
    def reset_asked(self) -> bool:
        """Return whether the power, or the reset, is to end the interpreter."""
        if self.cut.happened and not self.chip.reset_asked:
            self.chip.reset(PWRON_RESET)
        return self.chip.reset_asked

    @reset_asked.setter
    def reset_asked(self, asked: bool) -> None:
        self.chip.reset_asked = asked

    def fix(self, quantity: str, value: float) -> None:
        """Let the air have this value from now on, whatever the town says."""
        self._fixed[quantity, ""] = value
        self.breathe()

    @property
    def watchdog_due_ms(self) -> int | None:
        """Return when the watchdog bites, None while it is not started."""
        return self.chip.watchdog_due_ms

    def power_on(self, cause: int) -> None:
        """Forget what a reset forgets; `cause` is what the firmware will read."""
        if cause != DEEPSLEEP_RESET:  # there `rest` did it, and some pins hold their level
            self.pins.reset(after_sleep=False, wakers=())
        self.chip.power_on(cause)
        self.wifi.reset()
        self.bluetooth.reset()
        self._uart_forms.clear()
        self._uart_irqs.clear()
        self._uart_bytes.clear()
        self._i2c_wired = False
        self._wake_on.clear()
        self._remote.reset()
        self.cut.power_on()
        with suppress(PowerCut):  # in the bootloader; it begins anew with the next power-on
            self._read_flash()

    def insert_flash(self, path: Path) -> None:
        """Let this be the board's flash from the next power-on on."""
        self._flash_path = path

    def _read_flash(self) -> None:
        """Do what the bootloader does, and take up what is stored."""
        self._stored = []
        if self._flash:
            self._flash.close()
        if self._flash_path is None:
            return
        self._flash = FlashFile(self._flash_path, self.cut)
        bootloader = Bootloader(self._flash)
        self._stored.append(bootloader)
        for row in bootloader.rows:
            if (row.type, row.subtype) == (DATA, NVS):
                self._stored.append(Nvs(self._flash, row.start, row.size))

    def listen(self) -> dict[str, socket.socket | BinaryIO]:
        """Return what the interpreter inherits: a wire for interrupts, 16 bytes each, and the flash's files."""
        if self._events is not None:
            self._events.close()
        self._events, theirs = socket.socketpair()
        self._events.setblocking(False)
        theirs.setblocking(False)
        ends: dict[str, socket.socket | BinaryIO] = {"interrupts": theirs, "cut": _copy(self.cut.memory)}
        if self._flash:
            ends["flash"] = _copy(self._flash.file)
        return ends

    async def rest(self) -> int:
        """Let go of the pins, sleep if the firmware asked for that, and return the cause of the next boot."""
        self.pins.reset(self.chip.asleep, self._wake_on)
        return await self.chip.rest()

    def state(self) -> dict[str, Any]:
        """Return what the bench shows of the board."""
        return {
            "cause": self.chip.cause,
            "asleep": self.chip.asleep,
            "flash_operations": self.cut.operations,
            "advertises": self.bluetooth.advertises,
            "powered": {sensor.name: sensor.powered for sensor in self._sensors.values() if sensor.pin is not None},
        }

    @classmethod
    def knows(cls, word: str) -> bool:
        """Return whether the bench has such an order."""
        return hasattr(cls, "_order_" + word)

    def obey(self, order: dict[str, Any]) -> None:
        """Do what the bench says; docs/firmware.md lists its words. Raises KeyError, TypeError or ValueError."""
        for word, facts in order.items():
            obeyed: Callable[[Any], None] | None = getattr(self, "_order_" + word, None)
            if obeyed is None:
                raise KeyError(word)
            obeyed(facts)

    def measured(self) -> Values:
        """Return what there is to measure now, each value in its quantity's unit."""
        return {**self._air(), **self._fixed}

    def breathe(self) -> None:
        """Bring the air to the sensors."""
        self._breathed_ms = mono_ms()
        air = self.measured()
        for sensor in self._sensors.values():
            sensor.breathe(air)

    def answer(self, request: dict[str, Any]) -> Any:
        """Return what a shim asked for.

        Raises OSError with the errno that the firmware shall see, PowerCut if there is to be no answer.
        """
        name = "do_" + request.pop("op")
        for part in (*self._parts, *self._stored):
            if hasattr(part, name):
                return getattr(part, name)(**request)
        raise OSError(NO_SUCH_DEVICE, "no flash")

    async def serial(self, uart: str, wire: socket.socket) -> None:
        """Carry the bytes of the sensor on `uart` at their pace, in pieces, and commands to it, until cancelled."""
        reader, writer = await asyncio.open_connection(sock=wire)
        try:
            async with asyncio.TaskGroup() as tasks:
                if uart in self.cables:
                    tasks.create_task(self.cables[uart].carry(reader, writer, lambda: self._uart_forms.get(uart)))
                for sensor in self._sensors.values():
                    if sensor.bus == uart:
                        tasks.create_task(self._speak(sensor, writer))
                        tasks.create_task(self._obey(sensor, reader, writer))
        except* ConnectionError:
            pass
        finally:
            writer.close()

    async def _speak(self, sensor: Sensor, writer: asyncio.StreamWriter) -> None:
        chance = random.Random(self._seed)
        while True:
            self._breathe_now_and_then()
            await self._say(sensor, sensor.tick(mono_ms()), writer, chance)
            await asyncio.sleep(0.1)

    async def _obey(self, sensor: Sensor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The firmware writes a command at once, so it comes at once: nothing here cuts or joins."""
        chance = random.Random(self._seed + 1)
        while command := await reader.read(256):
            if self._uart_forms.get(sensor.bus) in (sensor.form, sensor.speaks):
                answer = sensor.answer(command) or b""
                await asyncio.sleep(sensor.answer_after_s)
                await self._say(sensor, answer, writer, chance)

    async def _say(self, sensor: Sensor, said: bytes, writer: asyncio.StreamWriter, chance: random.Random) -> None:
        """Send it in pieces, in the time that they take; who listens with another form hears something else."""
        whole, spoken = said, sensor.speaks
        while said:
            piece = said[: chance.randint(1, 12)]
            said = said[len(piece) :]
            await asyncio.sleep(len(piece) * BITS_A_BYTE / spoken[0])
            form = self._uart_forms.get(sensor.bus)
            if form is None:
                continue  # nobody listens yet: lost
            if form != spoken or "noise" in self._wire_faults[sensor.bus]:
                piece = chance.randbytes(max(1, len(piece) * form[0] // spoken[0]))
            writer.write(piece)
            self._uart_bytes[sensor.bus] = self._uart_bytes.get(sensor.bus, 0) + len(piece)
            self._uart_event(sensor.bus, RX)
            await writer.drain()
        if whole:
            self._uart_event(sensor.bus, RX_IDLE)

    def _breathe_now_and_then(self) -> None:
        if mono_ms() - self._breathed_ms >= BREATHE_EVERY_MS:
            self.breathe()

    def _interrupt(self, name: str) -> None:
        """Let the interpreter know; one that does not listen for long misses it, as the chip's queue overflows."""
        if self._events is not None:
            with suppress(OSError):
                self._events.send(name.encode().ljust(INTERRUPT_BYTES))

    def _uart_event(self, uart: str, kind: int) -> None:
        trigger, name = self._uart_irqs.get(uart, (0, ""))
        if trigger & kind:
            self._interrupt(name)

    def _moved(self, pin: int, level: int) -> None:
        for sensor in self._sensors.values():
            if sensor.pin == pin:
                sensor.supply(bool(level))
        if self._wake_on.get(pin) == level:
            self.chip.wake(PIN_WAKE)

    # What the bench orders, named after its word.

    def _order_faults(self, faults: dict[str, list[str]]) -> None:
        for device, named in faults.items():
            self.set_faults(device, named)

    def set_faults(self, device: str, faults: list[str]) -> None:
        """Let a device, a wire or "wifi" fail in these ways and no other; raises KeyError if there is none such."""
        if device in self._sensors:
            self._sensors[device].fail(faults)
            return
        found = self.wifi.faults if device == "wifi" else self._wire_faults[device]
        found.clear()
        found.update(faults)
        if device in I2C_PINS:
            self._pull_up(device)

    def _pull_up(self, bus: str) -> None:
        """Put on the pins of a bus what its resistors, and who holds it down, make of them."""
        scl, sda = I2C_PINS[bus]
        faults = self._wire_faults[bus]
        self.pins.drive(scl, None if "no pull-ups" in faults else 1)
        self.pins.drive(sda, None if "no pull-ups" in faults else int("held" not in faults))

    def _order_hung(self, faults: dict[str, list[str]]) -> None:
        for device, named in faults.items():
            self._sensors[device].hang_up(named)

    def _order_air(self, air: dict[str, float]) -> None:
        for quantity, value in air.items():
            self.fix(quantity, value)

    def _order_reset(self, asked: bool) -> None:
        if asked:
            self.chip.reset()

    def _order_brownout(self, asked: bool) -> None:
        if asked:
            self.chip.reset(PWRON_RESET, memory_stays=True)

    def _order_power_cut(self, when: bool | dict[str, Any]) -> None:
        """At once, or {"after": operations on the flash, "torn": whether in the middle of the next one}."""
        if isinstance(when, dict):
            self.cut.arm(**when)
        elif when:
            self.chip.reset(PWRON_RESET)

    def _order_flip(self, bits: list[tuple[int, int]]) -> None:
        if self._flash:
            for at, bit in bits:
                self._flash.flip(at, bit)

    def _order_pins(self, levels: dict[str, int | None]) -> None:
        for pin, level in levels.items():
            self.pins.drive(int(pin), level)

    def _order_pulses(self, pulses: dict[str, dict[str, Any]]) -> None:
        for pin, facts in pulses.items():
            self.pins.pulse(int(pin), Pulses(**facts))

    def _order_volts(self, volts: dict[str, float]) -> None:
        for pin, value in volts.items():
            self.pins.set_voltage(int(pin), value)

    def _order_wifi(self, order: dict[str, Any]) -> None:
        self.wifi.obey(order)

    def _order_idf_heap(self, facts: dict[str, int]) -> None:
        self.chip.set_idf_heap(**facts)

    # What the shims ask, named after their `op`.

    def do_wake_on(self, pins: list[int], level: int) -> None:
        self._wake_on = dict.fromkeys(pins, level)

    def do_uart_init(
        self, uart: int, baud: int, bits: int, parity: int | None, stop: int, tx: int, rx: int, invert: int = 0
    ) -> None:
        name = f"uart{uart}"
        self._uart_forms.pop(name, None)
        if UART_PINS.get(name) == (tx, rx):
            # Nothing here speaks inverted: who listens so hears something else.
            self._uart_forms[name] = (baud, bits, parity, -stop if invert & INVERTS_RX else stop)

    def do_uart_end(self, uart: int) -> None:
        self._uart_forms.pop(f"uart{uart}", None)

    def do_uart_any(self, uart: int) -> int:
        return self._uart_bytes.get(f"uart{uart}", 0)

    def do_uart_irq(self, uart: int, trigger: int, name: str) -> None:
        self._uart_irqs[f"uart{uart}"] = (trigger, name)

    def do_i2c_init(self, bus: int, scl: int, sda: int, freq: int) -> None:
        self._i2c_wired = I2C_PINS.get(f"i2c{bus}") == (scl, sda) and freq <= FASTEST_I2C_HZ

    def do_i2c_scan(self, bus: int) -> list[int]:
        return self._i2c.scan() if self._i2c_wired and not self._wire_faults[f"i2c{bus}"] else []

    def do_i2c_write(self, bus: int, address: int, data: str) -> int:
        self._check_bus(bus)
        self._breathe_now_and_then()
        try:
            self._i2c.write(address, bytes.fromhex(data))
        except NotAcknowledged:
            raise OSError(NO_SUCH_DEVICE, "no acknowledgement") from None
        return len(data) // 2

    def do_i2c_read(self, bus: int, address: int, size: int) -> str:
        self._check_bus(bus)
        try:
            return self._i2c.read(address, size).hex()
        except NotAcknowledged:
            raise OSError(NO_SUCH_DEVICE, "no acknowledgement") from None

    def _check_bus(self, bus: int) -> None:
        if "held" in self._wire_faults.get(f"i2c{bus}", ()):
            raise OSError(TIMED_OUT, "a line is held down")
        if not self._i2c_wired or {"nak", "no pull-ups"} & self._wire_faults[f"i2c{bus}"]:
            raise OSError(NO_SUCH_DEVICE, "nothing on these pins")


def mono_us() -> int:
    """Return microseconds that never go back, in steps of the clock's milliseconds."""
    return 1000 * mono_ms()


def _copy(file: int) -> BinaryIO:
    """Return a file of its own on what this descriptor is open on."""
    return os.fdopen(os.dup(file), "r+b", buffering=0)
