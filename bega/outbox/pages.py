"""The records that stand whole on any page of a SQLite file, or of its journal, whatever its head and its tree say.

For files that SQLite reads no more. What is read may be a page's past, or nobody's: whoever asks must be able to tell
a record of its own, by a check value or by its shape.

Spec: SQLite database file format, sections 1.6 "B-tree Pages", 2.1 "Record Format", 4.1 "WAL File Format".
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
# Kinds of page that hold records: where the places of their cells begin, and what stands before a record in its cell.
TABLE = {0x0D: (8, 0)}
INDEX = {0x0A: (8, 0), 0x02: (12, 4)}  # and a table without row ids
LARGEST_RECORD_BYTES = 1 << 24


def records_in(
    path: Path, usual_page_bytes: int, kinds: Mapping[int, tuple[int, int]] = TABLE
) -> Iterator[tuple[object, ...]]:
    """Give (row id, *columns) of each record of a TABLE, or (*columns) of each of an INDEX; some more than once.

    Texts are bytes. usual_page_bytes: of a file whose head is gone.
    """
    wal = path.with_name(path.name + "-wal")
    page_bytes = _page_bytes(path, wal, usual_page_bytes)
    for part, first, skipped in ((path, 0, 0), (wal, WAL_HEADER_BYTES, FRAME_HEADER_BYTES)):
        yield from _records_of_part(part, page_bytes, first, skipped, kinds)


def _page_bytes(path: Path, wal: Path, usual: int) -> int:
    """Return the page size that the file's head gives, or its journal's; else `usual`."""
    for part, begin, end in ((path, 16, 18), (wal, 8, 12)):
        with contextlib.suppress(OSError), part.open("rb") as file:
            size = int.from_bytes(file.read(end)[begin:], "big")
            if size in (1024, 2048, 4096, 8192):
                return size
    return usual


def _records_of_part(
    part: Path, page_bytes: int, first: int, skipped: int, kinds: Mapping[int, tuple[int, int]]
) -> Iterator[tuple[object, ...]]:
    """Give the records on the pages of one file; they begin at `first`, and `skipped` bytes stand before each."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(part.open("rb"))
            octets = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # not there, no file, or an empty one
            return
        for place in range(first + skipped, len(octets) - page_bytes + 1, page_bytes + skipped):
            if octets[place] in kinds:
                yield from _records_on_page(octets, place, page_bytes, *kinds[octets[place]], in_file=not skipped)


def _records_on_page(
    octets: mmap.mmap, place: int, page_bytes: int, head_bytes: int, skipped: int, *, in_file: bool
) -> Iterator[tuple[object, ...]]:
    """Give the records of the page at `place`."""
    count = int.from_bytes(octets[place + 3 : place + 5], "big")
    for index in range(min(count, page_bytes // 4)):
        pointer = place + head_bytes + 2 * index
        cell = int.from_bytes(octets[pointer : pointer + 2], "big")
        with contextlib.suppress(ValueError, IndexError):
            yield _fields(octets, place, place + cell + skipped, page_bytes, in_file)


def _fields(octets: mmap.mmap, page: int, at: int, page_bytes: int, in_file: bool) -> tuple[object, ...]:
    """Return the columns of the record at `at`, after its row id; raises ValueError or IndexError if it is none."""
    is_table = octets[page] in TABLE
    fields: list[object] = []
    size, at = _varint(octets, at)
    if is_table:
        id_, at = _varint(octets, at)
        fields.append(id_)
    if not 0 < size < LARGEST_RECORD_BYTES:
        raise ValueError("no record")
    local = _local_bytes(size, page_bytes, is_table)
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
    for kind in kinds:
        value, place = _value(record, place, kind)
        fields.append(value)
    return tuple(fields)


def _local_bytes(size: int, page_bytes: int, is_table: bool) -> int:
    """Return how much of a record stands in its cell (section 1.6)."""
    largest = page_bytes - 35 if is_table else (page_bytes - 12) * 64 // 255 - 23
    least = (page_bytes - 12) * 32 // 255 - 23
    if size <= largest:
        return size
    some = least + (size - least) % (page_bytes - 4)
    return some if some <= largest else least


def _overflow(octets: mmap.mmap, page: int, size: int, page_bytes: int) -> bytes:
    record = bytearray()
    while page and len(record) < size:
        place = (page - 1) * page_bytes
        record += octets[place + 4 : place + page_bytes]
        page = int.from_bytes(octets[place : place + 4], "big")
    if len(record) < size:
        raise ValueError("its overflow pages are not here")
    return bytes(record[:size])


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
    """Return a column's value by its serial type (section 2.1): whole numbers, texts as bytes, blobs; None is null."""
    if kind >= 12:
        end = at + (kind - 12) // 2
        return record[at:end], end
    if kind in (8, 9):
        return kind - 8, at
    width = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind]
    return int.from_bytes(record[at : at + width], "big", signed=True) if width else None, at + width
