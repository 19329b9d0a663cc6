"""The kiosk's pages in a real browser: readable, reachable, whole on each panel, and true without a reload."""

import asyncio
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, sync_playwright

from bega.clock import wall_ms
from bega.look.panels import PANELS, cap_arcminutes, cap_height_mm
from bega.web import bind, serve
from bega_kiosk import server
from bega_kiosk.config import load
from bega_kiosk.pages.air import PATHS
from bega_kiosk.pages.home import Tile
from bega_kiosk.pages.screen import Screen
from bega_kiosk.server import Pages
from bega_kiosk.store import Sample, Series, Store, Value
from bega_kiosk.words import LANGUAGES, load_words
from tests.kiosk_feed import (
    CORNER,
    DUST,
    PLACE,
    SOURCE,
    FeedServer,
    day_points,
    index_rows,
    reading,
    running_kiosk,
)

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
NOW_MS = 1_795_000_000_000  # Wednesday 18 November 2026, 13:06 in Timișoara
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SCREENS = {name: ["/", *PATHS.values()] if not panel.is_large else ["/", "/air"] for name, panel in PANELS.items()}
each_panel = pytest.mark.parametrize("panel", PANELS)

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
  if (!document.fonts.check('40px "Atkinson Hyperlegible Next"', 'aș')) wrong.push('the letters are not ours');
  return [...new Set(wrong)];
}"""

# The height of a capital H as the browser draws it, in mm, of the first element that matches.
CAP_MM = """([selector, pxPerMm]) => {
  const style = getComputedStyle(document.querySelector(selector));
  const pen = document.createElement('canvas').getContext('2d');
  pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  return pen.measureText('H').actualBoundingBoxAscent / pxPerMm;
}"""


def wrongs(page, kiosk):
    """Return what a person could not read or reach."""
    page.evaluate("document.fonts.ready.then(() => null)")
    return page.evaluate(MEASURE, [kiosk.panel.px_per_mm, kiosk.panel.font_px(kiosk.config.distance_mm)])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Kiosk:
    """The kiosk's own server over a store that the test fills, at a moment that it sets."""

    def __init__(self, panel, folder, **kiosk):
        self.config = load(CORNER, {"kiosk": {"panel": panel, "state_dir": str(folder), **kiosk}})
        self.panel = self.config.panel
        self.now_ms = NOW_MS
        self.store = Store(folder / "kiosk.sqlite", lambda: self.now_ms)
        self._pages = Pages(self.config, self.store, load_words(self.config.timezone), lambda: self.now_ms)
        self._listener = bind("server.listen", "127.0.0.1:0")
        self.address = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._pages.stopping.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()
        self._listener.close()
        self.store.close()

    async def _serve(self):
        serving = asyncio.create_task(serve(self._pages.app(), self._listener))
        await self._pages.stopping.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

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


@pytest.fixture(scope="module")
def kiosks(tmp_path_factory):
    with (
        pytest.MonkeyPatch.context() as patch,
        Kiosk("24in", tmp_path_factory.mktemp("large")) as large,
        Kiosk("10in", tmp_path_factory.mktemp("small")) as small,
    ):
        patch.setattr(server, "CALM_S", 0.1)  # changes that a test makes follow each other faster than air's
        yield {"24in": large, "10in": small}


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


def good(band=2, dust=8.0, label=PLACE, age_ms=MINUTE_MS, simulated=False):
    time_ms = NOW_MS - age_ms
    rows = [*index_rows(band, time_ms), reading("pm2_5", dust, time_ms, DUST)]
    return [row | {"label": label, "simulated": simulated} for row in rows]


STATES = {
    **{f"band {band}": (good(band), day_points(NOW_MS, peak=peak)) for band, peak in enumerate(
        (4, 12, 45, 80, 130, 420), start=1
    )},
    "three digits, simulated": (good(6, 345.0, simulated=True), day_points(NOW_MS, 12, peak=345.0)),
    "a long name": (good(2, 12.0, label="Bulevardul Revoluției din Decembrie 1989"), day_points(NOW_MS, 20)),
    "a late index": (good(4, None, age_ms=110 * MINUTE_MS), day_points(NOW_MS - 2 * HOUR_MS, 2, peak=90)),
    "not yet": ([*index_rows(None, NOW_MS, 31), reading("pm2_5", 9.5, NOW_MS, DUST)], day_points(NOW_MS, 23)),
    "stale": (good(3, age_ms=27 * HOUR_MS), day_points(NOW_MS - 20 * HOUR_MS)),
    "nothing": ([], []),
}  # fmt: skip


@each_panel
@pytest.mark.parametrize("state", STATES)
def test_page_is_whole_on_its_panel(browser, kiosks, panel, state):
    kiosk = kiosks[panel]
    rows, points = STATES[state]
    kiosk.knows(*rows, points=points)
    paths = SCREENS[panel] if state in ("band 6", "not yet") else SCREENS[panel][1:]  # home says one sentence of it
    with opened(browser, kiosk.panel) as page:
        for path in [f"{path}?lang={language}" for path in paths for language in LANGUAGES]:
            page.goto(kiosk.address + path)
            assert wrongs(page, kiosk) == [], path


@each_panel
@pytest.mark.parametrize(
    ("state", "language"),
    [("band 5", "ro"), ("band 5", "en"), ("not yet", "ro"), ("three digits, simulated", "en")],
)
def test_page_has_no_axe_finding(browser, kiosks, panel, language, state):
    kiosk = kiosks[panel]
    rows, points = STATES[state]
    kiosk.knows(*rows, points=points)
    with opened(browser, kiosk.panel, bypass_csp=True) as page:
        for path in SCREENS[panel]:
            page.goto(f"{kiosk.address}{path}?lang={language}")
            page.evaluate("document.fonts.ready.then(() => null)")
            page.evaluate(AXE_SCRIPT)
            found = page.evaluate(f"axe.run(document, {json.dumps(AXE_OPTIONS)})")
            assert len(found["passes"]) > 15, "axe looked at nothing"
            assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == [], path


@each_panel
def test_page_that_does_not_exist_says_so_in_words(browser, kiosks, panel):
    kiosk = kiosks[panel]
    context = browser.new_context(viewport={"width": kiosk.panel.width_px, "height": kiosk.panel.height_px})
    page = context.new_page()
    answer = page.goto(f"{kiosk.address}/no-such-page?lang=en")
    wrong = wrongs(page, kiosk)
    said, ways = page.locator("h1").inner_text(), page.locator("a").all_inner_texts()
    context.close()
    assert (answer.status, said, wrong) == (404, "This page does not exist.", [])
    assert ways == ["Home", "Română"]


def test_page_that_does_not_exist_leads_nowhere_else(kiosks):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(kiosks["24in"].address + "//elsewhere.example/%22%3E%3Cscript%3E", timeout=5)
    page = refused.value.read().decode()
    assert refused.value.code == 404
    assert "elsewhere" not in page


@each_panel
def test_letters_are_as_tall_as_the_standard_asks(browser, kiosks, panel):
    kiosk = kiosks[panel]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air")
        page.evaluate("document.fonts.ready.then(() => null)")

        def cap_mm(selector):
            return page.evaluate(CAP_MM, [selector, kiosk.panel.px_per_mm])

        smallest_mm, sentence_mm, number_mm = cap_mm(".facts p"), cap_mm("#verdict"), cap_mm(".number")
    assert smallest_mm >= cap_height_mm(kiosk.config.distance_mm) - 0.01
    if panel == "24in":
        assert smallest_mm >= 7.3, "0.7 degrees at 600 mm"
        assert sentence_mm >= cap_height_mm(1000), "the verdict: 0.7 degrees at a metre"
    assert cap_arcminutes(smallest_mm, 1000) >= 16, "from a metre, the least of ISO 9241-3"
    assert cap_arcminutes(sentence_mm, 1000) >= 22, "from a metre, with comfort"
    assert number_mm > sentence_mm


@pytest.mark.parametrize(("panel", "distance_mm"), [("24in", 400), ("10in", 300)])
def test_page_is_whole_for_a_reader_who_stands_nearer(browser, tmp_path, panel, distance_mm):
    with Kiosk(panel, tmp_path, distance_mm=distance_mm) as kiosk, opened(browser, kiosk.panel) as page:
        kiosk.knows(*good(4), points=day_points(NOW_MS, 5))
        for path in SCREENS[panel]:
            page.goto(f"{kiosk.address}{path}")
            assert wrongs(page, kiosk) == [], path


def test_laptop_shows_the_layout_of_the_panel(browser, kiosks):
    kiosk = kiosks["24in"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    page.goto(f"{kiosk.address}/air")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    verdict, advice = (page.locator(selector).bounding_box() for selector in (".verdict", ".advice"))
    context.close()
    assert verdict["x"] + verdict["width"] < advice["x"]


# A name of two languages' worth of letters for each of the tiles that later issues bring.
LATER = ["Străzi și întreruperi", "Anunțați o problemă", "Tramvai și autobuz", "Gunoi și reciclare"]
LATER += ["Ce se întâmplă în oraș", "Spuneți-vă părerea", "Vorbiți cu un om"]


@each_panel
def test_home_has_room_for_as_many_tiles_as_the_panel_may_show(browser, kiosks, panel):
    kiosk = kiosks[panel]
    words = load_words(kiosk.config.timezone)["ro"]
    named = dict(zip((f"later.{n}" for n in range(8)), LATER, strict=False))
    tiles = [Tile("home.tile.air", "wind", "/air", "Aerul este bun.", 1)]
    tiles += [Tile(key, "wind", "/air", "") for key in list(named)[: kiosk.panel.most_things - 1]]

    class Later:
        """The Romanian words, and the names of tiles that are not there yet."""

        def __getattr__(self, name):
            return getattr(words, name)

        def text(self, key, **values):
            return named.get(key) or words.text(key, **values)

    html = Screen(Later(), kiosk.panel, kiosk.config.distance_mm, "/", NOW_MS).draw("home.html", {"tiles": tiles})
    with opened(browser, kiosk.panel) as page:
        page.route("**/?lang=ro", lambda route: route.fulfill(body=html, content_type="text/html"))
        page.goto(f"{kiosk.address}/?lang=ro")
        assert page.locator(".tile").count() == kiosk.panel.most_things
        assert wrongs(page, kiosk) == []
        sides = page.locator(".tile").evaluate_all("tiles => tiles.map(t => Math.min(t.offsetWidth, t.offsetHeight))")
        assert min(sides) >= 30 * kiosk.panel.px_per_mm - 0.5


FOCUS = """() => {
  const key = document.activeElement, style = getComputedStyle(key), r = key.getBoundingClientRect();
  const visible = key.matches(':focus-visible') && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 3;
  const whole = r.left >= 0 && r.top >= 0 && r.right <= innerWidth && r.bottom <= innerHeight;
  return {text: key.textContent.trim().replace(/\\s+/g, ' '), visible: visible && whole};
}"""


@each_panel
def test_keyboard_alone_reaches_everything_and_sees_where_it_is(browser, kiosks, panel):
    kiosk = kiosks[panel]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/?lang=ro")

        def walk(steps):
            walked = []
            for _ in range(steps):
                page.keyboard.press("Tab")
                walked.append(page.evaluate(FOCUS))
            assert all(step["visible"] for step in walked), walked
            return [step["text"] for step in walked]

        assert walk(2) == ["English", "Aerul de azi Aerul este acceptabil."]
        page.keyboard.press("Enter")
        page.wait_for_url("**/air?lang=ro")
        views = [] if kiosk.panel.is_large else ["Acum", "24 de ore", "Ce puteți face"]
        assert walk(2 + len(views)) == ["Acasă", "English", *views]
        if views:
            page.keyboard.press("Enter")
            page.wait_for_url("**/air/advice?lang=ro")
            walk(1)
        else:
            page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?lang=ro")


def test_touch_leads_to_the_air_and_to_the_other_language_and_home(browser, kiosks):
    kiosk = kiosks["10in"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(kiosk.address)
        assert page.locator("html").get_attribute("lang") == "ro"
        page.tap(".tile")
        page.tap("text=24 de ore")
        page.tap("text=English")
        page.wait_for_url("**/air/day?lang=en")
        assert page.locator("h2").inner_text() == "The last 24 hours"
        page.tap("text=Home")
        page.wait_for_url("**/?lang=en")
        assert page.locator("h1").inner_text() == "How can we help you?"


def test_large_panel_has_the_parts_of_the_air_on_one_page(browser, kiosks):
    with opened(browser, kiosks["24in"].panel) as page:
        page.goto(f"{kiosks['24in'].address}/air/day?lang=en")
        assert page.url.endswith("/air?lang=en")


@pytest.mark.parametrize("language", ["hu", "RO", "<script>", "", "ro' onload='"])
def test_language_that_is_not_there_is_romanian(browser, kiosks, language):
    with opened(browser, kiosks["24in"].panel) as page:
        page.goto(f"{kiosks['24in'].address}/?lang={language}")
        assert page.locator("html").get_attribute("lang") == "ro"


def test_label_of_a_feed_is_text_and_nothing_else(browser, kiosks):
    kiosk = kiosks["24in"]
    kiosk.knows(*good(label="<img src=x onerror=alert(1)>"), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air")
        assert "<img src=x" in page.locator(".place").inner_text()
        assert page.locator("main img").count() == 0


def test_kiosk_leaves_nothing_in_the_browser_and_forbids_what_it_does_not_use(browser, kiosks):
    kiosk = kiosks["24in"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        answer = page.goto(f"{kiosk.address}/air?lang=en")
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "set-cookie" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"
        assert page.context.cookies() == []
        kept = (
            "[localStorage.length, sessionStorage.length, document.cookie, document.querySelectorAll('[style]').length]"
        )
        assert page.evaluate(kept) == [0, 0, "", 0]


def test_page_says_which_index_in_which_edition(browser, kiosks):
    for panel, kiosk in kiosks.items():
        kiosk.knows(*good(), points=day_points(NOW_MS))
        with opened(browser, kiosk.panel) as page:
            page.goto(f"{kiosk.address}/air?lang=ro")
            said = page.locator("footer").inner_text()
        assert "Indicele european" in said
        assert "ediția 2025" in said
        assert "praful" in said, panel
        if kiosk.panel.is_large:
            assert "După 10 minute fără date nu arătăm numărul." in said


def test_plot_has_a_table_beside_it_for_who_cannot_see(browser, kiosks):
    kiosk = kiosks["24in"]
    kiosk.knows(*good(), points=day_points(NOW_MS, 12))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air?lang=en")
        assert page.get_by_role("img", name="The last 24 hours.").count() == 1
        rows = page.get_by_role("table").get_by_role("row")
        assert rows.count() == 26
        assert "simulated data" in rows.nth(20).inner_text()
        assert page.locator(".legend").inner_text().split("\n")[-1].strip() == "simulated data"


def test_measured_day_speaks_of_no_simulation(browser, kiosks):
    kiosk = kiosks["24in"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air?lang=en")
        assert "simulated" not in page.locator("body").inner_text().lower()


BOXES = """() => [...document.querySelectorAll('.card, .top, .bottom, h1, .button')].map(e => {
  const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height].map(Math.round)})"""
WATCH_VERDICT = """() => { window.said = []; new MutationObserver(() => window.said.push(
  document.getElementById('verdict').textContent)).observe(document.getElementById('verdict'), {childList: true,
  characterData: true, subtree: true}) }"""


@each_panel
def test_change_appears_without_reload_and_nothing_jumps(browser, kiosks, panel):
    kiosk = kiosks[panel]
    kiosk.knows(*good(2, 8.0), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air?lang=ro")
        page.evaluate("document.fonts.ready.then(() => { window.mine = true })")
        page.evaluate(WATCH_VERDICT)
        assert page.locator("#verdict").get_attribute("aria-live") == "polite"
        page.keyboard.press("Tab")
        before = page.evaluate(BOXES)
        kiosk.knows(*good(2, 11.0), points=day_points(NOW_MS))
        page.wait_for_selector(".number:text-is('11')")
        assert page.evaluate("window.said") == [], "a new number is no new verdict: nothing is spoken"
        kiosk.knows(*good(5, 123.0), points=day_points(NOW_MS))
        page.wait_for_selector("#verdict:text-is('Aerul este foarte rău.')")
        assert page.evaluate("window.said") == ["Aerul este foarte rău."]
        assert "band-5" in page.locator(".verdict").get_attribute("class")
        kiosk.knows()
        page.wait_for_selector("#verdict:text-is('Nu știm acum.')")
        assert page.locator(".number").count() == 0
        assert page.evaluate("window.mine"), "the page was loaded again"
        assert page.evaluate(BOXES) == before
        assert page.evaluate("document.activeElement.textContent.trim()") == "Acasă"


def test_page_says_so_when_its_server_is_gone(browser, tmp_path):
    panel = PANELS["24in"]
    context = browser.new_context(viewport={"width": panel.width_px, "height": panel.height_px})
    page = context.new_page()
    page.clock.install()
    with Kiosk("24in", tmp_path) as kiosk:
        kiosk.knows(*good())
        page.goto(f"{kiosk.address}/air")
        assert page.locator("#lost").is_hidden()
        assert page.locator("#verdict").is_visible()
    page.clock.fast_forward(130_000)
    page.wait_for_selector("#lost:visible")
    assert page.locator("#verdict").is_hidden()
    assert "Nu știm" in page.locator("#lost").inner_text()
    context.close()


def test_reading_at_the_gateway_reaches_the_page_of_the_running_command(browser, tmp_path):
    with FeedServer() as feed:
        feed.readings = [*index_rows(1, wall_ms()), reading("pm2_5", 3, wall_ms(), DUST)]
        feed.points = day_points(wall_ms())
        with (
            running_kiosk(tmp_path, f"feed.url={feed.url}") as (address, _),
            opened(browser, PANELS["24in"]) as page,
        ):
            page.goto(address + "/air?lang=en")
            page.wait_for_selector("#verdict:text-is('The air is good.')")
            feed.wait_for_listener()
            feed.push([reading("pm2_5", 61, wall_ms() + 1000, DUST)])
            feed.push(index_rows(4, wall_ms() + 1000, mean=55.5))
            page.wait_for_selector("#verdict:text-is('The air is poor.')")
            page.wait_for_selector(".number:text-is('61')")
            assert "Mean of the last hour: 55.5." in page.locator("#dust").inner_text()


def test_motion_is_spared_for_who_asked_for_less(browser, kiosks):
    with opened(browser, kiosks["24in"].panel, reduced_motion="reduce") as page:
        page.goto(kiosks["24in"].address)
        moving = "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).animationName !== 'none')"
        assert page.evaluate(moving + ".length") == 0
