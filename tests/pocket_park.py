"""Buses of pocket boards (tests/micropython/pocket_board.py): the node's own firmware, many of them, on bad wires."""

import asyncio
import os
import pty
import random
import socket
import sys
import tty
from contextlib import suppress
from pathlib import Path

from bega_protocols import uplink
from bega_protocols.errors import WireError
from bega_simulators.board.flash import SHIM
from tests.uplink_bus import bad_wire

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
POWER_ON, HARD_RESET = 1, 2
RESET_CODE = 3


class PocketBoard:
    """One board: its flash is a file, its console a log, its UART a socket."""

    def __init__(self, folder: Path, name: str, number: int, blocks: int) -> None:
        self.name = name
        self.flash = folder / f"{name}.flash"
        self.log = folder / f"{name}.log"
        self.starts = 0
        self._number, self._blocks = number, blocks
        self.socket: socket.socket | None = None

    async def run(self, heard) -> None:
        """Run with power on; heard(octets) takes what it sends."""
        cause = POWER_ON
        while True:
            self.starts += 1
            near, far = socket.socketpair()
            near.setblocking(False)
            far.setblocking(False)
            with self.log.open("ab") as log, far:
                program = await asyncio.create_subprocess_exec(
                    *(str(MICROPYTHON), "-X", "heapsize=1m", str(ROOT / "tests/micropython/pocket_board.py")),
                    *map(str, (self.flash, self._blocks, far.fileno(), cause, self._number)),
                    env={"MICROPYPATH": f"{SHIM}:.frozen"},
                    pass_fds=[far.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self.socket = near
            loop = asyncio.get_running_loop()
            loop.add_reader(near, lambda near=near: self._read(near, heard))
            try:
                code = await program.wait()
            finally:
                loop.remove_reader(near)
                self.socket = None
                near.close()
                if program.returncode is None:
                    program.kill()
                    await program.wait()
            assert code == RESET_CODE, f"{self.name} ended with {code}: {self.said()[-500:]}"
            cause = HARD_RESET

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _read(self, near: socket.socket, heard) -> None:
        with suppress(OSError):
            octets = near.recv(4096)
            if octets:
                heard(octets)


class PocketBus:
    """A gateway's port with boards on it. What is for one board is handed to that one: the others would drop it."""

    def __init__(self, boards: list[PocketBoard], lost: float, seed: int) -> None:
        self.boards = {board.name: board for board in boards}
        self.spoiled = self.passed = 0
        self._sessions: dict[bytes, PocketBoard] = {}
        self._blocks = uplink.Blocks()
        self._spoil = bad_wire(seed, 1.0)
        self._lost = lost
        self._chance = random.Random(seed)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._master, self._question)
        try:
            async with asyncio.TaskGroup() as tasks:
                for board in self.boards.values():
                    tasks.create_task(board.run(lambda octets, board=board: self._answer(board, octets)))
        finally:
            loop.remove_reader(self._master)

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)

    def _question(self) -> None:
        with suppress(OSError):
            octets = os.read(self._master, 4096)
            for block in self._blocks.feed(octets):
                board = self._board_of(block)
                if board and board.socket:
                    with suppress(OSError):
                        board.socket.send(self._worn(b"\0" + block + b"\0"))

    def _answer(self, board: PocketBoard, octets: bytes) -> None:
        for block in uplink.Blocks().feed(octets):
            with suppress(WireError):
                frame = uplink.decode(block)
                if frame.kind == uplink.WELCOME:
                    self._sessions[frame.body[1:5]] = board
        with suppress(OSError):
            os.write(self._master, self._worn(octets))

    def _board_of(self, block: bytes) -> PocketBoard | None:
        with suppress(WireError):
            body = uplink.decode(block).body
            if body[0] & 7 == uplink.HELLO:
                return self.boards.get(body[1 + uplink.NONCE_SIZE :].decode())
            return self._sessions.get(body[1:5])
        return None

    def _worn(self, octets: bytes) -> bytes:
        self.passed += 1
        if self._chance.random() >= self._lost:
            return octets
        self.spoiled += 1
        return self._spoil(octets)
