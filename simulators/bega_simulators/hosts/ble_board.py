"""A virtual board's Bluetooth on simulated air: what its control socket says that it advertises is sent there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from bega_simulators.hosts.ble_air import Air

LOOK_EVERY_S = 0.1
BOARD_AWAY_S = 1.0  # until it is looked for again


class Beacon:
    """One board's advertiser, as `Air` asks it."""

    def __init__(self) -> None:
        self._what: dict[str, Any] | None = None
        self._due_ms = 0

    def set(self, what: dict[str, Any] | None) -> None:
        """From now on advertise this (see radio.Bluetooth), None for nothing; a change goes out at once."""
        if what != self._what:
            self._what = what
            self._due_ms = 0

    def tick(self, now_ms: int) -> bytes:
        """Return what is sent at this moment, b"" if nothing is due."""
        if self._what is None or now_ms < self._due_ms:
            return b""
        self._due_ms = now_ms + int(self._what["interval_ms"])
        return bytes.fromhex(self._what["data"])


async def follow(air: Air, control: Path) -> None:
    """Keep the board behind this control socket on the air, until cancelled; one that is away sends nothing."""
    beacon = Beacon()
    address = ""
    while True:
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_unix_connection(str(control))
            try:
                while True:
                    writer.write(b"{}\n")
                    what = json.loads(await reader.readuntil(b"\n"))["advertises"]
                    if what and not address:
                        address = what["address"]
                        air.place(address, beacon.tick)
                    beacon.set(what)
                    await asyncio.sleep(LOOK_EVERY_S)
            finally:
                beacon.set(None)
                writer.close()
        await asyncio.sleep(BOARD_AWAY_S)
