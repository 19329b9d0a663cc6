"""`bega node interpreter`: which interpreters' images a technician trusts.

Nothing is downloaded, and a hash that no list names proves nothing: an image is taken if Bega's own list has it or if
the technician has added it on purpose, who took it from where MicroPython publishes it. Its copy then lies in the data
folder, named by its hash, and `flash` finds it by the chip.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from bega_firmware.data_folder import data_folder
from bega_firmware.interpreter_image import LARGEST_BYTES, Interpreter, read_interpreter, require_supported
from bega_protocols.errors import ConfigError

PURPOSE = "say which interpreters' images may be flashed"
EXAMPLES = """examples:
  bega node interpreter add ESP32_GENERIC-20260406-v1.28.0.bin
  bega node interpreter list"""
OWN, LIST = "interpreters", "interpreters.toml"


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "interpreter",
        help=PURPOSE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="trust this image from now on: you took it from micropython.org yourself")
    add.add_argument("file", type=Path, metavar="FILE")
    listing = actions.add_parser("list", help="print the images that were added")
    listing.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Add an image, or list them; raises ConfigError."""
    if args.action == "add":
        print(f"from now on trusted: {add(args.file).name}, kept in {data_folder() / OWN}")
        return 0
    for path, interpreter in added():
        facts = {"chip": interpreter.chip, "version": interpreter.text, "sha256": interpreter.sha256, "file": str(path)}
        print(json.dumps(facts) if args.json else f"{interpreter.name}  {interpreter.sha256[:16]}  {path}")
    return 0


def add(path: Path) -> Interpreter:
    """Keep a copy of an image that proves whole and new enough, and trust it. Raises ConfigError."""
    content = _content(path)
    interpreter = _checked(path, content)
    folder = data_folder() / OWN
    folder.mkdir(exist_ok=True)
    place = folder / f"{interpreter.chip}-{interpreter.text}-{interpreter.sha256[:16]}.bin"
    part = place.with_suffix(".part")
    part.write_bytes(content)
    part.replace(place)
    return interpreter


def added() -> list[tuple[Path, Interpreter]]:
    """Return the images in the data folder, the newest version first; those that rotted there are passed over."""
    found = []
    for path in (data_folder() / OWN).glob("*.bin"):
        try:
            interpreter = read_interpreter(_content(path))
        except ConfigError:
            continue
        if path.stem.endswith(interpreter.sha256[:16]):
            found.append((path, interpreter))
    return sorted(found, key=lambda row: (row[1].chip, row[1].version, row[1].text), reverse=True)


def kept_for(chip: str) -> Path:
    """Return the newest image for `chip` that was added. Raises ConfigError if there is none."""
    for path, interpreter in added():
        if interpreter.chip == chip:
            return path
    raise ConfigError(
        f"an {chip} needs an interpreter: take the image (.bin) for it from micropython.org/download, once, and add it"
        " with `bega node interpreter add FILE`, or name it with --firmware FILE"
    )


def trusted(path: Path) -> Interpreter:
    """Return what the image at `path` is. Raises ConfigError if it is none, too old, or nobody vouches for it."""
    content = _content(path)
    sha256 = hashlib.sha256(content).hexdigest()
    listed = _listed().get(sha256, {})
    if because := listed.get("because"):
        raise ConfigError(f"{path} is {listed['name']}: {because}; take a newer one from micropython.org/download")
    interpreter = _checked(path, content)
    if listed or any(own.sha256 == sha256 for _, own in added()):
        return interpreter
    raise ConfigError(
        f"{path} is {interpreter.name} by its own words, and on no list: Bega cannot know offline what MicroPython"
        f" published. If you took it from micropython.org yourself, say so once: `bega node interpreter add {path}`"
    )


def _checked(path: Path, content: bytes) -> Interpreter:
    try:
        interpreter = read_interpreter(content)
        require_supported(interpreter)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return interpreter


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the interpreter's image {path} cannot be read ({error.strerror})") from None


def _listed() -> dict[str, dict[str, str]]:
    """Return Bega's own list, by the hash."""
    text = files("bega_firmware").joinpath(LIST).read_text(encoding="utf-8")
    return {row["sha256"]: row for row in tomllib.loads(text)["interpreter"]}
