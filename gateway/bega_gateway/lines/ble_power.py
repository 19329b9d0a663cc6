"""Switching a Bluetooth adapter off and on by bluetoothd (doc/org.bluez.Adapter.rst, property Powered)."""

from __future__ import annotations

import asyncio

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from bega_protocols.errors import LineError

OFF_FOR_S = 1.0  # a USB adapter loses its firmware's state in far less
TRIES, BETWEEN_TRIES_S = 5, 0.5  # bluetoothd answers Busy while the last change is under way


async def power_cycle(adapter: str) -> None:
    """Switch `adapter` off and on again; whoever else uses it loses its connections.

    Raises LineError if bluetoothd refuses. It is switched on also when we are cancelled meanwhile: nobody else would.
    """
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        try:
            await _set_powered(bus, adapter, False)
            await asyncio.sleep(OFF_FOR_S)
        finally:
            await _set_powered(bus, adapter, True)
    finally:
        bus.disconnect()


async def power_on(adapter: str) -> None:
    """Switch `adapter` on; raises LineError if bluetoothd refuses."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        await _set_powered(bus, adapter, True)
    finally:
        bus.disconnect()


async def _set_powered(bus: MessageBus, adapter: str, on: bool) -> None:
    why = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(BETWEEN_TRIES_S)
        reply = await bus.call(
            Message(
                destination="org.bluez", path=f"/org/bluez/{adapter}", interface="org.freedesktop.DBus.Properties",
                member="Set", signature="ssv", body=["org.bluez.Adapter1", "Powered", Variant("b", on)],
            )
        )  # fmt: skip
        if reply is not None and reply.message_type != MessageType.ERROR:
            return
        why = reply.error_name or "" if reply else ""
    raise LineError(f"{adapter} cannot be switched {'on' if on else 'off'} ({why}): unplug it, or restart the machine")
