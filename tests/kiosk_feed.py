"""A gateway's public feed as the contract has it, for tests of the kiosk: a real HTTP server that can misbehave."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).parent.parent
CORNER = ROOT / "kiosk" / "examples" / "corner.toml"
SOURCE, INDEX, DUST, PLACE = "gw-corner", "air", "roadside-air", "Piața Victoriei"
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def reading(quantity: str, value: float | None, time_ms: int, device: str = INDEX, **more: Any) -> dict[str, Any]:
    """Return one row of `latest`."""
    row = {"source": SOURCE, "device": device, "label": PLACE, "quantity": quantity, "part": "", "value": value}
    row |= {"unit": "ug/m3", "time_ms": time_ms, "time_quality": 0, "quality": 0, "simulated": False}
    return row | more


def index_rows(band: int | None, time_ms: int, coverage: int = 60, mean: float = 12.3) -> list[dict[str, Any]]:
    """Return the rows of one index record; without a band it is not computable."""
    rows = [reading("coverage", coverage, time_ms)]
    if band is not None:
        rows += [reading("pm_index", band, time_ms), reading("pm2_5_mean_1h", mean, time_ms)]
    return rows


def day_points(now_ms: int, simulated_hours: int = 0, peak: float = 60.0) -> list[list[Any]]:
    """Return a day of steps of 5 minutes; the first `simulated_hours` are simulated."""
    first_ms = now_ms - 24 * HOUR_MS
    times = range(first_ms, now_ms, 5 * MINUTE_MS)
    return [
        [
            t,
            5 + (peak - 5) * ((t - first_ms) / HOUR_MS % 12 / 12) ** 2,
            0,
            int(t < first_ms + simulated_hours * HOUR_MS),
        ]
        for t in times
    ]


class FeedServer:
    """Serves `readings` and `points`, and every record that is pushed. `bodies` overrides an answer by its path."""

    def __init__(self) -> None:
        self.readings: list[dict[str, Any]] = []
        self.points: list[list[Any]] = []
        self.bodies: dict[str, bytes] = {}
        self.drip_s = 0.0  # a pause between the bytes of an answer
        self.asked: list[str] = []
        self._listeners: list[queue.Queue[bytes | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FeedServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()

    def push(self, rows: list[dict[str, Any]]) -> None:
        """Send rows of one device and one time to everybody who listens, as one record."""
        first = rows[0]
        record = {key: first[key] for key in ("source", "device", "label", "time_ms", "time_quality", "simulated")}
        record |= {"boot": 1, "seq": 1}
        record["readings"] = [
            {key: row[key] for key in ("quantity", "part", "value", "unit", "quality")} for row in rows
        ]
        self.push_raw(b"event: record\ndata: " + json.dumps(record).encode() + b"\n\n")

    def push_raw(self, chunk: bytes) -> None:
        """Send bytes to everybody who listens."""
        for listener in self._listeners:
            listener.put(chunk)

    def hang_up(self) -> None:
        """Close every event stream."""
        for listener in self._listeners:
            listener.put(None)

    def wait_for_listener(self, timeout_s: float = 10.0) -> None:
        """Return once somebody reads the event stream."""
        wait_until(lambda: bool(self._listeners), timeout_s)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        feed = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                feed.asked.append(self.path)
                url = urlsplit(self.path)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    if url.path == "/public/v1/events" and url.path not in feed.bodies:
                        self.stream()
                    else:
                        own = feed.bodies.get(url.path)
                        self.answer(feed.body(url.path, parse_qs(url.query)) if own is None else own)

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if not feed.drip_s:
                    self.wfile.write(body)
                for byte in body if feed.drip_s else b"":
                    self.wfile.write(bytes([byte]))
                    time.sleep(feed.drip_s)

            def stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                self.wfile.write(b": welcome\n\n")
                chunks: queue.Queue[bytes | None] = queue.Queue()
                feed._listeners.append(chunks)
                try:
                    while (chunk := chunks.get()) is not None:
                        self.wfile.write(chunk)
                finally:
                    feed._listeners.remove(chunks)

        return Handler

    def body(self, path: str, query: dict[str, list[str]]) -> bytes:
        """Return the answer that the contract has for `path`."""
        if path == "/public/v1/latest":
            return json.dumps({"gateway": SOURCE, "city": "timisoara", "readings": self.readings}).encode()
        row = {"source": SOURCE, "device": DUST, "label": PLACE, "part": "", "points": self.points}
        answer = {"quantity": query["quantity"][0], "unit": "ug/m3", "hours": 24, "step_s": 300}
        return json.dumps(answer | {"series": [row] if self.points else []}).encode()


@contextlib.contextmanager
def running_kiosk(folder: Path, *settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `bega kiosk run` on a free port; yield (address without the last slash, process). It must end with 0."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    values = ["server.listen=127.0.0.1:0", f"kiosk.state_dir={folder / 'state'}", *settings]
    command = [sys.executable, "-m", "bega", "kiosk", "run", "--config", str(CORNER), "--ready-file", str(ready)]
    log = (folder / "kiosk.log").open("ab")
    process = subprocess.Popen([*command, *(part for value in values for part in ("--set", value))], stderr=log)
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None, 15.0)
        assert process.poll() is None, (folder / "kiosk.log").read_text()
        yield json.loads(ready.read_text())["kiosk"].rstrip("/"), process
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10.0) == 0, (folder / "kiosk.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        log.close()


def wait_until(is_so: Any, timeout_s: float = 10.0) -> None:
    """Return once `is_so()` is true; fail after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
