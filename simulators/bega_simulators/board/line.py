"""The board's only port, as on the bench: a pseudo-terminal, and the same wire once more as a TCP socket.

A UART has no memory: what the board says while nobody has the port open is lost, and so is what a reader leaves lying
for a second. DTR and RTS do not exist on a pseudo-terminal; BOOT and EN are pressed on the board's control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import termios
import tty

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
    """One wire with two doors: `port` (a pseudo-terminal) and `url` (socket://). What is said is heard at both."""

    def __init__(self) -> None:
        self._terminal = Terminal()
        self._terminal.let_go()
        self.port = self._terminal.port
        self.url = ""
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(QUEUED_PIECES)
        self._callers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open both doors."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"socket://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for caller in self._callers:
            caller.close()
        self._terminal.close()

    @property
    def somebody_there(self) -> bool:
        """Return whether some process has the port open, at either door."""
        return bool(self._callers) or self._terminal.open_elsewhere

    async def read(self) -> bytes:
        """Return the next bytes that somebody sent to the board."""
        return await self._heard.get()

    async def write(self, octets: bytes) -> None:
        """Say `octets` to whoever is there."""
        if self._terminal.open_elsewhere:
            await self._terminal.write(octets)
        for caller in list(self._callers):
            if caller.transport.get_write_buffer_size() > UNREAD_BYTES:
                continue  # it does not read: lost, as at the other door
            caller.write(octets)

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers.add(writer)
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(PIECE_BYTES):
                self._take(octets)
        self._callers.discard(writer)
        writer.close()
