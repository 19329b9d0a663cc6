"""Curves as SVG, for figures that people would rather look at than read. No script, no style sheet.

`bega/look/plot.py` draws a day of air on a kiosk's panel; here x is any number, and there are several curves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH_PX, HEIGHT_PX, FONT_PX = 720, 360, 14
LEFT, RIGHT, TOP, BOTTOM = 90, 40, 40, 50
NAME_PX = 20  # from one curve's name to the next
COLOURS = ("#0b5394", "#b45f06", "#38761d", "#741b47")  # dark on white, and apart for who sees no red and green
MARKS = 5
ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12)


class Series(NamedTuple):
    """One curve: points in order of x."""

    words: str
    points: Sequence[tuple[float, float]]


def plot(title: str, series: Sequence[Series], x_words: str, y_words: str) -> str:
    """Return a whole SVG document with all curves over one pair of axes that begin at 0."""
    x_step = _step(max((x for one in series for x, _ in one.points), default=0.0))
    y_step = _step(max((y for one in series for _, y in one.points), default=0.0))
    right, top = MARKS * x_step, MARKS * y_step

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / right * (WIDTH_PX - LEFT - RIGHT),
            HEIGHT_PX - BOTTOM - y / top * (HEIGHT_PX - TOP - BOTTOM),
        )

    body = [_text(LEFT, TOP - 16, title, "start", "bold")]
    for mark in range(MARKS + 1):
        x, y = place(x_step * mark, y_step * mark)
        body.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH_PX - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(_text(LEFT - 8, y + 5, _number(y_step * mark), "end"))
        body.append(_text(x, HEIGHT_PX - BOTTOM + 18, _number(x_step * mark), "middle"))
    body.append(_text((LEFT + WIDTH_PX - RIGHT) / 2, HEIGHT_PX - 10, x_words, "middle"))
    body.append(_text(WIDTH_PX - RIGHT, TOP - 16, y_words, "end"))
    drawn = [[place(x, y) for x, y in one.points] for one in series]
    names_y = _names_y([one.words for one in series], [point for points in drawn for point in points])
    for index, (one, points) in enumerate(zip(series, drawn, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(_text(LEFT + 12, names_y + NAME_PX * index, one.words, "start", "bold", colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{HEIGHT_PX}" role="img"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    font = f'aria-label="{escape(title)}" font-family="sans-serif" font-size="{FONT_PX}">'
    return "\n".join([f"{head} {font}", ground, *body, "</svg>\n"])


def _names_y(names: Sequence[str], points: Sequence[tuple[float, float]]) -> float:
    """Return where the first name of a curve stands: above, or below where fewer points lie under the names."""
    right = LEFT + 24 + FONT_PX * 0.7 * max(map(len, names), default=0)

    def covered(first_y: float) -> int:
        over, under = first_y - NAME_PX, first_y + NAME_PX * len(names)
        return sum(x < right and over < y < under for x, y in points)

    return min((TOP + 18, HEIGHT_PX - BOTTOM - 12 - NAME_PX * (len(names) - 1)), key=covered)


def _text(x: float, y: float, words: str, anchor: str, weight: str = "normal", colour: str = "#222") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f"<text {where}>{escape(words)}</text>"


def _step(highest: float) -> float:
    """Return the least round number of which MARKS reach `highest`."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest / MARKS))
    return next(factor * power for factor in ROUND if MARKS * factor * power >= highest)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"
