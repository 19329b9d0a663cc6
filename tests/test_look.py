"""The look: colours that can be told apart, sizes that can be seen and hit, a plot that says what it shows."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega import look
from bega.look import colours, panels
from bega.look.plot import Frame, Ground, Mark, Point, day_svg

SHEET = (look.STATIC / "look.css").read_text(encoding="utf-8")
GROUNDS = [Ground(5, "good", "#0f0"), Ground(15, "fair", "#ff0"), Ground(float("inf"), "poor", "#f00")]
HOUR_MS = 3_600_000
FRAME = Frame(1000, 300, 40, from_ms=0, to_ms=24 * HOUR_MS, gap_ms=HOUR_MS, least_top=20)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(points, marks=(), numbers=((5.0, "5"), (15.0, "15"), (50.0, "50")), label="a day"):
    svg = day_svg(points, GROUNDS, marks, FRAME, numbers, label)
    return ElementTree.fromstring(svg)


def of_kind(root, tag, name=None):
    return [element for element in root.iter(tag) if name is None or element.get("class") == name]


@pytest.mark.parametrize("ground", [colours.PAPER, colours.CARD, colours.UNKNOWN, *colours.AIR_TINTS])
def test_ink_is_readable_on_every_ground(ground):
    assert colours.contrast(colours.INK, ground) >= 7


@pytest.mark.parametrize("ground", [colours.PAPER, colours.CARD])
def test_quiet_text_is_readable_on_page_and_card(ground):
    assert colours.contrast(colours.QUIET, ground) >= 7


def test_text_on_the_accent_is_readable():
    assert colours.contrast(colours.ON_ACCENT, colours.ACCENT) >= 7


@pytest.mark.parametrize("mark", [colours.EDGE, colours.FOCUS, colours.ACCENT])
@pytest.mark.parametrize("ground", [colours.PAPER, colours.CARD])
def test_edges_focus_and_lines_stand_out(mark, ground):
    assert colours.contrast(mark, ground) >= 3


@pytest.mark.parametrize("tint", colours.AIR_TINTS)
def test_the_line_of_a_plot_stands_out_on_every_band(tint):
    assert colours.contrast(colours.ACCENT, tint) >= 3


def test_contrast_has_the_ends_that_wcag_gives_it():
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colours.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # WebAIM's well-known near miss


def test_style_sheet_has_the_colours_of_the_module():
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", part)) for part in SHEET.split("html.dark {"))
    names = ("PAPER", "CARD", "INK", "QUIET", "EDGE", "ACCENT", "ON_ACCENT", "FOCUS", "UNKNOWN")
    expected = {name.lower().replace("_", "-"): getattr(colours, name) for name in names}
    expected |= {f"air-{band}": colour for band, colour in enumerate(colours.AIR_BANDS, start=1)}
    expected |= {f"air-tint-{band}": colour for band, colour in enumerate(colours.AIR_TINTS, start=1)}
    assert light == expected
    assert dark == colours.DARK | {f"air-tint-{n}": colour for n, colour in enumerate(colours.DARK_AIR_TINTS, start=1)}


@pytest.mark.parametrize("ground", ["paper", "card", "unknown"])
def test_by_night_text_is_readable_on_every_ground_and_edges_stand_out(ground):
    dark = colours.DARK
    assert all(colours.contrast(dark[text], dark[ground]) >= 7 for text in ("ink", "quiet"))
    assert all(colours.contrast(dark[edge], dark[ground]) >= 3 for edge in ("edge", "focus", "accent"))
    assert colours.contrast(dark["on-accent"], dark["accent"]) >= 7


@pytest.mark.parametrize("tint", colours.DARK_AIR_TINTS)
def test_by_night_text_and_line_stand_out_on_every_band(tint):
    assert colours.contrast(colours.DARK["ink"], tint) >= 7


def test_fonts_of_the_style_sheet_are_there_with_their_licence():
    fonts = re.findall(r'url\("(fonts/[^"]+)"\)', SHEET)
    assert len(fonts) == 3
    for font in fonts:
        assert (look.STATIC / font).read_bytes()[:4] == b"wOF2"
    assert "SIL OPEN FONT LICENSE Version 1.1" in (look.STATIC / "fonts" / "OFL.txt").read_text(encoding="utf-8")


def test_nothing_is_set_smaller_than_the_smallest_text():
    sizes = re.findall(r"font-size: ([0-9.]+)(rem|em|px)", SHEET)
    assert all(unit == "rem" and float(size) >= 1 for size, unit in sizes)


# EN 301 549 V3.2.1, 5.1.4: psi = 180 H / (pi D)
@pytest.mark.parametrize(("distance_mm", "cap_mm"), [(400, 4.9), (500, 6.1), (600, 7.3)])
def test_capitals_are_as_tall_as_the_standard_says(distance_mm, cap_mm):
    assert panels.cap_height_mm(distance_mm) == pytest.approx(cap_mm, abs=0.05)


@pytest.mark.parametrize(("name", "px_per_mm"), [("24", 3.61), ("10", 5.88)])
def test_panel_knows_its_millimetre(name, px_per_mm):
    assert panels.PANELS[name].px_per_mm == pytest.approx(px_per_mm, abs=0.01)


@pytest.mark.parametrize("panel", panels.PANELS.values(), ids=lambda panel: panel.name)
def test_smallest_text_can_still_be_read_from_a_metre(panel):
    cap_mm = panels.cap_height_mm(panel.farthest_mm)
    assert panels.cap_arcminutes(cap_mm, 1000) >= 16  # the least of ISO 9241-3


def test_panel_css_says_the_figures():
    css = panels.panel_css(panels.PANELS["24"], 600)
    assert re.search(r"font-size: clamp\([^)]* 39\.65\d\dpx\)", css)
    assert re.search(r"--mm: clamp\([^)]* 3\.613\dpx\)", css)


def test_plot_has_a_text_for_who_cannot_see_and_no_style_of_its_own():
    root = drawn([Point(0, 3.0), Point(HOUR_MS // 2, 4.0)], label='a "day" & <more>')
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'a "day" & <more>'
    assert not [element for element in root.iter() if element.get("style")]


def test_plot_breaks_its_line_where_nothing_was_measured():
    points = [Point(0, 3.0), Point(HOUR_MS, 3.0), Point(5 * HOUR_MS, 3.0), Point(6 * HOUR_MS, 3.0)]
    assert len(of_kind(drawn(points), "polyline")) == 2


def test_plot_breaks_its_line_at_a_value_that_is_none():
    points = [Point(hour * HOUR_MS, None if hour in (2, 3) else 3.0) for hour in range(6)]
    assert len(of_kind(drawn(points), "polyline")) == 2


def test_plot_draws_simulated_stretches_differently_and_joins_them():
    points = [Point(hour * HOUR_MS, 3.0, is_simulated=hour < 3) for hour in range(6)]
    simulated, measured = of_kind(drawn(points), "polyline")
    assert (simulated.get("class"), measured.get("class")) == ("line simulated", "line")
    assert simulated.get("points").split()[-1] == measured.get("points").split()[0]


def test_plot_shows_a_lone_value():
    assert of_kind(drawn([Point(HOUR_MS, 3.0)]), "circle", "lone")


def test_plot_of_nothing_still_has_its_axes():
    assert of_kind(drawn([]), "line", "axis")


def test_plot_shows_only_the_grounds_that_are_reached():
    assert len(of_kind(drawn([Point(0, 3.0), Point(HOUR_MS, 4.0)]), "rect")) == 3  # up to 20, its least top
    words = [text.text for text in of_kind(drawn([Point(0, 100.0), Point(HOUR_MS, 4.0)]), "text", "ground")]
    assert words == ["poor"]  # the others are too thin for a word


def test_plot_writes_a_word_only_where_it_fits():
    marks = [Mark(hour * HOUR_MS, f"hour {hour}") for hour in range(25)]
    texts = [text for text in of_kind(drawn([], marks), "text") if (text.text or "").startswith("hour")]
    places = [float(text.get("x")) for text in texts]
    assert len(texts) >= 4
    assert all(right - left > 40 * 0.29 * 6 for left, right in pairwise(places))


VALUES = st.one_of(st.none(), st.floats(0, 1e6))


@given(values=st.lists(st.tuples(st.integers(-HOUR_MS, 26 * HOUR_MS), VALUES, st.booleans()), max_size=60))
def test_any_day_stays_inside_its_frame(values):
    points = [Point(time_ms, value, simulated) for time_ms, value, simulated in sorted(values, key=lambda row: row[0])]
    root = drawn(points, [Mark(12 * HOUR_MS, "noon", is_strong=True)])
    for line in of_kind(root, "polyline"):
        for pair in line.get("points").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= FRAME.width_px
            assert 0 <= y <= FRAME.height_px
    for rect in of_kind(root, "rect"):
        assert float(rect.get("height")) >= 0
