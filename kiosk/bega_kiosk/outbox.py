"""What citizens sent and the desk has not yet acknowledged, and how the reports are whose codes this kiosk gave out.

One SQLite file between two processes: the pages commit to it, the agent sends from it and notes what the desk says.
A report is on the disk before its citizen reads that it is (FULL), leaves only when the desk itself has stored it,
and is overwritten then: it may hold a name. Each use opens the file and lets it go: a few a minute.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from bega.clock import CLOCK_FLOOR_MS, Clock
from bega.outbox.boot import raise_boot
from bega_kiosk.mending import drop_old_asides, held, is_fault_of_file, require_sound
from bega_kiosk.outbox_shape import SCHEMA, SHAPE
from bega_kiosk.private import require_private
from bega_kiosk.report import SAID, Ask, Chance, Report, Status, encode, make_code, read_sent
from bega_protocols.errors import ConfigError, WireError

log = logging.getLogger("bega.kiosk.outbox")

FILE = "reports.sqlite"
MOST_WAITING = 5_000  # of at most 64 kB: a disk that a week without a network fills is no kiosk's
MOST_KNOWN = 10_000


class NotKept(Exception):
    """A report could not be written: say so, and offer another way. Nothing of it was kept."""


class Waiting(NamedTuple):
    """A message for the desk."""

    id: int
    code: str
    payload: bytes


class Heard(NamedTuple):
    """How a report was, and when the desk said so; 0 where its kiosk's clock did not know."""

    status: Status
    heard_ms: int


class Outbox:
    """The file in one kiosk's `folder`."""

    def __init__(self, folder: Path, source: str, wall_ms: Clock, chance: Chance) -> None:
        self._folder = folder
        self._source = source
        self._wall_ms = wall_ms
        self._chance = chance
        self._boot: int | None = None
        self._seq = 0
        self._is_sound = False  # looked at when this process began, and after each damage that shows

    def keep(self, kind: str, answers: dict[str, str], language: str) -> str:
        """Write a report for the desk and return its code; raises NotKept if it is not safely on the disk."""
        now_ms = self._wall_ms()
        try:
            report = Report(
                source=self._source,
                boot=self._raised_boot(),
                seq=self._seq + 1,
                code=make_code(self._chance),
                kind=kind,
                language=language,
                time_ms=max(0, now_ms),
                time_quality=0 if now_ms >= CLOCK_FLOOR_MS else 2,
                answers=answers,
            )
            payload = encode(report)
            read_sent(payload)  # what the desk would refuse is not promised to anybody
            try:
                self._put(report.code, payload)
            except sqlite3.Error as error:
                if not is_fault_of_file(error):
                    raise
                self._put(report.code, payload)  # the file is mended first
        except (sqlite3.Error, OSError, ConfigError, WireError) as error:
            log.error("report could not be kept error=%s", error)
            raise NotKept(str(error)) from None
        self._seq += 1
        return report.code

    def _put(self, code: str, payload: bytes) -> None:
        with self._opened() as file:
            if file.execute("SELECT count(*) FROM waiting").fetchone()[0] >= MOST_WAITING:
                raise NotKept("too many reports wait for the desk")
            file.execute("INSERT INTO waiting (code, payload) VALUES (?, ?)", (code, payload))

    def is_waiting(self, code: str) -> bool:
        """Return whether the desk has not yet acknowledged this report."""
        try:
            with self._opened() as file:
                return _is_waiting(file, code)
        except (sqlite3.Error, OSError):
            return False

    def heard(self, code: str) -> Heard | None:
        """Return what the desk last said of a report; None if it never did."""
        try:
            with self._opened() as file:
                row = file.execute(
                    "SELECT code, state, number, detail, changed_ms, heard_ms,"
                    " EXISTS (SELECT 1 FROM owed WHERE owed.code = known.code) FROM known WHERE code = ?",
                    (code,),
                ).fetchone()
        except (sqlite3.Error, OSError):
            return None
        if row is None:
            return None
        *said, heard_ms, is_owed = row
        return Heard(Status(**dict(zip(SAID, said, strict=True)), is_owed=bool(is_owed)), heard_ms)

    def ask(self, code: str) -> None:
        """Have the agent ask the desk how a report is; without a disk nobody is asked."""
        try:
            with self._opened() as file:
                file.execute("DELETE FROM asked WHERE (SELECT count(*) FROM asked) > 100")
                file.execute("INSERT OR IGNORE INTO asked (code) VALUES (?)", (code,))
        except (sqlite3.Error, OSError) as error:
            log.warning("desk cannot be asked error=%s", error)

    def changed_ns(self) -> int:
        """Return when the file last changed, by whomever; 0 where there is none yet."""
        stamps = [0]
        for name in (FILE, FILE + "-wal"):
            with suppress(OSError):
                stamps.append((self._folder / name).stat().st_mtime_ns)
        return max(stamps)

    def waiting_codes(self) -> dict[str, int]:
        """Return the codes of all reports that wait, with their places, oldest first: a look that costs little."""
        with self._opened() as file:
            return dict(file.execute("SELECT code, id FROM waiting ORDER BY id").fetchall())

    def waiting(self, after_id: int = 0, limit: int = 50) -> list[Waiting]:
        """Return reports that wait, oldest first."""
        with self._opened() as file:
            rows = file.execute(
                "SELECT id, code, payload FROM waiting WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit)
            ).fetchall()
        return [Waiting(id_, code, self._as_ours(payload)) for id_, code, payload in rows]

    def asked(self) -> list[bytes]:
        """Return the questions that wait, and forget them: one unheard is asked again by whoever wants to know."""
        with self._opened() as file:
            if file.execute("SELECT 1 FROM asked").fetchone() is None:
                return []
            try:
                codes = [code for (code,) in file.execute("DELETE FROM asked RETURNING code").fetchall()]
            except sqlite3.OperationalError:  # a full disk: reports go all the same, and nobody is asked for ever
                return []
        return [encode(Ask(code=code)) for code in codes]

    def note(self, status: Status) -> None:
        """Keep what the desk says of a report, which it has stored then: the report itself is overwritten.

        That it knows nothing of one that waits here is no news: it was asked before the report arrived.
        """
        now_ms = self._wall_ms()
        with self._opened() as file:
            if status.state == "unknown" and _is_waiting(file, status.code):
                return
            file.execute(
                "REPLACE INTO known (code, state, number, detail, changed_ms, heard_ms) VALUES (?, ?, ?, ?, ?, ?)",
                (*(getattr(status, name) for name in SAID), now_ms if now_ms >= CLOCK_FLOOR_MS else 0),
            )
            file.execute("DELETE FROM owed WHERE code = ? OR code NOT IN (SELECT code FROM known)", (status.code,))
            if status.is_owed:
                file.execute("INSERT INTO owed (code) VALUES (?)", (status.code,))
            if status.state != "unknown":
                file.execute("DELETE FROM waiting WHERE code = ?", (status.code,))
            file.execute(
                "DELETE FROM known WHERE code IN (SELECT code FROM known ORDER BY heard_ms DESC LIMIT -1 OFFSET ?)",
                (MOST_KNOWN,),
            )
        self._wipe_journal()

    def _wipe_journal(self) -> None:
        """Empty the journal: it holds what was deleted from the file until it is written over."""
        with self._opened() as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _as_ours(self, payload: bytes) -> bytes:
        """Return a report as this kiosk sends it: one that was kept under another name would be nobody's."""
        with suppress(WireError):
            report = read_sent(payload)
            if isinstance(report, Report) and report.source != self._source:
                return encode(msgspec.structs.replace(report, source=self._source))
        return payload

    def _raised_boot(self) -> int:
        if self._boot is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._boot = raise_boot(self._folder, self._wall_ms() // 1000)
        return self._boot

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Hold the file open for one use; what is damaged is mended before the next (mending.py)."""
        path = self._folder / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_sound:
            drop_old_asides(path, self._wall_ms())
            require_sound(path, SHAPE)
            self._is_sound = True
        with held(path):
            try:
                with closing(_connect(path)) as file, file:
                    yield file
            except sqlite3.Error as error:
                self._is_sound = not is_fault_of_file(error)
                raise


def _is_waiting(file: sqlite3.Connection, code: str) -> bool:
    return file.execute("SELECT 1 FROM waiting WHERE code = ?", (code,)).fetchone() is not None


def _connect(path: Path) -> sqlite3.Connection:
    require_private(path)
    file = sqlite3.connect(path, timeout=2.0)
    try:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=FULL")
        file.execute("PRAGMA secure_delete=ON")
        file.executescript(SCHEMA)
    except sqlite3.Error:
        file.close()
        raise
    return file
