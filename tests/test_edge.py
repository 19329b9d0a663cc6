"""Corrections, balances, night flow, rules and indices against figures from elsewhere and against properties."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_gateway.edge import tables
from bega_gateway.edge.balance import Metered, balance
from bega_gateway.edge.correction import barkjohn_2021, calibrated, kappa_koehler
from bega_gateway.edge.derive import (
    MOST_OPEN,
    EnergyEfficiency,
    IntervalMeans,
    IntervalTotals,
    MinimumNightFlow,
    NetworkBalance,
)
from bega_gateway.edge.efficiency import efficiency, joules
from bega_gateway.edge.night_flow import QUARTER_MS, minimum_night_flow, net_night_flow, night_of
from bega_gateway.edge.rules import Alarm, Deadband, Threshold
from bega_gateway.edge.stale import Staleness
from bega_gateway.edge.treatment import Treatments, reading_of
from bega_gateway.edge.us_aqi import ParticulateHours, nowcast, us_aqi
from bega_protocols.reading import GOOD, STALE, SUSPECT, Reading

ROMANIA = ZoneInfo("Europe/Bucharest")
AMOUNT = st.decimals(0, 10**6, places=3).map(Fraction)


def tenths(value: Fraction | None) -> int | None:
    return None if value is None else round(10 * value + Fraction(1, 10**9))


@pytest.mark.parametrize(
    ("mass_tenths", "humidity_hundredths", "corrected_tenths"),
    [(0, 5000, 14), (100, 5000, 67), (355, 6500, 187), (1000, 8000, 513), (5699, 5000, 3001), (50, 9500, 2)],
)
def test_barkjohn_as_its_integer_form_says(mass_tenths, humidity_hundredths, corrected_tenths):
    found = barkjohn_2021(Fraction(mass_tenths, 10), Fraction(humidity_hundredths, 100))
    assert found is not None
    assert abs(10 * found - corrected_tenths) <= Fraction(1, 2)


def test_barkjohn_ends_at_nothing_and_at_smoke():
    assert barkjohn_2021(Fraction(0), Fraction(100)) == 0
    assert barkjohn_2021(Fraction(570), Fraction(50)) is None
    assert barkjohn_2021(Fraction(10), Fraction(101)) is None


@pytest.mark.parametrize(
    ("humidity", "dry_tenths"), [(50, 805), (60, 733), (70, 639), (80, 508), (85, 421), (90, 314), (95, 178)]
)
def test_growth_by_humidity_as_tabulated(humidity, dry_tenths):
    assert tenths(kappa_koehler(Fraction(100), Fraction(humidity), Fraction(4, 10))) == dry_tenths


def test_in_fog_the_growth_formula_says_nothing():
    assert kappa_koehler(Fraction(100), Fraction(951, 10), Fraction(4, 10)) is None


@given(
    mass=AMOUNT, humidity=st.decimals(0, 95, places=2).map(Fraction), kappa=st.decimals(0, 1, places=2).map(Fraction)
)
def test_dry_mass_is_never_more_than_the_wet_one(mass, humidity, kappa):
    dry = kappa_koehler(mass, humidity, kappa)
    assert dry is not None and 0 <= dry <= mass


def test_calibration_is_exact():
    assert calibrated(Fraction("12.5"), Fraction("0.92"), Fraction("-1.5")) == Fraction(10)


@given(
    feeds=st.lists(AMOUNT, min_size=1, max_size=5),
    consumers=st.lists(AMOUNT, max_size=20),
    percents=st.lists(st.sampled_from([Fraction(1), Fraction(2), Fraction(5, 2)]), min_size=25, max_size=25),
)
def test_balance_against_decimals(feeds, consumers, percents):
    meters = [Metered(amount, percent) for amount, percent in zip([*feeds, *consumers], percents, strict=False)]
    found = balance(meters[: len(feeds)], meters[len(feeds) :])
    assert found is not None
    assert found.loss == sum(feeds) - sum(consumers)
    squares = sum(
        (Decimal(str(float(m.amount or 0))) * Decimal(str(float(m.class_percent))) / 100) ** 2 for m in meters
    )
    assert abs(Decimal(str(float(found.uncertainty))) - squares.sqrt()) < Decimal("0.001")
    if sum(feeds):
        assert found.loss_percent == 100 * found.loss / sum(feeds)


@given(
    produced=st.lists(AMOUNT, min_size=1, max_size=5),
    delivered=st.lists(AMOUNT, min_size=1, max_size=20),
    percents=st.lists(st.sampled_from([Fraction(1), Fraction(2), Fraction(5, 2)]), min_size=25, max_size=25),
)
def test_efficiency_against_decimals(produced, delivered, percents):
    meters = [Metered(amount, percent) for amount, percent in zip([*produced, *delivered], percents, strict=False)]
    found = efficiency(meters[: len(produced)], meters[len(produced) :])
    assert found is not None
    whole, part = sum(produced), sum(delivered)
    assert found.produced_over_delivered == (whole / part if part else None)
    assert found.percent == (100 * part / whole if whole else None)
    if not whole:
        assert found.uncertainty_percent is None
        return
    # Each meter by itself: by how much the figure changes when it alone is wrong by its class.
    errors = [meter.amount * meter.class_percent / 100 for meter in meters]
    slopes = [-part / whole**2] * len(produced) + [1 / whole] * len(delivered)
    squares = sum((100 * float(slope * error)) ** 2 for slope, error in zip(slopes, errors, strict=True))
    assert float(found.uncertainty_percent) == pytest.approx(squares**0.5, rel=1e-6, abs=1e-6)


@given(amounts=st.lists(AMOUNT, min_size=2, max_size=9), missing=st.integers(0, 8), cut=st.integers(1, 8))
def test_no_efficiency_of_a_network_with_a_hole(amounts, missing, cut):
    meters = [Metered(None if at == missing else amount, Fraction(1)) for at, amount in enumerate(amounts)]
    found = efficiency(meters[:cut], meters[cut:])
    assert (found is None) == (missing < len(meters) or cut >= len(meters))


@given(amount=AMOUNT, factor=st.integers(1, 1000))
def test_an_efficiency_is_the_same_in_any_unit(amount, factor):
    meters = [Metered(amount + 1, Fraction(2)), Metered(amount, Fraction(3))]
    larger = [Metered(meter.amount * factor, meter.class_percent) for meter in meters]
    found, again = efficiency(meters[:1], meters[1:]), efficiency(larger[:1], larger[1:])
    assert found and again
    assert (found.percent, found.uncertainty_percent) == (again.percent, again.uncertainty_percent)


def test_energy_and_gas_in_joules():
    assert joules(Fraction(2), "J") == 2
    assert joules(Fraction(2), "kW.h") == 7_200_000
    assert joules(Fraction(2), "m3", Fraction(21, 2)) == 75_600_000
    assert joules(Fraction(2), "m3") is None
    assert joules(Fraction(2), "Cel", Fraction(10)) is None


def test_more_than_the_meters_can_explain_comes_out_of_no_pipe():
    put_in = [Metered(Fraction(1000), Fraction(2))]
    little, much = (efficiency(put_in, [Metered(Fraction(amount), Fraction(2))]) for amount in (1020, 1050))
    assert little and much and not little.is_more_than_whole and much.is_more_than_whole


def test_what_a_calculation_could_not_use_is_counted():
    utc = ZoneInfo("UTC")

    def late(calculation):
        for time_ms in (0, 3_600_000, 1_800_000):
            list(calculation.take(("gw", "a"), [Reading("heat_energy", 1)], time_ms, ""))
        return calculation.left_out

    assert late(IntervalTotals(tables.Totals(input="a", quantities=["heat_energy"]), utc)) == 1
    assert late(IntervalMeans(tables.Means(input="a", quantities=["heat_energy"]), utc)) == 1
    meters = [("gw", "a")], [("gw", "b")]
    network = NetworkBalance(tables.Balance(feeds=["a"], consumers=["b"], quantity="x"), *meters, [Fraction(1)] * 2)
    heat = EnergyEfficiency(tables.Efficiency(produced=["a"], delivered=["b"], quantity="x"), *meters)
    for calculation in (network, heat):
        for hour in range(MOST_OPEN + 3):
            assert not list(calculation.take(("gw", "a"), [Reading("x", 1)], 3_600_000 * hour, ""))
        assert calculation.left_out == 3
    night = MinimumNightFlow(tables.NightFlow(input="a"), utc)
    for day in range(3):  # one quarter-hour of each night
        list(night.take(("gw", "a"), [Reading("water_volume_15min", 1)], day * 86_400_000 + 3 * 3_600_000, ""))
    assert night.left_out == 2


def test_a_network_with_a_hole_has_no_loss():
    assert balance([Metered(Fraction(10), Fraction(2))], [Metered(None, Fraction(2))]) is None
    assert balance([], []) is None


def test_a_loss_within_the_meters_classes_is_none_that_can_be_told():
    feed = [Metered(Fraction(1000), Fraction(2))]
    small = balance(feed, [Metered(Fraction(985), Fraction(2))])
    large = balance(feed, [Metered(Fraction(900), Fraction(2))])
    assert small and large and not small.is_certain and large.is_certain


@given(day=st.dates(date(2026, 1, 1), date(2027, 12, 30)), seed=st.integers(0, 10**6))
def test_night_flow_against_pandas(day, seed):
    """Two days around the night, the clock changes among them: pandas keeps the hours by the place's own clock."""
    index = pd.date_range(pd.Timestamp(day), periods=2 * 96, freq="15min", tz="Europe/Bucharest")
    amounts = pd.Series([(seed * (k + 1)) % 997 for k in range(len(index))], index=index)
    night = amounts[(amounts.index.date == day) & (amounts.index.hour >= 2) & (amounts.index.hour < 4)]
    reference = night.rolling(4).sum().min() if len(night) >= 4 else None
    starts = [round(moment.timestamp()) * 1000 for moment in index]
    quarters = [
        (start, Fraction(int(amount)))
        for start, amount in zip(starts, amounts, strict=True)
        if night_of(start, ROMANIA) == day
    ]
    found = minimum_night_flow(quarters)
    assert found == (None if reference is None or pd.isna(reference) else int(reference))


def test_a_night_with_a_gap_has_no_hour_over_it():
    quarters = [(index * QUARTER_MS, Fraction(1)) for index in (0, 1, 2, 4, 5, 6)]
    assert minimum_night_flow(quarters) is None


def test_leakage_is_not_less_than_nothing():
    assert net_night_flow(Fraction(3), Fraction(5)) == 0
    assert net_night_flow(Fraction(5), Fraction(3)) == 2


def changes(alarm, *rows):
    return [alarm.add(minute * 60_000, Fraction(value)) for minute, value in rows]


def test_an_alarm_has_hysteresis_and_hold_times():
    alarm = Alarm(Threshold(Fraction(50), Fraction(40), raise_after_ms=120_000, clear_after_ms=60_000))
    assert changes(alarm, (0, 60), (1, 39), (2, 60), (3, 45), (4, 60)) == [None, None, None, None, "raised"]
    assert changes(alarm, (5, 45), (6, 39), (7, 41), (8, 38)) == [None, None, None, "cleared"]


def test_between_the_bounds_nothing_changes():
    alarm = Alarm(Threshold(Fraction(50), Fraction(40)))
    assert changes(alarm, (0, 45), (1, 50), (2, 45), (3, 40), (4, 39), (5, 45)) == [
        None, "raised", None, None, "cleared", None,
    ]  # fmt: skip


def test_too_little_can_be_the_alarm():
    alarm = Alarm(Threshold(Fraction(2), Fraction(3), is_above=False))
    assert changes(alarm, (0, 5), (1, 2), (2, 3), (3, 4)) == [None, "raised", None, "cleared"]


def test_a_clock_that_is_set_back_does_not_hold_an_alarm_up_for_longer():
    alarm = Alarm(Threshold(Fraction(5), Fraction(5), raise_after_ms=60_000))
    hour_ms = 3_600_000
    assert alarm.add(hour_ms, Fraction(6)) is None
    assert alarm.add(30_000, Fraction(6)) is None
    assert alarm.add(89_999, Fraction(6)) is None
    assert alarm.add(90_000, Fraction(6)) == "raised"


def test_a_bound_that_clears_beyond_where_it_raises_is_refused():
    with pytest.raises(ValueError, match="clear_at"):
        Threshold(Fraction(50), Fraction(51))


@given(values=st.lists(st.integers(0, 100), max_size=60))
def test_raised_and_cleared_take_turns(values):
    alarm = Alarm(Threshold(Fraction(60), Fraction(40), raise_after_ms=60_000))
    said = [change for change in changes(alarm, *enumerate(values)) if change]
    assert said == ["raised", "cleared"] * (len(said) // 2) + ["raised"] * (len(said) % 2)
    assert alarm.is_raised == (len(said) % 2 == 1)


@given(values=st.lists(st.integers(-50, 50), min_size=1, max_size=60), width=st.integers(1, 20))
def test_no_value_that_was_held_back_is_far_from_the_last_one_reported(values, width):
    deadband = Deadband(Fraction(width), 10 * 60_000)
    reported = None
    for minute, value in enumerate(values):
        if deadband.passes(minute * 60_000, Fraction(value)):
            reported = (minute, value)
        assert reported is not None
        assert abs(value - reported[1]) < width and minute - reported[0] < 10


@pytest.mark.parametrize(
    ("mean_tenths", "index"),
    [
        (45, 25),
        (90, 50),
        (91, 51),
        (120, 56),
        (354, 100),
        (355, 101),
        (554, 150),
        (1254, 200),
        (2254, 300),
        (3254, 500),
    ],
)
def test_us_index_of_pm2_5_as_tabulated(mean_tenths, index):
    assert us_aqi("pm2_5", Fraction(mean_tenths, 10)) == index


def test_us_index_truncates_and_ends():
    assert us_aqi("pm2_5", Fraction("9.09")) == 50
    assert us_aqi("pm2_5", Fraction(900)) == 500
    assert [us_aqi("pm10", Fraction(mass)) for mass in (54, 55, 154, 155, 254, 354, 424, 425)] == [
        50, 51, 100, 101, 150, 200, 300, None,
    ]  # fmt: skip


def test_nowcast_of_steady_air_is_the_air_and_of_changing_air_the_latest():
    assert nowcast([Fraction(20)] * 12) == 20
    changing = nowcast([Fraction(100), Fraction(0), *[Fraction(0)] * 10])
    assert changing is not None and 50 < changing < 51
    assert nowcast([Fraction(1), None, None, *[Fraction(1)] * 9]) is None
    assert nowcast([Fraction(0)] * 12) == 0


@given(hours=st.lists(st.one_of(st.none(), AMOUNT), min_size=3, max_size=12))
def test_nowcast_lies_within_its_hours(hours):
    found = nowcast(hours)
    known = [mean for mean in hours if mean is not None]
    if found is not None:
        assert min(known) <= found <= max(known)


def test_the_us_index_of_a_place_rests_on_whole_hours_of_good_readings():
    hours = ParticulateHours()
    for minute in range(120):
        hours.add(minute * 60_000, [Reading("pm2_5", 90, -1), Reading("pm10", 54), Reading("pm2_5", 999, 0, "a")])
        hours.add(minute * 60_000, [Reading("pm2_5", 999, 0, "", SUSPECT)])
    assert hours.readings(59 * 60_000) == [], "one hour is not enough"
    assert hours.readings(119 * 60_000) == [Reading("us_aqi", 50)]
    assert hours.readings(119 * 60_000 + 12 * 3_600_000) == []


def test_a_sample_of_a_slow_sensor_stands_for_the_minutes_before_it():
    hours = ParticulateHours()
    for minute in range(10, 121, 10):
        hours.add(minute * 60_000, [Reading("pm2_5", 90, -1)], 10)
    assert hours.readings(120 * 60_000) == [Reading("us_aqi", 50)]
    assert hours.readings(136 * 60_000) == [], "the latest hour has 44 minutes, and the next one is all that there is"


def test_the_us_index_says_nothing_where_pm10_is_beyond_what_is_tabulated():
    """A dust storm: PM2.5 alone would make it a moderate day."""
    hours = ParticulateHours()
    for minute in range(120):
        hours.add(minute * 60_000, [Reading("pm2_5", 20), Reading("pm10", 900)])
    assert hours.readings(119 * 60_000) == []


def test_a_value_that_is_too_old_is_said_to_be_stale_once():
    staleness = Staleness(1000)
    assert staleness.overdue(10**9) == []
    staleness.heard([Reading("pm2_5", 5), Reading("current", 1, 0, "l1")], 0)
    staleness.heard([Reading("pm2_5", 6)], 500)
    assert staleness.wait_ms(500) == 500
    assert staleness.overdue(999) == []
    assert staleness.overdue(1000) == [Reading("current", 0, 0, "l1", STALE)]
    assert staleness.overdue(1500) == [Reading("pm2_5", 0, 0, "", STALE)]
    assert staleness.overdue(9999) == []


VALUES = st.lists(st.tuples(st.integers(0, 59), st.integers(-(10**6), 10**6), st.integers(-3, 1)), min_size=1)


@given(samples=VALUES)
def test_means_of_any_digits_against_decimals(samples):
    means = IntervalMeans(tables.Means(input="x", quantities=["temperature"]), ROMANIA)
    minutes: dict[int, list[Decimal]] = {}
    for minute, value, exp10 in sorted(samples):
        rows = [Reading("temperature", value, exp10)]
        assert not list(means.take(("gw", "x"), rows, minute * 60_000, ""))
        minutes.setdefault(minute, []).append(Decimal(value).scaleb(exp10))
    [given] = means.take(("gw", "x"), [], 3_600_000, "")
    coverage, mean, least, most = given.readings
    values = [value for found in minutes.values() for value in found]
    assert (coverage.value, least.value, most.value) == (len(minutes), 1000 * min(values), 1000 * max(values))
    expected = sum((sum(found) / len(found) for found in minutes.values()), Decimal(0)) / len(minutes)
    assert abs(mean.value - 1000 * expected) <= Decimal("0.5000001")
    assert mean.quality == (GOOD if len(minutes) >= 45 else SUSPECT)


@given(
    value=st.integers(-(10**6), 10**6),
    exp10=st.integers(-4, 2),
    least=st.decimals(-1000, 0, places=2),
    most=st.decimals(0, 1000, places=2),
)
def test_what_lies_outside_its_limits_is_doubted(value, exp10, least, most):
    treatments = Treatments()
    limit = tables.Limit(input="x", quantity="temperature", least=float(least), most=float(most))
    treatments.use([], [(("gw", "x"), limit)], [])
    [reading] = treatments.treat(("gw", "x"), [Reading("temperature", value, exp10)], 0)
    lies_within = least <= Decimal(value).scaleb(exp10) <= most
    assert reading == Reading("temperature", value, exp10, "", GOOD if lies_within else SUSPECT)


@given(
    rows=st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(-6, 4)), min_size=1, max_size=4),
    slope=st.decimals(-100, 100, places=4),
    offset=st.decimals(-1000, 1000, places=3),
)
def test_a_linear_correction_in_whole_numbers_is_the_one_in_fractions(rows, slope, offset):
    treatments = Treatments()
    correction = tables.Correction(input="x", quantity="temperature", slope=float(slope), offset=float(offset))
    treatments.use([(("gw", "x"), correction, None)], [], [])
    for value, exp10 in rows:
        [raw, corrected] = treatments.treat(("gw", "x"), [Reading("temperature", value, exp10)], 0)
        exactly = calibrated(Fraction(value) * Fraction(10) ** exp10, Fraction(slope), Fraction(offset))
        assert raw == Reading("temperature", value, exp10)
        assert corrected == reading_of("temperature_corrected", exactly, min(exp10, -1))
