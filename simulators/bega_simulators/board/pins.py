"""The chip's pins: what the firmware drives, what a script drives from outside, who listens to edges and who counts.

Spec: MicroPython's library pages `machine.Pin`, `machine.Counter` and `esp32.PCNT`, ESP32 port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

IN, OUT, OPEN_DRAIN = 1, 3, 7
PULL_UP = 2
RISING, FALLING = 1, 2
INVALID = 22  # errno
# Full scale of the ADC by attenuation, and what it can tell apart: machine.ADC in the ESP32's quick reference.
ADC_RANGE_UV = {0: (100_000, 950_000), 1: (100_000, 1_250_000), 2: (150_000, 1_750_000), 3: (150_000, 2_450_000)}
COUNTER_UNITS = 8
ADC_PINS = range(32, 40)


class Pulses(NamedTuple):
    """What a script lets a contact do: close so often for `low_ms`, `high_ms` apart, and bounce at each closing."""

    times: int
    low_ms: float = 30.0
    high_ms: float = 30.0
    bounces: int = 0


class Counter:
    """One unit of the pulse counter."""

    def __init__(self, pin: int, rising: int, falling: int) -> None:
        """rising, falling: what an edge adds."""
        self.value = 0
        self.runs = True
        self._pin = pin
        self._steps = {1: rising, 0: falling}

    def saw(self, pin: int, level: int) -> None:
        if pin == self._pin and self.runs:
            self.value += self._steps[level]


class Pins:
    """All of them; `tell` takes the name of an interrupt for the interpreter."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.moved: list[Callable[[int, int], None]] = []  # each is called with (pin, level) at each edge
        self._tell = tell
        self._modes: dict[int, int] = {}
        self._pulls: dict[int, int | None] = {}
        self._latches: dict[int, int] = {}
        self._outside: dict[int, int] = {}
        self._triggers: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._held: set[int] = set()
        self._holds_in_sleep = False
        self._counters: dict[int, Counter] = {}
        self._uv: dict[int, int] = {}
        self._scripts: dict[int, asyncio.Task[None]] = {}

    def reset(self, after_sleep: bool, wakers: Iterable[int]) -> None:
        """Let all pins float; counters and interrupts end. A deep sleep leaves those that are held or shall wake it."""
        kept = self._held if after_sleep and self._holds_in_sleep else set()
        kept |= set(wakers) if after_sleep else set()
        for pin in set(self._modes) - kept:
            self._change(pin, partial(self._forget, pin))
        self._held &= kept
        self._holds_in_sleep = False
        self._triggers.clear()
        self._counters.clear()

    def level(self, pin: int) -> int:
        """Return what is on the wire: driven from inside, from outside, or pulled; 0 where it floats."""
        mode, latch = self._modes.get(pin, IN), self._latches.get(pin, 0)
        if mode == OUT or (mode == OPEN_DRAIN and not latch):
            return latch
        if pin in self._outside:
            return self._outside[pin]
        return int(self._pulls.get(pin) == PULL_UP)

    def drive(self, pin: int, level: int | None) -> None:
        """Put a level on the pin from outside; None lets go of it."""
        self._change(pin, lambda: self._outside.pop(pin, None) if level is None else self._outside.update({pin: level}))

    def set_voltage(self, pin: int, volts: float) -> None:
        """Let this voltage be on an analogue pin."""
        self._uv[pin] = round(volts * 1_000_000)

    def pulse(self, pin: int, pulses: Pulses) -> None:
        """Let a contact between the pin and ground close and open, from now on; an earlier script on it ends."""
        if pin in self._scripts:
            self._scripts[pin].cancel()
        self._scripts[pin] = asyncio.create_task(self.close_and_open(pin, pulses))

    async def close_and_open(self, pin: int, pulses: Pulses) -> None:
        """Let a contact do it; returns when it has."""
        for _ in range(pulses.times):
            for _ in range(pulses.bounces):
                self.drive(pin, 0)
                self.drive(pin, 1)
            self.drive(pin, 0)
            await asyncio.sleep(pulses.low_ms / 1000)
            self.drive(pin, 1)
            await asyncio.sleep(pulses.high_ms / 1000)

    def do_pin_init(
        self, pin: int, mode: int | None, pull: int | None, keep_pull: bool, value: int | None, hold: bool | None
    ) -> None:
        if mode in (OUT, OPEN_DRAIN) and 34 <= pin <= 39:
            raise OSError(INVALID, "pin can only be input")

        def configure() -> None:
            if value is not None:
                self._latches[pin] = value
            if mode is not None:
                self._modes[pin] = mode
            if not keep_pull:
                self._pulls[pin] = pull

        self._change(pin, configure)
        if hold is not None:
            (self._held.add if hold else self._held.discard)(pin)

    def do_pin_get(self, pin: int) -> int:
        return self.level(pin)

    def do_pin_set(self, pin: int, value: int | None) -> None:
        """None turns it over."""
        latch = 1 - self._latches.get(pin, 0) if value is None else value
        self._change(pin, lambda: self._latches.update({pin: latch}))

    def do_pin_irq(self, pin: int, trigger: int, name: str) -> None:
        self._triggers[pin] = trigger
        self._names[pin] = name

    def do_hold_in_sleep(self, on: bool) -> None:
        self._holds_in_sleep = on

    def do_counter(self, unit: int, pin: int, rising: int, falling: int) -> None:
        if not 0 <= unit < COUNTER_UNITS:
            raise OSError(INVALID, "id")
        self._counters[unit] = Counter(pin, rising, falling)

    def do_counter_run(self, unit: int, on: bool) -> None:
        self._counters[unit].runs = on

    def do_counter_value(self, unit: int, value: int | None) -> int:
        counter = self._counters[unit]
        before = counter.value
        if value is not None:
            counter.value = value
        return before

    def do_counter_end(self, unit: int) -> None:
        self._counters.pop(unit, None)

    def do_adc(self, pin: int, atten: int) -> int:
        """Return µV, cut to what this attenuation can tell."""
        if pin not in ADC_PINS:
            raise OSError(INVALID, "invalid pin")
        least, most = ADC_RANGE_UV[atten]
        return min(max(self._uv.get(pin, 0), least), most)

    def _forget(self, pin: int) -> None:
        self._modes.pop(pin, None)
        self._pulls.pop(pin, None)
        self._latches.pop(pin, None)

    def _change(self, pin: int, change: Callable[[], object]) -> None:
        """Do it, and let everybody know if the level is another one after it."""
        before = self.level(pin)
        change()
        level = self.level(pin)
        if level == before:
            return
        for counter in self._counters.values():
            counter.saw(pin, level)
        if self._triggers.get(pin, 0) & (RISING if level else FALLING):
            self._tell(self._names[pin])
        for heard in self.moved:
            heard(pin, level)
