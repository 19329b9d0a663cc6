"""Packages of micropython-lib that firmware/manifest.py names, taken from a local copy; nothing is fetched.

A manifest is MicroPython's own format (docs: "MicroPython manifest files"). It
is read here, not run: only calls with plain values, as packages use them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bega_firmware.board import firmware_folder
from bega_protocols.errors import ConfigError

MANIFEST = "manifest.py"
LIBRARIES = ("micropython", "python-stdlib", "python-ecosys", "unix-ffi")  # folders of micropython-lib
DEEPEST = 20  # packages that require one another


@dataclass(frozen=True)
class Call:
    """One line of a manifest: require("aioble", version="0.6.0")."""

    name: str
    words: tuple[Any, ...]
    options: dict[str, Any]


def wanted_packages() -> dict[str, str]:
    """Return {package: version} of what our own manifest requires."""
    return {
        call.words[0]: str(call.options.get("version", ""))
        for call in _calls(firmware_folder(MANIFEST))
        if call.name == "require"
    }


def library_files(copy: Path) -> dict[str, Path]:
    """Return {path on the board: file here} of all that our manifest requires.

    Raises ConfigError, naming it, if `copy` lacks a package or has it in another version.
    """
    if not copy.is_dir():
        raise ConfigError(f"--micropython-lib {copy} is no folder: name a copy of micropython-lib")
    found: dict[str, Path] = {}
    for package, version in wanted_packages().items():
        manifest = _manifest_of(copy, package)
        has = next((call.options.get("version") for call in _calls(manifest) if call.name == "metadata"), None)
        if has != version:
            raise ConfigError(f"{manifest.parent} is version {has}, and {version} is wanted")
        found |= _files(copy, manifest, DEEPEST)
    return found


def _files(copy: Path, manifest: Path, deeper: int) -> dict[str, Path]:
    if deeper == 0:
        raise ConfigError(f"{manifest}: packages require one another without end")
    found: dict[str, Path] = {}
    for call in _calls(manifest):
        if call.name == "require":
            found |= _files(copy, _manifest_of(copy, call.words[0]), deeper - 1)
        elif call.name in ("module", "package"):
            for path, target in _named(manifest, call):
                if copy.resolve() not in path.resolve().parents or not path.is_file():
                    raise ConfigError(f"{manifest}: {path} is not in this copy of micropython-lib")
                found[f"/lib/{target}"] = path
    return found


def _named(manifest: Path, call: Call) -> Iterator[tuple[Path, str]]:
    """Yield (file, its path under /lib) of a module or package call."""
    folder = manifest.parent / call.options.get("base_path", ".")
    name = call.words[0]
    if call.name == "module":
        yield folder / name, name
        return
    names = call.options.get("files") or sorted(
        path.relative_to(folder / name).as_posix() for path in (folder / name).rglob("*.py")
    )
    yield from ((folder / name / file, f"{name}/{file}") for file in names)


def _manifest_of(copy: Path, package: str) -> Path:
    for library in LIBRARIES:
        for manifest in sorted((copy / library).rglob(MANIFEST)):
            if manifest.parent.name == package:
                return manifest
    raise ConfigError(f"{copy} has no package {package}: is it a whole copy of micropython-lib?")


def _calls(manifest: Path) -> list[Call]:
    try:
        statements = ast.parse(manifest.read_text(encoding="utf-8")).body
        return [_call(statement) for statement in statements]
    except (OSError, ValueError, SyntaxError) as error:
        raise ConfigError(f"{manifest} cannot be read as a manifest: {error}") from None


def _call(statement: ast.stmt) -> Call:
    """Raises ValueError if the statement is no call with plain values."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"line {statement.lineno} is no plain call")
    options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    return Call(call.func.id, tuple(ast.literal_eval(word) for word in call.args), options)
