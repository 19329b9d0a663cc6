"""A light blinks, so that whoever stands below finds the node. Loaded when it is asked for."""

import asyncio

import machine

from bega_protocols.settings import whole_number

HALF_MS = 250


async def blink(pin, asked):
    """Blink for {"for_s"}; high is on. Raises ConfigError."""
    turns = 1000 // HALF_MS * whole_number(asked, "for_s", 1, 60, 10)
    light = machine.Pin(pin, machine.Pin.OUT, value=0)
    for turn in range(turns):
        light.value(1 - turn % 2)
        await asyncio.sleep_ms(HALF_MS)
    light.value(0)
