"""The sources of a node as it carries them: without what it does not use, in fewer files, and with short names."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bega_firmware.arguments import share_arguments
from bega_firmware.bytecode import without_types
from bega_firmware.merge import Piece, merge
from bega_firmware.shake import shake
from bega_firmware.shorten import shorten
from bega_firmware.unroll import lines_after, unroll


@dataclass(frozen=True)
class Lean:
    """The sources by path on the node, and how to read a traceback of it."""

    texts: dict[str, str]
    names: dict[str, dict[str, str]]  # by path: what its short names stand for
    pieces: dict[str, list[Piece]]  # by path: from which line on its lines are those of which source, from which on


def lean(texts: Mapping[str, str], theirs: Collection[str], data: Mapping[str, bytes]) -> Lean:
    """Return a node's sources, made lean.

    theirs: paths of sources that are not ours, and stay as they are; data: the other files, whose words count as used.
    """
    words = {word for content in data.values() for word in re.findall(r"\w+", content.decode())}
    words |= {word for path in theirs for word in re.findall(r"\w+", texts[path])}
    ours = shake({path: without_types(text) for path, text in texts.items() if path not in theirs}, words)
    merged = merge({path: text for path, text in ours.items() if not _is_empty_package(path, text)})
    unrolled = {path: unroll(text) for path, text in merged.texts.items()}
    pieces = {path: lines_after(merged.pieces[path], added) for path, (_, added) in unrolled.items()}
    short, names = shorten({path: text for path, (text, _) in unrolled.items()}, words)
    short = share_arguments(short)  # last: an argument that is called as a method of the chip's would rename that
    return Lean({**short, **{path: texts[path] for path in theirs}}, names, pieces)


def _is_empty_package(path: str, text: str) -> bool:
    """Return whether this only says that its folder is a package: MicroPython takes each folder for one."""
    return path.endswith("/__init__.py") and all(isinstance(part, ast.Expr) for part in ast.parse(text).body)
