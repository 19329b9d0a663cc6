"""What Sensirion's sensors share, and what the SPS30 says whichever wire it hangs on.

Spec: SPS30 datasheet version 1.0 (March 2020): section 4.3 outputs, 4.4 status
register, 4.2 fan cleaning, 6.1 check value (CRC-8 of each word on I2C; the
same on SCD4x, SHT4x and SGP41). No IO, no clock, no floats.
"""

import struct

from bega_protocols.doubt import NO_CLOCK_MS, Doubt, suspect
from bega_protocols.errors import WireError
from bega_protocols.reading import Reading
from bega_protocols.sensirion_i2c import without_crc

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Decoded = TypeVar("Decoded")

TOO_LARGE = 127 + 31  # power of a float32 from which it is no amount of anything
OUTPUTS_SIZE = 40  # ten float32, high byte first
# In the order of section 4.3. Numbers are of particles up to a size: they rise with it.
MASSES = ("pm1", "pm2_5", "pm4", "pm10")
NUMBERS = ("particles_to_0_5", "particles_to_1", "particles_to_2_5", "particles_to_4", "particles_to_10")
MOST_MASS, MOST_NUMBER = 100_000, 300_000  # hundredths: 1000 µg/m³, 3000 /cm³

STATUS = ((21, "fan speed out of range"), (5, "laser current out of range"), (4, "fan does not turn"))
CLEANING = "cleans its fan"
CLEANING_MS = 10_000  # at full speed, and its outputs stand still
CLEAN_EACH_S = 604_800  # by itself once a week, but its own counter starts anew at each power-up
FIRST_AFTER_S = 3600  # when it is not known when it was cleaned; a node that begins anew each minute never cleans
STUCK_MS, STUCK_FRAMES = 2000, 3  # ten floats that noise does not move


def is_words(answer: bytes) -> bool:
    """Return whether `without_crc` would take it."""
    try:
        return bool(without_crc(answer))
    except WireError:
        return False


class Answers:
    """Cuts answers of one size out of a stream; they have no head, only check values.

    Answers shifted by a word pass all of them, one value taken for another. So
    where an answer begins is learnt from the bus, not searched for: a chunk
    that is an answer by itself begins one, and after a damaged answer the next
    is looked for where it must stand; only then by sliding.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting = b""
        self._offset = 0  # of the first waiting byte, counted from the start of the stream

    def feed(
        self, chunk: bytes, decode: "Callable[[bytes], Decoded]", damaged: "list[tuple[int, WireError]]"
    ) -> "list[Decoded]":
        """Return what `decode` makes of each answer that `chunk` completes; its WireErrors go to `damaged`."""
        if self._waiting and len(chunk) % self._size == 0 and is_words(chunk[: self._size]):
            damaged.append((self._offset, WireError("no whole answer", self._waiting)))
            self._offset += len(self._waiting)
            self._waiting = b""
        data = self._waiting + chunk
        found = []
        at = 0
        while at + self._size <= len(data):
            answer = data[at : at + self._size]
            try:
                found.append(decode(answer))
                at += self._size
            except WireError as error:
                damaged.append((self._offset + at, error))
                at = self._next(data, at)
        self._waiting = data[at:]
        self._offset += at
        return found

    def _next(self, data: bytes, damaged: int) -> int:
        on_grid = damaged + self._size
        if is_words(data[on_grid : on_grid + self._size]):
            return on_grid
        at = damaged + 1
        while at + self._size <= len(data) and not is_words(data[at : at + self._size]):
            at += 1
        return at


def hundredths(bits: int) -> int:
    """Return the float32 in `bits` in hundredths, rounded to the nearest, half up.

    Raises WireError for what is no amount: NaN, infinity, less than zero, 2^31 or more.
    """
    power = bits >> 23 & 0xFF
    if power >= TOO_LARGE or (bits >> 31 and bits << 1 & 0xFFFFFFFF):
        raise WireError("no amount: float32 %08x" % bits)
    whole = (bits & 0x7FFFFF | 0x800000 if power else (bits & 0x7FFFFF) << 1) * 100
    places = 150 - power  # bits behind the point
    if places <= 0:
        return whole << -places
    return whole + (1 << places - 1) >> places


def readings(outputs: bytes) -> "list[Reading]":
    """Return the ten outputs of an SPS30, each to the nearest 0.01.

    Raises WireError where mass or number fall with size, of which no air is capable, or one is no amount.
    """
    values = [hundredths(bits) for bits in struct.unpack(">10I", outputs)]
    for row in (values[:4], values[4:9]):
        if sorted(row) != row:
            raise WireError("SPS30 outputs fall with size", outputs)
    names = MASSES + NUMBERS + ("particle_size",)
    return [Reading(names[index], values[index], -2) for index in range(10)]


class Sps30:
    """What a driver remembers of an SPS30: when it was cleaned, what its status says, why it is doubted.

    state: what `state()` gave at the last stop.
    """

    def __init__(self, warm_up_ms: int, clean_days: int, state: bytes = b"") -> None:
        """clean_days: how often the fan is cleaned from here; 0: never."""
        ends = {name: (-1, MOST_MASS if name in MASSES else MOST_NUMBER) for name in MASSES + NUMBERS}
        self.doubt = Doubt(warm_up_ms, 0, STUCK_MS, STUCK_FRAMES, ends, MASSES + NUMBERS)
        self.why = ""
        self._status = ""
        self._clean_each_s = CLEAN_EACH_S // 7 * clean_days
        # Who has no memory (a node, or a first start) cleans it soon: else one that starts anew each night never would.
        unknown_s = max(0, self._clean_each_s - FIRST_AFTER_S)
        self._since_cleaning_s = int.from_bytes(state, "big") if len(state) == 4 else unknown_s
        self._counted_ms: "int | None" = None
        self._cleaning_ms: "int | None" = None  # when it began

    def state(self) -> bytes:
        """Return how long ago it was cleaned, to be given back at the next start."""
        return min(self._since_cleaning_s, 0xFFFFFFFF).to_bytes(4, "big")

    def is_cleaning_due(self, now_ms: int) -> bool:
        """Count the time since the last call; return whether the fan should be cleaned."""
        if self._counted_ms is None:
            self._counted_ms = now_ms
        step_s = (now_ms - self._counted_ms) // 1000
        self._counted_ms += 1000 * step_s
        self._since_cleaning_s += step_s
        return 0 < self._clean_each_s <= self._since_cleaning_s

    def cleaned(self, now_ms: int) -> None:
        """Take note that a cleaning begins."""
        self._since_cleaning_s = 0
        self._cleaning_ms = now_ms

    def status(self, register: int) -> None:
        """Take the device status register; its other bits are reserved."""
        self._status = ", ".join([text for bit, text in STATUS if register >> bit & 1])

    def judge(self, outputs: bytes, now_ms: int) -> "list[Reading]":
        """Return the readings of `outputs`, those that are doubted as SUSPECT; `why` says the reason.

        Raises WireError as `readings` does.
        """
        judged = self.doubt.judge(readings(outputs), outputs, now_ms)
        self.why = self.doubt.why
        if self._status:
            self.why = self._status
        if self._is_cleaning(now_ms):
            self.why = CLEANING
        return suspect(judged) if self.why in (self._status, CLEANING) and self.why else judged

    def _is_cleaning(self, now_ms: int) -> bool:
        if self._cleaning_ms is None or now_ms == NO_CLOCK_MS:
            return False
        if 0 <= now_ms - self._cleaning_ms <= CLEANING_MS + 1000:  # and the first outputs after it
            return True
        self._cleaning_ms = None
        return False
