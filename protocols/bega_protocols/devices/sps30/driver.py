"""What to ask an SPS30 on its serial interface, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.sps30.codec import (
    AS_FLOATS,
    CLEAN,
    CLEAR,
    INFORMATION,
    KEEP,
    NOT_NOW,
    OK,
    READ,
    RESET,
    SERIAL_NUMBER,
    SLEEP,
    START,
    STATES,
    STATUS,
    STOP,
    UNKNOWN,
    VERSION,
    WAKE,
    WAKE_PULSE,
    Replies,
    Reply,
    is_reply,
    outputs,
    request,
)
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import Reading
from bega_protocols.sensirion import CLEANING_MS, Sps30
from bega_protocols.settings import only, whole_number, yes_or_no

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator

    from bega_protocols.driver import Aes, Command, Exchange, Settings

REPLY_MS = 200  # the paper says 20; a USB adapter has a latency of its own
WAKE_MS = 10  # between the pulse and the command, of the 100 that are allowed
RESET_MS = 100
LONGEST_WARM_UP_S = 45  # waited for in one piece: a line that does nothing for a minute counts as stuck
NEW_EACH_MS, TRIES = 1100, 3  # it measures once a second


class Driver:
    """An SPS30 that is asked; with `rest` it sleeps between measurements, its fan and laser off."""

    line = "serial 115200 8N1"
    actions = ("clean", "clear_status", "reset")

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "rest", "warm_up_s", "clean_days")
        self._rest = yes_or_no(settings, "rest", False)
        self._warm_up_ms = 1000 * whole_number(settings, "warm_up_s", 0, LONGEST_WARM_UP_S, 30)
        self._sensor = Sps30(self._warm_up_ms, whole_number(settings, "clean_days", 0, 365, 7), state)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._replies = Replies()
        self._runs = False
        self._is_known = False  # its number and version were asked for
        self._has_status = True  # firmware 2.0 and later; older ones call the command unknown
        self._has_sleep = True

    def state(self) -> bytes:
        """Return how long ago the fan was cleaned."""
        return self._sensor.state()

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each reply with measured values that `chunk` completes, oldest first."""
        groups = []
        for reply in self._replies.feed(chunk, self.damaged):
            if reply.command == READ:
                groups.extend(self._group(reply, now_ms))
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
            if is_due and (yield from self._told(CLEAN)):
                self._sensor.cleaned(now_ms)
                yield Ask(b"", CLEANING_MS, 0)
                now_ms += CLEANING_MS
            yield Ask(b"", self._warm_up_ms, 0)
            now_ms += self._warm_up_ms
        register = (yield from self._asked(STATUS, KEEP)) if self._has_status else None
        if register and register.state == UNKNOWN:
            self._has_status = False
        elif register and register.state == OK and len(register.data) >= 4:
            self._sensor.status(int.from_bytes(register.data[:4], "big"))
        groups = yield from self._read(now_ms)
        if not groups:
            self._lose()
            return []
        if is_due and not self._rest and (yield from self._told(CLEAN)):
            self._sensor.cleaned(now_ms)
        if self._rest:
            yield from self._put_to_rest()
        return groups

    def act(self, name: str, value: "int | None") -> "Command":
        """clean: the fan, 10 s, while it measures; clear_status: forget what was wrong; reset: as after power."""
        if name == "clean":
            return (yield from self._told(CLEAN))
        if name == "clear_status":
            reply = yield from self._asked(STATUS, CLEAR)
            return reply is not None and reply.state == OK
        if name == "reset":
            self._lose()
            done = yield from self._told(RESET)
            yield Ask(b"", RESET_MS, 0)
            return done
        raise ConfigError("an SPS30 can do %s, not %s" % (", ".join(self.actions), name))

    def _started(self) -> "Command":
        """Wake it, end what it may still be doing in another format, start it; return whether it measures."""
        if self._has_sleep:
            yield Ask(WAKE_PULSE, WAKE_MS, 0)
            woken = yield from self._asked(WAKE)
            if woken and woken.state == UNKNOWN:
                self._has_sleep = False
        if not self._is_known:
            yield from self._get_to_know()
        # It refuses to stop what it does not do, and to start what it does: only a start after a stop is certain.
        if (yield from self._asked(STOP)) is None:
            return False
        self._runs = yield from self._told(START, AS_FLOATS)
        return self._runs

    def _get_to_know(self) -> "Command":
        version = yield from self._asked(VERSION)
        if version and version.state == OK and len(version.data) >= 2:
            self.attributes["firmware"] = "%d.%d" % (version.data[0], version.data[1])
        serial = yield from self._asked(INFORMATION, SERIAL_NUMBER)
        if serial and serial.state == OK:
            text = serial.data.split(b"\0")[0]
            if all(0x20 < byte < 0x7F for byte in text):
                self.attributes["serial_number"] = text.decode()
        self._is_known = version is not None and serial is not None
        return self._is_known

    def _read(self, now_ms: int) -> "Exchange":
        """Ask for what was measured, again while there is nothing new; nothing if it does not measure."""
        for _ in range(TRIES):
            reply = yield from self._asked(READ)
            if reply is None or reply.state == NOT_NOW:
                return []
            groups = self._group(reply, now_ms)
            if groups or reply.data:
                return groups
            yield Ask(b"", NEW_EACH_MS, 0)
        return []

    def _put_to_rest(self) -> "Command":
        self._runs = False
        done = yield from self._told(STOP)
        if self._has_sleep:
            yield from self._asked(SLEEP)
        return done

    def _told(self, command: int, data: bytes = b"") -> "Command":
        reply = yield from self._asked(command, data)
        if reply is None:
            return False
        if reply.state != OK:
            self.attributes["refused"] = "command %02x: %s" % (command, STATES.get(reply.state, "for a reason unknown"))
        return reply.state == OK

    def _asked(self, command: int, data: bytes = b"") -> "Generator[Ask, bytes | None, Reply | None]":
        """Return the reply to this command, None if none came."""
        heard = yield Ask(request(command, data), REPLY_MS, is_reply)
        if heard is None:
            return None
        known = len(self.damaged)
        for reply in Replies().feed(heard, self.damaged):
            if reply.command == command:
                return reply
        if len(self.damaged) == known:
            self.damaged.append((0, WireError("no reply to %02x" % command, heard[:64])))
        return None

    def _group(self, reply: Reply, now_ms: int) -> "list[list[Reading]]":
        try:
            values = outputs(reply)
            if values is None:
                return []
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
