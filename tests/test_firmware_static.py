"""What the firmware calls, an ESP32 has: its sources are checked against the port's stubs, without being run."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NODE, BOARD = ROOT / "firmware/node", ROOT / "firmware/boards/esp32_devkitc.py"
# What tells of a name or an argument that is not there; the rest tells of annotations, which firmware has none of.
CODES = {"attr-defined", "call-arg", "call-overload", "import-not-found", "name-defined", "import-untyped"}
# What the stubs do not know, or cannot: each with its reason.
KNOWN = {
    '"SSLContext" has no attribute "verify_mode"': "library/ssl: the stubs lack it",
    'No overload variant of "UART" matches argument types "object"': "a table of mixed values has no types",
}


def complaints(folder: Path, sources: dict[str, str]) -> list[str]:
    """Return what mypy says of these files, MicroPython's modules being those of the ESP32 port."""
    stubs = folder / "stubs"
    for package in ("micropython-esp32-stubs", "micropython-stdlib-stubs"):
        for file in distribution(package).files or []:
            if file.suffix == ".pyi" or file.name == "VERSIONS":
                target = stubs / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
    node = folder / "node"
    node.mkdir()
    for name, text in sources.items():
        (node / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", os.devnull, "--cache-dir", str(folder / "cache")]
    command += ["--python-version", "3.11", "--custom-typeshed-dir", str(stubs), "--check-untyped-defs"]
    command += ["--follow-imports", "silent", *sources]
    found = subprocess.run(
        command,
        cwd=node,
        env={**os.environ, "MYPYPATH": f"{stubs}:{ROOT / 'protocols'}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "errors prevented" not in found.stdout, found.stdout
    said = re.findall(r"^([a-z0-9_]+\.py:\d+: error: .*) +\[([a-z-]+)\]$", found.stdout, re.MULTILINE)
    return [line for line, code in said if code in CODES and not any(known in line for known in KNOWN)]


def test_node_calls_only_what_an_esp32_has(tmp_path):
    sources = {path.name: path.read_text(encoding="utf-8") for path in NODE.glob("*.py")}
    assert complaints(tmp_path, {**sources, "board.py": BOARD.read_text(encoding="utf-8")}) == []


WRONG = """
import machine
import esp32
import network
import termios
uart = machine.UART(2, 9600)
uart.read1(4)
machine.I2C(0).readfrom_memory(1, 2, 3)
machine.Pin(2, machine.Pin.OUTPUT)
esp32.Partition("ota_0").set_bootable()
network.WLAN(0).connect("city", "key", timeout=3)
machine.UART(2, speed=9600)
"""


def test_what_an_esp32_lacks_would_be_found(tmp_path):
    found = complaints(tmp_path, {"wrong.py": WRONG})
    assert {int(line.split(":")[1]) for line in found} == {5, 7, 8, 9, 10, 11, 12}


def sources() -> list[object]:
    files = [*NODE.glob("*.py"), *(ROOT / "firmware/boards").glob("*.py")]
    files += [path for path in (ROOT / "protocols/bega_protocols").rglob("*.py") if path.name != "sim.py"]
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted(files)]


def forbidden(tree: ast.AST) -> list[str]:
    """Return what no board can run, or only some: threads, native code, hexdigest, AES in counter mode."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name == "_thread"]
        elif isinstance(node, ast.FunctionDef):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            found += [text for text in decorators if re.search(r"\b(native|viper|asm_\w+)\b", text)]
        elif isinstance(node, ast.Attribute) and node.attr in ("hexdigest", "MODE_CTR"):
            found.append(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "aes" and len(node.args) > 1:
            mode = node.args[1]
            found += ["CTR"] if isinstance(mode, ast.Constant) and mode.value == 6 else []
    return found


@pytest.mark.parametrize("path", sources())
def test_no_threads_native_code_hexdigest_or_counter_mode(path):
    assert forbidden(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import _thread",
        "@micropython.native\ndef f(): pass",
        "@micropython.viper\ndef f(): pass",
        "hashlib.sha256(b'').hexdigest()",
        "cryptolib.aes(key, 6, counter)",
        "aes(key, ucryptolib.MODE_CTR)",
    ],
)
def test_each_of_them_would_be_found(text):
    assert forbidden(ast.parse(text))
