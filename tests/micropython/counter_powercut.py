# Power fails at the n-th flash operation, for every n: a beacon's counter on the real littlefs gives no number twice.
# Run as: micropython counter_powercut.py clean|torn. Its last line is "<cuts> cuts, ...", or what was given twice.
import gc
import sys

import vfs
from counter import STEP, Counter
from dying_flash import Flash, PowerCut

TORN = sys.argv[1] == "torn"
BLOCK, BLOCKS = 512, 32
FLOOR = 1795300000
LIVES, PACKETS = 3, STEP + 20  # each life passes the end of a step


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
    flash = Flash(BLOCK, BLOCKS, torn=TORN)
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
