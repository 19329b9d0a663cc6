"""Configuration files: TOML into frozen types, with every problem named at its place in the file.

Gateway and kiosk say what their tables are and what makes no sense; how a file is read, checked and complained
about is the same for all of them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from bega.settings import merge

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
NAME_RULE = "a name has up to 64 letters, digits, - and _ (it becomes part of a topic)"
LARGEST_PORT = 65_535
LONGEST_SHOWN = 60  # characters of a value in a message
SECRET_KEYS = ("settings",)  # tables that may hold a key: their values are never shown

Tables = dict[str, Any]
Problem = tuple[str, str]  # place in the file ("lines.pms.port"), what is wrong with it
Whole = TypeVar("Whole")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a file."""


def examine(
    path: Path,
    assignments: Mapping[str, Any] | None,
    shape_problems: Callable[[Tables], Iterable[Problem]],
    convert: Callable[[Tables], Whole],
    sense_problems: Callable[[Whole], Iterable[Problem]],
) -> tuple[Whole | None, list[str]]:
    """Return (configuration, []) or (None, every problem, one a line, as "file:line: place: what is wrong").

    assignments: from --set, laid over the file's tables. shape_problems: what the tables alone show; where there are
    none, `convert` makes the whole of them, and sense_problems says what only the whole can show.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tables = merge(tomllib.loads(text), dict(assignments or {}))
    except OSError as error:
        return None, [f"{path}: cannot be read: {error.strerror}"]
    except UnicodeDecodeError as error:
        return None, [f"{path}: is no text in UTF-8: {error.reason} at byte {error.start}"]
    except (ValueError, RecursionError) as error:  # no TOML, a number of thousands of digits, a nest without end
        return None, [_no_toml(path, str(error))]
    problems = list(shape_problems(tables))
    if not problems:
        whole = convert(tables)
        problems = list(sense_problems(whole))
        if not problems:
            return whole, []
    return None, [f"{path}{_line_of(text, place)}: {_on_one_line(f'{place}: {why}')}" for place, why in problems]


def table_problems(place: str, table: Any, kind: type[Table]) -> Iterator[Problem]:
    """Yield what keeps `table` from becoming a `kind`: unknown, missing and impossible keys, all of them."""
    if not isinstance(table, dict):
        yield place, "must be a table"
        return
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in fields:
            yield f"{place}.{key}", f"unknown key; known are {', '.join(fields)}"
            continue
        try:
            msgspec.convert(value, fields[key].type)
        except (msgspec.ValidationError, OverflowError) as error:
            why = NAME_RULE if "regex" in str(error) else str(error)
            yield f"{place}.{key}", why if key in SECRET_KEYS else f"{why}, not {shown(value)}"
    for key, field in fields.items():
        if field.required and key not in table:
            yield f"{place}.{key}", "is missing"


def shown(value: Any) -> str:
    """Return `value` as a message can bear it."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def is_address(text: str) -> bool:
    """Return whether `text` is host:port or [IPv6 address]:port."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > LARGEST_PORT:
        return False
    if re.fullmatch(r"\[[0-9a-fA-F:.]+\]", host):
        return True
    # Parts of up to 63 characters with points between: others cannot be looked up (RFC 1123, section 2.1).
    return all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part) for part in host.removesuffix(".").split("."))


def _no_toml(path: Path, why: str) -> str:
    """Return the message of the TOML reader, its line where all our messages have it."""
    text, _, rest = why.partition(" (at line ")
    line = rest.partition(",")[0]
    return f"{path}:{line}: no TOML: {text}" if line else f"{path}: no TOML: {why}"


def _on_one_line(text: str) -> str:
    """Return `text` with what a terminal or a log would stumble over written as an escape."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _line_of(text: str, place: str) -> str:
    """Return ":12" where the file names `place`, as near as a search can tell; '' for what --set gave."""
    if row := re.match(r"([\w.-]+)\[(\d+)\]", place):  # [[devices.boiler.tags]] stands once for each row
        header = re.compile(r"\s*\[\[\s*" + re.escape(row[1]) + r"\s*\]\]")
        numbers = [number for number, line in enumerate(text.splitlines(), start=1) if header.match(line)]
        if int(row[2]) < len(numbers):
            return f":{numbers[int(row[2])]}"
    parts = re.sub(r"\[\d+\]", "", place).split(".")
    lines = text.splitlines()
    for size in range(len(parts), 0, -1):
        header = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(map(re.escape, parts[:size])) + r"\s*[\].]")
        start = next((number for number, line in enumerate(lines) if header.match(line)), None)
        if start is None:
            continue
        for number in range(start + 1, len(lines)):
            if size == len(parts) or lines[number].lstrip().startswith("["):
                break
            if re.match(rf"\s*{re.escape(parts[size])}\s*=", lines[number]):
                return f":{number + 1}"
        return f":{start + 1}"
    return ""
