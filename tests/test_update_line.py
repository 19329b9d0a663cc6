"""Pieces of an update on a serial line: one fits one frame, and a bad wire loses none of them for good."""

import asyncio
import hashlib
import json
import random
import struct

import pytest

from bega_protocols import uplink
from tests.test_uplink_line import BOOT, KEY, gateway, on, quick, run, until  # noqa: F401 - quick is a fixture
from tests.uplink_bus import Bus, BusNode, Flash, bad_wire

PAYLOAD = random.Random(3).randbytes(9_000)
SHA256 = hashlib.sha256(PAYLOAD).digest()


class Pulling(BusNode):
    """A node that wants an update, the next piece once it has the one before; whoever waits too long asks again."""

    payload = b""
    largest = 0

    def begin(self) -> None:
        want = {"sha256": SHA256[:8].hex(), "at": len(self.payload), "most": 512}
        self.end.say(uplink.WANT, json.dumps(want).encode())

    def _take(self, kind: int, payload: bytes) -> None:
        if kind != uplink.PIECE:
            super()._take(kind, payload)
        elif payload[:8] == SHA256[:8] and struct.unpack_from(">I", payload, 8)[0] == len(self.payload):
            self.payload += payload[12:]
            self.largest = max(self.largest, len(payload))
            # Not in this turn's answer: a node writes the piece to its flash first.
            asyncio.get_running_loop().call_later(0.01, self.begin)


def pieces(node: str, want: bytes, most: int) -> bytes | None:
    asked = json.loads(want)
    octets = PAYLOAD[asked["at"] : asked["at"] + min(asked["most"], most)]
    return SHA256[:8] + struct.pack(">I", asked["at"]) + octets if octets else None


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spool.db"


@pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])
@pytest.mark.parametrize("share", [0.0, 0.05], ids=["good wire", "bad wire"])
def test_an_update_comes_whole_in_pieces_of_one_frame_while_records_go_on(path, key, share):
    node = Pulling(Flash(), BOOT, key=key)

    async def again() -> None:
        while len(node.payload) < len(PAYLOAD):
            node.begin()  # a session that ended took a want or a piece with it
            await asyncio.sleep(1)

    async def work():
        bus = Bus(node)
        bus.spoil = bad_wire(1, share)
        async with on(bus), gateway(path, bus.port, key=key, pieces=pieces) as (line, _):
            await until(lambda: node._open, "there is a session")
            asking = asyncio.create_task(again())
            node.measure(20)
            await until(lambda: node.payload == PAYLOAD, "all of it came")
            await until(lambda: node.ring.held_count() == 0, "and so did the records")
            asking.cancel()
            assert line.records.refused == 0 or share
        frame = len(uplink.message(uplink.PIECE, bytes(node.largest)))
        assert frame <= uplink.room(True), "a piece and its head fit one frame, sealed too"

    run(work())
