"""A desk in words: where it is, and its number and hours if a person has asked whether they are so."""

from __future__ import annotations

from datetime import date

from bega_kiosk.content import DAYS, Desk, Fact, Hours, Opening, Phone, said
from bega_kiosk.pages.screen import Screen
from bega_kiosk.words import Words


def today(screen: Screen) -> date:
    """Return the day of the clock on the wall."""
    return screen.words.local(screen.now_ms).date()


def where_lines(screen: Screen, desk: Desk) -> list[str]:
    """Return where a desk is and when somebody is there; what is not checked is said to be so."""
    words = screen.words
    name, address = said(desk.name, words.language), said(desk.address, words.language)
    return [
        f"{name}. {words.text('contact.address', address=address)}",  # never on two screens
        hours_line(screen, desk.hours),
        *phone_lines(screen, desk.phone),
    ]


def hours_line(screen: Screen, hours: Hours | None) -> str:
    """Return the opening hours, or that we have none which somebody checked."""
    if hours is None or not hours.is_checked(today(screen)):
        return screen.words.text("contact.hours_unknown")
    return screen.words.text("contact.hours", hours="; ".join(_span(screen.words, one) for one in hours.open))


def phone_lines(screen: Screen, phone: Phone | None) -> list[str]:
    """Return the number, or nothing: a number that nobody rang is not shown."""
    if phone is None or not phone.is_checked(today(screen)):
        return []
    return [screen.words.text("contact.phone", phone=phone.number)]


def source_line(screen: Screen, fact: Fact) -> str:
    """Return where a thing was read, and when."""
    return screen.words.text(
        "common.source", source=fact.source, date=screen.words.day(fact.checked_on or fact.seen_on)
    )


def _span(words: Words, one: Opening) -> str:
    """Return some hours, as in "luni–vineri, 8:00–16:00"."""
    days = sorted(DAYS.index(day) for day in set(one.days))
    runs: list[tuple[int, int]] = []
    for day in days:
        if runs and runs[-1][1] == day - 1:
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    named = ", ".join(words.weekdays(first, last) for first, last in runs)
    opens, closes = (f"{moment.hour}:{moment.minute:02d}" for moment in (one.opens, one.closes))
    return words.text("contact.span", days=named, opens=opens, closes=closes)
