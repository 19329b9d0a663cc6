"""A serial port on which questions go out and answers come back; M-Bus hangs on one through a level converter."""

from __future__ import annotations

import asyncio
import os
import termios
from typing import TYPE_CHECKING

import serial

from bega_gateway.lines.advice import port_advice
from bega_gateway.lines.port import Inbox, open_port
from bega_protocols.errors import LineError

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega_protocols.ask import Ask

LARGEST_ANSWER_BYTES = 65_536
TOTAL_MS = 60_000  # of an answer that a driver allows to go on and on
SWITCH_S = 0.02  # a USB adapter may still send when the wire time is over: its latency timer is 16 ms


class SerialWire:
    """One question at a time; what came before it was asked is no answer to it."""

    def __init__(self, port: str, baud: int, frame: str, mono_ms: Clock) -> None:
        """frame: data bits, parity and stop bits, "8E1"."""
        self.began_ms = 0
        self._port = port
        self._baud = baud
        self._frame = frame
        self._bits_a_character = 1 + int(frame[0]) + (frame[1] != "N") + int(frame[2])
        self._mono_ms = mono_ms
        self._serial: serial.Serial | None = None
        self._inbox: Inbox | None = None
        self._turn = _Turn(self)

    async def open(self) -> None:
        """Open the port; raises LineError."""
        self._serial = open_port(self._port, self._baud, self._frame)
        self._inbox = Inbox(self._serial.fileno())

    def close(self) -> None:
        """Close; does nothing if it is closed."""
        if self._inbox:
            self._inbox.close()
        if self._serial:
            self._serial.close()
        self._serial = self._inbox = None

    def turn(self) -> _Turn:
        """Return what keeps every other measurement away, and begins at the line's own rate."""
        return self._turn

    async def exchange(self, ask: Ask) -> bytes | None:
        """Write, and return what came of the answer; raises LineError if the port fails."""
        assert self._inbox
        try:
            self._inbox.discard()
            await self._say(ask.write)
            if "baud" in ask.line:
                await asyncio.sleep(SWITCH_S)
                self.set_baud(ask.line["baud"])
            if ask.read == 0:
                await asyncio.sleep(ask.wait_ms / 1000)
                return b""
            return await self._answer(self._inbox, ask)
        except (OSError, ValueError, termios.error) as error:
            raise LineError(port_advice(self._port, "", error)) from None

    def set_baud(self, baud: int | None = None) -> None:
        """Go on at `baud`, or at the line's own rate."""
        assert self._serial
        if self._serial.baudrate != (baud or self._baud):
            self._serial.baudrate = baud or self._baud

    async def _say(self, octets: bytes) -> None:
        """Write, and return when the last byte has left the wire: an adapter takes all of them at once."""
        assert self._serial
        said = 0
        while said < len(octets):
            try:
                said += os.write(self._serial.fileno(), octets[said:])
            except BlockingIOError:
                await asyncio.sleep(SWITCH_S)
        await asyncio.sleep(len(octets) * self._bits_a_character / self._serial.baudrate)

    async def _answer(self, inbox: Inbox, ask: Ask) -> bytes | None:
        now_ms = self._mono_ms()
        due_ms = now_ms + ask.wait_ms
        gap_ms = ask.line.get("gap_ms", 0)
        end_ms = now_ms + ask.line.get("total_ms", TOTAL_MS) if gap_ms else due_ms
        so_far = b""
        while not (so_far and ask.complete(so_far)) and len(so_far) < LARGEST_ANSWER_BYTES:
            try:
                async with asyncio.timeout((min(due_ms, end_ms) - self._mono_ms()) / 1000):
                    chunk = await inbox.take()
            except TimeoutError:
                break
            now_ms = self._mono_ms()
            if not so_far:
                self.began_ms = now_ms
            if gap_ms:
                due_ms = now_ms + gap_ms
            so_far += chunk
        return so_far or None


class _Turn:
    """One measurement at a time: what a meter was told (a rate, a selection) holds until its last answer."""

    def __init__(self, wire: SerialWire) -> None:
        self._wire = wire
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        try:
            self._wire.set_baud()
        except (OSError, ValueError, termios.error):
            pass  # the first question finds out, and says it
        except BaseException:
            self._lock.release()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._lock.release()
