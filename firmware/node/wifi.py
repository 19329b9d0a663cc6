"""The node's station on Wi-Fi: comes up, or is switched off and tried anew by the caller."""

import asyncio

import network

WAIT_MS = 20000
STEP_MS = 100
SETTLE_MS = 1000
WORDS = {201: "no access point of that name", 202: "wrong password, or an access point in trouble", 1001: "no answer"}


class Wifi:
    """One access point."""

    def __init__(self, ssid, key):
        self._ssid = ssid
        self._key = key
        self._station = network.WLAN(network.STA_IF)

    def is_up(self):
        return self._station.isconnected()

    async def up(self):
        """Return once connected; raises OSError after twenty seconds.

        A failing station is disconnected and switched off, and rests: an ESP32
        keeps answering "wrong password" to a right one until it has slept.
        """
        if self.is_up():
            return
        try:
            await self._join()
        except OSError:
            try:
                self._station.disconnect()
            except OSError:
                pass  # it had not even been switched on
            self._station.active(False)
            await asyncio.sleep_ms(SETTLE_MS)
            raise

    async def _join(self):
        self._station.active(True)
        self._station.disconnect()  # it may be on its way by itself, and refuses to be sent a second time
        self._station.connect(self._ssid, self._key)
        for _ in range(WAIT_MS // STEP_MS):
            if self.is_up():
                return
            await asyncio.sleep_ms(STEP_MS)
        status = self._station.status()
        raise OSError("no Wi-Fi, %s" % WORDS.get(status, "status %r" % status))
