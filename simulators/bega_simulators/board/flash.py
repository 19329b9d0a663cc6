"""The flash of a board: a 4 MB file, laid out as MicroPython lays out an ESP32's."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import bega_protocols
from bega.extras import how_to_install
from bega_protocols.errors import ConfigError

FLASH_BYTES = 4 << 20
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


def firmware_files(board: str, drivers: list[str]) -> list[tuple[Path, str]]:
    """Return (file here, path on the board) of everything that a node with these devices runs."""
    node, boards = _firmware_folder("node"), _firmware_folder("boards")
    protocols = Path(bega_protocols.__file__).parent
    found = [(path, f"/{path.name}") for path in sorted(node.glob("*.py"))]
    found.append((boards / f"{board}.py", "/board.py"))
    found += [(path, f"/lib/bega_protocols/{path.name}") for path in sorted(protocols.glob("*.py"))]
    found.append((protocols / "devices/__init__.py", "/lib/bega_protocols/devices/__init__.py"))
    for driver in sorted(set(drivers)):
        for path in sorted((protocols / "devices" / driver).glob("*.py")):
            if path.name != "sim.py":
                found.append((path, f"/lib/bega_protocols/devices/{driver}/{path.name}"))
    return found


async def put_on_flash(micropython: Path, flash: Path, contents: list[tuple[Path, str]]) -> None:
    """Make the flash if there is none, and bring its files up to date; the rest on it stays. Raises ConfigError."""
    if not flash.exists():
        flash.write_bytes(b"\xff" * FLASH_BYTES)
    elif flash.stat().st_size != FLASH_BYTES:
        raise ConfigError(f"{flash} is no flash of a board: it is not {FLASH_BYTES} bytes long")
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


def _firmware_folder(name: str) -> Path:
    """Return firmware/node or firmware/boards: in the wheel they lie in bega_firmware, in the source tree beside it."""
    package = Path(str(files("bega_firmware")))
    return package / name if (package / name).is_dir() else package.parent / name
