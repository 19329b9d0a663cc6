"""A recorded line: what its devices said and were asked, as JSON, one object a line.

    {"bega_record": 1, "line": "cellar", "kind": "modbus-rtu", "from_ms": 1790000000000, "devices": {"cellar-1": ...}}
    {"t_ms": 12, "device": "cellar-1", "out": "01040000003471dd"}
    {"t_ms": 90, "device": "cellar-1", "in": "010468..."}
    {"end": "time", "rows": 2, "lost": 0}

The head says when the recording began (Unix ms) and, by device, its driver, its settings and who may see it; keys are
left out, and `without` names them. Each row is one chunk as the driver's `feed` takes it: bytes of a serial port, an
advertisement's structures, a whole question or answer with unit and CRC where it is Modbus. The last row says why the
recording ended, and how many rows it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bega.devices import with_profile
from bega_gateway import config as settings
from bega_protocols.errors import ConfigError

VERSION = 1
SECRET = re.compile(r"key|password|secret|token", re.IGNORECASE)
WAYS = ("in", "out")
LONGEST_ROW = 300_000  # an answer has up to 64 KiB, two letters a byte
LATEST_MS = 253_402_300_799_999  # the last moment of the year 9999: no calendar goes on
LONGEST_HEAD = 4_000_000  # up to 247 devices, each with a register map of one's own


class Row(NamedTuple):
    """One chunk."""

    t_ms: int  # since the head's `from_ms`
    device: str
    way: str  # "in": the device said it; "out": it was asked
    octets: bytes


class Recorded(NamedTuple):
    """A file that was read: what is whole of it, and what is not."""

    head: dict[str, Any]
    rows: list[Row]
    damage: list[str]  # each with its place, as "cellar.jsonl:12: no hex text"


def head_of(config: settings.Config, line: str, from_ms: int) -> dict[str, Any]:
    """Return the head of a recording of `line` that begins at `from_ms`; raises ConfigError if there is none."""
    if line not in config.lines:
        raise ConfigError(f"there is no line {line!r}; the configuration has {', '.join(config.lines) or 'none'}")
    devices = {name: device for name, device in config.devices.items() if device.line == line}
    if not devices:
        raise ConfigError(f"no device is read on {line}: there is nothing to record")
    kind = next(kind for kind, table in settings.LINES.items() if isinstance(config.lines[line], table))
    told = {name: _told(device) for name, device in devices.items()}
    return {"bega_record": VERSION, "line": line, "kind": kind, "from_ms": from_ms, "devices": told}


def row_text(row: Row) -> str:
    """Return a row as it stands in the file."""
    return json.dumps({"t_ms": row.t_ms, "device": row.device, row.way: row.octets.hex()})


def end_text(why: str, rows: int, lost: int) -> str:
    """Return the last row: why the recording ended, how many rows it has, how many nobody had time to write."""
    return json.dumps({"end": why, "rows": rows, "lost": lost})


def is_personal(head: dict[str, Any]) -> bool:
    """Return whether the recording holds what a household's device says."""
    return any(device.get("audience") == "personal" for device in head["devices"].values())


def read(path: Path) -> Recorded:
    """Return what is whole of a recording, and each thing that is not, with its line; raises ConfigError if no head."""
    damage: list[str] = []
    rows: list[Row] = []
    ended = False
    try:
        with path.open("rb") as file:
            head = _head(path, file.readline(LONGEST_HEAD))
            for number, text in enumerate(_lines(file), start=2):
                try:
                    row = _row(text, head)
                except ValueError as error:
                    damage.append(f"{path}:{number}: {error}")
                    continue
                if ended:
                    damage.append(f"{path}:{number}: stands behind the end: the file was put together")
                elif isinstance(row, Row):
                    rows.append(row)
                else:
                    ended = True
                    if row != len(rows):
                        damage.append(f"{path}:{number}: {row} rows were recorded, and {len(rows)} are here")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    if not ended:
        damage.append(f"{path}: its last line is missing: the file was cut off, or its recording is not over")
    return Recorded(head, rows, damage)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield each line, of one that is longer than any row the beginning alone."""
    while text := file.readline(LONGEST_ROW + 1):
        yield text
        while not text.endswith(b"\n") and text:
            text = file.readline(LONGEST_ROW)


def _head(path: Path, text: bytes) -> dict[str, Any]:
    try:
        head = json.loads(text)
        version = head["bega_record"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{path}:1: this is no recording of `bega gateway record`") from None
    if version != VERSION:
        raise ConfigError(f"{path}:1: recorded in the form {version!r}; this release knows {VERSION}")
    devices = head.get("devices")
    if not (
        isinstance(head.get("line"), str)
        and isinstance(head.get("kind"), str)
        and _is_time(head.get("from_ms"))
        and isinstance(devices, dict)
        and all(
            isinstance(device, dict)
            and isinstance(device.get("driver"), str)
            and isinstance(device.get("settings"), dict)
            and isinstance(without := device.get("without", []), list)
            and all(isinstance(key, str) for key in without)
            for device in devices.values()
        )
    ):
        raise ConfigError(f"{path}:1: the head must have line, kind, from_ms, and driver and settings of each device")
    return dict(head)


def _row(text: bytes, head: dict[str, Any]) -> Row | int:
    """Return a row, or of the last one the number of rows before it; raises ValueError that says what is wrong."""
    if len(text) > LONGEST_ROW:
        raise ValueError(f"is longer than any row ({LONGEST_ROW} bytes)")
    if not text.endswith(b"\n"):
        raise ValueError("is cut off")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("is no row")
    if "end" in fields:
        if type(fields.get("rows")) is not int:
            raise ValueError("the last row must have `rows`")
        return int(fields["rows"])
    ways = [way for way in WAYS if way in fields]
    if not _is_time(fields.get("t_ms"), head["from_ms"]) or len(ways) != 1 or not isinstance(fields[ways[0]], str):
        raise ValueError('a row is {"t_ms": N, "device": NAME, "in" or "out": HEX}')
    device = str(fields.get("device"))
    if device not in head["devices"]:
        raise ValueError(f"the head has no device {device!r}")
    try:
        octets = bytes.fromhex(fields[ways[0]])
    except ValueError:
        raise ValueError("no hex text") from None
    return Row(fields["t_ms"], device, ways[0], octets)


def _is_time(value: Any, after_ms: int = 0) -> bool:
    """Return whether `value` is a number of ms that, counted from `after_ms` on, is a moment of the calendar."""
    return type(value) is int and 0 <= value <= LATEST_MS - after_ms


def _told(device: settings.Device) -> dict[str, Any]:
    without = [key for key in device.settings if SECRET.search(key)]
    told = {key: _short(key, value) for key, value in device.settings.items() if key not in without}
    facts: dict[str, Any] = {"driver": device.driver, "settings": told, "audience": device.audience}
    return facts | ({"without": without} if without else {})


def _short(key: str, value: Any) -> Any:
    """Return the name of a register map that Bega brings in its place; another one stays whole."""
    if key == "profile" and isinstance(value, dict) and isinstance(name := value.get("part"), str):
        try:
            return name if with_profile({key: name})[key] == value else value
        except ConfigError:
            return value
    return value
