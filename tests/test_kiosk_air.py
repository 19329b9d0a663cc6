"""What the kiosk says of the air, and when it says that it does not know."""

import asyncio
import itertools
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.look.panels import PANELS
from bega_gateway.edge.air_index import BANDS_UGM3, NEEDED_MINUTES
from bega_kiosk.air import ENOUGH_MINUTES, PM2_5_UPPER_UGM3, air_now
from bega_kiosk.config import Air, load
from bega_kiosk.display import Display
from bega_kiosk.pages.air import PATHS, day, reasons, sentence
from bega_kiosk.pages.screen import Screen
from bega_kiosk.places import Known, every_place
from bega_kiosk.store import Sample, Series, Store, Value
from bega_kiosk.words import load_words
from bega_protocols.reading import STALE, SUSPECT
from tests.kiosk_feed import CORNER

NOW_MS = 1_795_000_000_000  # 18 November 2026, 13:06 in Timișoara
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
ROMANIAN = load_words(ZoneInfo("Europe/Bucharest"))["ro"]
SCREEN = Screen(ROMANIAN, PANELS["24"], 600, Display(), "/air", "/", "Cum este aerul acum?", NOW_MS)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
    yield store
    store.close()


def value(quantity, number, age_ms=MINUTE_MS, device="air", label="Piața Victoriei", **more):
    fields = {"source": "gw", "part": "", "time_quality": 0, "quality": 0, "is_simulated": False} | more
    time_ms = NOW_MS - age_ms
    return Value(quantity=quantity, value=number, time_ms=time_ms, device=device, label=label, **fields)


def dust(number=8.0, age_ms=MINUTE_MS, device="roadside-air", **more):
    return value("pm2_5", number, age_ms, device, **more)


def index(band=2, minutes=60, age_ms=MINUTE_MS, **more):
    rows = [value("coverage", minutes, age_ms, **more)]
    return rows if band is None else [*rows, value("pm_index", band, age_ms, **more)]


def now(store, *values, limits=None):
    store.take_values([one for given in values for one in (given if isinstance(given, list) else [given])])
    return air_now(store, NOW_MS, limits or Air())


@pytest.mark.parametrize("band", range(1, 7))
def test_verdict_is_the_band_that_the_feed_gives(store, band):
    air = now(store, index(band), dust())
    assert (air.verdict.state, air.verdict.band) == ("known", band)
    assert sentence(ROMANIAN, air.verdict) == ROMANIAN.text(f"air.{band}.verdict")


def test_verdict_is_not_computed_from_the_dust(store):
    assert now(store, index(1), dust(900.0)).verdict.band == 1


@pytest.mark.parametrize("band", [0, 7, 2.5, -1, 1e300, None])
def test_verdict_takes_no_band_that_does_not_exist(store, band):
    assert now(store, [value("coverage", 60), value("pm_index", band)], dust()).verdict.state == "not_yet"


@pytest.mark.parametrize("minutes", [0, 1, 30, ENOUGH_MINUTES - 1])
def test_verdict_waits_for_45_minutes_even_if_an_index_is_given(store, minutes):
    verdict = now(store, index(2, minutes), dust()).verdict
    assert (verdict.state, verdict.minutes) == ("not_yet", minutes)
    assert sentence(ROMANIAN, verdict) == "Nu știm încă."


def test_verdict_comes_with_45_minutes(store):
    assert now(store, index(2, 45), dust()).verdict.state == "known"


def test_verdict_waits_when_dust_comes_and_no_index_yet(store):
    assert now(store, dust()).verdict.state == "not_yet"


def test_verdict_is_unknown_when_nothing_was_ever_heard(store):
    air = now(store)
    assert air.verdict.state == "unknown"
    assert [*reasons(ROMANIAN, air)] == ["Stația nu trimite date acum."]


def test_verdict_holds_for_two_hours_and_not_longer(store):
    assert now(store, index(2, age_ms=120 * MINUTE_MS)).verdict.state == "known"
    late = air_now(store, NOW_MS + MINUTE_MS, Air())
    assert late.verdict.state == "unknown"
    assert sentence(ROMANIAN, late.verdict) == "Nu știm acum."
    assert [*reasons(ROMANIAN, late)] == ["Ultima măsurare este de acum 2 ore."]


def test_verdict_of_an_hour_ago_says_its_age(store):
    air = now(store, index(2, age_ms=61 * MINUTE_MS))
    assert [*reasons(ROMANIAN, air)] == ["Treapta 2 din 6.", "Calculat acum o oră."]


def test_index_that_is_no_longer_computed_is_no_verdict(store):
    """A feed still shows the last index beside newer minutes of coverage."""
    old = [value("pm_index", 2, 20 * MINUTE_MS), value("coverage", 60, 20 * MINUTE_MS)]
    verdict = now(store, old, value("coverage", 40, MINUTE_MS), dust(age_ms=16 * MINUTE_MS)).verdict
    assert verdict.state == "unknown", "a sensor that fell silent is not one that begins"


def test_sensor_that_begins_is_told_from_one_that_ended(store):
    assert now(store, index(None, 10), dust()).verdict.state == "not_yet"
    assert now(store, index(None, 9, age_ms=0), dust(age_ms=-1, quality=STALE)).verdict.state == "unknown"


def test_verdict_from_the_future_is_none(store):
    """A kiosk without a clock (1970), or a gateway that is ahead: nobody knows how old the value is."""
    air = now(store, index(2, age_ms=-HOUR_MS), dust(age_ms=-HOUR_MS))
    assert (air.verdict.state, air.dust.value_ugm3, air.dust.age_ms) == ("unknown", None, None)


def test_clocks_that_differ_by_seconds_do_no_harm(store):
    air = now(store, index(2, age_ms=-20_000), dust(age_ms=-20_000))
    assert (air.verdict.state, air.dust.age_ms) == ("known", 0)


def test_value_is_live_for_ten_minutes_and_not_longer(store):
    assert now(store, index(), dust(8.0, 10 * MINUTE_MS)).dust.value_ugm3 == 8.0
    later = air_now(store, NOW_MS + MINUTE_MS, Air())
    assert (later.dust.value_ugm3, later.verdict.state) == (None, "known")


@pytest.mark.parametrize("bad", [None, -1.0, 5001.0, 1e300])
def test_value_that_no_air_has_is_not_shown(store, bad):
    assert now(store, index(), dust(bad)).dust.value_ugm3 is None


def test_value_that_its_device_calls_stale_is_not_shown(store):
    assert now(store, index(), dust(8.0, quality=STALE)).dust.value_ugm3 is None
    assert now(store, dust(9.0, age_ms=0, quality=SUSPECT)).dust.value_ugm3 == 9.0


def test_dust_is_the_one_with_the_label_of_the_index(store):
    air = now(store, index(), dust(1.0, device="a-park", label="Parcul Rozelor"), dust(2.0), dust(3.0, device="z"))
    assert (air.dust.value_ugm3, air.dust.place) == (2.0, "Piața Victoriei")


def test_dust_is_the_one_that_the_configuration_names(store):
    air = now(store, index(), dust(), dust(3.0, device="z"), limits=Air(dust="z"))
    assert air.dust.value_ugm3 == 3.0


def test_page_stays_at_one_place_when_two_have_an_index(store):
    two = [*index(2, device="a"), *index(5, device="b", age_ms=0)]
    assert now(store, two).verdict.band == 2, "b is newer, and a is still fresh"
    assert air_now(store, NOW_MS, Air(index="b")).verdict.band == 5


def test_second_place_steps_in_when_the_first_is_stale(store):
    assert now(store, index(2, device="a", age_ms=3 * HOUR_MS), index(5, device="b")).verdict.band == 5


def test_simulated_index_or_dust_is_said(store):
    assert "Date simulate, pentru probă." in [*reasons(ROMANIAN, now(store, index(is_simulated=True), dust()))]
    assert "Date simulate, pentru probă." not in [*reasons(ROMANIAN, now(store, index(age_ms=0), dust()))]
    assert "Date simulate, pentru probă." in [*reasons(ROMANIAN, now(store, dust(age_ms=0, is_simulated=True)))]


def test_grounds_of_the_plot_are_the_bands_that_the_gateway_computes_with():
    assert PM2_5_UPPER_UGM3 == BANDS_UGM3["pm2_5"] == (5, 15, 50, 90, 140)
    assert ENOUGH_MINUTES == NEEDED_MINUTES == 45


def series(*samples):
    return Series(source="gw", device="roadside-air", label="", part="", samples=[Sample(*row) for row in samples])


def test_day_names_its_highest_and_lowest_value_with_their_time():
    told = day(SCREEN, series((NOW_MS - 2 * HOUR_MS, 48.2, 0, False), (NOW_MS - HOUR_MS, 6.26, 0, False)))
    assert (told.most, told.least) == ("Cel mai mult: 48, la 11:06.", "Cel mai puțin: 6,3, la 12:06.")
    assert told.most in str(told.plot)


def test_day_leaves_out_what_is_older_than_it_or_not_yet():
    assert day(SCREEN, series((NOW_MS - 25 * HOUR_MS, 9.0, 0, False), (NOW_MS + HOUR_MS, 9.0, 0, False))) is None


def test_day_says_which_part_is_simulated():
    told = day(SCREEN, series((NOW_MS - 3 * HOUR_MS, 9.0, 0, True), (NOW_MS - HOUR_MS, 9.0, 0, False)))
    assert told.is_part_simulated
    assert told.is_part_measured
    assert told.rows[:4] == [
        ("13:00", "fără date", ""),
        ("12:00", "9", "date măsurate"),
        ("11:00", "fără date", ""),
        ("10:00", "9", "date simulate"),
    ]
    assert len(told.rows) == 25


def test_day_names_whole_hours_of_the_local_clock():
    """13:06 in Timișoara is 11:06 UTC: hours divisible by six are local ones."""
    words = str(day(SCREEN, series((NOW_MS - HOUR_MS, 9.0, 0, False))).plot)
    assert [word for word in ("ora 6", "ora 12", "ora 18", "azi") if f">{word}<" in words] == [
        "ora 6", "ora 12", "ora 18", "azi",
    ]  # fmt: skip


# 25 October 2026: the clock goes back at 4:00 in Romania, so the day has 25 hours.
def test_day_keeps_its_hours_when_the_clock_changes():
    morning = replace(SCREEN, now_ms=1_792_923_000_000)  # 12:10 local
    told = day(morning, series((morning.now_ms - HOUR_MS, 9.0, 0, False)))
    assert ">azi<" in str(told.plot)


NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-10, 200).map(float))
ROWS = st.builds(
    value,
    st.sampled_from(["pm_index", "coverage", "pm2_5_mean_1h", "pm10_mean_1h", "pm2_5"]),
    NUMBERS,
    st.integers(-3 * HOUR_MS, 30 * HOUR_MS),
    st.sampled_from(["air", "b", "roadside-air"]),
    st.text(max_size=20),
    quality=st.integers(0, 2),
)


@given(rows=st.lists(ROWS, max_size=12), samples=st.lists(st.tuples(st.integers(0, 2**53), NUMBERS), max_size=5))
def test_any_feed_gives_a_page(tmp_path_factory, rows, samples):
    store = Store(tmp_path_factory.mktemp("any") / "kiosk.sqlite", lambda: NOW_MS)
    store.take_values(rows)
    store.take_series("pm2_5", [series(*((time_ms, number, 0, False) for time_ms, number in samples))])
    config = load(CORNER)
    fed = [place for place in every_place(Known(config, store, lambda: NOW_MS)) if place.path in {"/", *PATHS.values()}]
    for place, panel in itertools.product(fed, PANELS.values()):
        assert "</html>" in place.draw(replace(SCREEN, panel=panel, distance_mm=panel.farthest_mm)).html
    assert len(fed) == 1 + len(PATHS)
    store.close()


def test_store_answers_after_a_restart_with_the_right_age(tmp_path):
    store = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
    now(store, index(3), dust(21.0))
    store.take_series("pm2_5", [series((NOW_MS - HOUR_MS, 9.0, 0, False))])
    store.close()
    again = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
    air = air_now(again, NOW_MS + 5 * MINUTE_MS, Air())
    again.close()
    assert (air.verdict.band, air.dust.value_ugm3, air.dust.age_ms) == (3, 21.0, 6 * MINUTE_MS)
    assert air.day.samples == [Sample(NOW_MS - HOUR_MS, 9.0, 0, False)]


def test_store_writes_while_it_runs(tmp_path):
    async def run():
        store = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
        keeping = asyncio.create_task(store.keep(every_s=0.01))
        store.take_values(index(4))
        for _ in range(200):
            await asyncio.sleep(0.01)
            other = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
            if other.values("pm_index"):
                break
        keeping.cancel()
        return other.values("pm_index")

    assert [row.value for row in asyncio.run(run())] == [4]


def test_store_begins_anew_when_its_file_is_damaged(tmp_path):
    path = tmp_path / "kiosk.sqlite"
    path.write_bytes(b"this was a power cut" * 500)
    store = Store(path, lambda: NOW_MS)
    now(store, index(2))
    store.close()
    assert path.with_name("kiosk.sqlite.damaged").read_bytes().startswith(b"this was")
    assert Store(path, lambda: NOW_MS).values("pm_index")


def test_store_goes_on_from_memory_when_the_disk_is_full(tmp_path, caplog):
    store = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
    store._file.execute("PRAGMA max_page_count=3")  # SQLite itself answers "database or disk is full"
    store.take_series("pm2_5", [series(*((NOW_MS + n, 1.0 * n, 0, False) for n in range(5000)))])
    store.close()
    assert "cannot be written" in caplog.text
    assert store.series("pm2_5")


def test_backlog_changes_nothing_that_is_newer(store):
    now(store, dust(9.0, age_ms=MINUTE_MS))
    revision = store.revision
    now(store, dust(1.0, age_ms=HOUR_MS))
    assert [row.value for row in store.values("pm2_5")] == [9.0]
    assert store.revision == revision


def test_value_stamped_in_the_future_yields_to_the_next(store):
    now(store, dust(9.0, age_ms=-365 * 24 * HOUR_MS))
    assert now(store, dust(1.0)).dust.value_ugm3 == 1.0


def test_store_forgets_the_oldest_before_it_grows_without_end(store):
    store.take_values(dust(1.0, age_ms=n, device=f"d{n}") for n in range(5000))
    devices = {row.device for row in store.values("pm2_5")}
    assert len(devices) <= 2000
    assert "d0" in devices
