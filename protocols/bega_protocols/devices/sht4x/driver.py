"""What to ask an SHT4x, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.sht4x.codec import ADDRESSES, ANSWER_SIZE, MEASURE, decode, is_answer
from bega_protocols.doubt import Doubt
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import Reading
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Exchange, Settings

ENDS = {"temperature": (-4500, 13000), "humidity": (0, 10000)}
STUCK_MS, STUCK_FRAMES = 60000, 10


class Driver:
    """An SHT4x at `address`, measuring with `precision` high, medium or low; heater and serial number are not used."""

    line = "i2c 100000"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "address", "precision")
        self._address = whole_number(settings, "address", ADDRESSES[0], ADDRESSES[-1], ADDRESSES[0])
        precision = settings.get("precision", "high")
        if precision not in MEASURE:
            raise ConfigError("precision must be high, medium or low, not %r" % (precision,))
        self._command, self._wait_ms = MEASURE[precision]
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._doubt = Doubt(stuck_ms=STUCK_MS, stuck_frames=STUCK_FRAMES, ends=ENDS)
        self._waiting = b""
        self._offset = 0  # of the first waiting byte, counted from the start of the stream

    def measure(self, now_ms: int) -> "Exchange":
        """Ask once; return one group, or none if the sensor kept silent or its answer was damaged."""
        answer = yield Ask(bytes((self._command,)), self._wait_ms, ANSWER_SIZE, address=self._address)
        if answer is None:
            return []
        try:
            readings = _readings(answer)
        except WireError as error:
            self.damaged.append((0, error))
            return []
        judged = self._doubt.judge(readings, answer, now_ms)
        self.attributes["doubt"] = self._doubt.why
        return [judged]

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each answer that `chunk` completes, oldest first.

        An answer has no head, and two answers shifted by one word pass both
        check values: humidity would be taken for temperature. So where an answer
        begins is learnt from the bus, not searched for: a chunk that is an answer
        by itself begins one, and after a damaged answer the next is looked for
        where it must stand, six bytes on; only then by sliding.
        """
        if self._waiting and len(chunk) % ANSWER_SIZE == 0 and is_answer(chunk[:ANSWER_SIZE]):
            self._damage(0, self._waiting)
            self._offset += len(self._waiting)
            self._waiting = b""
        data = self._waiting + chunk
        groups = []
        at = 0
        while at + ANSWER_SIZE <= len(data):
            frame = data[at : at + ANSWER_SIZE]
            if is_answer(frame):
                groups.append(_readings(frame))
                at += ANSWER_SIZE
            else:
                self._damage(at, frame)
                at = _next_answer(data, at)
        self._waiting = data[at:]
        self._offset += at
        return groups

    def _damage(self, at: int, raw: bytes) -> None:
        self.damaged.append((self._offset + at, WireError("no SHT4x answer", raw)))


def _next_answer(data: bytes, damaged: int) -> int:
    """Return where the first whole answer behind the damaged one stands, or where the last five bytes begin."""
    on_grid = damaged + ANSWER_SIZE
    if is_answer(data[on_grid : on_grid + ANSWER_SIZE]):
        return on_grid
    at = damaged + 1
    while at + ANSWER_SIZE <= len(data) and not is_answer(data[at : at + ANSWER_SIZE]):
        at += 1
    return at


def _readings(answer: bytes) -> "list[Reading]":
    climate = decode(answer)
    return [Reading("temperature", climate.temperature_ccel, -2), Reading("humidity", climate.humidity_cpct, -2)]
