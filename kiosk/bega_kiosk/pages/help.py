"""Help: 112, how the kiosk is used, and whom to ring. A number that nobody rang is not shown; 112 always is."""

from __future__ import annotations

from bega_kiosk.content import Line, said
from bega_kiosk.desks import source_line, today
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile, place_of_each


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [
        Place("/help", "help.title", lambda screen: draw(screen, known), tile=Tile("help", 110)),
        Place("/help/112", "em.title", draw_112, parent="/help"),
        Place("/help/how", "help.how", draw_how, parent="/help"),
        place_of_each(
            known,
            Line,
            "/help/number/{line}",
            lambda screen, _, line: draw_line(screen, line),
            "/help",
            lambda line: line.name,
        ),
        Place("/privacy", "priv.title", draw_privacy, parent="/help"),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return what can be asked: danger first, then the kiosk, then everybody who can be rung."""
    text, language = screen.words.text, screen.words.language
    keys = [
        Key(text("help.emergency"), screen.address("/help/112"), "alarm"),
        Key(text("help.how"), screen.address("/help/how"), "help"),
        *(
            Key(said(line.name, language), screen.address(f"/help/number/{line.id}"), "phone")
            for line in known.content.every(Line)
        ),
        Key(text("priv.title"), screen.address("/privacy"), "person"),
    ]
    return screen.choice(keys)


def draw_112(screen: Screen) -> Drawn:
    """Return what to do in danger."""
    text = screen.words.text
    return screen.answer(text("em.call"), [text("em.say"), text("em.nophone"), text("em.kiosk_no")])


def draw_how(screen: Screen) -> Drawn:
    """Return how the kiosk is used."""
    text = screen.words.text
    rules = [text("help.low"), text("help.big"), text("help.lang"), text("help.noaccount"), text("help.mistake")]
    rules.append(text("timeout.after"))
    keys = [
        Key(text("common.easier"), screen.address("/easier"), "letters"),
        Key(text("priv.title"), screen.address("/privacy"), "person"),
    ]
    return screen.answer(text("help.touch"), rules, keys)


def draw_line(screen: Screen, line: Line) -> Drawn:
    """Return a number, or that there is none that somebody checked."""
    text, language = screen.words.text, screen.words.language
    advice = [said(one, language) for one in line.advice]
    if line.phone is None or not line.phone.is_checked(today(screen)):
        keys = [Key(text("common.call_human"), screen.address("/human"), "person")]
        return screen.answer(text("contact.unknown"), advice, keys)
    return screen.answer(line.phone.number, advice, notes=[source_line(screen, line.phone)])


def draw_privacy(screen: Screen) -> Drawn:
    """Return what becomes of what a citizen does here, in three sentences that are true of these pages."""
    text = screen.words.text
    return screen.answer(text("priv.short"), [text("priv.senses"), text("priv.report")])
