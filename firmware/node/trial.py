"""A version on trial: it stays once all that worked before it works, or it gives way to the one before."""

import asyncio

import slot

TRIAL_MS = 600000
EVERY_MS = 1000


class Trial:
    """Decides, once. It takes a record that the gateway acknowledged, and a good state of each device that had one."""

    def __init__(self, sensors, mono, words, decided):
        """words: what install.py noted; decided() is called when the version stays."""
        self.words = {"version": words["version"], "state": "trial", "why": ""}
        self.is_over = False
        self.acknowledged = False  # set by who hears it
        worked = words.get("worked", ())
        self._sensors = [sensor for sensor in sensors if sensor.name in worked]
        self._mono = mono
        self._decided = decided

    def why_not_yet(self):
        """Return what is missing, "" if nothing is."""
        for sensor in self._sensors:
            if sensor.state != "ok":
                return "%s gives no good reading" % sensor.name
        return "" if self.acknowledged else "no record was acknowledged"

    def confirm(self):
        """Have this version stay, if nothing is missing; return whether it is so."""
        if not self.is_over and not self.why_not_yet():
            try:
                slot.confirm()
                self.words = slot.note(self.words["version"], "confirmed")
            except OSError:
                return False  # a flash that takes nothing now may do so later
            self.is_over = True
            self._decided()
        return self.is_over

    def give_up(self):
        """Have the former version run from the next start on. Raises OSError."""
        slot.go_back("not confirmed in time: " + self.why_not_yet())

    async def run(self, restart):
        """Decide when it is time; restart() if this version has to give way."""
        while not self.confirm():
            if self._mono() > TRIAL_MS:
                self.give_up()
                restart()
            await asyncio.sleep_ms(EVERY_MS)


def settled(words, version, last_error):
    """Return what came of an update that is on trial no more: pick.py, which goes back, notes nothing. Raises OSError.

    words: what was noted; version: what runs.
    """
    if words["version"] == version:
        return slot.note(version, "confirmed")  # power failed before it was noted
    why = "its starts failed: " + last_error[-100:]
    return slot.note(words["version"], "rolled back", why)
