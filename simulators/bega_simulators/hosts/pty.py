"""Puts a device that talks by itself on a serial port: a pseudo-terminal whose bytes leave at the pace of a wire.

A UART has no memory of what nobody heard: while no process has the port open, and when a reader is too slow, bytes are
lost, as they are on a real one. A pty knows no parity: whatever the device's wire has, here it is 8N1.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import tty
from collections.abc import Callable
from typing import Protocol

BITS_A_BYTE = 10  # start, eight data, stop
STEP_S = 0.004  # while bytes leave: about four at 9600 baud, a FIFO's worth at 115200
REST_S = 0.02  # while the wire is idle
LONGEST_BACKLOG_S = 2.0  # what a device cannot send within this it never sends: a wire has no queue
REQUEST_SILENCE_S = 0.02  # a request is over when nothing came for this long


class TalkingSim(Protocol):
    """What a device's sim.py offers to the wire it hangs on."""

    faults: set[str]

    def tick(self, now_ms: int) -> bytes: ...

    def answer(self, request: bytes) -> bytes | None: ...


class PtyHost:
    """One device on one port. `run` moves the bytes until it is cancelled; `close` takes the port away.

    faults of the device are those of its Sim: `host.sim.faults.add("silent")`.
    """

    def __init__(self, sim: TalkingSim, baud: int, wall_ms: Callable[[], int]) -> None:
        """wall_ms: Unix time for the device (some stamp what they say); the pace is the event loop's own clock."""
        self.sim = sim
        self._bytes_a_second = baud / BITS_A_BYTE
        self._wall_ms = wall_ms
        self._master, slave = pty.openpty()
        # Raw, or the terminal would echo what the device says back to it until a reader asks for raw itself.
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        self._hangup = select.poll()
        self._hangup.register(self._master, 0)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        outgoing, incoming = bytearray(), bytearray()
        heard_s = wire_s = loop.time()
        while True:
            now_s = loop.time()
            said = self.sim.tick(self._wall_ms())
            heard = self._read()
            if heard:
                incoming += heard
                heard_s = now_s
            elif incoming and now_s - heard_s >= REQUEST_SILENCE_S:
                said += self.sim.answer(bytes(incoming)) or b""
                incoming.clear()
            if not outgoing:
                wire_s = now_s
            if len(outgoing) <= LONGEST_BACKLOG_S * self._bytes_a_second:
                outgoing += said
            due = int((now_s - wire_s) * self._bytes_a_second)
            wire_s += due / self._bytes_a_second
            self._write(bytes(outgoing[:due]))
            del outgoing[:due]
            await asyncio.sleep(STEP_S if outgoing else REST_S)

    def close(self) -> None:
        os.close(self._master)

    @property
    def open_elsewhere(self) -> bool:
        """Return whether some process has the port open."""
        return not any(event & select.POLLHUP for _, event in self._hangup.poll(0))

    def _read(self) -> bytes:
        try:
            return os.read(self._master, 4096)
        except OSError:  # nothing to read, or nobody there
            return b""

    def _write(self, data: bytes) -> None:
        if not data or not self.open_elsewhere:
            return
        try:
            os.write(self._master, data)
        except OSError:  # the reader's buffer is full: an overrun, and lost
            return
