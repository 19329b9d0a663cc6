"""What `bega node setup` decides by itself: which board file, which devices, which way out, and which id."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from bega.clock import Clock, wall_ms
from bega.identity import DEVICE_ID
from bega_firmware.board import Board, board_names, read_board
from bega_firmware.book import WIPED, Event
from bega_protocols.errors import ConfigError

# What the user calls a way out, and the module of firmware/node that it is (WAYS in its config.py).
UPLINKS = {"wifi": "broker", "ble": "beacon", "serial": "uplink"}
SETUPS = "setups"
LETTERS = "bcdfghjkmnpqrstvwxz23456789"  # nothing that reads like another, and no vowels: no words
LETTERS_IN_ID = 5  # 14 million ids a kind
TRIES = 100


@dataclass(frozen=True)
class Kind:
    """What a node is for: the board file for each chip, and the devices that such a node has if nobody names others."""

    boards: dict[str, str]
    devices: tuple[str, ...]  # names in the board file


KINDS = {
    "air": Kind({"esp32": "esp32_devkitc", "esp32c3": "esp32_c3", "esp32s3": "esp32_s3"}, ("pms", "sht")),
    "meter": Kind({"esp32": "meter_carrier"}, ("main",)),
}


def board_for(kind: str, chip: str) -> Board:
    """Return the board file of a node of that kind with this chip ("esp32c3", as esptool calls it).

    Raises ConfigError if none is the usual one.
    """
    boards = KINDS[kind].boards
    plain = chip.lower().replace("-", "")
    if plain not in boards:
        raise ConfigError(
            f"no board of ours with a chip {chip} is a node of the kind {kind}: name one with --board, of "
            f"{', '.join(board_names())}"
        )
    return read_board(boards[plain])


def devices_of(kind: str, board: Board, asked: Collection[str]) -> list[str]:
    """Return the names of the devices that hang on the node: those asked for, else the usual ones of its kind.

    Raises ConfigError for a name that the board file has not.
    """
    names = list(asked) or [name for name in KINDS[kind].devices if name in board.devices]
    unknown = sorted(set(names) - set(board.devices))
    if unknown or not names:
        raise ConfigError(
            f"{board.name} has no device {', '.join(unknown) or 'of a ' + kind + ' node'}; "
            f"its board file has {', '.join(sorted(board.devices))}: name them with --device"
        )
    return names


def drivers_of(board: Board, devices: Collection[str]) -> list[str]:
    """Return the drivers that these devices need, each once."""
    return sorted({str(board.devices[name]["driver"]) for name in devices})


def new_id(
    kind: str, is_taken: Callable[[str], bool], choose: Callable[[str], str] = secrets.choice, tries: int = TRIES
) -> str:
    """Return an id that nobody has: it says the kind, and nothing of the chip. Raises ConfigError if none is found."""
    for _ in range(tries):
        name = f"{kind}-{''.join(choose(LETTERS) for _ in range(LETTERS_IN_ID))}"
        if not is_taken(name):
            return name
    raise ConfigError(f"no free id for a node of the kind {kind} was found: name one with --id")


def remembered_id(folder: Path, mac: str, site: str, events: Collection[Event]) -> str:
    """Return the id that this board was given for this site here, '' if none; a board that was wiped has none.

    So a second run after a pulled plug goes on with the identity that was begun.
    """
    try:
        found = json.loads(_place(folder, mac).read_text(encoding="utf-8"))
        node, at_ms = found["node"], found["at_ms"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if not isinstance(node, str) or not DEVICE_ID.fullmatch(node) or not isinstance(at_ms, int):
        return ""
    is_wiped = any(event.what == WIPED and event.node == node and event.at_ms >= at_ms for event in events)
    return "" if is_wiped or found.get("site") != site else node


def remember_id(folder: Path, mac: str, site: str, node: str, clock: Clock = wall_ms) -> None:
    """Keep which id this board is given, before its identity is made."""
    place = _place(folder, mac)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps({"node": node, "site": site, "at_ms": clock()}) + "\n", encoding="utf-8")
    part.replace(place)


def _place(folder: Path, mac: str) -> Path:
    return folder / SETUPS / f"{re.sub('[^0-9a-f]', '', mac.lower())}.json"
