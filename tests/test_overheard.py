"""Somebody listens on the serial line of our nodes: what he reads is what was said, once, whoever repeats it."""

import contextlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.decode import main
from bega.overheard import Overheard
from bega_gateway.lines.uplink_session import Session
from bega_protocols import uplink
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED
from bega_protocols.stored import Stored, store
from bega_protocols.uplink_node import NodeEnd

KEY = bytes(range(32))
READINGS = [Reading("pm2_5", 12), Reading("temperature", -1234, -2)]


def conversation(key: bytes = b"", again: bool = False) -> bytes:
    """Return all that passes on a wire: a session, a status, a record in two frames, its acknowledgement, the time."""
    chance = random.Random(1).randbytes
    node = NodeEnd("air-1", "a1", key, chance, lambda *message: None, lambda: None)
    session = Session("air-1", key, chance)
    wire = b""

    def turn() -> None:
        nonlocal wire
        question = session.ask()
        answer = node.hear(question)
        for block in uplink.Blocks().feed(answer):
            session.hear(block, lambda chip: True)
        wire += (question + answer) * (2 if again else 1)

    turn(), turn()
    shape, body = store(Stored("air", 1_795_300_000_123, SYNCHRONISED, READINGS))
    node.say(uplink.STATUS, json.dumps({"holds": [[5, 1, 1]], "firmware": "x" * 210}).encode())
    node.say(uplink.SHAPE, b"\0" + shape)
    node.say(uplink.RECORD, uplink.record(5, 1, 0, body))
    session.say(uplink.TIME, b'{"unix_ms": 7}')
    turn(), turn()
    session.say(uplink.ACK, uplink.acknowledgement([(5, 1)]))
    turn()
    return wire


@pytest.mark.parametrize("again", [False, True], ids=["once", "each said twice"])
@pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])
def test_what_is_said_is_printed_in_order(tmp_path, capsys, key, again):
    capture = tmp_path / "bus.bin"
    capture.write_bytes(b"\x55noise" + conversation(key, again))
    assert main(["uplink", str(capture)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = [row for row in printed if "asked for" not in row and "chip" not in row]
    assert {"asked for": "air-1"} in printed
    assert [row["sealed"] for row in printed if "chip" in row][-1] == bool(key)
    assert [next(key for key in row if key != "node") for row in said] == ["time", "status", "boot", "ack"]
    assert said[0] == {"node": "air-1", "time": {"unix_ms": 7}}
    record = said[2]
    assert (record["device"], record["boot"], record["seq"], record["time_ms"]) == ("air", 5, 1, 1_795_300_000_123)
    values = [(row["quantity"], row["value"]) for row in record["readings"]]
    assert values == [("pm2_5", 12), ("temperature", -12.34)]
    assert said[3] == {"node": "air-1", "ack": [[5, 1]]}


def test_a_capture_without_the_beginning_of_a_session_says_so(tmp_path, capsys):
    capture = tmp_path / "bus.bin"
    wire = conversation()
    capture.write_bytes(wire[wire.index(b"\0\0", 60) :])
    assert main(["uplink", str(capture)]) == 1
    assert "restart the gateway" in capsys.readouterr().err


@given(st.binary(max_size=300), st.integers(0, 700), st.integers(1, 255), st.integers(1, 200))
def test_damage_is_told_and_what_follows_is_heard(noise, at, turned, size):
    wire = bytearray(noise + b"\0" + conversation())
    wire[at % len(wire)] ^= turned
    stream = bytes(wire) + conversation()
    overheard, heard = Overheard(), []
    for start in range(0, len(stream), size):
        heard += overheard.feed(stream[start : start + size])
    assert heard[-1] == {"node": "air-1", "ack": [(5, 1)]}
    with contextlib.suppress(IndexError):
        assert overheard.damaged[0][0] <= len(stream)
