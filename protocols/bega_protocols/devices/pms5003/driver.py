"""When a Plantower dust sensor speaks, is asked, woken and put to sleep, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.pms5003.codec import (
    ACTIVE,
    HEAD,
    MODELS,
    PASSIVE,
    READ,
    SLEEP,
    WAKE,
    Air,
    command,
    decode,
    reply_to,
    size_of,
)
from bega_protocols.doubt import Doubt, suspect
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.frames import Frames
from bega_protocols.on_time import OnTime
from bega_protocols.reading import Reading
from bega_protocols.settings import only, whole_number, yes_or_no

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Command, Exchange, Settings

MASSES = ("pm1", "pm2_5", "pm10")
COUNTS = ("particles_0_3", "particles_0_5", "particles_1", "particles_2_5", "particles_5", "particles_10")
# The largest mass that the manual promises to give out, the largest count that fits; above 100 % there is no humidity.
ENDS = dict.fromkeys(MASSES, (-1, 1000))
ENDS["humidity"] = (-1, 1001)
ENDS.update(dict.fromkeys(COUNTS, (-1, 65535)))
LONGEST_WARM_UP_S = 45  # waited for in one piece: a line that does nothing for a minute counts as stuck
STUCK_FRAMES = 8
NO_PARTICLES = "mass without particles"
QUIET_MS = 10_000  # it speaks each 2.3 s at least
ANSWER_MS = 1000  # a frame that it was just sending goes first
LONGEST_ANSWER = 200  # bytes to look for an answer in
LONGEST_STEP_MS = 3_600_000  # between two measurements; further apart nobody knows what it did


class Driver:
    """A Plantower sensor that speaks about once a second and is listened to (`mode` active), or is asked (passive).

    It is asked, and counts how long its laser runs, only if it has `measure` and `state`: an instance that listens
    has neither.
    """

    line = "serial 9600 8N1"
    # Of the other models only these have frames of another length; the rest cannot be told from the first.
    also_found = (
        ("serial 9600 8N1", {"model": "pms3003"}),
        ("serial 9600 8N1", {"model": "pms5003st"}),
        ("serial 9600 8N1", {"mode": "passive"}),
    )
    actions = ("sleep", "speak_by_itself")

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "model", "mode", "rest", "warm_up_s", "stuck_s")
        name, mode = settings.get("model", "pms5003"), settings.get("mode", "active")
        if name not in MODELS:
            raise ConfigError("model must be one of %s, not %r" % (", ".join(sorted(MODELS)), name))
        if mode not in ("active", "passive"):
            raise ConfigError("mode must be active or passive, not %r" % (mode,))
        self._model = MODELS[name]
        if mode == "passive" and not self._model.takes_commands:
            raise ConfigError("a %s takes no commands: its mode is active" % name)
        self._rest = yes_or_no(settings, "rest", False)
        if self._rest and mode == "active":
            raise ConfigError("rest needs mode passive: who only listens cannot wake it")
        self._warm_up_ms = 1000 * whole_number(settings, "warm_up_s", 0, LONGEST_WARM_UP_S, 30)
        stuck_ms = 1000 * whole_number(settings, "stuck_s", 0, 86400, 600)
        quiet_ms = QUIET_MS if mode == "active" else 0
        self._doubt = Doubt(self._warm_up_ms, quiet_ms, stuck_ms, STUCK_FRAMES, ENDS, MASSES + COUNTS)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._frames = self._new_frames()
        self._on_time = OnTime(state)
        self._is_passive = False
        self._seen_ms: "int | None" = None  # when it was last known to run
        if mode == "passive":
            self.measure = self._measure
            self.state = self._on_time.state

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each data frame that `chunk` completes, oldest first."""
        return self._groups(self._frames.feed(chunk, self._decode, self.damaged), now_ms)

    def act(self, name: str, value: "int | None") -> "Command":
        """sleep: 1 sleeps, 0 wakes; speak_by_itself: 1 or 0."""
        if name not in self.actions or value not in (0, 1) or not self._model.takes_commands:
            raise ConfigError("this sensor can do sleep or speak_by_itself, 1 or 0, not %s %r" % (name, value))
        if name == "sleep":
            return (yield from self._told(SLEEP if value else WAKE))
        return (yield from self._told(ACTIVE if value else PASSIVE))

    def _measure(self, now_ms: int) -> "Exchange":
        """Wake it if it rests, ask; return one group, or none. With `rest` it takes a warm-up longer."""
        if self._rest:
            yield from self._told(WAKE)  # some do not confirm this; whether it is awake shows when it is asked
            self._doubt.woke(now_ms)
            yield Ask(b"", self._warm_up_ms, 0)
            now_ms += self._warm_up_ms
            self._is_passive = False
        if not self._is_passive:
            self._is_passive = yield from self._told(PASSIVE)
        heard = yield Ask(command(READ), ANSWER_MS, self._holds_air)
        known = len(self.damaged)
        groups = self._groups(self._new_frames().feed(heard or b"", self._decode, self.damaged), now_ms)[-1:]
        if heard and not groups and len(self.damaged) == known:
            self.damaged.append((0, WireError("no Plantower answer", heard[:LONGEST_ANSWER])))
        if not groups:
            # It does not tell why: it is gone, or somebody put it to sleep, and then this wakes it for the next time.
            yield from self._told(SLEEP if self._rest else WAKE)
            self._doubt.lost()
            self._is_passive, self._seen_ms = False, None
            return []
        if self._rest:
            self._on_time.add(self._warm_up_ms)
            yield from self._told(SLEEP)
        else:
            step_ms = 0 if self._seen_ms is None else now_ms - self._seen_ms
            self._on_time.add(step_ms if 0 < step_ms <= LONGEST_STEP_MS else 0)
            self._seen_ms = now_ms
        return [groups[0] + self._on_time.readings()]

    def _told(self, code: "tuple[int, int]") -> "Command":
        """Return whether the sensor confirmed it; what it says by itself may stand before that."""
        confirmed = reply_to(code)
        heard = yield Ask(command(code), ANSWER_MS, lambda so_far: confirmed in so_far or len(so_far) >= LONGEST_ANSWER)
        return heard is not None and confirmed in heard

    def _holds_air(self, so_far: bytes) -> bool:
        found = self._new_frames().feed(so_far, self._decode, [])
        return len(so_far) >= LONGEST_ANSWER or any(air for air, _ in found)

    def _new_frames(self) -> Frames:
        return Frames(HEAD, lambda so_far: size_of(so_far, self._model))

    def _decode(self, frame: bytes) -> "tuple[Air | None, bytes]":
        return decode(frame, self._model), frame

    def _groups(self, found: "list[tuple[Air | None, bytes]]", now_ms: int) -> "list[list[Reading]]":
        return [self._judged(air, frame, now_ms) for air, frame in found if air]

    def _judged(self, air: Air, frame: bytes, now_ms: int) -> "list[Reading]":
        judged = self._doubt.judge(_readings(air), frame, now_ms)
        self.attributes["doubt"] = self._doubt.why
        if not self._doubt.why and air.counts and air.masses_ugm3[2] and not air.counts[0]:
            self.attributes["doubt"] = NO_PARTICLES
            return suspect(judged)
        return judged


def _readings(air: Air) -> "list[Reading]":
    """Masses as they come; counts per 0.1 L are hundredths of a count per cm³."""
    found = [Reading(MASSES[index], air.masses_ugm3[index]) for index in range(len(MASSES))]
    for index in range(len(air.counts)):
        found.append(Reading(COUNTS[index], air.counts[index], -2))
    if air.formaldehyde_ugm3 is not None:
        found.append(Reading("formaldehyde", air.formaldehyde_ugm3))
    if air.temperature_dcel is not None and air.humidity_dpct is not None:
        found.append(Reading("temperature", air.temperature_dcel, -1))
        found.append(Reading("humidity", air.humidity_dpct, -1))
    return found
