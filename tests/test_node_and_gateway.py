"""A node's ring and window against a gateway's line, over all that a broker, a flash and power cuts may do to them.

What must hold: a record leaves the ring only once a gateway has committed it
(or the full ring gave it up), no gateway stores one twice, and whatever went
before, once messages arrive again all that is held comes through, while the
node goes on measuring.
"""

import asyncio
import contextlib
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bega.mqtt import Message
from bega.outbox.spool import Head
from bega_gateway.lines.mqtt import NodeLine
from bega_gateway.lines.nodes import NodeRecords
from bega_protocols import senml
from bega_protocols.reading import Reading
from bega_protocols.record import UNKNOWN, Record
from bega_protocols.ring import START, Ring, Window, read_acknowledgement

NODE = "air-1"
FIRST_BOOT = 1_795_300_000
SHAPE = b"pms|pm2_5,,0,0"
SMALL, LARGE = 3, 60  # segments: one ring that is soon full, and one that never is
SEGMENT_BYTES = 256
WINDOW, RESEND_MS, STATUS_MS = 5, 15_000, 30_000  # firmware/node/link.py, its window made small
TURN_MS = 5_000
SETTLED_WITHIN = 400  # turns: the longest pause of a node that hears nothing is 600 s


class Flash:
    """Segments that survive a power cut."""

    def __init__(self) -> None:
        self.files: dict[int, bytes] = {}

    def numbers(self) -> list[int]:
        return list(self.files)

    def read(self, number: int) -> bytes:
        return self.files[number]

    def append(self, number: int, data: bytes) -> None:
        self.files[number] = self.files.get(number, b"") + data

    def remove(self, number: int) -> None:
        self.files.pop(number, None)


class Node:
    """Ring and window, sending as firmware/node/link.py does; `sent` are the messages that it gave to the broker."""

    def __init__(self, flash: Flash, segments: int, boot: int, now_ms: int) -> None:
        self.ring = Ring(flash, segments, SEGMENT_BYTES)
        self.boot = max(boot, self.ring.last_boot() + 1)
        self._window = Window(self.ring, WINDOW, RESEND_MS)
        self._seq = 0
        self.connect(now_ms)

    def connect(self, now_ms: int) -> None:
        self._window.restart(now_ms)
        self._status_due = True
        self._moved_ms = self._status_ms = now_ms
        self._dropped: list[list[int]] = []

    def measure(self) -> tuple[int, int]:
        self._seq += 1
        self.ring.append([(self.boot, self._seq, SHAPE, b"")])
        return self.boot, self._seq

    def fail_to_store(self) -> None:
        """A write failed: its number is used up, for it may be on the flash all the same."""
        self._seq += 1

    def held(self) -> set[tuple[int, int]]:
        found = set()
        held = self.ring.next(START)
        while held is not None:
            found.add((held.boot, held.seq))
            held = self.ring.next(held.after)
        return found

    def turn(self, now_ms: int) -> list[Message]:
        """Return what it sends now."""
        sent = self._status(now_ms)
        if self._window.stalled(now_ms):
            self._window.resend(now_ms)
        while (held := self._window.next()) is not None:
            self._window.sent(held, now_ms)
            record = Record(NODE, held.boot, held.seq, "pms", None, UNKNOWN, [Reading("pm2_5", held.seq)])
            sent.append(Message(f"node/{NODE}/up", senml.encode(record)))
        return sent

    def hear(self, acknowledgement: bytes, now_ms: int) -> None:
        if self._window.acknowledged(read_acknowledgement(acknowledgement), now_ms):
            self._moved_ms = now_ms

    def _status(self, now_ms: int) -> list[Message]:
        dropped = self.ring.dropped()
        stuck = now_ms - max(self._moved_ms, self._status_ms) >= STATUS_MS and self.ring.held_count() > 0
        if not (self._status_due or stuck or dropped != self._dropped):
            return []
        self._status_due = False
        self._status_ms = now_ms
        self._dropped = dropped
        status = {"holds": self.ring.holds(), "dropped": dropped}
        return [Message(f"node/{NODE}/status", json.dumps(status).encode())]


class Gateway:
    """A NodeLine on a session in memory, and a spool that commits when it is told to. Killed, it keeps `disk`."""

    def __init__(self, disk: "Disk") -> None:
        self.disk = disk
        self.has_room = True
        self._loop = asyncio.new_event_loop()
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        self._published: list[bytes] = []
        self._uncommitted: list[tuple[Head, asyncio.Future[None] | None]] = []
        line = NodeLine(
            "nodes",
            [NODE],
            connect=self._connect,
            records=NodeRecords(
                self._store,
                skip_to=lambda head: self._uncommitted.append((head, None)),
                heads=dict(disk.heads),
                has_room=lambda: self.has_room,
            ),
            wall_ms=lambda: None,
            mono_ms=lambda: 0,
        )
        self._serving = self._loop.create_task(line.run())
        self._run()

    def hear(self, message: Message) -> list[bytes]:
        """Return the acknowledgements that it gives at once."""
        self._arrived.put_nowait(message)
        return self._run()

    def commit(self) -> list[bytes]:
        """Commit what waits, and return the acknowledgements that it gives thereupon."""
        waiting, self._uncommitted = self._uncommitted, []
        for head, stored in waiting:
            key = head.source, head.boot
            self.disk.heads[key] = max(head.seq, self.disk.heads.get(key, 0))
            if stored is not None:
                self.disk.records.append((head.boot, head.seq))
                stored.set_result(None)
        return self._run()

    def kill(self) -> None:
        self._serving.cancel()
        self._run()
        self._loop.close()

    def _store(self, record: Record, pack: bytes, head: Head) -> "asyncio.Future[None]":
        stored: asyncio.Future[None] = self._loop.create_future()
        self._uncommitted.append((head, stored))
        return stored

    @contextlib.asynccontextmanager
    async def _connect(self):
        yield self

    async def subscribe(self, *topics: str) -> None:
        pass

    async def publish(self, topic: str, payload: bytes) -> None:
        assert topic == f"node/{NODE}/ack"
        self._published.append(payload)

    async def messages(self):
        while True:
            yield await self._arrived.get()

    def _run(self) -> list[bytes]:
        """Let the line do all that it can do now."""

        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self._loop.run_until_complete(turns())
        if self._serving.done() and not self._serving.cancelled():
            self._serving.result()
        published, self._published = self._published, []
        return published


class Disk:
    """What a gateway has committed."""

    def __init__(self) -> None:
        self.heads: dict[tuple[str, int], int] = {}
        self.records: list[tuple[int, int]] = []


class NodeAndGateway(RuleBasedStateMachine):
    """The world between and around them."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.flash = Flash()
        self.segments = LARGE
        self.node = Node(self.flash, LARGE, FIRST_BOOT, 0)
        self.gateway = Gateway(Disk())
        self.to_gateway: list[Message] = []
        self.to_node: list[bytes] = []
        self.owed: set[tuple[int, int]] = set()  # measured, and neither given up by a full ring nor erased
        self.committed: set[tuple[int, int]] = set()  # by this gateway, or one that was here before

    @initialize(segments=st.sampled_from([SMALL, LARGE]))
    def flash_has(self, segments):
        self.segments = segments
        self.node = Node(self.flash, segments, FIRST_BOOT, 0)

    @rule(count=st.integers(1, 8))
    def measure(self, count):
        before = self.node.held()
        before |= {self.node.measure() for _ in range(count)}
        given_up = before - self.node.held()  # measuring acknowledges nothing: the ring was full
        self.owed = (self.owed | before) - given_up

    @rule()
    def node_fails_to_store(self):
        self.node.fail_to_store()

    @rule(seconds=st.sampled_from([0, 5, 16, 31, 700]))
    def node_sends(self, seconds):
        self.now_ms += 1000 * seconds
        self.to_gateway += self.node.turn(self.now_ms)

    @precondition(lambda self: self.to_gateway)
    @rule(count=st.integers(1, 8))
    def gateway_hears(self, count):
        for message in self.to_gateway[:count]:
            self.to_node += self.gateway.hear(message)
        self.to_gateway = self.to_gateway[count:]

    @rule()
    def gateway_commits(self):
        self.to_node += self.gateway.commit()
        self.committed |= set(self.gateway.disk.records)

    @precondition(lambda self: self.to_node)
    @rule(index=st.integers(0, 30), stays=st.booleans())
    def node_hears(self, index, stays):
        """One acknowledgement, in any order; it may come a second time."""
        acknowledgement = self.to_node[index % len(self.to_node)]
        if not stays:
            self.to_node.remove(acknowledgement)
        self.node.hear(acknowledgement, self.now_ms)

    @precondition(lambda self: self.to_gateway)
    @rule(index=st.integers(0, 30))
    def broker_loses_what_the_node_sent(self, index):
        self.to_gateway.pop(index % len(self.to_gateway))

    @precondition(lambda self: self.to_node)
    @rule(index=st.integers(0, 30))
    def broker_loses_an_acknowledgement(self, index):
        self.to_node.pop(index % len(self.to_node))

    @rule()
    def node_connects_again(self):
        self.node.connect(self.now_ms)

    @rule()
    def node_loses_power(self):
        self.node = Node(self.flash, self.segments, self.node.boot + 1, self.now_ms)

    @rule()
    def node_is_erased_and_made_anew(self):
        """Its configuration is newer than all its boots; what it held went with its flash."""
        self.flash = Flash()
        self.node = Node(self.flash, self.segments, self.node.boot + 1000, self.now_ms)
        self.owed &= self.committed

    @rule()
    def gateway_is_killed(self):
        self.gateway.kill()
        self.gateway = Gateway(self.gateway.disk)

    @rule()
    def gateway_is_replaced(self):
        self.gateway.kill()
        self.gateway = Gateway(Disk())
        self.to_gateway = []

    @rule()
    def gateway_has_no_room_or_room_again(self):
        self.gateway.has_room = not self.gateway.has_room

    @rule()
    def all_goes_well_again(self):
        """From now on nothing is lost, and a ring that has room goes on measuring: what is held now comes through."""
        self.gateway.has_room = True
        waiting = self.node.held()
        for turn in range(SETTLED_WITHIN):
            if turn % 2 and self.segments == LARGE:
                self.measure(1)
            self.node_sends(TURN_MS // 1000)
            self.gateway_hears(len(self.to_gateway))
            self.gateway_commits()
            for acknowledgement in self.to_node:
                self.node.hear(acknowledgement, self.now_ms)
            self.to_node = []
            self.nothing_is_freed_that_is_not_committed()
            waiting &= self.node.held()
            if not waiting:
                return
        raise AssertionError(f"never came through: {sorted(waiting)}")

    @invariant()
    def nothing_is_freed_that_is_not_committed(self):
        assert self.owed <= self.node.held() | self.committed

    @invariant()
    def nothing_is_stored_twice(self):
        assert len(self.gateway.disk.records) == len(set(self.gateway.disk.records))

    def teardown(self):
        try:
            self.all_goes_well_again()
        finally:
            self.gateway.kill()


def test_a_hole_that_is_passed_acknowledges_nothing_below_it_that_waits_for_its_commit():
    """With a disk that fails the wait is long, and the node would free what nobody has."""
    gateway = Gateway(Disk())
    record = Record(NODE, FIRST_BOOT, 1, "pms", None, UNKNOWN, [Reading("pm2_5", 1)])
    status = {"holds": [[FIRST_BOOT, 1, 1], [FIRST_BOOT, 5, 5]], "dropped": [[FIRST_BOOT, 2, 2], [FIRST_BOOT, 3, 4]]}
    assert gateway.hear(Message(f"node/{NODE}/up", senml.encode(record))) == []
    assert gateway.hear(Message(f"node/{NODE}/status", json.dumps(status).encode())) == []
    assert gateway.commit() == [json.dumps([[FIRST_BOOT, 4]]).encode()]
    gateway.kill()


TestNodeAndGateway = NodeAndGateway.TestCase
TestNodeAndGateway.settings = settings(max_examples=100, stateful_step_count=30)
