"""How often the node has started without coming to work. After too many, it starts in safe mode.

A crash and a power cut are counted apart: a supply that browns out, or a
technician who pulls the plug, is no defect of the program. Here they look the
same, since an ESP32 calls a brown-out a power-on (MicroPython 1.29,
ports/esp32/modmachine.c). Waking from deep sleep is no start.
"""

import os

import machine

from bega_protocols.checks import crc32

VERSION = "0.1.0"  # the build writes its own in this place
FOLDER = "/state"  # on flash, of what the node keeps
CRASHES = 5  # resets by a defect or the watchdog, none of them a minute after its start
POWERS = 10  # power-ons of that kind: a failing supply, or a hand that asks for safe mode
WORKS_MS = 60000  # whoever has worked so long has come to work
ERROR_BYTES = 400
_COUNTS = "starts"
_ERROR = "error"


class Starts:
    """The counts of this and the earlier starts, on flash in `folder`."""

    def __init__(self, folder, cause):
        """cause: machine.reset_cause()."""
        self._path = folder + "/" + _COUNTS
        self._error = folder + "/" + _ERROR
        self.crashes, self.powers = _read(self._path)
        if cause == machine.PWRON_RESET:
            self.powers += 1
        elif cause != machine.DEEPSLEEP_RESET:
            self.crashes += 1
        else:
            return
        self._write()

    def why_safe(self):
        """Return why this start must be a safe one, "" if it need not.

        If safe mode fails too, its turn comes again after as many starts that are none: it must not be for ever.
        """
        if self.crashes % (CRASHES + 1) == CRASHES:
            return "%d resets in a row by a defect or the watchdog" % self.crashes
        if self.powers % (POWERS + 1) == POWERS:
            return "%d power-ons in a row, each for less than a minute" % self.powers
        return ""

    def worked(self):
        """Begin the counts anew: the node works, or is about to reset on purpose."""
        if self.crashes or self.powers:
            self.crashes = self.powers = 0
            self._write()

    def note_error(self, text):
        """Keep the end of a traceback for the next status."""
        try:
            with open(self._error, "w") as file:
                file.write(text[-ERROR_BYTES:])
        except OSError:
            pass  # it stands on the console

    def last_error(self):
        """Return the end of the last traceback, "" if there was none."""
        try:
            with open(self._error) as file:
                return file.read()
        except (OSError, ValueError):
            return ""

    def _write(self):
        text = b"%d,%d" % (self.crashes, self.powers)
        try:
            with open(self._path, "wb") as file:
                file.write(text + b" %08x" % crc32(text))
        except OSError:
            pass  # a flash that takes nothing must not keep the node from measuring


def begin():
    """Return the counts, this start among them."""
    try:
        os.mkdir(FOLDER)
    except OSError:
        pass  # it is there, or nothing can be kept in it
    return Starts(FOLDER, machine.reset_cause())


def _read(path):
    try:
        with open(path, "rb") as file:
            text, check = file.read().split(b" ")
        crashes, powers = text.split(b",")
        return (int(crashes), int(powers)) if int(check, 16) == crc32(text) else (0, 0)
    except (OSError, ValueError):
        return 0, 0
