"""What a node keeps on its flash: the ring's segments, and the number of its boot in two copies.

littlefs makes an append durable when the file is closed, and never shows half
of one; everything here leans on that and on nothing more.
"""

import os

from bega_protocols.checks import crc32
from bega_protocols.record import next_boot

NO_SUCH_FILE = 2
SUFFIX = ".seg"
ROOM_BYTES = 4100  # a segment, and a little more to see its end


class Segments:
    """The storage of a Ring: one file a segment in `folder`."""

    def __init__(self, folder):
        self._folder = folder
        self._room = bytearray(ROOM_BYTES)
        make_folder(folder)

    def numbers(self):
        return [int(name[: -len(SUFFIX)]) for name in os.listdir(self._folder) if name.endswith(SUFFIX)]

    def read(self, number):
        """Return the whole of a segment, which the next read overwrites.

        After a day no 4 kB in one piece are left in a small heap: they are taken once, at the start.
        """
        with open(self._path(number), "rb") as file:
            size = file.readinto(self._room)
            if size < len(self._room):
                return memoryview(self._room)[:size]
            return bytes(self._room) + file.read()  # a record that was larger than a segment

    def append(self, number, data):
        with open(self._path(number), "ab") as file:
            file.write(data)

    def remove(self, number):
        try:
            os.remove(self._path(number))
        except OSError as error:
            if error.errno != NO_SUCH_FILE:
                raise

    def room(self, segment_bytes):
        """Return how many segments the flash can hold beside all else, an eighth of it left free for littlefs."""
        block_bytes, _, blocks, free_blocks = os.statvfs(self._folder)[:4]
        each = (segment_bytes + block_bytes - 1) // block_bytes
        return len(self.numbers()) + max(0, free_blocks - blocks // 8) // each

    def _path(self, number):
        return "%s/%08d%s" % (self._folder, number, SUFFIX)


def begin_boot(folder, floor):
    """Return the number of the boot that begins now, written down twice: above the last one, and at least `floor`.

    The copies are written one after the other, so that a power cut spoils at most one.
    """
    make_folder(folder)
    copies = [folder + "/boot.a", folder + "/boot.b"]
    boot = next_boot(max([_read_number(copy) for copy in copies]), floor)
    text = str(boot).encode()
    for copy in copies:
        with open(copy, "wb") as file:
            file.write(text + b" %08x" % crc32(text))
    return boot


def make_folder(folder):
    """Make `folder` unless it is there."""
    try:
        os.mkdir(folder)
    except OSError:
        os.listdir(folder)  # raises if it could not be made and is not there


def _read_number(path):
    """Return the number in a copy, 0 if there is none or it is damaged."""
    try:
        with open(path, "rb") as file:
            text, check = file.read().split(b" ")
            return int(text) if int(check, 16) == crc32(text) else 0
    except (OSError, ValueError):
        return 0
