"""Notices on their way: who sends again, hints without end, answers without end, a clock that is set, a slow disk."""

import asyncio
import contextlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from starlette.applications import Starlette

from bega.web import bind, serve
from bega_kiosk import notice_feed
from bega_kiosk.notice_desk import fetch_known, post
from bega_kiosk.notice_feed import NoticeFeed
from bega_kiosk.notice_list import write_given
from bega_kiosk.notice_routes import MOST_POST_BYTES, notice_routes
from bega_kiosk.notices import Board
from bega_protocols.errors import ConfigError
from tests.kiosk_notices import CITY, HOUR_MS, KEYS, STRANGER
from tests.test_kiosk_notices import NOW_MS, board, given, notice, publish, signed


@contextlib.asynccontextmanager
async def desk(known, on_taken=lambda: None):
    listener = bind("listen", "127.0.0.1:0")
    serving = asyncio.create_task(serve(Starlette(routes=notice_routes(known, on_taken)), listener))
    try:
        yield "http://127.0.0.1:%d" % listener.getsockname()[1]
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()


def test_notice_goes_by_the_desk_to_a_kiosk_and_a_hint_brings_the_next_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(notice_feed, "LOOK_FOR_HINT_S", 0.05)
    told = []

    async def go():
        office, corner = board(tmp_path / "desk"), board(tmp_path / "kiosk")
        async with desk(office, lambda: told.append(1)) as url, httpx.AsyncClient(trust_env=False) as client:
            first, both = given(signed(), number=1), given(signed(), signed(id="second"), number=2)
            assert (await client.post(url + "/v1/notices", content=write_given(*first))).status_code == 201
            wrong = await client.post(url + "/v1/notices", content=write_given([signed(STRANGER)], both[1]))
            long = await client.post(url + "/v1/notices", content=bytes(MOST_POST_BYTES + 1))
            older = await client.post(url + "/v1/notices", content=signed())
            late = await client.post(url + "/v1/notices", content=write_given(*given(number=1)))
            following = asyncio.create_task(NoticeFeed(url, corner, tmp_path / "notices.hint").follow())
            await until(lambda: len(corner.every()) == 1)
            await client.post(url + "/v1/notices", content=write_given(*both))
            await asyncio.sleep(0.3)
            before = len(corner.every())
            (tmp_path / "notices.hint").touch()
            await until(lambda: len(corner.every()) == 2)
            following.cancel()
            return wrong, long, before, older, late

    wrong, long, before, older, late = asyncio.run(go())
    assert (older.status_code, late.status_code) == (400, 409)
    assert (wrong.status_code, wrong.text) == (400, "no signature of the city\n")
    assert (long.status_code, before, told) == (413, 1, [1, 1])


def test_list_that_is_sent_again_calls_no_kiosk():
    """Anybody can fetch it and send it: were each a hint, all kiosks would fetch and write for a single line."""
    told = []

    async def go():
        async with desk(board(), lambda: told.append(1)) as url, httpx.AsyncClient(trust_env=False) as client:
            body = write_given(*given(signed(), number=1))
            return [(await client.post(url + "/v1/notices", content=body)).status_code for _ in range(5)]

    assert (asyncio.run(go()), told) == ([201] * 5, [1])


def test_hints_without_end_are_two_fetches(tmp_path, monkeypatch):
    """Whoever may speak on the broker wears out no card: the first hint is heard at once, then the kiosk rests."""
    monkeypatch.setattr(notice_feed, "LOOK_FOR_HINT_S", 0.01)
    hint, taken = tmp_path / "notices.hint", []

    async def go():
        office, corner = board(), board()
        office.publish(*given(signed(), number=1))
        take_all = corner.take_all
        monkeypatch.setattr(corner, "take_all", lambda *given: (taken.append(1), take_all(*given)))
        async with desk(office) as url:
            following = asyncio.create_task(NoticeFeed(url, corner, hint).follow())
            await until(lambda: taken)
            for turn in range(40):
                os.utime(hint, ns=(turn, turn)) if turn else hint.touch()
                await asyncio.sleep(0.02)
            following.cancel()

    asyncio.run(go())
    assert len(taken) == 2


def test_clock_that_was_set_after_the_list_came_makes_it_no_older(tmp_path, monkeypatch):
    """A Pi starts with no clock, or with that of its last day, and fetches before a time server has answered."""
    monkeypatch.setattr(notice_feed, "LOOK_FOR_HINT_S", 0.01)
    now_ms = [1000]

    async def go():
        office, corner = board(), Board(None, KEYS, CITY, lambda: now_ms[0])
        office.publish(*given(signed(), number=1))
        async with desk(office) as url:
            following = asyncio.create_task(NoticeFeed(url, corner, tmp_path / "hint").follow())
            for said_ms in (1000, NOW_MS, NOW_MS - 24 * HOUR_MS):
                now_ms[0] = said_ms
                await until(lambda said_ms=said_ms: corner.heard_ms == said_ms, 3.0)
            following.cancel()

    asyncio.run(go())


def test_desk_that_never_ends_its_answer_is_given_up_and_writes_on_no_screen():
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(400)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"\x1b[2Jpublished" * 1000)

        do_POST = do_GET

        def send_response(self, code, _=None):
            super().send_response(200 if self.command == "GET" else code)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = "http://127.0.0.1:%d" % server.server_address[1]
    with pytest.raises(ConfigError, match=r"answers more than 8388608 bytes.*Nothing was published"):
        fetch_known(url)
    with pytest.raises(ConfigError, match="refuses it") as refused:
        post(url, b"x")
    server.shutdown()
    server.server_close()
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"notices": [1]}',
        b'{"notices": ["%"]}',
        b"[]",
        b'{"notices": ["AA=="]}',
        b'{"x": ' + b"[" * 100_000,
    ],
)
def test_desk_that_says_something_else_changes_nothing(body, tmp_path, caplog):
    class Odd(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    known = board()
    publish(known, signed())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    feed = NoticeFeed("http://127.0.0.1:%d" % server.server_address[1], known, tmp_path / "hint")

    async def once():
        async with httpx.AsyncClient(trust_env=False) as client:
            return await feed._fetch(client)

    is_there = asyncio.run(once())
    server.shutdown()
    server.server_close()
    assert known.every() == [notice()]
    assert (is_there, known.heard_ms) == (False, None), "an answer that is none is not heard"
    is_older = body == b'{"notices": ["AA=="]}'
    assert ("that nobody signed: it is older than this kiosk, update it" in caplog.text) == is_older


def test_pages_and_reports_are_answered_while_notices_wait_for_the_disk(tmp_path, monkeypatch):
    """The disk waits until the loop has gone on: where the loop waits for the disk, that is never."""
    writes, went_on = threading.Event(), threading.Event()
    waited = []
    monkeypatch.setattr(os, "fsync", lambda _: (writes.set(), waited.append(went_on.wait(5))))

    async def go():
        office, corner = board(tmp_path / "desk"), board(tmp_path / "kiosk")
        async with desk(office) as url, httpx.AsyncClient(trust_env=False) as client:
            for doing in (
                client.post(url + "/v1/notices", content=write_given(*given(signed(), number=1))),
                NoticeFeed(url, corner, tmp_path / "hint")._fetch(client),
            ):
                writes.clear()
                went_on.clear()
                task = asyncio.create_task(doing)
                await until(writes.is_set)
                went_on.set()
                await task

    asyncio.run(go())
    assert waited == [True, True]


async def until(condition, for_s=8.0):
    for _ in range(round(for_s / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it never was so")
