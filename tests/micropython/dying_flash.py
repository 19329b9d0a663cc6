# NOR flash in memory whose power fails at its n-th operation: erased bits are ones, a write only makes zeros.
# Files left open on a dead flash are closed by the collector, which says "heap is locked": that is noise.


class PowerCut(BaseException):  # no Exception: nobody is left to catch it
    pass


class Flash:
    def __init__(self, block_bytes, blocks, image=None, torn=False):
        self.data = bytearray(image) if image else bytearray(b"\xff" * (block_bytes * blocks))
        self.cut = None  # the operation that it dies at; torn: in its middle
        self.operations = 0
        self._block_bytes = block_bytes
        self._blocks = blocks
        self._torn = torn

    def is_dead(self):
        return self.cut is not None and self.operations >= self.cut

    def readblocks(self, number, into, offset=0):
        at = number * self._block_bytes + offset
        into[:] = self.data[at : at + len(into)]

    def writeblocks(self, number, data, offset=0):
        at = number * self._block_bytes + offset
        for index in range(self._survives(len(data))):
            self.data[at + index] &= data[index]
        self._die_if_cut()

    def ioctl(self, what, argument):
        if what == 4:
            return self._blocks
        if what == 5:
            return self._block_bytes
        if what == 6:
            count = self._survives(self._block_bytes)
            at = argument * self._block_bytes
            self.data[at : at + count] = b"\xff" * count
            self._die_if_cut()
            return 0

    def _survives(self, size):
        if self.is_dead():
            raise PowerCut
        self.operations += 1
        if not self.is_dead():
            return size
        return size // 2 if self._torn else 0

    def _die_if_cut(self):
        if self.is_dead():
            raise PowerCut
