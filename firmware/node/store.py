"""From measurement to flash: seq, time, ring. And from flash to the message that goes out."""

import asyncio

from bega_protocols.record import UNKNOWN, Record
from bega_protocols.senml import encode
from bega_protocols.stored import WAITING, Stored, restore, store
from bega_protocols.timekeeping import mark_unknown, read_by

TOGETHER_MS = 50  # what is measured within this time is one write to the flash; it is what a power cut may cost
PENDING_AT_MOST = 50
RETRY_MS = 1000


class Store:
    """Gives records their identity and their time, each once; keeps them in the ring."""

    def __init__(self, node, boot, seq, ring, clock, patience, mono, time_told):
        """seq: the last one of this boot; time_told(gateway_ms) is called when the gateway's time was believed."""
        self.errors = 0
        self.unstored = 0  # records that found no place in flash or memory
        self.ring = ring
        self._node = node
        self.boot = boot
        self._clock = clock
        self._patience = patience
        self._mono = mono
        self._time_told = time_told
        self.seq = seq
        # The last seq that was stored waiting for the time, and that no mark covers yet.
        self._unmarked = 0 if clock.stamp(0)[0] is not None else seq
        self._pending = []
        self._some = asyncio.Event()

    def take(self, device, measured_ms, readings):
        """Accept one group of readings; `run` stores it."""
        self._pending.append((device, measured_ms, readings))
        if len(self._pending) > PENDING_AT_MOST:
            self._pending.pop(0)
            self.unstored += 1
        self._some.set()

    async def run(self, moved, stored):
        """Store what was taken, until cancelled; moved() whenever nothing is left to store, stored() when it was."""
        while True:
            moved()
            try:
                await asyncio.wait_for_ms(self._some.wait(), 10000)
            except asyncio.TimeoutError:
                continue
            await asyncio.sleep_ms(TOGETHER_MS)
            self._some.clear()
            while not self._write():
                await asyncio.sleep_ms(RETRY_MS)
            stored()

    def flush(self):
        """Store what was taken, now; raises OSError if the flash takes nothing."""
        if self._pending and not self._write():
            raise OSError("the flash takes no records")

    def heard_time(self, time_ms):
        """Take the gateway's time; what waits for it is stamped from now on."""
        if not self._clock.heard(time_ms, self._mono()):
            return
        self._time_told(time_ms)
        if self._unmarked:
            try:
                self.ring.mark(self.boot, self._clock.mark(self._unmarked))
                self._unmarked = 0
            except OSError:
                self.errors += 1  # the next minute's time will do

    def pack(self, held):
        """Return the message of a record in the ring, None while it waits for the time."""
        stored = restore(held.shape, held.body)
        time_ms, quality = stored.time_ms, stored.time_quality
        if quality == WAITING:
            stamp = self.stamp(held, time_ms)
            if stamp is None:
                return None
            time_ms, quality = stamp
        record = Record(self._node, held.boot, held.seq, stored.device, time_ms, quality, stored.readings)
        return encode(record, False)  # the ring may hold what a firmware with other devices has measured

    def stamp(self, held, measured_ms):
        """Return (Unix ms, quality) of a waiting record, None while it waits.

        The decision is on flash before it is acted upon.
        """
        found = read_by([body for boot, body in self.ring.marks() if boot == held.boot], held.seq, measured_ms)
        if found is not None:
            return found
        if held.boot != self.boot:
            return None, UNKNOWN  # no mark of its boot covers it, and none will come
        if not self._patience.is_over(measured_ms, self._mono()):
            return None
        try:
            self.ring.mark(self.boot, mark_unknown(self.seq))
        except OSError:
            self.errors += 1
            return None
        self._unmarked = 0
        return None, UNKNOWN

    def _write(self):
        """Store what is pending in one write; return whether that succeeded."""
        batch, self._pending = self._pending, []
        rows = []
        waiting = 0
        for device, measured_ms, readings in batch:
            self.seq += 1  # never used twice: a write that failed may be on the flash all the same
            time_ms, quality = self._clock.stamp(measured_ms)
            if time_ms is None:
                time_ms, quality, waiting = measured_ms, WAITING, self.seq
            shape, body = store(Stored(device, time_ms, quality, readings))
            rows.append((self.boot, self.seq, shape, body))
        try:
            self.ring.append(rows)
        except OSError as error:
            print("bega: store failed: %r" % error)
            self.errors += 1
            self._pending = batch + self._pending
            return False
        self._unmarked = waiting or self._unmarked
        return True
