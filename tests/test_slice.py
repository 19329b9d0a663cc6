"""The whole slice as an operator starts it, on mosquitto: real bytes of every source, and a page that a citizen reads.

tests/test_corner.py holds the same slice on the embedded broker, as `bega demo` starts it.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CORNER = tomllib.loads((ROOT / "gateway/examples/corner.toml").read_text())
HAS_MICROPYTHON = "BEGA_MICROPYTHON" in os.environ or Path(sys.executable).with_name("micropython").exists()
SOURCES = {("gw-corner", device) for device in [*CORNER["devices"], *CORNER["air_index"]]}
SOURCES |= {("air-1", "pms"), ("air-1", "sht")} if HAS_MICROPYTHON else set()


class Slice:
    """The processes of the corner, each started by its own command."""

    def __init__(self, directory: Path, eventually) -> None:
        self._directory = directory
        self._eventually = eventually
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: object, **environment: str) -> dict:
        """Start `bega COMMAND...` and return what it says once it is up."""
        ready, log = self._directory / f"{name}.ready", self._directory / f"{name}.log"
        whole = [sys.executable, "-m", "bega", *map(str, command), "--ready-file", ready]
        with log.open("wb") as file:
            process = subprocess.Popen(whole, stdout=file, stderr=file, env={**os.environ, **environment})
        self._running.append(process)
        self._eventually(lambda: ready.exists() or process.poll() is not None, f"{name} is up", 30)
        assert process.poll() is None, log.read_text()
        return json.loads(ready.read_text())

    def stop(self) -> list[int]:
        """End all of them, the last started first; return their exit codes."""
        for process in reversed(self._running):
            process.terminate()
        return [process.wait(10) for process in self._running]


@pytest.fixture
def corner(tmp_path, mosquitto, eventually):
    """Bring the corner up; give (addresses, the slice)."""
    slice_ = Slice(tmp_path, eventually)
    try:
        wires = slice_.start("wires", "sim", "corner", "--seed", 3)
        air = slice_.start("air", "sim", "ble", "--seed", 3)
        host, port = wires["hall"].split(":")
        settings = {
            "gateway.state_dir": tmp_path / "gateway",
            "uplink.brokers": mosquitto.url,
            "feed.listen": "127.0.0.1:0",
            "lines.nodes.broker": mosquitto.url,
            "lines.hall.host": host,
            "lines.hall.port": port,
            **{f"lines.{line}.port": wires[line] for line in ("pms", "p1", "cellar")},
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        example = ROOT / "gateway/examples/corner.toml"
        up = slice_.start("gateway", "gateway", "run", "--config", example, *words, DBUS_SYSTEM_BUS_ADDRESS=air["bus"])
        kiosk = slice_.start(
            "kiosk", "kiosk", "run", "--config", ROOT / "kiosk/examples/corner.toml",
            "--set", f"kiosk.state_dir={tmp_path / 'kiosk'}", "--set", "server.listen=127.0.0.1:0",
            "--set", f"feed.url={up['feed']}",
        )  # fmt: skip
        if HAS_MICROPYTHON:
            slice_.start("node", "sim", "board", "--kind", "air", "--broker", mosquitto.url.removeprefix("mqtt://"))
        yield {"mqtt": mosquitto.url, "feed": up["feed"], "kiosk": kiosk["kiosk"].rstrip("/")}, slice_
    finally:
        slice_.stop()


def latest(feed: str) -> list[dict]:
    with urllib.request.urlopen(f"{feed}/public/v1/latest", timeout=5) as answer:
        return json.load(answer)["readings"]


def test_every_source_reaches_the_broker_and_the_page_shows_the_air(corner, make_reader, eventually):
    addresses, slice_ = corner
    reader = make_reader(addresses["mqtt"])

    def missing():
        return SOURCES - {(record.source, record.device) for record in reader.records}

    eventually(lambda: not missing(), "every source is heard at the broker", 60)
    topics = {topic for topic, _ in reader.packs}
    assert topics == {f"city/timisoara/gw-corner/{source}/{device}/up" for source, device in SOURCES}
    public = {reading["device"] for reading in latest(addresses["feed"])}
    audience = {name: device.get("audience", "operator") for name, device in CORNER["devices"].items()}
    assert not public & {name for name, who in audience.items() if who != "public"}
    assert {name for name, who in audience.items() if who == "public"} <= public
    measured = next(
        reading["value"]
        for reading in latest(addresses["feed"])
        if (reading["device"], reading["quantity"]) == ("roadside-air", "pm2_5")
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(f"{addresses['kiosk']}/?lang=ro")
        page.get_by_role("link", name="Aerul de azi").click()
        # No hour of data yet: the page must not pretend to know, and still shows what was measured just now.
        expect(page.get_by_text("nu știm încă")).to_be_visible()
        expect(page.get_by_text(str(measured), exact=True).first).to_be_visible()
        page.goto(f"{addresses['kiosk']}/air?lang=en")
        expect(page.get_by_role("heading", level=1)).to_have_text("How is the air now?")
        browser.close()
    assert set(slice_.stop()) == {0}, "every process ends in order"
