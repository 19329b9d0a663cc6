# A heap that has gone to pieces: the ring is read all the same, since the room for a segment was taken at the start.
# Run as: micropython -X heapsize=120k torn_heap.py
import gc
import json
import os
import sys

from flash import Segments

from bega_protocols.ring import Ring

SHAPE = b"pms|pm2_5,,0,0"
folder = "/tmp/bega-torn-heap-%s" % os.urandom(4).hex()
ring = Ring(Segments(folder), 8, 4096)
for first in range(1, 90, 10):
    numbers = range(first, first + 10)
    ring.append([(1, seq, SHAPE, b"body of a record, forty bytes or so %04d" % seq) for seq in numbers])

gc.collect()
pieces = []
try:
    while True:
        pieces.append(bytearray(200))
except MemoryError:
    pass
for at in range(0, len(pieces), 2):
    pieces[at] = None
gc.collect()

can_have_it = True
try:
    bytearray(4096)
except MemoryError:
    can_have_it = False
count = 0
found = ring.next()
while found is not None:
    count += 1
    found = ring.next(found.after)
for name in os.listdir(folder):
    os.remove(folder + "/" + name)
os.rmdir(folder)
print(json.dumps({"four_kb_in_one_piece": can_have_it, "records_read": count}))
sys.exit(0)
