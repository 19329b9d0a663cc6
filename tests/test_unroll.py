"""A build writes loops in the place of comprehensions, and all of it does what it did."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_firmware.board import read_board
from bega_firmware.bytecode import without_types
from bega_firmware.contents import node_devices, sources
from bega_firmware.merge import merge
from bega_firmware.unroll import lines_after, unroll

MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

SOURCE = '''
seen = []


def noted(value):
    seen.append(value)
    return value


def first(many, one):
    """Each of these has another place in its statement."""
    found = [one + many_one for many_one in many if many_one > 2 if many_one != 4]
    pairs = sorted([(-right, left) for left, right in enumerate(many)])
    by_name = {str(one): [one for _ in range(one)] for one in many}
    for many_one in {one % 3 for one in many}:
        found += [many_one * inner for inner in many for inner in [inner, one]]
    if any(noted(many_one) > 3 for many_one in many):
        found.append(-1)
    elif all([noted(many_one) for many_one in many]):
        found.append(-2)
    return (
        ", ".join(
            [
                str(many_one)
                for many_one in many
            ]
        ),
        found, pairs, by_name, one,
    )


def second(many):
    many = [many for many in many]
    seen.append([one for one in many if one])
    seen.extend(
        [
            one
            for one in many
        ]
    )
    last = 0 if all(many_one for many_one in many) else [1 for _ in many]
    if many: return [last, *[noted(one) for one in many]]
    return noted("none") and [0 for _ in range(3)]


def late(many):
    order = (noted("left"), [noted(one) for one in many])
    return order, [one() for one in [lambda here=one: here for one in many]]


def pieces(many):
    yield from [one for one in many]
    return [one for one in many]


class Part:
    limits = [one for one in (1, 2)]

    def ask(self, many):
        def within(one):
            return [one, *[inner for inner in many if inner != one]]

        return self.limits, [within(one) for one in many]


async def waits(many):
    return [one for one in many]
'''


def what_it_does(source: str, many: list[int], one: int) -> list[Any]:
    scope: dict[str, Any] = {}
    exec(source, scope)
    done = [scope["first"](many, one), scope["second"](many), scope["late"](many), list(scope["pieces"](many))]
    return [*done, scope["Part"]().ask(many), scope["seen"]]


def comprehensions(source: str, name: str) -> int:
    (function,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    )
    return sum(isinstance(node, COMPREHENSIONS) for node in ast.walk(function))


@given(many=st.lists(st.integers(0, 6), max_size=6), one=st.integers(0, 6))
def test_functions_do_what_they_did_in_the_same_order(many, one):
    assert what_it_does(unroll(SOURCE)[0], many, one) == what_it_does(SOURCE, many, one)


def test_what_is_evaluated_in_any_case_and_before_all_else_is_a_loop_and_nothing_more():
    text, _ = unroll(SOURCE)
    # Within another one; in an `elif`; behind what may do something; with a lambda; of what can be suspended.
    left = {"first": 2, "second": 3, "late": 3, "pieces": 2, "ask": 1, "waits": 1}
    assert {name: comprehensions(text, name) for name in left} == left
    assert "limits = [one for one in (1, 2)]" in text, "what a class or a module makes once is let go of"


def test_each_new_name_of_a_whole_node_is_made_where_it_is_used():
    board = read_board("air_carrier")
    found = sources(board, node_devices(), actions=True)
    texts = merge({source.target: without_types(source.path.read_text(encoding="utf-8")) for source in found}).texts
    made = [unroll(text)[0] for text in texts.values()]
    functions = [node for text in made for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    names = 0
    for function in functions:
        new = [node for node in ast.walk(function) if isinstance(node, ast.Name) and re.fullmatch(r"_\d+", node.id)]
        stored = {node.id for node in new if isinstance(node.ctx, ast.Store)}
        assert {node.id for node in new} == stored, f"{function.name}, {ast.unparse(function)}"
        names += len(stored)
    assert names > 100


def test_each_line_is_still_found_in_its_source():
    text, added = unroll(SOURCE)
    pieces = lines_after([(1, "/guest.py", 101), (20, "/host.py", 1)], added)
    before, after = SOURCE.splitlines(), text.splitlines()
    assert len(after) > len(before)
    for number, line in enumerate(after, 1):
        first, path, line_there = next(piece for piece in reversed(pieces) if piece[0] <= number)
        at = number - first + line_there - (101 if path == "/guest.py" else -18)
        if line.lstrip().startswith(("def ", "class ", '"""', "found.append", "yield", "seen.append(value")):
            assert before[at] == line
    assert pieces[0] == (1, "/guest.py", 101)


@pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")
def test_loop_takes_less_of_the_heap_than_a_comprehension(tmp_path):
    source = "".join(f"def f{number}(many):\n    return [one for one in many if one]\n\n" for number in range(20))
    taken = []
    for name, text in (("plain", source), ("loops", unroll(source)[0])):
        (tmp_path / f"{name}.py").write_text(text)
        script = f"import gc; gc.collect(); b = gc.mem_alloc(); import {name}; gc.collect(); print(gc.mem_alloc() - b)"
        said = subprocess.run(
            [MICROPYTHON, "-c", script], capture_output=True, text=True, env={"MICROPYPATH": str(tmp_path)}, timeout=60
        )
        taken.append(int(re.findall(r"\d+", said.stdout)[-1]))
    assert taken[1] < taken[0] - 20 * 64
