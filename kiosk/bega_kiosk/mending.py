"""Files of reports that no damage stops: what can still be read of one goes to a new file, the damaged one goes aside.

Whoever uses such a file holds it; whoever mends it holds it alone, so that nobody writes to the one that goes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bega.outbox.aside import (
    drop_new,
    finish_change,
    is_damage,
    is_marked_read_only,
    new_file,
    put_aside,
    remove_old,
    require_own_file,
)
from bega.outbox.pages import TABLE, records_in
from bega.outbox.spool_salvage import open_read_only
from bega_kiosk.private import require_private
from bega_kiosk.report import read_sent
from bega_protocols.errors import WireError

log = logging.getLogger("bega.kiosk.mending")

PAGE_BYTES = 4096  # SQLite's own choice
ASIDE_KEPT_MS = 30 * 86_400_000  # citizens are named in a damaged file too
LOOKS, LOOK_EVERY_S = 100, 0.05  # for as long is waited until nobody else holds a file


class Shape(NamedTuple):
    """What a file of one kind holds."""

    schema: str
    tables: Mapping[str, str]  # what must be there: the columns of each; a file without the first is another program's
    messages: str  # selects the bytes of every report: each is whole, or the file is damaged
    carry_over: Callable[[Path, sqlite3.Connection], int]  # from a damaged file to an empty one; how many reports


def is_fault_of_file(error: sqlite3.Error) -> bool:
    """Return whether its bytes are damaged, or its tables are others; neither the disk nor who holds it is at fault."""
    return is_damage(error) or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the file together with others; a disk that takes nothing has no locks, and nobody who mends."""
    with _lock(path, fcntl.LOCK_SH):
        yield


def require_sound(path: Path, shape: Shape) -> None:
    """See that the file is whole, or mend it; one that is not there is whole.

    Raises sqlite3.OperationalError or OSError if the disk is at fault, or somebody holds the damaged file.
    """
    with _lock(path, fcntl.LOCK_SH):
        if not new_file(path).exists() and _damage(path, shape) is None:
            return
    with _lock(path, fcntl.LOCK_EX):
        finish_change(path)
        why = _damage(path, shape)  # another process may have mended it meanwhile
        if why is not None:
            _mend(path, shape, why)


def drop_old_asides(path: Path, now_ms: int) -> None:
    """Delete damaged files that were put beside `path` more than a month ago; by a clock never set none was."""
    for aside in path.parent.glob(path.name + ".damaged*"):
        with suppress(OSError):
            if now_ms - aside.stat().st_ctime_ns // 1_000_000 > ASIDE_KEPT_MS:
                aside.unlink()
                log.info("damaged reports deleted after a month file=%s", aside)


def rows_in(path: Path, select: str) -> Iterator[tuple[object, ...]]:
    """Give the rows of a damaged file as far as SQLite reads them."""
    with suppress(sqlite3.Error, OSError, UnicodeDecodeError):
        if path.stat().st_size:  # of an empty one SQLite would delete the journal, to read the better
            with closing(open_read_only(path)) as file:
                yield from file.execute(select)


def records_on_pages(
    path: Path, columns: int, kinds: dict[int, tuple[int, int]] = TABLE
) -> Iterator[tuple[object, ...]]:
    """Give the records of so many columns that stand whole on any page of a damaged file."""
    return (record for record in records_in(path, PAGE_BYTES, kinds) if len(record) == columns)


def _damage(path: Path, shape: Shape) -> str | None:
    """Return what is wrong with the file's bytes, None if nothing is."""
    try:
        require_own_file(path)
        if not path.exists() or not path.stat().st_size:
            return None
        with closing(sqlite3.connect(path, timeout=2.0)) as file:
            if (said := file.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                return str(said)
            names = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if names and next(iter(shape.tables)) not in names:
                return "a file of another program"
            file.executescript(shape.schema)
            for table, columns in shape.tables.items():
                file.execute(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608 -- our own words
            for (message,) in file.execute(shape.messages):
                read_sent(message)
    except (sqlite3.Error, UnicodeDecodeError, WireError, TypeError) as error:  # TypeError: no bytes
        if isinstance(error, sqlite3.Error) and not is_fault_of_file(error) and not is_marked_read_only(path):
            raise
        return str(error)
    return None


def _mend(path: Path, shape: Shape, why: str) -> None:
    """Carry over to a new file what can be read, and put that in the place of the damaged one."""
    drop_new(path)
    new = new_file(path)
    require_private(new)
    with closing(sqlite3.connect(new)) as file:
        file.execute("PRAGMA synchronous=FULL")
        file.executescript(shape.schema)
        with file:
            saved = shape.carry_over(path, file)
    aside = put_aside(path)
    log.error("reports damaged, set aside and begun anew file=%s saved=%d error=%s", aside, saved, why)
    remove_old(path)


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[None]:
    """Hold a file beside `path`: SQLite's own locks end when anybody in the process closes its file."""
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        if kind == fcntl.LOCK_EX:
            raise
        yield
        return
    try:
        _wait_for(lock, kind)
        yield
    finally:
        os.close(lock)


def _wait_for(lock: int, kind: int) -> None:
    for _ in range(LOOKS):
        with suppress(BlockingIOError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        time.sleep(LOOK_EVERY_S)
    raise BlockingIOError("another process holds it: end that first")
