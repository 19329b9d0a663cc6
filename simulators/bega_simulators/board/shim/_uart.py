# machine.UART of the ESP32 port, over a socket that asyncio polls as it polls the port's own.
import io

from _board import call, on_interrupt, serial_file

_FILE_DESCRIPTOR = 10  # MP_STREAM_GET_FILENO: asyncio polls what this ioctl names


class UART(io.IOBase):
    INV_TX, INV_RX, INV_RTS, INV_CTS = 32, 4, 64, 8
    RTS, CTS = 1, 2
    IRQ_RX, IRQ_BREAK, IRQ_RXIDLE = 1, 2, 4096

    def __init__(self, id, baudrate=115200, bits=8, parity=None, stop=1, **more):
        self._id = id
        self._file = serial_file(id)
        self._read = 0
        self._pins = {"tx": -1, "rx": -1, "invert": 0}
        self.init(baudrate, bits, parity, stop, **more)

    # fmt: off
    def init(self, baudrate=115200, bits=8, parity=None, stop=1, *, tx=None, rx=None, rts=None, cts=None, txbuf=256,
             rxbuf=256, timeout=0, timeout_char=0, invert=None, flow=0):
        # fmt: on
        for name, value in (("tx", tx), ("rx", rx), ("invert", invert)):
            if value is not None:
                self._pins[name] = int(value)
        call("uart_init", uart=self._id, baud=baudrate, bits=bits, parity=parity, stop=stop, **self._pins)

    def deinit(self):
        call("uart_end", uart=self._id)

    def ioctl(self, request, argument):
        return self._file.fileno() if request == _FILE_DESCRIPTOR else 0

    def any(self):
        return call("uart_any", uart=self._id) - self._read

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
        while not line.endswith(b"\n"):
            octet = self.read(1)
            if not octet:
                break
            line += octet
        return line or None

    def write(self, buf):
        return self._file.write(buf)

    def flush(self):
        pass

    def txdone(self):
        return True

    def sendbreak(self):
        pass

    def irq(self, handler=None, trigger=0, hard=False):
        on_interrupt("uart%d" % self._id, handler and (lambda facts: handler(self)))
        call("uart_irq", uart=self._id, trigger=trigger if handler else 0)
