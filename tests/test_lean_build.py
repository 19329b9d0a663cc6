"""A node's bytecode carries what it uses, under names that cost no heap; and it still says the same."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from bega.devices import with_profile
from bega_firmware.arguments import share_arguments
from bega_firmware.board import read_board
from bega_firmware.build import build, frozen_profiles, slot_files
from bega_firmware.bytecode import compile_source, without_types
from bega_firmware.contents import node_devices, sources
from bega_firmware.edits import edited, instead
from bega_firmware.lean import Lean, lean
from bega_firmware.merge import merge
from bega_firmware.rom_names import ROM_NAMES
from bega_firmware.shake import shake
from bega_firmware.shorten import shorten
from bega_protocols.reading import QUANTITIES

ROOT = Path(__file__).parent.parent
DEVICES = ROOT / "protocols/bega_protocols/devices"
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
AIR = ["pms5003", "scd41", "sht4x"]
TRIED = node_devices() if os.environ.get("BEGA_PROFILE") == "nightly" else AIR

needs_micropython = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")

# Interns each name as an attribute and asks the interpreter how many names lie on its heap by then.
COUNT = """
import micropython
class Holder:
    pass
holder = Holder()
for name in %r.split():
    setattr(holder, name, 1)
micropython.qstr_info()
"""


def micropython(*arguments: object, **environment: str) -> str:
    outcome = subprocess.run(
        [MICROPYTHON, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def on_heap(names: str) -> int:
    return int(re.search(r"n_qstr=(\d+)", micropython("-c", COUNT % names))[1])


@needs_micropython
def test_names_that_are_given_cost_the_interpreter_nothing():
    of_the_script = on_heap("abs")
    assert on_heap("abs quite_unknown_name") == of_the_script + 1, "the count sees a new name"
    assert on_heap(" ".join(ROM_NAMES)) == of_the_script
    assert len(set(ROM_NAMES)) == len(ROM_NAMES)


# Each kind of statement for which MicroPython's compiler may load something by a name that the source has not.
EVERY_KIND = """
import builtins as Z_
class Own_(Z_.object):
    both_ = 1
    def __enter__(self_): return self_
    def __exit__(self_, *of_): return False
    async def __aenter__(self_): return self_
    async def __aexit__(self_, *of_): return False
    def __iter__(self_): yield from (1, 2)
class More_(Own_):
    def again_(self_, *rest_, **named_): return f"{self_.both_} of", rest_, named_
async def waits_(fails_):
    async with Own_() as own_:
        if fails_:
            raise Z_.OSError(5)
        return own_.both_
def runs_():
    global seen_
    seen_ = {one_: {one_} for one_ in Own_()}
    with More_() as own_:
        first_, *rest_ = [both_ for both_ in (2, 4, 6) if both_]
    try:
        assert not seen_, "it is not empty"
    except (Z_.AssertionError, Z_.OSError) as error_:
        del error_
    finally:
        first_ += 1
    while first_ < 9:
        first_ **= 2
    else:
        third_ = lambda at_=3: at_ + 1 if at_ is not None else at_ not in rest_[::1]
    return own_.again_(*rest_, **{"key_": third_()}), first_
for fails_ in (False, True):
    try:
        Z_.next(waits_(fails_))
    except (Z_.StopIteration, Z_.OSError) as end_:
        Z_.print(Z_.repr(end_))
Z_.print(runs_())
"""


@needs_micropython
def test_names_that_are_given_mean_nothing_to_what_the_compiler_puts_in(tmp_path):
    """A function of ours may have any of them: `async with` would find our BaseException in place of the error."""

    def said(shadowed: Iterable[str]) -> str:
        script = tmp_path / "every_kind.py"
        script.write_text("".join(f"{name} = None\n" for name in shadowed) + EVERY_KIND)
        return micropython(script)

    assert said(ROM_NAMES) == said([])
    for name in ("BaseException", "AssertionError"):
        with pytest.raises(AssertionError, match="TypeError"):
            said([name])


@pytest.fixture(scope="module")
def air_sources() -> dict[str, str]:
    found = sources(read_board("esp32_devkitc"), AIR, ["broker"])
    return {source.target: source.path.read_text(encoding="utf-8") for source in found}


@pytest.fixture(scope="module")
def air_lean(air_sources) -> Lean:
    return lean(air_sources, (), {})


@pytest.fixture(scope="module")
def air_shaken(air_sources) -> dict[str, str]:
    """As `lean` begins: what is left keeps its name."""
    return shaken(air_sources)


def shaken(texts: dict[str, str], words: tuple[str, ...] = ()) -> dict[str, str]:
    return shake({path: without_types(text) for path, text in texts.items()}, words)


def test_each_line_is_found_in_its_source_and_all_of_it_compiles(air_sources, air_lean):
    for path, text in air_lean.texts.items():
        compile(text, path, "exec")
        lines = text.splitlines()
        pieces = air_lean.pieces[path]
        assert pieces[0][0] == 1
        for number, line in enumerate(lines, 1):
            first, source, line_there = [piece for piece in pieces if piece[0] <= number][-1]
            there = air_sources[source].splitlines()[number - first + line_there - 1 :][:1]
            if there and line.lstrip().startswith("#"):
                assert line == there[0], f"{path}:{number}"
    assert len(air_lean.pieces["/app.py"]) > 5, "sensor, wires, flash, store and more moved there"


def test_no_two_names_of_a_file_become_one(air_lean, air_shaken):
    before = merge(air_shaken).texts
    for path, names in air_lean.names.items():
        used = {node.id for node in ast.walk(ast.parse(before[path])) if isinstance(node, ast.Name)}
        assert not used & set(names), f"{path}: a short name is used there already"


def test_what_a_technician_may_replace_keeps_its_names(air_sources, air_lean):
    assert air_lean.texts["/main.py"] == air_sources["/main.py"]
    assert air_lean.texts["/board.py"] == air_sources["/board.py"]


def test_what_no_node_uses_is_left_out(air_shaken):
    assert "parse_float" not in air_shaken["/lib/bega_protocols/senml.py"], "a node reads no packs"
    assert "_table" not in air_shaken["/lib/bega_protocols/checks.py"], "this one speaks no Modbus"
    assert "def crc8_sensirion" in air_shaken["/lib/bega_protocols/checks.py"]


def test_node_knows_the_quantities_of_its_drivers_and_no_others(air_shaken):
    known = quantities(air_shaken)
    assert said_by(AIR) <= known < set(QUANTITIES)
    assert "water_volume" not in known


def test_node_knows_the_quantities_of_a_register_map_on_its_flash(air_sources):
    assert {"active_energy_import", *said_by(AIR)} <= quantities(shaken(air_sources, ("active_energy_import",)))


def test_no_device_says_a_quantity_that_its_node_does_not_know():
    found = sources(read_board("esp32_devkitc"), node_devices())
    maps = tuple(word for content in frozen_profiles().values() for word in re.findall(r"\w+", content.decode()))
    texts = shaken({source.target: source.path.read_text(encoding="utf-8") for source in found}, maps)
    assert said_by(node_devices()) <= quantities(texts)


def quantities(texts: dict[str, str]) -> set[str]:
    scope: dict[str, object] = {}
    exec(texts["/lib/bega_protocols/reading.py"], scope)
    return set(scope["QUANTITIES"])


def said_by(devices: list[str]) -> set[str]:
    vectors = [
        vector
        for device in devices
        for vector in json.loads((DEVICES / device / "vectors.json").read_text(encoding="utf-8"))["vectors"]
    ]
    return {
        row[0] for vector in vectors for group in vector.get("groups", [vector.get("readings", [])]) for row in group
    }


@needs_micropython
@pytest.mark.parametrize("device", TRIED)
def test_lean_driver_reads_its_vectors_as_the_whole_one_does(tmp_path, device):
    """In a node of its own: beside others it may live on what only these use."""
    for path, content in slot_files(build(read_board("esp32_devkitc"), [device], ["broker"])).items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    vectors = json.loads((DEVICES / device / "vectors.json").read_text(encoding="utf-8"))["vectors"]
    cases = [
        {
            "name": vector["name"],
            "settings": with_profile(vector.get("settings", {})),
            "chunks": vector.get("chunks", [vector.get("frame", "")]),
            "groups": vector.get("groups", [vector["readings"]] if vector.get("readings") else []),
        }
        for vector in vectors
    ]
    file = tmp_path / "cases.json"
    file.write_text("\n".join(json.dumps(line) for line in [{"device": device, "stream": False}, *cases]))
    said = micropython(
        ROOT / "tests/micropython/device_contract.py", file, MICROPYPATH=f"{tmp_path}/lib:{tmp_path}:.frozen"
    )
    assert f"{len(cases)} vectors hold" in said


FAILING = """
def second(a, b=2, *, c=3):
    a += b
    if c:
        a()


class K:
    def first(self, many):
        shown = lambda one: second(one)
        return [shown(one) for one in many]
"""


@needs_micropython
def test_traceback_names_the_line_where_the_statements_of_its_function_begin(tmp_path):
    (tmp_path / "part.mpy").write_bytes(compile_source(900 * "\n" + FAILING, "part"))
    script = "import sys, part\ntry:\n part.K().first([1])\nexcept Exception as e:\n sys.print_exception(e, sys.stdout)"
    said = micropython("-c", script, MICROPYPATH=str(tmp_path))
    where = re.findall(r'"part", line (\d+), in (\S+)', said)
    assert where == [("910", "first"), ("1", "<listcomp>"), ("1", "<lambda>"), ("903", "second")]


def test_argument_takes_the_name_of_an_attribute_of_its_file_and_of_nothing_else():
    text = "import json\n\ndef put(place, *, by=1):\n    return json.dumps(place.there) + place.where(by)\n"
    found = share_arguments({"/part.py": text, "/main.py": "import part\npart.put(1, by=2)\n"})["/part.py"]
    assert "def put(dumps, *, by=1):" in found
    assert "json.dumps(dumps.there) + dumps.where(by)" in found


SOURCE = """
import thing

LIMIT_MS = 3 * 1000  # reasons
USED, UNUSED = 1, 2


class Speaker:
    words = ("alpha",)

    def __init__(self, device, volume=1):
        self._hidden = device
        self.alpha = volume

    def say(self, louder_ms):
        return self._hidden.say(thing.shout(loud=louder_ms)) + LIMIT_MS + USED

    def never_asked(self):
        return self.never_asked()


def start(folder):
    return Speaker(folder, volume=3).say(2)


def alone():
    return alone()
"""
MAIN = "import part\n\npart.start(1)\n"


def test_only_what_nobody_outside_can_mean_is_renamed():
    texts, names = shorten({"/main.py": MAIN, "/part.py": SOURCE})
    short = {name: short for short, name in names["/part.py"].items()}
    assert {"Speaker", "_hidden", "say", "louder_ms", "folder"} <= set(short)
    assert not {"start", "part", "thing", "shout", "loud", "volume", "alpha", "__init__"} & set(short)
    assert set(short.values()) <= set(ROM_NAMES)
    assert texts["/main.py"] == MAIN


def test_constant_is_written_where_it_is_used_and_lines_stay():
    texts, _ = shorten({"/main.py": MAIN, "/part.py": SOURCE})
    assert "+ (3000) + (1)" in texts["/part.py"]
    assert "LIMIT_MS" not in texts["/part.py"]
    assert "# reasons" in texts["/part.py"].splitlines()[3]
    assert texts["/part.py"].count("\n") == SOURCE.count("\n")


def test_constant_of_another_module_needs_no_import():
    texts, _ = shorten({"/main.py": "import b\n", "/a.py": "SIZE = 4\n", "/b.py": "from a import SIZE\nprint(SIZE)\n"})
    assert texts["/b.py"] == "pass\nprint((4))\n"


def test_what_nothing_asks_for_is_left_out_and_what_only_that_used():
    whole = SOURCE + "\n\ndef of_alone():\n    return hidden()\n\n\ndef hidden():\n    return 1\n"
    text = shake({"/main.py": MAIN, "/part.py": whole})["/part.py"]
    assert "never_asked" not in text
    assert "alone" not in text
    assert "hidden()" not in text
    assert "def say" in text
    assert text.count("\n") == whole.count("\n")


@pytest.mark.parametrize(
    "use",
    [
        "getattr(part, 'alone')()",
        "part.alone()",
        "from part import alone\nalone()",
        "print('alone,together')",
        "__import__('pa' + 'rt').alone()",
    ],
)
def test_what_is_asked_for_in_any_way_stays(use):
    assert "def alone" in shake({"/main.py": f"import part\n{use}\npart.start(1)\n", "/part.py": SOURCE})["/part.py"]


def test_module_that_nothing_imports_stays_at_home():
    found = shake({"/main.py": MAIN, "/part.py": SOURCE, "/other.py": "def work():\n    return 1\n"})
    assert sorted(found) == ["/main.py", "/part.py"]


def merged(host: str, guest: str) -> dict[str, str]:
    return merge({"/main.py": "import host\n", "/host.py": host, "/guest.py": guest}).texts


def run(text: str, says: str) -> object:
    scope: dict[str, object] = {}
    exec(text, scope)
    return eval(says, scope)


def test_module_with_one_importer_moves_there():
    found = merged("from guest import work\n\nprint(work)\n", "SIZE = 3\n\n\ndef work():\n    return SIZE\n")
    assert sorted(found) == ["/host.py", "/main.py"]
    assert run(found["/host.py"], "work()") == 3


def test_names_that_both_have_stay_apart():
    host = "from guest import work\n\n_LIMIT = 1\n\n\ndef both():\n    return _LIMIT, work()\n"
    found = merged(host, "_LIMIT = 2\n\n\ndef work():\n    return _LIMIT\n")
    assert sorted(found) == ["/host.py", "/main.py"]
    assert run(found["/host.py"], "both()") == (1, 2)


@pytest.mark.parametrize(
    ("host", "guest"),
    [
        ("def late():\n    from guest import work\n", "def work():\n    return 1\n"),
        ("import guest\n\nguest.work()\n", "def work():\n    return 1\n"),
        ("from guest import work as w\n", "def work():\n    return 1\n"),
        ("from guest import work\n\nx = 1\n", "x = 2\n\n\ndef work(x):\n    return x\n"),
    ],
    ids=["imported late", "as a module", "under another name", "a name in the way"],
)
def test_module_that_cannot_move_stays(host, guest):
    assert "/guest.py" in merged(host, guest)


def test_module_of_two_stays():
    texts = {"/main.py": "import a\nimport b\n", "/a.py": "from c import x\n", "/b.py": "from c import x\n"}
    assert "/c.py" in merge({**texts, "/c.py": "x = 1\n"}).texts


def test_edit_within_another_is_gone_with_it():
    text = "def a():\n    from b import c\n\n\nd = 1\n"
    function = ast.parse(text).body[0]
    assert edited(text, [instead(function.body[0], "pass"), instead(function, "pass")]) == "pass\n\n\n\nd = 1\n"
