"""The kiosk at its feed: followed for ever, whatever the feed does, and ended at once when told."""

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.clock import wall_ms
from bega_kiosk import feed as feed_module
from bega_kiosk.command import main
from bega_kiosk.feed import EventStream, Feed
from bega_kiosk.store import Store
from bega_protocols.errors import WireError
from tests.kiosk_feed import CORNER, DUST, FeedServer, day_points, index_rows, reading, running_kiosk, wait_until

WANTED = ("pm_index", "coverage", "pm2_5")


@pytest.fixture
def feed():
    with FeedServer() as server:
        yield server


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "kiosk.sqlite", wall_ms)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(feed_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(feed_module, "REFETCH_S", 0.1)


def follow(url, store, until, timeout_s=8.0):
    """Follow `url` until `until()` is true; fail if it never is."""

    async def run():
        following = asyncio.create_task(Feed(url, store, WANTED, ("pm2_5",)).follow())
        end = time.monotonic() + timeout_s
        while not until() and time.monotonic() < end and not following.done():  # noqa: ASYNC110 - a server's state
            await asyncio.sleep(0.01)
        assert not following.done(), following
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(run())
    assert until()


def numbers(store, quantity="pm2_5"):
    return [value.value for value in store.values(quantity)]


def test_kiosk_reads_values_and_day_without_credentials(feed, store):
    feed.readings = [*index_rows(2, wall_ms()), reading("pm2_5", 8, wall_ms(), DUST)]
    feed.points = day_points(wall_ms())
    follow(feed.url, store, lambda: numbers(store) == [8.0] and store.series("pm2_5"))
    assert numbers(store, "pm_index") == [2.0]
    assert len(store.series("pm2_5")[0].samples) == 288
    assert "/public/v1/series?quantity=pm2_5&hours=24&step_s=300" in feed.asked


def test_kiosk_takes_each_record_as_it_comes(feed, store):
    def pushed():
        if feed._listeners and not numbers(store):
            feed.push([reading("pm2_5", 9.5, wall_ms(), DUST), reading("temperature", 20, wall_ms(), DUST)])
        return numbers(store) == [9.5]

    follow(feed.url, store, pushed)
    assert store.values("temperature") == [], "what no page shows is not kept"


def test_kiosk_comes_back_to_a_feed_that_was_away(feed, store):
    with socket.socket() as taken:  # a port where nobody listens yet
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    late = {}

    def came_back():
        if "feed" not in late and late.setdefault("since", time.monotonic()) + 0.3 < time.monotonic():
            late["feed"] = FeedServer()
            late["feed"].readings = [reading("pm2_5", 8, wall_ms(), DUST)]
            late["feed"]._server.server_close()
            late["feed"]._server = type(late["feed"]._server)(("127.0.0.1", port), late["feed"]._handler())
            late["feed"].__enter__()
        return numbers(store) == [8.0]

    try:
        follow(f"http://127.0.0.1:{port}", store, came_back)
    finally:
        late["feed"].__exit__()


def test_kiosk_listens_again_when_the_stream_breaks(feed, store):
    def heard_again():
        if len([path for path in feed.asked if path.endswith("/events")]) == 1 and feed._listeners:
            feed.hang_up()
        return len([path for path in feed.asked if path.endswith("/events")]) > 1

    follow(feed.url, store, heard_again)


GOOD = reading("pm2_5", 8, 1_795_000_000_000, DUST)
ODD_ROWS = [
    GOOD | {"device": None},
    GOOD | {"value": "8"},
    GOOD | {"value": {"a": 1}},
    GOOD | {"time_ms": -5},
    GOOD | {"time_ms": 10**30},
    GOOD | {"quality": 7},
    GOOD | {"label": "x" * 100_000},
    GOOD | {"quantity": 5},
    {},
    [],
    None,
    "text",
]


def test_wrong_row_spoils_no_other(feed, store):
    feed.readings = [*ODD_ROWS, GOOD]
    follow(feed.url, store, lambda: numbers(store) == [8.0])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>an error page</html>",
        b"[]",
        b'{"readings": 5}',
        b'{"readings": [{"value": 1e999}]}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"x": ' + b"[" * 100_000,
        b'{"readings": [' + b" " * (9 << 20) + b"]}",
        json.dumps({"readings": [GOOD] * 50_000}).encode(),
    ],
    ids=lambda body: f"{len(body)}-{body[:12]!r}",
)
def test_kiosk_survives_an_answer_that_makes_no_sense(feed, store, body):
    feed.bodies["/public/v1/latest"] = body

    def healed():
        if len(feed.asked) > 3:
            feed.bodies.clear()
            feed.readings = [GOOD]
        return numbers(store) == [8.0]

    follow(feed.url, store, healed)


def test_kiosk_gives_up_an_answer_that_drips(feed, store, monkeypatch):
    monkeypatch.setattr(feed_module, "ANSWER_S", 0.2)
    feed.readings, feed.drip_s = [GOOD], 0.02

    def healed():
        if len([path for path in feed.asked if path.endswith("/latest")]) > 1:
            feed.drip_s = 0
        return numbers(store) == [8.0]

    follow(feed.url, store, healed)


@pytest.mark.parametrize("quantity", ["pm10", 5])
def test_series_of_something_else_is_not_taken(feed, store, quantity):
    feed.bodies["/public/v1/series"] = json.dumps({"quantity": quantity, "series": []}).encode()
    follow(feed.url, store, lambda: len(feed.asked) > 4)
    assert store.series("pm2_5") == []


def test_series_with_wrong_points_spoils_no_other(feed, store):
    feed.points = [[1, 2.0, 0, 0]]
    good = json.loads(feed.body("/public/v1/series", {"quantity": ["pm2_5"]}))
    row = good["series"][0]
    wrong = [{**row, "device": "a", "points": points} for points in ([[1, 2]], [["x", 1, 0, 0]], [[1, 1, 0, "y"]], 7)]
    feed.bodies["/public/v1/series"] = json.dumps(good | {"series": [*wrong, row]}).encode()
    follow(feed.url, store, lambda: [series.device for series in store.series("pm2_5")] == [DUST])


ODD_EVENTS = [
    b"event: record\ndata: {\n\n",
    b'event: record\ndata: {"x": ' + b"[" * 5_000 + b"\n\n",
    b"event: record\ndata: []\n\n",
    b'event: record\ndata: {"source": "a"}\n\n',
    b"event: record\ndata: \xff\xff\n\n",
    b"event: other\ndata: {}\n\n",
    b"data\n\n:\n\n\n\n",
    b"event: record\r\ndata: {}\r\n\r\n",
]


def test_kiosk_survives_events_that_make_no_sense(feed, store):
    def heard():
        for odd in ODD_EVENTS:
            feed.push_raw(odd)
        feed.push([reading("pm2_5", 7, wall_ms(), DUST)])
        return numbers(store) == [7.0]

    follow(feed.url, store, heard)


def test_kiosk_hangs_up_on_a_line_without_end(feed, store):
    def heard_again():
        feed.push_raw(b"x" * 100_000)
        return len([path for path in feed.asked if path.endswith("/events")]) > 1

    follow(feed.url, store, heard_again)


def test_event_stream_knows_the_contract():
    stream = EventStream()
    assert stream.feed(b": welcome\n\nevent: record\ndata: {}") == []
    assert stream.feed(b"\n\n: still here\n\ndata: a\ndata: b\n\n") == [("record", "{}"), ("message", "a\nb")]


@given(chunks=st.lists(st.binary(max_size=50), max_size=20))
def test_any_bytes_give_events_or_nothing(chunks):
    stream = EventStream()
    for chunk in chunks:
        stream.feed(chunk)


@given(cut=st.integers(0, 60))
def test_events_are_the_same_however_they_are_cut(cut):
    text = "event: record\r\ndata: {„ș”}\r\n\r\n: x\n\ndata: 2\n\n".encode()
    stream = EventStream()
    assert stream.feed(text[:cut]) + stream.feed(text[cut:]) == [("record", "{„ș”}"), ("message", "2")]


def test_event_that_never_ends_is_refused():
    stream = EventStream()
    with pytest.raises(WireError):
        for _ in range(100):
            stream.feed(b"data: " + b"x" * 10_000 + b"\n")


# ---- the command


def get(url, timeout_s=5.0):
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return answer.read().decode()


def test_command_serves_while_the_feed_is_away(tmp_path):
    with running_kiosk(tmp_path, "feed.url=http://127.0.0.1:9") as (address, _):
        assert "Nu știm acum." in get(address + "/air")
        assert "Aerul de azi" in get(address + "/")


def test_command_answers_after_a_restart_without_the_feed(tmp_path):
    with FeedServer() as feed:
        feed.readings = [*index_rows(3, wall_ms() - 60_000), reading("pm2_5", 21, wall_ms() - 60_000, DUST)]
        feed.points = day_points(wall_ms())
        with running_kiosk(tmp_path, f"feed.url={feed.url}") as (address, _):
            wait_until(lambda: '<svg class="plot"' in get(address + "/air"))
    with running_kiosk(tmp_path, f"feed.url={feed.url}") as (address, _):
        page = get(address + "/air")
    assert "Aerul este moderat." in page
    assert "acum un minut" in page
    assert '<svg class="plot"' in page


def test_command_ends_with_streams_open(tmp_path):
    with FeedServer() as feed, running_kiosk(tmp_path, f"feed.url={feed.url}") as (address, process):
        feed.wait_for_listener()
        streams = [urllib.request.urlopen(address + "/live", timeout=5) for _ in range(3)]
        assert all(stream.readline() for stream in streams)
        process.terminate()
        assert process.wait(10) == 0
        for stream in streams:
            stream.close()


def test_command_says_that_a_port_is_taken(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = [f"server.listen={listen}", f"kiosk.state_dir={tmp_path}"]
        assert main(["run", "--config", str(CORNER), "--set", settings[0], "--set", settings[1]]) == 1
    assert listen in capsys.readouterr().err


def test_command_says_that_its_folder_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("no folder")
    command = [sys.executable, "-m", "bega", "kiosk", "run", "--config", str(CORNER)]
    settings = ["--set", "server.listen=127.0.0.1:0", "--set", f"kiosk.state_dir={tmp_path}/file/x"]
    ended = subprocess.run([*command, *settings], capture_output=True, timeout=20)
    assert ended.returncode == 1
    assert b"kiosk.state_dir" in ended.stderr
    assert b"Traceback" not in ended.stderr
