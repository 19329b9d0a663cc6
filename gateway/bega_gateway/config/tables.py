"""What a gateway's configuration says, as frozen types: one for each table of the file, and all of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from bega.tables import LARGEST_PORT, Name, Table
from bega_gateway.commands.table import Commands
from bega_gateway.edge.tables import Derived, Treated, inputs_of
from bega_gateway.home_assistant.table import HomeAssistant
from bega_gateway.updates.table import Updates

Port = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PORT)]
YEAR_S = 366 * 86_400
Seconds = Annotated[float, msgspec.Meta(gt=0, le=YEAR_S)]
Audience = Literal["public", "operator", "personal"]
Priority = Literal["high", "normal", "low"]
Kept = Literal["routine", "billing"]


class Gateway(Table, frozen=True, kw_only=True):
    """Who this gateway is, and where it keeps what must survive."""

    name: Name  # the name in its certificate: topics, client id and `source` of what it reads itself
    city: Name
    state_dir: str = "/var/lib/bega"
    time_zone: str = "UTC"  # whose days and nights are meant, as Europe/Bucharest
    commit_window_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0  # at most this much is lost at a power cut
    spool_quota_mb: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 1000  # what may wait on disk for the uplink


class Uplink(Table, frozen=True, kw_only=True):
    """Where records go. Nothing is deleted here before the broker has acknowledged it."""

    brokers: list[str]  # mqtt://host:port or mqtts://host:port, tried in this order
    ca_file: str | None = None  # with mqtts: who signed the broker's certificate
    cert_file: str | None = None
    key_file: str | None = None


class Revocation(Table, frozen=True, kw_only=True):
    """Whose certificates are no longer good. Without this table no list of them is taken."""

    ca_file: str  # the authority that signs the list: its root, as `bega ca issue` gives it to a gateway
    broker_list: str | None = None  # the list of the broker on this machine: /etc/mosquitto/bega/revoked.pem


class Feed(Table, frozen=True, kw_only=True):
    """The public feed over HTTP: only what has the audience `public`."""

    listen: str = "127.0.0.1:8080"
    keep_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 72


class Metrics(Table, frozen=True, kw_only=True):
    """Counters for Prometheus over HTTP: GET /metrics."""

    listen: str = "127.0.0.1:9100"


class Page(Table, frozen=True, kw_only=True):
    """The technician's local page over HTTP."""

    listen: str = "127.0.0.1:8090"
    password_hash: str = ""  # of `bega gateway password`; where anybody but this machine can ask there must be one


class SerialLine(Table, frozen=True, kw_only=True):
    """One device on one serial port."""

    port: str  # /dev/serial/by-id/...: ttyUSB0 changes owner at reboot
    baud: int | None = None  # left out: what the driver says
    parity: Literal["N", "E", "O"] | None = None
    data_bits: Literal[7, 8] | None = None


class ModbusRtuLine(Table, frozen=True, kw_only=True):
    """One RS-485 bus; several devices share it, each with its own `address` under settings."""

    port: str
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    stop_bits: Literal[1, 2] = 1
    timeout_s: Seconds = 1.0  # the longest that a device may take; quick ones are given up sooner


class ModbusTcpLine(Table, frozen=True, kw_only=True):
    """One Modbus TCP server: a meter, or a converter with several behind it."""

    host: str
    port: Port = 502
    timeout_s: Seconds = 3.0


class MbusLine(Table, frozen=True, kw_only=True):
    """One M-Bus segment behind a level converter; several meters share it, each with its own `address`."""

    port: str
    baud: Literal[300, 600, 1200, 2400, 4800, 9600, 19200, 38400] = 2400  # all meters of a segment have one
    parity: Literal["N", "E", "O"] = "E"


class I2cLine(Table, frozen=True, kw_only=True):
    """One I2C bus of this machine; several sensors share it."""

    bus: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1  # of /dev/i2c-1


class BleLine(Table, frozen=True, kw_only=True):
    """One Bluetooth adapter that listens for advertisements."""

    adapter: str = "hci0"


class MqttLine(Table, frozen=True, kw_only=True):
    """The broker that our own nodes publish to."""

    broker: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class UplinkLine(Table, frozen=True, kw_only=True):
    """A serial port with our own nodes: one on a cable, or several on one RS-485 bus."""

    port: str
    baud: Annotated[int, msgspec.Meta(ge=1200, le=1_000_000)] = 115_200  # the same on each node


Line = SerialLine | ModbusRtuLine | ModbusTcpLine | MbusLine | I2cLine | BleLine | MqttLine | UplinkLine
LINES: dict[str, type[Line]] = {
    "serial": SerialLine,
    "modbus-rtu": ModbusRtuLine,
    "modbus-tcp": ModbusTcpLine,
    "mbus": MbusLine,
    "i2c": I2cLine,
    "ble": BleLine,
    "mqtt": MqttLine,
    "uplink": UplinkLine,
}
# Which drivers a kind of line can carry, by the first word of the driver's `line`.
WIRES = {
    "serial": "serial",
    "modbus-rtu": "modbus",
    "modbus-tcp": "modbus",
    "mbus": "mbus",
    "i2c": "i2c",
    "ble": "ble",
}


class Device(Table, frozen=True, kw_only=True):
    """One device that the gateway itself reads."""

    line: str
    driver: str  # a folder name under protocols/bega_protocols/devices
    every_s: Seconds = 60.0  # faster talkers give the last good frame of each window
    audience: Audience = "operator"  # left out for a meter that hangs in households: "personal"
    storage_class: Kept = "routine"  # a full spool drops the oldest routine records, and never one of billing
    label: str = ""  # where it stands, in words for citizens
    stale_after_s: Seconds | None = None  # not heard for so long, its quantities are said to be stale, once
    priority: Priority = "normal"  # on a Modbus line that is asked too much, low ones are left out first
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    tags: list[dict[str, Any]] = msgspec.field(default_factory=list)  # numbers of a Modbus device without a profile
    actions: list[str] = msgspec.field(default_factory=list)  # of its driver's, those that commands may have done
    writes: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)  # what commands may write (modbus_write.py)


class Node(Table, frozen=True, kw_only=True):
    """One of our own nodes: it allots its own numbers and names its own devices."""

    line: str
    audience: Audience = "operator"
    storage_class: Kept = "routine"  # a full spool drops the oldest routine records, and never one of billing
    label: str = ""
    key_file: str | None = None  # on an uplink line: 64 hex digits that the node has too; without, nothing is proved


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, whole and consistent."""

    gateway: Gateway
    uplink: Uplink
    feed: Feed | None
    lines: dict[str, Line]
    devices: dict[str, Device]
    nodes: dict[str, Node]
    edge: dict[str, dict[str, Derived | Treated]] = msgspec.field(default_factory=dict)  # what is computed, by table
    metrics: Metrics | None = None
    commands: Commands | None = None
    page: Page | None = None
    home_assistant: HomeAssistant | None = None
    updates: Updates | None = None
    revocation: Revocation | None = None

    def audience_of(self, source: str, device: str) -> Audience:
        """Return who may see what `device` of `source` says; what the file does not name is the operator's."""
        if source in self.nodes:
            return self.nodes[source].audience
        if source != self.gateway.name:
            return "operator"  # a node that was taken out, a gateway that had another name
        if device in self.devices:
            return self.devices[device].audience
        return self._audience_of_computed(device, set())

    def _audience_of_computed(self, device: str, seen: set[str]) -> Audience:
        """Return the narrowest audience of its inputs; those that lead back to itself say nothing."""
        table = self.computed().get(device)
        if table is None or device in seen:
            return "operator" if table is None else "public"
        audiences: list[Audience] = []
        for name in inputs_of(table):
            source, input_device = self.input_of(name)
            if source == self.gateway.name and input_device not in self.devices:
                audiences.append(self._audience_of_computed(input_device, seen | {device}))
            else:
                audiences.append(self.audience_of(source, input_device))
        return max(audiences, key=("public", "operator", "personal").index, default="operator")

    def computed(self) -> dict[str, Derived]:
        """Return what gives records of its own, by the name that these have as a device."""
        return {
            name: table for rows in self.edge.values() for name, table in rows.items() if not isinstance(table, Treated)
        }

    def is_known(self, device: str) -> bool:
        """Return whether the gateway itself gives records of `device`."""
        return device in self.devices or device in self.computed()

    def storage_class_of(self, source: str, device: str) -> Kept | Literal["alarm"]:
        """Return what becomes of a record when the spool is full; what the file does not name is routine.

        That an alarm was raised is never dropped for others, so that nobody need say it in the file.
        """
        if source in self.nodes:
            return self.nodes[source].storage_class
        if source == self.gateway.name and device in self.devices:
            return self.devices[device].storage_class
        is_alarm = source == self.gateway.name and device in self.edge.get("alarms", {})
        return "alarm" if is_alarm else "routine"

    def label_of(self, source: str, device: str) -> str:
        """Return the words for where `device` of `source` stands, or ''."""
        if source in self.nodes:
            return self.nodes[source].label
        if source != self.gateway.name:
            return ""
        place = self.devices.get(device) or self.computed().get(device)
        return place.label if place else ""

    def input_of(self, name: str) -> tuple[str, str]:
        """Return (source, device) of an input: "air-1/pms" is a node's, "roadside-air" is read by the gateway."""
        source, slash, device = name.partition("/")
        return (source, device) if slash else (self.gateway.name, name)
