"""The embedded broker keeps what it acknowledged, says what is wrong, and leaves nothing behind."""

import asyncio
import os
import socket

import aiomqtt
import pytest

from bega.broker import EmbeddedBroker, accepts_mqtt, free_port, require_free_port
from bega.mqtt import SessionLost, connect
from bega_protocols.errors import ConfigError, LineError

TOPIC = "city/timisoara/gw-corner/gw-corner/roadside-air/up"
WAIT_S = 15


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


@pytest.fixture
def broker(tmp_path):
    with EmbeddedBroker(tmp_path / "broker") as running:
        yield running


async def subscribe(broker: EmbeddedBroker, reader: str) -> None:
    """Make a session that the broker keeps, and leave."""
    async with connect(broker.url, reader) as session:
        await session.subscribe("city/+/+/+/+/up")


async def publish(broker: EmbeddedBroker, texts: list[str]) -> None:
    async with connect(broker.url, "gw-corner") as session:
        await asyncio.gather(*(session.publish(TOPIC, text.encode()) for text in texts))


async def receive(broker: EmbeddedBroker, reader: str, count: int) -> list[str]:
    received: list[str] = []
    async with asyncio.timeout(WAIT_S), connect(broker.url, reader) as session:
        async for message in session.messages():
            received.append(message.payload.decode())
            if len(set(received)) == count:
                return received
    return received


def test_broker_keeps_what_it_acknowledged_over_kill_9(broker):
    texts = [f"record {number}" for number in range(300)]
    run(subscribe(broker, "reader"))
    run(publish(broker, texts))
    broker.kill()
    assert not accepts_mqtt(broker.host, broker.port)
    broker.start()
    assert sorted(set(run(receive(broker, "reader", len(texts))))) == sorted(texts)


def test_broker_keeps_what_it_acknowledged_until_the_moment_it_is_killed(broker):
    """Killed between two publishes: whatever had its PUBACK is there."""
    acknowledged: list[str] = []

    async def publish_until_the_end() -> None:
        async with connect(broker.url, "gw-corner") as session:
            for number in range(10_000):
                await asyncio.wait_for(session.publish(TOPIC, b"%d" % number), 1)
                acknowledged.append(str(number))
                if number == 80:
                    asyncio.get_running_loop().call_later(0.05, broker.kill)

    run(subscribe(broker, "reader"))
    with pytest.raises((SessionLost, TimeoutError)):
        run(publish_until_the_end())
    broker.start()
    received = set(run(receive(broker, "reader", len(acknowledged))))
    assert set(acknowledged) <= received


def test_unread_message_comes_again_to_a_session_that_returns(broker):
    async def hear_and_forget() -> None:
        async with connect(broker.url, "reader") as session:
            await session.subscribe("city/#")

    run(hear_and_forget())
    run(publish(broker, ["first"]))
    run(publish(broker, ["second"]))
    assert run(receive(broker, "reader", 2))[:2] == ["first", "second"]


def test_reader_may_be_thousands_of_messages_behind(broker):
    """nats-server's own limit of 1024 unacknowledged messages would stall a reader that catches up."""
    texts = [str(number) for number in range(3000)]
    run(subscribe(broker, "reader"))
    run(publish(broker, texts))
    assert sorted(run(receive(broker, "reader", len(texts)))) == sorted(texts)


def test_taken_port_is_named_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = EmbeddedBroker(tmp_path, port)
        with pytest.raises(ConfigError, match=str(port)):
            broker.start()
        assert broker.pid is None


def test_free_port_can_be_taken_and_is_not_lent_by_the_kernel():
    port = free_port()
    require_free_port("127.0.0.1", port)
    assert port < 32_768


def test_start_in_a_directory_that_cannot_be_used_tells_the_last_words(tmp_path):
    (tmp_path / "jetstream").write_text("a file where nats-server wants its directory")
    broker = EmbeddedBroker(tmp_path)
    with pytest.raises(LineError, match="storage directory is not a directory"):
        broker.start()
    assert broker.pid is None


def test_stop_leaves_no_process(broker):
    pid = broker.pid
    assert pid is not None
    broker.stop()
    assert broker.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    broker.stop()


@pytest.mark.parametrize("answer", ["_on_connect", "_on_subscribe", "_on_publish"])
def test_task_that_is_cancelled_as_the_answer_arrives_ends(broker, monkeypatch, answer):
    """Python 3.11 drops that cancellation; a gateway told to stop at that moment would never end."""
    arrived = getattr(aiomqtt.Client, answer)

    async def listen_for_ever() -> None:
        async with connect(broker.url, "reader", keep=False) as session:
            await session.subscribe("city/#")
            await session.publish(TOPIC, b"1")
            await asyncio.Event().wait()

    async def cancel_then() -> None:
        task = asyncio.create_task(listen_for_ever())

        def answer_and_cancel(self, *args):
            arrived(self, *args)
            task.cancel()

        monkeypatch.setattr(aiomqtt.Client, answer, answer_and_cancel)
        done, _ = await asyncio.wait([task], timeout=3)
        task.cancel()
        assert done and task.cancelled()

    run(cancel_then())
