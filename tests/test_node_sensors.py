"""Sensors of a node that fail: brought back, or reported as a fault. And what a node's devices can be told."""

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.node_park import MICROPYTHON

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
