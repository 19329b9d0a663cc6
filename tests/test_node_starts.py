"""How a node starts, and what keeps it from coming back: its own files on MicroPython, beside parts that fail."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "tests/micropython"
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))

pytestmark = pytest.mark.skipif(
    not MICROPYTHON.exists(), reason="no MicroPython for this machine: its wheel is for x86-64 Linux"
)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=2m", SCRIPTS / "node_starts.py", ROOT / "firmware/node/first.py"],
        env={"MICROPYPATH": f"{SCRIPTS / 'soak'}:{SCRIPTS}:{ROOT}/protocols:{ROOT}/firmware/node:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    told: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return told


def test_a_configuration_that_says_anything_else_is_taken_or_refused_in_words(tmp_path):
    """Whatever else a lie would raise, the last good configuration would not be asked for."""
    outcome = subprocess.run(
        [MICROPYTHON, SCRIPTS / "config_lies.py", tmp_path / "config.json"],
        env={"MICROPYPATH": f"{SCRIPTS / 'soak'}:{ROOT}/protocols:{ROOT}/firmware/node:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert int(outcome.stdout.split()[-2]) > 500


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("made ahead", "made_s lies in the future: by it the gateway's time would be refused"),
        ("way not built", "this firmware was built without the way uplink"),
        ("no memory", "MemoryError"),
    ],
)
def test_a_configuration_that_is_refused_for_whatever_reason_is_not_tried_later(found, what, said):
    assert found["takes"][what] == [said, False]


def test_a_configuration_that_was_accepted_outlives_the_refusal_of_the_next(found):
    assert found["takes"]["good"] == [None, True]
    assert found["takes"]["good, then bad"] == ["devices names no device", True]


def test_safe_mode_that_fails_too_gives_way_to_normal_starts_and_has_its_turn_again(found):
    assert found["crashes"] == [5, 11, 17, 23]
    assert found["powers"] == [10, 21]


def test_a_new_configuration_is_tried_also_where_a_safe_start_is_due(found):
    assert found["main"]["well"] == ["app"]
    assert found["main"]["safe"] == ["safe"]
    assert found["main"]["new"] == ["app"]


def test_a_defect_ends_in_a_reset_even_if_it_cannot_be_said(found):
    assert found["main"]["defect"] == ["app", "reset"]


def test_safe_mode_speaks_though_its_way_fails_as_none_should(found):
    assert found["safe speaks"] == ["status"]


def test_a_chips_clock_that_was_cleared_beside_its_memory_is_not_believed(found):
    """As after a short press of EN, whether or not the configuration's date was put into it since."""
    assert found["told"] == {"went on": 60_000, "began anew": None, "set by the configuration": None}


def test_a_command_for_which_there_is_no_memory_is_not_done_and_can_come_again(found):
    results, doing, octets = found["commands"]
    assert results == [False, True, False]
    assert doing == [0, 1, 0], "and who sleeps on a battery can see that one is being done"
    assert octets < 400, "a reason of 5 kB stays in no memory"


def test_connections_that_do_not_last_are_tried_ever_more_rarely(found):
    """A broker that refuses each subscription, or another node of the same name, is not to hear of us each second."""
    assert 4 <= found["opens"] < 20, "with pauses of 10 to 160 ms, in a second"


def test_only_a_freed_record_makes_a_configuration_good_and_no_acknowledgement_that_waited_in_the_broker(found):
    assert found["acknowledgements"] == [0, 0, 1, 1]
