"""The counter of a beacon's packets. It rises over power cuts and resets: no number is ever used twice under one key.

It is written down ahead, in steps: before the first number of a step is used,
the step's end is on flash. A power cut leaves out what was left of its step.
"""

from flash import make_folder

from bega_protocols.checks import crc32

STEP = 256  # numbers for one write; a packet each 10 s is 34 writes a day
LEAP = 1 << 26  # where nobody knows any more how far it came: a packet a second for two years
LAST = (1 << 32) - 1


class Counter:
    """Counts in two copies in `folder`, written by turns: a cut spoils the older one at most."""

    def __init__(self, folder, floor):
        """floor: nothing up to it is used; Unix seconds when the key was given keep an erased flash above its past."""
        make_folder(folder)
        self._copies = [folder + "/counter.a", folder + "/counter.b"]
        ends = [_read(copy) for copy in self._copies]
        self._older = 0 if (ends[0] or 0) <= (ends[1] or 0) else 1
        kept = max([end or 0 for end in ends])
        if None in ends:  # the spoiled one may have been the newer; with both spoiled nobody knows
            kept += STEP if kept else floor + LEAP
        self._floor = floor
        self.last = self._end = max(floor, kept)  # all up to it may have been used

    def resume(self, last):
        """Go on behind `last`, the one that was used last, if it is of the step that is on flash."""
        if max(self._floor, self._end - STEP) <= last <= self._end:
            self.last = last

    def next(self):
        """Return a number that was never returned. Raises OSError if the flash takes nothing, or none is left."""
        if self.last == self._end:
            self._begin_step()
        self.last += 1
        return self.last

    def _begin_step(self):
        end = self._end + STEP
        if end > LAST:
            raise OSError("the counter is at its end: the beacon needs a new key, and an erased flash")
        text = str(end).encode()
        with open(self._copies[self._older], "wb") as file:
            file.write(text + b" %08x" % crc32(text))
        self._older = 1 - self._older
        self._end = end


def _read(path):
    """Return the number in a copy, 0 if there is none or nothing in it, None if it is spoiled."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if not content:
            return 0  # the power failed as it was made
        text, check = content.split(b" ")
        return int(text) if int(check, 16) == crc32(text) else None
    except ValueError:
        return None
    except OSError:
        return 0
