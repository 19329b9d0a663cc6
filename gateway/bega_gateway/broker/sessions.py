"""Ending the session of a revoked node: whoever connects under its client id takes it over (MQTT 3.1.1, 3.1.4-2).

mosquitto looks at a certificate when a session begins, and never again: a list of revoked ones leaves every session
that is there as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from bega.mqtt import Session, SessionLost

AT_ONCE = 20
ATTEMPTS = 3
AGAIN_S = 1.0


class Connect(Protocol):
    """Connects to the broker under a client id, with a clean session."""

    def __call__(self, client_id: str) -> AbstractAsyncContextManager[Session]:
        """Return the session."""


async def end_sessions(names: Iterable[str], connect: Connect, hold_s: float) -> list[str]:
    """End the sessions of `names`; return those that took their id back and so were let in again.

    Each id is held for `hold_s`: whoever is refused cannot take it back. Raises SessionLost if the broker cannot be
    reached at all.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def end(name: str) -> bool:
        async with turns:
            return await _came_back(name, connect, hold_s)

    wanted = sorted(names)
    outcomes = await asyncio.gather(*map(end, wanted))
    return [name for name, came_back in zip(wanted, outcomes, strict=True) if came_back]


async def _came_back(name: str, connect: Connect, hold_s: float) -> bool:
    """Hold the id of `name`, and take it again when it was taken back; return whether it was each time.

    Once or twice it may be: mosquitto had not read the list by then.
    """
    for _ in range(ATTEMPTS):
        async with connect(name) as session:
            try:
                async with asyncio.timeout(hold_s):
                    async for _message in session.messages():
                        pass
            except TimeoutError:
                return False
            except SessionLost:
                pass
        await asyncio.sleep(AGAIN_S)
    return True
