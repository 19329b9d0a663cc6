"""What came whole and may still not be true: a sensor that warms up, repeats itself, or stands at the end of its range.

No air sensor says so itself; its frames do. How long it warms up and where its
range ends is in the device's datasheet and stays in its driver; here is what
all of them share: the counting. A doubted reading is kept, as SUSPECT.
"""

from bega_protocols.reading import SUSPECT, Reading

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Mapping

NO_CLOCK_MS = 0  # `now_ms` of a capture that is decoded: it does not say when its frames came
WARMING, STUCK, NOTHING, SATURATED = "warming up", "repeats itself", "sees nothing at all", "at the end of its range"


class Doubt:
    """Follows the frames of one sensor; `why` says in words what is wrong with the last one, "" if nothing is.

    The warm-up begins with the first frame: whoever starts to listen does not
    know since when the sensor has power, and after a power cut both have it
    since the same moment. While `now_ms` is NO_CLOCK_MS, warm-up and
    repetition are not judged.
    """

    def __init__(
        self,
        warm_up_ms: int = 0,
        quiet_ms: int = 0,
        stuck_ms: int = 0,
        stuck_frames: int = 2,
        ends: "Mapping[str, tuple[int, int]] | None" = None,
        sees_always: "tuple[str, ...]" = (),
    ) -> None:
        """Set what is doubted; 0 leaves a rule out.

        warm_up_ms: what is measured so soon after power or wake is not yet air
        quiet_ms: a sensor that was not heard for longer was without power; only for those that speak by themselves
        stuck_ms, stuck_frames: noise must move a frame before it came for so long and so many times, byte for byte
        ends: by quantity the lowest and the highest value, in the reading's own steps, that is no measurement any more
        sees_always: quantities that are all zero in no air: then its laser or its fan does not run
        """
        self.why = ""
        self._warm_up_ms = warm_up_ms
        self._quiet_ms = quiet_ms
        self._stuck_ms = stuck_ms
        self._stuck_frames = stuck_frames
        self._ends = ends or {}
        self._sees_always = sees_always
        self._heard_ms: "int | None" = None
        self._woken_ms = 0
        self._frame = b""
        self._frame_ms = 0  # when it came first
        self._same = 0

    def woke(self, now_ms: int) -> None:
        """Take note that power came or the sensor was woken just now: its warm-up begins."""
        self._heard_ms = self._woken_ms = now_ms

    def lost(self) -> None:
        """Take note that the sensor does not answer: when it does again, it may have been without power."""
        self._heard_ms = None

    def judge(self, readings: "list[Reading]", frame: bytes, now_ms: int) -> "list[Reading]":
        """Return the readings of `frame`, those that are doubted as SUSPECT.

        frame: all that the sensor said, not one field: one value may stand still in still air.
        """
        if self._heard_ms is None or 0 < self._quiet_ms < now_ms - self._heard_ms:
            self.woke(now_ms)
        self._heard_ms = now_ms
        self._count(frame, now_ms)
        if now_ms != NO_CLOCK_MS and now_ms - self._woken_ms < self._warm_up_ms:
            self.why = WARMING
        elif now_ms != NO_CLOCK_MS and self._is_stuck(now_ms):
            self.why = STUCK
        elif self._sees_always and not self._sees(readings):
            self.why = NOTHING
        else:
            return self._within(readings)
        return suspect(readings)

    def _count(self, frame: bytes, now_ms: int) -> None:
        """Sleep and silence between two frames that are the same make them no better."""
        if frame == self._frame:
            self._same += 1
        else:
            self._frame = frame
            self._frame_ms = now_ms
            self._same = 1

    def _is_stuck(self, now_ms: int) -> bool:
        return 0 < self._stuck_ms <= now_ms - self._frame_ms and self._same >= self._stuck_frames

    def _sees(self, readings: "list[Reading]") -> bool:
        return any(reading.value for reading in readings if reading.quantity in self._sees_always)

    def _within(self, readings: "list[Reading]") -> "list[Reading]":
        at_end = [reading.quantity for reading in readings if self._is_at_end(reading)]
        self.why = "%s: %s" % (SATURATED, ", ".join(at_end)) if at_end else ""
        return [suspect([reading])[0] if reading.quantity in at_end else reading for reading in readings]

    def _is_at_end(self, reading: Reading) -> bool:
        ends = self._ends.get(reading.quantity)
        return ends is not None and not ends[0] < reading.value < ends[1]


def suspect(readings: "list[Reading]") -> "list[Reading]":
    """Return the same readings as SUSPECT."""
    return [Reading(row.quantity, row.value, row.exp10, row.part, SUSPECT) for row in readings]
