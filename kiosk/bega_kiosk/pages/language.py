"""In which language: each by the name that its own speakers give it. It leads back home in that language."""

from __future__ import annotations

from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place
from bega_kiosk.words import LANGUAGES


def places(_: Known) -> list[Place]:
    """Return the screens of this module."""
    return [Place("/language", "language.title", draw)]


def draw(screen: Screen) -> Drawn:
    """Return the languages."""
    to = screen.parent or "/"
    keys = [
        Key(language.name, screen.address(to, language=tag), "globe", is_here=tag == screen.display.language, lang=tag)
        for tag, language in LANGUAGES.items()
    ]
    return screen.choice(keys, kind="languages")
