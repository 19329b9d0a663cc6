"""The way out over a serial line: a cable, or an RS-485 bus with other nodes. The gateway asks, we answer.

Spec: docs/uplink.md.
"""

import asyncio
import json
import os
import struct
import time

import machine

from bega_protocols import uplink
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.settings import hex_bytes, only, whole_number
from bega_protocols.stored import WAITING
from bega_protocols.uplink_node import NodeEnd

CHUNK = 256
INBOX, OUTBOX = 1024, 512  # octets; a frame has at most 257
OPEN_MS = 20000
SILENT_MS = 90000  # without a question; 32 nodes that all have much to say take 77 s a round at 1200 baud
WAITING_AT_MOST = 512  # octets said and not yet asked for: two frames
SHAPES = 16  # that the gateway is told at a time
BITS_A_BYTE = 10
IDLE_MS = 10
KINDS = {"status": uplink.STATUS, "result": uplink.RESULT, "want": uplink.WANT}


def read(config):
    """Return what `uplink` of the configuration says. Raises ConfigError."""
    import board
    from config import table_in, word_in  # here: choice.py lets go of its code, once all is read

    table = table_in(config, "uplink")
    only(table, "bus", "baud", "key")
    if "battery" in config:
        raise ConfigError("battery goes with a way that the node opens itself, and on an uplink the gateway asks")
    bus = word_in(table, "uplink.bus", "bus")
    if board.BUSES.get(bus, {}).get("kind") != "uart":
        raise ConfigError("uplink.bus %s is no uart of this board" % bus)
    for name, device in table_in(config, "devices").items():
        usual = board.DEVICES.get(name, {}).get("bus")
        if isinstance(device, dict) and device.get("bus", usual) == bus:
            raise ConfigError("devices.%s.bus is that of the uplink" % name)
    return {
        "bus": bus,
        "baud": whole_number(table, "baud", 1200, 1000000, 115200),
        "key": hex_bytes(table, "key", uplink.KEY_SIZE) if "key" in table else b"",
    }


class Way:
    """A way (see link.py)."""

    def __init__(self, config):
        import board

        table = config["uplink"]
        wiring = board.BUSES[table["bus"]]
        self._baud = table["baud"]
        self._uart = machine.UART(
            wiring["id"],
            baudrate=self._baud,
            tx=wiring["tx"],
            rx=wiring["rx"],
            rxbuf=INBOX,
            txbuf=OUTBOX,
            timeout=0,
        )
        # Of an RS-485 transceiver that does not find out by itself when to drive the bus.
        self._drive = machine.Pin(wiring["de"], machine.Pin.OUT, value=0) if "de" in wiring else None
        chip = machine.unique_id().hex()
        self._end = NodeEnd(config["node"], chip, table["key"], os.urandom, self._take, self._begin)
        self._serving = None
        self._hear = None
        self._begun = 0  # sessions
        self._used = 0  # the one that was opened
        self._shapes = []
        self._replaced = 0
        self._changed = asyncio.Event()
        self._asked_ms = time.ticks_ms()

    async def open(self):
        """Return once the gateway has begun a session."""
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        began_ms = time.ticks_ms()
        while self._used == self._begun:
            if time.ticks_diff(time.ticks_ms(), began_ms) > OPEN_MS:
                raise OSError("no gateway asks")
            await self._change()
        self._used = self._begun
        self._shapes = []

    def pack(self, store, held):
        """Return what `send` takes for a record, None while it waits for its time."""
        quality, time_ms = struct.unpack_from(">BQ", held.body)
        if quality == WAITING:
            stamp = store.stamp(held, time_ms)
            if stamp is None:
                return None
            time_ms, quality = stamp
        return held.boot, held.seq, held.shape, struct.pack(">BQ", quality, time_ms or 0) + held.body[9:]

    async def send(self, kind, payload):
        """Have it said when the gateway asks; returns once little waits before it."""
        while self._end.waiting > WAITING_AT_MOST:
            self.check()
            await self._change()
        self.check()
        if kind == "up":
            boot, seq, shape, body = payload
            self._end.say(uplink.RECORD, uplink.record(boot, seq, self._number_of(shape), body))
        else:
            self._end.say(KINDS[kind], payload)

    async def run(self, hear):
        """Hand on what the gateway says, until it is silent or begins anew."""
        self._hear = hear
        while True:
            self.check()
            await self._change()

    def check(self):
        """Raise OSError once the session is over."""
        if self._used != self._begun:
            raise OSError("the gateway began anew")
        if self._serving.done():
            raise OSError("the line failed")
        if time.ticks_diff(time.ticks_ms(), self._asked_ms) > SILENT_MS:
            raise OSError("the gateway is silent")

    def close(self):
        """End the session, unless it is one that has just begun."""
        self._hear = None
        if self._used == self._begun:
            self._end.forget()

    async def _change(self):
        try:
            await asyncio.wait_for_ms(self._changed.wait(), 1000)
        except asyncio.TimeoutError:
            pass
        self._changed.clear()

    async def _serve(self):
        """Answer whatever is asked, whether or not somebody has opened the way: or the gateway takes us for dead."""
        reader = asyncio.StreamReader(self._uart)
        while True:
            chunk = await reader.read(CHUNK)
            reply = self._end.hear(chunk) if chunk else b""
            if reply:
                await self._say(reply)
                self._asked_ms = time.ticks_ms()
                self._changed.set()
            elif not chunk:
                await asyncio.sleep_ms(IDLE_MS)

    async def _say(self, reply):
        if self._drive is None:
            self._uart.write(reply)
            return
        self._drive.on()
        self._uart.write(reply)
        await asyncio.sleep_ms(len(reply) * BITS_A_BYTE * 1000 // self._baud)
        self._uart.flush()  # what is left of the last octet
        self._drive.off()

    def _begin(self):
        self._begun += 1
        self._changed.set()

    def _take(self, kind, payload):
        if self._hear is None or self._used != self._begun:
            return
        try:
            if kind == uplink.ACK:
                self._hear("ack", json.dumps(uplink.read_acknowledgement(payload)).encode())
            elif kind == uplink.TIME:
                self._hear("time", payload)
            elif kind == uplink.PIECE:
                self._hear("piece", payload)
            elif kind == uplink.COMMAND and b"\0" in payload:
                verb, payload = payload.split(b"\0", 1)
                self._hear("cmd/" + verb.decode(), payload)
        except (WireError, ValueError):  # ValueError: a verb that is no text
            pass

    def _number_of(self, shape):
        """Return the number of a shape, and tell it to the gateway first if it is new."""
        if shape in self._shapes:
            return self._shapes.index(shape)
        if len(self._shapes) < SHAPES:
            number = len(self._shapes)
            self._shapes.append(shape)
        else:
            number = self._replaced = (self._replaced + 1) % SHAPES
            self._shapes[number] = shape
        self._end.say(uplink.SHAPE, bytes((number,)) + shape)
        return number
