"""A serial port with one device that speaks by itself."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import termios

import serial

from bega.clock import Clock
from bega_gateway.config import SerialLine as SerialSettings
from bega_gateway.lines.advice import port_advice
from bega_gateway.lines.station import Station
from bega_protocols.errors import LineError

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
CHUNK_BYTES = 4096
LARGEST_BACKLOG_BYTES = 65_536  # a listener that lies further behind loses the oldest bytes, not its memory


class SerialLine:
    """Opens, reads, reopens. What the bytes mean is the driver's affair."""

    def __init__(
        self, name: str, settings: SerialSettings, stations: list[Station], mono_ms: Clock, wall_ms: Clock
    ) -> None:
        """`stations` holds exactly one device: the configuration refuses a second on one port."""
        self._name = name
        self._settings = settings
        self._station = stations[0]
        self._mono_ms = mono_ms
        self._wall_ms = wall_ms
        self._down = False
        self.tries = 0  # to open the port, since the start

    async def run(self) -> None:
        """Read until cancelled; a port that is gone is opened again with a growing pause."""
        pause_s = FIRST_PAUSE_S
        while True:
            self.tries += 1
            try:
                port = self._open()
                try:
                    await self._read(port)
                finally:
                    port.close()
            except LineError as error:
                if not self._down:
                    log.warning("line down line=%s error=%s", self._name, error)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if self._down else FIRST_PAUSE_S
                self._down = True
            await asyncio.sleep(pause_s)

    def _open(self) -> serial.Serial:
        settings = self._settings
        _, *usual = self._station.driver.line.split()
        usual_baud, usual_frame = usual if len(usual) == 2 else ("9600", "8N1")
        baud = settings.baud or int(usual_baud)
        frame = f"{settings.data_bits or usual_frame[0]}{settings.parity or usual_frame[1]}{usual_frame[2]}"
        try:
            return serial.Serial(
                settings.port,
                baudrate=baud,
                bytesize=int(frame[0]),
                parity=frame[1],
                stopbits=int(frame[2]),
                timeout=0,
                exclusive=True,  # two readers would each get half of the bytes
            )
        except (serial.SerialException, OSError, ValueError, termios.error) as error:
            raise LineError(port_advice(settings.port, f"{baud} {frame}", error)) from None

    async def _read(self, port: serial.Serial) -> None:
        """Feed what arrives to the driver until the port fails."""
        loop = asyncio.get_running_loop()
        inbox = _Inbox(port.fileno())
        loop.add_reader(port.fileno(), inbox.fill)
        try:
            while True:
                await self._hear(await inbox.take())
        except OSError as error:
            raise LineError(port_advice(self._settings.port, "", error)) from None
        finally:
            loop.remove_reader(port.fileno())

    async def _hear(self, chunk: bytes) -> None:
        groups = self._station.driver.feed(chunk, self._mono_ms())
        self._station.take_damage()
        if not groups:
            return
        if self._down:
            self._down = False
            log.info("line back line=%s", self._name)
        self._station.heard_mono_ms = self._mono_ms()
        self._station.counters.records += len(groups)
        await self._station.deliver(groups, self._wall_ms())


class _Inbox:
    """What a port has sent and nobody has taken yet.

    The bytes are read right where the loop says that there are some: only there does "nothing"
    mean that the other end is gone (with VMIN 0 a read that finds nothing returns no bytes either).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._failure: OSError | None = None
        self._changed = asyncio.Event()

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
        self._changed.clear()
        chunk = bytes(self._waiting)
        self._waiting.clear()
        if self._failure:
            self._changed.set()
            if not chunk:
                raise self._failure
        return chunk
