"""What a lean build must not break: each case is a small node that runs before it is made lean, and after."""

import ast
import builtins
import sys
from collections.abc import Mapping
from importlib import import_module, invalidate_caches
from importlib.metadata import distribution
from pathlib import Path

import pytest

from bega_firmware.board import read_board
from bega_firmware.build import frozen_profiles
from bega_firmware.contents import WAYS, node_devices, sources
from bega_firmware.lean import lean

STUBS = distribution("micropython-esp32-stubs")
CHIP = ("machine", "network", "esp32", "bluetooth", "socket", "select", "tls", "cryptolib", "deflate", "vfs")

CASES = {
    "what a module of the chip is asked for": (
        "import third\n",
        "import math\n\nfrom part import Half\n\nassert math.comb(4, 2) == 6\nassert Half(4).comb == 4\n",
        "class Half:\n    def __init__(self, comb):\n        self.comb = comb\n",
    ),
    "what is taken from a module of the chip": (
        "import third\nimport part\npart.start()\n",
        "from math import comb\n\nassert comb(4, 2) == 6\n",
        "def start():\n    return comb(1)\n\n\ndef comb(half):\n    return half\n",
    ),
    "what a module hands on": (
        "import part\nimport third\n",
        "from part import work\n\nwork()\n",
        "from fourth import work\n",
        "def work():\n    return 1\n",
    ),
    "what is only counted up": (
        "import third\n",
        "import part\n\npart.Counted().count_up()\n",
        "TIMES = 0\nTIMES += 1\n\n\nclass Counted:\n    had = 0\n\n    def count_up(self):\n        self.had += 1\n",
    ),
    "a module under another name": (
        "import third\n",
        "import part as other\n\nassert other.work() == 1\n",
        "def work():\n    return 1\n",
    ),
    "a function called as a built-in one": (
        "import third\n",
        "from part import work\n\nassert sum([1, 2]) == 3\nassert work() == 7\n",
        "def sum(parts):\n    return 7\n\n\ndef work():\n    return sum(1)\n",
    ),
    "a constant under another name": ("import third\n", "from part import SIZE as S\n\nassert S == 3\n", "SIZE = 3\n"),
    "a constant that a text names": (
        "import third\n",
        "import part\n\nassert getattr(part, 'SIZE') == 3\n",
        "SIZE = 3\n",
    ),
    "a constant that main.py takes": ("from part import SIZE\nassert SIZE == 3\n", "", "SIZE = 3\n"),
    "a constant that main.py asks for": ("import part\nassert part.SIZE == 3\n", "", "SIZE = 3\n"),
    "a constant that a module hands on": (
        "import third\nimport part\n",
        "from part import SIZE\n\nassert SIZE == 3\n",
        "from fourth import SIZE\n\nprint([SIZE])\n",
        "SIZE = 3\n",
    ),
    "names in a text that is put together": (
        "import third\n",
        "SIZE = 3\n\n\ndef say(volume_ms):\n    return f'{volume_ms} of {SIZE}'\n\n\nassert say(4) == '4 of 3'\n",
        "",
    ),
}


def run(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir()
    for path, text in texts.items():
        (folder / path[1:]).write_text(text)
    sys.path.insert(0, str(folder))
    invalidate_caches()
    try:
        import_module("main")
    finally:
        sys.path.remove(str(folder))
        for name in ("main", "third", "part", "fourth"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("case", CASES)
def test_node_does_the_same_when_it_is_lean(tmp_path, case):
    texts = dict(zip(("/main.py", "/third.py", "/part.py", "/fourth.py"), CASES[case], strict=False))
    run(tmp_path / "whole", texts)
    run(tmp_path / "lean", lean(texts, (), {}).texts)


@pytest.fixture(scope="module")
def whole_node() -> dict[str, str]:
    """All that any node can carry."""
    found = sources(read_board("meter_carrier"), node_devices(), WAYS, actions=True)
    return {source.target: source.path.read_text(encoding="utf-8") for source in found}


def test_no_name_that_the_chips_modules_or_their_objects_have_is_renamed(whole_node):
    """As the build of a meter node with all ways once did: machine.Counter, by the class of that name in counter.py."""
    renamed = {name for names in lean(whole_node, (), frozen_profiles()).names.values() for name in names.values()}
    assert len(renamed) > 100
    theirs = {name for module in CHIP for name in stubbed(module)}
    assert {"Counter", "any", "readfrom_into", "gap_advertise", "idf_heap_info"} <= theirs
    assert "Counter" not in renamed
    assert not {name for name in renamed & theirs if name.islower() and name[0] != "_"}


def stubbed(module: str) -> set[str]:
    tree = ast.parse(Path(str(STUBS.locate_file(f"{module}.pyi"))).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    named = (node.target for node in ast.walk(tree) if isinstance(node, ast.AnnAssign))
    return functions | {node.id for node in named if isinstance(node, ast.Name)}


def test_no_class_of_a_node_extends_one_of_another_file(whole_node):
    """A method of one could get the short name that another one of the other has, and take its place."""
    known = {*dir(builtins), "NamedTuple", "Protocol"}
    for path, text in whole_node.items():
        tree = ast.parse(text)
        own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                assert bases <= known | own, f"{path}: {node.name}"
