"""What a command has a line do: once more, an action, a word to a node. And an uplink that refuses commands."""

import asyncio
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bega import mqtt
from bega.clock import mono_ms, wall_ms
from bega.mqtt import Message, SessionLost
from bega.notify import Notifier
from bega.outbox.publish import Publisher
from bega.outbox.spool import Spool
from bega_gateway import app
from bega_gateway.commands import acts as acts_of_gateway
from bega_gateway.commands.acts import Acts
from bega_gateway.commands.order import Refused, understand
from bega_gateway.config import examine, load
from bega_gateway.control import Origin
from bega_gateway.lines.asked import AskedLine
from bega_gateway.lines.errand import CUT, DOWN, LATE, SILENT, UNANSWERED, Done
from bega_gateway.lines.mqtt import NodeLine
from bega_gateway.lines.nodes import NodeRecords
from bega_gateway.lines.station import Station
from bega_protocols.ask import Ask
from bega_protocols.errors import ConfigError, LineError
from bega_protocols.reading import Reading

ROOT = "city/arad/gw-1/"
NOW_S = 1_795_300_000


class Echo:
    """A wire that answers each question with the question, unless it is silent, cut or slow."""

    def __init__(self) -> None:
        self.began_ms = 0
        self.heard: list[bytes] = []
        self.fault = ""
        self.in_turn = 0
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        if self.fault == "cut":
            raise LineError("gone")

    def close(self) -> None:
        pass

    @contextlib.asynccontextmanager
    async def turn(self):
        async with self._lock:
            yield

    async def exchange(self, ask: Ask) -> bytes | None:
        self.heard.append(ask.write)
        self.in_turn += 1
        assert self.in_turn == 1, "two questions at once"
        await asyncio.sleep(10 if self.fault == "slow" else 0.001)
        self.in_turn -= 1
        if self.fault == "cut":
            raise LineError("gone")
        return None if self.fault == "silent" else ask.write


class Sensor:
    """A driver that is asked, and can be told to `clean`."""

    line = "serial 9600 8N1"
    actions = ("clean",)

    def __init__(self) -> None:
        self.damaged, self.attributes = [], {}

    def feed(self, chunk, now_ms):
        return []

    def measure(self, now_ms):
        answer = yield Ask(b"measure", 10, 7)
        return [[Reading("co2", 400, 0)]] if answer else []

    def act(self, name, value):
        if value == 9:
            raise ConfigError("it cannot do 9")
        answer = yield Ask(b"clean", 10, 5)
        return answer is not None and value != 3


@contextlib.asynccontextmanager
async def line_with_a_sensor(every_s: float = 3600.0):
    taken: list = []

    async def deliver(groups, read_ms):
        taken.extend(groups)

    wire, station = Echo(), Station("s", Sensor(), every_s, deliver)
    line = AskedLine("l", wire, [station], mono_ms, wall_ms)
    running = asyncio.create_task(line.run())
    try:
        async with asyncio.timeout(10):
            while not taken:  # noqa: ASYNC110 - what is waited for is a list that fills
                await asyncio.sleep(0.01)
            yield line, wire, station, taken
    finally:
        running.cancel()
        await asyncio.wait([running])


def test_an_asked_device_is_measured_once_more_and_acts():
    async def scene():
        async with line_with_a_sensor() as (line, wire, station, taken):
            assert await line.read_now(station) == Done(True)
            assert len(taken) == 2
            assert await line.act(station, "clean", None) == Done(True)
            assert wire.heard == [b"measure", b"measure", b"clean"]
            assert await line.act(station, "clean", 3) == Done(False, "the device did not take it")
            assert await line.act(station, "clean", 9) == Done(False, "it cannot do 9")
            assert await line.act(station, "clean", None, lambda: False) == LATE
            assert wire.heard[-1] == b"clean"
            assert len(wire.heard) == 4
            wire.fault = "silent"
            assert await line.act(station, "clean", None) == UNANSWERED, "its answer may be what was lost"
            assert await line.read_now(station) == SILENT

    asyncio.run(scene())


def test_an_errand_never_comes_between_the_questions_of_a_poll():
    async def scene():
        async with line_with_a_sensor(0.001) as (line, _, station, _):
            done = await asyncio.gather(*(line.act(station, "clean", None) for _ in range(30)))
            assert set(done) == {Done(True)}

    asyncio.run(scene())


def test_a_line_that_goes_down_ends_an_errand_and_says_so():
    async def scene():
        async with line_with_a_sensor() as (line, wire, station, _):
            wire.fault = "cut"
            assert await line.act(station, "clean", None) == CUT
            assert await line.act(station, "clean", None) == DOWN
            await asyncio.sleep(0.1)  # the line rests before it opens again

    asyncio.run(scene())


def test_a_line_that_is_ended_ends_an_errand_in_hand():
    async def scene():
        async with line_with_a_sensor() as (line, wire, station, _):
            wire.fault = "slow"
            acting = asyncio.create_task(line.act(station, "clean", None))
            await asyncio.sleep(0.05)
        assert await acting == CUT

    asyncio.run(scene())


# ------------------------------------------------------------------ nodes


def nothing_stored() -> NodeRecords:
    return NodeRecords(lambda *_: asyncio.Future(), lambda _: None, {})


@contextlib.asynccontextmanager
async def nodes(url: str):
    line = NodeLine(
        "nodes", ["air-1"], lambda: mqtt.connect(url, "gw-1-nodes"), nothing_stored(), lambda: None, mono_ms,
    )  # fmt: skip
    running = asyncio.create_task(line.run())
    try:
        async with mqtt.connect(url, "air-1", keep=False) as node:
            await node.subscribe("node/air-1/cmd/#")
            async with asyncio.timeout(10):
                while line._session is None:  # noqa: ASYNC110 - sets no event
                    await asyncio.sleep(0.01)
            yield line, node
    finally:
        running.cancel()
        await asyncio.wait([running])


class OneNode:
    """A gateway with one node and nothing else."""

    def __init__(self, line: NodeLine | None) -> None:
        tables = {
            "gateway": {"name": "gw-1", "city": "arad"},
            "uplink": {"brokers": ["mqtt://localhost"]},
            "lines": {"nodes": {"kind": "mqtt", "broker": "mqtt://localhost"}},
            "nodes": {"air-1": {"line": "nodes"}},
        }
        self._config, problems = examine(Path("/dev/null"), tables)
        assert self._config, problems
        self._line = line

    def config(self):
        return self._config

    def line(self, name):
        return self._line


def ordered(verb: str, expires_s: int = NOW_S + 1, **keys):
    payload = {"id": "a", "expires": expires_s, **keys}
    return understand(f"{ROOT}cmd/", f"{ROOT}cmd/{verb}", json.dumps(payload).encode())


def test_a_node_is_handed_a_command_and_its_result_is_relayed(mosquitto):
    async def scene():
        async with nodes(mosquitto.url) as (line, node):
            acts = Acts(OneNode(line), None, lambda: 1000 * NOW_S)

            async def obey() -> Message:
                async for message in node.messages():
                    await node.publish("node/air-1/result", b"no result")
                    await node.publish("node/air-1/result", b'{"id":"a","done":true,"version":NaN}')
                    await node.publish("node/air-1/result", b'{"id":"another","done":true}')
                    await node.publish("node/air-1/result", b'{"id":"a","done":true,"version":3}')
                    return message
                raise AssertionError

            obeying = asyncio.create_task(obey())
            ended = await acts.prepare(ordered("configure_node", node="air-1", configuration={"every": 5}))()
            assert ended == (Done(True), {"version": 3})
            message = await obeying
            assert message.topic == "node/air-1/cmd/config"
            assert json.loads(message.payload) == {"id": "a", "expires": NOW_S + 1, "configuration": {"every": 5}}
            obeying = asyncio.create_task(obey())
            assert await acts.prepare(ordered("restart_node", node="air-1"))() == (Done(True), {"version": 3})
            message = await obeying
            assert message.topic == "node/air-1/cmd/restart"
            assert json.loads(message.payload) == {"id": "a", "expires": NOW_S + 1}

    asyncio.run(scene())


@pytest.mark.parametrize("value", [420, None])
def test_an_action_on_the_device_of_a_node_is_handed_to_the_node(mosquitto, value):
    """What may be done there stands in its own configuration: the gateway's knows no device of a node."""

    async def scene():
        async with nodes(mosquitto.url) as (line, node):
            acts = Acts(OneNode(line), None, lambda: 1000 * NOW_S)

            async def obey() -> Message:
                async for message in node.messages():
                    said = b'{"id":"a","done":true,"recalibrated_by_ppm":"-12"}'
                    await node.publish("node/air-1/result", said)
                    return message
                raise AssertionError

            obeying = asyncio.create_task(obey())
            keys = {"device": "air-1/co2", "action": "recalibrate"} | ({} if value is None else {"value": value})
            ended = await acts.prepare(ordered("act", **keys))()
            assert ended == (Done(True), {"recalibrated_by_ppm": "-12"})
            message = await obeying
            assert message.topic == "node/air-1/cmd/act"
            assert json.loads(message.payload) == {"id": "a", "expires": NOW_S + 1, **keys, "device": "co2"}
            for other in ("air-2/co2", "/co2"):
                with pytest.raises(Refused, match="no such node"):
                    acts.prepare(ordered("act", device=other, action="recalibrate"))

    asyncio.run(scene())


def test_a_light_that_is_told_to_blink_while_it_blinks_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(acts_of_gateway, "HALF_BLINK_S", 0.02)
    light = tmp_path / "brightness"
    light.write_text("0\n")
    acts = Acts(OneNode(None), str(tmp_path), lambda: 1000 * NOW_S)

    async def scene():
        first = asyncio.create_task(acts.prepare(ordered("blink", for_s=1))())
        while light.read_text() != "1":  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0)
        second = acts.prepare(ordered("blink", for_s=2))()
        return [ended.done for ended in await asyncio.gather(first, second)]

    assert asyncio.run(scene()) == [Done(True), Done(True)]
    assert light.read_text() == "0\n"


def test_what_is_longer_than_a_node_can_take_is_refused_and_not_sent():
    """The firmware reads past a packet of more than 4096 bytes, and nobody would hear a word of it."""
    acts = Acts(OneNode(None), None, lambda: 1000 * NOW_S)
    rest = len(json.dumps({"id": "a", "expires": NOW_S + 1, "configuration": {"x": ""}}))
    room = 4096 - 4 - len("node/air-1/cmd/config") - rest
    acts.prepare(ordered("configure_node", node="air-1", configuration={"x": "a" * room}))
    with pytest.raises(Refused, match="longer than a node"):
        acts.prepare(ordered("configure_node", node="air-1", configuration={"x": "a" * (room + 1)}))


def test_a_node_that_does_not_answer_is_said_after_the_expiry(mosquitto):
    async def scene():
        async with nodes(mosquitto.url) as (line, _):
            acts = Acts(OneNode(line), None, lambda: 1000 * NOW_S)
            ended = await acts.prepare(ordered("blink", node="air-1"))()
            assert ended.done == Done(False, "the node did not answer")
            assert not line.records._awaited

    asyncio.run(scene())


def test_a_node_whose_broker_is_away_or_that_is_nobodys_gets_nothing():
    async def scene():
        def connect():
            return mqtt.connect("mqtt://localhost:1", "x")

        away = NodeLine("nodes", ["air-1"], connect, nothing_stored(), lambda: None, mono_ms)
        with pytest.raises(SessionLost):
            await away.command("air-1", "blink", "a", b"{}")
        acts = Acts(OneNode(away), None, lambda: 1000 * NOW_S)
        assert not (await acts.prepare(ordered("blink", node="air-1"))()).done.well
        with pytest.raises(Refused, match="no such node"):
            acts.prepare(ordered("blink", node="air-2"))
        with pytest.raises(Refused, match="no light"):
            acts.prepare(ordered("blink"))

    asyncio.run(scene())


# ------------------------------------------------------------------ a gateway that starts


AWAKENING = """
[gateway]
name = "gw-1"
city = "arad"
state_dir = "{state}"

[uplink]
brokers = ["mqtt://127.0.0.1:1"]

[commands]

[lines.nodes]
kind = "mqtt"
broker = "mqtt://127.0.0.1:1"
"""


def test_what_the_broker_kept_while_the_gateway_was_away_waits_for_the_lines(tmp_path, monkeypatch):
    file = tmp_path / "gateway.toml"
    file.write_text(AWAKENING.format(state=tmp_path / "state"))
    begin_all = app.Parts.begin_all

    async def slow(*arguments: object) -> None:
        await asyncio.sleep(0.5)
        await begin_all(*arguments)

    monkeypatch.setattr(app.Parts, "begin_all", slow)
    kept = {"id": "a", "expires": wall_ms() // 1000 + 60, "line": "nodes"}

    async def scene():
        source = app.Source(Origin(str(file), []), lambda: examine(file))
        async with contextlib.AsyncExitStack() as stack:
            gateway = await app.Gateway.opened(load(file), source, app.Clocks(wall_ms, mono_ms), Notifier(None), stack)
            gateway._hear(Message(f"{ROOT}cmd/restart_line", json.dumps(kept).encode()))
            async with asyncio.timeout(20), gateway.running():
                while not gateway._desk.counted:  # noqa: ASYNC110 - sets no event
                    await asyncio.sleep(0.02)
                assert gateway._desk.counted == {("done", ""): 1}

    asyncio.run(scene())


# ------------------------------------------------------------------ the uplink


class OnlyRecords:
    """A session of a broker that takes records and grants nobody the topics of commands."""

    def __init__(self, *, grants: bool) -> None:
        self.sent: list[str] = []
        self._grants = grants
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()

    async def subscribe(self, *topics: str) -> None:
        if topics == (f"{ROOT}cmd/#",) and not self._grants:
            raise SessionLost("the broker refuses a subscription")

    async def publish(self, topic: str, payload: bytes) -> None:
        self._inbox.put_nowait(Message(topic, payload))
        self._inbox.put_nowait(Message(f"{ROOT}cmd/status", b"{}"))

    def send(self, topic, payload, acknowledged) -> None:
        self.sent.append(topic)
        asyncio.get_running_loop().call_soon(acknowledged)

    async def messages(self):
        while True:
            yield await self._inbox.get()


@pytest.mark.parametrize("grants", [True, False])
def test_an_uplink_that_grants_no_commands_gets_the_records_all_the_same(tmp_path, caplog, grants):
    async def scene():
        session, heard = OnlyRecords(grants=grants), []

        @contextlib.asynccontextmanager
        async def connect(broker):
            yield session

        with ThreadPoolExecutor(1) as executor:
            spool = await Spool.open(tmp_path / "spool.db", executor, window_s=0)
            publisher = Publisher(
                spool, ["x"], connect, f"{ROOT}probe", mono_ms, listens_to=(f"{ROOT}cmd/#", heard.append)
            )
            running = [asyncio.create_task(work()) for work in (spool.run, publisher.run)]
            spool.add(f"{ROOT}gw-1/d/up", b"[]")
            async with asyncio.timeout(10):
                while not session.sent:  # noqa: ASYNC110 - a list that fills
                    await asyncio.sleep(0.01)
            assert heard == [Message(f"{ROOT}cmd/status", b"{}")], "and not the probe"
            assert ("commands are not heard" in caplog.text) is not grants
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await spool.close()

    asyncio.run(scene())


# ------------------------------------------------------------------ the file


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ({"actions": ["clean"]}, "devices.boiler.actions[0]: modbus_meter has no action 'clean'"),
        (
            {"writes": {"w": {"function": 6, "address": 1, "type": "int16"}}},
            "devices.boiler.writes.w.least: is missing",
        ),
        ({"writes": {"w w": {"function": 5, "address": 1, "type": "bool"}}}, "devices.boiler.writes.w w: a name"),
        ({"writes": {"w": 5}}, "devices.boiler.writes"),
        ({"writes": {"w": {"function": 5, "address": 1, "type": "bool"}}}, ""),
    ],
)
def test_what_a_device_cannot_do_is_no_command(device, place):
    tables = {
        "gateway": {"name": "gw-1", "city": "arad"},
        "uplink": {"brokers": ["mqtt://localhost"]},
        "commands": {},
        "lines": {"hall": {"kind": "modbus-tcp", "host": "localhost"}},
        "devices": {
            "boiler": {
                "line": "hall", "driver": "modbus_meter", "settings": {"profile": "sdm630", "address": 1}, **device,
            }
        },
    }  # fmt: skip
    _, problems = examine(Path("/dev/null"), tables)
    assert (place in problems[0]) if place else not problems, problems
