# The board's way from power to main.py: mount the flash as / and see nothing else of the host.
# Run as: micropython -i rom.py FLASH START BLOCKS boot|main; `boot` runs boot.py alone, as before a raw REPL.
import os
import sys

import vfs
from _board import cut  # which puts the port's modules in their places, before the host's files are gone
from _flash import Partition

path, start, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
partition = Partition(path, start, blocks, cut)
vfs.umount("/")
vfs.mount(vfs.VfsLfs2(partition), "/")
os.chdir("/")
sys.path[:] = ["", ".frozen", "/lib"]
programs = ("boot", "main") if sys.argv[4] == "main" else ("boot",)
sys.argv[:] = [""]
for program in programs:
    if program + ".py" in os.listdir("/"):  # a board runs these two, and no .mpy in their place
        __import__(program)
