"""What survives a reset and deep sleep, and no power cut: the chip's clock, and a few bytes of memory beside it."""

import struct
import time

import machine

from bega_protocols.checks import crc32
from bega_protocols.dates import days
from bega_protocols.timekeeping import LATEST_MS

_STATE = ">BIIQQ"
_EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0  # an ESP32 counts from 2000


def read():
    """Return (told, boot, seq, zero_ms, sent_ms), None after a power cut.

    told: 1 if the chip's clock shows the gateway's time; zero_ms: what that clock showed when the boot began;
    sent_ms: ms of the boot when the ring was last empty.
    """
    octets = machine.RTC().memory()
    if len(octets) != struct.calcsize(_STATE) + 4 or struct.unpack(">I", octets[-4:])[0] != crc32(octets[:-4]):
        return None
    return struct.unpack(_STATE, octets)


def write(told, boot, seq, zero_ms, sent_ms):
    """Keep what `read` returns."""
    octets = struct.pack(_STATE, told, boot, seq, zero_ms, sent_ms)
    machine.RTC().memory(octets + struct.pack(">I", crc32(octets)))


def chip_ms():
    """Return what the chip's clock shows, as Unix ms; it counts from 2000 after a power cut."""
    year, month, day, _, hour, minute, second, us = machine.RTC().datetime()
    return (((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + us // 1000


def set_chip(gateway_ms):
    """Set the chip's clock, by which certificates are judged too."""
    year, month, day, hour, minute, second, weekday = time.gmtime(gateway_ms // 1000 - _EPOCH_S)[:7]
    machine.RTC().datetime((year, month, day, weekday, hour, minute, second, gateway_ms % 1000 * 1000))


def told_ms():
    """Return the gateway's time as the chip has kept it over a reset, None if it was not told since the power came.

    The memory can outlive the clock, through a short press of EN: a clock that shows less than when it was told was
    cleared since, and may have been set by the configuration's date.
    """
    state = read()
    now_ms = chip_ms()
    return now_ms if state and state[0] and state[3] <= now_ms < LATEST_MS else None
