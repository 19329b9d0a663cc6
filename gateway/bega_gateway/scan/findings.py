"""What a scan has found so far. It grows while the scan runs, so that one that is broken off loses nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from bega_protocols.reading import Reading

LONGEST_NAME = 48  # a name in a configuration may have 64 characters: a number may be added
BATTERY_EVERY_S = 900.0  # wired M-Bus meters run on a battery that is made for so many answers
EVERY_S = 60.0


@dataclass
class FoundDevice:
    """A device that answered or was heard, and the settings that it was read with."""

    name: str
    driver: str
    settings: dict[str, Any]
    readings: list[Reading] = field(default_factory=list)
    heard: str = ""  # how it showed itself: "answered at 9600 8N1"
    attributes: dict[str, str] = field(default_factory=dict)
    fits_too: list[dict[str, Any]] = field(default_factory=list)  # other settings that explain what it says as well
    lacks: str = ""  # why it cannot be read as it stands here: a key, a profile


@dataclass
class FoundLine:
    """A wire that something was found on."""

    name: str
    kind: str  # as in a configuration: "modbus-rtu"
    table: dict[str, Any]  # the rest of its table
    about: str  # in words: what the port is called
    devices: list[FoundDevice] = field(default_factory=list)

    @property
    def every_s(self) -> float:
        """Return how often to ask what hangs here, to begin with."""
        return BATTERY_EVERY_S if self.kind == "mbus" else EVERY_S


class Findings:
    """Lines with their devices, and what was seen and is in no line."""

    def __init__(self) -> None:
        self.lines: list[FoundLine] = []
        self.notes: list[str] = []
        self._names: set[str] = set()

    def line(self, wanted: str, kind: str, about: str, table: dict[str, Any]) -> FoundLine:
        """Return a new line, which shows once a device is added to it."""
        line = FoundLine(self._free(wanted), kind, table, about)
        self.lines.append(line)
        return line

    def withdraw(self, line: FoundLine) -> None:
        """Forget a line that nothing was found on; its name is free again."""
        self.lines.remove(line)
        self._names.discard(line.name)

    def add(self, line: FoundLine, wanted: str, driver: str, settings: dict[str, Any], **facts: Any) -> FoundDevice:
        """Return a new device on `line`, called `wanted` or, if that name is taken, much like it."""
        device = FoundDevice(self._free(wanted), driver, settings, **facts)
        line.devices.append(device)
        return device

    def found(self) -> list[FoundLine]:
        """Return the lines that something was found on, by name."""
        return sorted((line for line in self.lines if line.devices), key=lambda line: line.name)

    def _free(self, wanted: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9_]+", "-", wanted).strip("-")[:LONGEST_NAME] or "device"
        name, number = plain, 1
        while name in self._names:
            number += 1
            name = f"{plain}-{number}"
        self._names.add(name)
        return name


def name_of_port(port: str) -> str:
    """Return what a line on `port` may be called: of /dev/serial/by-id/usb-FTDI_cellar-if00-port0 FTDI_cellar."""
    path = PurePath(port)
    if path.parent.name == "by-id":
        return re.sub(r"-if[0-9]+(-port[0-9]+)?$", "", path.name.removeprefix("usb-"))
    return "-".join(path.parts[2:]) if path.is_absolute() and len(path.parts) > 2 else path.name
