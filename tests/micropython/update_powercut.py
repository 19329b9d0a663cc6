# Power fails at the n-th flash operation of an update's life, for every EACH-th n: offered, fetched, installed, tried,
# confirmed or gone back from. On the real littlefs, with the node's own modules and the real pick.py.
# Run as: micropython update_powercut.py clean|torn EACH CASE.json; CASE has the old slot's files, the manifest, its
# signature and the payload. Its last line is "<cuts> cuts, <n> operations in whole lives"; or it exits with what broke.
import gc
import json
import os
import sys
from binascii import a2b_base64

import install
import machine
import offer
import pick
import pull
import slot
import trial
import vfs
from dying_flash import Flash, PowerCut

TORN, EACH = sys.argv[1] == "torn", int(sys.argv[2])
with open(sys.argv[3]) as file:
    CASE = json.load(file)
PAYLOAD = a2b_base64(CASE["payload"])
MANIFEST = json.loads(CASE["manifest"])
OLD, NEW = CASE["old"], MANIFEST["version"]
CONFIG = {"devices": [{"driver": "sht4x"}], "way": "broker"}
NOW_MS = MANIFEST["expires"] * 1000 - 1000
BLOCK, BLOCKS = 1024, 128
PIECE = 512
cause = [machine.PWRON_RESET]
machine.reset_cause = lambda: cause[0]
offer.SPARE_BYTES = 4096
pick.time.sleep = lambda s: None


LOADED = {name: sys.modules[name] for name in sys.modules if name != "first"}


class Reset(Exception):
    pass


def reset():
    raise Reset


machine.reset = reset


class Sensor:
    name = "sht"
    state = "ok"


class Life:
    """One node from its first start until the update is decided, as main.py, first.py and app.py have it."""

    def __init__(self, is_good):
        self.is_good = is_good
        self.asked = False
        self.ran = []  # versions, in the order of their starts
        self.is_decided = False

    def live(self):
        while not self.is_decided:
            try:
                self.start()
            except Reset:
                cause[0] = machine.HARD_RESET

    def start(self):
        sys.modules.update(LOADED)  # pull.py lets go of some; here nothing can be loaded again
        sys.modules.pop("first", None)
        sys.path[:] = ["/"]
        first, is_trial = pick.application()
        self.ran.append(first.VERSION)
        if broken(first):
            raise SystemExit("%s runs, and is not whole" % first.VERSION)
        if slot.size(slot.WHOLE):
            install.run(0)
        words = json.loads(kept_content(slot.NOTED) or "null")
        if is_trial:
            self.on_trial(words)
            return
        if words and words["state"] == "trial":
            words = trial.settled(words, first.VERSION, "")
        if words and words["state"] in ("confirmed", "rolled back"):
            self.is_decided = True
            return
        if words and words["state"] == "refused":
            raise SystemExit("refused: %r" % words)
        self.fetch(words)

    def fetch(self, words):
        if words and words["state"] == "loading":
            fetched = pull.resumed(lambda: ["sht"], reset)
        else:
            fetched = pull.begun({"manifest": CASE["manifest"], "signature": CASE["signature"]}, CONFIG, NOW_MS,
                                 lambda: ["sht"], reset)  # fmt: skip
        if isinstance(fetched, str):
            raise SystemExit("not taken: %s" % fetched)
        if fetched is None:  # it was whole already
            raise Reset
        while True:
            want = json.loads(fetched.want())
            at = want["at"]
            octets = PAYLOAD[at : at + want["most"]]
            fetched.take(bytes.fromhex(want["sha256"]) + bytes((0, 0, at >> 8, at & 255)) + octets)
            if fetched.is_over:
                raise SystemExit("fetched, and nothing came of it: %r" % fetched.words)

    def on_trial(self, words):
        proving = trial.Trial([Sensor], lambda: 0, words or {"version": NEW}, int)
        if not self.is_good:
            reset()  # a defect
        proving.acknowledged = True
        if proving.confirm():
            self.is_decided = True


def broken(first):
    return slot.whole("/" + slot.running())["version"] != first.VERSION  # or it raises


def kept_content(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def mount(flash):
    vfs.mount(vfs.VfsLfs2(flash), "/")


def fresh():
    flash = Flash(BLOCK, BLOCKS)
    vfs.VfsLfs2.mkfs(flash)
    mount(flash)
    os.mkdir("/state")
    for path, text in CASE["files"].items():
        install.make_folders("/a/" + path)
        with open("/a/" + path, "wb") as file:
            file.write(a2b_base64(text))
    vfs.umount("/")
    return bytes(flash.data)


def run(image, is_good):
    """Return (cuts, operations of a whole life)."""
    n = cuts = 0
    while True:
        n += EACH
        flash = Flash(BLOCK, BLOCKS, image, TORN)
        mount(flash)
        flash.cut = n
        cause[0] = machine.PWRON_RESET
        life = Life(is_good)
        is_whole_life = False
        try:
            life.live()
            is_whole_life = True
        except PowerCut:
            pass
        except (OSError, Reset, SystemExit):
            if not flash.is_dead():  # littlefs saw the dead flash answer, and says so in its own way
                raise
        vfs.umount("/")
        mount(Flash(BLOCK, BLOCKS, flash.data))
        cause[0] = machine.PWRON_RESET
        again = Life(is_good)
        again.live()
        expected = NEW if is_good else OLD
        if again.ran[-1] != expected or not set(again.ran) <= {OLD, NEW}:
            raise SystemExit("cut %d %s: ran %r" % (n, sys.argv[1], again.ran))
        if not is_good and (again.ran.count(NEW) > 3 or slot.state().failed != NEW):
            raise SystemExit("cut %d %s: %r, %r" % (n, sys.argv[1], again.ran, slot.state()))
        vfs.umount("/")
        gc.collect()
        if is_whole_life:
            return cuts, flash.operations
        cuts += 1


vfs.umount("/")
image = fresh()
good, bad = run(image, True), run(image, False)
print("%d cuts, %d operations in whole lives" % (good[0] + bad[0], good[1] + bad[1]))
