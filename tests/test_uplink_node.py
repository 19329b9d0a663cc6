"""Node and gateway as shipped, over a serial cable that loses a frame in twenty: powers fail, nothing is lost."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from contextlib import suppress
from pathlib import Path

import pytest

MICROPYTHON = Path(sys.executable).with_name("micropython")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
        reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
    ),
]

KEY = bytes(range(32)).hex()
CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
[uplink]
brokers = ["{broker}"]
[lines.cellar]
kind = "uplink"
port = "{port}"
baud = 57600
[nodes.air-1]
line = "cellar"
key_file = "{key}"
"""


class WornCable:
    """Between the board's port and the gateway's: a share of the frames does not arrive as it was."""

    def __init__(self, far: Path, near: Path, share: float) -> None:
        self._far = far  # the board's; another file each time that the board starts
        self._share = share
        self._chance = random.Random(1)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        near.symlink_to(os.ttyname(self._slave))
        self.spoiled = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        os.close(self._master)
        os.close(self._slave)

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            with suppress(OSError):
                port = os.open(self._far, os.O_RDWR | os.O_NOCTTY)
                try:
                    rate = termios.tcgetattr(port)
                    rate[4] = rate[5] = termios.B57600
                    termios.tcsetattr(port, termios.TCSANOW, rate)
                    self._carry(port)
                finally:
                    os.close(port)

    def _carry(self, port: int) -> None:
        where = self._far.readlink()
        while not self._ended.is_set() and self._far.readlink() == where:
            for ready in select.select([port, self._master], [], [], 0.1)[0]:
                octets = os.read(ready, 4096)
                if not octets:
                    return
                os.write(self._master if ready == port else port, self._spoil(octets))

    def _spoil(self, octets: bytes) -> bytes:
        if self._chance.random() >= self._share:
            return octets
        self.spoiled += 1
        at = self._chance.randrange(len(octets))
        return self._chance.choice([b"", octets[:at], octets[:at] + b"\x55" + octets[at + 1 :]])


class NodeProcess:
    """The virtual board with its flash in `folder`, on a cable."""

    def __init__(self, folder: Path) -> None:
        self.cable = folder / "cable"
        self.log = folder / "node.log"
        self._flash, self._ready, self._config = folder / "flash", folder / "ready", folder / "node.json"
        devices = {"pms": {"every_s": 1}, "sht": {"every_s": 0.25}}
        uplink = {"bus": "uart1", "baud": 57600, "key": KEY}
        self._config.write_text(json.dumps({"node": "air-1", "devices": devices, "uplink": uplink}))
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, eventually) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bega", "sim", "board", "--config", self._config, "--flash", self._flash]
        more = ["--cable", f"uart1={self.cable}", "--ready-file", self._ready, "--verbose"]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen([*command, *more], stderr=log, start_new_session=True)
        eventually(self._ready.exists, "the node runs", 30)

    def kill(self) -> None:
        if self._child and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(10)


@pytest.fixture
def node(tmp_path):
    board = NodeProcess(tmp_path)
    yield board
    board.kill()


def numbers(reader) -> dict[int, list[int]]:
    """Return the seq of the node's records by boot, each once, in order."""
    found: dict[int, list[int]] = {}
    for _, boot, seq in sorted(identity for identity in reader.identities() if identity[0] == "air-1"):
        found.setdefault(boot, []).append(seq)
    return found


def test_power_cuts_at_both_ends_of_a_worn_cable_lose_nothing(
    tmp_path, embedded, node, make_gateway, make_reader, eventually
):
    (tmp_path / "air-1.key").write_text(KEY)
    reader = make_reader(embedded.url)
    gateway = make_gateway(
        CONFIGURATION.format(broker=embedded.url, port=tmp_path / "port", key=tmp_path / "air-1.key")
    )
    cable = WornCable(node.cable, tmp_path / "port", 0.05)
    try:
        gateway.start()
        for life in range(1, 4):
            node.start(eventually)
            eventually(lambda: len(numbers(reader)) == life, "records of this boot arrive", 40)  # noqa: B023
            eventually(lambda: max(numbers(reader).items())[1][-1] >= 10, "more of them", 40)
            gateway.kill()
            time.sleep(2)
            if life < 3:
                node.kill()
            gateway.start()
        last = numbers(reader)
        eventually(lambda: max(numbers(reader).items())[1][-1] > max(last.items())[1][-1] + 10, "it goes on", 40)
        found = numbers(reader)
        for boot, seqs in found.items():
            assert seqs == list(range(1, seqs[-1] + 1)), f"a record of boot {boot} is missing"
        assert max(found.items())[1][-1] >= 20 and cable.spoiled > 3
        assert "Traceback" not in node.log.read_text()
    finally:
        cable.close()
