"""Puts a device that talks by itself on a serial port: a pseudo-terminal whose bytes leave at the pace of a wire.

A UART has no memory of what nobody heard: while no process has the port open, and when a reader is too slow, bytes are
lost, as they are on a real one. A pty knows no parity and no rate. The parity of a 7E1 wire is what a port that is open
as 8N1 sees of it, the eighth bit. The rate that the reader has set can be read at the other end, and who speaks at
another one is not understood: the bits are sampled at the wrong times, as a UART does it.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import termios
import tty
from collections.abc import Callable
from typing import Protocol

BITS_A_BYTE = 10  # start, eight data, stop
STEP_S = 0.004  # while bytes leave: about four at 9600 baud, a FIFO's worth at 115200
REST_S = 0.02  # while the wire is idle
LONGEST_BACKLOG_S = 2.0  # what a device cannot send within this it never sends: a wire has no queue
REQUEST_SILENCE_S = 0.02  # a request is over when nothing came for this long
RATES = {
    getattr(termios, f"B{rate}"): rate for rate in (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115_200)
}


class TalkingSim(Protocol):
    """What a device's sim.py offers to the wire it hangs on."""

    faults: set[str]

    def tick(self, now_ms: int) -> bytes: ...

    def answer(self, request: bytes) -> bytes | None: ...


class PtyHost:
    """One device on one port. `run` moves the bytes until it is cancelled; `close` takes the port away.

    faults of the device are those of its Sim: `host.sim.faults.add("silent")`.

    A Sim that has `answer_baud` and `answer_after_ms` changes its rate: its answer leaves at that rate, and so long
    after the request has left the wire; it listens at the port's own rate. Who speaks at another rate is garbled.
    """

    def __init__(self, sim: TalkingSim, baud: int, wall_ms: Callable[[], int], frame: str = "8N1") -> None:
        """wall_ms: Unix time for the device (some stamp what they say); the pace is the event loop's own clock.

        frame: of the device's wire, "8N1" or "7E1". The reader opens its port as 8N1 in either case.
        """
        self.sim = sim
        self._has_parity = frame == "7E1"
        self._baud = baud
        self._changes_rate = hasattr(sim, "answer_baud")
        self._rate = baud  # at which the device speaks now
        self._silent_until_s = 0.0  # by the loop's clock: it takes its time to answer
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
                incoming += self._as_device_hears(heard)
                heard_s = now_s
            elif incoming and now_s - heard_s >= REQUEST_SILENCE_S:
                if self._changes_rate:
                    outgoing.clear()  # what it still had to say it would now say at another rate
                said += self._answer(bytes(incoming), heard_s)
                incoming.clear()
            bytes_a_second = self._rate / BITS_A_BYTE
            if not outgoing or now_s < self._silent_until_s:
                wire_s = now_s
            if len(outgoing) <= LONGEST_BACKLOG_S * bytes_a_second:
                outgoing += said
            due = int((now_s - wire_s) * bytes_a_second)
            wire_s += due / bytes_a_second
            self._write(self._as_reader_hears(bytes(outgoing[:due])))
            del outgoing[:due]
            await asyncio.sleep(STEP_S if outgoing else REST_S)

    def close(self) -> None:
        os.close(self._master)

    @property
    def open_elsewhere(self) -> bool:
        """Return whether some process has the port open."""
        return not any(event & select.POLLHUP for _, event in self._hangup.poll(0))

    def _answer(self, request: bytes, heard_s: float) -> bytes:
        """Return what the device says to a request that was heard then, and have it leave at its time and rate."""
        said = self.sim.answer(request) or b""
        if self._changes_rate:
            self._rate = self.sim.answer_baud  # type: ignore[attr-defined]  # who changes it has it
            wire_time_s = len(request) * BITS_A_BYTE / self._baud
            self._silent_until_s = heard_s + wire_time_s + self.sim.answer_after_ms / 1000  # type: ignore[attr-defined]
        return said

    def _as_device_hears(self, octets: bytes) -> bytes:
        """Return what the device hears of what the reader wrote; a character whose parity is wrong it does not hear."""
        if self._changes_rate:
            octets = sampled(octets, self._reader_baud(), self._baud)
        if not self._has_parity:
            return octets
        return bytes(octet & 0x7F for octet in octets if octet.bit_count() % 2 == 0)

    def _as_reader_hears(self, octets: bytes) -> bytes:
        if self._has_parity:
            octets = bytes(octet & 0x7F | (octet & 0x7F).bit_count() % 2 << 7 for octet in octets)
        return sampled(octets, self._rate, self._reader_baud()) if self._changes_rate else octets

    def _reader_baud(self) -> int:
        """Return the rate that the reader has set; both ends of a pty have one set of attributes."""
        try:
            return RATES.get(termios.tcgetattr(self._master)[5], self._baud)
        except termios.error:  # nobody there
            return self._baud

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


def sampled(octets: bytes, sent_baud: int, read_baud: int) -> bytes:
    """Return what a UART at `read_baud` makes of `octets`, sent at `sent_baud` without a pause between them.

    It waits for a falling edge and looks at the middle of each of the bits that follow. A character whose stop bit is
    missing arrives as a zero, as Linux hands it on.
    """
    if sent_baud == read_baud:
        return octets
    levels = [bit for octet in octets for bit in (0, *(octet >> place & 1 for place in range(8)), 1)]
    heard = bytearray()
    # Time in units of which a sent bit lasts `read_baud` and a read bit `sent_baud`.
    now, end = 0, len(levels) * read_baud

    def level(moment: int) -> int:
        return levels[moment // read_baud] if moment < end else 1

    while now < end:
        if level(now):
            now = (now // read_baud + 1) * read_baud
            continue
        bits = [level(now + sent_baud * (2 * place + 3) // 2) for place in range(9)]
        heard.append(sum(bit << place for place, bit in enumerate(bits[:8])) if bits[8] else 0)
        now += sent_baud * 19 // 2
        while now < end and not level(now):
            now = (now // read_baud + 1) * read_baud
    return bytes(heard)
