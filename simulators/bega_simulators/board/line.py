"""The board's only port, as on the bench: a pseudo-terminal, and the same wire twice more over TCP.

A UART has no memory: what the board says while nobody has the port open is lost, and so is what a reader leaves lying
for a second. DTR and RTS do not exist on a pseudo-terminal and a plain socket; the third door, RFC 2217, has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import termios
import tty
from collections.abc import Callable

from bega_simulators.board.buttons import Buttons, Converter

PIECE_BYTES = 65536
QUEUED_PIECES = 256  # not yet heard by the board; what comes above is an overrun
LOOK_AGAIN_S = 0.02  # whether somebody opened the port
UNREAD_BYTES = 1 << 20  # of a caller: a whole window of a flash that is read back, and more
PATIENCE_S = 1.0  # with a reader whose buffer is full


class Terminal:
    """The master's end of a pseudo-terminal, without blocking anybody."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.port = os.ttyname(self.slave)
        os.set_blocking(self._master, False)
        self._is_read = True
        self._hangup = select.poll()
        self._hangup.register(self._master, 0)

    def let_go(self) -> None:
        """Close our own copy of the other end: from now on it is open only where somebody else opened it."""
        os.close(self.slave)

    @property
    def open_elsewhere(self) -> bool:
        """Return whether some process has the other end open."""
        return not any(event & select.POLLHUP for _, event in self._hangup.poll(0))

    @property
    def interrupts(self) -> bool:
        """Return whether who has the other end asks to be interrupted by Ctrl-C, instead of reading it."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ISIG)

    async def read(self) -> bytes:
        """Return what came, b"" when nobody has the other end open."""
        while True:
            try:
                return os.read(self._master, PIECE_BYTES)
            except BlockingIOError:
                await self._ready("reader")
            except OSError:
                return b""

    async def write(self, octets: bytes) -> None:
        """Hand `octets` on; what the other end leaves lying for a second is lost, and what follows until it reads."""
        with contextlib.suppress(OSError):
            while octets:
                try:
                    octets = octets[os.write(self._master, octets) :]
                    self._is_read = True
                except BlockingIOError:
                    if not self._is_read:
                        return  # nobody may be kept waiting for it again and again
                    with contextlib.suppress(TimeoutError):
                        self._is_read = False
                        await asyncio.wait_for(self._ready("writer"), PATIENCE_S)
                        self._is_read = True

    def close(self) -> None:
        os.close(self._master)

    async def _ready(self, side: str) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        getattr(loop, f"add_{side}")(self._master, ready.set)
        try:
            await ready.wait()
        finally:
            getattr(loop, f"remove_{side}")(self._master)


class SerialLine:
    """One wire with three doors: a pseudo-terminal, a socket, and RFC 2217. What is said is heard at each."""

    def __init__(self) -> None:
        self._terminal = Terminal()
        self._terminal.let_go()
        self.port = self._terminal.port
        self.url = self.rfc2217 = ""
        self.start: Callable[[bool], None] = lambda held: None  # what DTR and RTS do; see Buttons
        self._buttons = Buttons(lambda held: self.start(held))
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(QUEUED_PIECES)
        self._callers: dict[asyncio.StreamWriter, Converter | None] = {}
        self._servers: list[asyncio.Server] = []
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open all doors."""
        doors = []
        for scheme, serve in (("socket", self._serve), ("rfc2217", self._convert)):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self._servers.append(server)
            doors.append(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        self.url, self.rfc2217 = doors
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        for server in self._servers:
            server.close()
        for caller in self._callers:
            caller.close()
        self._terminal.close()

    @property
    def somebody_there(self) -> bool:
        """Return whether some process has the port open, at any door."""
        return bool(self._callers) or self._terminal.open_elsewhere

    async def read(self) -> bytes:
        """Return the next bytes that somebody sent to the board."""
        return await self._heard.get()

    async def write(self, octets: bytes) -> None:
        """Say `octets` to whoever is there."""
        if self._terminal.open_elsewhere:
            await self._terminal.write(octets)
        for caller, converter in list(self._callers.items()):
            if caller.transport.get_write_buffer_size() > UNREAD_BYTES:
                continue  # it does not read: lost, as at the other doors
            (converter.say if converter else caller.write)(octets)

    def _take(self, octets: bytes) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._heard.put_nowait(octets)

    async def _listen(self) -> None:
        while True:
            octets = await self._terminal.read()
            if octets:
                self._take(octets)
            else:
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _convert(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        converter = Converter(writer.write, self._buttons)
        try:
            await self._serve(reader, writer, converter)
        finally:
            converter.unplug()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, converter: Converter | None = None
    ) -> None:
        self._callers[writer] = converter
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(PIECE_BYTES):
                if data := converter.heard(octets) if converter else octets:
                    self._take(data)
        del self._callers[writer]
        writer.close()
