"""Screens by their real size: what a millimetre, a finger and a readable letter are in pixels.

Sizes follow EN 301 549 V3.2.1, 5.1.4 (a capital H of at least 0.7 degrees at the stated distance) and Colle & Hiszem
2004 (keys of at least 20 mm). A page that fits 24 inches does not fit 10: a panel is also a layout.
"""

from __future__ import annotations

import math
from typing import NamedTuple

CAP_DEGREES = 0.7
CAP_PER_EM = 0.668  # Atkinson Hyperlegible Next: OS/2 sCapHeight 668 of 1000 units
TARGET_MM = 20.0
NEAREST_MM = 300  # nobody stands nearer


LARGER = 1.18  # large text, by the usual one


class Panel(NamedTuple):
    """A screen as it hangs: pixels, diagonal, and how far off its reader may stand."""

    name: str
    width_px: int
    height_px: int
    diagonal_in: float
    farthest_mm: int  # the distance that the layout is made for; farther, its letters would not fit the screen
    shape: str  # "wide", "tall" or "small": a layout of its own each
    columns: int  # of tiles
    rows: int

    @property
    def is_large(self) -> bool:
        """Return whether a question and its answers fit on one page; on a small one each has its own."""
        return self.shape != "small"

    @property
    def px_per_mm(self) -> float:
        """Return CSS pixels in a millimetre (one CSS pixel is one of the panel's)."""
        return math.hypot(self.width_px, self.height_px) / (self.diagonal_in * 25.4)

    def font_px(self, distance_mm: float, is_larger: bool = False) -> float:
        """Return the size of the smallest text, in pixels, for a reader `distance_mm` away."""
        size_px = cap_height_mm(distance_mm) * self.px_per_mm / CAP_PER_EM
        return size_px * LARGER if is_larger else size_px

    def most_things(self, is_larger: bool = False) -> int:
        """Return how many things one screen may offer: EN 301 549 asks for sizes, older readers for few of them."""
        columns = 2 if is_larger and not self.is_large else self.columns
        return columns * self.rows


PANELS = {
    "24": Panel("24", 1920, 1080, 24.0, farthest_mm=600, shape="wide", columns=4, rows=2),
    "24p": Panel("24p", 1080, 1920, 24.0, farthest_mm=600, shape="tall", columns=2, rows=4),
    "10": Panel("10", 1280, 800, 10.1, farthest_mm=400, shape="small", columns=3, rows=2),
}


def cap_height_mm(distance_mm: float, degrees: float = CAP_DEGREES) -> float:
    """Return the height that a capital H must have to be seen under `degrees` (EN 301 549, 5.1.4)."""
    return degrees * math.pi * distance_mm / 180


def cap_arcminutes(cap_mm: float, distance_mm: float) -> float:
    """Return the angle under which a capital of `cap_mm` is seen; 16 is the least, 20 to 22 is comfort (ISO 9241-3)."""
    return cap_mm * 180 / (math.pi * distance_mm) * 60


def panel_css(panel: Panel, distance_mm: float) -> str:
    """Return the custom properties that look.css builds on: a millimetre, and the smallest text as 1rem.

    On the panel itself they are what they say. In a narrower window (the same page on a laptop) everything shrinks
    alike, down to half, so that a developer sees the layout that the panel shows.
    """
    return (
        f":root {{ --mm: {_at_most(panel.px_per_mm, panel)}; "
        f"font-size: {_at_most(panel.font_px(distance_mm), panel)}; "
        f"--screen-height: {_at_most(panel.height_px, panel)}; }}\n"
        f":root.larger {{ font-size: {_at_most(panel.font_px(distance_mm, is_larger=True), panel)}; }}\n"
    )


def _at_most(size_px: float, panel: Panel) -> str:
    return f"clamp({size_px / 2:.4f}px, {100 * size_px / panel.width_px:.6f}vw, {size_px:.4f}px)"
