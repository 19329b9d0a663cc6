"""Sensors that are connected to and read (GATT): one connection a poll, and one poll at a time on an adapter.

When a sensor is asked, and what becomes of the answers, is asked.py's affair; this is its wire.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from bleak import BleakClient
from bleak.exc import BleakDBusError, BleakDeviceNotFoundError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from bleak.backends.characteristic import BleakGATTCharacteristic
    from bleak.backends.device import BLEDevice

    from bega.clock import Clock
    from bega_gateway.lines.ble_counters import BleCounters
    from bega_gateway.lines.station import Station
    from bega_protocols.ask import Ask

log = logging.getLogger(__name__)

CONNECT_WITHIN_S = 10.0  # with the services' discovery; while it tries, an adapter hears less of the others
LEAVE_WITHIN_S = 1.0  # part of the 2 s in which the gateway ends
# After so many failures in a row the next attempt waits so long: a sensor that does not answer costs the air of the
# others 10 s of every 5 minutes. One that bluetoothd no longer hears costs none: it refuses at once.
PAUSES_MS = (0, 0, 30_000, 60_000, 120_000, 300_000)
BLUETOOTH_BASE_UUID = 0x0000000000001000800000805F9B34FB  # Core specification volume 3, part B, section 2.5.1


class GattWire:
    """The way to one sensor. A sensor that is away is no fault of the wire: its questions stay without an answer."""

    def __init__(
        self,
        line: str,
        station: Station,
        find: Callable[[], BLEDevice | None],
        turns: asyncio.Lock,
        counters: BleCounters,
        mono_ms: Clock,
    ) -> None:
        """find: what the scan has heard of the sensor; turns: whose turn it is on the adapter."""
        self._line = line
        self._station = station
        self._find = find
        self._turns = turns
        self._counters = counters
        self._mono_ms = mono_ms
        self._client: BleakClient | None = None
        self._tried = False  # to connect, in this turn
        self._failures = 0  # in a row
        self._not_before_ms = 0
        self.began_ms = 0

    async def open(self) -> None:
        """Do nothing: the adapter is the line's affair, and a connection is made in each turn."""

    def close(self) -> None:
        """Do nothing: each turn ends its own connection."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Hold the adapter's connections for one poll; the connection is made by its first question."""
        return self._turn()

    async def exchange(self, ask: Ask) -> bytes | None:
        """Read the characteristic that `ask` names; None if it is not there or does not answer.

        Where the sensor has it several times, the first one in its table is meant.
        """
        assert ask.read and not ask.write, "no device wants to write by GATT yet"
        client = await self._connected()
        characteristic = client and _find(client, ask.line["characteristic"])
        if not client or not characteristic:
            return None
        try:
            async with asyncio.timeout(ask.wait_ms / 1000):
                answer = bytes(await client.read_gatt_char(characteristic))
        except Exception as error:  # bleak and dbus-fast raise many kinds; all of them mean: no answer to this one
            log.debug("no answer line=%s error=%s", self._line, type(error).__name__)
            return None
        self.began_ms = self._mono_ms()
        return answer

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._turns:
            self._tried = False
            try:
                yield
            finally:
                await self._leave()

    async def _connected(self) -> BleakClient | None:
        """Return the connection of this turn; None if there is none, and none comes about."""
        if self._tried:
            return self._client if self._client and self._client.is_connected else None
        self._tried = True
        device = self._find()
        if device is None or self._mono_ms() < self._not_before_ms:
            return None
        client = BleakClient(device, timeout=CONNECT_WITHIN_S)
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await client.connect()
        except Exception as error:  # whatever it is, the next poll tries again
            self._note_failure(error)
            return None
        self._note_success()
        self._client = client
        return client

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client:
            with suppress(Exception):  # whatever it is, the connection is over
                async with asyncio.timeout(LEAVE_WITHIN_S):
                    await client.disconnect()

    def _note_failure(self, error: Exception) -> None:
        if not self._failures:
            log.warning("sensor not read line=%s device=%s error=%s", self._line, self._station.said_name, _why(error))
        self._failures += 1
        self._counters.failed_connects += 1
        self._not_before_ms = self._mono_ms() + PAUSES_MS[min(self._failures, len(PAUSES_MS) - 1)]

    def _note_success(self) -> None:
        if self._failures:
            log.info("sensor is read again line=%s device=%s", self._line, self._station.said_name)
        self._failures = 0
        self._counters.connects += 1


def _find(client: BleakClient, number: int) -> BleakGATTCharacteristic | None:
    wanted = str(UUID(int=number if number >> 32 else (number << 96) + BLUETOOTH_BASE_UUID))
    rows = [row for service in client.services for row in service.characteristics if row.uuid == wanted]
    return min(rows, key=lambda row: row.handle, default=None)


def _why(error: Exception) -> str:
    """Return the reason in words, without the sensor's address: a log names no household's things."""
    if isinstance(error, BleakDeviceNotFoundError):
        return "it is not heard any more"
    if isinstance(error, TimeoutError):
        return f"it accepted no connection within {CONNECT_WITHIN_S:.0f} s"
    if isinstance(error, BleakDBusError):
        return f"{error.dbus_error} {error.dbus_error_details or ''}".strip()
    return type(error).__name__
