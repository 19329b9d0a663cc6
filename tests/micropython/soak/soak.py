# The node from its flash, for HOURS of its own time; prints "SOAK seconds free largest" every ten minutes of it.
# Run as: micropython -X heapsize=N soak.py FLASH START BLOCKS HOURS, with SOAK_SPEED and SOAK_UART in the environment.
import asyncio
import gc
import os
import sys
import time

import esp32  # noqa: F401 - before the host's files are gone
import machine  # noqa: F401
import network  # noqa: F401
import vfs
from _flash import Partition

EVERY_S = 600


async def sample(hours):
    zero_ms = time.ticks_ms()
    own = gc.mem_alloc()
    while True:
        await asyncio.sleep(EVERY_S)
        gc.collect()
        since_s = time.ticks_diff(time.ticks_ms(), zero_ms) // 1000
        print("SOAK %d %d %d" % (since_s, gc.mem_free(), own))
        if since_s >= hours * 3600:
            sys.exit(0)


flash, start, blocks, hours = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
partition = Partition(flash, start, blocks)
vfs.umount("/")
vfs.mount(vfs.VfsLfs2(partition), "/")
os.chdir("/")
sys.path[:] = ["", ".frozen", "/lib"]
sys.argv[:] = [""]
gc.collect()
sampling = asyncio.create_task(sample(hours))  # noqa: RUF006 - it lives as long as this module
import main  # noqa: E402, F401
