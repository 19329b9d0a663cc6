"""An ESP32 as a process: power, resets and the watchdog around the real interpreter; killing it is a power cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from bega.clock import mono_ms
from bega_simulators.board.chip import DEEPSLEEP_RESET, SOFT_RESET
from bega_simulators.board.console import Console
from bega_simulators.board.flash import SHIM, VFS_BLOCKS, VFS_START, is_blank
from bega_simulators.board.line import SerialLine
from bega_simulators.board.peripherals import HARD_RESET, PWRON_RESET, UART_PINS, WDT_RESET, AirPeripherals
from bega_simulators.board.port import INTERPRETER
from bega_simulators.board.rom import DownloadMode

log = logging.getLogger(__name__)

WATCH_EVERY_S = 0.05
REST_AFTER_CRASH_S = 1.0
RESET, WATCHDOG, ENDED = 1 << 16, 1 << 17, 1 << 18  # why a run was over; no exit codes
# What an ESP32's ROM says first, by MicroPython's cause of it.
CAUSES = {
    PWRON_RESET: "0x1 (POWERON_RESET)",
    HARD_RESET: "0xc (SW_CPU_RESET)",
    WDT_RESET: "0x8 (TG1WDT_SYS_RESET)",
    DEEPSLEEP_RESET: "0x5 (DEEPSLEEP_RESET)",
}


class Board:
    """One board with power on, and its one serial port."""

    def __init__(
        self,
        micropython: Path,
        flash: Path,
        heap: str,
        peripherals: AirPeripherals,
        line: SerialLine,
        scratch: Path,
        said: Callable[[str], None],
    ) -> None:
        """scratch: a folder for its parts; said(line) receives each line of the firmware's console."""
        self.resets = 0
        self.in_rom = False
        self._micropython = micropython
        self._flash = flash
        self._heap = heap
        self._peripherals = peripherals
        self._peripherals.insert_flash(flash)
        self._line = line
        line.start = lambda held: self.hold_boot() if held else self.press_en()
        self._scratch = scratch
        self._said = said
        self._boot_held = self._en_pressed = False

    async def run(self, ready: Callable[[], None], attended: bool) -> int:
        """Boot, and boot again after each reset, until cancelled; ready() is called once the port answers.

        A program that ends hands the console to a technician. If none is expected (`attended` is False) and nobody
        ever typed anything, run ends too, and returns 1; so it does if the interpreter cannot even start.
        """
        cause, in_raw_repl = PWRON_RESET, False
        while True:
            if self._boot_held or is_blank(self._flash):
                await self._download(ready)
                cause, in_raw_repl = PWRON_RESET, False
                continue
            console = Console(self._line, self._said)
            try:
                code = await self._boot(console, cause, in_raw_repl, ready, attended)
            finally:
                console.close()
            attended = attended or console.was_attended
            in_raw_repl = False
            if code == WATCHDOG:
                cause = WDT_RESET
            elif code == RESET:
                cause = await self._rest()
            elif code == -signal.SIGINT or (code >= 0 and console.was_attended):
                cause, in_raw_repl = SOFT_RESET, console.is_raw
                await self._line.write(b"MPY: soft reboot\r\n")
                continue
            elif code < 0:
                log.warning("interpreter ended by signal=%d", -code)
                cause = HARD_RESET
                await asyncio.sleep(REST_AFTER_CRASH_S)
            else:
                return 1
            self.resets += 1

    def hold_boot(self) -> None:
        """Press BOOT and EN, and let go of EN first: the board is in its ROM until that is left or EN is pressed."""
        self._boot_held = True
        self.press_en()

    def press_en(self) -> None:
        """Reset the chip; that ends a deep sleep too."""
        self._en_pressed = True
        if self._peripherals.chip.asleep:
            self._peripherals.chip.reset()

    async def _rest(self) -> int:
        """Return the cause of the boot that follows a reset, after the sleep if it was one; EN ends that too."""
        rest = asyncio.create_task(self._peripherals.rest())
        try:
            while not (await asyncio.wait([rest], timeout=WATCH_EVERY_S))[0]:
                if self._en_pressed:
                    return HARD_RESET
            return rest.result()
        finally:
            rest.cancel()

    async def _download(self, ready: Callable[[], None]) -> None:
        """Be in the ROM until its loader leaves it, or somebody presses EN."""
        self._boot_held = self._en_pressed = False
        self._peripherals.power_on(PWRON_RESET)
        self.in_rom = True
        mac = bytes.fromhex(self._peripherals.answer({"op": "unique_id"}))
        mode = DownloadMode(self._line, self._flash, mac, self._scratch)
        stay = asyncio.create_task(mode.run(ready))
        try:
            while not (stay.done() or self._en_pressed or self._peripherals.reset_asked):
                await asyncio.wait([stay], timeout=WATCH_EVERY_S)
            if stay.done():
                stay.result()
            if is_blank(self._flash):
                await self._line.write(b"invalid header: 0xffffffff\r\n")
        finally:
            stay.cancel()
            await asyncio.gather(stay, return_exceptions=True)
            self.in_rom = False

    async def _boot(
        self, console: Console, cause: int, in_raw_repl: bool, ready: Callable[[], None], attended: bool
    ) -> int:
        """Run the interpreter until it ends or is reset; return its exit code, or why it was ended."""
        self._en_pressed = False
        self._peripherals.power_on(cause)
        if cause != SOFT_RESET:
            await self._introduce(cause)
        control, control_end = socket.socketpair()
        wires = {uart: socket.socketpair() for uart in UART_PINS}
        more = self._peripherals.listen()
        ends = {"control": control_end.fileno(), **{name: end.fileno() for name, end in more.items()}}
        ends |= {uart: far.fileno() for uart, (_, far) in wires.items()}
        with contextlib.ExitStack() as theirs:
            theirs.enter_context(control_end)
            for end in more.values():
                theirs.enter_context(end)
            for _, far in wires.values():
                far.setblocking(False)  # as a UART with timeout=0
                theirs.enter_context(far)
            # In our own process group: a power cut is one signal to all of it.
            interpreter = await asyncio.create_subprocess_exec(
                *(str(self._micropython), "-i", "-X", f"heapsize={self._heap}", str(SHIM / "rom.py")),
                *(str(self._flash), str(VFS_START), str(VFS_BLOCKS), "boot" if in_raw_repl else "main"),
                env={"MICROPYPATH": f"{SHIM}:.frozen", "BEGA_BOARD_FDS": json.dumps(ends)},
                pass_fds=list(ends.values()),
                stdin=console.slave,
                stdout=console.slave,
                stderr=console.slave,
            )
        talk = asyncio.create_task(console.run(interpreter.pid, in_raw_repl))
        watch = asyncio.create_task(self._watch(console, attended))
        works = [
            talk,
            watch,
            asyncio.create_task(self._answer(control)),
            *(asyncio.create_task(self._peripherals.serial(uart, near)) for uart, (near, _) in wires.items()),
        ]
        ending = asyncio.create_task(interpreter.wait())
        try:
            ready()
            await asyncio.wait([ending, watch], return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                interpreter.kill()
            code = await ending
            await asyncio.wait([talk], timeout=1)  # what it said last
            return watch.result() if watch.done() else code
        finally:
            if interpreter.returncode is None:
                interpreter.kill()
                await interpreter.wait()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, ending, return_exceptions=True)
            control.close()
            for near, _ in wires.values():
                near.close()

    async def _introduce(self, cause: int) -> None:
        """Say what the ROM says when it boots the flash, and that what follows is no ESP32's interpreter."""
        rom = f"rst:{CAUSES[cause]},boot:0x13 (SPI_FAST_FLASH_BOOT)"
        for line in (rom, f"bega: virtual board: {INTERPRETER}"):
            self._said(line)
            await self._line.write(line.encode() + b"\r\n")

    async def _answer(self, control: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=control)
        while line := await reader.readline():
            try:
                answer = {"ok": self._peripherals.answer(json.loads(line))}
            except OSError as error:
                answer = {"errno": error.errno, "text": error.strerror}
            writer.write(json.dumps(answer).encode() + b"\n")

    async def _watch(self, console: Console, attended: bool) -> int:
        """Return when the plug is to be pulled, and why: EN, the watchdog, or a program that ended unattended."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            due_ms = self._peripherals.watchdog_due_ms
            if self._en_pressed or self._peripherals.reset_asked:
                return RESET
            if due_ms is not None and mono_ms() > due_ms:
                return WATCHDOG
            if not attended and console.ended_by_itself:
                return ENDED
