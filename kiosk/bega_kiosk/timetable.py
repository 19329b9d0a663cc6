"""What a timetable says of the stops here: who comes when, on which day, and where it goes.

Spec: GTFS Schedule reference. A service day begins twelve hours before its noon (Field Types, Time), so that times are
right in the two nights a year when the clocks change; it may last into the next days (25:10:00).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec

from bega_kiosk.gtfs import MOST_HOURS
from bega_kiosk.prepared import SHAPE, as_day, prepare_into

log = logging.getLogger("bega.kiosk.transport")

DAYS_BACK = MOST_HOURS // 24  # whose vehicles may still be on their way
LOOK_AHEAD_DAYS = 14
DAYS_KEPT = 32


class Stop(msgspec.Struct, frozen=True):
    """A platform that the kiosk is at."""

    id: str
    name: str
    platform: str  # what stands on its sign, "" where nothing does
    station: str = ""  # the id of the one it is of, "" where it is of none


class Line(msgspec.Struct, frozen=True):
    """A line that passes here, and where one can go with it, the most frequent way first."""

    id: str
    name: str
    towards: tuple[str, ...]


class Passing(msgspec.Struct, frozen=True):
    """A vehicle at a stop, as the timetable has it."""

    trip: str
    day: date  # of its service
    start_s: int | None  # when its trip begins, where trips are told apart by that (frequencies.txt)
    sequence: int
    stop: Stop
    line: str  # its id
    name: str  # of the line
    towards: str
    planned_ms: int
    is_about: bool  # somebody comes every few minutes, and not on the minute
    is_step_free: bool | None


class Call(msgspec.Struct, frozen=True):
    """A stop of a trip, in seconds of its service day."""

    sequence: int
    stop: str
    arrives_s: int
    departs_s: int


class Timetable:
    """A timetable that was prepared (prepared.py)."""

    def __init__(self, file: sqlite3.Connection) -> None:
        """Read what is asked for often; raises sqlite3.Error, ValueError or KeyError if the file is none of ours."""
        self._file = file
        meta = dict(file.execute("SELECT key, value FROM meta"))
        if meta["shape"] != str(SHAPE):
            raise ValueError("made by another version")
        self.wanted = meta["stops"].split("\n")
        self.publisher = str(meta["publisher"])
        self.zone = ZoneInfo(meta["zone"])
        self.left_out = str(meta["left_out"])
        self._services = [
            (service, weekdays, date.fromisoformat(begins), date.fromisoformat(ends))
            for service, weekdays, begins, ends in file.execute("SELECT id, weekdays, from_day, until_day FROM service")
        ]
        self._stops = {
            number: Stop(*stop)
            for number, *stop in file.execute(
                "SELECT number, id, name, platform, station FROM stop WHERE turn IS NOT NULL ORDER BY turn"
            )
        }
        self.agencies = frozenset(meta["agencies"].split("\n"))  # whose lines pass here
        first, last = self._days_of_services()
        said_first, said_last = as_day(meta["from_day"]), as_day(meta["until_day"])
        self.from_day = said_first or first
        self.until_day = min(said_last, last) if said_last and last else last
        self._running: dict[date, frozenset[str]] = {}

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    @property
    def stops(self) -> list[Stop]:
        """Return the platforms here, in the order of the configuration."""
        return [*self._stops.values()]

    def covers(self, day: date) -> bool:
        """Return whether the timetable speaks of this day."""
        return self.from_day is not None and self.until_day is not None and self.from_day <= day <= self.until_day

    @cached_property
    def lines(self) -> list[Line]:
        """Return the lines that take people here, in the order that a person expects: 2 before 10."""
        found: dict[str, tuple[str, list[str]]] = {}
        for line, name, towards, _ in self._file.execute(
            "SELECT line.id, line.name, coalesce(nullif(call.towards, ''), trip.towards) AS to_, count(*) FROM call "
            "JOIN trip ON trip.number = call.trip JOIN line ON line.id = trip.line "
            "JOIN stop ON stop.number = call.stop WHERE stop.turn IS NOT NULL AND call.takes_people "
            "GROUP BY 1, 2, 3 ORDER BY 4 DESC, 3"
        ):
            found.setdefault(line, (name, []))[1].append(towards)
        lines = [Line(line, name, tuple(towards)) for line, (name, towards) in found.items()]
        return sorted(lines, key=lambda line: (_number(line.name), line.name, line.id))

    def way(self, line: str, towards: str) -> list[str]:
        """Return the names of the stops after this one, of the trip that is here nearest to noon."""
        row = self._file.execute(
            "SELECT call.trip, call.sequence FROM call JOIN trip ON trip.number = call.trip "
            "JOIN stop ON stop.number = call.stop WHERE stop.turn IS NOT NULL AND call.takes_people "
            "AND trip.line = ? AND coalesce(nullif(call.towards, ''), trip.towards) = ? "
            "ORDER BY abs(call.departs_s - 43200), call.trip LIMIT 1",
            (line, towards),
        ).fetchone()
        if row is None:
            return []
        names = self._file.execute(
            "SELECT stop.name FROM call JOIN stop ON stop.number = call.stop WHERE trip = ? AND sequence > ? "
            "ORDER BY sequence",
            row,
        )
        return [name for (name,) in names]

    def calls(self, trip: str) -> list[Call]:
        """Return all stops of a trip in their order; none of a trip that does not pass here."""
        rows = self._file.execute(
            "SELECT sequence, stop.id, arrives_s, departs_s FROM call JOIN stop ON stop.number = call.stop "
            "JOIN trip ON trip.number = call.trip WHERE trip.id = ? ORDER BY sequence",
            (trip,),
        )
        return [Call(*row) for row in rows]

    def has_trip(self, trip: str) -> bool:
        """Return whether a trip passes here on some day."""
        return self._file.execute("SELECT 1 FROM trip WHERE id = ?", (trip,)).fetchone() is not None

    def passings(self, from_ms: int, until_ms: int) -> list[Passing]:
        """Return who is planned to leave from here in this time, the first first."""
        first = self._local(from_ms).date() - timedelta(days=DAYS_BACK)
        last = self._local(until_ms).date() + timedelta(days=1)  # before the clocks go forward it begins an hour early
        found = [
            passing
            for number in range((last - first).days + 1)
            for passing in self._of_day(first + timedelta(days=number), from_ms, until_ms)
        ]
        return sorted(found, key=lambda passing: (passing.planned_ms, _number(passing.name), passing.trip))

    def next_passing(self, after_ms: int) -> Passing | None:
        """Return the first who comes after `after_ms`, within two weeks."""
        for number in range(LOOK_AHEAD_DAYS):
            from_ms = after_ms + number * 86_400_000
            if found := self.passings(from_ms, from_ms + 86_400_000):
                return found[0]
        return None

    def begin_ms(self, day: date) -> int:
        """Return when a service day begins: twelve hours before its noon."""
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=self.zone)
        return round(noon.timestamp() * 1000) - 12 * 3_600_000

    def runs(self, service: str, day: date) -> bool:
        """Return whether a service runs on a day."""
        return service in self._running_on(day)

    def _of_day(self, day: date, from_ms: int, until_ms: int) -> Iterator[Passing]:
        begin_ms = self.begin_ms(day)
        # Times are whole seconds: of a moment within one, the next is the first to come.
        from_s, until_s = -((begin_ms - from_ms) // 1000), (until_ms - begin_ms) // 1000
        running = self._running_on(day)
        if not running or until_s < 0 or from_s > MOST_HOURS * 3600:
            return
        # CROSS JOIN: in this order; without statistics SQLite begins with the trips, and reads all of them.
        rows = self._file.execute(
            "SELECT trip.id, service, sequence, stop.number, line.id, line.name, "
            "coalesce(nullif(call.towards, ''), trip.towards), departs_s, step_free FROM stop "
            "CROSS JOIN call ON call.stop = stop.number CROSS JOIN trip ON trip.number = call.trip "
            "CROSS JOIN line ON line.id = trip.line WHERE stop.turn IS NOT NULL AND takes_people AND NOT is_frequent "
            "AND departs_s BETWEEN ? AND ?",
            (from_s, until_s),
        )
        for trip, service, sequence, stop, line, name, towards, departs_s, access in rows:
            if service in running:
                yield Passing(
                    trip=trip,
                    day=day,
                    start_s=None,
                    sequence=sequence,
                    stop=self._stops[stop],
                    line=line,
                    name=name,
                    towards=towards,
                    planned_ms=begin_ms + departs_s * 1000,
                    is_about=False,
                    is_step_free=None if access is None else bool(access),
                )
        yield from self._frequent(day, running, from_s, until_s)

    def _frequent(self, day: date, running: frozenset[str], from_s: int, until_s: int) -> Iterator[Passing]:
        """Yield trips that are given by how often they go (frequencies.txt)."""
        begin_ms = self.begin_ms(day)
        rows = self._file.execute(
            "SELECT trip.id, service, sequence, stop.number, line.id, line.name, "
            "coalesce(nullif(call.towards, ''), trip.towards), step_free, from_s, until_s, every_s, is_exact, "
            "departs_s - (SELECT departs_s FROM call c WHERE c.trip = trip.number ORDER BY sequence LIMIT 1) "
            "FROM frequency CROSS JOIN trip ON trip.number = frequency.trip CROSS JOIN call ON call.trip = trip.number "
            "CROSS JOIN stop ON stop.number = call.stop CROSS JOIN line ON line.id = trip.line "
            "WHERE stop.turn IS NOT NULL AND takes_people"
        )
        for trip, service, sequence, stop, line, name, towards, access, begins, ends, every, is_exact, later in rows:
            if service not in running:
                continue
            first = max(0, -((begins + later - from_s) // every))
            for start_s in range(begins + first * every, min(ends, until_s - later + 1), every):
                yield Passing(
                    trip=trip,
                    day=day,
                    start_s=start_s,
                    sequence=sequence,
                    stop=self._stops[stop],
                    line=line,
                    name=name,
                    towards=towards,
                    planned_ms=begin_ms + (start_s + later) * 1000,
                    is_about=not is_exact,
                    is_step_free=None if access is None else bool(access),
                )

    def _running_on(self, day: date) -> frozenset[str]:
        if day not in self._running:
            if len(self._running) > DAYS_KEPT:
                self._running.clear()
            running = {
                service
                for service, weekdays, begins, ends in self._services
                if begins <= day <= ends and weekdays[day.weekday()] == "1"
            }
            # A city may write every day of every service down: they stay in the file.
            said = self._file.execute("SELECT service, is_added FROM exception WHERE day = ?", (day.isoformat(),))
            exceptions = dict(said.fetchall())
            running |= {service for service, is_added in exceptions.items() if is_added}
            running -= {service for service, is_added in exceptions.items() if not is_added}
            self._running[day] = frozenset(running)
        return self._running[day]

    def _days_of_services(self) -> tuple[date | None, date | None]:
        """Return from when until when services are written down; one without a day of the week has its exceptions."""
        weekly = [days for _, weekdays, *days in self._services if "1" in weekdays]
        bounds = self._file.execute("SELECT min(day), max(day) FROM exception WHERE is_added").fetchone()
        added = [date.fromisoformat(day) for day in bounds if day]
        first = min([begins for begins, _ in weekly] + added, default=None)
        return first, max([ends for _, ends in weekly] + added, default=None)

    def _local(self, at_ms: int) -> datetime:
        return datetime.fromtimestamp(at_ms / 1000, self.zone)


def open_timetable(path: Path) -> Timetable | None:
    """Return the timetable that was kept, None where there is none that can be read."""
    if not path.exists():
        return None
    file = None
    try:
        # Pages are drawn by one thread; a test's may be another.
        address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        file = sqlite3.connect(address, uri=True, check_same_thread=False)
        (said,) = file.execute("PRAGMA quick_check(1)").fetchone()  # a page must not be the first to find out
        if said != "ok":
            raise ValueError(f"damaged: {said}")
        return Timetable(file)
    except (sqlite3.Error, ValueError, KeyError, OSError) as error:
        log.warning("timetable cannot be read path=%s why=%s", path, error)
        if file is not None:
            file.close()
        return None


def timetable_in_memory(feed: Path, stops: list[str]) -> Timetable:
    """Return the timetable of a small feed; raises WireError if it is wrong."""
    file = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    prepare_into(file, feed, stops)
    return Timetable(file)


def _number(name: str) -> int:
    """Return the number that a line's name begins with, a large one where it has none."""
    digits = "".join(letter for letter in name[:6] if letter.isascii() and letter.isdigit())
    return int(digits) if digits else 1 << 30
