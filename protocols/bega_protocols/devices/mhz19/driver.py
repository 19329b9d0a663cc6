"""What to ask an MH-Z19, what to tell it at the start, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.mhz19.codec import (
    ABC_ON,
    HEAD,
    RANGES_PPM,
    READ,
    SET_ABC,
    SIZE,
    SPAN,
    ZERO,
    command,
    decode,
    set_range,
    size_of,
)
from bega_protocols.doubt import SATURATED, Doubt, suspect
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.frames import Frames
from bega_protocols.reading import Reading
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Command, Exchange, Settings

ANSWER_MS = 500
AFTER_SETTING_MS = 100  # it does not answer a setting: what follows at once might be lost
WARM_UP_S = {"b": 180, "c": 60}
ABC = ("on", "off", "as it is")
LOWEST_PPM = 400  # the C model's range begins here; clamped start values of the B lie here too
START_PPM = (400, 410)  # where it stands without a signal
FLAT_MS = 300_000
JUMP_PPM = 100  # no air falls onto a start value from further above between two questions
STUCK_FRAMES = 8


class Driver:
    """An MH-Z19B or C (`model`) of the range `range_ppm`, with the correction of its own baseline (`abc`) on or off."""

    line = "serial 9600 8N1"
    actions = ("zero", "span_ppm", "range_ppm")

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "model", "abc", "range_ppm", "warm_up_s", "stuck_s")
        model = settings.get("model", "b")
        if model not in WARM_UP_S:
            raise ConfigError("model must be b or c, not %r" % (model,))
        self._abc = settings.get("abc", "as it is")
        if self._abc not in ABC:
            raise ConfigError("abc must be %s, not %r" % (", ".join(ABC), self._abc))
        self._range_ppm = settings.get("range_ppm")
        if self._range_ppm is not None and self._range_ppm not in RANGES_PPM:
            raise ConfigError("range_ppm must be 2000, 5000 or 10000, not %r" % (self._range_ppm,))
        warm_up_ms = 1000 * whole_number(settings, "warm_up_s", 0, 3600, WARM_UP_S[model])
        stuck_ms = 1000 * whole_number(settings, "stuck_s", 0, 86400 * 7, 3600)
        ends = {"co2": (LOWEST_PPM - 1, self._range_ppm or RANGES_PPM[-1])}
        self._doubt = Doubt(warm_up_ms, 0, stuck_ms, STUCK_FRAMES, ends)
        self._flat = Doubt(stuck_ms=FLAT_MS)
        self._last_ppm: "int | None" = None  # that was no start value
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._frames = Frames(HEAD, size_of)
        self._is_set_up = False

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the reading of each answer that `chunk` completes, oldest first."""
        return [self._readings(ppm, frame, now_ms) for ppm, frame in self._frames.feed(chunk, _kept, self.damaged)]

    def measure(self, now_ms: int) -> "Exchange":
        """Set it up once, ask; return one group, or none."""
        if not self._is_set_up:
            yield from self._set_up()
        heard = yield Ask(command(READ), ANSWER_MS, SIZE)
        if heard is None:
            self._doubt.lost()
            self._is_set_up = False  # it may come back from a power cut, and some forget what they were told
            return []
        known = len(self.damaged)
        found = Frames(HEAD, size_of).feed(heard, _kept, self.damaged)
        if found:
            return [self._readings(found[-1][0], found[-1][1], now_ms)]
        if len(self.damaged) == known:
            self.damaged.append((0, WireError("no MH-Z19 answer", heard)))
        return []

    def act(self, name: str, value: "int | None") -> "Command":
        """Tell it once; it confirms nothing.

        zero (value 400): the air has held 400 ppm for 20 minutes at least. span_ppm: the air holds this much now;
        only after zero, 1000 at least and 2000 advised. range_ppm: 2000, 5000 or 10000.
        """
        if name == "zero" and value == 400:
            question = command(ZERO)
        elif name == "span_ppm" and value is not None and 1000 <= value <= 5000:
            question = command(SPAN, value.to_bytes(2, "big"))
        elif name == "range_ppm" and value is not None and value in RANGES_PPM:
            question = set_range(value)
        else:
            raise ConfigError("an MH-Z19 can do zero 400, span_ppm 1000 to 5000, range_ppm, not %s %r" % (name, value))
        yield Ask(question, AFTER_SETTING_MS, 0)
        return True

    def _set_up(self) -> "Exchange":
        """Tell it what the settings say: after power some correct their baseline whatever they were told before."""
        if self._range_ppm is not None:
            yield Ask(set_range(self._range_ppm), AFTER_SETTING_MS, 0)
        if self._abc != "as it is":
            yield Ask(command(SET_ABC, ABC_ON if self._abc == "on" else b"\0"), AFTER_SETTING_MS, 0)
        self._is_set_up = True
        return []

    def _readings(self, ppm: int, frame: bytes, now_ms: int) -> "list[Reading]":
        if ppm not in START_PPM:
            self._last_ppm = ppm
        elif self._last_ppm is not None and self._last_ppm - ppm > JUMP_PPM:
            self._doubt.woke(now_ms)  # it began anew, and was back before it was asked
        readings = [Reading("co2", ppm)]
        judged = self._doubt.judge(readings, frame, now_ms)
        self._flat.judge(readings, frame[2:4], now_ms)
        why = self._doubt.why
        if not why and ppm in RANGES_PPM:
            why = SATURATED  # whichever of them it has: only one value in thousands is met by chance
        elif not why and ppm in START_PPM:
            why = self._flat.why
        self.attributes["doubt"] = why
        return suspect(judged) if why else judged


def _kept(frame: bytes) -> "tuple[int, bytes]":
    return decode(frame), frame
