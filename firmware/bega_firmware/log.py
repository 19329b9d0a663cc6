"""`bega node log`: what a node says on its console, with the time, and with our names in its tracebacks."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bega.clock import Clock, wall_ms
from bega_firmware.build import NAMES
from bega_firmware.cable import Cable
from bega_protocols.errors import ConfigError

PURPOSE = "print what a node says, line by line; its program goes on"
EXAMPLES = """examples:
  bega node log --port /dev/ttyUSB0
  bega node log --port /dev/ttyUSB0 --for 60 --names build/pole
  bega node log --port /dev/ttyUSB0 --restart --for 20

A node is built with short names. --names says what they stand for: a build's folder, or its names.json."""
FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<name>\S+))?')

Names = Mapping[str, Mapping[str, Any]]


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "log", help=PURPOSE, description=PURPOSE, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", required=True, metavar="P", help="/dev/ttyUSB0, socket:// or rfc2217://HOST:PORT")
    parser.add_argument("--for", dest="for_s", type=float, metavar="S", help="how many seconds (default: until Ctrl-C)")
    parser.add_argument("--names", type=Path, metavar="DIR", help="the build that runs on it")
    parser.add_argument("--restart", action="store_true", help="reset the node first, to see it start")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace, clock: Clock = wall_ms) -> int:
    """Print until the time is over, or Ctrl-C."""
    names = read_names(args.names) if args.names else {}
    with Cable(args.port) as cable:
        if args.restart:
            cable.restart()
        for line in cable.lines(args.for_s):
            at_ms, said = clock(), line + in_source(line, names)
            if args.json:
                print(json.dumps({"at_ms": at_ms, "said": said}), flush=True)
            else:
                moment = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
                print(f"{moment:%H:%M:%S}.{at_ms % 1000:03} {_printable(said)}", flush=True)
    return 0


def read_names(path: Path) -> Names:
    """Return what a build's short names stand for. Raises ConfigError."""
    path = path / NAMES if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all({"names", "lines"} <= set(row) for row in found.values()):
            return found
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        pass
    raise ConfigError(f"{path} is no {NAMES} of `bega node build`")


def in_source(line: str, names: Names) -> str:
    """Return " = link.py:42, in send" for a line of a traceback, "" for any other."""
    frame = FRAME.fullmatch(line)
    if frame is None:
        return ""
    module = frame["file"].removeprefix("/").removesuffix(".py").removesuffix(".mpy").replace("/", ".")
    facts = names.get(module.removeprefix("a.").removeprefix("b.").removeprefix("lib."))
    if facts is None:
        return ""
    number, place = int(frame["line"]), None
    for first, path, begins in facts["lines"]:
        if first <= number:
            place = f"{path.removeprefix('/')}:{number - first + begins}"
    name = facts["names"].get(frame["name"], frame["name"])
    return f"  = {place}, in {name}" if place and name else ""


def _printable(text: str) -> str:
    """Return `text` without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
