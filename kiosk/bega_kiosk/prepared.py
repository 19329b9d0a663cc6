"""A city's timetable cut down to what some stops need: a GTFS feed into one small SQLite file.

The calls are read twice: once to learn which trips call here, once to keep all calls of those trips (where they go, and
what a vehicle's delay at an earlier stop means here). Memory holds the names of stops and those trips, never the feed.

A row that says nonsense is left out and counted; a feed with too many of them is refused, and so is one that lacks a
stop that the kiosk is at: then the timetable of yesterday is the better one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date
from itertools import islice, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from bega_kiosk.gtfs import Feed, day_of, seconds_of
from bega_protocols.errors import WireError

SHAPE = 3  # of the file; another one is made anew
MOST_STOPS = 500_000
MOST_CALLS = 1_000_000
MOST_PAGES = 131_072  # of the file: 512 MB, whatever a feed says without end
MOST_AGENCIES = 10_000
MOST_WRONG = 0.02  # of the rows that concern these stops
LEAST_TOLERATED = 3  # a small feed may have as many mistakes
PLATFORM, STATION = "0", "1"
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE stop (number INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, platform TEXT NOT NULL,
                   station TEXT NOT NULL, turn INTEGER);
CREATE TABLE line (id TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE trip (number INTEGER PRIMARY KEY, id TEXT NOT NULL, line TEXT NOT NULL, service TEXT NOT NULL,
                   towards TEXT NOT NULL, step_free INTEGER, is_frequent INTEGER NOT NULL DEFAULT 0);
CREATE TABLE call (trip INTEGER NOT NULL, sequence INTEGER NOT NULL, stop INTEGER NOT NULL, arrives_s INTEGER,
                   departs_s INTEGER, towards TEXT NOT NULL, takes_people INTEGER NOT NULL,
                   PRIMARY KEY (trip, sequence)) WITHOUT ROWID;
CREATE TABLE frequency (trip INTEGER NOT NULL, from_s INTEGER NOT NULL, until_s INTEGER NOT NULL,
                        every_s INTEGER NOT NULL, is_exact INTEGER NOT NULL);
CREATE TABLE service (id TEXT NOT NULL, weekdays TEXT NOT NULL, from_day TEXT NOT NULL, until_day TEXT NOT NULL);
CREATE TABLE exception (service TEXT NOT NULL, day TEXT NOT NULL, is_added INTEGER NOT NULL);
"""
INDEXES = """
CREATE INDEX here ON call (stop, departs_s);
CREATE INDEX named ON trip (id);
CREATE INDEX dated ON exception (day);
"""
BEFORE_BOARDING = {"": 1, "0": 1, "1": 0, "2": 1, "3": 1}  # pickup_type 1: nobody may get on
STEP_FREE = {"1": 1, "2": 0}  # wheelchair_accessible; else nobody says

Tell = Callable[[str], None]


def prepare(source: Path, target: Path | str, stops: Sequence[str], tell: Tell = lambda said: None) -> None:
    """Write what `stops` (ids of platforms or stations) need of the feed `source` into the new file `target`.

    Raises WireError whose `why` says in one sentence what is wrong with the feed; then `target` is worth nothing.
    """
    with closing(sqlite3.connect(target, isolation_level=None)) as file:
        prepare_into(file, source, stops, tell)


def prepare_into(file: sqlite3.Connection, source: Path, stops: Sequence[str], tell: Tell = lambda said: None) -> None:
    """Fill an empty database, as `prepare` does."""
    feed = Feed(source)
    try:
        file.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA max_page_count={MOST_PAGES}; BEGIN; {SCHEMA}"
        )
        _Cut(file, feed, tell).cut(stops)
        file.executescript(INDEXES)  # and what was begun is committed
    finally:
        feed.close()


class _Cut:
    """One feed being cut down."""

    def __init__(self, file: sqlite3.Connection, feed: Feed, tell: Tell) -> None:
        self._file = file
        self._feed = feed
        self._tell = tell
        self._kept = self._wrong = 0
        self._first_wrong = ""
        self._agencies: set[str] = set()  # of the lines that pass here

    def cut(self, wanted: Sequence[str]) -> None:
        stops = self._stops()
        here = _here(stops, wanted)
        if len(stops) > MOST_STOPS:
            raise WireError(f"stops.txt has more than {MOST_STOPS} rows")
        trips = self._trips(self._passing(here))
        self._calls(stops, here, trips)
        self._frequencies(trips)
        self._finish_calls()
        self._lines()
        self._services()
        self._meta(wanted)
        if self._wrong > max(LEAST_TOLERATED, MOST_WRONG * (self._kept + self._wrong)):
            raise WireError(
                f"{self._wrong} of {self._kept + self._wrong} rows say nonsense; the first: {self._first_wrong}"
            )

    def _stops(self) -> dict[str, tuple[str, str, str, str]]:
        """Return {id: (name, platform, kind, station)}."""
        found = {}
        for stop, name, platform, kind, station in self._feed.rows(
            "stops.txt", "stop_id stop_name", "platform_code location_type parent_station"
        ):
            found[stop] = (name[:80], platform[:10], kind or PLATFORM, station)
            if len(found) > MOST_STOPS:
                break
        return found

    def _passing(self, here: dict[str, int]) -> set[str]:
        """Return the ids of the trips that call here."""
        found = set()
        for trip, stop in self._feed.rows("stop_times.txt", "trip_id stop_id"):
            if stop in here:
                found.add(trip)
                if len(found) > MOST_CALLS:
                    raise WireError(f"more than {MOST_CALLS} trips pass here; name fewer stops")
        return found

    def _trips(self, ids: set[str]) -> dict[str, int]:
        """Keep the trips with these ids; return {id: its number}."""
        self._tell("trips")
        numbers: dict[str, int] = {}
        for trip, line, service, headsign, access in self._feed.rows(
            "trips.txt", "trip_id route_id service_id", "trip_headsign wheelchair_accessible"
        ):
            if trip in ids and trip not in numbers:
                numbers[trip] = len(numbers) + 1
                row = (numbers[trip], trip, line, service, headsign[:80], STEP_FREE.get(access))
                self._file.execute("INSERT INTO trip VALUES (?, ?, ?, ?, ?, ?, 0)", row)
        for trip in sorted(ids - numbers.keys())[:1000]:
            self._count("stop_times.txt", f"the trip {trip[:40]!r} is not in trips.txt")
        return numbers

    def _calls(self, stops: dict[str, tuple[str, str, str, str]], here: dict[str, int], trips: dict[str, int]) -> None:
        self._tell("stop times")
        numbers: dict[str, int] = {}
        fields = "trip_id stop_id stop_sequence arrival_time departure_time"
        for trip, stop, sequence, arrives, departs, headsign, pickup in self._feed.rows(
            "stop_times.txt", fields, "stop_headsign pickup_type"
        ):
            number = trips.get(trip)
            if number is None:
                continue
            try:
                at = _whole(sequence)
                if stop not in stops:
                    raise ValueError(f"the stop {stop[:40]!r} is not in stops.txt")
            except ValueError as error:
                self._count("stop_times.txt", str(error))
                continue
            takes_people = BEFORE_BOARDING.get(pickup, 1)
            try:
                departs_s = seconds_of(departs or arrives) if departs or arrives else None
                arrives_s = seconds_of(arrives) if arrives else departs_s
            except ValueError as error:
                self._count("stop_times.txt", str(error))
                arrives_s = departs_s = None  # it still says that the trip goes there, and does not end before
                takes_people = 0
            if stop not in numbers:
                numbers[stop] = len(numbers) + 1
                name, platform, _, station = stops[stop]
                known = (numbers[stop], stop, name, platform, station, here.get(stop))
                self._file.execute("INSERT INTO stop VALUES (?, ?, ?, ?, ?, ?)", known)
            self._call((number, at, numbers[stop], arrives_s, departs_s, headsign[:80], takes_people), trip)
        for stop, turn in here.items():  # a platform where nothing calls is still here
            if stop not in numbers:
                name, platform, _, station = stops[stop]
                unvisited = (stop, name, platform, station, turn)
                self._file.execute("INSERT INTO stop VALUES (NULL, ?, ?, ?, ?, ?)", unvisited)

    def _call(self, row: tuple[object, ...], trip: str) -> None:
        """Keep a call; two that differ and have one place in their trip say nonsense."""
        if not self._file.execute("INSERT OR IGNORE INTO call VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
            there = self._file.execute("SELECT * FROM call WHERE trip = ? AND sequence = ?", row[:2]).fetchone()
            if there != row:
                self._count("stop_times.txt", f"the trip {trip[:40]!r} has two calls with the sequence {row[1]}")
            return
        self._kept += 1
        if self._kept > MOST_CALLS:
            raise WireError(f"more than {MOST_CALLS} calls belong to trips that pass here; name fewer stops")

    def _finish_calls(self) -> None:
        """End each trip, give an end to those without a headsign, and times to calls between two that have one."""
        run = self._file.execute
        # Nobody gets on where a trip ends; and a bus whose sign says nothing goes where it ends.
        run(
            "UPDATE call SET takes_people = 0 "
            "WHERE sequence = (SELECT max(sequence) FROM call c WHERE c.trip = call.trip)"
        )
        run(
            "UPDATE trip SET towards = coalesce((SELECT stop.name FROM call JOIN stop ON stop.number = call.stop "
            "WHERE call.trip = trip.number ORDER BY sequence DESC LIMIT 1), '') WHERE towards = ''"
        )
        # Only now: a last call without a time goes, and is still where the trip ends.
        for (trip,) in run("SELECT DISTINCT trip FROM call WHERE departs_s IS NULL").fetchall():
            self._fill(trip)
        self._leave_out_times_that_go_back()

    def _leave_out_times_that_go_back(self) -> None:
        """Offer no call that is before the one before it: after midnight it is 24:05 (stop_times.txt), not 0:05."""
        back = self._file.execute(
            "SELECT trip, sequence FROM (SELECT trip, sequence, departs_s, "
            "lag(departs_s) OVER (PARTITION BY trip ORDER BY sequence) AS before_s FROM call) "
            "WHERE departs_s < before_s"
        ).fetchall()
        for at in back:
            self._file.execute("UPDATE call SET takes_people = 0 WHERE trip = ? AND sequence = ?", at)
            self._count("stop_times.txt", f"a trip goes back in time at its stop {at[1]}")

    def _fill(self, trip: int) -> None:
        """Spread calls without a time evenly between those that have one (stop_times.txt, arrival_time)."""
        calls = self._file.execute(
            "SELECT sequence, arrives_s, departs_s FROM call WHERE trip = ? ORDER BY sequence", (trip,)
        ).fetchall()
        timed = [turn for turn, call in enumerate(calls) if call[2] is not None]
        for first, last in pairwise(timed):
            step_s = (calls[last][1] - calls[first][2]) / (last - first)
            for turn in range(first + 1, last):
                at_s = calls[first][2] + round(step_s * (turn - first))
                self._file.execute(
                    "UPDATE call SET arrives_s = ?, departs_s = ? WHERE trip = ? AND sequence = ?",
                    (at_s, at_s, trip, calls[turn][0]),
                )
        if self._file.execute("DELETE FROM call WHERE trip = ? AND departs_s IS NULL", (trip,)).rowcount:
            self._count("stop_times.txt", "a trip begins or ends without a time")

    def _frequencies(self, trips: dict[str, int]) -> None:
        for trip, begins, ends, every, is_exact in self._optional(
            "frequencies.txt", "trip_id start_time end_time headway_secs", "exact_times"
        ):
            if trip not in trips:
                continue
            try:
                from_s, until_s, every_s = seconds_of(begins), seconds_of(ends), _whole(every)
                if every_s < 20 or until_s <= from_s:
                    raise ValueError(f"every {every_s} s from {begins} to {ends}")
            except ValueError as error:
                self._count("frequencies.txt", str(error))
                continue
            self._kept += 1
            row = (trips[trip], from_s, until_s, every_s, int(is_exact == "1"))
            self._file.execute("INSERT INTO frequency VALUES (?, ?, ?, ?, ?)", row)
        self._file.execute("UPDATE trip SET is_frequent = 1 WHERE number IN (SELECT trip FROM frequency)")

    def _lines(self) -> None:
        used = {line for (line,) in self._file.execute("SELECT DISTINCT line FROM trip")}
        names = "route_short_name route_long_name agency_id"
        for line, short, long, agency in self._feed.rows("routes.txt", "route_id", names):
            if line in used:
                self._agencies.add(agency)
                name = (short or long or line)[:40]
                self._file.execute("INSERT OR IGNORE INTO line VALUES (?, ?)", (line, name))
                used.discard(line)
        for line in sorted(used):
            self._count("trips.txt", f"the route {line[:40]!r} is not in routes.txt")
            self._file.execute("INSERT INTO line VALUES (?, ?)", (line, line[:40]))

    def _services(self) -> None:
        used = {service for (service,) in self._file.execute("SELECT DISTINCT service FROM trip")}
        names = "monday tuesday wednesday thursday friday saturday sunday"
        for service, begins, ends, *days in self._optional("calendar.txt", f"service_id start_date end_date {names}"):
            if service in used:
                try:
                    row = (service, _weekdays(days), day_of(begins).isoformat(), day_of(ends).isoformat())
                    if row[3] < row[2]:
                        raise ValueError(f"a service ends on {ends}, before it begins")
                except ValueError as error:
                    self._count("calendar.txt", str(error))
                    continue
                self._file.execute("INSERT INTO service VALUES (?, ?, ?, ?)", row)
        for service, day, kind in self._optional("calendar_dates.txt", "service_id date exception_type"):
            if service in used:
                try:
                    if kind not in ("1", "2"):
                        raise ValueError(f"{kind[:20]!r} is no exception_type")
                    row = (service, day_of(day).isoformat(), str(int(kind == "1")), "")
                except ValueError as error:
                    self._count("calendar_dates.txt", str(error))
                    continue
                self._file.execute("INSERT INTO exception VALUES (?, ?, ?)", row[:3])
        if not self._feed.has("calendar.txt") and not self._feed.has("calendar_dates.txt"):
            raise WireError("calendar.txt is missing, and calendar_dates.txt too")
        found = {
            service for (service,) in self._file.execute("SELECT id FROM service UNION SELECT service FROM exception")
        }
        if used and not found:
            raise WireError("no trip that passes here has a day in calendar.txt or calendar_dates.txt")
        for service in sorted(used - found):
            self._count("trips.txt", f"the service {service[:40]!r} is in no calendar")

    def _meta(self, wanted: Sequence[str]) -> None:
        agencies = [*islice(self._feed.rows("agency.txt", "agency_name agency_timezone", "agency_id"), MOST_AGENCIES)]
        zone = agencies[0][1] if agencies else ""
        # Without an agency_id a line is of the only agency (routes.txt, agency_id).
        here = [(of, name) for name, _, of in agencies if len(agencies) == 1 or of in self._agencies]
        try:
            ZoneInfo(zone)
        except (KeyError, OSError, ValueError):
            raise WireError(f"agency.txt names the time zone {zone[:40]!r}, which there is not") from None
        info = self._optional("feed_info.txt", "feed_publisher_name", "feed_start_date feed_end_date feed_version")
        publisher, begins, ends, version = next(info, ["", "", "", ""])
        said = {
            "shape": str(SHAPE),
            "stops": "\n".join(wanted),
            "publisher": (here[0][1] if len(here) == 1 else publisher or agencies[0][0])[:80],
            "agencies": "\n".join(of for of, _ in here),
            "zone": zone,
            "version": version[:60],
            "from_day": _day_or_none(begins),
            "until_day": _day_or_none(ends),
            "left_out": f"{self._wrong} rows; the first: {self._first_wrong}" if self._wrong else "",
        }
        self._file.executemany("INSERT INTO meta VALUES (?, ?)", said.items())

    def _optional(self, name: str, needed: str, also: str = "") -> Iterator[list[str]]:
        return self._feed.rows(name, needed, also) if self._feed.has(name) else iter(())

    def _count(self, name: str, why: str) -> None:
        self._wrong += 1
        self._first_wrong = self._first_wrong or f"{name}: {why}"


def _here(stops: dict[str, tuple[str, str, str, str]], wanted: Iterable[str]) -> dict[str, int]:
    """Return the platforms that `wanted` names, by themselves or by their station: {id: turn}."""
    found: dict[str, int] = {}
    for name in wanted:
        if name not in stops:
            raise WireError(f"stops.txt has no stop {name!r}; see transport.stops")
        kind = stops[name][2]
        platforms = [name]
        if kind == STATION:
            platforms = sorted(
                (stop for stop, (_, _, kind, station) in stops.items() if station == name and kind == PLATFORM),
                key=lambda stop: (stops[stop][1], stop),
            )
            if not platforms:
                raise WireError(f"the station {name!r} has no platforms in stops.txt; see transport.stops")
        for stop in platforms:
            found.setdefault(stop, len(found))
    return found


def _weekdays(days: Sequence[str]) -> str:
    if len(days) != 7 or not all(day in ("0", "1") for day in days):
        raise ValueError(f"{''.join(days)[:20]!r} are no days of a week")
    return "".join(days)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(f"{text[:20]!r} is no whole number")
    return int(text)


def _day_or_none(text: str) -> str:
    try:
        return day_of(text).isoformat() if text else ""
    except ValueError:
        return ""


def as_day(text: str) -> date | None:
    """Return a day as the file has it, None where it has none."""
    return date.fromisoformat(text) if text else None
