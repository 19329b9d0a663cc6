"""Node, broker and gateway as shipped: broker and gateway die together, nothing that the node measured is lost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import IS_NIGHT

MICROPYTHON = Path(sys.executable).with_name("micropython")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
        reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
    ),
]

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
[uplink]
brokers = ["{broker}"]
[lines.nodes]
kind = "mqtt"
broker = "{broker}"
[nodes.air-1]
line = "nodes"
"""
EVERY_S = 0.5
AWAY_S = 5 if IS_NIGHT else 2


@pytest.fixture
def make_node(tmp_path, eventually):
    """Start the virtual board with the node's own firmware on the real MicroPython."""
    running = []

    def make(broker):
        config, ready = tmp_path / "node.json", tmp_path / "node.ready"
        devices = {"pms": {"every_s": 2 * EVERY_S}, "sht": {"every_s": EVERY_S}}
        config.write_text(json.dumps({"node": "air-1", "devices": devices}))
        command = [sys.executable, "-m", "bega", "sim", "board", "--kind", "air", "--config", config]
        more = ["--broker", broker.url.removeprefix("mqtt://"), "--flash", tmp_path / "flash", "--ready-file", ready]
        running.append(subprocess.Popen([*command, *more]))
        eventually(ready.exists, "the node runs")

    yield make
    for board in running:
        board.terminate()
        board.wait(10)


def numbers(reader) -> list[int]:
    """Return the seq of each record of the node's one boot, each once, in order."""
    boots = {boot for source, boot, _ in reader.identities() if source == "air-1"}
    assert len(boots) <= 1, "the node was never restarted here"
    return sorted(seq for source, _, seq in reader.identities() if source == "air-1")


def test_broker_and_gateway_killed_while_the_node_publishes_lose_nothing(
    broker, make_node, make_gateway, make_reader, eventually
):
    gateway = make_gateway(CONFIGURATION.format(broker=broker.url))
    reader = make_reader(broker.url)
    gateway.start()
    make_node(broker)
    eventually(lambda: len(numbers(reader)) >= 6, "records of the node arrive")
    for _ in range(2):
        before = numbers(reader)[-1]
        broker.kill()
        gateway.kill()
        time.sleep(AWAY_S)
        broker.start()
        gateway.start()
        measured = before + int(AWAY_S / EVERY_S)
        eventually(lambda: numbers(reader)[-1] >= measured, "what it measured meanwhile arrives", 60)  # noqa: B023
    found = numbers(reader)
    assert found == list(range(1, found[-1] + 1)), "a record is missing"
    assert gateway.stop() == 0


def test_gateway_that_was_never_there_gets_what_the_node_kept(
    embedded, make_node, make_gateway, make_reader, eventually
):
    """A gateway replaced: the new one knows no head, and the node's status tells it where to begin."""
    reader = make_reader(embedded.url)
    gateway = make_gateway(CONFIGURATION.format(broker=embedded.url))
    gateway.start()
    make_node(embedded)
    eventually(lambda: len(numbers(reader)) >= 6, "records of the node arrive")
    gateway.kill()
    for file in gateway.state.iterdir():
        file.unlink()
    before = numbers(reader)[-1]
    time.sleep(3)
    gateway.start()
    eventually(lambda: numbers(reader)[-1] >= before + int(3 / EVERY_S), "the node goes on with the new gateway", 60)
    found = numbers(reader)
    # The first gateway's spool went with it, and with that what it had acknowledged to the node and not yet sent.
    since = [seq for seq in found if seq > before]
    assert since == list(range(since[0], since[-1] + 1))
