"""What must hold of a node's flash, whatever happens to it: power cuts at its operations, bits that rot."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.node_park import GatewayDouble, NodeProcess
from tests.test_board import in_order

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "tests/micropython"
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists(), reason="no MicroPython for this machine: its wheel is for x86-64 Linux"
)


def last_line_of(script: str, *arguments: str) -> str:
    """Run a script of ours with the node's own modules and a chip inside the interpreter; return its last line."""
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=16m", SCRIPTS / script, *arguments],
        env={"MICROPYPATH": f"{SCRIPTS / 'soak'}:{ROOT / 'protocols'}:{ROOT / 'firmware/node'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    return outcome.stdout.splitlines()[-1]


@pytest.mark.parametrize("torn", ["clean", "torn"])
def test_power_cut_at_flash_operations_leaves_a_configuration_and_no_command_undone_or_done_twice(torn):
    each = 1 if IS_NIGHT else 4
    cuts, _, operations = last_line_of("node_powercut.py", torn, str(each)).split()[:3]
    assert int(operations) > 200, "a life too short"
    assert int(cuts) >= int(operations) // each - 1


def test_a_bit_that_rots_makes_no_wrong_record_and_no_boot_twice():
    """Most of what rots is noticed; what littlefs cannot notice or mend stays a small part, and is counted here."""
    outcomes = json.loads(last_line_of("node_bitrot.py", "5" if IS_NIGHT else "89"))
    flips = sum(outcomes.values())
    assert outcomes["as before"] > flips * 3 // 4
    assert outcomes["records declared"] > 0
    assert outcomes.get("another configuration", 0) <= flips // 50
    assert outcomes.get("no configuration", 0) <= flips // 50
    assert outcomes.get("no file system", 0) <= flips // 200 + 1


def test_a_message_larger_than_the_heap_is_read_past_and_nothing_of_it_is_done(tmp_path, mosquitto, eventually):
    """Nonsense: test_board.py. Commands and configurations: test_node_recovery.py. Frames: test_devices.py."""
    gateway, node = GatewayDouble(mosquitto.url), NodeProcess(tmp_path, mosquitto.port)
    try:
        node.start()
        eventually(lambda: gateway.statuses and gateway.statuses[-1]["time_quality"] == 0, "it knows the time")
        asked = {"id": "c-1", "expires": int(time.time()) + 60, "more": "x" * 1_000_000}
        gateway.publish("cmd/restart", json.dumps(asked).encode())
        before = len(gateway.records)
        eventually(lambda: len(gateway.records) >= before + 6, "records as before")
        assert in_order(gateway.identities())
        assert node.order()["resets"] == 0
        assert node.said().count("bega: link up") == 1
    finally:
        node.stop()
        gateway.close()


@pytest.mark.parametrize("seed", range(6 if IS_NIGHT else 1))
def test_a_board_whose_power_fails_at_any_flash_operation_boots_and_brings_every_record(
    seed, tmp_path, mosquitto, eventually
):
    """The whole firmware, from its start on: what the parts promise alone (above, and test_ring.py), put together."""
    chance = random.Random(seed)
    gateway, node = GatewayDouble(mosquitto.url), NodeProcess(tmp_path, mosquitto.port)
    try:
        node.start()
        eventually(lambda: gateway.records, "it measures")
        for _ in range(8 if IS_NIGHT else 2):  # ten power-ons in a row of less than a minute are safe mode
            boot = max(gateway.heads)
            node.order(power_cut={"after": chance.randrange(60), "torn": chance.random() < 0.5})
            eventually(lambda: max(gateway.heads) > boot, "it boots, and goes on", 60)  # noqa: B023
        assert in_order(gateway.identities())
        assert all(status["dropped"] == [] for status in gateway.statuses)
        assert "Traceback" not in node.said()
    finally:
        node.stop()
        gateway.close()


@pytest.mark.skipif(not IS_NIGHT, reason="a minute: make nightly PART=firmware")
def test_bench_of_a_nodes_start_runs(tmp_path):
    found = tmp_path / "found.json"
    bench = [sys.executable, "-m", "bega", "bench", "node", "--quick", "--json", found]
    told = subprocess.run(bench, capture_output=True, text=True, timeout=200)
    assert told.returncode == 0, told.stderr
    assert len(json.loads(found.read_text())["scenarios"]["node"]["figures"]["woken_s"]) == 1
