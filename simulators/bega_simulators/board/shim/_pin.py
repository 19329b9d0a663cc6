# machine.Pin of the ESP32 port.
from _board import call, on_interrupt


class Pin:
    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2
    IRQ_RISING, IRQ_FALLING, WAKE_LOW, WAKE_HIGH = 1, 2, 4, 5
    DRIVE_0, DRIVE_1, DRIVE_2, DRIVE_3 = 0, 1, 2, 3

    def __init__(self, id, mode=-1, pull=-1, *, value=None, drive=None, hold=None):
        self._id = id
        self.init(mode, pull, value=value, drive=drive, hold=hold)

    def init(self, mode=-1, pull=-1, *, value=None, drive=None, hold=None):
        if (mode, pull, value, hold) != (-1, -1, None, None):
            mode = None if mode == -1 else mode
            value = None if value is None else int(bool(value))
            pulls = {"pull": None if pull == -1 else pull, "keep_pull": pull == -1}
            call("pin_init", pin=self._id, mode=mode, value=value, hold=hold, **pulls)

    def value(self, x=None):
        if x is None:
            return call("pin_get", pin=self._id)
        call("pin_set", pin=self._id, value=int(bool(x)))

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def toggle(self):
        call("pin_set", pin=self._id, value=None)

    def irq(self, handler=None, trigger=3, *, wake=None):
        if trigger in (4, 5) and wake is not None:
            call("wake_on", pins=[self._id], level=trigger - 4)
            return
        on_interrupt("pin%d" % self._id, handler and (lambda facts: handler(self)))
        call("pin_irq", pin=self._id, trigger=trigger if handler else 0)

    def __int__(self):
        return self._id
