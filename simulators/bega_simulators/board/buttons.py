"""The board's USB converter as a network port: RFC 2217, with DTR and RTS on BOOT and EN as on an ESP32-DevKitC.

Two transistors between the converter and the chip: EN is low while RTS is asserted and DTR is not, GPIO 0 (BOOT) while
DTR is and RTS is not; both asserted, or neither, press nothing. ESP32-DevKitC V4 schematic, "Auto program".
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from serial.rfc2217 import IAC, IAC_DOUBLED, PortManager

# EN rises slowly, by the capacitor at it, so that BOOT may be pressed after EN was let go of: the tools rely on it.
# Over a network each line is a message of its own, answered before the next: pyserial looks for it every 50 ms.
EN_RISES_S = 0.3
LONGEST_ORDER = 64  # of RFC 2217's subnegotiations; only a signature's text is longer, and nobody asks for it


class Buttons:
    """BOOT and EN, pressed by two lines of the port."""

    def __init__(self, start: Callable[[bool], None]) -> None:
        """start(held) resets the chip; held: BOOT was down when EN rose."""
        self._start = start
        self._en_is_low = False
        self._rising: asyncio.TimerHandle | None = None

    def move(self, dtr: bool, rts: bool) -> None:
        """The two lines are now so."""
        en_is_low, boot_is_low = rts and not dtr, dtr and not rts
        if en_is_low or (boot_is_low and self._rising is not None):
            rising, self._rising = self._rising, None
            if rising is not None:
                rising.cancel()
            if boot_is_low:
                self._start(True)
        elif self._en_is_low:
            self._rising = asyncio.get_running_loop().call_later(EN_RISES_S, self._risen)
            if boot_is_low:
                self.move(dtr, rts)
        self._en_is_low = en_is_low

    def _risen(self) -> None:
        self._rising = None
        self._start(False)


class Converter:
    """One caller of the RFC 2217 port: what it sends to the board, and the lines that it moves.

    To pyserial's PortManager, which speaks the protocol, it is a serial port and a connection.
    """

    # What a PortManager reads and sets of a port: a converter takes any of it, and the board has one speed.
    baudrate, bytesize, parity, stopbits = 115200, 8, "N", 1
    xonxoff = rtscts = break_condition = False
    cts = dsr = ri = cd = False

    def __init__(self, send: Callable[[bytes], None], buttons: Buttons) -> None:
        """send(octets) hands on to the caller."""
        self.write = send
        self._buttons = buttons
        self._dtr = self._rts = False
        self._manager = PortManager(self, self)

    @property
    def dtr(self) -> bool:
        """Data Terminal Ready, as the caller has set it."""
        return self._dtr

    @dtr.setter
    def dtr(self, is_asserted: bool) -> None:
        self._dtr = is_asserted
        self._buttons.move(self._dtr, self._rts)

    @property
    def rts(self) -> bool:
        """Request To Send, as the caller has set it."""
        return self._rts

    @rts.setter
    def rts(self, is_asserted: bool) -> None:
        self._rts = is_asserted
        self._buttons.move(self._dtr, self._rts)

    def heard(self, octets: bytes) -> bytes:
        """Return what of the caller's octets is for the board; the rest is obeyed.

        Raises ConnectionError if it speaks no RFC 2217: PortManager breaks where a caller breaks the rules.
        """
        try:
            data = b"".join(self._manager.filter(octets))
        except (TypeError, ValueError, KeyError, struct.error) as error:
            raise ConnectionError from error
        if len(self._manager.suboption or b"") > LONGEST_ORDER:
            raise ConnectionError
        return data

    def say(self, octets: bytes) -> None:
        """Send to the caller what the board says."""
        self.write(octets.replace(IAC, IAC_DOUBLED))

    def unplug(self) -> None:
        """The caller is gone: both lines fall at once."""
        self._dtr = self._rts = False
        self._buttons.move(False, False)

    def reset_input_buffer(self) -> None:
        """Nothing waits here."""

    def reset_output_buffer(self) -> None:
        """Nor here."""
