"""`bega node flash`: what it asks of a board and a port, what it writes, and that a second run finishes the first."""

import hashlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from littlefs import LittleFSError

from bega.__main__ import main
from bega_firmware import flash as flash_module
from bega_firmware import flash_files, loader, ports
from bega_firmware.board import MIB, VFS_START
from bega_firmware.flash import flash, read_build, require_fits
from bega_firmware.flash_command import Lines, board_for
from bega_firmware.image import make_image, read_image
from bega_firmware.interpreter_image import read_interpreter
from bega_firmware.loader import Chip, Way
from bega_firmware.ports import chosen_ports, has_lines, require_free, usb_ports
from bega_protocols.errors import ConfigError
from bega_simulators.board.flash import FLASH_BYTES
from bega_simulators.board.slip import framed
from tests.made_interpreter import interpreter
from tests.test_board_serial import Bench, needs_micropython

PROGRAM = b"print('the build', 'runs')\n"
# What cannot be compressed takes several of esptool's blocks: there is a middle to be cut in.
FILES = {"/main.py": PROGRAM, "/a/app.mpy": random.Random(1).randbytes(60_000), "/a/lib/x.mpy": b"x" * 5000}
FILES["/a/facts.json"] = b"{}"
BOARD = Chip("esp32", "24:0a:c4:00:00:04", 4)
IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
CUTS = range(1, 100, 7) if IS_NIGHT else (40,)
BOARDS = 10

by_night = pytest.mark.skipif(not IS_NIGHT, reason="by night: ten boards, or what the pulled plug shows by day")


def silent(step: str, done: int, whole: int) -> None:
    """Progress that nobody watches."""


def made_build(folder: Path, **changes: object) -> Path:
    """Return `folder` with a build of these few files, as `bega node build` writes one."""
    image = make_image(FILES, 2 * MIB)
    (folder / "files").mkdir(parents=True, exist_ok=True)
    (folder / "vfs.bin").write_bytes(image)
    for path, content in FILES.items():
        (folder / "files" / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / path[1:]).write_bytes(content)
    listed = [{"path": path, "bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for path, c in FILES.items()]
    facts = {"firmware": "0.1.0", "board": "esp32_devkitc", "name": "ESP32-DevKitC", "chip": "esp32", "flash_mb": 4}
    facts["image"] = {"file": "vfs.bin", "at": VFS_START, "sha256": hashlib.sha256(image).hexdigest()}
    (folder / "contents.json").write_text(json.dumps({**facts, "files": listed, **changes}))
    return folder


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return made_build(tmp_path_factory.mktemp("build"))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("BEGA_DATA", str(tmp_path / "data"))


def listed(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(**{"device": "/dev/ttyUSB0", "vid": 0x10C4, "pid": 0xEA60, "serial_number": "01", **changes})


def test_boards_on_usb_are_found_by_their_converter():
    own = listed(device="/dev/ttyACM0", vid=0x303A, pid=0x1001, serial_number=None)
    modem = listed(device="/dev/ttyACM1", vid=0x12D1, pid=0x1506)
    onboard = listed(device="/dev/ttyS0", vid=None, pid=None)
    found = usb_ports([listed(), modem, onboard, own])
    assert [(port.port, port.converter) for port in found] == [
        ("/dev/ttyACM0", "the chip's own USB"),
        ("/dev/ttyUSB0", "CP210x"),
    ]


def test_the_only_board_is_taken_and_of_several_none_by_chance():
    one, two = usb_ports([listed()]), usb_ports([listed(), listed(device="/dev/ttyUSB1")])
    assert chosen_ports([], wants_all=False, found=one) == ["/dev/ttyUSB0"]
    assert chosen_ports([], wants_all=True, found=two) == ["/dev/ttyUSB0", "/dev/ttyUSB1"]
    assert chosen_ports(["/dev/x", "/dev/x"], wants_all=False, found=two) == ["/dev/x"]
    with pytest.raises(ConfigError, match=r"2 boards on USB .*--port.*--all"):
        chosen_ports([], wants_all=False, found=two)
    with pytest.raises(ConfigError, match="one that only charges"):
        chosen_ports([], wants_all=False, found=[])


def test_a_port_that_another_program_holds_says_which():
    master, slave = os.openpty()
    port = os.ttyname(slave)
    os.close(slave)
    require_free(port)
    holds = f"import sys, time; file = open({port!r}, 'rb', 0); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holds], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ConfigError, match=rf"held by python\S* \(process {holder.pid}\): end that program"):
            require_free(port)
        holder.kill()
    os.close(master)


@pytest.mark.parametrize(
    ("port", "why"),
    [
        ("/dev/ttyUSB77", "is the board plugged in"),
        ("socket://127.0.0.1:1", "nobody answers at"),
        ("gopher://x", "is no port"),
        (__file__, "it is no serial port"),
    ],
)
def test_a_port_that_cannot_be_had_is_a_sentence(port, why):
    with pytest.raises(ConfigError, match=why):
        require_free(port)


def test_only_a_pseudo_terminal_and_a_socket_lack_the_lines():
    assert has_lines("/dev/ttyUSB0")
    assert has_lines("rfc2217://pole:4000")
    assert not has_lines("/dev/pts/4")
    assert not has_lines("socket://127.0.0.1:4000")


@given(word=st.integers(0, 2**32 - 1) | st.sampled_from([0xC0DBC0DB, 0xDBDBDBDB]), status=st.sampled_from([2, 4]))
def test_any_word_of_a_chip_is_read(word, status):
    answer = framed(struct.pack("<BBHI", 1, 0x0A, status, word) + bytes(status))
    found = ports.READ_ANSWER.search(b"noise\xc0" + answer)
    assert found and ports.word_of(found) == word


FOUR = """esptool.py v4.8.1
Detecting chip type... ESP32-C3
Chip is ESP32-C3 (QFN32) (revision v0.4)
MAC: 84:f7:03:01:02:03
Detected flash size: 4MB
"""
FIVE = """Connected to ESP32-S3 on /dev/ttyACM0:
Chip type:          ESP32-S3 (QFN56) (revision v0.2)
MAC:                f4:12:fa:00:00:01
Detected flash size: 8MB
"""


def answering(monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> Way:
    """Let esptool say this, and return a way to it."""
    monkeypatch.setattr(loader, "_run", lambda words, surroundings, said: (code, text))
    return Way("/dev/ttyUSB0", "/dev/ttyUSB0", has_lines=True)


@pytest.mark.parametrize(
    ("text", "chip"),
    [(FOUR, Chip("esp32c3", "84:f7:03:01:02:03", 4)), (FIVE, Chip("esp32s3", "f4:12:fa:00:00:01", 8))],
)
def test_chip_address_and_flash_are_read_of_old_and_new_words(monkeypatch, text, chip):
    assert loader.ask(answering(monkeypatch, text)) == chip


@given(text=st.text(max_size=200) | st.sampled_from([FOUR[:60], FIVE[:100], FIVE.replace("8MB", "")]))
def test_no_words_of_it_are_a_traceback(text):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigError):
        loader.ask(answering(patch, text))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Failed to connect to Espressif device: No serial data received.", "cable carry data"),
        ("Failed to connect to ESP32: Wrong boot mode detected (0x13)!", "hold BOOT down"),
        ("A fatal error occurred: Invalid head of packet (0x72)", "close what else may use the port"),
        ("A fatal error occurred: MD5 of file does not match data in flash!", "worn out"),
        ("A serial exception error occurred: device reports readiness to read but returned no data", "was pulled"),
        ("A fatal error occurred: Could not open /dev/ttyUSB0, the port is busy or doesn't exist.", "plugged in"),
        ("A fatal error occurred: Something new", "esptool gave up at /dev/ttyUSB0: Something new"),
        ("", "it said nothing"),
    ],
)
def test_what_goes_wrong_is_said_with_what_to_do(monkeypatch, said, why):
    with pytest.raises(ConfigError, match=why):
        loader.ask(answering(monkeypatch, said, code=2))


def test_what_was_not_read_back_is_not_flashed(monkeypatch, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(b"x")
    with pytest.raises(ConfigError, match="not all that was written"):
        loader.write(answering(monkeypatch, "Hash of data verified."), [(0, part), (9, part)], silent)
    with pytest.raises(ConfigError, match="is not what was written"):
        loader.verify(answering(monkeypatch, "Verification successful"), [(0, part), (9, part)])


def test_the_wrong_board_is_refused_in_words(tmp_path, build):
    with pytest.raises(ConfigError, match=r"has an esp32c3, and this build is for ESP32-DevKitC \(esp32\)"):
        require_fits("P", read_build(build), Chip("esp32c3", "", 4))
    with pytest.raises(ConfigError, match="has 2 MB of flash, and its board file says 4 MB"):
        require_fits("P", read_build(build), Chip("esp32", "", 2))
    require_fits("P", read_build(build), Chip("esp32", "", 16))
    with pytest.raises(ConfigError, match=r"no finished build: `bega node build"):
        read_build(tmp_path)
    damaged = made_build(tmp_path / "damaged")
    (damaged / "vfs.bin").write_bytes(b"another")
    with pytest.raises(ConfigError, match="build it again"):
        read_build(damaged)
    with pytest.raises(ConfigError, match=r"several boards have an esp32: .*meter_carrier"):
        board_for("esp32")
    assert board_for("esp32c3") == "esp32_c3"


def image_for(folder: Path, build: Path, board: Chip, content: bytes) -> list[tuple[int, bytes]]:
    """Return what is written where, with this interpreter."""
    path = folder / "interpreter.bin"
    path.write_bytes(content)
    parts = flash_module._parts("P", read_build(build), board, (path, read_interpreter(content)), folder)
    return [(place, file.read_bytes()) for place, file in parts]


def test_the_file_system_is_as_large_as_the_flash_or_the_interpreter_says(tmp_path, build):
    (start, program), (place, system) = image_for(tmp_path, build, BOARD, interpreter())
    assert (start, place, program) == (0x1000, VFS_START, interpreter())
    assert system == (build / "vfs.bin").read_bytes()
    larger = image_for(tmp_path, build, Chip("esp32", "", 8), interpreter())[1][1]
    assert len(larger) == 6 * MIB
    assert read_image(larger) == FILES
    kept = image_for(tmp_path, build, Chip("esp32", "", 8), interpreter(vfs=(VFS_START, 2 * MIB)))[1][1]
    assert len(kept) == 2 * MIB
    with pytest.raises(ConfigError, match="wants a file system of 6 MB"):
        image_for(tmp_path, build, BOARD, interpreter(vfs=(VFS_START, 6 * MIB)))
    with pytest.raises(ConfigError, match=r"is for an esp32s3, and the board at P has an esp32"):
        image_for(tmp_path, build, BOARD, interpreter(9))
    with pytest.raises(ConfigError, match="do not fit into 8 kB"):
        image_for(tmp_path, build, BOARD, interpreter(vfs=(VFS_START, 8192)))


class Prompt:
    """A board that answers so when it is asked what it is."""

    port = "P"

    def __init__(self, *rows: str) -> None:
        self._rows = rows

    def run(self, source: str) -> str:
        return "\n".join(self._rows) + "\n"


def test_a_board_at_its_prompt_says_what_it_is():
    ask: Any = flash_files._ask
    end = str(4 * MIB)
    chip = ask(Prompt("", "Generic ESP32C3 module with ESP32C3", "1 28 0", "84f703010203", end))
    assert chip == (Chip("esp32c3", "84:f7:03:01:02:03", 4), False)
    assert ask(Prompt("a virtual one", "linux", "1 28 0", "240ac4000004", end))[1]
    with pytest.raises(ConfigError, match=r"MicroPython 1\.22\.2, too old"):
        ask(Prompt("", "Generic ESP32 module with ESP32", "1 22 2", "240ac4000004", end))
    with pytest.raises(ConfigError, match="is no ESP32"):
        ask(Prompt("what", "is this"))


class Files:
    """A board's files, at the other end of a cable that breaks after so many steps."""

    def __init__(self, steps: int) -> None:
        self.files: dict[str, bytes] = {"/a/app.mpy": b"old", "/a/facts.json": b"old", "/main.py": PROGRAM}
        self.steps = steps

    def listing(self) -> dict[str, int]:
        return {path: len(content) for path, content in self.files.items()}

    def hash_of(self, path: str) -> str:
        return hashlib.sha256(self.files[path]).hexdigest()

    def remove(self, *paths: str) -> None:
        for path in paths:
            if self._goes_on():
                self.files.pop(path, None)

    def put(self, path: str, content: bytes) -> None:
        if self._goes_on():
            self.files[path] = content

    def _goes_on(self) -> bool:
        self.steps -= 1
        return self.steps >= 0


@pytest.mark.parametrize("steps", range(8))
def test_a_slot_that_is_half_new_never_counts_as_whole(steps):
    board: Any = Files(steps)
    flash_files._bring(board, FILES, silent)
    slot = {path: content for path, content in board.files.items() if path.startswith("/a/")}
    old = {"/a/app.mpy": b"old", "/a/facts.json": b"old"}
    new = {path: content for path, content in FILES.items() if path.startswith("/a/")}
    assert "/a/facts.json" not in slot or slot in (old, new)
    board.steps = 100
    flash_files._bring(board, FILES, silent)
    assert board.files == FILES


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_line_a_board_on_a_terminal_and_none_in_a_pipe():
    screen, pipe = Screen(), io.StringIO()
    for out in (screen, pipe):
        show = Lines(["/dev/a", "/dev/b"], out, as_json=False)
        for done in range(0, 1001, 2):
            show.step("/dev/b", "writing", done, 1000)
        show.end()
    assert pipe.getvalue() == ""
    assert screen.getvalue().count("/dev/b") == 101, "once each hundredth"
    assert "[############            ]  50 %" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2F\x1b[J")


def begun(port: str, build: Path, percent: int) -> subprocess.Popen[str]:
    """Return a run of the command that has written so much."""
    command = [sys.executable, "-m", "bega", "node", "flash", "--port", port, "--build", str(build), "--json"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in run.stdout:
        step = json.loads(line)
        if step["step"] == "writing" and step["done"] * 100 >= step["of"] * percent:
            return run
    pytest.fail(f"never at {percent} %")


def dies(run: subprocess.Popen[str]) -> None:
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()


def has_build(bench: Bench) -> bool:
    """Return whether the file system in the flash holds the build, byte by byte."""
    try:
        found = read_image(bench.flash.read_bytes()[VFS_START:])
    except LittleFSError:
        return False
    return {path: content for path, content in found.items() if path in FILES} == FILES


@pytest.fixture
def bench(tmp_path):
    board = Bench(tmp_path)
    yield board
    board.close()


@needs_micropython
@pytest.mark.slow
def test_a_blank_virtual_board_gets_the_file_system_alone_and_runs_it(bench, build, capsys):
    bench.start("--blank")
    port = bench.facts["serial"]
    assert main(["node", "flash", "--port", port, "--build", str(build)]) == 0
    assert "it brings its interpreter: ESP32-DevKitC, esp32 with 4 MB, 24:0a:c4:" in capsys.readouterr().out
    bench.hears("the build runs")
    assert has_build(bench)
    assert bench.flash.read_bytes()[:VFS_START] == b"\xff" * VFS_START
    assert bench.mpremote("fs", "rm", ":/a/lib/x.mpy") is not None
    bench.mpremote(
        "exec",
        "open('/a/stale.mpy', 'w').close(); open('/config.json', 'w').close();"
        " import os; os.mkdir('/state'); open('/state/slot', 'w').close()",
    )
    assert main(["node", "flash", "--port", port, "--build", str(build), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["by"], told["is_virtual"], told["passed"]) == ("prompt", True, True), "no line leads into its ROM"
    assert has_build(bench)
    files = read_image(bench.flash.read_bytes()[VFS_START:])
    assert "/a/stale.mpy" not in files and "/config.json" in files
    assert "/state/slot" not in files, "or an earlier version would still be chosen"
    other = made_build(build.parent / "other", chip="esp32c3")
    assert main(["node", "flash", "--port", port, "--build", str(other)]) == 1
    assert "has an esp32, and this build is for" in capsys.readouterr().err


@needs_micropython
@pytest.mark.slow
def test_interpreter_and_file_system_are_written_in_one_pass_and_over_the_network(bench, build, tmp_path, monkeypatch):
    image = tmp_path / "ESP32_GENERIC.bin"
    image.write_bytes(interpreter())
    assert main(["node", "interpreter", "add", str(image)]) == 0
    monkeypatch.setattr(flash_module, "_is_virtual", lambda way, board: False)
    bench.flash.write_bytes(b"\xff" * VFS_START + make_image({"/main.py": b"print('old')"}, 2 * MIB))
    bench.start("--as-is")
    bench.order(reset=True)
    bench.hears("old")
    board = flash(bench.facts["rfc2217"], build, None, silent)
    assert (board.chip, board.flash_mb, board.interpreter) == ("esp32", 4, "MicroPython 1.29.0 for esp32")
    bench.hears("the build runs")
    content = bench.flash.read_bytes()
    assert content[0x1000 : 0x1000 + image.stat().st_size] == image.read_bytes()
    assert has_build(bench)


@needs_micropython
@pytest.mark.slow
@pytest.mark.parametrize("percent", CUTS)
def test_a_second_run_finishes_what_a_pulled_plug_left(tmp_path, build, percent):
    bench = Bench(tmp_path)
    try:
        bench.start("--blank")
        dies(begun(bench.facts["serial"], build, percent))  # the laptop's side
        flash(bench.facts["serial"], build, None, silent)
        assert has_build(bench)
        bench.power_cut()
        # The board's side: the loader erases all, then writes from the first byte on.
        image = (build / "vfs.bin").read_bytes()
        used = 4096 + max(at for at in range(0, len(image), 4096) if image[at : at + 4096].strip(b"\xff"))
        written = image[: used * percent // 100]
        bench.flash.write_bytes(b"\xff" * VFS_START + written.ljust(len(image), b"\xff"))
        bench.start("--as-is")
        board = flash(bench.facts["serial"], build, None, silent)
        assert board.by == "prompt" and has_build(bench)
    finally:
        bench.close()


@needs_micropython
@pytest.mark.slow
@by_night
def test_a_file_system_that_does_not_mount_is_made_anew_by_the_prompt(bench, build):
    bench.flash.write_bytes(b"\xff" * VFS_START + b"\x5a" * (FLASH_BYTES - VFS_START))
    bench.start("--as-is")
    board = flash(bench.facts["serial"], build, None, silent)
    assert board.by == "prompt"
    bench.hears("the build runs")
    assert has_build(bench)


@needs_micropython
@pytest.mark.slow
@by_night
def test_several_boards_are_flashed_at_once_and_one_that_fails_stops_no_other(tmp_path, build, capsys):
    boards = [Bench(tmp_path, f"board-{number}") for number in range(BOARDS)]
    try:
        for board in boards:
            board.start("--blank")
        ports = [word for board in boards for word in ("--port", board.facts["serial"])]
        began = time.monotonic()
        assert main(["node", "flash", *ports, "--port", "/dev/ttyUSB77", "--build", str(build)]) == 1
        print(f"{BOARDS} boards in {time.monotonic() - began:.1f} s")
        said = capsys.readouterr()
        print(said.out, said.err)
        assert said.out.count("read back by hash") == BOARDS
        assert "/dev/ttyUSB77: there is no port" in said.err
        assert all(has_build(board) for board in boards)
    finally:
        for board in boards:
            board.close()
