"""Edits of a source at the places that `ast` names. Ends of line stay, so that lines keep their numbers."""

from __future__ import annotations

import ast

Edit = tuple[int, int, int, int, str]  # first line, column, last line, column, text in its place; columns count bytes


def instead(node: ast.stmt | ast.expr, text: str) -> Edit:
    """Return the edit that puts `text`, and as many ends of line as there were, in the place of `node`."""
    last = node.end_lineno or node.lineno
    lines = "\n" * (last - node.lineno)
    return node.lineno, node.col_offset, last, node.end_col_offset or 0, text + lines


def edited(text: str, edits: list[Edit]) -> str:
    """Return `text` with all `edits` made; one that lies in another is gone with it."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    outer: list[Edit] = []
    for edit in sorted(edits, key=lambda edit: (edit[0], edit[1], -edit[2], -edit[3])):
        if not outer or edit[:2] >= outer[-1][2:4]:
            outer.append(edit)
    for first, column, last, end, new in reversed(outer):
        changed = lines[first - 1][:column] + new.encode() + lines[last - 1][end:]
        lines[first - 1 : last] = changed.splitlines(keepends=True)
    return b"".join(lines).decode()
