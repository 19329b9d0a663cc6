"""What the configuration says of the edge's calculations; what each does is in the file beside this one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from bega.tables import Problem, Table
from bega_gateway.edge.intervals import Period
from bega_gateway.edge.register import Limits as RegisterLimits
from bega_protocols.reading import QUANTITIES, units

if TYPE_CHECKING:
    from bega_gateway.config import Config

Seconds = Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
HUNDRED_PERCENT = 100
Percent = Annotated[float, msgspec.Meta(ge=0, le=HUNDRED_PERCENT)]
Given = TypeVar("Given", bound="Table")

SUFFIX = {"15min": "_15min", "hour": "_1h", "day": "_1d"}  # of a quantity's total or mean over a period
CORRECTED = "_corrected"
AUDIENCES = ("public", "operator", "personal")  # from the widest to the narrowest


class AirIndex(Table, frozen=True, kw_only=True):
    """The hourly index of the particulates of some devices, as a record of its own."""

    inputs: list[str]  # devices, or node/device
    label: str = ""
    every_s: Seconds = 60.0
    sample_every_s: Annotated[float, msgspec.Meta(gt=0, le=900)] | None = None  # as under [means]: 15 minutes at most
    us_aqi: bool = False  # the index of the US EPA beside the European one


class Correction(Table, frozen=True, kw_only=True):
    """A further reading `<quantity>_corrected` in each record of a device; the raw one stays as it is."""

    input: str  # a device, or node/device
    quantity: str
    formula: Literal["linear", "barkjohn_2021", "kappa_koehler"] = "linear"
    slope: float = 1.0  # slope x value + offset comes first, whatever the formula
    offset: float = 0.0
    kappa: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.4
    humidity_from: str | None = None  # left out: the device's own
    humidity_for_s: Seconds = 900.0  # so long another device's humidity counts


class Limit(Table, frozen=True, kw_only=True):
    """What a device can plausibly say; what lies outside is kept and marked as suspect."""

    input: str
    quantity: str
    least: float | None = None
    most: float | None = None


class Band(Table, frozen=True, kw_only=True):
    """A quantity that is reported on change: readings that hardly differ from the last reported one are left out."""

    input: str
    quantity: str
    width: Positive
    longest_s: Seconds = 3600.0  # one is reported at least so often


class Totals(Table, frozen=True, kw_only=True):
    """What a counting register counted in each quarter-hour, hour or day, as records of its own."""

    input: str
    quantities: list[str]
    period: Period = "15min"
    wraps_at: Positive | None = None  # the first number that the register cannot show; left out: it never rolls over
    most_per_hour: Positive | None = None  # more cannot flow through this connection
    longest_gap_s: Seconds = 1800.0  # between two readings, for what lies between to count as covered
    label: str = ""


class Means(Table, frozen=True, kw_only=True):
    """Mean, least and most of a sampled quantity over each period."""

    input: str
    quantities: list[str]
    period: Period = "hour"
    sample_every_s: Seconds | None = None  # so long a sample stands for; left out: the device's every_s, a node's 60 s
    label: str = ""


class Balance(Table, frozen=True, kw_only=True):
    """What a network loses: totals of what is fed in, less those of its consumers."""

    feeds: list[str]  # names under [totals], or node/device
    consumers: list[str]
    quantity: str  # of the totals: "water_volume_1h"
    class_percent: Percent = 2.0  # of the meters
    classes: dict[str, float] = msgspec.field(default_factory=dict)  # where one has another class
    label: str = ""


class Efficiency(Table, frozen=True, kw_only=True):
    """What comes out of what is put in: heat produced over heat delivered, or fuel over heat."""

    produced: list[str]  # names under [totals], or node/device: heat of the plants, or fuel and electricity of a boiler
    delivered: list[str]
    quantity: str = "heat_energy_1d"  # of the totals
    quantities: dict[str, str] = msgspec.field(default_factory=dict)  # where one counts something else
    kwh_per_m3: Positive | None = None  # of gas: the calorific value as metered, which the bill states
    class_percent: Percent = 3.0  # of the meters
    classes: dict[str, float] = msgspec.field(default_factory=dict)  # where one has another class
    label: str = ""

    def quantity_of(self, name: str) -> str:
        """Return which of its totals counts of a meter."""
        return self.quantities.get(name, self.quantity)


class NightFlow(Table, frozen=True, kw_only=True):
    """The least that flows into a zone in an hour of the night."""

    input: str  # a name under [totals] with the period 15min
    quantity: str = "water_volume_15min"
    legitimate_m3_per_hour: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # night use that is no leakage
    label: str = ""


class Alarm(Table, frozen=True, kw_only=True):
    """A threshold: raised and cleared are records of their own, sent at once."""

    input: str
    quantity: str
    part: str = ""
    above: float | None = None  # one of the two
    below: float | None = None
    clear: float | None = None  # left out: at the threshold itself
    for_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # so long before it is raised
    clear_for_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    label: str = ""  # what it says to people


Derived = AirIndex | Totals | Means | Balance | Efficiency | NightFlow | Alarm  # what gives records of its own
Treated = Correction | Limit | Band  # what changes the records of others
EDGE: dict[str, type[Derived | Treated]] = {
    "corrections": Correction,
    "limits": Limit,
    "bands": Band,
    "air_index": AirIndex,
    "totals": Totals,
    "means": Means,
    "balances": Balance,
    "efficiencies": Efficiency,
    "night_flows": NightFlow,
    "alarms": Alarm,
}


def inputs_of(table: Derived | Treated) -> list[str]:
    """Return the names of the devices that it computes from."""
    return [name for names in _inputs_by_key(table).values() for name in names]


def _inputs_by_key(table: Derived | Treated) -> dict[str, list[str]]:
    if isinstance(table, AirIndex):
        return {"inputs": table.inputs}
    if isinstance(table, Balance):
        return {"feeds": table.feeds, "consumers": table.consumers}
    if isinstance(table, Efficiency):
        return {"produced": table.produced, "delivered": table.delivered}
    if isinstance(table, Correction) and table.humidity_from:
        return {"input": [table.input], "humidity_from": [table.humidity_from]}
    return {"input": [table.input]}


def exact(number: float) -> Fraction:
    """Return the decimal number that was written in the file: 0.92 is 23/25."""
    return Fraction(str(number))


def decimal(number: float) -> tuple[int, int]:
    """Return the same as (value, exp10)."""
    fraction = exact(number)
    exp10 = 0
    while (fraction / Fraction(10) ** exp10).denominator != 1:
        exp10 -= 1
    return int(fraction / Fraction(10) ** exp10), exp10


def sample_ms(config: Config, table: Means | AirIndex, given: str) -> int:
    """Return how long a sample of the input `given` of a mean stands for; 0 where that is not known."""
    source, name = config.input_of(given)
    device = config.devices.get(name) if source == config.gateway.name else None
    every_s = table.sample_every_s or (device.every_s if device else 0)
    return round(1000 * every_s)


def register_limits(table: Totals) -> RegisterLimits:
    """Return what is known of a register beforehand."""
    return RegisterLimits(
        wraps_at=None if table.wraps_at is None else decimal(table.wraps_at),
        most_per_hour=None if table.most_per_hour is None else decimal(table.most_per_hour),
    )


def zone(name: str) -> ZoneInfo | None:
    """Return the time zone of that name, None if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def problems(config: Config, place: str, table: Derived | Treated) -> Iterator[Problem]:
    """What makes no sense in one table of the edge, with its place."""
    for key, names in _inputs_by_key(table).items():
        for name in names:
            if problem := _input_problem(config, name):
                yield f"{place}.{key}", problem
    if isinstance(table, AirIndex) and not table.inputs:
        yield f"{place}.inputs", "name at least one device"
    for quantity in _quantities(table):
        if units(quantity) is None:
            yield (
                f"{place}.{'quantities' if isinstance(table, Totals | Means) else 'quantity'}",
                (f"there is no quantity {quantity!r}"),
            )
    for key in table.__struct_fields__:
        value = getattr(table, key)
        numbers = value.values() if isinstance(value, dict) else [value]
        if any(isinstance(number, float) and not isfinite(number) for number in numbers):
            yield f"{place}.{key}", "must be a number: neither inf nor nan"
    yield from _own_problems(config, place, table)
    if isinstance(table, Correction) and table.humidity_from and not _input_problem(config, table.humidity_from):
        told, kept = (config.audience_of(*config.input_of(name)) for name in (table.input, table.humidity_from))
        if AUDIENCES.index(kept) > AUDIENCES.index(told):
            # Whoever has the raw and the corrected value computes the humidity from them.
            yield f"{place}.humidity_from", f"is {kept}, and what {table.input} says is {told}"


def _input_problem(config: Config, name: str) -> str:
    """Return what is wrong with the name of an input, '' if nothing is."""
    source, device = config.input_of(name)
    if source in config.nodes and device and "/" in name:
        return ""
    if source == config.gateway.name and config.is_known(device):
        return ""
    return f"there is no device {name!r}; a node's is written node/device"


def _quantities(table: Derived | Treated) -> list[str]:
    if isinstance(table, AirIndex):
        return []
    if isinstance(table, Efficiency):
        return [table.quantity, *table.quantities.values()]
    return list(table.quantities) if isinstance(table, Totals | Means) else [table.quantity]


def _own_problems(config: Config, place: str, table: Derived | Treated) -> Iterator[Problem]:
    if isinstance(table, Correction):
        if table.quantity not in QUANTITIES:
            yield f"{place}.quantity", "only what a device says itself is corrected"
        if table.formula == "barkjohn_2021" and table.quantity != "pm2_5":
            yield f"{place}.formula", "barkjohn_2021 was made for pm2_5 alone"
        if table.formula == "kappa_koehler" and not table.quantity.startswith("pm"):
            yield f"{place}.formula", "kappa_koehler is for particulates alone"
    if isinstance(table, Band) and "/" in table.input:
        yield f"{place}.input", "is a node's: a node's records are kept whole, as it numbered them"
    if isinstance(table, Limit) and table.least is None and table.most is None:
        yield place, "say `least`, `most` or both"
    if isinstance(table, Limit) and table.least is not None and table.most is not None and table.least > table.most:
        yield f"{place}.least", "must not be more than `most`"
    if isinstance(table, Alarm):
        yield from _alarm_problems(place, table)
    if isinstance(table, NightFlow) and not table.quantity.endswith(SUFFIX["15min"]):
        yield f"{place}.quantity", "must be a quarter-hourly total, as water_volume_15min"
    if isinstance(table, Balance):
        yield from _class_problems(place, table.classes, table.feeds + table.consumers, "feed nor consumer")
        yield from _twice_problems(config, place, table.feeds + table.consumers)
        if not table.feeds or not table.consumers:
            yield place, "needs at least one of `feeds` and one of `consumers`"
    if isinstance(table, Efficiency):
        yield from _efficiency_problems(config, place, table)


def _class_problems(place: str, classes: dict[str, float], meters: Collection[str], sides: str) -> Iterator[Problem]:
    yield from _named_problems(place, "classes", classes, meters, sides)
    for name, percent in classes.items():
        if isfinite(percent) and not 0 <= percent <= HUNDRED_PERCENT:
            yield f"{place}.classes", f"{name} must be from 0 to {HUNDRED_PERCENT}, in per cent"


def _named_problems(
    place: str, key: str, named: Collection[str], meters: Collection[str], sides: str
) -> Iterator[Problem]:
    if unknown := [name for name in named if name not in meters]:
        yield f"{place}.{key}", f"{', '.join(unknown)} is neither {sides}"


def _twice_problems(config: Config, place: str, meters: list[str]) -> Iterator[Problem]:
    """A meter that counts twice, by one name or by two."""
    devices = [config.input_of(name) for name in meters]
    if twice := [name for name, device in zip(meters, devices, strict=True) if devices.count(device) > 1]:
        yield place, f"{twice[0]} is there twice"


def _efficiency_problems(config: Config, place: str, table: Efficiency) -> Iterator[Problem]:
    meters = table.produced + table.delivered
    yield from _class_problems(place, table.classes, meters, "produced nor delivered")
    yield from _named_problems(place, "quantities", table.quantities, meters, "produced nor delivered")
    yield from _twice_problems(config, place, meters)
    if not table.produced or not table.delivered:
        yield place, "needs at least one of `produced` and one of `delivered`"
    quantities = [table.quantity_of(name) for name in meters]
    has_gas = False
    for quantity in dict.fromkeys(quantities):
        key = "quantity" if quantity == table.quantity else "quantities"
        unit = (units(quantity) or ("",))[0]
        is_gas = quantity.startswith("gas_volume")
        has_gas = has_gas or is_gas
        if not quantity.endswith(tuple(SUFFIX.values())):
            yield f"{place}.{key}", f"{quantity} is no total; write heat_energy_1d, heat_energy_1h"
        elif unit and not is_gas and unit not in ("J", "kW.h"):
            yield f"{place}.{key}", f"{quantity} is no energy"
    if len({quantity.rpartition("_")[2] for quantity in quantities}) > 1:
        yield place, "all totals must be of the same period"
    if has_gas and table.kwh_per_m3 is None:
        yield f"{place}.kwh_per_m3", "is missing: how much energy is in a cubic metre of the gas"
    if not has_gas and table.kwh_per_m3 is not None:
        yield f"{place}.kwh_per_m3", "is for gas, and no meter here counts gas_volume"


def _alarm_problems(place: str, table: Alarm) -> Iterator[Problem]:
    if (table.above is None) == (table.below is None):
        yield place, "say `above` or `below`, one of them"
        return
    if table.clear is None:
        return
    if table.above is not None and table.clear > table.above:
        yield f"{place}.clear", "must not be more than `above`"
    if table.below is not None and table.clear < table.below:
        yield f"{place}.clear", "must not be less than `below`"
