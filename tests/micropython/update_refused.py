# What a node says to updates that are none, each as far as it gets: offered, fetched, put in its place.
# Run as: micropython update_refused.py CASES.json; prints {case: why}; "" where it was taken.
import json
import os
import sys
from binascii import a2b_base64

import install
import machine
import offer
import pull
import slot
import vfs
from choice import content, put
from dying_flash import Flash

with open(sys.argv[1]) as file:
    CASES = json.load(file)
CONFIG = {"devices": [{"driver": "sht4x"}], "way": "broker"}
LOADED = dict(sys.modules)
offer.SPARE_BYTES = 4096


class Reset(Exception):
    pass


def reset():
    raise Reset


machine.reset = reset


def why_refused(case):
    sys.modules.update(LOADED)
    if case.get("failed"):
        put(slot.STATE, slot.written(slot.State("a", "-", "-", case["failed"])))
    asked = {key: case[key] for key in ("manifest", "signature") if key in case}
    payload = a2b_base64(case["payload"])
    found = pull.begun(asked, CONFIG, case["now_ms"], list, lambda: None)
    if isinstance(found, str):
        return found
    sys.modules.update(LOADED)
    pull.AGAIN_MS = 0
    while not found.is_over:
        want = json.loads(found.want() or "null")
        if want:
            octets = payload[want["at"] : want["at"] + want["most"]]
            at = want["at"]
            found.take(bytes.fromhex(want["sha256"]) + bytes((0, 0, at >> 8, at & 255)) + octets)
    if found.words["state"] == "refused":
        return found.words["why"]
    try:
        install.run(0)
    except Reset:
        return ""
    return json.loads(content(slot.NOTED))["why"]


vfs.umount("/")
sys.path[:] = ["/a"]
whys = {}
for name in CASES:
    flash = Flash(1024, 128)
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/")
    os.mkdir("/state")
    for path, text in CASES[name]["files"].items():
        install.make_folders("/a/" + path)
        put("/a/" + path, a2b_base64(text))
    whys[name] = why_refused(CASES[name])
    left = [name for name in os.listdir("/state") if name in ("part", "new")]
    if whys[name] and left:
        whys[name] = "left behind: %r" % left
    vfs.umount("/")
print(json.dumps(whys))
