"""The board's buses, from the wiring that the board file states and the line that a driver names."""

import asyncio
import time

import machine

from bega_protocols.errors import ConfigError

PARITIES = {"N": None, "E": 0, "O": 1}
CHUNK = 128
INBOX = 512
BITS_A_BYTE = 11  # start, eight, parity, stop
LARGEST_ANSWER = 4096  # a gateway takes 64 KiB; here an answer shares the heap with everything else
TOTAL_MS = 60000  # of an answer that a driver allows to go on and on
# MicroPython's clock has whole ms, and a wait of 10 may end after 9.1; what a sensor needs is counted in full.
ROUNDED_MS = 1


class Uart:
    """A serial line with one device: listened to, or asked."""

    shared = False

    def __init__(self, wiring, line):
        baud, form = line.split()[1:3]
        self._own_baud = int(baud)
        self._baud = self._own_baud
        self._form = {
            "bits": int(form[0]),
            "parity": PARITIES[form[1]],
            "stop": int(form[2]),
            "tx": wiring["tx"],
            "rx": wiring["rx"],
            "rxbuf": INBOX,
            "timeout": 0,
        }
        self.port = machine.UART(wiring["id"], baudrate=self._baud, **self._form)
        self._reader = asyncio.StreamReader(self.port)

    async def read(self, timeout_ms):
        """Return what has come, or b"" after `timeout_ms`."""
        try:
            return await asyncio.wait_for_ms(self._reader.read(CHUNK), timeout_ms) or b""
        except asyncio.TimeoutError:
            return self.port.read(CHUNK) or b""  # a board that stood still has it in its inbox, unread

    def begin(self):
        """A measurement begins: at the line's own rate, whatever the last one ended with."""
        self._set_baud(self._own_baud)

    async def exchange(self, ask):
        """Write, and return what came of the answer, None if nothing did (see ask.py)."""
        self._discard()
        if ask.write:
            self.port.write(ask.write)
            await asyncio.sleep_ms(len(ask.write) * BITS_A_BYTE * 1000 // self._baud + 1 + ROUNDED_MS)
        if "baud" in ask.line:
            self._set_baud(ask.line["baud"])
        if ask.read == 0:
            await asyncio.sleep_ms(ask.wait_ms)
            return b""
        return await self._answer(ask)

    async def _answer(self, ask):
        """Without `gap_ms` the whole answer must come in `wait_ms`; with it only its first byte."""
        began_ms = time.ticks_ms()
        gap_ms = ask.line.get("gap_ms", 0)
        total_ms = ask.line.get("total_ms", TOTAL_MS) if gap_ms else ask.wait_ms
        pause_ms = ask.wait_ms
        heard = b""
        while len(heard) < LARGEST_ANSWER:
            left_ms = min(pause_ms, total_ms - time.ticks_diff(time.ticks_ms(), began_ms))
            piece = await self.read(left_ms) if left_ms > 0 else b""
            if not piece:
                break
            heard += piece
            if ask.complete(heard):
                break
            pause_ms = gap_ms or ask.wait_ms
        return heard or None

    def _discard(self):
        """What came before the question is no answer to it."""
        for _ in range(1 + INBOX // CHUNK):
            if not self.port.read(CHUNK):
                return

    def _set_baud(self, baud):
        if baud != self._baud:
            self._baud = baud
            self.port.init(baudrate=baud, **self._form)


class I2c:
    """An I2C bus that several devices share.

    The bus is taken for each transfer alone, and a transfer blocks the program
    while it lasts: nothing needs to be locked for it. A device is taken for the
    whole exchange, since who writes to it in between takes the other's answer.
    """

    shared = True

    def __init__(self, wiring, line):
        self._bus = machine.I2C(
            wiring["id"], scl=machine.Pin(wiring["scl"]), sda=machine.Pin(wiring["sda"]), freq=int(line.split()[1])
        )
        self._free = {}  # by address

    def begin(self):
        """A measurement begins: nothing to be done."""

    async def exchange(self, ask):
        """Write, wait, read, as `ask` says; return the answer, None if the device did not acknowledge."""
        address = ask.line["address"]
        if address not in self._free:
            self._free[address] = asyncio.Lock()
        async with self._free[address]:
            try:
                if ask.write:
                    self._bus.writeto(address, ask.write)
                if ask.wait_ms:
                    await asyncio.sleep_ms(ask.wait_ms + ROUNDED_MS)
                return self._bus.readfrom(address, ask.read) if ask.read else b""
            except OSError:
                return None


# by the kind of a driver's line; those of meters are in meter_bus.py, for nodes that have such
KINDS = {"serial": ("uart", Uart), "i2c": ("i2c", I2c), "modbus": ("uart", None), "mbus": ("uart", None)}


class Buses:
    """The buses of a board, each opened when the first device needs it."""

    def __init__(self, wirings, lines=()):
        """wirings: BUSES of the board file; lines: "9600 8N1" where the configuration says so, by the bus's name."""
        self._wirings = wirings
        self._lines = lines
        self._open = {}

    def bus(self, name, line):
        """Return the bus `name` for one more device with this line.

        Raises ConfigError if the driver's kind of line is not this bus, or another device has it for itself.
        """
        wiring = self._wirings[name]
        kind = line.split()[0]
        if kind not in KINDS or KINDS[kind][0] != wiring["kind"]:
            raise ConfigError("bus %s is %s, the driver wants %s" % (name, wiring["kind"], line))
        if name in self._lines:
            line = kind + " " + self._lines[name]
        if KINDS[kind][1] is None:
            import meter_bus

            return meter_bus.shared(self._open, name, wiring, line)
        if name not in self._open:
            self._open[name] = KINDS[kind][1](wiring, line)
        elif not self._open[name].shared:
            raise ConfigError("bus %s has a device already, and %s is for one" % (name, wiring["kind"]))
        return self._open[name]
