"""An ESP32 as a process: power, resets and the watchdog around the real interpreter; killing it is a power cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from bega.clock import mono_ms
from bega_simulators.board.flash import SHIM, VFS_BLOCKS, VFS_START
from bega_simulators.board.peripherals import HARD_RESET, PWRON_RESET, UART_PINS, WDT_RESET, AirPeripherals

log = logging.getLogger(__name__)

WATCH_EVERY_S = 0.05
REST_AFTER_CRASH_S = 1.0
WATCHDOG_BIT = 1 << 16  # no exit code


class Board:
    """One board with power on."""

    def __init__(
        self, micropython: Path, flash: Path, heap: str, peripherals: AirPeripherals, said: Callable[[str], None]
    ) -> None:
        """said(line) receives each line of the firmware's console."""
        self.resets = 0
        self._micropython = micropython
        self._flash = flash
        self._heap = heap
        self._peripherals = peripherals
        self._said = said

    async def run(self) -> int:
        """Boot, and boot again after each reset, until cancelled; return the exit code if the program ends by itself.

        A program that ends hands the console to a technician: there is none here.
        """
        cause = PWRON_RESET
        while True:
            self._peripherals.power_on(cause)
            code = await self._boot()
            if self._peripherals.reset_asked:
                cause = HARD_RESET
            elif code == WATCHDOG_BIT:
                cause = WDT_RESET
            elif code < 0:
                log.warning("interpreter ended by signal=%d", -code)
                cause = HARD_RESET
                await asyncio.sleep(REST_AFTER_CRASH_S)
            else:
                return code
            self.resets += 1

    async def _boot(self) -> int:
        """Run the interpreter until it ends or is reset; return its exit code, or WATCHDOG_BIT if that ended it."""
        control, control_end = socket.socketpair()
        wires = {uart: socket.socketpair() for uart in UART_PINS}
        ends = {"control": control_end.fileno(), **{uart: far.fileno() for uart, (_, far) in wires.items()}}
        with contextlib.ExitStack() as theirs:
            theirs.enter_context(control_end)
            for _, far in wires.values():
                far.setblocking(False)  # as a UART with timeout=0
                theirs.enter_context(far)
            interpreter = await asyncio.create_subprocess_exec(
                *(str(self._micropython), "-X", f"heapsize={self._heap}", str(SHIM / "rom.py")),
                *(str(self._flash), str(VFS_START), str(VFS_BLOCKS)),
                env={"MICROPYPATH": f"{SHIM}:.frozen", "BEGA_BOARD_FDS": json.dumps(ends)},
                pass_fds=list(ends.values()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        assert interpreter.stdout is not None
        works = [
            asyncio.create_task(self._answer(control)),
            asyncio.create_task(self._listen(interpreter.stdout)),
            asyncio.create_task(self._watch(interpreter)),
            *(asyncio.create_task(self._peripherals.serial(uart, near)) for uart, (near, _) in wires.items()),
        ]
        try:
            code = await interpreter.wait()
            bitten = works[2].done()
            await asyncio.wait([works[1]], timeout=1)  # what it said last
            return WATCHDOG_BIT if bitten and not self._peripherals.reset_asked else code
        finally:
            if interpreter.returncode is None:
                interpreter.kill()
                await interpreter.wait()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            control.close()
            for near, _ in wires.values():
                near.close()

    async def _answer(self, control: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=control)
        while line := await reader.readline():
            try:
                answer = {"ok": self._peripherals.answer(json.loads(line))}
            except OSError as error:
                answer = {"errno": error.errno}
            writer.write(json.dumps(answer).encode() + b"\n")

    async def _listen(self, console: asyncio.StreamReader) -> None:
        while line := await console.readline():
            self._said(line.decode("utf-8", "replace").rstrip())

    async def _watch(self, interpreter: asyncio.subprocess.Process) -> None:
        """Pull the plug when the firmware asks for a reset, or when it no longer feeds the watchdog."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            due_ms = self._peripherals.watchdog_due_ms
            if self._peripherals.reset_asked or (due_ms is not None and mono_ms() > due_ms):
                interpreter.kill()
                return
