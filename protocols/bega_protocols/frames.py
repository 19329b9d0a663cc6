"""Frames cut from a stream that may begin, break and lie anywhere."""

from bega_protocols.errors import WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Decoded = TypeVar("Decoded")


PIECE_SIZE = 1024  # a chunk is cut up so that looking into what is left of it stays cheap


class Frames:
    """Cuts frames that begin with fixed bytes and say, or have, their length.

    A head that turns out false costs one byte, not a frame: the search goes
    on right behind it, so noise that looks like a head hides nothing.
    """

    def __init__(self, head: bytes, size_of: "Callable[[bytes], int | None]") -> None:
        """`size_of(so_far)` returns the frame's length, None if more bytes are needed to tell, 0 if it is no frame."""
        self._head = head
        self._size_of = size_of
        self._waiting = b""
        self._offset = 0  # of the first waiting byte, counted from the start of the stream

    def feed(
        self, chunk: bytes, decode: "Callable[[bytes], Decoded]", damaged: "list[tuple[int, WireError]]"
    ) -> "list[Decoded]":
        """Return what `decode` makes of each frame that `chunk` completes; its WireErrors go to `damaged`."""
        found = []
        for start in range(0, len(chunk), PIECE_SIZE):
            found.extend(self._feed(chunk[start : start + PIECE_SIZE], decode, damaged))
        return found

    def _feed(
        self, piece: bytes, decode: "Callable[[bytes], Decoded]", damaged: "list[tuple[int, WireError]]"
    ) -> "list[Decoded]":
        data = self._waiting + piece
        found = []
        at = self._next_head(data, 0)
        while at < len(data):
            size = self._size_of(data[at:])
            if size is None or size > len(data) - at:
                break
            try:
                if size == 0:
                    raise WireError("impossible length", data[at : at + 8])
                found.append(decode(data[at : at + size]))
                at += size
            except WireError as error:
                damaged.append((self._offset + at, error))
                at += 1
            at = self._next_head(data, at)
        self._waiting = data[at:]
        self._offset += at
        return found

    def _next_head(self, data: bytes, start: int) -> int:
        """Return where the next head begins, whole or cut off by the end of `data`, or len(data)."""
        at = data.find(self._head, start)
        if at >= 0:
            return at
        for kept in range(min(len(self._head) - 1, len(data) - start), 0, -1):
            if data[-kept:] == self._head[:kept]:
                return len(data) - kept
        return len(data)
