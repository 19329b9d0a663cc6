"""The virtual chip against the ESP32 port's stubs: what the firmware finds there is what a board has, and no more."""

import ast
import inspect
from importlib.metadata import distribution
from pathlib import Path

import pytest

from bega_simulators.board.port import MODULES, UART, Machine
from tests.shim_bench import SHIM

STUBS = distribution("micropython-esp32-stubs")
# What the port has and its stubs do not name, each with where it is written.
UNNAMED = {
    "machine.Pin.hold": "quick reference for the ESP32, Pins and GPIO: pad hold",
    "esp32.gpio_deep_sleep_hold": "quick reference for the ESP32, Deep-sleep mode",
    "esp32.VIRTUAL_BOARD": "docs/virtual-board.md: by it a technician's tool knows that it is none",
}
LEFT_OUT = {"priority", "hard", "pins", "alt", "datetime"}  # parameters of other ports


def stub(module: str) -> ast.Module:
    return ast.parse(Path(str(STUBS.locate_file(f"{module}.pyi"))).read_text(encoding="utf-8"))


def named(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """Return what each name is: overloads are several."""
    found: dict[str, list[ast.stmt]] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.setdefault(node.target.id, []).append(node)
    return found


def members(module: str, name: str) -> dict[str, list[ast.stmt]]:
    """Return the names of a class in the stubs, "" for those of the module itself."""
    names = named(stub(module).body)
    if not name:
        return names
    (node,) = [node for node in names[name] if isinstance(node, ast.ClassDef)]
    return named(node.body)


def parts() -> list[object]:
    found = [pytest.param(module, "", part, id=module) for module, part in MODULES.items()]
    for module, part in MODULES.items():
        found += [pytest.param(module, one.__name__, one, id=f"{module}.{one.__name__}") for one in part._CLASSES]
    return found


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    """Return those that may be given by position, without self."""
    args = [*function.args.posonlyargs, *function.args.args]
    return [arg for arg in args if arg.arg not in ("self", "cls")]


def check_signature(place: str, ours: inspect.Signature, stubs: list[ast.FunctionDef]) -> None:
    """Every call that the stubs know is one that we take, and we take no name that they do not know."""
    known: set[str] = set()
    rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in ours.parameters.values())
    by_position = [p for p in ours.parameters.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    for function in stubs:
        if function.args.vararg or function.args.kwarg:
            return  # the stubs do not know either
        given = parameters(function)
        keywords = [arg.arg for arg in function.args.kwonlyargs]
        known |= {*keywords, *(arg.arg for arg in given)}
        named_only = set(keywords) - set(ours.parameters) - LEFT_OUT
        assert rest or not named_only, f"{place} does not take {named_only}"
        taken = [arg for arg in given if arg.arg not in LEFT_OUT]
        assert len(taken) <= len(by_position), f"{place} takes fewer arguments than the port's"
    own = {name for name in ours.parameters if f"{place.rsplit('.', 1)[0]}.{name}" not in UNNAMED}
    extra = own - known
    by_place_only = {arg.arg for function in stubs for arg in function.args.posonlyargs}
    assert len(extra) <= len(by_place_only), f"{place} takes {extra}, which the port does not"


@pytest.mark.parametrize(("module", "name", "part"), parts())
def test_every_name_is_the_ports_with_its_value_and_its_arguments(module, name, part):
    stubs = members(module, name)
    for word in [word for word in vars(part) if not word.startswith("_")]:
        place = ".".join(filter(None, (module, name, word)))
        if word not in stubs:
            assert place in UNNAMED, f"the port has no {place}"
            continue
        ours, theirs = vars(part)[word], stubs[word]
        functions = [node for node in theirs if isinstance(node, ast.FunctionDef)]
        if functions:
            signature = inspect.signature(ours)
            check_signature(place, signature.replace(parameters=list(signature.parameters.values())[1:]), functions)
            continue
        value = getattr(theirs[0], "value", None)
        if isinstance(value, ast.Constant) and value.value is not Ellipsis:
            assert ours == value.value, place


@pytest.mark.parametrize(("module", "name", "part"), [row for row in parts() if row.values[1]])
def test_every_class_is_made_as_the_port_makes_it(module, name, part):
    functions = [node for node in members(module, name)["__init__"] if isinstance(node, ast.FunctionDef)]
    signature = inspect.signature(part.__init__)
    ours = signature.replace(parameters=list(signature.parameters.values())[1:])
    check_signature(f"{module}.{name}.__init__", ours, functions)


@pytest.mark.parametrize(
    ("file", "module", "name"), [("_uart", "machine", "UART"), ("_partition", "esp32", "Partition")]
)
def test_what_is_near_the_bytes_has_the_ports_names_too(file, module, name):
    stubs = members(module, name)
    tree = ast.parse((SHIM / f"{file}.py").read_text(encoding="utf-8"))
    (ours,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in ours.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "ioctl":
            functions = [stub for stub in stubs[node.name] if isinstance(stub, ast.FunctionDef)]
            most = max(len(parameters(function)) for function in functions)
            assert len(parameters(node)) == most, node.name
        elif isinstance(node, ast.Assign):
            names, values = node.targets[0].elts, node.value.elts
            for target, value in zip(names, values, strict=True):
                assert value.value == stubs[target.id][0].value.value, target.id


def test_uart_is_whole_in_its_two_halves():
    """What the stream does not have, the board's side has."""
    near = {"read", "readinto", "readline", "write", "any", "irq"}
    missing = {
        word
        for word, nodes in members("machine", "UART").items()
        if isinstance(nodes[0], ast.FunctionDef) and not word.startswith("_")
    } - {*near, *vars(UART)}
    assert not missing


def test_nothing_is_missing_of_the_classes_that_a_node_uses():
    for name in ("Pin", "Counter", "ADC", "RTC", "WDT"):
        stubs = {word for word, nodes in members("machine", name).items() if isinstance(nodes[0], ast.FunctionDef)}
        (part,) = [one for one in Machine._CLASSES if one.__name__ == name]
        absent = {word for word in stubs if not word.startswith("_")} - set(vars(part))
        assert absent <= {"mode", "pull", "drive", "block", "width", "deinit", "alarm", "init"}, name
