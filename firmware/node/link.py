"""Handing on what the store holds: oldest record first, freed by the gateway's own acknowledgement.

It goes over a *way*, an object that a module of its own makes (broker.py:
Wi-Fi and MQTT):

- `await open()` reaches the gateway;
- `await send(kind, payload)` sends "up", "status", "result" or "want" and promises nothing;
- `await run(hear)` calls hear(kind, payload) for each "ack", "time", "piece" and "cmd/<verb>";
- `check()` raises OSError if the way is known to be gone;
- `close()` lets go of it; it can be opened again;
- `pack(store, held)`, if it has one, returns a record as its `send` takes it, None while that waits for its time.

Each raises OSError, EOFError or ValueError when the way is broken, and `run`
always ends so.
"""

import asyncio
import json
import random

from together import until_first_ends

from bega_protocols.errors import WireError
from bega_protocols.ring import Window, read_acknowledgement
from bega_protocols.timekeeping import read_time

WINDOW = 20  # records on their way
RESEND_MS = 15000  # without an acknowledgement of the oldest, all of the window goes again
STATUS_MS = 30000  # and so long without one, the status goes again: the gateway may have lost its heads
TELL_MS = 3600000  # and whatever comes: a gateway that was begun anew knows nothing of us
TURN_MS = 1000
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 1000, 60000
BRIEF_PAUSE_MS = 16000  # the longest after a connection that did not last: we are refused, or another has our name
STEADY_MS = 10000
ROWS_AT_MOST = 50  # of `holds` and of `dropped` in one status; the rest follows when these are acknowledged


class Link:
    """Keeps the way to the gateway open while it can, and sends what the store holds."""

    def __init__(self, way, store, patience, mono, report, commands, confirm):
        """report() returns what the status says beside holds and dropped; confirm() is called when a record was freed.

        By an acknowledgement that names this boot, that is.
        """
        self.connects = 0
        self.malformed = 0  # messages from the gateway that made no sense
        self.pull = None  # an update that is being fetched
        self._way = way
        self._store = store
        self._patience = patience
        self._mono = mono
        self._report = report
        self._commands = commands
        self.confirm = confirm
        self._pack = (lambda held: way.pack(store, held)) if hasattr(way, "pack") else store.pack
        self._window = Window(store.ring, WINDOW, RESEND_MS)
        self.up_ms = mono()  # when the way was last open
        self._opened = asyncio.Event()
        self._some = asyncio.Event()
        self._status_due = False
        self._has_time = False
        self._open_ms = self._moved_ms = 0
        self._status_ms = 0
        self._dropped = []

    async def opened(self, wait_ms):
        """Return once the way was open, or after `wait_ms`."""
        try:
            await asyncio.wait_for_ms(self._opened.wait(), wait_ms)
        except asyncio.TimeoutError:
            pass

    def is_idle(self):
        """Return whether all is handed on, the gateway has told the time, and no command is being done or answered."""
        return (
            self.connects > 0
            and self._has_time
            and self._store.ring.held_count() == 0
            and not self._commands.results
            and not self._commands.doing
            and not self._status_due
            and (not self.pull or self.pull.is_over)
        )

    def wake(self):
        """There is something to send."""
        self._some.set()

    def say_status(self):
        """What the status says has changed: send it soon."""
        self._status_due = True
        self._some.set()

    async def run(self, moved):
        """Connect, send, and connect again with a growing pause, until cancelled; moved() at each step of that."""
        pause_ms = FIRST_PAUSE_MS
        while True:
            before = self.connects
            try:
                await self._serve(moved)
            except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:  # ValueError: a certificate
                print("bega: link down: %s %s" % (type(error).__name__, error))
            self._way.close()
            self._patience.disconnected(self._mono())
            moved()
            if self.connects == before:
                pause_ms = min(2 * pause_ms, LONGEST_PAUSE_MS)
            elif self._mono() - self._open_ms < STEADY_MS:
                pause_ms = min(2 * pause_ms, BRIEF_PAUSE_MS)
            else:
                pause_ms = FIRST_PAUSE_MS
            # Half of it by chance: a hundred nodes must not return in the same second.
            await asyncio.sleep_ms(pause_ms // 2 + random.getrandbits(16) % (pause_ms // 2))

    async def _serve(self, moved):
        """Run one connection; always ends by raising what broke it."""
        await self._way.open()
        moved()
        self._opened.set()
        self.connects += 1
        now_ms = self._mono()
        self._patience.connected(now_ms)
        self._window.restart(now_ms)
        self._open_ms = self._moved_ms = now_ms
        print("bega: link up")
        self._status_due = True
        await until_first_ends(self._way.run(self._hear), self._send(moved))

    async def _send(self, moved):
        while True:
            moved()
            self._way.check()
            self.up_ms = self._mono()
            await self._send_status()
            while self._commands.results:
                await self._way.send("result", json.dumps(self._commands.results[0]).encode())
                self._commands.results.pop(0)
            if self._window.stalled(self._mono()):
                self._window.resend(self._mono())
            await self._send_records()
            want = self.pull and self.pull.want()
            if want:
                await self._way.send("want", want)
            try:
                await asyncio.wait_for_ms(self._some.wait(), TURN_MS)
            except asyncio.TimeoutError:
                pass
            self._some.clear()

    async def _send_records(self):
        held = self._window.next()
        while held is not None:
            pack = self._pack(held)
            if pack is None:
                return
            self._window.sent(held, self._mono())
            await self._way.send("up", pack)
            held = self._window.next()

    async def _send_status(self):
        """Send the status if it is due: after connect, on a change, each hour, or when the oldest record is stuck."""
        ring = self._store.ring
        now_ms = self._mono()
        dropped = ring.dropped()
        stuck = now_ms - max(self._moved_ms, self._status_ms) >= STATUS_MS and ring.held_count() > 0
        old = now_ms - self._status_ms >= TELL_MS
        if not (self._status_due or old or stuck or dropped != self._dropped):
            return
        self._status_due = False
        self._status_ms = now_ms
        self._dropped = dropped
        status = self._report()
        status["holds"] = ring.holds()[:ROWS_AT_MOST]
        status["dropped"] = dropped[:ROWS_AT_MOST]
        await self._way.send("status", json.dumps(status).encode())

    def _hear(self, kind, payload):
        """Take a message of the gateway; what makes no sense is counted."""
        try:
            if kind == "ack":
                self._take_acknowledgement(read_acknowledgement(payload))
            elif kind == "time":
                self._store.heard_time(read_time(payload))
                self._has_time = True
            elif kind == "piece":
                if self.pull:
                    self.pull.take(payload)
            elif kind[:4] == "cmd/":
                self._commands.hear(kind[4:], payload)
        except (WireError, MemoryError):  # JSON can ask for a hundred times its own length
            self.malformed += 1
        self._some.set()

    def _take_acknowledgement(self, pairs):
        ring = self._store.ring
        held = self.confirm and ring.held_count()
        try:
            if self._window.acknowledged(pairs, self._mono()):
                self._moved_ms = self._mono()
            # One that waited in the broker is of what an earlier start sent: it proves nothing of this one.
            if self.confirm and ring.held_count() < held and any(boot == self._store.boot for boot, _ in pairs):
                print("bega: acknowledged %s" % pairs)
                self.confirm()
                self.confirm = None
        except OSError:
            self._store.errors += 1  # a segment could not be removed, or a file written: the next one tries again
