"""The board's buses, from the wiring that the board file states and the line that a driver names."""

import asyncio

import machine

from bega_protocols.errors import ConfigError

PARITIES = {"N": None, "E": 0, "O": 1}
CHUNK = 128


class Uart:
    """A serial line that is listened to."""

    def __init__(self, wiring, line):
        baud, form = line.split()[1:3]
        self._uart = machine.UART(
            wiring["id"],
            baudrate=int(baud),
            bits=int(form[0]),
            parity=PARITIES[form[1]],
            stop=int(form[2]),
            tx=wiring["tx"],
            rx=wiring["rx"],
            rxbuf=512,
            timeout=0,
        )
        self._reader = asyncio.StreamReader(self._uart)

    async def read(self, timeout_ms):
        """Return what has come, or b"" after `timeout_ms`."""
        try:
            return await asyncio.wait_for_ms(self._reader.read(CHUNK), timeout_ms) or b""
        except asyncio.TimeoutError:
            return b""


class I2c:
    """An I2C bus that several devices share; one exchange at a time."""

    def __init__(self, wiring, line):
        self._bus = machine.I2C(
            wiring["id"], scl=machine.Pin(wiring["scl"]), sda=machine.Pin(wiring["sda"]), freq=int(line.split()[1])
        )
        self._free = asyncio.Lock()

    async def exchange(self, ask):
        """Write, wait, read, as `ask` says; return the answer, None if the device did not acknowledge."""
        address = ask.line["address"]
        async with self._free:
            try:
                self._bus.writeto(address, ask.write)
                await asyncio.sleep_ms(ask.wait_ms)
                return self._bus.readfrom(address, ask.read)
            except OSError:
                return None


KINDS = {"serial": ("uart", Uart), "i2c": ("i2c", I2c)}


def open_bus(name, wiring, line):
    """Return the bus `name` set up for `line`; raises ConfigError if the driver's kind of line is not this bus."""
    kind = line.split()[0]
    if kind not in KINDS or KINDS[kind][0] != wiring["kind"]:
        raise ConfigError("bus %s is %s, the driver wants %s" % (name, wiring["kind"], line))
    return KINDS[kind][1](wiring, line)
