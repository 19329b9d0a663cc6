"""What our own nodes send: taken in order, stored, then acknowledged; refused and sent again wherever that fails."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bega import mqtt
from bega.clock import mono_ms
from bega.outbox.spool import HEADS_KEPT, Head, Spool
from bega.outbox.spool_file import SpoolFile
from bega.threads import UnwaitedThreads
from bega_gateway.lines import mqtt as line_module
from bega_gateway.lines import nodes as nodes_module
from bega_gateway.lines.mqtt import NodeLine
from bega_gateway.lines.nodes import NodeRecords
from bega_protocols import senml
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, Record

NODE = "air-1"
BOOT = 1_795_300_000
NOW_MS = 1_795_300_123_456


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(line_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(line_module, "LONGEST_PAUSE_S", 0.2)


def pack(seq: int, *, boot: int = BOOT, source: str = NODE, device: str = "pms", value: int | None = None) -> bytes:
    readings = [Reading("pm2_5", seq if value is None else value)]
    return senml.encode(Record(source, boot, seq, device, NOW_MS, SYNCHRONISED, readings))


@contextlib.asynccontextmanager
async def node_line(path: Path, url: str, nodes: tuple[str, ...] = (NODE,), *, runs: bool = True, **options):
    """Give (line, spool, executor) of a line that serves `nodes` on the broker at `url`."""
    asyncio.get_running_loop().set_default_executor(UnwaitedThreads())
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.open(path, executor, window_s=0.01)
        writing = asyncio.create_task(spool.run())

        def store(record, octets, head):
            return spool.add(f"city/t/gw/{record.source}/{record.device}/up", octets, head=head, at_once=True)

        line = NodeLine(
            "nodes",
            list(nodes),
            connect=lambda: mqtt.connect(url, "gw-nodes"),
            records=NodeRecords(store, spool.set_head, await spool.heads(), options.pop("has_room", spool.has_room)),
            mono_ms=mono_ms,
            **{"wall_ms": lambda: NOW_MS, **options},
        )
        serving = asyncio.create_task(line.run()) if runs else None
        try:
            yield line, spool, executor
            assert serving is None or not serving.done(), serving
        finally:
            for task in (serving, writing):
                if task:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            await spool.close()


class NodeDouble:
    """A node on the other side of the broker: it says what it is told to, and keeps what it is answered."""

    def __init__(self, session: mqtt.Session, name: str) -> None:
        self._session = session
        self._name = name
        self.acks: list[list[list[int]]] = []
        self.times: list[int] = []

    async def say(self, kind: str, payload: bytes) -> None:
        await self._session.publish(f"node/{self._name}/{kind}", payload)

    async def up(self, *seqs: int, boot: int = BOOT) -> None:
        for seq in seqs:
            await self.say("up", pack(seq, boot=boot, source=self._name))

    async def status(self, holds=(), dropped=()) -> None:
        await self.say("status", json.dumps({"holds": list(holds), "dropped": list(dropped)}).encode())

    async def hear(self) -> None:
        async for message in self._session.messages():
            if message.topic.endswith("/ack"):
                self.acks.append(json.loads(message.payload))
            else:
                self.times.append(json.loads(message.payload)["unix_ms"])

    def freed(self, boot: int = BOOT) -> int:
        """Return up to which record of a boot this node was told to forget."""
        return max((seq for pairs in self.acks for of_boot, seq in pairs if of_boot == boot), default=0)


@contextlib.asynccontextmanager
async def node(url: str, name: str = NODE):
    async with mqtt.connect(url, name, keep=False) as session:
        double = NodeDouble(session, name)
        await session.subscribe(f"node/{name}/ack", f"node/{name}/time")
        hearing = asyncio.create_task(double.hear())
        try:
            yield double
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


async def until(holds: Callable[[], object], what: str, timeout_s: float = 10) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 - what happens in a broker sets no event
                await asyncio.sleep(0.01)
    assert holds(), what


async def spooled(spool: Spool, boot: int = BOOT) -> list[int]:
    records = [senml.decode(row.payload) for row in await spool.take(0, 10_000)]
    return [record.seq for record in records if record.boot == boot]


async def listening(double: NodeDouble) -> None:
    """Wait until the line answers: its subscriptions may come after the node's first words."""
    while not double.times:
        await double.status()
        await asyncio.sleep(0.02)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 40))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


# ------------------------------------------------------------------ in order, stored, acknowledged


def test_what_a_node_sends_is_stored_as_it_came_and_acknowledged(broker, path):
    async def work():
        async with node_line(path, broker.url) as (line, spool, _), node(broker.url) as air:
            await listening(air)
            await air.up(*range(1, 41))
            await until(lambda: air.freed() == 40, f"all is acknowledged: {air.acks}")
            rows = await spool.take(0, 100)
            assert [row.payload for row in rows] == [pack(seq) for seq in range(1, 41)], "to the byte"
            assert {row.topic for row in rows} == {"city/t/gw/air-1/pms/up"}
            assert await spool.heads() == {(NODE, BOOT): 40}
            assert line.refused == 0
            assert NODE in line.heard_mono_ms

    run(work())


def test_record_that_finds_no_room_is_not_acknowledged_and_taken_when_it_comes_again(mosquitto, path):
    async def work():
        async with node_line(path, mosquitto.url) as (line, spool, _), node(mosquitto.url) as air:
            await listening(air)
            await air.up(1, 2)
            await until(lambda: air.freed() == 2, "there is room")
            await spool.settle(0.01, 0)
            full = [spool.add("city/t/gw/gw/meter/up", bytes(1000), storage_class="billing") for _ in range(300)]
            await asyncio.gather(*full, return_exceptions=True)
            await air.up(3, 4, 5)
            refused = spool.refused  # the first by the spool; those that come after its answer, by the line itself
            await until(lambda: refused["routine"] and refused["routine"] + line.refused >= 3, "there is none")
            assert air.freed() == 2 and await spool.heads() == {(NODE, BOOT): 2}
            await spool.settle(0.01, 100_000_000)
            await air.up(3, 4, 5)
            await until(lambda: air.freed() == 5, "sent again they are taken")
            assert (await spooled_by(spool, NODE))[-3:] == [3, 4, 5]

    run(work())


def test_a_commit_with_room_for_some_of_a_nodes_records_goes_on_behind_them(path, monkeypatch):
    """What is refused is told before what is stored; the node then sends from the first that was refused."""
    room = 1

    def make_room(self, entries, outcome):
        outcome.refused |= {place for place, entry in enumerate(entries) if entry.head.seq > room}

    monkeypatch.setattr(SpoolFile, "_make_room", make_room)

    async def work():
        nonlocal room
        async with node_line(path, "", runs=False) as (line, spool, _):
            answers = asyncio.Queue()
            for seq in (1, 2, 3):
                line.records.take_pack(NODE, pack(seq), answers.put_nowait)
            await answers.get()
            room = 3
            for seq in (2, 3):
                line.records.take_pack(NODE, pack(seq), answers.put_nowait)
            await asyncio.wait_for(answers.get(), 5)
            await until(lambda: spool.depth == 3, "all are stored")
            assert (line.refused, await spool.heads()) == (0, {(NODE, BOOT): 3})

    run(work())


async def spooled_by(spool: Spool, source: str) -> list[int]:
    rows = [row for row in await spool.take(0, 10_000) if f"/{source}/" in row.topic]
    return [senml.decode(row.payload).seq for row in rows]


def test_a_gap_is_refused_until_it_is_closed(mosquitto, path):
    async def work():
        async with node_line(path, mosquitto.url) as (line, spool, _), node(mosquitto.url) as air:
            await listening(air)
            await air.up(1, 2, 4, 5)
            await until(lambda: line.refused == 2, "both behind the gap are refused")
            await until(lambda: air.freed() == 2, "what came in order is acknowledged, no more")
            assert await spooled(spool) == [1, 2]
            await air.up(3, 4, 5)
            await until(lambda: air.freed() == 5, "sent again from the oldest all is had")
            assert await spooled(spool) == [1, 2, 3, 4, 5]

    run(work())


def test_what_came_before_is_acknowledged_again_and_stored_once(mosquitto, path):
    async def work():
        async with node_line(path, mosquitto.url) as (_, spool, _), node(mosquitto.url) as air:
            await listening(air)
            await air.up(1, 2, 3)
            await until(lambda: air.freed() == 3, "acknowledged")
            air.acks.clear()  # they were lost on the way
            await air.up(1, 2, 3)
            await until(lambda: air.freed() == 3, "acknowledged again")
            assert await spooled(spool) == [1, 2, 3]

    run(work())


def test_nothing_is_acknowledged_before_the_commit(mosquitto, path):
    async def work():
        async with node_line(path, mosquitto.url) as (_, _, executor), node(mosquitto.url) as air:
            await listening(air)
            gate = threading.Event()
            executor.submit(gate.wait, 20)
            await air.up(1, 2, 3)
            await asyncio.sleep(0.3)
            assert air.freed() == 0
            gate.set()
            await until(lambda: air.freed() == 3, "acknowledged after it")

    run(work())


def test_each_boot_has_a_head_of_its_own(mosquitto, path):
    async def work():
        async with node_line(path, mosquitto.url) as (line, spool, _), node(mosquitto.url) as air:
            await listening(air)
            await air.up(1, 2, 3)
            await air.up(1, 2, boot=BOOT + 100)
            await air.up(4)
            await until(lambda: (air.freed(), air.freed(BOOT + 100)) == (4, 2), f"both: {air.acks}")
            assert await spool.heads() == {(NODE, BOOT): 4, (NODE, BOOT + 100): 2}
            assert line.refused == 0

    run(work())


def test_heads_survive_a_restart_of_the_gateway(mosquitto, path):
    async def work():
        async with node(mosquitto.url) as air:
            async with node_line(path, mosquitto.url):
                await listening(air)
                await air.up(1, 2, 3)
                await until(lambda: air.freed() == 3, "acknowledged")
            await air.up(3, 4)  # meanwhile: the broker keeps it
            async with node_line(path, mosquitto.url) as (line, spool, _):
                await until(lambda: air.freed() == 4, "taken up where it was")
                assert await spooled(spool) == [1, 2, 3, 4]
                assert line.refused == 0

    run(work())


def test_a_line_that_lost_its_broker_goes_on_with_what_it_had_accepted(mosquitto, path, make_relay):
    """Records whose commit is under way while the connection breaks: the node sends the next ones, not those again."""
    relay = make_relay(mosquitto.port)

    async def work():
        async with node_line(path, relay.url) as (line, spool, executor), node(mosquitto.url) as air:
            await listening(air)
            gate = threading.Event()
            executor.submit(gate.wait, 20)
            await air.up(1, 2, 3)
            await until(lambda: line.records._accepted.get((NODE, BOOT)) == 3, "accepted and not yet stored")
            relay.reset()
            await asyncio.sleep(0.1)
            await air.up(4, 5)
            await until(lambda: line.records._accepted.get((NODE, BOOT)) == 5, "the next ones are accepted")
            gate.set()
            await until(lambda: air.freed() == 5, "all is acknowledged on the new connection")
            assert await spooled(spool) == [1, 2, 3, 4, 5]
            assert line.refused == 0

    run(work())


def test_without_room_in_the_spool_records_stay_at_the_node(mosquitto, path):
    room = [True]

    async def work():
        async with (
            node_line(path, mosquitto.url, has_room=lambda: room[0]) as (line, spool, _),
            node(mosquitto.url) as air,
        ):
            await listening(air)
            await air.up(1)
            await until(lambda: air.freed() == 1, "the first is had")
            room[0] = False
            await air.up(2, 3)
            await until(lambda: line.refused == 2, "the others are refused")
            room[0] = True
            await air.up(2, 3)
            await until(lambda: air.freed() == 3, "and taken later")
            assert await spooled(spool) == [1, 2, 3]

    run(work())


# ------------------------------------------------------------------ what a node says that it no longer holds


def test_what_lies_below_the_first_that_is_held_counts_as_had(mosquitto, path):
    """A gateway whose spool was set aside knows no head; the node was freed of 1 to 10 by its predecessor."""

    async def work():
        async with node_line(path, mosquitto.url) as (_, spool, _), node(mosquitto.url) as air:
            await listening(air)
            await air.up(11)
            await air.status(holds=[[BOOT, 11, 13]])
            await air.up(11, 12, 13)
            await until(lambda: air.freed() == 13, f"all is acknowledged: {air.acks}")
            assert await spooled(spool) == [11, 12, 13]
            assert await spool.heads() == {(NODE, BOOT): 13}

    run(work())


def test_what_was_dropped_counts_as_had_wherever_the_hole_is(mosquitto, path, caplog):
    async def work():
        async with node_line(path, mosquitto.url) as (line, spool, _), node(mosquitto.url) as air:
            await listening(air)
            await air.status(holds=[[BOOT, 3, 20]], dropped=[[BOOT, 1, 2], [BOOT, 5, 7], [BOOT, 9, 9]])
            await air.up(3, 4, 8, 10, 11)
            await until(lambda: air.freed() == 11, f"all is acknowledged: {air.acks}")
            assert await spooled(spool) == [3, 4, 8, 10, 11]
            assert line.refused == 0
            await air.status(holds=[[BOOT, 12, 20]], dropped=[[BOOT, 5, 7]])
            await asyncio.sleep(0.1)
            assert await spool.heads() == {(NODE, BOOT): 11}

    run(work())
    assert caplog.text.count("node dropped records") == 2, "once each; 1 and 2 lie below what is held"


def test_a_hole_that_is_passed_frees_nothing_below_it_before_the_commit(mosquitto, path):
    """Passing the hole 3 to 5 says that 5 is had; to say so while 1 and 2 wait for their commit would free them."""

    async def work():
        async with node_line(path, mosquitto.url) as (_, spool, executor), node(mosquitto.url) as air:
            await listening(air)
            gate = threading.Event()
            executor.submit(gate.wait, 20)
            await air.status(holds=[[BOOT, 1, 7]], dropped=[[BOOT, 3, 5]])
            await air.up(1, 2, 6)
            await air.status(holds=[[BOOT, 1, 7]], dropped=[[BOOT, 3, 5]])
            await asyncio.sleep(0.3)
            assert air.freed() == 0
            gate.set()
            await air.up(7)
            await until(lambda: air.freed() == 7, f"all is acknowledged: {air.acks}")
            assert await spooled(spool) == [1, 2, 6, 7]

    run(work())


def test_a_status_never_raises_a_head_over_what_is_still_held(mosquitto, path):
    async def work():
        async with node_line(path, mosquitto.url) as (_, spool, _), node(mosquitto.url) as air:
            await listening(air)
            await air.status(holds=[[BOOT, 8, 10], [BOOT, 1, 4]], dropped=[[BOOT, 5, 7]])
            await air.up(1, 2, 3, 4, 8)
            await until(lambda: air.freed() == 8, "in order")
            assert await spooled(spool) == [1, 2, 3, 4, 8]

    run(work())


def test_an_acknowledgement_stays_small_however_often_a_node_boots(mosquitto, path):
    """A node reads packets of at most 4 kB, and one that boots for ever must not be told of all its boots."""

    async def work():
        async with node_line(path, mosquitto.url) as (line, _, _), node(mosquitto.url) as air:
            await listening(air)
            for boot in range(BOOT, BOOT + 3 * HEADS_KEPT):
                await air.status(holds=[[boot, 1, 1]])
                await air.up(1, boot=boot)
            await until(lambda: air.freed(boot) == 1, "the last is acknowledged")
            assert max(len(json.dumps(pairs)) for pairs in air.acks) < 1000
            await air.status()
            await until(lambda: len(line.records._accepted) == HEADS_KEPT, "old boots are forgotten")
            assert set(line.records._stored) == set(line.records._accepted)

    run(work())


def test_a_node_in_safe_mode_says_nothing_of_its_ring_and_no_head_is_forgotten(mosquitto, path):
    """After safe mode it offers again what it could not know to be stored: without a head it would come twice."""

    async def work():
        async with node_line(path, mosquitto.url) as (line, _, _), node(mosquitto.url) as air:
            await listening(air)
            for boot in range(BOOT, BOOT + 2 * HEADS_KEPT):
                await air.status(holds=[[BOOT, 1, 1], [boot, 1, 1]])
                await air.up(1, boot=boot)
            await until(lambda: air.freed(boot) == 1, "the last is acknowledged")
            await air._session.publish(f"node/{NODE}/status", b'{"safe": "5 resets in a row", "up_s": 3}')
            await air.up(1, boot=boot)
            await until(lambda: line.records.refused == 0 and air.freed(BOOT) == 1, "the oldest is still known")
            await asyncio.sleep(0.2)
            assert (NODE, BOOT) in line.records._stored

    run(work())


# ------------------------------------------------------------------ who may say what


def test_a_node_that_is_not_ours_is_not_heard(mosquitto, path):
    async def work():
        async with (
            node_line(path, mosquitto.url) as (line, spool, _),
            node(mosquitto.url) as air,
            node(mosquitto.url, "stranger") as stranger,
        ):
            await listening(air)
            await stranger.status(holds=[[BOOT, 1, 1]])
            await stranger.up(1)
            await stranger._session.publish(f"node/{NODE}/up", pack(1, source="stranger"))
            await until(lambda: line.refused == 1, "a record of another source is refused")
            await air.up(1)
            await until(lambda: air.freed() == 1, "ours is heard")
            assert (stranger.acks, stranger.times) == ([], [])
            assert len(await spool.take(0, 10)) == 1

    run(work())


def test_a_subscription_of_an_earlier_configuration_does_no_harm(mosquitto, path):
    """The broker keeps the session: a node that was taken out is still delivered, and what others subscribed too."""

    async def work():
        async with mqtt.connect(mosquitto.url, "gw-nodes") as session:
            await session.subscribe("node/old/up", "something/else", "short")
        async with node_line(path, mosquitto.url) as (line, _, _), node(mosquitto.url) as air:
            await listening(air)
            for topic in ("node/old/up", "something/else", "short"):
                await air._session.publish(topic, pack(1, source="old"))
            await until(lambda: line.refused == 3, "they are counted")
            await air.up(1)
            await until(lambda: air.freed() == 1, "and the line goes on")

    run(work())


def test_time_is_told_at_each_status_and_again_and_never_a_wrong_one(mosquitto, path, monkeypatch):
    monkeypatch.setattr(line_module, "TIME_EVERY_S", 0.1)
    clock: list[int | None] = [None]

    async def work():
        async with node_line(path, mosquitto.url, wall_ms=lambda: clock[0]), node(mosquitto.url) as air:
            for _ in range(3):
                await air.status()
                await asyncio.sleep(0.1)
            assert air.times == [], "a gateway whose clock is not set tells none"
            clock[0] = NOW_MS
            await until(lambda: len(air.times) >= 2, "told by itself once it is")
            clock[0] = NOW_MS + 5
            await air.status()
            await until(lambda: air.times[-1] == NOW_MS + 5, "and at once at a status")

    run(work())


def test_nonsense_is_counted_and_said_once(mosquitto, path, caplog):
    async def work():
        async with node_line(path, mosquitto.url) as (line, _, _), node(mosquitto.url) as air:
            await listening(air)
            for _ in range(20):
                await air.say("up", b"no record")
                await air.say("status", b"[")
            await until(lambda: line.refused == 40, "all is counted")
            assert caplog.text.count("node sent") == 1
            await air.up(1)
            await until(lambda: air.freed() == 1, "and what makes sense is taken")
            await air.say("up", b"no record")
            await until(lambda: caplog.text.count("node sent") == 2, "a new lapse is said again")

    run(work())


def test_a_broker_that_is_gone_is_said_once_and_asked_again(embedded, path, caplog, monkeypatch):
    monkeypatch.setattr(mqtt, "ANSWER_S", 1.0)
    caplog.set_level("INFO")

    async def work():
        async with node_line(path, embedded.url):
            async with node(embedded.url) as air:
                await listening(air)
            await asyncio.to_thread(embedded.kill)
            await until(lambda: "line down, nodes keep their records" in caplog.text, "it is said")
            await asyncio.sleep(0.3)
            await asyncio.to_thread(embedded.start)
            await until(lambda: "line back line=nodes" in caplog.text, "it is back")
            async with node(embedded.url) as air:
                await listening(air)
                await air.up(1)
                await until(lambda: air.freed() == 1, "and serves")
            assert caplog.text.count("line down") == 1

    run(work())


# ------------------------------------------------------------------ whatever it says


class Collecting:
    """What a line sends, without a broker."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    async def publish(self, topic: str, payload: bytes) -> None:
        self.sent.append((topic, payload))


NUMBERS = st.integers(-2, 30) | st.sampled_from([2**53 - 1, 2**53, 2**63, 10**30]) | st.booleans() | st.none()
ROWS = st.lists(st.lists(NUMBERS | st.text(max_size=3), max_size=4), max_size=4)
STATUSES = st.dictionaries(
    st.sampled_from(["holds", "dropped", "more"]),
    ROWS | NUMBERS | st.dictionaries(st.text(max_size=3), NUMBERS, max_size=2),
).map(lambda status: json.dumps(status).encode())
PACKS = st.builds(
    lambda seq, boot, source, device: pack(seq, boot=boot, source=source, device=device),
    st.integers(0, 12) | st.sampled_from([2**53, 2**62]),
    st.integers(0, 3) | st.sampled_from([2**53, 2**62]),
    st.sampled_from([NODE, "air-2", "stranger"]),
    st.sampled_from(["pms", "sht"]),
)


@st.composite
def garbled(draw) -> bytes:
    octets = bytearray(draw(PACKS | STATUSES))
    for place in draw(st.lists(st.integers(0, len(octets) - 1), max_size=3)):
        octets[place] = draw(st.integers(0, 255))
    return bytes(octets)


# What a node with two boots might say, so that much of it fits together.
LIKELY_ROWS = st.lists(st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 7)), max_size=2)
LIKELY = st.builds(
    lambda holds, dropped: json.dumps({"holds": holds, "dropped": dropped}).encode(), LIKELY_ROWS, LIKELY_ROWS
)
LIKELY_MESSAGES = st.builds(mqtt.Message, st.just("node/air-1/status"), LIKELY) | st.builds(
    lambda seq, boot: mqtt.Message("node/air-1/up", pack(seq, boot=boot)), st.integers(1, 5), st.integers(1, 2)
)
TOPICS = ["node/air-1/up", "node/air-1/status", "node/air-2/up", "node/air-2/status", "node/x/up", "node", ""]
ANY_MESSAGES = st.builds(mqtt.Message, st.sampled_from(TOPICS), PACKS | STATUSES | garbled() | st.binary(max_size=20))
MESSAGES = st.lists(LIKELY_MESSAGES, max_size=25) | st.lists(LIKELY_MESSAGES | ANY_MESSAGES, max_size=25)


@settings(max_examples=200, deadline=None)
@given(messages=MESSAGES, fails=st.booleans())
def test_no_lie_is_stored_as_a_record_of_another_nor_acknowledged_before_it_is_stored(messages, fails):
    async def work():
        taken: list[tuple[Record, bytes, Head, asyncio.Future[None]]] = []
        skipped: list[Head] = []

        def store(record, octets, head):
            taken.append((record, octets, head, asyncio.get_running_loop().create_future()))
            return taken[-1][3]

        line = NodeLine(
            "nodes", [NODE, "air-2"], None, NodeRecords(store, skipped.append, {}), lambda: NOW_MS, lambda: 0
        )  # fmt: skip
        session = Collecting()
        queue: asyncio.Queue[str] = asyncio.Queue()
        acknowledging = asyncio.create_task(line._acknowledge(session, queue))
        for message in messages:
            await line._take(session, message, queue)
            for _ in range(3):
                await asyncio.sleep(0)
        highest: dict[tuple[str, int], int] = {}
        for head in skipped:
            assert 0 < head.seq < 2**53
            highest[head.source, head.boot] = max(head.seq, highest.get((head.source, head.boot), 0))
        for topic, payload in session.sent:
            if topic.endswith("/ack"):
                source = topic.split("/")[1]
                for boot, seq in json.loads(payload):
                    assert seq <= highest.get((source, boot), 0), "nothing is stored yet: only what is not held counts"
                    waiting = [record.seq for record, *_ in taken if (record.source, record.boot) == (source, boot)]
                    assert not [number for number in waiting if number <= seq], "freed before it was stored"
        for record, octets, head, stored in taken:
            topic = f"node/{record.source}/up"
            assert mqtt.Message(topic, octets) in messages, "who sent it is who it is of"
            assert (head.source, head.boot, head.seq) == (record.source, record.boot, record.seq)
            assert senml.decode(octets) == record
            if fails:
                stored.cancel()
            else:
                stored.set_result(None)
        identities = [(record.source, record.boot, record.seq) for record, *_ in taken]
        assert len(set(identities)) == len(identities), "none is stored twice"
        await asyncio.sleep(0.001)
        acknowledging.cancel()
        assert len(session.sent) <= 3 * len(messages) + 2

    run(work())


def test_no_node_names_more_boots_than_it_can_hold(monkeypatch):
    monkeypatch.setattr(nodes_module, "MOST_BOOTS", 50)

    async def work():
        waiting: list[asyncio.Future[None]] = []

        def store(record, octets, head):
            waiting.append(asyncio.get_running_loop().create_future())
            return waiting[-1]

        line = NodeLine("nodes", [NODE], None, NodeRecords(store, lambda head: None, {}), lambda: None, lambda: 0)
        queue: asyncio.Queue[str] = asyncio.Queue()
        for boot in range(1, 200):
            await line._take(Collecting(), mqtt.Message(f"node/{NODE}/up", pack(1, boot=boot)), queue)
        assert len(line.records._accepted) == 50
        assert line.refused == 149
        await line._take(Collecting(), mqtt.Message(f"node/{NODE}/status", b'{"holds":[]}'), queue)
        assert len(line.records._accepted) == 50, "what waits for its commit is not forgotten"
        for stored in waiting:
            stored.set_result(None)
        await asyncio.sleep(0)
        await line._take(Collecting(), mqtt.Message(f"node/{NODE}/status", b'{"holds":[]}'), queue)
        assert len(line.records._accepted) == len(line.records._stored) == HEADS_KEPT

    run(work())
