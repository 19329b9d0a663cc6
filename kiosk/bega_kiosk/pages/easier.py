"""What makes it easier: larger letters, other colours, keys in the lower half. Gone when the reader goes."""

from __future__ import annotations

from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place


def places(_: Known) -> list[Place]:
    """Return the screens of this module."""
    return [Place("/easier", "easier.title", draw)]


def draw(screen: Screen) -> Drawn:
    """Return what can be changed: each key says what it will be."""
    now, text = screen.display, screen.words.text
    keys = [
        Key(
            text("easier.normal" if now.is_larger else "easier.large"),
            screen.address("/easier", is_larger=not now.is_larger),
            "letters",
        ),
        Key(
            text("easier.light" if now.is_dark else "easier.dark"),
            screen.address("/easier", is_dark=not now.is_dark),
            "contrast",
        ),
        Key(
            text("easier.whole" if now.is_reach else "easier.reach"),
            screen.address("/easier", is_reach=not now.is_reach),
            "lower",
        ),
    ]
    return screen.choice(keys, text("easier.saved"))
