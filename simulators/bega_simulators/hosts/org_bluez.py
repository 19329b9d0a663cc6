"""`org.bluez` on a bus, over HCI hosts: what bluetoothd says to whoever scans, connects and reads.

Interfaces and properties as BlueZ documents them (doc/org.bluez.Adapter.rst, org.bluez.Device.rst, 5.66): a discovery
session for each caller, devices as objects that go 30 s after they were last heard, PropertiesChanged only for what
changed (the filter DuplicateData is false by default). Connections and GATT are in org_bluez_links.py.
AdvertisementMonitor, agents and filters are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bumble import hci
from bumble.host import Host
from dbus_fast import ErrorType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from bega_simulators.hosts.org_bluez_links import DEVICE, Links, Refused

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
ADAPTER = "org.bluez.Adapter1"

FORGOTTEN_AFTER_S = 30.0  # bluetoothd's TemporaryTimeout
LOOK_EVERY_S = 1.0
SCAN_INTERVAL = SCAN_WINDOW = 0x0060  # 60 ms in units of 0.625 ms: all the time

# AD types, Bluetooth Assigned Numbers section 2.3
UUIDS_16_BIT, SHORT_NAME, NAME, TX_POWER, SERVICE_DATA_16_BIT, MANUFACTURER_DATA = (2, 3), 0x08, 0x09, 0x0A, 0x16, 0xFF

Properties = dict[str, Variant]


class _Adapter:
    """One adapter: who scans on it and who is connected to it."""

    def __init__(self, path: str, host: Host, links: Links) -> None:
        self.path = path
        self.host = host
        self.links = links
        self.scanning: set[str] = set()  # bus names with a discovery session
        self.deaf = False  # its firmware hangs: it says that it scans, and reports nothing

    async def scan(self, on: bool) -> None:
        if on:
            await self.host.send_sync_command(
                hci.HCI_LE_Set_Extended_Scan_Parameters_Command(
                    own_address_type=hci.OwnAddressType.RANDOM,
                    scanning_filter_policy=0,
                    scanning_phys=1 << hci.HCI_LE_1M_PHY_BIT,
                    scan_types=[1],  # active
                    scan_intervals=[SCAN_INTERVAL],
                    scan_windows=[SCAN_WINDOW],
                )
            )
        await self.host.send_sync_command(
            hci.HCI_LE_Set_Extended_Scan_Enable_Command(enable=on, filter_duplicates=0, duration=0, period=0)
        )


class OrgBluez:
    """bluetoothd with adapters hci0, hci1 ... `start` and `stop` are systemctl's; between them all is forgotten."""

    def __init__(self, bus_address: str, *hosts: Host) -> None:
        self._bus_address = bus_address
        self._objects: dict[str, dict[str, Properties]] = {}
        self._addresses: dict[str, hci.Address] = {}  # of devices, by path
        self._heard_s: dict[str, float] = {}  # device path: when it was last heard
        self._tasks: set[asyncio.Task[None]] = set()
        self._bus: MessageBus | None = None
        self._adapters = [
            _Adapter(f"/org/bluez/hci{number}", host, Links(host, self)) for number, host in enumerate(hosts)
        ]
        self._hearing: list[tuple[Host, Callable[[Any], None]]] = []
        self.published = 0  # advertisements that came as a device's new properties
        self.power_cycles = 0

    async def start(self) -> None:
        """Appear on the bus, with the adapters switched on."""
        bus = MessageBus(bus_address=self._bus_address)
        self._bus = await bus.connect()
        self._bus.add_message_handler(self._handle)
        await self._bus.call(_watch_owners())
        await self._bus.request_name("org.bluez")
        self._spawn(self._forget_the_silent())
        for adapter in self._adapters:
            hear = partial(self._on_report, adapter)
            adapter.host.on("advertising_report", hear)
            self._hearing.append((adapter.host, hear))
            address = (await adapter.host.send_sync_command(hci.HCI_Read_BD_ADDR_Command())).bd_addr
            self.add(adapter.path, {ADAPTER: _adapter(address.to_string(False))})

    async def stop(self) -> None:
        """Vanish from the bus without a word, as a daemon that is killed does."""
        for host, hear in self._hearing:
            host.remove_listener("advertising_report", hear)
        self._hearing.clear()
        for task in self._tasks:
            task.cancel()
        for adapter in self._adapters:
            await adapter.scan(False)
            await adapter.links.drop_all()
            adapter.scanning.clear()
        self._objects.clear()
        self._heard_s.clear()
        bus, self._bus = self._bus, None
        if bus and bus.connected:
            bus.disconnect()

    @property
    def devices(self) -> list[str]:
        """The paths of all devices that are known now."""
        return list(self._heard_s)

    def switch(self, on: bool, number: int = 0) -> None:
        """Switch an adapter on or off, as rfkill or bluetoothctl do."""
        adapter = self._adapters[number]
        if not on:
            adapter.scanning.clear()
            self._spawn(adapter.scan(False))
            self._spawn(adapter.links.drop_all())
        elif adapter.deaf and not self.is_on(number):
            adapter.deaf = False
            self.power_cycles += 1
        self.change(adapter.path, ADAPTER, {"Powered": Variant("b", on), "Discovering": Variant("b", False)})

    def is_on(self, number: int = 0) -> bool:
        """Return whether an adapter is switched on."""
        return bool(self._objects[self._adapters[number].path][ADAPTER]["Powered"].value)

    def is_connecting(self, number: int = 0) -> bool:
        """Return whether an adapter waits for a sensor to accept a connection."""
        return self._adapters[number].links.is_connecting

    def unplug(self, number: int = 0) -> None:
        """Take an adapter away."""
        adapter = self._adapters[number]
        adapter.scanning.clear()
        self._spawn(adapter.scan(False))
        self.remove(adapter.path, ADAPTER)

    def deafen(self, number: int = 0) -> None:
        """Let an adapter hang until it is switched off and on: it scans and reports nothing."""
        self._adapters[number].deaf = True

    # What is heard

    def _on_report(self, adapter: _Adapter, report: Any) -> None:
        """Publish one advertisement as a device's properties."""
        if not adapter.scanning or adapter.deaf:
            return
        address = report.address.to_string(False)
        path = f"{adapter.path}/dev_{address.replace(':', '_')}"
        self._heard_s[path] = asyncio.get_running_loop().time()
        heard = _advertised(report.data)
        heard["RSSI"] = Variant("n", report.rssi)
        known = self._objects.get(path)
        if known is None:
            self._addresses[path] = report.address
            self.add(path, {DEVICE: _device(address, report.address.is_public, adapter.path) | heard})
            self.published += 1
            return
        changed = {name: value for name, value in heard.items() if known[DEVICE].get(name) != value}
        if changed:
            self.change(path, DEVICE, changed)
            self.published += 1

    async def _forget_the_silent(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = asyncio.get_running_loop().time()
            held = {path for path in self._heard_s if self._adapter_of(path).links.holds(path)}
            for path in [path for path, heard_s in self._heard_s.items() if now_s - heard_s > FORGOTTEN_AFTER_S]:
                if path not in held:
                    del self._heard_s[path]
                    self.remove(path, DEVICE)

    # What is asked

    def _handle(self, message: Message) -> bool:
        """Answer a method call; called by dbus-fast for every message."""
        if message.message_type == MessageType.SIGNAL and message.member == "NameOwnerChanged":
            name, _, owner = message.body
            if not owner:  # a caller that left takes its discovery session with it
                for adapter in self._adapters:
                    self._spawn(self._end_session(adapter, name))
            return False
        if message.message_type != MessageType.METHOD_CALL or message.destination == "org.freedesktop.DBus":
            return False
        self._spawn(self._answer(message))
        return True

    async def _answer(self, message: Message) -> None:
        try:
            signature, body = await self._call(message)
            reply = Message.new_method_return(message, signature, body)
        except Refused as refusal:
            reply = Message.new_error(message, refusal.name, refusal.why)
        if self._bus:
            self._bus.send(reply)

    async def _call(self, message: Message) -> tuple[str, list[Any]]:
        """Return signature and body of the answer; raises Refused with bluetoothd's own words."""
        path = message.path or ""
        if message.member == "GetManagedObjects":
            return "a{oa{sa{sv}}}", [self._objects]
        if path not in self._objects:
            raise Refused(ErrorType.UNKNOWN_OBJECT.value, f"no object at {path}")
        match f"{(message.interface or '').rpartition('.')[2]}.{message.member}":
            case "Properties.Get":
                return "v", [self._properties(path, message.body[0])[message.body[1]]]
            case "Properties.GetAll":
                return "a{sv}", [self._properties(path, message.body[0])]
            case "Properties.Set":
                self._set(path, *message.body)
            case "Adapter1.SetDiscoveryFilter":
                pass
            case "Adapter1.StartDiscovery":
                await self._begin_session(self._adapter_of(path), message.sender or "")
            case "Adapter1.StopDiscovery":
                if message.sender not in self._adapter_of(path).scanning:
                    raise Refused("org.bluez.Error.Failed", "No discovery started")
                await self._end_session(self._adapter_of(path), message.sender)
            case "Adapter1.RemoveDevice":
                self._heard_s.pop(message.body[0], None)
                self.remove(message.body[0], DEVICE)
            case "Device1.Connect":
                await self._adapter_of(path).links.connect(path, self._addresses[path])
            case "Device1.Disconnect":
                await self._adapter_of(path).links.disconnect(path)
            case "GattCharacteristic1.ReadValue":
                return "ay", [await self._adapter_of(path).links.read(path)]
            case unknown:
                raise Refused(ErrorType.UNKNOWN_METHOD.value, f"no method {unknown}")
        return "", []

    def _properties(self, path: str, interface: str) -> Properties:
        if interface not in self._objects[path]:
            raise Refused(ErrorType.INVALID_ARGS.value, f"no interface {interface}")
        return self._objects[path][interface]

    def _set(self, path: str, interface: str, name: str, value: Variant) -> None:
        adapter = self._adapter_of(path)
        if (path, interface, name) == (adapter.path, ADAPTER, "Powered"):
            self.switch(value.value, self._adapters.index(adapter))
        else:
            self.change(path, interface, {name: value})

    def _adapter_of(self, path: str) -> _Adapter:
        return next(adapter for adapter in self._adapters if f"{path}/".startswith(f"{adapter.path}/"))

    async def _begin_session(self, adapter: _Adapter, sender: str) -> None:
        if not self._properties(adapter.path, ADAPTER)["Powered"].value:
            raise Refused("org.bluez.Error.NotReady", "Resource Not Ready")
        if sender in adapter.scanning:
            raise Refused("org.bluez.Error.InProgress", "Operation already in progress")
        adapter.scanning.add(sender)
        if len(adapter.scanning) == 1:
            for path, interfaces in self._objects.items():
                if path.startswith(f"{adapter.path}/"):  # so that whoever is still there is told of again
                    interfaces.get(DEVICE, {}).pop("RSSI", None)
            await adapter.scan(True)
            self.change(adapter.path, ADAPTER, {"Discovering": Variant("b", True)})

    async def _end_session(self, adapter: _Adapter, sender: str) -> None:
        if sender not in adapter.scanning:
            return
        adapter.scanning.discard(sender)
        if not adapter.scanning:
            await adapter.scan(False)
            self.change(adapter.path, ADAPTER, {"Discovering": Variant("b", False)})

    # What is said

    def add(self, path: str, interfaces: dict[str, Properties]) -> None:
        """Publish an object."""
        self._objects[path] = interfaces
        self._signal("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])

    def remove(self, path: str, interface: str) -> None:
        """Withdraw an object."""
        if self._objects.pop(path, None) is not None:
            self._signal("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [path, [interface]])

    def change(self, path: str, interface: str, properties: Properties) -> None:
        """Publish new properties of an object."""
        if path in self._objects:
            self._objects[path][interface].update(properties)
            self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, properties, []])

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        if self._bus and self._bus.connected:
            self._bus.send(
                Message(
                    message_type=MessageType.SIGNAL,
                    path=path, interface=interface, member=member, signature=signature, body=body,
                )
            )  # fmt: skip

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _watch_owners() -> Message:
    rule = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'"
    return Message(
        destination="org.freedesktop.DBus", path="/org/freedesktop/DBus", interface="org.freedesktop.DBus",
        member="AddMatch", signature="s", body=[rule],
    )  # fmt: skip


def _adapter(address: str) -> Properties:
    return {
        "Address": Variant("s", address),
        "AddressType": Variant("s", "public"),
        "Name": Variant("s", "simulated"),
        "Alias": Variant("s", "simulated"),
        "Powered": Variant("b", True),
        "Discovering": Variant("b", False),
        "Roles": Variant("as", ["central"]),
        "UUIDs": Variant("as", []),
    }


def _device(address: str, is_public: bool, adapter: str) -> Properties:
    flags = ("Paired", "Bonded", "Trusted", "Blocked", "Connected", "ServicesResolved", "LegacyPairing")
    return {
        "Address": Variant("s", address),
        "AddressType": Variant("s", "public" if is_public else "random"),
        "Alias": Variant("s", address.replace(":", "-")),
        "UUIDs": Variant("as", []),
        "Adapter": Variant("o", adapter),
    } | {flag: Variant("b", False) for flag in flags}


def _advertised(data: bytes) -> Properties:
    """Return what one advertisement says, as properties of org.bluez.Device1."""
    service_data: dict[str, Variant] = {}
    manufacturer_data: dict[int, Variant] = {}
    found: Properties = {}
    for ad_type, value in _structures(data):
        if ad_type == SERVICE_DATA_16_BIT and len(value) >= 2:
            service_data[_uuid(value[:2])] = Variant("ay", value[2:])
        elif ad_type == MANUFACTURER_DATA and len(value) >= 2:
            manufacturer_data[int.from_bytes(value[:2], "little")] = Variant("ay", value[2:])
        elif ad_type in UUIDS_16_BIT:
            found["UUIDs"] = Variant("as", [_uuid(value[at : at + 2]) for at in range(0, len(value) - 1, 2)])
        elif ad_type in (SHORT_NAME, NAME):
            found["Name"] = found["Alias"] = Variant("s", value.decode("utf-8", "replace"))
        elif ad_type == TX_POWER and len(value) == 1:
            found["TxPower"] = Variant("n", int.from_bytes(value, "little", signed=True))
    if service_data:
        found["ServiceData"] = Variant("a{sv}", service_data)
    if manufacturer_data:
        found["ManufacturerData"] = Variant("a{qv}", manufacturer_data)
    return found


def _structures(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 1 < len(data) and data[at] and at + 1 + data[at] <= len(data):
        yield data[at + 1], data[at + 2 : at + 1 + data[at]]
        at += 1 + data[at]


def _uuid(octets: bytes) -> str:
    return f"0000{octets[1]:02x}{octets[0]:02x}-0000-1000-8000-00805f9b34fb"
