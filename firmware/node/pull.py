"""Fetching an update, piece by piece, as far as the gateway answers; it is resumed from what is on flash."""

import json
import os
import struct
import sys
import time

import kept_update as kept
from choice import content

MOST = 512  # octets of a piece: it must find its place in a heap that is nearly full
AGAIN_MS = 5000
TRIES = 60  # without progress
_HEAD = 12  # of a piece: 8 octets of the hash, 4 of the offset


class Pull:
    """The update that /state/offer names."""

    def __init__(self, worked, ended):
        """worked() returns the names of the devices that work now; ended() is called when the node is to be restarted.

        Raises ValueError, KeyError if what was noted is damaged.
        """
        manifest = json.loads(json.loads(content(kept.OFFER))["manifest"])
        self.words = {"version": manifest["version"], "state": "loading", "why": "", "of": manifest["size"]}
        self.words["got"] = kept.size(kept.PART)
        self.is_over = False
        self._sha256 = manifest["sha256"]
        self._worked = worked
        self._ended = ended
        self._asked_ms = None
        self._tries = 0

    def want(self):
        """Return what to ask the gateway for now, None if there is nothing to be asked."""
        now_ms = time.ticks_ms()
        if self.is_over or (self._asked_ms is not None and time.ticks_diff(now_ms, self._asked_ms) < AGAIN_MS):
            return None
        if self.words["got"] >= self.words["of"]:  # power failed right after the last piece
            self._finish()
            return None
        if self._tries >= TRIES:
            self._refuse("it is cut off: %d of %d bytes came" % (self.words["got"], self.words["of"]))
            return None
        self._tries += 1
        self._asked_ms = now_ms
        most = min(MOST, self.words["of"] - self.words["got"])
        return json.dumps({"sha256": self._sha256[:16], "at": self.words["got"], "most": most}).encode()

    def take(self, piece):
        """Keep a piece that was asked for; any other one is let go of."""
        if self.is_over or len(piece) <= _HEAD or piece[:8] != bytes.fromhex(self._sha256[:16]):
            return
        left = self.words["of"] - self.words["got"]
        if struct.unpack_from(">I", piece, 8)[0] != self.words["got"]:
            return
        try:
            with open(kept.PART, "ab") as file:
                file.write(memoryview(piece)[_HEAD : _HEAD + left])
            self.words["got"] = kept.size(kept.PART)
            self._tries = 0
            self._asked_ms = None
        except OSError as error:  # a full flash: the records come first
            self._refuse("the flash does not take it: %r" % error)
            return
        if self.words["got"] >= self.words["of"]:
            self._finish()

    def _finish(self):
        try:
            if kept.hash_of(kept.PART) != self._sha256:
                self._refuse("its files are not those that were signed: the hash differs")
                return
            # Before it counts as whole: what worked when it was offered, or does now, must do so with it.
            devices = list(set(kept.worked() + self._worked()))
            kept.note(version=self.words["version"], state="waiting", why="", worked=devices)
            os.rename(kept.PART, kept.WHOLE)
        except OSError as error:
            self._refuse("the flash does not take it: %r" % error)
            return
        self.is_over = True
        self.words["state"] = "waiting"
        self._ended()

    def _refuse(self, why):
        self.is_over = True
        kept.refuse(self.words["version"], why)
        self.words.update(state="refused", why=why)


def begun(asked, config, now_ms, worked, ended):
    """Return the Pull of the update that is asked for, or why it is not taken. Raises OSError."""
    try:
        from offer import take  # in here: where there is no memory for all of it, none of it stays

        asked["worked"] = worked()
        return take(asked, config, now_ms) or resumed(worked, ended)
    finally:
        for name in ("offer", "slot"):  # their code, and theirs; a package has its modules by name, too
            sys.modules.pop(name, None)
        for name in ("update", "slots"):
            if sys.modules.pop("bega_protocols." + name, None):
                delattr(sys.modules["bega_protocols"], name)


def resumed(worked, ended):
    """Return the Pull of an update that was begun, None if there is none, or none that makes sense."""
    try:
        return Pull(worked, ended) if kept.size(kept.OFFER) else None
    except (ValueError, KeyError, TypeError):
        kept.refuse("", "what was noted of it is damaged")
