"""The first screen: what the kiosk can answer, as tiles, the most asked first."""

from __future__ import annotations

from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, every_place


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [Place("/", "home.title", lambda screen: draw(screen, known), parent=None)]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return the first screen."""
    text = screen.words.text
    return screen.choice(tiles(screen, known), f"{text('home.hello')} {text('home.how')}", kind="home")


def tiles(screen: Screen, known: Known) -> list[Key]:
    """Return what the kiosk can answer, in its order."""
    found = []
    shown = [(place.tile, place) for place in every_place(known) if place.tile is not None]
    for tile, place in sorted(shown, key=lambda pair: pair[0].turn):
        answer, band = tile.answer(screen) if tile.answer else ("", None)
        name = screen.words.text(f"home.tile.{place.path.removeprefix('/')}")
        found.append(Key(name, screen.address(place.path), tile.icon, answer, band))
    return found
