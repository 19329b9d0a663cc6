"""The gateway's side of our serial link, over a pty: nodes with rings, a real spool, and a bus that goes wrong."""

import asyncio
import contextlib
import json
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from bega.clock import mono_ms
from bega.mqtt import SessionLost
from bega.outbox.spool import Spool
from bega.threads import UnwaitedThreads
from bega_gateway import build
from bega_gateway.config import examine
from bega_gateway.health import Health
from bega_gateway.lines import uplink as line_module
from bega_gateway.lines.node_said import Nodes
from bega_gateway.lines.nodes import NodeRecords
from bega_gateway.lines.uplink import UplinkLine, node_key
from bega_gateway.recorder import Recorder
from bega_protocols import senml, uplink
from bega_protocols.errors import LineError
from bega_protocols.reading import STALE, SUSPECT, Reading
from bega_protocols.record import SYNCHRONISED, Record
from bega_simulators.hosts.pty import sampled
from tests.uplink_bus import NOW_MS, Bus, BusNode, Flash, bad_wire, dust

BOOT = 1_795_300_000
KEY = bytes(range(32))
KEYLESS = "keyless"  # a node whose key cannot be read


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    times = {"FIRST_MS": 60, "GAP_MS": 20, "IDLE_MS": 20, "FIRST_PAUSE_S": 0.1, "LONGEST_PAUSE_S": 0.2, "TURN_S": 0}
    for name, value in times.items():
        monkeypatch.setattr(line_module, name, value)


@contextlib.asynccontextmanager
async def gateway(
    path: Path,
    port: str,
    nodes: tuple[str, ...] = ("air-1",),
    key: bytes = b"",
    baud: int = 115_200,
    wall_ms=lambda: NOW_MS,
    **more,
):
    """Give (line, spool) of a gateway whose nodes are on `port`."""
    asyncio.get_running_loop().set_default_executor(UnwaitedThreads())
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.open(path, executor, window_s=0.01)
        writing = asyncio.create_task(spool.run())

        def key_of(node: str) -> bytes:
            return node_key(str(path.with_name("no such file"))) if node == KEYLESS else key

        def keep(record, octets, head):
            return spool.add(f"city/t/gw/{record.source}/{record.device}/up", octets, head=head, at_once=True)

        records = NodeRecords(keep, spool.set_head, await spool.heads(), spool.has_room)
        settings = SimpleNamespace(port=port, baud=baud)
        line = UplinkLine(
            "cellar", settings, list(nodes), records, key_of, secrets.token_bytes, wall_ms, mono_ms, **more
        )
        serving = asyncio.create_task(line.run())
        try:
            yield line, spool
            assert not serving.done(), serving
        finally:
            for task in (serving, writing):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await spool.close()


@contextlib.asynccontextmanager
async def on(bus: Bus):
    carrying = asyncio.create_task(bus.run())
    try:
        yield bus
        assert not carrying.done(), carrying
    finally:
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)
        bus.close()


async def until(holds, what: str, timeout_s: float = 30) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 - what happens on a wire sets no event
                await asyncio.sleep(0.01)
    assert holds(), what


async def spooled(spool: Spool) -> list[Record]:
    return [senml.decode(row.payload) for row in await spool.take(0, 100_000)]


async def identities(spool: Spool) -> list[tuple[str, int, int]]:
    return [(record.source, record.boot, record.seq) for record in await spooled(spool)]


def run(work):
    return asyncio.run(asyncio.wait_for(work, 90))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


# ------------------------------------------------------------------ in order, stored, acknowledged


@pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])
def test_what_a_node_holds_is_stored_to_the_digit_and_freed(path, key):
    node = BusNode(Flash(), BOOT, key=key)
    node.measure(100)

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port, key=key) as (line, spool):
            await until(lambda: node.ring.held_count() == 0, "all is freed")
            expected = [
                Record("air-1", BOOT, seq, "pms", NOW_MS + seq, SYNCHRONISED, dust(seq)) for seq in range(1, 101)
            ]
            assert await spooled(spool) == expected
            assert [row.payload for row in await spool.take(0, 200)] == [senml.encode(each) for each in expected]
            assert node.time == {"unix_ms": NOW_MS}
            assert line.records.refused == 0 and "air-1" in line.heard_mono_ms
            node.measure(5)
            await until(lambda: node.ring.held_count() == 0, "and what it measures later")

    run(work())


def test_numbers_parts_and_qualities_arrive_as_they_are(path):
    readings = [
        Reading("active_energy_import", 123456789, -3, "t1"),
        Reading("temperature", -1234, -2),
        Reading("pm2_5", 0, 0, "", STALE),
        Reading("humidity", 1000, -1, "", SUSPECT),
        Reading("active_energy_import", 2**62, 0),
    ]
    node = BusNode(Flash(), BOOT)
    node.measure(1, lambda seq: readings)

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port) as (_, spool):
            await until(lambda: node.ring.held_count() == 0, "it is freed")
            assert (await spooled(spool))[0].readings == readings

    run(work())


def test_a_record_larger_than_a_frame_is_cut_and_joined(path):
    node = BusNode(Flash(), BOOT)
    node.measure(3, lambda seq: [Reading("active_energy_import", 10**15 + seq, -3, f"t{part}") for part in range(100)])

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port) as (_, spool):
            await until(lambda: node.ring.held_count() == 0, "all is freed")
            assert [len(record.readings) for record in await spooled(spool)] == [100] * 3

    run(work())


def test_nodes_on_one_bus_are_asked_in_turn_and_a_missing_one_costs_little(path):
    nodes = [BusNode(Flash(), BOOT, name=f"air-{each}", chip=f"c{each}", seed=each) for each in range(1, 4)]
    for node in nodes:
        node.measure(60)

    async def work():
        names = ("air-1", "air-2", "air-3", "air-4")
        async with on(Bus(*nodes)) as bus, gateway(path, bus.port, names) as (line, spool):
            await until(lambda: not any(node.ring.held_count() for node in nodes), "all is freed")
            found = await identities(spool)
            assert sorted(found) == sorted((f"air-{each}", BOOT, seq) for each in (1, 2, 3) for seq in range(1, 61))
            first_of_last = min(found.index((f"air-{each}", BOOT, 1)) for each in (2, 3))
            assert first_of_last < 60, "the first node does not keep the others waiting until it is done"
            assert "air-4" not in line.heard_mono_ms

    run(work())


def test_nothing_is_freed_before_the_commit(path, monkeypatch):
    node = BusNode(Flash(), BOOT)
    node.measure(10)

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port) as (line, _):
            stored, line.records._store = [], lambda *_: stored.append(asyncio.Future()) or stored[-1]
            await until(lambda: len(stored) == 10, "all was handed to the spool")
            await asyncio.sleep(0.3)
            assert node.ring.held_count() == 10
            for each in stored:
                each.set_result(None)
            await until(lambda: node.ring.held_count() == 0, "then it is")

    run(work())


def test_a_command_is_handed_on_and_its_result_comes_back(path):
    node = BusNode(Flash(), BOOT)

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port) as (line, _):
            with pytest.raises(SessionLost):
                await line.command("air-1", "config", "a", b"{}")
            await until(lambda: node.time, "the session has begun")
            payload = json.dumps({"id": "a", "configuration": "x" * 900}).encode()
            assert await line.command("air-1", "config", "a", payload) == {"id": "a", "done": True}
            assert node.commands == [b"config\0" + payload]

    run(work())


def test_a_key_that_cannot_be_read_keeps_only_its_own_node_waiting(path, caplog):
    node = BusNode(Flash(), BOOT)
    node.measure(3)

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port, ("air-1", KEYLESS)) as (line, _):
            await until(lambda: node.ring.held_count() == 0, "all of the other one is freed", 5)
            await until(lambda: "its node waits" in caplog.text, "it is said")
            assert caplog.text.count("its node waits") == 1
            with pytest.raises(SessionLost):
                await line.command(KEYLESS, "restart", "a", b"{}")

    run(work())


def test_a_gateway_that_does_not_know_the_time_asks_no_more_often(path):
    node = BusNode(Flash(), BOOT)

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port, wall_ms=lambda: None) as (line, _):
            await until(lambda: line.heard_mono_ms, "the session has begun")
            await asyncio.sleep(0.3)
            asked = line.asked
            await asyncio.sleep(0.5)
            assert line.asked - asked <= 25 + 2, "every 20 ms here"
            assert not node.time

    run(work())


def test_time_that_waited_behind_a_large_command_is_not_told(path, monkeypatch):
    """The first time that a node hears stamps all that it has measured since its power came."""
    monkeypatch.setattr(line_module, "TIME_EVERY_MS", 5)
    wall_ms = [NOW_MS]
    told: list[int] = []

    class Told(BusNode):
        def _take(self, kind: int, payload: bytes) -> None:
            super()._take(kind, payload)
            if kind == uplink.TIME:
                told.append(json.loads(payload)["unix_ms"])

    async def work():
        bus = Bus(Told(Flash(), BOOT))
        async with on(bus), gateway(path, bus.port, wall_ms=lambda: wall_ms[0]) as (line, _):
            await until(lambda: told, "the session has begun")
            asking = asyncio.create_task(line.command("air-1", "config", "a", b"x" * 8000))
            asked = bus.octets
            await until(lambda: bus.octets > asked + 1000, "the command is on its way")
            bus.nodes.clear()
            await until(lambda: not line._seats["air-1"].session.is_open, "the gateway has noticed")
            wall_ms[0] += 3_600_000
            told.clear()
            bus.nodes.append(Told(Flash(), BOOT + 1, seed=2))
            await until(lambda: told, "it is back")
            assert told[0] == wall_ms[0]
            asking.cancel()

    run(work())


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_bus_that_spoils_a_tenth_of_what_passes_loses_nothing_and_doubles_nothing(path, key, seed):
    nodes = [BusNode(Flash(), BOOT, name=f"air-{each}", chip=f"c{each}", seed=each, key=key) for each in (1, 2)]

    async def work():
        async with on(Bus(*nodes)) as bus, gateway(path, bus.port, ("air-1", "air-2"), key) as (_, spool):
            bus.spoil = bad_wire(seed, 0.1)
            for _ in range(10):
                for node in nodes:
                    node.measure(30)
                await asyncio.sleep(0.05)
            await until(lambda: not any(node.ring.held_count() for node in nodes), "all is freed")
            expected = [(f"air-{each}", BOOT, seq) for each in (1, 2) for seq in range(1, 301)]
            assert sorted(await identities(spool)) == expected

    run(work())


def test_gateway_and_node_that_lose_their_power_again_and_again_lose_nothing(path):
    """Both at any moment; what a node had on its flash, and no other thing of it, comes back."""
    flash = Flash()
    boots = []

    async def life(cut_s: float) -> None:
        node = BusNode(flash, BOOT, seed=len(boots) + 1)
        boots.append(node.boot)
        async with on(Bus(node)) as bus:
            bus.spoil = bad_wire(len(boots), 0.05)
            for _ in range(2):
                async with gateway(path, bus.port):
                    node.measure(15)
                    await asyncio.sleep(cut_s)

    async def work():
        for cut_s in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
            await life(cut_s)
        node = BusNode(flash, BOOT, seed=99)
        async with on(Bus(node)) as bus, gateway(path, bus.port) as (_, spool):
            await until(lambda: node.ring.held_count() == 0, "all is freed")
            found = await identities(spool)
            assert sorted(found) == [("air-1", boot, seq) for boot in boots for seq in range(1, 31)]

    run(work())


def test_ends_at_different_rates_do_not_meet_until_they_agree(path):
    node = BusNode(Flash(), BOOT)
    node.measure(5)

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port) as (line, _):
            bus.spoil = lambda octets: sampled(octets, 115_200, 57_600)
            await asyncio.sleep(0.6)
            assert not line.heard_mono_ms
            bus.spoil = bytes
            await until(lambda: node.ring.held_count() == 0, "all is freed")

    run(work())


class Babbler:
    """A node whose transmitter is stuck: it says something whenever anybody speaks."""

    is_away = False

    def hear(self, chunk: bytes, now_ms: int) -> bytes:
        return b"" if self.is_away else b"\x55" * 400


def test_a_babbling_node_stops_the_bus_and_when_it_is_gone_all_comes(path):
    node, babbler = BusNode(Flash(), BOOT), Babbler()
    node.measure(40)

    async def work():
        async with on(Bus(node, babbler)) as bus, gateway(path, bus.port) as (line, spool):
            await asyncio.sleep(0.5)
            assert node.ring.held_count() == 40 and not line.heard_mono_ms
            babbler.is_away = True
            await until(lambda: node.ring.held_count() == 0, "all is freed")
            assert len(await identities(spool)) == 40

    run(work())


def test_of_two_boards_with_one_name_only_one_is_served_and_it_is_said(path, caplog):
    first, second = BusNode(Flash(), BOOT, chip="a1", seed=1), BusNode(Flash(), BOOT, chip="b2", seed=2)
    first.measure(20)
    second.measure(20, lambda seq: [Reading("pm2_5", 999)])

    async def work():
        async with on(Bus(first, second)) as bus, gateway(path, bus.port) as (line, spool):
            second.is_away = True
            await until(lambda: first.ring.held_count() == 0, "the first is served")
            second.is_away = False
            first.measure(20)
            await until(lambda: first.ring.held_count() == 0, "and goes on being served")
            first.is_away = True
            await until(lambda: line.records.refused > 0, "the other one answers, and is refused")
            assert second.ring.held_count() == 20
            assert all(record.readings == dust(record.seq) for record in await spooled(spool))

    run(work())
    assert "another board has its name" in caplog.text


def test_ends_with_different_keys_or_without_one_do_not_meet(path):
    nodes = [BusNode(Flash(), BOOT, key=KEY[::-1]), BusNode(Flash(), BOOT, name="air-2", seed=2)]
    for node in nodes:
        node.measure()

    async def work():
        async with on(Bus(*nodes)) as bus, gateway(path, bus.port, ("air-1", "air-2"), KEY) as (line, spool):
            await until(lambda: all(node.end.refused > 2 for node in nodes), "both refuse")
            assert not line.heard_mono_ms and await identities(spool) == []

    run(work())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(9),
        uplink.record(BOOT, 1, 7, bytes(9)),
        uplink.record(BOOT, 1, 0, b"\0" + bytes(8)),
        uplink.record(BOOT, 1, 0, b"\3" + bytes(8) + b"\2"),
        uplink.record(BOOT, 1, 0, b"\0" + bytes(8) + b"\xff" * 4000 + b"\1"),
        uplink.record(BOOT, 0, 0, b"\0" + bytes(8) + b"\2"),
        uplink.record(BOOT, 1, 1, b"\0" + bytes(8) + b"\2"),
        uplink.record(BOOT, 1, 2, b"\0" + bytes(8) + b"\2"),
        uplink.record(BOOT, 1, 3, b"\0" + bytes(8) + b"\2"),
        uplink.record(BOOT, 1, 4, b"\0" + bytes(8) + b"\2"),
    ],
)
def test_a_lie_of_a_node_is_refused_and_the_line_goes_on(path, payload):
    """No shape, no value, waiting for its time, a number of 28,000 bits, seq 0; shapes of nothing that is."""
    node = BusNode(Flash(), BOOT)
    shapes = [b"pms|pm2_5,,0,0", b"pms|pm2_5,,999999999,0", b"pms|nonsense,,0,0", b"\xff|,", b"../x|pm2_5,,0,0"]

    async def work():
        async with on(Bus(node)) as bus, gateway(path, bus.port) as (line, spool):
            await until(lambda: node.time, "the session has begun")
            for number, shape in enumerate(shapes):
                node.end.say(uplink.SHAPE, bytes((number,)) + shape)
            node.end.say(uplink.RECORD, payload)
            node.end.say(uplink.SHAPE, b"")
            node.end.say(99, b"")
            node.end.say(uplink.STATUS, b"[" * 5000)
            node.end.say(uplink.RESULT, b"{")
            await until(lambda: line.records.refused >= 4, "each is refused")
            assert await identities(spool) == []
            node.measure()
            await until(lambda: node.ring.held_count() == 0, "what is right is taken")

    run(work())


def test_a_port_that_goes_away_is_opened_again(path, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    node = BusNode(Flash(), BOOT)
    port = tmp_path / "port"

    async def work():
        async with gateway(path, str(port)) as (line, _):
            for _ in range(2):
                async with on(Bus(node)) as bus:
                    port.unlink(missing_ok=True)
                    port.symlink_to(bus.port)
                    node.measure(5)
                    await until(lambda: node.ring.held_count() == 0, "freed")
            assert line.tries >= 2

    run(work())
    assert "line down, nodes keep their records line=cellar" in caplog.text and "line back line=cellar" in caplog.text


# ------------------------------------------------------------------ configuration

CONFIGURATION = """
[gateway]
name = "gw"
city = "arad"
[uplink]
brokers = ["mqtt://localhost"]
[lines.cellar]
kind = "uplink"
port = "/dev/serial/by-id/rs485"
baud = 9600
[lines.broker]
kind = "mqtt"
broker = "mqtt://localhost"
[nodes.air-1]
line = "{line}"
key_file = "/etc/bega/air-1.key"
"""


def problems_of(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "gateway.toml").write_text(text)
    return examine(tmp_path / "gateway.toml")[1]


def test_a_key_is_for_a_serial_line(tmp_path):
    assert problems_of(tmp_path, CONFIGURATION.format(line="cellar")) == []
    (problem,) = problems_of(tmp_path, CONFIGURATION.format(line="broker"))
    assert "nodes.air-1.key_file: " in problem and "certificate" in problem


def test_a_line_that_asks_no_more_starves_the_watchdog(tmp_path):
    (tmp_path / "gateway.toml").write_text(CONFIGURATION.format(line="cellar"))
    config, _ = examine(tmp_path / "gateway.toml")

    async def heads():
        return {}

    spool = SimpleNamespace(heads=heads, set_head=None, has_room=None)
    clocks, health = build.Clocks(lambda: NOW_MS, lambda: 0), Health(lambda: 0)
    ground = SimpleNamespace(
        updates=None,
        revocations=None,
        recorder=Recorder(config, 1, None, None),
        health=health,
        clocks=clocks,
        spool=spool,
        nodes=Nodes(lambda: 0),
    )
    part = asyncio.run(build.part(ground, config, "lines.cellar", {}))
    assert [who.name for who in health.watched] == ["air-1"]
    before = part.sight("lines.cellar")
    part.line.asked += 1
    assert part.sight("lines.cellar").done == before.done + 1 and before.owes


def test_a_key_file_says_what_is_wrong_with_it(tmp_path):
    file = tmp_path / "air-1.key"
    file.write_text(KEY.hex() + "\n")
    assert node_key(str(file)) == KEY and node_key(None) == b""
    for wrong in ("", "zz", KEY.hex()[:-2], KEY.hex() + "00"):
        file.write_text(wrong)
        with pytest.raises(LineError, match="64 hex digits"):
            node_key(str(file))
    with pytest.raises(LineError, match="No such file"):
        node_key(str(tmp_path / "none"))
