"""The technician's page over HTTP: what may be seen, what may be done, and by whom.

    /                      what is wrong, alarms, the gateway, lines and devices; POST /examine looks closer
    /lines/NAME            one line, its live bytes; POST listen, silence, restart
    /devices/SOURCE/NAME   one device: values, the last hour, how to find it
    /alarms/NAME/acknowledge   POST
    /login /logout         where `page.password_hash` is set

Nothing is kept in the browser but one cookie. Each POST carries a token that only a page of ours can have given.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bega import look
from bega.listen import is_this_machine
from bega_gateway import config as settings
from bega_gateway.edge import tables
from bega_gateway.page import password, words
from bega_gateway.page.attempts import Attempts
from bega_gateway.page.causes import Causes
from bega_gateway.page.hour import hour_svg
from bega_gateway.page.listening import Listening
from bega_gateway.page.recent import Device, Recent
from bega_gateway.page.sessions import Sessions
from bega_gateway.page.view import Seen, View, said
from bega_protocols.errors import ConfigError
from bega_protocols.record import Record

log = logging.getLogger("bega.gateway.page")

COOKIE = (
    "bega_page_"  # with the gateway's name: browsers keep ports apart for nothing else, and tunnels end on one machine
)
REFRESH = "x-refresh"  # on what the script asks by itself: nobody has used the page
STATIC = Path(__file__).parent / "static"
TICK_S = 2.0
DRAIN_OVER_TICKS = 30  # a minute
PORTS_EVERY_TICKS = 5
MOST_FORM = 4_096  # bytes
FORM_WITHIN_S = 5.0
MOST_LISTENING = 4  # lines at once
MOST_PLOTS = 40  # of one device
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
DONE = {
    "examined": "Examined.",
    "listening": "Listening.",
    "silence": "Listening has ended.",
    "restarted": "The line was begun anew.",
    "acknowledged": "Acknowledged. The alarm stays until its value is good again.",
}

Handler = Callable[[Request], Awaitable[Response]]


class Site:
    """The page of one gateway."""

    def __init__(self, table: settings.Page, seen: Seen) -> None:
        self._seen = seen
        self._clocks = seen.ground.clocks
        self._password_hash = table.password_hash
        self._cookie = COOKIE + seen.config().gateway.name
        self._sessions = Sessions()
        self._attempts = Attempts()
        self._trying = asyncio.Lock()
        self._recent = Recent()
        self._view = View(seen, self._recent, shows_personal=bool(table.password_hash))
        self._listening: dict[str, Listening] = {}
        self._drain: deque[tuple[int, int]] = deque(maxlen=DRAIN_OVER_TICKS)  # (when, acknowledged)
        self._causes = Causes(seen, self._view)
        seen.ground.recorder.listen(self._take)

    def app(self) -> ASGIApp:
        """Return the application."""
        inside = self._inside
        routes = [
            Route("/", inside(self.overview)),
            Route("/examine", inside(self.examine), methods=["POST"]),
            Route("/lines/{name}", inside(self.line)),
            Route("/lines/{name}/{deed}", inside(self.do_with_line), methods=["POST"]),
            Route("/devices/{source}", inside(self.device)),
            Route("/devices/{source}/{name}", inside(self.device)),
            Route("/alarms/{name}/acknowledge", inside(self.acknowledge), methods=["POST"]),
            Route("/login", self.login, methods=["GET"]),
            Route("/login", self.log_in, methods=["POST"]),
            Route("/logout", inside(self.log_out), methods=["POST"]),
            Mount("/look", StaticFiles(directory=look.STATIC)),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        handlers = {HTTPException: self.refused, Exception: self.defect}
        return _Guarded(Starlette(routes=routes, exception_handlers=handlers), not self._password_hash)

    async def run(self) -> None:
        """End what has lasted long enough, see how the spool drains and whether ports are there, until cancelled."""
        try:
            for tick in count():
                if tick % PORTS_EVERY_TICKS == 0:
                    await self._causes.look()
                self._drain.append((self._clocks.mono_ms(), self._seen.publisher.acknowledged))
                for name, listening in list(self._listening.items()):
                    if self._clocks.mono_ms() >= listening.ends_ms or not self._is_current(name, listening):
                        self._end_listening(name)
                for device in self._recent.devices():
                    if not self._view.is_shown(device):  # it has become a household's
                        self._recent.forget(device)
                await asyncio.sleep(TICK_S)
        finally:
            for name in list(self._listening):
                self._end_listening(name)

    async def overview(self, request: Request) -> Response:
        """Return the first page."""
        return self._page(
            request,
            "overview.html",
            **self._causes.shown(),
            alarms=self._view.alarms(),
            facts=self._facts(),
            lines=self._view.lines(),
            computed=self._view.computed(),
            hidden=self._view.hidden(),
        )

    async def examine(self, request: Request) -> Response:
        """Look closer: at brokers, ports, disk and clock, as `bega gateway doctor` does. One at a time."""
        await self._causes.examine()
        return _see("/?done=examined")

    async def line(self, request: Request) -> Response:
        """Return one line with its live bytes."""
        name = request.path_params["name"]
        if name not in self._seen.config().lines:
            raise HTTPException(404, "There is no such line.")
        listening = self._listening.get(name)
        row = self._view.line(name)
        if listening:
            listening.settle()
        return self._page(
            request,
            "line.html",
            line=row,
            left=words.lasting(listening.ends_ms - self._clocks.mono_ms()) if listening else "",
            rows=self._rows(listening) if listening and row.can_listen else [],
        )

    async def do_with_line(self, request: Request) -> Response:
        """Listen to a line, end that, or begin the line anew."""
        name, deed = request.path_params["name"], request.path_params["deed"]
        if name not in self._seen.config().lines or deed not in ("listen", "silence", "restart"):
            raise HTTPException(404, "There is no such line.")
        if deed == "restart":
            self._end_listening(name)
            log.info("line restarted by the page line=%s", name)
            if not await self._seen.restart_line(name):
                raise ConfigError("The line could not be begun again; the log says why.")
            return _see(f"/lines/{name}?done=restarted")
        if deed == "silence":
            self._end_listening(name)
            return _see(f"/lines/{name}?done=silence")
        self._listen(name)
        return _see(f"/lines/{name}?done=listening")

    async def device(self, request: Request) -> Response:
        """Return one device."""
        device = request.path_params["source"], request.path_params.get("name", "")
        try:
            row = self._view.device(device)
        except KeyError:
            raise HTTPException(404, "There is no such device, or it is not shown.") from None
        return self._page(
            request,
            "device.html",
            device=row,
            line=self._view.line_of(device),
            where=self._view.where(device),
            **self._values(device),
        )

    async def acknowledge(self, request: Request) -> Response:
        """Note that somebody knows of an alarm."""
        name = request.path_params["name"]
        if not self._view.is_shown((self._seen.config().gateway.name, name)):
            raise HTTPException(404, "There is no such alarm.")
        await self._seen.acknowledge(name)
        return _see("/?done=acknowledged")

    async def login(self, request: Request) -> Response:
        """Return the form that asks for the password."""
        return _see("/") if self._is_in(request) else self._page(request, "login.html", problem="")

    async def log_in(self, request: Request) -> Response:
        """Begin a session for who knows the password; one guess at a time, and none while a pause lasts."""
        form = await self._form(request)
        if not self._password_hash:
            return _see("/")
        who = request.client.host if request.client else ""
        async with self._trying:
            wait_ms = self._attempts.wait_ms(who, self._clocks.mono_ms())
            if wait_ms:
                problem = f"Too many wrong passwords. Wait {words.lasting(wait_ms + 999)}, then try again."
                answer = self._page(request, "login.html", 429, problem=problem)
                answer.headers["Retry-After"] = str(wait_ms // 1000 + 1)
                return answer
            given = form.get("password", "")
            if not await asyncio.to_thread(password.is_password, given, self._password_hash):
                self._attempts.failed(who, self._clocks.mono_ms())
                log.warning("wrong password from=%s", who)
                return self._page(request, "login.html", 403, problem="This is not the password.")
            self._attempts.succeeded(who)
        log.info("logged in from=%s", who)
        self._sessions.end(request.cookies.get(self._cookie, ""))
        return self._with_cookie(_see("/"), self._sessions.begin(self._clocks.mono_ms()))

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        self._sessions.end(request.cookies.get(self._cookie, ""))
        return _see("/login")

    async def refused(self, request: Request, error: Exception) -> Response:
        """Say in words what is not here or cannot be."""
        status, why = (error.status_code, error.detail) if isinstance(error, HTTPException) else (404, "")
        titles = {404: "There is nothing here", 409: "This cannot be done now"}
        return self._page(request, "sorry.html", status, title=titles.get(status, "Refused"), why=why, back="/")

    async def defect(self, request: Request, error: Exception) -> Response:
        """Say that something went wrong; the log has the rest."""
        log.error("page failed", exc_info=error)
        why = "This page has a defect; the gateway goes on. Its log says more."
        return self._page(request, "sorry.html", 500, title="Something went wrong", why=why, back="/")

    def _inside(self, handler: Handler) -> Handler:
        """Return `handler` for those who may come in; what it cannot do it says as 409."""

        async def guarded(request: Request) -> Response:
            if not self._is_in(request):
                return _see("/login")
            if request.method == "POST":
                await self._form(request)
            try:
                return await handler(request)
            except ConfigError as error:
                raise HTTPException(409, str(error)) from None
            except TimeoutError:
                raise HTTPException(409, "It took too long, and was given up.") from None

        return guarded

    def _is_in(self, request: Request) -> bool:
        if not self._password_hash:
            return True
        cookie = request.cookies.get(self._cookie, "")
        return self._sessions.is_open(cookie, self._clocks.mono_ms(), is_used=REFRESH not in request.headers)

    async def _form(self, request: Request) -> dict[str, str]:
        """Return the fields of a form of ours; raises HTTPException for any other."""
        body = b""
        try:
            async with asyncio.timeout(FORM_WITHIN_S):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MOST_FORM:
                        raise HTTPException(413, "This is more than any form here holds.")
            fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8))
        except (TimeoutError, ClientDisconnect, ValueError):
            raise HTTPException(400, "This is no form of ours.") from None
        if not self._sessions.is_token(request.cookies.get(self._cookie, ""), fields.get("token", "")):
            raise HTTPException(403, "This form is too old, or was not made here. Go back, load the page, try again.")
        return fields

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        cookie = request.cookies.get(self._cookie, "")
        is_new = not cookie
        cookie = cookie or self._sessions.new_cookie()
        text = (
            _environment()
            .get_template(template)
            .render(
                gateway=self._seen.config().gateway.name,
                version=version("bega"),
                csrf=self._sessions.token(cookie),
                is_in=bool(self._password_hash) and self._is_in(request),
                done=DONE.get(request.query_params.get("done", ""), ""),
                **values,
            )
        )
        answer = HTMLResponse(text, status, headers={"Cache-Control": "no-store"})
        return self._with_cookie(answer, cookie) if is_new else answer

    def _with_cookie(self, answer: Response, cookie: str) -> Response:
        answer.set_cookie(self._cookie, cookie, httponly=True, samesite="strict", path="/")
        return answer

    def _take(self, record: Record, arrival_ms: int, simulated: bool) -> None:
        if self._view.is_shown((record.source, record.device)):
            self._recent.take(record, arrival_ms, simulated)

    def _facts(self) -> list[tuple[str, str]]:
        spool, publisher = self._seen.ground.spool, self._seen.publisher
        uplink = f"connected to {publisher.connected_to}" if publisher.connected_to else "not connected"
        heard, watched = self._seen.ground.health.heard(), len(self._seen.ground.health.watched)
        return [
            ("Heard", f"{heard} of {watched} devices and nodes"),
            ("Uplink", uplink),
            ("Waiting to be sent", f"{spool.depth} messages{self._drains(spool.depth)}"),
            ("Spool", f"{spool.used_bytes / 1e6:.1f} of {spool.quota_bytes / 1e6:.0f} MB"),
            ("Not yet on the disk", f"{spool.waiting} messages"),
            ("Running for", words.lasting(self._clocks.mono_ms() - self._causes.began_ms)),
        ]

    def _drains(self, depth: int) -> str:
        """Return how fast the spool drains, and how long it will take, in words."""
        if len(self._drain) < 2 or self._drain[-1][0] == self._drain[0][0]:
            return ""
        (first_ms, before), (last_ms, after) = self._drain[0], self._drain[-1]
        per_s = 1000 * (after - before) / (last_ms - first_ms)
        left = f", {words.lasting(1000 * depth / per_s)} for all of it" if per_s > 0 and depth > 2 * per_s else ""
        return f"; {60 * per_s:.0f} a minute are sent{left}"

    def _values(self, device: Device) -> dict[str, Any]:
        now_ms = self._clocks.wall_ms()
        last = self._recent.last(device)
        plots = []
        for reading, time_ms, is_simulated in last[:MOST_PLOTS]:
            points = self._recent.points(device, reading.quantity, reading.part, now_ms)
            plots.append(
                {
                    "name": words.name(reading.quantity, reading.part),
                    "value": words.value(reading),
                    "ago": f"{words.lasting(now_ms - time_ms)} ago",
                    "quality": words.QUALITIES.get(reading.quality, "stale"),
                    "is_simulated": is_simulated,
                    # Its texts are escaped where it is drawn.
                    "picture": Markup(  # noqa: S704
                        hour_svg(
                            points,
                            now_ms,
                            reading.quantity,
                            reading.part,
                            self._view.gap_ms(device, reading.quantity),
                        )
                    ),
                    "has_suspect": any(point.is_suspect for point in points),
                }
            )
        return {"plots": plots, "further": [said(each.reading) for each in last[MOST_PLOTS:]]}

    def _listen(self, name: str) -> None:
        """Begin to copy a line's bytes; raises ConfigError if that cannot be."""
        if not self._view.line(name).can_listen:
            raise ConfigError(self._view.line(name).why_not)
        if name not in self._listening and len(self._listening) >= MOST_LISTENING:
            raise ConfigError(f"{MOST_LISTENING} lines are listened to already; end one of them first")
        self._end_listening(name)
        stations = [station for line, station in self._seen.stations() if line == name]
        is_stream = isinstance(self._seen.config().lines[name], settings.SerialLine)
        self._listening[name] = Listening(stations, self._clocks.mono_ms, self._clocks.wall_ms, joins=is_stream)

    def _end_listening(self, name: str) -> None:
        listening = self._listening.pop(name, None)
        if listening:
            listening.end()

    def _is_current(self, name: str, listening: Listening) -> bool:
        """Return whether a line still has the stations that are listened to, and may still be."""
        now = [station for line, station in self._seen.stations() if line == name]
        return list(map(id, now)) == list(map(id, listening.stations)) and self._view.line(name).can_listen

    def _rows(self, listening: Listening) -> list[dict[str, Any]]:
        zone = tables.zone(self._seen.config().gateway.time_zone)
        return [
            {
                "time": words.clock(row.time_ms, zone),
                "device": row.device,
                "way": row.way,
                "said": "says" if row.way == "in" else "is asked",
                "hex": words.hexed(row.octets),
                "cut": row.size if row.size > len(row.octets) else 0,
                "readings": [said(reading) for reading in row.readings],
                "damage": f"{row.damaged} damaged" if row.damaged else "",
            }
            for row in reversed(listening.rows)
        ]


class _Guarded:
    """Puts the headers on every answer. only_this_machine: a page without a password answers to no other name.

    A site elsewhere could have its own name point to 127.0.0.1 and so read with the technician's browser.
    """

    def __init__(self, app: ASGIApp, only_this_machine: bool) -> None:
        self._app = app
        self._only_this_machine = only_this_machine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                if not any(key == b"cache-control" for key, _ in message["headers"]):
                    headers.append((b"cache-control", b"no-cache"))
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        if scope["type"] == "http" and self._only_this_machine and not is_this_machine(_host(scope)):
            refused = Response("Ask for this page as 127.0.0.1 or localhost.\n", 421, media_type="text/plain")
            await refused(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _host(scope: Scope) -> str:
    """Return the name that the machine is called by, without the port; '' where there is none, or more than one."""
    hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
    host = hosts[0] if len(hosts) == 1 else ""
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _see(address: str) -> Response:
    return RedirectResponse(address, status_code=303, headers={"Cache-Control": "no-store"})


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("bega_gateway.page", "templates"),
        autoescape=True,
        auto_reload=False,  # a release is installed under a gateway that runs: it keeps its own pages
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
