"""The gate itself: what it shows is what is loaded, and each kind of fault is found in each look of each panel."""

import re

import pytest

from bega import look
from bega.look.panels import PANELS
from bega_kiosk.server import STATIC
from tests.kiosk_feed import day_points, index_rows
from tests.kiosk_gate import AXE_OPTIONS, IS_NIGHT, LOOKS, NOW_MS, Gate, Kiosk, looked_at

LOADED = {**AXE_OPTIONS, "preload": True}
BOXES = """() => [...document.body.querySelectorAll('*')].map((e) => {
  const r = e.getBoundingClientRect(); return [e.tagName, r.left, r.top, r.width, r.height].join(' ')})"""
TEXTS, TYPING = "/services", "/report/code"  # a question with things to tap; a field with keys

# What could be wrong with a screen: where, how it is done to it, and what the gate says. Of these the measures say so.
MEASURED = {
    "a line is cut": (
        TEXTS,
        "one('.tile .name').style.cssText = 'width: 2em; overflow: hidden; white-space: nowrap'",
        "cut off",
    ),
    "a line is half cut": (TEXTS, "one('.tile .name').style.cssText = 'height: .6em; overflow: hidden'", "cut off"),
    "a box cuts its text": (
        TEXTS,
        "one('.tiles').style.cssText = 'height: calc(var(--mm) * 9); overflow: clip'",
        "cut off",
    ),
    "text leaves its key": (TEXTS, "one('.tile .name').textContent = 'Donaudampfschiff'.repeat(40)", "out of its box"),
    "text leaves the panel": (TEXTS, "one('h1').style.marginTop = '-4em'", "out of its box"),
    "text lies on text": (
        TEXTS,
        "const [a, b] = all('.tile .name'), r = a.getBoundingClientRect();"
        "b.style.cssText = `position: fixed; left: ${r.left}px; top: ${r.top}px`",
        "on top of each other",
    ),
    "keys lie on each other": (
        TEXTS,
        "const [a, b] = all('.tiles > li'), r = a.getBoundingClientRect();"
        "b.style.cssText = `position: fixed; width: ${r.width}px; left: ${r.left + 9}px; top: ${r.top + 9}px`",
        "keys on top of each other",
    ),
    "a key lies on the field": (TYPING, "one('.doing').style.marginTop = '-60vh'", "keys on top of each other"),
    "a field has no room for a line": (
        TYPING,
        "one('textarea').style.cssText = 'flex: none; min-height: 0; height: calc(var(--mm) * 4)'",
        "no room for a line",
    ),
    "letters are small": (TEXTS, "one('.tile .name').style.fontSize = '0.9rem'", "letters of"),
    "letters are others": (TEXTS, "one('.tile .name').style.fontFamily = 'serif'", "in other letters"),
    "a key is small": (TEXTS, "one('.human').style.cssText = 'min-height: 0; height: calc(var(--mm) * 19)'", "20 mm"),
    "a key leaves the panel": (TEXTS, "one('.human').style.marginRight = '-20vw'", "outside the panel"),
    "the page is too long": (TEXTS, "one('body').style.height = '101vh'", "larger than the panel"),
    "keys come in another turn": (
        TEXTS,
        "const keys = all('.tiles > li'); keys[0].before(keys.at(-1)); keys.at(-1).style.order = 1",
        "comes after",
    ),
    "there is too much to tap": (
        TEXTS,
        "const key = one('.tiles > li'); for (let n = 0; n < 9; n++) key.after(key.cloneNode(true))",
        "more things",
    ),
    "a key is out of reach": (TEXTS, "one('.tiles > li').style.cssText = 'position: fixed; top: 0'", "upper half"),
}
# Of these axe says so, by the rule that is named.
AXED = {
    "letters are pale": (TEXTS, "pale(one('.tile .name'))", "color-contrast-enhanced"),
    "letters are paler still": (TEXTS, "pale(one('.tile .name'), .3)", "color-contrast:"),
    "a key has no name": (TEXTS, "one('.human span').remove()", "link-name"),
    "a field has no name": (TYPING, "one('textarea').removeAttribute('aria-labelledby')", "label"),
    "a picture has no name": (TEXTS, "one('h1').append(new Image())", "image-alt"),
    "the language is not said": (TEXTS, "document.documentElement.lang = ''", "html-has-lang"),
    "there is no heading": (TEXTS, "const p = document.createElement('p'); one('h1').replaceWith(p)", "heading"),
    "text is in no part of the page": (
        TEXTS,
        "const p = document.createElement('p'); p.append('Lorem'); document.body.append(p)",
        "region",
    ),
    "the keyboard is led astray": (TEXTS, "one('.human').tabIndex = 5", "tabindex"),
}
DOING = """const one = (selector) => document.querySelector(selector), all = (s) => [...document.querySelectorAll(s)];
  const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const pale = (text, share = .5) => {
    const ink = parts(getComputedStyle(text).color);
    const card = parts(getComputedStyle(text.closest('.tile')).backgroundColor);
    text.style.color = `rgb(${ink.map((part, at) => Math.round(part * share + card[at] * (1 - share)))})`;
  };"""


@pytest.fixture(scope="module", params=PANELS)
def gate(browser, request, tmp_path_factory):
    with Kiosk(request.param, tmp_path_factory.mktemp("kiosk")) as kiosk:
        kiosk.knows(*index_rows(2, NOW_MS - 60_000), points=day_points(NOW_MS, 12))
        gate = Gate(browser, kiosk)
        yield gate
        gate.close()


def page_of(gate):
    """Return the page but for what is there for who has no script: a tap leaves the head as it is."""
    return re.sub(r"<noscript>.*?</noscript>", "", gate.page.content())


def test_screen_that_is_shown_is_the_one_that_is_loaded(gate):
    paths = gate.kiosk.paths()
    for turn, path in [*enumerate(paths)] if IS_NIGHT else [*enumerate(paths)][:: len(paths) // 4]:
        wanted = looked_at(turn)[turn % len(looked_at(turn))]
        gate.show(wanted.address(path))
        shown = [page_of(gate), *gate.page.evaluate(BOXES)]
        gate.load(wanted.address(path))
        assert [page_of(gate), *gate.page.evaluate(BOXES)] == shown, path
        assert gate.judged(wanted, LOADED) == [], path


def test_dark_changes_colours_alone():
    sheet = (look.STATIC / "look.css").read_text(encoding="utf-8")
    rules = re.findall(r"[^{}]*\.dark[^{}]*\{([^}]*)\}", sheet + (STATIC / "kiosk.css").read_text(encoding="utf-8"))
    assert len(rules) == 1
    assert re.sub(r"--[a-z0-9-]+: #[0-9a-f]{6};|color-scheme: dark;", "", rules[0]).strip() == ""
    assert all(light.is_dark is False for light in LOOKS[: len(LOOKS) // 2])


@pytest.mark.parametrize("faults", [MEASURED, AXED], ids=["measured", "axe"])
def test_each_fault_is_found_in_each_look(gate, faults):
    missed = []
    for turn, (fault, (path, doing, says)) in enumerate(faults.items()):
        for wanted in looked_at(turn + 7 * [*PANELS].index(gate.kiosk.config.kiosk.panel)):
            if fault == "a key is out of reach" and not wanted.is_reach:
                continue
            gate.show(wanted.address(path))
            gate.page.evaluate("(doing) => { %s; eval(doing); }" % DOING, doing)
            found = gate.judged(wanted, AXE_OPTIONS if faults is AXED else None)
            if not any(says in wrong for wrong in found):
                missed.append((fault, wanted.address(path), found))
    assert missed == []
