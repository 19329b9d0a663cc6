"""The kiosk's pages in a real browser: readable, reachable, whole on each panel, and true without a reload."""

import urllib.error
import urllib.request

import pytest

from bega.clock import wall_ms
from bega.look.panels import PANELS, cap_arcminutes, cap_height_mm
from bega_kiosk import server
from bega_kiosk.display import Display
from tests.kiosk_feed import DUST, PLACE, FeedServer, day_points, index_rows, reading, running_kiosk
from tests.kiosk_gate import CAP_MM, IS_NIGHT, LOOKS, NOW_MS, Gate, Kiosk, looked_at, opened, wrongs

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SHARES = 24 if IS_NIGHT else 6  # of the screens, so that several workers look at them and end together
each_panel = pytest.mark.parametrize("panel", PANELS)


@pytest.fixture(scope="module")
def kiosks(tmp_path_factory):
    with (
        pytest.MonkeyPatch.context() as patch,
        Kiosk("24", tmp_path_factory.mktemp("wide")) as wide,
        Kiosk("24p", tmp_path_factory.mktemp("tall")) as tall,
        Kiosk("10", tmp_path_factory.mktemp("small")) as small,
    ):
        patch.setattr(server, "CALM_S", 0.1)  # changes that a test makes follow each other faster than air's
        yield {"24": wide, "24p": tall, "10": small}


@pytest.fixture(scope="module")
def gates(browser, kiosks):
    """Return a panel's page in which screens are shown and judged, opened by whoever needs it first."""
    found: dict[str, Gate] = {}

    def gate(panel):
        if panel not in found:
            found[panel] = Gate(browser, kiosks[panel])
        return found[panel]

    yield gate
    for opened_page in found.values():
        opened_page.close()


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
@pytest.mark.parametrize("share", range(SHARES))
def test_every_screen_is_whole_and_has_no_axe_finding(gates, panel, share):
    gate = gates(panel)
    gate.kiosk.knows(*good(5, 123.0), points=day_points(NOW_MS, 12))
    found = []
    for turn, path in [*enumerate(gate.kiosk.paths(), start=[*PANELS].index(panel))][share::SHARES]:
        found += gate.screen(looked_at(turn), path)
    assert found == []


@each_panel
@pytest.mark.parametrize("state", STATES)
def test_air_is_whole_whatever_is_known_of_it(gates, panel, state):
    gate = gates(panel)
    rows, points = STATES[state]
    gate.kiosk.knows(*rows, points=points)
    found = []
    first = [*STATES].index(state)
    screens = [*enumerate(("/", "/air", "/air/dust", "/air/day", "/air/advice"))]
    for turn, path in screens if IS_NIGHT else screens[first % 2 :: 2]:
        looks = LOOKS[: len(LOOKS) // 2] if IS_NIGHT else looked_at(first + 3 * turn)  # dark changes colours alone
        found += gate.screen(looks, path, axe=None)
    assert found == []


@pytest.mark.parametrize("language", ["de", "hu", "sr"])
def test_list_that_is_old_says_so_in_large_letters_too(gates, kiosks, language):
    kiosk = kiosks["10"]
    kiosk.now_ms += 2 * HOUR_MS
    try:
        for path in ("/streets/every", "/streets/district/cetate"):
            assert gates("10").screen([Display(language, is_larger=True)], path, axe=None) == []
        assert gates("10").page.locator("h1.spoken").count() == 1, "the words above the list need its room"
    finally:
        kiosk.now_ms -= 2 * HOUR_MS


@each_panel
def test_page_that_does_not_exist_says_so_in_words(browser, kiosks, panel):
    kiosk = kiosks[panel]
    context = browser.new_context(viewport={"width": kiosk.panel.width_px, "height": kiosk.panel.height_px})
    page = context.new_page()
    answer = page.goto(f"{kiosk.address}/no-such-page?lang=en")
    wrong = wrongs(page, kiosk)
    said, ways = page.locator("h1").inner_text(), page.locator("a").all_inner_texts()
    assert page.locator("[aria-current]").count() == 0, "this is not home"
    context.close()
    assert (answer.status, said, wrong) == (404, "This page does not exist.", [])
    assert [way.strip() for way in ways] == ["Home", "Letters and colours", "Language", "Call a person"]


def test_page_that_does_not_exist_leads_nowhere_else(kiosks):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(kiosks["24"].address + "//elsewhere.example/%22%3E%3Cscript%3E", timeout=5)
    page = refused.value.read().decode()
    assert refused.value.code == 404
    assert "elsewhere" not in page


@each_panel
def test_letters_are_as_tall_as_the_standard_asks(browser, kiosks, panel):
    kiosk = kiosks[panel]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:

        def cap_mm(selector, path="/air", query=""):
            page.goto(f"{kiosk.address}{path}?lang=ro{query}")
            page.evaluate("document.fonts.ready.then(() => null)")
            return page.evaluate(CAP_MM, [selector, kiosk.panel.px_per_mm])

        smallest_mm, sentence_mm = cap_mm(".reasons"), cap_mm("#verdict")
        number_mm, larger_mm = cap_mm(".number", "/air/dust"), cap_mm(".reasons", query="&text=large")
    assert smallest_mm >= cap_height_mm(kiosk.config.distance_mm) - 0.01
    if kiosk.panel.is_large:
        assert smallest_mm >= 7.3, "0.7 degrees at 600 mm"
        assert sentence_mm >= cap_height_mm(1000), "the verdict: 0.7 degrees at a metre"
    assert cap_arcminutes(smallest_mm, 1000) >= 16, "from a metre, the least of ISO 9241-3"
    assert cap_arcminutes(sentence_mm, 1000) >= 22, "from a metre, with comfort"
    assert number_mm > sentence_mm
    assert larger_mm > 1.15 * smallest_mm


@pytest.mark.parametrize(("panel", "distance_mm"), [("24", 400), ("10", 300)])
def test_page_is_whole_for_a_reader_who_stands_nearer(browser, tmp_path, panel, distance_mm):
    with Kiosk(panel, tmp_path, distance_mm=distance_mm) as kiosk:
        kiosk.knows(*good(4), points=day_points(NOW_MS, 5))
        gate = Gate(browser, kiosk)
        found = [wrong for path in kiosk.paths() for wrong in gate.screen(LOOKS[:1], path, axe=None)]
        gate.close()
    assert found == []


def test_laptop_shows_the_layout_of_the_panel(browser, kiosks):
    kiosk = kiosks["24"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    page.goto(f"{kiosk.address}/air")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    verdict, day = (page.locator(selector).bounding_box() for selector in (".verdict", ".day"))
    context.close()
    assert verdict["x"] + verdict["width"] < day["x"]


# What has the focus, at each step, from the first key of the page on.
WALK = """() => {
  window.walked = [];
  const words = (key) => key.textContent.trim().replace(/\\s+/g, ' ');
  document.body.addEventListener('focusin', ({target: key}) => {
    const style = getComputedStyle(key), r = key.getBoundingClientRect();
    const ringPx = style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
    const isWhole = r.left >= 0 && r.top >= 0 && r.right <= innerWidth && r.bottom <= innerHeight;
    window.walked.push(words(key) + (key.matches(':focus-visible') && ringPx >= 3 && isWhole ? '' : ' (not seen)'));
  });
  const before = document.createElement('span');
  document.body.prepend(before);
  before.tabIndex = -1;
  before.focus();
  before.remove();
  window.walked = [];
  return [...document.querySelectorAll('a, button, input, textarea')].map(words);
}"""


@each_panel
def test_keyboard_alone_reaches_everything_and_sees_where_it_is(gates, panel):
    gate = gates(panel)
    gate.kiosk.knows(*good(), points=day_points(NOW_MS))
    mine = [*PANELS].index(panel)
    for path in gate.kiosk.paths() if IS_NIGHT else gate.kiosk.paths()[mine :: len(PANELS)]:
        gate.show(LOOKS[0].address(path))
        keys = gate.page.evaluate(WALK)
        for _ in keys:
            gate.page.keyboard.down("Tab")
        gate.page.keyboard.up("Tab")
        assert gate.page.evaluate("window.walked") == keys, path


def test_key_that_is_pressed_shows_the_next_screen_and_says_its_heading(browser, kiosks):
    kiosk = kiosks["24"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/?lang=ro")
        page.evaluate("window.mine = true")
        page.focus(".tile")
        page.keyboard.press("Enter")
        page.wait_for_url("**/air?lang=ro")
        assert page.evaluate("window.mine"), "a page was loaded"
        assert page.evaluate("document.activeElement.id") == "title"


def test_touch_leads_to_the_air_and_to_another_language_and_home(browser, kiosks):
    kiosk = kiosks["10"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:

        def tap(name):
            page.tap(f"a:has-text('{name}')")
            page.wait_for_timeout(350)  # a second tap within 0.3 s counts as trembling

        page.goto(kiosk.address)
        assert page.locator("html").get_attribute("lang") == "ro"
        tap("Aerul de azi")
        tap("24 de ore")
        tap("Limba")
        tap("Српски")
        assert page.locator("html").get_attribute("lang") == "sr"
        assert page.locator("h1").inner_text() == "Како можемо да вам помогнемо?"
        assert page.evaluate("history.length") == 2, "nothing to go back to"


def test_wishes_go_along_from_screen_to_screen_and_end_with_the_address(browser, kiosks):
    kiosk = kiosks["24"]
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/easier?lang=hu&look=dark&text=large&reach=1")
        assert page.locator("html").get_attribute("class") == "wide dark larger reach"
        page.tap(".home")
        page.wait_for_url("**/?lang=hu&look=dark&text=large&reach=1")
        page.goto(kiosk.address)
        assert page.locator("html").get_attribute("class") == "wide"


@pytest.mark.parametrize("language", ["fr", "RO", "<script>", "", "ro' onload='"])
def test_language_that_is_not_there_is_romanian(browser, kiosks, language):
    with opened(browser, kiosks["24"].panel) as page:
        page.goto(f"{kiosks['24'].address}/?lang={language}")
        assert page.locator("html").get_attribute("lang") == "ro"


def test_label_of_a_feed_is_text_and_nothing_else(browser, kiosks):
    kiosk = kiosks["24"]
    kiosk.knows(*good(label="<img src=x onerror=alert(1)>"), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air/dust")
        assert "<img src=x" in page.locator(".place").inner_text()
        assert page.locator("main img").count() == 0


def test_kiosk_leaves_nothing_in_the_browser_and_forbids_what_it_does_not_use(browser, kiosks):
    kiosk = kiosks["24"]
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
    kiosk = kiosks["24"]
    kiosk.knows(*good(), points=day_points(NOW_MS, 12))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air?lang=en")
        assert page.get_by_role("img", name="The last 24 hours.").count() == 1
        rows = page.get_by_role("table").get_by_role("row")
        assert rows.count() == 26
        assert "simulated data" in rows.nth(20).inner_text()
        assert page.locator(".legend").inner_text().split("\n")[-1].strip() == "simulated data"


def test_measured_day_speaks_of_no_simulation(browser, kiosks):
    kiosk = kiosks["24"]
    kiosk.knows(*good(), points=day_points(NOW_MS))
    with opened(browser, kiosk.panel) as page:
        page.goto(f"{kiosk.address}/air?lang=en")
        assert "simulated" not in page.locator("body").inner_text().lower()


BOXES = """() => [...document.querySelectorAll('.card, .top, .bottom, h1, .button')].map(e => {
  const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height].map(Math.round)})"""
WATCH_VERDICT = """() => { window.said = []; new MutationObserver(() => window.said.push(
  document.getElementById('verdict').textContent)).observe(document.getElementById('verdict'), {childList: true,
  characterData: true, subtree: true}) }"""


@pytest.mark.parametrize("panel", ["24", "24p"])
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
    panel = PANELS["24"]
    context = browser.new_context(viewport={"width": panel.width_px, "height": panel.height_px})
    page = context.new_page()
    page.clock.install()
    with Kiosk("24", tmp_path) as kiosk:
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
            opened(browser, PANELS["24"]) as page,
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
    with opened(browser, kiosks["24"].panel, reduced_motion="reduce") as page:
        page.goto(kiosks["24"].address)
        moving = "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).animationName !== 'none')"
        assert page.evaluate(moving + ".length") == 0
