"""Waste: what goes where, the collection points, and the day of one's own street where it is known."""

from __future__ import annotations

from bega_kiosk.content import DAYS, Collection, Point, Thing, said
from bega_kiosk.desks import hours_line, today
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Params, Place, Tile
from bega_kiosk.words import Words


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""

    def name(words: Words, params: Params) -> str:
        thing = known.content.find(Thing, params["thing"])
        return said(thing.name, words.language) if thing else ""

    def street(words: Words, params: Params) -> str:
        one = known.content.find(Collection, params["street"])
        return said(one.street, words.language) if one else ""

    return [
        Place("/waste", "waste.ask", lambda screen: draw(screen, known), tile=Tile("bin", 50)),
        Place("/waste/day", "waste.day", lambda screen: draw_streets(screen, known), parent="/waste"),
        Place(
            "/waste/day/{street}",
            street,
            lambda screen: draw_day(screen, known),
            parent="/waste/day",
            instances=lambda: [f"/waste/day/{one.id}" for one in known.content.every(Collection)],
        ),
        Place("/waste/points", "waste.points", lambda screen: draw_points(screen, known), parent="/waste"),
        Place(
            "/waste/thing/{thing}",
            name,
            lambda screen: draw_thing(screen, known),
            parent="/waste",
            instances=lambda: [f"/waste/thing/{thing.id}" for thing in known.content.every(Thing)],
        ),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return what can be thrown away, after the two questions that most people come with."""
    text, language = screen.words.text, screen.words.language
    keys = [
        Key(text("waste.day"), screen.address("/waste/day"), "clock"),
        Key(text("waste.points"), screen.address("/waste/points"), "pin"),
        *(
            Key(said(thing.name, language), screen.address(f"/waste/thing/{thing.id}"))
            for thing in known.content.every(Thing)
        ),
    ]
    return screen.choice(keys)


def draw_streets(screen: Screen, known: Known) -> Drawn:
    """Return the streets whose day is known."""
    text, language = screen.words.text, screen.words.language
    keys = [
        Key(said(one.street, language), screen.address(f"/waste/day/{one.id}"))
        for one in sorted(known.content.every(Collection), key=lambda one: said(one.street, language))
    ]
    return screen.choice(keys, text("waste.street")) if keys else _unknown(screen)


def draw_day(screen: Screen, known: Known) -> Drawn:
    """Return the days of a street, if somebody checked them: a bin that stands out on the wrong day may be fined."""
    one = known.content.find(Collection, screen.more["street"])
    if one is None or not one.is_checked(today(screen)):
        return _unknown(screen)
    numbers = sorted(DAYS.index(day) for day in set(one.days))
    days = ", ".join(screen.words.weekdays(number, number) for number in numbers)
    return screen.answer(screen.words.text("waste.when", days=days))


def draw_points(screen: Screen, known: Known) -> Drawn:
    """Return the collection points with their hours."""
    text = screen.words.text
    points = known.content.every(Point)
    if not points:
        return screen.answer(text("waste.points_unknown"), keys=[_human(screen)])
    is_whole = all(point.is_checked(today(screen)) for point in points)
    lines = [_point_line(screen, point) for point in points]
    if not any(_has_hours(screen, point) for point in points):
        lines.append(text("contact.hours_unknown"))
    return screen.answer(text("waste.what"), lines, notes=[] if is_whole else [text("common.example")])


def draw_thing(screen: Screen, known: Known) -> Drawn:
    """Return where one kind of waste goes."""
    thing = known.content.find(Thing, screen.more["thing"])
    assert thing is not None, "the server asks for no other"
    text, language = screen.words.text, screen.words.language
    notes = [] if thing.is_checked(today(screen)) else [text("waste.colors_check")]
    keys = [Key(text("waste.points"), screen.address("/waste/points"))]
    return screen.answer(said(thing.where, language), [said(one, language) for one in thing.advice], keys, notes)


def _point_line(screen: Screen, point: Point) -> str:
    address = f"{said(point.address, screen.words.language)}."
    return f"{address} {hours_line(screen, point.hours)}" if _has_hours(screen, point) else address


def _has_hours(screen: Screen, point: Point) -> bool:
    return point.hours is not None and point.hours.is_checked(today(screen))


def _unknown(screen: Screen) -> Drawn:
    return screen.answer(screen.words.text("waste.when_unknown"), keys=[_human(screen)])


def _human(screen: Screen) -> Key:
    return Key(screen.words.text("common.call_human"), screen.address("/human"), "person")
