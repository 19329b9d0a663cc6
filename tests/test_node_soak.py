"""The node for hours of its own time: its heap stays as it is. Real MicroPython, mutual TLS, a real mosquitto.

Time in the interpreter runs SPEED times as fast (tests/micropython/soak); the wires are real, so the broker sees a day
of records in minutes. The chip is inside the interpreter, and takes 6 kB of the heap. Twelve minutes, at night.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from bega.broker import accepts_mqtt, free_ports
from bega_firmware.board import read_board
from bega_firmware.build import build
from bega_protocols import senml
from bega_protocols.devices.pms5003.sim import Sim
from bega_simulators.bench.plots import Series, plot
from bega_simulators.board.flash import SHIM, VFS_BLOCKS, VFS_START, put_on_flash

ROOT = Path(__file__).parent.parent
SOAK = ROOT / "tests/micropython/soak"
PICTURE = ROOT / "docs/node-heap.svg"  # BEGA_DRAW=1 draws it anew
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
BROKER = """
per_listener_settings true
user root
listener {plain} 127.0.0.1
allow_anonymous true
listener {secured} 127.0.0.1
require_certificate true
use_identity_as_username true
cafile {identity}/ca.pem
certfile {identity}/broker-1.pem
keyfile {identity}/broker-1.key
"""
HOURS = 24
SPEED = 120  # a handshake must come within 20 s of its time
HEAP = "90wk"
NODE = "air-24"
AIR = ["pms5003", "scd41", "sht4x"]
DEVICES = {
    "pms": {"every_s": 10},
    "sht": {"every_s": 10},
    "co2": {"every_s": 10, "settings": {"altitude_m": 90}},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IS_NIGHT, reason="twelve minutes: make nightly PART=firmware"),
    pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine"),
]


class Gateway:
    """Tells the node its own fast time, and acknowledges what comes in order."""

    def __init__(self, port: int, speed: int) -> None:
        self.records = 0
        self._heads: dict[int, int] = {}
        self._speed = speed
        self._began = time.monotonic()
        self._began_ms = int(time.time() * 1000)
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="gateway")
        self.client.on_message = self._take
        self.client.on_connect = lambda client, *_: client.subscribe(
            [(f"node/{NODE}/up", 1), (f"node/{NODE}/status", 1)]
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/status"):
            for boot, first, _ in json.loads(message.payload)["holds"]:
                self._heads[boot] = max(self._heads.get(boot, 0), first - 1)
            now_ms = self._began_ms + int((time.monotonic() - self._began) * 1000 * self._speed)
            client.publish(f"node/{NODE}/time", json.dumps({"unix_ms": now_ms}))
        else:
            record = senml.decode(message.payload)
            if record.seq == self._heads.get(record.boot, 0) + 1:
                self._heads[record.boot] = record.seq
                self.records += 1
        client.publish(f"node/{NODE}/ack", json.dumps(sorted(self._heads.items())), qos=1)


def speak(wire: socket.socket, speed: int, is_over: threading.Event) -> None:
    """Send the frames of a dust sensor, `speed` times as fast as it does."""
    sensor = Sim({}, seed=1)
    began = time.monotonic()
    while not is_over.wait(0.01):
        now_ms = int((time.monotonic() - began) * 1000 * speed)
        sensor.set("pm2_5", "", 10 + now_ms // 60000 % 20)
        with contextlib.suppress(BlockingIOError):
            wire.send(sensor.tick(now_ms)[-512:])


def soak(folder: Path, hours: float, speed: int, heap: str) -> tuple[list[tuple[int, int]], int, str]:
    """Run a node; return (seconds of its time, bytes free) every ten minutes of it, its records, and what it said."""
    for arguments in (
        ["init", "--name", "City"],
        ["issue", NODE],
        ["issue", "broker-1", "--for", "broker", "--host", "localhost"],
    ):
        command = [sys.executable, "-m", "bega", "ca", *arguments, "--ca", folder / "ca"]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=True)
    identities = folder / "ca/identities"
    plain, secured = free_ports(2)
    (folder / "tls.conf").write_text(BROKER.format(plain=plain, secured=secured, identity=identities / "broker-1"))
    tls = {"ca": "/tls/ca.der", "certificate": "/tls/node.der", "key": "/tls/node.key"}
    broker = {"host": "localhost", "port": secured, "keep_alive_s": 3600, "tls": tls}
    config = {"node": NODE, "made_s": int(time.time()), "wifi": {"ssid": "city"}, "broker": broker, "devices": DEVICES}
    (folder / "config.json").write_text(json.dumps(config))
    contents = [(path, f"/tls/{path.name}") for path in (identities / NODE).iterdir()]
    contents.append((folder / "config.json", "/config.json"))
    for path, content in build(read_board("esp32_devkitc"), AIR, ["broker"]).contents.items():
        place = folder / "files" / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        contents.append((place, path))
    asyncio.run(put_on_flash(MICROPYTHON, folder / "flash", contents))
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen([MOSQUITTO, "-c", folder / "tls.conf"], stderr=subprocess.DEVNULL)
        stack.callback(server.wait, 5)
        stack.callback(server.terminate)
        while not accepts_mqtt("127.0.0.1", plain):
            time.sleep(0.05)
        gateway = Gateway(plain, speed)
        stack.callback(gateway.client.loop_stop)
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        is_over = threading.Event()
        speaker = threading.Thread(target=speak, args=(near, speed, is_over))
        speaker.start()
        stack.callback(speaker.join)
        stack.callback(is_over.set)
        node = subprocess.Popen(
            [
                *(MICROPYTHON, "-X", f"heapsize={heap}", SOAK / "soak.py"),
                *(folder / "flash", str(VFS_START), str(VFS_BLOCKS), str(hours)),
            ],
            env={"MICROPYPATH": f"{SOAK}:{SHIM}:.frozen", "SOAK_SPEED": str(speed), "SOAK_UART": str(far.fileno())},
            pass_fds=[far.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        stack.callback(node.kill)
        said, _ = node.communicate(timeout=hours * 3600 / speed * 2 + 60)
    rows = [line.split() for line in said.splitlines() if line.startswith("SOAK ")]
    return [(int(row[1]), int(row[2])) for row in rows if len(row) == 4], gateway.records, said


def test_heap_of_a_node_stays_as_it_is_for_hours_of_its_time(tmp_path):
    rows, records, said = soak(tmp_path, HOURS, SPEED, HEAP)
    assert "Traceback" not in said, said[-3000:]
    assert rows and rows[-1][0] >= HOURS * 3600, said[-3000:]
    assert records > 0.8 * len(DEVICES) * HOURS * 360, "of one each ten seconds"
    if os.environ.get("BEGA_DRAW"):
        curve = Series("free after a collection", [(seconds / 3600, free / 1000) for seconds, free in rows])
        title = f"Free heap of an air node over a day of its own time ({HEAP}, mutual TLS)"
        PICTURE.write_text(plot(title, [curve], "hours", "kB"), encoding="utf-8")
    settled = [free for seconds, free in rows if seconds >= 1800]
    middle = len(settled) // 2
    assert max(settled[middle:]) >= max(settled[:middle]) - 1024, f"it shrinks: {settled}"
    assert min(settled) > 4096
