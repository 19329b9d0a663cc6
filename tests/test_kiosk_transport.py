"""Buses and trams on the page: minutes only of a vehicle that was seen just now, and nothing where nobody knows."""

import html
import os
import re
import time
from datetime import date

import msgspec
import pytest
from google.transit import gtfs_realtime_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from bega_kiosk.config import make
from bega_kiosk.content import sample_folder
from bega_kiosk.notices import write_notice
from bega_kiosk.prepared import prepare
from bega_kiosk.realtime import departure, read_live
from bega_kiosk.server import Pages
from bega_kiosk.store import Store
from bega_kiosk.timetable import timetable_in_memory
from bega_kiosk.transport import FILE, Transport
from bega_kiosk.words import LANGUAGES, load_words
from bega_protocols.errors import ConfigError, WireError
from tests.kiosk_gtfs import a_feed, a_trip, write_feed
from tests.kiosk_notices import CITY, KEY, listed, notice, public_key

NOW_MS = 1_795_000_000_000  # Wednesday 18 November 2026, 13:06:40 in Timișoara
NOW_S = NOW_MS // 1000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
PLANNED_MS = NOW_MS + 3 * MINUTE_MS + 20_000  # line 4 is planned at 13:10:00
LIVE = "http://city.example/live.pb"


@pytest.fixture(scope="module")
def words():
    return load_words(make({"kiosk": {"name": "k", "city": "c"}}).timezone)


class Corner:
    """A kiosk's pages at the stops of a feed, without a server."""

    def __init__(self, folder, words, panel="24", stops=("here",), kept=True, platforms=None, **files):
        self.folder = folder
        (folder / "city.pub").write_bytes(public_key())
        files |= {"stops": platforms} if platforms else {}  # `stops` are those of the configuration
        self.feed = write_feed(folder / "feed.zip", a_feed(**files))
        if kept:
            prepare(self.feed, folder / FILE, list(stops))
            os.utime(folder / FILE, ns=(NOW_MS * 1_000_000, NOW_MS * 1_000_000))
        self.now_ms = NOW_MS
        config = make(
            {
                "kiosk": {"name": "k", "city": CITY, "state_dir": str(folder), "panel": panel},
                "transport": {"feed": str(self.feed), "stops": list(stops), "realtime": LIVE},
                "notices": {"keys": [str(folder / "city.pub")]},
            }
        )
        self.store = Store(folder / "kiosk.sqlite", lambda: self.now_ms)
        self.pages = Pages(config, self.store, words, lambda: self.now_ms)
        self.transport = self.pages.known.transport

    def hears(self, message):
        self.transport.live = read_live(message.SerializeToString(), self.transport.timetable, self.now_ms)
        self.transport.alerts = self.transport.live.alerts

    def see(self, path="/transport", language="en"):
        """Return what a screen says, without its markup."""
        place = next(place for place in self.pages.places if path in place.paths())
        drawn = place.draw(self.pages.screen(place, place.params(path), {"lang": language}))
        said = re.sub(r'aria-hidden="true">.*?</span>(?=</li>|\n)', ">", drawn.html.partition("<main")[2])
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", said)).split())

    def rows(self, language="en"):
        """Return what is spoken of each vehicle."""
        return re.findall(r'<span class="spoken">(.*?)</span>', self.drawn(language))

    def drawn(self, language="en", page="1"):
        place = next(place for place in self.pages.places if place.path == "/transport")
        return place.draw(self.pages.screen(place, {}, {"lang": language, "page": page})).html


@pytest.fixture
def corner(tmp_path, words):
    made = []

    def make_corner(**more):
        made.append(Corner(tmp_path, words, **more))
        return made[-1]

    yield make_corner
    for one in made:
        one.store.close()


def a_message(*trips, told_s=NOW_S, alerts=()):
    """Return a message of GTFS Realtime; a trip is (id, what is said of it)."""
    message = pb.FeedMessage()
    message.header.gtfs_realtime_version = "2.0"
    message.header.timestamp = told_s
    for turn, (trip, said) in enumerate(trips):
        entity = message.entity.add(id=str(turn))
        entity.trip_update.trip.trip_id = trip
        for field, value in said.items():
            if field in ("start_date", "start_time", "schedule_relationship"):
                setattr(entity.trip_update.trip, field, value)
            elif field == "stops":
                for stop in value:
                    entity.trip_update.stop_time_update.add(**stop)
            elif field == "vehicle":
                entity.trip_update.vehicle.wheelchair_accessible = value
            else:
                setattr(entity.trip_update, field, value)
    for turn, alert in enumerate(alerts):
        message.entity.add(id=f"a{turn}").alert.CopyFrom(alert)
    return message


def late(delay_s, **at):
    return {**at, "departure": {"delay": delay_s}}


def test_timetable_alone_names_a_time_and_never_minutes(corner):
    kiosk = corner()
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, 13:10."]
    said = kiosk.see()
    assert "The time is from the timetable, not real time." in said
    assert "Timetable: Transport, until 31 December 2035." in said
    assert "in 3 minutes" not in said


@pytest.mark.parametrize(
    ("said", "row"),
    [
        ({"stops": [late(120, stop_sequence=2)]}, "in 5 minutes, 13:12"),
        ({"stops": [late(120, stop_id="here")]}, "in 5 minutes, 13:12"),
        ({"stops": [{"stop_id": "here", "departure": {"time": PLANNED_MS // 1000 - 60}}]}, "in 2 minutes, 13:09"),
        ({"stops": [{"stop_id": "here", "arrival": {"time": PLANNED_MS // 1000 - 150}}]}, "coming now, 13:07"),
        ({"stops": [late(180, stop_sequence=1)]}, "in 6 minutes, 13:13"),
        (
            {"stops": [{"stop_sequence": 1, "departure": {"time": PLANNED_MS // 1000 - 600 + 240}}]},
            "in 7 minutes, 13:14",
        ),
        ({"stops": [{"stop_id": "west", "arrival": {"time": PLANNED_MS // 1000 - 600 + 240}}]}, "in 7 minutes, 13:14"),
        ({"stops": [late(180, stop_sequence=1), late(60, stop_sequence=2)]}, "in 4 minutes, 13:11"),
        ({"stops": [late(180, stop_sequence=1), {"stop_sequence": 2, "schedule_relationship": 2}]}, "13:10"),
        ({"stops": [late(600, stop_sequence=3)]}, "13:10"),
        ({"delay": 300, "stops": []}, "in 8 minutes, 13:15"),
        ({"stops": [{"stop_sequence": 2, "schedule_relationship": 1}]}, "does not stop here, 13:10"),
        (
            {"stops": [late(180, stop_sequence=1), {"stop_sequence": 2, "schedule_relationship": 1}]},
            "does not stop here, 13:10",
        ),
        ({"schedule_relationship": 3}, "not coming, 13:10"),
        ({"schedule_relationship": 7}, "not coming, 13:10"),
        ({"schedule_relationship": 3, "start_date": "20261118"}, "not coming, 13:10"),
        ({"schedule_relationship": 3, "start_date": "20261117"}, "13:10"),
        ({"stops": [late(120, stop_sequence=2)], "timestamp": NOW_S - 600}, "13:10"),
        ({"schedule_relationship": 3, "timestamp": NOW_S - 6000}, "not coming, 13:10"),
        ({"stops": [late(9 * 3600, stop_sequence=2)]}, "13:10"),
        ({"stops": [late(120, stop_sequence=2)], "vehicle": 2}, "in 5 minutes, 13:12, no steps"),
        ({"stops": [], "vehicle": 3}, "13:10, with steps"),
    ],
)
def test_what_is_said_of_a_trip_is_what_the_row_says(corner, said, row):
    kiosk = corner()
    kiosk.hears(a_message(("t1", said)))
    assert kiosk.rows() == [f"Line 4 to Ciarda Roșie, {row}."]


def test_stop_that_is_left_out_before_this_one_changes_no_delay(corner):
    kiosk = corner(stop_times=a_trip("t1", "12:50:00", stops=("west", "there", "here", "east"), minutes=(0, 5, 20, 40)))
    kiosk.hears(
        a_message(("t1", {"stops": [late(60, stop_sequence=1), {"stop_sequence": 2, "schedule_relationship": 1}]}))
    )
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, in 4 minutes, 13:11."]


def test_late_tram_is_shown_until_it_has_left(corner):
    kiosk = corner(stop_times=a_trip("t1", "12:30:00"))
    assert "Nothing more is coming today." in kiosk.see()
    kiosk.hears(a_message(("t1", {"stops": [late(40 * 60, stop_sequence=2)]})))
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, in 13 minutes, 13:20."]


def test_tram_that_has_left_early_is_not_shown(corner):
    kiosk = corner()
    kiosk.hears(a_message(("t1", {"stops": [late(-6 * 60, stop_sequence=2)]})))
    assert kiosk.rows() == []


def test_what_was_said_too_long_ago_is_not_the_real_time(corner):
    kiosk = corner()
    kiosk.hears(a_message(("t1", {"stops": [late(120, stop_sequence=2)]}), told_s=NOW_S - 60))
    assert "The minutes are real, received one minute ago." in kiosk.see()
    kiosk.now_ms += 121_000
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, 13:10."]
    assert "The time is from the timetable, not real time." in kiosk.see()
    kiosk.now_ms = NOW_MS
    kiosk.hears(a_message(("t1", {"stops": [late(120, stop_sequence=2)]}), told_s=NOW_S + 600))
    assert kiosk.rows() == ["Line 4 to Ciarda Roșie, 13:10."], "one of the two clocks is wrong by ten minutes"


def test_where_some_are_real_each_other_says_that_it_is_not(corner):
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": name} for name in ("t1", "t2")]
    kiosk = corner(trips=trips, stop_times=a_trip("t1", "13:00:00") + a_trip("t2", "13:30:00"))
    kiosk.hears(a_message(("t1", {"stops": [late(120, stop_sequence=2)]})))
    assert kiosk.rows() == [
        "Line 4 to Ciarda Roșie, in 5 minutes, 13:12.",
        "Line 4 to Ciarda Roșie, 13:40, by timetable.",
    ]


def test_one_minute_is_a_minute_that_is_left(corner):
    kiosk = corner()
    said = []
    for left_s in (130, 119, 60, 59, 0, -20):
        kiosk.now_ms = PLANNED_MS - left_s * 1000
        kiosk.hears(a_message(("t1", {"stops": [late(0, stop_sequence=2)]}), told_s=kiosk.now_ms // 1000))
        said += [row.split(", ")[1] for row in kiosk.rows("ro")]
    assert said == ["peste 2 minute", "peste un minut", "peste un minut", "vine acum", "vine acum", "vine acum"]


def an_alert(effect, **entity):
    alert = pb.Alert(effect=effect)
    alert.informed_entity.add(**entity)
    return alert


def test_alerts_are_said_in_the_words_of_the_reader(corner):
    kiosk = corner()
    kiosk.hears(a_message(alerts=[an_alert(4, route_id="r4"), an_alert(1, route_id="r9"), an_alert(9, stop_id="here")]))
    said = kiosk.see(language="ro")
    assert "Stația este mutată acum. Linia 4 merge acum pe alt drum." in said, "the worst first"
    assert "nu merge" not in said, "that line does not pass here"
    alert = an_alert(1, route_id="r4")
    alert.active_period.add(start=NOW_S + 60, end=NOW_S + 120)
    kiosk.hears(a_message(alerts=[alert]))
    assert "not running" not in kiosk.see()
    kiosk.now_ms += 60_000
    assert "Line 4 is not running now." in kiosk.see()


def test_detour_that_the_city_signed_is_said_here_too(corner):
    kiosk = corner()
    assert "goes another way" not in kiosk.see()
    detour = write_notice(KEY, notice(NOW_MS, effect="transport_detour", lines=["4", "11"]))
    kiosk.pages.known.notices.take_all(*listed([detour], NOW_MS))
    assert "Line 4 goes another way now." in kiosk.see()
    assert "11" not in kiosk.see()
    kiosk.now_ms += 61 * MINUTE_MS
    assert "goes another way" not in kiosk.see(), "it may have been taken back since"


def test_evening_ends_at_three_and_the_first_of_the_morning_is_named(corner):
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": name} for name in ("t1", "t2")]
    kiosk = corner(trips=trips, stop_times=a_trip("t1", "24:40:00") + a_trip("t2", "05:00:00"))
    assert kiosk.rows("ro") == ["Linia 4 spre Ciarda Roșie, ora 0:50."]
    kiosk.now_ms = NOW_MS + 12 * 3_600_000  # 1:06 at night
    said = kiosk.see(language="ro")
    assert "Nu mai vine nimic azi. Prima cursă vine joi, 19 noiembrie, ora 5:10. Linia 4 spre Ciarda Roșie." in said


@pytest.mark.parametrize(
    ("now_ms", "heard_ms", "why"),
    [
        (1000, NOW_MS, "The clock of this machine is wrong."),
        (NOW_MS + 31 * DAY_MS, NOW_MS, "The timetable may be old. We checked it 31 days ago."),
        (NOW_MS + 10 * 365 * DAY_MS, NOW_MS + 10 * 365 * DAY_MS, "The timetable was valid until"),
        (NOW_MS, NOW_MS + DAY_MS, "The timetable may be old."),
    ],
    ids=["1970", "not asked for a month", "over", "kept by a clock that was ahead"],
)
def test_where_nobody_knows_it_says_so_and_names_another_way(corner, now_ms, heard_ms, why):
    kiosk = corner()
    os.utime(kiosk.folder / FILE, ns=(heard_ms * 1_000_000, heard_ms * 1_000_000))
    kiosk.transport.reload()
    kiosk.now_ms = now_ms
    said = kiosk.see()
    assert "We do not know now." in said
    assert why in said
    assert "Look at the board at the stop, or ask a person." in said
    assert "13:10" not in said
    assert kiosk.transport.departures(now_ms) == []
    assert "Line 4" in kiosk.see("/transport/lines"), "lines are known without a clock and without a network"
    assert "Goes to Ciarda Roșie." in kiosk.see("/transport/line/4")
    assert "13:10" not in kiosk.see("/transport/line/4")


def test_before_the_first_timetable_it_says_that_none_has_come(corner):
    kiosk = corner(kept=False)
    assert "We have not received the timetable yet." in kiosk.see()
    assert "We have not received the timetable yet." in kiosk.see("/transport/lines")


def test_timetable_of_other_stops_is_not_this_kiosks(tmp_path, corner):
    kiosk = corner()
    settings = msgspec.structs.replace(kiosk.transport.settings, stops=["there"])
    assert Transport(settings, tmp_path, None, lambda: NOW_MS).timetable is None


def test_platforms_are_named_where_there_are_several(corner):
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": name} for name in ("t1", "t2")]
    calls = a_trip("t1", "13:00:00") + a_trip("t2", "13:00:00", stops=("east", "there", "west"))
    kiosk = corner(stops=("here", "there"), trips=trips, stop_times=calls)
    assert kiosk.rows() == [
        "Line 4 to Ciarda Roșie, 13:10, platform 1.",
        "Line 4 to Gara de Nord, 13:10, platform 2.",
    ]
    assert "Goes to Gara de Nord. From platform 2: 13:10." in kiosk.see("/transport/line/4")


@pytest.mark.parametrize(("panel", "most"), [("24", 8), ("24p", 8), ("10", 6)])
def test_screen_has_as_many_rows_as_fit_and_the_rest_on_the_next(corner, panel, most):
    names = [f"t{turn}" for turn in range(40)]
    trips = [{"route_id": "r4", "service_id": "daily", "trip_id": name} for name in names]
    calls = [row for turn, name in enumerate(names) for row in a_trip(name, f"13:{turn:02d}:00")]
    kiosk = corner(panel=panel, trips=trips, stop_times=calls)
    shown = [re.findall("Ciarda Roșie, ([0-9:]+)", kiosk.drawn(page=str(page))) for page in (1, 2, 3)]
    assert 4 <= len(shown[0]) <= most
    every = [time for part in shown for time in part]
    assert every == [f"13:{10 + turn:02d}" for turn in range(len(every))], "none twice, none left out"


def test_example_is_good_on_any_day_and_says_that_it_is_one(tmp_path, words):
    for turn, day in enumerate(("2026-11-22", "2027-03-28", "2031-12-25")):
        now_ms = int(time.mktime(date.fromisoformat(day).timetuple())) * 1000 + 10 * 3_600_000
        config = make({"kiosk": {"name": "k", "city": "c", "state_dir": str(tmp_path)}})
        store = Store(tmp_path / f"{turn}.sqlite", lambda now_ms=now_ms: now_ms)
        pages = Pages(config, store, words, lambda now_ms=now_ms: now_ms)
        for path in ("/transport", "/transport/line/4", "/transport/lines"):
            place = next(place for place in pages.places if path in place.paths())
            drawn = place.draw(pages.screen(place, place.params(path), {"lang": "ro"})).html
            assert "EXEMPLU. Aceste date sunt de probă." in drawn
        home = next(place for place in pages.places if place.path == "/")
        assert "Linia" not in home.draw(pages.screen(home, {}, {"lang": "ro"})).html, "there it could not say so"
        assert len(pages.known.transport.departures(now_ms)) > 10
        store.close()


def test_kiosk_of_a_city_without_a_feed_has_no_such_screen(tmp_path, words):
    config = make(
        {"kiosk": {"name": "k", "city": "c", "state_dir": str(tmp_path), "content_dir": str(sample_folder())}}
    )
    store = Store(tmp_path / "s", lambda: NOW_MS)
    pages = Pages(config, store, words, lambda: NOW_MS)
    store.close()
    assert [place.path for place in pages.places if place.path.startswith("/transport")] == []


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_the_place_of_a_message_are_read_or_refused(timetable, noise):
    try:
        read_live(noise, timetable, NOW_MS)
    except WireError as error:
        assert error.why.startswith("no GTFS Realtime message")


@given(
    st.lists(
        st.fixed_dictionaries(
            {"stop_sequence": st.integers(0, 2**32 - 1), "schedule_relationship": st.integers(0, 3)},
            optional={
                "departure": st.fixed_dictionaries(
                    {}, optional={"delay": st.integers(-(2**31), 2**31 - 1), "time": st.integers(-(2**63), 2**63 - 1)}
                )
            },
        ),
        max_size=6,
    ),
    st.integers(0, 2**63),
)
@settings(max_examples=80, deadline=None)
def test_whatever_a_message_says_no_time_is_shown_that_is_hours_off(timetable, stops, told_s):
    message = a_message(("t1", {"stops": stops, "timestamp": told_s}), told_s=told_s)
    live = read_live(message.SerializeToString(), timetable, NOW_MS)
    (passing,) = timetable.passings(NOW_MS, NOW_MS + 600_000)
    known = departure(passing, live, timetable.calls, NOW_MS - 180_000)
    assert abs(known.time_ms - PLANNED_MS) <= 6 * 3_600_000
    assert msgspec.structs.replace(known, time_ms=0).passing == passing


@pytest.fixture(scope="module")
def timetable(tmp_path_factory):
    return timetable_in_memory(write_feed(tmp_path_factory.mktemp("t") / "f.zip", a_feed()), ["here"])


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"stops": ["x"]}, "transport.feed"),
        ({"feed": "city.zip"}, "transport.stops"),
        ({"feed": "ftp://x/y.zip", "stops": ["x"]}, "transport.feed"),
        ({"feed": "https://a:b@x/y.zip", "stops": ["x"]}, "transport.feed"),
        ({"feed": "https://x/y.zip?key=1", "stops": ["x"], "realtime": "x"}, "transport.realtime"),
        ({"feed": "https://x/y.zip", "stops": ["x"], "limit_days": 0}, "transport.limit_days"),
    ],
)
def test_mistake_of_the_table_is_named_with_its_place(said, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        make({"kiosk": {"name": "k", "city": "c"}, "transport": said})


def test_every_language_says_every_state(corner):
    kiosk = corner()
    kiosk.hears(
        a_message(("t1", {"stops": [late(120, stop_sequence=2)], "vehicle": 2}), alerts=[an_alert(3, route_id="r4")])
    )
    for language in LANGUAGES:
        assert "4" in kiosk.see(language=language)
