"""A TCP relay in front of a broker that can become a black hole: sockets stay open, nothing passes, then a reset."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

LOOK_AGAIN_S = 0.05
RESET_AT_CLOSE = b"\x01\0\0\0\0\0\0\0"  # SO_LINGER on, for no time: the peer gets RST, as at the end of a radio hole


class Relay:
    """Passes on what comes until `stall`; `reset` ends every connection and lets new ones pass."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._stalled = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def stall(self) -> None:
        """Let nothing pass any more, in either direction; new connections are not answered."""
        self._stalled.set()

    def reset(self) -> None:
        """End the black hole."""
        for connection in list(self._pairs):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                connection.close()
        self._stalled.clear()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.reset()
        self._listener.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._pairs = {one: other for one, other in self._pairs.items() if one.fileno() >= 0 <= other.fileno()}
            if self._stalled.is_set():
                self._ended.wait(LOOK_AGAIN_S)
                continue
            with contextlib.suppress(OSError, ValueError):
                for ready in select.select([self._listener, *self._pairs], [], [], LOOK_AGAIN_S)[0]:
                    self._accept() if ready is self._listener else self._pass_on(ready)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target_port), 2)
        except OSError:
            near.close()
            return
        self._pairs |= {near: far, far: near}

    def _pass_on(self, ready: socket.socket) -> None:
        other = self._pairs[ready]
        try:
            octets = ready.recv(65536)
            if octets:
                other.sendall(octets)
                return
        except OSError:
            pass
        ready.close()
        other.close()
