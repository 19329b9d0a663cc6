"""Totals of a register add up to what it counted, whatever happened to the meter, against pandas."""

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_gateway.edge.intervals import HOUR_MS, QUARTER_MS, end_of, start_of
from bega_gateway.edge.register import Limits, Sample, flow
from bega_gateway.edge.totals import Totals

ROMANIA = ZoneInfo("Europe/Bucharest")
MINUTE_MS = 60_000
NOON_MS = 1_790_000_100_000 // QUARTER_MS * QUARTER_MS
WRAPS = Limits(wraps_at=(1_000_000, 0), most_per_hour=(1000, 0))


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ROMANIA).timestamp()) * 1000


def totals_of(samples, period="15min", limits=WRAPS, longest_gap_s=3600.0):
    totals = Totals(period, ROMANIA, limits, longest_gap_s)
    return [total for sample in samples for total in totals.add(sample)]


@pytest.mark.parametrize(
    ("before", "after", "amount", "why"),
    [
        (Sample(0, 100), Sample(1000, 100), 0, ""),
        (Sample(0, 100), Sample(HOUR_MS, 1100), 1000, ""),
        (Sample(0, 100), Sample(HOUR_MS, 1101), 1001, ""),  # its last digit may have been about to turn
        (Sample(0, 100), Sample(HOUR_MS, 1102), None, "implausible"),
        (Sample(0, 100), Sample(10_000, 101), 1, ""),  # 360 an hour, by one step of a register that is read often
        (Sample(0, 100), Sample(10_000, 104), None, "implausible"),
        (Sample(0, 99_999, 1), Sample(HOUR_MS, 0, 1), 10, "rollover"),  # it counts in tens
        (Sample(0, 999_990), Sample(HOUR_MS, 5), 15, "rollover"),
        (Sample(0, 999_990, 0, "a"), Sample(HOUR_MS, 5, 0, "a"), 15, "rollover"),
        (Sample(0, 999_990, 0, "a"), Sample(HOUR_MS, 5, 0, "b"), None, "exchange"),
        (Sample(0, 100, 0, "a"), Sample(HOUR_MS, 200, 0, "b"), None, "exchange"),
        (Sample(0, 500_000), Sample(HOUR_MS, 5), None, "reset"),
        (Sample(0, 999_990), Sample(HOUR_MS, 60_000), None, "reset"),  # more than can flow in an hour
    ],
)
def test_less_than_before_is_told_apart(before, after, amount, why):
    flown = flow(before, after, WRAPS)
    assert (flown.amount, flown.why) == (amount, why)


def test_a_register_whose_top_is_unknown_never_rolls_over():
    assert flow(Sample(0, 999_990), Sample(HOUR_MS, 5), Limits()).why == "reset"


def test_a_cubic_metre_that_is_shown_at_once_is_counted():
    """A flat's meter without decimals, read each minute: 1 m3 in a minute is a step of it, and no flow of 60 m3/h."""
    limits = Limits(most_per_hour=(25, -1))
    samples = [Sample(60_000 * minute, minute // 40) for minute in range(0, 600)]
    totals = Totals("hour", ROMANIA, limits, 1800.0)
    amounts = [total.amount for sample in samples for total in totals.add(sample)]
    assert sum(amount for amount in amounts if amount is not None) == samples[540].value


def test_finer_digits_lose_nothing():
    flown = flow(Sample(0, 12, 0), Sample(1000, 12345, -3), Limits())
    assert (flown.amount, flown.exp10) == (345, -3)


@given(
    steps=st.lists(st.tuples(st.integers(1, 20_000_000), st.integers(0, 10**6)), min_size=1, max_size=40),
    period=st.sampled_from(["15min", "hour", "day"]),
)
def test_totals_add_up_to_the_last_digit(steps, period):
    samples, time_ms, value = [], NOON_MS, 0
    totals = Totals(period, ROMANIA, Limits(), 3600.0)
    given_ms = []
    summed = 0
    for elapsed_ms, more in [(1, 0), *steps]:
        time_ms, value = time_ms + elapsed_ms, value + more
        samples.append((time_ms, value))
        for total in totals.add(Sample(time_ms, value, -3)):
            summed += total.amount or 0
            given_ms.append((total.start_ms, total.end_ms))
            assert 0 <= total.covered_ms <= total.end_ms - total.start_ms
    opened = totals._open
    assert opened is not None
    assert summed + opened.amount == value
    assert all(before[1] == after[0] for before, after in pairwise(given_ms))


@given(
    steps=st.lists(st.tuples(st.integers(1, 3_000_000), st.integers(0, 1000)), min_size=2, max_size=40),
    cut=st.integers(0, 40),
)
def test_a_restart_changes_nothing(steps, cut):
    samples, time_ms, value = [], NOON_MS, 0
    for elapsed_ms, more in steps:
        time_ms, value = time_ms + elapsed_ms, value + more
        samples.append(Sample(time_ms, value, -2, "7"))
    through = totals_of(samples)
    first = Totals("15min", ROMANIA, WRAPS, 3600.0)
    begun = [total for sample in samples[:cut] for total in first.add(sample)]
    second = Totals("15min", ROMANIA, WRAPS, 3600.0, first.state())
    assert begun + [total for sample in samples[cut:] for total in second.add(sample)] == through


@given(state=st.binary(max_size=200))
def test_any_kept_state_is_read_or_begun_anew(state):
    assert Totals("15min", ROMANIA, WRAPS, 3600.0, state).add(Sample(NOON_MS, 1)) == []


def test_days_of_23_and_25_hours_are_whole():
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)):
        start_ms = at(f"{day}T00:00")
        assert start_of("day", start_ms + 5 * HOUR_MS, ROMANIA) == start_ms
        assert end_of("day", start_ms, ROMANIA) - start_ms == hours * HOUR_MS
        readings = [Sample(start_ms + minute * MINUTE_MS, minute) for minute in range(0, hours * 60 + 1, 15)]
        [total] = totals_of(readings, "day", Limits())
        assert (total.amount, total.covered_ms) == (hours * 60, hours * HOUR_MS)


def test_a_gap_is_in_the_amount_and_not_in_the_coverage():
    samples = [Sample(NOON_MS, 0), Sample(NOON_MS + 2 * HOUR_MS, 800)]
    found = totals_of(samples, limits=Limits())
    assert [total.amount for total in found] == [100] * 8
    assert [total.covered_ms for total in found] == [0] * 8


def test_a_reading_that_comes_late_is_left_out_and_counted():
    totals = Totals("15min", ROMANIA, WRAPS, 3600.0)
    assert (
        totals.add(Sample(NOON_MS, 10)) == totals.add(Sample(NOON_MS - 1, 99)) == totals.add(Sample(NOON_MS, 11)) == []
    )
    assert totals.ignored == 2
    [total] = totals.add(Sample(NOON_MS + QUARTER_MS, 14))
    assert total.amount == 4


def test_a_year_of_quarter_hours_through_three_exchanges_and_two_rollovers_is_exact():
    """The meter counts to 100,000.000; what flows is known to the last digit; pandas sums it in its own way."""
    limits = Limits(wraps_at=(100_000, 0), most_per_hour=(200, 0))
    start_ms = at("2026-01-01T00:00")
    quarters = 365 * 96
    flows = [(quarter * 7919 + quarter * quarter) % 9973 for quarter in range(quarters)]  # thousandths
    exchanges = {9_000: "second", 15_000: "third", 30_000: "fourth"}
    serial, register, rollovers = "first", 99_950_000, 0
    totals = Totals("15min", ROMANIA, limits, 3600.0)
    found = [*totals.add(Sample(start_ms, register, -3, serial))]
    for quarter, amount in enumerate(flows):
        if quarter in exchanges:  # within a millisecond: the old meter's last and the new meter's first reading
            serial, register = exchanges[quarter], 99_000_000 if quarter == 15_000 else 0
            found += totals.add(Sample(start_ms + quarter * QUARTER_MS + 1, register, -3, serial))
        for third in range(3):
            part = amount // 3 if third < 2 else amount - 2 * (amount // 3)
            register += part
            if register >= 100_000_000:
                register -= 100_000_000
                rollovers += 1
            time_ms = start_ms + quarter * QUARTER_MS + (third + 1) * 300_000
            found += totals.add(Sample(time_ms, register, -3, serial))
    assert rollovers == 2
    reference = pd.Series(flows, index=pd.date_range("2026-01-01", periods=quarters, freq="15min"))
    ours = pd.Series([total.amount for total in found], index=reference.index)
    assert (ours == reference).all()
    assert ours.sum() == sum(flows)
    assert [index for index, total in enumerate(found) if "exchange" in total.whys] == list(exchanges)
    assert all(total.is_whole for index, total in enumerate(found) if index not in exchanges)
