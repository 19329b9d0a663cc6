"""What a node carries: its application, and of the protocols and drivers what that imports, found by reading it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bega.devices import device_names, driver_class, wire_of
from bega_firmware.board import Board, firmware_folder
from bega_protocols.errors import ConfigError

WAYS = ("broker", "uplink", "beacon")  # out of a node, each a module of firmware/node (WAYS in its config.py)
# Modules by which a node that hears its gateway is updated.
UPDATED = ("install", "offer", "pull", "slot", "trial", "updates")
BEACON, STORES = "beacon", "app"  # applications (firmware/node/begin.py): the one of this way, and that of all others
COUNTER = "pulses"  # the kind of bus that needs the module of this name, and the word for a driver on it
ACTS = "acts"  # the module by which drivers' actions are done; without it the build leaves these out too
NEEDED_FOR = {"meter_bus": {"modbus", "mbus"}, "profiles": {"modbus"}}  # modules, by the drivers' lines that need them
PROTOCOLS = "bega_protocols"
STARTED_BY_NAME = "main.py"  # MicroPython runs this file after a reset, and only as source
NEVER_UPDATED = ("/main.py", "/pick.py")  # they lie outside the slots
PROFILES = "/lib/profiles"
SLOT = "/a"  # where a build puts the application; an update puts the next one into /b, and so on by turns
SLOT_FACTS, KEYS = "/facts.json", "/keys"  # in a slot: what it is, and by whom its next version must be signed


@dataclass(frozen=True)
class Source:
    """One file here, and where it goes on the board."""

    path: Path
    target: str  # "/app.py": as source, in its slot; the build changes the ending of what it compiles


def node_devices() -> list[str]:
    """Return the names of all devices that a node can have on its wires."""
    wires = node_wires()
    return [name for name in device_names() if wire_of(driver_class(name)) in wires]


def carried(board: Board, devices: Collection[str]) -> list[str]:
    """Return what the configuration of a node so built may name as drivers: the word for a contact is no driver.

    Nodes hold this list of an update against what they need.
    """
    return sorted({*devices, COUNTER} if _has_contacts(board) else set(devices))


def _has_contacts(board: Board) -> bool:
    return any(bus.get("kind") == COUNTER for bus in board.buses.values())


def _wires_of(devices: Collection[str]) -> set[str]:
    return {wire_of(driver_class(device)) for device in devices}


def node_wires() -> set[str]:
    """Return the kinds of line that the node's own wires.py knows: the keys of its KINDS."""
    for statement in ast.parse((firmware_folder("node") / "wires.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "KINDS":
            assert isinstance(statement.value, ast.Dict)
            return {str(key.value) for key in statement.value.keys if isinstance(key, ast.Constant)}
    raise ConfigError("firmware/node/wires.py has no KINDS")


def sources(board: Board, devices: list[str], ways: Collection[str] = WAYS, actions: bool = False) -> list[Source]:
    """Return the Python files of a node on `board` with drivers for `devices`, sorted by their place on it.

    ways: those out of the node that it can be configured for; actions: whether its devices can be told what their
    drivers' actions do. Raises ConfigError if a device is none for a node.
    """
    if _has_contacts(board):
        devices = [device for device in devices if device != COUNTER]
    unknown = sorted(set(devices) - set(node_devices()))
    if unknown:
        raise ConfigError(f"a node has no device {', '.join(unknown)}; it can have {', '.join(node_devices())}")
    left_out = set(WAYS) - set(ways)
    if set(ways) == {BEACON}:
        left_out |= {STORES, *UPDATED}
    if not _has_contacts(board):
        left_out.add(COUNTER)
    left_out |= {module for module, wires in NEEDED_FOR.items() if not wires & _wires_of(devices)}
    if not actions:
        left_out.add(ACTS)
    found = {f"/{path.name}": path for path in firmware_folder("node").glob("*.py") if path.stem not in left_out}
    found["/board.py"] = board.path
    wanted = [f"{PROTOCOLS}.devices.{device}.driver" for device in devices]
    wanted += [module for path in found.values() for module in imported(path)]
    for path in _closure(wanted):
        found[f"/lib/{PROTOCOLS}/{path.relative_to(_protocols()).as_posix()}"] = path
    return [Source(found[target], target) for target in sorted(found)]


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of protocols that a file names: in an import that runs, or in a text ("bega_protocols.ring").

    What stands under TYPE_CHECKING is for the type checker: the build leaves it out.
    """
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and _is_ours(node.module or ""):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_ours(node.value):
            yield node.value


def _closure(modules: list[str]) -> set[Path]:
    """Return the files of `modules`, of the packages that hold them, and of all that these import in turn."""
    found: set[Path] = set()
    pending = set(modules)
    while pending:
        module = pending.pop()
        parent = module.rpartition(".")[0]
        for path in (_file_of(module), _file_of(parent) if parent else None):
            if path is not None and path not in found:
                found.add(path)
                pending |= {parent, *imported(path)} - {""}
    return found


def _file_of(module: str) -> Path | None:
    """Return the file behind a name; None for a name in a module, or a text that only looks like one."""
    place = _protocols().joinpath(*module.split(".")[1:])
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == PROTOCOLS and all(part.isidentifier() for part in module.split("."))


def _protocols() -> Path:
    return Path(str(files(PROTOCOLS)))
