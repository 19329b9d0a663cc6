"""A human: for now, that in danger the number is 112. Who is there, and until when, comes with the records."""

from __future__ import annotations

from bega_kiosk.pages.screen import Drawn, Screen
from bega_kiosk.places import Known, Place


def places(_: Known) -> list[Place]:
    """Return the screens of this module."""
    return [Place("/human", "human.title", draw)]


def draw(screen: Screen) -> Drawn:
    """Return what is true already."""
    text = screen.words.text
    return screen.answer(text("contact.unknown"), [text("human.not_112")])
