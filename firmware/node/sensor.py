"""One device: heard or asked, once each window, its readings handed on. What fails is counted, never made up."""

import asyncio

SILENT_AT_LEAST_MS = 5000
WELL = ("ok", "starting")
HANGS = ("repeats itself", "sees nothing at all")  # STUCK and NOTHING of doubt.py, which not every node loads
KEEP_EVERY_MS = 3600000  # of what a driver counts; a power cut costs so much of it


class Sensor:
    """take(device, measured_ms, readings) receives one group a window; changed() is called when its state changes.

    state: "starting", "ok", "silent", "damaged" (it speaks, and no frame holds), "stuck" (it repeats itself, or sees
    nothing at all), "fault" (what brings a device back was tried in vain, see care.py; it is tried on).
    """

    supply = None  # what switches it, if a pin does (power.py)
    beside = ()  # sensors whose drivers are told what this one measures
    put = None  # function(state) that writes it down, if its driver wants something kept
    lock = None  # held while its device is told something beside its measurements
    _care = None

    def __init__(self, name, driver, make, bus, every_ms, mono, take, changed):
        """make(state) returns a new driver; state: what the last one wanted kept, b"" for one that keeps nothing."""
        self.name = name
        self.state = "starting"
        self.driver = driver
        self.make = make
        self._bus = bus
        self.every_ms = every_ms
        # So long nothing may come: what has a rhythm of its own gives nothing in between, however often it is asked.
        self.limit_ms = max(3 * every_ms, SILENT_AT_LEAST_MS, 3 * getattr(driver, "period_ms", 0))
        self._mono = mono
        self._take = take
        self._changed = changed
        self._groups = 0
        self._damaged = 0
        self._unanswered = 0
        self._good_ms = self.since_ms = self._kept_ms = mono()
        self.damaged_ms = 0
        self._latest = None  # (measured_ms, readings) of this window

    def report(self):
        """Return its counters for the node's status."""
        report = {
            "state": self.state,
            "groups": self._groups,
            "damaged": self._damaged,
            "unanswered": self._unanswered,
            "good_ago_s": (self._mono() - self._good_ms) // 1000,
        }
        if self._care:
            self._care.add_to(report)
        return report

    async def run(self, moved):
        """Measure until cancelled; moved() is called after each window, whether or not the device spoke."""
        asked = hasattr(self.driver, "measure")
        while True:
            end_ms = (self._mono() // self.every_ms + 1) * self.every_ms
            if asked:
                await asyncio.sleep_ms(max(0, end_ms - self._mono()))
                await self._ask()
            else:
                await self._listen(end_ms)
            if not self._close_window():
                care = self._cared_for()
                if care:
                    await care.treat()
            if self._mono() - self._kept_ms >= KEEP_EVERY_MS:
                self.keep()
            moved()

    async def once(self, listen_ms):
        """Measure once, and hand it on; a talker is listened to until it has said something, at most `listen_ms`."""
        if hasattr(self.driver, "measure"):
            await self._ask()
        else:
            await self._listen(self._mono() + listen_ms, True)
        if self._latest is None:
            self.become("damaged" if self._damaged else "silent")
        self._close_window()
        self.keep()

    async def exchange(self, steps):
        """Do what a driver's `measure` or `act` asks for, and return what it returns."""
        self._bus.begin()
        try:
            ask = next(steps)
            while True:
                answer = await self._bus.exchange(ask)
                if answer is None:
                    self._unanswered += 1
                if "pause_ms" in ask.line:
                    await asyncio.sleep_ms(ask.line["pause_ms"])
                ask = steps.send(answer)
        except StopIteration as stop:
            return stop.value

    def become(self, state):
        """Say it, if that is another state."""
        if state != self.state:
            print("bega: device %s %s" % (self.name, state))
            self.state = state
            self._changed()

    def keep(self):
        """Write down what its driver counts, such as the hours of a laser."""
        self._kept_ms = self._mono()
        if self.put:
            try:
                self.put(self.driver.state())
            except OSError:
                pass  # the next hour will do

    async def _listen(self, end_ms, is_once=False):
        while not (is_once and self._latest):
            left_ms = end_ms - self._mono()
            if left_ms <= 0:
                return
            chunk = await self._bus.read(left_ms)
            if chunk:
                self._hear(self.driver.feed(chunk, self._mono()))

    async def _ask(self):
        if self.lock:
            async with self.lock:
                await self._measure()
        else:
            await self._measure()

    async def _measure(self):
        driver = self.driver
        groups = await self.exchange(driver.measure(self._mono()))
        if driver is self.driver:  # or its supply was cut meanwhile
            self._hear(groups or [])

    def _hear(self, groups):
        now_ms = self._mono()
        if groups and not self._hangs(groups[-1]):
            self._groups += len(groups)
            self._good_ms = self.since_ms = now_ms
            self._latest = (now_ms, groups[-1])  # faster talkers give the last good frame of each window
        if self.driver.damaged:
            self._damaged += len(self.driver.damaged)
            self.driver.damaged.clear()
            self.damaged_ms = now_ms

    def _hangs(self, readings):
        """Return whether the device only repeats what it once said. Until the first does, nobody needs care.py."""
        if not self._care and self.driver.attributes.get("doubt") not in HANGS:
            return False
        care = self._cared_for()
        return care and care.is_stuck(readings)

    def _cared_for(self):
        if not self._care:
            try:
                from care import Care

                self._care = Care(self, self._mono)
            except MemoryError:
                print("bega: device %s: no memory to care for it" % self.name)
        return self._care

    def _close_window(self):
        """Hand on what this window brought; return whether the device is well, as far as is known."""
        if self._latest is None:
            return self.state in WELL and self._mono() - self.since_ms <= self.limit_ms
        self._take(self.name, self._latest[0], self._latest[1])
        for sensor in self.beside:
            sensor.driver.beside(self._latest[1])
        self._latest = None
        self.become("ok")
        return True
