"""The store that loses nothing it said it had: SQLite, WAL, `synchronous=FULL`, group commit.

With `synchronous=NORMAL` 910 of 1,552 acknowledged rows were lost over crash
images, with FULL none of 2,040. The commit window is what a power cut may cost.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from bega_protocols.checks import crc32

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS damaged (id INTEGER PRIMARY KEY, topic, payload, crc);
CREATE TABLE IF NOT EXISTS head (source TEXT, boot INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (source, boot))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS driver_state (device TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
"""
PAGE_BYTES = 4096
COMMIT_AT_ROWS = 5_000  # a burst is committed before the window ends, so that memory stays bounded
ROOM_ROWS = 20_000  # what may wait for a commit; whoever brings more waits
RETRY_S = 1.0
HEADS_KEPT = 32  # boots of one source whose head is remembered; a node that holds older ones says so itself

Result = TypeVar("Result")


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


@dataclass
class Batch:
    """What goes into one commit."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    states: dict[str, bytes] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.messages or self.heads or self.states or self.sent)


class Spool:
    """Messages in the order in which they were stored. One thread (`executor`) owns the database.

    Use: `spool = await Spool.open(...)`, keep `spool.run()` running in a task, `add` and `forget` from the loop.
    """

    def __init__(self, database: sqlite3.Connection, executor: Executor, window_s: float) -> None:
        """Use `open`."""
        self._database = database
        self._executor = executor
        self._window_s = window_s
        self._batch = Batch()
        self._work = asyncio.Event()  # something waits for a commit
        self._at_once = asyncio.Event()  # and must not wait for the window
        self._room = asyncio.Event()
        self._room.set()
        self._stored = asyncio.Event()  # replaced at each commit that brought messages
        self._leaving: set[int] = set()  # what `forget` was told of and no commit has deleted yet
        self._failing = False
        self.committed = 0  # messages stored since the start
        self.depth = 0  # messages stored and not yet acknowledged

    @classmethod
    async def open(
        cls, path: Path, executor: Executor, *, window_s: float = 1.0, quota_bytes: int = 2_000_000_000
    ) -> Spool:
        """Open or make the store at `path`; a damaged file is set aside with its name said, never a reason to stop.

        quota_bytes: the file grows to this and no further: a full disk could not even be drained (WAL).
        """
        loop = asyncio.get_running_loop()
        database = await loop.run_in_executor(executor, _open_or_set_aside, path, quota_bytes)
        spool = cls(database, executor, window_s)
        spool.depth = await spool._in_thread(lambda: int(database.execute("SELECT count(*) FROM outbox").fetchone()[0]))
        return spool

    async def run(self) -> None:
        """Commit what is added, a group at a time, until cancelled; the last group is committed on the way out.

        A full or failing disk is tried again for ever. Raises sqlite3.DatabaseError where the file itself is
        damaged: only a new start, which sets it aside, helps.
        """
        try:
            while True:
                await self._work.wait()
                if self._window_s and not self._at_once.is_set():
                    await _wait_at_most(self._at_once, self._window_s)
                if not await self._commit_whole():
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._commit_whole()

    def add(
        self,
        topic: str,
        payload: bytes,
        *,
        head: Head | None = None,
        state: tuple[str, bytes] | None = None,
        at_once: bool = False,
    ) -> asyncio.Future[None]:
        """Put one message in the next commit, with what must be true together with it; the result comes when it is.

        head: up to where a node's records are now had; state: (device, what its driver asked to keep).
        at_once: do not wait for the window (commands, alarms, billing, records that a node waits for).
        """
        self._batch.messages.append((topic, payload))
        if head:
            self._batch.heads.append(head)
        if state:
            self._batch.states[state[0]] = state[1]
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch.waiting.append(stored)
        if len(self._batch.messages) >= ROOM_ROWS:
            self._room.clear()
        self._wake(at_once or len(self._batch.messages) >= COMMIT_AT_ROWS)
        return stored

    def set_head(self, head: Head) -> None:
        """Put a head in the next commit: what lies below counts as had, though it never came."""
        self._batch.heads.append(head)
        self._wake(at_once=True)

    def forget(self, ids: list[int]) -> None:
        """Delete acknowledged messages with the next commit; a crash before it only sends them again."""
        self._leaving.update(ids)
        self._batch.sent.extend(ids)
        self._wake(at_once=False)

    def has_room(self) -> bool:
        """Return whether another message may be added; `room` waits for it."""
        return self._room.is_set()

    async def room(self) -> None:
        """Wait while more than enough waits for a commit."""
        await self._room.wait()

    async def take(self, after_id: int, limit: int) -> list[Row]:
        """Return the oldest messages behind `after_id`, in order, without those that `forget` was told of."""
        while True:
            found = await self._in_thread(functools.partial(_take, self._database, after_id, limit))
            rows = [row for row in found if row.id not in self._leaving]
            if rows or not found:
                return rows
            after_id = found[-1].id

    def next_commit(self) -> asyncio.Event:
        """Return the event that the next commit with messages sets; fetched before `take`, none can be missed."""
        return self._stored

    async def heads(self) -> dict[tuple[str, int], int]:
        """Return {(source, boot): seq} of all nodes."""
        rows = await self._in_thread(
            lambda: self._database.execute("SELECT source, boot, seq FROM head ORDER BY source, boot").fetchall()
        )
        return {(source, boot): seq for source, boot, seq in rows}

    async def driver_states(self) -> dict[str, bytes]:
        """Return what each driver asked to keep."""
        return dict(await self._in_thread(lambda: self._database.execute("SELECT * FROM driver_state").fetchall()))

    async def close(self) -> None:
        """Close the file; `run` must have ended."""
        await self._in_thread(self._database.close)

    def _wake(self, at_once: bool) -> None:
        self._work.set()
        if at_once:
            self._at_once.set()

    async def _commit_whole(self) -> bool:
        """Commit what waits; whoever is cancelled meanwhile waits until it is known what became of it."""
        commit = asyncio.create_task(self._commit_batch())
        try:
            return await asyncio.shield(commit)
        except asyncio.CancelledError:
            await commit
            raise

    async def _commit_batch(self) -> bool:
        """Commit what waits; return whether that worked. On failure all of it waits for the next try."""
        self._work.clear()
        self._at_once.clear()
        batch, self._batch = self._batch, Batch()
        if not batch:
            return True
        try:
            deleted = await self._in_thread(lambda: _commit(self._database, batch))
        except sqlite3.OperationalError as error:
            await self._drain(batch)
            self._put_back(batch)
            if not self._failing:
                log.error("spool cannot store, what comes waits in memory error=%s", error)
            self._failing = True
            return False
        except BaseException:
            self._put_back(batch)
            raise
        if self._failing:
            log.info("spool stores again rows=%d", len(batch.messages))
        self._failing = False
        self._room.set()
        self._leaving.difference_update(batch.sent)
        self.committed += len(batch.messages)
        self.depth += len(batch.messages) - deleted
        for stored in batch.waiting:
            if not stored.done():  # whoever waited may have been cancelled; the row is stored all the same
                stored.set_result(None)
        if batch.messages:
            arrived, self._stored = self._stored, asyncio.Event()
            arrived.set()
        return True

    async def _drain(self, batch: Batch) -> None:
        """Delete what was sent, by itself: a full spool takes nothing new, and must become empty all the same."""
        if not batch.sent:
            return
        try:
            self.depth -= await self._in_thread(lambda: _delete(self._database, batch.sent))
        except sqlite3.OperationalError:
            return
        self._leaving.difference_update(batch.sent)
        batch.sent.clear()

    def _put_back(self, batch: Batch) -> None:
        newer, self._batch = self._batch, batch
        batch.messages.extend(newer.messages)
        batch.heads.extend(newer.heads)
        batch.states.update(newer.states)
        batch.sent.extend(newer.sent)
        batch.waiting.extend(newer.waiting)
        self._wake(at_once=True)  # it has waited long enough

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _commit(database: sqlite3.Connection, batch: Batch) -> int:
    """Write one batch, all or nothing; return how many messages it deleted."""
    with _transaction(database):
        deleted = _delete_rows(database, batch.sent)  # first: what it frees, the new ones may use
        rows = [(topic, payload, _crc(topic.encode(), payload)) for topic, payload in batch.messages]
        database.executemany("INSERT INTO outbox (topic, payload, crc) VALUES (?, ?, ?)", rows)
        for head in batch.heads:
            database.execute(
                "INSERT INTO head VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)", head
            )
        for source in {head.source for head in batch.heads}:
            database.execute(
                "DELETE FROM head WHERE source = ?1 AND boot NOT IN"
                " (SELECT boot FROM head WHERE source = ?1 ORDER BY boot DESC LIMIT ?2)",
                (source, HEADS_KEPT),
            )
        database.executemany("REPLACE INTO driver_state VALUES (?, ?)", batch.states.items())
    return deleted


def _delete(database: sqlite3.Connection, ids: list[int]) -> int:
    """Delete messages, all or none; return how many there were."""
    with _transaction(database):
        return _delete_rows(database, ids)


def _delete_rows(database: sqlite3.Connection, ids: list[int]) -> int:
    before = database.total_changes
    database.executemany("DELETE FROM outbox WHERE id = ?", [(sent,) for sent in ids])
    return database.total_changes - before


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    if database.in_transaction:  # a rollback failed together with what it was to undo
        database.rollback()
    with database:
        database.execute("BEGIN IMMEDIATE")
        yield


def _take(database: sqlite3.Connection, after_id: int, limit: int) -> list[Row]:
    """Return the next messages; one whose bytes changed on the card goes to the table `damaged`, and is said.

    SQLite notices a broken page, not a flipped bit in a value: what is sent must be what was stored.
    """
    while True:
        found = database.execute(
            "SELECT id, CAST(topic AS BLOB), payload, crc FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
            (after_id, limit),
        ).fetchall()
        rows = [Row(id_, topic.decode(), payload) for id_, topic, payload, crc in found if crc == _crc(topic, payload)]
        if len(rows) == len(found):
            return rows
        _set_rows_aside(database, {row[0] for row in found} - {row.id for row in rows})


def _set_rows_aside(database: sqlite3.Connection, ids: set[int]) -> None:
    with _transaction(database):
        for id_ in ids:
            database.execute("REPLACE INTO damaged SELECT id, topic, payload, crc FROM outbox WHERE id = ?", (id_,))
        _delete_rows(database, sorted(ids))
    log.error("messages damaged in the spool, set aside in its table `damaged` count=%d", len(ids))


def _crc(topic: object, payload: object) -> int:
    """Return the check value of a row; of what no row of ours can hold, one that fits nothing."""
    return crc32(payload, crc32(topic)) if isinstance(topic, bytes) and isinstance(payload, bytes) else -1


def _open_or_set_aside(path: Path, quota_bytes: int) -> sqlite3.Connection:
    try:
        return _open(path, quota_bytes)
    except sqlite3.OperationalError:  # no permission, no directory: not the file's fault
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        aside = _free_name(path)
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        log.error("spool damaged, set aside and begun anew file=%s error=%s", aside, error)
        return _open(path, quota_bytes)


def _open(path: Path, quota_bytes: int) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check found damage")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA max_page_count = {max(64, quota_bytes // PAGE_BYTES)}")
        database.executescript(SCHEMA)
        _require_columns(database)
    except BaseException:
        database.close()
        raise
    return database


def _require_columns(database: sqlite3.Connection) -> None:
    """Raise DatabaseError if the tables are not ours: a flipped bit in a column's name passes every other check."""
    try:
        for columns in (
            "id, topic, payload, crc FROM outbox",
            "source, boot, seq FROM head",
            "state FROM driver_state",
        ):
            database.execute(f"SELECT {columns} LIMIT 0")
    except sqlite3.OperationalError as error:
        raise sqlite3.DatabaseError(f"the tables are not ours: {error}") from None


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
