"""The board's flash as the chip's own parts write it, and the power cut that comes after so many of its operations.

The interpreter writes the flash itself (shim/_flash.py). Both count in the same memory, so that a cut falls where it
was asked for, whoever operates; after it, nobody writes any more.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

SECTOR = 4096
STATE = struct.Struct("<IIBB")  # operations done; the one that the power fails at, 0 for none; torn; whether it failed


class PowerCut(Exception):
    """The power is gone: there is nobody left to answer."""


class Cut:
    """Operations on the flash, counted since the board was made, and the power cut among them."""

    def __init__(self) -> None:
        self.memory = os.memfd_create("bega-board-cut")
        self._write(0, 0, 0, 0)

    def close(self) -> None:
        os.close(self.memory)

    @property
    def operations(self) -> int:
        """Return how many there were."""
        return self._read()[0]

    @property
    def happened(self) -> bool:
        """Return whether the power was cut and has not come back."""
        return bool(self._read()[3])

    def arm(self, after: int, torn: bool = False) -> None:
        """Cut the power at the operation that follows `after` more; torn: in its middle, else just before it."""
        self._write(self.operations, self.operations + after + 1, torn, 0)

    def power_on(self) -> None:
        """The power is back; nothing is armed any more once it has happened."""
        done, at, torn, happened = self._read()
        self._write(done, 0 if happened else at, torn, 0)

    def allows(self, size: int) -> int:
        """Return how many bytes of the next operation still reach the flash. Raises PowerCut if the power is gone."""
        done, at, torn, happened = self._read()
        if happened:
            raise PowerCut
        done += 1
        self._write(done, at, torn, int(done == at))
        if done == at:
            return size // 2 if torn else 0
        return size

    def _read(self) -> tuple[int, int, int, int]:
        found: tuple[int, int, int, int] = STATE.unpack(os.pread(self.memory, STATE.size, 0))
        return found

    def _write(self, done: int, at: int, torn: int, happened: int) -> None:
        os.pwrite(self.memory, STATE.pack(done, at, torn, happened), 0)


class FlashFile:
    """Reads, erases and writes by address. As on NOR flash, a write only clears bits."""

    def __init__(self, path: Path, cut: Cut) -> None:
        self.file = os.open(path, os.O_RDWR)
        self._cut = cut

    def close(self) -> None:
        os.close(self.file)

    def read(self, at: int, size: int) -> bytes:
        return os.pread(self.file, size, at)

    def erase(self, at: int) -> None:
        """Erase the sector at this address. Raises PowerCut."""
        self._operate(at, b"\xff" * SECTOR)

    def write(self, at: int, data: bytes) -> None:
        """Program these bytes. Raises PowerCut."""
        before = self.read(at, len(data))
        self._operate(at, bytes(old & new for old, new in zip(before, data, strict=True)))

    def flip(self, at: int, bit: int) -> None:
        """Let a bit rot."""
        octet = self.read(at, 1)[0]
        os.pwrite(self.file, bytes((octet ^ 1 << bit,)), at)

    def _operate(self, at: int, data: bytes) -> None:
        allowed = self._cut.allows(len(data))
        os.pwrite(self.file, data[:allowed], at)
        if allowed < len(data):
            raise PowerCut
