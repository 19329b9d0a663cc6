"""`bega node build`: everything that a node runs, as the bytes of its file system."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from bega import __version__
from bega.devices import profile_names
from bega_firmware.board import VFS_START, Board, board_names, read_board
from bega_firmware.bytecode import VERSION, compile_source, compiler_version
from bega_firmware.contents import (
    ACTS,
    KEYS,
    NEVER_UPDATED,
    PROFILES,
    SLOT,
    SLOT_FACTS,
    STARTED_BY_NAME,
    WAYS,
    carried,
    node_devices,
    sources,
)
from bega_firmware.earlier import key_of, made_before
from bega_firmware.image import make_image
from bega_firmware.lean import Lean, lean
from bega_firmware.library import library_files, wanted_packages
from bega_firmware.pins import wiring_problems
from bega_firmware.shake import module_name
from bega_protocols.errors import ConfigError

PURPOSE = "compile what a node runs and make the image of its file system"
IMAGE, LIST, NAMES, FILES = "vfs.bin", "contents.json", "names.json", "files"
PART = f"{LIST}.part"
OWN = (LIST, PART, IMAGE, NAMES, FILES)
# Of a register map the node needs what its driver reads; these are for people.
DEVICES_WITH_PROFILES = ("modbus_meter",)
VERSION_FILE, VERSION_LINE = "/starts.py", re.compile(r"^VERSION = .*$", re.MULTILINE)
VERSION_FORM = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
KEY_BYTES = 384  # the modulus of an RSA key of 3072 bits

Progress = Callable[[int, int], None]  # (files done, files in all)


@dataclass(frozen=True)
class Built:
    """A node's file system."""

    board: Board
    devices: list[str]
    contents: dict[str, bytes]  # by path on the board
    image: bytes
    facts: dict[str, Any] = field(default_factory=dict)  # the list of contents
    made: Lean | None = None


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser("build", help=PURPOSE, description=PURPOSE)
    parser.add_argument("--board", required=True, metavar="BOARD", help=f"one of {', '.join(board_names())}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: build/node-BOARD)")
    parser.add_argument(
        "--device", action="append", default=[], metavar="NAME", help="a driver to take along (default: all it can run)"
    )
    parser.add_argument(
        "--way", action="append", choices=WAYS, help="a way out that it may be configured for (default: all of them)"
    )
    parser.add_argument(
        "--actions", action="store_true", help="drivers' actions too: calibration, self test (1 kB of heap and more)"
    )
    parser.add_argument(
        "--micropython-lib", type=Path, metavar="DIR", help="a copy of micropython-lib, to take its packages from"
    )
    parser.add_argument(
        "--version", default=__version__, metavar="X.Y.Z", help=f"what it calls itself (default: {__version__})"
    )
    parser.add_argument(
        "--update-key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="public key of its updates, one or two (default: none, and it takes no updates)",
    )
    parser.add_argument(
        "--reuse", type=Path, metavar="DIR", help="keep builds there, and take one of the same sources from there"
    )
    parser.add_argument("--json", action="store_true", help="print the list of contents instead of the table")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Build, write, and say what came out; 1 after a sentence if it cannot be."""
    folder = args.out or Path("build") / f"node-{args.board}"
    require_own(folder)
    progress = show_progress if sys.stderr.isatty() else None
    board, devices, ways = read_board(args.board), args.device or node_devices(), args.way or WAYS
    keys = b""
    if args.update_key:
        from bega.update_keys import moduli

        keys = moduli(args.update_key)

    def make(place: Path) -> None:
        built = build(
            board,
            devices,
            ways,
            args.micropython_lib,
            progress,
            actions=args.actions,
            version=args.version,
            keys=keys,
        )
        write(built, place)

    if args.reuse is None or args.micropython_lib is not None:
        make(folder)
    else:
        parts = [*ways, args.version, keys.hex(), *([ACTS] if args.actions else [])]
        made = made_before(args.reuse, key_of(board.key, devices, parts, compiler_version()), make)
        clear(folder)
        shutil.copytree(made, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LIST))
        shutil.copy(made / LIST, folder / LIST)  # last: then the rest is whole
    facts = json.loads((folder / LIST).read_text(encoding="utf-8"))
    print(json.dumps(facts) if args.json else table(facts, folder))
    return 0


def build(
    board: Board,
    devices: list[str],
    ways: Collection[str] = WAYS,
    micropython_lib: Path | None = None,
    progress: Progress | None = None,
    *,
    actions: bool = False,
    version: str = __version__,
    keys: bytes = b"",
) -> Built:
    """Return the file system of a node on `board` with drivers for `devices` and these ways out.

    micropython_lib: a copy of it, to take along what our manifest names; actions: those of the drivers come along;
    keys: by which its next version may be signed, the modulus of one after the other. Raises ConfigError.
    """
    problems = wiring_problems(board)
    if problems:
        raise ConfigError("\n".join([f"{board.path}:", *problems]))
    if not VERSION_FORM.fullmatch(version):
        raise ConfigError(f"the version is {version!r}: write it as 1.2.3")
    if len(keys) % KEY_BYTES:
        raise ConfigError(f"the keys are {len(keys)} bytes: each of them is {KEY_BYTES}")
    devices = carried(board, devices)
    theirs = library_files(micropython_lib) if micropython_lib is not None else {}
    found = {source.target: source.path for source in sources(board, devices, ways, actions)} | theirs
    texts = {target: path.read_text(encoding="utf-8") for target, path in found.items()}
    texts[VERSION_FILE] = VERSION_LINE.sub(f'VERSION = "{version}"', texts[VERSION_FILE])
    in_slot = frozen_profiles() if set(devices) & set(DEVICES_WITH_PROFILES) else {}
    made = lean(texts, theirs, in_slot)
    contents = {}
    for done, target in enumerate(sorted(made.texts)):
        if progress is not None:
            progress(done, len(made.texts))
        if target == f"/{STARTED_BY_NAME}":
            contents[target] = made.texts[target].encode()
        else:
            place = contents if target in NEVER_UPDATED else in_slot
            place[target.removesuffix(".py") + ".mpy"] = compile_source(made.texts[target], module_name(target))
    if keys:
        in_slot[KEYS] = keys
    in_slot[SLOT_FACTS] = slot_facts(board, devices, ways, version, in_slot)
    contents |= {SLOT + path: content for path, content in in_slot.items()}
    image = make_image(contents, board.vfs_bytes)
    taken = wanted_packages() if micropython_lib is not None else {}
    facts = {"firmware": version, **_facts(board, devices, ways, taken, contents, image)}
    return Built(board, devices, contents, image, facts, made)


def slot_files(built: Built) -> dict[str, bytes]:
    """Return what lies in the slot, by its path there ("app.mpy"): what an update brings."""
    return {
        path.removeprefix(f"{SLOT}/"): content
        for path, content in built.contents.items()
        if path.startswith(f"{SLOT}/")
    }


def slot_facts(
    board: Board, devices: list[str], ways: Collection[str], version: str, in_slot: Mapping[str, bytes]
) -> bytes:
    """Return what the node is told of an application: which it is, and the hash of each of its files."""
    facts = {
        "version": version,
        "hardware": board.key,
        "mpy": VERSION,
        "devices": devices,
        "ways": sorted(ways),
        "files": {path[1:]: _sha256(in_slot[path]) for path in sorted(in_slot)},
    }
    return json.dumps(facts, separators=(",", ":")).encode()


def frozen_profiles() -> dict[str, bytes]:
    """Return the register maps as JSON: a node reads no TOML."""
    found = {}
    for name in profile_names():
        text = files("bega_protocols").joinpath("profiles", f"{name}.toml").read_text(encoding="utf-8")
        found[f"{PROFILES}/{name}.json"] = json.dumps(tomllib.loads(text), separators=(",", ":")).encode()
    return found


def require_own(folder: Path) -> None:
    """Raise ConfigError if `folder` holds what no build of ours made: it would be mixed with it."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder with --out")
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {*OWN}:
        raise ConfigError(f"{folder} is not empty, and not only an earlier build is in it: name another with --out")


def clear(folder: Path) -> None:
    """Take an earlier build away, its list first: without it the rest counts for nothing."""
    for name in OWN:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def names(built: Built) -> dict[str, Any]:
    """Return by the name that a traceback gives a file: what its short names stand for, and whose lines it has."""
    if built.made is None:
        return {}
    short, pieces = built.made.names, built.made.pieces
    return {module_name(path): {"names": short[path], "lines": pieces[path]} for path in short}


def write(built: Built, folder: Path) -> None:
    """Write image, list and files into `folder` in place of an earlier build, the list last: then the rest is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    for path, content in built.contents.items():
        place = folder / FILES / path.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (folder / IMAGE).write_bytes(built.image)
    (folder / NAMES).write_text(json.dumps(names(built), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / PART).write_text(json.dumps(built.facts, indent=1) + "\n", encoding="utf-8")
    (folder / PART).replace(folder / LIST)


def table(facts: dict[str, Any], folder: Path) -> str:
    """Return what came out, in a table with one row a folder on the board."""
    rows: dict[str, list[int]] = {}
    for file in facts["files"]:
        rows.setdefault(file["path"].rpartition("/")[0] or "/", []).append(file["bytes"])
    lines = [f"{place:44}{len(sizes):4} files{sum(sizes):9,} bytes" for place, sizes in sorted(rows.items())]
    total = sum(file["bytes"] for file in facts["files"])
    lines.append(f"{'in all':44}{len(facts['files']):4} files{total:9,} bytes")
    image = facts["image"]
    lines.append(f"{folder / IMAGE}: {image['bytes'] >> 10} kB for {facts['name']}, at 0x{image['at']:x} of its flash")
    if not facts["micropython_lib"]:
        missing = ", ".join(f"{package} {version}" for package, version in wanted_packages().items())
        lines.append(f"without {missing}, which no driver here needs: --micropython-lib DIR takes it from a local copy")
    return "\n".join([*lines, f"sha256 {image['sha256']}"])


def show_progress(done: int, whole: int) -> None:
    """Draw how far the compiling is, on a terminal."""
    print(f"\rcompiling {done + 1} of {whole}", end="\n" if done + 1 == whole else "", file=sys.stderr, flush=True)


def _facts(
    board: Board,
    devices: list[str],
    ways: Collection[str],
    taken: dict[str, str],
    contents: dict[str, bytes],
    image: bytes,
) -> dict[str, Any]:
    return {
        "board": board.key,
        "name": board.name,
        "chip": board.chip,
        "flash_mb": board.flash_mb,
        "devices": devices,
        "ways": sorted(ways),
        "micropython_lib": taken,
        "mpy": VERSION,
        "compiler": compiler_version(),
        "image": {"file": IMAGE, "at": VFS_START, "bytes": len(image), "sha256": _sha256(image)},
        "files": [
            {"path": path, "bytes": len(contents[path]), "sha256": _sha256(contents[path])} for path in sorted(contents)
        ],
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
