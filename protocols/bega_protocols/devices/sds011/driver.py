"""When an SDS011 is asked, woken and put to sleep, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.sds011.codec import (
    ACTIVE_MODE,
    ANY_ID,
    FIRMWARE,
    HEAD,
    LONGEST_PERIOD_MIN,
    MEASURED,
    PERIOD,
    QUERY,
    QUERY_MODE,
    REPLY,
    REPORT_MODE,
    SLEEP,
    SLEEP_WORK,
    TOP_TENTHS,
    WORK,
    Answer,
    command,
    decode,
    masses_tenths,
    size_of,
)
from bega_protocols.doubt import NO_CLOCK_MS, Doubt
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.frames import Frames
from bega_protocols.on_time import OnTime
from bega_protocols.reading import Reading
from bega_protocols.settings import hex_bytes, only, whole_number, yes_or_no

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator

    from bega_protocols.driver import Aes, Command, Exchange, Settings

ANSWER_MS = 1000  # an answer takes 10 ms at 9600 baud; a frame that it was just sending goes first
LONGEST_ANSWER = 100  # bytes to look for an answer in: ten frames that nobody asked for
BETWEEN_FRAMES_MS = 5000  # it reports once a second; what lies further apart was not watched
WORKING_MS = 30_000  # with a working period it runs this long for each report
LONGEST_STEP_MS = 3_600_000  # between two measurements; further apart nobody knows what it did
LONGEST_WARM_UP_S = 45  # waited for in one piece: a line that does nothing for a minute counts as stuck
STUCK_FRAMES = 8
ACTIONS = ("sleep", "report_by_itself", "period_min")


class Driver:
    """An SDS011 that is asked (`mode` query), or that reports by itself and is listened to (continuous).

    It is asked only if it has `measure`: an instance that listens has none.
    """

    line = "serial 9600 8N1"
    also_found = (("serial 9600 8N1", {"mode": "continuous"}),)  # who is heard to speak need not be asked
    actions = ACTIONS

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "mode", "id", "rest", "period_min", "warm_up_s", "stuck_s")
        mode = settings.get("mode", "query")
        if mode not in ("query", "continuous"):
            raise ConfigError("mode must be query or continuous, not %r" % (mode,))
        self._id = int.from_bytes(hex_bytes(settings, "id", 2), "big") if "id" in settings else ANY_ID
        self._rest = yes_or_no(settings, "rest", False)
        if self._rest and mode != "query":
            raise ConfigError("rest needs mode query: who only listens cannot wake it")
        self.period_ms = 60_000 * whole_number(settings, "period_min", 0, LONGEST_PERIOD_MIN, 0)
        self._has_period = self.period_ms > 0
        if self._has_period and mode == "query":
            raise ConfigError("period_min needs mode continuous: a sensor that is asked has `rest`")
        self._warm_up_ms = 1000 * whole_number(settings, "warm_up_s", 0, LONGEST_WARM_UP_S, 30)
        stuck_ms = 1000 * whole_number(settings, "stuck_s", 0, 86400, 600)
        # With a working period it has worked for 30 s before each report: silence and warm-up are over by then.
        warm_up_ms = 0 if self._has_period else self._warm_up_ms
        quiet_ms = 0 if mode == "query" or self._has_period else BETWEEN_FRAMES_MS
        ends = {"pm2_5": (-1, TOP_TENTHS), "pm10": (-1, TOP_TENTHS)}
        self._doubt = Doubt(warm_up_ms, quiet_ms, stuck_ms, STUCK_FRAMES, ends, ("pm2_5", "pm10"))
        self._on_time = OnTime(state)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._frames = Frames(HEAD, size_of)
        self._seen_ms: "int | None" = None  # when it was last known to run
        self._is_set_up = False
        if mode == "query":
            self.measure = self._measure

    def state(self) -> bytes:
        """Return how long the laser has run."""
        return self._on_time.state()

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each measurement that `chunk` completes, oldest first."""
        groups = []
        for answer in self._frames.feed(chunk, self._decode, self.damaged):
            if answer and answer.kind == MEASURED:
                self._note_frame(now_ms)
                groups.append(self._readings(answer, now_ms))
        return groups

    def act(self, name: str, value: "int | None") -> "Command":
        """sleep: 1 sleeps, 0 wakes; report_by_itself: 1 or 0; period_min: 0 works always, else once in so many."""
        most = LONGEST_PERIOD_MIN if name == "period_min" else 1
        if name not in self.actions or value is None or not 0 <= value <= most:
            raise ConfigError("an SDS011 can do %s from 0 to %d, not %s %r" % (", ".join(ACTIONS), most, name, value))
        if name == "sleep":
            return (yield from self._told(SLEEP_WORK, SLEEP if value else WORK))
        if name == "report_by_itself":
            return (yield from self._told(REPORT_MODE, ACTIVE_MODE if value else QUERY_MODE))
        return (yield from self._told(PERIOD, value))

    def _measure(self, now_ms: int) -> "Exchange":
        """Wake it if it rests, set it up once, ask; return one group, or none. `rest` makes it a warm-up longer."""
        asleep = self._rest
        if asleep and not (yield from self._woken(now_ms)):
            return []
        if not self._is_set_up and not (yield from self._set_up()):
            return []
        answer = yield from self._asked(command(QUERY, None, self._id), MEASURED, QUERY)
        if answer is None:
            # It does not tell why: it is gone, or somebody put it to sleep, and then this wakes it for the next time.
            yield from self._told(SLEEP_WORK, SLEEP if asleep else WORK)
            self._lose()
            return []
        if asleep:
            yield from self._told(SLEEP_WORK, SLEEP)
            return [self._readings(answer, now_ms + self._warm_up_ms)]
        self._note_question(now_ms)
        return [self._readings(answer, now_ms)]

    def _woken(self, now_ms: int) -> "Command":
        """Wake it and wait until it has warmed up; return whether it answered."""
        if not (yield from self._told(SLEEP_WORK, WORK)):
            self._lose()
            return False
        self._doubt.woke(now_ms)
        yield Ask(b"", self._warm_up_ms, 0)
        self._on_time.add(self._warm_up_ms)
        return True

    def _set_up(self) -> "Command":
        """Let it wait to be asked. It keeps that without power, so it is told only if it is not so yet."""
        mode = yield from self._asked(command(REPORT_MODE, None, self._id), REPLY, REPORT_MODE)
        if mode is None:
            yield from self._told(SLEEP_WORK, WORK)
            self._lose()
            return False
        if mode.data[2] != QUERY_MODE and not (yield from self._told(REPORT_MODE, QUERY_MODE)):
            return False
        firmware = yield from self._asked(command(FIRMWARE, None, self._id), REPLY, FIRMWARE)
        if firmware:
            self.attributes["firmware"] = "20%02d-%02d-%02d" % tuple(firmware.data[1:])
        self._is_set_up = True
        return True

    def _told(self, code: int, value: int) -> "Command":
        """Set `value`; return whether the sensor confirmed it."""
        answer = yield from self._asked(command(code, value, self._id), REPLY, code)
        return answer is not None and answer.data[2] == value

    def _asked(self, question: bytes, kind: int, code: int) -> "Generator[Ask, bytes | None, Answer | None]":
        """Return its answer of this kind, None if none came. What it reports by itself may stand before it."""

        def wanted(answer: "Answer | None") -> bool:
            return answer is not None and answer.kind == kind and (kind == MEASURED or answer.data[0] == code)

        def complete(so_far: bytes) -> bool:
            found = Frames(HEAD, size_of).feed(so_far, self._decode, [])
            return len(so_far) >= LONGEST_ANSWER or any(wanted(answer) for answer in found)

        heard = yield Ask(question, ANSWER_MS, complete)
        if heard is None:
            return None
        known = len(self.damaged)
        found = Frames(HEAD, size_of).feed(heard, self._decode, self.damaged)
        answers = [answer for answer in found if wanted(answer)]
        if answers:
            return answers[-1]
        if len(self.damaged) == known:
            self.damaged.append((0, WireError("no SDS011 answer", heard[:LONGEST_ANSWER])))
        return None

    def _decode(self, frame: bytes) -> "Answer | None":
        answer = decode(frame)
        if answer is None:
            return None
        if self._id not in (ANY_ID, answer.device_id):
            raise WireError("SDS011 %04X answers, not %04X" % (answer.device_id, self._id), frame)
        if answer.kind == MEASURED:
            masses_tenths(answer.data)
        return answer

    def _readings(self, answer: Answer, now_ms: int) -> "list[Reading]":
        pm2_5, pm10 = masses_tenths(answer.data)
        self.attributes["id"] = "%04X" % answer.device_id
        readings = [Reading("pm2_5", pm2_5, -1), Reading("pm10", pm10, -1)]
        judged = self._doubt.judge(readings, answer.data, now_ms)
        self.attributes["doubt"] = self._doubt.why
        return judged + self._on_time.readings()

    def _lose(self) -> None:
        self._doubt.lost()
        self._seen_ms = None
        self._is_set_up = False

    def _note_frame(self, now_ms: int) -> None:
        """Count the laser of a sensor that reports by itself."""
        if now_ms == NO_CLOCK_MS:
            return
        step_ms = 0 if self._seen_ms is None else max(0, now_ms - self._seen_ms)
        if step_ms <= BETWEEN_FRAMES_MS:
            self._on_time.add(step_ms)
        elif self._has_period:
            self._on_time.add(WORKING_MS)
        self._seen_ms = now_ms

    def _note_question(self, now_ms: int) -> None:
        """Count the laser of a sensor that is asked and never put to sleep."""
        if self._seen_ms is not None and 0 < now_ms - self._seen_ms <= LONGEST_STEP_MS:
            self._on_time.add(now_ms - self._seen_ms)
        self._seen_ms = now_ms
