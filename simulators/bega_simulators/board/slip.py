"""Frames on a serial line: RFC 1055 (SLIP), as the ESP32's ROM speaks it: END also at the start of each."""

END, ESCAPE = b"\xc0", b"\xdb"
ESCAPED_END, ESCAPED_ESCAPE = b"\xdb\xdc", b"\xdb\xdd"
LONGEST_FRAME = 1 << 17  # escaped; the flasher's largest block has 16 kB


def framed(packet: bytes) -> bytes:
    """Return the frame that carries `packet`."""
    return END + packet.replace(ESCAPE, ESCAPED_ESCAPE).replace(END, ESCAPED_END) + END


class Frames:
    """Cuts a stream into packets. Noise between frames and frames that are too long are passed over."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the packets that `chunk` completes. What stands before the first END is a packet too, if a bad one."""
        *whole, self._pending = (self._pending + chunk).split(END)
        if len(self._pending) > LONGEST_FRAME:
            self._pending = b""
        return [frame.replace(ESCAPED_END, END).replace(ESCAPED_ESCAPE, ESCAPE) for frame in whole if frame]
