"""One device: heard or asked, once each window, its readings handed on. What fails is counted, never made up."""

import asyncio

SILENT_AT_LEAST_MS = 5000


class Sensor:
    """take(device, measured_ms, readings) receives one group a window; changed() is called when its state changes.

    state: "starting", "ok", "damaged" (it speaks, and no frame holds) or "silent".
    """

    def __init__(self, name, driver, bus, every_ms, mono, take, changed):
        self.name = name
        self.state = "starting"
        self._driver = driver
        self._bus = bus
        self.every_ms = every_ms
        self._mono = mono
        self._take = take
        self._changed = changed
        self._groups = 0
        self._damaged = 0
        self._unanswered = 0
        self._good_ms = mono()
        self._damaged_ms = 0
        self._latest = None  # (measured_ms, readings) of this window

    def report(self):
        """Return its counters for the node's status."""
        return {
            "state": self.state,
            "groups": self._groups,
            "damaged": self._damaged,
            "unanswered": self._unanswered,
            "good_ago_s": (self._mono() - self._good_ms) // 1000,
        }

    async def run(self, moved):
        """Measure until cancelled; moved() is called after each window, whether or not the device spoke."""
        asked = hasattr(self._driver, "measure")
        while True:
            end_ms = (self._mono() // self.every_ms + 1) * self.every_ms
            if asked:
                await asyncio.sleep_ms(max(0, end_ms - self._mono()))
                await self._ask()
            else:
                await self._listen(end_ms)
            self._close_window()
            moved()

    async def once(self, listen_ms):
        """Measure once, and hand it on; a talker is listened to until it has said something, at most `listen_ms`."""
        if hasattr(self._driver, "measure"):
            await self._ask()
        else:
            await self._listen(self._mono() + listen_ms, True)
        if self._latest is None:
            self._become("damaged" if self._damaged else "silent")
        self._close_window()

    async def _listen(self, end_ms, is_once=False):
        while not (is_once and self._latest):
            left_ms = end_ms - self._mono()
            if left_ms <= 0:
                return
            chunk = await self._bus.read(left_ms)
            if chunk:
                self._hear(self._driver.feed(chunk, self._mono()))

    async def _ask(self):
        measurement = self._driver.measure(self._mono())
        self._bus.begin()
        try:
            ask = next(measurement)
            while True:
                answer = await self._bus.exchange(ask)
                if answer is None:
                    self._unanswered += 1
                if "pause_ms" in ask.line:
                    await asyncio.sleep_ms(ask.line["pause_ms"])
                ask = measurement.send(answer)
        except StopIteration as stop:
            self._hear(stop.value or [])

    def _hear(self, groups):
        if groups:
            self._groups += len(groups)
            self._good_ms = self._mono()
            self._latest = (self._good_ms, groups[-1])  # faster talkers give the last good frame of each window
        if self._driver.damaged:
            self._damaged += len(self._driver.damaged)
            self._driver.damaged.clear()
            self._damaged_ms = self._mono()

    def _close_window(self):
        if self._latest is not None:
            self._take(self.name, self._latest[0], self._latest[1])
            self._latest = None
            self._become("ok")
        elif self._mono() - self._good_ms > max(3 * self.every_ms, SILENT_AT_LEAST_MS):
            self._become("damaged" if self._damaged_ms > self._good_ms else "silent")

    def _become(self, state):
        if state != self.state:
            print("bega: device %s %s" % (self.name, state))
            self.state = state
            self._changed()
