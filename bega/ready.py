"""How a process says that it is up: one JSON file, whole or not there at all."""

import json
from pathlib import Path
from typing import Any

from bega_protocols.errors import ConfigError


def require_place(path: Path | None) -> None:
    """Raise ConfigError if no ready file could be written there: asked before anything starts; None: nothing is."""
    if path is None:
        return
    try:
        _part(path).touch()
        _part(path).unlink()
    except OSError as error:
        raise ConfigError(f"--ready-file {path} cannot be written ({error.strerror})") from None


def write_ready(path: Path | None, facts: dict[str, Any]) -> None:
    """Write `facts` to `path` in one step, so that whoever waits for the file never reads half of it; None: nothing."""
    if path is None:
        return
    _part(path).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    _part(path).replace(path)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
