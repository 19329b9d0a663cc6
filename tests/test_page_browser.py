"""The technician's page in a real browser: on a phone and a laptop, by keyboard, by axe, and against strangers."""

import asyncio
import html
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page

from bega.outbox.spool import Spool
from bega.web import bind, serve
from bega_gateway import node_status
from bega_gateway.build import Clocks, Ground
from bega_gateway.config import Page as PageTable
from bega_gateway.config import examine
from bega_gateway.doctor.finding import PORT, Finding
from bega_gateway.doctor.nodes import of_node
from bega_gateway.edge.derive import ThresholdAlarm
from bega_gateway.health import Health, Watched
from bega_gateway.lines.node_said import Nodes
from bega_gateway.lines.station import Station
from bega_gateway.page.password import hashed
from bega_gateway.page.site import HEADERS, Site
from bega_gateway.page.view import Seen
from bega_gateway.recorder import Recorder
from bega_protocols.devices.modbus_meter.sim import Sim as Meter
from bega_protocols.devices.pms5003.driver import Driver as Pms5003
from bega_protocols.devices.pms5003.sim import Sim
from bega_protocols.errors import ConfigError
from bega_protocols.reading import STALE, SUSPECT, Reading
from bega_protocols.record import SYNCHRONISED, Record
from bega_simulators.hosts.rs485 import Rs485Segment
from tests.conftest import IS_NIGHT

PHONE, LAPTOP = {"width": 360, "height": 740}, {"width": 1366, "height": 768}
PASSWORD = "correct horse 7"
HASH = hashed(PASSWORD)
NOW_MS = 1_795_000_000_000
EVIL = '<img src=x onerror="document.title=1">&\'"{{7*7}}'
AXE_OPTIONS = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag2aaa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
    "rules": {"color-contrast-enhanced": {"enabled": True}, "target-size": {"enabled": True}},
}
WIDER = "document.documentElement.scrollWidth - innerWidth"


def tables(lines=3, personal=False):
    """A gateway with so many lines of one dust sensor, a node, and an alarm."""
    devices = {
        f"air-{number}": {
            "line": f"pms-{number}",
            "driver": "pms5003",
            "audience": "personal" if personal and number == 1 else "operator",
            "label": EVIL if number == 0 else f"Strada Mare {number}",
        }
        for number in range(lines)
    }
    return {
        "gateway": {"name": "gw-corner", "city": "timisoara", "time_zone": "Europe/Bucharest"},
        "uplink": {"brokers": ["mqtt://127.0.0.1:1"]},
        "lines": {
            **{f"pms-{n}": {"kind": "serial", "port": f"/dev/serial/by-id/usb-FTDI_{n}"} for n in range(lines)},
            "nodes": {"kind": "mqtt", "broker": "mqtt://127.0.0.1:1883"},
        },
        "devices": devices,
        "nodes": {"node-1": {"line": "nodes", "audience": "operator", "label": "Gara de Nord"}},
        "alarms": {"dust": {"input": "air-0", "quantity": "pm2_5", "above": 50, "label": EVIL}},
    }


class Corner:
    """The page's own server over a gateway without wires: what its lines say the test says."""

    def __init__(self, folder: Path, whole=None, password_hash=""):
        whole = whole or tables()
        config, problems = examine(Path("/dev/null"), whole)
        assert config, problems
        self.config = config
        self.mono_ms = 1_000_000
        self.wall_ms = NOW_MS
        self.restarted = []
        self.found = []
        self.ports = []
        self._folder = folder
        self._password_hash = password_hash
        self._listener = bind("page.listen", "127.0.0.1:0")
        self.address = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(15)
        assert not self._thread.is_alive()
        self._loop.close()
        self._listener.close()

    def do(self, work):
        """Await `work` in the page's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def pass_by(self, duration_ms):
        self.mono_ms += duration_ms
        self.wall_ms += duration_ms

    def say(self, name, *readings, source="gw-corner"):
        """Let a device give a record now."""

        async def give():
            if source == "gw-corner":
                await self.recorder.record(name, [list(readings)], self.wall_ms)
                for station in self.stations:
                    if station.name == name:
                        station.heard_mono_ms = self.mono_ms
            else:
                record = Record(source, 1, self.recorder._seq + 1, name, self.wall_ms, SYNCHRONISED, list(readings))
                self.site._take(record, self.wall_ms, False)
            for alarm in self.alarms.values():
                list(alarm.take(("gw-corner", name), list(readings), self.wall_ms, ""))

        self.do(give())

    def hear(self, name, chunk):
        """Let a line hear bytes, as lines/serial.py does."""

        async def take():
            station = next(station for station in self.stations if station.name == name)
            if station.tap:
                station.tap("in", chunk)
            groups = station.driver.feed(chunk, self.mono_ms)
            station.take_damage()
            if groups:
                station.heard_mono_ms = self.mono_ms
                await station.deliver(groups, self.wall_ms)

        self.do(take())

    async def _serve(self):
        self._stop = asyncio.Event()
        with ThreadPoolExecutor(1) as executor:
            spool = await Spool.open(self._folder / "spool.db", executor, window_s=0.05)
            clocks = Clocks(lambda: self.wall_ms, lambda: self.mono_ms)
            self.recorder = Recorder(self.config, 1, spool, None)
            health = Health(clocks.mono_ms)
            self.nodes = Nodes(clocks.mono_ms)
            self.stations = [Station(name, Pms5003({}, b""), 1.0, self._deliver(name)) for name in self.config.devices]
            for station in self.stations:
                line = self.config.devices[station.name].line
                heard = lambda station=station: station.heard_mono_ms  # noqa: E731
                health.watch(Watched(line, "device", station.name, 10.0, heard))
            health.watch(Watched("nodes", "node", "node-1", 600.0, lambda: self.mono_ms - 4000))
            self.alarms = {name: ThresholdAlarm(table) for name, table in self.config.edge.get("alarms", {}).items()}
            publisher = SimpleNamespace(connected_to="mqtt://127.0.0.1:1", acknowledged=0)
            seen = Seen(
                Ground(clocks, 1, spool, None, self.recorder, health, self.nodes),
                publisher,
                config=lambda: self.config,
                stations=lambda: [(self.config.devices[each.name].line, each) for each in self.stations],
                alarms=lambda: self.alarms,
                restart_line=self._restart,
                acknowledge=self._acknowledge,
                examine=self._examine,
                ports=lambda config: self.ports,
            )
            self.health = health
            self.site = Site(PageTable(listen="127.0.0.1:0", password_hash=self._password_hash), seen)
            works = [serve(self.site.app(), self._listener), self.site.run(), spool.run(), health.run()]
            tasks = [asyncio.create_task(work) for work in works]
            self._ready.set()
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await spool.close()

    def _deliver(self, name):
        async def deliver(groups, wall_ms):
            await self.recorder.record(name, groups, wall_ms)

        return deliver

    async def _examine(self):
        return self.found

    async def _restart(self, name):
        self.restarted.append(name)
        return True

    async def _acknowledge(self, name):
        alarm = self.alarms[name]
        if not alarm.is_raised or alarm.is_acknowledged:
            raise ConfigError(f"{name} is not raised, or somebody has acknowledged it already")
        await self.recorder.record(name, [[alarm.acknowledge()]], self.wall_ms, keeps=alarm, at_once=True)


@contextmanager
def opened(browser: Browser, viewport=None, refused=(), **options) -> Iterator[Page]:
    """Open a page; nothing may be refused by the policy or go wrong in the script, but what `refused` names."""
    context = browser.new_context(viewport=viewport or PHONE, **options)
    page = context.new_page()
    page.set_default_timeout(8000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if "127.0.0.1" not in request.url else None)
    yield page
    context.close()
    assert [text for text in said if not any(str(each) in text for each in refused)] == []


def lively(corner):
    """Let an hour pass in which a dust sensor, one that doubts itself, and a node speak; the third stays silent."""
    for minute in range(0, 60):
        dust = 12 + minute % 7 + (40 if minute > 50 else 0)
        corner.say("air-0", Reading("pm2_5", dust), Reading("pm10", dust + 8), Reading("pm1", 5))
        if minute < 30:
            corner.say("air-1", Reading("pm2_5", 9, 0, "", SUSPECT), Reading("pm10", 7, 0, "", STALE))
        corner.say("bme280", Reading("temperature", -52 + minute, -1), Reading("humidity", 61), source="node-1")
        corner.pass_by(60_000)
    corner.say("air-0", Reading("pm2_5", 61), Reading("pm10", 70), Reading("pm1", 5, 0, "", STALE))
    corner.health._look(corner.health.watched[1])
    corner.health._look(corner.health.watched[2])


def log_in(page, corner, given=PASSWORD):
    page.goto(corner.address + "/login")
    page.get_by_label("Password").fill(given)
    press(page, "Log in")


def press(page, button):
    """Press a button and wait for the page that comes of it."""
    with page.expect_navigation():
        page.get_by_role("button", name=button).click()


def violations(page):
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("options => axe.run(document, options)", AXE_OPTIONS)
    return [(each["id"], [node["html"][:150] for node in each["nodes"]][:3]) for each in found["violations"]]


def ask(corner, path="/", fields=None, cookie="", **headers):
    """Return (status, headers, text) of one request, redirects not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    data = urllib.parse.urlencode(fields).encode() if fields is not None else None
    more = {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(corner.address + path, data, {"Cookie": cookie, **more} if cookie else more)
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def cookie_and_token(corner, path="/", cookie=""):
    _, headers, text = ask(corner, path, cookie=cookie)
    token = re.search(r'name="token" value="([0-9a-f]+)"', text)
    return cookie or headers["Set-Cookie"].split(";")[0], token[1] if token else ""


def session(corner):
    """Log in without a browser; return the session's cookie and its token."""
    cookie, token = cookie_and_token(corner, "/login")
    status, headers, _ = ask(corner, "/login", {"token": token, "password": PASSWORD}, cookie)
    assert status == 303
    return cookie_and_token(corner, "/", headers["Set-Cookie"].split(";")[0])


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    with Corner(tmp_path_factory.mktemp("corner"), tables(personal=True), HASH) as corner:
        lively(corner)
        yield corner


PATHS = ["/", "/lines/pms-0", "/lines/nodes", "/devices/gw-corner/air-0", "/devices/gw-corner/air-1"]
PATHS += ["/devices/node-1/bme280", "/devices/node-1", "/nothing"]


# ------------------------------------------------------------------ what is seen


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (LAPTOP, "dark")], ids=["phone", "laptop by night"])
def test_every_page_is_clean_by_axe_and_no_wider_than_the_screen(browser, corner, size, scheme):
    with opened(browser, size, refused=(404,), color_scheme=scheme) as page:
        page.goto(corner.address)
        assert page.url.endswith("/login")
        assert violations(page) == [] and page.evaluate(WIDER) <= 0
        log_in(page, corner)
        for path in PATHS:
            page.goto(corner.address + path)
            assert violations(page) == [], path
            assert page.evaluate(WIDER) <= 0, path
            if pictures := os.environ.get("BEGA_PICTURES"):
                name = path.strip("/").replace("/", "-") or "overview"
                page.screenshot(path=f"{pictures}/{size['width']}-{name}.png", full_page=True)


def test_what_is_wrong_comes_first_and_what_is_heard_is_shown(browser, corner):
    with opened(browser) as page:
        log_in(page, corner)
        headings = page.get_by_role("heading", level=2).all_inner_texts()
        assert headings[:2] == ["What is wrong", "Alarms"]
        wrong = page.locator("#wrong").inner_text()
        assert "air-2 is silent" in wrong and "air-1 is silent" in wrong and "air-0" not in wrong
        lines = page.locator("#lines").inner_text()
        assert "61 µg/m³" in lines and "heard 0 s ago" in lines and "/dev/serial/by-id/usb-FTDI_0" in lines
        assert "node-1/bme280" in lines and "stale" in lines
        page.get_by_role("link", name="air-0").first.click()
        assert page.locator(".plot").count() == 3
        plot = page.locator(".plot").first
        assert "last hour: 12 to 61 µg/m³" in plot.get_attribute("aria-label")
        assert len(plot.locator(".line").get_attribute("points").split()) > 50


def test_the_page_works_without_a_script(browser, corner):
    with opened(browser, java_script_enabled=False) as page:
        log_in(page, corner)
        page.goto(corner.address + "/lines/pms-0")
        press(page, "Listen")
        corner.hear("air-0", Sim({}, seed=1).tick(0))
        page.reload()
        assert "42 4d 00 1c" in page.locator("#bytes").inner_text()
        press(page, "End listening")
        assert page.locator("table").count() == 0


def test_fragments_change_and_the_focus_stays(browser, corner):
    with opened(browser) as page:
        page.clock.install()
        log_in(page, corner)
        page.goto(corner.address + "/lines/pms-0")
        page.evaluate("window.mine = true")
        page.locator("#device-gw-corner-air-0").focus()
        corner.pass_by(3000)
        page.clock.fast_forward(5000)
        page.wait_for_selector("#devices:has-text('heard 3 s ago')")
        assert page.evaluate("window.mine"), "the page was loaded again"
        assert page.evaluate("document.activeElement.id") == "device-gw-corner-air-0"


def test_bytes_that_are_marked_stay_until_they_are_copied(browser, corner):
    with opened(browser) as page:
        page.clock.install()
        log_in(page, corner)
        page.goto(corner.address + "/lines/pms-0")
        press(page, "Listen")
        corner.hear("air-0", Sim({}, seed=1).tick(0))
        page.clock.fast_forward(5000)
        page.wait_for_selector("#bytes code")
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#bytes code'))")
        corner.hear("air-0", b"\xff\xff")
        corner.pass_by(3000)
        page.clock.fast_forward(5000)
        page.wait_for_selector("#devices:has-text('heard 3 s ago')")
        assert page.evaluate("getSelection().toString()").startswith("42 4d")
        page.evaluate("getSelection().removeAllRanges()")
        page.clock.fast_forward(5000)
        page.wait_for_selector("#bytes:has-text('ff ff')")
        press(page, "End listening")


def test_who_is_silent_is_not_called_good(browser, tmp_path):
    """Nor are the values of then shown as if they were of now."""
    with Corner(tmp_path) as corner, opened(browser) as page:
        corner.say("air-0", Reading("pm2_5", 9))
        corner.say("bme280", Reading("temperature", 21), source="node-1")
        page.goto(corner.address)
        assert page.locator(".state.good").count() == 2
        corner.pass_by(3_600_000)
        page.reload()
        text = page.locator("#lines").inner_text()
        assert page.locator(".state.good").count() == 0
        assert text.count("silent for 60 min") == 2, "the node speaks, and its sensor does not"
        assert text.count("The last:") == 2
        corner.health.watched[-1].least_quiet_s = 7200.0  # a node on a battery, which sleeps
        page.reload()
        assert page.locator("#lines").inner_text().count("silent for 60 min") == 1


def test_every_value_of_a_meter_is_shown(browser, tmp_path):
    """Those behind the fortieth had no place at all."""
    with Corner(tmp_path) as corner, opened(browser) as page:
        corner.say("air-0", *[Reading("voltage", 230 + part, 0, f"l{part}") for part in range(53)])
        page.goto(corner.address + "/devices/gw-corner/air-0")
        assert page.locator(".plot").count() == 40
        text = page.locator("main").inner_text()
        assert all(f"{230 + part} V" in text for part in range(53))
        page.get_by_role("link", name="How to find it").click()
        assert page.url.endswith("#find-name")
        page.get_by_role("link", name="Its line pms-0").click()
        assert page.get_by_role("heading", level=1).inner_text() == "Line pms-0"


def test_the_page_says_so_when_the_gateway_is_gone(browser, tmp_path):
    with opened(browser, refused=("ERR_CONNECTION_REFUSED",)) as page:
        page.clock.install()
        with Corner(tmp_path) as gone:
            page.goto(gone.address)
            assert page.locator("#lost").is_hidden()
        page.clock.fast_forward(30_000)
        page.wait_for_selector("#lost:visible")


def test_live_bytes_stand_beside_their_readings_and_end_by_themselves(browser, corner):
    with opened(browser, LAPTOP) as page:
        log_in(page, corner)
        page.goto(corner.address + "/lines/pms-0")
        press(page, "Listen")
        frame = Sim({}, seed=1).tick(0)
        corner.hear("air-0", frame)
        corner.hear("air-0", frame[:-1] + b"\x00" + frame[:2])
        page.reload()
        rows = page.locator("tbody tr").all_inner_texts()
        assert len(rows) == 2
        assert "42 4d" in rows[1] and "pm2_5" in rows[1] and "damaged" not in rows[1]
        assert "1 damaged" in rows[0]
        assert violations(page) == []
        if pictures := os.environ.get("BEGA_PICTURES"):
            page.screenshot(path=f"{pictures}/1366-bytes.png", full_page=True)
            page.set_viewport_size(PHONE)
            assert page.evaluate(WIDER) <= 0
            page.screenshot(path=f"{pictures}/360-bytes.png", full_page=True)
        corner.pass_by(300_000)
        page.wait_for_timeout(2500)
        page.reload()
        assert page.get_by_role("button", name="Listen").inner_text().startswith("Listen")
        assert next(station for station in corner.stations if station.name == "air-0").tap is None


def test_an_alarm_is_acknowledged_by_keyboard_alone(browser, tmp_path):
    with Corner(tmp_path) as corner:
        corner.say("air-0", Reading("pm2_5", 80))
        with opened(browser) as page:
            page.goto(corner.address)
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "To the content"
            for _ in range(12):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.id") == "acknowledge-dust":
                    break
            page.keyboard.press("Enter")
            page.wait_for_selector("text=Acknowledged. The alarm stays")
            assert "raised, acknowledged" in page.locator("#alarms").inner_text()
            assert page.locator("#acknowledge-dust").count() == 0
            last = corner.site._recent.last(("gw-corner", "dust"))
            assert [each.reading for each in last] == [Reading("alarm", 1, 0, "acknowledged")]


def test_an_examination_is_shown_and_names_no_household(browser, tmp_path):
    with Corner(tmp_path, tables(personal=True)) as corner, opened(browser) as page:
        corner.found = [
            Finding("broker refuses", "the broker refuses", "uplink", EVIL, "mend air-12", True),
            Finding("unit silent", "unit 7 is silent", "devices.air-1", "never", "look", True),
            Finding("line silent", "a line is silent", "lines.pms-1", "of air-1 nothing", "look", True),
        ]
        page.goto(corner.address)
        press(page, "Examine")
        page.wait_for_selector("text=Examined 0 s ago")
        text = page.locator("#wrong").inner_text()
        assert "The broker refuses" in text and EVIL in text
        assert "unit 7" not in text and "a line is silent" not in text
        assert violations(page) == []
        corner.pass_by(901_000)
        page.reload()
        assert "The broker refuses" not in page.locator("#wrong").inner_text()


def test_one_cause_is_said_once(browser, tmp_path):
    """What is silent, and why the examination says it is, were two cards; a port that is gone was none for minutes."""
    with Corner(tmp_path) as corner, opened(browser) as page:
        for station in corner.stations:
            corner.say(station.name, Reading("pm2_5", 9))
        corner.pass_by(60_000)
        for who in corner.health.watched:
            corner.health._look(who)
        corner.found = [Finding("silent", "air-1 says nothing", "devices.air-1", "seen", "look", True)]
        corner.ports = [Finding("gone", "the adapter is gone", "lines.pms-2.port", "missing", "plug it in", True, PORT)]
        corner.do(corner.site._causes.look())
        page.goto(corner.address)
        assert page.locator("#wrong h3").all_inner_texts() == [
            "The adapter is gone",
            "air-0 is silent",
            "air-1 is silent",
        ]
        assert page.get_by_role("link", name="lines.pms-2.port").get_attribute("href") == "/lines/pms-2"
        press(page, "Examine")
        titles = page.locator("#wrong h3").all_inner_texts()
        assert titles == [
            "The adapter is gone", "air-0 is silent", "Examined 0 s ago: what was so then", "air-1 says nothing"
        ]  # fmt: skip
        corner.pass_by(1000)
        corner.say("air-1", Reading("pm2_5", 9))
        corner.pass_by(60_000)
        page.reload()
        assert "air-1 is silent" in page.locator("#wrong").inner_text(), "again: what was found then explains nothing"


def test_ports_that_cannot_be_looked_at_end_nothing(tmp_path):
    with Corner(tmp_path) as corner:

        def unreadable():
            raise PermissionError
            yield

        corner.ports = unreadable()
        corner.do(corner.site._causes.look())
        assert ask(corner)[0] == 200


def test_records_that_are_lost_are_said_without_an_examination(browser, tmp_path, monkeypatch):
    with Corner(tmp_path) as corner, opened(browser) as page:
        monkeypatch.setattr(Spool, "dropped", {"routine": 7})
        monkeypatch.setattr(Spool, "used_bytes", 990_000_000)
        page.goto(corner.address)
        wrong = page.locator("#wrong").inner_text()
        assert "The spool is full" in wrong and "7 dropped" in wrong and "This stops readings now." in wrong


def test_a_start_is_not_called_good(browser, tmp_path):
    with Corner(tmp_path) as corner, opened(browser) as page:
        page.goto(corner.address)
        assert "Nothing yet; 3 devices or nodes have not been heard" in page.locator("#wrong").inner_text()
        assert page.locator("#wrong .good").count() == 0


def test_a_line_is_begun_anew(browser, tmp_path):
    with Corner(tmp_path) as corner, opened(browser) as page:
        page.goto(corner.address + "/lines/pms-1")
        press(page, "Restart this line")
        page.wait_for_selector("text=The line was begun anew.")
        assert corner.restarted == ["pms-1"]


@pytest.mark.slow
def test_a_gateway_with_a_hundred_lines_is_whole(browser, tmp_path):
    with Corner(tmp_path, tables(lines=100)) as corner:
        for number in range(100):
            corner.say(f"air-{number}", Reading("pm2_5", number), Reading("pm10", number))
        with opened(browser) as page:
            page.goto(corner.address)
            assert page.locator(".line").count() == 101
            assert page.evaluate(WIDER) <= 0
            assert page.locator("body").inner_text().count("µg/m³") == 200
            if IS_NIGHT:  # axe takes its time over so many; of the same lines, three at a time, it is asked by day
                assert violations(page) == []


# ------------------------------------------------------------------ strangers


def test_nothing_is_seen_and_nothing_done_without_the_password(corner):
    posts = ["/lines/pms-0/listen", "/lines/pms-0/restart", "/alarms/dust/acknowledge", "/logout"]
    cookie, token = cookie_and_token(corner, "/login")
    for path in PATHS[:-1] + posts:
        fields = {"token": token} if path in posts else None
        status, headers, text = ask(corner, path, fields, cookie)
        assert (status, headers["Location"], text) == (303, "/login", ""), path
    assert corner.restarted == []
    status, _, text = ask(corner, "/nothing")
    assert status == 404 and "air-" not in text


def test_five_wrong_passwords_mean_a_pause_even_for_the_right_one(tmp_path, browser):
    with Corner(tmp_path, password_hash=HASH) as corner, opened(browser, refused=(403, 429)) as page:
        for _ in range(5):
            log_in(page, corner, "wrong password")
            assert "not the password" in page.get_by_role("alert").first.inner_text()
        log_in(page, corner)
        assert "Wait 3" in page.get_by_role("alert").first.inner_text()
        assert violations(page) == []
        corner.pass_by(31_000)
        log_in(page, corner)
        assert page.url == corner.address + "/"
        press(page, "Log out")
        page.goto(corner.address)
        assert page.url.endswith("/login")


def test_guesses_at_once_do_not_overtake_the_count(tmp_path):
    with Corner(tmp_path, password_hash=HASH) as corner:
        cookie, token = cookie_and_token(corner, "/login")

        def guess(number):
            fields = {"token": token, "password": f"guess number {number}"}
            return ask(corner, "/login", fields, cookie, X_Forwarded_For=f"10.0.0.{number}")[0]

        with ThreadPoolExecutor(10) as many:
            found = list(many.map(guess, range(20)))
        assert sorted(found) == [403] * 5 + [429] * 15, "and a header about the address is not believed"


def test_a_form_that_was_not_made_here_does_nothing(corner):
    cookie, token = session(corner)
    other = cookie_and_token(corner, "/login")[1]
    for fields in ({}, {"token": ""}, {"token": other}, {"token": token[:-1] + "x"}):
        assert ask(corner, "/lines/pms-1/restart", fields, cookie)[0] == 403
    assert ask(corner, "/lines/pms-1/restart", {"token": "x" * 5000}, cookie)[0] == 413
    assert ask(corner, "/lines/pms-1/restart", None, cookie)[0] == 405, "and a link does nothing at all"
    assert corner.restarted == []
    assert ask(corner, "/lines/pms-1/restart", {"token": token}, cookie)[0] == 303
    assert corner.restarted.pop() == "pms-1"


def test_the_cookie_after_the_login_is_a_new_one_and_no_script_reads_it(corner):
    before, token = cookie_and_token(corner, "/login")
    _, headers, _ = ask(corner, "/login", {"token": token, "password": PASSWORD}, before)
    after = headers["Set-Cookie"]
    assert before not in after
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(after.split("; "))


def test_a_page_that_nobody_looks_at_logs_out(browser, tmp_path):
    """What its script asks every four seconds is no use of it."""
    with Corner(tmp_path, password_hash=HASH) as corner, opened(browser) as page:
        page.clock.install()
        log_in(page, corner)
        for _ in range(4):
            corner.pass_by(600_000)
            page.clock.fast_forward(5000)
            page.wait_for_timeout(300)
        page.wait_for_url("**/login")


def test_two_gateways_by_tunnels_on_one_machine_are_logged_in_to_both(browser, tmp_path):
    """Cookies know no port: the login at one ended that at the other."""
    other = tables()
    other["gateway"]["name"] = "gw-cellar"
    (tmp_path / "other").mkdir()
    with (
        Corner(tmp_path, password_hash=HASH) as corner,
        Corner(tmp_path / "other", other, HASH) as cellar,
        opened(browser) as page,
    ):
        log_in(page, corner)
        log_in(page, cellar)
        page.goto(corner.address)
        assert page.url == corner.address + "/"


@pytest.mark.parametrize("path", ["/", "/login", "/nothing", "/static/page.js", "/look/look.css", "/lines/none"])
def test_every_answer_has_the_policy(corner, path):
    _, headers, _ = ask(corner, path)
    for key, value in HEADERS.items():
        assert headers.get_all(key) == [value]
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


def test_no_page_has_a_script_or_a_style_in_it(corner):
    cookie, _ = session(corner)
    for path in PATHS:
        text = ask(corner, path, cookie=cookie)[2]
        assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=\"[^&]", text) == [], path


def test_names_and_labels_that_are_markup_stay_words(browser, corner):
    with opened(browser, refused=(404,)) as page:
        log_in(page, corner)
        for path in ["/", "/devices/gw-corner/air-0", "/?done=" + urllib.parse.quote(EVIL)]:
            page.goto(corner.address + path)
            assert page.locator("img").count() == 0
            assert page.title() != "1"
            assert EVIL in page.locator("body").inner_text()
        page.goto(corner.address + "/devices/node-1/" + urllib.parse.quote(EVIL, safe=""))
        assert page.locator("img").count() == 0


def test_a_node_that_names_its_devices_as_markup_is_shown_in_words(browser, tmp_path):
    with Corner(tmp_path) as corner:
        known = corner.site._recent
        known.take(Record("node-1", 1, 1, EVIL, NOW_MS, SYNCHRONISED, [Reading("pm1", 3, 0, EVIL)]), NOW_MS, False)
        with opened(browser) as page:
            page.goto(corner.address)
            page.get_by_role("link", name="node-1/" + EVIL).click()
            assert page.get_by_role("heading", level=1).inner_text() == "node-1/" + EVIL
            assert page.locator("img").count() == 0 and page.locator(".plot").count() == 1


def test_what_a_node_says_is_on_its_card_and_among_what_is_wrong(tmp_path):
    with Corner(tmp_path) as corner:
        corner.say("bme280", Reading("temperature", 21), source="node-1")
        assert "one of our nodes" in ask(corner, "/lines/nodes")[2]
        sensors = {"bme280": {"state": "ok"}, "pms": {"state": "fault", "why": "silent", "cut": 2}}
        said = {"firmware": "0.1.0", "boot": 7, "up_s": 7200, "devices": sensors, "last_error": EVIL}
        corner.do(asyncio.to_thread(corner.nodes.take, "node-1", said, str))
        overview = html.unescape(ask(corner)[2])
        assert (
            "sensor pms of the node node-1 is in fault (silent)" in overview and "This stops readings now" in overview
        )
        line = html.unescape(ask(corner, "/lines/nodes")[2])
        assert "our node: firmware 0.1.0, 1 of 2 sensors well, up for 2 h" in line
        assert line.count("says its node") == 1 and "node-1/pms" in line, "it has given no record, and is shown"
        card = ask(corner, "/devices/node-1")[2]
        assert "<dt>Sensor pms</dt><dd>in fault (silent), 2 times switched off and on</dd>" in card
        assert EVIL not in card and EVIL in html.unescape(card)
        assert "fault (silent)" in ask(corner, "/devices/node-1/pms")[2]
        corner.found = list(of_node("node-1", node_status.of(corner.nodes, "node-1", corner.mono_ms)))
        cookie, token = cookie_and_token(corner, "/")
        ask(corner, "/examine", {"token": token}, cookie)
        assert ask(corner)[2].count("sensor pms of the node") == 1, "the examination has said it"
        corner.do(asyncio.to_thread(corner.nodes.take, "node-1", {"safe": "10 power-ons", "up_s": 5}, str))
        overview = ask(corner)[2]
        assert "is in safe mode" in overview and '<span class="state safe mode">safe mode</span>' in overview


def test_households_are_shown_after_a_login_only_and_said(tmp_path, browser):
    whole = tables(personal=True)
    with Corner(tmp_path, whole) as corner:
        corner.say("air-1", Reading("pm2_5", 7777))
        assert corner.site._recent.devices() == [], "nor is it remembered"
        text = ask(corner)[2]
        assert "7777" not in text and "air-1" not in text and "Devices of households are not shown (1)" in text
        assert ask(corner, "/devices/gw-corner/air-1")[0] == 404
        cookie, token = cookie_and_token(corner, "/lines/pms-1")
        assert "only after a login" in ask(corner, "/lines/pms-1")[2]
        status, _, text = ask(corner, "/lines/pms-1/listen", {"token": token}, cookie)
        assert status == 409 and "only after a login" in text
    (tmp_path / "open").mkdir()
    with Corner(tmp_path / "open", whole, HASH) as corner, opened(browser) as page:
        corner.say("air-1", Reading("pm2_5", 7777))
        log_in(page, corner)
        assert "7777 µg/m³" in page.locator("#lines").inner_text() and page.locator(".personal").count() == 1
        page.get_by_role("link", name="air-1").click()
        assert "belongs to a household" in page.locator("main").inner_text()


def test_without_a_password_the_page_answers_to_no_foreign_name(tmp_path):
    with Corner(tmp_path) as corner:
        port = corner.address.rpartition(":")[2]
        for host in ("evil.example", f"evil.example:{port}", "192.168.1.4", "127.0.0.1.evil.example", ""):
            assert ask(corner, Host=host)[0] == 421, host
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert ask(corner, Host=host)[0] == 200, host


# ------------------------------------------------------------------ a gateway

CONFIGURATION = """
[gateway]
name = "gw-corner"
city = "timisoara"
commit_window_s = 0.05
[uplink]
brokers = ["mqtt://127.0.0.1:1"]
[page]
listen = "127.0.0.1:0"
[lines.pms]
kind = "serial"
port = "{port}"
[devices.roadside-air]
line = "pms"
driver = "pms5003"
audience = "operator"
every_s = 0.1
settings = {{ warm_up_s = 0 }}
[alarms.dust]
input = "roadside-air"
quantity = "pm2_5"
above = 1
"""


def page_of(process):
    return SimpleNamespace(address=json.loads(process._ready.read_text())["page"])


def test_a_gateway_shows_listens_restarts_and_keeps_what_was_acknowledged(sensor, make_gateway, eventually):
    process = make_gateway(CONFIGURATION.format(port=sensor.port))
    process.start()
    page = page_of(process)
    eventually(lambda: "pm2_5" in ask(page)[2], "a value is shown")
    eventually(lambda: "Acknowledge" in ask(page)[2], "the alarm can be acknowledged")
    cookie, token = cookie_and_token(page)
    assert ask(page, "/examine", {"token": token}, cookie)[0] == 303
    assert "Nothing listens" in ask(page)[2].partition("Examined")[2]
    assert ask(page, "/lines/pms/listen", {"token": token}, cookie)[0] == 303
    eventually(lambda: "<code><span>42 4d" in ask(page, "/lines/pms")[2], "bytes are shown")
    assert ask(page, "/lines/pms/restart", {"token": token}, cookie)[0] == 303
    assert "<code>" not in ask(page, "/lines/pms")[2], "listening ends with the line"
    eventually(lambda: "heard" in ask(page)[2], "it is read again")
    assert ask(page, "/alarms/dust/acknowledge", {"token": token}, cookie)[0] == 303
    assert "raised, acknowledged" in ask(page)[2]
    assert ask(page, "/alarms/dust/acknowledge", {"token": token}, cookie)[0] == 409, "once is enough"
    time.sleep(0.5)  # for its commit: a power cut before it would cost it
    process.kill()
    process.start()
    assert "raised, acknowledged" in ask(page_of(process))[2]
    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text()


CELLAR = """
[gateway]
name = "gw-cellar"
city = "timisoara"
[uplink]
brokers = ["mqtt://127.0.0.1:1"]
[page]
listen = "127.0.0.1:0"
[lines.cellar]
kind = "modbus-rtu"
port = "{port}"
timeout_s = 0.5
[devices.meter-1]
line = "cellar"
driver = "modbus_meter"
every_s = 1
audience = "operator"
settings = {{ profile = "sdm630", address = 1 }}
"""


def test_a_bus_shows_questions_answers_and_what_the_meter_measured(make_gateway, eventually):
    meter = Meter({"profile": {"part": "sdm630"}}, seed=1)
    meter.set("voltage", "l1", 231)
    with Rs485Segment({1: meter}, 38400) as segment:
        process = make_gateway(CELLAR.format(port=segment.port))
        process.start()
        page = page_of(process)
        cookie, token = cookie_and_token(page, "/lines/cellar")
        assert ask(page, "/lines/cellar/listen", {"token": token}, cookie)[0] == 303
        eventually(lambda: "<span>voltage l1 <strong>231.00 V" in ask(page, "/lines/cellar")[2], "it is read")
        text = ask(page, "/lines/cellar")[2]
        assert '<tr class="out">' in text and "<span>01 04 00 00 00" in text, "function 4 from register 0, to unit 1"
        assert ask(page, "/lines/cellar/restart", {"token": token}, cookie)[0] == 303
        where = ask(page, "/devices/gw-cellar/meter-1")[2]
        assert "<dt>address</dt><dd>1</dd>" in where and "<dt>profile</dt><dd>sdm630</dd>" in where
        assert process.stop() == 0


def test_gateways_without_a_page_do_not_load_it():
    code = "import sys, bega_gateway.app; print([name for name in ('jinja2', 'starlette') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert told.stdout.strip() == "[]"
