# What each module of a built node takes of the heap, after it was imported and swept; and how many names lie there.
# Run as: MICROPYPATH=FILES:FILES/lib:tests/micropython/soak:.frozen micropython -X heapsize=400wk heap.py [MODULE ...]
# where FILES is the folder a of what `bega node build` wrote.
import gc
import sys

import micropython

USUAL = ("starts", "asyncio", "ssl", "bega_protocols.ring", "app", "broker")


def taken():
    gc.collect()
    return gc.mem_alloc()


began = taken()
for name in sys.argv[1:] or USUAL:
    before = taken()
    __import__(name)
    print("%6d %s" % (taken() - before, name))
print("%6d in all" % (taken() - began))
micropython.qstr_info()
