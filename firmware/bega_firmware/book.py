"""The bench book: what was done to which board on this machine, when, and what came of it. SQLite, `bench.db`.

It is a memory and no gate: whatever happens to its file, the work at hand goes on. A damaged file is set aside under
another name and said. No secret is ever in it: it is copied, mailed and printed.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from bega.clock import Clock, wall_ms
from bega_protocols.errors import ConfigError

FILE = "bench.db"
SCHEMA = 1  # PRAGMA user_version
TABLE = """create table events (
    at_ms integer not null, what text not null, passed integer, words text not null, node text not null,
    site text not null, board text not null, chip text not null, mac text not null, port text not null,
    firmware text not null, interpreter text not null)"""
INSERT = "insert into events values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
FLASHED, PROVISIONED, TESTED, LABELLED, WIPED = WHATS = ("flashed", "provisioned", "tested", "labelled", "wiped")
PATIENCE_S = 20.0  # for another command that writes: it is done in milliseconds


@dataclass(frozen=True)
class Event:
    """One thing that was done to one board. What is not known stays ''."""

    at_ms: int  # Unix time
    what: str  # one of WHATS
    passed: bool | None  # None: not proved
    words: str
    node: str = ""  # its id
    site: str = ""
    board: str = ""  # board file's key
    chip: str = ""
    mac: str = ""
    port: str = ""
    firmware: str = ""
    interpreter: str = ""


def note(
    folder: Path,
    what: str,
    passed: bool | None,
    words: str,
    *,
    clock: Clock = wall_ms,
    port: str = "",
    **facts: str,
) -> str:
    """Note an event (`facts`: further fields of Event) in the book of `folder`.

    Returns '', or a sentence for the technician about the book itself. Never raises for what is wrong with the book.
    """
    event = Event(clock(), what, passed, words, port=port_name(port), **facts)
    try:
        with opened(folder, clock) as (book, complaint):
            if complaint and book is None:
                return complaint
            assert book is not None
            with book:
                book.execute(INSERT, astuple(event))
            return complaint
    except (sqlite3.Error, OSError) as error:
        return f"not noted in {folder / FILE}: {error}"


def read(folder: Path, clock: Clock = wall_ms) -> tuple[list[Event], str]:
    """Return all events, oldest first, and a sentence about the book itself ('' if nothing is wrong with it).

    Raises ConfigError if it cannot be read at all.
    """
    try:
        with opened(folder, clock) as (book, complaint):
            if book is None:
                raise ConfigError(complaint)
            rows = book.execute("select * from events order by at_ms, rowid").fetchall()
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"{folder / FILE} cannot be read: {error}") from None
    return [Event(row[0], row[1], None if row[2] is None else bool(row[2]), *row[3:]) for row in rows], complaint


def port_name(port: str) -> str:
    """Return the last part of a port, which is what a technician calls it: ttyUSB0, pts/7, 127.0.0.1:4000."""
    if "://" in port:
        return urlsplit(port).netloc.rpartition("@")[2]
    parts = Path(port).parts
    return "/".join(parts[-2:]) if parts[-1:] and parts[-1].isdigit() else "".join(parts[-1:])


@contextmanager
def opened(folder: Path, clock: Clock) -> Iterator[tuple[sqlite3.Connection | None, str]]:
    """Yield the book, whole and of our schema, and a sentence if that took something; None if it is not ours to use."""
    path = folder / FILE
    with (folder / f"{FILE}.lock").open("w") as lock:  # who sets a damaged file aside must not meet who just began anew
        fcntl.flock(lock, fcntl.LOCK_EX)
        complaint = _set_aside_if_damaged(path, clock)
        with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as book:
            version = book.execute("pragma user_version").fetchone()[0]
            if version > SCHEMA:
                yield None, f"{path} was written by a later Bega: use that one, or set BEGA_DATA to another folder"
                return
            if version == 0:
                with book:
                    book.execute("begin")
                    book.execute(TABLE)
                    book.execute(f"pragma user_version = {SCHEMA}")
            yield book, complaint


def _set_aside_if_damaged(path: Path, clock: Clock) -> str:
    if not path.exists() or _is_whole(path):
        return ""
    moment = datetime.fromtimestamp(clock() / 1000, UTC)
    aside = path.with_name(f"{path.name}.damaged-{moment:%Y%m%d-%H%M%S}")
    path.replace(aside)
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists():  # it belongs to that file: a new one must not be undone by it
        journal.replace(aside.with_name(f"{aside.name}-journal"))
    return f"{path} was damaged: it is kept as {aside.name}, and a new one begun"


def _is_whole(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as book:
            if book.execute("pragma quick_check").fetchone() != ("ok",):
                return False
            version = book.execute("pragma user_version").fetchone()[0]
            names = [row[1] for row in book.execute("pragma table_info(events)")]
            return version > SCHEMA or (
                names == [field.name for field in fields(Event)] if version == SCHEMA else names == []
            )
    except sqlite3.OperationalError:
        return True  # cannot be opened or written: that is no damage, and is said where it is used
    except sqlite3.DatabaseError:
        return False
