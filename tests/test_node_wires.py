"""The node's buses, its own file on the real MicroPython, against wires that answer by a script."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(sys.executable).with_name("micropython")

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    outcome = subprocess.run(
        [
            os.environ.get("BEGA_MICROPYTHON", MICROPYTHON),
            *("-X", "heapsize=120wk", ROOT / "tests/micropython/wires_exchange.py"),
        ],
        env={"MICROPYPATH": f"{ROOT}/firmware/node:{ROOT}/protocols:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return json.loads(outcome.stdout)


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("whole", "01020304"),
        ("by a function", "010f"),
        ("nothing", None),
        ("in part", "0102"),
        ("too late", None),
        ("what came before", "0102"),
        ("long with a gap", "010101010101"),
        ("gap too long", "01"),
        ("nothing expected", ""),
    ],
)
def test_serial_exchange_gives_what_came_in_its_time(told, what, answer):
    assert told["serial"][what][0] == answer


def test_serial_answer_is_taken_as_soon_as_it_is_complete(told):
    """The script goes on for 3 s and the wait for 2; a busy machine may be late, not early."""
    assert 40 <= told["serial"]["whole"][1] < 2000


def test_serial_answer_without_end_is_left(told):
    """A piece each 20 ms, and 200 wanted: the whole may take 300 ms."""
    heard, took_ms = told["serial"]["for minutes"]
    assert took_ms >= 300
    assert heard, "what came so far is given"
    assert len(heard) // 2 < 20 if isinstance(heard, str) else heard < 100


def test_flood_is_bounded(told):
    assert told["serial"]["flood"][0] <= 4096 + 128


def test_rate_changes_behind_the_question_and_comes_back_with_the_next_measurement(told):
    assert told["rates"] == [[9600, "a"], [300, "b"], [9600, "c"]]


def test_bus_is_free_while_a_sensor_measures_and_the_sensor_is_not(told):
    assert told["shared"]["answers"] == ["6262", "44", "6262", None, "", "", "464646"]
    order = [(address, way) for address, way, _, _ in told["shared"]["order"]]
    assert order.index((0x44, "r")) < order.index((0x62, "r")), "the bus waited for the slow one"
    assert [way for address, way in order if address == 0x62] == ["w", "r", "w", "r"]
    assert [way for address, way in order if address == 0x10] == ["w"], "who does not acknowledge is not read"
    assert [way for address, way in order if address == 0x45] == ["w"]
    assert [way for address, way in order if address == 0x46] == ["r"]


def test_what_a_sensor_needs_is_waited_in_full(told):
    at = {(address, way): at_ms for address, way, _, at_ms in reversed(told["shared"]["order"])}
    assert at[0x62, "r"] - at[0x62, "w"] > 300
    assert at[0x44, "r"] - at[0x44, "w"] > 10
