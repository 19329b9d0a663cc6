"""What to ask an SCD41, when to set it up anew, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.scd41.codec import (
    ADDRESS,
    FAILED,
    MODES,
    PERSIST,
    READ,
    READY,
    READY_BITS,
    RECALIBRATE,
    SAMPLE_SIZE,
    SELF_TEST,
    SERIAL,
    SETTINGS,
    SHOT,
    STOP,
    VARIANT,
    VARIANTS,
    decode,
    word_of,
)
from bega_protocols.doubt import WARMING, Doubt, suspect
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import GOOD, Reading, nearest_whole
from bega_protocols.sensirion_i2c import WORD_SIZE, command, words
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator

    from bega_protocols.driver import Aes, Command, Exchange, Settings

    Step = Generator[Ask, "bytes | None", bool]
    Words = Generator[Ask, "bytes | None", "list[int] | None"]

LIMITS = {
    "temperature_offset_ccel": (0, 2000),
    "altitude_m": (0, 3000),
    "pressure_hpa": (700, 1200),
    "self_calibration_ppm": (400, 1000),
}
ENDS = {"co2": (0, 65535), "temperature": (-4500, 13000), "humidity": (0, 10000)}
STUCK_MS, STUCK_FRAMES = 60000, 10
FIRST_SAMPLE_MS = 5200  # its period of 5 s by a clock that is not ours
FIRST_SHOTS = 2  # after power; they are not yet right
MISSED_SAMPLES = 3  # so many periods without a sample, and it is set up anew
EEPROM_WRITES = 2000  # that it is made for


class Driver:
    """An SCD41 (or SCD40), set up at the first measurement and whenever it has fallen silent or stopped.

    Settings that the configuration does not name are left as the sensor has
    them; those that it names are compared first, and set only if they differ.
    They live in the sensor's RAM: only the action `persist` writes its EEPROM,
    and `state` counts how often.
    """

    line = "i2c 100000"
    actions = ("self_test", "recalibrate", "persist")

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "mode", *SETTINGS)
        self._mode = settings.get("mode", "periodic")
        if self._mode not in MODES:
            raise ConfigError("mode must be periodic, low_power or single_shot, not %r" % (self._mode,))
        self.period_ms = MODES[self._mode][1]
        if "altitude_m" in settings and "pressure_hpa" in settings:
            raise ConfigError("altitude_m or pressure_hpa, not both: a pressure overrides the altitude")
        self._wanted = [(name, _wanted(settings, name)) for name in SETTINGS if name in settings]
        self._pressure_is_new = False
        self._persisted = int(state) if state.isdigit() else 0
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._set_up = False
        self._sampled_ms = 0  # when the last sample came, or the sensor was started
        self._shots = 0
        self._offset = 0
        self._doubt = Doubt(stuck_ms=STUCK_MS, stuck_frames=STUCK_FRAMES, ends=ENDS)

    def beside(self, readings: "list[Reading]") -> None:
        """Take note of what a sensor beside this one has measured: the pressure, which the CO2 is computed with.

        From now on it stands in the place of `pressure_hpa` or `altitude_m` of the settings.
        """
        low, high = LIMITS["pressure_hpa"]
        for reading in readings:
            if reading.quantity != "pressure" or reading.quality != GOOD:
                continue
            row = ("pressure_hpa", nearest_whole(reading.value, reading.exp10))
            if low <= row[1] <= high and row not in self._wanted:
                kept = [other for other in self._wanted if other[0] not in ("pressure_hpa", "altitude_m")]
                self._wanted = kept + [row]
                self._pressure_is_new = True

    def state(self) -> bytes:
        """Return how often `persist` wrote the EEPROM of this sensor."""
        return b"%d" % self._persisted

    def measure(self, now_ms: int) -> "Exchange":
        """Return one group, or none while no sample is due, if the sensor kept silent, or if the answer was damaged.

        A single shot takes five seconds, the set-up half a second or, when it measures each five seconds, six.
        """
        if not self._set_up and not (yield from self._begin(now_ms)):
            return []
        if self._pressure_is_new:  # it may be told while it measures; that it differs then means no loss of power
            _, put = SETTINGS["pressure_hpa"]
            told = yield Ask(command(put, dict(self._wanted)["pressure_hpa"]), 1, 0, address=ADDRESS)
            self._pressure_is_new = told is None
        due = yield from (self._shoot() if self._mode == "single_shot" else self._is_due(now_ms))
        if not due:
            return []
        answer = yield self._ask(READ, SAMPLE_SIZE)
        if answer is None:
            self._set_up = False
            return []
        try:
            readings = _readings(answer)
        except WireError as error:
            self.damaged.append((0, error))
            return []
        self._sampled_ms = now_ms
        self._shots += 1
        return [self._judged(readings, answer, now_ms)]

    def act(self, name: str, value: int) -> "Command":
        """Carry out an action; return whether the sensor did it. It stops measuring until the next measurement.

        self_test: takes ten seconds; what it says is the attribute `self_test`, "passed" or the word in hex
        recalibrate: tell it that the air holds `value` ppm now, after three minutes in its mode at a steady level
        persist: write the settings to the EEPROM, which is made for 2000 times; refused beyond
        """
        if name not in self.actions:
            raise ConfigError("an SCD41 has no action %r; it has %s" % (name, ", ".join(self.actions)))
        if name == "recalibrate":
            value = whole_number({"recalibrate": value}, "recalibrate", 400, 2000)
        if name == "persist" and self._persisted >= EEPROM_WRITES:
            raise ConfigError("this sensor's EEPROM was written %d times, as often as it is made for" % self._persisted)
        self._set_up = False
        yield self._ask(STOP, 0)
        if name == "self_test":
            return (yield from self._test())
        if name == "recalibrate":
            return (yield from self._recalibrate(value))
        done = yield self._ask(PERSIST, 0)
        self._persisted += done is not None
        return done is not None

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of a chunk that holds a sample; a chunk is what one transfer read.

        Three words are a sample (a serial number looks the same), one is anything else.
        """
        offset = self._offset
        self._offset += len(chunk)
        try:
            if len(chunk) == WORD_SIZE:
                words(chunk, 1)
                return []
            return [_readings(chunk)] if chunk else []
        except WireError as error:
            self.damaged.append((offset, error))
            return []

    def _begin(self, now_ms: int) -> "Step":
        """Stop what it does, see who it is, set what differs, and start; return whether it took the start."""
        yield self._ask(STOP, 0)  # a sensor that measures acknowledges little else; we may not be the first to ask
        serial = yield from self._words(SERIAL, 3)
        if serial is None:
            return False
        self.attributes["serial_number"] = "%04x%04x%04x" % tuple(serial)
        variant = yield from self._words(VARIANT, 1)
        if variant:
            self.attributes["variant"] = VARIANTS.get(variant[0] >> 12, "unknown %04x" % variant[0])
        if not (yield from self._set_what_differs()):
            return False
        start, _ = MODES[self._mode]
        if start and (yield self._ask((start, 1), 0)) is None:
            return False
        self._set_up = True
        self._sampled_ms = now_ms
        self._shots = 0
        if self._mode == "periodic":  # so that who measures once, to see whether it is there, gets a sample
            yield Ask(b"", FIRST_SAMPLE_MS, 0, address=ADDRESS)
        return True

    def _set_what_differs(self) -> "Step":
        for name, wanted in self._wanted:
            tell, put = SETTINGS[name]
            held = yield from self._words((tell, 1), 1)
            if held == [wanted]:
                continue
            if held:
                self._shots = 0  # it has forgotten, so it was without power
            if (yield Ask(command(put, wanted), 1, 0, address=ADDRESS)) is None:
                return False
        return True

    def _is_due(self, now_ms: int) -> "Step":
        """Return whether a sample waits; one that does not come for long is a sensor that lost its power and idles."""
        answer = yield self._ask(READY, WORD_SIZE)
        if answer is None:
            self._set_up = False
            return False
        ready = self._checked(answer, 1)
        if ready is None:
            return False  # a bit flipped: no reason to interrupt what it does
        if ready[0] & READY_BITS:
            return True
        self._set_up = now_ms - self._sampled_ms <= MISSED_SAMPLES * self.period_ms
        return False

    def _shoot(self) -> "Step":
        if self.attributes.get("variant") == VARIANTS[0]:
            self.damaged.append((0, WireError("an SCD40 has no single shot: set mode to periodic or low_power")))
            return False
        # Between shots it idles, as it does after power: only its settings tell that it was without.
        if not (yield from self._set_what_differs()):
            self._set_up = False
            return False
        shot = yield self._ask(SHOT, 0)
        self._set_up = shot is not None
        return self._set_up

    def _test(self) -> "Step":
        outcome = yield from self._words(SELF_TEST, 1)
        if outcome is None:
            return False
        self.attributes["self_test"] = "failed: %04x" % outcome[0] if outcome[0] else "passed"
        return outcome[0] == 0

    def _recalibrate(self, target_ppm: int) -> "Step":
        code, wait_ms = RECALIBRATE
        answer = yield Ask(command(code, target_ppm), wait_ms, WORD_SIZE, address=ADDRESS)
        correction = self._checked(answer, 1)
        if correction is None or correction[0] == FAILED:
            return False
        self.attributes["recalibrated_by_ppm"] = str(correction[0] - 0x8000)
        return True

    def _judged(self, readings: "list[Reading]", answer: bytes, now_ms: int) -> "list[Reading]":
        judged = self._doubt.judge(readings, answer, now_ms)
        self.attributes["doubt"] = self._doubt.why
        if self._mode == "single_shot" and self._shots <= FIRST_SHOTS:
            self.attributes["doubt"] = WARMING
            return suspect(judged)
        return judged

    def _words(self, what: "tuple[int, int]", count: int) -> "Words":
        """Ask for `count` words; None if none came, or not whole (then it is in `damaged`)."""
        answer = yield self._ask(what, count * WORD_SIZE)
        return self._checked(answer, count)

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


def _wanted(settings: "Settings", name: str) -> int:
    if name != "self_calibration":
        low, high = LIMITS[name]
        return word_of(name, whole_number(settings, name, low, high))
    if not isinstance(settings[name], bool):
        raise ConfigError("self_calibration must be true or false, not %r" % (settings[name],))
    return int(settings[name])


def _readings(answer: bytes) -> "list[Reading]":
    """A cell that is dead, or was not asked, says 0 ppm: that is no CO2."""
    sample = decode(answer)
    readings = [Reading("co2", sample.co2_ppm)] if sample.co2_ppm else []
    readings.append(Reading("temperature", sample.temperature_ccel, -2))
    readings.append(Reading("humidity", sample.humidity_cpct, -2))
    return readings
