"""Two hundred nodes of the real firmware get an update through one gateway, over wires that spoil a frame in twenty.

One node in twenty crashes on the new version: it is back on the old one after at most three starts, the rollout stops
by itself, and no record is lost.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bega.clock import wall_ms
from bega_firmware import build as builder
from bega_firmware.board import read_board
from bega_firmware.image import make_image
from tests.pocket_park import MICROPYTHON, PocketBoard, PocketBus
from tests.test_update_bundle import KEY, PUBLIC

IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
NODES, LINES = int(os.environ.get("BEGA_FLEET", "200")), 20  # a smaller fleet for a look
OLD, NEW = "1.2.3", "1.3.0"
BLOCKS = 160  # of 4 kB: two slots, an update on its way, and a small ring
EVERY_S = 20
LOST = 0.05
CRASHES = (
    'if int(self.config["node"][4:]) % 20 == 7:\n            raise ValueError("a version that is bad for this node")'
)
RUNS = "        health = Health("  # in app.py, once it has said what runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not IS_NIGHT, reason="two hundred boards take a while: make nightly PART=updates"),
    pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine"),
]

HEAD = """
[gateway]
name = "gw-corner"
city = "timisoara"
[uplink]
brokers = ["{broker}"]
[updates]
public_keys = ["{key}"]
at_once = 60
failures_percent = 4
"""


def is_bad(number: int) -> bool:
    return number % 20 == 7


def built(version: str, *changes: tuple[str, str]) -> builder.Built:
    real = builder.lean

    def lean(texts: dict[str, str], *more: Any) -> Any:
        for text, instead in changes:
            assert texts["/app.py"].count(text) == 1
            texts["/app.py"] = texts["/app.py"].replace(text, instead)
        return real(texts, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "lean", lean)
        return builder.build(read_board("esp32_devkitc"), ["sht4x"], ["uplink"], version=version, keys=PUBLIC)


def make_flash(board: PocketBoard, contents: dict[str, bytes]) -> None:
    configuration = {
        "node": board.name,
        "made_s": wall_ms() // 1000,
        "uplink": {"bus": "uart1", "baud": 115200},
        "devices": {"sht": {"every_s": EVERY_S}},
        "ring_segments": 12,
    }
    with_config = {**contents, "/config.json": json.dumps(configuration).encode()}
    board.flash.write_bytes(make_image(with_config, BLOCKS * 4096))


def bega(*words: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bega", *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )


def signed(folder: Path) -> Path:
    """Return a signed bundle of NEW, made by the tool but for its one defect."""
    private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "update.key").write_bytes(private)
    (folder / "update.key").chmod(0o600)
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "update.key.pub").write_bytes(public)
    from bega_firmware import update_command, update_make

    file = folder / "new.bega"
    with pytest.MonkeyPatch.context() as patch:
        bad = built(NEW, (RUNS, f"        {CRASHES}\n{RUNS}"))
        patch.setattr(update_make, "build_node", lambda *args, **more: bad)
        words = ["--board", "esp32_devkitc", "--version", NEW, "--device", "sht4x", "--way", "uplink"]
        keys = ["--update-key", str(folder / "update.key.pub"), "--out", str(file)]
        assert update_command.main(["build", *words, *keys]) == 0
    assert update_command.main(["sign", str(file), "--key", str(folder / "update.key")]) == 0
    return file


class Power:
    """All buses, in a thread of their own."""

    def __init__(self, buses: list[PocketBus]) -> None:
        self._buses = buses
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def off(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        self._thread.join(30)

    def _run(self) -> None:
        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as tasks:
                for bus in self._buses:
                    tasks.create_task(bus.run())

        self._task = self._loop.create_task(all_of_them())
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        except BaseException as error:  # what ended a board
            self.error = error


def test_two_hundred_nodes_are_updated_and_the_bad_ones_go_back(
    tmp_path, mosquitto, make_gateway, make_reader, eventually: Callable[..., None]
):
    began_s, cpu = time.monotonic(), os.times()
    bundle = signed(tmp_path)
    old = built(OLD).contents
    boards = [PocketBoard(tmp_path, f"air-{number:03}", number, BLOCKS) for number in range(NODES)]
    for board in boards:
        make_flash(board, old)
    buses = [PocketBus(boards[line::LINES], LOST, seed=line) for line in range(LINES)]
    tables = [HEAD.format(broker=mosquitto.url, key=tmp_path / "update.key.pub")]
    tables += [
        f'[lines.bus-{line}]\nkind = "uplink"\nport = "{bus.port}"\nbaud = 115200' for line, bus in enumerate(buses)
    ]
    tables += [f'[nodes.{board.name}]\nline = "bus-{number % LINES}"' for number, board in enumerate(boards)]
    reader = make_reader(mosquitto.url)
    gateway = make_gateway("\n".join(tables))
    where = ("--state", gateway.state)
    power = Power(buses)
    told: list[str] = []

    def update() -> dict[str, Any]:
        assert power.error is None, power.error
        return json.loads(bega("update", "status", "--json", *where).stdout)[0]

    def slowly(holds: Callable[[], object], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert power.error is None, power.error
            assert time.monotonic() < deadline, f"{what}: {told and told[-1]}"
            time.sleep(5)

    def is_in(*states: str) -> bool:
        now = update()
        told.append(f"{time.monotonic() - began_s:.0f} s: {now['state']}, ring {now['ring']}, {now['counts']}")
        print(told[-1], flush=True)
        return now["state"] in states

    try:
        gateway.start()
        slowly(lambda: len({record.source for record in list(reader.records)}) == NODES, "all are heard", 300)
        heard_s = time.monotonic() - began_s
        assert bega("update", "publish", bundle, *where).returncode == 0
        published_s = time.monotonic()
        slowly(lambda: is_in("stopped", "over"), "the first failure in a small ring stops it", 1200)
        stopped = update()
        assert stopped["state"] == "stopped" and stopped["counts"]["failed"] >= 1
        assert NODES < 100 or stopped["counts"].get("waiting", 0) > NODES // 2, "most were never offered it"
        assert bega("update", "resume", *where, "--failures-percent", 10).returncode == 0
        slowly(lambda: is_in("over", "stopped"), "all others have it", 2400)
        rolled_s = time.monotonic() - published_s
        now = update()
        bad = [board for number, board in enumerate(boards) if is_bad(number)]
        assert now["counts"] == {"confirmed": NODES - len(bad), "failed": len(bad)}, told
        assert {name for name, node in now["of_nodes"].items() if node["state"] == "failed"} == {b.name for b in bad}
        trials = {board.name: board.said().count(f"firmware {NEW}") for board in bad}
        assert all(1 <= count <= 3 for count in trials.values()), trials
        for board in bad:
            runs = re.findall(r"firmware (\S+)", board.said())
            assert runs[-1] == OLD, (board.name, runs)
        time.sleep(2 * EVERY_S)  # what was measured last is on its way
    finally:
        power.off()
        for bus in buses:
            bus.close()
    boots: dict[tuple[str, int], set[int]] = {}
    for source, boot, seq in reader.identities():
        boots.setdefault((source, boot), set()).add(seq)
    gaps = {key: max(seqs) - len(seqs) for key, seqs in boots.items() if max(seqs) != len(seqs)}
    assert not gaps, "a record is lost"
    assert "node dropped records" not in gateway.log.read_text()
    spent = os.times()
    figures = {
        "nodes": NODES,
        "frames": sum(bus.passed for bus in buses),
        "spoiled": sum(bus.spoiled for bus in buses),
        "heard_s": round(heard_s),
        "rollout_s": round(rolled_s),
        "records": len(reader.records),
        "trials_of_bad": sorted(trials.values()),
        "bundle_bytes": bundle.stat().st_size,
        "cpu_s": round(spent.children_user + spent.children_system + spent.user + spent.system - sum(cpu[:4])),
    }
    print(json.dumps(figures))
    for board in boards:
        board.flash.unlink()  # 128 MB
