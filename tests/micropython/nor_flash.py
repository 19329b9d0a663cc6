# NOR flash in memory, for scripts that cut its power at an operation of their choice.
BLOCK, BLOCKS = 512, 128


class PowerCut(Exception):
    pass


class Flash:
    """Erased bits are ones, a write only makes zeros, and it dies at operation `cut`, torn in its middle or clean."""

    def __init__(self, is_torn, image=None):
        self.data = bytearray(image) if image else bytearray(b"\xff" * (BLOCK * BLOCKS))
        self.cut = None
        self.operations = 0
        self._is_torn = is_torn

    def readblocks(self, number, into, offset=0):
        at = number * BLOCK + offset
        into[:] = self.data[at : at + len(into)]

    def writeblocks(self, number, data, offset=0):
        for index in range(self._survives(len(data))):
            self.data[number * BLOCK + offset + index] &= data[index]
        self._die_if_cut()

    def ioctl(self, what, argument):
        if what == 4:
            return BLOCKS
        if what == 5:
            return BLOCK
        if what == 6:
            count = self._survives(BLOCK)
            self.data[argument * BLOCK : argument * BLOCK + count] = b"\xff" * count
            self._die_if_cut()
            return 0

    def _survives(self, size):
        self.operations += 1
        if self.cut is None or self.operations < self.cut:
            return size
        return size // 2 if self._is_torn and self.operations == self.cut else 0

    def _die_if_cut(self):
        if self.cut is not None and self.operations >= self.cut:
            raise PowerCut
