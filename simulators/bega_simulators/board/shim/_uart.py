# machine.UART of the ESP32 port, over a socket that asyncio polls as it polls the port's own.
import io

from _board import ask, file

_FILE_DESCRIPTOR = 10  # MP_STREAM_GET_FILENO: asyncio polls what this ioctl names


class UART(io.IOBase):
    INV_TX, INV_RX, INV_RTS, INV_CTS = 32, 4, 64, 8
    IRQ_RX, IRQ_BREAK, IRQ_RXIDLE = 1, 2, 4096

    def __init__(self, id, *form, **more):
        self._far = ask("machine.UART", (id,) + form, more)
        self._file = file("uart%d" % id)
        self._read = 0

    def __getattr__(self, name):
        return getattr(self._far, name)

    def ioctl(self, request, argument):
        return self._file.fileno() if request == _FILE_DESCRIPTOR else 0

    def any(self):
        return ask(self._far._path + "._sent") - self._read

    def read(self, nbytes=-1):
        got = self._file.read(nbytes)
        self._read += len(got or b"")
        return got

    def readinto(self, buf, nbytes=-1):
        got = self._file.readinto(buf if nbytes < 0 else memoryview(buf)[:nbytes])
        self._read += got or 0
        return got

    def readline(self):
        line = b""
        while line[-1:] != b"\n":
            octet = self.read(1)
            if not octet:
                break
            line += octet
        return line or None

    def write(self, buf):
        return self._file.write(buf)

    def irq(self, handler=None, trigger=0, hard=False):
        self._far.irq(handler and (lambda _: handler(self)), trigger)
