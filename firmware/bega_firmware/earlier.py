"""Builds that were made before: the same sources give the same bytes, so they need not be made again."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Collection
from importlib.resources import files
from pathlib import Path

from bega import __version__
from bega_firmware.board import firmware_folder

KEPT = 16
PART = ".part"


def key_of(board: str, devices: Collection[str], ways: Collection[str], compiler: str) -> str:
    """Return a name for what these give: another one whenever a source, or what builds from it, is another."""
    whole = hashlib.sha256(repr((__version__, board, sorted(devices), sorted(ways), compiler)).encode())
    for folder in (
        Path(str(files("bega_protocols"))),
        Path(str(files("bega_firmware"))),
        firmware_folder("node"),
        firmware_folder("boards"),
    ):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
            whole.update(f"{path.relative_to(folder)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:32]


def made_before(kept: Path, key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder in `kept` with what make(folder) writes; it is made now if it was not kept there before."""
    found = kept / key
    if not found.is_dir():
        part = kept / f"{key}.{secrets.token_hex(4)}{PART}"
        part.mkdir(parents=True)
        try:
            make(part)
            part.rename(found)
        except OSError:
            if not found.is_dir():  # somebody else may have kept the same in the meantime
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _forget_oldest(kept)
    os.utime(found)
    return found


def _forget_oldest(kept: Path) -> None:
    """Whoever copies from one meanwhile took one of the newest: it was touched first."""
    builds = [path for path in kept.iterdir() if path.suffix != PART]
    for path in sorted(builds, key=_touched)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0  # another build has forgotten it just now
