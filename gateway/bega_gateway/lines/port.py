"""A serial port as every line that has one uses it: opened for one program alone, and read without waiting."""

from __future__ import annotations

import asyncio
import errno
import os
import termios

import serial

from bega_gateway.lines.advice import port_advice
from bega_protocols.errors import LineError

CHUNK_BYTES = 4096
LARGEST_BACKLOG_BYTES = 65_536  # a listener that lies further behind loses the oldest bytes, not its memory


def open_port(port: str, baud: int, frame: str) -> serial.Serial:
    """Return `port` opened at `baud`; frame: data bits, parity and stop bits, "8N1". Raises LineError with advice."""
    try:
        return serial.Serial(
            port,
            baudrate=baud,
            bytesize=int(frame[0]),
            parity=frame[1],
            stopbits=int(frame[2]),
            timeout=0,
            exclusive=True,  # two readers would each get half of the bytes
        )
    except (serial.SerialException, OSError, ValueError, termios.error) as error:
        raise LineError(port_advice(port, f"{baud} {frame}", error)) from None


class Inbox:
    """What a port has sent and nobody has taken yet.

    The bytes are read right where the loop says that there are some: only there does "nothing"
    mean that the other end is gone (with VMIN 0 a read that finds nothing returns no bytes either).
    """

    def __init__(self, descriptor: int) -> None:
        """Begin to read; called in the loop."""
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._failure: OSError | None = None
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self.fill)

    def close(self) -> None:
        """Read no more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)

    def fill(self) -> None:
        """Read what is there; called by the loop."""
        try:
            chunk = os.read(self._descriptor, CHUNK_BYTES)
            if not chunk:
                raise OSError(errno.ENODEV, "the device was unplugged")
            self._waiting += chunk
            del self._waiting[:-LARGEST_BACKLOG_BYTES]
        except BlockingIOError:
            return
        except OSError as error:
            self._failure = error
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._changed.set()

    async def take(self) -> bytes:
        """Return what came, at least one byte; raises OSError when the port failed and all was taken."""
        await self._changed.wait()
        chunk = bytes(self._waiting)
        self.discard()
        if self._failure and not chunk:
            raise self._failure
        return chunk

    def discard(self) -> None:
        """Forget what came and was not taken."""
        self._waiting.clear()
        if not self._failure:
            self._changed.clear()
