"""Have your say: what city hall asks now, and how the participatory budget goes. Nobody votes at the kiosk."""

from __future__ import annotations

from bega_kiosk.content import Consultation, said
from bega_kiosk.desks import today
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile, place_of_each


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [
        Place("/participate", "part.title", lambda screen: draw(screen, known), tile=Tile("voice", 90)),
        Place("/participate/budget", "bp.title", draw_budget, parent="/participate"),
        place_of_each(
            known, Consultation, "/participate/about/{one}", draw_consultation, "/participate", lambda one: one.title
        ),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return what is open to be answered."""
    text, language = screen.words.text, screen.words.language
    asked = [one for one in known.content.every(Consultation) if today(screen) <= one.until]
    keys = [Key(said(one.title, language), screen.address(f"/participate/about/{one.id}"), "voice") for one in asked]
    example = [] if all(one.is_checked(today(screen)) for one in asked) else [text("common.example")]
    budget = Key(text("bp.title"), screen.address("/participate/budget"), "coins")
    return screen.choice([*keys, budget], " ".join([*example, text("part.intro")]))


def draw_consultation(screen: Screen, _: Known, one: Consultation) -> Drawn:
    """Return what a consultation is about, what would change, and until when an opinion is heard."""
    words = screen.words
    lines = [said(about, words.language) for about in one.about]
    lines += [words.text("part.changes", change=said(change, words.language)) for change in one.changes]
    notes = [] if one.is_checked(today(screen)) else [words.text("common.example")]
    until = words.text("part.until", date=words.day(one.until))
    return screen.answer(until, [*lines, words.text("part.how")], [_human(screen)], notes)


def draw_budget(screen: Screen) -> Drawn:
    """Return how the participatory budget goes; this year's rules are not known, so no way to vote is promised."""
    text = screen.words.text
    steps = [text("bp.propose"), text("bp.check"), text("bp.vote"), text("bp.build")]
    lines = [*steps, text("bp.unknown"), text("bp.human")]
    return screen.answer(text("bp.intro"), lines, [_human(screen)], [text("bp.example")])


def _human(screen: Screen) -> Key:
    return Key(screen.words.text("common.call_human"), screen.address("/human"), "person")
