"""What is on in the city: each event until the end of its day."""

from __future__ import annotations

from bega_kiosk.content import Event, said
from bega_kiosk.desks import today
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile, place_of_each
from bega_kiosk.words import Words

ACCESS = {"step-free": "ev.access", "steps": "ev.noaccess", "unknown": "ev.noinfo"}


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [
        Place("/events", "ev.title", lambda screen: draw(screen, known), tile=Tile("calendar", 80)),
        place_of_each(known, Event, "/events/{event}", draw_event, "/events", lambda event: event.title),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return what is still to come, the next first."""
    words = screen.words
    coming = sorted(
        (event for event in known.content.every(Event) if today(screen) <= event.starts.date()),
        key=lambda event: event.starts,
    )
    if not coming:
        human = Key(words.text("common.call_human"), screen.address("/human"), "person")
        return screen.answer(words.text("ev.none"), keys=[human])
    keys = [
        Key(
            said(event.title, words.language),
            screen.address(f"/events/{event.id}"),
            "calendar",
            words.day(event.starts.date()),
        )
        for event in coming
    ]
    is_checked = all(event.is_checked(today(screen)) for event in coming)
    return screen.choice(keys, "" if is_checked else words.text("common.example"), kind="list")


def draw_event(screen: Screen, _: Known, event: Event) -> Drawn:
    """Return when and where an event is, what it costs, and whether its entrance has steps."""
    words = screen.words
    time = f"{event.starts.hour}:{event.starts.minute:02d}"
    lines = [
        words.text("ev.where", place=said(event.place, words.language)),
        _price(words, event.price_lei),
        words.text(ACCESS[event.access]),
    ]
    notes = [] if event.is_checked(today(screen)) else [words.text("common.example")]
    date = words.day(event.starts.date()).replace(" ", "\u00a0")  # no line ends within a date
    return screen.answer(words.text("ev.when", date=date, time=time), lines, notes=notes)


def _price(words: Words, price_lei: int | None) -> str:
    if price_lei is None:
        return words.text("ev.price_unknown")
    return words.text("ev.paid", price=words.number(price_lei)) if price_lei else words.text("ev.free")
