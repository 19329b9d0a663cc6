"""What a driver wants sent, and how the line will know that the answer is whole."""

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable


class Ask:
    """One exchange on a line: a driver's `measure` yields it, and is sent the answer.

    write: bytes to send (a PDU on a Modbus line); empty to listen only
    wait_ms: how long the answer may take, from the last byte sent; on I2C when to read it
    read: length of the answer in bytes, or a function (so far) -> complete?; 0: nothing will come, wait `wait_ms`
    line: what only this kind of line knows:
        `unit` (Modbus), `address` (I2C), `characteristic` (GATT: the UUID as a whole number)
        serial and M-Bus: `gap_ms`, the longest silence in an answer: with it `wait_ms` is for its first byte only,
        and all of it may take `total_ms`; `baud`, the rate to go on with once `write` has left the wire
        `pause_ms`, rest that the device needs before the next question

    The driver is sent the whole answer; on a serial line what came of it when
    it stayed incomplete; None when nothing came, or nobody acknowledged.
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
