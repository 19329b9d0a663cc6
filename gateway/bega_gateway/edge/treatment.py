"""What is done to a device's readings before they become a record: doubted, corrected, left out where they stand still.

The raw value is never overwritten: doubt is its quality, a corrected value is a further reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor, lcm
from typing import NamedTuple

from bega_gateway.edge.correction import barkjohn_2021, calibrated, kappa_koehler
from bega_gateway.edge.rules import Deadband
from bega_gateway.edge.tables import CORRECTED, Band, Correction, Limit, exact
from bega_protocols.reading import GOOD, STALE, SUSPECT, Reading

Device = tuple[str, str]  # source, device
HUMIDITY = "humidity"
CORRECTED_PLACES = -1  # a corrected value has at least one


class _Bounds:
    """A limit, read from its table once."""

    def __init__(self, least: Fraction | None, most: Fraction | None) -> None:
        self._least = least
        self._most = most
        self._by_exp10: dict[int, tuple[int | None, int | None]] = {}  # as whole numbers: they are asked often

    def holds(self, reading: Reading) -> bool:
        """Return whether the value lies within, bounds included."""
        bounds = self._by_exp10.get(reading.exp10)
        if bounds is None:
            step = Fraction(10) ** reading.exp10
            least = None if self._least is None else ceil(self._least / step)
            most = None if self._most is None else floor(self._most / step)
            bounds = self._by_exp10[reading.exp10] = least, most
        least, most = bounds
        return (least is None or reading.value >= least) and (most is None or reading.value <= most)


class _Line:
    """slope x value + offset in whole numbers, for values of one exponent."""

    def __init__(self, slope: Fraction, offset: Fraction, exp10: int) -> None:
        self.exp10 = min(exp10, CORRECTED_PLACES)
        slope *= Fraction(10) ** (exp10 - self.exp10)
        offset /= Fraction(10) ** self.exp10
        self._whole = lcm(slope.denominator, offset.denominator)
        self._slope = int(slope * self._whole)
        self._offset = int(offset * self._whole)

    def at(self, value: int) -> int:
        """Return the corrected value x 10^exp10, rounded half up."""
        return (2 * (self._slope * value + self._offset) + self._whole) // (2 * self._whole)


class _Formula(NamedTuple):
    """A correction, read from its table once."""

    table: Correction
    slope: Fraction
    offset: Fraction
    kappa: Fraction
    humidity_of: Device | None
    lines: dict[int, _Line]  # of `linear`, by the exponents that came

    def line(self, exp10: int) -> _Line:
        """Return slope and offset for values x 10^exp10."""
        line = self.lines.get(exp10)
        if line is None:
            line = self.lines[exp10] = _Line(self.slope, self.offset, exp10)
        return line


class Treatments:
    """All that is configured for the devices of one gateway, and the humidity that some of it needs."""

    def __init__(self) -> None:
        self._corrections: dict[Device, list[_Formula]] = {}
        self._limits: dict[Device, dict[str, list[_Bounds]]] = {}  # by device and quantity
        self._bands: dict[Device, list[tuple[Band, dict[str, Deadband]]]] = {}
        self._humidity: dict[Device, tuple[int, Fraction] | None] = {}
        self._concerned: set[Device] = set()

    def use(
        self,
        corrections: Iterable[tuple[Device, Correction, Device | None]],
        limits: Iterable[tuple[Device, Limit]],
        bands: Iterable[tuple[Device, Band]],
    ) -> None:
        """From now on this is configured, each with its device; a correction also with the device of its humidity."""
        self._corrections, self._limits = {}, {}
        for device, correction, humidity_of in corrections:
            self._corrections.setdefault(device, []).append(_formula(correction, humidity_of))
        for device, limit in limits:
            self._limits.setdefault(device, {}).setdefault(limit.quantity, []).append(_bounds(limit))
        before = {band: reported for rows in self._bands.values() for band, reported in rows}
        self._bands = {}
        for device, band in bands:
            self._bands.setdefault(device, []).append((band, before.get(band, {})))
        formulas = [formula for rows in self._corrections.values() for formula in rows]
        wanted = {formula.humidity_of for formula in formulas if formula.humidity_of}
        self._humidity = {device: self._humidity.get(device) for device in wanted}
        self._concerned = {*self._corrections, *self._limits, *self._bands, *self._humidity}

    def concerns(self, device: Device) -> bool:
        """Return whether anything is to be done with what `device` says."""
        return device in self._concerned

    def treat(self, device: Device, readings: list[Reading], time_ms: int) -> list[Reading]:
        """Return the readings as their record is to have them; [] if all of them stand still."""
        limits = self._limits.get(device)
        if limits:
            readings = [_doubted(row, limits[row.quantity]) if row.quantity in limits else row for row in readings]
        if device in self._humidity:
            self._note_humidity(device, readings, time_ms)
        corrected = []
        for formula in self._corrections.get(device, ()):
            corrected += _corrected(readings, formula, self._humidity_for(formula, readings, time_ms))
        readings = readings + corrected
        for band, reported in self._bands.get(device, ()):
            readings = [reading for reading in readings if _is_news(reading, band, reported, time_ms)]
        return readings

    def _note_humidity(self, device: Device, readings: list[Reading], time_ms: int) -> None:
        value = _humidity_in(readings)
        if value is not None:
            self._humidity[device] = (time_ms, value)

    def _humidity_for(self, formula: _Formula, readings: list[Reading], time_ms: int) -> Fraction | None:
        """Return the humidity in per cent, None if it is not needed, or none is known that is near enough in time."""
        if formula.table.formula == "linear":
            return None
        if formula.humidity_of is None:
            return _humidity_in(readings)
        known = self._humidity.get(formula.humidity_of)
        if known is None or abs(time_ms - known[0]) > 1000 * formula.table.humidity_for_s:
            return None
        return known[1]


def quantity_value(reading: Reading) -> Fraction:
    """Return the value of a reading in its quantity's unit."""
    if reading.exp10 < 0:
        return Fraction(reading.value, 10**-reading.exp10)
    return Fraction(reading.value * 10**reading.exp10)


def reading_of(quantity: str, value: Fraction, exp10: int, part: str = "", quality: int = GOOD) -> Reading:
    """Return the reading of `value`, rounded half up at 10^exp10."""
    numerator = value.numerator * 10 ** max(0, -exp10)
    denominator = value.denominator * 10 ** max(0, exp10)
    return Reading(quantity, (2 * numerator + denominator) // (2 * denominator), exp10, part, quality)


def _formula(table: Correction, humidity_of: Device | None) -> _Formula:
    return _Formula(table, exact(table.slope), exact(table.offset), exact(table.kappa), humidity_of, {})


def _bounds(limit: Limit) -> _Bounds:
    least, most = (None if bound is None else exact(bound) for bound in (limit.least, limit.most))
    return _Bounds(least, most)


def _doubted(reading: Reading, limits: list[_Bounds]) -> Reading:
    if reading.quality != GOOD or all(bounds.holds(reading) for bounds in limits):
        return reading
    return reading._replace(quality=SUSPECT)


def _humidity_in(readings: list[Reading]) -> Fraction | None:
    for reading in readings:
        if reading.quantity == HUMIDITY and not reading.part and reading.quality == GOOD:
            return quantity_value(reading)
    return None


def _corrected(readings: list[Reading], formula: _Formula, humidity: Fraction | None) -> list[Reading]:
    """Return the corrected readings of one quantity; none where the formula's domain ends or humidity is unknown.

    Their quality is that of the raw one: a correction makes nothing good that was doubted.
    """
    found = []
    for reading in readings:
        if reading.quantity != formula.table.quantity or reading.quality == STALE:
            continue
        if formula.table.formula == "linear":
            line = formula.line(reading.exp10)
            name = reading.quantity + CORRECTED
            found.append(Reading(name, line.at(reading.value), line.exp10, reading.part, reading.quality))
            continue
        value = calibrated(quantity_value(reading), formula.slope, formula.offset)
        dry = _dried(value, formula, humidity)
        if dry is not None:
            exp10 = min(reading.exp10, CORRECTED_PLACES)
            found.append(reading_of(reading.quantity + CORRECTED, dry, exp10, reading.part, reading.quality))
    return found


def _dried(value: Fraction, formula: _Formula, humidity: Fraction | None) -> Fraction | None:
    if humidity is None:
        return None
    if formula.table.formula == "barkjohn_2021":
        return barkjohn_2021(value, humidity)
    return kappa_koehler(value, humidity, formula.kappa)


def _is_news(reading: Reading, band: Band, reported: dict[str, Deadband], time_ms: int) -> bool:
    if reading.quantity != band.quantity or reading.quality != GOOD:
        return True
    if reading.part not in reported:
        reported[reading.part] = Deadband(exact(band.width), round(1000 * band.longest_s))
    return reported[reading.part].passes(time_ms, quantity_value(reading))
