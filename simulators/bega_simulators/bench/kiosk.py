"""The kiosk as a citizen meets it: from a tap to the painted answer, and from the start to the first page.

The kiosk is `bega kiosk run`, a process of its own; the browser is Chromium without a window (bega/browser.py). A tap
is a mouse's press and release at the middle of a link, so that it goes the way of an input; the answer counts as
painted when a message posted in the first frame after it arrives, which is once that frame is drawn.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bega.broker import free_port
from bega.browser import Browser, Page, running_browser
from bega.clock import wall_ms
from bega.extras import require_extras
from bega_protocols.errors import LineError
from bega_simulators.bench.figures import Findings, Goal, Row, median, spread
from bega_simulators.bench.programs import Process, Programs, eventually
from bega_simulators.bench.stage import Bench
from bega_simulators.bench.usage import percentile, rss_bytes

WIDTH_PX, HEIGHT_PX = 1920, 1080
REPEAT_GUARD_S = 0.31  # go.js takes no second tap within 0.3 s
SLOWER = 6
TAP_P50, TAP_P99 = Goal("35 ms", 35.0), Goal("140 ms", 140.0)
SLOW_P50, SLOW_P99 = Goal("120 ms", 120.0), Goal("480 ms", 480.0)
STARTED = Goal("0.3 s", 0.3)
MEMORY = Goal("60 MB", 60.0)
PAINTED = Goal("0.3 s more than about:blank", 0.3)

WATCH = """(() => {
  window.taps = [];
  let at = 0;
  addEventListener("click", (event) => { at = event.timeStamp; }, true);
  document.addEventListener("screen", () => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => taps.push(performance.now() - at);
    channel.port2.postMessage(0);
  }));
})()"""
LINKS = """[...document.querySelectorAll("a[href^='/']")].map((link) => link.getBoundingClientRect())
  .map((box) => [box.x + box.width / 2, box.y + box.height / 2])"""
TAPPED = """new Promise((done, failed) => {
  const until = performance.now() + 10000;
  const look = () => taps.length > %d ? done(taps[%d]) : performance.now() > until ? failed() : setTimeout(look, 20);
  look();
})"""
DRAWN = """new Promise((done) => {
  const drawn = () => requestAnimationFrame(() => requestAnimationFrame(done));
  const ready = () => document.fonts.ready.then(drawn);
  document.readyState === "complete" ? ready() : addEventListener("load", ready);
})"""


def kiosk(bench: Bench) -> Findings:
    """Start the kiosk some times, then tap through it, as fast as it is and six times slower."""
    require_extras("the bench of the kiosk", "kiosk")
    taps, times = bench.count(300, 8), bench.count(7, 1)
    with Programs(bench.directory / "kiosk") as programs, running_feed() as feed:
        bench.say(f"kiosk: {times} starts")
        started = [start_s(programs, feed, f"start-{number}") for number in range(times)]
        process, address = run_kiosk(programs, feed, "kiosk")
        bench.say(f"kiosk: first paint, {times} times, beside about:blank")
        later = [_drawn_s(address + "/") - _drawn_s("about:blank") for _ in range(times)]
        with running_browser() as browser:
            bench.say(f"kiosk: {taps} taps")
            quick = _taps(browser, address, taps)
            bench.say(f"kiosk: {taps} taps, the CPU {SLOWER} times slower")
            slow = _taps(browser, address, taps, SLOWER)
        rss_mb = rss_bytes(process.pid) / 1e6
        process.end()
    rows = [
        *_tap_rows("tap to answer painted", quick, TAP_P50, TAP_P99),
        *_tap_rows(f"the same, the browser's CPU {SLOWER} times slower", slow, SLOW_P50, SLOW_P99),
        Row("kiosk: start to 200", f"{spread(started, '{:.2f}')} s", STARTED, median(started)),
        Row("kiosk: memory after the taps", f"{rss_mb:.1f} MB", MEMORY, rss_mb),
        Row("browser's start to the kiosk drawn", f"{spread(later, '{:+.2f}')} s", PAINTED, median(later)),
    ]
    figures = {"tap_ms": quick, "slow_tap_ms": slow, "start_s": started, "rss_mb": rss_mb, "later_s": later}
    return Findings(rows, figures)


def run_kiosk(programs: Programs, feed: str, name: str) -> tuple[Process, str]:
    """Start `bega kiosk run`; return it, and its address without the last slash."""
    ready = programs.directory / f"{name}.ready"
    words = ["--port", "0", "--data", str(programs.directory / name), "--feed", feed, "--ready-file", str(ready)]
    command = [sys.executable, "-m", "bega", "kiosk", "run", *words]
    process = Process(command, programs.directory / f"{name}.log", programs.children)
    eventually(lambda: ready.exists() or process.ended, "the kiosk is up")
    if process.ended:
        raise LineError(f"the kiosk ended at once: see {process.log}")
    address = str(json.loads(ready.read_text(encoding="utf-8"))["kiosk"]).rstrip("/")
    return process, address


def start_s(programs: Programs, feed: str, name: str) -> float:
    """Return after how many seconds a kiosk that is started answers home with 200; it is ended again."""
    port = free_port()
    words = ["--port", str(port), "--data", str(programs.directory / name), "--feed", feed]
    began_s = time.monotonic()
    process = Process(
        [sys.executable, "-m", "bega", "kiosk", "run", *words], programs.directory / f"{name}.log", programs.children
    )
    while not _is_up(port):
        if process.ended or time.monotonic() > began_s + 30:
            raise LineError(f"the kiosk does not answer: see {process.log}")
        time.sleep(0.005)
    took_s = time.monotonic() - began_s
    process.end()
    return took_s


def every_screen(programs: Programs, name: str) -> list[str]:
    """Return the address of each screen, as `bega kiosk screens` lists them."""
    command = [sys.executable, "-m", "bega", "kiosk", "screens", "--json", "--data", str(programs.directory / name)]
    said = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    return [screen["address"] for screen in json.loads(said)]


@contextmanager
def running_feed() -> Iterator[str]:
    """Serve a public feed with one place, a day of dust each five minutes; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            answer = _feed(url.path, parse_qs(url.query).get("quantity", [""])[0])
            body = json.dumps(answer).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # the kiosk was ended meanwhile
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _feed(path: str, quantity: str) -> dict[str, Any]:
    now_ms = wall_ms()
    place = {"source": "gw-bench", "label": "Piața Victoriei", "part": ""}
    if path == "/public/v1/latest":
        values = {"pm_index": 2, "pm2_5_mean_1h": 12.3, "coverage": 60, "pm2_5": 9.5}
        head = {**place, "device": "air", "time_ms": now_ms}
        return {
            "gateway": "gw-bench",
            "readings": [{**head, "quantity": of, "value": now} for of, now in values.items()],
        }
    if path == "/public/v1/series":
        points = [[now_ms - step * 300_000, 5 + step % 40, 0, 0] for step in range(288, 0, -1)]
        return {"quantity": quantity, "series": [{**place, "device": "air", "points": points}]}
    return {}


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _drawn_s(address: str) -> float:
    """Return how long a browser takes from its start until this address is drawn and says so."""
    began_s = time.monotonic()
    with running_browser(address=address) as browser:
        page = browser.first_page()
        while not _is_drawn(page, address):
            if time.monotonic() > began_s + 30:
                raise LineError(f"the browser does not draw {address}")
        return time.monotonic() - began_s


def _is_drawn(page: Page, address: str) -> bool:
    """Return whether a page is at this address, once it is drawn; a browser may be on its way there."""
    try:
        is_there = bool(page.run("location.href") == address)
        if is_there:
            page.run(DRAWN)
    except LineError:  # it went on meanwhile
        return False
    return is_there


def _taps(browser: Browser, address: str, count: int, slower: float = 1) -> list[float]:
    """Return how many ms each of `count` taps took, on links taken by chance, home again after each ten."""
    chance = random.Random(1)
    page = browser.open(WIDTH_PX, HEIGHT_PX)
    found: list[float] = []
    page.order("Emulation.setCPUThrottlingRate", rate=slower)
    while len(found) < count:
        page.go(address + "/")
        page.run(WATCH)
        for number in range(min(10, count - len(found))):
            time.sleep(REPEAT_GUARD_S)
            _tap(page, *chance.choice(page.run(LINKS)))
            found.append(page.run(TAPPED % (number, number)))
    page.close()
    return found


def _tap(page: Page, x: float, y: float) -> None:
    for kind in ("mousePressed", "mouseReleased"):
        page.order("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def _tap_rows(what: str, found: list[float], p50: Goal, p99: Goal) -> list[Row]:
    half, most = percentile(found, 50), percentile(found, 99)
    return [Row(f"{what}, p50", f"{half:.0f} ms", p50, half), Row(f"{what}, p99", f"{most:.0f} ms", p99, most)]
