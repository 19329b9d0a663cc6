"""A device that is silent, damaged or stuck is brought back: set up anew; its supply cut, where a pin can; and again.

The pauses grow, since a device that is gone for good shares its supply with others that are well. Once all was tried
in vain the state is "fault". Loaded when the first device of a node fails.
"""

from bega_protocols.doubt import NOTHING, STUCK

PAUSE_AT_LEAST_MS, PAUSE_AT_MOST_MS = 10000, 3600000  # the first is longer than any set-up


class Care:
    """What is known of the troubles of one device, and what was done about them."""

    def __init__(self, sensor, mono):
        self._sensor = sensor
        self._mono = mono
        self._stuck = 0
        self._stuck_ms = -1
        self._stuck_at = None  # the values that it repeats
        self._anew = 0
        self._cuts = 0
        self._steps = 0  # of the trouble that it is in
        self._pause_ms = 0
        self._next_ms = 0
        self._why = ""
        self._fault_ms = 0

    def add_to(self, report):
        """Add to a status what was tried, and for a fault since when and why."""
        report["stuck"] = self._stuck
        report["anew"] = self._anew
        report["cut"] = self._cuts
        if self._sensor.state == "fault":
            report["why"] = self._why
            report["fault_s"] = (self._mono() - self._fault_ms) // 1000

    def is_stuck(self, readings):
        """Return whether the driver says so, or a new driver hears what the last one called stuck."""
        values = [(row.quantity, row.value) for row in readings if row.quantity != "laser_time"]
        if self._sensor.driver.attributes.get("doubt") not in (STUCK, NOTHING) and values != self._stuck_at:
            self._stuck_at = None
            return False
        self._stuck_at = values
        self._stuck += 1
        self._stuck_ms = self._mono()
        return True

    async def treat(self):
        """Take the next step, if its time has come; called after each window in which the device is not well."""
        sensor = self._sensor
        now_ms = self._mono()
        if sensor.state != "fault":
            sensor.become(self._wrong(now_ms - sensor.limit_ms))
        if now_ms < self._next_ms:
            return
        if now_ms - self._next_ms > self._pause_ms:  # it was well for as long as that: another trouble
            self._steps = 0
            self._pause_ms = max(PAUSE_AT_LEAST_MS, sensor.limit_ms)
        if self._steps > (1 if sensor.supply else 0) and sensor.state != "fault":
            self._why = sensor.state
            self._fault_ms = now_ms
            sensor.become("fault")
        if sensor.supply and self._steps:
            self._cuts += 1
            await sensor.supply.cut()
        else:
            self._anew += 1
            begin_anew(sensor, now_ms)
        self._steps += 1
        self._next_ms = self._mono() + self._pause_ms
        self._pause_ms = min(2 * self._pause_ms, max(PAUSE_AT_MOST_MS, sensor.limit_ms))

    def _wrong(self, since_ms):
        if self._stuck_ms > since_ms:
            return "stuck"
        return "damaged" if self._sensor.damaged_ms > since_ms else "silent"


def begin_anew(sensor, now_ms):
    """Let a new driver set the device up, as at the start; what is on its way from it is dropped."""
    sensor.driver = sensor.make(sensor.driver.state() if sensor.put else b"")
    sensor.since_ms = now_ms
