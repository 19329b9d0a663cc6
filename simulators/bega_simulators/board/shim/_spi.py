# machine.SPI of the ESP32 port. Nothing of ours hangs on it: what is read is ones, as from a pulled-up wire.
class SPI:
    LSB, MSB = 1, 0

    # fmt: off
    def __init__(self, id, baudrate=1000000, *, polarity=0, phase=0, bits=8, firstbit=0, sck=None, mosi=None,
                 miso=None):
        # fmt: on
        self.init(baudrate)

    # fmt: off
    def init(self, baudrate=1000000, *, polarity=0, phase=0, bits=8, firstbit=0, sck=None, mosi=None, miso=None):
        # fmt: on
        pass

    def deinit(self):
        pass

    def read(self, nbytes, write=0):
        return b"\xff" * nbytes

    def readinto(self, buf, write=0):
        buf[:] = b"\xff" * len(buf)

    def write(self, buf):
        pass

    def write_readinto(self, write_buf, read_buf):
        self.readinto(read_buf)
