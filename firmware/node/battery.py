"""A node on a battery: it wakes, measures, stores, hands on what is due, and sleeps again.

All its wakes are one boot; what must be known after a sleep lies in the
memory that the chip keeps (kept.py). Without power that is gone, and the next
start is a new boot. Commands reach it while it is awake, and only then.
"""

import asyncio

import kept
import machine
import network

LISTEN_MS = 10000  # for what talks by itself
SEND_MS = 30000  # for joining, handing on, and the gateway's time
FIRST_MS = (
    30000  # after power-on and resets it stays awake so long: for a technician's cable, and the gateway's commands
)
LONGEST_MS = 180000  # of one wake: beyond, the watchdog ends it
TURN_MS = 100
LEAST_SLEEP_MS = 1000


class Battery:
    """One wake of a node with these parts."""

    def __init__(self, config, mono, store, link, sensors):
        self._every_ms = config["battery"]["every_s"] * 1000
        self._send_every_ms = config["battery"]["send_every_s"] * 1000
        self._mono = mono
        self._store = store
        self._link = link
        self._sensors = sensors
        self._awake_ms = mono()
        self.is_first = machine.reset_cause() != machine.DEEPSLEEP_RESET
        state = kept.read()
        self._sent_ms = 0 if self.is_first or state is None else state[4]
        self._has_radio = config["way"] == "broker"
        self._watchdog = machine.WDT(timeout=config["watchdog_s"] * 1000)

    async def run(self):
        """Measure, store, send if it is due; then it is time to sleep. Raises OSError where the flash takes nothing."""
        feeding = asyncio.create_task(self._feed())
        for sensor in self._sensors:
            await sensor.once(LISTEN_MS)
        self._store.flush()
        if self.is_first or self._mono() // self._send_every_ms > self._sent_ms // self._send_every_ms:
            await self._send()
        feeding.cancel()

    def sleep(self, boot, told):
        """Sleep until the next measurement is due; the board starts anew then."""
        now_ms = self._mono()
        kept.write(int(told), boot, self._store.seq, kept.chip_ms() - now_ms, self._sent_ms)
        if self._has_radio:  # left on, the chip sleeps at 1.4 mA, not 6 uA (micropython #5418)
            network.WLAN(network.STA_IF).active(False)
        due_ms = (now_ms // self._every_ms + 1) * self._every_ms
        print("bega: sleeps for %d ms" % max(LEAST_SLEEP_MS, due_ms - now_ms))
        machine.deepsleep(max(LEAST_SLEEP_MS, due_ms - now_ms))

    async def _send(self):
        """Hand on what the ring holds; what is left goes with the next."""
        end_ms = self._mono() + SEND_MS
        sending = asyncio.create_task(self._link.run(lambda: None))
        while self._mono() < end_ms and not self._link.is_idle():
            await asyncio.sleep_ms(TURN_MS)
        if self._link.is_idle():
            self._sent_ms = self._mono()
        if self.is_first:
            await asyncio.sleep_ms(max(0, FIRST_MS - (self._mono() - self._awake_ms)))
        sending.cancel()

    async def _feed(self):
        while self._mono() - self._awake_ms < LONGEST_MS:
            self._watchdog.feed()
            await asyncio.sleep_ms(1000)
