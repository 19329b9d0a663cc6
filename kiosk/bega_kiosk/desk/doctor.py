"""What is wrong with a desk, and what people still owe it: each thing looked at by itself, in a sentence.

"wrong" is what a citizen suffers from now, or will within days. Nothing is changed, and the desk may run meanwhile.
"""

from __future__ import annotations

import socket
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from bega.clock import Clock
from bega.outbox.aside import files_aside
from bega_kiosk import doctor
from bega_kiosk.config import Notices
from bega_kiosk.desk.app import NOTICES, Settings
from bega_kiosk.desk.store import FILE
from bega_kiosk.doctor import Finding, ago, first_line, read_only
from bega_kiosk.notice_list import PUBLIC
from bega_kiosk.notices import Board
from bega_kiosk.signed import read_public_keys
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

WITHIN_S = 5.0
DAY_MS = 86_400_000
SOON_DAYS = 30  # a new certificate is asked for, brought and tried by people
UNTOLD_LIMIT_MS = DAY_MS  # a kiosk that is on hears within seconds
ANSWER_LIMIT_MS = 30 * DAY_MS  # OG 27/2002, article 8; and as long as a report without a name should lie
UNREAD_LIMIT_MS = 7 * DAY_MS
BACKUP_LIMIT_MS = 2 * DAY_MS
LIST_LIMIT_DAYS = Notices().confirmed_limit_days
OPEN_STATES = "('received', 'forwarded', 'work')"


def look(settings: Settings, backup: Path | None, wall_ms: Clock) -> Iterator[Finding]:
    """Yield what is so, thing by thing."""
    yield doctor.clock(wall_ms)
    yield answers(settings.listen)
    yield from store(settings.data, wall_ms)
    yield doctor.disk(settings.data)
    yield from certificate(settings, wall_ms)
    yield broker(settings)
    yield from notices(settings, wall_ms)
    yield saved(backup, wall_ms)


def answers(listen: str) -> Finding:
    """Look whether the desk is up where it is said to be."""
    url = f"http://{listen}{PUBLIC}"
    try:
        httpx.get(url, timeout=WITHIN_S, trust_env=False).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = first_line(error) or type(error).__name__
        return Finding("desk", "wrong", f"{url}: {why}; does `bega desk run` run, are --host and --port its own?")
    return Finding("desk", "good", f"{url} answers")


def store(folder: Path, wall_ms: Clock) -> Iterator[Finding]:
    """Look at the file of reports: whole; what waits for its kiosk, and what waits for people, and since when."""
    path = folder / FILE
    for aside in files_aside(path):
        yield Finding("reports", "open", f"{aside} was damaged; look at it or delete it, it may hold names")
    if not path.exists():
        yield Finding("reports", "wrong", f"{path} does not exist; is --data the folder of `bega desk run`?")
        return
    try:
        with closing(read_only(path)) as file:
            said = str(file.execute("PRAGMA quick_check").fetchone()[0])
            if said != "ok":
                raise sqlite3.DatabaseError(said)
            count = int(file.execute("SELECT count(*) FROM report").fetchone()[0])
            untold = _since(file, "SELECT count(*), min(changed_ms) FROM report WHERE is_told = 0")
            unread = _since(file, "SELECT count(*), min(heard_ms) FROM report WHERE state = 'received'")
            # -- ours: nothing of it was given by anybody
            owed = _since(file, f"SELECT count(*), min(heard_ms) FROM report WHERE state IN {OPEN_STATES}")  # noqa: S608
    except sqlite3.Error as error:
        yield Finding("reports", "wrong", f"{path}: {error}; `bega desk run` mends it at its next start")
        return
    yield Finding("reports", "good", f"{count} reports, the file is whole")
    yield _queue(
        "queue", untold, UNTOLD_LIMIT_MS, wall_ms(), "wait for their kiosk to be told", "is the broker reached?"
    )
    yield _queue("unread", unread, UNREAD_LIMIT_MS, wall_ms(), "wait to be read", "see `bega desk list`")
    remedy = "the law gives 30 days where a name was given; see `bega desk list`, `bega desk set`"
    yield _queue("answers", owed, ANSWER_LIMIT_MS, wall_ms(), "wait for an answer", remedy)


def certificate(settings: Settings, wall_ms: Clock) -> Iterator[Finding]:
    """Look at the desk's certificate: it is the key's, it is of this name, and it is good for a while."""
    given = settings.credentials
    if given is None or given.cert_file is None:
        if (settings.broker or "").startswith("mqtts:"):
            yield Finding("certificate", "open", "none is given, and a city's broker asks for one; see --cert-file")
        return
    from cryptography.x509 import NameOID, load_pem_x509_certificate

    try:
        ssl.create_default_context().load_cert_chain(given.cert_file, given.key_file)
        one: Certificate = load_pem_x509_certificate(Path(given.cert_file).read_bytes())
    except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
        why = first_line(error)
        yield Finding("certificate", "wrong", f"{given.cert_file}: {why}; is it a certificate, and --key-file its key?")
        return
    names = [str(name.value) for name in one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if settings.name not in names:
        said = f"it is of {', '.join(names) or 'nobody'}, and the desk is called {settings.name}; set --name"
        yield Finding("certificate", "wrong", said)
        return
    left = (one.not_valid_after_utc - datetime.fromtimestamp(wall_ms() / 1000, UTC)).days
    until = f"good until {one.not_valid_after_utc:%Y-%m-%d}"
    if left < 0:
        yield Finding("certificate", "wrong", f"it was {until}; make a new one with `bega ca issue`")
    elif left < SOON_DAYS:
        yield Finding("certificate", "wrong", f"{until}, {left} days more; make a new one with `bega ca issue`")
    else:
        yield Finding("certificate", "good", until)


def broker(settings: Settings) -> Finding:
    """Look whether the broker is there, and is who it says; no message goes, since a running desk has the same name."""
    if settings.broker is None:
        return Finding("broker", "open", "none is given (--mqtt), so no report arrives and nobody is told of changes")
    parts, given = urlsplit(settings.broker), settings.credentials
    host, port = str(parts.hostname), parts.port or (8883 if parts.scheme == "mqtts" else 1883)
    try:
        with socket.create_connection((host, port), WITHIN_S) as plain:
            if parts.scheme == "mqtts":
                context = ssl.create_default_context(cafile=given.ca_file if given else None)
                if given and given.cert_file:
                    context.load_cert_chain(given.cert_file, given.key_file)
                context.wrap_socket(plain, server_hostname=host).close()
    except OSError as error:
        return Finding("broker", "wrong", f"{settings.broker}: {first_line(error)}; does it run, is --ca-file its own?")
    return Finding("broker", "good", f"{settings.broker} is reached")


def notices(settings: Settings, wall_ms: Clock) -> Iterator[Finding]:
    """Look at the city's key, and at the list of notices: signed, and confirmed lately enough for kiosks to believe."""
    if not settings.city_keys:
        yield Finding("key", "open", "none is given (--city-key), so nobody can publish a notice")
        return
    try:
        keys = read_public_keys(settings.city_keys)
    except ConfigError as error:
        yield Finding("key", "wrong", f"the desk does not start: {first_line(error)}")
        return
    yield Finding("key", "good", f"{len(keys)} may publish")
    now_ms = wall_ms()
    board = Board(settings.data / NOTICES, keys, settings.city, wall_ms)
    if board.listed is None:
        yield Finding("list", "open", "no list of notices was signed yet, so kiosks say that they do not know")
        return
    yield doctor.confirmed(board.listed, LIST_LIMIT_DAYS, now_ms)
    held = [notice for notice in board.every() if not notice.is_over(now_ms)]
    newest_ms = max((notice.published_ms for notice in held), default=None)
    said = (
        f"{len(held)} hold now"
        if newest_ms is None
        else f"{len(held)} hold now, the newest from {ago(newest_ms, now_ms)}"
    )
    yield Finding("notices", "good", said)


def saved(folder: Path | None, wall_ms: Clock) -> Finding:
    """Look at the newest copy of the desk's file: young, and whole."""
    if folder is None:
        return Finding("backup", "open", "say where copies of the desk's file lie, with --backup DIR")
    copies = [path for path in folder.rglob("*desk*.sqlite*") if path.is_file()]
    if not copies:
        return Finding("backup", "wrong", f"{folder} has no copy of {FILE}; is it the right folder, is the disk there?")
    newest = max(copies, key=lambda path: path.stat().st_mtime_ns)
    saved_ms, now_ms = newest.stat().st_mtime_ns // 1_000_000, wall_ms()
    try:
        with closing(read_only(newest)) as file:
            said = str(file.execute("PRAGMA quick_check").fetchone()[0])
            count = int(file.execute("SELECT count(*) FROM report").fetchone()[0])
    except sqlite3.Error as error:
        said, count = str(error), 0
    if said != "ok":
        return Finding("backup", "wrong", f"{newest} is damaged ({said}); make another")
    if now_ms - saved_ms > BACKUP_LIMIT_MS:
        return Finding("backup", "wrong", f"{newest} is from {ago(saved_ms, now_ms)}; does what makes it still run?")
    return Finding("backup", "good", f"{newest} is from {ago(saved_ms, now_ms)}, {count} reports")


def _since(file: sqlite3.Connection, question: str) -> tuple[int, int]:
    count, since_ms = file.execute(question).fetchone()
    return int(count), int(since_ms or 0)


def _queue(what: str, found: tuple[int, int], limit_ms: int, now_ms: int, waits: str, remedy: str) -> Finding:
    count, since_ms = found
    if not count:
        return Finding(what, "good", f"none {waits.replace('wait', 'waits', 1)}")
    said = f"{count} {waits}, the oldest from {ago(since_ms, now_ms)}"
    return Finding(what, "wrong" if now_ms - since_ms > limit_ms else "good", f"{said}; {remedy}")
