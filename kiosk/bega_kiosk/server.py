"""The kiosk's pages over HTTP, for the browser on the same machine. No cookies, no storage, nothing from elsewhere.

    /live          says when something changed
    /end           POST ?draft=: whoever wrote this draft has left it
    /static /look  files

Every other address is a screen of `pages` (places.py) and takes ?lang= and what else display.py knows.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bega import look
from bega.clock import Clock
from bega.look.panels import panel_css
from bega_kiosk.config import Config
from bega_kiosk.display import Display, read_at, read_display, read_page
from bega_kiosk.pages.screen import Screen, prepare_templates
from bega_kiosk.places import Known, Params, Place, every_place
from bega_kiosk.store import Store
from bega_kiosk.words import Words

log = logging.getLogger("bega.kiosk.server")

STATIC = Path(__file__).parent / "static"
BEAT_S = 15.0  # ages and the clock go on when nothing else changes
CALM_S = 2.0  # a page is not redrawn more often
MOST_FIELDS = 20  # of a form
LARGEST_FORM_BYTES = 400_000  # 10,000 letters, each as 12 characters of an encoded form, and room
# One transparent point: nobody sees a tab, and Chromium draws a page's icon anew with each tap (as SVG it took 2 ms of
# the 18 that a tap takes). A browser that finds none complains.
ICON = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR4nGNgYAAAAAMAAbitOmMAAAAASUVORK5CYII=")
INTERRUPTIONS = ("/easier", "/language", "/human")  # screens that are on every screen

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Pages:
    """Serves one store in the languages of `words`."""

    def __init__(self, config: Config, store: Store, words: Mapping[str, Words], wall_ms: Clock) -> None:
        self._config = config
        self._store = store
        self._words = words
        self._wall_ms = wall_ms
        self._panel_css = panel_css(config.panel, config.distance_mm)
        self.known = Known(config, store, wall_ms)
        self.places = every_place(self.known)
        self.given = asyncio.Event()  # the first page
        self.stopping = asyncio.Event()

    def warm(self) -> None:
        """Read and prepare what the first page does without, so that nobody waits for it later; say what was wrong."""
        for problem in self.known.content.problems:
            log.warning("content left out: %s", problem)
        prepare_templates()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                *(Route(place.path, self._shows(place), methods=_methods(place)) for place in self.places),
                Route("/live", self.live),
                Route("/end", self.end, methods=["POST"]),
                Route("/look/panel.css", self.panel_css),
                Route("/favicon.ico", _icon),
                Mount("/look", StaticFiles(directory=look.STATIC)),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[Middleware(_WithHeaders)],
            exception_handlers={HTTPException: self.not_found, Exception: self.defect},
        )

    def _shows(self, place: Place) -> Callable[[Request], Awaitable[Response]]:
        async def show(request: Request) -> Response:
            if place.instances is not None and request.scope["path"] not in place.paths():
                raise HTTPException(404)
            screen = self.screen(place, request.path_params, request.query_params)
            if request.method == "POST" and place.take is not None:
                length = request.headers.get("content-length", "")
                if not length.isdecimal() or len(length) > 9 or int(length) > LARGEST_FORM_BYTES:
                    return self._sorry(request, ["err.general", "err.retry"], 413)
                try:
                    sent = _form(await request.body())
                except ClientDisconnect:  # half a form is none, and nobody is there to be told
                    return Response(status_code=400)
                return RedirectResponse(place.take(screen, sent), status_code=303)
            page = _page(place.draw(screen).html)
            self.given.set()
            return page

        return show

    def screen(self, place: Place, params: Params, query: Mapping[str, str]) -> Screen:
        """Return what a screen is drawn with for who asks so."""
        display = read_display(query)
        words = self._words[display.language]
        return Screen(
            words=words,
            panel=self._config.panel,
            distance_mm=self._config.distance_mm,
            display=display,
            path=place.path.format(**params),
            parent=self._parent(place, params, display),
            title=place.heading(words, params),
            now_ms=self._wall_ms(),
            page=read_page(query),
            at=read_at(query),
            more=dict(params),
        )

    def _parent(self, place: Place, params: Params, display: Display) -> str | None:
        """Return where "back" leads: from an interruption, to what was about to be sent."""
        draft = self.known.drafts.find(display.draft) if display.draft and place.path in INTERRUPTIONS else None
        if draft:
            return draft.at
        return place.parent.format(**params) if place.parent else None

    async def live(self, request: Request) -> Response:
        """Tell whenever a page would look different now, and every 15 s."""
        return StreamingResponse(self._changes(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def end(self, request: Request) -> Response:
        """Throw a draft away at once; without a script it lies for its ten minutes."""
        self.known.drafts.drop(read_display(request.query_params).draft)
        return Response(status_code=204)

    async def panel_css(self, request: Request) -> Response:
        """Return the figures of this kiosk's panel."""
        return Response(self._panel_css, media_type="text/css")

    async def not_found(self, request: Request, error: Exception) -> Response:
        """Say in words that a page does not exist."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        return self._sorry(request, ["err.not_found"], status)

    async def defect(self, request: Request, error: Exception) -> Response:
        """Say in words that something went wrong; the log has the rest."""
        log.error("page failed path=%s", request.url.path, exc_info=error)
        page = self._sorry(request, ["err.general", "err.retry"], 500)
        page.headers.update(HEADERS)  # Starlette answers this one outside of all middleware
        return page

    def _sorry(self, request: Request, keys: list[str], status: int) -> Response:
        # Every way leads home: an address that does not exist here may name another machine ("//x").
        lost = Place("", keys[0], lambda screen: screen.answer(screen.words.text(keys[0])), parent="/")
        screen = self.screen(lost, {}, request.query_params)
        text = screen.words.text
        values = {"is_title_spoken": True}  # it is the sentence
        return _page(screen.answer(text(keys[0]), [text(key) for key in keys[1:]], values=values).html, status)

    async def _changes(self) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        while not self.stopping.is_set():
            told = self._store.revision
            yield b"event: changed\ndata:\n\n"  # also at once: the page may be older than this connection
            await _first_of(self.stopping.wait(), for_s=CALM_S)
            await _first_of(self._store.wait_beyond(told), self.stopping.wait(), for_s=BEAT_S)


class _WithHeaders:
    """Puts the headers on every answer; pages are never kept, files are asked for again by their tag."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                if not any(key == b"cache-control" for key, _ in message["headers"]):
                    headers.append((b"cache-control", b"no-cache"))
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _first_of(*waits: Awaitable[object], for_s: float | None = None) -> None:
    """Return when the first of `waits` is over, or after `for_s`; the others are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=for_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _form(body: bytes) -> dict[str, str]:
    """Return the fields of a form as browsers send it (application/x-www-form-urlencoded); of nonsense none."""
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return {}
    return dict(pairs)


async def _icon(request: Request) -> Response:
    return Response(ICON, media_type="image/png", headers={"Cache-Control": "max-age=86400"})


def _methods(place: Place) -> list[str]:
    return ["GET"] if place.take is None else ["GET", "POST"]


def _page(html: str, status: int = 200) -> Response:
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})
