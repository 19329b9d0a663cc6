"""What the desk knows: reports with their numbers and states.

A report is stored before it is acknowledged, once for each (source, boot, seq) however often it comes. A kiosk that was
set up anew and whose clock is not set counts from the beginning again: there the code, which is chance, says that it is
another report.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bega.clock import Clock
from bega_kiosk.desk.shape import SHAPE
from bega_kiosk.mending import drop_old_asides, held, is_fault_of_file, require_sound
from bega_kiosk.private import require_private
from bega_kiosk.report import LONGEST_SHORT, PERSONAL, SAID, Report, Status
from bega_protocols.errors import ConfigError

FILE = "desk.sqlite"


class Row(NamedTuple):
    """A report as the desk's people see it."""

    status: Status
    report: Report
    heard_ms: int


class DeskStore:
    """One file; raises ConfigError if its folder cannot be used. `note` and what it acknowledges are on the disk."""

    def __init__(self, folder: Path, wall_ms: Clock) -> None:
        self._wall_ms = wall_ms
        self._path = folder / FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{folder}: the desk's reports cannot be kept there ({error})") from None

    def close(self) -> None:
        """Let the file go."""
        self._in_use.close()

    def take(self, report: Report) -> bool:
        """Store a report; return whether it is new. One that is here already is only to be acknowledged again.

        Raises sqlite3.IntegrityError for another report with a code that is taken (it cannot be by chance).
        """
        now_ms = self._wall_ms()
        identity = (report.source, report.boot, report.seq, report.code)
        known = self._done(
            "UPDATE report SET is_told = 0 WHERE source = ? AND boot = ? AND seq = ? AND code = ? RETURNING code",
            identity,
        )
        if known:
            return False
        time_ms = report.time_ms if report.time_quality == 0 else None
        row = (*identity, report.kind, time_ms, now_ms, msgspec.json.encode(report), now_ms)
        self._done(
            "INSERT INTO report (source, boot, seq, code, kind, time_ms, heard_ms, body, changed_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        return True

    def is_here_under_another_name(self, report: Report) -> bool:
        """Return whether this very report came already, before its kiosk was given the name that it has now."""
        found = self._done("SELECT body FROM report WHERE code = ? AND source != ?", (report.code, report.source))
        return any(
            msgspec.structs.replace(msgspec.json.decode(body, type=Report), source=report.source) == report
            for (body,) in found
        )

    def status(self, code: str) -> Status:
        """Return how the report with this code is, "unknown" if there is none."""
        found = self._done("SELECT code, state, number, detail, changed_ms, body FROM report WHERE code = ?", (code,))
        return _status(found[0]) if found else Status(code=code, state="unknown")

    def change(self, code: str, state: str | None, number: str | None, detail: str | None) -> Status | None:
        """Change what is given of a report and have it told; return how it is then, None if there is none.

        Raises ConfigError for what no kiosk could show. Two changes never have one time, even if the clock stands.
        """
        for text in (number or "", detail or ""):
            if len(text) > LONGEST_SHORT or not text.isprintable():
                raise ConfigError(f"number and detail have at most {LONGEST_SHORT} letters, on one line: {text[:40]!r}")
        found = self._done(
            "UPDATE report SET state = coalesce(?, state), number = coalesce(?, number), detail = coalesce(?, detail),"
            " changed_ms = max(?, changed_ms + 1), is_told = 0 WHERE code = ?"
            " RETURNING code, state, number, detail, changed_ms, body",
            (state, number, detail, self._wall_ms(), code),
        )
        return _status(found[0]) if found else None

    def forget(self, code: str) -> bool:
        """Overwrite who wrote a report; return whether there is such a one. What is reported and how it is stays."""
        found = self._done("SELECT body FROM report WHERE code = ?", (code,))
        for (written,) in found:
            report = msgspec.json.decode(written, type=Report)
            left = {name: text for name, text in report.answers.items() if name not in PERSONAL}
            body = msgspec.json.encode(msgspec.structs.replace(report, answers=left))
            self._done("UPDATE report SET body = ? WHERE code = ?", (body, code))
            self._done("PRAGMA wal_checkpoint(TRUNCATE)")  # the journal has what was overwritten
        return bool(found)

    def untold(self, limit: int = 100) -> list[tuple[str, Status]]:
        """Return what kiosks were not told yet: (kiosk, how its report is)."""
        rows = self._done(
            "SELECT source, code, state, number, detail, changed_ms, body FROM report"
            " WHERE is_told = 0 ORDER BY changed_ms LIMIT ?",
            (limit,),
        )
        return [(source, _status(row)) for source, *row in rows]

    def told(self, status: Status) -> None:
        """Note that its kiosk was told this, unless it changed meanwhile."""
        self._done("UPDATE report SET is_told = 1 WHERE code = ? AND changed_ms = ?", (status.code, status.changed_ms))

    def rows(self, limit: int = 100) -> list[Row]:
        """Return the newest reports."""
        rows = self._done(
            "SELECT body, heard_ms, code, state, number, detail, changed_ms, body FROM report"
            " ORDER BY heard_ms DESC, seq DESC LIMIT ?",
            (limit,),
        )
        return [
            Row(_status(status), msgspec.json.decode(body, type=Report), heard_ms) for body, heard_ms, *status in rows
        ]

    def kiosks(self) -> list[str]:
        """Return the kiosks that reports came from."""
        return [source for (source,) in self._done("SELECT DISTINCT source FROM report")]

    def count(self) -> int:
        """Return how many reports there are."""
        return int(self._done("SELECT count(*) FROM report")[0][0])

    def _open(self) -> None:
        """Open the file, mended if it is damaged, and hold it (mending.py)."""
        drop_old_asides(self._path, self._wall_ms())
        require_sound(self._path, SHAPE)
        with ExitStack() as opening:
            opening.enter_context(held(self._path))
            require_private(self._path)
            self._file = opening.enter_context(closing(sqlite3.connect(self._path, timeout=5.0, isolation_level=None)))
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=FULL")
            self._file.execute("PRAGMA secure_delete=ON")
            self._file.executescript(SHAPE.schema)
            self._in_use = opening.pop_all()

    def _done(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a statement; a file whose damage shows is mended first."""
        try:
            return self._file.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if not is_fault_of_file(error):
                raise
        self._in_use.close()
        self._open()
        return self._file.execute(statement, values).fetchall()


def _status(row: list[Any] | tuple[Any, ...]) -> Status:
    *said, body = row
    answers = msgspec.json.decode(body, type=Report).answers
    # Who is nameless here, or was forgotten once they were answered, is owed nothing more.
    is_owed = all(answers.get(name) for name in PERSONAL)
    return Status(**dict(zip(SAID, said, strict=True)), is_owed=is_owed)  # ours: nothing here stops a running desk
