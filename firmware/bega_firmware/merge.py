"""A module that one other imports goes into that one's file: each takes half a kilobyte of heap for being a module.

That is its object, its dictionary, its name, and a row in the importer's dictionary for each imported name (64-bit).
What is imported inside a function is loaded late on purpose, and stays a file of its own; so does a way out, a driver,
what a text names with its dots, and what two modules share. A name that both have at their top becomes
`name_of_<module>` in the one that moves.
"""

from __future__ import annotations

import ast
import builtins
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bega_firmware.contents import WAYS
from bega_firmware.edits import Edit, edited, instead
from bega_firmware.shake import KEPT, module_name

BUILT_IN = frozenset(dir(builtins))
Named = tuple[list[tuple[str, bool]], set[str]]
Piece = tuple[int, str, int]  # from this line on: lines of that source, from this one on


@dataclass(frozen=True)
class Merged:
    """Sources by path, and by path of which pieces each consists."""

    texts: dict[str, str]
    pieces: dict[str, list[Piece]] = field(default_factory=dict)


def merge(texts: Mapping[str, str]) -> Merged:
    """Return the sources of a whole node with what can move moved, until nothing more can."""
    merged = Merged(dict(texts), {path: [(1, path, 1)] for path in texts})
    trees = {path: ast.parse(text) for path, text in texts.items()}
    named = {path: _named(tree) for path, tree in trees.items()}
    while True:
        moved = next((pair for pair in _pairs(named) if _move(merged, *pair, trees)), None)
        if moved is None:
            return merged
        guest, host = moved
        del trees[guest], named[guest]
        trees[host] = ast.parse(merged.texts[host])
        named[host] = _named(trees[host])


def _named(tree: ast.Module) -> Named:
    """Return each module that a source imports, and whether by `from` at its top; and the texts in it."""
    imports = [(name, node in tree.body and _is_from(node, name)) for node in ast.walk(tree) for name in _imports(node)]
    return imports, set(_texts(tree))


def _pairs(named: Mapping[str, Named]) -> Iterator[tuple[str, str]]:
    """Yield (module that one other imports at its top, that other)."""
    spoken = {word for _, texts in named.values() for word in texts}
    importers: dict[str, list[tuple[str, bool]]] = {}
    paths = {module_name(path): path for path in named}
    for path, (imports, _) in named.items():
        for name, is_at_top in imports:
            if name in paths:
                importers.setdefault(name, []).append((path, is_at_top))
    for name, found in importers.items():
        path = paths[name]
        stays = path.endswith("/__init__.py") or name in WAYS or ("." in name and name in spoken)
        if len(found) == 1 and found[0][1] and not stays and not {path, found[0][0]} & set(KEPT):
            yield path, found[0][0]


def _move(merged: Merged, guest: str, host: str, trees: Mapping[str, ast.Module]) -> bool:
    """Move `guest` into `host`; return False, and leave both, if a name stands in the way that cannot be changed."""
    statement = next(node for node in trees[host].body if _is_from(node, module_name(guest)))
    assert isinstance(statement, ast.ImportFrom)
    imported = {alias.name for alias in statement.names}
    theirs = _globals(trees[guest])
    ours = {name: origin for name, origin in _globals(trees[host]).items() if name not in imported}
    shared = [name for name, origin in theirs.items() if name in ours and (not origin or ours[name] != origin)]
    if any(alias.asname for alias in statement.names) or not all(_is_plain(trees[guest], name) for name in shared):
        return False
    if imported & set(shared) or BUILT_IN & {*theirs, *ours}:  # one would have the other's `sum`
        return False
    suffix = "_of_" + module_name(guest).rpartition(".")[2]
    text = _with_names(merged.texts[guest], {name: name + suffix for name in shared}).rstrip("\n") + "\n\n"
    shift = text.count("\n")
    pieces = merged.pieces.pop(guest) + [(first + shift, path, line) for first, path, line in merged.pieces[host]]
    merged.texts[host] = text + edited(merged.texts[host], [instead(statement, "pass")])
    merged.pieces[host] = pieces
    del merged.texts[guest]
    return True


def _is_from(node: ast.AST, module: str) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == module


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _globals(tree: ast.Module) -> dict[str, str]:
    """Return the names at the top of a module, each with where it is imported from, or ""."""
    found: dict[str, str] = {}
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = ""
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = ""
        else:
            pending.extend(ast.iter_child_nodes(node))
    return found


def _is_plain(tree: ast.Module, name: str) -> bool:
    """Return whether a name is only ever the module's own: no attribute, argument, local or import is called so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == name:
            return False
        if isinstance(node, ast.arg | ast.keyword) and node.arg == name:
            return False
        if isinstance(node, ast.alias) and name in (node.name, node.asname):
            return False
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name == name and node not in tree.body:
                return False
            inside = (part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id == name)
            if any(isinstance(part.ctx, ast.Store) for part in inside):
                return False
    return name not in set(_texts(tree))


def _with_names(text: str, names: Mapping[str, str]) -> str:
    edits: list[Edit] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string in names:
            (first, start), (last, end) = token.start, token.end
            in_bytes = [len(token.line[:column].encode()) for column in (start, end)]
            edits.append((first, in_bytes[0], last, in_bytes[1], names[token.string]))
    return edited(text, edits)


def _texts(tree: ast.Module) -> Iterator[str]:
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
