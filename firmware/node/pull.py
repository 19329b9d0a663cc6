"""Fetching an update, piece by piece, as far as the gateway answers; it is resumed from what is on flash."""

import json
import os
import struct
import sys
import time

import slot

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
        manifest = slot.offered()
        self.words = {"version": manifest["version"], "state": "loading", "why": "", "of": manifest["size"]}
        self.words["got"] = slot.size(slot.PART)
        self.is_over = False
        self._sha256 = manifest["sha256"]
        self._worked = worked
        self._ended = ended
        self._asked_ms = None
        self._tries = 0

    def want(self):
        """Return what to ask the gateway for now, None if there is nothing to be asked; all of it is tried here."""
        now_ms = time.ticks_ms()
        if self.is_over or (self._asked_ms is not None and time.ticks_diff(now_ms, self._asked_ms) < AGAIN_MS):
            return None
        at = self.words["got"]
        left = self.words["of"] - at
        if left <= 0:
            return self._finish()
        if self._tries >= TRIES:
            return self._refuse("it is cut off: %d bytes are missing" % left)
        self._tries += 1
        self._asked_ms = now_ms
        return json.dumps({"sha256": self._sha256[:16], "at": at, "most": min(MOST, left)}).encode()

    def take(self, piece):
        """Keep a piece that was asked for; any other one is let go of."""
        at = self.words["got"]
        head = bytes.fromhex(self._sha256[:16]) + struct.pack(">I", at)
        if self.is_over or len(piece) <= _HEAD or piece[:_HEAD] != head:
            return
        try:
            with open(slot.PART, "ab") as file:
                file.write(memoryview(piece)[_HEAD : _HEAD + self.words["of"] - at])
            self.words["got"] = slot.size(slot.PART)
            self._tries = 0
            self._asked_ms = None
        except OSError as error:  # a full flash: the records come first
            self._fail(error)

    def _finish(self):
        try:
            if slot.hash_of(slot.PART) != self._sha256:
                return self._refuse("its files are not those that were signed: the hash differs")
            # Before it counts as whole: what worked until now must do so with it.
            slot.note(self.words["version"], "waiting", worked=slot.worked() + self._worked())
            os.rename(slot.PART, slot.WHOLE)
        except OSError as error:
            return self._fail(error)
        self.is_over = True
        self.words["state"] = "waiting"
        self._ended()

    def _fail(self, error):
        self._refuse("the flash does not take it: %r" % error)

    def _refuse(self, why):
        self.is_over = True
        slot.refuse(self.words["version"], why)
        self.words.update(state="refused", why=why)


def begun(asked, config, now_ms, worked, ended):
    """Return the Pull of the update that is asked for, or why it is not taken. Raises OSError."""
    try:
        from offer import take  # in here: where there is no memory for all of it, none of it stays

        return take(asked, config, now_ms) or resumed(worked, ended)
    finally:
        sys.modules.pop("offer", None)


def resumed(worked, ended):
    """Return the Pull of an update that was begun, None if there is none, or none that makes sense."""
    try:
        return Pull(worked, ended) if slot.size(slot.OFFER) else None
    except (ValueError, KeyError, TypeError):
        slot.refuse("", "what was noted of it is damaged")
