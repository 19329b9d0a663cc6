"""A human: who is there and until when, if somebody checked the hours; the number, if somebody rang it; and 112."""

from __future__ import annotations

from bega_kiosk.content import Helper, said
from bega_kiosk.desks import hours_line, phone_lines, today
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [Place("/human", "human.title", lambda screen: draw(screen, known))]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return what is known of who can be asked now."""
    text = screen.words.text
    helper = next(iter(known.content.every(Helper)), None)
    lines = [text("human.not_112")]  # before all else: of several parts nobody reads the last in need
    if helper is not None:
        lines += _about(screen, helper)
    numbers = Key(text("human.numbers"), screen.address("/help"), "paper")
    call = Key(text("call.title"), screen.address("/human/call"), "phone")
    return screen.answer(_sentence(screen, helper), lines, [call, numbers])


def _sentence(screen: Screen, helper: Helper | None) -> str:
    words = screen.words
    if helper is None or helper.hours is None or not helper.hours.is_checked(today(screen)):
        return words.text("human.unknown")
    closes = helper.hours.closing(words.local(screen.now_ms))
    if closes is None:
        return words.text("human.closed")
    until = f"{closes.hour}:{closes.minute:02d}"
    return words.text("human.here", name=said(helper.name, words.language), time=until)


def _about(screen: Screen, helper: Helper) -> list[str]:
    words = screen.words
    lines = [hours_line(screen, helper.hours)]
    if helper.place is not None:
        lines.append(words.text("human.place", place=said(helper.place, words.language)))
    return [*lines, *(phone_lines(screen, helper.phone) or [words.text("human.no_number")])]
