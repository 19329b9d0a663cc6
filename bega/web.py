"""HTTP on one address: how gateway and kiosk listen, serve, and let go. Starlette and uvicorn do the work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from bega_protocols.errors import ConfigError

MOST_CONNECTIONS = 200  # beyond, a stranger is told to come back: the host needs its file descriptors for its own work
STOP_S = 1


def bind(place: str, listen: str) -> socket.socket:
    """Return a listening socket for "host:port" or "[IPv6 address]:port"; port 0 takes a free one.

    place: the key of the configuration, for the ConfigError that names an address which cannot be used.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio sends without delay only where the protocol is: else every answer takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(100)
    except (OSError, UnicodeError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{place}: {listen} cannot be used ({why}); take another address or port") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return "http://host:port" of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve `app` until cancelled; then let go of every connection, within STOP_S."""
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
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
