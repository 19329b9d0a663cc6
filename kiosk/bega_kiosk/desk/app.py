"""A desk from its start to its end: the store, the link to the kiosks, and what it answers over HTTP.

GET /public/v1/reports/<code>   how a report is (report.Status): nothing of what it says; 429 for who guesses codes
    the city's signed notices       see notice_routes.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bega.clock import Clock, mono_ms
from bega.mqtt import Credentials
from bega.ready import write_ready
from bega.web import address_of, bind, serve
from bega_kiosk.desk.guesses import Guesses
from bega_kiosk.desk.link import Link
from bega_kiosk.desk.store import DeskStore
from bega_kiosk.notice_routes import notice_routes
from bega_kiosk.notices import Board
from bega_kiosk.report import read_code
from bega_kiosk.signed import read_public_keys

log = logging.getLogger("bega.desk")

NOTICES = "notices.txt"


class Settings(NamedTuple):
    """How a desk is run."""

    data: Path
    city: str
    listen: str
    broker: str | None  # None: nothing but HTTP
    name: str = "desk"  # in its certificate
    credentials: Credentials | None = None
    city_keys: Sequence[Path] = ()  # who may publish notices; without one nobody may


async def run(settings: Settings, wall_ms: Clock, ready_file: Path | None, stop: asyncio.Event) -> None:
    """Run the desk until `stop` is set; raises ConfigError before anything is served if it cannot be run."""
    keys = read_public_keys(settings.city_keys)
    listener = bind("--port", settings.listen)
    try:
        store = DeskStore(settings.data, wall_ms)
    except BaseException:
        listener.close()
        raise
    board = Board(settings.data / NOTICES, keys, settings.city, wall_ms)
    link = Link(store, settings.city, settings.broker or "", settings.name, settings.credentials)
    address = address_of(listener)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(serve(app(store, notice_routes(board, link.hint)), listener))]
            if settings.broker:
                running.append(tasks.create_task(link.run()))
            write_ready(ready_file, {"desk": address})
            log.info("desk up address=%s reports=%d", address, store.count())
            await stop.wait()
            for task in running:
                task.cancel()
    finally:
        listener.close()
        store.close()
    log.info("desk ended")


def app(store: DeskStore, more: Sequence[BaseRoute] = (), mono_ms: Clock = mono_ms) -> Starlette:
    """Return what the desk answers over HTTP."""
    guesses = Guesses(mono_ms)

    async def report(request: Request) -> Response:
        code = read_code(request.path_params["code"])
        if code is None:
            return JSONResponse({"error": "this is no code of a report"}, 404)
        address = request.client.host if request.client else ""
        if guesses.are_too_many(address):
            return JSONResponse({"error": "too many codes that nobody has: wait a minute"}, 429)
        status = store.status(code)
        if status.state == "unknown":
            guesses.note(address)
        return JSONResponse(msgspec.to_builtins(status), headers={"Cache-Control": "no-store"})

    return Starlette(routes=[Route("/public/v1/reports/{code}", report), *more])
