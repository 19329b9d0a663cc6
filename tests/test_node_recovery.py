"""A node that comes back by itself: from a bad configuration, a defect at each start, a hand on its plug."""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bega.clock import wall_ms
from bega_protocols.record import ESTIMATED
from bega_simulators.board.flash import SHIM, VFS_BLOCKS, VFS_START
from tests.node_park import FAST, MICROPYTHON, NODE, Commander, NodeProcess

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)
at_night = pytest.mark.skipif(
    os.environ.get("BEGA_PROFILE") != "nightly", reason="a minute of sleeps: make nightly PART=firmware"
)


@pytest.fixture
def commander(mosquitto, eventually) -> Iterator[Commander]:
    double = Commander(mosquitto.url)
    eventually(double._client.is_connected, "the gateway connects")
    double._client.subscribe(f"node/{NODE}/result", 1)
    yield double
    double.close()


@pytest.fixture
def node(tmp_path, mosquitto) -> Iterator[NodeProcess]:
    made = NodeProcess(tmp_path, mosquitto.port)
    yield made
    made.stop()


def on_flash(flash: Path, script: str) -> str:
    """Run `script` with the flash of a board without power mounted as /flash; return what it prints."""
    head = f"""
import os, vfs
from _flash import Partition
vfs.mount(vfs.VfsLfs2(Partition({str(flash)!r}, {VFS_START}, {VFS_BLOCKS})), "/flash")
"""
    outcome = subprocess.run(
        [os.environ.get("BEGA_MICROPYTHON", MICROPYTHON), "-c", head + script],
        env={"MICROPYPATH": f"{SHIM}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def configuration(mosquitto: Any, **more: Any) -> dict[str, Any]:
    return {
        "node": NODE,
        "made_s": int(time.time()),
        "wifi": {"ssid": "city", "key": ""},
        "broker": {"host": "127.0.0.1", "port": mosquitto.port},
        "devices": FAST,
        **more,
    }


def until_acknowledged(commander, eventually) -> None:
    """Wait until the node has heard an acknowledgement: it comes before the answer to what is asked after it."""
    stored = len(commander.records)
    eventually(lambda: len(commander.records) >= stored + 2, "records come, and the first is acknowledged")
    commander.command("hear", f"heard-{stored}")
    eventually(lambda: commander.result(f"heard-{stored}"), "what came before is heard")


# ------------------------------------------------------------------ commands


def test_a_command_is_done_once_however_often_it_comes(node, commander, eventually):
    node.start()
    eventually(lambda: commander.records, "it measures")
    eventually(lambda: commander.statuses[-1]["time_quality"] == 0, "it knows the time")
    boot = commander.statuses[-1]["boot"]
    commander.command("restart", "r-1")
    commander.command("restart", "r-1")
    eventually(lambda: commander.statuses[-1]["boot"] > boot, "it restarts")
    assert commander.result("r-1") == {"id": "r-1", "done": True}
    boot = commander.statuses[-1]["boot"]
    commander.results.clear()
    commander.command("restart", "r-1")
    eventually(lambda: commander.result("r-1"), "the first result comes again")
    assert commander.result("r-1") == {"id": "r-1", "done": True}
    time.sleep(3)
    assert commander.statuses[-1]["boot"] == boot, "it did not restart once more"


@pytest.mark.parametrize(
    ("verb", "keys", "reason"),
    [
        ("restart", {"expires": 1_795_000_000}, "expired"),
        ("explode", {}, "this node does not do explode"),
        ("config", {"configuration": 7}, "configuration is no table"),
        ("config", {"configuration": {"node": "air-8"}}, "it is for another node"),
        ("config", {"configuration": {"node": NODE}}, "name one way out, not none: broker, uplink, beacon"),
    ],
)
def test_a_command_that_cannot_be_is_refused_with_its_reason(node, commander, eventually, verb, keys, reason):
    node.start()
    eventually(lambda: commander.statuses and commander.statuses[-1]["time_quality"] == 0, "it knows the time")
    commander.command(verb, "c-1", **keys)
    eventually(lambda: commander.result("c-1"), "it answers")
    assert commander.result("c-1") == {"id": "c-1", "done": False, "reason": reason}
    for payload in (b"", b"[", b"[]", b'{"id": 7, "expires": 2000000000}', b'{"id": "x"}', b"[" * 4000):
        commander.publish("cmd/restart", payload)
    commander.command(verb, "c-2", **keys)
    eventually(lambda: commander.result("c-2"), "nonsense has cost nothing")
    assert node.order()["resets"] == 0


# ------------------------------------------------------------------ configurations


def test_a_configuration_by_command_is_used_and_kept_once_the_gateway_was_reached(
    node, commander, mosquitto, eventually
):
    node.start()
    eventually(lambda: commander.statuses and commander.statuses[-1]["time_quality"] == 0, "it knows the time")
    wanted = configuration(mosquitto, devices={"sht": {"every_s": 0.5}})
    commander.command("config", "c-1", configuration=wanted)
    eventually(lambda: commander.result("c-1"), "it answers")
    assert commander.result("c-1") == {"id": "c-1", "done": True}
    eventually(lambda: list(commander.statuses[-1]["devices"]) == ["sht"], "the new one is used")
    until_acknowledged(commander, eventually)
    assert node.stop() == 0
    names = on_flash(node.flash, "print(os.listdir('/flash'))")
    assert "config.json" in names and "config.good" in names
    assert "config.trial" not in names and "config.new" not in names
    assert json.loads(on_flash(node.flash, "print(open('/flash/config.json').read())")) == wanted


def test_a_configuration_that_reaches_no_gateway_is_given_up_at_the_next_start(node, commander, mosquitto, eventually):
    node.start()
    eventually(lambda: commander.statuses and commander.statuses[-1]["time_quality"] == 0, "it knows the time")
    boot = commander.statuses[-1]["boot"]
    elsewhere = configuration(mosquitto, broker={"host": "127.0.0.1", "port": 1})
    commander.command("config", "c-1", configuration=elsewhere)
    eventually(lambda: node.said().count("bega: node air-7 runs") == 2, "the new one is tried")
    node.order(reset=True)
    eventually(lambda: commander.statuses[-1]["boot"] > boot, "the former one brings it back")
    assert commander.statuses[-1]["configuration"].startswith("the new configuration was not confirmed")


def test_the_last_good_configuration_is_used_where_the_nodes_own_cannot_be_read(node, commander, tmp_path, eventually):
    node.start()
    until_acknowledged(commander, eventually)
    assert node.stop() == 0
    boot = commander.statuses[-1]["boot"]
    torn = tmp_path / "torn.json"
    torn.write_text('{"node": "air-7", "dev')
    node.start("--put", f"{torn}=/config.json")
    eventually(lambda: commander.statuses[-1]["boot"] > boot, "it comes up all the same")
    assert commander.statuses[-1]["configuration"] == "the last good configuration is used: /config.json is no JSON"


# ------------------------------------------------------------------ safe mode


def test_after_five_crashes_it_is_safe_and_can_be_told_and_restarted(node, commander, tmp_path, eventually):
    broken = tmp_path / "app.py"
    broken.write_text("raise RuntimeError('a defect at each start')\n")
    node.start("--put", f"{broken}=/a/app.py", comes_up=False)
    eventually(lambda: commander.statuses, "it comes up in safe mode", 60)
    status = commander.statuses[-1]
    assert status["safe"] == "5 resets in a row by a defect or the watchdog"
    assert "a defect at each start" in status["last_error"]
    assert "holds" not in status, "nobody looked into the ring"
    assert not commander.records
    commander.command("explode", "c-1")
    eventually(lambda: commander.result("c-1"), "it answers")
    commander.command("restart", "c-2")
    eventually(lambda: node.said().count("a defect at each start") > 5, "it is tried anew", 30)


def test_power_cuts_are_no_crashes_and_ten_quick_ones_ask_for_safe_mode(node, commander, eventually):
    """A supply that browns out looks like a hand at the plug; neither is a defect, and both end in safe mode."""
    for cut in range(9):
        node.start()
        node.kill()
        assert "safe mode" not in node.said(), cut
    node.start(comes_up=False)
    eventually(lambda: commander.statuses and "safe" in commander.statuses[-1], "the tenth is safe", 30)
    assert commander.statuses[-1]["safe"] == "10 power-ons in a row, each for less than a minute"


# ------------------------------------------------------------------ time over a reset, and on a battery


def test_after_a_reset_the_chips_clock_stamps_what_the_gateway_has_not_yet(node, commander, eventually):
    node.start()
    eventually(lambda: commander.statuses and commander.statuses[-1]["time_quality"] == 0, "it knows the time")
    commander.timeless = True
    boot = commander.statuses[-1]["boot"]
    node.order(reset=True)
    eventually(lambda: commander.records and commander.records[-1].boot > boot, "records of the next boot")
    record = commander.records[-1]
    assert record.time_quality == ESTIMATED
    assert abs(record.time_ms - wall_ms()) < 10_000


def test_a_power_cut_forgets_the_time_and_a_brown_out_is_told_from_it(node, commander, eventually):
    node.start()
    eventually(lambda: commander.statuses and commander.statuses[-1]["time_quality"] == 0, "it knows the time")
    assert commander.statuses[-1]["brown_out"] is False
    boot = commander.statuses[-1]["boot"]
    node.order(brownout=True)
    eventually(lambda: commander.statuses[-1]["boot"] > boot, "it is back")
    assert commander.statuses[-1]["brown_out"] is True
    assert commander.statuses[-1]["reset_cause"] == 1


@at_night
def test_on_a_battery_it_sleeps_between_measurements_and_is_one_boot(tmp_path, mosquitto, commander, eventually):
    node = NodeProcess(tmp_path, mosquitto.port, devices={"sht": {}}, battery={"every_s": 5, "send_every_s": 10})
    try:
        node.start()
        eventually(lambda: node.said().count("bega: sleeps for") >= 4, "it wakes and sleeps", 80)
        records = list(commander.records)
        assert node.said().count("bega: link up") < node.said().count("bega: sleeps for"), "it sends every other time"
        restart_when_awake(commander)
        eventually(lambda: commander.statuses[-1]["boot"] > records[0].boot, "it restarts, and sleeps not over it", 40)
        assert commander.result("b-1") == {"id": "b-1", "done": True}
    finally:
        node.stop()
    assert len({record.boot for record in records}) == 1
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert len(records) >= 3
    times = [record.time_ms for record in records]
    steps = [later - earlier for earlier, later in itertools.pairwise(times[1:])]
    assert all(4_000 < step < 6_500 for step in steps), times


def restart_when_awake(commander: Commander) -> None:
    """Ask for a restart in the moment in which a node on a battery is heard after a sleep."""
    take = commander._take_status

    def ask(status: dict[str, Any]) -> None:
        if status["reset_cause"] == 4 and not commander.results:
            commander.command("restart", "b-1")
        take(status)

    commander._take_status = ask
