"""The public feed over HTTP: what has the audience `public`, newest values, series and live events.

`GET /public/v1/latest`
`GET /public/v1/series?quantity=pm2_5&hours=24&step_s=300&device=NAME` (means per step; device may be left out)
`GET /public/v1/events` (server-sent events, one per record)
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import groupby
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bega.clock import Clock
from bega_gateway.config import Config
from bega_gateway.feed_store import FeedStore, Published, Step
from bega_protocols.reading import STALE, decimal_text, ucum, units

HOUR_MS = 3_600_000
HEARTBEAT_S = 15.0
MOST_STEPS = 5_000  # more than any plot shows, and a bound on what a stranger can ask of a Pi
ENCODER = msgspec.json.Encoder(decimal_format="number")  # the digits that the device gave, never through a float
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Access-Control-Allow-Origin": "*"}


class Feed:
    """Serves one FeedStore."""

    def __init__(self, config: Config, store: FeedStore, wall_ms: Clock) -> None:
        self._config = config
        self._store = store
        self._wall_ms = wall_ms

    def use(self, config: Config) -> None:
        """From now on it is `config` that says what is public, and what it is called."""
        self._config = config

    def app(self) -> Starlette:
        """Return the application; it has no state of its own and no way to write."""
        return Starlette(
            routes=[
                Route("/public/v1/latest", self.latest),
                Route("/public/v1/series", self.series),
                Route("/public/v1/events", self.events),
            ]
        )

    async def latest(self, request: Request) -> Response:
        """Return the newest value of every public quantity."""
        rows = [
            {
                "source": source,
                "device": device,
                "label": self._config.label_of(source, device),
                "quantity": quantity,
                "part": part,
                "value": _exact(point.value),
                "unit": ucum(quantity),
                "time_ms": point.time_ms,
                "time_quality": point.time_quality,
                "quality": point.quality,
                "simulated": bool(point.simulated),
            }
            for (source, device, quantity, part), point in sorted(self._store.latest.items())
            if self._public(source, device)
        ]
        gateway = self._config.gateway
        return _json({"gateway": gateway.name, "city": gateway.city, "readings": rows})

    async def series(self, request: Request) -> Response:
        """Return the means of one quantity; 400 with a sentence if the question makes no sense."""
        try:
            quantity = _known_quantity(request)
            hours = _number(request, "hours", 24, 1, 72)
            step_s = _number(request, "step_s", 300, 1, 86_400)
            if hours * 3600 > MOST_STEPS * step_s:
                raise ValueError(f"that is more than {MOST_STEPS} steps: take a longer step_s")
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        since_ms = self._wall_ms() - hours * HOUR_MS
        try:
            steps = await self._store.series(quantity, since_ms, 1000 * step_s, request.query_params.get("device"))
        except (sqlite3.Error, UnicodeError):  # a lone surrogate in the name of a device is no name
            return _json({"error": "the history cannot be read now"}, status=503)
        groups = groupby(steps, key=lambda step: (step.source, step.device, step.part))
        return _json(
            {
                "quantity": quantity,
                "unit": ucum(quantity),
                "hours": hours,
                "step_s": step_s,
                "series": [
                    {
                        "source": source,
                        "device": device,
                        "label": self._config.label_of(source, device),
                        "part": part,
                        "points": [_point(step) for step in group],
                    }
                    for (source, device, part), group in groups
                    if self._public(source, device)
                ],
            }
        )

    async def events(self, request: Request) -> Response:
        """Stream each public record from now on."""
        return StreamingResponse(
            self._event_stream(), media_type="text/event-stream", headers={**HEADERS, "X-Accel-Buffering": "no"}
        )

    async def _event_stream(self) -> AsyncIterator[bytes]:
        yield b": welcome\n\n"
        stream = self._store.events()
        pending = asyncio.ensure_future(anext(stream))
        try:
            while True:
                done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_S)
                if not done:
                    yield b": still here\n\n"
                    continue
                try:
                    published = pending.result()
                except StopAsyncIteration:
                    return
                if self._public(published.record.source, published.record.device):
                    yield b"event: record\ndata: " + ENCODER.encode(self._event(published)) + b"\n\n"
                pending = asyncio.ensure_future(anext(stream))
        finally:
            pending.cancel()

    def _event(self, published: Published) -> dict[str, Any]:
        record = published.record
        return {
            "source": record.source,
            "device": record.device,
            "label": self._config.label_of(record.source, record.device),
            "boot": record.boot,
            "seq": record.seq,
            "time_ms": published.time_ms,
            "time_quality": record.time_quality,
            "simulated": published.simulated,
            "readings": [
                {
                    "quantity": reading.quantity,
                    "part": reading.part,
                    "value": None if reading.quality == STALE else _exact(decimal_text(reading.value, reading.exp10)),
                    "unit": ucum(reading.quantity),
                    "quality": reading.quality,
                }
                for reading in record.readings
            ],
        }

    def _public(self, source: str, device: str) -> bool:
        """Asked again at each answer: what an earlier configuration made public need not be so today."""
        return self._config.audience_of(source, device) == "public"


def _exact(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    return Response(ENCODER.encode(answer), status_code=status, media_type="application/json", headers=HEADERS)


def _point(step: Step) -> list[Any]:
    """[time_ms, mean, quality, simulated]; a mean of several is for people, and two decimals are enough for it."""
    return [step.time_ms, None if step.mean is None else round(step.mean, 2), step.quality, step.simulated]


def _known_quantity(request: Request) -> str:
    quantity = request.query_params.get("quantity", "")
    if units(quantity) is None:
        raise ValueError("quantity: name one that /public/v1/latest shows")
    return quantity


def _number(request: Request, key: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(key, str(default))
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise ValueError(f"{key}: a whole number from {low} to {high}")
    return int(text)
