"""The chip around the interpreter: resets and their causes, deep sleep, clock, watchdog and the IDF's own heap.

Numbers are those of MicroPython's ESP32 port (its library pages `machine` and `esp32`). What the shims ask is a method
named `do_` and the request's `op`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime

from bega.clock import mono_ms

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
PIN_WAKE, EXT1_WAKE, TIMER_WAKE = 2, 3, 4
RTC_MEMORY_BYTES = 2048  # MICROPY_HW_RTC_USER_MEM_MAX
RTC_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
NO_MEMORY = 12  # errno
TLS_NEEDS_BYTES = 16_717  # in one piece: the buffer of incoming records, 16 KiB and their overhead
# Total and free of each region that idf_heap_info(HEAP_DATA) lists: a WROOM-32 with Wi-Fi on, largest last.
IDF_REGIONS = ((7_288, 0), (15_072, 11_036), (113_840, 72_704))
SPEEDS_MHZ = (20, 40, 80, 160, 240)
INVALID = 22  # errno


class Chip:
    """One ESP32 from its first power-on to its last."""

    def __init__(self, seed: int) -> None:
        self.cause = PWRON_RESET
        self.watchdog_due_ms: int | None = None
        self.reset_asked = False
        self._seed = seed
        self._next_cause = HARD_RESET
        self._sleep_ms: int | None = None  # 0: until a pin wakes it
        self._woken = asyncio.Event()
        self._wake_reason = 0
        self._watchdog_ms = 0
        self._memory = b""
        self._memory_stays = False
        self._clock_ms = -mono_ms()  # the clock's ms since RTC_EPOCH when mono_ms() was 0
        self._idf_free: tuple[int, int] | None = None
        self._hz = SPEEDS_MHZ[3] * 1_000_000

    def power_on(self, cause: int) -> None:
        """Begin a boot with this cause: what a reset forgets is forgotten, and without power everything."""
        if cause == PWRON_RESET and not self._memory_stays:
            self._memory = b""
            self._clock_ms = -mono_ms()
        if cause != DEEPSLEEP_RESET:
            self._wake_reason = 0
        if cause != SOFT_RESET:
            self.watchdog_due_ms = None  # once started, only a reset of the chip ends it
        self.cause = cause
        self.reset_asked = False
        self._next_cause = HARD_RESET
        self._sleep_ms = None
        self._memory_stays = False

    @property
    def asleep(self) -> bool:
        """Return whether the reset that was asked for is a deep sleep."""
        return self._sleep_ms is not None

    async def rest(self) -> int:
        """Return the cause of the boot that follows the reset just asked for, after the sleep if it was one."""
        if self._sleep_ms is not None:
            self.watchdog_due_ms = None
            self._wake_reason = TIMER_WAKE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sleep_ms / 1000 or None):
                    await self._woken.wait()
        return self._next_cause

    def reset(self, cause: int = HARD_RESET, memory_stays: bool = False) -> None:
        """Press reset, cut the power (PWRON_RESET), or let it dip: a brown-out leaves the RTC memory as it was.

        It ends a sleep too.
        """
        self._next_cause = cause
        self._memory_stays = memory_stays
        self.reset_asked = True
        if self.asleep:
            self._woken.set()

    def wake(self, reason: int) -> None:
        """A pin wakes the chip, if it sleeps."""
        if self._sleep_ms is not None:
            self._wake_reason = reason
            self._woken.set()

    def set_idf_heap(self, free: int, largest: int) -> None:
        """Let the IDF's own heap have so many bytes free, and `largest` of them in one piece."""
        self._idf_free = (free, largest)

    def do_reset_cause(self) -> int:
        return self.cause

    def do_wake_reason(self) -> int:
        return self._wake_reason

    def do_unique_id(self) -> str:
        return self.address(0).hex()

    def address(self, interface: int) -> bytes:
        """Return the MAC address of the station (0), the access point (1) or Bluetooth (2): they follow each other."""
        return (0x24_0A_C4_00_00_00 + self._seed * 4 % 2**24 + interface).to_bytes(6, "big")

    def do_reset(self) -> None:
        self.reset()

    def do_deepsleep(self, ms: int) -> None:
        self.reset(DEEPSLEEP_RESET)
        self._woken = asyncio.Event()
        self._sleep_ms = ms

    def do_freq(self, hz: int | None) -> int:
        if hz is not None:
            if hz not in [mhz * 1_000_000 for mhz in SPEEDS_MHZ]:
                raise OSError(INVALID, "frequency")
            self._hz = hz
        return self._hz

    def do_rtc(self, datetime: list[int] | None) -> list[int]:
        if datetime is not None:
            self._clock_ms = _ms_of(datetime) - mono_ms()
        return _datetime_of(self._clock_ms + mono_ms())

    def do_rtc_memory(self, data: str | None) -> str:
        if data is not None:
            self._memory = bytes.fromhex(data)[:RTC_MEMORY_BYTES]
        return self._memory.hex()

    def do_wdt(self, timeout_ms: int) -> None:
        self._watchdog_ms = timeout_ms
        self.do_wdt_feed()

    def do_wdt_feed(self) -> None:
        self.watchdog_due_ms = mono_ms() + self._watchdog_ms

    def do_idf_heap(self, executable: bool) -> list[list[int]]:
        """Return [total, free, largest, least ever free] of each region."""
        regions = [[total, free, free, free] for total, free in IDF_REGIONS]
        if self._idf_free is not None:
            free, largest = self._idf_free
            regions = [[total, 0, 0, 0] for total, _ in IDF_REGIONS]
            regions[-1] = [IDF_REGIONS[-1][0], free, largest, min(free, largest)]
        return regions

    def do_tls_wrap(self) -> None:
        """The IDF's heap must hold the buffers of a TLS connection: MicroPython says ENOMEM where it does not."""
        if self._idf_free is not None and self._idf_free[1] < TLS_NEEDS_BYTES:
            raise OSError(NO_MEMORY, "no room for TLS")


def _ms_of(fields: list[int]) -> int:
    """Return ms since RTC_EPOCH of (year, month, day, weekday, hours, minutes, seconds, us)."""
    year, month, day, _, hours, minutes, seconds, us = fields
    moment = datetime.datetime(year, month, day, hours, minutes, seconds, us, datetime.UTC)
    return (moment - RTC_EPOCH) // datetime.timedelta(milliseconds=1)


def _datetime_of(ms: int) -> list[int]:
    moment = RTC_EPOCH + datetime.timedelta(milliseconds=ms)
    day = [moment.year, moment.month, moment.day, moment.weekday()]
    return [*day, moment.hour, moment.minute, moment.second, moment.microsecond]
