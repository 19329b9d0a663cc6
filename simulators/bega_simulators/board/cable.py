"""A cable from a board's UART to a port of this machine: at its other end is somebody else's program, as a gateway.

Bytes take their time on it, and who listens at another rate than the other one speaks hears something else.
"""

from __future__ import annotations

import asyncio
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
