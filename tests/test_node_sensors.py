"""Sensors of a node that fail: brought back, or reported as a fault. And what a node's devices can be told."""

import ast
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bega.broker import EmbeddedBroker
from bega_protocols.doubt import NOTHING, STUCK
from bega_protocols.reading import GOOD, SUSPECT
from tests.conftest import eventually
from tests.node_park import MICROPYTHON, NODE, Commander, NodeProcess

ROOT = Path(__file__).parent.parent
SECOND_MS, HOUR_MS = 1000, 3_600_000
OFF_MS = 3000

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)


# ------------------------------------------------------------------ the node's own files, in a time of their own


@pytest.fixture(scope="module")
def told() -> Any:
    """What tests/micropython/sensor_care.py saw happen."""
    outcome = subprocess.run(
        [
            os.environ.get("BEGA_MICROPYTHON", MICROPYTHON),
            *("-X", "heapsize=4m", ROOT / "tests/micropython/sensor_care.py"),
        ],
        env={"MICROPYPATH": f"{ROOT}/firmware/node:{ROOT}/protocols:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return json.loads(outcome.stdout.splitlines()[-1])


def steps(times_ms: list[int]) -> list[int]:
    return [later - earlier for earlier, later in itertools.pairwise(times_ms)]


@pytest.mark.parametrize(("scene", "was"), [("silent", "silent"), ("noisy", "damaged"), ("blind", "stuck")])
def test_a_sensor_that_hangs_is_set_up_anew_and_then_its_supply_is_cut(told, scene, was):
    """It fails at 5 s, and nothing but a cut brings it back."""
    seen = told[scene]
    assert seen["states"] == [[1000, "ok"], [10_000, was], [24_000, "ok"]]
    assert seen["made_ms"] == [0, 10_000, 20_000, 20_000 + OFF_MS], "at the start, first, and with the supply"
    assert (seen["cuts_ms"], seen["on_ms"]) == ([20_000], [0, 20_000 + OFF_MS])
    assert (seen["report"]["anew"], seen["report"]["cut"]) == (1, 1)


@pytest.mark.parametrize("scene", ["silent", "noisy", "blind"])
def test_while_a_sensor_hangs_there_is_no_record(told, scene):
    assert [at for at, _ in told[scene]["records"] if 5000 <= at <= 23_000] == []


def test_a_stuck_value_is_not_believed_again_because_a_new_driver_has_not_yet_seen_it_repeated(told):
    """Its driver doubts what repeats itself for 4 s, and forgets that when it is made anew at 14 s."""
    seen = told["stuck"]
    assert seen["states"] == [[1000, "ok"], [14_000, "stuck"], [28_000, "ok"]]
    assert {value for at, value in seen["records"] if at >= 9000} == {at for at, _ in seen["records"] if at >= 28_000}


def test_the_node_knows_the_doubts_of_what_hangs_by_their_words():
    """Its sensor.py does not load doubt.py, which a meter's driver does without."""
    source = ast.parse((ROOT / "firmware/node/sensor.py").read_text(encoding="utf-8"))
    named = {ast.unparse(row.targets[0]): row.value for row in source.body if isinstance(row, ast.Assign)}
    assert ast.literal_eval(named["HANGS"]) == (STUCK, NOTHING)


def test_a_sensor_that_is_stuck_for_ever_is_a_fault_and_gives_no_record(told):
    seen = told["stuck for ever"]
    assert seen["records"] == []
    assert seen["states"] == [[6000, "stuck"], [16_000, "fault"]]
    assert seen["report"]["why"] == "stuck"
    assert seen["report"]["stuck"] == HOUR_MS // SECOND_MS


def test_a_sensor_that_is_gone_is_a_fault_and_tried_ever_more_rarely(told):
    seen = told["gone"]
    assert seen["states"] == [[6000, "silent"], [16_000, "fault"]]
    pauses_s = [step // 1000 for step in steps(seen["made_ms"][1:])]
    assert pauses_s == [10, 20, 40, 80, 160, 320, 640, 1280, 2560] + [3600] * 8
    assert seen["report"]["why"] == "silent"
    assert seen["report"]["fault_s"] == 10 * 3600 - 16


def test_a_supply_is_tried_before_a_fault_is_said_and_cut_ever_more_rarely(told):
    seen = told["gone with a supply"]
    assert seen["states"] == [[6000, "silent"], [16_000 + OFF_MS + 20_000, "fault"]]
    assert max(steps(seen["cuts_ms"])) == HOUR_MS + OFF_MS
    assert steps(seen["cuts_ms"]) == sorted(steps(seen["cuts_ms"]))
    assert len(seen["cuts_ms"]) == seen["report"]["cut"] == 17


def test_what_is_asked_each_hour_has_three_hours_to_come_back(told):
    seen = told["gone, asked each hour"]
    assert seen["states"] == [[4 * HOUR_MS, "silent"], [11 * HOUR_MS, "fault"]]
    assert min(steps(seen["cuts_ms"])) >= 3 * HOUR_MS


def test_what_has_a_rhythm_of_its_own_is_well_between_two_values(told):
    """Asked each second, it gives a value each half minute."""
    seen = told["slow"]
    assert seen["states"] == [[30_000, "ok"]]
    assert seen["made_ms"] == [0]


def test_another_trouble_begins_with_the_first_step_again(told):
    seen = told["again later"]
    assert [state for _, state in seen["states"]] == ["ok", "silent", "fault", "ok", "silent", "fault", "ok"]
    assert steps(seen["made_ms"][3:]) == [10_000]


def test_two_on_one_supply_begin_anew_together_and_one_cut_serves_both(told):
    seen = told["two on one supply"]
    assert seen["cuts_ms"] == [0, 25_000], "not the one 2 s after the first was over"
    assert seen["made_ms"] == {name: [0, 0, 3000, 25_000, 28_000] for name in "ab"}


def test_what_was_asked_before_the_supply_was_cut_is_no_answer(told):
    assert told["measured while it was cut"] == [1, 3, 4]


def test_what_a_driver_counts_is_written_down_each_hour_and_given_to_the_next_one(told):
    seen = told["keeps"]
    assert seen["kept"] == [str(HOUR_MS), str(2 * HOUR_MS)]
    assert seen["given"] == ["", *(str(at) for at in seen["made_ms"][1:])]


def test_a_driver_is_told_what_the_device_beside_it_measures(told):
    assert told["who is told"] == [1000, 2000, 3000]


def test_a_pin_that_the_chip_has_not_is_said(told):
    assert told["pin"] == "pin 99 cannot switch a supply"


# ------------------------------------------------------------------ on a board, as anyone starts it

WIRED = ("pms=pms5003@uart2/25", "dust=sds011@uart1", "co2=scd41@i2c0", "bme=bme280@i2c0", "light=sht4x@i2c0:0x46/27")
DEVICES = {
    "pms": {"every_s": 1, "power_pin": 25, "settings": {"warm_up_s": 4}},
    "dust": {"driver": "sds011", "bus": "uart1", "every_s": 5, "settings": {"rest": True, "warm_up_s": 2}},
    "co2": {"every_s": 5, "beside": "bme", "actions": ["recalibrate"]},
    "bme": {"every_s": 1},
}


on_a_board = pytest.mark.slow  # they share one, and wait for its wires


@pytest.fixture(scope="module")
def told_by(tmp_path_factory) -> Iterator[tuple[NodeProcess, Commander]]:
    """A node with four devices, one of them on a supply that a pin switches, and a gateway that commands it."""
    folder = tmp_path_factory.mktemp("node")
    with EmbeddedBroker(folder / "broker") as broker:
        gateway = Commander(broker.url)
        node = NodeProcess(folder, broker.port, devices=DEVICES, led_pin=27)
        try:
            eventually(gateway._client.is_connected, "the gateway connects")
            gateway._client.subscribe(f"node/{NODE}/result", 1)
            node.start("--heap", "160wk", *(f"--sensor={text}" for text in WIRED))
            eventually(lambda: {"pms", "dust", "co2", "bme"} <= devices_of(gateway), "records of all", 40)
            yield node, gateway
        finally:
            node.stop()
            gateway.close()


def devices_of(gateway: Commander) -> set[str]:
    return {record.device for record in list(gateway.records)}


def device(gateway: Commander, name: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.statuses[-1]["devices"][name]
    return found


def failures_of(gateway: Commander, name: str) -> int:
    counts = device(gateway, name)
    return int(counts["unanswered"] + counts["damaged"])


def answer(gateway: Commander, verb: str, id_: str, **keys: Any) -> dict[str, Any]:
    gateway.command(verb, id_, **keys)
    eventually(lambda: gateway.result(id_), "it answers", 20)
    result = gateway.result(id_)
    assert result
    return result


@on_a_board
def test_a_dust_sensor_that_hangs_comes_back_by_its_supply_and_warms_up_again(told_by):
    node, gateway = told_by
    eventually(lambda: gateway.of("pms")[-1].readings[0].quality == GOOD, "it is warm")
    node.order(hung={"pms": ["silent"]})
    eventually(lambda: device(gateway, "pms")["state"] == "silent", "it is said to be silent", 20)
    before = len(gateway.of("pms"))
    eventually(lambda: device(gateway, "pms")["state"] == "ok", "it is back", 40)
    assert (device(gateway, "pms")["anew"], device(gateway, "pms")["cut"]) == (1, 1)
    eventually(lambda: [row for row in gateway.of("pms")[before:] if row.readings[0].quality == GOOD], "warm again", 20)
    later = gateway.of("pms")[before:]
    assert later[0].time_ms - gateway.of("pms")[before - 1].time_ms > 15_000, "silence is no record"
    assert {reading.quality for reading in later[0].readings} == {SUSPECT}, "its fan has just begun to turn"
    assert device(gateway, "bme")["state"] == "ok"


@on_a_board
def test_a_sensor_that_rests_runs_for_its_warm_up_and_no_longer(told_by):
    _, gateway = told_by
    eventually(lambda: len(gateway.of("dust")) >= 3, "three measurements", 40)
    records = gateway.of("dust")
    laser_s = [reading.value for record in records for reading in record.readings if reading.quantity == "laser_time"]
    runs = [seconds // 2 for seconds in laser_s]
    assert laser_s == [2 * run for run in runs]
    assert runs == sorted(set(runs)), "it runs anew for each record"
    without_record = runs[-1] - len(records)  # on a busy machine an answer may come too late
    eventually(lambda: without_record <= failures_of(gateway, "dust"), "each run without a record is told", 70)
    assert {reading.quality for record in records for reading in record.readings} == {GOOD}


@on_a_board
def test_an_action_is_done_and_what_the_device_said_comes_back(told_by):
    node, gateway = told_by
    node.order(air={"co2": 431})
    done = answer(gateway, "act", "a-1", device="co2", action="recalibrate", value=420)
    assert done == {"id": "a-1", "done": True, "recalibrated_by_ppm": "-11"}
    gateway.results.clear()
    assert answer(gateway, "act", "a-1", device="co2", action="recalibrate", value=420) == done
    before = len(gateway.of("co2"))
    eventually(lambda: len(gateway.of("co2")) > before, "it measures again", 20)


@on_a_board
@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"device": "co2", "action": "persist"}, "this action may not be done on this device"),
        ({"device": "dust", "action": "sleep", "value": 1}, "this action may not be done on this device"),
        ({"device": 7, "action": "recalibrate"}, "this action may not be done on this device"),
        ({"device": "co2", "action": "recalibrate", "value": "420"}, "value must be a whole number"),
        ({"device": "co2", "action": "recalibrate", "value": 20}, "recalibrate must be a whole number from 400 to"),
        ({"device": "co2", "action": "recalibrate"}, "recalibrate must be a whole number from 400 to"),
    ],
)
def test_an_action_that_is_not_listed_or_cannot_be_is_refused(told_by, keys, reason):
    _, gateway = told_by
    result = answer(gateway, "act", f"no-{json.dumps(keys)}"[:60], **keys)
    assert result["done"] is False
    assert result["reason"].startswith(reason)


@on_a_board
def test_an_action_on_a_sensor_that_is_silent_says_that_it_may_not_have_been_done(told_by):
    node, gateway = told_by
    node.order(faults={"co2": ["silent"]})
    result = answer(gateway, "act", "s-1", device="co2", action="recalibrate", value=420)
    node.order(faults={"co2": []})
    assert (result["done"], "look whether it was done" in result["reason"]) == (False, True)


@on_a_board
def test_a_light_blinks_when_it_is_asked_to(told_by):
    """What hangs on the light's pin here is the supply of a sensor, which shows when it is on."""
    node, gateway = told_by
    gateway.command("blink", "b-1", for_s=3)
    seen = set()
    deadline = time.monotonic() + 20
    while gateway.result("b-1") is None and time.monotonic() < deadline:
        seen.add(node.order()["powered"]["light"])
    assert gateway.result("b-1") == {"id": "b-1", "done": True}
    assert seen == {True, False}
    assert node.order()["powered"]["light"] is False
    assert answer(gateway, "blink", "b-2", for_s=61)["done"] is False


@on_a_board
@pytest.mark.parametrize(
    ("name", "wrong", "reason"),
    [
        ("pms", {"power_pin": 17}, "power_pin: pin 17 is that of bus uart2"),
        ("pms", {"power_pin": 49}, "power_pin must be a whole number from 0 to 48, not 49"),
        ("co2", {"actions": "recalibrate"}, "devices.co2.actions must be a list of names"),
        ("co2", {"actions": [7]}, "devices.co2.actions must be a list of names"),
        ("co2", {"beside": "nobody"}, "devices.co2.beside must be another device, not 'nobody'"),
        ("co2", {"beside": "co2"}, "devices.co2.beside must be another device, not 'co2'"),
        ("co2", {"beside": ["bme"]}, "devices.co2.beside must be another device, not ['bme']"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_its_place(told_by, name, wrong, reason):
    _, gateway = told_by
    devices = {**DEVICES, name: {**DEVICES[name], **wrong}}
    wanted = {"node": NODE, "wifi": {"ssid": "x"}, "broker": {"host": "x"}, "devices": devices}
    result = answer(gateway, "config", f"c-{json.dumps(wrong)}"[:60], configuration=wanted)
    assert (result["done"], result["reason"]) == (False, reason)


@on_a_board
def test_what_a_sensor_counts_lasts_over_a_restart(told_by):
    node, gateway = told_by
    boot = gateway.statuses[-1]["boot"]
    counted = [record.readings[-1].value for record in gateway.of("dust") if record.boot == boot][-1]
    assert answer(gateway, "restart", "r-1") == {"id": "r-1", "done": True}
    eventually(lambda: any(record.boot > boot for record in gateway.of("dust")), "it measures again", 40)
    again = next(record.readings[-1].value for record in gateway.of("dust") if record.boot > boot)
    assert counted < again <= counted + 4
    assert "Traceback" not in node.said() and "MemoryError" not in node.said()
