"""A listening socket for an address of the configuration."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from bega_protocols.errors import ConfigError


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


def is_this_machine(host: str) -> bool:
    """Return whether `host` (a name, an address, or "[IPv6 address]") names this machine, and can name no other."""
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
