"""The particulate index: the published bands, the coverage, and a mean that agrees with one worked out otherwise."""

import statistics
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_gateway.edge.air_index import BANDS_UGM3, HOUR_MS, MINUTE_MS, ParticulateHour, band, hour_mean
from bega_protocols.reading import STALE, SUSPECT, Reading

NOW_MS = 1_795_300_000_000

# European Air Quality Index, revised 2025 (EEA; ETC HE Report 2024/17): upper bound of each band in ug/m3.
PUBLISHED = {"pm2_5": [5, 15, 50, 90, 140], "pm10": [15, 45, 120, 195, 270]}
# Worked out by hand for the bound as inclusive, in tenths of ug/m3.
VECTORS = [("pm2_5", 50, 1), ("pm2_5", 51, 2), ("pm2_5", 1400, 5), ("pm2_5", 1401, 6), ("pm10", 450, 2)]


@pytest.mark.parametrize(("quantity", "tenths", "expected"), VECTORS)
def test_band_of_the_vectors(quantity, tenths, expected):
    assert band(quantity, tenths) == expected


@pytest.mark.parametrize("quantity", PUBLISHED)
def test_every_published_bound_is_inclusive_and_the_tenth_above_it_is_not(quantity):
    for number, bound in enumerate(PUBLISHED[quantity], start=1):
        assert band(quantity, 10 * bound) == number
        assert band(quantity, 10 * bound + 1) == number + 1
    assert band(quantity, 0) == 1
    assert band(quantity, 10**9) == 6


def test_no_quantity_but_the_particulates_has_bands():
    assert set(BANDS_UGM3) == set(PUBLISHED)


# ------------------------------------------------------------------ the mean of an hour


SAMPLES = st.lists(
    st.tuples(st.integers(-2 * HOUR_MS, HOUR_MS // 2), st.integers(0, 10_000), st.integers(-3, 0)), max_size=60
)


def mean_otherwise(samples: list[tuple[int, float]], now_ms: int) -> tuple[float | None, int]:
    """The same, by floats and the standard library: the mean of the means of the minutes, counted back from now."""
    minutes = [
        [value for time_ms, value in samples if minute * 60 <= (now_ms - time_ms) / 1000 < minute * 60 + 60]
        for minute in range(60)
    ]
    means = [statistics.fmean(values) for values in minutes if values]
    return (statistics.fmean(means) if means else None), len(means)


@given(rows=SAMPLES)
def test_mean_agrees_with_one_worked_out_by_floats(rows):
    exact = [(NOW_MS + offset, Fraction(value) * Fraction(10) ** exp10) for offset, value, exp10 in rows]
    tenths, minutes = hour_mean(exact, NOW_MS)
    floats = [(time_ms, float(value)) for time_ms, value in exact]
    expected, expected_minutes = mean_otherwise(floats, NOW_MS)
    assert minutes == expected_minutes
    if expected is None:
        assert tenths is None
    else:
        assert abs(tenths / 10 - expected) <= 0.05 + 1e-9 * (1 + expected)


@pytest.mark.parametrize(
    ("values", "tenths"), [([5], 50), ([Fraction(1, 20)], 1), ([Fraction(1, 25)], 0), ([1, 2], 15)]
)
def test_half_a_tenth_goes_up(values, tenths):
    samples = [(NOW_MS - minute * MINUTE_MS, Fraction(value)) for minute, value in enumerate(values)]
    assert hour_mean(samples, NOW_MS)[0] == tenths
    by_hand = Decimal(sum(Fraction(value) for value in values).numerator)
    by_hand /= Decimal(sum(Fraction(value) for value in values).denominator) * len(values)
    assert int((by_hand * 10).to_integral_value(ROUND_HALF_UP)) == tenths


def test_a_minute_counts_once_however_often_it_was_measured():
    """A sensor that speaks faster in changing air must not weigh its smoke sixty times."""
    quiet = [(NOW_MS - minute * MINUTE_MS, Fraction(10)) for minute in range(1, 60)]
    smoke = [(NOW_MS - second * 1000, Fraction(610)) for second in range(60)]
    assert hour_mean(quiet + smoke, NOW_MS) == (200, 60)


def test_the_hour_begins_and_ends_where_it_should():
    one = Fraction(1)
    assert hour_mean([(NOW_MS, one)], NOW_MS) == (10, 1)
    assert hour_mean([(NOW_MS + 1, one)], NOW_MS) == (None, 0)
    assert hour_mean([(NOW_MS - HOUR_MS + 1, one)], NOW_MS) == (10, 1)
    assert hour_mean([(NOW_MS - HOUR_MS, one)], NOW_MS) == (None, 0)


# ------------------------------------------------------------------ what is given out


def hour_of(minutes: int, pm2_5: int | None = 7, pm10: int | None = 20) -> ParticulateHour:
    hour = ParticulateHour()
    for minute in range(minutes):
        readings = [Reading("pm2_5", pm2_5)] if pm2_5 is not None else []
        readings += [Reading("pm10", pm10)] if pm10 is not None else []
        hour.add(NOW_MS - minute * MINUTE_MS, readings)
    return hour


def test_below_three_quarters_of_the_hour_there_is_no_index():
    """2008/50/EC, Annex VII: an hourly mean needs 75 % of the hour."""
    assert hour_of(44).readings(NOW_MS) == [Reading("coverage", 44)]
    assert hour_of(0).readings(NOW_MS) == [Reading("coverage", 0)]
    assert hour_of(45).readings(NOW_MS) == [
        Reading("pm_index", 2),
        Reading("coverage", 45),
        Reading("pm2_5_mean_1h", 70, -1),
        Reading("pm10_mean_1h", 200, -1),
    ]


@pytest.mark.parametrize(
    ("minutes", "samples", "enough"), [(15, 3, True), (15, 2, False), (10, 5, True), (10, 4, False)]
)
def test_of_a_slow_sensor_three_quarters_of_its_samples_are_enough(minutes, samples, enough):
    hour = ParticulateHour()
    for sample in range(samples):
        hour.add(NOW_MS - sample * minutes * MINUTE_MS, [Reading("pm2_5", 7)], minutes)
    found = {reading.quantity: reading.value for reading in hour.readings(NOW_MS)}
    assert ("pm_index" in found, found["coverage"]) == (enough, samples * minutes)


@pytest.mark.parametrize(
    ("pm2_5", "pm10", "index"), [(5, 15, 1), (5, 16, 2), (6, 15, 2), (141, 0, 6), (0, 271, 6), (50, 195, 4)]
)
def test_the_worse_of_the_two_decides(pm2_5, pm10, index):
    assert hour_of(60, pm2_5, pm10).readings(NOW_MS)[0] == Reading("pm_index", index)


def test_one_pollutant_alone_gives_an_index_from_that_one():
    assert hour_of(60, pm10=None).readings(NOW_MS) == [
        Reading("pm_index", 2),
        Reading("coverage", 60),
        Reading("pm2_5_mean_1h", 70, -1),
    ]


def test_only_good_readings_of_the_whole_device_count():
    hour = ParticulateHour()
    for minute in range(60):
        time_ms = NOW_MS - minute * MINUTE_MS
        hour.add(time_ms, [Reading("pm2_5", 0, 0, "", STALE), Reading("pm2_5", 9000, 0, "", SUSPECT)])
        hour.add(time_ms, [Reading("pm2_5", 9000, 0, "left"), Reading("pm1", 9000), Reading("temperature", 9000)])
    assert hour.readings(NOW_MS) == [Reading("coverage", 0)]


def test_devices_resolve_differently_and_mix_exactly():
    hour = ParticulateHour()
    for minute in range(60):
        hour.add(NOW_MS - minute * MINUTE_MS, [Reading("pm2_5", 1, 1)])
        hour.add(NOW_MS - minute * MINUTE_MS, [Reading("pm2_5", 2000, -2)])
    assert Reading("pm2_5_mean_1h", 150, -1) in hour.readings(NOW_MS)


@given(rows=SAMPLES, later_ms=st.integers(0, 2 * HOUR_MS))
def test_in_whatever_order_they_come_the_index_is_that_of_the_hour(rows, later_ms):
    hour, sorted_hour = ParticulateHour(), ParticulateHour()
    for offset, value, exp10 in rows:
        hour.add(NOW_MS + offset, [Reading("pm2_5", value, exp10)])
    for offset, value, exp10 in sorted(rows):
        sorted_hour.add(NOW_MS + offset, [Reading("pm2_5", value, exp10)])
    hour.readings(NOW_MS)  # asked before: that must not change a later answer, but for what lay far ahead
    horizon = [row for row in rows if row[0] <= MINUTE_MS]
    expected = hour_mean([(NOW_MS + o, Fraction(v) * Fraction(10) ** e) for o, v, e in horizon], NOW_MS + later_ms)
    assert hour.readings(NOW_MS + later_ms)[-1 if expected[1] < 45 else 1] == Reading("coverage", expected[1])


def test_a_clock_that_stepped_back_keeps_no_sample_for_ever():
    """One sample of the future at the head of the queue would keep all that come behind it."""
    hour = ParticulateHour()
    hour.add(NOW_MS + 365 * 24 * HOUR_MS, [Reading("pm2_5", 1)])
    for minute in range(600):
        hour.add(NOW_MS + minute * MINUTE_MS, [Reading("pm2_5", 1)])
        hour.readings(NOW_MS + minute * MINUTE_MS)
    assert len(hour._samples["pm2_5"]) == 60
    assert hour.readings(NOW_MS + 599 * MINUTE_MS)[1] == Reading("coverage", 60)
