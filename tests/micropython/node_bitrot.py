# One bit of the flash rots, here and there, all over what a node keeps: on the real littlefs, with the node's modules.
# Run as: micropython node_bitrot.py EACH; every EACH-th octet that is written loses or gains one bit.
# Its last line is JSON: how often what came of it. It exits with what must not be: a record that reads otherwise than
# it was stored, or an end other than by OSError or ConfigError, which main.py answers by beginning anew or by a word.
import gc
import json
import sys

import choice
import machine
import vfs
from commands import Commands
from dying_flash import Flash
from flash import Segments, begin_boot
from starts import Starts

from bega_protocols.errors import ConfigError
from bega_protocols.ring import Ring

EACH = int(sys.argv[1])
BLOCK, BLOCKS = 4096, 24
SHAPE = b"pms|pm2_5,,0,0"
RECORDS = 150
choice.OWN, choice.NEW, choice.TRIAL, choice.GOOD = ["/n/config." + end for end in ("json", "new", "trial", "good")]
CONFIGURATION = {
    "node": "air-1",
    "made_s": 1795300000,
    "wifi": {"ssid": "city", "key": "w" * 63},
    "broker": {"host": "192.168.10.2", "port": 8883, "tls": {"ca": "/a", "certificate": "/c", "key": "/k"}},
    "devices": {"sht": {"every_s": 10, "settings": {"padding": "p" * 300}}},
}


class Board:
    BUSES = {"i2c0": {}}  # noqa: RUF012 - a board file's names
    DEVICES = {"sht": {"driver": "sht4x", "bus": "i2c0"}}  # noqa: RUF012


def body(seq):
    return b"body %05d" % seq


def fresh():
    flash = Flash(BLOCK, BLOCKS)
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/n")
    choice.put(choice.OWN, json.dumps(CONFIGURATION).encode())
    choice.Choice(Board).confirm()
    Starts("/n", machine.WDT_RESET)
    boot = begin_boot("/n", 100)
    ring = Ring(Segments("/n/ring"), 8, BLOCK)
    for first in range(1, RECORDS, 10):
        ring.append([(boot, seq, SHAPE, body(seq)) for seq in range(first, first + 10)])
    vfs.umount("/n")
    return bytes(flash.data), boot


def start(boot):
    """Start as a node does; return a word for what it lives on with."""
    Starts("/n", machine.WDT_RESET)
    try:
        chosen = choice.Choice(Board)
    except ConfigError:
        return "no configuration"
    word = "last good configuration" if chosen.said else "as before"
    if chosen.values != VALUES:
        word = "another configuration"
    Commands("/n", int, {}, int)
    ring = Ring(Segments("/n/ring"), 8, BLOCK)
    again = begin_boot("/n", max(VALUES["made_s"], ring.last_boot() + 1))
    if again <= boot:
        raise SystemExit("boot %d comes again" % again)
    held = []
    found = ring.next()
    while found is not None:
        if found.boot == boot and (found.shape != SHAPE or found.body != body(found.seq)):
            raise SystemExit("record %d reads %r" % (found.seq, found.body))
        held.append((found.boot, found.seq))
        found = ring.next(found.after)
    declared = []
    for a_boot, first, last in ring.dropped():
        declared.extend([(a_boot, seq) for seq in range(first, last + 1)])
    missing = [seq for seq in range(1, RECORDS + 1) if (boot, seq) not in held and (boot, seq) not in declared]
    if missing:
        return "a folder as it was before"
    return "records declared" if declared and word == "as before" else word


def run():
    outcomes = {}
    state = 1
    written = [at for at in range(len(IMAGE)) if IMAGE[at] != 0xFF]
    for at in written[::EACH]:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        rotten = Flash(BLOCK, BLOCKS, IMAGE)
        rotten.data[at] ^= 1 << (state >> 16 & 7)
        try:
            vfs.mount(vfs.VfsLfs2(rotten), "/n")
        except OSError:
            came = "no file system"
        else:
            try:
                came = start(BOOT)
            except OSError as error:
                came = "OSError %d" % error.errno
            vfs.umount("/n")
        outcomes[came] = outcomes.get(came, 0) + 1
        gc.collect()
    return outcomes


IMAGE, BOOT = fresh()
vfs.mount(vfs.VfsLfs2(Flash(BLOCK, BLOCKS, IMAGE)), "/n")
VALUES = choice.Choice(Board).values
vfs.umount("/n")
print(json.dumps(run()))
