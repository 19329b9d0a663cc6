"""What the feed said last: in memory for the pages, in SQLite for a restart and for hours without a network.

It is a copy of public data that the feed can give again, so it is written a few seconds late and in one piece, a
damaged file is put aside, and a full disk costs the memory of a restart and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bega.clock import Clock
from bega_protocols.errors import ConfigError

log = logging.getLogger("bega.kiosk.store")

SCHEMA = 1
AHEAD_MS = 120_000  # a stamp farther ahead than this comes from a clock that is wrong, here or there
HOURS, STEP_S = 24, 300  # what a series is asked for
MOST_ROWS = 2_000  # a feed of one city corner has a few dozen

Key = tuple[str, str, str, str]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The newest value of one quantity of one device, as the feed gives it; `value` is None where there is none."""

    source: str
    device: str
    label: str
    quantity: str
    part: str
    value: float | None
    time_ms: int
    time_quality: int
    quality: int
    is_simulated: bool


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The mean of one step of a series; `value` is None where there is none."""

    time_ms: int
    value: float | None
    quality: int
    is_simulated: bool


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One device's steps of the last hours, oldest first."""

    source: str
    device: str
    label: str
    part: str
    samples: list[Sample]


class Store:
    """The newest values and the series, each as it was heard last."""

    def __init__(self, path: Path, wall_ms: Clock) -> None:
        """Open the file, or begin it; raises ConfigError if the folder cannot be used."""
        self.revision = 0  # rises with each change
        self._wall_ms = wall_ms
        self._values: dict[Key, Value] = {}
        self._series: dict[str, list[Series]] = {}
        self._changed = asyncio.Event()
        self._is_saved = True
        self._is_failing = False
        self._file = _open(path)
        self._load()

    def values(self, quantity: str) -> list[Value]:
        """Return the newest value of each device that tells `quantity`, in the order of their names."""
        return sorted(
            (value for value in self._values.values() if value.quantity == quantity),
            key=lambda value: (value.device, value.source, value.part),
        )

    def series(self, quantity: str) -> list[Series]:
        """Return the series of `quantity`, in the order of the devices' names."""
        return sorted(self._series.get(quantity, []), key=lambda series: (series.device, series.source, series.part))

    def take_values(self, values: Iterable[Value]) -> None:
        """Keep what is newer than what is here. A backlog's old record changes nothing.

        A value whose stamp lies in the future yields to any other: the clock behind it was wrong.
        """
        latest_ms = self._wall_ms() + AHEAD_MS
        for value in values:
            key = (value.source, value.device, value.quantity, value.part)
            old = self._values.get(key)
            if old == value or (old is not None and value.time_ms < old.time_ms <= latest_ms):
                continue
            self._values[key] = value
            self._note_change()
        self._forget_oldest()

    def take_series(self, quantity: str, series: list[Series]) -> None:
        """Keep `series` in the place of what was known of `quantity`."""
        if self._series.get(quantity) != series:
            self._series[quantity] = series
            self._note_change()

    async def wait_beyond(self, revision: int) -> None:
        """Return once something differs from what was here at `revision`."""
        while self.revision == revision:
            await self._changed.wait()

    async def keep(self, every_s: float = 5.0) -> None:
        """Write what changed, every few seconds, for ever."""
        while True:
            await asyncio.sleep(every_s)
            if not self._is_saved:
                self._is_saved = True
                values, series = [*self._values.values()], dict(self._series)
                await asyncio.to_thread(self._write, values, series)

    def close(self) -> None:
        """Write what is not yet written, and let the file go."""
        if not self._is_saved:
            self._write([*self._values.values()], self._series)
        self._file.close()

    def call_pages(self) -> None:
        """Have the pages looked at again: something that is kept elsewhere has changed."""
        self.revision += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _note_change(self) -> None:
        self._is_saved = False
        self.call_pages()

    def _forget_oldest(self) -> None:
        if len(self._values) > MOST_ROWS:
            newest = sorted(self._values.items(), key=lambda item: item[1].time_ms, reverse=True)
            self._values = dict(newest[: MOST_ROWS // 2])

    def _load(self) -> None:
        try:
            rows = self._file.execute("SELECT kind, name, body FROM known").fetchall()
            for kind, name, body in rows:
                if kind == "series":
                    self._series[name] = msgspec.json.decode(body, type=list[Series])
                else:
                    for value in msgspec.json.decode(body, type=list[Value]):
                        self._values[(value.source, value.device, value.quantity, value.part)] = value
        except (sqlite3.Error, msgspec.DecodeError) as error:
            log.warning("store unreadable, beginning anew error=%s", error)

    def _write(self, values: list[Value], series: dict[str, list[Series]]) -> None:
        rows = [("values", "", msgspec.json.encode(values))]
        rows += [("series", quantity, msgspec.json.encode(of)) for quantity, of in series.items()]
        try:
            with self._file:
                self._file.execute("DELETE FROM known")
                self._file.executemany("INSERT INTO known (kind, name, body) VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:  # a full or worn-out card: the pages go on from memory
            self._is_saved = False
            if not self._is_failing:
                log.warning("store cannot be written error=%s", error)
            self._is_failing = True
            return
        if self._is_failing:
            log.info("store written again")
        self._is_failing = False


def _open(path: Path) -> sqlite3.Connection:
    """Return the file with its table; a damaged one is put aside under the name `.damaged`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise ConfigError(f"kiosk.state_dir: {path} cannot be used: {error}") from None
        log.warning("store damaged, put aside path=%s error=%s", path, error)
    except OSError as error:
        raise ConfigError(f"kiosk.state_dir: {path.parent} cannot be used: {error}") from None
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.replace(path.with_name(path.name + ".damaged"))
    return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, check_same_thread=False, timeout=2.0)
    try:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")  # the last seconds may go at a power cut, the file stays whole
        if file.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
            file.execute("DROP TABLE IF EXISTS known")
            file.execute(f"PRAGMA user_version={SCHEMA}")
        file.execute("CREATE TABLE IF NOT EXISTS known (kind TEXT, name TEXT, body BLOB, PRIMARY KEY (kind, name))")
        file.commit()
    except sqlite3.Error:
        file.close()
        raise
    return file
