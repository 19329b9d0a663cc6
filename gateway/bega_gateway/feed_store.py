"""What the public may see, for a few days: a rolling table beside the spool, and the newest value of everything.

It is a convenience, not a store: it lives in a file of its own, so that
nothing that happens to it can touch a record on its way out.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bega.clock import CLOCK_FLOOR_MS
from bega_protocols.reading import STALE, decimal_text, units
from bega_protocols.record import UNKNOWN, Record

log = logging.getLogger(__name__)

HOUR_MS = 3_600_000
FLUSH_S = 1.0
LISTENER_BACKLOG = 200  # events that a slow listener may lie behind before it is let go
AHEAD_MS = 60_000  # a clock of ours may be ahead of another by this much and still be right
MOST_WAITING = 50_000  # points kept for a file that cannot be written; then the oldest go

SCHEMA = """
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, source TEXT, device TEXT, quantity TEXT, part TEXT,
    UNIQUE (source, device, quantity, part));
CREATE TABLE IF NOT EXISTS point (series INTEGER, time_ms INTEGER, value TEXT, quality INTEGER, simulated INTEGER,
    time_quality INTEGER, PRIMARY KEY (series, time_ms)) WITHOUT ROWID;
"""
# value is NULL for a stale reading: nobody could tell an old value from a new one.
POINT = "INSERT OR REPLACE INTO point VALUES (?, ?, ?, ?, ?, ?)"
STEPS = """
SELECT source, device, part, min(time_ms), avg(value), max(quality), max(simulated)
FROM point JOIN series ON series.id = point.series
WHERE quantity = ? AND time_ms > ? AND (? IS NULL OR device = ?)
GROUP BY source, device, part, time_ms / ?
ORDER BY source, device, part, min(time_ms)
"""

Result = TypeVar("Result")
SeriesKey = tuple[str, str, str, str]  # source, device, quantity, part


class Point(NamedTuple):
    """One value of one quantity, as decimal text; None where the device had none to give."""

    time_ms: int
    value: str | None
    quality: int
    simulated: int
    time_quality: int


class Step(NamedTuple):
    """The mean of one quantity over one step of time."""

    source: str
    device: str
    part: str
    time_ms: int
    mean: float | None
    quality: int
    simulated: int


@dataclass(frozen=True)
class Published:
    """One record as the public sees it."""

    record: Record
    time_ms: int
    simulated: bool


class FeedStore:
    """Holds public points; whoever listens gets each new record. One thread (`executor`) owns the database.

    A file that cannot be written, or is damaged, costs history and never a record: it is said, and the feed goes on.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, executor: Executor, keep_hours: int) -> None:
        """Use `open`."""
        self._path = path
        self._database = database
        self._executor = executor
        self._keep_ms = keep_hours * HOUR_MS
        self._waiting: list[tuple[SeriesKey, Point]] = []
        self._listeners: set[asyncio.Queue[Published | None]] = set()
        self._now_ms = 0  # of the last record, by a clock that had been set
        self._failing = False
        self.latest: dict[SeriesKey, Point] = {}

    @classmethod
    async def open(cls, path: Path, executor: Executor, keep_hours: int) -> FeedStore:
        """Open the table at `path`; a damaged one is thrown away, for it holds nothing that is not elsewhere."""
        loop = asyncio.get_running_loop()
        database = await loop.run_in_executor(executor, _open_anyhow, path)
        store = cls(path, database, executor, keep_hours)
        store.latest = await store._in_thread(lambda: _latest(database))
        return store

    def add(self, record: Record, arrival_ms: int, simulated: bool = False) -> None:
        """Take one public record; one whose time is unknown, or still to come, stands at its time of arrival.

        A record of the year 2099 would else be the newest for ever, and all others too old to keep.
        """
        clock_is_set = arrival_ms >= CLOCK_FLOOR_MS
        horizon_ms = arrival_ms + AHEAD_MS
        if record.time_ms is None or (clock_is_set and record.time_ms > horizon_ms):
            record = record._replace(time_ms=None, time_quality=UNKNOWN)
        time_ms = arrival_ms if record.time_ms is None else record.time_ms
        if clock_is_set:
            self._now_ms = arrival_ms
        for key, point in _points(record, time_ms, simulated):
            self._waiting.append((key, point))
            last = self.latest.get(key)
            if last is None or last.time_ms <= time_ms or (clock_is_set and last.time_ms > horizon_ms):
                self.latest[key] = point
        for listener in list(self._listeners):
            try:
                listener.put_nowait(Published(record, time_ms, simulated))
            except asyncio.QueueFull:
                self._let_go(listener)

    async def run(self) -> None:
        """Write what was added, once a second, and drop what is too old, until cancelled."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self.flush()
        finally:
            await asyncio.shield(self.flush())

    async def flush(self) -> None:
        """Write what was added; where that fails it waits for the next time."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        oldest_ms = self._now_ms - self._keep_ms
        try:
            await self._in_thread(lambda: self._write(waiting, oldest_ms))
        except sqlite3.Error as error:
            self._waiting = [*waiting, *self._waiting][-MOST_WAITING:]
            if not self._failing:
                log.error("public feed cannot be stored, its history waits in memory error=%s", error)
            self._failing = True
        else:
            if self._failing:
                log.info("public feed is stored again points=%d", len(waiting))
            self._failing = False

    async def series(self, quantity: str, since_ms: int, step_ms: int, device: str | None) -> list[Step]:
        """Return the means of `quantity` in steps of `step_ms`, of all public devices or of one."""
        await self.flush()
        rows = await self._in_thread(
            lambda: self._database.execute(STEPS, (quantity, since_ms, device, device, step_ms)).fetchall()
        )
        return [Step(*row) for row in rows]

    async def points(self, source: str, device: str, since_ms: int) -> list[tuple[str, Point]]:
        """Return (quantity, point) of one device since a time, oldest first; for an average after a restart."""
        rows = await self._in_thread(
            lambda: self._database.execute(
                "SELECT quantity, time_ms, value, quality, simulated, time_quality FROM point JOIN series"
                " ON series.id = series WHERE source = ? AND device = ? AND part = '' AND time_ms > ? ORDER BY time_ms",
                (source, device, since_ms),
            ).fetchall()
        )
        return [(quantity, Point(*point)) for quantity, *point in rows]

    async def events(self) -> AsyncIterator[Published]:
        """Yield each record as it comes; ends for a listener that lies too far behind."""
        listener: asyncio.Queue[Published | None] = asyncio.Queue(LISTENER_BACKLOG)
        self._listeners.add(listener)
        try:
            while (published := await listener.get()) is not None:
                yield published
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        """Close the file; `run` must have ended."""
        await self._in_thread(lambda: self._database.close())

    def end_events(self) -> None:
        """Let go of whoever listens: the gateway stops."""
        for listener in list(self._listeners):
            self._let_go(listener)

    def _let_go(self, listener: asyncio.Queue[Published | None]) -> None:
        self._listeners.discard(listener)
        if listener.full():
            listener.get_nowait()
        listener.put_nowait(None)

    def _write(self, waiting: list[tuple[SeriesKey, Point]], oldest_ms: int) -> None:
        try:
            _write(self._database, waiting, oldest_ms)
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # its subclasses blame the disk or us, not the file
                raise
            log.error("public feed damaged, begun anew file=%s error=%s", self._path, error)
            self._database.close()
            self._database = _begin_anew(self._path)
            _write(self._database, waiting, oldest_ms)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


@contextmanager
def loading(path: Path) -> Any:
    """Give a function that writes (record, simulated) into the table at `path`: for a history, outside the gateway."""
    database = _open_or_begin_anew(path)
    try:

        def load(record: Record, simulated: bool) -> None:
            if record.time_ms is not None:
                _insert(database, _points(record, record.time_ms, simulated))

        with database:
            database.execute("BEGIN IMMEDIATE")
            yield load
    finally:
        database.close()


def _points(record: Record, time_ms: int, simulated: bool) -> list[tuple[SeriesKey, Point]]:
    return [
        (
            (record.source, record.device, reading.quantity, reading.part),
            Point(
                time_ms,
                None if reading.quality == STALE else decimal_text(reading.value, reading.exp10),
                reading.quality,
                int(simulated),
                record.time_quality,
            ),
        )
        for reading in record.readings
    ]


def _write(database: sqlite3.Connection, waiting: list[tuple[SeriesKey, Point]], oldest_ms: int) -> None:
    if database.in_transaction:  # a rollback failed together with what it was to undo
        database.rollback()
    with database:
        database.execute("BEGIN IMMEDIATE")
        _insert(database, waiting)
        database.execute("DELETE FROM point WHERE time_ms < ?", (oldest_ms,))


def _insert(database: sqlite3.Connection, points: Iterable[tuple[SeriesKey, Point]]) -> None:
    for key, point in points:
        database.execute("INSERT OR IGNORE INTO series (source, device, quantity, part) VALUES (?, ?, ?, ?)", key)
        (series,) = database.execute(
            "SELECT id FROM series WHERE source = ? AND device = ? AND quantity = ? AND part = ?", key
        ).fetchone()
        database.execute(POINT, (series, *point))


def _latest(database: sqlite3.Connection) -> dict[SeriesKey, Point]:
    rows = database.execute(
        "SELECT source, device, quantity, part, max(time_ms), value, quality, simulated, time_quality"
        " FROM point JOIN series ON series.id = series GROUP BY series"
    )
    return {(row[0], row[1], row[2], row[3]): Point(*row[4:]) for row in rows if units(row[2])}


def _open_anyhow(path: Path) -> sqlite3.Connection:
    """Return the database at `path`, or one in memory where no file can be had: the feed then forgets at each start."""
    try:
        return _open_or_begin_anew(path)
    except sqlite3.OperationalError as error:
        log.error("public feed cannot be kept, it lives in memory file=%s error=%s", path, error)
        return _open(":memory:")


def _open_or_begin_anew(path: Path) -> sqlite3.Connection:
    try:
        return _open(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return _begin_anew(path)


def _begin_anew(path: Path) -> sqlite3.Connection:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return _open(path)


def _open(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # a lost second of public history is no loss of a record
        database.executescript(SCHEMA)
        database.execute("CREATE INDEX IF NOT EXISTS by_time ON point (time_ms)")
    except BaseException:
        database.close()
        raise
    return database
