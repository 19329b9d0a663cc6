"""What was begun and what came of it: a small SQLite file of its own, each step on the disk before the next is taken.

A command is done at most once because its id is committed here before it is
begun. Not in the spool's file: that one is salvaged row by row when it is
damaged, and may be drained and thrown away; here a missing row would mean a
second time. One thread owns a `Ledger`.

After a damaged one nobody knows what was done. Then a command must bear the name
of the new ledger, which is random: so it was made after the damage, and no clock
is asked. The first that does also tells by its expiry until when the old ones may
come; what expires later than all of them needs no name any more.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

LONGEST_AHEAD_S = 86_400  # a command expires at most so far ahead
KEPT = 10_000  # commands that are remembered beyond their expiry
MOST = 100_000  # in all; more that have not expired are refused
LOOK_EVERY = 100  # commands, for what may be forgotten
UNDAMAGED, UNKNOWN_FLOOR = 0, -1  # -1: the file before this one was damaged, and no command has borne our name yet

TABLES = """
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY,
    verb TEXT NOT NULL,
    asked TEXT NOT NULL,
    digest BLOB NOT NULL,
    expires_s INTEGER NOT NULL,
    begun_ms INTEGER NOT NULL,
    result TEXT,
    told INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS floor (expires_s INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS anew (name TEXT NOT NULL, floor_s INTEGER NOT NULL);
"""


class Begun(NamedTuple):
    """A command that was begun before."""

    id: str
    verb: str
    digest: bytes
    result: str  # JSON; '' while it has not ended


class LedgerFull(Exception):
    """So many commands have not expired that no further one could be remembered."""


class Forgotten(Exception):
    """It may have been done before; `name` is what a command must bear, '' if none would help."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Ledger:
    """The file. Every method may raise sqlite3.Error: then nothing was written, and nothing may be begun."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet: the disk may take nothing at the moment."""
        self._path = path
        self._file: sqlite3.Connection | None = None
        self._since_look = 0
        self._rows = 0
        self._told: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether `open` has worked."""
        return self._file is not None

    def open(self) -> list[Begun]:
        """Open or make the file; return the commands whose result nobody may have had.

        A damaged one is set aside, and no command is begun that may be one of those in it.
        """
        try:
            self._file = self._with_tables()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            log.error("ledger of commands damaged, it is set aside; commands must name the new one error=%s", error)
            self._set_aside()
            self._file = self._with_tables()
        (self._rows,) = self._file.execute("SELECT COUNT(*) FROM commands").fetchone()
        rows = self._file.execute("SELECT id, verb, digest, COALESCE(result, '') FROM commands WHERE told = 0")
        return [Begun(*row) for row in rows]

    def find(self, id_: str) -> Begun | None:
        """Return the command with this id, if one was begun."""
        sql = "SELECT id, verb, digest, COALESCE(result, '') FROM commands WHERE id = ?"
        row = self._opened().execute(sql, (id_,)).fetchone()
        return Begun(*row) if row else None

    def admit(self, named: str, expires_s: int) -> None:
        """Raise Forgotten if a command that is not remembered may have been begun before.

        named: the ledger that it names, '' for none
        """
        file = self._opened()
        (forgotten_s,) = file.execute("SELECT MAX(expires_s) FROM floor").fetchone()
        if expires_s <= forgotten_s:
            raise Forgotten("")
        name, floor_s = file.execute("SELECT name, floor_s FROM anew").fetchone()
        if named and named != name:
            raise Forgotten(name)
        if named and floor_s == UNKNOWN_FLOOR:
            # It was made after the damage, at most a day before it expires; what is older, before: it expires at most
            # a day later. By the sender's clock alone: ours may have been wrong when the ledger was opened.
            with file:
                file.execute("UPDATE anew SET floor_s = ?", (expires_s + LONGEST_AHEAD_S,))
        if not named and (floor_s == UNKNOWN_FLOOR or expires_s <= floor_s):
            raise Forgotten(name)

    def begin(self, begun: Begun, asked: str, expires_s: int, now_ms: int) -> None:
        """Remember that a command is begun, and for good when this returns; raises LedgerFull.

        Raises sqlite3.IntegrityError if its id was begun before.
        """
        file = self._opened()
        self._since_look += 1
        if self._since_look >= LOOK_EVERY:
            self._since_look = 0
            self._forget(now_ms // 1000)
        if self._rows >= MOST:
            raise LedgerFull
        with file:
            file.execute(
                "INSERT INTO commands (id, verb, asked, digest, expires_s, begun_ms) VALUES (?, ?, ?, ?, ?, ?)",
                (begun.id, begun.verb, asked, begun.digest, expires_s, now_ms),
            )
            self._note_told()
        self._rows += 1
        self._told.clear()

    def end(self, id_: str, result: str) -> None:
        """Remember what came of it."""
        file = self._opened()
        with file:
            file.execute("UPDATE commands SET result = ? WHERE id = ? AND result IS NULL", (result, id_))
            self._note_told()
        self._told.clear()

    def told(self, ids: Iterable[str]) -> None:
        """Note that the results of `ids` are stored elsewhere: in the next commit, since a second time does no harm."""
        self._told.update(ids)

    def close(self) -> None:
        """Commit what waits, and close."""
        if self._file:
            with contextlib.suppress(sqlite3.Error), self._file:
                self._note_told()
            self._file.close()
            self._file = None

    def _with_tables(self) -> sqlite3.Connection:
        """Open the file. Where one was set aside, a new one knows it: the power may go before it is written."""
        was_damaged = Path(f"{self._path}.damaged").exists()
        return _opened(self._path, UNKNOWN_FLOOR if was_damaged else UNDAMAGED)

    def _set_aside(self) -> None:
        try:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").rename(f"{self._path}.damaged{suffix}")
        except OSError as error:
            raise sqlite3.OperationalError(f"the damaged file cannot be set aside ({error.strerror})") from None

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            raise sqlite3.OperationalError("the ledger is not open")
        return self._file

    def _note_told(self) -> None:
        self._opened().executemany("UPDATE commands SET told = 1 WHERE id = ?", [(id_,) for id_ in self._told])

    def _forget(self, now_s: int) -> None:
        """Forget the oldest beyond KEPT that have expired and are told; one that has not could come once more."""
        file = self._opened()
        beyond = self._rows - KEPT
        if beyond <= 0:
            return
        with file:
            rows = file.execute(
                "SELECT id, expires_s FROM commands WHERE told = 1 AND expires_s < ? ORDER BY begun_ms LIMIT ?",
                (now_s, beyond),
            ).fetchall()
            if rows:  # a clock that is set back must not let one of them in again
                file.execute("UPDATE floor SET expires_s = MAX(expires_s, ?)", (max(row[1] for row in rows),))
                file.executemany("DELETE FROM commands WHERE id = ?", [(row[0],) for row in rows])
        self._rows -= len(rows)


def _opened(path: Path, floor_s: int) -> sqlite3.Connection:
    file = sqlite3.connect(path, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=FULL")
        file.executescript(TABLES)
        if file.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check")
        if file.execute("SELECT COUNT(*) FROM floor").fetchone()[0] == 0:
            with file:
                file.execute("INSERT INTO floor VALUES (0)")
        if file.execute("SELECT COUNT(*) FROM anew").fetchone()[0] == 0:
            with file:
                file.execute("INSERT INTO anew VALUES (?, ?)", (secrets.token_hex(8), floor_s))
    except sqlite3.Error:
        file.close()
        raise
    return file
