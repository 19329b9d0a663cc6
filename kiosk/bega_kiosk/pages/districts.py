"""The air by district: a schematic map of areas, an area with its districts in the same places, and a list in words.

Six areas of six districts each: what one screen of any panel may offer, so that each district is three choices from
home. Nothing is told by its colour alone: a step of the scale has its digit, as many bars, and its word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bega_kiosk.air import BAND_COUNT, AirNow, air_at
from bega_kiosk.content import Area, District, said
from bega_kiosk.desks import today
from bega_kiosk.pages.air import reasons, sentence
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, place_of_each
from bega_kiosk.words import Words

COLUMNS = 3  # of areas on the map, and of districts in an area
LONGEST_SHORT = 24  # letters of a verdict with its number that a tile of a small panel has room for
NAMES_A_LINE = 8  # a paragraph must not be longer than a screen


def places(known: Known) -> list[Place]:
    """Return the screens of this module; they have no address where no district is written down."""

    def alone(path: str) -> list[str]:
        is_there = bool(known.content.every(Area)) and bool(known.content.every(District))
        return [path] if is_there else []

    return [
        Place(
            "/air/districts",
            "air.districts.title",
            lambda screen: draw(screen, known),
            parent="/air",
            instances=lambda: alone("/air/districts"),
        ),
        Place(
            "/air/list",
            "air.districts.title",
            lambda screen: draw_list(screen, known),
            parent="/air/districts",
            instances=lambda: alone("/air/list"),
        ),
        place_of_each(known, Area, "/air/area/{area}", draw_area, "/air/districts", lambda area: area.name),
        place_of_each(
            known, District, "/air/district/{district}", draw_district, "/air/districts", lambda district: district.name
        ),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return the map: each area with its districts as cells, to be tapped."""
    text = screen.words.text
    keys = []
    for area in known.content.every(Area):
        bands = [_air(screen, known, district).verdict.band for district in _of(known, area)]
        worst = max((band for band in bands if band), default=None)
        answer = text("air.area.worst", band=text(f"air.{worst}.name")) if worst else text("air.district.unknown")
        address = screen.address(f"/air/area/{area.id}")
        picture = cells([worst], "lone") if _is_narrow(screen) else cells(bands)
        keys.append(Key(said(area.name, screen.words.language), address, "", answer, worst, picture=picture))
    if screen.panel.is_large:
        keys.append(Key(text("air.list"), screen.address("/air/list"), "paper"))
    intro = [_example(screen, known)] + ([_legend(screen.words)] if screen.is_roomy else [])
    said_too = {"every": [*_lines(screen, known)]}
    return screen.choice(keys, " ".join(filter(None, intro)), "map", said_too, "map.html")


def draw_area(screen: Screen, known: Known, area: Area) -> Drawn:
    """Return the districts of an area, each with its verdict and its number, and how old the oldest is."""
    keys, ages = [], []
    for district in _of(known, area):
        air = _air(screen, known, district)
        ages += [air.dust.age_ms] if air.dust.value_ugm3 is not None and air.dust.age_ms is not None else []
        name = said(district.name, screen.words.language)
        address = screen.address(f"/air/district/{district.id}")
        answer, band = in_short(screen.words, air), air.verdict.band
        if band and len(answer) > LONGEST_SHORT and not screen.panel.is_large:
            answer = screen.words.text(f"air.{band}.name")
        keys.append(Key(name, address, "", answer, band, picture=cells([band], "lone")))
    intro = [screen.words.text("air.area.oldest", ago=screen.words.ago(max(ages)))] if ages else []
    example = _example(screen, known)
    if not screen.panel.is_large:
        intro = [] if _is_narrow(screen) else intro
        example = example.partition(" ")[0]  # the word itself: a line is what there is room for
    return screen.choice(keys, " ".join(filter(None, [*intro, example])), "map area")


def draw_district(screen: Screen, known: Known, district: District) -> Drawn:
    """Return what is known of the air of a district: verdict, number, age, what to do."""
    air, text = _air(screen, known, district), screen.words.text
    lines = [" ".join(reasons(screen.words, air))] if district.places else [text("air.district.none")]
    lines += [*_dust_lines(screen.words, air, screen.panel.is_large)]
    if band := air.verdict.band:
        lines.append(f"{text('air.for_all')}: {text(f'air.{band}.all')}")
        lines.append(f"{text('air.for_sensitive')}: {text(f'air.{band}.sensitive')}")
    keys = [
        Key(text("air.list"), screen.address("/air/list"), "paper"),
        Key(text("air.districts.other"), screen.address(f"/air/area/{district.area}"), "town"),
    ]
    return screen.answer(sentence(screen.words, air.verdict), lines, keys, _notes(screen, known))


def draw_list(screen: Screen, known: Known) -> Drawn:
    """Return all of it in words, what is known first."""
    text = screen.words.text
    lines = [*_lines(screen, known)]
    count = sum(air.verdict.band is not None for _, air in _every(screen, known))
    first = screen.words.counted("air.list.known", count) if count else text("air.unknown.verdict")
    return screen.answer(first, lines, notes=_notes(screen, known))


def in_short(words: Words, air: AirNow) -> str:
    """Return a verdict in a word, with the number."""
    if air.verdict.band is None:
        return words.text("air.district.not_yet" if air.verdict.state == "not_yet" else "air.district.unknown")
    name = words.text(f"air.{air.verdict.band}.name")
    if air.dust.value_ugm3 is None:
        return name
    return words.text("air.district.short", band=name, value=words.concentration(air.dust.value_ugm3))


def cells(bands: Sequence[int | None], kind: str = "") -> Markup:
    """Return districts as cells of a drawing, three in a row: the step of each as a digit, as bars and as a colour.

    Places and sizes are shares of the drawing, so that its letters keep the size that the style gives them.
    """
    rows = math.ceil(len(bands) / COLUMNS)
    columns = min(len(bands), COLUMNS)
    drawn = []
    for at, band in enumerate(bands):
        x, y = at % columns * 100 / columns, at // columns * 100 / rows
        bars = "".join(
            f'<rect class="bar" x="{42 + 8 * step}%" y="{70 - 9 * step}%" width="5.5%" height="{13 + 9 * step}%"/>'
            for step in range(band or 0)
        )
        drawn.append(
            f'<svg x="{x:.2f}%" y="{y:.2f}%" width="{100 / columns:.2f}%" height="{100 / rows:.2f}%">'
            f'<rect class="cell cell-{band or 0}" x="3%" y="4%" width="94%" height="92%"/>'
            f'<text x="{24 if band else 50}%" y="50%">{band or "?"}</text>{bars}</svg>'
        )
    return Markup(f'<svg class="cells {kind}" aria-hidden="true" focusable="false">{"".join(drawn)}</svg>')  # noqa: S704


def _lines(screen: Screen, known: Known) -> Iterator[str]:
    """Yield each district that is known in a line, the worst first, then the names of all others."""
    words = screen.words
    found = [*_every(screen, known)]
    told = [(district, air) for district, air in found if air.verdict.state != "unknown"]
    for district, air in sorted(told, key=lambda pair: -(pair[1].verdict.band or 0)):
        line = f"{said(district.name, words.language)}: {in_short(words, air)}"
        yield line + (f", {words.ago(air.dust.age_ms)}." if air.dust.age_ms is not None else ".")
    others = [said(district.name, words.language) for district, air in found if air.verdict.state == "unknown"]
    for at in range(0, len(others), NAMES_A_LINE):
        yield words.text("air.list.unknown", names=", ".join(others[at : at + NAMES_A_LINE]))


def _dust_lines(words: Words, air: AirNow, is_whole: bool) -> Iterator[str]:
    dust = air.dust
    if dust.value_ugm3 is None or dust.age_ms is None:
        return
    shown = round(dust.value_ugm3) if dust.value_ugm3 >= 10 else round(dust.value_ugm3, 1)
    value = f"{words.number(shown)} {words.counted('unit.ugm3', shown)}"
    yield words.text("air.district.dust", dust=words.text("air.dust"), value=value, ago=words.ago(dust.age_ms))
    if dust.place and is_whole:
        yield f"{words.text('air.where')} {dust.place}."


def _is_narrow(screen: Screen) -> bool:
    """Return whether a tile has no room for a map of its own."""
    return screen.display.is_reach or (screen.display.is_larger and not screen.panel.is_large)


def _legend(words: Words) -> str:
    steps = {str(band): words.text(f"air.{band}.name") for band in range(1, BAND_COUNT + 1)}
    steps["?"] = words.text("air.district.unknown")
    return " · ".join(f"{sign} {name}".replace(" ", "\u00a0") for sign, name in steps.items())


def _example(screen: Screen, known: Known) -> str:
    """Return the word that marks districts which nobody of the city has checked, "" where all are."""
    facts = [*known.content.every(Area), *known.content.every(District)]
    is_checked = all(fact.is_checked(today(screen)) for fact in facts)
    return "" if is_checked else screen.words.text("common.example")


def _notes(screen: Screen, known: Known) -> list[str]:
    return [note for note in [_example(screen, known)] if note]


def _every(screen: Screen, known: Known) -> list[tuple[District, AirNow]]:
    return [
        (district, _air(screen, known, district)) for area in known.content.every(Area) for district in _of(known, area)
    ]


def _air(screen: Screen, known: Known, district: District) -> AirNow:
    return air_at(known.store, screen.now_ms, known.config.air, district.places)


def _of(known: Known, area: Area) -> list[District]:
    return [district for district in known.content.every(District) if district.area == area.id]
