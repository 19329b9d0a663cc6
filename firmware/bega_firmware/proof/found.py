"""What a node is and carries, read over its cable: board, configuration, what it keeps. Nothing is changed on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bega_firmware.proof.on_node import FILES, call
from bega_protocols.errors import ConfigError

OWN, GOOD, NEW = "/config.json", "/config.good", "/config.new"
STATE = "/state"
LENT = "/bench/lent"  # there while a bench has borrowed the node (lent.py)
READ_WITHIN_S = 20.0
SEGMENT_BYTES = 4096  # of the ring: SEGMENT_BYTES of firmware/node/app.py


class Prompt(Protocol):
    """What is needed of a cable to look at a node: its program is stopped, and a source runs in its place."""

    def run(self, source: str, within_s: float) -> str:
        """Return what the source printed. Raises CableError."""


@dataclass(frozen=True)
class Device:
    """One device of a node's configuration, with what its board file says of it."""

    name: str
    driver: str
    bus: str
    wiring: Mapping[str, Any]  # of its bus
    settings: Mapping[str, Any]
    line: str  # "9600 8N1" where the configuration names another than the driver's
    power_pin: int | None = None
    beside: str = ""


@dataclass(frozen=True)
class Chip:
    """What the chip says of itself."""

    cause: int  # machine.reset_cause()
    heap_free: int
    heap_bytes: int
    flash_free_kb: int
    flash_kb: int
    year: int  # by its clock
    release: str  # of MicroPython
    mac: str
    slot: str  # the folder that its program runs from: "/a", "/b", "" where there is none


@dataclass(frozen=True)
class Found:
    """A node as it is."""

    board: dict[str, Any] | None  # None: its flash holds no board file
    chip: Chip
    facts: Mapping[str, Any]  # of its application, as `bega node build` wrote them; empty: there is none
    texts: Mapping[str, bytes | None]  # files by their path; None: not there
    ring: list[tuple[int, int]] = field(default_factory=list)  # (number, bytes) of its segments
    config: dict[str, Any] | None = None
    problem: str = ""  # why there is no `config`

    @property
    def name(self) -> str:
        """Return the name in its configuration, '' if it has none."""
        return str((self.config or {}).get("node", ""))

    @property
    def is_on_trial(self) -> bool:
        """Whether an update has still to prove itself: /state/slot is "b 2 1.2.3 - <CRC>" (firmware/node/main.py)."""
        fields = (self.texts.get(f"{STATE}/slot") or b"").split(b" ")
        return len(fields) > 2 and fields[1] != b"-"


READ = (OWN, GOOD, NEW, f"{STATE}/error", f"{STATE}/starts", f"{STATE}/slot", LENT)


def read_node(cable: Prompt) -> Found:
    """Return what is on the node. Raises CableError if it cannot be asked."""
    cable.run(FILES, READ_WITHIN_S)
    board = json.loads(_asked(cable, "own_board"))
    texts = {path: _content(_asked(cable, "shown", path)) for path in READ}
    rows = json.loads(_asked(cable, "listed", f"{STATE}/ring")) or []
    config, problem = read_config(texts[OWN])
    chip = read_chip(json.loads(_asked(cable, "chip")))
    facts = _table(_content(_asked(cable, "shown", f"{chip.slot}/facts.json")))
    return Found(board, chip, facts, texts, segments(rows), config, problem)


def read_chip(facts: Mapping[str, Any]) -> Chip:
    """Return what `chip` of on_node.FILES printed, as data."""
    free, taken = facts["heap"]
    block, _, blocks, free_blocks = facts["flash"]
    return Chip(
        cause=facts["cause"],
        heap_free=free,
        heap_bytes=free + taken,
        flash_free_kb=block * free_blocks // 1024,
        flash_kb=block * blocks // 1024,
        year=facts["clock"][0],
        release=facts["release"],
        mac=facts["id"],
        slot=facts["slot"],
    )


def segments(rows: list[list[Any]]) -> list[tuple[int, int]]:
    """Return (number, bytes) of the ring's segments in a listing of its folder, oldest first."""
    named = [(str(name), int(size)) for name, size in rows]
    return sorted((int(name[:-4]), size) for name, size in named if name.endswith(".seg") and name[:-4].isdigit())


def read_config(text: bytes | None) -> tuple[dict[str, Any] | None, str]:
    """Return (configuration, "") or (None, why there is none)."""
    if text is None:
        return None, f"{OWN} is missing"
    try:
        config = json.loads(text)
    except ValueError:
        return None, f"{OWN} is no JSON"
    if not isinstance(config, dict) or not isinstance(config.get("devices", {}), dict):
        return None, f"{OWN} is no table"
    return config, ""


def devices(board: Mapping[str, Any], config: Mapping[str, Any]) -> list[Device]:
    """Return the devices of a configuration, by name, with what the board says of them (firmware/node/config.py).

    Raises ConfigError for a device without driver, or on a bus that the board has not.
    """
    buses, usual, found = board["BUSES"], board["DEVICES"] or {}, []
    lines = config.get("buses") if isinstance(config.get("buses"), dict) else {}
    for name, own in sorted(config.get("devices", {}).items()):
        table = {**usual.get(name, {}), **(own if isinstance(own, dict) else {})}
        driver, bus = table.get("driver"), table.get("bus")
        if not isinstance(driver, str) or bus not in buses:
            raise ConfigError(f"devices.{name} of the node's configuration names no driver, or no bus of this board")
        settings = table.get("settings")
        pin = table.get("power_pin")
        found.append(
            Device(
                name=name,
                driver=driver,
                bus=str(bus),
                wiring=buses[bus],
                settings=settings if isinstance(settings, dict) else {},
                line=str((lines or {}).get(bus, "")),
                power_pin=pin if isinstance(pin, int) else None,
                beside=str(table.get("beside", "")),
            )
        )
    return found


def _asked(cable: Prompt, name: str, *arguments: object) -> str:
    """Return the line that a call printed."""
    said = cable.run(call(name, *arguments), READ_WITHIN_S).strip().splitlines()
    return said[-1] if said else "null"


def _table(text: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _content(said: str) -> bytes | None:
    try:
        return None if said == "-" else bytes.fromhex(said)
    except ValueError:
        return None
