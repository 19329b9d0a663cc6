"""What damage to a SQLite file is; and how a damaged one goes aside, under its name and `.damaged-N`, with its journal.

The one that takes its place is made under the name and `.new`. A power cut on the way leaves the damaged one where it
was, or a new one that is whole: `finish_change` at the next start makes an end of it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

log = logging.getLogger(__name__)

NEW = ".new"
KEPT_ASIDE = 3  # damaged files; each may be as large as the one in use
BESIDE = ("-wal", "-shm", "-journal")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the file is at fault, and neither the disk nor another program that holds it."""
    return type(error) is sqlite3.DatabaseError  # its children have other reasons


def require_own_file(path: Path) -> None:
    """Raise DatabaseError where SQLite would go on without a word, and lose what there is."""
    wal = path.with_name(path.name + "-wal")
    if path.is_dir():
        raise sqlite3.DatabaseError("a directory is in its place")
    if wal.exists() and wal.stat().st_size and not (path.exists() and path.stat().st_size):
        raise sqlite3.DatabaseError("its journal is there, the file is not")


def is_marked_read_only(path: Path) -> bool:
    """Return whether a flipped bit in the header (bytes 18 and 19, section 1.3.3) keeps SQLite from writing."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return False
    return len(header) == 20 and not set(header[18:20]) <= {1, 2}


def new_file(path: Path) -> Path:
    """Return where the file that will stand in the place of `path` is made."""
    return path.with_name(path.name + NEW)


def put_aside(path: Path) -> Path:
    """Put the new file in the place of the one at `path`; return where that one is now. Raises OSError."""
    aside = path.with_name(f"{path.name}.damaged-{max(_numbers(path), default=0) + 1}")
    if path.exists():
        path.rename(aside)
    finish_change(path)
    return aside


def finish_change(path: Path) -> None:
    """If the damaged file is out of its place, put the new one there; if not, the new one may be half written."""
    new = new_file(path)
    if not new.exists():
        return
    if path.exists():
        drop_new(path)
        return
    aside = path.with_name(f"{path.name}.damaged-{max(_numbers(path), default=1)}")
    for suffix in BESIDE:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    new.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_new(path: Path) -> None:
    """Remove what was begun of a new file."""
    new = new_file(path)
    for suffix in ("", "-journal"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)


def files_aside(path: Path) -> list[Path]:
    """Return the damaged files beside `path`, the oldest first."""
    return [path.with_name(f"{path.name}.damaged-{number}") for number in _numbers(path)]


def remove_old(path: Path) -> None:
    """Remove all but the last few damaged files."""
    for aside in files_aside(path)[:-KEPT_ASIDE]:
        for suffix in ("", *BESIDE):
            old = aside.with_name(aside.name + suffix)
            if old.is_file():
                old.unlink()
                log.warning("file damaged long ago is removed file=%s", old)


def _numbers(path: Path) -> list[int]:
    """Return the N of each `.damaged-N` beside `path`."""
    ends = [other.name.removeprefix(path.name + ".damaged-") for other in path.parent.glob(path.name + ".damaged-*")]
    return sorted(int(end) for end in ends if end.isdecimal())
