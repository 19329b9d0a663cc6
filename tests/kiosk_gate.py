"""What a person could not read or reach on a screen, measured in a real browser; and a kiosk's server to look at."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page

from bega.web import bind, serve
from bega_kiosk.config import load
from bega_kiosk.server import Pages
from bega_kiosk.store import Sample, Series, Store, Value
from bega_kiosk.words import load_words
from tests.kiosk_feed import CORNER, DUST, PLACE, SOURCE
from tests.kiosk_notices import public_key, samples

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
NOW_MS = 1_795_000_000_000  # Wednesday 18 November 2026, 13:06 in Timișoara

AXE_OPTIONS = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag2aaa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
    "rules": {"color-contrast-enhanced": {"enabled": True}, "target-size": {"enabled": True}},
}

# What a person could not read or reach, in words; [] is a good page. Boxes of letters are taken from the font's own
# ascent to descent, which reach beyond what is inked: a fifth of them at either end may touch.
MEASURE = """([pxPerMm, smallestPx]) => {
  const wrong = [];
  const box = (r) => ({left: r.left, right: r.right, top: r.top + r.height * .2, bottom: r.bottom - r.height * .2});
  const name = (text) => JSON.stringify(text.trim().slice(0, 40));
  if (document.documentElement.scrollWidth > innerWidth || document.documentElement.scrollHeight > innerHeight)
    wrong.push('the page is larger than the panel');
  for (const key of document.querySelectorAll('a, button, input, summary')) {
    const r = key.getBoundingClientRect();
    if (Math.min(r.width, r.height) < 20 * pxPerMm - .5) wrong.push('smaller than 20 mm: ' + name(key.textContent));
    if (r.left < 0 || r.top < 0 || r.right > innerWidth || r.bottom > innerHeight)
      wrong.push('outside the panel: ' + name(key.textContent));
  }
  const runs = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest('.spoken, [hidden]') || !parent.checkVisibility()) continue;
    const size = parseFloat(getComputedStyle(parent).fontSize);
    if (size < smallestPx - .1) wrong.push(`letters of ${size} px: ` + name(node.textContent));
    const range = document.createRange();
    range.selectNodeContents(node);
    const holder = parent.closest('.button, .tile, .card') || document.documentElement;
    const pane = holder === document.documentElement
      ? {left: 0, top: 0, right: innerWidth, bottom: innerHeight} : holder.getBoundingClientRect();
    for (const rect of range.getClientRects()) {
      const b = box(rect);
      const place = parent.closest('.place');  // the one text that may be cut, with an ellipsis
      if (place && b.top > place.getBoundingClientRect().bottom) continue;
      if (b.left < pane.left || b.right > pane.right || b.top < pane.top || b.bottom > pane.bottom)
        wrong.push('out of its box: ' + name(node.textContent));
      runs.push({...b, parent, text: node.textContent});
    }
    const isCut = parent.scrollWidth > parent.clientWidth + 1 && getComputedStyle(parent).overflow !== 'visible';
    if (isCut && !parent.closest('.place')) wrong.push('cut off: ' + name(node.textContent));
  }
  for (const a of runs) for (const b of runs)
    if (a.parent !== b.parent && a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 1 && b.top < a.bottom - 1)
      wrong.push('on top of each other: ' + name(a.text) + ' ' + name(b.text));
  for (const plot of document.querySelectorAll('.plot'))
    if (Math.abs(plot.getBoundingClientRect().width - plot.width.baseVal.value) > 1) wrong.push('the plot is scaled');
  const isCyrillic = document.documentElement.lang === 'sr';
  const [font, letter] = isCyrillic ? ['Noto Sans', 'ж'] : ['Atkinson Hyperlegible Next', 'a'];
  if (!document.fonts.check(`40px "${font}"`, letter)) wrong.push('the letters are not ours');
  return [...new Set(wrong)];
}"""

# The height of a capital H as the browser draws it, in mm, of the first element that matches.
CAP_MM = """([selector, pxPerMm]) => {
  const style = getComputedStyle(document.querySelector(selector));
  const pen = document.createElement('canvas').getContext('2d');
  pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  return pen.measureText('H').actualBoundingBoxAscent / pxPerMm;
}"""

# Where the keyboard goes, in turn, must be where the eye goes: down, and along each line.
ORDER = """() => {
  const keys = [...document.querySelectorAll('a, button, input')].map((key) => [key, key.getBoundingClientRect()]);
  const wrong = [];
  for (let at = 1; at < keys.length; at++) {
    const [before, a] = keys[at - 1], [key, b] = keys[at];
    if (b.bottom <= a.top + 1 || (b.top < a.bottom - 1 && b.bottom > a.top + 1 && b.left < a.left))
      wrong.push(`${key.textContent.trim()} comes after ${before.textContent.trim()}`);
  }
  return wrong;
}"""

LOWER_HALF = """() => [...document.querySelectorAll('a, button, input')]
  .filter((key) => key.getBoundingClientRect().top < innerHeight / 2 - 1).map((key) => key.textContent.trim())"""


def wrongs(page, kiosk, is_larger=False):
    """Return what a person could not read or reach."""
    page.evaluate("document.fonts.ready.then(() => null)")
    return page.evaluate(MEASURE, [kiosk.panel.px_per_mm, kiosk.panel.font_px(kiosk.config.distance_mm, is_larger)])


def axe_findings(page):
    """Return what axe-core finds in a page that was opened with bypass_csp."""
    page.evaluate("document.fonts.ready.then(() => null)")
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate(f"axe.run(document, {json.dumps(AXE_OPTIONS)})")
    assert len(found["passes"]) > 15, "axe looked at nothing"
    return [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]]


class Kiosk:
    """The kiosk's own server over a store that the test fills, at a moment that it sets."""

    def __init__(self, panel, folder, **kiosk):
        key = folder / "city.pub"
        key.write_bytes(public_key())
        said = {"panel": panel, "state_dir": str(folder), **kiosk}
        self.config = load(CORNER, {"kiosk": said, "notices": {"keys": [str(key)], "district": "Cetate"}})
        self.panel = self.config.panel
        self.now_ms = NOW_MS
        self.store = Store(folder / "kiosk.sqlite", lambda: self.now_ms)
        self.pages = Pages(self.config, self.store, load_words(self.config.timezone), lambda: self.now_ms)
        self.pages.known.notices.take_all(samples(NOW_MS))
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
