"""The last hour of one quantity as a picture. Drawn by the server, from the look that the kiosk has."""

from __future__ import annotations

import math

from bega.look.plot import Frame, Mark, Point, day_svg
from bega_gateway.page import words
from bega_gateway.page.recent import STEP_MS, Sample

HOUR_MS = 3_600_000
WIDTH_PX, HEIGHT_PX, FONT_PX = 316.0, 150.0, 14.0  # as wide as a card on a phone of 360 px
LEAST_SHARE = 0.02  # of the value: an axis that shows less would draw noise as mountains
STEPS_OF_TEN = (1.0, 2.0, 5.0, 10.0)


def hour_svg(points: list[Sample], now_ms: int, quantity: str, part: str, gap_ms: int) -> str:
    """Return the picture, '' where nothing was measured in the hour before `now_ms`.

    gap_ms: the line is broken off where nothing was measured for longer than this, and two half minutes.
    """
    shown = [point for point in points if now_ms - HOUR_MS <= point.time_ms <= now_ms]
    if not shown:
        return ""
    least, most = min(point.value for point in shown), max(point.value for point in shown)
    room = max(most - least, LEAST_SHARE * max(abs(least), abs(most)), 1e-9)
    base = least - 0.15 * room
    numbers = _numbers(base, most + 0.15 * room)
    frame = Frame(
        WIDTH_PX, HEIGHT_PX, FONT_PX, now_ms - HOUR_MS, now_ms, gap_ms + 2 * STEP_MS, most + 0.15 * room, base
    )
    marks = [Mark(now_ms - minutes * 60_000, f"−{minutes} min") for minutes in (45, 30, 15)]
    unit = words.unit(quantity)
    label = f"{words.name(quantity, part)}, last hour: {least:.10g} to {most:.10g} {unit}".rstrip()
    if suspect := sum(point.is_suspect for point in shown):
        label += f"; {suspect} of {len(shown)} values are suspect"
    drawn = [Point(point.time_ms, point.value, is_suspect=point.is_suspect) for point in shown]
    return day_svg(drawn, [], marks, frame, numbers, label)


def _numbers(low: float, high: float) -> list[tuple[float, str]]:
    """Return three or four round values between `low` and `high`, with their words."""
    rough = (high - low) / 4
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(ten * share for share in STEPS_OF_TEN if ten * share >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step)
    values = [step * number for number in range(first, first + 6) if step * number <= high]
    return [(value, f"{value + 0.0:.{digits}f}") for value in values]
