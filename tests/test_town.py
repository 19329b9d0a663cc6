"""The town is one town: the same in every process, and its values belong together."""

import itertools
import math
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bega_simulators.town import PHASES, Town, TownClock
from bega_simulators.weather import ZONE

FIRST_S = int(datetime(2026, 1, 2, tzinfo=ZONE).timestamp())
LAST_S = int(datetime(2027, 6, 30, tzinfo=ZONE).timestamp())
DAY_S = 86_400
TOWNS = [Town(seed) for seed in range(3)]  # shared, so that years are summed up once

towns = st.sampled_from(TOWNS)
moments = st.floats(FIRST_S, LAST_S)
metered = st.sampled_from(["cellar-1", "cellar-2", "cellar-3", "city-hall", "household"])
dusty = st.sampled_from(["roadside", "pole"])


def local(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()


@pytest.mark.parametrize("site", TOWNS[0].sites)
def test_another_process_lives_in_the_same_town(site):
    town_s = local("2026-11-20 07:41:13")
    program = f"from bega_simulators.town import Town; print(sorted(Town(2).readings({site!r}, {town_s}).items()))"
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert elsewhere.stdout.strip() == str(sorted(TOWNS[2].readings(site, town_s).items()))


@given(st.lists(st.tuples(st.sampled_from(TOWNS[0].sites), moments), min_size=1, max_size=6))
@settings(max_examples=6, deadline=None)
def test_order_of_questions_changes_no_answer(questions):
    backwards = Town(1)
    answers = [backwards.readings(*question) for question in reversed(questions)]
    assert answers[::-1] == [TOWNS[1].readings(*question) for question in questions]


def test_other_seed_is_another_town():
    town_s = local("2026-11-20 08:00")
    assert TOWNS[0].readings("roadside", town_s) != TOWNS[1].readings("roadside", town_s)


def test_registers_stand_still_before_the_meters_were_hung():
    """A machine whose clock is years behind still has a town: the air blows, power flows, nothing counts yet."""
    for site, quantity in (("household", "active_energy_import"), ("cellar-1", "active_energy_import")):
        early, later = (TOWNS[0].readings(site, FIRST_S - days * DAY_S) for days in (900, 30))
        assert early[quantity, ""] == later[quantity, ""] > 0
        assert early["active_power", ""] > 0
    assert TOWNS[0].readings("household", 0)["gas_volume", ""] > 0


@given(st.floats(0, 4e9), st.floats(0.1, 3600), st.floats(0, 1e6))
def test_clock_moves_the_day_from_the_epoch_on(epoch_s, speed, later_s):
    clock = TownClock(epoch_s, speed)
    assert clock.town_s(epoch_s) == epoch_s
    assert math.isclose(clock.town_s(epoch_s + later_s), epoch_s + ((epoch_s + later_s) - epoch_s) * speed)
    assert math.isclose(clock.town_s(epoch_s - later_s), epoch_s - later_s, abs_tol=1e-6)


@given(towns, dusty, moments)
@settings(deadline=None)
def test_finer_dust_is_part_of_coarser_and_counts_fall_with_size(town, site, town_s):
    air = town.readings(site, town_s)
    assert 0 < air["pm1", ""] < air["pm2_5", ""] < air["pm10", ""] < 500
    counts = [air[f"particles_{size}", ""] for size in ("0_3", "0_5", "1", "2_5", "5", "10")]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0


@given(towns, moments)
@settings(deadline=None)
def test_roadside_is_never_better_than_the_park(town, town_s):
    road = town.readings("roadside", town_s)
    for park in ("park-1", "park-2"):
        air = town.readings(park, town_s)
        assert road["pm2_5", ""] > air["pm2_5", ""]
        assert road["pm10", ""] > air["pm10", ""]


@given(towns, moments, st.sampled_from(["park-1", "park-2", "pole"]))
@settings(deadline=None)
def test_weather_stays_within_what_the_plain_knows(town, town_s, site):
    air = town.readings(site, town_s)
    assert -20 < air["temperature", ""] < 42
    assert 15 < air["humidity", ""] < 99
    assert 10 <= air.get(("battery", ""), 50) <= 100


def test_humidity_runs_against_temperature():
    for town in TOWNS:
        hours = [town.readings("park-1", local("2026-06-01") + hour * 3600) for hour in range(24 * 14)]
        cel, percent = ([air[quantity, ""] for air in hours] for quantity in ("temperature", "humidity"))
        assert correlation(cel, percent) < -0.6


def test_inversion_holds_winter_mornings_and_summer_knows_none():
    """Over a month: the park at eight against the park at three, where hardly a car drives."""
    for town in TOWNS:
        winter, summer = (
            mean_ratio(town, "park-1", [local(month) + day * DAY_S for day in range(28)], 8, 15)
            for month in ("2026-01-05", "2026-07-06")
        )
        assert winter > 1.25
        assert 0.85 < summer < winter


def test_rush_hours_belong_to_workdays():
    for town in TOWNS:
        workdays = [local("2026-07-06") + day * DAY_S for day in range(28) if day % 7 < 5]
        weekends = [local("2026-07-06") + day * DAY_S for day in range(28) if day % 7 >= 5]
        assert mean_ratio(town, "roadside", workdays, 8, 3) > 1.5
        assert mean_ratio(town, "roadside", workdays, 17, 3) > 1.5
        assert mean_ratio(town, "roadside", weekends, 8, 3) < 1.3


@given(towns, metered, moments)
@settings(deadline=None)
def test_powers_voltages_and_currents_belong_together(town, site, town_s):
    meter = town.readings(site, town_s)
    for phase in PHASES:
        volts, amps, factor = (meter[quantity, phase] for quantity in ("voltage", "current", "power_factor"))
        assert math.isclose(meter["active_power", phase], volts * amps * factor, rel_tol=1e-9)
        assert math.isclose(meter["apparent_power", phase], volts * amps, rel_tol=1e-9)
        assert 207 < volts < 253, "EN 50160"
        assert 0 < factor < 1
        assert meter["active_power", phase] > 0
    for quantity in ("active_power", "reactive_power", "active_energy_import", "reactive_energy_import"):
        parts = sum(meter[quantity, phase] for phase in PHASES)
        if (site, quantity) == ("household", "active_energy_import"):
            parts += 2_841.377 + 3_960.512
        assert math.isclose(meter[quantity, ""], parts, rel_tol=1e-12)
    assert 49.9 < meter["frequency", ""] < 50.1


@given(towns, metered, st.integers(FIRST_S, LAST_S), st.integers(60, 4 * 3600))
@settings(max_examples=12, deadline=None)
def test_register_is_the_integral_of_power(town, site, from_s, for_s):
    """Summed by midpoints; a switch of 4.2 kW in all within a step may fall on the wrong side of the middle."""
    steps = 2000
    step_s = for_s / steps
    powers = [town.readings(site, from_s + (step + 0.5) * step_s)["active_power", ""] for step in range(steps)]
    counted = register(town, site, from_s + for_s) - register(town, site, from_s)
    assert math.isclose(counted, sum(powers) * step_s / 3.6e6, rel_tol=2e-3, abs_tol=60 * 3 * step_s / 3600)


@given(towns, st.integers(0, 500), st.sampled_from(["active_energy_import", "reactive_energy_import"]), metered)
@settings(max_examples=25, deadline=None)
def test_register_neither_jumps_nor_rests_at_midnight(town, day, quantity, site):
    midnight_s = datetime.fromtimestamp(FIRST_S + day * DAY_S, ZONE).replace(hour=0).timestamp()
    before, at, after = (town.readings(site, midnight_s + offset_s)[quantity, ""] for offset_s in (-1, 0, 1))
    assert before < at < after
    assert math.isclose(at - before, after - at, rel_tol=0.5)


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_day_of_23_or_25_hours_counts_on_without_a_jump(day):
    for site in ("cellar-1", "household"):
        moments_s = [local(day) + 600 * step for step in range(160)]
        for earlier_s, later_s in itertools.pairwise(moments_s):
            power_kw = max(TOWNS[0].readings(site, at_s)["active_power", ""] for at_s in (earlier_s, later_s)) / 1000
            counted = register(TOWNS[0], site, later_s) - register(TOWNS[0], site, earlier_s)
            assert 0 < counted < (power_kw + 8) / 6


@given(towns, moments, st.floats(1, 30 * DAY_S))
@settings(max_examples=30, deadline=None)
def test_no_register_of_the_town_ever_runs_back(town, town_s, later_s):
    for site in ("household", "substation", "cellar-2"):
        before, after = town.readings(site, town_s), town.readings(site, town_s + later_s)
        for key, value in before.items():
            if "energy" in key[0] or "volume" in key[0]:
                assert after[key] >= value


@given(towns, st.integers(0, 500), st.integers(0, 47))
@settings(max_examples=40, deadline=None)
def test_tariffs_add_up_and_only_the_active_one_counts(town, day, half_hour):
    now_s = FIRST_S + day * DAY_S + half_hour * 1800 + 60
    meter, later = town.readings("household", now_s), town.readings("household", now_s + 600)
    total = meter["active_energy_import", "t1"] + meter["active_energy_import", "t2"]
    assert math.isclose(total, meter["active_energy_import", ""], rel_tol=1e-9)
    clock = datetime.fromtimestamp(now_s, ZONE)
    low = clock.weekday() >= 5 or not 7 <= clock.hour < 23
    assert meter["active_tariff", ""] == (1 if low else 2)
    idle = "t2" if low else "t1"
    assert later["active_energy_import", idle] == meter["active_energy_import", idle]


def test_flats_peak_in_the_morning_and_evening_and_rest_at_night():
    for town in TOWNS:
        by_hour = {hour: mean_at(town, "cellar-1", "active_power", hour) for hour in (3, 7.3, 11, 20)}
        assert by_hour[3] < 0.5 * by_hour[11] < by_hour[11] < by_hour[7.3] < by_hour[20] * 1.1


def test_voltage_sags_when_the_quarter_cooks():
    for town in TOWNS:
        assert mean_at(town, "cellar-1", "voltage", 3) - mean_at(town, "cellar-1", "voltage", 20) > 2


def test_cold_days_take_more_gas_and_heat_than_warm_ones():
    for site, quantity in (("household", "gas_volume"), ("substation", "heat_energy")):
        winter, summer = (
            used(site, quantity, local(month), local(month) + 28 * DAY_S) for month in ("2026-01-05", "2026-07-06")
        )
        assert winter > 2.5 * summer > 0


def test_night_flow_is_the_smallest_of_the_day():
    flows = [used("substation", "water_volume", local("2026-05-05") + h * 3600, local("2026-05-05") + (h + 1) * 3600)
             for h in range(24)]  # fmt: skip
    assert flows.index(min(flows)) in (2, 3, 4)
    assert min(flows) < max(flows) / 5


def register(town: Town, site: str, town_s: float) -> float:
    return town.readings(site, town_s)["active_energy_import", ""]


def used(site: str, quantity: str, from_s: float, to_s: float) -> float:
    return TOWNS[0].readings(site, to_s)[quantity, ""] - TOWNS[0].readings(site, from_s)[quantity, ""]


def mean_at(town: Town, site: str, quantity: str, hour: float) -> float:
    days = [local("2026-05-04") + day * DAY_S for day in range(5)]
    return sum(town.readings(site, day_s + hour * 3600)[quantity, ""] for day_s in days) / len(days)


def mean_ratio(town: Town, site: str, days_s: list[float], hour: float, other_hour: float) -> float:
    def mean(at_hour: float) -> float:
        return sum(town.readings(site, day_s + at_hour * 3600)["pm2_5", ""] for day_s in days_s)

    return mean(hour) / mean(other_hour)


def correlation(one: list[float], other: list[float]) -> float:
    mean_one, mean_other = sum(one) / len(one), sum(other) / len(other)
    pairs = [(a - mean_one, b - mean_other) for a, b in zip(one, other, strict=True)]
    return sum(a * b for a, b in pairs) / math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs))
