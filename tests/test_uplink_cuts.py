"""The power of a node or of the gateway fails at each octet on the wire: nothing is lost, nothing comes twice."""

import os
import random

import pytest

from bega.outbox.spool import Head
from bega_gateway.lines import uplink as line_module
from bega_gateway.lines.nodes import NodeRecords
from bega_gateway.lines.uplink_session import Session
from bega_protocols import senml, uplink
from tests.uplink_bus import BusNode, Flash

BOOT = 1_795_300_000
KEY = bytes(range(32))
RECORDS = 12
TURNS = 60
STEP = 1 if os.environ.get("BEGA_PROFILE") == "nightly" else 7


class Stored:
    """What a spool answers with: done at the next commit."""

    def add_done_callback(self, told):
        self.told = told

    def cancelled(self):
        return False

    def exception(self):
        return None


class Disk:
    """What a gateway has committed."""

    def __init__(self) -> None:
        self.heads: dict[tuple[str, int], int] = {}
        self.records: list[tuple[int, int]] = []


class Gateway:
    """Session and heads as the line puts them together; killed, it keeps `disk`."""

    def __init__(self, disk: Disk, key: bytes, seed: int) -> None:
        self.session = Session("air-1", key, random.Random(seed).randbytes)
        self._disk = disk
        self._uncommitted: list[tuple[Head, Stored | None]] = []
        self._records = NodeRecords(
            self._store, lambda head: self._uncommitted.append((head, None)), dict(disk.heads), lambda: True
        )
        self._shapes: dict[int, bytes] = {}
        self._owes = False

    def ask(self) -> bytes:
        if self.session.is_open and not self.session.is_asking and self._owes:
            self._owes = False
            self.session.say(uplink.ACK, uplink.acknowledgement(self._records.pairs("air-1")))
        return self.session.ask()

    def hear(self, octets: bytes) -> None:
        heard = None
        for block in uplink.Blocks().feed(octets):
            heard = self.session.hear(block, lambda chip: True) if heard is None else heard
        if heard is None:
            self.session.unanswered()
        for kind, payload in heard or ():
            if kind == uplink.STATUS:
                self._records.take_status("air-1", payload)
                self._owe("air-1")
            elif kind == uplink.SHAPE:
                self._shapes[payload[0]] = payload[1:]
            else:
                record = line_module._record("air-1", payload, self._shapes)
                self._records.take_pack("air-1", senml.encode(record), self._owe)

    def commit(self) -> None:
        waiting, self._uncommitted = self._uncommitted, []
        for head, stored in waiting:
            key = head.source, head.boot
            self._disk.heads[key] = max(head.seq, self._disk.heads.get(key, 0))
            if stored:
                self._disk.records.append((head.boot, head.seq))
                stored.told(stored)

    def _store(self, record, pack, head) -> Stored:
        self._uncommitted.append((head, Stored()))
        return self._uncommitted[-1][1]

    def _owe(self, node: str) -> None:
        self._owes = True


def live(key: bytes, cut_at: int, whose: str) -> tuple[int, Disk, BusNode]:
    """Hand on some records, and cut the power of one side when so many octets have passed.

    Returns after how many octets all was freed first, what the gateway has, and the node.
    """
    flash, disk = Flash(), Disk()
    node, gateway = BusNode(flash, BOOT, key=key), Gateway(disk, key, 2)
    node.measure(RECORDS)
    passed = freed_at = 0

    def passes(octets: bytes) -> bytes:
        """Return what is left of it; the cut falls where the count is reached."""
        nonlocal passed, node, gateway
        before, passed = passed, passed + len(octets)
        if not before <= cut_at < passed:
            return octets
        if whose == "node":
            node = BusNode(flash, BOOT, key=key, seed=3)
            node.measure(RECORDS)
        else:
            gateway = Gateway(disk, key, 4)
        return octets[: cut_at - before]

    for turn in range(TURNS):
        question = passes(gateway.ask())
        answer = passes(node.hear(question, 20 * turn))
        if turn % 2:  # before an answer: what that brings must not be acknowledged with it
            gateway.commit()
        gateway.hear(answer)
        freed_at = freed_at or (passed if node.ring.held_count() == 0 else 0)
    return freed_at, disk, node


@pytest.mark.parametrize("whose", ["node", "gateway"])
@pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])
def test_power_that_fails_at_any_octet_loses_nothing_and_doubles_nothing(key, whose):
    freed_at, disk, node = live(key, 10**9, whose)
    assert sorted(disk.records) == [(BOOT, seq) for seq in range(1, RECORDS + 1)] and freed_at > 500
    for cut_at in range(0, freed_at + 50, STEP):
        _, disk, node = live(key, cut_at, whose)
        boots = [BOOT, node.boot] if node.boot != BOOT else [BOOT]
        expected = [(boot, seq) for boot in boots for seq in range(1, RECORDS + 1)]
        assert sorted(disk.records) == expected, f"cut at octet {cut_at}"
        assert node.ring.held_count() == 0, f"cut at octet {cut_at}"
