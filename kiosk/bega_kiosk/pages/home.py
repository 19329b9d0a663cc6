"""The first page: what the kiosk can answer, as tiles. Only what works is there; the grid holds eight."""

from __future__ import annotations

from dataclasses import dataclass

from bega_kiosk.air import AirNow
from bega_kiosk.pages.air import sentence
from bega_kiosk.pages.screen import Screen


@dataclass(frozen=True)
class Tile:
    """A way on: its name's key, its icon, where it leads, and its answer in a few words."""

    key: str
    icon: str
    path: str
    answer: str
    band: int | None = None  # the European Air Quality Index, where the answer is one


def draw_home(screen: Screen, air: AirNow) -> str:
    """Return the page."""
    return screen.draw("home.html", {"tiles": tiles(screen, air)})


def tiles(screen: Screen, air: AirNow) -> list[Tile]:
    """Return what the kiosk can answer today, the most asked first; never more than the panel holds."""
    every = [Tile("home.tile.air", "wind", "/air", sentence(screen.words, air.verdict), air.verdict.band)]
    return every[: screen.panel.most_things]
