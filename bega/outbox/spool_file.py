"""The spool's SQLite file: WAL, `synchronous=FULL`, its own quota. Everything here runs in the one thread that owns it.

With `synchronous=NORMAL` 910 of 1,552 acknowledged rows were lost over crash
images, with FULL none of 2,040. A full disk could not even be drained in WAL
mode, so the file has a quota of its own (`max_page_count`).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from bega_protocols.checks import crc32

log = logging.getLogger(__name__)

StorageClass = Literal["routine", "billing", "alarm"]
CLASSES: tuple[StorageClass, ...] = get_args(StorageClass)  # the file holds the place in this row: append only

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,
    crc INTEGER NOT NULL, class INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS aside (id INTEGER PRIMARY KEY, reason TEXT NOT NULL, topic, payload, crc);
CREATE TABLE IF NOT EXISTS head (source TEXT, boot INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (source, boot))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS driver_state (device TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
"""
PAGE_BYTES = 4096
LEAST_PAGES = 64
HEADS_KEPT = 32  # boots of one source whose head is remembered; a node that holds older ones says so itself
LARGEST_ID = 2**63 - 1


class Row(NamedTuple):
    """One message on its way out."""

    id: int
    topic: str
    payload: bytes


class Head(NamedTuple):
    """Up to where the records of one boot of a node are stored."""

    source: str
    boot: int
    seq: int


class Entry(NamedTuple):
    """One message to be stored, with what must be true together with it."""

    topic: str
    payload: bytes
    storage_class: StorageClass
    head: Head | None
    state: tuple[str, bytes] | None  # (device, what its driver asked to keep)


@dataclass(frozen=True)
class Outcome:
    """What one commit did."""

    first_id: int  # of the new messages; the others follow without a gap
    deleted: int


class SpoolFile:
    """Messages by rising id, node heads and driver states in one SQLite file."""

    def __init__(self, path: Path, quota_bytes: int) -> None:
        """Open or make the file at `path`; a damaged one is set aside with its name said, never a reason to stop.

        quota_bytes: the file grows to this and no further.
        """
        self._path = path
        self._database = _open_or_set_aside(path)
        self.quota_bytes = 0
        self.used_bytes = 0
        self.set_quota(quota_bytes)
        self.rows = int(self._ask("SELECT count(*) FROM outbox"))
        self.last_id = int(
            self._ask("SELECT max(coalesce((SELECT max(id) FROM outbox), 0), coalesce((SELECT max(id) FROM aside), 0))")
        )

    def set_quota(self, quota_bytes: int) -> None:
        """Let the file grow to `quota_bytes`; one that is larger already keeps its size and becomes empty inside."""
        self._page_bytes = int(self._ask("PRAGMA page_size"))
        self.quota_bytes = max(LEAST_PAGES * self._page_bytes, quota_bytes)
        self._database.execute(f"PRAGMA max_page_count = {self.quota_bytes // self._page_bytes}")
        self._measure()

    def commit(self, entries: Sequence[Entry], heads: Iterable[Head], sent: Iterable[int]) -> Outcome:
        """Store `entries` and `heads` and delete what was `sent`, all or nothing."""
        first_id = self.last_id + 1
        with self._transaction():
            deleted = self._delete_rows(sent)  # first: what it frees, the new ones may use
            self._insert(first_id, entries)
            self._raise_heads([*heads, *[entry.head for entry in entries if entry.head]])
            states = dict(entry.state for entry in entries if entry.state)
            if states:
                self._database.executemany("REPLACE INTO driver_state VALUES (?, ?)", states.items())
        self.last_id += len(entries)
        self.rows += len(entries) - deleted
        self._measure()
        return Outcome(first_id, deleted)

    def delete(self, ids: Iterable[int]) -> int:
        """Delete messages, all or none; return how many there were."""
        with self._transaction():
            deleted = self._delete_rows(ids)
        self.rows -= deleted
        self._measure()
        return deleted

    def take(self, after_id: int, limit: int, up_to_id: int | None) -> tuple[list[Row], int]:
        """Return the next messages, and how many were set aside because their bytes changed on the card.

        SQLite notices a broken page, not a flipped bit in a value: what is sent must be what was stored.
        """
        aside = 0
        while True:
            found = self._database.execute(
                "SELECT id, CAST(topic AS BLOB), payload, crc FROM outbox WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after_id, LARGEST_ID if up_to_id is None else up_to_id, limit),
            ).fetchall()
            rows = [
                Row(id_, topic.decode(), payload) for id_, topic, payload, crc in found if fits(topic, payload, crc)
            ]
            if len(rows) == len(found):
                return rows, aside
            damaged = {row[0] for row in found} - {row.id for row in rows}
            aside += self.set_aside(sorted(damaged), "its bytes changed on the card")
            log.error("messages damaged in the spool, set aside in its table `aside` count=%d", len(damaged))

    def set_aside(self, ids: Sequence[int], reason: str) -> int:
        """Move messages to the table `aside`, where nobody sends them; return how many there were."""
        with self._transaction():
            for id_ in ids:
                self._database.execute(
                    "REPLACE INTO aside SELECT id, ?, topic, payload, crc FROM outbox WHERE id = ?", (reason, id_)
                )
            deleted = self._delete_rows(ids)
        self.rows -= deleted
        return deleted

    def heads(self) -> dict[tuple[str, int], int]:
        """Return {(source, boot): seq} of all nodes."""
        rows = self._database.execute("SELECT source, boot, seq FROM head ORDER BY source, boot")
        return {(source, boot): seq for source, boot, seq in rows}

    def driver_states(self) -> dict[str, bytes]:
        """Return what each driver asked to keep."""
        return dict(self._database.execute("SELECT device, state FROM driver_state"))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _insert(self, first_id: int, entries: Sequence[Entry]) -> None:
        rows = (
            (id_, topic, payload, crc_of(topic.encode(), payload), CLASSES.index(storage_class))
            for id_, (topic, payload, storage_class, _, _) in enumerate(entries, first_id)
        )
        self._database.executemany("INSERT INTO outbox (id, topic, payload, crc, class) VALUES (?, ?, ?, ?, ?)", rows)

    def _raise_heads(self, heads: Sequence[Head]) -> None:
        for head in heads:
            self._database.execute(
                "INSERT INTO head VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)", head
            )
        for source in {head.source for head in heads}:
            self._database.execute(
                "DELETE FROM head WHERE source = ?1 AND boot NOT IN"
                " (SELECT boot FROM head WHERE source = ?1 ORDER BY boot DESC LIMIT ?2)",
                (source, HEADS_KEPT),
            )

    def _delete_rows(self, ids: Iterable[int]) -> int:
        before = self._database.total_changes
        self._database.executemany("DELETE FROM outbox WHERE id BETWEEN ? AND ?", _ranges(ids))
        return self._database.total_changes - before

    def _measure(self) -> None:
        pages = int(self._ask("PRAGMA page_count")) - int(self._ask("PRAGMA freelist_count"))
        self.used_bytes = pages * self._page_bytes

    def _ask(self, question: str) -> int:
        answer: int = self._database.execute(question).fetchone()[0]
        return answer

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._database.in_transaction:  # a rollback failed together with what it was to undo
            self._database.rollback()
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield


def crc_of(topic: bytes, payload: bytes) -> int:
    """Return the check value of a row."""
    return crc32(payload, crc32(topic))


def fits(topic: object, payload: object, crc: object) -> bool:
    """Return whether a row is as it was stored; what no row of ours can hold is not."""
    return isinstance(topic, bytes) and isinstance(payload, bytes) and crc == crc_of(topic, payload)


def _ranges(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Return `ids` as closed ranges, so that neighbours go in one statement."""
    ranges: list[tuple[int, int]] = []
    for id_ in sorted(ids):
        if ranges and id_ <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], id_)
        else:
            ranges.append((id_, id_))
    return ranges


def _open_or_set_aside(path: Path) -> sqlite3.Connection:
    try:
        return _open(path)
    except sqlite3.OperationalError:  # no permission, no directory: not the file's fault
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        aside = _free_name(path)
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        log.error("spool damaged, set aside and begun anew file=%s error=%s", aside, error)
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check found damage")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(SCHEMA)
        _bring_up_to_date(database)
        _require_columns(database)
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_to_date(database: sqlite3.Connection) -> None:
    """Give a file of an earlier release the columns and tables of this one."""
    if "class" not in [row[1] for row in database.execute("PRAGMA table_info(outbox)")]:
        database.execute("ALTER TABLE outbox ADD COLUMN class INTEGER NOT NULL DEFAULT 0")
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'damaged'").fetchone():
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "REPLACE INTO aside SELECT id, 'its bytes changed on the card', topic, payload, crc FROM damaged"
        )
        database.execute("DROP TABLE damaged")
        database.execute("COMMIT")


def _require_columns(database: sqlite3.Connection) -> None:
    """Raise DatabaseError if the tables are not ours: a flipped bit in a column's name passes every other check."""
    try:
        for columns in (
            "id, topic, payload, crc, class FROM outbox",
            "id, reason, topic, payload, crc FROM aside",
            "source, boot, seq FROM head",
            "device, state FROM driver_state",
        ):
            database.execute(f"SELECT {columns} LIMIT 0")
    except sqlite3.OperationalError as error:
        raise sqlite3.DatabaseError(f"the tables are not ours: {error}") from None


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
