"""HTTP on one address: how gateway and kiosk listen, serve, and let go. Starlette and uvicorn do the work."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bega.listen import address_of, bind

__all__ = ["address_of", "bind", "serve"]

MOST_CONNECTIONS = 200  # beyond, a stranger is told to come back: the host needs its file descriptors for its own work
REQUEST_WITHIN_S = 10.0
STOP_S = 1


async def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve `app` until cancelled; then let go of every connection, within STOP_S."""
    server = _Server(
        uvicorn.Config(
            app,
            http=_Impatient,
            ws="none",  # nothing here speaks it, and a library that does would be imported at each start
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            proxy_headers=False,  # who asks is whoever is connected: a header that says otherwise may be anybody's
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=STOP_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


class _Impatient(H11Protocol):
    """uvicorn lets a connection be silent for ever: here it ends soon, and at once where there are too many.

    Without it a stranger who opens connections and asks nothing takes every file descriptor, and the host's lines
    need some.
    """

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin a connection; beyond MOST_CONNECTIONS the one that is silent for longest ends."""
        super().connection_made(transport)
        others = [each for each in self.connections if isinstance(each, _Impatient) and each is not self]
        if len(others) + 1 >= MOST_CONNECTIONS:
            min(others, key=_until).let_go()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; the whole of it must come soon."""
        super().data_received(data)
        if not self.is_owing:
            self._cancel()
        elif not self._patience:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._cancel()
        super().connection_lost(exc)

    @property
    def is_owing(self) -> bool:
        """Whether it owes us a request, or the rest of one: its body counts, or a form that drips is waited for."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    @property
    def until_s(self) -> float:
        """Until when it is waited for; endless while it is answered."""
        return self._patience.when() if self._patience and self.is_owing else math.inf

    def let_go(self) -> None:
        """End a connection of which nobody waits for an answer."""
        self._patience = None
        if self.is_owing:
            self.transport.abort()

    def _cancel(self) -> None:
        if self._patience:
            self._patience.cancel()
        self._patience = None

    def _wait(self) -> None:
        self._patience = self.loop.call_later(REQUEST_WITHIN_S, self.let_go)


def _until(connection: _Impatient) -> float:
    return connection.until_s


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command has one, for all of its tasks."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
