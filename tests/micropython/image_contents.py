"""What MicroPython finds in the image of a node: run as `micropython image_contents.py IMAGE BLOCKS MODULE...`.

Prints JSON: {"files": {path: sha256}, "loaded": [module, ...]}.
"""

import binascii
import hashlib
import json
import os
import sys

import vfs
from _flash import Partition

ADVERTISED_FOLDER = 0x4000


def walk(folder):
    """Yield the path of every file below `folder`."""
    for name, kind, *_ in os.ilistdir(folder):
        path = folder.rstrip("/") + "/" + name
        if kind == ADVERTISED_FOLDER:
            yield from walk(path)
        else:
            yield path


def sha256(path):
    """Return the hash of a file as text."""
    with open(path, "rb") as file:
        return binascii.hexlify(hashlib.sha256(file.read()).digest()).decode()


image = Partition(sys.argv[1], 0, int(sys.argv[2]))
vfs.umount("/")
vfs.mount(vfs.VfsLfs2(image), "/")
found = {path: sha256(path) for path in walk("/")}
os.chdir("/")
sys.path[:] = ["/a", "/a/lib", ".frozen"]  # as main.py does
for module in sys.argv[3:]:
    __import__(module)
print(json.dumps({"files": found, "loaded": sys.argv[3:]}))
