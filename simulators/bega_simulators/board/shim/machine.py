# The board's `machine`: names, arguments and errors of MicroPython's ESP32 port, answered by the simulator.
import sys

_path = sys.path
sys.path = ()
try:
    from machine import *  # noqa: F403 - what the built-in module has stays as it is
finally:
    sys.path = _path

import io

from _board import call, serial_file

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5

_FILE_DESCRIPTOR = 10  # MP_STREAM_GET_FILENO: asyncio polls what this ioctl names


def reset_cause():
    return call("reset_cause")


def unique_id():
    return bytes.fromhex(call("unique_id"))


def reset():
    call("reset")
    while True:  # the board pulls the plug
        call("reset_cause")


class Pin:
    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self._id = id
        if value is not None:
            self.value(value)

    def value(self, x=None):
        if x is None:
            return call("pin_get", pin=self._id)
        call("pin_set", pin=self._id, value=int(x))

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def __int__(self):
        return self._id


class I2C:
    def __init__(self, id, *, scl, sda, freq=400000, timeout=50000):
        self._bus = id
        call("i2c_init", bus=id, scl=int(scl), sda=int(sda), freq=freq)

    def scan(self):
        return call("i2c_scan", bus=self._bus)

    def writeto(self, addr, buf, stop=True):
        return call("i2c_write", bus=self._bus, address=addr, data=bytes(buf).hex())

    def readfrom(self, addr, nbytes, stop=True):
        return bytes.fromhex(call("i2c_read", bus=self._bus, address=addr, size=nbytes))

    def readfrom_into(self, addr, buf, stop=True):
        buf[:] = self.readfrom(addr, len(buf))


class UART(io.IOBase):
    INV_TX, INV_RX = 8, 4

    def __init__(self, id, baudrate=115200, bits=8, parity=None, stop=1, **more):
        self._id = id
        self._file = serial_file(id)
        self.init(baudrate, bits, parity, stop, **more)

    def init(self, baudrate=115200, bits=8, parity=None, stop=1, *, tx=-1, rx=-1, rxbuf=256, txbuf=256, timeout=0):
        call("uart_init", uart=self._id, baud=baudrate, bits=bits, parity=parity, stop=stop, tx=int(tx), rx=int(rx))

    def ioctl(self, request, argument):
        return self._file.fileno() if request == _FILE_DESCRIPTOR else 0

    def read(self, nbytes=-1):
        return self._file.read(nbytes)

    def readinto(self, buf, nbytes=-1):
        return self._file.readinto(buf)

    def write(self, buf):
        return self._file.write(buf)


class RTC:
    def datetime(self, datetimetuple=None):
        return call("rtc", datetime=datetimetuple)


class WDT:
    def __init__(self, id=0, timeout=5000):
        call("wdt", timeout_ms=timeout)

    def feed(self):
        call("wdt_feed")
