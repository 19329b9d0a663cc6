"""Feeds and messages as cities really send them: begun too early, over since yesterday, doubled, of something else."""

import os
from contextlib import closing
from datetime import date

import pytest

from bega_kiosk.timetable import timetable_in_memory
from bega_kiosk.transport import FILE
from bega_protocols.errors import WireError
from tests.kiosk_gtfs import ALWAYS, a_feed, a_trip, write_feed
from tests.test_kiosk_timetable import ms
from tests.test_kiosk_transport import DAY_MS, NOW_MS, corner, words  # noqa: F401 -- the last two are fixtures
from tests.test_kiosk_transport_feed import a_transport, fetched

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
        ({"calendar": [{**ALWAYS, "end_date": "20261117"}]}, "2026-11-18 12:00", "was good until 17 November 2026."),
        ({"calendar": [{**ALWAYS, "end_date": "20261117"}]}, "2026-11-18 00:10", "was good until 17 November 2026."),
        ({"calendar": [{**ALWAYS, "start_date": "20261201"}]}, "2026-11-18 12:00", "good only from 1 December 2026."),
        ({"feed_info": [INFO]}, "2026-11-18 12:00", "good only from 1 December 2026."),
        (
            {
                "calendar": [{**ALWAYS, **NO_DAY}],
                "calendar_dates": [{"service_id": "daily", "date": "20261110", "exception_type": "1"}],
            },
            "2026-11-18 12:00",
            "was good until 10 November 2026.",
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
