"""`key=value` on a command line: the same words and the same rules wherever Bega takes `--set`."""

import contextlib
import json
import re
from typing import Any

from bega_protocols.errors import ConfigError


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Return nested tables: ["lines.pms.port=/dev/ttyS0", "address=1"] gives {"lines": {"pms": ...}, "address": 1}.

    A value of up to nine digits is a number, with or without decimals; true and false are what they say, ["a", "b"]
    is a list and "12" a text as JSON writes them, all else is text.
    Raises ConfigError if an assignment has no "=" or runs through a value that is not a table.
    """
    tables: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {assignment}: write it as key=value")
        *parents, key = path.split(".")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment}: {parent} already holds a value")
        if isinstance(table.get(key), dict):
            raise ConfigError(f"--set {assignment}: {key} already holds a table")
        table[key] = _value(text)
    return tables


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` laid over it, table by table; neither argument changes."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _value(text: str) -> Any:
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        return int(text)
    if re.fullmatch(r"-?[0-9]{1,9}\.[0-9]{1,9}", text):
        return float(text)
    if text.startswith(("[", '"')):  # [::1]:80 too
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return {"true": True, "false": False}.get(text, text)
