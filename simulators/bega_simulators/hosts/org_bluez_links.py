"""The connections of one adapter behind `org.bluez`: Device1.Connect, and the GATT objects of who is connected.

Interfaces and properties as BlueZ documents them (doc/org.bluez.Device.rst, GattService.rst, GattCharacteristic.rst,
5.66). Notifications, descriptors and pairing are left out.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from bumble import core, hci
from bumble.att import ATT_Error
from bumble.device import Connection, Device, DeviceConfiguration, Peer
from bumble.gatt import Characteristic
from bumble.gatt_client import CharacteristicProxy
from bumble.host import Host
from dbus_fast import Variant

DEVICE = "org.bluez.Device1"
SERVICE = "org.bluez.GattService1"
CHARACTERISTIC = "org.bluez.GattCharacteristic1"

GIVE_UP_AFTER_S = 20.0
MTU = 517
FLAGS = {
    Characteristic.Properties.READ: "read",
    Characteristic.Properties.WRITE: "write",
    Characteristic.Properties.NOTIFY: "notify",
}


class Refused(Exception):
    """A D-Bus error as answer."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name
        self.why = why


class Objects(Protocol):
    """Where objects are made known."""

    def add(self, path: str, interfaces: dict[str, dict[str, Variant]]) -> None:
        """Publish an object."""

    def remove(self, path: str, interface: str) -> None:
        """Withdraw it."""

    def change(self, path: str, interface: str, properties: dict[str, Variant]) -> None:
        """Publish new properties."""


class Links:
    """Connects to one device at a time, as a controller does, and holds any number."""

    def __init__(self, host: Host, objects: Objects) -> None:
        self._host = host
        self._objects = objects
        self._central: Device | None = None
        self._connecting: dict[str, asyncio.Task[Any]] = {}  # device path: who waits for it
        self._connections: dict[str, Connection] = {}
        self._readable: dict[str, tuple[Peer, CharacteristicProxy[bytes]]] = {}  # by path of the characteristic
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_connecting(self) -> bool:
        """Whether somebody waits for a connection."""
        return bool(self._connecting)

    def holds(self, path: str) -> bool:
        """Return whether the device at `path` is connected."""
        return path in self._connections

    async def connect(self, path: str, address: hci.Address) -> None:
        """Return when the device is connected; its services become known later. Raises Refused."""
        if path in self._connections:
            return
        if self._connecting:
            raise Refused("org.bluez.Error.InProgress", "Operation already in progress")
        task = asyncio.ensure_future(self._the_central().connect(address, timeout=GIVE_UP_AFTER_S))
        self._connecting[path] = task
        try:
            connection = await task
        except (asyncio.CancelledError, core.BaseBumbleError, TimeoutError):
            await self._host.send_sync_command(hci.HCI_LE_Create_Connection_Cancel_Command())
            raise Refused("org.bluez.Error.Failed", "le-connection-abort-by-local") from None
        finally:
            del self._connecting[path]
        self._connections[path] = connection
        connection.on("disconnection", lambda _reason: self._gone(path))
        self._objects.change(path, DEVICE, {"Connected": Variant("b", True)})
        self._spawn(self._resolve(path, Peer(connection)))

    async def disconnect(self, path: str) -> None:
        """End the connection, or the attempt at one; does nothing where there is neither."""
        if path in self._connecting:
            self._connecting[path].cancel()
        if path in self._connections:
            await self._connections[path].disconnect()

    async def drop_all(self) -> None:
        """End everything, as an adapter that loses its power does."""
        for path in [*self._connecting, *self._connections]:
            await self.disconnect(path)

    async def read(self, path: str) -> bytes:
        """Return the value of the characteristic at `path`; raises Refused with bluetoothd's words."""
        if path not in self._readable:
            raise Refused("org.bluez.Error.NotConnected", "Not Connected")
        peer, characteristic = self._readable[path]
        try:
            return bytes(await peer.gatt_client.read_value(characteristic.handle))
        except ATT_Error as error:
            raise Refused(
                "org.bluez.Error.Failed", f"Operation failed with ATT error: 0x{error.error_code:02x}"
            ) from None

    def _the_central(self) -> Device:
        """Return the host's other half, which knows connections; made when the first one is wanted.

        It would hear every advertisement a second time, for nobody.
        """
        if self._central is None:
            self._central = Device(config=DeviceConfiguration(name=""), host=self._host)
            self._host.remove_listener("advertising_report", self._central.on_advertising_report)
        return self._central

    async def _resolve(self, path: str, peer: Peer) -> None:
        await peer.request_mtu(MTU)
        await peer.discover_services()
        for service in peer.services:
            place = f"{path}/service{service.handle:04x}"
            rows = {
                "UUID": Variant("s", _uuid(service.uuid)),
                "Primary": Variant("b", True),
                "Device": Variant("o", path),
            }
            self._objects.add(place, {SERVICE: rows | {"Includes": Variant("ao", [])}})
            await service.discover_characteristics()
            for characteristic in service.characteristics:
                self._publish(f"{place}/char{characteristic.handle - 1:04x}", place, peer, characteristic)
        self._objects.change(path, DEVICE, {"ServicesResolved": Variant("b", True)})

    def _publish(self, path: str, service: str, peer: Peer, characteristic: CharacteristicProxy[bytes]) -> None:
        flags = [name for flag, name in FLAGS.items() if characteristic.properties & flag]
        self._readable[path] = peer, characteristic
        rows = {
            "UUID": Variant("s", _uuid(characteristic.uuid)),
            "Service": Variant("o", service),
            "Flags": Variant("as", flags),
            "Notifying": Variant("b", False),
            "MTU": Variant("q", MTU),
        }
        self._objects.add(path, {CHARACTERISTIC: rows})

    def _gone(self, path: str) -> None:
        del self._connections[path]
        off = {"ServicesResolved": Variant("b", False), "Connected": Variant("b", False)}
        self._objects.change(path, DEVICE, off)
        for place in [place for place in self._readable if place.startswith(f"{path}/")]:
            del self._readable[place]
            self._objects.remove(place, CHARACTERISTIC)
            self._objects.remove(place.rpartition("/")[0], SERVICE)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _uuid(uuid: core.UUID) -> str:
    octets = uuid.to_bytes(force_128=True)[::-1].hex()
    return f"{octets[:8]}-{octets[8:12]}-{octets[12:16]}-{octets[16:20]}-{octets[20:]}"
