"""The flash of a board: a 4 MB file, laid out as MicroPython lays out an ESP32's."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from bega.extras import how_to_install
from bega_protocols.errors import ConfigError

FLASH_BYTES = 4 << 20
BLANK = b"\xff" * FLASH_BYTES
VFS_START, VFS_BLOCKS = 2 << 20, 512  # the partition `vfs` of ports/esp32/partitions-4MiB.csv: 2 MB from 0x200000 on
SHIM = Path(__file__).parent / "shim"


def find_micropython() -> Path:
    """Return the interpreter: what BEGA_MICROPYTHON names, or the one beside this Python. Raises ConfigError."""
    named = os.environ.get("BEGA_MICROPYTHON")
    path = Path(named) if named else Path(sys.executable).with_name("micropython")
    if path.is_file():
        return path
    remedy = how_to_install("sim")
    if named or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        remedy = "build it from micropython/ports/unix and name it with BEGA_MICROPYTHON=PATH"
    raise ConfigError(f"the virtual board needs MicroPython's Unix port, and {path} is not there: {remedy}")


async def build_firmware(board: str, drivers: list[str], folder: Path, actions: bool = False) -> list[tuple[Path, str]]:
    """Return (file here, path on the board) of all that a node with these devices runs, as `bega node build` makes it.

    What is made goes into `folder`; actions: those of the drivers go along. Raises ConfigError, with what the command
    said, if it cannot be made.
    """
    builder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bega", "node", "build", "--board", board, "--out", str(folder), "--json"),
        *_reused(),
        *(f"--device={driver}" for driver in sorted(set(drivers))),
        *(["--actions"] if actions else []),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    listing, complaint = await builder.communicate()
    if builder.returncode != 0:
        raise ConfigError(complaint.decode(errors="replace").strip())
    return [(folder / "files" / entry["path"][1:], entry["path"]) for entry in json.loads(listing)["files"]]


def make_blank(flash: Path) -> None:
    """Make the flash as it leaves the factory."""
    flash.write_bytes(BLANK)


def is_blank(flash: Path) -> bool:
    """Return whether nothing is on the flash, so that an ESP32's ROM finds no program to start."""
    return flash.read_bytes() == BLANK


def check_flash(flash: Path) -> None:
    """Raise ConfigError if this file is no flash of a board."""
    if flash.stat().st_size != FLASH_BYTES:
        raise ConfigError(f"{flash} is no flash of a board: it is not {FLASH_BYTES} bytes long")


async def put_on_flash(micropython: Path, flash: Path, contents: list[tuple[Path, str]]) -> None:
    """Make the flash if there is none, and bring its files up to date; the rest on it stays. Raises ConfigError."""
    if not flash.exists():
        make_blank(flash)
    check_flash(flash)
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "files.json"
        listing.write_text(json.dumps([[str(source), target] for source, target in contents]))
        flasher = await asyncio.create_subprocess_exec(
            *(str(micropython), "-X", "heapsize=4m", str(SHIM / "flasher.py")),
            *(str(flash), str(VFS_START), str(VFS_BLOCKS), str(listing)),
            env={"MICROPYPATH": f"{SHIM}:.frozen"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await flasher.communicate()
    if flasher.returncode != 0:
        raise ConfigError(f"{flash} cannot be written: {output.decode(errors='replace').strip()}")


def _reused() -> list[str]:
    """Return the option by which builds are kept for the next board, if this user has a place for such things."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bega" / "node-builds"
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError:
        return []
    return ["--reuse", str(kept)] if os.access(kept, os.W_OK) else []
