# Puts files into the board's flash, as a technician does: what is there already in the same words is left alone.
# Run as: micropython flasher.py FLASH START BLOCKS LIST; LIST is JSON, [[file on the host, path on the board], ...]
import json
import os
import sys

import vfs
from _flash import Partition


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def make_folders(path):
    parts = path.split("/")[1:-1]
    for end in range(1, len(parts) + 1):
        try:
            os.mkdir("/flash/" + "/".join(parts[:end]))
        except OSError:
            pass


flash, start, blocks, listing = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
partition = Partition(flash, start, blocks)
if partition.is_blank():
    vfs.VfsLfs2.mkfs(partition)  # only ever a blank one: what fails to mount may hold measurements
vfs.mount(vfs.VfsLfs2(partition), "/flash")
is_other = False
for source, target in json.load(open(listing)):
    content = read(source)
    if target.endswith(".mpy") and read("/flash" + target[:-4] + ".py") is not None:
        os.remove("/flash" + target[:-4] + ".py")  # of an earlier start: it would be imported in place of this one
    if read("/flash" + target) != content:
        make_folders(target)
        with open("/flash" + target, "wb") as file:
            file.write(content)
        is_other = is_other or target.startswith("/a/")
if is_other and read("/flash/state/slot") is not None:
    os.remove("/flash/state/slot")  # an update may have made /b the one that runs
vfs.umount("/flash")
