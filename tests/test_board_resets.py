"""Resets of a whole virtual board: a program on its flash that sleeps, is starved, and loses its power."""

import asyncio
import json
import socket
import subprocess
import sys
import time

import pytest

from bega_simulators.board.flash import find_micropython, put_on_flash
from tests.shim_bench import MICROPYTHON

pytestmark = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")

PROGRAM = """
import machine, os, sys, time
memory = machine.RTC().memory().decode()
print("boot", machine.reset_cause(), machine.wake_reason(), memory or "-", sys.path, os.listdir("/"))
if not memory:
    machine.RTC().memory(b"slept")
    machine.deepsleep(300)
import esp32, network
nvs = esp32.NVS("test")
nvs.set_i32("turns", 1)
nvs.commit()
with open("/written", "w") as file:
    file.write("x" * 5000)
machine.WDT(timeout=2000)
while True:
    time.sleep(1)
"""


def test_board_sleeps_browns_out_loses_power_and_is_bitten(tmp_path, eventually):
    main, flash, ready, log = (tmp_path / name for name in ("main.py", "flash", "ready.json", "log"))
    main.write_text(PROGRAM)
    asyncio.run(put_on_flash(find_micropython(), flash, [(main, "/main.py")]))
    command = [sys.executable, "-m", "bega", "sim", "board", "--as-is", "--flash", flash, "--ready-file", ready]
    with log.open("wb") as output:
        board = subprocess.Popen([*command, "--verbose"], stderr=output)

    def boots():
        return [line.split("boot ")[1] for line in log.read_text().splitlines() if "board: boot " in line]

    def order(**facts):
        with socket.socket(socket.AF_UNIX) as bench:
            bench.connect(json.loads(ready.read_text())["control"])
            bench.sendall(json.dumps(facts).encode() + b"\n")
            return json.loads(bench.makefile().readline())

    try:
        eventually(ready.exists, "the board is up")
        began = time.monotonic()
        eventually(lambda: len(boots()) >= 2, "it wakes by its timer")
        assert boots()[0].startswith("1 0 - ['', '.frozen', '/lib'] ['main.py']"), "it sees its flash and nothing else"
        assert boots()[1].startswith("4 4 slept")
        assert time.monotonic() - began < 20
        eventually(lambda: len(boots()) >= 3, "the watchdog, which nobody feeds")
        assert boots()[2].startswith("3 0 slept")
        assert "'written'" in boots()[2]
        assert order(brownout=True)["cause"] == 3
        eventually(lambda: len(boots()) >= 4, "the supply dips")
        assert boots()[3].startswith("1 0 slept"), "told from a power-on by what the memory holds"
        order(power_cut={"after": 1, "torn": True})
        cut = "the power fails while it writes: at once, or after the watchdog's next bite"
        eventually(lambda: any(boot.startswith("1 0 -") for boot in boots()[4:]), cut)
        assert "error" in order(nonsense=1)
    finally:
        board.terminate()
        assert board.wait(10) == 0
