"""What can still be read of a damaged spool. The file itself stays as it is, for whoever can read more.

First as SQLite sees it: the rows by rising id, and where a page is bad, on from the next id that can be
read. What lies in such a hole, or in a file whose head is gone, is looked for page by page: each row carries
a check value, so a row that fits is a row of ours.

Spec: SQLite database file format, sections 1.6 "B-tree Pages", 2.1 "Record Format", 4.1 "WAL File Format".
"""

from __future__ import annotations

import contextlib
import mmap
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bega.outbox.spool_rows import Head, Row, crc_of_head, row_of
from bega_protocols.checks import crc32

PAGE_BYTES = 2048  # of a new file: a commit of few records writes whole pages
WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
TABLE_LEAF = 0x0D
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
    wal = path.with_name(path.name + "-wal")
    page_bytes = _page_bytes(path, wal)
    for part, first, skipped in ((path, 0, 0), (wal, WAL_HEADER_BYTES, FRAME_HEADER_BYTES)):
        for row in _rows_of_part(part, page_bytes, first, skipped):
            inside = any(low <= row.id <= high for low, high in salvage.holes)
            if inside and 0 < row.id < LARGEST_ID:
                yield row


def _page_bytes(path: Path, wal: Path) -> int:
    """Return the page size that the file's head gives, or its journal's; else that of a new file."""
    for part, begin, end in ((path, 16, 18), (wal, 8, 12)):
        with contextlib.suppress(OSError), part.open("rb") as file:
            size = int.from_bytes(file.read(end)[begin:], "big")
            if size in (1024, 2048, 4096, 8192):
                return size
    return PAGE_BYTES


def _rows_of_part(part: Path, page_bytes: int, first: int, skipped: int) -> Iterator[Row]:
    """Give the rows on the pages of one file; they begin at `first`, and `skipped` bytes stand before each."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(part.open("rb"))
            octets = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # not there, no file, or an empty one
            return
        for place in range(first + skipped, len(octets) - page_bytes + 1, page_bytes + skipped):
            yield from _rows_on_page(octets, place, page_bytes, in_file=not skipped)


def _rows_on_page(octets: mmap.mmap, place: int, page_bytes: int, *, in_file: bool) -> Iterator[Row]:
    """Give the rows of the table leaf at `place`, if there is one."""
    if octets[place] != TABLE_LEAF:
        return
    count = int.from_bytes(octets[place + 3 : place + 5], "big")
    for index in range(min(count, page_bytes // 4)):
        pointer = place + 8 + 2 * index
        cell = int.from_bytes(octets[pointer : pointer + 2], "big")
        with contextlib.suppress(ValueError, IndexError, UnicodeDecodeError):
            row = row_of(*_fields(octets, place, place + cell, page_bytes, in_file))
            if row:
                yield row


def _fields(octets: mmap.mmap, page: int, at: int, page_bytes: int, in_file: bool) -> tuple[object, ...]:
    """Return (id, topic, payload, crc, class) of the cell at `at`; raises ValueError if it is no such row."""
    size, at = _varint(octets, at)
    id_, at = _varint(octets, at)
    if not 0 < size < 2**24:
        raise ValueError("no row of ours")
    local = _local_bytes(size, page_bytes)
    if at + local > page + page_bytes:
        raise ValueError("runs out of its page")
    record = bytes(octets[at : at + local])
    if local < size:
        if not in_file:
            raise ValueError("its overflow pages are anywhere in the journal")
        record += _overflow(
            octets, int.from_bytes(octets[at + local : at + local + 4], "big"), size - local, page_bytes
        )
    header_bytes, place = _varint(record, 0)
    kinds = []
    while place < header_bytes:
        kind, place = _varint(record, place)
        kinds.append(kind)
    fields: list[object] = [id_]
    for kind in kinds[1:]:  # the first stands for the id
        value, place = _value(record, place, kind)
        fields.append(value)
    if len(fields) not in (4, 5):
        raise ValueError("another table's row")
    return (*fields, 0)[:5]


def _local_bytes(size: int, page_bytes: int) -> int:
    """Return how much of a record stands in its cell (section 1.6, table leaf)."""
    largest, least = page_bytes - 35, (page_bytes - 12) * 32 // 255 - 23
    if size <= largest:
        return size
    some = least + (size - least) % (page_bytes - 4)
    return some if some <= largest else least


def _overflow(octets: mmap.mmap, page: int, size: int, page_bytes: int) -> bytes:
    record = b""
    while page and len(record) < size:
        place = (page - 1) * page_bytes
        record += octets[place + 4 : place + page_bytes]
        page = int.from_bytes(octets[place : place + 4], "big")
    if len(record) < size:
        raise ValueError("its overflow pages are not here")
    return record[:size]


def _varint(octets: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """Return (value, where it ends)."""
    value = 0
    for _ in range(8):
        octet = octets[at]
        at += 1
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, at
    return value << 8 | octets[at], at + 1


def _value(record: bytes, at: int, kind: int) -> tuple[object, int]:
    """Return a column's value by its serial type (section 2.1): whole numbers, texts as bytes, blobs."""
    if kind >= 12:
        end = at + (kind - 12) // 2
        return record[at:end], end
    if kind in (8, 9):
        return kind - 8, at
    width = (0, 1, 2, 3, 4, 6, 8, 0, 0, 0, 0, 0)[kind]
    return int.from_bytes(record[at : at + width], "big", signed=True), at + width
