# What a start does with an offer that was put aside (/state/asked): CASES.json; prints {case: [note, is it gone]}.
import json
import os
import sys
from binascii import a2b_base64

import install
import offer
import slot
import vfs
from choice import content, is_there, put
from dying_flash import Flash

with open(sys.argv[1]) as file:
    CASES = json.load(file)
offer.SPARE_BYTES = 4096

vfs.umount("/")
sys.path[:] = ["/a"]
found = {}
for name in CASES:
    vfs.VfsLfs2.mkfs(flash := Flash(1024, 128))
    vfs.mount(vfs.VfsLfs2(flash), "/")
    os.mkdir("/state")
    for path, text in CASES[name]["files"].items():
        install.make_folders("/a/" + path)
        put("/a/" + path, a2b_base64(text))
    put(offer.ASKED, CASES[name]["asked"].encode())
    try:
        offer.take_asked()
        note = json.loads(content(slot.NOTED))
    except Exception as error:
        note = {"state": "raised", "why": repr(error)}
    found[name] = [note, not is_there(offer.ASKED)]
    vfs.umount("/")
print(json.dumps(found))
