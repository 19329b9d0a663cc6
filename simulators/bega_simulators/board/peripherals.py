"""What hangs on an air node's pins, and the chip's own parts: answers the shims, one request a line."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from importlib import import_module
from typing import Any, NamedTuple

from bega.clock import mono_ms
from bega.devices import driver_class
from bega_protocols.errors import ConfigError
from bega_simulators.hosts.i2c import I2cBus, NotAcknowledged

PWRON_RESET, HARD_RESET, WDT_RESET = 1, 2, 3
IDLE, CONNECTING, GOT_IP, NO_AP_FOUND = 1000, 1001, 1010, 201
NO_SUCH_DEVICE = 19  # errno of an address that nobody acknowledges
JOINING_MS = 200
BREATHE_EVERY_MS = 1000
# The wiring of the simulated board, stated here and not read from the firmware: a wrong board file must fail.
UART_PINS = {"uart1": (33, 32), "uart2": (17, 16)}  # tx, rx of the board
I2C_PINS = {"i2c0": (22, 21)}  # scl, sda
FASTEST_I2C_HZ = 100_000  # of the slowest of them, an SCD41
PARITIES = {"N": None, "E": 0, "O": 1}
BITS_A_BYTE = 10  # start, eight, stop
USUAL_SENSORS = ("pms=pms5003@uart2", "sht=sht4x@i2c0")
SENSOR = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<device>[a-z0-9_]+)@(?P<bus>[a-z0-9]+)(:(?P<address>0x[0-9a-f]{2}))?")

Values = dict[tuple[str, str], float]
Form = tuple[int, int, int | None, int]  # baud, bits, parity, stop bits


class Sensor(NamedTuple):
    """One device made of code on one of the board's buses."""

    name: str
    device: str  # its folder under devices
    bus: str
    address: int  # 0 on a serial line
    form: Form  # of a serial line
    sim: Any


def hang(text: str, seed: int) -> Sensor:
    """Return what NAME=DEVICE@BUS says, or NAME=DEVICE@BUS:0xADDRESS. Raises ConfigError if it cannot be."""
    found = SENSOR.fullmatch(text)
    if not found:
        raise ConfigError(f"sensor {text}: write it as NAME=DEVICE@BUS or NAME=DEVICE@BUS:0x44")
    kind, *usual = driver_class(found["device"]).line.split()
    if found["bus"] not in {"serial": UART_PINS, "i2c": I2C_PINS}.get(kind, ()):
        raise ConfigError(
            f"sensor {text}: {found['device']} is for {kind}; here are {', '.join((*UART_PINS, *I2C_PINS))}"
        )
    sim = import_module(f"bega_protocols.devices.{found['device']}.sim").Sim({}, seed)
    if kind == "serial":
        baud, form = usual
        return Sensor(
            found["name"],
            found["device"],
            found["bus"],
            0,
            (int(baud), int(form[0]), PARITIES[form[1]], int(form[2])),
            sim,
        )
    address = int(found["address"], 16) if found["address"] else getattr(sim, "address", None)
    if address is None:
        raise ConfigError(f"sensor {text}: say its address, as {text}:0x44")
    return Sensor(found["name"], found["device"], found["bus"], address, (0, 0, None, 0), sim)


class AirPeripherals:
    """The peripherals of one air node from power-on to power-off.

    faults: {"pms": {...}, "sht": {...}, "wifi": {"away"}}, with the names that the devices' simulators give them.
    """

    def __init__(self, seed: int, air: Callable[[], Values], sensors: Iterable[str] = USUAL_SENSORS) -> None:
        """`air` returns what the air is like now, each value in its quantity's unit; sensors: see hang.

        Raises ConfigError if a sensor cannot be, or two are in each other's way.
        """
        self.cause = PWRON_RESET
        self.watchdog_due_ms: int | None = None
        self.reset_asked = False
        self._sensors = {sensor.name: sensor for sensor in (hang(text, seed) for text in sensors)}
        places = [(sensor.bus, sensor.address) for sensor in self._sensors.values()]
        if len(set(places)) < len(places):
            raise ConfigError("two sensors on one serial line, or at one address")
        self._seed = seed
        self._air = air
        self._fixed: Values = {}
        self._watchdog_ms = 0
        self._wifi_on = False
        self._wifi_since_ms: int | None = None
        self._wifi_faults: set[str] = set()
        shared = {sensor.address: sensor.sim for sensor in self._sensors.values() if sensor.bus in I2C_PINS}
        self._i2c = I2cBus(shared, mono_us)
        self._i2c_wired = False
        self._uart_forms: dict[str, Form] = {}
        self._breathed_ms = mono_ms() - BREATHE_EVERY_MS
        self._pins: dict[int, int] = {}
        self._rtc = [2000, 1, 1, 5, 0, 0, 0, 0]  # what the chip shows after power-on, until somebody sets it

    @property
    def devices(self) -> list[str]:
        """Return which devices hang here, by their folders' names."""
        return [sensor.device for sensor in self._sensors.values()]

    def power_on(self, cause: int) -> None:
        """Forget what a reset forgets; `cause` is what the firmware will read."""
        self.cause = cause
        self.watchdog_due_ms = None
        self.reset_asked = False
        self._wifi_on = False
        self._wifi_since_ms = None
        self._uart_forms.clear()
        self._i2c_wired = False

    def set_faults(self, device: str, faults: list[str]) -> None:
        """Let a device fail in these ways and no other; raises KeyError if there is no such device."""
        found: set[str] = self._wifi_faults if device == "wifi" else self._sensors[device].sim.faults
        found.clear()
        found.update(faults)

    def fix(self, quantity: str, value: float) -> None:
        """Let the air have this value from now on, whatever the town says."""
        self._fixed[quantity, ""] = value
        self.breathe()

    def breathe(self) -> None:
        """Bring the air to the sensors."""
        self._breathed_ms = mono_ms()
        for (quantity, part), value in {**self._air(), **self._fixed}.items():
            for sensor in self._sensors.values():
                with suppress(KeyError):  # it does not measure that
                    sensor.sim.set(quantity, part, Decimal(str(value)))

    def answer(self, request: dict[str, Any]) -> Any:
        """Return what a shim asked for; raises OSError with the errno that the firmware shall see."""
        asked: Callable[..., Any] = getattr(self, "_do_" + request.pop("op"))
        return asked(**request)

    async def serial(self, uart: str, wire: socket.socket) -> None:
        """Carry the bytes of the sensor on `uart` at their pace, in pieces, and commands to it, until cancelled."""
        reader, writer = await asyncio.open_connection(sock=wire)
        try:
            async with asyncio.TaskGroup() as tasks:
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
            await self._say(sensor, sensor.sim.tick(mono_ms()), writer, chance)
            await asyncio.sleep(0.1)

    async def _obey(self, sensor: Sensor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The firmware writes a command at once, so it comes at once: nothing here cuts or joins."""
        chance = random.Random(self._seed + 1)
        while command := await reader.read(256):
            if self._uart_forms.get(sensor.bus) == sensor.form:
                await self._say(sensor, sensor.sim.answer(command) or b"", writer, chance)

    async def _say(self, sensor: Sensor, said: bytes, writer: asyncio.StreamWriter, chance: random.Random) -> None:
        """Send it in pieces, in the time that they take; who listens with another form hears something else."""
        while said:
            piece = said[: chance.randint(1, 12)]
            said = said[len(piece) :]
            await asyncio.sleep(len(piece) * BITS_A_BYTE / sensor.form[0])
            form = self._uart_forms.get(sensor.bus)
            if form is None:
                continue  # nobody listens yet: lost
            if form != sensor.form:
                piece = chance.randbytes(max(1, len(piece) * form[0] // sensor.form[0]))
            writer.write(piece)
            await writer.drain()

    def _breathe_now_and_then(self) -> None:
        if mono_ms() - self._breathed_ms >= BREATHE_EVERY_MS:
            self.breathe()

    # What the shims ask, named after their `op`.

    def _do_reset_cause(self) -> int:
        return self.cause

    def _do_unique_id(self) -> str:
        return (0x24_0A_C4_00_00_00 + self._seed % 2**24).to_bytes(6, "big").hex()

    def _do_reset(self) -> None:
        self.reset_asked = True

    def _do_rtc(self, datetime: list[int] | None) -> list[int]:
        if datetime is not None:
            self._rtc = datetime
        return self._rtc

    def _do_wdt(self, timeout_ms: int) -> None:
        self._watchdog_ms = timeout_ms
        self._do_wdt_feed()

    def _do_wdt_feed(self) -> None:
        self.watchdog_due_ms = mono_ms() + self._watchdog_ms

    def _do_pin_get(self, pin: int) -> int:
        return self._pins.get(pin, 0)

    def _do_pin_set(self, pin: int, value: int) -> None:
        self._pins[pin] = value

    def _do_uart_init(self, uart: int, baud: int, bits: int, parity: int | None, stop: int, tx: int, rx: int) -> None:
        name = f"uart{uart}"
        self._uart_forms.pop(name, None)
        if UART_PINS.get(name) == (tx, rx):
            self._uart_forms[name] = (baud, bits, parity, stop)

    def _do_i2c_init(self, bus: int, scl: int, sda: int, freq: int) -> None:
        self._i2c_wired = I2C_PINS.get(f"i2c{bus}") == (scl, sda) and freq <= FASTEST_I2C_HZ

    def _do_i2c_scan(self, bus: int) -> list[int]:
        return self._i2c.scan() if self._i2c_wired else []

    def _do_i2c_write(self, bus: int, address: int, data: str) -> int:
        self._check_bus()
        self._breathe_now_and_then()
        try:
            self._i2c.write(address, bytes.fromhex(data))
        except NotAcknowledged:
            raise OSError(NO_SUCH_DEVICE, "no acknowledgement") from None
        return len(data) // 2

    def _do_i2c_read(self, bus: int, address: int, size: int) -> str:
        self._check_bus()
        try:
            return self._i2c.read(address, size).hex()
        except NotAcknowledged:
            raise OSError(NO_SUCH_DEVICE, "no acknowledgement") from None

    def _do_wlan_active(self, on: bool | None) -> bool:
        if on is not None:
            self._wifi_on = on
            if not on:
                self._wifi_since_ms = None
        return self._wifi_on

    def _do_wlan_connect(self, ssid: str | None, key: str | None) -> None:
        if self._wifi_on:
            self._wifi_since_ms = mono_ms()

    def _do_wlan_disconnect(self) -> None:
        self._wifi_since_ms = None

    def _do_wlan_status(self) -> int:
        if self._wifi_since_ms is None:
            return IDLE
        if "away" in self._wifi_faults:
            return NO_AP_FOUND
        return GOT_IP if mono_ms() - self._wifi_since_ms >= JOINING_MS else CONNECTING

    def _check_bus(self) -> None:
        if not self._i2c_wired:
            raise OSError(NO_SUCH_DEVICE, "nothing on these pins")


def mono_us() -> int:
    """Return microseconds that never go back, in steps of the clock's milliseconds."""
    return 1000 * mono_ms()
