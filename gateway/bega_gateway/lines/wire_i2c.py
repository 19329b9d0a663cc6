"""An I2C bus of this machine, /dev/i2c-1 on a Pi, by smbus2."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING

from smbus2 import SMBus, i2c_msg

from bega_gateway.lines.advice import i2c_advice
from bega_protocols.errors import LineError

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega_protocols.ask import Ask

# Nobody acknowledged, somebody held the bus, or it did not come free: the drivers of Linux say it in many ways
# (Documentation/i2c/fault-codes). The device was silent; the bus is there.
SILENT = (errno.EREMOTEIO, errno.ENXIO, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.EPROTO, errno.EOPNOTSUPP)


class I2cWire:
    """One transfer at a time; while a sensor measures, others are asked."""

    def __init__(self, bus: int, mono_ms: Clock) -> None:
        """bus: the number of /dev/i2c-N."""
        self.began_ms = 0
        self._number = bus
        self._mono_ms = mono_ms
        self._bus: SMBus | None = None
        self._free = asyncio.Lock()

    async def open(self) -> None:
        """Open the bus; raises LineError."""
        try:
            self._bus = SMBus(self._number)
        except OSError as error:
            raise LineError(i2c_advice(self._number, error)) from None

    def close(self) -> None:
        """Close; does nothing if it is closed."""
        bus, self._bus = self._bus, None
        if bus:
            bus.close()

    def turn(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Return nothing that keeps others away: each transfer is whole by itself."""
        return contextlib.nullcontext()

    async def exchange(self, ask: Ask) -> bytes | None:
        """Write, wait, read; None if the device did not acknowledge. Raises LineError if the bus fails."""
        address = ask.line["address"]
        size = ask.read if isinstance(ask.read, int) else 0
        if ask.write and not await self._transfer(i2c_msg.write(address, ask.write)):
            return None
        await asyncio.sleep(ask.wait_ms / 1000)
        if not size:
            return b""
        reading = i2c_msg.read(address, size)
        if not await self._transfer(reading):
            return None
        self.began_ms = self._mono_ms()
        return bytes(reading)

    async def _transfer(self, message: i2c_msg) -> bool:
        """Return whether the device took part. In a thread: a bus that hangs holds its caller for a second."""
        assert self._bus
        async with self._free:
            try:
                await asyncio.to_thread(self._bus.i2c_rdwr, message)
            except OSError as error:
                if error.errno in SILENT:
                    return False
                raise LineError(i2c_advice(self._number, error)) from None
        return True
