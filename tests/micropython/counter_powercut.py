# Power fails at the n-th flash operation, for every n: a beacon's counter on the real littlefs gives no number twice.
# Run as: micropython counter_powercut.py clean|torn. Its last line is "<cuts> cuts, ...", or what was given twice.
import gc
import sys

import vfs
from counter import STEP, Counter

TORN = sys.argv[1] == "torn"
BLOCK, BLOCKS = 512, 32
FLOOR = 1795300000
LIVES, PACKETS = 3, STEP + 20  # each life passes the end of a step


class PowerCut(Exception):
    pass


class Flash:
    """NOR flash in memory: erased bits are ones, a write only makes zeros, and it dies at operation `cut`."""

    def __init__(self):
        self.data = bytearray(b"\xff" * (BLOCK * BLOCKS))
        self.cut = None
        self.operations = 0

    def readblocks(self, number, into, offset=0):
        at = number * BLOCK + offset
        into[:] = self.data[at : at + len(into)]

    def writeblocks(self, number, data, offset=0):
        for index in range(self._survives(len(data))):
            self.data[number * BLOCK + offset + index] &= data[index]
        self._die_if_cut()

    def ioctl(self, what, argument):
        if what == 4:
            return BLOCKS
        if what == 5:
            return BLOCK
        if what == 6:
            count = self._survives(BLOCK)
            self.data[argument * BLOCK : argument * BLOCK + count] = b"\xff" * count
            self._die_if_cut()
            return 0

    def _survives(self, size):
        self.operations += 1
        if self.cut is None or self.operations < self.cut:
            return size
        return size // 2 if TORN and self.operations == self.cut else 0

    def _die_if_cut(self):
        if self.cut is not None and self.operations >= self.cut:
            raise PowerCut


def live(flash, last):
    """Count until the power fails or the life is over; return the last number that was given."""
    vfs.mount(vfs.VfsLfs2(flash), "/flash")
    try:
        counter = Counter("/flash/state", FLOOR)
        for _ in range(PACKETS):
            number = counter.next()
            if number <= max(last, FLOOR):
                sys.exit("%d after %d" % (number, last))
            last = number
    except (PowerCut, OSError):
        if flash.cut is None:
            raise
    finally:
        vfs.umount("/flash")
        gc.collect()
    return last


def run(cut):
    """Cut once, at that operation; then live on. Return whether the cut came."""
    flash = Flash()
    vfs.VfsLfs2.mkfs(flash)
    flash.operations = 0
    flash.cut = cut
    last = 0
    cuts = 0
    for _ in range(LIVES):
        last = live(flash, last)
        cuts += flash.operations >= cut
        if flash.operations >= cut:
            flash.cut = None
            flash.operations = -1000000
    last = live(flash, last)
    if last > FLOOR + (LIVES + 2) * (PACKETS + 2 * STEP):
        sys.exit("it leapt to %d" % last)
    return cuts > 0


cut = 1
while run(cut):
    cut += 1
print("%d cuts, %s" % (cut - 1, "torn" if TORN else "clean"))
