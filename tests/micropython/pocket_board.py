# A board of least weight, for fleets: main.py from its own littlefs, on a serial line, with one SHT4x on I2C. What the
# firmware names of `machine` is here and nothing else: no board process beside it, 4 MB in place of 40.
# Run as: micropython pocket_board.py FLASH BLOCKS UART_FD RESET_CAUSE NUMBER; it exits with 3 for a reset.
import io
import os
import sys
import time

import vfs
from _flash import Partition

FLASH = sys.argv[1]
BLOCKS, UART_FD, CAUSE, NUMBER = [int(word) for word in sys.argv[2:6]]
FILE_DESCRIPTOR = 10  # MP_STREAM_GET_FILENO: asyncio polls what this ioctl names
RESET = 3


class machine:
    PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5

    def reset():
        sys.exit(RESET)

    def reset_cause():
        return CAUSE

    def unique_id():
        return b"\x24\x0a\xc4" + bytes((0, NUMBER >> 8, NUMBER & 255))

    class WDT:
        def __init__(self, timeout):
            pass

        def feed(self):
            pass

    class RTC:  # as a power-on leaves it
        def memory(self, octets=b""):
            return b""

        def datetime(self, moment=None):
            return (2000, 1, 1, 5, 0, 0, 0, 0)

    class Pin:
        OUT, IN = 3, 1

        def __init__(self, *arguments, **more):
            pass

    class UART(io.IOBase):
        def __init__(self, *arguments, **more):
            self._file = open(UART_FD, "r+b")

        def ioctl(self, request, argument):
            return self._file.fileno() if request == FILE_DESCRIPTOR else 0

        def read(self, size=-1):
            return self._file.read(size)

        def readinto(self, octets):
            return self._file.readinto(octets)

        def write(self, octets):
            return self._file.write(octets)

    class I2C:  # a SHT4x in a room of 21 degrees (datasheet, sections 4.4 to 4.6)
        def __init__(self, *arguments, **more):
            pass

        def writeto(self, address, octets):
            self._serial = octets == b"\x89"

        def readfrom(self, address, size):
            words = (0x1234, NUMBER) if self._serial else (24717, 26214 + time.ticks_ms() % 500)
            return b"".join([checked(word) for word in words])


def checked(word):
    octets, crc = bytes((word >> 8, word & 255)), 0xFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = (crc << 1 ^ (0x31 if crc & 128 else 0)) & 0xFF
    return octets + bytes((crc,))


sys.modules["machine"] = machine
partition = Partition(FLASH, 0, BLOCKS)
vfs.umount("/")
vfs.mount(vfs.VfsLfs2(partition), "/")
os.chdir("/")
sys.path[:] = ["", ".frozen", "/lib"]
sys.argv[:] = [""]
__import__("main")
