"""What a service tells systemd: that it is up, that it lives, that it ends. sd_notify(3): a datagram, no library."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Tells a service manager; where there is none, nobody."""

    def __init__(self, address: str | None) -> None:
        """address: NOTIFY_SOCKET: a path, or "@name" in the abstract name space."""
        self._address = address
        self._socket: socket.socket | None = None
        if address and address[0] in "/@":  # others, as vsock:, are for virtual machines
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)  # a manager that hangs must not hang us

    def tell(self, *assignments: str) -> None:
        """Send assignments as one message: tell("READY=1", "STATUS=up"). One that cannot be sent is lost."""
        if self._socket is None or not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            self._socket.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            log.debug("service manager does not listen error=%s", error)

    def close(self) -> None:
        """Close the socket."""
        if self._socket:
            self._socket.close()


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return after how many seconds without WATCHDOG=1 this process is ended, None if it is not watched."""
    for_pid = environment.get("WATCHDOG_PID")
    period_us = environment.get("WATCHDOG_USEC", "")
    if for_pid not in (None, str(os.getpid())) or not period_us.isascii() or not period_us.isdigit():
        return None
    return int(period_us) / 1_000_000 or None
