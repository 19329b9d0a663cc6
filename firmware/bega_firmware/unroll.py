"""Comprehensions become loops: to MicroPython each is a function of its own.

That takes some 100 bytes of heap beside its code (64-bit: the raw code, its table, the function at each call). The
sources keep them, since they read better; the build writes the loop that each stands for before its statement, where
nothing of that statement is evaluated before it. Its names are new, so that it hides none of the function's.

Left as they are: what is in a coroutine or a generator, whose locals live on the heap as long as it runs; what is
evaluated under a condition, or after something that may do more than read a name; what holds a lambda.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from bega_firmware.edits import Edit, edited, instead
from bega_firmware.merge import Piece

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
SUSPENDS = (ast.Yield, ast.YieldFrom, ast.Await)
NEW = "_%d"
Added = list[tuple[int, int]]  # (behind this line, so many lines)


def unroll(text: str) -> tuple[str, Added]:
    """Return a source in which functions have loops in the place of comprehensions, and where that has more lines."""
    lines = text.splitlines()
    edits: list[Edit] = []
    added: Added = []
    for function in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)):
        if any(isinstance(part, SUSPENDS) for part in _own(function)):
            continue
        new = New({node.id for node in ast.walk(function) if isinstance(node, ast.Name)})
        for statement in _statements(function.body):
            before = " " * statement.col_offset
            if lines[statement.lineno - 1][: statement.col_offset] != before:
                continue  # it does not begin its line: it stands behind a colon
            place = _place(statement)
            if place is None or (isinstance(statement, ast.If | ast.For) and place.lineno != place.end_lineno):
                continue
            loops, rest = _unrolled(place, new)
            if loops:
                head = [f"{line}\n{before}" for loop in loops for line in _text(loop).splitlines()]
                edits += _edits(statement, place, "".join(head), ast.unparse(rest))
                added.append((statement.lineno - 1, len(head)))
    return edited(text, edits), sorted(added)


def lines_after(pieces: list[Piece], added: Added) -> list[Piece]:
    """Return of which pieces a source consists that had these, once it has more lines."""

    def after(line: int) -> int:
        return line + sum(count for behind, count in added if behind < line)

    def source_of(line: int) -> Piece:
        first, path, at = next(piece for piece in reversed(pieces) if piece[0] <= line)
        return after(line), path, at + line - first

    starts = {first for first, _, _ in pieces} | {behind + 1 for behind, _ in added}
    return [source_of(line) for line in sorted(starts)]


class New:
    """Names that a function does not use."""

    def __init__(self, used: set[str]) -> None:
        self._used = used

    def name(self) -> str:
        """Return the next one."""
        name = next(name for name in map(NEW.__mod__, range(len(self._used) + 1)) if name not in self._used)
        self._used.add(name)
        return name


def _edits(statement: ast.stmt, place: ast.expr, head: str, rest: str) -> list[Edit]:
    """Return those that put `head` before the statement, and `rest` in the place of what it evaluates."""
    at = (statement.lineno, statement.col_offset)
    if at == (place.lineno, place.col_offset):  # one edit: `edited` drops one that begins where another does
        return [instead(place, head + rest)]
    return [(*at, *at, head), instead(place, rest)]


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield what belongs to a function itself, not to one within it."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, FUNCTIONS):
            pending.extend(ast.iter_child_nodes(node))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body and of those within it; not an `elif`, before which nothing can stand."""
    for statement in body:
        yield statement
        if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            continue
        orelse = getattr(statement, "orelse", [])
        is_elif = isinstance(statement, ast.If) and len(orelse) == 1 and isinstance(orelse[0], ast.If)
        for part in (getattr(statement, "body", []), getattr(statement, "finalbody", []), [] if is_elif else orelse):
            yield from _statements(part)
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _place(statement: ast.stmt) -> ast.expr | None:
    """Return the expression that a statement evaluates once and first."""
    if isinstance(statement, ast.Assign | ast.Return | ast.Expr):
        return statement.value
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        return statement.value
    if isinstance(statement, ast.If):
        return statement.test
    return statement.iter if isinstance(statement, ast.For) else None


def _unrolled(place: ast.expr, new: New) -> tuple[list[ast.stmt], ast.expr]:
    """Return the loops that come before an expression, and what is left of it."""
    loops: list[ast.stmt] = []
    found = _first(place)
    while found is not None:
        made, name = _loops(found, new)
        loops += made
        place = _Instead({id(found): name}).visit(place)
        found = _first(place)
    return loops, place


def _first(node: ast.AST) -> ast.expr | None:
    """Return the comprehension, or the question about one, that an expression evaluates before all but names."""
    if isinstance(node, ast.expr) and _is_loop(node):
        return node
    behind = (part for part in _in_order(node) if not isinstance(part, ast.Name | ast.Constant))
    return next(map(_first, behind), None)


def _in_order(node: ast.AST) -> list[ast.expr]:
    """Return the parts of an expression that are evaluated in any case, in their order; none if that is not simple."""
    if isinstance(node, ast.Call):
        of = node.func.value if isinstance(node.func, ast.Attribute) else node.func
        return [of, *node.args, *(keyword.value for keyword in node.keywords)]
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.Compare):
        return [node.left, node.comparators[0]]
    if isinstance(node, ast.Subscript):
        return [node.value, node.slice]
    if isinstance(node, ast.Tuple | ast.List):
        return node.elts
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Attribute | ast.Starred):
        return [node.value]
    if isinstance(node, ast.BoolOp):
        return node.values[:1]
    return [node.test] if isinstance(node, ast.IfExp) else []


def _is_loop(node: ast.expr) -> bool:
    """Return whether this is a comprehension that can be a loop, or a question about one: `any(...)`, `all(...)`."""
    made = node
    if _asks(node):
        assert isinstance(node, ast.Call)
        made = node.args[0]
    elif isinstance(node, ast.GeneratorExp):
        return False
    if not isinstance(made, COMPREHENSIONS):
        return False
    if any(isinstance(part, (ast.Lambda, ast.NamedExpr, *SUSPENDS)) for part in ast.walk(made)):
        return False
    return len(made.generators) == 1 or not _asks(node)


def _asks(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("all", "any")
        and isinstance(node.args[0], ast.GeneratorExp)
    )


def _loops(node: ast.expr, new: New) -> tuple[list[ast.stmt], str]:
    """Return the statements that stand for it, and the name of what they make."""
    name = new.name()
    made = node.args[0] if isinstance(node, ast.Call) else node
    assert isinstance(made, COMPREHENSIONS)
    names = {
        part.id: new.name()
        for generator in made.generators
        for part in ast.walk(generator.target)
        if isinstance(part, ast.Name)
    }
    first = made.generators[0].iter  # evaluated outside of it, where the same names are others
    made = _Renamed(names, first).visit(made)
    begin, body = _parts(node, made, name)
    for generator in reversed(made.generators):
        for test in reversed(generator.ifs):
            body = [ast.If(test, body, [])]
        body = [ast.For(generator.target, generator.iter, body, [])]
    return [ast.parse(f"{name} = {begin}").body[0], *body], name


def _parts(node: ast.expr, made: Comprehension, name: str) -> tuple[str, list[ast.stmt]]:
    """Return with what the result begins, and what is done to it each time."""
    if isinstance(made, ast.DictComp):
        return "{}", ast.parse(f"{name}[{ast.unparse(made.key)}] = {ast.unparse(made.value)}").body
    element = ast.unparse(made.elt)
    if isinstance(made, ast.SetComp):
        return "set()", ast.parse(f"{name}.add({element})").body
    if not isinstance(node, ast.Call):
        return "[]", ast.parse(f"{name}.append({element})").body
    is_all = isinstance(node.func, ast.Name) and node.func.id == "all"
    return str(is_all), ast.parse(f"if {'not ' if is_all else ''}({element}):\n {name} = {not is_all}\n break").body


def _text(statement: ast.stmt) -> str:
    return ast.unparse(ast.fix_missing_locations(statement))


class _Instead(ast.NodeTransformer):
    """Puts names in the place of these parts."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names

    def visit(self, node: ast.AST) -> Any:
        return ast.Name(self._names[id(node)], ast.Load()) if id(node) in self._names else self.generic_visit(node)


class _Renamed(ast.NodeTransformer):
    """Gives names others, but in one part."""

    def __init__(self, names: dict[str, str], but: ast.expr) -> None:
        self._names = names
        self._but = but

    def visit(self, node: ast.AST) -> Any:
        if node is self._but:
            return node
        if isinstance(node, ast.Name) and node.id in self._names:
            return ast.Name(self._names[node.id], node.ctx)
        return self.generic_visit(node)
