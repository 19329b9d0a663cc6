"""Generated weeks, with gaps, resets, rollovers and clock changes, against pandas: equal to the last digit.

A thousand of them in `make nightly PART=edge`, some in every run.
"""

import os
from fractions import Fraction
from random import Random
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from bega_gateway.edge.air_index import ParticulateHour, band, hour_mean
from bega_gateway.edge.balance import Metered, balance
from bega_gateway.edge.derive import EnergyEfficiency
from bega_gateway.edge.intervals import QUARTER_MS
from bega_gateway.edge.night_flow import minimum_night_flow, night_of
from bega_gateway.edge.register import Limits, Sample
from bega_gateway.edge.tables import Efficiency
from bega_gateway.edge.totals import Totals
from bega_gateway.edge.us_aqi import ParticulateHours, nowcast, us_aqi
from bega_protocols.reading import GOOD, SUSPECT, Reading

WEEKS = 1000 if os.environ.get("BEGA_PROFILE") == "nightly" else 20
ROMANIA = ZoneInfo("Europe/Bucharest")
WEEK_MS, MINUTE_MS = 7 * 86_400_000, 60_000
TOP = 100_000_000  # the register's first number that it cannot show, in thousandths
LONGEST_GAP_S = 1800
BEGINNINGS = [pd.Timestamp(day, tz="Europe/Bucharest") for day in ("2026-03-26", "2026-10-22", "2026-06-01")]

each_week = pytest.mark.parametrize("seeds", [range(part, WEEKS, 4) for part in range(4)])


def start_ms(seed: int) -> int:
    return round(BEGINNINGS[seed % len(BEGINNINGS)].timestamp()) * 1000 + (seed * 7) % 1000 * 1000


def register_week(seed: int) -> list[tuple[int, int]]:
    """Readings (time, thousandths) of a week: each five minutes or so, with gaps of up to half a day and two resets."""
    chance = Random(seed)
    time_ms, value = start_ms(seed), chance.choice([0, TOP - 500_000, 40_000_000])
    end_ms = time_ms + WEEK_MS
    rows = []
    while time_ms < end_ms:
        rows.append((time_ms, value))
        time_ms += chance.choice([300_000] * 40 + [chance.randrange(1, 900_000)] * 10 + [chance.randrange(43_200_000)])
        value = chance.randrange(1000) if chance.random() < 0.001 else (value + chance.randrange(2000)) % TOP
    return rows


def totals_by_pandas(rows: list[tuple[int, int]]) -> pd.DataFrame:
    """What the registers counted by quarter-hours: readings and boundaries in one table, in order of time."""
    read = pd.DataFrame(rows, columns=["time", "value"])
    read["flow"] = read["value"].shift(-1) - read["value"]
    rolled = (read["flow"] < 0) & (read["value"] >= TOP * 9 // 10) & (read["value"].shift(-1) <= TOP // 10)
    read.loc[rolled, "flow"] += TOP
    read.loc[read["flow"] < 0, "flow"] = np.nan
    read["length"] = read["time"].shift(-1) - read["time"]
    first, last = rows[0][0] // QUARTER_MS * QUARTER_MS, rows[-1][0]
    edges = pd.DataFrame({"time": range(first + QUARTER_MS, last + 1, QUARTER_MS)})
    cuts = pd.concat([read[["time"]], edges]).drop_duplicates().sort_values("time")
    pieces = pd.merge_asof(cuts, read.rename(columns={"time": "since"}), left_on="time", right_on="since")
    pieces["until"] = pieces["time"].shift(-1)
    pieces = pieces.dropna(subset=["until", "length"])
    here = ((pieces["time"] - pieces["since"]) * pieces["flow"]) // pieces["length"]
    there = ((pieces["until"] - pieces["since"]) * pieces["flow"]) // pieces["length"]
    pieces["amount"] = there - here
    span = pieces["until"] - pieces["time"]
    pieces["covered"] = span.where((pieces["length"] <= 1000 * LONGEST_GAP_S) & pieces["flow"].notna(), 0)
    pieces["quarter"] = pieces["time"] // QUARTER_MS * QUARTER_MS
    whole = pieces.groupby("quarter").agg(amount=("amount", lambda a: a.sum(min_count=1)), covered=("covered", "sum"))
    return whole[whole.index + QUARTER_MS <= last]


@each_week
def test_totals_of_weeks(seeds):
    for seed in seeds:
        rows = register_week(seed)
        totals = Totals("15min", ROMANIA, Limits(wraps_at=(TOP, -3)), LONGEST_GAP_S)
        found = [total for time_ms, value in rows for total in totals.add(Sample(time_ms, value, -3))]
        reference = totals_by_pandas(rows)
        assert [total.start_ms for total in found] == list(reference.index), seed
        expected = [None if pd.isna(amount) else int(amount) for amount in reference["amount"]]
        assert [total.amount for total in found] == expected, seed
        assert [total.covered_ms for total in found] == [int(covered) for covered in reference["covered"]], seed


@each_week
def test_european_index_of_weeks(seeds):
    """PM2.5 in tenths at irregular seconds, with gaps: minutes, hours and bands by pandas on whole numbers."""
    for seed in seeds:
        chance = Random(seed)
        end_ms = start_ms(seed) // MINUTE_MS * MINUTE_MS + 6 * 3_600_000
        times = sorted(chance.sample(range(end_ms - 6 * 3_600_000, end_ms), chance.choice([50, 400, 2000])))
        tenths = [chance.randrange(0, 2000) for _ in times]
        series = pd.Series(tenths, index=pd.to_datetime(times, unit="ms"), dtype="int64")
        minutes = series.resample("1min", closed="right", label="right").agg(["sum", "count"])
        samples = [(time_ms, Fraction(tenth, 10)) for time_ms, tenth in zip(times, tenths, strict=True)]
        for now_ms in range(end_ms - 4 * 3_600_000, end_ms, 1_860_000):
            now = pd.to_datetime(now_ms, unit="ms")
            hour = minutes[(minutes.index > now - pd.Timedelta(hours=1)) & (minutes.index <= now)]
            hour = hour[hour["count"] > 0]
            mean, coverage = hour_mean(samples, now_ms)
            assert coverage == len(hour), seed
            if len(hour):
                exact = sum(Fraction(int(row["sum"]), int(row["count"])) for _, row in hour.iterrows()) / len(hour)
                assert mean == int(exact + Fraction(1, 2)), seed
                bins = pd.cut([mean], [-1, 50, 150, 500, 900, 1400, 10**9], labels=[1, 2, 3, 4, 5, 6])
                assert band("pm2_5", mean) == bins[0], seed


@each_week
def test_indices_of_slow_sensors_of_weeks(seeds):
    """A sample each 2 to 15 minutes: by pandas a minute without one is filled from the next, so far as that reaches."""
    for seed in seeds:
        chance = Random(seed)
        minutes = chance.randrange(2, 16)
        end_ms = start_ms(seed) // MINUTE_MS * MINUTE_MS + 16 * 3_600_000
        times, time_ms = [], end_ms - 16 * 3_600_000
        while (time_ms := time_ms + minutes * MINUTE_MS + chance.choice([0, 500, 30_000, 900_000])) < end_ms:
            times.append(time_ms)
        tenths = [chance.randrange(0, 2000) for _ in times]
        series = pd.Series(tenths, index=pd.to_datetime(times, unit="ms"), dtype="Int64")
        filled = series.resample("1min", closed="right", label="right").last().bfill(limit=minutes - 1)
        hour, hours = ParticulateHour(), ParticulateHours()
        for time_ms, tenth in zip(times, tenths, strict=True):
            hour.add(time_ms, [Reading("pm2_5", tenth, -1)], minutes)
            hours.add(time_ms - 1, [Reading("pm2_5", tenth, -1)], minutes)  # its minutes begin at a whole one
        now = pd.to_datetime(end_ms, unit="ms")
        means: list[Fraction | None] = []
        for age in range(12):
            until = now - pd.Timedelta(hours=age)
            last = filled[(filled.index > until - pd.Timedelta(hours=1)) & (filled.index <= until)].dropna()
            means.append(Fraction(int(last.sum()), 10 * len(last)) if len(last) >= 45 else None)
            if age == 0:
                expected = {"coverage": len(last)}
                if means[0] is not None:
                    expected["pm2_5_mean_1h"] = int(means[0] * 10 + Fraction(1, 2))
                    expected["pm_index"] = band("pm2_5", expected["pm2_5_mean_1h"])
        assert {reading.quantity: reading.value for reading in hour.readings(end_ms)} == expected, seed
        cast = nowcast(means)
        index = [] if cast is None else [Reading("us_aqi", us_aqi("pm2_5", cast))]
        assert hours.readings(end_ms - 1) == index, seed


@each_week
def test_night_flow_and_balance_of_weeks(seeds):
    for seed in seeds:
        chance = Random(seed)
        index = pd.date_range(BEGINNINGS[seed % len(BEGINNINGS)], periods=7 * 96, freq="15min")
        zone = pd.Series([chance.randrange(5000) for _ in index], index=index)
        houses = [pd.Series([chance.randrange(500) for _ in index], index=index) for _ in range(3)]
        kept = [chance.random() > 0.02 for _ in index]
        present = zone[kept]
        reference = {}
        for day, night in present[(present.index.hour >= 2) & (present.index.hour < 4)].groupby(lambda at: at.date()):
            steps = night.index.to_series().diff(3) == pd.Timedelta(minutes=45)
            sums = night.rolling(4).sum()[steps]
            reference[day] = int(sums.min()) if len(sums) else None
        nights: dict = {}
        for at, amount in present.items():
            begin_ms = round(at.timestamp()) * 1000
            if day := night_of(begin_ms, ROMANIA):
                nights.setdefault(day, []).append((begin_ms, Fraction(int(amount))))
        assert {day: minimum_night_flow(quarters) for day, quarters in nights.items()} == reference, seed
        together = pd.concat([zone.where(kept), *houses], axis=1)
        losses = together[0] - together[[1, 2, 3]].sum(axis=1)
        for row, loss in zip(together.itertuples(index=False), losses, strict=True):
            meters = [Metered(None if pd.isna(amount) else Fraction(int(amount)), Fraction(2)) for amount in row]
            found = balance(meters[:1], meters[1:])
            assert (None if found is None else found.loss) == (None if pd.isna(loss) else int(loss)), seed


@each_week
def test_heat_produced_over_delivered_of_weeks(seeds):
    """Hourly totals of two plants, one of them told in gas, and three blocks, in any order, with holes and doubts."""
    names = ["gas", "plant", "block-1", "block-2", "block-3"]
    table = Efficiency(
        produced=names[:2],
        delivered=names[2:],
        quantity="heat_energy_1h",
        quantities={"gas": "gas_volume_1h"},
        kwh_per_m3=10.5,
    )
    for seed in seeds:
        chance = Random(seed)
        index = pd.date_range(BEGINNINGS[seed % len(BEGINNINGS)], periods=7 * 24, freq="1h")
        told = pd.DataFrame({name: [chance.randrange(10**9) for _ in index] for name in names[1:]}, index=index)
        told.insert(0, "gas", [chance.randrange(50) for _ in index])  # m3
        there = pd.DataFrame({name: [chance.random() > 0.02 for _ in index] for name in names}, index=index)
        good = pd.DataFrame({name: [chance.random() > 0.02 for _ in index] for name in names}, index=index)
        minutes = pd.DataFrame({name: [chance.randrange(61) for _ in index] for name in names}, index=index)
        records = [
            (name, round(at.timestamp()) * 1000, [reading, Reading("coverage", int(minutes.at[at, name]))])
            for at in index
            for name in names
            if there.at[at, name]
            for reading in [
                Reading(table.quantity_of(name), int(told.at[at, name]), 0, "", GOOD if good.at[at, name] else SUSPECT)
            ]
        ]
        chance.shuffle(records)
        devices = [("gw", name) for name in names]
        calculation = EnergyEfficiency(table, devices[:2], devices[2:])
        found = [
            given
            for name, time_ms, readings in records
            for given in calculation.take(("gw", name), readings, time_ms, "")
        ]
        whole = told[there.all(axis=1)]
        produced = whole["gas"] * 37_800_000 + whole["plant"]
        delivered = whole[names[2:]].sum(axis=1)
        expected = pd.DataFrame(
            {
                "coverage": minutes.min(axis=1)[whole.index],
                "produced_over_delivered": (2 * 10**4 * produced + delivered) // (2 * delivered),
                "efficiency_percent": (2 * 10**4 * delivered + produced) // (2 * produced),
                "is_good": good.all(axis=1)[whole.index],
            }
        ).set_index(pd.Index([round(at.timestamp()) * 1000 for at in whole.index]))
        got = pd.DataFrame(
            [
                {
                    **{row.quantity: row.value for row in readings if not row.quantity.endswith("_uncertainty")},
                    "is_good": readings[1].quality == GOOD,
                }
                for _, readings in found
            ],
            index=[time_ms for time_ms, _ in found],
        ).sort_index()
        pd.testing.assert_frame_equal(got, expected, check_dtype=False, check_freq=False, obj=f"week {seed}")
