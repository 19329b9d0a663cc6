"""A board behind an RFC 2217 port, brought to this machine: its bytes as a socket, its BOOT and EN as functions.

esptool opens such ports itself, and asks for the port's settings anew at each command, which costs 0.2 s each time: a
minute and a half for what takes three seconds (docs/decisions/070). Here they are asked for once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from serial import SerialException, serial_for_url

from bega_firmware.cable_faults import no_port
from bega_protocols.errors import ConfigError

PIECE_BYTES = 4096
LOOK_AGAIN_S = 0.05
# esptool's documentation, "Boot Mode Selection", automatic: EN low, then BOOT low while EN rises.
HELD_S, RISEN_S = 0.1, 0.3


class NetworkPort:
    """One board."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError if nobody answers there."""
        try:
            self._wire = serial_for_url(url, 115200, timeout=LOOK_AGAIN_S)
        except (SerialException, OSError, ValueError):
            raise ConfigError(no_port(url)) from None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self._caller: socket.socket | None = None
        self._is_open = True
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._carry_up, self._carry_down)]
        for thread in self._threads:
            thread.start()

    def enter_rom(self) -> None:
        """Hold BOOT down while EN is pressed."""
        for line, is_asserted, for_s in (
            ("dtr", False, 0.0),
            ("rts", True, HELD_S),
            ("dtr", True, 0.0),
            ("rts", False, RISEN_S),
            ("dtr", False, 0.0),
        ):
            setattr(self._wire, line, is_asserted)
            time.sleep(for_s)

    def press_en(self) -> None:
        """Restart the board."""
        self._wire.dtr = False
        self._wire.rts = True
        time.sleep(HELD_S)
        self._wire.rts = False

    def close(self) -> None:
        self._is_open = False
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._hang_up()
        for thread in self._threads:
            thread.join(2)
        with contextlib.suppress(SerialException, OSError):
            self._wire.close()

    def _carry_down(self) -> None:
        """Take one caller after the other, and hand on to the board what they send."""
        while self._is_open:
            try:
                self._caller, _ = self._server.accept()
                while octets := self._caller.recv(PIECE_BYTES):
                    self._wire.write(octets)
            except (OSError, SerialException):
                pass
            self._hang_up()

    def _carry_up(self) -> None:
        while self._is_open:
            try:
                octets = self._wire.read(1)
                octets += self._wire.read(min(self._wire.in_waiting, PIECE_BYTES)) if octets else b""
                if octets and self._caller is not None:
                    self._caller.sendall(octets)
            except SerialException:
                return self._hang_up()
            except OSError:
                continue
        return None

    def _hang_up(self) -> None:
        caller, self._caller = self._caller, None
        if caller is not None:
            with contextlib.suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)
            caller.close()


@contextlib.contextmanager
def in_rom(url: str) -> Iterator[str]:
    """Bring the board at an RFC 2217 port into its ROM, give a port to it, and restart it at the end."""
    port = NetworkPort(url)
    try:
        port.enter_rom()
        yield port.url
        port.press_en()
    finally:
        port.close()
