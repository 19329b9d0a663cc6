# Power fails at the n-th flash operation, for every n: the ring and the boot number on the real littlefs.
# Run as: micropython ring_powercut.py clean|torn. Its last line is "<cuts> cuts, ..."; or it exits with what was lost.
import gc
import sys

import vfs
from dying_flash import Flash, PowerCut
from flash import Segments, begin_boot

from bega_protocols.ring import Ring

TORN = sys.argv[1] == "torn"
BLOCK, BLOCKS = 512, 128
SHAPE = b"pms|pm2_5,,0,0"


class History:
    """What a node's life promised: which appends returned, which acknowledgements came."""

    def __init__(self):
        self.boots = []
        self.stored = []
        self.begun = []
        self.freed = {}


def live(history):
    """Two boots: store, free and drop (the ring is small), as a node does."""
    for _ in range(2):
        boot = begin_boot("/n", 100)
        history.boots.append(boot)
        ring = Ring(Segments("/n/ring"), 3, 256)
        for seq in range(1, 36):
            history.begun.append((boot, seq))
            ring.append([(boot, seq, SHAPE, b"body %d" % seq)])
            history.stored.append((boot, seq))
            if seq == 3:
                ring.mark(boot, b"noon")
            if seq == 12:
                history.freed[boot] = 9
                ring.free([(boot, 9)])
            if seq == 29:
                history.freed[boot] = 20
                ring.free([(boot, 20)])


def check(history, n):
    """After the cut: everything readable, and each stored record is held, acknowledged or declared."""

    def wrong(what):
        raise SystemExit("cut %d %s: %s" % (n, sys.argv[1], what))

    ring = Ring(Segments("/n/ring"), 3, 256)
    held = []
    found = ring.next()
    while found is not None:
        if found.shape != SHAPE or found.body != b"body %d" % found.seq:
            wrong("record %d/%d reads %r" % (found.boot, found.seq, found.body))
        held.append((found.boot, found.seq))
        found = ring.next(found.after)
    declared = set()
    for boot, first, last in ring.dropped():
        for seq in range(first, last + 1):
            declared.add((boot, seq))
    for boot, seq in history.stored:
        if (boot, seq) not in held and (boot, seq) not in declared and seq > history.freed.get(boot, 0):
            wrong("lost %d/%d; held %r, declared %r" % (boot, seq, held, declared))
    if not set(held) <= set(history.begun):
        wrong("holds what was never stored")
    if held != sorted(held) or len(set(held)) != len(held):
        wrong("order %r" % held)
    if declared & set(held):
        wrong("declares what it holds")
    for boot, first, last in ring.holds():
        if first <= 3 and last >= 4 and boot not in [mark[0] for mark in ring.marks()]:
            wrong("mark of boot %d lost" % boot)
    boot = begin_boot("/n", 100)
    if history.boots and boot <= max(history.boots):
        wrong("boot %d comes again" % boot)
    ring.append([(boot, 1, SHAPE, b"body 1")])  # and it goes on
    if (boot, 1) not in [(row[0], row[2]) for row in ring.holds()]:
        wrong("no longer stores")


def fresh():
    flash = Flash(BLOCK, BLOCKS)
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/n")
    vfs.umount("/n")
    return bytes(flash.data)


def run():
    image = fresh()
    n = 0
    while True:
        n += 1
        flash = Flash(BLOCK, BLOCKS, image, TORN)
        history = History()
        vfs.mount(vfs.VfsLfs2(flash), "/n")
        flash.cut = n
        done = False
        try:
            live(history)
            done = True
        except PowerCut:
            pass
        except OSError:  # littlefs saw the dead flash answer, and says so in its own way
            pass
        survivor = Flash(BLOCK, BLOCKS, flash.data)
        vfs.umount("/n")
        vfs.mount(vfs.VfsLfs2(survivor), "/n")
        check(history, n)
        vfs.umount("/n")
        gc.collect()
        if done:
            return n - 1, flash.operations


cuts, operations = run()
print("%d cuts, %d operations in a whole life" % (cuts, operations))
