"""From the spool to real brokers: in order, a window at a time, deleted when acknowledged and never before."""

import asyncio
import contextlib
import socket
import sqlite3
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bega import mqtt
from bega.broker import accepts_mqtt, free_port
from bega.clock import mono_ms
from bega.outbox import publish as publish_module
from bega.outbox.publish import Publisher
from bega.outbox.spool import Spool
from bega.threads import UnwaitedThreads
from bega_protocols import senml
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, Record

NAME = "gw-corner"
PROBE = f"city/timisoara/{NAME}/probe"
TOPIC = f"city/timisoara/{NAME}/{NAME}/roadside-air/up"
MOSQUITTO = "/usr/sbin/mosquitto"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(publish_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(publish_module, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(publish_module, "ANSWER_S", 1.0)
    monkeypatch.setattr(publish_module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(publish_module, "SETTLED_S", 0.2)


@contextlib.asynccontextmanager
async def publishing(directory: Path, brokers: list[str], messages: int = 0, *, name: str = NAME):
    """Give (spool, publisher) with `messages` numbered messages stored before the first connect."""
    asyncio.get_running_loop().set_default_executor(UnwaitedThreads())
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.open(directory / "spool.db", executor, window_s=0)
        writing = asyncio.create_task(spool.run())
        await add(spool, range(messages))
        publisher = Publisher(spool, brokers, lambda address: mqtt.connect(address, name), PROBE, mono_ms)
        sending = asyncio.create_task(publisher.run())
        try:
            yield spool, publisher
        finally:
            for task in (sending, writing):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await spool.close()


async def add(spool: Spool, numbers) -> None:
    await asyncio.gather(*[spool.add(TOPIC, pack(number)) for number in numbers])


def pack(number: int) -> bytes:
    return senml.encode(
        Record(NAME, 1, number, "roadside-air", 1_795_300_000_000, SYNCHRONISED, [Reading("pm2_5", number)])
    )


def number_of(payload: bytes) -> int:
    return senml.decode(payload).seq


async def until(holds: Callable[[], object], what: str, timeout_s: float = 40) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 - what happens in a broker's or a reader's thread sets no event
                await asyncio.sleep(0.01)
    assert holds(), f"not within {timeout_s} s: {what}"


def run(work):
    return asyncio.run(asyncio.wait_for(work, 100))


def set_aside(directory: Path) -> list[tuple[str, bytes]]:
    """Return what the spool will not send, as it is on disk."""
    with contextlib.closing(sqlite3.connect(directory / "spool.db")) as database:
        return database.execute("SELECT topic, payload FROM aside ORDER BY id").fetchall()


def numbers(reader) -> list[int]:
    return [record.seq for record in list(reader.records)]


class Answering:
    """A broker made of code: MQTT 3.1.1, one client at a time, and it acknowledges only what it is told to."""

    def __init__(self, acknowledges: Callable[[int], bool], *, connack: int = 0, probe_as: bytes | None = None) -> None:
        self.received: list[int] = []
        self.connections = 0
        self._acknowledges = acknowledges
        self._connack = connack
        self._probe_as = probe_as

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                (head,) = await reader.readexactly(1)
                body = await reader.readexactly(await self._length(reader))
                writer.write(self._answer(head, body))
                await writer.drain()
        writer.close()

    async def _length(self, reader: asyncio.StreamReader) -> int:
        size = shift = 0
        while True:
            (octet,) = await reader.readexactly(1)
            size |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                return size

    def _answer(self, head: int, body: bytes) -> bytes:
        kind = head >> 4
        if kind == 1:
            return bytes((0x20, 2, 0, self._connack))
        if kind == 8:
            return b"\x90\x03" + body[:2] + b"\x01"
        if kind != 3:
            return b""
        size = struct.unpack_from(">H", body)[0]
        topic, identity, payload = body[2 : 2 + size], body[2 + size : 4 + size], body[4 + size :]
        puback = b"\x40\x02" + identity
        if topic.decode() == PROBE:
            echo = struct.pack(">H", size) + topic + (self._probe_as or payload)
            return puback + bytes((0x30, len(echo))) + echo
        self.received.append(number_of(payload))
        return puback if self._acknowledges(self.received[-1]) else b""


# ------------------------------------------------------------------ what is sent, and when it is deleted


def test_all_arrives_in_order_and_the_spool_is_empty(broker, make_reader, tmp_path):
    reader = make_reader(broker.url)

    async def work():
        async with publishing(tmp_path, [broker.url], 350) as (spool, publisher):
            await until(lambda: len(reader.records) >= 350, "what was stored before arrives")
            await add(spool, range(350, 500))
            await until(lambda: len(reader.records) >= 500, "and what comes now")
            await until(lambda: spool.depth == 0, "all is deleted")
            assert publisher.acknowledged == 500
            assert publisher.connected_to == broker.url

    run(work())
    assert numbers(reader) == list(range(500))
    assert {topic for topic, _ in reader.packs} == {TOPIC}


def test_only_what_was_acknowledged_is_deleted(tmp_path):
    async def work():
        broker = Answering(lambda number: number % 3 == 0)
        async with publishing(tmp_path, [await broker.start()], 30) as (spool, publisher):
            await until(lambda: publisher.acknowledged == 10, "what was acknowledged counts")
            await add(spool, [99])  # its commit takes the deletes with it
            left = [number_of(row.payload) for row in await spool.take(0, 100)]
            assert [number for number in left if number < 30] == [number for number in range(30) if number % 3]
            assert broker.connections == 1

    run(work())


def test_no_more_than_a_window_is_under_way(tmp_path):
    async def work():
        broker = Answering(lambda number: number < 50)
        async with publishing(tmp_path, [await broker.start()], 400) as (spool, publisher):
            await until(lambda: publisher.acknowledged == 50, "acknowledged are the first 50")
            await until(lambda: len(broker.received) == mqtt.WINDOW + 50, "the window moves on")
            await asyncio.sleep(0.1)
            assert broker.received == list(range(mqtt.WINDOW + 50))
            assert spool.depth + publisher.acknowledged >= 400

    run(work())


def test_what_was_not_acknowledged_is_sent_again_from_the_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr(publish_module, "ANSWER_S", 0.3)

    async def work():
        broker = Answering(lambda number: number < 5 or broker.connections > 1)
        async with publishing(tmp_path, [await broker.start()], 20) as (spool, _):
            await until(lambda: spool.depth == 0, "all is acknowledged in the end")
        assert broker.received == [*range(20), *range(5, 20)]
        assert broker.connections == 2

    run(work())


def test_a_message_that_cannot_be_published_holds_up_nobody(mosquitto, make_reader, tmp_path, caplog):
    reader = make_reader(mosquitto.url)

    async def work():
        async with publishing(tmp_path, [mosquitto.url]) as (spool, _):
            await spool.add("city/timisoara/#/up", b"0")
            await add(spool, range(1, 150))
            await until(lambda: len(reader.records) >= 149, "the others arrive")
            await until(lambda: spool.depth == 0, "and are deleted, or set aside")

    run(work())
    assert numbers(reader) == list(range(1, 150))
    assert set_aside(tmp_path) == [("city/timisoara/#/up", b"0")]
    assert caplog.text.count("cannot be published") == 1


def test_a_store_that_cannot_be_read_for_a_moment_is_read_again(mosquitto, make_reader, tmp_path, monkeypatch):
    reader = make_reader(mosquitto.url)
    fails = [sqlite3.OperationalError("disk I/O error")] * 2
    take = Spool.take

    async def unsteady(self, after_id, limit, up_to_id=None):
        if fails:
            raise fails.pop()
        return await take(self, after_id, limit, up_to_id)

    monkeypatch.setattr(Spool, "take", unsteady)

    async def work():
        async with publishing(tmp_path, [mosquitto.url], 20):
            await until(lambda: len(reader.records) >= 20, "all arrives")

    run(work())
    assert not fails


# ------------------------------------------------------------------ messages that a broker cannot bear


def test_a_message_too_large_for_the_broker_is_set_aside_and_all_others_pass(
    make_denying, make_reader, tmp_path, caplog
):
    """mosquitto ends the connection over a packet that is too large: that is all that MQTT 3.1.1 lets it say."""
    strict = make_denying("topic readwrite #\n", "allow_anonymous true\nmax_packet_size 2000")
    reader = make_reader(strict.url)
    large = TOPIC.replace("roadside", "endless")

    async def work():
        async with publishing(tmp_path, [strict.url], 40) as (spool, _):
            await until(lambda: len(reader.records) == 40, "what was there before passes")
            adding = [spool.add(TOPIC, pack(number)) for number in range(40, 80)]
            adding.append(spool.add(large, bytes(5_000)))
            adding += [spool.add(TOPIC, pack(number)) for number in range(80, 120)]
            await asyncio.gather(*adding)
            await until(lambda: len(set(numbers(reader))) == 120, "all that can be sent is sent")
            await until(lambda: spool.depth == 0, "and nothing waits any more")

    run(work())
    assert set(numbers(reader)) == set(range(120))
    assert set_aside(tmp_path) == [(large, bytes(5_000))]
    assert caplog.text.count("set aside") == 1


class Slamming(Answering):
    """A broker that takes the probe, and ends the connection at every record, as long as `slams`."""

    slams = True

    def _answer(self, head: int, body: bytes) -> bytes:
        if head >> 4 == 3 and self.slams and PROBE.encode() not in body[: len(PROBE) + 2]:
            raise ConnectionError
        return super()._answer(head, body)


def test_a_broker_that_ends_the_connection_at_every_record_costs_none(tmp_path, caplog):
    async def work():
        broker = Slamming(lambda number: True)
        async with publishing(tmp_path, [await broker.start()], 8) as (spool, publisher):
            await until(lambda: broker.connections > 30, "it tries them all, again and again")
            assert (spool.depth, publisher.acknowledged) == (8, 0)
            assert caplog.text.count("uplink down") == 1, "it is said once, with what may be why"
            assert "too large for the broker or not allowed" in caplog.text
            broker.slams = False
            await until(lambda: spool.depth == 0, "once the broker has come to its senses all is taken")
        assert set(broker.received) == set(range(8))

    run(work())
    assert set_aside(tmp_path) == []


# ------------------------------------------------------------------ new ones first, and progress


def test_what_comes_now_is_not_behind_a_backlog(tmp_path):
    async def work():
        backlog = 2_000
        broker = Answering(lambda number: True)
        async with publishing(tmp_path, [await broker.start()], backlog) as (spool, _):
            await until(lambda: len(broker.received) >= 300, "the backlog drains")
            assert len(broker.received) < backlog - 3 * mqtt.WINDOW
            before = len(broker.received)
            await add(spool, [5_000])
            await until(lambda: 5_000 in broker.received, "the new one is sent")
            await until(lambda: spool.depth == 0, "and all of the backlog")
        assert broker.received.index(5_000) - before <= 3 * mqtt.WINDOW
        assert sorted(broker.received) == [*range(backlog), 5_000]

    run(work())


class Slow(Answering):
    """Each answer takes 20 ms longer than the one before it."""

    async def _serve(self, reader, writer):
        write = writer.write

        def later(octets: bytes) -> None:
            delay_s = 0.02 * len(self.received)
            asyncio.get_running_loop().call_later(delay_s, write, octets)

        writer.write = later
        await super()._serve(reader, writer)


def test_a_slow_link_on_which_something_is_acknowledged_is_left_alone(tmp_path, monkeypatch):
    """A full window takes longer than ANSWER_S, each PUBACK comes in time: nothing is begun anew."""
    monkeypatch.setattr(publish_module, "ANSWER_S", 0.5)

    async def work():
        broker = Slow(lambda number: True)
        async with publishing(tmp_path, [await broker.start()], 80) as (spool, _):
            await until(lambda: spool.depth == 0, "all is acknowledged")
        assert broker.connections == 1
        assert broker.received == list(range(80))

    run(work())


def test_it_returns_to_the_first_broker(mosquitto, make_reader, tmp_path, monkeypatch):
    monkeypatch.setattr(publish_module, "RETURN_AFTER_S", 0.3)
    reader = make_reader(mosquitto.url)

    async def work():
        second = Answering(lambda number: True)
        relay = await relay_to(mosquitto.port)
        async with publishing(tmp_path, [relay.url, await second.start()], 5) as (spool, publisher):
            await until(lambda: publisher.connected_to == relay.url, "the first is there")
            await relay.stop()
            await add(spool, [5])
            await until(lambda: 5 in second.received or 5 in numbers(reader), "the second helps out")
            await until(lambda: second.connections, "the second was asked")
            await relay.start()
            await until(lambda: publisher.connected_to == relay.url, "and goes back to the first")
            await add(spool, [6])
            await until(lambda: 6 in numbers(reader), "which takes what comes")

    run(work())


def test_what_is_under_way_at_the_end_is_waited_for_and_not_sent_again(tmp_path):
    """A restart on purpose gives no reading twice."""

    async def work():
        broker = Slow(lambda number: True)
        address = await broker.start()
        async with publishing(tmp_path, [address], 20) as (spool, publisher):
            await until(lambda: len(broker.received) == 20, "all is under way")
            assert publisher.in_flight
            finishing = asyncio.create_task(publisher.finish(5))
            await add(spool, range(20, 25))
            await finishing
            assert publisher.in_flight == 0
            assert spool.depth == 5
        assert broker.received == list(range(20)), "what comes now is for the next start"
        async with publishing(tmp_path, [address]) as (spool, _):
            await until(lambda: spool.depth == 0, "which sends it")
        assert broker.received == list(range(25))

    run(work())


def test_answers_that_do_not_come_hold_up_the_end_no_longer_than_was_said(tmp_path):
    async def work():
        broker = Answering(lambda number: False)
        async with publishing(tmp_path, [await broker.start()], 3) as (spool, publisher):
            await until(lambda: len(broker.received) == 3, "all is under way")
            await publisher.finish(0.1)
            assert spool.depth == 3, "nothing is deleted"
            assert publisher.in_flight == 3

    run(work())


class _Relay:
    """A TCP relay in the same loop, at one port for all its lives."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._port = free_port()
        self.url = f"mqtt://127.0.0.1:{self._port}"
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers += [writer, far_writer]
        await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(65536):
                writer.write(octets)
        writer.close()


async def relay_to(target_port: int) -> _Relay:
    relay = _Relay(target_port)
    await relay.start()
    return relay


# ------------------------------------------------------------------ the way must be proved


class Denying:
    """A mosquitto with an access list: it lets in whom it knows, and PUBACKs what it throws away."""

    def __init__(self, directory: Path, rules: str, extra: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        directory.mkdir()
        directory.chmod(0o777)
        access = directory / "access"
        access.write_text(rules)
        configuration = directory / "mosquitto.conf"
        configuration.write_text(f"listener {self.port} 127.0.0.1\nuser root\n{extra}\nacl_file {access}\n")
        self._child = subprocess.Popen([MOSQUITTO, "-c", configuration], stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self._child.terminate()
        self._child.wait(10)


@pytest.fixture
def make_denying(tmp_path, eventually):
    with contextlib.ExitStack() as stack:

        def make(rules: str, extra: str = "allow_anonymous true") -> Denying:
            broker = Denying(tmp_path / "denying", rules, extra)
            stack.callback(broker.stop)
            eventually(lambda: _listens(broker.port), "mosquitto listens")
            return broker

        yield make


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("topic read city/#\n", "no probe came back"),
        ("topic write city/#\n", "probe"),
        ("topic write city/timisoara/gw-corner/gw-corner/+/up\ntopic read city/+/+/probe\n", "no probe came back"),
    ],
    ids=["nothing may be written", "the probe may not be read", "the probe may not be written"],
)
def test_where_the_access_list_denies_nothing_is_deleted(make_denying, tmp_path, caplog, rules, said):
    """mosquitto answers a publish that it throws away with a PUBACK like any other."""
    denying = make_denying(rules)
    assert accepts_mqtt("127.0.0.1", denying.port)

    async def work():
        async with publishing(tmp_path, [denying.url], 20) as (spool, publisher):
            await until(lambda: "uplink down" in caplog.text, "the reason is said")
            await asyncio.sleep(0.3)
            assert publisher.acknowledged == 0
            assert publisher.connected_to is None
            await add(spool, [20])
            assert len(await spool.take(0, 100)) == 21

    run(work())
    assert said in caplog.text and "access list" in caplog.text
    assert caplog.text.count("uplink down") == 1


def test_a_probe_of_another_time_proves_nothing(tmp_path):
    async def work():
        broker = Answering(lambda number: True, probe_as=b"0123456789abcdef")
        async with publishing(tmp_path, [await broker.start()], 5) as (spool, publisher):
            await asyncio.sleep(1.5)
            assert broker.received == []
            assert (publisher.acknowledged, spool.depth) == (0, 5)

    run(work())


# ------------------------------------------------------------------ brokers that are not there, refuse, or go


def test_brokers_are_tried_in_turn(mosquitto, make_reader, tmp_path, caplog):
    caplog.set_level("INFO")
    reader = make_reader(mosquitto.url)
    dead = f"mqtt://127.0.0.1:{free_port()}"

    async def work():
        async with publishing(tmp_path, [dead, mosquitto.url], 10) as (_, publisher):
            await until(lambda: len(reader.records) == 10, "the second broker gets all")
            await until(lambda: "uplink up" in caplog.text, "which is said")
            assert publisher.connected_to == mosquitto.url

    run(work())
    assert f"uplink down, records wait in the spool broker={dead}" in caplog.text
    assert f"uplink up broker={mosquitto.url}" in caplog.text


def test_when_the_broker_dies_the_next_one_gets_what_was_not_acknowledged(embedded, mosquitto, make_reader, tmp_path):
    first, second = make_reader(embedded.url), make_reader(mosquitto.url)

    async def work():
        async with publishing(tmp_path, [embedded.url, mosquitto.url], 30) as (spool, publisher):
            await until(lambda: spool.depth == 0, "the first takes it")
            await until(lambda: len(first.records) == 30, "and its reader has it")
            await asyncio.to_thread(embedded.kill)
            await add(spool, range(30, 60))
            await until(lambda: spool.depth == 0, "the second takes the rest")
            assert publisher.connected_to == mosquitto.url
            await until(lambda: set(numbers(first)) | set(numbers(second)) == set(range(60)), "all arrives")

    run(work())


def test_a_broker_that_refuses_is_asked_again_and_said_once(make_denying, tmp_path, caplog):
    refusing = make_denying("", "allow_anonymous false")

    async def work():
        async with publishing(tmp_path, [refusing.url], 3) as (spool, publisher):
            await asyncio.sleep(1)
            assert (publisher.acknowledged, spool.depth, publisher.connected_to) == (0, 3, None)

    run(work())
    assert caplog.text.count("uplink down") == 1
    assert "Not authorized" in caplog.text


def test_a_session_that_is_taken_over_comes_back_and_loses_nothing(broker, make_reader, tmp_path, monkeypatch):
    """Two gateways under one name: the broker throws out the older session each time."""
    monkeypatch.setattr(mqtt, "ANSWER_S", 1.0)  # nats-server closes, without an answer, what changes hands too often
    reader = make_reader(broker.url)

    async def work():
        async with publishing(tmp_path, [broker.url], 100) as (spool, _):
            for round_ in (1, 2):
                adding = asyncio.create_task(add(spool, range(100 * round_, 100 * round_ + 100)))
                with contextlib.suppress(mqtt.SessionLost):
                    async with mqtt.connect(broker.url, NAME):
                        await asyncio.sleep(0.05)
                await adding
                await until(lambda: spool.depth == 0, "all is acknowledged")
            await until(lambda: set(numbers(reader)) == set(range(300)), "all arrives")

    run(work())


def test_a_broker_that_never_answers_costs_no_socket_and_no_time_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(mqtt, "ANSWER_S", 0.1)
    opened: list[asyncio.StreamWriter] = []
    closed: list[bytes] = []

    async def hole(reader, writer):
        opened.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            closed.append(await reader.read(-1))
        writer.close()

    async def work():
        server = await asyncio.start_server(hole, "127.0.0.1", 0)
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with publishing(tmp_path, [url], 1) as (spool, _):
            await until(lambda: len(opened) >= 4, "it tries again and again")
            await until(lambda: len(closed) >= 3, "and closes what it gave up", 3)
            assert spool.depth == 1
        server.close()

    run(work())


def test_it_ends_at_once_however_long_a_connect_takes(tmp_path, monkeypatch):
    """A name server that does not answer holds a thread for half a minute; the end must not wait for it."""
    import threading
    import time

    release = threading.Event()
    looking = threading.Event()

    def slow(*args, **kwargs):
        looking.set()
        release.wait(20)
        raise OSError("no answer")

    monkeypatch.setattr("paho.mqtt.client.Client.connect", slow)

    async def work():
        async with publishing(tmp_path, ["mqtt://broker.example:1883"], 1):
            await until(looking.is_set, "it looks up the name")

    begun = time.monotonic()
    run(work())
    assert time.monotonic() - begun < 10
    release.set()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("mqtt://127.0.0.1:{free}", "nothing listens there"),
        ("mqtt://no-such-name.invalid:1883", "nobody knows this name"),
        ("mqtts://127.0.0.1:{plain}", "it ends the TLS handshake"),
        ("mqtt://127.0.0.1:{dark}", "no answer within"),
    ],
)
def test_why_a_broker_cannot_be_reached_is_said_in_words(mosquitto, monkeypatch, address, said):
    monkeypatch.setattr(mqtt, "ANSWER_S", 0.5)

    async def work():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        ports = {"free": free_port(), "plain": mosquitto.port, "dark": server.sockets[0].getsockname()[1]}
        with pytest.raises(mqtt.SessionLost, match=said):
            async with mqtt.connect(address.format(**ports), NAME):
                pass
        server.close()

    run(work())


def test_certificate_files_that_cannot_be_used_are_named_and_tried_again(tmp_path):
    missing = str(tmp_path / "ca.pem")

    async def work():
        with pytest.raises(mqtt.SessionLost, match="certificate files cannot be used") as lost:
            async with mqtt.connect("mqtts://127.0.0.1:1", NAME, mqtt.Credentials(missing, None, None)):
                pass
        assert missing in str(lost.value)

    run(work())
