"""The air page: a sentence first, then the number, then the day, then what to do."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from markupsafe import Markup

from bega.look.colours import AIR_TINTS
from bega.look.plot import Frame, Ground, Mark, Point, day_svg
from bega_kiosk.air import BAND_COUNT, HOUR_MS, PM2_5_UPPER_UGM3, AirNow, Dust, Verdict, air_now, is_air
from bega_kiosk.content import Area, District
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile
from bega_kiosk.store import HOURS, STEP_S, Sample, Series
from bega_kiosk.words import Words

TOGETHER = {"now": ("now", "dust", "day"), "advice": ("advice",)}  # views of one screen where there is room
PATHS = {"now": "/air", "dust": "/air/dust", "day": "/air/day", "advice": "/air/advice"}
# What kiosk.css leaves for the plot, in mm: beside the rest where there is room, alone where there is not.
PLOT_MM = {"wide": (252.0, 112.0), "tall": (268.0, 130.0), "small": (203.0, 52.0)}
PLOT_ALONE_MM = {"wide": (500.0, 90.0), "tall": (268.0, 160.0), "small": (203.0, 50.0)}
LEGEND_EM = 1.25  # a line of words above the plot, where part of it is simulated
LEAST_PLOT_LINES = 4.5  # of text: a plot that is lower says nothing
LEAST_TOP_UGM3 = 20.0  # a clean day must not look dramatic
GAP_MS = 3 * STEP_S * 1000
TELL_AGE_MS = 5 * 60_000  # a verdict that comes each minute needs no age; a late one does
EVERY_HOURS = 6  # words under the plot


class Day(msgspec.Struct, frozen=True):
    """The last 24 hours: the plot, its highest and lowest value in words, and the hours as rows."""

    plot: Markup | None  # None where there is no room for one
    most: str
    least: str
    is_part_simulated: bool
    is_part_measured: bool
    rows: list[tuple[str, str, str]]


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""

    def place(view: str, path: str) -> Place:
        tile = Tile("wind", 10, lambda screen: _in_short(screen, known)) if view == "now" else None
        parent = "/" if view == "now" else PATHS["now"]
        return Place(path, "air.title", lambda screen: draw(screen, view, known), parent=parent, tile=tile)

    return [place(view, path) for view, path in PATHS.items()]


def draw(screen: Screen, view: str, known: Known) -> Drawn:
    """Return the screen; where there is room it holds every view."""
    air = air_now(known.store, screen.now_ms, known.config.air)
    words, verdict = screen.words, air.verdict
    view = view if not screen.is_roomy or view in TOGETHER else "now"
    views = TOGETHER[view] if screen.is_roomy else (view,)
    values = {
        "is_title_spoken": not screen.panel.is_large,  # the verdict says as much, and needs the room
        "view": view,
        "views": views,
        "ways": [*_ways(screen, view, known)],
        "sentence": sentence(words, verdict),
        "reasons": [*reasons(words, air)],
        "band": verdict.band,
        "bands": range(1, BAND_COUNT + 1),
        "dust": air.dust,
        "dust_number": None if air.dust.value_ugm3 is None else words.concentration(air.dust.value_ugm3),
        "dust_unit": _unit(words, air.dust),
        "dust_age": None if air.dust.age_ms is None else words.ago(air.dust.age_ms),
        "mean": None if air.mean_pm2_5_ugm3 is None else words.number(air.mean_pm2_5_ugm3),
        "day": day(screen, air.day) if "day" in views else None,
        "limit": words.counted("air.limit", known.config.air.live_limit_minutes),
    }
    return Drawn(screen.draw("air.html", values))


def _ways(screen: Screen, view: str, known: Known) -> Iterator[Key]:
    """Yield the other views; where the districts are written down, they take the place of the first view's own key."""
    has_districts = view == "now" and bool(known.content.every(Area)) and bool(known.content.every(District))
    for name, path in PATHS.items():
        if (not screen.is_roomy or name in TOGETHER) and not (name == view and has_districts):
            yield Key(screen.words.text(f"air.view.{name}"), screen.address(path), is_here=name == view)
    if has_districts:
        yield Key(screen.words.text("air.districts"), screen.address("/air/districts"), "town")


def _in_short(screen: Screen, known: Known) -> tuple[str, int | None]:
    verdict = air_now(known.store, screen.now_ms, known.config.air).verdict
    if verdict.band and not screen.is_roomy:
        return screen.words.text(f"air.{verdict.band}.name"), verdict.band
    return sentence(screen.words, verdict), verdict.band


def sentence(words: Words, verdict: Verdict) -> str:
    """Return the verdict in one sentence."""
    return words.text(f"air.{verdict.band or verdict.state}.verdict")


def reasons(words: Words, air: AirNow) -> Iterator[str]:
    """Yield what stands under the verdict: the step of the scale, or why there is none; and what is not real."""
    verdict = air.verdict
    if verdict.state == "known":
        yield words.text("air.step", n=str(verdict.band))
        if verdict.age_ms is not None and verdict.age_ms >= TELL_AGE_MS:
            yield words.text("air.computed", ago=words.ago(verdict.age_ms))
    elif verdict.state == "not_yet":
        yield words.text("air.not_yet.why")
        if verdict.minutes is not None:
            yield words.counted("air.not_yet.have", verdict.minutes)
    elif verdict.age_ms is None:
        yield words.text("air.no_data")
    else:
        yield words.text("air.last", ago=words.ago(verdict.age_ms))
    if verdict.is_simulated or air.dust.is_simulated:
        yield words.text("air.simulated")


def day(screen: Screen, series: Series | None) -> Day | None:
    """Return the last 24 hours, None where there is nothing to show."""
    from_ms = screen.now_ms - HOURS * HOUR_MS
    samples = [] if series is None else [sample for sample in series.samples if from_ms <= sample.time_ms]
    told = [sample for sample in samples if is_air(sample.value) and sample.time_ms <= screen.now_ms]
    if not told:
        return None
    words = screen.words
    most = max(told, key=_value)
    least = min(told, key=_value)
    spoken_most = words.text("air.day.most", value=words.concentration(_value(most)), time=words.time(most.time_ms))
    spoken_least = words.text("air.day.least", value=words.concentration(_value(least)), time=words.time(least.time_ms))
    label = f"{words.text('air.day.title')}. {words.text('air.day.unit')}. {spoken_most} {spoken_least}"
    return Day(
        plot=_plot(screen, told, label),
        most=spoken_most,
        least=spoken_least,
        is_part_simulated=any(sample.is_simulated for sample in told),
        is_part_measured=not all(sample.is_simulated for sample in told),
        rows=[*_rows(screen, told)],
    )


def _plot(screen: Screen, samples: list[Sample], label: str) -> Markup | None:
    words = screen.words
    width_mm, height_mm = (PLOT_MM if screen.is_roomy else PLOT_ALONE_MM)[screen.panel.shape]
    width_px, height_px = width_mm * screen.panel.px_per_mm, height_mm * screen.panel.px_per_mm
    if screen.display.is_reach:
        height_px = min(height_px, screen.panel.height_px * 0.5 - screen.font_px * 5.5)
    if any(sample.is_simulated for sample in samples):
        height_px -= LEGEND_EM * screen.font_px
    if height_px < LEAST_PLOT_LINES * screen.font_px:
        return None
    frame = Frame(
        width_px=width_px,
        height_px=height_px,
        font_px=screen.font_px,
        from_ms=screen.now_ms - HOURS * HOUR_MS,
        to_ms=screen.now_ms,
        gap_ms=GAP_MS,
        least_top=LEAST_TOP_UGM3,
    )
    uppers = (*PM2_5_UPPER_UGM3, float("inf"))
    grounds = [
        Ground(upper, words.text(f"air.{band}.name"), colour)
        for band, (upper, colour) in enumerate(zip(uppers, AIR_TINTS, strict=True), start=1)
    ]
    numbers = [(float(value), words.number(value)) for value in (*PM2_5_UPPER_UGM3, 200, 300, 500)]
    points = [Point(sample.time_ms, sample.value, sample.is_simulated) for sample in samples]
    return Markup(day_svg(points, grounds, [*_marks(screen)], frame, numbers, label))  # noqa: S704 - it escapes texts


def _marks(screen: Screen) -> Iterator[Mark]:
    """Yield the hours to name: whole hours of the local clock, midnight by the word for today."""
    first_ms = (screen.now_ms // HOUR_MS - HOURS + 1) * HOUR_MS
    for time_ms in range(first_ms, screen.now_ms + 1, HOUR_MS):
        hour = screen.words.local(time_ms).hour
        if hour == 0:
            yield Mark(time_ms, screen.words.text("air.day.midnight"), is_strong=True)
        elif hour % EVERY_HOURS == 0:
            yield Mark(time_ms, screen.words.text("air.day.hour", hour=str(hour)))


def _rows(screen: Screen, told: list[Sample]) -> Iterator[tuple[str, str, str]]:
    """Yield each hour as (hour, mean, kind of data), newest first: what the plot shows, for who cannot see it."""
    words = screen.words
    hours: dict[int, list[Sample]] = {}
    for sample in told:
        hours.setdefault(sample.time_ms // HOUR_MS, []).append(sample)
    newest = screen.now_ms // HOUR_MS
    for number in range(newest, newest - HOURS - 1, -1):
        hour = hours.get(number)
        if hour is None:
            yield words.time(number * HOUR_MS), words.text("air.day.no_value"), ""
            continue
        kind = "air.day.simulated" if any(sample.is_simulated for sample in hour) else "air.day.measured"
        mean = sum(map(_value, hour)) / len(hour)
        yield words.time(number * HOUR_MS), words.concentration(mean), words.text(kind)


def _unit(words: Words, dust: Dust) -> str | None:
    if dust.value_ugm3 is None:
        return None
    shown = round(dust.value_ugm3) if dust.value_ugm3 >= 10 else round(dust.value_ugm3, 1)
    return words.counted("unit.ugm3", shown)


def _value(sample: Sample) -> float:
    return sample.value if sample.value is not None else 0.0
