"""Which pins of an ESP32 a board file may use for what.

From ESP-IDF's programming guide, "GPIO & RTC GPIO" of each chip, and the
chips' datasheets, "Strapping Pins".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bega.devices import device_names, driver_class, wire_of
from bega_firmware.board import Board
from bega_firmware.contents import COUNTER

IN, OUT = "in", "out"
# What a key of a board file's tables does with the pin that it names.
USES = {
    "rx": IN, "miso": IN, "pin": IN,
    "tx": OUT, "de": OUT, "scl": OUT, "sda": OUT, "sck": OUT, "mosi": OUT, "cs": OUT, "power": OUT, "led": OUT,
    "power_pin": OUT,
}  # fmt: skip
SHARED = ".power_pin"  # several devices may hang on one supply
BUS_PINS = {"uart": ("tx", "rx"), "i2c": ("scl", "sda"), COUNTER: ("pin",)}
BUS_OF_WIRE = {"serial": "uart", "i2c": "i2c", "modbus": "uart", "mbus": "uart"}  # a driver's line: the bus it needs


@dataclass(frozen=True)
class Chip:
    """What a chip's pins are for."""

    pins: frozenset[int]
    input_only: frozenset[int]
    taken: dict[int, str]  # pin: by what
    uarts: int  # UART 0 is the console, from which a node is flashed and looked after
    i2cs: int
    counters: int  # of pulses


def _taken(**by: list[int]) -> dict[int, str]:
    return {pin: what.replace("_", " ") for what, pins in by.items() for pin in pins}


CHIPS = {
    "esp32": Chip(
        pins=frozenset([*range(20), *range(21, 24), *range(25, 28), *range(32, 40)]),
        input_only=frozenset(range(34, 40)),
        taken=_taken(flash=[*range(6, 12)], strapping=[0, 2, 5, 12, 15], the_console=[1, 3]),
        uarts=3,
        i2cs=2,
        counters=8,
    ),
    # 33 to 37 are flash and RAM of modules with eight lines to them (the "R8" ones).
    "esp32s3": Chip(
        pins=frozenset([*range(22), *range(26, 49)]),
        input_only=frozenset(),
        taken=_taken(flash=[*range(26, 38)], strapping=[0, 3, 45, 46], USB=[19, 20], the_console=[43, 44]),
        uarts=3,
        i2cs=2,
        counters=4,
    ),
    # 11 is the flash's supply.
    "esp32c3": Chip(
        pins=frozenset(range(22)),
        input_only=frozenset(),
        taken=_taken(flash=[*range(11, 18)], strapping=[2, 8, 9], USB=[18, 19], the_console=[20, 21]),
        uarts=2,
        i2cs=1,
        counters=0,
    ),
}


def wiring_problems(board: Board) -> list[str]:
    """Return what in a board's wiring cannot work, a sentence each."""
    chip = CHIPS.get(board.chip)
    if chip is None:
        return [f"CHIP is {board.chip!r}; known are {', '.join(CHIPS)}"]
    return [*_pin_problems(board, chip), *_bus_problems(board, chip), *_device_problems(board)]


def _pin_problems(board: Board, chip: Chip) -> Iterator[str]:
    used: dict[int, str] = {}
    for place, use, pin in _pins(board.tables):
        if pin not in chip.pins:
            yield f"{place}: {board.chip} has no pin {pin}"
        elif pin in chip.taken:
            yield f"{place}: pin {pin} is for {chip.taken[pin]}"
        elif use == OUT and pin in chip.input_only:
            yield f"{place}: pin {pin} is an input only"
        if pin in used and not (place.endswith(SHARED) and used[pin].endswith(SHARED)):
            yield f"{place}: pin {pin} is that of {used[pin]}"
        used[pin] = place


def _bus_problems(board: Board, chip: Chip) -> Iterator[str]:
    count = {"uart": chip.uarts, "i2c": chip.i2cs, COUNTER: chip.counters}
    seen: set[tuple[Any, Any]] = set()
    for name, bus in board.buses.items():
        kind, number = bus.get("kind"), bus.get("id")
        if kind not in BUS_PINS:
            yield f"BUSES.{name}: kind is {kind!r}; known are {', '.join(BUS_PINS)}"
            continue
        lowest = 1 if kind == "uart" else 0
        if kind == COUNTER and number is None:
            number = name  # without a counter of the chip its interrupts are counted
        elif not isinstance(number, int) or not lowest <= number < count[kind]:
            yield f"BUSES.{name}: {board.chip} has {kind} {lowest} to {count[kind] - 1} to give, not {number!r}"
        if (kind, number) in seen:
            yield f"BUSES.{name}: {kind} {number} is another bus already"
        seen.add((kind, number))
        for key in BUS_PINS[kind]:
            if not isinstance(bus.get(key), int):
                yield f"BUSES.{name}: {key} names no pin"


def _device_problems(board: Board) -> Iterator[str]:
    for name, device in board.devices.items():
        driver, bus = device.get("driver"), board.buses.get(str(device.get("bus")))
        if driver == COUNTER:
            if bus is None or bus.get("kind") != COUNTER:
                yield f"DEVICES.{name}: {driver} does not hang on {bus.get('kind') if bus else device.get('bus')}"
        elif driver not in device_names():
            yield f"DEVICES.{name}: there is no device {driver!r}"
        elif bus is None:
            yield f"DEVICES.{name}: the board has no bus {device.get('bus')!r}"
        elif BUS_OF_WIRE.get(wire_of(driver_class(str(driver)))) != bus.get("kind"):
            yield f"DEVICES.{name}: {driver} does not hang on {bus.get('kind')}"
        if device.get("beside", name) not in board.devices:
            yield f"DEVICES.{name}: there is no device {device['beside']} beside it"


def _pins(table: dict[str, Any], place: str = "") -> Iterator[tuple[str, str, int]]:
    """Yield (place in the file, use, pin) of every pin that the tables name."""
    for key, value in table.items():
        where = f"{place}.{key}" if place else key
        if isinstance(value, dict):
            yield from _pins(value, where)
        elif key in USES and isinstance(value, int):
            yield where, USES[key], value
