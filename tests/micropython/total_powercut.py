# Power fails at the n-th flash operation, for every n: the total of a meter's pulses on the real littlefs.
# Run as: micropython total_powercut.py clean|torn. Its last line is "<cuts> cuts, ..."; or it exits with what was lost.
import gc
import os
import sys

import vfs
from dying_flash import Flash, PowerCut

TORN = sys.argv[1] == "torn"
BLOCK, BLOCKS = 512, 128
START = 123456789  # in Wh
SET = 200000000


class Chip:
    """What the contact hangs on: it closes when it is told to."""

    IN = PULL_UP = IRQ_FALLING = FALLING = 1

    def __init__(self, *_, **__):
        pass

    def value(self, zero=None):
        if zero is None:
            return 1 - Chip.closed
        closings, Chip.closings = Chip.closings, 0
        return closings

    def irq(self, *_):
        pass


Chip.Pin = Chip.Counter = Chip
sys.modules["machine"] = Chip
import pulses  # noqa: E402 - with the chip in place


class Life:
    """What the node said, what the meter truly gave, and what somebody set it to."""

    def __init__(self):
        Chip.closed = Chip.closings = 0
        self.now_ms = 0
        self.said = self.most = START
        self.boots = 100

    def meter(self):
        self.boots += 1
        device = {"name": "flat", "every_ms": 1000, "settings": {"pulses_per_kwh": 1000, "start": "123456.789"}}
        wiring = {"kind": "pulses", "pin": 27, "id": 0}
        return pulses.Pulses(device, wiring, "/n", self.boots, lambda: self.now_ms, self.take, lambda: None)

    def take(self, device, measured_ms, readings):
        for reading in readings:
            if reading[0] == "active_energy_import":
                self.said = reading[1]

    def pulse(self, meter):
        self.most += 1
        for closed in (1, 0):
            Chip.closed, Chip.closings = closed, closed
            for _ in range(11):
                self.now_ms += 3
                meter._look()

    def window(self, meter):
        meter._close_window()


def live(life):
    """Three boots: count, say, count on without saying, and once be set."""
    for boot in range(3):
        meter = life.meter()
        life.window(meter)
        for _ in range(6):
            life.pulse(meter)
            life.pulse(meter)
            life.window(meter)
        if boot == 1:
            life.most = SET  # from here on it may be this one, or the old one
            meter.set("200000.000")
            life.said = SET
            life.pulse(meter)
            life.window(meter)
        life.pulse(meter)  # of which nobody was told


def check(life, n):
    """After the cut: never less than was said, never more than there was, and it counts on."""

    def wrong(what):
        raise SystemExit("cut %d %s: %s" % (n, sys.argv[1], what))

    said, most = life.said, life.most
    meter = life.meter()
    if meter.state != "ok":
        wrong("the total is %s" % meter.state)
    life.window(meter)
    shown = life.said
    if not said <= shown <= most:
        wrong("%d was said and %d were there, shown is %d" % (said, most, shown))
    life.pulse(meter)
    life.window(meter)
    if life.said != shown + 1:
        wrong("it counts no more")


def run():
    flash = Flash(BLOCK, BLOCKS)
    vfs.VfsLfs2.mkfs(flash)
    image = bytes(flash.data)
    n = 0
    while True:
        n += 1
        flash = Flash(BLOCK, BLOCKS, image, TORN)
        life = Life()
        vfs.mount(vfs.VfsLfs2(flash), "/n")
        flash.cut = n
        done = False
        try:
            live(life)
            done = not meter_failed(life)
        except (PowerCut, OSError):
            pass
        survivor = Flash(BLOCK, BLOCKS, flash.data)
        vfs.umount("/n")
        vfs.mount(vfs.VfsLfs2(survivor), "/n")
        check(life, n)
        vfs.umount("/n")
        gc.collect()
        if done:
            return n - 1, flash.operations


def meter_failed(life):
    """A flash that died is no error to a node: it says so and says no total any more."""
    try:
        os.statvfs("/n")
        with open("/n/alive", "wb") as file:
            file.write(b"1")
        return False
    except (PowerCut, OSError):
        return True


cuts, operations = run()
print("%d cuts, %d operations in a whole life" % (cuts, operations))
