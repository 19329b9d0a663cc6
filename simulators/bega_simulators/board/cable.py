"""A cable from a board's UART to a port of this machine: at its other end is somebody else's program, as a gateway.

Bytes take their time on it, and who listens at another rate than the other one speaks hears something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import termios
import tty
from collections.abc import Callable
from pathlib import Path

from bega_protocols.errors import ConfigError
from bega_simulators.board.sensors import UART_PINS, Form
from bega_simulators.hosts.pty import RATES, sampled

BITS_A_BYTE = 10
PIECE = 32
WHOLE = 512  # the longest frame on a bus of meters, and more


class Cable:
    """One cable. Nothing waits in it while no board listens."""

    def __init__(self, path: Path) -> None:
        """`path` becomes a link to the port."""
        self._master, self._slave = pty.openpty()  # both kept: a port stays when its reader goes
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        path.unlink(missing_ok=True)
        path.symlink_to(os.ttyname(self._slave))

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, form: Callable[[], Form | None]
    ) -> None:
        """Carry both ways until cancelled; form(): how the board's UART is set, None if it is not."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._to_port(reader, form))
            tasks.create_task(self._to_board(writer, form))

    async def _to_port(self, reader: asyncio.StreamReader, form: Callable[[], Form | None]) -> None:
        while octets := await reader.read(PIECE):
            if (set_to := form()) is None:
                continue
            await asyncio.sleep(len(octets) * BITS_A_BYTE / set_to[0])
            try:
                os.write(self._master, sampled(octets, set_to[0], self._port_baud()))
            except BlockingIOError:  # nobody reads
                continue

    async def _to_board(self, writer: asyncio.StreamWriter, form: Callable[[], Form | None]) -> None:
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(self._master, there.set)
        try:
            while True:
                await there.wait()
                there.clear()
                try:
                    octets = os.read(self._master, PIECE)
                except BlockingIOError:
                    continue
                baud = self._port_baud()
                await asyncio.sleep(len(octets) * BITS_A_BYTE / baud)
                if set_to := form():
                    writer.write(sampled(octets, baud, set_to[0]))
                    await writer.drain()
        finally:
            loop.remove_reader(self._master)

    def _port_baud(self) -> int:
        """Return the rate that the port was opened with."""
        return RATES.get(termios.tcgetattr(self._master)[5], 115_200)


class Plug:
    """A plug in the port of another simulator: a bus of meters, which has its own time for each byte."""

    def __init__(self, path: Path, baud: int) -> None:
        """baud: what is spoken there. Raises OSError if it is no port."""
        self._port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(self._port)
        except termios.error as error:
            os.close(self._port)
            raise OSError(f"{path} is no port") from error
        self._baud = baud

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, form: Callable[[], Form | None]
    ) -> None:
        """See Cable.carry."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._to_port(reader, form))
            tasks.create_task(self._to_board(writer, form))

    async def _to_port(self, reader: asyncio.StreamReader, form: Callable[[], Form | None]) -> None:
        while octets := await reader.read(WHOLE):
            if set_to := form():
                with contextlib.suppress(OSError):  # it was pulled out
                    os.write(self._port, sampled(octets, set_to[0], self._baud))

    async def _to_board(self, writer: asyncio.StreamWriter, form: Callable[[], Form | None]) -> None:
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(self._port, there.set)
        try:
            while True:
                await there.wait()
                there.clear()
                try:
                    octets = os.read(self._port, WHOLE)
                except BlockingIOError:
                    continue
                except OSError:
                    return
                if set_to := form():
                    writer.write(sampled(octets, self._baud, set_to[0]))
                    await writer.drain()
        finally:
            loop.remove_reader(self._port)


def plugs(texts: list[str]) -> dict[str, Plug]:
    """Return what UART=PORT:BAUD says, by the UART. Raises ConfigError."""
    found = {}
    for text in texts:
        uart, _, place = text.partition("=")
        port, _, baud = place.rpartition(":")
        if uart not in UART_PINS or not port or not baud.isdigit():
            raise ConfigError(f"plug {text}: write it as UART=PORT:BAUD; here are {', '.join(UART_PINS)}")
        try:
            found[uart] = Plug(Path(port), int(baud))
        except OSError as error:
            raise ConfigError(f"plug {text}: {error}") from None
    return found


def cables(texts: list[str]) -> dict[str, Cable]:
    """Return the cables that UART=PATH says, by their UART. Raises ConfigError."""
    found = {}
    for text in texts:
        uart, equals, path = text.partition("=")
        if uart not in UART_PINS or not equals:
            raise ConfigError(f"cable {text}: write it as UART=PATH; here are {', '.join(UART_PINS)}")
        try:
            found[uart] = Cable(Path(path))
        except OSError as error:
            raise ConfigError(f"cable {text}: {error}") from None
    return found
