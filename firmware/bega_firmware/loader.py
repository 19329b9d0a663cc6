"""esptool, run as a program: what it is asked, what its words mean. It is GPL and never imported.

Its output is for people, and changes from release to release: what we read of it is looked for in all of it, and what
is not found is an error that shows its last words.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bega.extras import how_to_install
from bega_firmware.cable_faults import no_port
from bega_protocols.errors import ConfigError

Progress = Callable[[str, int, int], None]  # (what is being done, bytes done, bytes in all)

FAST_BAUD, SAFE_BAUD = 460800, 115200
ENDS_WITHIN_S = 900.0  # 16 MB at the slow rate, and more
SURROUNDINGS = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
# Its own settings ("Configuration File" in its documentation): on a busy laptop 3 s are little.
SETTINGS = "[esptool]\ntimeout = 15\nsync_timeout = 0.2\nconnect_attempts = 5\n"
CHIP = re.compile(r"(?:Connected to|Detecting chip type\.\.\.)\s+(ESP32(?:-[A-Z]\d+)?)\b")
MAC = re.compile(r"\bMAC:\s+((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\b")
FLASH = re.compile(r"Detected flash size:\s+(\d+)\s*MB")
PART = re.compile(r"^Writing '")
PERCENT = re.compile(r"^(?:Writing|Wrote) at 0x[0-9a-f]+\b.*?\b(\d{1,3})\.\d\s*%")
ERROR = re.compile(r"(?:fatal error occurred|\bERROR|\bError):\s*(.+)")
# What goes wrong, by esptool's words for it, the most telling first; {port}.
FAULTS = (
    (r"Wrong boot mode", "the board at {port} starts its program and not its ROM: hold BOOT down, and try again"),
    (
        r"No serial data received",
        "the board at {port} says nothing: has it power, and does its cable carry data (some only charge)? Else hold"
        " BOOT down, press EN, and try again",
    ),
    (
        r"Failed to connect|Invalid head of packet|Serial data stream stopped|Timed out waiting|StopIteration",
        "the board at {port} is not understood: close what else may use the port, take a shorter cable, no hub, or hold"
        " BOOT down and press EN, and try again",
    ),
    (
        r"MD5 of file does not match|Verification failed|digest mismatch|contents do not match",
        "what was written at {port} reads back otherwise: try again; if it stays so, the flash of this board is worn"
        " out",
    ),
    (
        r"Input/output error|readiness to read but returned no data|device disconnected|No such device|Broken pipe"
        r"|Connection reset|socket disconnected|connection failed",
        "the cable at {port} was pulled, or the board lost its power: plug it in and run the same command again",
    ),
    (r"larger than|exceeds? (?:the )?flash|will not fit", "the flash of the board at {port} is too small for this"),
)


@dataclass(frozen=True)
class Chip:
    """What a board's ROM says of it."""

    chip: str  # as esptool calls it in its options: "esp32c3"
    mac: str  # "24:0a:c4:00:00:04"
    flash_mb: int


@dataclass(frozen=True)
class Way:
    """How esptool reaches a board."""

    port: str  # as the technician called it
    opened: str  # as esptool opens it
    has_lines: bool  # whether esptool itself brings it into the ROM and out again
    baud: int = SAFE_BAUD


def ask(way: Way) -> Chip:
    """Return what the board's ROM says; it stays there where nobody could bring it back. Raises ConfigError."""
    said = esptool(way, "flash-id")
    chip, mac, flash = CHIP.search(said), MAC.search(said), FLASH.search(said)
    if not chip:
        raise ConfigError(f"the board at {way.port} is no ESP32, or esptool's words have changed: {_last(said)}")
    if not flash or not mac:
        raise ConfigError(f"the flash of the board at {way.port} does not answer: it is broken, or none that is known")
    return Chip(chip[1].lower().replace("-", ""), mac[1], int(flash[1]))


def write(way: Way, parts: Sequence[tuple[int, Path]], progress: Progress) -> None:
    """Write files, each to its place, in one pass; each is read again by its hash. Raises ConfigError."""
    sizes = [path.stat().st_size for _, path in parts]
    begun = -1

    def said(line: str) -> None:
        nonlocal begun
        if PART.match(line):
            begun += 1
        elif (found := PERCENT.match(line)) and 0 <= begun < len(sizes):
            progress("writing", sum(sizes[:begun]) + sizes[begun] * int(found[1]) // 100, sum(sizes))

    text = esptool(way, "write-flash", *_places(parts), said=said)
    if text.count("Hash of data verified") != len(parts):
        raise ConfigError(f"not all that was written at {way.port} was read back: {_last(text)}; try again")
    progress("writing", sum(sizes), sum(sizes))


def verify(way: Way, parts: Sequence[tuple[int, Path]]) -> None:
    """Let the chip hash what lies in its flash once more, in a session of its own. Raises ConfigError if it differs."""
    text = esptool(way, "verify-flash", *_places(parts))
    if text.count("Verification successful") != len(parts):
        raise ConfigError(f"what lies in the flash at {way.port} is not what was written: try again ({_last(text)})")


def start(way: Way) -> None:
    """Leave the ROM for the program, where no line of the port can: what esptool says of RTS is of no matter."""
    esptool(way, "run", after="hard-reset")


def esptool(way: Way, *arguments: str, after: str = "", said: Callable[[str], None] | None = None) -> str:
    """Run it and return all it said; said(line) hears each line as it comes. Raises ConfigError in our own words."""
    if find_spec("esptool") is None:
        raise ConfigError(f"flashing needs esptool; {how_to_install('tech')}")
    before, usual = ("default-reset", "hard-reset") if way.has_lines else ("no-reset", "no-reset-stub")
    words = ["--port", way.opened, "--baud", str(way.baud), "--before", before, "--after", after or usual, *arguments]
    with tempfile.TemporaryDirectory(prefix="bega-esptool-") as folder:
        settings = Path(folder) / "esptool.cfg"
        settings.write_text(SETTINGS, encoding="utf-8")
        code, text = _run(words, {**SURROUNDINGS, "ESPTOOL_CFGFILE": str(settings)}, said)
    if code != 0:
        raise ConfigError(_complaint(way.port, text))
    return text


def _run(words: list[str], surroundings: Mapping[str, str], said: Callable[[str], None] | None) -> tuple[int, str]:
    """Return its exit code and what it said."""
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", "esptool", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **surroundings},
    ) as program:
        assert program.stdout is not None
        alarm = threading.Timer(ENDS_WITHIN_S, program.kill)
        alarm.start()
        try:
            for line in program.stdout:
                lines.append(line.strip())
                if said is not None:
                    said(lines[-1])
        except BaseException:
            program.kill()  # Ctrl-C: it must not go on by itself
            raise
        finally:
            alarm.cancel()
    return program.returncode, "\n".join(lines)


def _places(parts: Sequence[tuple[int, Path]]) -> list[str]:
    return [word for place, path in parts for word in (hex(place), str(path))]


def _complaint(port: str, text: str) -> str:
    if "the port is busy or doesn't exist" in text:
        return no_port(port)
    for words, meaning in FAULTS:
        if re.search(words, text):
            return meaning.format(port=port)
    return f"esptool gave up at {port}: {_last(text)}"


def _last(text: str) -> str:
    found = ERROR.findall(text)
    lines = [line for line in text.splitlines() if line]
    return str(found[-1] if found else lines[-1] if lines else "it said nothing")
