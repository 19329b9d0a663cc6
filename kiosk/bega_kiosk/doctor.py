"""What is wrong with a kiosk, and what is not yet as it should be: each thing looked at by itself, in a sentence.

"wrong" is what a citizen suffers from now. "open" is work that people owe: a text that no native reader has read, a
number that nobody rang. The kiosk says such things of itself on its pages, so they end no command with 1.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from bega.browser import chromium
from bega.clock import CLOCK_FLOOR_MS, Clock
from bega.look.panels import Panel
from bega.outbox.aside import files_aside
from bega_kiosk import outbox
from bega_kiosk.air import DUST, INDEX
from bega_kiosk.config import Config
from bega_kiosk.content import Form, load_content, pdf_bytes
from bega_kiosk.feed import FAILURES, Latest, LatestRow
from bega_kiosk.notice_feed import asked, require_list
from bega_kiosk.notice_list import DAY_MS, PUBLIC, NoticeList, read_given
from bega_kiosk.notices import Board
from bega_kiosk.places import NOTICES, STORE
from bega_kiosk.realtime import read_live
from bega_kiosk.report import Report, read_sent
from bega_kiosk.sheet import sheet_path, sheet_screen
from bega_kiosk.signed import read_public_keys
from bega_kiosk.store import AHEAD_MS, Value
from bega_kiosk.timetable import Timetable
from bega_kiosk.transport import Transport
from bega_kiosk.words import LANGUAGES, load_words, reviews
from bega_protocols.errors import ConfigError, WireError

FEED_WITHIN_S = 5.0
PRINTER_WITHIN_S = 5.0
CLOCKS_APART_MS = 120_000
LEAST_FREE_MB = 200
LONGEST_WAIT_MS = 24 * 3_600_000  # a citizen was told that the report goes when there is a network
REACHED = "is the broker reached (reports.mqtt, certificate), does a desk run?"
SCREENS = Path("/sys/class/drm")
DETAILED, EDID_SIZE = 54, 128  # VESA E-EDID A2, 3.1: the first detailed timing has the picture's size in millimetres
SIZE_OFF_MM = 15  # panels called 24 inches differ by so much, and nobody sees it


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: str  # "good", "open" or "wrong"
    says: str


def look(config: Config, wall_ms: Clock, screens: Path = SCREENS) -> Iterator[Finding]:
    """Yield what is so, thing by thing; nothing is changed, and a kiosk may run meanwhile."""
    yield from texts(config)
    yield from facts(config, wall_ms)
    yield clock(wall_ms)
    yield from feed(config, wall_ms)
    yield store(Path(config.kiosk.state_dir))
    yield from air(config, wall_ms)
    yield from notices(config, wall_ms)
    yield from transport(config, wall_ms)
    yield disk(Path(config.kiosk.state_dir))
    yield from reports(config, wall_ms)
    yield screen(config.panel, screens)
    yield from printer(config)
    yield from sheets(config, wall_ms)
    yield browser()


def texts(config: Config) -> Iterator[Finding]:
    """Look at the catalogues: whole, and read by a native reader."""
    try:
        load_words(config.timezone)
    except ConfigError as error:
        yield Finding("texts", "wrong", f"the kiosk does not start: {first_line(error)}")
        return
    for language, topics in reviews().items():
        unread = sorted(topic for topic, review in topics.items() if review)
        if unread:
            said = f"{len(unread)} of {len(topics)} topics wait for a native reader: {', '.join(unread)}"
            yield Finding(f"texts {language}", "open", said)
        else:
            yield Finding(f"texts {language}", "good", f"all {len(topics)} topics were read by a native reader")


def facts(config: Config, wall_ms: Clock) -> Iterator[Finding]:
    """Look at what staff wrote: without mistakes, and asked after by a person within a year."""
    content = load_content(config.content_folder)
    for problem in content.problems:
        yield Finding("content", "wrong", f"left out: {problem}")
    unchecked = content.unchecked(datetime.fromtimestamp(max(0, wall_ms()) / 1000, config.timezone).date())
    if unchecked:
        said = f"{len(unchecked)} facts were not checked within a year, so numbers and hours among them are not shown"
        yield Finding("facts", "open", f"{said}: {', '.join(unchecked)}")
    else:
        yield Finding("facts", "good", "each was checked within a year")


def clock(wall_ms: Clock) -> Finding:
    """Look at this machine's clock: one that was never set makes every age unknown."""
    if wall_ms() < CLOCK_FLOOR_MS:
        return Finding("clock", "wrong", "it was never set, so nothing has an age; set it, or let it ask a time server")
    return Finding("clock", "good", "it was set")


def feed(config: Config, wall_ms: Clock) -> Iterator[Finding]:
    """Look at the feed: there, understood, and of the same time as this machine's clock."""
    address = config.feed.url.rstrip("/") + "/public/v1/latest"
    try:
        with httpx.Client(timeout=FEED_WITHIN_S, trust_env=False) as client:
            answer = client.get(address).raise_for_status()
        rows = [msgspec.json.decode(row, type=LatestRow) for row in _rows(answer.content)]
    except FAILURES as error:
        why = first_line(error) or type(error).__name__
        yield Finding("feed", "wrong", f"{address}: {why}; is the gateway up, is feed.url right?")
        return
    yield _newest(address, rows, wall_ms())
    if (apart_ms := _apart_ms(answer.headers.get("date", ""), wall_ms())) > CLOCKS_APART_MS:
        said = f"{apart_ms // 60_000} minutes lie between this clock and the feed's; ages are wrong by as much"
        yield Finding("clock", "wrong", said)


def store(folder: Path) -> Finding:
    """Look at what the kiosk keeps of the feed: whole, and in a folder that can be written."""
    if not folder.is_dir():
        return Finding("store", "open", f"{folder} does not exist yet; `bega kiosk run` makes it")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror}; reports are refused, and a restart forgets"
        return Finding("store", "wrong", said)
    path = folder / STORE
    if not path.exists():
        return Finding("store", "open", f"{path} does not exist yet; nothing was heard so far")
    try:
        with closing(read_only(path)) as file:
            said = str(file.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        return Finding("store", "wrong", f"{path} is damaged ({said}); the next start puts it aside and begins anew")
    return Finding("store", "good", f"{path} is whole")


def transport(config: Config, wall_ms: Clock) -> Iterator[Finding]:
    """Look at the timetable that is kept, and at what is said of now."""
    settings, now_ms = config.transport, wall_ms()
    if settings.feed is None:
        if config.kiosk.content_dir is None:
            yield Finding("transport", "open", "an example is shown; name the city's GTFS feed (transport.feed)")
        return
    kept = Transport(settings, Path(config.kiosk.state_dir), None, wall_ms)
    why, until_day = kept.why_unknown(now_ms), kept.is_over_on()
    if why == "never" or kept.timetable is None or until_day is None:
        said = f"no timetable of these stops was kept; does `bega kiosk timetable` read {settings.feed}?"
        yield Finding("transport", "wrong", said)
        return
    if why == "stale":
        said = f"nobody has confirmed the timetable for {settings.limit_days} days; is {settings.feed} there?"
        yield Finding("transport", "wrong", said)
    elif why == "over":
        yield Finding("transport", "wrong", f"the timetable was good until {until_day}; ask the city for a newer feed")
    elif why == "early":
        begins = kept.timetable.from_day
        yield Finding("transport", "wrong", f"the timetable begins on {begins}; ask the city for the one before it")
    elif kept.timetable.left_out:
        yield Finding("transport", "open", f"until {until_day}; left out of the feed: {kept.timetable.left_out}")
    elif not why:
        yield Finding("transport", "good", f"{len(kept.timetable.lines)} lines, until {until_day}")
    if settings.realtime is not None:
        yield _realtime(settings.realtime, kept.timetable, settings.realtime_limit_seconds, now_ms)


def _realtime(url: str, timetable: Timetable, limit_s: int, now_ms: int) -> Finding:
    address = url.partition("?")[0]  # some cities ask for a key behind it
    try:
        with httpx.Client(timeout=FEED_WITHIN_S, trust_env=False, follow_redirects=True) as client:
            live = read_live(client.get(url).raise_for_status().content, timetable, now_ms)
    except FAILURES as error:
        why = (first_line(error) or type(error).__name__).replace(url, address)
        return Finding("realtime", "wrong", f"{address}: {why}; times are those of the timetable")
    age_s = (now_ms - live.told_ms) // 1000
    if not -limit_s <= age_s <= limit_s:
        return Finding("realtime", "wrong", f"{address} speaks of {age_s} s ago; times are those of the timetable")
    return Finding("realtime", "good", f"{address} answers, {len(live.trips)} trips of it pass here")


def disk(folder: Path) -> Finding:
    """Look at the room that is left where the kiosk writes."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free_mb = shutil.disk_usage(there).free >> 20
    if free_mb < LEAST_FREE_MB:
        return Finding("disk", "wrong", f"{free_mb} MB are free at {there}, {LEAST_FREE_MB} are needed; make room")
    return Finding("disk", "good", f"{free_mb} MB are free")


def air(config: Config, wall_ms: Clock) -> Iterator[Finding]:
    """Hold the age of what the kiosk heard of its feed against the age at which it shows it no more."""
    limits, path = config.air, Path(config.kiosk.state_dir) / STORE
    try:
        with closing(read_only(path)) as file:
            (body,) = file.execute("SELECT body FROM known WHERE kind = 'values'").fetchone() or (b"[]",)
        values = msgspec.json.decode(body, type=list[Value])
    except (sqlite3.Error, msgspec.DecodeError):
        return  # `store` has said so
    if not values:
        return  # `feed` says why
    for what, quantity, device, limit in (
        ("air index", INDEX, limits.index, limits.verdict_limit_minutes),
        ("air dust", DUST, limits.dust, limits.live_limit_minutes),
    ):
        times = [one.time_ms for one in values if one.quantity == quantity and device in (None, one.device)]
        heard_ms = max(times, default=None)
        remedy = f"is the sensor up, does it give {quantity}, and does {config.feed.url} say so?"
        yield _aged(what, heard_ms, limit, wall_ms(), remedy)


def notices(config: Config, wall_ms: Clock) -> Iterator[Finding]:
    """Look at the city's notices: whether their desk answers now, and how old the kiosk's list is."""
    known = config.notices
    if known.url is None or not known.keys:
        missing = (
            "notices.url, the desk that gives them out" if known.url is None else "notices.keys, who may sign them"
        )
        yield Finding("notices", "open", f"streets and outages are not known; set {missing}")
        return
    try:
        keys = read_public_keys([Path(file) for file in known.keys])
    except ConfigError as error:
        yield Finding("notices", "wrong", f"the kiosk does not start: {first_line(error)}")
        return
    board = Board(Path(config.kiosk.state_dir) / NOTICES, keys, config.kiosk.city, wall_ms)
    yield _desk(known.url, board)
    yield _aged(
        *("notices", board.heard_ms, known.limit_minutes, wall_ms()),
        f"is the kiosk running, does {known.url.rstrip('/')}{PUBLIC} answer?",
    )
    if board.listed is not None:
        yield confirmed(board.listed, known.confirmed_limit_days, wall_ms())


def _desk(url: str, board: Board) -> Finding:
    """Ask a kiosk's desk for its notices, and say why the kiosk would refuse them."""
    address = url.rstrip("/") + PUBLIC
    try:
        messages, list_message = read_given(asyncio.run(asked(url)))
        require_list(list_message)
    except FAILURES as error:
        why = first_line(error) or type(error).__name__
        return Finding("desk", "wrong", f"{address}: {why}; is the desk up, is notices.url right?")
    try:
        board.require_good(messages, list_message or b"")
    except WireError as error:
        said = f"{address}: {error.why}, so the kiosk goes on with what it has; is it the right desk, and its own list?"
        return Finding("desk", "wrong", said)
    return Finding("desk", "good", f"{address} answers, {len(messages)} notices")


def confirmed(listed: NoticeList, limit_days: int, now_ms: int) -> Finding:
    """Hold the day when a person signed the list of notices against the one past which nobody believes it."""
    said = f"list {listed.number} was signed {ago(listed.signed_ms, now_ms)}, the limit is {limit_days} days"
    if not listed.is_good(now_ms, limit_days):
        return Finding("list", "wrong", f"{said}, so the page says it is not known: `bega kiosk notice confirm`")
    if not listed.is_good(now_ms + limit_days * DAY_MS // 3, limit_days):  # a person does it, who has a weekend
        return Finding("list", "open", f"{said}: `bega kiosk notice confirm` is due")
    return Finding("list", "good", said)


def reports(config: Config, wall_ms: Clock) -> Iterator[Finding]:
    """Look at the reports that the desk has not acknowledged, at what it said last, and at damaged files."""
    path = Path(config.kiosk.state_dir) / outbox.FILE
    for aside in files_aside(path):
        when = datetime.fromtimestamp(aside.stat().st_mtime, config.timezone).strftime("%d.%m.%Y")
        said = f"{aside}, last written on {when}, was damaged; what could be read of it went on"
        yield Finding("reports", "open", f"{said}: look at it or delete it, it may hold names")
    if not path.exists():
        yield Finding("reports", "good", "none waits for the desk")
        return
    try:
        with closing(read_only(path)) as file:
            waiting = int(file.execute("SELECT count(*) FROM waiting").fetchone()[0])
            oldest = file.execute("SELECT payload FROM waiting ORDER BY id LIMIT 1").fetchone()
            heard_ms = file.execute("SELECT max(heard_ms) FROM known").fetchone()[0]
    except sqlite3.Error as error:
        said = (
            f"{path} cannot be read ({error}); when the kiosk uses it next it goes aside, and what can be read goes on"
        )
        yield Finding("reports", "wrong", said)
        return
    now_ms = wall_ms()
    told = f"the desk answered last {ago(heard_ms, now_ms)}" if heard_ms else "the desk has answered none yet"
    if not waiting:
        yield Finding("reports", "good", f"none waits for the desk; {told}")
        return
    since_ms = _written_ms(oldest[0])
    said = f"{waiting} wait for the desk, the oldest was written {ago(since_ms, now_ms)}; {told}"
    if waiting >= outbox.MOST_WAITING:
        yield Finding("reports", "wrong", f"{said}; no more are taken: {REACHED}")
    elif since_ms and now_ms - since_ms > LONGEST_WAIT_MS:
        yield Finding("reports", "wrong", f"{said}; {REACHED}")
    else:
        yield Finding("reports", "open", f"{said}; they go when the broker is reached")


def screen(panel: Panel, screens: Path = SCREENS) -> Finding:
    """Hold the screen that hangs on this machine against the one that the pages are drawn for."""
    wanted = f"{panel.width_px} x {panel.height_px}"
    found = [*_connected(screens)]
    if not found:
        return Finding("panel", "open", f"drawn for {wanted}; no screen of this machine says what it is")
    mode, edid = found[0]
    if sorted(mode.split("x")) != sorted((str(panel.width_px), str(panel.height_px))):  # either way up
        return Finding("panel", "wrong", f"drawn for {wanted}, the screen shows {mode}; set kiosk.panel, or the screen")
    width_mm = _width_mm(edid)
    wanted_mm = round(max(panel.width_px, panel.height_px) / panel.px_per_mm)
    if width_mm and abs(width_mm - wanted_mm) > SIZE_OFF_MM:
        said = f"the screen is {width_mm} mm long, the pages are for {wanted_mm} mm: letters and keys have other sizes"
        return Finding("panel", "wrong", said)
    return Finding("panel", "good", f"{wanted}, as the screen" + (f", {width_mm} mm long" if width_mm else ""))


def printer(config: Config) -> Iterator[Finding]:
    """Look at the queue for forms, where one is named: CUPS has it, and it takes documents."""
    queue = config.printer.queue
    if queue is None:
        return
    try:
        english = {**os.environ, "LC_ALL": "C"}  # its words are looked at
        asked = subprocess.run(
            ["lpstat", "-a", queue], capture_output=True, timeout=PRINTER_WITHIN_S, check=False, env=english
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("printer", "wrong", f"CUPS cannot be asked ({first_line(error)}); are cups and cups-client here?")
        return
    said = " ".join((asked.stdout or asked.stderr).decode("utf-8", "replace")[:300].split())
    if asked.returncode or " accepting requests" not in said or "not accepting" in said:
        yield Finding(
            "printer", "wrong", f"{queue}: {said or 'CUPS has no such queue'}; `lpstat -e` lists what there is"
        )
    else:
        yield Finding("printer", "good", f"{queue} takes forms")


def sheets(config: Config, wall_ms: Clock) -> Iterator[Finding]:
    """Look for the sheets of forms that no clerk has given, where there is a printer for them."""
    content = load_content(config.content_folder)
    forms = [form for form in content.every(Form) if form.file is None]
    if config.printer.queue is None or not forms:
        return
    try:
        words = load_words(config.timezone)
    except ConfigError:
        return  # `texts` has said so
    folder, now_ms = Path(config.kiosk.state_dir), wall_ms()
    screens = [(sheet_screen(config, words[language], form, now_ms), form) for form in forms for language in LANGUAGES]
    lacking = sum(pdf_bytes(sheet_path(folder, screen, content, form)) is None for screen, form in screens)
    if lacking:
        said = f"{lacking} of {len(screens)} are not there, or say what is not so any more, and have no key to print"
        yield Finding("sheets", "open", f"{said}: `bega kiosk forms` makes them")
    else:
        yield Finding("sheets", "good", f"all {len(screens)} are there, of {len(forms)} forms without a file")


def browser() -> Finding:
    """Look for the program that shows the pages."""
    try:
        return Finding("browser", "good", chromium())
    except ConfigError as error:
        return Finding("browser", "wrong", str(error))


def _rows(body: bytes) -> list[msgspec.Raw]:
    return msgspec.json.decode(body, type=Latest).readings


def _newest(address: str, rows: list[LatestRow], now_ms: int) -> Finding:
    if not rows:
        return Finding("feed", "open", f"{address} answers, and has nothing yet; is there a sensor?")
    age_min = (now_ms - max(row.time_ms for row in rows)) // 60_000
    if age_min > 60:
        return Finding("feed", "wrong", f"its newest value is {age_min} minutes old: is the sensor away? ({address})")
    return Finding("feed", "good", f"{address} answers, {len(rows)} values")


def _aged(what: str, heard_ms: int | None, limit_minutes: float, now_ms: int, remedy: str) -> Finding:
    """Hold an age against the one past which the page says "nu știm acum"."""
    if heard_ms is None:
        return Finding(what, "wrong", f"never heard, so the page says it is not known: {remedy}")
    limit = f"the limit is {limit_minutes:g} minutes"
    if not -AHEAD_MS <= now_ms - heard_ms <= limit_minutes * 60_000:
        return Finding(
            what, "wrong", f"from {ago(heard_ms, now_ms)}, {limit}, so the page says it is not known: {remedy}"
        )
    return Finding(what, "good", f"from {ago(heard_ms, now_ms)}, {limit}")


def ago(then_ms: int, now_ms: int) -> str:
    """Return how long ago something was, in words; a clock that was not set knows no ages."""
    if min(then_ms, now_ms) < CLOCK_FLOOR_MS:
        return "at a time that no clock knew"
    minutes = (now_ms - then_ms) // 60_000
    if then_ms > now_ms + AHEAD_MS:
        return "a time to come (which clock is wrong?)"
    days, hours = minutes // 1440, minutes // 60
    return f"{days} days ago" if days > 1 else f"{hours} hours ago" if hours > 1 else f"{max(0, minutes)} minutes ago"


def _written_ms(payload: bytes) -> int:
    """Return when a report was written, 0 where its kiosk's clock was not set, or it cannot be read."""
    try:
        report = read_sent(payload)
    except (WireError, TypeError):
        return 0
    return report.time_ms if isinstance(report, Report) and report.time_quality == 0 else 0


def _apart_ms(date: str, now_ms: int) -> int:
    """Return how far a `Date` header is from now; 0 where there is none that can be read."""
    try:
        return abs(round(parsedate_to_datetime(date).timestamp() * 1000) - now_ms)
    except ValueError:
        return 0


def _connected(screens: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (mode as in "1920x1080", EDID) of each screen that is plugged in."""
    for status in sorted(screens.glob("card*-*/status")):
        try:
            if status.read_text(encoding="ascii").strip() != "connected":
                continue
            modes = (status.parent / "modes").read_text(encoding="ascii").split()
            edid = (status.parent / "edid").read_bytes()
        except (OSError, UnicodeDecodeError):
            continue
        if modes:
            yield modes[0], edid


def _width_mm(edid: bytes) -> int:
    """Return how long a screen's longer side is; 0 where it does not say (a projector, a cheap adapter)."""
    if len(edid) < EDID_SIZE:
        return 0
    width, height, high = edid[DETAILED + 12 : DETAILED + 15]
    return max(width | (high & 0xF0) << 4, height | (high & 0x0F) << 8)


def read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=2.0)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
