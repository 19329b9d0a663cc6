"""What can still be read of a damaged spool. The file itself stays as it is, for whoever can read more.

First as SQLite sees it: the rows by rising id, and where a page is bad, on from the next id that can be
read. What lies in such a hole, or in a file whose head is gone, is looked for page by page (pages.py): each row
carries a check value, so a row that fits is a row of ours.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bega.outbox.pages import records_in
from bega.outbox.spool_rows import Head, Row, crc_of_head, row_of
from bega_protocols.checks import crc32

PAGE_BYTES = 2048  # of a new file: a commit of few records writes whole pages
SLICE_ROWS = 500
LARGEST_ID = 2**53  # an id beyond is a flipped bit
COLUMNS = "id, CAST(topic AS BLOB), payload, crc, {storage_class} FROM outbox"


@dataclass
class Salvage:
    """What was saved, and at most how many messages were not; None if nobody can say."""

    heads: list[Head] = field(default_factory=list)
    states: dict[str, bytes] = field(default_factory=dict)
    holes: list[tuple[int, int]] = field(default_factory=list)  # ids, both ends included, that SQLite could not read
    readable: bool = False  # by SQLite at all


def rows_in(path: Path, salvage: Salvage) -> Iterator[Row]:
    """Give each whole message in the damaged spool at `path`; `salvage` is filled on the way.

    What stands on two pages comes twice, the better one first: to know all ids would cost 270 MB for a full spool.
    """
    try:
        if not path.stat().st_size:
            raise OSError("empty")  # SQLite would delete its journal, to read the better
        with contextlib.closing(open_read_only(path)) as database:
            _read_beside(database, salvage)
            yield from _walk(database, salvage)
            salvage.readable = True
    except (sqlite3.Error, UnicodeDecodeError, OSError):
        salvage.holes = [(1, LARGEST_ID)]
    if salvage.holes:
        yield from _rows_on_pages(path, salvage)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open the file and its WAL without a change to either, and without a file beside them."""
    wal = path.with_name(path.name + "-wal")
    journal = wal.exists() and wal.stat().st_size
    mode = "mode=ro" if journal else "mode=ro&immutable=1"  # where none lies, SQLite would make one, and may not
    database = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, check_same_thread=False)
    database.isolation_level = None
    database.execute("PRAGMA locking_mode = EXCLUSIVE")  # so that no -shm is asked for
    return database


def heads_in(database: sqlite3.Connection) -> list[Head]:
    """Return the heads whose check value fits."""
    rows = database.execute("SELECT CAST(source AS BLOB), boot, seq, crc FROM head ORDER BY source, boot")
    found = [(source.decode("utf-8", "replace"), boot, seq, crc) for source, boot, seq, crc in rows]
    return [Head(source, boot, seq) for source, boot, seq, crc in found if crc == crc_of_head(source, boot, seq)]


def states_in(database: sqlite3.Connection) -> dict[str, bytes]:
    """Return the driver states whose check value fits."""
    rows = database.execute("SELECT CAST(device AS BLOB), state, crc FROM driver_state")
    return {
        device.decode("utf-8", "replace"): state
        for device, state, crc in rows
        if isinstance(state, bytes) and crc == crc32(state, crc32(device))
    }


def _read_beside(database: sqlite3.Connection, salvage: Salvage) -> None:
    with contextlib.suppress(sqlite3.Error):
        salvage.heads = heads_in(database)
    with contextlib.suppress(sqlite3.Error):
        salvage.states = states_in(database)


def _walk(database: sqlite3.Connection, salvage: Salvage) -> Iterator[Row]:
    has_class = any(row[1] == "class" for row in database.execute("PRAGMA table_info(outbox)"))
    columns = COLUMNS.format(storage_class="class" if has_class else "0")
    select = f"SELECT {columns} WHERE id > ? ORDER BY id LIMIT ?"

    def slice_after(id_: int, limit: int) -> list[tuple[object, ...]] | None:
        try:
            return database.execute(select, (id_, limit)).fetchall()
        except (sqlite3.Error, OverflowError):
            return None

    after = 0
    while True:
        found = slice_after(after, SLICE_ROWS) or slice_after(after, 1)
        if found:
            for fields in found:
                row = row_of(*fields)
                if row and row.id < LARGEST_ID:
                    yield row
            newest = found[-1][0]
            if isinstance(newest, int) and newest > after:
                after = newest
                continue
            found = None  # a tree whose ids do not rise: what lies behind is looked for on the pages
        if found == []:
            return
        beyond = _readable_after(after, lambda id_: slice_after(id_, 1) is not None)
        salvage.holes.append((after + 1, beyond))
        if beyond >= LARGEST_ID:
            return
        after = beyond


def _readable_after(after: int, reads: Callable[[int], bool]) -> int:
    """Return the smallest id behind which SQLite reads again; the tree's bad page ends there."""
    step = 1
    while not reads(after + step) and after + step < LARGEST_ID:
        step *= 2
    low, high = after + step // 2, min(after + step, LARGEST_ID)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reads(middle) else (middle, high)
    return high


def _rows_on_pages(path: Path, salvage: Salvage) -> Iterator[Row]:
    """Give the rows within the holes that stand whole on any page of the file or of its WAL, some more than once."""
    for id_, _, *fields in (record for record in records_in(path, PAGE_BYTES) if len(record) in (5, 6)):
        with contextlib.suppress(UnicodeDecodeError):
            row = row_of(*(id_, *fields, 0)[:5])
            if row and 0 < row.id < LARGEST_ID and any(low <= row.id <= high for low, high in salvage.holes):
                yield row
