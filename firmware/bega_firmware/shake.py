"""What nothing on a node uses is left out of its build: functions, methods, constants, rows of the quantity table.

The sources serve gateways too: `senml` decodes packs, drivers act and are found on strange lines, `checks` knows every
CRC. On a node each function takes about 110 bytes of heap beside its code (64-bit; half of that on an ESP32), so the
build follows the names from `main.py` on and drops what none of them reaches. That is safe since no import of ours has
side effects; a name that stands in a text (getattr, a configuration) counts as used. Lines keep their numbers.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bega_firmware.edits import Edit, edited, instead
from bega_firmware.rom_names import SPOKEN_OUTSIDE

TABLE_FILE, TABLE = "/lib/bega_protocols/reading.py", "QUANTITIES"
ANY = "*"  # stands for all modules
LONGEST_NAMES = 200  # a longer text names nothing
KEPT = ("/main.py", "/board.py")  # a technician may replace them: all that they may mean stays


@dataclass(frozen=True)
class Read:
    """A source, read once."""

    text: str
    tree: ast.Module
    names: Counter[str]  # how often each is read
    attributes: Counter[str]
    texts: Counter[str]  # that may be names
    asked: dict[str, set[str]]  # names imported from each module, or asked for as attributes of a plain name
    imports: list[ast.ImportFrom]


def shake(texts: Mapping[str, str], more_words: Iterable[str] = ()) -> dict[str, str]:
    """Return the sources of a node, by path on it, without what none of them uses.

    more_words: names that its other files use, such as the quantities of its register maps.
    """
    found = {path: _read(text) for path, text in texts.items()}
    if TABLE_FILE in found:
        found[TABLE_FILE] = _read(_with_rows(found, set(more_words)))
    while True:
        shaken = _shaken(found)
        changed = {path: text for path, text in shaken.items() if text != found[path].text}
        if not changed:
            reached = _reached(found)
            return {path: read.text for path, read in found.items() if path in reached}
        found.update({path: _read(text) for path, text in changed.items()})


def _read(text: str) -> Read:
    tree = ast.parse(text)
    names: Counter[str] = Counter()
    attributes: Counter[str] = Counter()
    asked: defaultdict[str, set[str]] = defaultdict(set)
    imports: list[ast.ImportFrom] = []
    renamed: list[ast.alias] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names[node.id] += 1
        elif isinstance(node, ast.Attribute):
            attributes[node.attr] += isinstance(node.ctx, ast.Load)
            if isinstance(node.value, ast.Name | ast.Attribute):
                asked[node.value.id if isinstance(node.value, ast.Name) else node.value.attr].add(node.attr)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] += 1
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            attributes[node.target.attr] += 1
        elif isinstance(node, ast.Import):
            renamed += [alias for alias in node.names if alias.asname]
        elif isinstance(node, ast.ImportFrom):
            asked[node.module or ""] |= {alias.name for alias in node.names}
            imports.append(node)
    for alias in renamed:
        asked[alias.name] |= asked[alias.asname or ""]
    if names["__import__"]:  # it may ask any module for each attribute that it names
        asked[ANY] |= set(attributes)
    return Read(text, tree, names, attributes, Counter(_texts_in(tree)), asked, imports)


def _shaken(found: Mapping[str, Read]) -> dict[str, str]:
    """Leave out what nothing uses now; what only that used is unused in the next round."""
    texts: Counter[str] = sum((read.texts for read in found.values()), Counter())
    attributes: Counter[str] = sum((read.attributes for read in found.values()), Counter())
    asked_of: defaultdict[str, set[str]] = defaultdict(set)
    for read in found.values():
        for module, names in read.asked.items():
            asked_of[module] |= names
    shaken = {}
    for path, read in found.items():
        if path in KEPT:
            continue
        asked = asked_of[module_name(path)] | asked_of[module_name(path).rpartition(".")[2]]
        edits = list(_unused_imports(read, asked))
        asked |= asked_of[ANY]
        for statement in read.tree.body:
            defined = _defined(statement)
            unasked = [name for name in defined if name not in asked and not texts[name]]
            if not defined:
                continue
            if len(unasked) == len(defined) and _is_unread(defined, read.names, _names_in(statement)):
                edits.append(instead(statement, "pass"))
            elif isinstance(statement, ast.ClassDef):
                edits.extend(_unused_members(statement, read.names, attributes, texts))
        shaken[path] = edited(read.text, edits)
    return shaken


def _is_unread(defined: list[str], whole: Counter[str], own: Counter[str]) -> bool:
    """Return whether only their own definition reads these names."""
    return all(whole[name] <= own[name] for name in defined)


def _unused_imports(read: Read, asked: set[str]) -> Iterator[Edit]:
    """asked: the names that others have from this module."""
    for statement in read.imports:
        names = [(alias, alias.asname or alias.name) for alias in statement.names]
        kept = [alias for alias, name in names if read.names[name] or name in asked]
        if len(kept) < len(statement.names):
            rest = ast.unparse(ast.ImportFrom(statement.module, kept, statement.level)) if kept else "pass"
            yield instead(statement, rest)


def _unused_members(
    of: ast.ClassDef, names: Counter[str], attributes: Counter[str], texts: Counter[str]
) -> Iterator[Edit]:
    """Yield the edits that leave out methods, and what else a class has, that nothing asks any object for."""
    for member in of.body:
        defined = _defined(member)
        if isinstance(member, ast.ClassDef) or not defined:
            continue
        if any(names[name] or texts[name] or name.startswith("__") or name in SPOKEN_OUTSIDE for name in defined):
            continue
        if _is_unread(defined, attributes, _attributes_in(member)):
            yield instead(member, "pass")


def _with_rows(found: Mapping[str, Read], words: set[str]) -> str:
    """Return the module of the quantity table with only the rows whose names stand in some text of the others."""
    for path, read in found.items():
        if path != TABLE_FILE:
            words |= set(read.texts)
    edits = []
    for statement in found[TABLE_FILE].tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _defined(statement) == [TABLE]:
            table = statement.value
            assert isinstance(table, ast.Dict)
            rows = [
                (key, value)
                for key, value in zip(table.keys, table.values, strict=True)
                if isinstance(key, ast.Constant) and key.value in words
            ]
            text = "{%s}" % ", ".join(f"{ast.unparse(key)}: {ast.unparse(value)}" for key, value in rows)
            edits.append(instead(table, text))
    return edited(found[TABLE_FILE].text, edits)


def _reached(found: Mapping[str, Read]) -> set[str]:
    """Return the paths of what `main.py` imports, and what that imports in turn; a text can name a module too."""
    paths = {module_name(path): path for path in found}
    reached: set[str] = set()
    pending = [path for path in found if path.endswith("/driver.py") or path in KEPT]
    while pending:
        path = pending.pop()
        if path in reached:
            continue
        reached.add(path)
        for name in (*_modules_in(found[path].tree), *found[path].texts, module_name(path).rpartition(".")[0]):
            pending.extend(paths[one] for one in _with_parents(name) if one in paths)
    return reached


def _modules_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _with_parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _defined(statement: ast.stmt) -> list[str]:
    """Return what a statement defines; nothing if it is more, or less, than a definition of plain names."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [] if statement.decorator_list else [statement.name]
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names: list[str] = []
    for target in targets:
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        if not all(isinstance(part, ast.Name) for part in parts):
            return []
        names += [part.id for part in parts if isinstance(part, ast.Name)]
    return names


def _texts_in(tree: ast.AST) -> Iterator[str]:
    """Yield the texts in a module that may be names, each also cut at its commas."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < LONGEST_NAMES:
            yield from {node.value, *node.value.split(",")}


def _names_in(tree: ast.AST) -> Counter[str]:
    return Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


def _attributes_in(tree: ast.AST) -> Counter[str]:
    """Return how often each attribute is read."""
    return Counter(
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    )


def module_name(path: str) -> str:
    """Return how a file on the node is imported."""
    root = "/lib/" if path.startswith("/lib/") else "/"
    return path.removeprefix(root).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
