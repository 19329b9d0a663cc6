"""One believable town: its traffic, air, power, heat and water at any moment, all from one seed.

    Town(seed).readings("roadside", town_s) -> {("pm2_5", ""): 23.4, ...} in each quantity's unit

Every simulator asks its own Town; with the same seed and the same clock they live in the same one without talking to
each other. A value is a function of seed, site and moment only. The air of all sites is the same air: the same wind,
the same lid of cold air on a winter morning, the same rush hour, more of it at the roadside than in the park.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

from bega_simulators.demand import HUNG_ON, Appliance, Demand, Habit, Leak
from bega_simulators.weather import (
    Calendar,
    Chance,
    Moment,
    Shape,
    StillAir,
    Weather,
    is_weekend,
    relative_humidity,
)

Readings = dict[tuple[str, str], float]
PHASES = ("l1", "l2", "l3")
JOULES_PER_KWH = 3.6e6


class TownClock(NamedTuple):
    """Moves the town's day: at `epoch_s` town and wall agree, from there the town runs `speed` times as fast.

    Before the epoch the town's time is the wall's, so that its history is a real day long.
    """

    epoch_s: float
    speed: float

    def town_s(self, wall_s: float) -> float:
        return self.epoch_s + (wall_s - self.epoch_s) * (self.speed if wall_s > self.epoch_s else 1)


def town_speed(text: str) -> float:
    """Return the speed that a command was given; ArgumentTypeError for one at which no day passes forward."""
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no speed: 1 is the real pace, 60 a day in 24 minutes, 0 stands")
    return speed


class Town:
    """All sites of the town. `readings` takes well under a millisecond once a day is known."""

    def __init__(self, seed: int, leak: Leak | None = None, still_air: StillAir | None = None) -> None:
        """leak: of the water behind the substation's meter; still_air: hours in which the dust stays in the streets."""
        self._calendar = Calendar()
        self._weather = Weather(seed, still_air)
        self._sites: dict[str, Callable[[Moment], Readings]] = {}
        for name, place in AIR_PLACES.items():
            self._sites[name] = _Air(place, self._weather, Chance(seed, name)).readings
        for name, building in BUILDINGS.items():
            self._sites[name] = _Electricity(building, self._weather, self._calendar, Chance(seed, name)).readings
        self._sites["household"] = _Household(self._weather, self._calendar, Chance(seed, "household")).readings
        self._sites["substation"] = _Substation(
            self._weather, self._calendar, Chance(seed, "substation"), leak
        ).readings

    @property
    def sites(self) -> list[str]:
        return sorted(self._sites)

    def readings(self, site: str, town_s: float) -> Readings:
        """Return every value of a site at a moment; raises KeyError for a site that the town does not have."""
        return self._sites[site](self._calendar.moment(town_s))


# Share of the rush hour's traffic.
TRAFFIC_WORKDAY = Shape(
    (0, 0.12), (3.5, 0.05), (5, 0.12), (6.5, 0.6), (7.7, 1.0), (8.8, 0.9), (10, 0.6), (13, 0.62), (15, 0.75),
    (16.5, 1.0), (18, 0.95), (19.5, 0.55), (22, 0.28), (24, 0.12),
)  # fmt: skip
TRAFFIC_WEEKEND = Shape(
    (0, 0.12), (2, 0.14), (5, 0.06), (8, 0.15), (11, 0.42), (13, 0.5), (16, 0.48), (19, 0.45), (22, 0.25), (24, 0.12)
)
# Share of the homes that burn wood or gas right now, of those that do on that day.
STOVES = Shape((0, 0.35), (3, 0.2), (5.5, 0.4), (7, 0.8), (9, 0.5), (13, 0.35), (17, 0.7), (20, 1.0), (24, 0.35))

FLATS_WORKDAY = Shape(
    (0, 0.22), (1.5, 0.1), (4.5, 0.08), (6, 0.4), (7.3, 0.85), (8.5, 0.6), (11, 0.38), (13, 0.42), (16, 0.5),
    (18, 0.85), (20, 1.0), (21.5, 0.85), (23, 0.4), (24, 0.22),
)  # fmt: skip
FLATS_WEEKEND = Shape(
    (0, 0.22), (2, 0.12), (6, 0.08), (8, 0.35), (10, 0.7), (13, 0.8), (16, 0.6), (18, 0.75), (20, 0.95), (22, 0.7),
    (24, 0.22),
)  # fmt: skip
PUMPS = Shape((0, 0.6), (4.5, 0.6), (6, 1.0), (9, 0.9), (14, 0.75), (17, 0.95), (21.5, 0.9), (24, 0.6))
OFFICE_WORKDAY = Shape(
    (0, 0.0), (5.5, 0.02), (7, 0.4), (8.5, 0.9), (11, 1.0), (12.5, 0.85), (14, 0.95), (16, 0.7), (17.5, 0.3), (20, 0.1),
    (22, 0.02), (24, 0.0),
)  # fmt: skip
OFFICE_WEEKEND = Shape((0, 0.0), (8, 0.02), (11, 0.08), (15, 0.06), (18, 0.02), (24, 0.0))
HOT_WATER_WORKDAY = Shape((0, 0.1), (5, 0.05), (6.7, 1.0), (8.5, 0.3), (17, 0.3), (19.5, 1.0), (22.5, 0.4), (24, 0.1))
HOT_WATER_WEEKEND = Shape((0, 0.1), (6, 0.05), (9.5, 0.8), (13, 0.6), (17, 0.4), (19.5, 0.9), (22.5, 0.4), (24, 0.1))
WATER_WORKDAY = Shape(
    (0, 0.18), (2, 0.03), (4, 0.03), (6.8, 1.0), (9, 0.55), (14, 0.45), (19, 0.95), (21.5, 0.7), (24, 0.18)
)
WATER_WEEKEND = Shape(
    (0, 0.2), (2.5, 0.04), (5, 0.03), (9.5, 1.0), (13, 0.7), (17, 0.5), (20, 0.85), (22, 0.6), (24, 0.2)
)


class Place(NamedTuple):
    """Where an air sensor hangs: its share of the town's air, of the street's traffic and of the stoves' smoke."""

    town: float
    traffic: float
    stoves: float
    warmer_cel: float = 0.0
    counts: bool = True
    weather: bool = True
    masses: tuple[str, ...] = ("pm1", "pm2_5", "pm10")
    battery_days: float = 0.0  # days that a full battery lasts; 0: it has none


AIR_PLACES = {
    "roadside": Place(town=1.0, traffic=1.0, stoves=0.7, weather=False),
    "pole": Place(town=1.0, traffic=0.45, stoves=0.85, warmer_cel=0.5),
    "park-1": Place(0.88, 0.08, 0.5, -0.6, counts=False, masses=("pm2_5", "pm10"), battery_days=1900),
    "park-2": Place(0.85, 0.05, 0.45, -0.9, counts=False, masses=("pm2_5", "pm10"), battery_days=1500),
}


class _Air:
    """Dust, temperature and humidity at one place."""

    def __init__(self, place: Place, weather: Weather, chance: Chance) -> None:
        self._place = place
        self._weather = weather
        self._chance = chance

    def readings(self, moment: Moment) -> Readings:
        pm1, pm2_5, pm10 = self._masses_ugm3(moment)
        values = {("pm1", ""): pm1, ("pm2_5", ""): pm2_5, ("pm10", ""): pm10}
        readings = {key: value for key, value in values.items() if key[0] in self._place.masses}
        if self._place.counts:
            readings |= _counts_1cm3(pm1, pm2_5, pm10)
        if self._place.weather:
            temperature_cel = self._weather.temperature_cel(moment) + self._place.warmer_cel
            dew_point_cel = self._weather.dew_point_cel(moment.town_s)
            readings["temperature", ""] = temperature_cel
            readings["humidity", ""] = relative_humidity(temperature_cel, dew_point_cel)
        if self._place.battery_days:
            readings["battery", ""] = _battery_percent(moment.day, self._place.battery_days)
        return readings

    def _masses_ugm3(self, moment: Moment) -> tuple[float, float, float]:
        place, weather, town_s = self._place, self._weather, moment.town_s
        held = weather.inversion(moment)
        traffic = (TRAFFIC_WEEKEND if moment.weekend else TRAFFIC_WORKDAY).at(moment.day_part)
        smoke = weather.heating(town_s) * STOVES.at(moment.day_part)
        # Drifts of minutes are whole gusts and plumes, drifts of seconds a single lorry.
        street = traffic * (1 + 0.25 * self._drift("plume", town_s, 420) + 0.15 * self._drift("lorry", town_s, 25))
        air = place.town * (4 + 5 * weather.winter(town_s)) + place.stoves * 7 * smoke + place.traffic * 5 * street
        pm2_5 = held * air * (1 + 0.03 * self._drift("sensor", town_s, 90))
        dry = 1 - 0.6 * weather.cloud(town_s)
        coarse = math.sqrt(held) * dry * (2 * place.town + 9 * place.traffic * street)
        pm10 = pm2_5 + coarse * (1 + 0.1 * self._drift("grain", town_s, 60))
        pm1 = pm2_5 * (0.72 + 0.08 * self._drift("fine", town_s, 3600))
        return pm1, pm2_5, pm10

    def _drift(self, name: str, town_s: float, period_s: float) -> float:
        return self._chance.drift(name, town_s, period_s)


class Building(NamedTuple):
    """A three-phase supply: what each phase draws in W, and how much reactive power that needs."""

    base_w: tuple[float, float, float]
    habit_w: tuple[float, float, float]  # at the shapes' 1.0
    workday: Shape
    weekend: Shape
    heats: float = 0.0  # share of the habit that follows the heating; the rest is the same all year
    appliances: tuple[tuple[Appliance, ...], ...] = ((), (), ())
    var_per_w: float = 0.25
    base_var: float = 40.0
    sag_v_per_kw: float = 0.35
    counted_kwh: float = 0.0  # what the meter read on the day on which the town's meters were hung


LIFT = Appliance("lift", 2200, 0.6, (7, 7.5, 8, 9, 12, 14, 16, 17, 17.5, 18, 19, 20, 21), times=40)
FLATS_KETTLES = Appliance("kettles", 1950, 3.5, (6, 6.5, 7, 7.5, 8, 10, 12, 13, 16, 17, 18, 19, 20, 21, 22), times=24)
FLATS_COOKERS = Appliance("cookers", 1400, 18, (11.5, 12, 12.5, 17.5, 18, 18.5, 19, 19.5), times=12)
OVEN = Appliance("oven", 2100, 40, (12.5, 18, 18.5), likely=0.5)
WASHING = Appliance("washing", 1900, 25, (9, 11, 17, 20), likely=0.6)
KETTLE = Appliance("kettle", 1950, 3.5, (6.8, 7.2, 10, 16.5, 20.5), times=4, likely=0.85)
TELEVISION = Appliance("television", 110, 170, (20.3,), likely=0.9)
HOOVER = Appliance("hoover", 800, 22, (10, 17.5), likely=0.3)
FRIDGE = Appliance("fridge", 90, 16, tuple(hour + 0.5 for hour in range(24)), times=20)

BUILDINGS = {
    "cellar-1": Building(
        (420, 380, 350), (2300, 2500, 2500), FLATS_WORKDAY, FLATS_WEEKEND, counted_kwh=48_211.6,
        appliances=((WASHING, FLATS_COOKERS), (LIFT, FLATS_KETTLES), (OVEN, FLATS_COOKERS)),
    ),
    "cellar-2": Building(
        (360, 410, 330), (2000, 2300, 1900), FLATS_WORKDAY, FLATS_WEEKEND, counted_kwh=31_870.2,
        appliances=((FLATS_COOKERS, OVEN), (WASHING, FLATS_KETTLES), (WASHING, FLATS_COOKERS)),
    ),
    "cellar-3": Building(  # the pumps and valves of the house's heating
        (160, 150, 170), (1500, 1450, 1550), PUMPS, PUMPS, counted_kwh=12_405.9,
        heats=0.8, var_per_w=0.55, base_var=90,
    ),
    "city-hall": Building(
        (3300, 2900, 3600), (14_500, 13_200, 15_800), OFFICE_WORKDAY, OFFICE_WEEKEND, counted_kwh=214_963.4,
        heats=0.2, var_per_w=0.2, base_var=900, sag_v_per_kw=0.08,
    ),
}  # fmt: skip
HOME = Building(
    (70, 45, 60), (260, 180, 220), FLATS_WORKDAY, FLATS_WEEKEND,
    appliances=((FRIDGE, KETTLE, TELEVISION), (WASHING, HOOVER), (OVEN,)),
    var_per_w=0.15, base_var=18, sag_v_per_kw=0.9,
)  # fmt: skip


class _Electricity:
    """A three-phase meter: powers, voltages, currents and registers that belong together."""

    def __init__(self, building: Building, weather: Weather, calendar: Calendar, chance: Chance) -> None:
        self._building = building
        self._weather = weather
        self._calendar = calendar
        self._chance = chance
        self.phases = [
            Demand(self._habit(index), calendar, chance, f"power {phase}") for index, phase in enumerate(PHASES)
        ]

    def readings(self, moment: Moment) -> Readings:
        readings: Readings = {("frequency", ""): 50 + 0.03 * self._chance.drift("frequency", moment.town_s, 40)}
        sums = dict.fromkeys(
            ("active_power", "reactive_power", "apparent_power", "active_energy_import", "reactive_energy_import"), 0.0
        )
        for index, phase in enumerate(PHASES):
            values = self._phase(index, moment)
            readings |= {(quantity, phase): value for quantity, value in values.items()}
            for quantity in sums:
                sums[quantity] += values[quantity]
        readings |= {(quantity, ""): value for quantity, value in sums.items()}
        # Of both registers, as meters do that count vectorially; the integral of V x I has no closed form here.
        readings["apparent_energy", ""] = sum(
            math.hypot(readings["active_energy_import", phase], readings["reactive_energy_import", phase])
            for phase in PHASES
        )
        readings["power_factor", ""] = sums["active_power"] / sums["apparent_power"]
        readings["voltage", ""] = sum(readings["voltage", phase] for phase in PHASES) / 3
        for part in ("", *PHASES):
            readings["active_energy_total", part] = readings["active_energy_import", part]
            readings["active_power_import", part] = readings["active_power", part]
            for nothing in ("active_power_export", "active_energy_export", "reactive_energy_export"):
                readings[nothing, part] = 0.0
        return readings

    def _phase(self, index: int, moment: Moment) -> dict[str, float]:
        building = self._building
        power_w = self.phases[index].draw(moment)
        energy_wh = self.phases[index].counted(moment)
        # Reactive power is a straight line over the active one, so its register is an exact integral too.
        reactive_var = building.base_var + building.var_per_w * power_w
        since_hung_h = max(0.0, moment.town_s - HUNG_S) / 3600
        apparent_va = math.hypot(power_w, reactive_var)
        voltage_v = self._voltage_v(index, moment, power_w)
        return {
            "active_power": power_w,
            "reactive_power": reactive_var,
            "apparent_power": apparent_va,
            "power_factor": power_w / apparent_va,
            "phase_angle": math.degrees(math.atan2(reactive_var, power_w)),
            "voltage": voltage_v,
            "current": apparent_va / voltage_v,
            "active_energy_import": building.counted_kwh / 3 + energy_wh / 1000,
            "reactive_energy_import": (building.base_var * since_hung_h + building.var_per_w * energy_wh) / 1000,
        }

    def _voltage_v(self, index: int, moment: Moment, power_w: float) -> float:
        grid_load = (FLATS_WEEKEND if moment.weekend else FLATS_WORKDAY).at(moment.day_part)
        wander = self._chance.drift(f"voltage {index}", moment.town_s, 4700)
        wander += 0.6 * self._chance.drift(f"feeder {index}", moment.town_s, 800)
        flicker = 0.3 * self._chance.drift(f"flicker {index}", moment.town_s, 7)
        return 234.5 + wander + flicker - 4 * grid_load - self._building.sag_v_per_kw * power_w / 1000

    def _habit(self, index: int) -> Habit:
        building = self._building

        def weight(day: int) -> float:
            season = 1 - building.heats + building.heats * self._weather.heating(self._calendar.midnight_s(day))
            return building.habit_w[index] * season * (0.9 + 0.2 * self._chance.draw("busy", day))

        return Habit(
            building.base_w[index], building.workday, building.weekend, weight, 0.8, building.appliances[index]
        )


class _Household:
    """The meter of one home: electricity in two tariffs (1 = low: nights and weekends) and gas."""

    LOW, NORMAL = 1, 2
    WORKDAY = ((0.0, 7 / 24, LOW), (7 / 24, 23 / 24, NORMAL), (23 / 24, 1.0, LOW))  # parts of the day, and tariff
    WEEKEND = ((0.0, 1.0, LOW),)
    COUNTED_KWH = (2_841.377, 3_960.512)  # low and normal, on the day on which the town's meters were hung
    GAS_M3 = 1_733.208

    def __init__(self, weather: Weather, calendar: Calendar, chance: Chance) -> None:
        self._electricity = _Electricity(HOME, weather, calendar, chance)
        self._midnights_wh = [(0.0, 0.0)]  # low and normal since HUNG_ON; a cache that is always filled in order
        self._gas_m3h = Demand(_heated_pipe(weather, calendar, 1.1, 0.22, base=0.02), calendar, chance, "gas")

    def readings(self, moment: Moment) -> Readings:
        readings = self._electricity.readings(moment)
        before = sum(self.COUNTED_KWH)
        for quantity in ("active_energy_import", "active_energy_total"):
            readings[quantity, ""] += before
        for index, part in enumerate(("t1", "t2")):
            readings["active_energy_import", part] = self.COUNTED_KWH[index] + self._counted_wh(moment)[index] / 1000
            readings["active_energy_export", part] = 0.0
        readings["active_tariff", ""] = float(self._tariff(moment))
        readings["gas_volume", ""] = self.GAS_M3 + self._gas_m3h.counted(moment)
        return readings

    def _tariff(self, moment: Moment) -> int:
        windows = self._windows(moment.day)
        return next(tariff for _, end, tariff in windows if moment.day_part < end or end == 1)

    def _counted_wh(self, moment: Moment) -> tuple[float, float]:
        if moment.day < HUNG_ON:
            return 0.0, 0.0
        before, today = self._until_midnight_wh(moment.day), self._today_wh(moment.day, moment.day_part)
        return before[0] + today[0], before[1] + today[1]

    def _until_midnight_wh(self, day: int) -> tuple[float, float]:
        for counted in range(HUNG_ON + len(self._midnights_wh) - 1, day):
            low, normal = self._today_wh(counted, 1.0)
            self._midnights_wh.append((self._midnights_wh[-1][0] + low, self._midnights_wh[-1][1] + normal))
        return self._midnights_wh[day - HUNG_ON]

    def _today_wh(self, day: int, until: float) -> tuple[float, float]:
        """Return what each tariff counts from midnight to the part `until` of the day."""
        counted = [0.0, 0.0]
        for start, end, tariff in self._windows(day):
            if until > start:
                counted[tariff - 1] += sum(
                    phase.counted_within(day, start, min(until, end)) for phase in self._electricity.phases
                )
        return counted[0], counted[1]

    def _windows(self, day: int) -> tuple[tuple[float, float, int], ...]:
        return self.WEEKEND if is_weekend(day) else self.WORKDAY


class _Substation:
    """Where heat and water come into the quarter: what its consumers together should account for."""

    def __init__(self, weather: Weather, calendar: Calendar, chance: Chance, leak: Leak | None) -> None:
        self._leak = leak
        self._heat_kw = Demand(_heated_pipe(weather, calendar, 420.0, 60.0, base=18.0), calendar, chance, "heat")
        # At night nearly nobody draws water: what still flows is mostly leakage.
        water = Habit(2.1, WATER_WORKDAY, WATER_WEEKEND, lambda day: 17 + 3 * chance.draw("thirst", day), 0.6)
        self._water_m3h = Demand(water, calendar, chance, "water")

    def readings(self, moment: Moment) -> Readings:
        lost_m3 = self._leak.lost_m3(moment.town_s) if self._leak else 0.0
        return {
            ("heat_energy", ""): self._heat_kw.counted(moment) * JOULES_PER_KWH,
            ("water_volume", ""): self._water_m3h.counted(moment) + lost_m3,
        }


def _heated_pipe(weather: Weather, calendar: Calendar, heating: float, warm_water: float, base: float) -> Habit:
    """Return what flows through a pipe that heats homes (with the cold outside) and their water (with the day)."""

    def shape(warm: Shape) -> Shape:
        return Shape(*((hour, STOVES.at(hour / 24) + warm_water / heating * warm.at(hour / 24)) for hour in range(25)))

    def weight(day: int) -> float:
        return heating * max(0.15, weather.heating(calendar.midnight_s(day)))

    return Habit(base, shape(HOT_WATER_WORKDAY), shape(HOT_WATER_WEEKEND), weight, 0.9)


def _counts_1cm3(pm1: float, pm2_5: float, pm10: float) -> Readings:
    """Return particles larger than each size. The ratios are those of the PMS5003's published frames (22/35/41 ug/m3
    with 4104, 1193, 278 and 12 per 0.1 L); each size adds to the next larger, so counts fall with size."""
    coarse = pm10 - pm2_5
    larger_10 = 0.003 * coarse
    larger_5 = larger_10 + 0.004 * coarse
    larger_2_5 = larger_5 + 0.013 * coarse
    larger_1 = larger_2_5 + 0.075 * pm2_5
    larger_0_5 = larger_1 + 0.26 * pm2_5
    larger_0_3 = larger_0_5 + 1.3 * pm1
    return {
        ("particles_0_3", ""): larger_0_3,
        ("particles_0_5", ""): larger_0_5,
        ("particles_1", ""): larger_1,
        ("particles_2_5", ""): larger_2_5,
        ("particles_5", ""): larger_5,
        ("particles_10", ""): larger_10,
    }


def _battery_percent(day: int, lasts_days: float) -> float:
    """Return what a battery holds that was new when the meters were hung, and is changed when it is down to 10 %."""
    return 100 - 90 * ((day - HUNG_ON) % lasts_days) / lasts_days


HUNG_S = Calendar().midnight_s(HUNG_ON)
