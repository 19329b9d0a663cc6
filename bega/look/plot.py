"""A day as a picture: a line over time, grounds of meaning behind it, words at the axes. SVG, drawn by the server.

Nothing is left to the browser: no script, no style attribute (so that a strict content security policy holds), sizes
in the pixels of the panel that shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

LINE_HEIGHT = 1.2
LETTER_EM, LETTER_EM_CYRILLIC = 0.5, 0.6  # a letter's share of its size, in our two fonts
CAPITAL_EM = 0.25  # and what a wide capital takes beyond that


class Point(NamedTuple):
    """A value at a moment; None where there is none.

    is_simulated: nobody measured it. is_suspect: a ring is drawn around it.
    """

    time_ms: int
    value: float | None
    is_simulated: bool = False
    is_suspect: bool = False


class Ground(NamedTuple):
    """A range of values that mean the same: from the one below up to `upper`, in words and a colour."""

    upper: float
    words: str
    colour: str


class Mark(NamedTuple):
    """Words under a moment of the axis; `is_strong` also draws a line up through the plot (midnight)."""

    time_ms: int
    words: str
    is_strong: bool = False


class Frame(NamedTuple):
    """What the plot is drawn into: pixels, the size of its letters, and the time it spans."""

    width_px: float
    height_px: float
    font_px: float
    from_ms: int
    to_ms: int
    gap_ms: int  # two points farther apart than this are not joined
    least_top: float = 0.0  # the value axis reaches at least this
    base: float = 0.0  # where the value axis begins


def day_svg(
    points: Sequence[Point],
    grounds: Sequence[Ground],
    marks: Sequence[Mark],
    frame: Frame,
    number: Sequence[tuple[float, str]],
    label: str,
) -> str:
    """Return the plot as an `<svg role="img">` element.

    `number` pairs each value worth naming on the axis with its words; `label` is the text for who cannot see.
    Measured stretches have the class `line`, simulated ones `line simulated`.
    """
    inside = _Inside(frame, grounds, points, number)
    body = [
        *_grounds(grounds, inside),
        *_numbers(number, inside),
        *_marks(marks, inside),
        *_lines(points, inside),
    ]
    size = f'width="{frame.width_px:.0f}" height="{frame.height_px:.0f}"'
    view = f'viewBox="0 0 {frame.width_px:.0f} {frame.height_px:.0f}"'
    head = f'<svg class="plot" role="img" aria-label="{escape(label)}" {size} {view} font-size="{frame.font_px:.1f}">'
    return "\n".join([head, *body, "</svg>"])


class _Inside:
    """Where things are: the rectangle inside the axes, and values and moments as pixels."""

    def __init__(
        self, frame: Frame, grounds: Sequence[Ground], points: Sequence[Point], number: Sequence[tuple[float, str]]
    ) -> None:
        self.frame = frame
        self.top_value = _top_value(points, grounds, frame)
        letters = max((len(words) for value, words in number if value <= self.top_value), default=0)
        self.left = frame.font_px * (0.62 * letters + 0.35)
        words_em = max((_width_em(ground.words) for ground in _shown(grounds, self.top_value)), default=0.0)
        self.right = frame.width_px - frame.font_px * (words_em + 0.75)
        self.top = frame.font_px * 0.55
        self.bottom = frame.height_px - frame.font_px * 1.5

    def x(self, time_ms: int) -> float:
        share = (time_ms - self.frame.from_ms) / (self.frame.to_ms - self.frame.from_ms)
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        base = self.frame.base
        share = (min(max(value, base), self.top_value) - base) / (self.top_value - base)
        return self.bottom - share * (self.bottom - self.top)

    def holds(self, time_ms: int) -> bool:
        return self.frame.from_ms <= time_ms <= self.frame.to_ms


def _width_em(words: str) -> float:
    letter_em = LETTER_EM_CYRILLIC if any("\u0400" <= letter <= "\u04ff" for letter in words) else LETTER_EM
    return len(words) * letter_em + CAPITAL_EM


def _top_value(points: Sequence[Point], grounds: Sequence[Ground], frame: Frame) -> float:
    """Return a top with a little air above the highest point, and never one that cuts a thin strip of a ground."""
    highest = max((point.value for point in points if point.value is not None), default=frame.base)
    top = max(frame.least_top, frame.base + (highest - frame.base) * 1.12)
    for ground in grounds:
        if ground.upper < top < ground.upper * 1.15:
            return ground.upper * 1.15
    return top if top > frame.base else frame.base + 1.0


def _grounds(grounds: Sequence[Ground], inside: _Inside) -> list[str]:
    drawn = []
    lower = inside.frame.base
    for ground in _shown(grounds, inside.top_value):
        upper = min(ground.upper, inside.top_value)
        top, bottom = inside.y(upper), inside.y(lower)
        drawn.append(
            f'<rect x="{inside.left:.1f}" y="{top:.1f}" width="{inside.right - inside.left:.1f}" '
            f'height="{bottom - top:.1f}" fill="{ground.colour}"/>'
        )
        if bottom - top >= inside.frame.font_px * LINE_HEIGHT:
            middle = (top + bottom) / 2 + inside.frame.font_px * 0.34
            drawn.append(
                f'<text class="ground" x="{inside.right + inside.frame.font_px * 0.55:.1f}" y="{middle:.1f}">'
                f"{escape(ground.words)}</text>"
            )
        lower = ground.upper
    return drawn


def _shown(grounds: Sequence[Ground], top_value: float) -> list[Ground]:
    """Return the grounds that begin below the top."""
    lowers = (0.0, *(ground.upper for ground in grounds))
    return [ground for ground, lower in zip(grounds, lowers, strict=False) if lower < top_value]


def _numbers(number: Sequence[tuple[float, str]], inside: _Inside) -> list[str]:
    """Values at the left edge, lowest first; one that would touch the one below is left out."""
    drawn = []
    last_y = inside.bottom + inside.frame.font_px * LINE_HEIGHT
    for value, words in sorted(number):
        y = inside.y(value)
        if not inside.frame.base <= value <= inside.top_value or last_y - y < inside.frame.font_px * LINE_HEIGHT:
            continue
        last_y = y
        x = inside.left - inside.frame.font_px * 0.3
        drawn.append(
            f'<text x="{x:.1f}" y="{y + inside.frame.font_px * 0.34:.1f}" text-anchor="end">{escape(words)}</text>'
        )
    return drawn


def _marks(marks: Sequence[Mark], inside: _Inside) -> list[str]:
    font_px = inside.frame.font_px
    drawn = [
        f'<line class="axis" x1="{inside.left:.1f}" y1="{inside.bottom:.1f}" x2="{inside.right:.1f}" '
        f'y2="{inside.bottom:.1f}"/>'
    ]
    free_from = 0.0
    for mark in marks:
        if not inside.holds(mark.time_ms):
            continue
        x = inside.x(mark.time_ms)
        if mark.is_strong:
            drawn.append(
                f'<line class="axis strong" x1="{x:.1f}" y1="{inside.top:.1f}" x2="{x:.1f}" y2="{inside.bottom:.1f}"/>'
            )
        drawn.append(
            f'<line class="axis" x1="{x:.1f}" y1="{inside.bottom:.1f}" x2="{x:.1f}" '
            f'y2="{inside.bottom + font_px * 0.2:.1f}"/>'
        )
        half = len(mark.words) * font_px * 0.29
        if x - half < free_from or x + half > inside.frame.width_px:
            continue
        free_from = x + half + font_px * 0.4
        drawn.append(
            f'<text x="{x:.1f}" y="{inside.bottom + font_px * 1.15:.1f}" text-anchor="middle">'
            f"{escape(mark.words)}</text>"
        )
    return drawn


def _lines(points: Sequence[Point], inside: _Inside) -> list[str]:
    """One polyline a stretch: it ends at a gap, and where measured and simulated meet."""
    within = [point for point in points if point.value is not None and inside.holds(point.time_ms)]
    stretches: list[list[Point]] = []
    for point in within:
        last = stretches[-1][-1] if stretches else None
        if last is None or point.time_ms - last.time_ms > inside.frame.gap_ms:
            stretches.append([point])
        elif last.is_simulated != point.is_simulated:
            stretches.append([Point(last.time_ms, last.value, point.is_simulated), point])
        else:
            stretches[-1].append(point)
    drawn = [_line(stretch, inside) for stretch in stretches]
    drawn += [
        f'<circle class="suspect" cx="{inside.x(point.time_ms):.1f}" cy="{inside.y(point.value or 0.0):.1f}" r="2.5"/>'
        for point in within
        if point.is_suspect
    ]
    if within:
        last = within[-1]
        drawn.append(
            f'<circle class="now" cx="{inside.x(last.time_ms):.1f}" cy="{inside.y(last.value or 0.0):.1f}" '
            f'r="{inside.frame.font_px * 0.24:.1f}"/>'
        )
    return drawn


def _line(stretch: list[Point], inside: _Inside) -> str:
    name = "line simulated" if stretch[-1].is_simulated else "line"
    if len(stretch) == 1:  # a lone value would be a line without length
        only = stretch[0]
        return f'<circle class="lone" cx="{inside.x(only.time_ms):.1f}" cy="{inside.y(only.value or 0.0):.1f}" r="4"/>'
    where = " ".join(f"{inside.x(point.time_ms):.1f},{inside.y(point.value or 0.0):.1f}" for point in stretch)
    return f'<polyline class="{name}" points="{where}"/>'
