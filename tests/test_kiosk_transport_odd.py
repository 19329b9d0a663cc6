"""Feeds and messages as cities really send them: begun too early, over since yesterday, doubled, of something else."""

import os
import struct
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import date

import pytest

from bega_kiosk import doctor, prepared, transport_feed
from bega_kiosk.command import main
from bega_kiosk.config import make
from bega_kiosk.realtime import read_live
from bega_kiosk.timetable import timetable_in_memory
from bega_kiosk.transport import FILE
from bega_protocols.errors import WireError
from tests.kiosk_gtfs import AGENCY, ALWAYS, STOPS, a_feed, a_trip, as_text, write_feed
from tests.test_kiosk_timetable import made, ms, times  # noqa: F401 -- made is a fixture
from tests.test_kiosk_transport import (  # noqa: F401 -- corner and words are fixtures
    DAY_MS,
    MINUTE_MS,
    NOW_MS,
    NOW_S,
    a_message,
    an_alert,
    corner,
    late,
    words,
)
from tests.test_kiosk_transport_feed import a_city, a_transport, fetched

NO_DAY = dict.fromkeys([*ALWAYS][1:8], "0")
INFO = {"feed_publisher_name": "x", "feed_start_date": "20261201", "feed_end_date": "20271130"}


def said_at(kiosk, moment, path="/transport"):
    """Return what a screen says at a moment, when the source has just confirmed the timetable."""
    kiosk.now_ms = ms(moment)
    os.utime(kiosk.folder / FILE, ns=(kiosk.now_ms * 1_000_000, kiosk.now_ms * 1_000_000))
    kiosk.transport.reload()
    return kiosk.see(path)


@pytest.mark.parametrize(
    ("files", "moment", "why"),
    [
        ({"calendar": [{**ALWAYS, "end_date": "20261117"}]}, "2026-11-18 12:00", "until 17 November 2026."),
        ({"calendar": [{**ALWAYS, "end_date": "20261117"}]}, "2026-11-18 00:10", "until 17 November 2026."),
        ({"calendar": [{**ALWAYS, "start_date": "20261201"}]}, "2026-11-18 12:00", "from 1 December 2026."),
        ({"feed_info": [INFO]}, "2026-11-18 12:00", "from 1 December 2026."),
        (
            {
                "calendar": [{**ALWAYS, **NO_DAY}],
                "calendar_dates": [{"service_id": "daily", "date": "20261110", "exception_type": "1"}],
            },
            "2026-11-18 12:00",
            "until 10 November 2026.",
        ),
    ],
    ids=["over since yesterday", "over since midnight", "begins later", "says that it begins later", "days one by one"],
)
def test_day_of_which_the_timetable_does_not_speak_is_not_a_day_without_trams(corner, files, moment, why):  # noqa: F811
    said = said_at(corner(**files), moment)
    assert "We do not know now." in said
    assert why in said
    assert "Nothing more" not in said


def test_last_night_is_known_until_its_last_tram_and_no_longer(corner):  # noqa: F811
    only = [{**ALWAYS, "end_date": "20261117"}]
    kiosk = corner(calendar=only, stop_times=a_trip("t1", "24:40:00"))
    assert "Line 4 to Ciarda Roșie, 0:50." in said_at(kiosk, "2026-11-18 00:10")
    assert "We do not know now." in said_at(kiosk, "2026-11-18 00:55")


def test_timetable_that_begins_next_month_does_not_take_the_place_of_todays(tmp_path, caplog):
    path = write_feed(tmp_path / "made.zip", a_feed())
    transport = a_transport(tmp_path, str(path))
    assert fetched(transport, "timetable") == [True]
    write_feed(path, a_feed(calendar=[{**ALWAYS, "start_date": "20261201"}]))
    os.utime(path, ns=(1, 1))
    assert fetched(transport, "timetable") == [False]
    assert "it is good from 2026-12-01 until 2035-12-31, and not today" in caplog.text
    assert len(transport.departures(NOW_MS)) == 1
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    december = NOW_MS + 14 * DAY_MS
    transport = a_transport(tmp_path, str(path), clock=lambda: december)
    assert fetched(transport, "timetable", now_ms=december) == [True]
    assert transport.timetable.from_day == date(2026, 12, 1)


def test_trips_of_services_that_are_in_no_calendar_are_no_quiet_day(tmp_path):
    trips = [{"route_id": "r4", "service_id": service, "trip_id": f"t{service}"} for service in ("daily", "01")]
    calls = a_trip("tdaily", "13:00:00") + a_trip("t01", "14:00:00")
    path = write_feed(tmp_path / "feed.zip", a_feed(trips=trips, stop_times=calls))
    with closing(timetable_in_memory(path, ["here"])) as timetable:
        assert timetable.left_out == "1 rows; the first: trips.txt: the service '01' is in no calendar"
    path = write_feed(tmp_path / "feed.zip", a_feed(trips=trips[1:], stop_times=calls[3:]))
    with pytest.raises(WireError, match="no trip that passes here has a day"):
        timetable_in_memory(path, ["here"])
    backwards = [{**ALWAYS, "start_date": "20261231", "end_date": "20260101"}]
    with pytest.raises(WireError, match="no trip that passes here has a day"):
        timetable_in_memory(write_feed(path, a_feed(calendar=backwards)), ["here"])


def test_doctor_says_that_a_timetable_begins_only_later(tmp_path):
    feed = write_feed(tmp_path / "made.zip", a_feed(calendar=[{**ALWAYS, "start_date": "20261201"}]))
    prepared.prepare(feed, tmp_path / FILE, ["here"])
    os.utime(tmp_path / FILE, ns=(NOW_MS * 1_000_000, NOW_MS * 1_000_000))
    told = {"feed": "city.zip", "stops": ["here"]}
    config = make({"kiosk": {"name": "k", "city": "c", "state_dir": str(tmp_path)}, "transport": told})
    (found,) = doctor.transport(config, lambda: NOW_MS)
    assert found.state == "wrong"
    assert "begins on 2026-12-01; ask the city for the one before it" in found.says


def test_zip_with_an_old_feed_in_a_folder_is_read_for_the_new_one(tmp_path):
    new = {f"{name}.txt": as_text(rows) for name, rows in a_feed().items()}
    old = {f"{name}.txt": as_text(rows) for name, rows in a_feed(stop_times=a_trip("t1", "11:00:00")).items()}
    old["calendar_dates.txt"] = "service_id,date,exception_type\ndaily,20261118,2\n"
    for here, there in (("", "2025/"), ("gtfs\\", "gtfs\\2025\\"), ("feed/", "__MACOSX/feed/._")):
        path = tmp_path / "feed.zip"
        with zipfile.ZipFile(path, "w") as whole:
            for folder, files in ((here, new), (there, old)):
                for name, text in files.items():
                    whole.writestr(folder + name, text)
        with closing(timetable_in_memory(path, ["here"])) as timetable:
            assert times(timetable, "2026-11-18 00:00") == [("18 13:10", "4", "Ciarda Roșie")]


def test_calls_that_share_a_place_in_their_trip_are_counted(made):  # noqa: F811
    calls = [{**row, "stop_sequence": "0"} for row in a_trip("t1", "13:00:00")]
    assert (
        made(stop_times=calls).left_out
        == "2 rows; the first: stop_times.txt: the trip 't1' has two calls with the sequence 0"
    )
    twice = a_trip("t1", "13:00:00") * 2
    assert made(stop_times=twice).left_out == "", "a row that is there twice says nothing new"


def test_last_call_without_a_good_time_is_still_where_the_trip_ends(made):  # noqa: F811
    calls = a_trip("t1", "13:00:00")
    calls[2]["arrival_time"] = calls[2]["departure_time"] = "13:99:00"
    assert times(made(stop_times=calls), "2026-11-18 00:00") == [("18 13:10", "4", "Ciarda Roșie")]


def test_station_without_platforms_is_no_place_where_nothing_comes(tmp_path):
    stops = [*STOPS, {"stop_id": "S", "stop_name": "Piața Victoriei", "location_type": "1"}]
    with pytest.raises(WireError, match="the station 'S' has no platforms"):
        timetable_in_memory(write_feed(tmp_path / "feed.zip", a_feed(stops=stops)), ["S"])


def test_service_day_that_begins_before_its_midnight_is_asked_for_the_evening_before(made):  # noqa: F811
    """On 29 March 2026 the clocks go forward: its 0:30 is 23:30 of the day before."""
    found = made(stop_times=a_trip("t1", "00:20:00")).passings(ms("2026-03-28 23:00"), ms("2026-03-28 23:45"))
    assert [one.planned_ms for one in found] == [ms("2026-03-28 23:30")]


def test_timetable_is_named_after_whose_lines_pass_here(made):  # noqa: F811
    agency = [{**AGENCY[0], "agency_id": name, "agency_name": name.upper()} for name in ("rail", "city")]
    routes = [{"route_id": "r4", "agency_id": "city", "route_short_name": "4", "route_type": "0"}]
    timetable = made(agency=agency, routes=routes)
    assert (timetable.publisher, timetable.agencies) == ("CITY", {"city"})
    assert made().agencies == {"a"}, "where there is one agency, routes need not name it"


def test_trips_without_end_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "MOST_CALLS", 1000)
    lines = "".join(f"t{turn},here,1,1:00:00,1:00:00\n" for turn in range(1001))
    files = a_feed(stop_times="trip_id,stop_id,stop_sequence,arrival_time,departure_time\n" + lines)
    with pytest.raises(WireError, match="more than 1000 trips pass here"):
        timetable_in_memory(write_feed(tmp_path / "feed.zip", files), ["here"])


def test_days_without_end_are_refused_before_they_fill_the_disk(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepared, "MOST_PAGES", 50)
    days = "".join(f"daily,2026{month:02d}{day:02d},1\n" for month in range(1, 13) for day in range(1, 29)) * 40
    path = write_feed(tmp_path / "feed.zip", a_feed(calendar_dates="service_id,date,exception_type\n" + days))
    into = tmp_path / "made.sqlite"
    assert main(["timetable", str(path), "--stop", "here", "--into", str(into)]) == 1
    assert "full" in capsys.readouterr().err
    assert into.stat().st_size <= 50 * 4096


def test_alert_is_not_said_for_days_after_the_operator_was_last_heard(corner):  # noqa: F811
    kiosk = corner()
    kiosk.hears(a_message(alerts=[an_alert(1, route_id="r4")]))
    kiosk.now_ms += 50 * MINUTE_MS
    assert "Line 4 is not running now." in kiosk.see()
    kiosk.now_ms += 20 * MINUTE_MS
    assert "not running" not in kiosk.see()
    kiosk.now_ms = NOW_MS
    kiosk.hears(a_message(alerts=[an_alert(1, route_id="r4")], told_s=NOW_S - 2 * 86_400))
    assert "not running" not in kiosk.see(), "a server repeats the day before yesterday"


def test_alert_is_said_where_one_asks_for_that_line(corner):  # noqa: F811
    kiosk = corner()
    kiosk.hears(a_message(alerts=[an_alert(1, route_id="r4"), an_alert(4, route_id="r9")]))
    assert "Line 4 is not running now." in kiosk.see("/transport/line/4")


STATION = [
    {"stop_id": "west", "stop_name": "Gara de Nord"},
    {"stop_id": "S", "stop_name": "Piața Victoriei", "location_type": "1"},
    {"stop_id": "here", "stop_name": "Piața Victoriei", "platform_code": "1", "parent_station": "S"},
    {"stop_id": "there", "stop_name": "Piața Victoriei", "platform_code": "2", "parent_station": "S"},
    {"stop_id": "east", "stop_name": "Ciarda Roșie"},
]


@pytest.mark.parametrize(
    ("effect", "entity", "said"),
    [
        (1, {"stop_id": "there"}, "Platform 2: Nothing stops here now."),
        (1, {"stop_id": "S"}, "> Nothing stops here now."),
        (9, {"stop_id": "here", "route_id": "r4"}, "Platform 1: Line 4 stops somewhere else now."),
        (1, {"stop_id": "here", "route_id": "r4"}, "Platform 1: Line 4 does not stop here now."),
        (1, {"agency_id": "a"}, "> Nothing stops here now."),
        (4, {"agency_id": "a"}, None),
        (1, {"agency_id": "other"}, None),
        (1, {"agency_id": "a", "route_type": 3}, None),
    ],
)
def test_alert_is_said_of_the_platforms_that_it_is_about(corner, effect, entity, said):  # noqa: F811
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": name} for name in ("t1", "t2")]
    calls = a_trip("t1", "13:00:00") + a_trip("t2", "13:00:00", stops=("east", "there", "west"))
    kiosk = corner(stops=("here", "there"), trips=trips, stop_times=calls, platforms=STATION)
    kiosk.hears(a_message(alerts=[an_alert(effect, **entity)]))
    if said is None:
        assert "Nothing stops here" not in kiosk.see()
        assert "another way" not in kiosk.see()
    else:
        assert said in kiosk.see()


@pytest.mark.parametrize("relation", [1, 6, 8], ids=["added", "duplicated", "new"])
def test_vehicle_besides_the_timetable_is_not_the_one_that_it_is_named_after(corner, relation):  # noqa: F811
    kiosk = corner()
    kiosk.hears(a_message(("t1", {"schedule_relationship": relation, "stops": [late(3600, stop_sequence=2)]})))
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, 13:10."]


def test_one_tram_of_those_that_go_every_few_minutes_is_not_all_of_them(corner):  # noqa: F811
    often = [{"trip_id": "t1", "start_time": "12:20:00", "end_time": "13:40:00", "headway_secs": "1200"}]
    kiosk = corner(frequencies=often)
    soon = {"stops": [{"stop_sequence": 2, "departure": {"time": NOW_S + 300}}]}
    kiosk.hears(a_message(("t1", soon)))
    assert [row.partition(", ")[2] for row in kiosk.rows()] == ["around 13:10.", "around 13:30."]
    kiosk.hears(a_message(("t1", {**soon, "start_time": "13:00:00"})))
    assert [row.partition(", ")[2] for row in kiosk.rows()] == ["in 5 minutes, 13:11.", "around 13:30, by timetable."]
    kiosk.hears(a_message(("t1", {"schedule_relationship": 3})))
    assert [row.partition(", ")[2] for row in kiosk.rows()] == ["not coming, 13:10.", "not coming, 13:30."]


def test_texts_that_are_no_utf_8_cost_nobody_else_anything(corner):  # noqa: F811
    kiosk = corner()
    said = {"start_date": "XXXXXXXX", "start_time": "YYYYYYYY", "stops": [late(120, stop_sequence=2)]}
    raw = a_message(("t1", said)).SerializeToString()
    for text, instead in ((b"XXXXXXXX", b"2026\xff118"), (b"YYYYYYYY", b"13:\xfe0:00")):
        raw = raw.replace(text, instead)
    kiosk.transport.live = read_live(raw, kiosk.transport.timetable, NOW_MS)
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, in 5 minutes, 13:12."]


def test_call_after_midnight_that_is_written_as_before_it_is_not_offered(made):  # noqa: F811
    calls = a_trip("t1", "23:55:00")
    for call in calls[1:]:
        call["arrival_time"] = call["departure_time"] = call["departure_time"].replace("24:", "0:")
    timetable = made(stop_times=calls)
    assert times(timetable, "2026-11-18 00:00") == []
    assert timetable.left_out == "1 rows; the first: stop_times.txt: a trip goes back in time at its stop 2"


def test_zip_of_hundreds_of_thousands_of_files_ends_the_child_in_a_sentence(tmp_path):
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 9, 9, *[0] * 6) + b"stops.txt"
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(entry) * 200_000, 0, 0)
    (tmp_path / "feed.zip").write_bytes(entry * 200_000 + end)
    said = ["timetable", str(tmp_path / "feed.zip"), "--stop", "here", "--into", str(tmp_path / "made.sqlite")]
    program = "import sys; from bega_kiosk import command, timetable_command as made; "
    program += "made.MOST_MEMORY_BYTES = 40 << 20; sys.exit(command.main(sys.argv[1:]))"
    ended = subprocess.run([sys.executable, "-c", program, *said], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "the feed needs more than 40 MB of memory" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_tram_that_two_seasons_of_a_feed_have_is_shown_once(corner):  # noqa: F811
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": name} for name in ("t1", "t2")]
    kiosk = corner(trips=trips, stop_times=a_trip("t1", "13:00:00") + a_trip("t2", "13:00:00"))
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, 13:10."]
    kiosk.hears(a_message(("t1", {"stops": [late(0, stop_sequence=2)]})))
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, in 3 minutes, 13:10."]
    kiosk.hears(a_message(("t1", {"schedule_relationship": 3})))
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, not coming, 13:10.", "Line 4 to Ciarda Roșie, 13:10."]


def test_stops_of_other_names_are_told_apart_by_them(corner):  # noqa: F811
    kiosk = corner(stops=("west", "here"), stop_times=a_trip("t1", "13:10:00"))
    where = ["13:10, Gara de Nord", "13:20, Piața Victoriei"]
    assert kiosk.rows() == [f"Line 4 to Ciarda Roșie, {one}." for one in where]
    assert "Goes to Ciarda Roșie. Gara de Nord: 13:10. Piața Victoriei: 13:20." in kiosk.see("/transport/line/4")
    kiosk.hears(a_message(alerts=[an_alert(9, stop_id="west")]))
    assert "Gara de Nord: This stop has been moved for now." in kiosk.see()


def test_what_a_child_leaves_behind_when_it_takes_too_long_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(transport_feed, "PREPARE_S", 0.5)
    program = "echo half > $0; exec sleep 60"
    monkeypatch.setattr(transport_feed, "command", lambda _, into, stops: ["/bin/sh", "-c", program, str(into)])
    transport = a_transport(tmp_path, str(write_feed(tmp_path / "made.zip", a_feed())))
    assert fetched(transport, "timetable") == [False]
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_tag_that_no_request_can_carry_is_not_sent_back(tmp_path):
    whole = write_feed(tmp_path / "made.zip", a_feed()).read_bytes()
    with a_city(**{"city.zip": whole}) as (city, url):
        city.tag = '"ver\xe9"'
        transport = a_transport(tmp_path, f"{url}/city.zip")
        assert fetched(transport, "timetable", "timetable") == [True, True]
