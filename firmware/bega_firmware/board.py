"""Board files (firmware/boards): the chip, its pins, and which device hangs where. Data, read and never run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bega_protocols.errors import ConfigError

MIB = 1 << 20
# Stock images of MicroPython (1.26 and later, ports/esp32/partitions-4MiBplus.csv) end at 2 MiB whatever the flash; the
# rest is the file system, and the chip finds out how much that is.
VFS_START = 2 * MIB
WORDS = {"NAME": str, "CHIP": str, "FLASH_MB": int, "BUSES": dict, "DEVICES": dict}


@dataclass(frozen=True)
class Board:
    """One board file."""

    key: str  # the file's name without .py
    name: str
    chip: str  # as esptool calls it
    flash_mb: int
    buses: dict[str, dict[str, Any]]
    devices: dict[str, dict[str, Any]]
    tables: dict[str, dict[str, Any]]  # every table of the file by its name, also those that are none of the above
    path: Path

    @property
    def vfs_bytes(self) -> int:
        """The size of its file system: all of the flash behind MicroPython."""
        return self.flash_mb * MIB - VFS_START


def board_names() -> list[str]:
    """Return the names of the boards that Bega knows."""
    return sorted(path.stem for path in firmware_folder("boards").glob("*.py"))


def read_board(key: str) -> Board:
    """Return the board called `key`; raises ConfigError if there is none, or its file is not what such a file is."""
    if key not in board_names():
        raise ConfigError(f"there is no board {key!r}; Bega knows {', '.join(board_names())}")
    path = firmware_folder("boards") / f"{key}.py"
    words = _constants(path)
    for word, kind in WORDS.items():
        if not isinstance(words.get(word), kind):
            raise ConfigError(f"{path}: {word} is missing, or no {kind.__name__}")
    if words["FLASH_MB"] * MIB <= VFS_START:
        raise ConfigError(f"{path}: FLASH_MB {words['FLASH_MB']} leaves no room behind MicroPython's 2 MiB")
    return Board(
        key=key,
        name=words["NAME"],
        chip=words["CHIP"],
        flash_mb=words["FLASH_MB"],
        buses=words["BUSES"],
        devices=words["DEVICES"],
        tables={word: value for word, value in words.items() if isinstance(value, dict)},
        path=path,
    )


def firmware_folder(name: str) -> Path:
    """Return firmware/`name`: in the wheel it lies in this package, in the source tree beside it."""
    package = Path(str(files("bega_firmware")))
    return package / name if (package / name).exists() else package.parent / name


def _constants(path: Path) -> dict[str, Any]:
    """Return {name: value} of what the file assigns; raises ConfigError if it does anything else."""
    found: dict[str, Any] = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # its docstring
        try:
            assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            found[statement.targets[0].id] = ast.literal_eval(statement.value)
        except (AssertionError, ValueError):
            raise ConfigError(f"{path}:{statement.lineno}: a board file only gives names to values") from None
    return found
