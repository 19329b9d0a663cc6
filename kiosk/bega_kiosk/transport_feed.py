"""A city's timetable and what it says of now, fetched for ever: at the start, then every six hours and twice a minute.

A timetable is fetched into a file, and cut down by a child at low priority (`bega kiosk timetable`): a city's million
rows are a minute's work on a Pi, and whoever taps meanwhile shall not wait for it. Only what was read to its end takes
the place of what is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from bega.clock import CLOCK_FLOOR_MS, Clock
from bega_kiosk.feed import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, get_whole
from bega_kiosk.realtime import Live, read_live
from bega_kiosk.timetable import Timetable, open_timetable
from bega_kiosk.transport import Transport
from bega_protocols.errors import LineError, WireError

log = logging.getLogger("bega.kiosk.transport")

EVERY_S = 6 * 3600.0
AGAIN_AFTER_S = 600.0  # when the feed was away or wrong
LIVE_EVERY_S = 30.0
FETCH_S, PREPARE_S = 1800.0, 1800.0
SILENT_S = 60.0
MOST_ZIP_BYTES = 500 << 20
LONGEST_REASON = 300
Mark = dict[str, Any]  # by what a source is known again: its address, and a tag or a date


class TransportFeed:
    """One city's feeds, asked again and again."""

    def __init__(self, transport: Transport, call_pages: Callable[[], None], wall_ms: Clock) -> None:
        self._transport = transport
        self._settings = transport.settings
        self._call_pages = call_pages
        self._wall_ms = wall_ms
        self._said: dict[str, str] = {}  # why each feed was away when it was asked last
        self._live: dict[str, Live] = {}
        self._reading = asyncio.Lock()  # while a thread reads the timetable it stays open

    async def follow(self) -> None:
        """Fetch for ever, whatever the city's servers do."""
        # No proxy and no .netrc from the environment; nothing is compressed, so a length is what it says.
        headers = {"Accept-Encoding": "identity"}
        timeout = httpx.Timeout(10.0, read=SILENT_S)
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False, headers=headers, follow_redirects=True) as client,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._follow_timetable(client))
            for url in dict.fromkeys(filter(None, (self._settings.realtime, self._settings.alerts))):
                tasks.create_task(self._follow_live(client, url))

    async def _follow_timetable(self, client: httpx.AsyncClient) -> None:
        while True:
            is_there = await self.fetch_timetable(client)
            if self._wall_ms() < CLOCK_FLOOR_MS:  # a Pi at its start; what was fetched now has no date
                await asyncio.sleep(LONGEST_PAUSE_S)
            else:
                await asyncio.sleep(EVERY_S if is_there else AGAIN_AFTER_S)

    async def fetch_timetable(self, client: httpx.AsyncClient) -> bool:
        """Take the timetable as the source has it now; return whether it could be taken."""
        feed = str(self._settings.feed)
        try:
            if feed.startswith(("http://", "https://")):
                await self._take_address(client, feed)
            else:
                await self._take_file(Path(feed))
        except (*FAILURES, OSError) as error:
            self._away("timetable", feed, error)
            return False
        self._back("timetable", feed)
        self._call_pages()
        return True

    async def _take_address(self, client: httpx.AsyncClient, url: str) -> None:
        mark = self._mark()
        asked: dict[str, str | None] = {}
        if self._transport.timetable is not None and mark.get("feed") == url:
            asked = {"If-None-Match": mark.get("etag"), "If-Modified-Since": mark.get("modified")}
        part = self._transport.path.with_suffix(".zip.part")
        try:
            async with (
                asyncio.timeout(FETCH_S),
                client.stream("GET", url, headers=_sendable(asked)) as answer,
            ):
                if answer.status_code == httpx.codes.NOT_MODIFIED:
                    self._transport.confirm()
                    return
                if answer.status_code != httpx.codes.OK:
                    raise LineError(f"it answers {answer.status_code}")
                await _write(answer, part)
                mark = {
                    "feed": url,
                    "etag": answer.headers.get("etag"),
                    "modified": answer.headers.get("last-modified"),
                }
            await self._prepare(part, mark)
        finally:
            part.unlink(missing_ok=True)

    async def _take_file(self, path: Path) -> None:
        found = path.stat()
        mark = {"feed": str(path), "size": found.st_size, "changed_ns": found.st_mtime_ns}
        if self._transport.timetable is None or self._mark() != mark:
            await self._prepare(path, mark)
        else:
            self._transport.confirm()

    async def _prepare(self, source: Path, mark: Mark) -> None:
        """Have `source` cut down, and take it; raises WireError that says in a sentence what is wrong with it."""
        path = self._transport.path
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        child = await asyncio.create_subprocess_exec(
            *command(source, part, self._settings.stops),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PREPARE_S):
                _, said = await child.communicate()
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
            if child.returncode != 0:
                part.unlink(missing_ok=True)  # half of one may be all that the disk had room for
        if child.returncode != 0:
            lines = said.decode(errors="replace").strip().splitlines() or ["it was ended"]
            raise WireError(lines[-1][-LONGEST_REASON:])
        found = await asyncio.to_thread(self._put_in_place, part)
        async with self._reading:  # the timetable that goes is closed
            self._transport.take(found)
        self._transport.confirm()
        self._mark_path().write_text(json.dumps(mark), encoding="utf-8")
        left_out = self._transport.timetable.left_out if self._transport.timetable else ""
        log.info("timetable taken publisher=%s left_out=%s", self._publisher(), left_out or "nothing")

    def _put_in_place(self, part: Path) -> Timetable | None:
        """Put what was prepared in the place of what is kept, and open it. In a thread: a card may take seconds."""
        try:
            self._transport.require_no_worse(part)
        except WireError:
            part.unlink()
            raise
        _sync(part)
        part.replace(self._transport.path)
        return open_timetable(self._transport.path)

    async def _follow_live(self, client: httpx.AsyncClient, url: str) -> None:
        while True:
            if self._transport.timetable is None:  # nothing that is said of now could be understood
                await asyncio.sleep(FIRST_PAUSE_S)
                continue
            is_there = await self.fetch_live(client, url)
            await asyncio.sleep(LIVE_EVERY_S if is_there else LONGEST_PAUSE_S)

    async def fetch_live(self, client: httpx.AsyncClient, url: str) -> bool:
        """Take what a city says of now; return whether it could be taken."""
        try:
            body = await get_whole(client, url)
            async with self._reading:
                timetable = self._transport.timetable
                if timetable is None:
                    return False
                # In a thread: a city's whole message is some hundred milliseconds of a Pi, twice a minute.
                live = await asyncio.to_thread(read_live, body, timetable, self._wall_ms())
        except FAILURES as error:
            self._away("realtime", url, error)
            return False
        self._back("realtime", url)
        if url == self._settings.realtime:
            self._transport.live = live
        self._live[url] = live
        self._transport.alerts = tuple(alert for one in self._live.values() for alert in one.alerts)
        self._call_pages()
        return True

    def _away(self, what: str, source: str, error: Exception) -> None:
        why = (error.why if isinstance(error, WireError) else str(error)) or type(error).__name__
        if self._said.get(source) != why:
            log.warning("%s away or wrong, the last stays: source=%s why=%s", what, _public(source), why)
        self._said[source] = why

    def _back(self, what: str, source: str) -> None:
        if self._said.pop(source, None) is not None:
            log.info("%s back source=%s", what, _public(source))

    def _publisher(self) -> str:
        return self._transport.timetable.publisher if self._transport.timetable else ""

    def _mark_path(self) -> Path:
        return self._transport.path.with_suffix(".source")

    def _mark(self) -> Mark:
        try:
            mark = json.loads(self._mark_path().read_bytes())
        except (OSError, ValueError):
            return {}
        return mark if isinstance(mark, dict) else {}


def command(source: Path, target: Path, stops: list[str]) -> list[str]:
    """Return the command that cuts a feed down."""
    named = [part for stop in stops for part in ("--stop", stop)]
    return [sys.executable, "-m", "bega", "kiosk", "timetable", str(source), *named, "--into", str(target)]


async def _write(answer: httpx.Response, path: Path) -> None:
    size = 0
    with path.open("wb") as file:
        async for chunk in answer.aiter_raw():
            size += len(chunk)
            if size > MOST_ZIP_BYTES:
                raise LineError(f"it answers more than {MOST_ZIP_BYTES >> 20} MB")
            file.write(chunk)


def _sendable(headers: Mapping[str, str | None]) -> dict[str, str]:
    """Return the headers that can be sent; some servers give a tag that a request cannot carry."""
    return {key: value for key, value in headers.items() if value and value.isascii() and value.isprintable()}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _public(source: str) -> str:
    """Return a source without what stands after "?": some cities ask for a key there."""
    return source.partition("?")[0]
