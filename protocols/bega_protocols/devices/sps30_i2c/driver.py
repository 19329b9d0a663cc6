"""What to ask an SPS30 on I2C, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.sps30_i2c.codec import (
    ADDRESS,
    ANSWER_SIZE,
    AS_FLOATS,
    CLEAN,
    CLEAN_MS,
    CLEAR_STATUS,
    LONG_SIZE,
    READ,
    READY,
    RESET,
    RESET_MS,
    SERIAL,
    SERIAL_SIZE,
    SLEEP,
    START,
    START_MS,
    STATUS,
    STOP,
    VERSION,
    WAKE,
    WORD_SIZE,
    outputs,
    to,
)
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import Reading
from bega_protocols.sensirion import CLEANING_MS, Answers, Sps30
from bega_protocols.sensirion_i2c import without_crc
from bega_protocols.settings import only, whole_number, yes_or_no

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator

    from bega_protocols.driver import Aes, Command, Exchange, Settings

LONGEST_WARM_UP_S = 45  # waited for in one piece: a line that does nothing for a minute counts as stuck
NEW_EACH_MS, TRIES = 1100, 3  # it measures once a second
FIRST_WITH_STATUS = (2, 2)  # firmware


class Driver:
    """An SPS30 on I2C; with `rest` it sleeps between measurements, its fan and laser off."""

    line = "i2c 100000"
    actions = ("clean", "clear_status", "reset")

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "rest", "warm_up_s", "clean_days")
        self._rest = yes_or_no(settings, "rest", False)
        self._warm_up_ms = 1000 * whole_number(settings, "warm_up_s", 0, LONGEST_WARM_UP_S, 30)
        self._sensor = Sps30(self._warm_up_ms, whole_number(settings, "clean_days", 0, 365, 7), state)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._answers = Answers(ANSWER_SIZE)
        self._runs = False
        self._version: "tuple[int, int] | None" = None

    def state(self) -> bytes:
        """Return how long ago the fan was cleaned."""
        return self._sensor.state()

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each measurement that `chunk` completes, oldest first."""
        groups = self._answers.feed(chunk, lambda answer: self._sensor.judge(outputs(answer), now_ms), self.damaged)
        self.attributes["doubt"] = self._sensor.why
        return groups

    def measure(self, now_ms: int) -> "Exchange":
        """Start it if it does not measure, ask; return one group, or none. `rest` makes it a warm-up longer."""
        if not self._runs:
            if not (yield from self._started()):
                self._lose()
                return []
            self._sensor.doubt.woke(now_ms)
        is_due = self._sensor.is_cleaning_due(now_ms)
        if self._rest:
            # Before the values: a record has the time of the last answers.
            if is_due and (yield from self._told(CLEAN_MS, CLEAN)):
                self._sensor.cleaned(now_ms)
                yield Ask(b"", CLEANING_MS, 0, address=ADDRESS)
                now_ms += CLEANING_MS
            yield Ask(b"", self._warm_up_ms, 0, address=ADDRESS)
            now_ms += self._warm_up_ms
        if self._version and self._version >= FIRST_WITH_STATUS:
            register = yield from self._asked(STATUS, LONG_SIZE)
            if register:
                self._sensor.status(int.from_bytes(register, "big"))
        groups = yield from self._read(now_ms)
        if not groups:
            self._lose()
            return []
        if is_due and not self._rest and (yield from self._told(CLEAN_MS, CLEAN)):
            self._sensor.cleaned(now_ms)
        if self._rest:
            self._runs = False
            yield from self._told(START_MS, STOP)
            yield from self._told(CLEAN_MS, SLEEP)
        return groups

    def act(self, name: str, value: "int | None") -> "Command":
        """clean: the fan, 10 s, while it measures; clear_status: forget what was wrong; reset: as after power."""
        if name == "clean":
            return (yield from self._told(CLEAN_MS, CLEAN))
        if name == "clear_status":
            return (yield from self._told(CLEAN_MS, CLEAR_STATUS))
        if name == "reset":
            self._lose()
            return (yield from self._told(RESET_MS, RESET))
        raise ConfigError("an SPS30 can do %s, not %s" % (", ".join(self.actions), name))

    def _started(self) -> "Command":
        """Wake it, end what it may still be doing in another format, start it; return whether it took all that."""
        # Asleep it does not acknowledge the first wake-up, awake it may refuse both: neither says anything.
        yield from self._told(0, WAKE)
        yield from self._told(CLEAN_MS, WAKE)
        if self._version is None:
            yield from self._get_to_know()
        yield from self._told(START_MS, STOP)
        self._runs = yield from self._told(START_MS, START, AS_FLOATS)
        return self._runs

    def _get_to_know(self) -> "Command":
        version = yield from self._asked(VERSION, WORD_SIZE)
        serial = yield from self._asked(SERIAL, SERIAL_SIZE)
        if version:
            self._version = (version[0], version[1])
            self.attributes["firmware"] = "%d.%d" % self._version
        text = (serial or b"").split(b"\0")[0]
        if text and all(0x20 < byte < 0x7F for byte in text):
            self.attributes["serial_number"] = text.decode()
        return version is not None

    def _read(self, now_ms: int) -> "Exchange":
        """Ask for what was measured once there is something new; nothing if it does not measure."""
        for _ in range(TRIES):
            ready = yield from self._asked(READY, WORD_SIZE)
            if ready is None:
                return []
            if ready[1]:
                answer = yield from self._asked(READ, ANSWER_SIZE)
                return self._group(answer, now_ms) if answer else []
            yield Ask(b"", NEW_EACH_MS, 0, address=ADDRESS)
        return []

    def _told(self, wait_ms: int, pointer: int, *arguments: int) -> "Command":
        """Return whether it acknowledged."""
        answer = yield Ask(to(pointer, *arguments), wait_ms, 0, address=ADDRESS)
        return answer is not None

    def _asked(self, pointer: int, size: int) -> "Generator[Ask, bytes | None, bytes | None]":
        """Return what it answers, without the check values; None if it does not, or they differ."""
        answer = yield Ask(to(pointer), 0, size, address=ADDRESS)
        if answer is None:
            return None
        try:
            if len(answer) != size:
                raise WireError("SPS30 answers %d bytes, not %d" % (len(answer), size), answer)
            return without_crc(answer)
        except WireError as error:
            self.damaged.append((0, error))
            return None

    def _group(self, values: bytes, now_ms: int) -> "list[list[Reading]]":
        try:
            judged = self._sensor.judge(values, now_ms)
        except WireError as error:
            self.damaged.append((0, error))
            return []
        self.attributes["doubt"] = self._sensor.why
        return [judged]

    def _lose(self) -> None:
        """It was silent, or does not measure: it may have lost power. The next measurement starts it."""
        self._runs = False
        self._sensor.doubt.lost()
