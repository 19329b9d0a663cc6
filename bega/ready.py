"""How a process says that it is up: one JSON file, whole or not there at all."""

import json
from pathlib import Path
from typing import Any


def write_ready(path: Path | None, facts: dict[str, Any]) -> None:
    """Write `facts` to `path` in one step, so that whoever waits for the file never reads half of it; None: nothing."""
    if path is None:
        return
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    part.replace(path)
