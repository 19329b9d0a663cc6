"""A build's files onto a board that answers at its prompt and cannot be brought into its ROM: slower, and said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bega_firmware.cable import Cable, CableError
from bega_firmware.contents import SLOT_FACTS
from bega_firmware.interpreter_image import OLDEST
from bega_firmware.loader import Chip, Progress
from bega_protocols.errors import ConfigError

STARTED = "/main.py"  # put last: what starts by itself finds the rest there
# docs/decisions/063: a slot with its facts is whole; without a choice the first whole one is taken.
CHOICE = "/state/slot"
# In one line each: what a board is. Only an ESP32 has esp32.Partition, only a virtual one VIRTUAL_BOARD.
QUESTION = """
import sys, machine, binascii, esp32
print(getattr(esp32, "VIRTUAL_BOARD", ""))
print(getattr(sys.implementation, "_machine", ""))
print(*sys.implementation.version[:3])
print(binascii.hexlify(machine.unique_id()).decode())
place = esp32.Partition.find(esp32.Partition.TYPE_DATA, label="vfs")[0].info()
print(place[2] + place[3])
"""
VIRTUAL_CHIP = "esp32"


@dataclass(frozen=True)
class Files:
    """What was done."""

    is_virtual: bool
    written: int  # files that were not there, or otherwise


def board_at_prompt(port: str) -> Chip:
    """Return what board answers at its prompt; its program starts again. Raises ConfigError."""
    with Cable(port) as cable:
        return _ask(cable)[0]


def put_files(
    port: str, files: Mapping[str, bytes], check: Callable[[Chip], None], progress: Progress
) -> tuple[Chip, Files]:
    """Have these files on the board, and nothing else of an earlier build; check(board) raises if it is the wrong one.

    A file that is there already is not sent again. Where there is no file system, or one that fails, a fresh one is
    made: flashing is what the technician asked for. Raises ConfigError.
    """
    with Cable(port) as cable:
        board, is_virtual = _ask(cable)
        check(board)
        try:
            written = _bring(cable, files, progress)
        except CableError as error:
            if not error.traceback:
                raise  # the cable, not the file system
            progress("formatting", 0, 0)
            cable.make_file_system()
            written = _bring(cable, files, progress)
        progress("verifying", 0, 0)
        wrong = [path for path in files if cable.hash_of(path) != hashlib.sha256(files[path]).hexdigest()]
        if wrong:
            raise ConfigError(f"{wrong[0]} on the board at {port} is not what was written: run the same command again")
        return board, Files(is_virtual, written)


def _bring(cable: Cable, files: Mapping[str, bytes], progress: Progress) -> int:
    """Bring them; return how many were not there. A slot counts as whole by its facts: first away, last back."""
    there = cable.listing()
    missing = {path for path in files if not _is_there(cable, there, path, files[path])}
    if missing:
        missing |= {path for path in files if path.endswith(SLOT_FACTS)}
    tops = {path.split("/")[1] for path in files if path.count("/") > 1}
    stale = {path for path in there if path not in files and _is_of_a_build(path, tops)}
    away = sorted((missing | stale) & set(there), key=lambda path: not path.endswith(SLOT_FACTS))
    cable.remove(CHOICE, *[path for path in away if path in stale or path.endswith(SLOT_FACTS)])
    whole = sum(map(len, files.values()))
    done = whole - sum(len(files[path]) for path in missing)
    for path in sorted(missing, key=lambda path: (path == STARTED, path.endswith(SLOT_FACTS), path)):
        progress("writing", done, whole)
        cable.put(path, files[path])
        done += len(files[path])
    progress("writing", whole, whole)
    return len(missing)


def _is_there(cable: Cable, there: Mapping[str, int], path: str, content: bytes) -> bool:
    return there.get(path) == len(content) and cable.hash_of(path) == hashlib.sha256(content).hexdigest()


def _is_of_a_build(path: str, tops: set[str]) -> bool:
    """Return whether a file would stand in the way of the new ones; what a node stored and was told never does."""
    folder, _, rest = path[1:].partition("/")
    return folder in tops if rest else path.endswith((".mpy", ".py~"))


def _ask(cable: Cable) -> tuple[Chip, bool]:
    rows = cable.run(QUESTION).splitlines()
    try:
        statement, machine, release, mac, end = rows
        version = tuple(map(int, release.split()))
        octets = bytes.fromhex(mac).hex(":")
        size = int(end) >> 20
    except ValueError:
        raise ConfigError(f"what answers at {cable.port} is no ESP32 with MicroPython: flash it by its ROM") from None
    if version < OLDEST:
        raise ConfigError(
            f"the interpreter on the board at {cable.port} is MicroPython {'.'.join(release.split())}, too old: its ROM"
            " takes a newer one, over a port with DTR and RTS (USB)"
        )
    chip = VIRTUAL_CHIP if statement else machine.rpartition(" ")[2].lower().replace("-", "")
    return Chip(chip, octets, size), bool(statement)
