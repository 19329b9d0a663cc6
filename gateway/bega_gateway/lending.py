"""A line on which nobody is heard is let go of for a while, so that the doctor can try it at other rates and units."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from bega_gateway.health import quiet_after_s
from bega_gateway.reload import Plan, parts
from bega_protocols.errors import ConfigError

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega.outbox.spool import Spool
    from bega_gateway.config import Config
    from bega_gateway.parts import Parts

LONGEST_S = 180.0
LOOK_EVERY_S = 0.1  # whether it was given back


async def lent(
    line: str, config: Config, running: Parts, spool: Spool, mono_ms: Clock, is_over: Callable[[], bool]
) -> AsyncGenerator[str, None]:
    """Let go of `line`, yield one text, and take it back when `is_over()`, or after three minutes.

    Whoever calls lets nothing else change the parts meanwhile. Raises ConfigError where somebody is heard on the line:
    his readings would be lost.
    """
    place = f"lines.{line}"
    if place not in parts(config):
        raise ConfigError(f"there is no line {line!r} that has something to read")
    if all(name != line for name, _ in running.stations()):
        raise ConfigError(f"nobody is read on {line!r}: it is not lent")
    now_ms = mono_ms()
    for name, station in running.stations():
        heard_ms = station.heard_mono_ms
        if name == line and heard_ms is not None and now_ms - heard_ms <= 1000 * quiet_after_s(station.every_s):
            raise ConfigError(f"{station.said_name} is heard on {line}: it is not lent")
    try:
        states = await spool.driver_states()
    except sqlite3.Error as error:
        raise ConfigError(f"the spool cannot be read ({error}); see the disk") from None
    await running.change(Plan([], [place], []), config, states)
    try:
        yield json.dumps({"lent": line})
        end_ms = now_ms + round(1000 * LONGEST_S)
        while not is_over() and mono_ms() < end_ms:  # noqa: ASYNC110 - who hangs up sets no event
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await running.change(Plan([], [], [place]), config, states)
