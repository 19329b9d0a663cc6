"""What the desk's file holds, and what of a damaged one is carried over to a new one: reports under their identities.

Every kiosk is told again how its reports are: what it was told is not worth to be trusted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import msgspec

from bega.outbox.pages import INDEX
from bega_kiosk.mending import Shape, records_on_pages, rows_in
from bega_kiosk.report import SAID, Number, Report, Status, read_sent
from bega_protocols.errors import WireError

SCHEMA = """
CREATE TABLE IF NOT EXISTS report (source TEXT, boot INTEGER, seq INTEGER, code TEXT NOT NULL, kind TEXT NOT NULL,
    time_ms INTEGER, heard_ms INTEGER NOT NULL, body BLOB NOT NULL, state TEXT NOT NULL DEFAULT 'received',
    number TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', changed_ms INTEGER NOT NULL,
    is_told INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (source, boot, seq, code)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS by_code ON report (code);
CREATE INDEX IF NOT EXISTS untold ON report (is_told) WHERE is_told = 0;
"""
COLUMNS = "source, boot, seq, code, kind, time_ms, heard_ms, body, state, number, detail, changed_ms, is_told"
INSERT = (
    f"INSERT INTO report ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"  # noqa: S608 -- our own words
    # Of two versions the later state is true, and the shorter words: a name was taken out of the others.
    " ON CONFLICT DO UPDATE SET body = iif(length(excluded.body) < length(body), excluded.body, body),"
    " state = iif(excluded.changed_ms > changed_ms, excluded.state, state),"
    " number = iif(excluded.changed_ms > changed_ms, excluded.number, number),"
    " detail = iif(excluded.changed_ms > changed_ms, excluded.detail, detail),"
    " changed_ms = max(excluded.changed_ms, changed_ms)"
)


class _Told(Status, frozen=True, kw_only=True):
    heard_ms: Number


def carry_over(damaged: Path, file: sqlite3.Connection) -> int:
    """Write to the empty `file` what can be read of the `damaged` one; return how many reports are in it."""
    for report, told, body in _reports(damaged):
        time_ms = report.time_ms if report.time_quality == 0 else None
        identity = (report.source, report.boot, report.seq, report.code)
        status = (told.state, told.number, told.detail, told.changed_ms)
        file.execute(INSERT, (*identity, report.kind, time_ms, told.heard_ms, body, *status))
    return int(file.execute("SELECT count(*) FROM report").fetchone()[0])


def _reports(damaged: Path) -> Iterator[tuple[Report, _Told, bytes]]:
    """Give (report, how it is, its bytes) of each report that is whole, some more than once."""
    rows = rows_in(damaged, f"SELECT {COLUMNS} FROM report")  # noqa: S608 -- our own words
    for row in chain(rows, records_on_pages(damaged, columns=13, kinds=INDEX)):
        *_, heard_ms, body, state, number, detail, changed_ms, _ = row
        code = row[3]
        said = [
            field.decode("utf-8", "replace") if isinstance(field, bytes) else field
            for field in (code, state, number, detail, changed_ms, heard_ms)
        ]
        try:
            told = msgspec.convert(dict(zip((*SAID, "heard_ms"), said, strict=True)), _Told)
            report = read_sent(body) if isinstance(body, bytes) else None
        except (msgspec.ValidationError, WireError):
            continue
        if isinstance(report, Report) and isinstance(body, bytes) and report.code == told.code:
            yield report, told, body


SHAPE = Shape(
    schema=SCHEMA,
    tables={"report": COLUMNS},
    messages="SELECT body FROM report",
    carry_over=carry_over,
)
