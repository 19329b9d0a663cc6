"""What the kiosk's file of reports holds, and what of a damaged one is carried over to a new one.

Each report goes on under its own identity (source, boot, seq) and code: one that the desk has already is counted once
there. What the desk is known to have is not sent again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import msgspec

from bega_kiosk.mending import Shape, records_on_pages, rows_in
from bega_kiosk.report import SAID, Number, Report, Status, read_sent
from bega_protocols.errors import WireError

SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS asked (code TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS known (code TEXT PRIMARY KEY, state TEXT, number TEXT, detail TEXT, changed_ms INTEGER,
    heard_ms INTEGER);
CREATE TABLE IF NOT EXISTS owed (code TEXT PRIMARY KEY) WITHOUT ROWID;
"""
KNOWN = "code, state, number, detail, changed_ms, heard_ms"
INSERT_KNOWN = (
    f"INSERT INTO known ({KNOWN}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state,"  # noqa: S608
    " number = excluded.number, detail = excluded.detail, changed_ms = excluded.changed_ms,"
    " heard_ms = excluded.heard_ms WHERE excluded.changed_ms > changed_ms"
)


class _Heard(Status, frozen=True, kw_only=True):
    heard_ms: Number


def carry_over(damaged: Path, file: sqlite3.Connection) -> int:
    """Write to the empty `file` what can be read of the `damaged` one; return how many reports wait in it."""
    for heard in _known(damaged):
        file.execute(INSERT_KNOWN, [getattr(heard, name) for name in (*SAID, "heard_ms")])
    for place, report, payload in _waiting(damaged):
        row = (report.code, payload, report.code)
        insert = "INSERT OR IGNORE INTO waiting (id, code, payload) SELECT {}, ?, ? WHERE NOT EXISTS"
        insert += " (SELECT 1 FROM known WHERE code = ? AND state != 'unknown')"
        if not file.execute(insert.format("?"), (place, *row)).rowcount:  # it is there, or its place is another's
            file.execute(insert.format("NULL"), row)
    return int(file.execute("SELECT count(*) FROM waiting").fetchone()[0])


def _waiting(damaged: Path) -> Iterator[tuple[int, Report, bytes]]:
    """Give (place, report, its bytes) of each report that is whole, some more than once."""
    rows = rows_in(damaged, "SELECT id, NULL, CAST(code AS BLOB), CAST(payload AS BLOB) FROM waiting ORDER BY id")
    for place, _, code, payload in chain(rows, records_on_pages(damaged, columns=4)):
        if not isinstance(place, int) or not isinstance(payload, bytes) or not isinstance(code, bytes):
            continue
        try:
            report = read_sent(payload)
        except WireError:
            continue
        if isinstance(report, Report) and report.code.encode() == code and 0 < place < 2**53:
            yield place, report, payload


def _known(damaged: Path) -> Iterator[_Heard]:
    """Give what the desk said of reports, as far as it is whole, some more than once."""
    rows = rows_in(damaged, f"SELECT 0, {KNOWN} FROM known")  # noqa: S608 -- our own words
    for _, *fields in chain(rows, records_on_pages(damaged, columns=7)):
        texts = [field.decode("utf-8", "replace") if isinstance(field, bytes) else field for field in fields]
        try:
            yield msgspec.convert(dict(zip((*SAID, "heard_ms"), texts, strict=True)), _Heard)
        except msgspec.ValidationError:
            continue


SHAPE = Shape(
    schema=SCHEMA,
    tables={"waiting": "id, code, payload", "asked": "code", "known": KNOWN},
    messages="SELECT payload FROM waiting",
    carry_over=carry_over,
)
