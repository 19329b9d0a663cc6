"""`bega node flash`: interpreter and file system onto one board, or all that are plugged in."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from bega.clock import mono_s
from bega.update_keys import moduli
from bega_firmware.board import board_names, read_board
from bega_firmware.book import FLASHED, note
from bega_firmware.build import build, write
from bega_firmware.bytecode import compiler_version
from bega_firmware.contents import WAYS, node_devices
from bega_firmware.data_folder import data_folder
from bega_firmware.earlier import key_of, made_before
from bega_firmware.flash import PROMPT, FlashedBoard, board_at, flash, read_build
from bega_firmware.outcome import Outcome, lines
from bega_firmware.ports import chosen_ports
from bega_protocols.errors import ConfigError

PURPOSE = "write interpreter and firmware onto a board, and read them back"
EXAMPLES = """examples:
  bega node flash --board esp32_devkitc --firmware ESP32_GENERIC-20260406-v1.28.0.bin
  bega node flash --board air_carrier --all
  bega node flash --port /dev/ttyUSB1 --build build/pole --json

--port: a device, a pseudo-terminal, socket://HOST:PORT or rfc2217://HOST:PORT; without it, the only board on USB
(`bega node ports` lists them). The interpreter's image is a file that you bring: nothing is downloaded, and only an
image that was added (`bega node interpreter add FILE`) is taken; without --firmware the newest of those for the chip.
A virtual board brings its interpreter. What a node stored is gone afterwards, its identity too."""
BUILDS = "builds"
BAR = 24


def add_to(verbs: Any) -> None:
    """Add the verb to `bega node`."""
    parser = verbs.add_parser(
        "flash",
        help=PURPOSE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", action="append", default=[], metavar="P", help="the board's port; may be repeated")
    parser.add_argument("--all", action="store_true", help="every board on USB, at once")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--board", choices=board_names(), metavar="BOARD", help=f"one of {', '.join(board_names())}")
    what.add_argument("--build", type=Path, metavar="DIR", help="what `bega node build` made (default: built now)")
    parser.add_argument(
        "--update-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --board: public key of its updates, at most two (default: none, and it takes none)",
    )
    parser.add_argument("--firmware", type=Path, metavar="IMAGE", help="the interpreter's image")
    parser.add_argument("--json", action="store_true", help="progress and outcome as JSON, an object a line")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Flash; return 1 if one of several boards could not be. Raises ConfigError if nothing could be begun."""
    ports = chosen_ports(args.port, args.all)
    if args.build and args.update_key:
        raise ConfigError("--update-key is for a build that is made now: give it to `bega node build`")
    folder = args.build or built(args.board or board_for(board_at(ports[0]).chip), args.update_key)
    read_build(folder)
    show = Lines(ports, sys.stdout if args.json else sys.stderr, args.json)
    with ThreadPoolExecutor(len(ports)) as pool:
        outcomes = list(pool.map(lambda port: flash_one(port, folder, args.firmware, show), ports))
    show.end()
    for port, (outcome, board) in zip(ports, outcomes, strict=True):
        if args.json:
            print(json.dumps({"port": port, "step": "done", **asdict(outcome), **(asdict(board) if board else {})}))
        else:
            print("\n".join(lines(outcome)), file=sys.stdout if outcome.passed else sys.stderr)
    return 0 if all(outcome.passed for outcome, _ in outcomes) else 1


def flash_one(port: str, folder: Path, interpreter: Path | None, show: Lines) -> tuple[Outcome, FlashedBoard | None]:
    """Flash the board at `port`, note it in the bench book, and return what came of it."""
    began_s, facts = mono_s(), read_build(folder).facts
    known = {"board": facts["board"], "firmware": facts["firmware"]}
    try:
        board = flash(port, folder, interpreter, lambda step, done, whole: show.step(port, step, done, whole))
    except ConfigError as error:
        show.step(port, "failed", 0, 0)
        note(data_folder(), FLASHED, False, str(error), port=port, **known)
        return Outcome(f"flash {port}", False, str(error), took_s=mono_s() - began_s), None
    show.step(port, "done", 0, 0)
    words = told(board, facts)
    note(
        data_folder(),
        FLASHED,
        True,
        words,
        port=port,
        chip=board.chip,
        mac=board.mac,
        interpreter=board.interpreter,
        **known,
    )
    return Outcome(f"flash {port}", True, words, took_s=mono_s() - began_s), board


def told(board: FlashedBoard, facts: dict[str, Any]) -> str:
    """Return in a sentence what is on the board now."""
    on = f"{facts['name']}, {board.chip} with {board.flash_mb} MB, {board.mac}"
    if board.by == PROMPT:
        return f"firmware {facts['firmware']} by its prompt, file by file and read back by hash: {on}"
    if board.is_virtual:
        return f"firmware {facts['firmware']}, read back by hash; a virtual board, it brings its interpreter: {on}"
    return f"{board.interpreter} and firmware {facts['firmware']}, read back by hash: {on}"


def built(board: str, update_keys: list[Path]) -> Path:
    """Return the folder with the build for a board with all drivers, made now if its sources are new."""
    devices, keys = node_devices(), moduli(update_keys) if update_keys else b""

    def make(place: Path) -> None:
        write(build(read_board(board), devices, keys=keys), place)

    parts = [*WAYS, keys.hex()]
    return made_before(data_folder() / BUILDS, key_of(board, devices, parts, compiler_version()), make)


def board_for(chip: str) -> str:
    """Return the only board file for a chip. Raises ConfigError if there are several, or none."""
    fitting = [name for name in board_names() if read_board(name).chip == chip]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise ConfigError(f"no board file is for an {chip}: write one (firmware/boards) and name it with --board")
    raise ConfigError(f"several boards have an {chip}: say with --board which of {', '.join(fitting)} it is")


class Lines:
    """One line of progress for each board: redrawn on a terminal, JSON where a machine reads, else none."""

    def __init__(self, ports: list[str], out: TextIO, as_json: bool) -> None:
        self._lines = dict.fromkeys(ports, "")
        self._out = out
        self._as_json = as_json
        self._is_drawn = False
        self._last: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def step(self, port: str, step: str, done: int, whole: int) -> None:
        """Show how far the board at `port` is, where that is another whole hundredth."""
        percent = 100 * done // whole if whole else 0
        with self._lock:
            if self._last.get(port) == (step, percent):
                return
            self._last[port] = (step, percent)
            if self._as_json:
                print(json.dumps({"port": port, "step": step, "done": done, "of": whole}), file=self._out, flush=True)
            elif self._out.isatty():
                bar = f"[{'#' * (BAR * percent // 100):{BAR}}] {percent:3} %" if whole else ""
                self._lines[port] = f"{port}  {step:10} {bar}"
                self._draw()

    def end(self) -> None:
        """Take the lines away: what came of it is said in words."""
        if self._is_drawn:
            self._out.write(f"\x1b[{len(self._lines)}F\x1b[J")
            self._out.flush()

    def _draw(self) -> None:
        up = f"\x1b[{len(self._lines)}F" if self._is_drawn else ""
        self._out.write(up + "".join(f"\x1b[2K{line}\n" for line in self._lines.values()))
        self._out.flush()
        self._is_drawn = True
