"""The house keeps its own rules: who may import whom, and where clock and chance may come from."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("bega", "bega_protocols", "bega_gateway", "bega_kiosk", "bega_city", "bega_firmware", "bega_simulators")
TOP_LEVEL = ("bega", "protocols", "gateway", "kiosk", "city", "firmware", "simulators", "hil_tests", "tests", "docs")

# folder: the packages of ours that it may import
MAY_IMPORT = {
    "protocols/bega_protocols": {"bega_protocols"},
    "bega": {"bega", "bega_protocols"},
    "gateway/bega_gateway": {"bega_gateway", "bega", "bega_protocols"},
    "kiosk/bega_kiosk": {"bega_kiosk", "bega", "bega_protocols"},
    "firmware/bega_firmware": {"bega_firmware", "bega", "bega_protocols"},
    "firmware/boards": set(),
    "simulators/bega_simulators": {"bega_simulators", "bega", "bega_protocols"},
    "city/bega_city": {"bega_city", "bega", "bega_protocols"},
}
PROTOCOLS_STANDARD_LIBRARY = {"struct", "collections", "binascii", "json", "hashlib"}
SIM_OF_PROTOCOLS = {"bega_protocols.errors", "bega_protocols.checks"}

# The seams: these take the clock and the random source as arguments.
SEAMED = ("bega", "gateway/bega_gateway", "kiosk/bega_kiosk")
CLOCK_ITSELF = "bega/clock.py"
BANNED_CALLS = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "datetime.now", "datetime.utcnow"}
BANNED_CALLS |= {"random.random", "random.uniform", "random.randint", "random.choice", "date.today"}

MICROPYTHON_LACKS = {"typing", "dataclasses", "enum", "contextlib", "__future__", "hmac", "_thread"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def of(folder: str) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sources(folder)]


def everywhere(folders: tuple[str, ...] | dict[str, set[str]]) -> list[object]:
    return [
        pytest.param(folder, path, id=str(path.relative_to(ROOT))) for folder in folders for path in sources(folder)
    ]


def imports(path: Path) -> list[str]:
    """Return the modules that `path` imports when it runs: what stands under TYPE_CHECKING is for the type checker."""
    found: list[str] = []
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name, not relative"
            found.append(node.module or "")
        pending.extend(ast.iter_child_nodes(node))
    return found


def package(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize(("folder", "path"), everywhere(MAY_IMPORT))
def test_folder_imports_only_whom_it_may(folder, path):
    ours = {package(module) for module in imports(path)} & set(OURS)
    assert ours <= MAY_IMPORT[folder]


@pytest.mark.parametrize("path", of("protocols/bega_protocols"))
def test_protocols_stay_pure(path):
    if path.name == "sim.py":
        return
    standard = {package(module) for module in imports(path)} - set(OURS)
    assert standard <= PROTOCOLS_STANDARD_LIBRARY


@pytest.mark.parametrize("path", of("protocols/bega_protocols"))
def test_protocols_compute_without_floats(path):
    """An ESP32's floats have 24 bits; true division makes one, a constant with a point is one."""
    if path.name == "sim.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), f"line {node.lineno}"
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), f"line {node.lineno}"
        assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "float"), f"line {node.lineno}"


@pytest.mark.parametrize("path", of("protocols/bega_protocols/devices"))
def test_simulator_and_codec_know_nothing_of_each_other(path):
    modules = imports(path)
    if path.name == "sim.py":
        ours = {module for module in modules if package(module) in OURS}
        assert ours <= SIM_OF_PROTOCOLS, "a simulator written with the codec's tools checks nothing"
    else:
        assert not [module for module in modules if module.endswith(".sim")]


@pytest.mark.parametrize("path", of("protocols/bega_protocols/devices"))
def test_device_imports_no_other_device(path):
    device = path.relative_to(ROOT / "protocols/bega_protocols/devices").parts[0]
    for module in imports(path):
        parts = module.split(".")
        if parts[:2] == ["bega_protocols", "devices"]:
            assert parts[2:3] == [device], f"share upward instead: {module}"


@pytest.mark.parametrize(
    "path", [*of("gateway/bega_gateway"), *of("kiosk/bega_kiosk"), *of("firmware/bega_firmware"), *of("bega")]
)
def test_product_imports_no_simulator(path):
    assert not [module for module in imports(path) if module.endswith(".sim")]


@pytest.mark.parametrize("path", of("firmware/node"))
def test_node_runs_on_micropython_alone(path):
    modules = imports(path)
    assert not {package(module) for module in modules} & MICROPYTHON_LACKS
    assert not [module for module in modules if module.endswith(".sim")]
    assert not {package(module) for module in modules} & (set(OURS) - {"bega_protocols"})
    text = path.read_text(encoding="utf-8")
    assert "unix" not in text, "firmware knows nothing of where it runs"
    assert "hexdigest" not in text


@pytest.mark.parametrize(("folder", "path"), everywhere(SEAMED))
def test_clock_and_chance_are_passed_in(folder, path):
    if str(path.relative_to(ROOT)) == CLOCK_ITSELF:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert not any(ast.unparse(node.func).endswith(call) for call in BANNED_CALLS), f"line {node.lineno}"


def test_only_bega_is_a_package_itself():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == {"bega"}


def test_top_level_holds_no_folder_that_the_house_does_not_know():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders - {"build", "dist", "__pycache__"} <= set(TOP_LEVEL)


@pytest.mark.parametrize("word", ["manager", "helper", "utils", "util", "base", "common", "misc"])
def test_no_file_is_named_for_nothing(word):
    named = [path for folder in TOP_LEVEL for path in sources(folder) if word in path.stem.split("_")]
    assert not named


def test_what_has_a_night_is_in_a_part_of_it():
    """A check that only the night makes, in a module that no part names, would never be made."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for module in sorted(ROOT.glob("tests/test_*.py")):
        if module.name.startswith("test_kiosk_") or module == Path(__file__):
            continue  # the kiosk's part takes them by their names
        if "nightly" in module.read_text(encoding="utf-8").lower():
            assert f"tests/{module.name}" in makefile, module.name
