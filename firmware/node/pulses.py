"""A meter's pulse contact (S0) on a pin: counted, added up, and kept on flash before it is said.

Asked each few ms, the chip's counter tells of a closing, and then the program looks
how long it lasts; what closes while it is busy elsewhere, the counter has counted.
What was said once is on flash, so a power cut costs what came since, and no
total ever goes back. One that cannot be read any more is not begun anew: it
is lost, until somebody reads the meter and sets it.
"""

import asyncio

import machine

from bega_protocols.errors import ConfigError
from bega_protocols.pulses import Contact, newest, read_settings, read_total
from bega_protocols.reading import SUSPECT, Reading

LOOK_MS = 3
REST_MS = 8  # it is open and has not closed: what is shorter is no pulse
KEEP_MS = 10000  # at least so often, what came is written down
NO_SUCH_FILE = 2


class Pulses:
    """The contact on the pin of `wiring`; to the node it is what a Sensor is (sensor.py).

    state: "ok", or "lost": there was a total, and nobody knows it.
    """

    def __init__(self, device, wiring, folder, boot, mono, take, changed):
        """Raises ConfigError if the device's settings cannot be."""
        if wiring["kind"] != "pulses":
            raise ConfigError("bus %s is %s, no contact" % (device["bus"], wiring["kind"]))
        self.name = device["name"]
        self.every_ms = device["every_ms"]
        self._boot = boot
        self._mono = mono
        self._take = take
        self._changed = changed
        self._copies = [folder + "/total-" + self.name + ending for ending in (".a", ".b")]
        settled, shortest_ms, is_reed = read_settings(device["settings"])
        self._number, self._total, self.state = self._found(settled)
        self._kept = self._total.since if self._number else -1
        self._kept_ms = mono()
        self._pulses = self._errors = 0
        self._pulse_ms = self._rated_ms = -1  # when the last one came, and the last one that a rate was made of
        self._unrated = 0
        self._rate = None
        self._heard = 0
        self._pin = machine.Pin(wiring["pin"], machine.Pin.IN, machine.Pin.PULL_UP)
        self._contact = Contact(shortest_ms, is_reed, mono(), not self._pin.value())
        # Each beginning of the counter is at zero: what it counts is only what it has seen.
        counter = machine.Counter(wiring["id"], self._pin, edge=machine.Counter.FALLING) if "id" in wiring else None
        self._counter = counter
        if not counter:
            self._pin.irq(self._hear, machine.Pin.IRQ_FALLING)

    def report(self):
        """Return its counters for the node's status; never what the meter shows, which is its household's."""
        return {
            "state": self.state,
            "pulses": self._pulses,
            "noise": self._contact.noise,
            "errors": self._errors,
            "series": self._total.series if self.state == "ok" else 0,
        }

    async def run(self, moved):
        """Count until cancelled; moved() is called after each window."""
        while True:
            await self._count((self._mono() // self.every_ms + 1) * self.every_ms)
            self._close_window()
            moved()

    def set(self, text):
        """Let the total be what a person read off the meter. Raises ConfigError, OSError if it cannot be kept."""
        self._total.set(*read_total(text))
        self._total.series = self._boot
        self._kept = -1
        self.state = "ok"
        self._keep()
        self._changed()

    def keep(self):
        """Write down what came since the last time; return whether it is on flash."""
        try:
            self._keep()
        except OSError as error:
            print("bega: device %s: its total is not kept: %s" % (self.name, error))
            self._errors += 1
            return False
        return self.state == "ok"

    def _found(self, settled):
        """Return (number of the newest copy, total, state)."""
        octets = [_read(copy) for copy in self._copies]
        number, total = newest([one for one in octets if one is not None])
        if total is None and octets == [None, None]:
            print("bega: device %s begins to count" % self.name)
            settled.series = self._boot
            return 0, settled, "ok"
        if total is None or total.quantity != settled.quantity:
            print("bega: device %s has lost its total: read the meter and set it" % self.name)
            return number, settled, "lost"
        if total.weighs_as(settled):
            return number, total, "ok"
        settled.set(*total.shows())  # what was counted stays; a pulse weighs something else from now on
        settled.series = total.series
        return number, settled, "ok"

    async def _count(self, end_ms):
        contact = self._contact
        now_ms = self._mono()
        while now_ms < end_ms:
            if not contact.is_quiet() or self._has_closed():
                self._look()
            else:
                contact.rest(now_ms)
            if now_ms - self._kept_ms >= KEEP_MS and contact.is_quiet():
                self.keep()
            await asyncio.sleep_ms(REST_MS if contact.is_quiet() else LOOK_MS)
            now_ms = self._mono()
        self._look()

    def _look(self):
        closings = self._closings()
        is_closed = not self._pin.value()
        if is_closed and not closings:
            closings = self._closings()  # it closed between the two
        now_ms = self._mono()
        pulses = self._contact.look(now_ms, closings, is_closed)
        if pulses:
            self._total.add(pulses)
            self._pulses += pulses
            self._unrated += pulses
            self._pulse_ms = now_ms

    def _close_window(self):
        readings = []
        if self.keep():
            value, exp10 = self._total.shows()
            readings.append(Reading(self._total.quantity, value, exp10))
        rate = self._rated()
        if rate:
            readings.append(rate)
        if readings:
            self._take(self.name, self._mono(), readings)

    def _rated(self):
        """Return what the pulses since the last rate come to; without any, what it can be at most once that is less.

        The same rate is not said again: nobody has measured it again.
        """
        if self._unrated:
            pulses, since_ms = self._unrated, self._rated_ms
            self._unrated, self._rated_ms = 0, self._pulse_ms
            if 0 <= since_ms < self._pulse_ms:
                self._rate = self._total.rate(pulses, self._pulse_ms - since_ms)
                return self._rate
        elif self._rate:
            most = self._total.rate(1, self._mono() - self._pulse_ms)
            if abs(most.value) < abs(self._rate.value):
                self._rate = Reading(most.quantity, most.value, most.exp10, "", SUSPECT)
                return self._rate

    def _keep(self):
        if self.state == "lost" or self._kept == self._total.since:
            return
        with open(self._copies[self._number % 2], "wb") as file:
            file.write(self._total.pack(self._number + 1))
        self._number += 1
        self._kept = self._total.since
        self._kept_ms = self._mono()

    def _hear(self, pin):
        self._heard += 1

    def _has_closed(self):
        """Return whether there may be a closing to be looked at.

        No interrupt is waited for: while the program is busy, noise on another contact fills their queue.
        """
        return self._counter.value() if self._counter else self._heard or not self._pin.value()

    def _closings(self):
        """Return how often it closed since this was asked last.

        Where the chip has no counter (ESP32-C3) these are its interrupts: some are lost while the program is busy.
        """
        heard, self._heard = self._heard, 0
        return self._counter.value(0) if self._counter else heard


def set_total(sensors, asked):
    """Obey the command of that name; return why not, None if it is done."""
    for sensor in sensors:
        if sensor.name == asked.get("device") and isinstance(sensor, Pulses):
            return sensor.set(asked.get("total"))
    return "no device of that name counts pulses"


def _read(path):
    """Return a copy, None if there is none: a file without anything in it was being made when the power failed."""
    try:
        with open(path, "rb") as file:
            return file.read() or None
    except OSError as error:
        return None if error.errno == NO_SUCH_FILE else b"?"
