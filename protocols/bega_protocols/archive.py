"""The files of an update, one behind the other: read as they come, whatever is in them.

Spec: docs/updates.md, "Bundle". For each file an octet with the length of its path, the path, its size (4 octets, the
highest first), its octets; at the end an octet 0.
"""

import struct

from bega_protocols.errors import WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_FILES = 200
NOT_SO_LARGE = "unpacked it is not as large as it says"
_ALLOWED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


class Archive:
    """One archive, read once: `next`, then `read` until it gives b"", and so on. Raises WireError for what is none."""

    def __init__(self, read: "Callable[[int], bytes]", unpacked: int) -> None:
        """read(most) returns the next octets, b"" at the end; unpacked: how many there are."""
        self._read = read
        self._left = unpacked  # of the archive
        self._of_file = 0
        self._paths: "set[str]" = set()

    def next(self) -> "str | None":
        """Return the path of the next file, in its slot, or None at the end; what was not read of the last is gone."""
        while self.read(512):
            pass
        length = self._exactly(1)[0]
        if not length:
            if self._left or self._read(1):
                raise WireError(NOT_SO_LARGE)
            return None
        try:
            path = self._exactly(length).decode()
        except UnicodeError:
            path = ""
        if not is_path(path) or path in self._paths or len(self._paths) >= MOST_FILES:
            raise WireError("a path in it leads nowhere in its slot")
        self._paths.add(path)
        self._of_file = struct.unpack(">I", self._exactly(4))[0]
        if self._of_file >= self._left:
            raise WireError(NOT_SO_LARGE)
        return path

    def read(self, most: int) -> bytes:
        """Return the next octets of this file, b"" at its end."""
        if not self._of_file:
            return b""
        octets = self._some(min(most, self._of_file))
        self._of_file -= len(octets)
        return octets

    def _exactly(self, size: int) -> bytes:
        octets = b""
        while len(octets) < size:
            octets += self._some(size - len(octets))
        return octets

    def _some(self, most: int) -> bytes:
        octets = self._read(min(most, self._left)) if self._left else b""
        if not octets:
            raise WireError(NOT_SO_LARGE)
        self._left -= len(octets)
        return octets


def is_path(path: str) -> bool:
    """Return whether this names a file in a slot, and none outside."""
    for part in path.split("/"):
        if not part or part[0] == "." or not all(letter in _ALLOWED for letter in part):
            return False
    return True
