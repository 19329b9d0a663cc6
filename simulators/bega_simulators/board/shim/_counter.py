# machine.Counter of the ESP32 port: a unit of the pulse counter (PCNT). It forgets at every reset, deep sleep too.
from _board import call


class Counter:
    RISING, FALLING = 1, 2
    UP, DOWN = 1, 2
    _INSTANCES = {}  # noqa: RUF012 - as the port's

    def __new__(cls, id, *args, **more):
        if id not in cls._INSTANCES:
            cls._INSTANCES[id] = object.__new__(cls)
        return cls._INSTANCES[id]

    def __init__(self, id, *args, **more):
        if args or more or not hasattr(self, "_unit"):
            self._unit = id
            self.init(*args, **more)

    def init(self, src, *, edge=RISING, direction=UP, filter_ns=0):
        step = 1 if direction == 1 else -1
        # A filter knows 12.8 us at the most: a contact's bouncing is counted.
        call("counter", unit=self._unit, pin=int(src), rising=step * (edge & 1), falling=step * (edge >> 1))

    def value(self, value=None):
        if self._unit is None:
            raise RuntimeError("not initialised")
        return call("counter_value", unit=self._unit, value=value)

    def deinit(self):
        if self._unit is not None:
            call("counter_end", unit=self._unit)
        self._unit = None
