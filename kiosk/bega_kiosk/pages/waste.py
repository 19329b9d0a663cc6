"""Waste: what goes where, the collection points, and the day of one's own street where it is known."""

from __future__ import annotations

from bega_kiosk.content import DAYS, Collection, Point, Thing, said
from bega_kiosk.desks import hours_line, today
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile, place_of_each


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [
        Place("/waste", "waste.ask", lambda screen: draw(screen, known), tile=Tile("bin", 50)),
        Place("/waste/day", "waste.day", lambda screen: draw_streets(screen, known), parent="/waste"),
        place_of_each(known, Collection, "/waste/day/{one}", draw_day, "/waste/day", lambda one: one.street),
        Place("/waste/points", "waste.points", lambda screen: draw_points(screen, known), parent="/waste"),
        place_of_each(known, Thing, "/waste/thing/{thing}", draw_thing, "/waste", lambda thing: thing.name),
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


def draw_day(screen: Screen, _: Known, one: Collection) -> Drawn:
    """Return the days of a street, if somebody checked them: a bin that stands out on the wrong day may be fined."""
    if not one.is_checked(today(screen)):
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


def draw_thing(screen: Screen, _: Known, thing: Thing) -> Drawn:
    """Return where one kind of waste goes."""
    text, language = screen.words.text, screen.words.language
    notes = [] if thing.is_checked(today(screen)) else [text("waste.example")]
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
