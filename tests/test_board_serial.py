"""The virtual board from the shell: its one serial port, by the tools of the bench themselves, esptool and mpremote."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from littlefs import LittleFS

from bega_simulators.board import command, rom
from bega_simulators.board.flash import FLASH_BYTES, VFS_BLOCKS, VFS_START
from bega_simulators.board.slip import Frames, framed

MICROPYTHON = Path(sys.executable).with_name("micropython")
INTERPRETER_START = 0x1000
COUNTS = """
import machine, time
print("started, cause", machine.reset_cause())
while True:
    time.sleep(0.05)
"""
BOARDS = 10 if os.environ.get("BEGA_PROFILE") == "nightly" else 3
NO_LINES = ("--before", "no-reset")  # a pseudo-terminal has no DTR and RTS

needs_micropython = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)


class Bench:
    """`bega sim board` as anyone starts it, and what a technician does to its port."""

    def __init__(self, directory: Path, name: str = "board") -> None:
        self.flash = directory / f"{name}.flash"
        # Not in `directory`: what pytest names it may be too long for the path of a socket.
        self.temporary = Path(tempfile.mkdtemp(prefix="bench-"))
        self.log = directory / f"{name}.log"
        self.facts: dict[str, Any] = {}
        self._ready = directory / f"{name}.ready"
        self._child: subprocess.Popen[bytes] | None = None
        self._ears: socket.socket | None = None
        self._heard = b""

    def start(self, *arguments: object) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bega", "sim", "board", "--flash", self.flash, "--ready-file", self._ready]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*command, "--verbose", *map(str, arguments)],
                stderr=log,
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(self.temporary)},
            )
        deadline = time.monotonic() + 30
        while not self._ready.exists():
            assert self._child.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        self.facts = json.loads(self._ready.read_text())
        host, port = self.facts["rom"].removeprefix("socket://").split(":")
        self._heard = b""
        self._ears = socket.create_connection((host, int(port)))

    def hears(self, said: str | bytes, timeout_s: float = 20) -> str:
        """Wait until the port has said this; return what it said up to there, which is then forgotten."""
        words = said.encode() if isinstance(said, str) else said
        deadline = time.monotonic() + timeout_s
        while words not in self._heard:
            self._ears.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                self._heard += self._ears.recv(4096)
            except TimeoutError:
                pytest.fail(f"not within {timeout_s} s: {words!r}; heard {self._heard[-500:]!r}")
        before, _, self._heard = self._heard.partition(words)
        return before.decode(errors="replace")

    def type(self, keys: bytes) -> None:
        self._ears.sendall(keys)

    def order(self, **order: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(self.facts["control"])
            control.sendall(json.dumps(order).encode() + b"\n")
            answer: dict[str, Any] = json.loads(control.makefile().readline())
        assert "error" not in answer, answer
        return answer

    def esptool(self, *arguments: object, port: str = "serial") -> str:
        return self._run("esptool", "--port", self.facts[port], *arguments)

    def mpremote(self, *arguments: object, cwd: Path | None = None) -> str:
        return self._run("mpremote", "connect", self.facts["serial"], *arguments, cwd=cwd)

    def power_cut(self) -> None:
        os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait(10)

    def stop(self) -> int:
        if self._ears is not None:
            self._ears.close()
        if self._child is None or self._child.poll() is not None:
            return self._child.returncode if self._child else 0
        self._child.terminate()
        try:
            return self._child.wait(5)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _run(self, program: str, *arguments: object, cwd: Path | None = None) -> str:
        outcome = subprocess.run(
            [sys.executable, "-m", program, *map(str, arguments)], capture_output=True, text=True, timeout=40, cwd=cwd
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    board = Bench(tmp_path)
    yield board
    board.close()


def file_system(**programs: str) -> bytes:
    """Return a littlefs with these programs on it, as `bega node build` makes one."""
    system = LittleFS(block_size=4096, block_count=VFS_BLOCKS, disk_version=0x00020000)
    for name, text in programs.items():
        with system.open(f"{name}.py", "wb") as file:
            file.write(text.encode())
    return bytes(system.context.buffer)


def flashed(bench: Bench, **programs: str) -> None:
    """Have a board with these programs on its flash, just reset, so that nothing of what it says is missed."""
    bench.flash.write_bytes(b"\xff" * VFS_START + file_system(**programs))
    bench.start("--as-is")
    bench.order(reset=True)


@needs_micropython
@pytest.mark.slow
def test_blank_board_is_flashed_by_esptool_read_back_and_boots(bench, tmp_path):
    bench.start("--blank")
    assert "Unix port" in bench.facts["interpreter"]
    image, system, back = tmp_path / "interpreter.bin", tmp_path / "vfs.bin", tmp_path / "back.bin"
    image.write_bytes(random.Random(1).randbytes(50_001))
    system.write_bytes(file_system(main=COUNTS))
    written = bench.esptool(
        *NO_LINES, "--after", "no-reset", "write-flash", INTERPRETER_START, image, hex(VFS_START), system
    )
    assert written.count("Hash of data verified") == 2
    content = bench.flash.read_bytes()
    assert len(content) == FLASH_BYTES
    assert content[INTERPRETER_START : INTERPRETER_START + 50_001] == image.read_bytes()
    assert content[VFS_START:] == system.read_bytes()
    bench.esptool(*NO_LINES, "--after", "no-reset", "read-flash", INTERPRETER_START, 50_001, back)
    assert back.read_bytes() == image.read_bytes()
    assert bench.order()["rom"]
    bench.esptool(*NO_LINES, "run")
    assert "virtual board" in bench.hears("started, cause 1")
    assert not bench.order()["rom"]
    assert bench.mpremote("exec", "import os; print(os.listdir())") == "['main.py']\n"


@needs_micropython
@pytest.mark.slow
def test_rom_is_the_same_device_over_a_socket_with_the_stub_and_without(bench, tmp_path):
    block, back = tmp_path / "block.bin", tmp_path / "back.bin"
    block.write_bytes(random.Random(2).randbytes(9_000))
    bench.start("--blank")
    said = bench.esptool("--no-stub", "--after", "no-reset", "write-flash", "-u", 0x3000, block, port="rom")
    assert "Hash of data verified" in said
    assert "24:0a:c4:" in said, "the address that the firmware reads too"
    bench.esptool(*NO_LINES, "--no-stub", "--after", "no-reset", "read-flash", 0x3000, 9_000, back)
    assert back.read_bytes() == block.read_bytes()
    bench.esptool("--after", "no-reset", "erase-region", 0x3000, 0x1000, port="rom")
    assert bench.flash.read_bytes()[0x3000:0x5000] == b"\xff" * 0x1000 + block.read_bytes()[0x1000:0x2000]
    bench.esptool(*NO_LINES, "--after", "no-reset", "erase-flash")
    assert bench.flash.read_bytes() == b"\xff" * FLASH_BYTES
    bench.esptool(*NO_LINES, "run")
    bench.hears("invalid header: 0xffffffff")
    assert bench.order()["rom"], "a blank board starts nothing"


@needs_micropython
@pytest.mark.slow
def test_mpremote_works_as_on_a_board(bench, tmp_path):
    flashed(bench, main=COUNTS)
    bench.hears("started, cause 2")
    assert bench.mpremote("exec", "print(6 * 7)") == "42\n", "the program that ran is interrupted"
    content = random.Random(3).randbytes(20_000)
    (tmp_path / "here").write_bytes(content)
    bench.mpremote("fs", "cp", tmp_path / "here", ":/there")
    bench.mpremote("fs", "cp", ":/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert "started" in bench.mpremote("fs", "cat", ":/main.py")
    bench.mpremote("fs", "rm", ":/there")
    assert "there" not in bench.mpremote("fs", "ls")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "from_here.py").write_text("print('imported from the laptop')")
    assert "imported from the laptop" in bench.mpremote("mount", "mounted", "exec", "import from_here", cwd=tmp_path)
    bench.mpremote("soft-reset")
    assert bench.mpremote("resume", "exec", "import machine; print(machine.reset_cause())") == "5\n"
    bench.mpremote("reset")
    bench.hears("started, cause 2")


@needs_micropython
def test_ctrl_c_stops_the_program_and_ctrl_d_starts_it_again(bench):
    flashed(bench, main=COUNTS)
    bench.hears("started, cause 2")
    bench.type(b"\x03")
    time.sleep(0.002)
    bench.type(b"\x03import machine, network\r")  # typed on while it stops: nothing is lost, and nothing ends
    stopped = bench.hears("import machine, network")
    assert "KeyboardInterrupt" in stopped and "soft reboot" not in stopped
    bench.type(b"print(machine.reset_cause(), network.WLAN(0).active())\r")
    bench.hears("2 False")
    bench.type(b"\x04")
    assert "rst:" not in bench.hears("MPY: soft reboot\r\nstarted, cause 5"), "the chip was not reset"
    bench.order(reset=True)
    bench.hears("started, cause 2")


@needs_micropython
def test_raw_repl_is_raw_again_after_a_soft_reset_and_runs_boot_alone(bench):
    flashed(bench, boot="print('booted')", main=COUNTS)
    bench.hears("started, cause 2")
    bench.type(b"\x03\x01")
    bench.hears("raw REPL; CTRL-B to exit\r\n>")
    bench.type(b"\x04")
    assert bench.hears("raw REPL; CTRL-B to exit\r\n>").endswith("MPY: soft reboot\r\nbooted\n")
    bench.type(b"print(1 + 1)\x04")
    bench.hears("OK2\n\x04\x04>")


@needs_micropython
def test_port_that_somebody_holds_and_does_not_read_keeps_no_program_waiting(bench):
    talks = "for number in range(400):\n    print('x' * 1000)\nprint('talked', 'out')"
    flashed(bench, main=talks)
    bench.hears("talked out")
    with Path(bench.facts["serial"]).open("rb", buffering=0):
        bench.order(reset=True)
        bench.hears("talked out", timeout_s=8)


@needs_micropython
def test_watchdog_bites_who_stays_at_the_prompt(bench):
    """As on an ESP32: neither Ctrl-C nor a soft reset stops a watchdog that was started."""
    flashed(bench, main="import machine\nprint('cause', machine.reset_cause())\nmachine.WDT(timeout=1500)\n" + COUNTS)
    bench.hears("started, cause 2")
    bench.type(b"\x03\x01\x04")
    bench.hears("MPY: soft reboot")
    bench.hears("rst:0x8 (TG1WDT_SYS_RESET)")
    bench.hears("cause 3")


@needs_micropython
def test_reset_ends_a_deep_sleep_too(bench):
    flashed(bench, main="import machine\nprint('good night')\nmachine.deepsleep()")
    bench.hears("good night")
    while not bench.order()["asleep"]:
        time.sleep(0.05)
    bench.order(reset=True)
    bench.hears("rst:0xc (SW_CPU_RESET)")


@needs_micropython
def test_board_is_held_in_download_mode_and_let_go(bench):
    flashed(bench, main=COUNTS)
    bench.hears("started, cause 2")
    bench.order(download=True)
    bench.hears("waiting for download")
    assert bench.order()["rom"]
    bench.type(b"noise\x03\x04" + framed(b"\x00\x02") + b"\xc0\xdb")
    bench.order(reset=True)
    bench.hears("started, cause 1")
    bench.order(download=True)
    bench.hears("waiting for download")
    bench.order(brownout=True)
    bench.hears("started, cause 1")


@needs_micropython
def test_power_cut_while_it_is_flashed_keeps_what_was_written_and_leaves_nothing_behind(bench, tmp_path, eventually):
    bench.start("--blank")
    block = random.Random(4).randbytes(1024)
    begin = struct.pack("<IIII", 4096, 4, 1024, 0x5000)
    data = struct.pack("<IIII", len(block), 0, 0, 0) + block
    for opcode, body, check in ((rom.FLASH_BEGIN, begin, 0), (rom.FLASH_DATA, data, rom.checksum(block))):
        bench.type(framed(struct.pack("<BBHI", 0, opcode, len(body), check) + body))
        bench.hears(framed(struct.pack("<BBHI4x", 1, opcode, 4, 0)))
    assert list(bench.temporary.iterdir())
    bench.power_cut()
    assert bench.flash.read_bytes()[0x5000:0x6000] == block + b"\xff" * 3072
    eventually(lambda: not list(bench.temporary.iterdir()), "the temporary folder is empty")
    bench.start("--as-is")
    assert not bench.order()["rom"], "its flash is not blank any more"
    assert bench.stop() == 0
    eventually(lambda: not list(bench.temporary.iterdir()), "the temporary folder is empty")


@needs_micropython
@pytest.mark.slow
def test_boards_at_once_each_have_a_port_of_their_own(tmp_path):
    with contextlib.ExitStack() as stack:
        boards = []
        for number in range(BOARDS):
            boards.append(Bench(tmp_path, f"board-{number}"))
            stack.callback(boards[-1].close)
            system = file_system(main=f"print('I am', {number})")
            boards[-1].flash.write_bytes(b"\xff" * VFS_START + system)
            boards[-1].start("--as-is", "--seed", number)
        for number, board in enumerate(boards):
            board.type(b"\x04")
            board.hears(f"I am {number}\n")
        for facts in ("serial", "rom", "control"):
            assert len({board.facts[facts] for board in boards}) == BOARDS
        addresses = {board.mpremote("exec", "import machine; print(machine.unique_id())") for board in boards}
        assert len(addresses) == BOARDS


@given(packets=st.lists(st.binary(min_size=1, max_size=60), max_size=6), cuts=st.lists(st.integers(1, 40), max_size=9))
def test_frames_come_out_as_they_went_in_however_they_are_cut(packets, cuts):
    stream, frames, found = b"".join(map(framed, packets)), Frames(), []
    for size in cuts:
        found += frames.feed(stream[:size])
        stream = stream[size:]
    assert found + frames.feed(stream) == packets


def test_a_frame_without_an_end_takes_no_room():
    frames = Frames()
    for _ in range(300):
        frames.feed(b"x" * 4096)
    assert frames.feed(framed(b"after it"))[-1] == b"after it"


class DeafLine:
    """Takes what is said."""

    def __init__(self) -> None:
        self.said = b""

    async def write(self, octets: bytes) -> None:
        self.said += octets


WRITES = (rom.FLASH_BEGIN, rom.FLASH_DATA, rom.FLASH_DEFL_BEGIN, rom.FLASH_DEFL_DATA)
ERASES_AND_READS = (rom.ERASE_FLASH, rom.ERASE_REGION, rom.SPI_FLASH_MD5, rom.READ_FLASH_SLOW, rom.READ_REG)


def asked_of(flash: Path, *requests: tuple[int, bytes, int]) -> list[int]:
    """Return the status of the ROM's answer to each (opcode, data, checksum)."""
    line: Any = DeafLine()
    mode = rom.DownloadMode(line, flash, bytes(6), flash.parent)
    mode.begin()
    for opcode, data, check in requests:
        asyncio.run(mode.answer(struct.pack("<BBHI", 0, opcode, len(data), check) + data))
    mode.end()
    return [packet[8] for packet in Frames().feed(line.said)]


def test_rom_refuses_what_does_not_fit_and_what_was_damaged_on_the_way(tmp_path):
    flash = tmp_path / "flash"
    flash.write_bytes(b"\xff" * FLASH_BYTES)
    block = bytes(range(64))
    data, check = struct.pack("<IIII", 64, 0, 0, 0) + block, rom.checksum(block)
    last = struct.pack("<IIII", 64, 1, 64, FLASH_BYTES - 64)
    beyond = struct.pack("<IIII", 65, 1, 64, FLASH_BYTES - 64)
    assert asked_of(flash, (rom.FLASH_BEGIN, beyond, 0)) == [rom.FAILED]
    assert asked_of(flash, (rom.SPI_FLASH_MD5, struct.pack("<IIII", FLASH_BYTES - 1, 2, 0, 0), 0)) == [rom.FAILED]
    assert asked_of(flash, (rom.FLASH_BEGIN, last, 0), (rom.FLASH_DATA, data, check ^ 1)) == [0, rom.FAILED]
    assert flash.read_bytes() == b"\xff" * FLASH_BYTES
    twice = [(rom.FLASH_BEGIN, last, 0), (rom.FLASH_DATA, data, check), (rom.FLASH_DATA, data, check)]
    assert asked_of(flash, *twice) == [0, 0, rom.FAILED]
    assert flash.read_bytes() == b"\xff" * (FLASH_BYTES - 64) + block


OPCODES = st.sampled_from((*WRITES, *ERASES_AND_READS, rom.MEM_END))
WORDS = st.lists(st.one_of(st.sampled_from([0, 1, 4096, FLASH_BYTES - 64, FLASH_BYTES]), st.integers(0, 2**32 - 1)))


@given(asked=st.lists(st.tuples(OPCODES, WORDS, st.binary(max_size=9)), max_size=8))
def test_no_request_breaks_the_rom_or_leaves_the_flash(tmp_path_factory, asked):
    folder = tmp_path_factory.getbasetemp() / "rom"
    folder.mkdir(exist_ok=True)
    (folder / "flash").write_bytes(b"\xff" * FLASH_BYTES)
    line: Any = DeafLine()
    mode = rom.DownloadMode(line, folder / "flash", bytes(6), folder)
    mode.begin()
    for opcode, words, tail in asked:
        data = struct.pack(f"<{len(words)}I", *words) + tail
        packet = struct.pack("<BBHI", 0, opcode, len(data) & 0xFFFF, rom.checksum(data[16:])) + data
        assert not asyncio.run(mode.answer(packet)), "it left the ROM"
    mode.end()
    assert (folder / "flash").stat().st_size == FLASH_BYTES
    assert all(len(packet) >= 10 for packet in Frames().feed(line.said))


@needs_micropython
def test_sensor_and_plug_on_one_line_are_refused(tmp_path, capsys):
    """Both would read what the board writes: its line broke at the first word, and nobody said why."""
    line = f"uart1={tmp_path / 'line'}"
    assert command.main(["--kind", "meter", "--cable", line, "--sensor", "main=dsmr_p1@uart1"]) == 1
    assert "a cable or a plug is in uart1 already" in capsys.readouterr().err
