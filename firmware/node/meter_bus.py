"""Buses of meters on a UART: Modbus RTU, in half duplex where pin `de` switches the transceiver, and wired M-Bus.

Several devices share one. On Modbus a question is put once the line has been
silent for 3.5 characters, and its answer is what has unit, function, length
and CRC of one (modbus_rtu.answer_in); a unit that kept silent is left alone
until no late answer can be taken for another question's. On M-Bus a meter
keeps the bus for all of its measurement: its selection, and its count of
frames, end when another is asked.
"""

import asyncio
import time

import machine
from wires import Uart

from bega_protocols.errors import ConfigError
from bega_protocols.modbus_rtu import MAX_FRAME, answer_in, answer_size, characters_us, frame, silence_us

OWED_MS = 30000  # as the gateway has it (lines/modbus_bus.py): a device that takes longer has forgotten the question
SLACK_MS = 20  # for a loop that is busy
PIECES = 64  # of noise before a question; a line that babbles on is not asked
MBUS_TURN_MS = 300  # a meter whose driver asks nothing for so long is done
MODBUS_FORM = " 9600 8N1"  # as most meters leave the factory


def shared(buses, name, wiring, line):
    """Return the bus `name` for one more device with this line; `buses` are the open ones by their names.

    Raises ConfigError if a device of another kind has it.
    """
    kind = Modbus if line.split()[0] == "modbus" else Mbus
    if name not in buses:
        buses[name] = kind(wiring, line + MODBUS_FORM if line == "modbus" else line)
    elif not isinstance(buses[name], kind):
        raise ConfigError("bus %s has a device already, and it is none for %s" % (name, line))
    return buses[name] if kind is Modbus else View(buses[name])


class Modbus:
    """A Modbus line."""

    shared = True  # with its like

    def __init__(self, wiring, line):
        self._uart = Uart(wiring, line)
        self._baud = int(line.split()[1])
        self._silence_ms = silence_us(self._baud) // 1000 + 1
        self._drive = machine.Pin(wiring["de"], machine.Pin.OUT, value=0) if "de" in wiring else None
        self._free = asyncio.Lock()
        self._owed = {}  # unit: until when its answer may come

    def begin(self):
        """A measurement begins: nothing to be done."""

    async def exchange(self, ask):
        """Ask for `ask.write`, a PDU, and return the PDU that answers it, None if none came."""
        unit = ask.line["unit"]
        async with self._free:
            if unit in self._owed:
                if time.ticks_diff(self._owed[unit], time.ticks_ms()) > 0:
                    return None
                del self._owed[unit]
            if not await self._is_silent():
                return None
            await self._send(frame(unit, ask.write))
            answer = await self._answer(unit, ask)
            if answer is None:
                self._owed[unit] = time.ticks_add(time.ticks_ms(), OWED_MS)
            return answer

    async def _is_silent(self):
        """Return whether 3.5 characters of silence came; what comes before them is thrown away."""
        for _ in range(PIECES):
            if not await self._uart.read(self._silence_ms):
                return True
        return False

    async def _send(self, whole):
        """A slave may answer 3.5 characters later: the bus is free at once, and not when the loop has time for it."""
        if self._drive:
            self._drive(1)
            self._uart.port.write(whole)
            self._uart.port.flush()
            self._drive(0)
        else:
            self._uart.port.write(whole)

    async def _answer(self, unit, ask):
        wire_ms = characters_us(len(ask.write) + 3 + answer_size(ask.write), self._baud) // 1000
        end_ms = time.ticks_add(time.ticks_ms(), ask.wait_ms + wire_ms + self._silence_ms + SLACK_MS)
        heard = b""
        while True:
            left_ms = time.ticks_diff(end_ms, time.ticks_ms())
            if left_ms <= 0:
                return None
            heard = (heard + await self._uart.read(left_ms))[-MAX_FRAME:]
            answer = answer_in(heard, unit, ask.write)
            if answer is not None:
                return answer


class Mbus:
    """An M-Bus behind a level converter."""

    shared = True  # with its like

    def __init__(self, wiring, line):
        self.uart = Uart(wiring, line)
        self.free = asyncio.Lock()
        self.owner = None
        self.ended_ms = time.ticks_ms()


class View:
    """What one device has of an M-Bus; it keeps the bus while it asks."""

    def __init__(self, bus):
        self._bus = bus

    def begin(self):
        """A measurement begins: nothing to be done."""

    async def exchange(self, ask):
        """As on any serial line (wires.py), once no other meter is being measured."""
        bus = self._bus
        while True:
            async with bus.free:
                quiet_ms = time.ticks_diff(time.ticks_ms(), bus.ended_ms)
                if bus.owner in (None, self) or quiet_ms >= MBUS_TURN_MS:
                    bus.owner = self
                    try:
                        return await bus.uart.exchange(ask)
                    finally:
                        bus.ended_ms = time.ticks_ms()
            await asyncio.sleep_ms(MBUS_TURN_MS - quiet_ms)
