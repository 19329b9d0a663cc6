"""The public feed over real HTTP: only what is public, exact, and never a danger to the gateway behind it."""

import asyncio
import contextlib
import json
import socket
import sqlite3
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bega import web
from bega.web import bind, serve
from bega_gateway import feed as feed_module
from bega_gateway import feed_store as store_module
from bega_gateway.backfill import load_history
from bega_gateway.config import Config, Device, Gateway, Node, Uplink
from bega_gateway.config import Feed as FeedTable
from bega_gateway.edge.tables import AirIndex
from bega_gateway.feed import Feed
from bega_gateway.feed_store import LISTENER_BACKLOG, FeedStore
from bega_protocols import senml
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, STALE, SUSPECT, Reading
from bega_protocols.record import SYNCHRONISED, UNKNOWN, Record

NOW_MS = 1_795_300_000_000
HOUR_MS = 3_600_000
GATEWAY = "gw-corner"


def configuration(
    devices: dict[str, str], nodes: dict[str, str] | None = None, indexes: dict[str, list[str]] | None = None
) -> Config:
    """Return a configuration: {device: audience}, {node: audience}, {index: inputs}."""
    return Config(
        gateway=Gateway(name=GATEWAY, city="timisoara"),
        uplink=Uplink(brokers=["mqtt://broker"]),
        feed=FeedTable(),
        lines={},
        devices={
            name: Device(line="l", driver="d", audience=audience, label=f"at {name}")
            for name, audience in devices.items()
        },
        nodes={name: Node(line="n", audience=audience) for name, audience in (nodes or {}).items()},
        edge={"air_index": {name: AirIndex(inputs=inputs) for name, inputs in (indexes or {}).items()}},
    )


PUBLIC = configuration({"roadside-air": "public"})


def record(
    *readings: Reading, source: str = GATEWAY, device: str = "roadside-air", seq: int = 1, time_ms: int | None = NOW_MS
) -> Record:
    quality = UNKNOWN if time_ms is None else SYNCHRONISED
    return Record(source, 1, seq, device, time_ms, quality, list(readings) or [Reading("pm2_5", seq)])


@contextlib.asynccontextmanager
async def opened(path: Path, keep_hours: int = 72):
    with ThreadPoolExecutor(1) as executor:
        store = await FeedStore.open(path, executor, keep_hours)
        try:
            yield store
        finally:
            await store.flush()
            await store.close()


@contextlib.asynccontextmanager
async def served(path: Path, config: Config = PUBLIC, now_ms: int = NOW_MS, **options):
    """Give (store, client) of a feed that is served on a port of its own."""
    async with opened(path, **options) as store:
        listener = bind("feed.listen", "127.0.0.1:0")
        task = asyncio.create_task(serve(Feed(config, store, lambda: now_ms).app(), listener))
        try:
            port = listener.getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                yield store, client
        finally:
            store.end_events()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def latest(client: httpx.AsyncClient) -> list[dict]:
    answer = await client.get("/public/v1/latest")
    assert answer.status_code == 200
    return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["readings"]


async def until(holds, what: str) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feed.db"


# ------------------------------------------------------------------ what it says


def test_latest_says_the_newest_of_everything_with_its_unit_age_and_place(path):
    async def work():
        async with served(path) as (store, client):
            store.add(record(Reading("pm2_5", 7), Reading("temperature", 2513, -2, "left")), NOW_MS)
            store.add(record(Reading("pm2_5", 8), seq=2, time_ms=NOW_MS + 1000), NOW_MS, simulated=True)
            store.add(record(Reading("pm2_5", 1), seq=3, time_ms=NOW_MS - 5000), NOW_MS)  # late, from a backlog
            answer = await client.get("/public/v1/latest")
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            body = answer.json()
            assert (body["gateway"], body["city"]) == (GATEWAY, "timisoara")
            assert body["readings"] == [
                {
                    "source": GATEWAY, "device": "roadside-air", "label": "at roadside-air",
                    "quantity": "pm2_5", "part": "", "value": 8, "unit": "ug/m3",
                    "time_ms": NOW_MS + 1000, "time_quality": 0, "quality": 0, "simulated": True,
                },
                {
                    "source": GATEWAY, "device": "roadside-air", "label": "at roadside-air",
                    "quantity": "temperature", "part": "left", "value": 25.13, "unit": "Cel",
                    "time_ms": NOW_MS, "time_quality": 0, "quality": 0, "simulated": False,
                },
            ]  # fmt: skip

    run(work())


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.tuples(st.integers(-(10**15), 10**15), st.integers(-9, 4)), min_size=1, max_size=6))
def test_values_keep_every_digit_that_the_device_gave(values, tmp_path_factory):
    async def work():
        async with opened(tmp_path_factory.mktemp("feed") / "feed.db") as store:
            transport = httpx.ASGITransport(Feed(PUBLIC, store, lambda: NOW_MS).app())
            async with httpx.AsyncClient(transport=transport, base_url="http://feed") as client:
                readings = [
                    Reading("pm2_5", value, exp10, f"p{number}") for number, (value, exp10) in enumerate(values)
                ]
                store.add(record(*readings), NOW_MS)
                rows = await latest(client)
                assert [row["value"] for row in rows] == [Decimal(value).scaleb(exp10) for value, exp10 in values]

    run(work())


def test_a_stale_value_is_none_at_all(path):
    async def work():
        async with served(path) as (store, client):
            store.add(record(Reading("pm2_5", 7)), NOW_MS)
            store.add(record(Reading("pm2_5", 7, 0, "", STALE), time_ms=NOW_MS + 1), NOW_MS)
            (row,) = await latest(client)
            assert (row["value"], row["quality"]) == (None, STALE)

    run(work())


def test_series_are_means_per_step_as_worked_out_otherwise(path):
    rows = [(NOW_MS - number * 47_000, 3 * number % 41) for number in range(300)]

    async def work():
        async with served(path) as (store, client):
            for number, (time_ms, value) in enumerate(rows):
                store.add(record(Reading("pm2_5", value), seq=number, time_ms=time_ms), NOW_MS)
                store.add(record(Reading("pm10", 1), seq=number, time_ms=time_ms), NOW_MS)
            answer = await client.get("/public/v1/series?quantity=pm2_5&hours=3&step_s=600")
            return answer.json()

    body = run(work())
    assert (body["quantity"], body["unit"], body["hours"], body["step_s"]) == ("pm2_5", "ug/m3", 3, 600)
    (series,) = body["series"]
    assert (series["source"], series["device"], series["part"]) == (GATEWAY, "roadside-air", "")
    steps: dict[int, list[tuple[int, int]]] = {}
    for time_ms, value in rows:
        if time_ms > NOW_MS - 3 * HOUR_MS:
            steps.setdefault(time_ms // 600_000, []).append((time_ms, value))
    assert series["points"] == [
        [min(time_ms for time_ms, _ in step), round(statistics.fmean(value for _, value in step), 2), GOOD, False]
        for _, step in sorted(steps.items())
    ]


def test_series_say_the_worst_quality_leave_out_what_was_stale_and_take_one_device(path):
    config = configuration({"roadside-air": "public", "second": "public"})

    async def work():
        async with served(path, config) as (store, client):
            step_ms = NOW_MS // 300_000 * 300_000 - 300_000
            for number, quality in enumerate([GOOD, SUSPECT, STALE]):
                store.add(record(Reading("pm2_5", 6 + number, 0, "", quality), time_ms=step_ms + number), NOW_MS)
            store.add(record(Reading("pm2_5", 1), device="second", time_ms=step_ms), NOW_MS, simulated=True)
            store.add(record(Reading("pm2_5", 1, 0, "", STALE), time_ms=step_ms - 300_000), NOW_MS)
            body = (await client.get("/public/v1/series?quantity=pm2_5")).json()
            assert {series["device"]: series["points"] for series in body["series"]} == {
                "roadside-air": [[step_ms - 300_000, None, STALE, False], [step_ms, 6.5, STALE, False]],
                "second": [[step_ms, 1.0, GOOD, True]],
            }
            body = (await client.get("/public/v1/series?quantity=pm2_5&device=second")).json()
            assert [series["device"] for series in body["series"]] == ["second"]
            body = (await client.get("/public/v1/series?quantity=pm2_5&device=' OR 1=1 --")).json()
            assert body["series"] == []

    run(work())


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("", "quantity: name one"),
        ("quantity=", "quantity: name one"),
        ("quantity=pm3", "quantity: name one"),
        ("quantity=pm2_5&hours=0", "hours: a whole number from 1 to 72"),
        ("quantity=pm2_5&hours=73", "hours: a whole number from 1 to 72"),
        ("quantity=pm2_5&hours=-1", "hours:"),
        ("quantity=pm2_5&hours=1.5", "hours:"),
        ("quantity=pm2_5&hours=²", "hours:"),
        ("quantity=pm2_5&hours=" + "9" * 6000, ""),
        ("quantity=pm2_5&step_s=0", "step_s: a whole number from 1 to 86400"),
        ("quantity=pm2_5&hours=72&step_s=1", "more than 5000 steps: take a longer step_s"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_with_a_sentence(path, question, said):
    async def work():
        async with served(path) as (_, client):
            answer = await client.get(f"/public/v1/series?{question}")
            assert answer.status_code == 400
            assert said in answer.json()["error"]

    run(work())


def test_there_is_no_way_to_write_and_nothing_else_to_read(path):
    async def work():
        async with served(path) as (_, client):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                assert (await client.request(method, "/public/v1/latest")).status_code == 405
            for other in ("/", "/public", "/public/v1/", "/docs", "/openapi.json", "/public/v1/../../etc/passwd"):
                assert (await client.get(other)).status_code == 404

    run(work())


# ------------------------------------------------------------------ live events


async def take_events(client: httpx.AsyncClient, count: int, ready: asyncio.Event) -> list[dict]:
    found = []
    async with client.stream("GET", "/public/v1/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line == ": welcome":
                ready.set()
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: "), parse_float=Decimal))
            if len(found) == count:
                break
    return found


def test_each_record_is_an_event_for_everyone_who_listens(path):
    async def work():
        async with served(path) as (store, client):
            ready = [asyncio.Event(), asyncio.Event()]
            taking = [asyncio.create_task(take_events(client, 3, event)) for event in ready]
            for event in ready:
                await event.wait()
            for seq in range(1, 4):
                store.add(record(Reading("pm2_5", 250 + seq, -1), seq=seq, time_ms=NOW_MS + seq), NOW_MS)
            first, second = await asyncio.gather(*taking)
            assert first == second
            assert [(event["boot"], event["seq"], event["time_ms"]) for event in first] == [
                (1, seq, NOW_MS + seq) for seq in range(1, 4)
            ]
            assert first[0]["readings"] == [
                {"quantity": "pm2_5", "part": "", "value": Decimal("25.1"), "unit": "ug/m3", "quality": 0}
            ]
            await until(lambda: not store._listeners, "who leaves is forgotten")

    run(work())


def test_a_quiet_feed_still_shows_that_it_lives(path, monkeypatch):
    monkeypatch.setattr(feed_module, "HEARTBEAT_S", 0.05)

    async def work():
        async with served(path) as (store, client), client.stream("GET", "/public/v1/events") as answer:
            lines = answer.aiter_lines()
            said = [await anext(lines) for _ in range(6)]
            assert said.count(": still here") >= 2
            store.add(record(), NOW_MS)
            while not (await anext(lines)).startswith("data: "):
                pass

    run(work())


def test_a_listener_that_does_not_read_is_let_go_and_costs_no_memory(path):
    async def work():
        async with served(path) as (store, client):
            host, port = client.base_url.host, client.base_url.port
            _, writer = await asyncio.open_connection(host, port, limit=1024)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.transport.pause_reading()
            writer.write(b"GET /public/v1/events HTTP/1.1\r\nHost: feed\r\n\r\n")
            await until(lambda: store._listeners, "it listens")
            for seq in range(30_000):
                store.add(record(seq=seq), NOW_MS)
                if seq % 50 == 0:
                    await asyncio.sleep(0)
                if not store._listeners:
                    break
            assert not store._listeners
            assert seq > LISTENER_BACKLOG
            assert await latest(client), "the others are served"
            writer.close()

    run(work())


def test_a_stranger_with_many_connections_is_told_to_come_back(path, monkeypatch):
    monkeypatch.setattr(web, "MOST_CONNECTIONS", 4)

    async def work():
        async with served(path) as (_, client), contextlib.AsyncExitStack() as stack:
            codes = []
            for _ in range(6):
                other = await stack.enter_async_context(httpx.AsyncClient(base_url=client.base_url))
                answer = await stack.enter_async_context(other.stream("GET", "/public/v1/events"))
                codes.append(answer.status_code)
            assert codes[0] == 200
            assert codes[-1] == 503

    run(work())


def test_strangers_who_ask_nothing_keep_nobody_out_and_are_let_go(path, monkeypatch):
    """The host's lines need the file descriptors: 900 silent connections held 900 of them, and all others got a 503."""
    monkeypatch.setattr(web, "MOST_CONNECTIONS", 10)
    monkeypatch.setattr(web, "REQUEST_WITHIN_S", 1.0)

    async def work():
        async with served(path) as (_, client):
            port = client.base_url.port
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
            halfway = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            for _, writer in halfway:
                writer.write(b"GET /public/v1/latest HTTP/1.1\r\nHost: feed\r\n\r\nGET /pub")
            assert (await client.get("/public/v1/latest")).status_code == 200
            async with client.stream("GET", "/public/v1/events") as events:
                assert events.status_code == 200
                for reader, _ in silent + halfway:
                    with contextlib.suppress(ConnectionResetError):
                        await asyncio.wait_for(reader.read(), 5)
                assert (await client.get("/public/v1/latest")).status_code == 200
                assert not events.is_closed, "whoever is answered stays"
                await asyncio.wait_for(anext(events.aiter_raw()), 20)
            for _, writer in silent + halfway:
                writer.close()

    run(work())


def test_body_that_never_comes_whole_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(web, "REQUEST_WITHIN_S", 0.3)
    heard = []

    async def app(_, receive, send):
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            heard.append(message["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"whole"})

    async def work():
        with bind("feed.listen", "127.0.0.1:0") as listener:
            serving = asyncio.create_task(serve(app, listener))
            port = listener.getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: feed\r\nContent-Length: 100\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                for _ in range(40):  # each piece comes well within the time that the whole has
                    writer.write(b"x")
                    await asyncio.sleep(0.05)
                    assert len(heard) < 40
                    if heard[-1:] == ["http.disconnect"]:
                        break
            assert heard[-1] == "http.disconnect"
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                assert (await client.post("/", content=b"x" * 100_000)).text == "whole"
            writer.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run(work())


def test_answers_leave_at_once():
    """asyncio switches off Nagle's algorithm only where the socket names its protocol; 44 ms an answer became 2 ms."""
    with bind("feed.listen", "127.0.0.1:0") as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_or_none_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{address} cannot be used"):
            bind("feed.listen", address)
    for address in ("a..b:80", "no-such-host.invalid:80", "[::g]:80"):
        with pytest.raises(ConfigError, match=r"feed\.listen"):
            bind("feed.listen", address)


# ------------------------------------------------------------------ only what is public


class FeedInAThread:
    """One served feed for many examples; configuration and store are changed under it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.feed: Feed
        self.port = 0
        self._end = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._run(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    async def _run(self, ready: threading.Event) -> None:
        listener = bind("feed.listen", "127.0.0.1:0")
        self.port = listener.getsockname()[1]
        with ThreadPoolExecutor(1) as executor:
            self.executor = executor
            self.feed = Feed(PUBLIC, await self.new_store(), lambda: NOW_MS)
            task = asyncio.create_task(serve(self.feed.app(), listener))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as self.client:
                ready.set()
                await self._end.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def new_store(self) -> FeedStore:
        database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        database.executescript(store_module.SCHEMA)
        return FeedStore(Path("nowhere"), database, self.executor, 72)

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


@pytest.fixture(scope="module")
def feed_in_a_thread():
    running = FeedInAThread()
    yield running
    running.close()


NAMES = st.sampled_from(["a", "b", "c", "d"])
NODES = st.sampled_from(["n1", "n2"])
AUDIENCES = st.sampled_from(["public", "operator", "personal"])
INPUTS = st.lists(NAMES | st.builds("{}/{}".format, NODES, NAMES), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    devices=st.dictionaries(NAMES, AUDIENCES),
    nodes=st.dictionaries(NODES, AUDIENCES),
    indexes=st.dictionaries(st.sampled_from(["i", "j"]), INPUTS),
    records=st.lists(
        st.tuples(st.sampled_from([GATEWAY, "n1", "n2", "stranger"]), NAMES | st.sampled_from(["i", "j"])),
        min_size=1,
        max_size=12,
        unique=True,
    ),
    after=st.tuples(st.dictionaries(NAMES, AUDIENCES), st.dictionaries(NODES, AUDIENCES)),
)
def test_nothing_but_what_is_public_ever_leaves(feed_in_a_thread, devices, nodes, indexes, records, after):
    """Whatever is in the store: what a personal meter says, alone, in a node or in an index, is never in an answer."""
    server = feed_in_a_thread
    indexes = {name: inputs for name, inputs in indexes.items() if inputs}

    async def example(config: Config, store: FeedStore) -> dict[str, set[tuple[str, str]]]:
        server.feed._config, server.feed._store = config, store
        async with server.client.stream("GET", "/public/v1/events") as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await until(lambda: store._listeners, "it listens")
            for seq, (source, device) in enumerate(records):
                store.add(record(source=source, device=device, seq=seq), NOW_MS)
            store.end_events()
            events = [json.loads(line[6:]) async for line in lines if line.startswith("data: ")]
        newest = await latest(server.client)
        steps = (await server.client.get("/public/v1/series?quantity=pm2_5")).json()["series"]
        return {
            kind: {(row["source"], row["device"]) for row in rows}
            for kind, rows in (("events", events), ("latest", newest), ("series", steps))
        }

    def public(devices: dict[str, str], nodes: dict[str, str]) -> set[tuple[str, str]]:
        def of(source: str, device: str) -> set[str]:
            """Return the audiences behind a name, worked out without the configuration's own words."""
            if source in nodes:
                return {nodes[source]}
            if source == GATEWAY and device in devices:
                return {devices[device]}
            if source == GATEWAY and device in indexes:
                parts = [name.split("/") if "/" in name else [GATEWAY, name] for name in indexes[device]]
                return set().union(*(of(*part) if part[1] not in indexes else {"operator"} for part in parts))
            return {"operator"}

        return {row for row in records if of(*row) == {"public"}}

    async def work():
        store = await server.new_store()
        try:
            before = await example(configuration(devices, nodes, indexes), store)
            again = await example(configuration(after[0], after[1], indexes), store)
        finally:
            await store.close()
        return before, again

    before, again = server.do(work())
    for answers, expected in ((before, public(devices, nodes)), (again, public(*after))):
        assert answers == {"events": expected, "latest": expected, "series": expected}


# ------------------------------------------------------------------ over a restart, and with clocks that are wrong


def test_a_restart_keeps_the_newest_values_and_the_series(path):
    async def work():
        async with served(path) as (store, client):
            for seq in range(3):
                store.add(record(Reading("pm2_5", seq), seq=seq, time_ms=NOW_MS - 600_000 * (3 - seq)), NOW_MS)
            before = await latest(client), (await client.get("/public/v1/series?quantity=pm2_5")).json()
        async with served(path) as (_, client):
            assert (await latest(client), (await client.get("/public/v1/series?quantity=pm2_5")).json()) == before
            assert before[0][0]["value"] == 2

    run(work())


def test_what_is_older_than_the_table_keeps_goes(path):
    async def work():
        async with opened(path, keep_hours=1) as store:
            for minute in range(0, 180, 10):
                store.add(record(seq=minute, time_ms=NOW_MS + minute * 60_000), NOW_MS + minute * 60_000)
            await store.flush()
            times = [point.time_ms for _, point in await store.points(GATEWAY, "roadside-air", 0)]
            assert min(times) >= NOW_MS + 170 * 60_000 - HOUR_MS
            assert len(times) == 7

    run(work())


def test_a_record_from_the_future_neither_stays_the_newest_nor_drives_out_the_rest(path):
    """A node whose clock says 2099: its value counts, at the time at which it arrived, and is marked."""
    future_ms = NOW_MS + 73 * 365 * 24 * HOUR_MS

    async def work():
        async with served(path) as (store, client):
            store.add(record(Reading("pm2_5", 1), seq=1, time_ms=NOW_MS - 1000), NOW_MS - 1000)
            store.add(record(Reading("pm2_5", 2), seq=2, time_ms=future_ms), NOW_MS)
            (row,) = await latest(client)
            assert (row["value"], row["time_ms"], row["time_quality"]) == (2, NOW_MS, UNKNOWN)
            store.add(record(Reading("pm2_5", 3), seq=3, time_ms=NOW_MS + 5000), NOW_MS + 5000)
            (row,) = await latest(client)
            assert (row["value"], row["time_quality"]) == (3, SYNCHRONISED)
            await store.flush()
            assert len(await store.points(GATEWAY, "roadside-air", 0)) == 3

    run(work())


def test_a_gateway_whose_own_clock_was_ahead_finds_back_to_the_present(path):
    ahead_ms = NOW_MS + 400 * 24 * HOUR_MS

    async def work():
        async with served(path) as (store, client):
            store.add(record(Reading("pm2_5", 1), seq=1, time_ms=ahead_ms), ahead_ms)
            store.add(record(Reading("pm2_5", 2), seq=2, time_ms=NOW_MS), NOW_MS)
            (row,) = await latest(client)
            assert (row["value"], row["time_ms"]) == (2, NOW_MS)
            await store.flush()
            assert NOW_MS in [point.time_ms for _, point in await store.points(GATEWAY, "roadside-air", 0)]

    run(work())


def test_a_gateway_whose_clock_is_not_set_throws_nothing_away(path):
    async def work():
        async with opened(path) as store:
            store.add(record(Reading("pm2_5", 1), seq=1), NOW_MS)
            await store.flush()
        async with opened(path) as store:
            store.add(record(Reading("pm2_5", 2), seq=2, time_ms=None), 5000)  # five seconds after 1970
            store.add(record(Reading("pm2_5", 3), source="n1", seq=3, time_ms=NOW_MS + 60_000), 6000)
            await store.flush()
            assert [point.value for _, point in await store.points(GATEWAY, "roadside-air", 0)] == ["2", "1"]
            assert store.latest["n1", "roadside-air", "pm2_5", ""].time_ms == NOW_MS + 60_000, "a node may know better"
            assert store.latest["n1", "roadside-air", "pm2_5", ""].time_quality == SYNCHRONISED

    run(work())


def test_a_record_without_time_stands_at_its_arrival_and_says_so(path):
    async def work():
        async with served(path) as (store, client):
            store.add(record(time_ms=None), NOW_MS)
            (row,) = await latest(client)
            assert (row["time_ms"], row["time_quality"]) == (NOW_MS, UNKNOWN)

    run(work())


# ------------------------------------------------------------------ a file that is damaged, locked, full of history


def test_a_damaged_file_is_begun_anew(path):
    path.write_bytes(b"rotten" * 1000)

    async def work():
        async with opened(path) as store:
            store.add(record(), NOW_MS)
            await store.flush()
            assert len(await store.points(GATEWAY, "roadside-air", 0)) == 1

    run(work())


def test_a_file_that_rots_while_it_is_used_is_begun_anew(path, caplog):
    async def work():
        async with opened(path) as store:
            for seq in range(3000):
                store.add(record(seq=seq, time_ms=NOW_MS - seq), NOW_MS)
            await store.flush()
            await store._in_thread(lambda: store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
            await store._in_thread(lambda: store._database.execute("PRAGMA shrink_memory"))
            octets = bytearray(path.read_bytes())
            octets[4096:] = bytes(len(octets) - 4096)
            path.write_bytes(octets)
            store.add(record(seq=9000, time_ms=NOW_MS + 1), NOW_MS + 1)
            await store.flush()
            assert [point.time_ms for _, point in await store.points(GATEWAY, "roadside-air", 0)] == [NOW_MS + 1]

    run(work())
    assert "public feed damaged, begun anew" in caplog.text


def test_a_file_that_cannot_be_written_costs_nothing_and_is_said_once(path, caplog):
    caplog.set_level("INFO")

    async def work():
        async with served(path) as (store, client):
            await store._in_thread(lambda: store._database.execute("PRAGMA busy_timeout = 0"))
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for seq in range(5):
                    store.add(record(seq=seq, time_ms=NOW_MS - seq), NOW_MS)
                    await store.flush()
                assert (await latest(client))[0]["value"] == 0, "the newest is served from memory"
                assert (await client.get("/public/v1/series?quantity=pm2_5")).status_code == 200
                other.execute("ROLLBACK")
            await store.flush()
            assert len(await store.points(GATEWAY, "roadside-air", 0)) == 5

    run(work())
    assert caplog.text.count("public feed cannot be stored") == 1
    assert caplog.text.count("public feed is stored again points=5") == 1


def test_what_waits_for_a_file_that_never_comes_back_is_bounded(path, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_WAITING", 100)

    async def work():
        async with opened(path) as store:
            await store._in_thread(lambda: store._database.close())
            for seq in range(500):
                store.add(record(seq=seq), NOW_MS)
                await store.flush()
            assert len(store._waiting) == 100

    run(work())


def test_a_history_loads_beside_a_running_feed(path):
    """A gateway's own flush and a long load both write; neither may end the other."""
    config = msgspec.structs.replace(PUBLIC, gateway=Gateway(name=GATEWAY, city="t", state_dir=str(path.parent)))
    history = path.parent / "history"
    history.write_bytes(
        b"".join(senml.encode(record(seq=seq, time_ms=NOW_MS - seq * 30_000)) + b"\n" for seq in range(1, 2000))
    )

    async def work():
        async with served(path, config) as (store, client):
            loading = asyncio.create_task(asyncio.to_thread(load_history, config, history, True))
            seq = 0
            while not loading.done():
                seq += 1
                store.add(record(Reading("pm10", seq), seq=seq, time_ms=NOW_MS + seq), NOW_MS)
                await store.flush()
                await asyncio.sleep(0.01)
            assert await loading == (1999, 0)
            await store.flush()
            assert len(await store.points(GATEWAY, "roadside-air", 0)) == 1999 + seq
            body = (await client.get("/public/v1/series?quantity=pm2_5&hours=24")).json()
            assert all(point[3] for point in body["series"][0]["points"])
            assert len(body["series"][0]["points"]) == pytest.approx(1999 * 30 / 300, abs=2)

    run(work())


def test_a_gateway_without_a_feed_says_that_it_has_none(path):
    config = msgspec.structs.replace(PUBLIC, feed=None)
    with pytest.raises(ConfigError, match="has no"):
        load_history(config, path, False)
