# Power fails at the n-th flash operation, for every EACH-th n, of what a node keeps beside its ring: configurations,
# commands that it has done, starts. On the real littlefs, with the node's own modules.
# Run as: micropython node_powercut.py clean|torn EACH. Its last line is "<cuts> cuts, <n> operations in a whole life";
# or it exits with what was lost.
import asyncio
import gc
import json
import sys

import choice
import machine
import vfs
from commands import KEPT, UNKNOWN_OUTCOME, Commands
from dying_flash import Flash, PowerCut
from starts import CRASHES, Starts

TORN, EACH = sys.argv[1] == "torn", int(sys.argv[2])
BLOCK, BLOCKS = 4096, 16
REFUSAL = "no lamp"
NOW_MS = 1795300000000
EXPIRES_S = NOW_MS // 1000 + 60
choice.OWN, choice.NEW, choice.TRIAL, choice.GOOD = ["/n/config." + end for end in ("json", "new", "trial", "good")]


class Board:
    BUSES = {"i2c0": {}}  # noqa: RUF012 - a board file's names
    DEVICES = {"sht": {"driver": "sht4x", "bus": "i2c0"}}  # noqa: RUF012


def configuration(number):
    """Large enough to be no part of its folder's own blocks."""
    tls = {"ca": "/tls/ca.der", "certificate": "/tls/node.der", "key": "/tls/node.key"}
    wifi = {"ssid": "city", "key": "w" * 63}
    devices = {"sht": {"every_s": number, "settings": {"precision": "high", "padding": "p" * 300}}}
    broker = {"host": "192.168.10.2", "port": 8883, "tls": tls}
    return {"node": "air-1", "made_s": NOW_MS // 1000, "wifi": wifi, "broker": broker, "devices": devices}


class Life:
    """What a node was promised, and what it promised, until the power failed."""

    def __init__(self, flash):
        self.flash = flash
        self.may_use = {1}  # configurations that the next start may find
        self.falls_back_to = 1  # if that start is never confirmed
        self.begun = []  # ids of commands whose work was begun
        self.answered = {}  # id: done, as it was told

    def boot(self):
        """Start, as main.py and app.py do."""
        starts = Starts("/n", machine.WDT_RESET)
        chosen = choice.Choice(Board)
        self.used = number_of(chosen)
        return starts, chosen

    def configure(self):
        """A first configuration, one that proves good, one that does not, and its own that rots."""
        starts, chosen = self.boot()
        chosen.confirm()
        starts.worked()
        self.give(chosen, 2)
        starts, chosen = self.boot()
        self.may_use, self.falls_back_to = {1, 2}, 1  # a reset ends a trial
        self.confirm(chosen, 2)
        self.give(chosen, 3)
        starts, chosen = self.boot()
        self.may_use, self.falls_back_to = {2, 3}, 2
        starts, chosen = self.boot()
        self.may_use = {2}
        self.give(chosen, 4, "no precision")
        self.boot()

    def give(self, chosen, number, spoil=""):
        before = self.used
        wanted = configuration(number)
        if spoil:
            wanted[spoil] = 1
        self.may_use = {before} if spoil else {before, number}
        why_not = choice.take(wanted, chosen.values, Board, NOW_MS)
        if bool(why_not) != bool(spoil):
            raise SystemExit("configuration %d: %s" % (number, why_not))
        if not spoil:
            self.may_use = {number}

    def confirm(self, chosen, number):
        self.may_use = {self.falls_back_to, number}
        chosen.confirm()
        self.may_use, self.falls_back_to = {number}, number

    async def command(self):
        """More commands than are kept, some twice."""
        self.hears = Commands("/n", lambda: NOW_MS, {"blink": self._blink}, self._say)
        for number in range(KEPT + 4):
            for _ in range(1 + number % 2):
                asked = {"id": "c-%d" % number, "expires": EXPIRES_S}
                self.hears.hear("blink", json.dumps(asked))
                while asked["id"] not in self.answered:  # noqa: ASYNC110 - the power fails meanwhile
                    await asyncio.sleep(0)

    def _blink(self, asked):
        if asked["id"] in self.begun:
            raise SystemExit("%s was done twice" % asked["id"])
        self.begun.append(asked["id"])
        return REFUSAL if asked["id"] == "c-5" else None

    def _say(self):
        if not self.flash.is_dead():  # or the answer never left
            for result in self.hears.results:
                self.answered[result["id"]] = result["done"]
        self.hears.results.clear()


def number_of(chosen):
    return chosen.values["devices"][0]["every_ms"] // 1000


def check(life, n):
    """After the cut it boots, with the old or the new, and no command is done twice or forgotten."""

    def wrong(what):
        raise SystemExit("cut %d %s: %s" % (n, sys.argv[1], what))

    starts, chosen = life.boot()
    if starts.crashes > CRASHES:
        wrong("%d crashes" % starts.crashes)
    if life.used not in life.may_use:
        wrong("uses configuration %d, not one of %r" % (life.used, life.may_use))
    if chosen.is_trial():
        _, chosen = life.boot()
        if life.used != life.falls_back_to or chosen.is_trial():
            wrong("after a trial it uses %d, not %d" % (life.used, life.falls_back_to))
    chosen.confirm()
    with open(choice.OWN, "w") as file:
        file.write("{")
    used = life.used
    life.boot()
    if life.used != used:
        wrong("its last good configuration is %d, not %d" % (life.used, used))

    again = Commands("/n", lambda: NOW_MS, {"blink": int}, int)
    for id_ in life.begun[1 - KEPT :]:  # one more may be noted, and not begun
        again.hear("blink", json.dumps({"id": id_, "expires": EXPIRES_S}))
        if not again.results:
            wrong("%s would be done again" % id_)
        answer = again.results.pop()
        if answer["done"] != life.answered.get(id_, answer["done"]):
            wrong("%s was told otherwise: %r" % (id_, answer))
        if not answer["done"] and answer["reason"] not in (UNKNOWN_OUTCOME, REFUSAL):
            wrong("%s: %r" % (id_, answer))


def fresh():
    flash = Flash(BLOCK, BLOCKS)
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/n")
    choice.put(choice.OWN, json.dumps(configuration(1)).encode())
    vfs.umount("/n")
    return bytes(flash.data)


def run():
    image = fresh()
    n = cuts = 0
    while True:
        n += EACH
        flash = Flash(BLOCK, BLOCKS, image, TORN)
        vfs.mount(vfs.VfsLfs2(flash), "/n")
        flash.cut = n
        life = Life(flash)
        done = False
        try:
            life.configure()
            asyncio.run(life.command())
            done = True
        except PowerCut:
            pass
        except OSError:  # littlefs saw the dead flash answer, and says so in its own way
            if not flash.is_dead():
                raise
        asyncio.new_event_loop()
        vfs.umount("/n")
        vfs.mount(vfs.VfsLfs2(Flash(BLOCK, BLOCKS, flash.data)), "/n")
        check(life, n)
        vfs.umount("/n")
        gc.collect()
        if done:
            return cuts, flash.operations
        cuts += 1


cuts, operations = run()
print("%d cuts, %d operations in a whole life" % (cuts, operations))
