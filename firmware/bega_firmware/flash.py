"""Interpreter and file system onto a board, in one pass, read back by hash: through its ROM, or its prompt.

What is on the board afterwards is the build and nothing else: its file system is written whole. Where no port line can
bring a board into its ROM (a pseudo-terminal, a plain socket) and it answers at its prompt, the files alone are put
there, and what the node stored stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bega_firmware.board import MIB, VFS_START
from bega_firmware.flash_files import board_at_prompt, put_files
from bega_firmware.image import make_image, read_image
from bega_firmware.interpreter_image import Interpreter
from bega_firmware.interpreters import kept_for, trusted
from bega_firmware.loader import FAST_BAUD, SAFE_BAUD, Chip, Progress, Way, ask, start, verify, write
from bega_firmware.network_port import in_rom
from bega_firmware.ports import has_lines, require_free, rom_answers, rom_word
from bega_protocols.errors import ConfigError

IMAGE, LIST, FILES = "vfs.bin", "contents.json", "files"
# The last two words of an ESP32's eFuse block 3, its user's, zeros from the factory: docs/virtual-board.md.
STATEMENT = {
    0x3FF5A090: int.from_bytes(b"BEGA", "little"),
    0x3FF5A094: int.from_bytes(b"-SIM", "little"),
}
ROM, PROMPT = "rom", "prompt"


@dataclass(frozen=True)
class FlashedBoard:
    """A board with the build on it."""

    chip: str
    mac: str
    flash_mb: int
    is_virtual: bool  # it brings its interpreter
    interpreter: str = ""  # what was written, '' if none was
    by: str = ROM  # or PROMPT


@dataclass(frozen=True)
class Build:
    """What `bega node build` made."""

    folder: Path
    facts: dict[str, Any]

    @property
    def image(self) -> Path:
        """The file system."""
        return self.folder / IMAGE

    @property
    def target(self) -> str:
        """Chip and board in words."""
        return f"{self.facts['name']} ({self.facts['chip']})"


def flash(
    port: str, build_folder: Path, interpreter: Path | None, progress: Progress, by: str | None = None
) -> FlashedBoard:
    """Write the build in `build_folder` onto the board at `port`, and return what board it is.

    interpreter: its image; None: the newest for the chip that was added (`bega node interpreter add`), or none for a
    virtual board, which brings its own; by: PROMPT for the files alone, so that a node keeps its identity and what it
    stored. A second run finishes what a pulled plug left. Raises ConfigError.
    """
    build = read_build(build_folder)
    chosen = None if interpreter is None else (interpreter, trusted(interpreter))
    require_free(port)
    progress("asking", 0, 0)
    if by == PROMPT or (not has_lines(port) and not rom_answers(port)):
        board, files = put_files(port, _files(build), lambda chip: require_fits(port, build, chip), progress)
        return FlashedBoard(board.chip, board.mac, board.flash_mb, is_virtual=files.is_virtual, by=PROMPT)
    with _reached(port) as way, tempfile.TemporaryDirectory(prefix="bega-flash-") as place:
        board = ask(way)
        require_fits(port, build, board)
        is_virtual = _is_virtual(way, board)
        if is_virtual:
            chosen = None
        elif chosen is None:
            kept = kept_for(board.chip)
            chosen = (kept, trusted(kept))
        parts = _parts(port, build, board, chosen, Path(place))
        _write(way, parts, progress)
        progress("verifying", 0, 0)
        verify(way, parts)
        if way.opened == port and not way.has_lines:
            start(way)
    return FlashedBoard(board.chip, board.mac, board.flash_mb, is_virtual, chosen[1].name if chosen else "")


def board_at(port: str) -> Chip:
    """Return what board is at `port`, as esptool calls its chip. Raises ConfigError."""
    require_free(port)
    if not has_lines(port) and not rom_answers(port):
        return board_at_prompt(port)
    with _reached(port) as way:
        return ask(way)


def read_build(folder: Path) -> Build:
    """Return the build in `folder`, once it proved whole. Raises ConfigError."""
    try:
        facts = json.loads((folder / LIST).read_text(encoding="utf-8"))
        image = (folder / IMAGE).read_bytes()
        wanted = (facts["image"]["sha256"], facts["image"]["at"], facts["chip"], facts["flash_mb"], facts["name"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder} is no finished build: `bega node build --board BOARD --out {folder}`") from None
    if hashlib.sha256(image).hexdigest() != wanted[0] or wanted[1] != VFS_START:
        raise ConfigError(f"{folder / IMAGE} is not what {LIST} beside it says: build it again")
    return Build(folder, facts)


def require_fits(port: str, build: Build, board: Chip) -> None:
    """Raise ConfigError if the build is for another kind of board."""
    if board.chip != build.facts["chip"]:
        raise ConfigError(
            f"the board at {port} has an {board.chip}, and this build is for {build.target}: take the other board, or"
            " build for this one"
        )
    if board.flash_mb < build.facts["flash_mb"]:
        raise ConfigError(
            f"the board at {port} has {board.flash_mb} MB of flash, and its board file says"
            f" {build.facts['flash_mb']} MB: take another board, or a board file with FLASH_MB {board.flash_mb}"
        )


def _files(build: Build) -> dict[str, bytes]:
    """Return the files by their path on the board. Raises ConfigError if one is not the listed one."""
    found = {}
    for file in build.facts["files"]:
        path = build.folder / FILES / file["path"].lstrip("/")
        try:
            found[file["path"]] = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}): build it again") from None
        if hashlib.sha256(found[file["path"]]).hexdigest() != file["sha256"]:
            raise ConfigError(f"{path} is not what {LIST} says: build it again")
    return found


@contextlib.contextmanager
def _reached(port: str) -> Iterator[Way]:
    """Give esptool's way to the board."""
    if port.startswith("rfc2217://"):
        with in_rom(port) as opened:
            yield Way(port, opened, has_lines=False)
    else:
        yield Way(port, port, has_lines(port), FAST_BAUD if has_lines(port) else SAFE_BAUD)


def _is_virtual(way: Way, board: Chip) -> bool:
    """Return whether the board says that it brings its interpreter. No virtual one is on USB: a chip is not asked."""
    if way.has_lines or board.chip != "esp32":
        return False
    return [rom_word(way.opened, address) for address in STATEMENT] == list(STATEMENT.values())


def _parts(
    port: str, build: Build, board: Chip, chosen: tuple[Path, Interpreter] | None, place: Path
) -> list[tuple[int, Path]]:
    """Return what is written where. Raises ConfigError if it does not fit together."""
    room, parts = board.flash_mb * MIB - VFS_START, []
    if chosen is not None:
        path, interpreter = chosen
        if interpreter.chip != board.chip:
            raise ConfigError(
                f"{path} is for an {interpreter.chip}, and the board at {port} has an {board.chip}: take the image for"
                " that"
            )
        room = interpreter.vfs_bytes or room
        parts.append((interpreter.start, path))
    if room > board.flash_mb * MIB - VFS_START:
        raise ConfigError(
            f"this interpreter wants a file system of {room // MIB} MB behind its 2, and the flash of the board at"
            f" {port} has {board.flash_mb} MB: take the image for that size"
        )
    image = build.image
    if image.stat().st_size != room:
        # littlefs mounts only what is as large as its partition.
        image = place / IMAGE
        image.write_bytes(make_image(read_image(build.image.read_bytes()), room))
    return [*parts, (VFS_START, image)]


def _write(way: Way, parts: list[tuple[int, Path]], progress: Progress) -> None:
    """Write, a second time at the slow rate if a converter or a cable did not keep up with the fast one."""
    try:
        write(way, parts, progress)
    except ConfigError:
        if way.baud == SAFE_BAUD:
            raise
        write(Way(way.port, way.opened, way.has_lines), parts, progress)
