# The node's way over a serial line, its own file on MicroPython, with a UART and a pin that note what happens.
# Run as: micropython uplink_way.py; prints what was found as JSON.
import asyncio
import io
import json
import sys
import time

POLL, READABLE, WRITABLE = 3, 1, 4
events = []  # (what, ms)


def note(what):
    events.append((what, time.ticks_ms()))


class FakeUart(io.IOBase):
    def __init__(self, id, **form):
        self.form = form
        self.inbox = b""

    def write(self, octets):
        note("write")
        FakeUart.written = bytes(octets)
        return len(octets)

    def flush(self):
        note("flush")

    def read(self, size=-1):
        taken, self.inbox = self.inbox[:size], self.inbox[size:]
        return taken or None

    def ioctl(self, request, argument):
        return argument & (WRITABLE | (READABLE if self.inbox else 0)) if request == POLL else 0


class FakePin:
    OUT = 3

    def __init__(self, id, mode, value=None):
        note("pin %d is %d" % (id, value))

    def on(self):
        note("drive")

    def off(self):
        note("let go")


class FakeMachine:
    UART, Pin = FakeUart, FakePin

    @staticmethod
    def unique_id():
        return b"\xa1"


class FakeBoard:
    def __init__(self):
        self.BUSES = {
            "uart1": {"kind": "uart", "id": 1, "tx": 33, "rx": 32, "de": 4},
            "uart2": {"kind": "uart", "id": 2, "tx": 17, "rx": 16},
            "i2c0": {"kind": "i2c", "id": 0, "scl": 22, "sda": 21},
        }
        self.DEVICES = {"pms": {"driver": "pms5003", "bus": "uart2"}}


sys.modules["machine"], sys.modules["board"] = FakeMachine, FakeBoard()

import uplink as way_module  # noqa: E402

from bega_protocols import uplink  # noqa: E402
from bega_protocols.errors import ConfigError  # noqa: E402


def refusal(**config):
    try:
        way_module.read(config)
        return ""
    except ConfigError as error:
        return str(error)


def refusals():
    key = "00" * 32
    return {
        "good": refusal(uplink={"bus": "uart1", "key": key}, devices={"pms": {}}),
        "no uart": refusal(uplink={"bus": "i2c0"}, devices={"pms": {}}),
        "no such bus": refusal(uplink={"bus": "uart9"}, devices={"pms": {}}),
        "usual bus of a device": refusal(uplink={"bus": "uart2"}, devices={"pms": {}}),
        "bus of a device": refusal(uplink={"bus": "uart1"}, devices={"x": {"bus": "uart1"}}),
        "short key": refusal(uplink={"bus": "uart1", "key": key[:-2]}, devices={"pms": {}}),
        "baud": refusal(uplink={"bus": "uart1", "baud": "9600"}, devices={"pms": {}}),
        "typo": refusal(uplink={"bus": "uart1", "bauds": 9600}, devices={"pms": {}}),
        "battery": refusal(uplink={"bus": "uart1"}, devices={"pms": {}}, battery={}),
    }


async def converse():
    """A session by hand: HELLO, then one POLL; the way opens, says a status, and hears the time."""
    way = way_module.Way({"node": "air-1", "uplink": {"bus": "uart1", "baud": 9600, "key": b""}})
    asked = b"\1" * 8
    opening = asyncio.create_task(way.open())
    await asyncio.sleep_ms(20)
    way._uart.inbox = uplink.encode(uplink.HELLO, asked + b"air-1")
    await asyncio.sleep_ms(100)
    welcome = uplink.decode(FakeUart.written[1:-1])
    session = welcome.body[1:5]
    way._uart.inbox = uplink.encode(uplink.POLL, session + b"\1")
    await opening
    await asyncio.sleep_ms(100)
    await way.send("status", b"{}")
    heard = []
    running = asyncio.create_task(way.run(lambda kind, payload: heard.append([kind, payload.decode()])))
    events.clear()
    said = uplink.message(uplink.TIME, b"now") + uplink.message(uplink.ACK, uplink.acknowledgement([(5, 6)]))
    said += uplink.message(uplink.ACK, b"half") + uplink.message(uplink.COMMAND, b"config\0{}")
    said += uplink.message(77, b"") + uplink.message(uplink.COMMAND, b"\xff\0{}") + uplink.message(uplink.COMMAND, b"x")
    await asyncio.sleep_ms(10)
    way._uart.inbox = uplink.encode(uplink.POLL, session + b"\2" + said)
    await asyncio.sleep_ms(150)
    answer = uplink.decode(FakeUart.written[1:-1])
    held_ms = time.ticks_diff(events[-1][1], events[0][1])
    running.cancel()
    way.close()
    try:
        await way.send("status", b"{}")
        way.check()
    except OSError:
        pass
    way._uart.inbox = uplink.encode(uplink.POLL, session + b"\3")
    FakeUart.written = b""
    await asyncio.sleep_ms(100)
    return {
        "refusals": refusals(),
        "form": [way._uart.form[key] for key in ("baudrate", "tx", "rx")],
        "welcome": welcome.body[13:].decode(),
        "heard": heard,
        "answer": uplink.Messages().feed(answer.body[6:])[0][1].decode(),
        "events": [what for what, _ in events],
        "held_ms": held_ms,
        "frame_ms": len(answer.body) * 10 * 1000 // 9600,
        "after close": FakeUart.written.decode(),
    }


print(json.dumps(asyncio.run(converse())))
