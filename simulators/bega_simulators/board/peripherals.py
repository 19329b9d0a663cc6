"""What hangs on an air node's pins, and the chip's own parts: answers the shims, one request a line."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bega.clock import mono_ms
from bega_protocols.devices.pms5003.sim import Sim as DustSensor
from bega_protocols.devices.sht4x.sim import Sim as ClimateSensor
from bega_simulators.hosts.i2c import I2cBus, NotAcknowledged

PWRON_RESET, HARD_RESET, WDT_RESET = 1, 2, 3
IDLE, CONNECTING, GOT_IP, NO_AP_FOUND = 1000, 1001, 1010, 201
NO_SUCH_DEVICE = 19  # errno of an address that nobody acknowledges
JOINING_MS = 200
BREATHE_EVERY_MS = 1000
CLIMATE = ("temperature", "humidity")
ADDRESS_CLIMATE = 0x44
# The wiring of the simulated board, stated here and not read from the firmware: a wrong board file must fail.
DUST_UART, DUST_PINS, DUST_FORM = 2, (17, 16), (9600, 8, None, 1)
CLIMATE_BUS, CLIMATE_PINS = 0, (22, 21)
BITS_A_BYTE = 10  # start, eight, stop

Values = dict[tuple[str, str], float]


class AirPeripherals:
    """The peripherals of one air node from power-on to power-off.

    faults: {"pms": {...}, "sht": {...}, "wifi": {"away"}}, with the names that the devices' simulators give them.
    """

    def __init__(self, seed: int, air: Callable[[], Values]) -> None:
        """`air` returns what the air is like now, each value in its quantity's unit."""
        self.cause = PWRON_RESET
        self.watchdog_due_ms: int | None = None
        self.reset_asked = False
        self.dust = DustSensor({}, seed)
        self.climate = ClimateSensor({}, seed)
        self._seed = seed
        self._air = air
        self._fixed: Values = {}
        self._watchdog_ms = 0
        self._wifi_on = False
        self._wifi_since_ms: int | None = None
        self._wifi_faults: set[str] = set()
        self._i2c = I2cBus({ADDRESS_CLIMATE: self.climate}, lambda: 1000 * mono_ms())
        self._i2c_wired = False
        self._uart_form: tuple[Any, ...] | None = None
        self._pins: dict[int, int] = {}
        self._rtc = [2000, 1, 1, 5, 0, 0, 0, 0]  # what the chip shows after power-on, until somebody sets it

    def power_on(self, cause: int) -> None:
        """Forget what a reset forgets; `cause` is what the firmware will read."""
        self.cause = cause
        self.watchdog_due_ms = None
        self.reset_asked = False
        self._wifi_on = False
        self._wifi_since_ms = None
        self._uart_form = None
        self._i2c_wired = False

    def set_faults(self, device: str, faults: list[str]) -> None:
        """Let a device fail in these ways and no other; raises KeyError if there is no such device."""
        found = {"pms": self.dust.faults, "sht": self.climate.faults, "wifi": self._wifi_faults}[device]
        found.clear()
        found.update(faults)

    def fix(self, quantity: str, value: float) -> None:
        """Let the air have this value from now on, whatever the town says."""
        self._fixed[quantity, ""] = value
        self.breathe()

    def breathe(self) -> None:
        """Bring the air to the sensors."""
        for (quantity, part), value in {**self._air(), **self._fixed}.items():
            sensor = self.climate if quantity in CLIMATE else self.dust
            if sensor is self.climate or quantity in ("pm1", "pm2_5", "pm10") or quantity.startswith("particles_"):
                sensor.set(quantity, part, Decimal(str(value)))

    def answer(self, request: dict[str, Any]) -> Any:
        """Return what a shim asked for; raises OSError with the errno that the firmware shall see."""
        asked: Callable[..., Any] = getattr(self, "_do_" + request.pop("op"))
        return asked(**request)

    async def serial(self, wire: socket.socket) -> None:
        """Carry the dust sensor's bytes at their pace, in pieces, and commands to it, until cancelled."""
        reader, writer = await asyncio.open_connection(sock=wire)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._speak(writer))
                tasks.create_task(self._obey(reader, writer))
        except* ConnectionError:
            pass
        finally:
            writer.close()

    async def _speak(self, writer: asyncio.StreamWriter) -> None:
        chance = random.Random(self._seed)
        breathed_ms = mono_ms() - BREATHE_EVERY_MS
        while True:
            if mono_ms() - breathed_ms >= BREATHE_EVERY_MS:
                breathed_ms = mono_ms()
                self.breathe()
            said = self.dust.tick(mono_ms())
            while said:
                size = chance.randint(1, 12)
                await self._send(writer, said[:size], chance)
                said = said[size:]
            await asyncio.sleep(0.1)

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(7):
            answer = self.dust.answer(command) if self._uart_form == DUST_FORM else None
            if answer:
                await self._send(writer, answer, random.Random(self._seed))

    async def _send(self, writer: asyncio.StreamWriter, piece: bytes, chance: random.Random) -> None:
        """Send a piece in the time it takes at 9600 baud; who listens with another form hears something else."""
        await asyncio.sleep(len(piece) * BITS_A_BYTE / DUST_FORM[0])
        if self._uart_form is None:
            return  # nobody listens yet: lost
        if self._uart_form != DUST_FORM:
            piece = chance.randbytes(max(1, len(piece) * self._uart_form[0] // DUST_FORM[0]))
        writer.write(piece)
        await writer.drain()

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
        wired = uart == DUST_UART and (tx, rx) == DUST_PINS
        self._uart_form = (baud, bits, parity, stop) if wired else None

    def _do_i2c_init(self, bus: int, scl: int, sda: int, freq: int) -> None:
        self._i2c_wired = bus == CLIMATE_BUS and (scl, sda) == CLIMATE_PINS and freq <= 1_000_000

    def _do_i2c_scan(self, bus: int) -> list[int]:
        return self._i2c.scan() if self._i2c_wired else []

    def _do_i2c_write(self, bus: int, address: int, data: str) -> int:
        self._check_bus()
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
