# The board's `machine`: names, arguments and errors of MicroPython's ESP32 port, answered by the simulator.
# Only what every program needs is here; the classes are loaded when they are first named.
import sys

_path = sys.path
sys.path = ()
try:
    from machine import *  # noqa: F403 - what the built-in module has stays as it is
finally:
    sys.path = _path

import _board
from _board import call

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
PIN_WAKE, EXT0_WAKE, EXT1_WAKE, TIMER_WAKE, TOUCHPAD_WAKE, ULP_WAKE = 2, 2, 3, 4, 5, 6
SLEEP, DEEPSLEEP = 2, 4
_PARTS = {"Pin": "_pin", "Counter": "_counter", "I2C": "_i2c", "SoftI2C": "_i2c", "UART": "_uart", "ADC": "_adc"}
_PARTS["SPI"] = "_spi"


def __getattr__(name):
    if name not in _PARTS:
        raise AttributeError(name)
    part = getattr(_board.load(_PARTS[name]), name)
    globals()[name] = part
    return part


def reset_cause():
    return call("reset_cause")


def wake_reason():
    return call("wake_reason")


def unique_id():
    return bytes.fromhex(call("unique_id"))


def freq(hz=None):
    return call("freq", hz=hz) if hz is None else call("freq", hz=hz) and None


def reset():
    call("reset")
    while True:  # the board pulls the plug
        call("reset_cause")


def deepsleep(time_ms=0):
    call("deepsleep", ms=time_ms)
    while True:
        call("reset_cause")


def lightsleep(time_ms=0):
    import time

    time.sleep_ms(time_ms)


def disable_irq():
    before, _board.masked = _board.masked, 1
    return before


def enable_irq(state):
    _board.masked = state
    if _board._interrupts:
        _board.drain()


class RTC:
    def __init__(self, id=0):
        pass

    def datetime(self, datetimetuple=None):
        now = call("rtc", datetime=datetimetuple)
        return tuple(now) if datetimetuple is None else None

    def memory(self, data=None):
        if data is None:
            return bytes.fromhex(call("rtc_memory", data=None))
        if len(data) > 2048:
            raise ValueError("buffer too long")
        call("rtc_memory", data=bytes(data).hex())


class WDT:
    def __init__(self, id=0, timeout=5000):
        call("wdt", timeout_ms=timeout)

    def feed(self):
        call("wdt_feed")
