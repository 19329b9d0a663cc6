"""Names of our own as a node carries them: each becomes a name that the interpreter has in its ROM already.

A name that a .mpy file brings along lies on the heap: a row in the interpreter's table of names (7 bytes on an ESP32,
11 on 64 bits; the table doubles when it is full) and its letters. A third of an air node's code was names. So the
build gives our functions, arguments, attributes and globals the names of built-in functions that the same file does
not use, and writes whole-number constants where they are used. Lines keep their numbers: a traceback still names file
and line, and `names.json` beside the image says what its functions are called in the source.

What is renamed is only what nobody outside can mean: no name that stands in a text anywhere (getattr, JSON, fields of
a namedtuple), none that names an argument in a call, none of a module, none that an ESP32's own modules are asked for
(machine.Counter) or their objects have, and nothing in `main.py` and `board.py`, which a technician may replace. Two
names may become the same one only if no file has both; so no class may extend one of another file (an error may).
"""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections.abc import Collection, Iterator, Mapping

from bega_firmware.edits import Edit, edited, instead
from bega_firmware.rom_names import ROM_NAMES, SPOKEN_OUTSIDE
from bega_firmware.shake import module_name

AS_THEY_ARE = ("/main.py", "/board.py")
LARGEST = 1 << 30  # an ESP32's small integers end here; a larger one would be an object at each use


def shorten(
    texts: Mapping[str, str], more_words: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the sources of a whole node, by path on it, with short names; and by path {short: name in the source}.

    more_words: names that its other files use.
    """
    texts = without_constants(texts)
    names = choose(texts, more_words)
    shortened = {path: renamed_text(text, names[path]) for path, text in texts.items()}
    return shortened, {path: {short: name for name, short in found.items()} for path, found in names.items()}


def choose(texts: Mapping[str, str], more_words: Collection[str] = ()) -> dict[str, dict[str, str]]:
    """Return by path what its names become."""
    trees = {path: ast.parse(text) for path, text in texts.items()}
    words = {path: _words(text) for path, text in texts.items()}
    spoken = {*SPOKEN_OUTSIDE, *more_words}
    ours = {module_name(path) for path in texts}
    for path, tree in trees.items():
        spoken.update(_spoken(tree))
        spoken.update(_asked_of_others(tree, ours))
        if path in AS_THEY_ARE:
            spoken |= words[path]
    defined = {name for tree in trees.values() for name in _defined(tree)}
    renamed = {
        name: [path for path in texts if name in words[path]]
        for name in defined - spoken - set(ROM_NAMES)
        if not name.startswith("__")
    }
    taken = {path: words[path] | spoken for path in texts}
    chosen: dict[str, dict[str, str]] = {path: {} for path in texts}
    for name in sorted(renamed, key=lambda name: (-len(renamed[name]), name)):
        free = (short for short in ROM_NAMES if all(short not in taken[path] for path in renamed[name]))
        short = next(free, name)
        for path in renamed[name]:
            taken[path].add(short)
            chosen[path][name] = short
    return chosen


def without_constants(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the sources with each whole-number constant of a module written where it is used, wherever that is."""
    trees = {path: ast.parse(text) for path, text in texts.items() if path not in AS_THEY_ARE}
    assigned = {
        module_name(path): {name for node in tree.body for name, _ in _assigned(node)} for path, tree in trees.items()
    }
    reached = {name for tree in trees.values() for name in _reached(tree, assigned)}
    reached.update(*(_words(text) for path, text in texts.items() if path in AS_THEY_ARE))
    constants = {module_name(path): _constants(tree, reached) for path, tree in trees.items()}
    found = dict(texts)
    for path, tree in trees.items():
        found[path] = _without_constants(texts[path], tree, constants[module_name(path)], constants)
    return found


def _reached(tree: ast.Module, assigned: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield the names that a source may ask any module for otherwise than by an import from where they are assigned."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.name not in assigned.get(node.module or "", ()))
        elif isinstance(node, ast.FormattedValue):  # before Python 3.12 nobody says where in its text a name stands
            yield from _names_in(node)


def _constants(tree: ast.Module, reached: set[str]) -> dict[str, int]:
    """Return the constants of a module: names in capitals, given a whole number once, and not reached as attributes."""
    stores = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    found: dict[str, int] = {}
    for statement in tree.body:
        for name, value in _assigned(statement):
            number = _whole(value, found)
            if number is not None and name.isupper() and stores.count(name) == 1 and name not in reached:
                found[name] = number
    return found


def _assigned(statement: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield (name, value) of `A = 1` and of `A, B = 1, 2`."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        yield from (
            (name.id, one) for name, one in zip(target.elts, value.elts, strict=True) if isinstance(name, ast.Name)
        )


def _whole(value: ast.expr, known: Mapping[str, int]) -> int | None:
    """Return the number that an expression of whole numbers and known constants is, None if it is anything else."""
    allowed = (ast.Constant, ast.Name, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Load)
    nodes = list(ast.walk(value))
    if not all(isinstance(node, allowed) for node in nodes):
        return None
    if any(isinstance(node, ast.Constant) and type(node.value) is not int for node in nodes):
        return None
    if any(isinstance(node, ast.Name) and node.id not in known for node in nodes):
        return None
    number = eval(compile(ast.Expression(value), "constant", "eval"), {"__builtins__": {}}, dict(known))  # noqa: S307
    return number if type(number) is int and abs(number) < LARGEST else None


def _without_constants(
    text: str, tree: ast.Module, own: Mapping[str, int], of_modules: Mapping[str, Mapping[str, int]]
) -> str:
    edits: list[Edit] = []
    values = dict(own)
    for statement in ast.walk(tree):
        names = [name for name, _ in _assigned(statement)] if statement in tree.body else []
        if isinstance(statement, ast.Assign) and names and all(name in own for name in names):
            edits.append(instead(statement, "pass"))
        elif isinstance(statement, ast.ImportFrom):
            theirs = of_modules.get(statement.module or "", {})
            values |= {
                alias.asname or alias.name: theirs[alias.name] for alias in statement.names if alias.name in theirs
            }
            kept = [alias for alias in statement.names if alias.name not in theirs]
            if len(kept) < len(statement.names):
                rest = ast.unparse(ast.ImportFrom(statement.module, kept, statement.level)) if kept else "pass"
                edits.append(instead(statement, rest))
    gone = [(edit[0], edit[2]) for edit in edits]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load) or node.id not in values:
            continue
        if not any(first <= node.lineno <= last for first, last in gone):
            edits.append(instead(node, f"({values[node.id]})"))
    return edited(text, edits)


def renamed_text(text: str, names: Mapping[str, str]) -> str:
    """Return a source in which each name that `names` has is another one."""
    edits = [
        (
            token.start[0],
            _in_bytes(token, token.start[1]),
            token.end[0],
            _in_bytes(token, token.end[1]),
            names[token.string],
        )
        for token in _tokens(text)
        if token.type == tokenize.NAME and token.string in names
    ]
    return edited(text, edits)


def _in_bytes(token: tokenize.TokenInfo, column: int) -> int:
    """Return the column in bytes; a token's counts characters, and its `line` begins with the token's first line."""
    return len(token.line[:column].encode())


def _words(text: str) -> set[str]:
    return {token.string for token in _tokens(text) if token.type == tokenize.NAME} | set(keyword.kwlist)


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield what takes room by its name: functions, arguments, attributes, names of modules and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        if isinstance(node, ast.Module | ast.ClassDef):
            yield from (target.id for statement in node.body for target in _targets(statement))


def _targets(statement: ast.stmt) -> Iterator[ast.Name]:
    whole = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in whole:
        if target is not None:
            yield from (node for node in ast.walk(target) if isinstance(node, ast.Name))


def _spoken(tree: ast.Module) -> Iterator[str]:
    """Yield what must keep its name: it stands in a text, names an argument in a call, a module, or an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (node.value, *node.value.split(","))
        elif isinstance(node, ast.FormattedValue):
            yield from _names_in(node)
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")
        elif isinstance(node, ast.ClassDef) and node.bases:
            yield node.name  # of an error: its name is printed


def _asked_of_others(tree: ast.Module, ours: Collection[str]) -> Iterator[str]:
    """Yield what a source asks modules for that are not ours: machine.Counter, and from machine import Counter."""
    theirs: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            theirs |= {alias.asname or alias.name.split(".")[0] for alias in node.names if alias.name not in ours}
        elif isinstance(node, ast.ImportFrom) and node.module not in ours:
            yield from (alias.name for alias in node.names)
    for node in ast.walk(tree):
        whose = node
        while isinstance(whose, ast.Attribute):
            whose = whose.value
        if isinstance(node, ast.Attribute) and isinstance(whose, ast.Name) and whose.id in theirs:
            yield node.attr


def _names_in(tree: ast.AST) -> Iterator[str]:
    """Yield each name and attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
