"""The node's way over a serial line, its own file on the real MicroPython, with a UART that notes what happens."""

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
            *("-X", "heapsize=120wk", ROOT / "tests/micropython/uplink_way.py"),
        ],
        env={"MICROPYPATH": f"{ROOT}/firmware/node:{ROOT}/protocols:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return json.loads(outcome.stdout)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("good", ""),
        ("no uart", "uplink.bus i2c0 is no uart"),
        ("no such bus", "uplink.bus uart9 is no uart"),
        ("usual bus of a device", "devices.pms.bus is that of the uplink"),
        ("bus of a device", "devices.x.bus is that of the uplink"),
        ("short key", "key must be 32 bytes in hex"),
        ("baud", "baud must be a whole number"),
        ("typo", "unknown setting bauds"),
        ("battery", "battery goes with a way that the node opens itself"),
    ],
)
def test_configuration_that_cannot_be_is_said(told, what, said):
    assert told["refusals"][what].startswith(said) and bool(told["refusals"][what]) == bool(said)
    assert "00000000" not in told["refusals"][what], "a key is a secret"


def test_way_opens_with_the_first_question_and_hands_on_what_is_said(told):
    assert told["form"] == [9600, 33, 32]
    assert told["welcome"] == "air-1/a1"
    assert told["answer"] == "{}"
    assert told["heard"] == [["time", "now"], ["ack", "[[5, 6]]"], ["cmd/config", "{}"]]


def test_transceiver_drives_the_bus_for_its_answer_and_no_longer(told):
    assert told["events"] == ["drive", "write", "flush", "let go"]
    assert told["held_ms"] >= told["frame_ms"]


def test_way_that_was_closed_answers_in_its_session_no_more(told):
    assert told["after close"] == ""
