"""A city's timetable: who comes when, on any day of any calendar; and feeds that are cut, made up or wrong."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bega_kiosk import gtfs
from bega_kiosk.command import main
from bega_kiosk.gtfs import seconds_of
from bega_kiosk.prepared import prepare, prepare_into
from bega_kiosk.timetable import Timetable, open_timetable, timetable_in_memory
from bega_protocols.errors import WireError
from tests.kiosk_gtfs import ALWAYS, a_feed, a_trip, as_text, write_feed

ZONE = ZoneInfo("Europe/Bucharest")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def ms(text):
    """Return a moment of the clock on the wall, as in "2026-11-18 13:06"."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1000)


@pytest.fixture
def made(tmp_path):
    """Return what makes a timetable of a feed."""
    opened = []

    def make(here=("here",), **files):
        path = write_feed(tmp_path / "feed.zip", a_feed(**files))
        opened.append(timetable_in_memory(path, list(here)))
        return opened[-1]

    yield make
    for timetable in opened:
        timetable.close()


def times(timetable, begins, hours=24):
    """Return (time on the wall, line, towards) of who leaves in some hours from `begins` on."""
    found = timetable.passings(ms(begins), ms(begins) + hours * HOUR_MS - 1)
    return [(f"{datetime.fromtimestamp(one.planned_ms / 1000, ZONE):%d %H:%M}", one.name, one.towards) for one in found]


def test_tram_leaves_when_the_timetable_says_and_goes_where_it_ends(made):
    assert times(made(), "2026-11-18 00:00") == [("18 13:10", "4", "Ciarda Roșie")]


def test_nobody_gets_on_where_a_trip_ends_or_where_nobody_may(made):
    assert times(made(here=["east"]), "2026-11-18 00:00") == []
    calls = a_trip("t1", "13:00:00")
    calls[1]["pickup_type"] = "1"
    assert times(made(stop_times=calls), "2026-11-18 00:00") == []


def test_sign_of_the_stop_goes_before_that_of_the_trip(made):
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": "t1", "trip_headsign": "Centru"}]
    assert times(made(trips=trips), "2026-11-18 00:00")[0][2] == "Centru"
    calls = a_trip("t1", "13:00:00")
    calls[1]["stop_headsign"] = "Gară"
    assert times(made(trips=trips, stop_times=calls), "2026-11-18 00:00")[0][2] == "Gară"


@pytest.mark.parametrize(
    ("at", "asked_from", "found"),
    [
        ("24:20:00", "2026-11-19 00:00", ["19 00:30"]),
        ("25:20:00", "2026-11-19 00:45", ["19 01:30"]),
        ("48:00:00", "2026-11-20 00:00", ["20 00:10"]),
        ("6:05:00", "2026-11-18 06:00", ["18 06:15"]),
    ],
)
def test_times_beyond_midnight_are_of_the_day_before(made, at, asked_from, found):
    service = [{**ALWAYS, "start_date": "20261118", "end_date": "20261118"}]
    timetable = made(calendar=service, stop_times=a_trip("t1", at))
    assert [time for time, _, _ in times(timetable, asked_from)] == found


@pytest.mark.parametrize(
    ("day", "at", "utc"),
    [
        # On 25 October 2026 the clocks go back at 4:00: its service begins an hour after midnight.
        ("2026-10-25", "02:20:00", "2026-10-25 00:30"),
        ("2026-10-25", "03:20:00", "2026-10-25 01:30"),
        ("2026-10-25", "12:50:00", "2026-10-25 11:00"),
        # On 29 March 2026 they go forward at 3:00: an hour before midnight.
        ("2026-03-29", "01:20:00", "2026-03-28 22:30"),
        ("2026-03-29", "12:50:00", "2026-03-29 10:00"),
        ("2026-03-28", "27:20:00", "2026-03-29 01:30"),
    ],
)
def test_service_day_begins_twelve_hours_before_its_noon(made, day, at, utc):
    only = [{**ALWAYS, "start_date": day.replace("-", ""), "end_date": day.replace("-", "")}]
    timetable = made(calendar=only, stop_times=a_trip("t1", at))
    around = ms(f"{day} 12:00")
    found = timetable.passings(around - 2 * DAY_MS, around + 2 * DAY_MS)
    # Held against arithmetic in UTC: no local time is added to another.
    noon = datetime.fromisoformat(f"{day} 12:00").replace(tzinfo=ZONE).astimezone(UTC)
    said = noon - timedelta(hours=12) + timedelta(seconds=seconds_of(at) + 600)
    assert [one.planned_ms for one in found] == [int(said.timestamp() * 1000)]
    assert said.replace(tzinfo=None) == datetime.fromisoformat(utc)


def test_calendar_and_its_exceptions(made):
    week = [{**ALWAYS, "saturday": "0", "sunday": "0"}, {**ALWAYS, "service_id": "never", "monday": "0"}]
    dates = [
        {"service_id": "daily", "date": "20261201", "exception_type": "2"},  # the national day, a Tuesday
        {"service_id": "daily", "date": "20261205", "exception_type": "1"},
    ]
    timetable = made(calendar=week, calendar_dates=dates)
    runs = [day for day in range(1, 8) if times(timetable, f"2026-12-{day:02d} 00:00")]
    assert runs == [2, 3, 4, 5, 7]


def test_calendar_of_exceptions_alone(made):
    timetable = made(calendar=None, calendar_dates=[{"service_id": "daily", "date": "20261205", "exception_type": "1"}])
    assert times(timetable, "2026-12-05 00:00")
    assert not times(timetable, "2026-12-06 00:00")
    assert timetable.until_day == date(2026, 12, 5)


def test_feed_says_until_when_it_is_good(made):
    info = {"feed_publisher_name": "x", "feed_start_date": "20261101", "feed_end_date": "20261130"}
    timetable = made(feed_info=[info])
    assert timetable.covers(date(2026, 11, 30))
    assert not timetable.covers(date(2026, 12, 1))
    assert not timetable.covers(date(2026, 10, 31))
    assert made().until_day == date(2035, 12, 31)


def test_station_means_each_of_its_platforms_and_no_entrance(made):
    stops = [
        {"stop_id": "west", "stop_name": "Gara de Nord"},
        {"stop_id": "S", "stop_name": "Piața Victoriei", "location_type": "1"},
        {"stop_id": "b", "stop_name": "Piața Victoriei", "platform_code": "2", "parent_station": "S"},
        {"stop_id": "here", "stop_name": "Piața Victoriei", "platform_code": "1", "parent_station": "S"},
        {"stop_id": "door", "stop_name": "Intrare", "location_type": "2", "parent_station": "S"},
        {"stop_id": "east", "stop_name": "Ciarda Roșie"},
    ]
    both = a_trip("t1", "13:00:00") + a_trip("t2", "14:00:00", stops=("east", "b", "west"))
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": name} for name in ("t1", "t2")]
    timetable = made(here=["S"], stops=stops, stop_times=both, trips=trips)
    assert [(stop.id, stop.platform) for stop in timetable.stops] == [("here", "1"), ("b", "2")]
    assert [to for _, _, to in times(timetable, "2026-11-18 00:00")] == ["Ciarda Roșie", "Gara de Nord"]
    (line,) = timetable.lines
    assert (line.name, line.towards) == ("4", ("Ciarda Roșie", "Gara de Nord"))
    assert timetable.way(line.id, "Gara de Nord") == ["Gara de Nord"]


def test_trips_that_are_told_by_how_often_they_go(made):
    often = [{"trip_id": "t1", "start_time": "06:00:00", "end_time": "07:00:00", "headway_secs": "1200"}]
    timetable = made(frequencies=often)
    assert [time for time, _, _ in times(timetable, "2026-11-18 00:00")] == ["18 06:10", "18 06:30", "18 06:50"]
    found = timetable.passings(ms("2026-11-18 06:15"), ms("2026-11-18 06:45"))
    assert [(one.start_s, one.is_about) for one in found] == [(6 * 3600 + 1200, True)]
    exact = made(frequencies=[{**often[0], "exact_times": "1"}])
    assert not exact.passings(ms("2026-11-18 06:00"), ms("2026-11-18 06:15"))[0].is_about


def test_calls_without_a_time_lie_evenly_between_those_that_have_one(made):
    calls = a_trip("t1", "13:00:00", stops=("west", "there", "here", "east"), minutes=(0, 1, 2, 30))
    for call in calls[1:3]:
        call["arrival_time"] = call["departure_time"] = ""
    assert times(made(stop_times=calls), "2026-11-18 00:00") == [("18 13:20", "4", "Ciarda Roșie")]


def test_lines_stand_in_the_order_that_a_person_expects(made):
    names = ("10", "2", "M11", "E1", "2")
    routes = [{"route_id": f"r{turn}", "route_short_name": name} for turn, name in enumerate(names)]
    trips = [{"route_id": f"r{turn}", "service_id": "daily", "trip_id": f"t{turn}"} for turn in range(len(names))]
    calls = [row for turn in range(len(names)) for row in a_trip(f"t{turn}", "13:00:00")]
    timetable = made(routes=routes, trips=trips, stop_times=calls)
    assert [line.name for line in timetable.lines] == ["E1", "2", "2", "10", "M11"]


def test_step_free_is_said_only_where_the_feed_says_it(made):
    def access(said):
        trips = [{"route_id": "r4", "service_id": "daily", "trip_id": "t1", "wheelchair_accessible": said}]
        return made(trips=trips).passings(ms("2026-11-18 00:00"), ms("2026-11-19 00:00"))[0].is_step_free

    assert [access(said) for said in ("1", "2", "0", "", "x")] == [True, False, None, None, None]


DAYS = st.dates(date(2026, 3, 20), date(2026, 4, 5)) | st.dates(date(2026, 10, 18), date(2026, 11, 2))


@given(
    starts=st.lists(st.tuples(st.integers(0, 47), st.integers(0, 59), st.sampled_from("abc")), min_size=1, max_size=6),
    weeks=st.lists(st.integers(0, 127), min_size=3, max_size=3),
    exceptions=st.lists(st.tuples(DAYS, st.sampled_from("abc"), st.booleans()), max_size=6),
    day=DAYS,
)
@settings(max_examples=30, deadline=None)
def test_any_calendar_at_any_moment_gives_what_counting_by_hand_gives(tmp_path_factory, starts, weeks, exceptions, day):
    """The oracle goes through every trip on every day, and reckons in UTC."""
    names = [*ALWAYS][1:8]
    exceptions = list({(when, service): is_added for when, service, is_added in exceptions}.items())
    calendar = [
        {**ALWAYS, "service_id": service, **{name: str(week >> turn & 1) for turn, name in enumerate(names)}}
        for service, week in zip("abc", weeks, strict=True)
    ]
    dates = [
        {"service_id": service, "date": f"{when:%Y%m%d}", "exception_type": "1" if is_added else "2"}
        for (when, service), is_added in exceptions
    ]
    trips = [
        {"route_id": "r4", "service_id": service, "trip_id": f"t{turn}"} for turn, (_, _, service) in enumerate(starts)
    ]
    calls = [
        row
        for turn, (hour, minute, _) in enumerate(starts)
        for row in a_trip(f"t{turn}", f"{hour:02d}:{minute:02d}:00")
    ]
    folder = tmp_path_factory.mktemp("feed")
    more = {"calendar_dates": dates} if dates else {}
    path = write_feed(folder / "f.zip", a_feed(calendar=calendar, trips=trips, stop_times=calls, **more))
    from_ms = ms(f"{day} 00:00")
    until_ms = from_ms + 30 * HOUR_MS
    expected = []
    for number in range(-4, 5):
        on = day + timedelta(days=number)
        noon = datetime(on.year, on.month, on.day, 12, tzinfo=ZONE).astimezone(UTC)
        for turn, (hour, minute, service) in enumerate(starts):
            said = dict(exceptions).get((on, service))
            runs = weeks["abc".index(service)] >> on.weekday() & 1 if said is None else said
            at = noon + timedelta(hours=hour - 12, minutes=minute + 10)
            if runs and from_ms <= at.timestamp() * 1000 <= until_ms:
                expected.append((int(at.timestamp() * 1000), f"t{turn}", on))
    with closing(timetable_in_memory(path, ["here"])) as timetable:
        found = [(one.planned_ms, one.trip, one.day) for one in timetable.passings(from_ms, until_ms)]
    assert sorted(found) == sorted(expected)


def refused(path, here=("here",)):
    """Return in which words a feed is refused; it must be."""
    with pytest.raises(WireError) as caught:
        timetable_in_memory(path, list(here))
    return caught.value.why


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"stops": None}, "stops.txt is missing"),
        ({"stop_times": None}, "stop_times.txt is missing"),
        ({"calendar": None}, "calendar.txt is missing"),
        ({"stops": [{"stop_id": "here"}]}, "stops.txt has no column stop_name"),
        ({"stops": ""}, "stops.txt has no column stop_id, stop_name"),
        ({"stops": [{"stop_id": "x", "stop_name": "X"}]}, "stops.txt has no stop 'here'"),
        ({"agency": [{"agency_name": "x", "agency_timezone": "Europe/Nowhere"}]}, "the time zone 'Europe/Nowhere'"),
        ({"agency": None}, "agency.txt is missing"),
        ({"stop_times": a_trip("gone", "13:00:00") * 5}, None),
        ({"stop_times": [row for turn in range(9) for row in a_trip("t1", f"{80 + turn}:00:00")]}, "rows say nonsense"),
        (
            {"stop_times": [{**row, "departure_time": "-1:00:00"} for row in a_trip("t1", "1:00:00") * 4]},
            "'-1:00:00' is no time",
        ),
        ({"stops": 'stop_id,stop_name\nhere,"' + "x" * 200_000}, "stops.txt has a line without end"),
        ({"stops": 'stop_id,stop_name\nhere,"' + "x\n" * 100_000}, "stops.txt cannot be read beyond row"),
        ({"stops": "stop_id,stop_name\nhere,\0\n"}, "stops.txt has bytes that are no text"),
    ],
)
def test_feed_that_is_wrong_is_refused_in_a_sentence(tmp_path, files, said):
    path = write_feed(tmp_path / "feed.zip", a_feed(**files))
    if said is None:  # a trip that nobody knows is left out, and counted
        with closing(timetable_in_memory(path, ["here"])) as timetable:
            assert "'gone' is not in trips.txt" in timetable.left_out
            assert not timetable.lines
    else:
        assert said in refused(path)


def test_row_that_is_wrong_costs_itself_and_is_counted(made):
    calls = [row for hour in range(10, 20) for row in a_trip(f"t{hour}", f"{hour}:00:00")]
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": f"t{hour}"} for hour in range(10, 20)]
    calls[1]["departure_time"] = "25:61:00"
    timetable = made(stop_times=calls, trips=trips)
    assert len(times(timetable, "2026-11-18 00:00")) == 9
    assert timetable.left_out.startswith("1 rows; the first: stop_times.txt: '25:61:00' is no time")


def test_feed_as_spreadsheets_write_it(tmp_path):
    """A byte order mark, quotes, spaces after commas, CR LF, columns in another order, short rows, a folder around."""
    files = a_feed()
    files["stops"] = '\ufeff"stop_name", "stop_id" ,zone\r\n"Piața ""Mare"", vest", west\r\nX,here,1\r\n\r\nY,east\r\n'
    path = write_feed(tmp_path / "feed.zip", files, folder="gtfs-2026/")
    with closing(timetable_in_memory(path, ["here"])) as timetable:
        assert times(timetable, "2026-11-18 00:00") == [("18 13:10", "4", "Y")]
        assert timetable.stops[0].name == "X"


def test_zip_cut_anywhere_is_refused(tmp_path):
    whole = write_feed(tmp_path / "feed.zip", a_feed()).read_bytes()
    cut = tmp_path / "cut.zip"
    for size in (0, 1, 30, len(whole) // 2, len(whole) - 23, len(whole) - 1):
        cut.write_bytes(whole[:size])
        assert "cut.zip is no whole zip file" in refused(cut)
    assert "is not there" in refused(tmp_path / "gone.zip")


@given(at=st.integers(0, 1500), noise=st.binary(min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_damaged_zip_is_read_or_refused_and_never_worse(tmp_path_factory, at, noise):
    path = write_feed(tmp_path_factory.mktemp("noise") / "feed.zip", a_feed())
    raw = bytearray(path.read_bytes())
    at %= len(raw)
    raw[at : at + len(noise)] = noise
    path.write_bytes(raw)
    try:
        timetable_in_memory(path, ["here"]).close()
    except WireError as error:
        assert 0 < len(error.why) < 400


@given(st.sampled_from(["stops", "trips", "stop_times", "calendar", "routes", "agency"]), st.text(max_size=200))
@settings(max_examples=80, deadline=None)
def test_any_text_in_the_place_of_a_file_is_read_or_refused(tmp_path_factory, name, text):
    files = a_feed()
    header = as_text(files[name]).partition("\n")[0]
    path = write_feed(tmp_path_factory.mktemp("text") / "feed.zip", files | {name: f"{header}\n{text}"})
    try:
        timetable_in_memory(path, ["here"]).close()
    except WireError as error:
        assert 0 < len(error.why) < 400


def test_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(gtfs, "MOST_UNPACKED", 1 << 20)
    files = a_feed() | {"stop_times": "trip_id,stop_id\n" + "t1,here\n" * 200_000}
    path = write_feed(tmp_path / "bomb.zip", files)
    assert path.stat().st_size < 10_000
    assert "stop_times.txt says that it is 1 MB long" in refused(path)


def test_zip_that_lies_about_its_length_gives_no_more_than_it_said(tmp_path, monkeypatch):
    """The size in the directory is made smaller: what follows it is not read, and the checksum shows it."""
    files = a_feed() | {"stops": as_text(a_feed()["stops"]) + "x,y\n" * 50_000}
    raw = bytearray(write_feed(tmp_path / "lie.zip", files).read_bytes())
    at = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 4)  # the second file of the directory: stops.txt
    raw[at + 24 : at + 28] = (120).to_bytes(4, "little")
    (tmp_path / "lie.zip").write_bytes(raw)
    assert "stops.txt cannot be read" in refused(tmp_path / "lie.zip")


def test_file_that_was_prepared_is_read_again_and_a_damaged_one_is_none(tmp_path):
    path = tmp_path / "transport.sqlite"
    prepare(write_feed(tmp_path / "feed.zip", a_feed()), path, ["here"])
    with closing(open_timetable(path)) as timetable:
        assert len(times(timetable, "2026-11-18 00:00")) == 1
        assert (timetable.publisher, timetable.wanted) == ("Transport", ["here"])
    raw = path.read_bytes()
    torn = raw[: len(raw) - 4096] + bytes(4096)  # its last page was never written
    for damaged in (b"", raw[:100], raw[: len(raw) // 2], bytes(len(raw)), torn):
        path.write_bytes(damaged)
        assert open_timetable(path) is None
    assert open_timetable(tmp_path / "gone") is None


def test_only_what_the_stops_need_is_kept(tmp_path):
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": f"t{turn}"} for turn in range(50)]
    calls = [
        row
        for turn in range(50)
        for row in a_trip(f"t{turn}", "13:00:00", stops=("west", "here" if turn == 7 else "there", "east"))
    ]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as file:
        prepare_into(file, write_feed(tmp_path / "feed.zip", a_feed(trips=trips, stop_times=calls)), ["here"])
        assert file.execute("SELECT count(*) FROM call").fetchone() == (3,)
        assert file.execute("SELECT id FROM trip").fetchall() == [("t7",)]
        assert Timetable(file).has_trip("t7")


def test_command_finds_stops_by_their_name_and_says_what_comes(tmp_path, capsys):
    path = str(write_feed(tmp_path / "feed.zip", a_feed()))
    assert main(["timetable", path, "--find", "piata vict"]) == 0
    assert capsys.readouterr().out.split("\n")[0] == "here                 platform Piața Victoriei 1"
    assert main(["timetable", path, "--stop", "here", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["lines"] == [{"name": "4", "towards": ["Ciarda Roșie"]}]
    assert main(["timetable", path, "--find", "Gotham"]) == 1
    assert main(["timetable", path, "--stop", "x"]) == 1
    assert "stops.txt has no stop 'x'" in capsys.readouterr().err
    assert main(["timetable", path, "--stop", "here", "--into", str(tmp_path / "no" / "x")]) == 1
    assert "a new file in a folder that can be written" in capsys.readouterr().err
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04")
    assert main(["timetable", str(tmp_path / "half.zip")]) == 1
    assert "half.zip is no whole zip file" in capsys.readouterr().err
