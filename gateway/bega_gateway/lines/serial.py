"""A serial port with one device that speaks by itself; one that must be asked is in asked.py."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bega_gateway.lines.advice import port_advice
from bega_gateway.lines.port import Inbox, open_port
from bega_protocols.errors import LineError

if TYPE_CHECKING:
    import serial

    from bega.clock import Clock
    from bega_gateway.config import SerialLine as SerialSettings
    from bega_gateway.lines.station import Station

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


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
                port = open_port(self._settings.port, *rate_and_frame(self._settings, self._station.driver.line))
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

    async def _read(self, port: serial.Serial) -> None:
        """Feed what arrives to the driver until the port fails."""
        inbox = Inbox(port.fileno())
        try:
            while True:
                await self._hear(await inbox.take())
        except OSError as error:
            raise LineError(port_advice(self._settings.port, "", error)) from None
        finally:
            inbox.close()

    async def _hear(self, chunk: bytes) -> None:
        if self._station.tap:
            self._station.tap("in", chunk)
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


def rate_and_frame(settings: SerialSettings, line: str) -> tuple[int, str]:
    """Return baud rate and frame ("8N1") of a port: what is configured, else what the driver's `line` says."""
    _, *usual = line.split()
    usual_baud, usual_frame = usual if len(usual) == 2 else ("9600", "8N1")
    frame = f"{settings.data_bits or usual_frame[0]}{settings.parity or usual_frame[1]}{usual_frame[2]}"
    return settings.baud or int(usual_baud), frame
