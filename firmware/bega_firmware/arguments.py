"""Names of arguments that cost nothing: a .mpy spells each name once, so an argument gets one that it spells anyway.

That is a name which the file uses for attributes alone: `x.volume` and an argument `volume` never meet. What an
argument is called no traceback says, and only a call that names it could tell: those keep theirs. What a call
unpacks (`**form`) goes to functions of the interpreter, or is handed on as a call has named it.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator, Mapping

from bega_firmware.shorten import AS_THEY_ARE, renamed_text


def share_arguments(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the sources of a whole node, by path, with names of arguments that also are attributes."""
    trees = {path: ast.parse(text) for path, text in texts.items()}
    named = {name for tree in trees.values() for name in _named_in_calls(tree)}
    return {
        path: text if path in AS_THEY_ARE else renamed_text(text, _instead(trees[path], named))
        for path, text in texts.items()
    }


def _instead(tree: ast.Module, named: set[str]) -> dict[str, str]:
    nodes = list(ast.walk(tree))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    words = set(_plain_words(tree))
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    fixed = attributes | named | set(_bound_outside(tree)) | {"self"}
    free = sorted(attributes - words - arguments - named - set(keyword.kwlist))
    return dict(zip(sorted(arguments - fixed), free, strict=False))


def _named_in_calls(tree: ast.Module) -> Iterator[str]:
    """Yield what must keep its name wherever it is an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg


def _bound_outside(tree: ast.Module) -> Iterator[str]:
    """Yield names that are more than local: of the module, of classes, imported, or stated to be of another scope."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield from (alias.name, alias.asname or "", *alias.name.split("."))
            if isinstance(node, ast.ImportFrom):
                yield from (node.module or "").split(".")
        elif isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names
        if isinstance(node, ast.Module | ast.ClassDef):
            for statement in node.body:
                if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    yield from (part.id for part in ast.walk(statement) if isinstance(part, ast.Name))


def _plain_words(tree: ast.Module) -> Iterator[str]:
    """Yield each name that a source uses otherwise than as an attribute."""
    yield from _bound_outside(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
