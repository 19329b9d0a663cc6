"""Staying with a broker: connect, serve, and where it goes away connect again; said once, not at each try."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable

from bega import mqtt
from bega.mqtt import Credentials, Session, SessionLost

PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
SETTLED_S = 10.0  # a session that lasts so long is one; a shorter one is a try that came to nothing


async def stay_connected(
    broker: str,
    name: str,
    credentials: Credentials | None,
    topics: str,
    up: Callable[[], None],
    down: Callable[[str], None],
    *works: Callable[[Session], Awaitable[None]],
) -> None:
    """Do all `works` together with each session that is subscribed to `topics`, for ever.

    up() is called when the first session begins, and when one after a failure has lasted; down(why) when the broker, or
    the disk behind the works, fails for another reason than the last time.
    """
    turn, said, is_first = 0, "", True

    async def settle(session: Session) -> None:
        nonlocal turn, said
        await asyncio.sleep(SETTLED_S)
        if said:
            up()
        turn, said = 0, ""

    while True:
        try:
            async with mqtt.connect(broker, name, credentials) as session:
                await session.subscribe(topics)
                if is_first:
                    up()
                is_first = False
                async with asyncio.TaskGroup() as tasks:
                    for work in (*works, settle):
                        tasks.create_task(_done(work, session))
        except* (SessionLost, OSError, TimeoutError, sqlite3.Error) as errors:
            why = str(errors.exceptions[0])
            if why != said:
                down(why)
            said = why
        await asyncio.sleep(PAUSES_S[min(turn, len(PAUSES_S) - 1)])
        turn += 1


async def _done(work: Callable[[Session], Awaitable[None]], session: Session) -> None:
    await work(session)
