"""Which configuration the node runs by: its own, a new one on trial, or the last good one.

/config.new    put there over the cable or by a command; at the next start it becomes
/config.trial  in use until the gateway acknowledges a record, and becomes
/config.json   the node's own; once acknowledged it is copied to
/config.good   used where /config.json cannot be read.

A trial that was not confirmed in ten minutes, or that a reset ended, is over:
the node goes back to /config.json. Each step is one rename, so a power cut
leaves one or the other.
"""

import json
import os
import sys

from bega_protocols.errors import ConfigError

OWN, NEW, TRIAL, GOOD = "/config.json", "/config.new", "/config.trial", "/config.good"
TRIAL_MS = 600000
AHEAD_MS = 86400000  # who makes a configuration need not have the gateway's clock


class Choice:
    """values: the configuration; said: what was wrong with another one, "" if nothing was."""

    def __init__(self, board):
        """Raises ConfigError, naming what is wrong with the node's own, if none can be used."""
        self.said = ""
        self._path = OWN
        self._is_confirmed = False
        if is_there(TRIAL):
            _remove(TRIAL)
            self.said = "the new configuration was not confirmed by the gateway; the former one is used"
        if is_there(NEW):
            os.rename(NEW, TRIAL)
            try:
                self.values = _read(TRIAL, board)
                self._path = TRIAL
                return
            except ConfigError as error:
                _remove(TRIAL)
                self.said = "the new configuration is refused: %s" % error
        try:
            self.values = _read(OWN, board)
        except ConfigError as error:
            self.values = _last_good(board, error)
            self._path = GOOD
            self.said = "the last good configuration is used: %s" % error

    def is_trial(self):
        """Return whether it waits to be confirmed."""
        return self._path == TRIAL

    def confirm(self):
        """The gateway has acknowledged a record: what brought us here is good. Raises OSError if flash fails."""
        if self._is_confirmed:
            return
        if self._path == TRIAL:
            os.rename(TRIAL, OWN)
            self._path = OWN
        if self._path == OWN and content(OWN) != content(GOOD):
            put(GOOD, content(OWN))
        self._is_confirmed = True


def is_new_there():
    """Return whether somebody has put a new one there, to be tried at the next start."""
    return is_there(NEW)


def take(wanted, used, board, now_ms):
    """Put `wanted` where the next start finds it, and return None; or return why it cannot be.

    Until all of it is checked it bears a name that no start looks for.
    """
    if not isinstance(wanted, dict):
        return "configuration is no table"
    if wanted.get("node") != used["node"]:
        return "it is for another node"
    _write(NEW + "~", json.dumps(wanted).encode())
    try:
        made_s = _read(NEW + "~", board)["made_s"]
    except ConfigError as error:
        return str(error)
    if made_s * 1000 > now_ms + AHEAD_MS:
        return "made_s lies in the future: by it the gateway's time would be refused"
    os.rename(NEW + "~", NEW)


def put(path, octets):
    """Write a file whole or not at all. Raises OSError."""
    _write(path + "~", octets)
    os.rename(path + "~", path)


def _write(path, octets):
    with open(path, "wb") as file:
        file.write(octets)


def content(path):
    """Return what is in a file, b"" if it is not there."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _read(path, board):
    """Return the configuration at `path`, checked. The code that checks takes 4 kB of heap: it is loaded for this."""
    from config import read_config

    try:
        return read_config(path, board)
    finally:
        sys.modules.pop("config", None)


def _last_good(board, wrong):
    try:
        return _read(GOOD, board)
    except ConfigError:
        raise wrong


def is_there(path):
    """Return whether there is such a file."""
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass
