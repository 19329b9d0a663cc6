"""What is wrong with a kiosk, and what is not yet as it should be: each thing looked at by itself, in a sentence.

"wrong" is what a citizen suffers from now. "open" is work that people owe: a text that no native reader has read, a
number that nobody rang. The kiosk says such things of itself on its pages, so they end no command with 1.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
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
from bega_kiosk import outbox
from bega_kiosk.config import Config
from bega_kiosk.content import load_content
from bega_kiosk.feed import FAILURES, Latest, LatestRow
from bega_kiosk.places import STORE
from bega_kiosk.words import load_words, reviews
from bega_protocols.errors import ConfigError

FEED_WITHIN_S = 5.0
CLOCKS_APART_MS = 120_000
LEAST_FREE_MB = 200
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
    yield disk(Path(config.kiosk.state_dir))
    yield reports(Path(config.kiosk.state_dir))
    yield screen(config.panel, screens)
    yield browser()


def texts(config: Config) -> Iterator[Finding]:
    """Look at the catalogues: whole, and read by a native reader."""
    try:
        load_words(config.timezone)
    except ConfigError as error:
        yield Finding("texts", "wrong", f"the kiosk does not start: {_first_line(error)}")
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
        why = _first_line(error) or type(error).__name__
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
        with closing(_read_only(path)) as file:
            said = str(file.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        return Finding("store", "wrong", f"{path} is damaged ({said}); the next start puts it aside and begins anew")
    return Finding("store", "good", f"{path} is whole")


def disk(folder: Path) -> Finding:
    """Look at the room that is left where the kiosk writes."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free_mb = shutil.disk_usage(there).free >> 20
    if free_mb < LEAST_FREE_MB:
        return Finding("disk", "wrong", f"{free_mb} MB are free at {there}, {LEAST_FREE_MB} are needed; make room")
    return Finding("disk", "good", f"{free_mb} MB are free")


def reports(folder: Path) -> Finding:
    """Look at the reports that the desk has not acknowledged."""
    path = folder / outbox.FILE
    if not path.exists():
        return Finding("reports", "good", "none waits for the desk")
    try:
        with closing(_read_only(path)) as file:
            waiting = int(file.execute("SELECT count(*) FROM waiting").fetchone()[0])
    except sqlite3.Error as error:
        return Finding("reports", "wrong", f"{path} cannot be read ({error}); the next report puts it aside")
    if waiting >= outbox.MOST_WAITING:
        return Finding("reports", "wrong", f"{waiting} wait for the desk, no more are taken; is the broker reached?")
    if waiting:
        return Finding("reports", "open", f"{waiting} wait for the desk; they go when the broker is reached")
    return Finding("reports", "good", "none waits for the desk")


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


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=2.0)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
