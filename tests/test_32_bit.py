"""The device contract where objects and small integers have 32 bits, as on an ESP32: MicroPython's WebAssembly build.

It comes from npm, pinned by tests/micropython/wasm/package-lock.json, without root, into the user's cache; node 18 or
later runs it. Its floats have 64 bits, so it says nothing about those; nothing in protocols/ has any.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bega.devices import device_names
from tests.test_devices import ASKED, measurements_for_micropython, vectors_for_micropython, write_book

ROOT = Path(__file__).parent.parent
WASM = ROOT / "tests/micropython/wasm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bega/micropython-wasm"
NODE, NPM = shutil.which("node"), shutil.which("npm")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("BEGA_PROFILE") != "nightly", reason="at night: make nightly PART=firmware"),
    pytest.mark.skipif(NODE is None or NPM is None, reason="no node and npm here (Debian: nodejs, npm)"),
]


@pytest.fixture(scope="module")
def runner() -> Path:
    """Return run.mjs beside the pinned package, which is fetched once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for file in WASM.iterdir():
        if file.is_file():
            shutil.copy(file, CACHE)
    fetched = subprocess.run(
        [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=CACHE,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if fetched.returncode and "EINTEGRITY" not in fetched.stderr:
        pytest.skip(f"npm cannot fetch it: {fetched.stderr[-200:]}")
    assert fetched.returncode == 0, fetched.stderr
    return CACHE / "run.mjs"


def on_32_bits(runner: Path, books: list[dict[str, Any]], folder: Path) -> list[str]:
    files = [write_book(book, folder) for book in books]
    script = ROOT / "tests/micropython/device_contract.py"
    protocols = ROOT / "protocols"
    outcome = subprocess.run([NODE, runner, script, protocols, *files], capture_output=True, text=True, timeout=900)
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    return outcome.stdout.splitlines()


def test_every_device_keeps_its_contract_on_32_bits(runner, tmp_path):
    said = on_32_bits(runner, [vectors_for_micropython(device) for device in device_names()], tmp_path)
    assert len(said) == len(device_names())
    assert all(" 0 vectors" not in line for line in said)


def test_recorded_measurements_come_out_the_same_on_32_bits(runner, tmp_path):
    said = on_32_bits(runner, [measurements_for_micropython(device) for device in ASKED], tmp_path)
    assert len(said) == len(ASKED)
    assert all(" 0 measurements" not in line for line in said)
