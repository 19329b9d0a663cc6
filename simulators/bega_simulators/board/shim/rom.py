# The board's way from power to main.py: mount the flash as / and see nothing else of the host.
# Run as: micropython rom.py FLASH START BLOCKS
import os
import sys

import machine  # noqa: F401 - before the host's files are gone
import network  # noqa: F401
import vfs
from _flash import Partition

path, start, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
partition = Partition(path, start, blocks)
vfs.umount("/")
vfs.mount(vfs.VfsLfs2(partition), "/")
os.chdir("/")
sys.path[:] = ["", ".frozen", "/lib"]
sys.argv[:] = [""]
import main  # noqa: F401
