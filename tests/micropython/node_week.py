# DAYS without a way out, then back: what the store took in that time is handed on by the node's own link, each record
# once, or declared as dropped. On the real littlefs; the power fails at half-time; the days pass as fast as the flash
# takes them.
# Run as: micropython node_week.py FLASH BLOCKS DAYS EVERY_S. Its last line is JSON; or it exits with what was lost.
import asyncio
import gc
import json
import sys
import time

import vfs
from _flash import Partition
from flash import Segments, begin_boot
from link import Link
from store import Store

from bega_protocols.reading import Reading
from bega_protocols.ring import Ring
from bega_protocols.timekeeping import Clock, Patience

DAY_MS = 86400000
FLOOR_MS = 1795300000000
COUNTS = ("particles_0_3", "particles_0_5", "particles_1", "particles_2_5", "particles_5", "particles_10")


class Gateway:
    """The way out, and the gateway behind it: the next seq of a boot is stored, and the head acknowledged."""

    def __init__(self, now_ms):
        self.heads = {}
        self.records = {}  # boot: how many came, each the one behind the last
        self.declared = {}  # boot: seqs that will not come
        self.qualities = {}
        self.wrong = []
        self._now_ms = now_ms
        self._hear = None

    async def open(self):
        pass

    async def run(self, hear):
        self._hear = hear
        hear("time", json.dumps({"unix_ms": self._now_ms()}).encode())
        await asyncio.sleep(3600)

    async def send(self, kind, payload):
        if kind == "status":
            self._take_status(json.loads(payload))
        elif kind == "up":
            self._take(json.loads(payload)[0])
        while self._hear is None:
            await asyncio.sleep_ms(1)
        self._hear("ack", json.dumps(sorted(self.heads.items())).encode())

    def check(self):
        pass

    def close(self):
        pass

    def _take_status(self, status):
        for boot, first, last in status["dropped"]:
            if self.heads.get(boot, 0) < last:
                self.declared[boot] = self.declared.get(boot, 0) + last - max(first, self.heads.get(boot, 0) + 1) + 1
                self.heads[boot] = last
        for boot, first, _ in status["holds"]:
            self.heads[boot] = max(self.heads.get(boot, 0), first - 1)

    def _take(self, head):
        boot, seq, quality = head["boot"], head["seq"], head.get("tq", 0)
        if seq != self.heads.get(boot, 0) + 1:
            return
        self.heads[boot] = seq
        self.records[boot] = self.records.get(boot, 0) + 1
        self.qualities[quality] = self.qualities.get(quality, 0) + 1
        taken_ms = TAKEN[boot] + (seq - 1) // 2 * EVERY_MS
        if "bt" in head and abs(int(head["bt"] * 1000) - taken_ms) > 5000:
            self.wrong.append((boot, seq, int(head["bt"] * 1000) - taken_ms))


class Commands:
    results = ()


def dust(number):
    masses = [Reading(name, number % 400) for name in ("pm1", "pm2_5", "pm10")]
    return masses + [Reading(name, 8000 + number % 97, -2) for name in COUNTS]


def boot(made_ms):
    """Return (boot, ring, store, mono, let time pass) of a node that starts at that moment, not knowing the time."""
    mono = [0]
    ring = Ring(STORAGE, STORAGE.room(4096), 4096)
    number = begin_boot("/n", max(100, ring.last_boot() + 1))
    TAKEN[number] = made_ms
    clock, patience = Clock(FLOOR_MS), Patience()
    store = Store("air-1", number, 0, ring, clock, patience, lambda: mono[0], lambda _: None)
    return number, ring, store, patience, mono


async def hand_on(ring, store, patience, mono, began_ms):
    zero_ms, at_ms = time.ticks_ms(), mono[0]

    def passing():
        mono[0] = at_ms + time.ticks_diff(time.ticks_ms(), zero_ms)
        return mono[0]

    gateway = Gateway(lambda: began_ms + passing())
    link = Link(gateway, store, patience, passing, dict, Commands, lambda: None)
    running = asyncio.create_task(link.run(lambda: None))
    while ring.held_count() or ring.dropped():
        await asyncio.sleep_ms(20)
        if time.ticks_diff(time.ticks_ms(), zero_ms) > 1000000:
            raise SystemExit("still held: %r, dropped %r" % (ring.holds(), ring.dropped()))
    running.cancel()
    return gateway, passing() - at_ms


def run(days):
    taken = {}
    now_ms = FLOOR_MS + 1000000
    for part, span in enumerate((days // 2, days - days // 2)):
        number, ring, store, patience, mono = boot(now_ms)
        if part == 0:
            store.heard_time(now_ms)  # then the way out is gone
        for window in range(span * DAY_MS // EVERY_MS):
            mono[0] = window * EVERY_MS
            store.take("pms", mono[0], dust(window))
            store.take("sht", mono[0], [Reading("temperature", 2100 + window % 50, -2), Reading("humidity", 4876, -2)])
            store.flush()
        taken[number] = store.seq
        if part == 0:
            now_ms += span * DAY_MS
    segments = ring.used_segments()
    gateway, took_ms = asyncio.run(hand_on(ring, store, patience, mono, now_ms))
    for number in taken:
        came, declared = gateway.records.get(number, 0), gateway.declared.get(number, 0)
        if came + declared != taken[number]:
            raise SystemExit("boot %d: %d taken, %d came, %d declared" % (number, taken[number], came, declared))
    if gateway.wrong:
        raise SystemExit("stamped wrongly: %r" % gateway.wrong[:5])
    counts = {"taken": sum(taken.values()), "came": sum(gateway.records.values())}
    counts["declared"] = sum(gateway.declared.values())
    counts["segments"], counts["ms"] = segments, took_ms
    counts["qualities"] = sorted(gateway.qualities.items())
    return counts


EVERY_MS = int(sys.argv[4]) * 1000
TAKEN = {}
partition = Partition(sys.argv[1], 0, int(sys.argv[2]))
vfs.VfsLfs2.mkfs(partition)
vfs.mount(vfs.VfsLfs2(partition), "/n")
STORAGE = Segments("/n/ring")
gc.collect()
print(json.dumps(run(int(sys.argv[3]))))
