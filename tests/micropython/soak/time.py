# MicroPython's clock, SPEED times as fast. The C half of asyncio stamps its ready tasks with the real ticks: ours begin
# there and only run faster, or it would wait for ever.
import sys

_path = sys.path
sys.path = ()
try:
    import time as _time
    from time import *  # noqa: F403 - what the built-in module has stays as it is
finally:
    sys.path = _path

import os  # noqa: E402

SPEED = int(os.getenv("SOAK_SPEED") or "1")
_zero_us = _time.ticks_us()
_zero_ms = _time.ticks_ms()
_zero_s = int(_time.time())


def _since_us():
    return _time.ticks_diff(_time.ticks_us(), _zero_us) * SPEED


def ticks_us():
    return _zero_us + _since_us()


def ticks_ms():
    return _zero_ms + _since_us() // 1000


def time():
    return _zero_s + _since_us() // 1000000


def sleep_us(us):
    _time.sleep_us(us // SPEED)


def sleep_ms(ms):
    _time.sleep_us(ms * 1000 // SPEED)


def sleep(s):
    sleep_ms(int(s * 1000))
