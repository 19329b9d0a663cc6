# A chip with a dust sensor on a UART and two sensors on an I2C bus, inside the interpreter: in time that runs faster no
# other process keeps step. What the UART hears comes from the file descriptor that SOAK_UART names.
import io
import os
import sys
import time

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5

_offset_s = 0
_memory = b""


def reset_cause():
    return PWRON_RESET


def unique_id():
    return b"\x02soak!"


def reset():
    print("SOAK reset")
    sys.exit(3)


class Pin:
    OUT = 3

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        pass


class WDT:
    def __init__(self, id=0, timeout=5000):
        pass

    def feed(self):
        pass


class RTC:
    def datetime(self, datetimetuple=None):
        global _offset_s
        if datetimetuple is None:
            year, month, day, hour, minute, second, weekday = time.gmtime(time.time() + _offset_s)[:7]
            return (year, month, day, weekday, hour, minute, second, 0)
        year, month, day, _, hour, minute, second, _ = datetimetuple
        _offset_s = int(time.mktime((year, month, day, hour, minute, second, 0, 0))) - time.time()

    def memory(self, data=None):
        global _memory
        if data is None:
            return _memory
        _memory = bytes(data)


class UART(io.IOBase):
    def __init__(self, id, **form):
        self._file = open(int(os.getenv("SOAK_UART")), "r+b")

    def init(self, **form):
        pass

    def ioctl(self, request, argument):
        return self._file.fileno() if request == 10 else 0

    def read(self, nbytes=-1):
        return self._file.read(nbytes)

    def write(self, buf):
        return len(buf)


# command: words of the answer. SHT4x, and SCD41 in periodic mode: serial number, variant, altitude, ready, sample.
_ANSWERS = {
    0xFD: (0x6666, 0x8000),
    0x3682: (1, 2, 3),
    0x202F: (0x1440,),
    0x2322: (90,),
    0xE4B8: (0x8006,),
    0xEC05: (600, 0x6667, 0x5EB9),
}


class I2C:
    def __init__(self, id, **pins):
        self._count = 0
        self._commands = {}  # by address

    def writeto(self, addr, buf, stop=True):
        self._commands[addr] = buf[0] if len(buf) == 1 else buf[0] << 8 | buf[1]
        self._count += 1

    def readfrom(self, addr, nbytes, stop=True):
        answer = b""
        command = self._commands[addr]
        for at, word in enumerate(_ANSWERS[command]):
            if command in (0xFD, 0xEC05):
                word ^= self._count + at & 0x3F  # noise: what never changes is taken for stuck
            octets = bytes((word >> 8, word & 255))
            answer += octets + bytes((_crc8(octets),))
        return answer[:nbytes]


def _crc8(octets):
    crc = 0xFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = (crc << 1 ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return crc
