"""Configuration files: TOML into frozen types, with every problem named at its place in the file.

Gateway and kiosk say what their tables are and what makes no sense; how a file is read, checked and complained
about is the same for all of them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from bega.settings import merge

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
NAME_RULE = "a name has up to 64 letters, digits, - and _ (it becomes part of a topic)"
LARGEST_PORT = 65_535
LONGEST_SHOWN = 60  # characters of a value in a message
SECRET_KEYS = ("settings",)  # tables that may hold a key: their values are never shown
WANTED = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list[str]: 'a list of texts, as ["a", "b"]',
    list[dict[str, Any]]: "a list of tables",
}

TOML_HINTS = {  # what the TOML reader's words mean most often
    "Invalid value": "; text stands in quotes",
    "Expected newline or end of document after a statement": "; text stands in quotes, and a line has one key",
    "Illegal character '\\n'": "; a text lacks the quote at its end",
}

Tables = dict[str, Any]
Problem = tuple[str, str]  # place in the file ("lines.pms.port"), what is wrong with it
Whole = TypeVar("Whole")
Kind = TypeVar("Kind", bound="Table")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a file."""


def examine(
    path: Path,
    assignments: Mapping[str, Any] | None,
    understand: Callable[[Tables], tuple[Whole, Iterable[Problem]]],
) -> tuple[Whole | None, list[str]]:
    """Return (configuration, []) or (None, problems as "file:line: place: what is wrong", in the order of the file).

    assignments: from --set, laid over the file's tables. understand: makes a configuration of the tables, with the
    problems in it; where there are any, what it made is not used.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of their encoding
        tables = merge(tomllib.loads(text), dict(assignments or {}))
    except OSError as error:
        return None, [f"{path}: cannot be read: {error.strerror}"]
    except UnicodeDecodeError as error:
        return None, [f"{path}: is no text in UTF-8: {error.reason} at byte {error.start}"]
    except (ValueError, RecursionError) as error:  # no TOML, a number of thousands of digits, a nest without end
        return None, [_no_toml(path, str(error))]
    whole, found = understand(tables)
    problems = list(found)
    if not problems:
        return whole, []
    told = [(_line_of(text, place), _on_one_line(f"{place}: {why}")) for place, why in problems]
    told.sort(key=lambda said: int(said[0].removeprefix(":") or 0))
    return None, [f"{path}{line}: {said}" for line, said in told]


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
        if not _fits(value, fields[key].type):
            yield f"{place}.{key}", _refusal(key, value, fields[key].type)
    for key, field in fields.items():
        if field.required and key not in table:
            yield f"{place}.{key}", "is missing"


def salvage(place: str, table: Any, kind: type[Kind]) -> tuple[Kind, set[str]]:
    """Return a `kind` of what is good in `table`, and the places where a stand-in is: a default, or nothing at all.

    A check of the whole goes on with it, and heeds nothing that it finds at those places.
    """
    given = table if isinstance(table, dict) else {}
    values: dict[str, Any] = {}
    stand_ins: set[str] = set() if isinstance(table, dict) else {place}
    for field in msgspec.structs.fields(kind):
        if field.name in given and _fits(given[field.name], field.type):
            values[field.name] = msgspec.convert(given[field.name], field.type)
        elif field.name in given or field.required:
            stand_ins.add(f"{place}.{field.name}")
            if field.required:
                values[field.name] = [] if get_origin(field.type) is list else ""
    return kind(**values), stand_ins


def is_within(place: str, above: Iterable[str]) -> bool:
    """Return whether `place` is one of those `above`, or in the table or list that stands there."""
    return any(place == one or place.startswith((f"{one}.", f"{one}[")) for one in above)


def shown(value: Any) -> str:
    """Return `value` as a message can bear it."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def is_address(text: str) -> bool:
    """Return whether `text` is host:port or [IPv6 address]:port."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > LARGEST_PORT:
        return False
    return bool(re.fullmatch(r"\[[0-9a-fA-F:.]+\]", host)) or _is_name(host)


def is_host(text: str) -> bool:
    """Return whether `text` is a host's name or address, without a port. Whether there is such a host is not asked."""
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return _is_name(text)


def _is_name(host: str) -> bool:
    # Parts of up to 63 characters with points between: others cannot be looked up (RFC 1123, section 2.1).
    return all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", part) for part in host.removesuffix(".").split("."))


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True


def _refusal(key: str, value: Any, kind: Any) -> str:
    """Return what is wrong with a value, in words for those who write no programs."""
    if isinstance(value, str) and Name in (kind, *get_args(kind)):
        return NAME_RULE
    why = f"must be {_wanted(kind)}"
    return why if key in SECRET_KEYS else f"{why}, not {shown(value)}"


def _wanted(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _wanted(arguments[0]) + _bounds(arguments[1])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (UnionType, Union):
        return _wanted(arguments[0])
    return WANTED.get(kind) or WANTED.get(origin, "something else")


def _bounds(rule: msgspec.Meta) -> str:
    if rule.gt is not None:
        return f" above {rule.gt}" + (f" and up to {rule.le}" if rule.le is not None else "")
    return f" from {rule.ge} to {rule.le}" if rule.ge is not None else ""


def _no_toml(path: Path, why: str) -> str:
    """Return the message of the TOML reader, its line where all our messages have it."""
    text, _, rest = why.partition(" (at line ")
    text += next((hint for start, hint in TOML_HINTS.items() if text.startswith(start)), "")
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
