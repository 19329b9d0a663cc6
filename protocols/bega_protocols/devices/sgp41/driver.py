"""What to ask an SGP41, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.sgp41.codec import (
    ADDRESS,
    CONDITION,
    FAULTS,
    HEATER_OFF,
    MEASURE,
    SELF_TEST,
    SERIAL,
    SIGNALS_SIZE,
    decode,
    humidity_ticks,
    temperature_ticks,
)
from bega_protocols.doubt import Doubt
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import GOOD, Reading, nearest_whole
from bega_protocols.sensirion_i2c import WORD_SIZE, command, words
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator

    from bega_protocols.driver import Aes, Command, Exchange, Settings

    Step = Generator[Ask, "bytes | None", bool]

CONDITIONING_MS = 9000  # a second below what damages the sensor: a busy board is late
WARM_UP_MS = 45000  # that Sensirion's own algorithm leaves out
ENDS = {"voc_raw": (0, 65000), "nox_raw": (0, 65000)}  # what the algorithm accepts
STUCK_MS, STUCK_FRAMES = 60000, 10


class Driver:
    """An SGP41 whose raw signals are read; its heater stays on between measurements, as it needs."""

    line = "i2c 100000"
    actions = ("self_test", "heater_off")

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "humidity_pct", "temperature_cel")
        self._air = (
            humidity_ticks(whole_number(settings, "humidity_pct", 0, 100, 50)),
            temperature_ticks(whole_number(settings, "temperature_cel", -45, 130, 25)),
        )
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._conditioned = False
        self._offset = 0
        self._doubt = Doubt(warm_up_ms=WARM_UP_MS, stuck_ms=STUCK_MS, stuck_frames=STUCK_FRAMES, ends=ENDS)

    def beside(self, readings: "list[Reading]") -> None:
        """Take note of the humidity and temperature that a sensor beside this one has measured: it weighs them in."""
        humidity_tick, temperature_tick = self._air
        for reading in readings:
            whole = nearest_whole(reading.value, reading.exp10)
            if reading.quantity == "humidity" and reading.quality == GOOD and 0 <= whole <= 100:
                humidity_tick = humidity_ticks(whole)
            elif reading.quantity == "temperature" and reading.quality == GOOD and -45 <= whole <= 130:
                temperature_tick = temperature_ticks(whole)
        self._air = (humidity_tick, temperature_tick)

    def measure(self, now_ms: int) -> "Exchange":
        """Return one group, or none if the sensor kept silent or its answer was damaged.

        The first measurement, and the one after a silence, takes the nine seconds of the conditioning.
        """
        if not self._conditioned and not (yield from self._condition(now_ms)):
            return []
        answer = yield self._measure_or_condition(MEASURE, SIGNALS_SIZE)
        if answer is None:
            self._conditioned = False
            return []
        try:
            readings = _readings(answer)
        except WireError as error:
            self.damaged.append((0, error))
            return []
        judged = self._doubt.judge(readings, answer, now_ms)
        self.attributes["doubt"] = self._doubt.why
        return [judged]

    def act(self, name: str, value: int) -> "Command":
        """Carry out an action; return whether the sensor did it.

        self_test: takes a third of a second; the attribute `self_test` is "passed" or the word in hex
        heater_off: rests until the next measurement, which conditions it first
        """
        if name not in self.actions:
            raise ConfigError("an SGP41 has no action %r; it has %s" % (name, ", ".join(self.actions)))
        if name == "heater_off":
            self._conditioned = False
            return (yield self._ask(HEATER_OFF, 0)) is not None
        answer = yield self._ask(SELF_TEST, WORD_SIZE)
        outcome = self._checked(answer, 1)
        if outcome is None:
            return False
        failed = outcome[0] & FAULTS
        self.attributes["self_test"] = "failed: %04x" % outcome[0] if failed else "passed"
        return not failed

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of a chunk that holds signals; a chunk is what one transfer read.

        Two words are signals, one is a conditioning or a self test, three are the serial number.
        """
        offset = self._offset
        self._offset += len(chunk)
        try:
            if len(chunk) in (WORD_SIZE, 3 * WORD_SIZE):
                words(chunk, len(chunk) // WORD_SIZE)
                return []
            return [_readings(chunk)] if chunk else []
        except WireError as error:
            self.damaged.append((offset, error))
            return []

    def _condition(self, now_ms: int) -> "Step":
        """Heat as after power-up. The heater is off first: whoever was cut off in mid-conditioning left it on."""
        yield self._ask(HEATER_OFF, 0)
        serial = self._checked((yield self._ask(SERIAL, 3 * WORD_SIZE)), 3)
        if serial is None:
            return False
        self.attributes["serial_number"] = "%04x%04x%04x" % tuple(serial)
        if (yield self._measure_or_condition(CONDITION, WORD_SIZE)) is None:
            yield self._ask(HEATER_OFF, 0)  # it may have begun all the same, and must not last until we come again
            return False
        yield Ask(b"", CONDITIONING_MS - CONDITION[1], 0, address=ADDRESS)
        self._conditioned = True
        self._doubt.woke(now_ms)
        return True

    def _measure_or_condition(self, what: "tuple[int, int]", read: int) -> Ask:
        code, wait_ms = what
        return Ask(command(code, *self._air), wait_ms, read, address=ADDRESS)

    def _checked(self, answer: "bytes | None", count: int) -> "list[int] | None":
        if answer is None:
            return None
        try:
            return words(answer, count)
        except WireError as error:
            self.damaged.append((0, error))
            return None

    def _ask(self, what: "tuple[int, int]", read: int) -> Ask:
        code, wait_ms = what
        return Ask(command(code), wait_ms, read, address=ADDRESS)


def _readings(answer: bytes) -> "list[Reading]":
    signals = decode(answer)
    return [Reading("voc_raw", signals.voc_ticks), Reading("nox_raw", signals.nox_ticks)]
