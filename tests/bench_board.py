"""Boards for tests of the technician's tools: flashed as `bega node build` makes it, started as anyone starts one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from bega_firmware.board import VFS_START, read_board
from bega_firmware.build import build

MICROPYTHON = Path(sys.executable).with_name("micropython")
needs_micropython = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)
BLANK = b"\xff" * VFS_START


def air_image(*ways: str) -> bytes:
    """Return the flash of an air node that was flashed and nothing more."""
    return BLANK + build(read_board("esp32_devkitc"), ["pms5003", "sht4x"], ways or ("broker",)).image


class BenchBoard:
    """A virtual board with this flash; what its console says lies in `log`."""

    def __init__(self, folder: Path, flash: bytes) -> None:
        self.flash = folder / "board.flash"
        self.flash.write_bytes(flash)
        self.log = folder / "board.log"
        self.facts: dict[str, Any] = {}
        self._ready = folder / "board.ready"
        self._child: subprocess.Popen[bytes] | None = None
        self._temporary = tempfile.mkdtemp(prefix="bench-")  # the path of a socket must not be long

    @property
    def port(self) -> str:
        return str(self.facts["serial"])

    def start(self, *arguments: str) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bega", "sim", "board", "--as-is", "--flash", str(self.flash), "--verbose"]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*command, "--ready-file", str(self._ready), *arguments],
                stderr=log, start_new_session=True, env={**os.environ, "TMPDIR": self._temporary},
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._ready.exists():
            assert self._child.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        self.facts = json.loads(self._ready.read_text())

    def order(self, **order: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(self.facts["control"])
            control.sendall(json.dumps(order).encode() + b"\n")
            answer: dict[str, Any] = json.loads(control.makefile().readline())
        assert "error" not in answer, answer
        return answer

    def said(self) -> str:
        return self.log.read_bytes().decode(errors="replace")

    def says(self, words: str, within_s: float = 20) -> None:
        """Wait until its console has said this."""
        deadline = time.monotonic() + within_s
        while words not in self.said():
            assert time.monotonic() < deadline, f"not within {within_s} s: {words!r}\n{self.said()[-800:]}"
            time.sleep(0.02)

    def unplug(self) -> None:
        """The power goes: the board with everything on it."""
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(10)
