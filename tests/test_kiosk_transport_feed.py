"""A city's feeds fetched over real HTTP: kept, asked for again, and outlived when they are cut, wrong or gone."""

import asyncio
import http.server
import os
import sqlite3
import threading
from contextlib import closing, contextmanager

import httpx
import msgspec
import pytest

from bega.clock import wall_ms
from bega_kiosk import doctor, transport_feed
from bega_kiosk.config import make
from bega_kiosk.prepared import prepare
from bega_kiosk.transport import FILE, Transport
from bega_kiosk.transport_feed import TransportFeed
from tests.kiosk_feed import running_kiosk, wait_until
from tests.kiosk_gtfs import a_feed, a_trip, write_feed
from tests.test_kiosk_transport import (
    DAY_MS,
    MINUTE_MS,
    NOW_MS,
    NOW_S,
    PLANNED_MS,
    a_message,
    an_alert,
    late,
)


class City(http.server.BaseHTTPRequestHandler):
    """A city's server: it gives what the test puts there."""

    cut = False
    tag = ""

    def do_GET(self):
        body = self.files.get(self.path)
        self.asked.append((self.path, self.headers.get("If-None-Match", "")))
        if body is None:
            self.send_error(404)
            return
        tag = self.tag or f'"{hash(body)}"'
        if self.headers.get("If-None-Match") == tag:
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.cut else body)

    def log_message(self, *args):
        pass


@contextmanager
def a_city(**files):
    handler = type("OneCity", (City,), {"files": {f"/{name}": body for name, body in files.items()}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield handler, "http://127.0.0.1:%d" % server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def fetched(transport, *what, now_ms=NOW_MS):
    """Fetch once each, "timetable" or an address of realtime; return whether each could be taken."""
    feed = TransportFeed(transport, lambda: None, lambda: now_ms)

    async def fetch():
        async with httpx.AsyncClient(follow_redirects=True) as client:
            return [
                await (feed.fetch_timetable(client) if one == "timetable" else feed.fetch_live(client, one))
                for one in what
            ]

    return asyncio.run(fetch())


def a_transport(folder, url, clock=lambda: NOW_MS, **more):
    said = {"feed": url, "stops": ["here"], **more}
    config = make({"kiosk": {"name": "k", "city": "c", "state_dir": str(folder)}, "transport": said})
    return Transport(config.transport, folder, None, clock)


def test_timetable_is_fetched_kept_and_asked_for_again_by_its_tag(tmp_path):
    whole = write_feed(tmp_path / "made.zip", a_feed()).read_bytes()
    with a_city(**{"city.zip": whole}) as (city, url):
        transport = a_transport(tmp_path, f"{url}/city.zip")
        assert fetched(transport, "timetable") == [True]
        assert len(transport.departures(NOW_MS)) == 1
        assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
        again = a_transport(tmp_path, f"{url}/city.zip")
        assert len(again.departures(NOW_MS)) == 1, "known at once, without a network"
        assert fetched(again, "timetable") == [True]
        assert [bool(tag) for _, tag in city.asked] == [False, True]


@pytest.mark.parametrize("damage", ["cut on its way", "half a zip", "gone", "without this stop", "a page of HTML"])
def test_last_whole_timetable_stays_whatever_comes_after_it(tmp_path, caplog, damage):
    whole = write_feed(tmp_path / "made.zip", a_feed()).read_bytes()
    with a_city(**{"city.zip": whole}) as (city, url):
        prepare(tmp_path / "made.zip", tmp_path / FILE, ["here"])
        os.utime(tmp_path / FILE, ns=(NOW_MS * 1_000_000, NOW_MS * 1_000_000))
        transport = a_transport(tmp_path, f"{url}/city.zip")
        stops = [{"stop_id": "west", "stop_name": "x"}]
        other = write_feed(tmp_path / "made.zip", a_feed(stops=stops)).read_bytes()
        body = {"half a zip": whole[: len(whole) // 2], "without this stop": other, "a page of HTML": b"<html>"}
        city.files = {} if damage == "gone" else {"/city.zip": body.get(damage, whole + b" ")}
        city.cut = damage == "cut on its way"
        before = (tmp_path / FILE).read_bytes()
        assert fetched(transport, "timetable") == [False]
        assert (tmp_path / FILE).read_bytes() == before
        assert len(transport.departures(NOW_MS)) == 1
        assert "away or wrong, the last stays" in caplog.text
        assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_realtime_is_fetched_and_a_dead_one_leaves_the_timetable(tmp_path):
    now_s = NOW_S
    live = a_message(("t1", {"stops": [late(120, stop_sequence=2)]}), told_s=now_s).SerializeToString()
    alerts = a_message(alerts=[an_alert(4, route_id="r4")]).SerializeToString()
    feed = write_feed(tmp_path / "made.zip", a_feed())
    with a_city(live=live, alerts=alerts) as (city, url):
        transport = a_transport(tmp_path, str(feed), realtime=f"{url}/live", alerts=f"{url}/alerts")
        assert fetched(transport, "timetable", f"{url}/live", f"{url}/alerts") == [True, True, True]
        assert [one.is_real for one in transport.departures(NOW_MS)] == [True]
        assert [alert.kind for alert in transport.alerts_now(NOW_MS)] == ["detour"]
        city.files = {"/live": b"\xff" * 50}
        assert fetched(transport, f"{url}/live", f"{url}/alerts") == [False, False]
        assert [one.is_real for one in transport.departures(NOW_MS)] == [True], "what was said is not yet old"
        assert [one.is_real for one in transport.departures(NOW_MS + 181_000)] == [False]


def test_file_that_somebody_puts_there_is_taken_when_it_changes(tmp_path):
    path = write_feed(tmp_path / "made.zip", a_feed())
    transport = a_transport(tmp_path, str(path))
    assert fetched(transport, "timetable") == [True]
    made = (tmp_path / FILE).stat().st_ino
    assert fetched(transport, "timetable") == [True]
    assert (tmp_path / FILE).stat().st_ino == made, "the same file is not read again"
    write_feed(path, a_feed(stop_times=a_trip("t1", "13:02:00")))
    os.utime(path, ns=(1, 1))
    assert fetched(transport, "timetable") == [True]
    assert transport.departures(NOW_MS)[0].time_ms == PLANNED_MS + 2 * MINUTE_MS


def test_timetable_that_came_before_the_clock_was_set_is_dated_when_it_is(tmp_path):
    """A Pi without a clock fetches at its start in 1970; ten seconds later it asks a time server."""
    now_ms = [1000]
    path = write_feed(tmp_path / "made.zip", a_feed())
    transport = a_transport(tmp_path, str(path), clock=lambda: now_ms[0])
    feed = TransportFeed(transport, lambda: None, lambda: now_ms[0])
    assert asyncio.run(feed.fetch_timetable(None))
    os.utime(tmp_path / FILE, ns=(0, 0))
    transport.reload()
    assert transport.why_unknown(now_ms[0]) == "clock"
    now_ms[0] = NOW_MS
    assert transport.why_unknown(NOW_MS) == "stale"
    assert asyncio.run(feed.fetch_timetable(None))
    assert transport.why_unknown(NOW_MS) == ""


def test_full_disk_leaves_what_is_known(tmp_path, monkeypatch):
    path = write_feed(tmp_path / "made.zip", a_feed())
    transport = a_transport(tmp_path, str(path))
    assert fetched(transport, "timetable") == [True]
    monkeypatch.setattr(transport_feed, "command", lambda *_: ["/bin/sh", "-c", "echo no space left >&2; exit 1"])
    write_feed(path, a_feed(stop_times=a_trip("t1", "13:02:00")))
    os.utime(path, ns=(1, 1))
    assert fetched(transport, "timetable") == [False]
    assert len(transport.departures(NOW_MS)) == 1


def test_running_kiosk_fetches_and_its_page_shows_it(tmp_path):
    """The real command over real HTTP: from the zip and the message to the words of the page."""
    calls = [row for hour in range(24) for row in a_trip(f"t{hour}", f"{hour}:00:00")]
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": f"t{hour}"} for hour in range(24)]
    feed = a_feed(trips=trips, stop_times=calls)
    whole = write_feed(tmp_path / "made.zip", feed).read_bytes()
    late_everywhere = [(f"t{hour}", {"stops": [late(60, stop_sequence=1)]}) for hour in range(24)]
    live = a_message(*late_everywhere, told_s=wall_ms() // 1000).SerializeToString()
    with a_city(live=live, **{"city.zip": whole}) as (_, url):
        said = ('transport.stops=["here"]', f"transport.feed={url}/city.zip", f"transport.realtime={url}/live")
        with running_kiosk(tmp_path, *said) as (address, _):

            def page():
                return httpx.get(f"{address}/transport?lang=en").text

            wait_until(lambda: "The minutes are real" in page(), 20)
            assert "Line 4 to Ciarda Roșie, " in page()
            assert "Timetable: Transport" in page()
    with closing(sqlite3.connect(tmp_path / "state" / FILE)) as file:
        assert file.execute("SELECT count(*) FROM trip").fetchone() == (24,)


def test_doctor_says_how_the_timetable_is(tmp_path):
    prepare(write_feed(tmp_path / "made.zip", a_feed()), tmp_path / FILE, ["here"])
    os.utime(tmp_path / FILE, ns=(NOW_MS * 1_000_000, NOW_MS * 1_000_000))
    told = {"feed": "city.zip", "stops": ["here"]}
    config = make({"kiosk": {"name": "k", "city": "c", "state_dir": str(tmp_path)}, "transport": told})

    def said(now_ms=NOW_MS, **more):
        settings = msgspec.structs.replace(config.transport, **{"realtime": None, **more})
        asked = msgspec.structs.replace(config, transport=settings)
        return [(found.state, found.says) for found in doctor.transport(asked, lambda: now_ms)]

    assert said() == [("good", "1 lines, until 2035-12-31")]
    assert said(NOW_MS + 31 * DAY_MS)[0][0] == "wrong"
    later_ms = NOW_MS + 4000 * DAY_MS
    os.utime(tmp_path / FILE, ns=(later_ms * 1_000_000, later_ms * 1_000_000))
    assert "ask the city for a newer feed" in said(later_ms)[0][1]
    os.utime(tmp_path / FILE, ns=(NOW_MS * 1_000_000, NOW_MS * 1_000_000))
    assert "no timetable of these stops was kept" in said(stops=["x"])[0][1]
    assert said(feed=None)[0][0] == "open"
    body = a_message(told_s=NOW_S - 20).SerializeToString()
    with a_city(live=body, old=a_message(told_s=NOW_S - 4000).SerializeToString()) as (_, url):
        assert said(realtime=f"{url}/live")[1][0] == "good"
        assert "speaks of 4000 s ago" in said(realtime=f"{url}/old")[1][1]
        (_, (state, says)) = said(realtime=f"{url}/gone?key=secret")
    assert state == "wrong"
    assert "secret" not in says


def test_pages_are_answered_while_a_citys_message_is_read(tmp_path, monkeypatch):
    """Reading waits until the loop has gone on: where it is done in the loop, that is never."""
    went_on, waited = threading.Event(), []
    read_live = transport_feed.read_live

    def read_slowly(*said):
        waited.append(went_on.wait(5))
        return read_live(*said)

    monkeypatch.setattr(transport_feed, "read_live", read_slowly)
    transport = a_transport(tmp_path, str(write_feed(tmp_path / "made.zip", a_feed())), realtime="http://city/live")
    feed = TransportFeed(transport, lambda: None, lambda: NOW_MS)

    async def a_body(*_):
        asyncio.get_running_loop().call_soon(went_on.set)
        return a_message(("t1", {})).SerializeToString()

    monkeypatch.setattr(transport_feed, "get_whole", a_body)

    async def go():
        assert await feed.fetch_timetable(None)
        return await feed.fetch_live(None, "http://city/live")

    assert asyncio.run(go())
    assert waited == [True]
    assert transport.live is not None
