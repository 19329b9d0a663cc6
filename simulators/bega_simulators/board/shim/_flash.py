# The board's flash: a file. Written through, so that killing the process is a power cut; `cut` lets one come in the
# middle of an operation (simulators' cut.py has its layout).
import struct
import time

BLOCK = 4096
_ERASED = b"\xff" * 256  # small pieces: this shares the firmware's heap, and a real erase takes none of it
_state = bytearray(10)


class Partition:
    """`blocks` blocks of `file`, from byte `start` on, as MicroPython's block devices are read."""

    def __init__(self, file, start, blocks, cut=None):
        """file: its path, or the open file."""
        self._file = open(file, "r+b") if isinstance(file, str) else file
        self._start = start
        self._blocks = blocks
        self._cut = cut

    def readblocks(self, block_num, buf, offset=0):
        self._file.seek(self._start + block_num * BLOCK + offset)
        self._file.readinto(buf)

    def writeblocks(self, block_num, buf, offset=None):
        if offset is None:  # a whole block, which is erased first
            self.ioctl(6, block_num)
        allowed = self._allowed(len(buf))
        self._file.seek(self._start + block_num * BLOCK + (offset or 0))
        self._file.write(buf if allowed == len(buf) else buf[:allowed])
        if allowed < len(buf):
            _stand_still()

    def ioctl(self, op, arg=0):
        if op == 4:
            return self._blocks
        if op == 5:
            return BLOCK
        if op == 6:
            allowed = self._allowed(BLOCK)
            self._file.seek(self._start + arg * BLOCK)
            for _ in range(0, allowed, len(_ERASED)):
                self._file.write(_ERASED)
            if allowed < BLOCK:
                _stand_still()
        return 0

    def is_blank(self):
        block = bytearray(BLOCK)
        self.readblocks(0, block)
        return block == b"\xff" * BLOCK

    def _allowed(self, size):
        """Return how many bytes of this operation still reach the flash."""
        if self._cut is None:
            return size
        self._cut.seek(0)
        self._cut.readinto(_state)
        done, at = struct.unpack_from("<II", _state)
        if _state[9]:
            _stand_still()
        done += 1
        struct.pack_into("<I", _state, 0, done)
        _state[9] = done == at
        self._cut.seek(0)
        self._cut.write(_state)
        if done == at:
            return size // 2 if _state[8] else 0
        return size


def _stand_still():
    while True:  # there is no power
        time.sleep(1)
