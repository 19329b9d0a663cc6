"""Buses and trams from here: who comes next, which lines there are and where they go, how one pays.

"In five minutes" is said only of a vehicle that somebody saw just now; whatever comes from the timetable is a time of
day, and says so.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence

import msgspec

from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.pages.streets import is_fresh
from bega_kiosk.places import Known, Params, Place, Tile
from bega_kiosk.realtime import Alert, Departure
from bega_kiosk.timetable import Line, Stop
from bega_kiosk.transport import Transport
from bega_kiosk.words import MINUTE_MS, Words

MOST_PARTS = 3
BADGE_LETTERS = 7  # room that a line's number takes of a row
LONGEST_BADGE = 5
BOLD = 1.08  # of the width of other letters
BETWEEN_ROWS = {"wide": 0.55, "tall": 0.7, "small": 0.12}  # of a line
MOST_TIMES = 4  # of one line in one direction
MOST_WAY = 12  # names of stops
MOST_ALERTS = 2
OFF = {"cancelled": "tr.cancelled", "skipped": "tr.skipped"}
SAID_OF_LINE = {  # the worst first
    "stopped": "tr.line.stopped",
    "moved": "tr.line.moved",
    "detour": "tr.line.detour",
    "late": "tr.line.late",
    "fewer": "tr.line.fewer",
}
SAID_OF_STOP = {
    "stopped": "tr.stop.stopped",
    "fewer": "tr.stop.fewer",
    "late": "tr.stop.late",
    "detour": "tr.stop.stopped",  # who goes another way does not come here
    "moved": "tr.stop.moved",
}


class Row(msgspec.Struct, frozen=True):
    """One vehicle as a line of the screen, and as it is spoken."""

    badge: str  # "" where the line's name is too long for one
    towards: str
    details: str
    when: str
    also: str  # "" where there is no room, or a note says it for all
    spoken: str
    is_off: bool  # it does not come


def places(known: Known) -> list[Place]:
    """Return the screens of this module; a kiosk of a city without a feed has none."""
    if not known.transport.is_offered:
        return []

    def line_title(words: Words, params: Params) -> str:
        line = _lines(known.transport).get(params["line"])
        return words.text("tr.line", line=line.name) if line else words.text("tr.lines")

    tile = Tile("tramway", 40, lambda screen: (_in_short(screen, known.transport), None))
    return [
        Place("/transport", "tr.next", lambda screen: draw(screen, known), tile=tile),
        Place("/transport/lines", "tr.lines", lambda screen: draw_lines(screen, known), parent="/transport"),
        Place("/transport/ticket", "tr.tickets", draw_ticket, parent="/transport"),
        Place(
            "/transport/line/{line}",
            line_title,
            lambda screen: draw_line(screen, known),
            parent="/transport/lines",
            instances=lambda: [f"/transport/line/{slug}" for slug in _lines(known.transport)],
        ),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return who comes next."""
    transport, words = known.transport, screen.words
    if why := transport.why_unknown(screen.now_ms):
        return screen.answer(words.text("tr.unknown"), [*_unknown(screen, transport, why)], _ways(screen))
    coming = transport.departures(screen.now_ms)
    said = _alerts(screen, known)
    if not coming:
        return screen.answer(words.text("tr.none"), [*said, *_later(screen, transport)], _ways(screen))
    notes = [*said, *_notes(screen, transport, coming)]
    rows = [_row(screen, transport, one, _is_mixed(coming)) for one in coming]
    parts = _parted(screen, rows, notes)
    page = min(screen.page, len(parts))
    keys = _ways(screen)
    if page < len(parts):
        keys = [Key(words.text("common.next"), screen.address(screen.path, page + 1), "arrow"), *keys]
    values = {"rows": parts[page - 1], "keys": keys, "said": said, "notes": notes[len(said) :]}
    values["is_title_spoken"] = not screen.panel.is_large
    return Drawn(screen.draw("departures.html", values, before=page - 1), len(parts))


def draw_lines(screen: Screen, known: Known) -> Drawn:
    """Return the lines that pass here and where they go: known without a clock and without a network."""
    text = screen.words.text
    keys = [
        Key(text("tr.line", line=line.name), screen.address(f"/transport/line/{slug}"), "", _ends(screen, line))
        for slug, line in _lines(known.transport).items()
    ]
    if not keys:
        return screen.answer(text("tr.unknown"), [text("tr.never"), text("tr.else")])
    return screen.choice(keys, text("common.example") if known.transport.is_example else "", kind="list")


def draw_line(screen: Screen, known: Known) -> Drawn:
    """Return where a line goes from here, and when next."""
    transport, text = known.transport, screen.words.text
    line = _lines(transport).get(screen.more["line"])
    if line is None or transport.timetable is None:
        return screen.answer(text("tr.unknown"), [text("tr.never"), text("tr.else")])
    coming = [one for one in transport.departures(screen.now_ms, line=line.id) if one.state == "comes"]
    paragraphs = []
    for towards in line.towards:
        next_ones = [one for one in coming if one.passing.towards == towards]
        paragraphs.append(" ".join([text("tr.goes", towards=towards), *_times(screen, transport, next_ones)]))
        way = transport.timetable.way(line.id, towards)[:-1]
        if way:
            paragraphs.append(text("tr.way", stops=", ".join(_thinned(way))))
    paragraphs = [*_alerts(screen, known, line.id), *paragraphs]
    notes = [*_notes(screen, transport, coming)]
    why = transport.why_unknown(screen.now_ms)
    if why:
        paragraphs += _unknown(screen, transport, why)
        return screen.answer(text("tr.unknown"), paragraphs, notes=notes)
    if not coming:
        return screen.answer(text("tr.none"), paragraphs, notes=notes)
    sentence = text("tr.times", times=_moment(screen, coming[0]))
    return screen.answer(sentence, paragraphs, notes=notes)


def draw_ticket(screen: Screen) -> Drawn:
    """Return how one pays; no price is shown, since nobody has checked one."""
    text = screen.words.text
    lines = [text("tr.ticket_unknown"), text("tr.validate"), text("tr.free")]
    keys = [Key(text("home.tile.services"), screen.address("/services"), "paper")]
    return screen.answer(text("tr.ticket"), lines, keys)


def _ways(screen: Screen) -> list[Key]:
    """Return where to go on to."""
    text = screen.words.text
    return [
        Key(text("tr.lines"), screen.address("/transport/lines"), "tramway"),
        Key(text("tr.tickets"), screen.address("/transport/ticket"), "paper"),
    ]


def _row(screen: Screen, transport: Transport, one: Departure, is_mixed: bool) -> Row:
    words, passing = screen.words, one.passing
    time = words.time(one.time_ms)
    details = [*_where(words, transport, passing.stop)]
    if one.is_step_free is not None:
        details.append(words.text("tr.low_floor" if one.is_step_free else "tr.steps"))
    towards = words.text("tr.line_to", line=passing.name, towards=passing.towards)
    is_small = not screen.panel.is_large
    if one.state != "comes":
        when, also = words.text(OFF[one.state]), words.text("tr.at", time=time)
        details = [also, *details] if is_small else details
    elif one.is_real:
        when, also = _in_minutes(screen, one.time_ms), words.text("tr.at", time=time)
    else:
        when = words.text("tr.around" if passing.is_about else "tr.at", time=time)
        also = words.text("tr.plan") if is_mixed else ""
    is_badge = len(passing.name) <= LONGEST_BADGE
    return Row(
        badge=passing.name if is_badge else "",
        towards=passing.towards if is_badge else towards,
        details=", ".join(details),
        when=when,
        also="" if is_small else also,
        spoken=", ".join(dict.fromkeys([towards, when, *([also] if also else []), *details])) + ".",
        is_off=one.state != "comes",
    )


def _in_minutes(screen: Screen, time_ms: int) -> str:
    minutes = (time_ms - screen.now_ms) // MINUTE_MS  # who runs for the tram must not be promised more than there is
    return screen.words.counted("tr.in_min", minutes) if minutes >= 1 else screen.words.text("tr.now")


def _moment(screen: Screen, one: Departure) -> str:
    return _in_minutes(screen, one.time_ms) if one.is_real else screen.words.time(one.time_ms)


def _is_mixed(coming: Sequence[Departure]) -> bool:
    return len({one.is_real for one in coming}) > 1


def _notes(screen: Screen, transport: Transport, coming: Sequence[Departure]) -> Iterator[str]:
    """Yield whether times are real, how old they are, and whose."""
    words = screen.words
    age_ms = transport.live_age_ms(screen.now_ms)
    if coming and age_ms is not None and any(one.is_real for one in coming):
        yield words.text("tr.mixed" if _is_mixed(coming) else "tr.real", ago=words.ago(age_ms))
        if not screen.panel.is_large:
            return  # a row more is worth more than whose timetable it is; that stands where there are no minutes
    elif coming:
        yield words.text("tr.not_real")
    if transport.is_example:
        yield words.text("common.example")
    elif transport.timetable is not None and transport.timetable.until_day is not None:
        day = words.day(transport.timetable.until_day)
        yield words.text("tr.source", source=transport.timetable.publisher, day=day)


def _later(screen: Screen, transport: Transport) -> Iterator[str]:
    """Yield who comes first when the night is over."""
    words = screen.words
    first = transport.first_later(screen.now_ms)
    if first is None:
        yield words.text("tr.else")
        return
    day, time = words.near_date(first.planned_ms), words.time(first.planned_ms)
    line = words.text("tr.line_to", line=first.name, towards=first.towards)
    yield words.text("tr.first", day=day, time=time)
    yield f"{line}."
    yield from _notes(screen, transport, [])


def _unknown(screen: Screen, transport: Transport, why: str) -> Iterator[str]:
    words = screen.words
    until_day, age_ms = transport.is_over_on(), transport.age_ms(screen.now_ms)
    from_day = transport.timetable.from_day if transport.timetable else None
    if why == "early" and from_day is not None:
        yield words.text("tr.early", day=words.day(from_day))
    elif why == "over" and until_day is not None:
        yield words.text("tr.over", day=words.day(until_day))
    elif why == "stale" and age_ms is not None:
        yield words.text("tr.stale", ago=words.ago(age_ms))
    else:
        yield words.text("tr.clock" if why == "clock" else "tr.never")
    yield words.text("tr.else")


def _alerts(screen: Screen, known: Known, of: str = "") -> list[str]:
    """Return what is wrong now, from the operator's alerts and from the city's notices of detours; the worst first.

    With the id of a line, only what concerns whoever wants to go with that.
    """
    transport, text = known.transport, screen.words.text
    names = {line.id: line.name for line in _lines(transport).values() if of in ("", line.id)}
    alerts = [alert for alert in transport.alerts_now(screen.now_ms) if not alert.line or alert.line in names]
    alerts.sort(key=lambda alert: [*SAID_OF_LINE].index(alert.kind))
    found = [_alert(screen, transport, alert, names) for alert in alerts]
    if not transport.is_example and is_fresh(screen, known):
        for notice in known.notices.every():
            if notice.effect == "transport_detour" and notice.is_now(screen.now_ms):
                here = [name for name in names.values() if name in notice.lines]
                found += [text("tr.line.detour", line=name) for name in here]
    return [*dict.fromkeys(found)][: MOST_ALERTS if screen.panel.is_large else 1]


def _alert(screen: Screen, transport: Transport, alert: Alert, names: dict[str, str]) -> str:
    text = screen.words.text
    if not alert.line:
        said = text(SAID_OF_STOP[alert.kind])
    elif alert.stop and alert.kind == "stopped":
        said = text("tr.line.passes", line=names[alert.line])
    else:
        said = text(SAID_OF_LINE[alert.kind], line=names[alert.line])
    stops = transport.timetable.stops if transport.timetable else []
    there = [stop for stop in stops if alert.stop in ("", stop.id, stop.station)]
    if not there or len(there) == len(stops):
        return said
    # "Nothing stops here" would be said of the platforms where somebody does.
    place = ", ".join(_where(screen.words, transport, there[0]))
    return f"{place[:1].upper()}{place[1:]}: {said}" if place else said


def _where(words: Words, transport: Transport, stop: Stop) -> Iterator[str]:
    """Yield what tells a stop here from the others: its name, its platform, or nothing where it is the only one."""
    stops = transport.timetable.stops if transport.timetable else []
    if len({one.name for one in stops}) > 1:
        yield stop.name
    if stop.platform and len({one.platform for one in stops if one.name == stop.name}) > 1:
        yield words.text("tr.platform", platform=stop.platform)


def _times(screen: Screen, transport: Transport, coming: Sequence[Departure]) -> Iterator[str]:
    """Yield the next times of a line at each stop here, as in "De la peronul A: 13:25, 13:40."."""
    words = screen.words
    for stop in dict.fromkeys(one.passing.stop for one in coming):
        next_ones = [one for one in coming if one.passing.stop == stop][:MOST_TIMES]
        times = ", ".join(dict.fromkeys(_moment(screen, one) for one in next_ones))
        where = [*_where(words, transport, stop)]
        if where == [words.text("tr.platform", platform=stop.platform)]:
            yield words.text("tr.times_from", platform=stop.platform, times=times)
        elif where:
            yield f"{', '.join(where)}: {times}."
        else:
            yield words.text("tr.times", times=times)


def _ends(screen: Screen, line: Line) -> str:
    return ", ".join(line.towards[:2])


def _thinned(way: list[str]) -> list[str]:
    """Return at most a dozen stops of a way, the last among them, none twice in a row."""
    names = [name for turn, name in enumerate(way) if turn == 0 or way[turn - 1] != name]
    if len(names) <= MOST_WAY:
        return names
    step = (len(names) - 1) / (MOST_WAY - 1)
    return [names[round(turn * step)] for turn in range(MOST_WAY)]


def _in_short(screen: Screen, transport: Transport) -> str:
    """Return the next vehicle, for the first screen."""
    words = screen.words
    if not screen.panel.is_large or transport.is_example:
        return ""  # no room below a name of two lines; none to say that it is an example
    if transport.why_unknown(screen.now_ms):
        return words.text("tr.unknown")
    coming = next((one for one in transport.departures(screen.now_ms, most=MOST_TIMES) if one.state == "comes"), None)
    if coming is None:
        return words.text("tr.none")
    return words.text("tr.short", line=coming.passing.name[:12], time=words.time(coming.time_ms))


def _parted(screen: Screen, rows: Sequence[Row], notes: Sequence[str]) -> list[list[Row]]:
    """Return the rows of each part of the screen, as many as fit."""
    has_title = screen.panel.is_large and not screen.has_title_on_top
    room = screen.lines_for(_ways(screen), notes, has_title)
    parts: list[list[Row]] = [[]]
    left = room
    for row in rows:
        needed = _height(screen, row)
        if parts[-1] and (needed > left or len(parts[-1]) >= screen.panel.most_things()):
            if len(parts) == MOST_PARTS:
                break
            parts.append([])
            left = room
        parts[-1].append(row)
        left -= needed
    return parts


def _height(screen: Screen, row: Row) -> float:
    """Return how many lines of text a row takes: what is beside each other may need two."""
    when = max(len(row.when) * BOLD, len(row.also))
    letters = max(8.0, screen.letters_a_line - BADGE_LETTERS - when)
    towards = len(row.towards) * BOLD
    lines = math.ceil((towards + len(row.details) + 2) / letters) if row.details else math.ceil(towards / letters)
    return max(lines, 1 + bool(row.also)) + BETWEEN_ROWS[screen.panel.shape]


def _lines(transport: Transport) -> dict[str, Line]:
    """Return the lines that pass here, by what stands in an address."""
    found: dict[str, Line] = {}
    for line in transport.timetable.lines if transport.timetable else []:
        spread = unicodedata.normalize("NFKD", line.name.casefold())
        slug = "".join(letter for letter in spread if letter.isascii() and letter.isalnum()) or "x"
        turn = 1
        while (name := slug if turn == 1 else f"{slug}-{turn}") in found:
            turn += 1
        found[name] = line
    return found
