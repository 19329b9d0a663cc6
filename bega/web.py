"""HTTP on one address: how gateway and kiosk listen, serve, and let go. Starlette and uvicorn do the work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from bega.listen import address_of, bind

__all__ = ["address_of", "bind", "serve"]

MOST_CONNECTIONS = 200  # beyond, a stranger is told to come back: the host needs its file descriptors for its own work
STOP_S = 1


async def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve `app` until cancelled; then let go of every connection, within STOP_S."""
    server = _Server(
        uvicorn.Config(
            app,
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


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command has one, for all of its tasks."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
