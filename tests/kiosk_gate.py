"""What a person could not read or reach on a screen, measured in a real browser; and a kiosk's server to look at.

A screen after the other is shown in one page, each as a tap shows it, by the kiosk's own script: a fifth of a page
load's work (docs/decisions/082-every-screen-in-every-look.md). The measures are in kiosk_gate.js.
"""

import asyncio
import itertools
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page

from bega.web import bind, serve
from bega_kiosk.config import load
from bega_kiosk.display import Display
from bega_kiosk.server import Pages
from bega_kiosk.store import Sample, Series, Store, Value
from bega_kiosk.words import LANGUAGES, load_words
from tests.kiosk_feed import CORNER, DUST, PLACE, SOURCE
from tests.kiosk_notices import listed, public_key, samples

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
LOOKS = [
    Display(language, is_dark, is_larger, is_reach)
    for is_dark, is_larger, is_reach in itertools.product((False, True), repeat=3)
    for language in LANGUAGES
]
NOW_MS = 1_795_000_000_000  # Wednesday 18 November 2026, 13:06 in Timișoara

# Every rule in every look. What is left out is words about what is right: where it stands, and more than one example.
AXE_OPTIONS = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag2aaa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
    "rules": {"color-contrast-enhanced": {"enabled": True}, "target-size": {"enabled": True}},
    "resultTypes": ["violations"],
    "selectors": False,
    "preload": False,  # the style sheets' text, for css-orientation-lock: asked where a page is loaded
}
SCRIPT = "(() => {%s})()" % Path(__file__).with_name("kiosk_gate.js").read_text(encoding="utf-8")
# A page that is looked at for an hour: what the server says of changes would show another screen's clock in it.
# Nor does time pass in it: of a server that says nothing for two minutes the page would say that it is lost.
UNTOLD = "window.EventSource = class extends EventTarget { close() {} }; performance.now = () => 0;"

# The height of a capital H as the browser draws it, in mm, of the first element that matches.
CAP_MM = """([selector, pxPerMm]) => {
  const style = getComputedStyle(document.querySelector(selector));
  const pen = document.createElement('canvas').getContext('2d');
  pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  return pen.measureText('H').actualBoundingBoxAscent / pxPerMm;
}"""


def looked_at(turn):
    """Return in which ways the screen of this turn is looked at: one by day, each turn another, and all by night."""
    return LOOKS if IS_NIGHT else [LOOKS[turn * 29 % len(LOOKS)]]


def wrongs(page, kiosk, is_larger=False):
    """Return what a person could not read or reach of the page that is shown."""
    page.evaluate(SCRIPT)
    smallest_px = kiosk.panel.font_px(kiosk.config.distance_mm, is_larger)
    page.evaluate("document.fonts.ready.then(() => null)")
    return page.evaluate("([mm, least]) => gate.measure(mm, least)", [kiosk.panel.px_per_mm, smallest_px])


class Kiosk:
    """The kiosk's own server over a store that the test fills, at a moment that it sets."""

    def __init__(self, panel, folder, queue=None, **kiosk):
        key = folder / "city.pub"
        key.write_bytes(public_key())
        said = {"kiosk": {"panel": panel, "state_dir": str(folder), **kiosk}}
        said |= {"notices": {"keys": [str(key)], "district": "Cetate"}}
        self.config = load(CORNER, said | ({"printer": {"queue": queue}} if queue else {}))
        self.panel = self.config.panel
        self.now_ms = NOW_MS
        self.store = Store(folder / "kiosk.sqlite", lambda: self.now_ms)
        self.pages = Pages(self.config, self.store, load_words(self.config.timezone), lambda: self.now_ms)
        self.pages.known.notices.take_all(*listed(samples(NOW_MS), NOW_MS))
        self._listener = bind("server.listen", "127.0.0.1:0")
        self.address = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self.pages.stopping.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()
        self._listener.close()
        self.store.close()

    async def _serve(self):
        serving = asyncio.create_task(serve(self.pages.app(), self._listener))
        await self.pages.stopping.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    def paths(self):
        """Return the path of every screen."""
        return [path for place in self.pages.places for path in place.paths()]

    def knows(self, *rows, points=()):
        """Let the store hold exactly these rows of `latest` and this day."""
        values = [
            Value(**{key: row[key] for key in Value.__struct_fields__ if key in row}, is_simulated=row["simulated"])
            for row in rows
        ]
        day = Series(source=SOURCE, device=DUST, label=PLACE, part="", samples=[Sample(*row) for row in points])

        def put():
            self.store._values.clear()
            self.store.take_values(values)
            self.store.take_series("pm2_5", [day])

        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (put(), done.set()))
        assert done.wait(5)


@contextmanager
def opened(browser: Browser, panel, **options) -> Iterator[Page]:
    """Open a page of the panel's size; nothing may be refused by the policy, and nothing may go wrong in the script."""
    size = {"width": panel.width_px, "height": panel.height_px}
    context = browser.new_context(viewport=size, has_touch=True, **options)
    page = context.new_page()
    page.set_default_timeout(8000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if "127.0.0.1" not in request.url else None)
    yield page
    context.close()
    assert said == []


class Gate:
    """One page of one kiosk, in which screen after screen is shown and judged; kept open for as many as may be."""

    def __init__(self, browser: Browser, kiosk: Kiosk) -> None:
        self.kiosk = kiosk
        self._opened = opened(browser, kiosk.panel, bypass_csp=True)
        self.page = self._opened.__enter__()
        self.page.add_init_script(UNTOLD)
        self.load("/")

    def close(self) -> None:
        """Close the page; AssertionError if anything went wrong in its scripts, or was refused by the server."""
        self._opened.__exit__(None, None, None)

    def load(self, address: str) -> None:
        """Show a screen by loading its page."""
        assert self.page.goto(self.kiosk.address + address).status == 200
        self.page.evaluate(AXE_SCRIPT)
        self.page.evaluate(SCRIPT)

    def show(self, address: str) -> None:
        """Show a screen in the page that is there."""
        self.page.evaluate("(address) => gate.show(address)", address)

    def judged(self, look: Display, axe: Mapping[str, object] | None = AXE_OPTIONS) -> list[str]:
        """Return everything that is wrong with the screen that is shown, for who asked for this look."""
        return self.page.evaluate("(asked) => gate.judge(asked)", self._asked(look, axe))["wrong"]

    def screen(
        self, looks: Sequence[Display], path: str, axe: Mapping[str, object] | None = AXE_OPTIONS
    ) -> list[tuple[str, str]]:
        """Show each part of a screen in each of `looks`; return (address, what is wrong with it)."""
        found = []
        for light in dict.fromkeys(replace(look, is_dark=False) for look in looks):
            alike = [look for look in (light, replace(light, is_dark=True)) if look in looks]
            part = 1
            while part:
                parts = set()
                addresses = [look.address(path, part) for look in alike]
                asked = {**self._asked(light, axe), "addresses": addresses}
                for address, said in zip(addresses, self.page.evaluate("gate.look", asked), strict=True):
                    found += [(address, wrong) for wrong in said["wrong"]]
                    parts |= {*said["parts"]}
                part = part + 1 if part + 1 in parts else 0
        return found

    def _asked(self, look: Display, axe: Mapping[str, object] | None) -> dict[str, object]:
        kiosk = self.kiosk
        return {
            "pxPerMm": kiosk.panel.px_per_mm,
            "smallestPx": kiosk.panel.font_px(kiosk.config.distance_mm, look.is_larger),
            "mostThings": kiosk.panel.most_things(),
            "isReach": look.is_reach,
            "axe": axe,
        }
