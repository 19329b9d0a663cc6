"""The cable to a board: its prompt, its files and its console, and what is wrong in sentences."""

import base64
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from littlefs import LittleFS

from bega_firmware.cable import Cable, CableError
from bega_firmware.interrupt import Interrupted, ends_in_order
from bega_protocols.checks import crc32
from bega_simulators.board.flash import VFS_BLOCKS
from tests.bench_board import BLANK, BenchBoard, needs_micropython

COUNTS = """
import machine, time
print("started, cause", machine.reset_cause())
dog = machine.WDT(timeout=2500)
while True:
    print("counting")
    for _ in range(10):
        time.sleep(0.05)
    dog.feed()
"""
NIGHTLY = os.environ.get("BEGA_PROFILE") == "nightly"
DOORS = ["serial", "rom", "rfc2217"] if NIGHTLY else ["serial", "rfc2217"]
SECRET = b"the key of a node, sixteen times four octets: 0123456789abcdefghij"


def file_system(**programs: str) -> bytes:
    system = LittleFS(block_size=4096, block_count=VFS_BLOCKS, disk_version=0x00020000)
    for name, text in programs.items():
        with system.open(f"{name}.py", "wb") as file:
            file.write(text.encode())
    return BLANK + bytes(system.context.buffer)


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Iterator[BenchBoard]:
    one = BenchBoard(tmp_path_factory.mktemp("board"), file_system(main=COUNTS))
    one.start()
    one.says("counting")
    yield one
    one.unplug()


@needs_micropython
@pytest.mark.parametrize("door", DOORS)
def test_program_is_stopped_worked_beside_and_started_again(board, door):
    content = os.urandom(2500)
    with Cable(board.facts[door]) as cable:
        assert cable.run("print(6 * 7)") == "42\n"
        assert cable.reset_cause in (1, 2), "that of the program's start, not of ours"
        cable.put("/deep/er/file", content)
        assert cable.listing()["/deep/er/file"] == len(content)
        assert cable.get("/deep/er/file") == cable.get("/deep/er/file", is_secret=True) == content
        cable.put("/deep/er/file", b"")
        assert cable.get("/deep/er/file") == cable.get("/deep/er/file", is_secret=True) == b""
        cable.remove("/deep/er/file", "/nowhere")
        assert "/deep/er/file" not in cable.listing()
        cable.restart()
        assert any(line == "started, cause 2" for line in cable.lines(3))


@needs_micropython
def test_restart_by_a_cable_costs_an_update_and_a_configuration_nothing_of_their_trial(board):
    """Two looks with `bega node doctor` had a good version rolled back, never to be tried again."""
    trial, longer = (b"b %d 1.2.3 1.2.2" % left for left in (1, 2))
    damaged, confirmed = b"b 1 1.2.3 1.2.2 00000000", b"b - - 1.2.2"
    confirmed += b" %08x" % crc32(confirmed)
    with Cable(board.port) as cable:
        cable.put("/config.trial", b"{}")
        cable.put("/state/slot", trial + b" %08x" % crc32(trial))
        cable.restart()
        assert "counting" in cable.lines(10)
        assert cable.get("/state/slot") == longer + b" %08x" % crc32(longer)
        assert "/config.new" in cable.listing() and "/config.trial" not in cable.listing()
        for kept in (damaged, confirmed):
            cable.put("/state/slot", kept)
            cable.restart()
            assert "counting" in cable.lines(10)
            assert cable.get("/state/slot") == kept
        cable.remove("/state/slot", "/config.new")
        cable.restart()
        assert "counting" in cable.lines(10)


@needs_micropython
def test_console_is_read_while_the_program_goes_on(board):
    with Cable(board.port) as cable:
        lines = list(cable.lines(1.5))
    assert "counting" in lines
    assert not any("started" in line for line in lines)


@needs_micropython
def test_clock_is_set_and_what_is_secret_is_not_said(board):
    with Cable(board.port) as cable:
        cable.set_clock(1_795_300_000_123)
        assert cable.run("import machine; print(machine.RTC().datetime()[:6])") == "(2026, 11, 21, 5, 22, 26)\n"
        cable.put("/secret", SECRET)
        assert cable.get("/secret", is_secret=True) == SECRET
        cable.remove("/secret")
    said = board.log.read_bytes()
    assert SECRET not in said and SECRET.hex().encode() not in said
    assert base64.b64encode(SECRET)[:40] not in said


@needs_micropython
def test_watchdog_of_the_program_does_not_bite_who_works_at_the_prompt(board):
    with Cable(board.port) as cable:
        assert cable.run("print(1)") == "1\n"
        resets = board.order()["resets"]
        time.sleep(3)
        assert cable.run("import time; time.sleep(1); print(2)") == "2\n"
        assert board.order()["resets"] == resets


@needs_micropython
def test_shell_is_a_prompt_and_the_program_starts_when_one_leaves(board):
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "bega", "node", "shell", "--port", board.port]
    shell = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    heard = b""
    try:
        for awaited, typed in ((b">>> ", b"print(6 * 7)\r"), (b"42", b"\x1d")):
            while awaited not in heard:
                heard += os.read(master, 1000)
            os.write(master, typed)
        assert shell.wait(20) == 0
    finally:
        shell.kill()
        shell.wait()
        os.close(master)
    with Cable(board.port) as cable:
        assert "counting" in cable.lines(10)


@needs_micropython
def test_what_the_board_refuses_is_a_sentence_and_the_next_thing_works(board):
    with Cable(board.port) as cable:
        with pytest.raises(CableError, match="ZeroDivisionError") as error:
            cable.run("1/0")
        assert "Traceback" in error.value.traceback
        with pytest.raises(CableError, match="not on it"):
            cable.get("/nowhere")
        with pytest.raises(CableError, match="flash is full"):
            cable.run("raise OSError(28)")
        with pytest.raises(CableError, match="has not ended it in 1 s"):
            cable.run("while True: pass", 1)
        assert cable.run("print('well')") == "well\n"


@needs_micropython
def test_command_that_is_ended_in_the_middle_lets_the_program_start_again(board):
    """At once, and not by the watchdog after two minutes; so with Ctrl-C, `kill`, and a terminal that is closed."""
    alarm = threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted), ends_in_order(), Cable(board.port) as cable:
        assert cable.run("print(1)") == "1\n"
        alarm.start()
        cable.run("while True: pass", 30)
    with Cable(board.port) as cable:
        assert "counting" in cable.lines(10)


@needs_micropython
def test_broken_file_system_is_said_and_made_only_when_asked(tmp_path, monkeypatch):
    board = BenchBoard(tmp_path, BLANK + b"\x00" * (VFS_BLOCKS * 4096))
    board.start()
    try:
        with Cable(board.port) as cable:
            assert cable.run("print(6 * 7)") == "42\n"
            assert cable.listing() == {}
            with pytest.raises(CableError, match="no file system"):
                cable.put("/file", b"content")
            cable.make_file_system()
            cable.put("/file", b"content")
            assert cable.listing() == {"/file": 7}
        board.order(download=True)
        monkeypatch.setattr("bega_firmware.cable.STOPPED_WITHIN_S", 0.5)
        with Cable(board.port) as cable, pytest.raises(CableError, match="waits in its ROM"):
            cable.run("print(1)")
    finally:
        board.unplug()


@needs_micropython
def test_board_that_loses_its_power_in_the_middle_is_a_sentence(tmp_path):
    board = BenchBoard(tmp_path, file_system(main=COUNTS))
    board.start()
    threading.Timer(1.0, board.unplug).start()
    with pytest.raises(CableError, match="run the same command again"), Cable(board.port) as cable:
        while True:
            cable.run("print(1)")
    board.unplug()


def test_port_that_is_not_there_or_not_a_port_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    for port, why in (
        ("/dev/ttyNONE7", "there is no port"),
        ("socket://127.0.0.1:9", "nobody answers"),
        ("rfc2217://127.0.0.1:9", "nobody answers"),
        ("ftp://nowhere", "is no port"),
        (str(tmp_path / "file"), "cannot be opened"),
    ):
        with pytest.raises(CableError, match=why), Cable(port):
            pass


@pytest.fixture
def line(monkeypatch) -> Iterator[tuple[int, str]]:
    """A port with nobody behind it but the test."""
    monkeypatch.setattr("bega_firmware.cable.STOPPED_WITHIN_S", 0.5)
    monkeypatch.setattr("bega_firmware.cable.ASK_AGAIN_S", 0.3)
    master, slave = pty.openpty()
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_silence_noise_and_a_program_that_holds_on_are_told_apart(line):
    master, port = line
    with Cable(port) as cable, pytest.raises(CableError, match="Some only charge"):
        cable.run("print(1)")
    for said, why in (
        (bytes(range(128, 256)) * 3, "is no text"),
        (b"still counting\r\n" * 9, "does not let go: press EN"),
        (b"rst:0x1\r\nwaiting for download\r\n", "bega node flash"),
    ):
        with Cable(port) as cable:  # who opens a port throws away what came before
            os.write(master, said)
            with pytest.raises(CableError, match=why):
                cable.run("print(1)")


def test_program_that_holds_the_port_is_named(line):
    _, port = line
    hold = (
        "import sys, time, serial; it = serial.Serial(sys.argv[1], exclusive=True); print(1, flush=True); time.sleep(9)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, port], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(CableError, match=rf"held by python.* \(process {other.pid}\)"), Cable(port):
            pass
    finally:
        other.kill()
        other.wait()
