# esp32.PCNT: one pulse counter unit, one pin. No thresholds, no interrupts, no second channel: none of ours needs them.
from _board import call


class PCNT:
    IGNORE, INCREMENT, DECREMENT = 0, 1, 2
    NORMAL, REVERSE, HOLD = 0, 1, 2

    def __init__(self, id, **more):
        self._unit = id
        self.init(**more)

    def init(self, **more):
        steps = (0, 1, -1)
        if "pin" in more:
            edges = {"rising": steps[more.get("rising", 0)], "falling": steps[more.get("falling", 0)]}
            call("counter", unit=self._unit, pin=int(more["pin"]), **edges)
            self.stop()
        if "value" in more:
            self.value(more["value"])

    def start(self):
        call("counter_run", unit=self._unit, on=True)

    def stop(self):
        call("counter_run", unit=self._unit, on=False)

    def value(self, value=None):
        return call("counter_value", unit=self._unit, value=value)

    def deinit(self):
        call("counter_end", unit=self._unit)
