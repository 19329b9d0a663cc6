"""A supply that a pin switches, high is on: on from the start; cut to bring a device back that nothing else does."""

import asyncio

import machine
from care import begin_anew

from bega_protocols.errors import ConfigError

OFF_MS = 3000  # capacitors are empty by then, and fans stand still
REST_MS = 10000  # at least, between two cuts: for all that hangs there to be set up


class Supply:
    """One such pin; `sensors` are all that hang on it."""

    def __init__(self, pin, mono):
        """Raises ConfigError if the chip has no such pin."""
        self.sensors = []
        self._mono = mono
        self._free_ms = 0
        try:
            self._pin = machine.Pin(pin, machine.Pin.OUT, value=1)
        except (ValueError, OSError):
            raise ConfigError("pin %d cannot switch a supply" % pin)

    async def cut(self):
        """Cut it for a while, and let all that hangs on it begin anew; not if another one has just done so."""
        if self._mono() < self._free_ms:
            return
        self._free_ms = self._mono() + OFF_MS + REST_MS
        self._pin.value(0)
        self._begin_anew()  # what they were about to say is not waited for
        try:
            await asyncio.sleep_ms(OFF_MS)
        finally:
            self._pin.value(1)
        self._begin_anew()  # and what was asked in the meantime was asked of nobody

    def _begin_anew(self):
        for sensor in self.sensors:
            begin_anew(sensor, self._mono())
