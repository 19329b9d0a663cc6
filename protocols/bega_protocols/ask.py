"""What a driver wants sent, and how the line will know that the answer is whole."""

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable


class Ask:
    """One exchange on a line: a driver's `measure` yields it, and is sent the answer, or None after the time-out.

    write: bytes to send (a PDU on a Modbus line); empty to listen only
    wait_ms: how long the answer may take, from the last byte sent
    read: length of the answer in bytes, or a function (so far) -> complete?
    line: what only this kind of line knows: `unit` (Modbus), `address` (I2C), `baud` (IEC 62056-21)
    """

    def __init__(self, write: bytes, wait_ms: int, read: "int | Callable[[bytes], bool]", **line: int) -> None:
        self.write = write
        self.wait_ms = wait_ms
        self.read = read
        self.line = line

    def complete(self, so_far: bytes) -> bool:
        """Return whether `so_far` is the whole answer."""
        if isinstance(self.read, int):
            return len(so_far) >= self.read
        return self.read(so_far)
