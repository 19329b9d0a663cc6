"""Opening a spool's file, whatever lies in its place: the gateway starts with what it finds.

What is damaged is set aside under its name and `.damaged-N`, and all that can be read of it is carried over.
A disk that takes nothing gives a file that can only be read, until it does.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bega.outbox.aside import (
    drop_new,
    finish_change,
    is_marked_read_only,
    new_file,
    put_aside,
    remove_old,
    require_own_file,
)
from bega.outbox.pages import FRAME_HEADER_BYTES, WAL_HEADER_BYTES
from bega.outbox.spool_rows import CLASSES, Head, Row, StorageClass, crc_of, crc_of_head
from bega.outbox.spool_salvage import (
    PAGE_BYTES,
    SLICE_ROWS,
    Salvage,
    heads_in,
    open_read_only,
    rows_in,
    states_in,
)
from bega_protocols.checks import crc32

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,
    crc INTEGER NOT NULL, class INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS aside (id INTEGER PRIMARY KEY, reason TEXT NOT NULL, topic, payload, crc);
CREATE TABLE IF NOT EXISTS head (source TEXT, boot INTEGER, seq INTEGER NOT NULL, crc INTEGER NOT NULL DEFAULT -1,
    PRIMARY KEY (source, boot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS driver_state (device TEXT PRIMARY KEY, state BLOB NOT NULL,
    crc INTEGER NOT NULL DEFAULT -1) WITHOUT ROWID;
"""
INSERT_MESSAGE = "INSERT INTO outbox (id, topic, payload, crc, class) VALUES (?, ?, ?, ?, ?)"
INSERT_IF_NEW = INSERT_MESSAGE.replace("INSERT", "INSERT OR IGNORE")
INSERT_HEAD = (
    "INSERT INTO head (source, boot, seq, crc) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET seq = excluded.seq, crc = excluded.crc WHERE excluded.seq > seq"
)
INSERT_STATE = "REPLACE INTO driver_state (device, state, crc) VALUES (?, ?, ?)"
JOURNAL_PAGES = 1000  # 2 MB
# A larger file would be checked for minutes at each start: there `_read_through` finds bad pages, and check values
# guard the rows.
CHECKED_BYTES = 64_000_000
CHANGED = "its bytes changed on the card"
DISK_FAULTS = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Opened(NamedTuple):
    """An open spool, with what every start reads of it: damage in that shows while it can still be set aside."""

    database: sqlite3.Connection
    writable: bool
    rows: int
    last_id: int  # the largest that was ever stored
    heads: dict[tuple[str, int], int]  # {(source, boot): seq}
    states: dict[str, bytes]  # what each driver asked to keep


def open_spool(path: Path) -> Opened:
    """Return the spool at `path`, made where there is none; one that can only be read where the disk takes nothing.

    Raises sqlite3.OperationalError if the place cannot be used at all: no directory, no permission.
    """
    try:
        return _open_or_set_aside(path)
    except (sqlite3.OperationalError, OSError) as error:
        fault = _disk_fault(path)
        if fault is None:
            raise sqlite3.OperationalError(str(error)) from None
        return substitute(path)


def message_fields(
    id_: int, topic: str, payload: bytes, storage_class: StorageClass
) -> tuple[int, str, bytes, int, int]:
    """Return what INSERT_MESSAGE takes."""
    return id_, topic, payload, crc_of(topic.encode(), payload), CLASSES.index(storage_class)


def head_fields(head: Head) -> tuple[str, int, int, int]:
    """Return what INSERT_HEAD takes."""
    return (*head, crc_of_head(*head))


def state_fields(device: str, state: bytes) -> tuple[str, bytes, int]:
    """Return what INSERT_STATE takes."""
    return device, state, crc32(state, crc32(device.encode()))


def set_aside(path: Path, why: object) -> None:
    """Carry over to a new file what can be read of a damaged one, then put the new one in its place.

    A power cut on the way leaves the damaged one where it was, or a new one that is whole (`finish_change`).
    Raises OSError or sqlite3.OperationalError if the disk takes nothing.
    """
    drop_new(path)
    salvage = Salvage()
    saved, lost = _carry_over(new_file(path), rows_in(path, salvage), salvage)
    aside = put_aside(path)
    log.error(
        "spool damaged, set aside and begun anew file=%s saved=%d lost<=%s error=%s",
        aside, saved, "unknown" if lost is None else lost, why,
    )  # fmt: skip
    remove_old(path)


def _carry_over(new: Path, rows: Iterator[Row], salvage: Salvage) -> tuple[int, int | None]:
    """Store what was saved under the ids that it had; return how many messages, and at most how many were lost.

    A disk without room for a second file gets what it can hold; the damaged one keeps the rest.
    """
    saved, first, last, whole = 0, 0, 0, True
    database = sqlite3.connect(new, isolation_level=None)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = MEMORY")  # a new file that is not whole is thrown away
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(SCHEMA)
        try:
            while some := list(islice(rows, SLICE_ROWS)):
                saved += _put_in(database, INSERT_IF_NEW, [message_fields(*row) for row in some])
                ids = [row.id for row in some]
                first, last = min([*ids, first or ids[0]]), max([*ids, last])
            _put_in(database, INSERT_HEAD, [head_fields(head) for head in salvage.heads])
            _put_in(database, INSERT_STATE, [state_fields(*state) for state in salvage.states.items()])
        except sqlite3.OperationalError as error:
            whole = False
            log.error("not all that could be read of the damaged spool finds room saved=%d error=%s", saved, error)
    finally:
        database.close()
    descriptor = os.open(new, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    known = whole and salvage.readable and saved and not any(high > last for _, high in salvage.holes)
    return saved, last - first + 1 - saved if known else None


def _put_in(database: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Store `rows`; return how many of them are new."""
    before = database.total_changes
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(statement, rows)
    return database.total_changes - before


def _open_or_set_aside(path: Path) -> Opened:
    try:
        finish_change(path)
        require_own_file(path)
        return _open(path)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError) and not is_marked_read_only(path):
            raise  # no permission, no directory, a full disk: not the file's fault
        set_aside(path, error)
        return _open(path)


def _open(path: Path) -> Opened:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _require_sound(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(SCHEMA)
        _bring_up_to_date(database)
        _require_columns(database)
        database.execute(f"PRAGMA wal_autocheckpoint = {JOURNAL_PAGES}").fetchone()
        _lay_out_journal(path.with_name(path.name + "-wal"), database.execute("PRAGMA page_size").fetchone()[0])
        return _read_through(database, writable=True)
    except sqlite3.OperationalError as error:
        database.close()
        # A flipped bit in the name of a column: what we ask for is not there, or no text. Nothing else has this code.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_ERROR:
            raise sqlite3.DatabaseError(f"the tables are not ours: {error}") from None
        raise
    except BaseException:
        database.close()
        raise


def _read_through(database: sqlite3.Connection, *, writable: bool) -> Opened:
    """Read what a start needs; raises DatabaseError where a page of that is bad, however large the file."""
    rows = database.execute("SELECT count(*) FROM outbox").fetchone()[0]
    ids = "SELECT max(coalesce((SELECT max(id) FROM outbox), 0), coalesce((SELECT max(id) FROM aside), 0))"
    last_id = database.execute(ids).fetchone()[0]
    heads = {head.key: head.seq for head in heads_in(database)}
    return Opened(database, writable, rows, last_id, heads, states_in(database))


def _lay_out_journal(wal: Path, page_bytes: int) -> None:
    """Give the journal its whole length at once.

    A file that grows with each commit costs ext4 twice the bytes of the commit itself, for inode and block maps.
    And on a disk that is full later, the journal still takes the deletes that empty the spool.
    """
    whole = WAL_HEADER_BYTES + JOURNAL_PAGES * (FRAME_HEADER_BYTES + page_bytes)
    try:
        missing = whole - wal.stat().st_size
        with wal.open("ab") as file:
            file.write(bytes(max(0, missing)))  # SQLite reads a journal up to the first frame that does not fit
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        log.info("spool's journal grows as it goes error=%s", error.strerror)


def _require_sound(database: sqlite3.Connection, path: Path) -> None:
    names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if names and "outbox" not in names:
        raise sqlite3.DatabaseError("a file of another program")
    if path.stat().st_size > CHECKED_BYTES:
        return
    if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("quick_check found damage")


def _bring_up_to_date(database: sqlite3.Connection) -> None:
    """Give a file of an earlier release the columns and tables of this one."""
    database.execute("BEGIN IMMEDIATE")
    database.execute("DELETE FROM outbox WHERE id < 0")  # a file that can only be read says so here, and not before
    if "class" not in _columns(database, "outbox"):
        database.execute("ALTER TABLE outbox ADD COLUMN class INTEGER NOT NULL DEFAULT 0")
    if "crc" not in _columns(database, "head"):
        database.execute("ALTER TABLE head ADD COLUMN crc INTEGER NOT NULL DEFAULT -1")
        for source, boot, seq in database.execute("SELECT source, boot, seq FROM head").fetchall():
            crc = crc_of_head(source, boot, seq)
            database.execute("UPDATE head SET crc = ? WHERE source = ? AND boot = ?", (crc, source, boot))
    if "crc" not in _columns(database, "driver_state"):
        database.execute("ALTER TABLE driver_state ADD COLUMN crc INTEGER NOT NULL DEFAULT -1")
        states = database.execute("SELECT device, state FROM driver_state").fetchall()
        database.executemany(INSERT_STATE, [state_fields(*state) for state in states])
    if _columns(database, "damaged"):
        database.execute(
            "REPLACE INTO aside (id, reason, topic, payload, crc) SELECT id, ?, topic, payload, crc FROM damaged",
            (CHANGED,),
        )
        database.execute("DROP TABLE damaged")
    _drop_changed_heads(database)
    database.execute("COMMIT")


def _drop_changed_heads(database: sqlite3.Connection) -> None:
    """Delete heads that changed on the card: the node says at its next connection what it still holds."""
    heads = database.execute("SELECT CAST(source AS BLOB), boot, seq, crc FROM head").fetchall()
    for source, boot, seq, crc in heads:
        if crc != crc_of_head(source.decode("utf-8", "replace"), boot, seq):
            database.execute("DELETE FROM head WHERE CAST(source AS BLOB) = ? AND boot IS ?", (source, boot))
            log.error(
                "a node's head changed on the card, the node is asked what it holds source=%r boot=%r", source, boot
            )


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[0] for row in database.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _require_columns(database: sqlite3.Connection) -> None:
    """Raise DatabaseError if the tables are not ours: a flipped bit in a column's name passes every other check."""
    try:
        for columns in (
            "id, topic, payload, crc, class FROM outbox",
            "id, reason, topic, payload, crc FROM aside",
            "source, boot, seq, crc FROM head",
            "device, state, crc FROM driver_state",
        ):
            database.execute(f"SELECT {columns} LIMIT 0")
    except sqlite3.OperationalError as error:
        raise sqlite3.DatabaseError(f"the tables are not ours: {error}") from None


def _disk_fault(path: Path) -> int | None:
    """Return the error that the disk gives to whoever writes beside `path`; None if it takes it."""
    probe = path.with_name(path.name + ".probe")
    try:
        try:
            probe.write_bytes(bytes(2 * PAGE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return error.errno if error.errno in DISK_FAULTS else None
    return None


def substitute(path: Path) -> Opened:
    """Return what can be read of the spool while nothing can be written; an empty one if there is nothing."""
    if path.is_file() and path.stat().st_size:
        try:
            database = open_read_only(path)
            _require_columns(database)
            return _read_through(database, writable=False)
        except sqlite3.Error:
            pass
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    database.executescript(SCHEMA)
    database.execute("PRAGMA query_only = ON")
    return _read_through(database, writable=False)


def forget_cached(path: Path) -> None:
    """Have the next read of the file come from the medium: after a failed fsync the page cache may tell a lie."""
    for suffix in ("", "-wal"):
        try:
            descriptor = os.open(path.with_name(path.name + suffix), os.O_RDONLY)
        except OSError:
            continue
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
