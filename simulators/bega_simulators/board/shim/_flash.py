# The board's flash: a file. Written through, so that killing the process is a power cut.
BLOCK = 4096
_ERASED = b"\xff" * 256  # small pieces: this shares the firmware's heap, and a real erase takes none of it


class Partition:
    """`blocks` blocks of the file at `path`, from byte `start` on, as MicroPython's block devices are read."""

    def __init__(self, path, start, blocks):
        self._file = open(path, "r+b")
        self._start = start
        self._blocks = blocks

    def readblocks(self, number, into, offset=0):
        self._file.seek(self._start + number * BLOCK + offset)
        self._file.readinto(into)

    def writeblocks(self, number, data, offset=0):
        self._file.seek(self._start + number * BLOCK + offset)
        self._file.write(data)

    def ioctl(self, what, argument):
        if what == 4:
            return self._blocks
        if what == 5:
            return BLOCK
        if what == 6:
            for offset in range(0, BLOCK, len(_ERASED)):
                self.writeblocks(argument, _ERASED, offset)
            return 0

    def is_blank(self):
        block = bytearray(BLOCK)
        self.readblocks(0, block)
        return block == b"\xff" * BLOCK
