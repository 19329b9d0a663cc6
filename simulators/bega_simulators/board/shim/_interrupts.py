# Interrupts: handed on after each request to the board, and whenever asyncio is idle.
import asyncio

import micropython
from _board import file

handlers = {}  # by the path of the object that was told of them
_masked = 0
_wire = file("interrupts")


def drain():
    while not _masked:
        event = _wire.read(16)
        if not event:
            return
        _hand_on(event)


def mask(on):
    global _masked
    _masked = on
    drain()


async def _pump(reader):
    while True:
        event = await reader.read(16)
        while _masked:
            await asyncio.sleep_ms(1)
        _hand_on(event)


def _hand_on(event):
    name = event.decode().rstrip()
    if name in handlers:
        micropython.schedule(handlers[name], None)  # as the port does; what it raises is said and goes no further


asyncio.create_task(_pump(asyncio.StreamReader(_wire)))  # noqa: RUF006 - the loop keeps it
