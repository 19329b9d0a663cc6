"""A node's time: rules only. Ticks and the gateway's messages are passed in; nothing here reads a clock.

A node has no clock of its own that survives a power cut. It counts
milliseconds since its boot began, and the gateway tells it what time it is.

- Unsynchronised: a record keeps its ms of the boot and waits in the ring.
- The gateway's time arrives: a mark in the ring says how boot ms and Unix ms
  relate; every waiting record of this boot is read by it, also after a restart.
- After a reset or a deep sleep, the time that the chip's own clock kept is an estimate until the gateway tells it.
- No time for ten minutes of connection: a mark says that the records so far go
  as UNKNOWN. A record read by a mark is never read otherwise later.
"""

import json
import struct

from bega_protocols.errors import WireError
from bega_protocols.record import ESTIMATED, SYNCHRONISED, UNKNOWN

EARLIEST_MS, LATEST_MS = 1577836800000, 4102444800000  # 2020, 2100: what is told beyond is a lie
TICKS_PERIOD = 1 << 30  # MicroPython's ticks_ms on an ESP32; longer periods elsewhere are multiples of it
WAIT_FOR_TIME_MS = 600_000
GRACE_MS = 5_000  # after each reconnect: the gateway answers a status with the time, in far less
GOOD_FOR_MS = 6 * 3_600_000  # an ESP32's crystal, 40 ppm with its temperature, strays 0.9 s in six hours
TOLERANCE_MS = 2_000  # a message later than this is no longer explained by the network
AGREEING = 3  # so many late messages in a row that agree are the gateway correcting itself
SLEW_PPM = 200  # how fast time may lose what it gained

_MARK = ">IBQQ"  # last seq, known?, ms of the boot at the synchronisation, Unix ms at the same moment


class Monotonic:
    """Milliseconds since the boot began, from ticks that wrap every 12 days; ask at least once in that time."""

    def __init__(self, ticks: int, ms: int = 0) -> None:
        """`ms`: how old the boot is already, after a sleep."""
        self._ticks = ticks
        self._ms = ms

    def ms(self, ticks: int) -> int:
        """Return the milliseconds since the boot began."""
        self._ms += (ticks - self._ticks) % TICKS_PERIOD
        self._ticks = ticks
        return self._ms


class Clock:
    """What time it is, as far as the gateway told."""

    def __init__(self, floor_ms: int) -> None:
        """`floor_ms`: no true time lies before it (the moment when the node was configured)."""
        self._floor_ms = floor_ms
        self._offset_ms: int | None = None
        self._heard_ms = 0
        self._is_resumed = False
        self._late: list[int] = []  # offsets that lay too far behind, in a row

    def resume(self, unix_ms: int, mono_ms: int) -> None:
        """Take the time that the chip has kept over a reset or a sleep: an estimate, until the gateway tells it."""
        if unix_ms >= self._floor_ms:
            self._believe(unix_ms - mono_ms, mono_ms)
            self._is_resumed = True

    def heard(self, unix_ms: int, mono_ms: int) -> bool:
        """Take the gateway's time, received at `mono_ms`; return whether it was believed.

        A message can only be late, never early, so the largest offset is the
        truest: time steps forward at once, and goes back by slewing. A time
        that lies far behind is a message that waited somewhere; three in a row
        that agree are a gateway that was wrong before.
        """
        if unix_ms < self._floor_ms:
            return False
        offset_ms = unix_ms - mono_ms
        if self._offset_ms is None or self._is_resumed or offset_ms >= self._offset_ms:
            return self._believe(offset_ms, mono_ms)
        behind_ms = self._offset_ms - offset_ms
        if behind_ms <= TOLERANCE_MS:
            slewed_ms = (mono_ms - self._heard_ms) * SLEW_PPM // 1_000_000
            return self._believe(self._offset_ms - min(behind_ms, slewed_ms), mono_ms)
        if self._late and abs(self._late[-1] - offset_ms) > TOLERANCE_MS:
            self._late = []
        self._late.append(offset_ms)
        return len(self._late) >= AGREEING and self._believe(offset_ms, mono_ms)

    def stamp(self, mono_ms: int) -> "tuple[int | None, int]":
        """Return (Unix ms, time quality) of a moment of this boot; (None, UNKNOWN) if the time was never heard."""
        if self._offset_ms is None:
            return None, UNKNOWN
        return self._offset_ms + mono_ms, _quality(mono_ms - self._heard_ms, bool(self._late) or self._is_resumed)

    def mark(self, last_seq: int) -> bytes:
        """Return the mark that reads all waiting records of this boot up to `last_seq`; the time must be set."""
        assert self._offset_ms is not None
        return struct.pack(_MARK, last_seq, 1, self._heard_ms, self._heard_ms + self._offset_ms)

    def _believe(self, offset_ms: int, mono_ms: int) -> bool:
        self._offset_ms = offset_ms
        self._heard_ms = mono_ms
        self._late = []
        self._is_resumed = False
        return True


class Patience:
    """How long waiting records wait: ten minutes of connection in this boot, then a little after each reconnect."""

    def __init__(self) -> None:
        self._left_ms = WAIT_FOR_TIME_MS
        self._over_ms: int | None = None  # None while there is no connection

    def connected(self, mono_ms: int) -> None:
        """A connection to the gateway begins."""
        self._over_ms = mono_ms + max(self._left_ms, GRACE_MS)

    def disconnected(self, mono_ms: int) -> None:
        """It ends; without one nothing can be sent, so nothing is waited for."""
        if self._over_ms is not None:
            self._left_ms = max(0, self._over_ms - mono_ms)
        self._over_ms = None

    def is_over(self, measured_ms: int, mono_ms: int) -> bool:
        """Return whether a record measured at `measured_ms` must go as it is."""
        return self._over_ms is not None and mono_ms >= self._over_ms and mono_ms - measured_ms >= WAIT_FOR_TIME_MS


def read_time(payload: bytes) -> int:
    """Return the Unix ms in what the gateway sent to `node/<node>/time`; raises WireError if there are none."""
    try:
        unix_ms = json.loads(payload)["unix_ms"]
    except (ValueError, TypeError, KeyError, RuntimeError):  # RuntimeError: nested too deep
        raise WireError("no time", bytes(payload[:40]))
    if not isinstance(unix_ms, int) or not EARLIEST_MS <= unix_ms < LATEST_MS:
        raise WireError("no time", bytes(payload[:40]))
    return unix_ms


def mark_unknown(last_seq: int) -> bytes:
    """Return the mark that lets all waiting records of its boot up to `last_seq` go as UNKNOWN."""
    return struct.pack(_MARK, last_seq, 0, 0, 0)


def read_by(marks: "list[bytes]", seq: int, measured_ms: int) -> "tuple[int | None, int] | None":
    """Return (Unix ms, time quality) of a waiting record by the first mark of its boot that covers it, None if none."""
    for mark in marks:
        last_seq, known, heard_ms, unix_ms = struct.unpack(_MARK, mark)
        if seq <= last_seq:
            if not known:
                return None, UNKNOWN
            return unix_ms - heard_ms + measured_ms, _quality(heard_ms - measured_ms, False)
    return None


def _quality(away_ms: int, doubtful: bool) -> int:
    return ESTIMATED if doubtful or away_ms > GOOD_FOR_MS else SYNCHRONISED
