"""The public feed over HTTP: read without credentials, followed for ever, believed in nothing.

    GET /public/v1/latest                                          the newest value of everything
    GET /public/v1/series?quantity=pm2_5&hours=24&step_s=300       means per step
    GET /public/v1/events                                          each record as it comes (server-sent events)

Whatever is not as the contract says is counted and left out; an answer that is too long, too slow or no answer at all
costs a pause and another try.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Annotated, TypeVar

import httpx
import msgspec

from bega_kiosk.store import HOURS, MOST_ROWS, STEP_S, Sample, Series, Store, Value
from bega_protocols.errors import LineError, WireError

log = logging.getLogger("bega.kiosk.feed")

REFETCH_S = 60.0
ANSWER_S = 20.0  # for a whole answer, however slowly it drips
SILENT_S = 45.0  # the feed sends a comment every 15 s
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
MOST_BYTES = 8 << 20
MOST_LINE = 256 << 10
NONSENSE = (msgspec.MsgspecError, UnicodeError, RecursionError)  # the last: brackets in brackets without end
FAILURES = (httpx.HTTPError, httpx.InvalidURL, LineError, WireError, TimeoutError, *NONSENSE)

Row = TypeVar("Row")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Text = Annotated[str, msgspec.Meta(max_length=200)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Grade = Annotated[int, msgspec.Meta(ge=0, le=2)]


class LatestRow(msgspec.Struct):
    """One row of `latest`. The unit is the quantity's own, so it is not read again."""

    source: Name
    device: Name
    quantity: Name
    value: float | None
    time_ms: Milliseconds
    label: Text = ""
    part: Text = ""
    time_quality: Grade = 0
    quality: Grade = 0
    simulated: bool = False


class Latest(msgspec.Struct):
    """The answer of `latest`; each row is read by itself, so that a wrong one spoils no other."""

    readings: list[msgspec.Raw]


class SeriesRow(msgspec.Struct):
    """One device of `series`."""

    source: Name
    device: Name
    points: list[tuple[Milliseconds, float | None, Grade, int]]
    label: Text = ""
    part: Text = ""


class SeriesAnswer(msgspec.Struct):
    """The answer of `series`."""

    quantity: Name
    series: list[msgspec.Raw]


class EventReading(msgspec.Struct):
    """One reading of an event's record."""

    quantity: Name
    value: float | None
    part: Text = ""
    quality: Grade = 0


class Event(msgspec.Struct):
    """One record as it came."""

    source: Name
    device: Name
    time_ms: Milliseconds
    readings: list[EventReading]
    label: Text = ""
    time_quality: Grade = 0
    simulated: bool = False


class EventStream:
    """Cuts a stream of server-sent events into (event, data); no IO. Lines end in LF or CR LF, as ours do."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._length = 0

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """Return the events that `chunk` completes; raises WireError if a line or an event has no end."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MOST_LINE or self._length > MOST_LINE:
            raise WireError("an event without end", self._rest[:40])
        return [event for line in lines if (event := self._line(line.rstrip(b"\r").decode(errors="replace")))]

    def _line(self, line: str) -> tuple[str, str] | None:
        if not line:
            event, data = self._event or "message", "\n".join(self._data)
            had_data = bool(self._data)
            self._event, self._data, self._length = "", [], 0
            return (event, data) if had_data else None
        self._length += len(line)
        field, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if field == "event":
            self._event = text
        elif field == "data":
            self._data.append(text)
        return None  # a comment begins with a colon: its field is empty


class Feed:
    """One feed, followed: what it says goes into the store."""

    def __init__(self, url: str, store: Store, wanted: Iterable[str], plotted: Iterable[str]) -> None:
        """`wanted` are the quantities that pages show, `plotted` those whose last 24 hours they show."""
        self._url = url.rstrip("/")
        self._store = store
        self._wanted = frozenset(wanted)
        self._plotted = tuple(plotted)
        self._refetch_now = asyncio.Event()
        self._refused = 0

    async def follow(self) -> None:
        """Follow the feed for ever, whatever it does."""
        timeout = httpx.Timeout(5.0, read=SILENT_S)
        # No proxy and no .netrc from the environment; nothing is compressed, so a length is what it says.
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False, headers={"Accept-Encoding": "identity"}) as client,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._again_and_again("feed", lambda: self._fetch(client)))
            tasks.create_task(self._again_and_again("events", lambda: self._listen(client)))

    async def _again_and_again(self, what: str, attempt: Callable[[], AsyncIterator[None]]) -> None:
        """Run `attempt` for ever, with a longer pause after each failure; it yields whenever it has succeeded."""
        pause_s, is_away = FIRST_PAUSE_S, False
        while True:
            why = "it ended"
            try:
                async for _ in attempt():
                    if is_away:
                        log.info("%s back url=%s", what, self._url)
                    pause_s, is_away = FIRST_PAUSE_S, False
            except FAILURES as error:
                why = str(error) or type(error).__name__
            if not is_away:
                log.warning("%s away url=%s why=%s", what, self._url, why)
            is_away = True
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _fetch(self, client: httpx.AsyncClient) -> AsyncIterator[None]:
        """Fetch the newest values and the series, now and every minute, and at once when events have begun again."""
        while True:
            self._refetch_now.clear()
            self._take_latest(await self._get(client, "/public/v1/latest"))
            for quantity in self._plotted:
                path = f"/public/v1/series?quantity={quantity}&hours={HOURS}&step_s={STEP_S}"
                self._take_series(quantity, await self._get(client, path))
            yield
            try:
                async with asyncio.timeout(REFETCH_S):
                    await self._refetch_now.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(FIRST_PAUSE_S)  # a feed whose events break at once is not asked without end

    async def _listen(self, client: httpx.AsyncClient) -> AsyncIterator[None]:
        """Take each record as it comes."""
        stream = EventStream()
        async with client.stream("GET", self._url + "/public/v1/events") as answer:
            _must_be_ok(answer)
            self._refetch_now.set()
            async for chunk in answer.aiter_raw():  # as they come: with a size, httpx waits until that much is there
                for event, data in stream.feed(chunk):
                    if event == "record":
                        self._take_event(data)
                yield

    async def _get(self, client: httpx.AsyncClient, path: str) -> bytes:
        return await get_whole(client, self._url + path)

    def _take_latest(self, body: bytes) -> None:
        rows = [self._read(row, LatestRow) for row in msgspec.json.decode(body, type=Latest).readings[:MOST_ROWS]]
        self._store.take_values(
            Value(
                source=row.source,
                device=row.device,
                label=row.label,
                quantity=row.quantity,
                part=row.part,
                value=row.value,
                time_ms=row.time_ms,
                time_quality=row.time_quality,
                quality=row.quality,
                is_simulated=row.simulated,
            )
            for row in rows
            if row is not None and row.quantity in self._wanted
        )

    def _take_series(self, quantity: str, body: bytes) -> None:
        answer = msgspec.json.decode(body, type=SeriesAnswer)
        if answer.quantity != quantity:
            raise WireError(f"asked for {quantity}, the feed answers with {answer.quantity[:40]}")
        rows = [self._read(row, SeriesRow) for row in answer.series[:MOST_ROWS]]
        self._store.take_series(quantity, [_series(row) for row in rows if row is not None])

    def _take_event(self, data: str) -> None:
        record = self._read(data.encode(), Event)
        if record is None:
            return
        self._store.take_values(
            Value(
                source=record.source,
                device=record.device,
                label=record.label,
                quantity=reading.quantity,
                part=reading.part,
                value=reading.value,
                time_ms=record.time_ms,
                time_quality=record.time_quality,
                quality=reading.quality,
                is_simulated=record.simulated,
            )
            for reading in record.readings[:MOST_ROWS]
            if reading.quantity in self._wanted
        )

    def _read(self, body: bytes | msgspec.Raw, kind: type[Row]) -> Row | None:
        """Return one row, or None where it is not as the contract says; the first such row is logged, all count."""
        try:
            return msgspec.json.decode(body, type=kind)
        except NONSENSE as error:
            self._refused += 1
            if self._refused == 1:
                log.warning("feed says something else than agreed url=%s why=%s", self._url, error)
            return None


async def get_whole(client: httpx.AsyncClient, url: str) -> bytes:
    """Return an answer's body; raises LineError or TimeoutError if it is none, too long or too slow."""
    body = bytearray()
    async with asyncio.timeout(ANSWER_S), client.stream("GET", url) as answer:
        _must_be_ok(answer)
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MOST_BYTES:
                raise LineError(f"{answer.url.path} answers more than {MOST_BYTES} bytes")
    return bytes(body)


def _must_be_ok(answer: httpx.Response) -> None:
    if answer.status_code != httpx.codes.OK:
        raise LineError(f"{answer.url.path} answers {answer.status_code}")


def _series(row: SeriesRow) -> Series:
    samples = [Sample(time_ms, value, quality, bool(simulated)) for time_ms, value, quality, simulated in row.points]
    samples.sort(key=lambda sample: sample.time_ms)
    return Series(source=row.source, device=row.device, label=row.label, part=row.part, samples=samples)
