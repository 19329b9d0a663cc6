"""What hangs on the board's buses: devices made of code, with a supply that a pin may switch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from importlib import import_module
from typing import Any

from bega.devices import driver_class
from bega_protocols.errors import ConfigError

# The wiring of the simulated board, stated here and not read from the firmware: a wrong board file must fail.
UART_PINS = {"uart1": (33, 32), "uart2": (17, 16)}  # tx, rx of the board
I2C_PINS = {"i2c0": (22, 21)}  # scl, sda
PARITIES = {"N": None, "E": 0, "O": 1}
SENSOR = re.compile(
    r"(?P<name>[A-Za-z0-9_-]+)=(?P<device>[a-z0-9_]+)@(?P<bus>[a-z0-9]+)(:(?P<address>0x[0-9a-f]{2}))?(/(?P<pin>\d+))?"
)

Values = dict[tuple[str, str], float]
Form = tuple[int, int, int | None, int]  # baud, bits, parity, stop bits


class Sensor:
    """One device made of code on one of the board's buses. Without its supply it is not there, and forgets."""

    def __init__(
        self, name: str, device: str, bus: str, address: int, form: Form, make: Callable[[], Any], pin: int | None
    ) -> None:
        """device: its folder under devices; address: 0 on a serial line; pin: switches its supply, high is on."""
        self.name = name
        self.device = device
        self.bus = bus
        self.address = address
        self.form = form  # of a serial line
        self.pin = pin
        self._make = make
        self._faults: set[str] = set()
        self._hung: set[str] = set()  # faults that end with the supply
        self._air: Values = {}
        self.sim = make()
        self.powered = pin is None

    @property
    def faults(self) -> set[str]:
        """Return in what ways it fails, as the bus sees it."""
        found: set[str] = self.sim.faults if self.powered else {"silent"}
        return found

    @property
    def speaks(self) -> Form:
        """Return in what form it says what it says now: a meter's optical head changes its rate (IEC 62056-21)."""
        return (getattr(self.sim, "answer_baud", self.form[0]), *self.form[1:])

    @property
    def answer_after_s(self) -> float:
        """Return how long it thinks before its last answer."""
        after_ms: int = getattr(self.sim, "answer_after_ms", 0)
        return after_ms / 1000

    def fail(self, faults: Iterable[str]) -> None:
        """Let it fail in these ways and no other, whatever happens to its supply."""
        self._faults = set(faults)
        self._apply()

    def hang_up(self, faults: Iterable[str]) -> None:
        """Let it fail in these ways too, until its supply is cut: firmware that has lost its way."""
        self._hung = set(faults)
        self._apply()

    def supply(self, on: bool) -> None:
        """Switch its supply. When it comes back the device begins anew, with nothing it had been told."""
        if on and not self.powered:
            self.sim = self._make()
            self._hung.clear()
            self._apply()
            self.breathe(self._air)
        self.powered = on

    def breathe(self, air: Values) -> None:
        """Bring it what there is to measure."""
        self._air = air
        for (quantity, part), value in air.items():
            with suppress(KeyError):  # it does not measure that
                self.sim.set(quantity, part, Decimal(str(value)))

    def tick(self, now_ms: int) -> bytes:
        said: bytes = self.sim.tick(now_ms) if self.powered else b""
        return said

    def busy_us(self, request: bytes) -> int:
        busy: int = self.sim.busy_us(request)
        return busy

    def answer(self, request: bytes) -> bytes | None:
        answer: bytes | None = self.sim.answer(request) if self.powered else None
        return answer

    def _apply(self) -> None:
        self.sim.faults.clear()
        self.sim.faults.update(self._faults | self._hung)


def hang(text: str, seed: int) -> Sensor:
    """Return what NAME=DEVICE@BUS says, with :0xADDRESS where it needs one, with /PIN where a pin switches its supply.

    Raises ConfigError if it cannot be.
    """
    found = SENSOR.fullmatch(text)
    if not found:
        raise ConfigError(
            f"sensor {text}: write it as NAME=DEVICE@BUS or NAME=DEVICE@BUS:0x44, with /PIN for its supply"
        )
    kind, *usual = driver_class(found["device"]).line.split()
    if found["bus"] not in {"serial": UART_PINS, "mbus": UART_PINS, "i2c": I2C_PINS}.get(kind, ()):
        raise ConfigError(
            f"sensor {text}: {found['device']} is for {kind}; here are {', '.join((*UART_PINS, *I2C_PINS))}"
        )
    module = import_module(f"bega_protocols.devices.{found['device']}.sim")
    address = 0
    form: Form = (0, 0, None, 0)
    if kind in ("serial", "mbus"):  # to a node an M-Bus is a UART with a level converter
        baud, bits = usual
        form = (int(baud), int(bits[0]), PARITIES[bits[1]], int(bits[2]))
    else:
        said = int(found["address"], 16) if found["address"] else getattr(module.Sim({}, seed), "address", None)
        if said is None:
            raise ConfigError(f"sensor {text}: say its address, as {text}:0x44")
        address = said
    pin = int(found["pin"]) if found["pin"] else None
    return Sensor(found["name"], found["device"], found["bus"], address, form, lambda: module.Sim({}, seed), pin)
