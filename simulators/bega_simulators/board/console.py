"""The interpreter's console, and its REPL, on the board's serial line.

MicroPython's Unix port has a terminal where a board has a UART, and differs in three ways that a board's user must not
notice: Ctrl-C reaches a running program as a signal, of which a second one before the first is served ends the process;
what is typed before its REPL begins to read may be flushed; and Ctrl-D in the REPL ends the process, where a board
makes a soft reset and, in the raw REPL, is in the raw REPL again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
from collections.abc import Callable
from pathlib import Path

from bega_simulators.board.line import SerialLine, Terminal

CTRL_A, CTRL_C = b"\x01", b"\x03"
RAW_REPL = b"raw REPL; CTRL-B to exit\r\n>"
BANNER, PROMPT = b"MicroPython ", b">>> "
LOOK_AGAIN_S = 0.002
INTERRUPTED_WITHIN_S = 2.0  # a program that does not stop on Ctrl-C hears what is typed after it
REPL_WITHIN_S = 5.0


class Console:
    """One run of the interpreter on the line, from its start to its end."""

    def __init__(self, line: SerialLine, said: Callable[[str], None]) -> None:
        """said(line) receives each line of what it prints."""
        self._line = line
        self._said = said
        self._terminal = Terminal()
        self._unfinished = b""
        self._tail = b""
        self._process = 0
        attributes = termios.tcgetattr(self._terminal.slave)
        attributes[3] |= termios.ISIG  # as it is while a program runs; the REPL switches it off to read Ctrl-C itself
        termios.tcsetattr(self._terminal.slave, termios.TCSANOW, attributes)
        self.is_raw = False  # whether the interpreter's REPL is the raw one
        self.was_attended = False  # whether anybody typed anything
        self._had_repl = False

    @property
    def slave(self) -> int:
        """The file descriptor that is the interpreter's standard input, output and error."""
        return self._terminal.slave

    @property
    def ended_by_itself(self) -> bool:
        """Return whether the program came to its end, and not because of what somebody typed."""
        return self._had_repl and not self.was_attended

    async def run(self, process: int, in_raw_repl: bool) -> None:
        """Carry bytes both ways until the interpreter (its process id) has ended; leave it in the raw REPL first."""
        self._process = process
        self._terminal.let_go()
        if in_raw_repl:
            self.was_attended = True
            await self._enter_raw_repl()
        typing = asyncio.create_task(self._type())
        try:
            while octets := await self._terminal.read():
                self._note(octets)
                await self._line.write(octets)
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)

    def close(self) -> None:
        if self._unfinished:
            self._said(self._unfinished.decode("utf-8", "replace"))
        self._terminal.close()

    async def _type(self) -> None:
        """Hand on what is typed. Ctrl-C interrupts a running program, and only then the rest is typed."""
        while True:
            octets = await self._line.read()
            self.was_attended = True
            while octets:
                before, interrupt, octets = octets.partition(CTRL_C)
                await self._terminal.write(before)
                if interrupt and self._is_running():
                    await self._interrupt()
                elif interrupt:
                    await self._terminal.write(CTRL_C)

    async def _interrupt(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGINT)
        await self._until(lambda: not self._is_running(), INTERRUPTED_WITHIN_S)

    def _is_running(self) -> bool:
        """Return whether it runs something, and does not read what is typed.

        Its terminal says so, but not of what the raw REPL was given; then the signal that it catches does.
        """
        process = Path(f"/proc/{self._process}")
        try:
            if "micropython" not in (process / "maps").read_text():
                return False  # the Python that the wheel starts it by: the chip is still in its ROM
            if self._terminal.interrupts:
                return True
            status = (process / "status").read_text()
        except OSError:
            return False
        caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) & 1 << signal.SIGINT - 1)

    async def _enter_raw_repl(self) -> None:
        """Bring a fresh REPL there; its banner is not shown, what a boot.py printed is."""
        heard = await self._hear(PROMPT)
        await self._until(lambda: not self._terminal.interrupts, REPL_WITHIN_S)
        await self._terminal.write(CTRL_A)
        heard += await self._hear(RAW_REPL)
        before, banner, _ = heard.partition(BANNER)
        self._note(heard)
        await self._line.write(before + RAW_REPL if banner else heard)

    async def _hear(self, ending: bytes) -> bytes:
        heard = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPL_WITHIN_S):
                while not heard.endswith(ending) and (octets := await self._terminal.read()):
                    heard += octets
        return heard

    async def _until(self, holds: Callable[[], bool], limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not holds():  # noqa: ASYNC110 - a terminal's attributes tell nobody when they change
                    await asyncio.sleep(LOOK_AGAIN_S)

    def _note(self, octets: bytes) -> None:
        """Look at what is printed: its lines, and which REPL the interpreter is in."""
        seen = self._tail + octets
        raw, friendly = seen.rfind(RAW_REPL), seen.rfind(PROMPT)
        if raw >= 0 or friendly >= 0:
            self._had_repl, self.is_raw = True, raw > friendly
        self._tail = seen[-len(RAW_REPL) + 1 :]
        *lines, self._unfinished = (self._unfinished + octets).split(b"\n")
        self._unfinished = self._unfinished[-4096:]
        for line in lines:
            self._said(line.decode("utf-8", "replace").rstrip())
