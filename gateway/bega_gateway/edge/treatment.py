"""What is done to a device's readings before they become a record: doubted, corrected, left out where they stand still.

The raw value is never overwritten: doubt is its quality, a corrected value is a further reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import floor

from bega_gateway.edge.correction import barkjohn_2021, calibrated, kappa_koehler
from bega_gateway.edge.rules import Deadband
from bega_gateway.edge.tables import CORRECTED, Band, Correction, Limit, exact
from bega_protocols.reading import GOOD, STALE, SUSPECT, Reading

Device = tuple[str, str]  # source, device
HUMIDITY = "humidity"
CORRECTED_PLACES = -1  # a corrected value has at least one


class Treatments:
    """All that is configured for the devices of one gateway, and the humidity that some of it needs."""

    def __init__(self) -> None:
        self._corrections: dict[Device, list[tuple[Correction, Device | None]]] = {}
        self._limits: dict[Device, list[Limit]] = {}
        self._bands: dict[Device, list[tuple[Band, dict[str, Deadband]]]] = {}
        self._humidity: dict[Device, tuple[int, Fraction] | None] = {}

    def use(
        self,
        corrections: Iterable[tuple[Device, Correction, Device | None]],
        limits: Iterable[tuple[Device, Limit]],
        bands: Iterable[tuple[Device, Band]],
    ) -> None:
        """From now on this is configured, each with its device; a correction also with the device of its humidity."""
        self._corrections, self._limits = {}, {}
        for device, correction, humidity_of in corrections:
            self._corrections.setdefault(device, []).append((correction, humidity_of))
        for device, limit in limits:
            self._limits.setdefault(device, []).append(limit)
        before = {band: reported for rows in self._bands.values() for band, reported in rows}
        self._bands = {}
        for device, band in bands:
            self._bands.setdefault(device, []).append((band, before.get(band, {})))
        wanted = {humidity_of for rows in self._corrections.values() for _, humidity_of in rows if humidity_of}
        self._humidity = {device: self._humidity.get(device) for device in wanted}

    def concerns(self, device: Device) -> bool:
        """Return whether anything is to be done with what `device` says."""
        known = (self._corrections, self._limits, self._bands, self._humidity)
        return any(device in rows for rows in known)

    def treat(self, device: Device, readings: list[Reading], time_ms: int) -> list[Reading]:
        """Return the readings as their record is to have them; [] if all of them stand still."""
        for limit in self._limits.get(device, ()):
            readings = [_doubted(reading, limit) for reading in readings]
        if device in self._humidity:
            self._note_humidity(device, readings, time_ms)
        corrected = []
        for correction, humidity_of in self._corrections.get(device, ()):
            humidity = self._humidity_for(correction, humidity_of, readings, time_ms)
            corrected += _corrected(readings, correction, humidity)
        readings = readings + corrected
        for band, reported in self._bands.get(device, ()):
            readings = [reading for reading in readings if _is_news(reading, band, reported, time_ms)]
        return readings

    def _note_humidity(self, device: Device, readings: list[Reading], time_ms: int) -> None:
        value = _humidity_in(readings)
        if value is not None:
            self._humidity[device] = (time_ms, value)

    def _humidity_for(
        self, correction: Correction, humidity_of: Device | None, readings: list[Reading], time_ms: int
    ) -> Fraction | None:
        """Return the humidity in per cent, None if none is known that is near enough in time."""
        if humidity_of is None:
            return _humidity_in(readings)
        known = self._humidity.get(humidity_of)
        if known is None or abs(time_ms - known[0]) > 1000 * correction.humidity_for_s:
            return None
        return known[1]


def quantity_value(reading: Reading) -> Fraction:
    """Return the value of a reading in its quantity's unit."""
    return Fraction(reading.value) * Fraction(10) ** reading.exp10


def reading_of(quantity: str, value: Fraction, exp10: int, part: str = "", quality: int = GOOD) -> Reading:
    """Return the reading of `value`, rounded half up at 10^exp10."""
    return Reading(quantity, floor(value / Fraction(10) ** exp10 + Fraction(1, 2)), exp10, part, quality)


def _doubted(reading: Reading, limit: Limit) -> Reading:
    if reading.quantity != limit.quantity or reading.quality != GOOD:
        return reading
    value = quantity_value(reading)
    too_little = limit.least is not None and value < exact(limit.least)
    too_much = limit.most is not None and value > exact(limit.most)
    return reading._replace(quality=SUSPECT) if too_little or too_much else reading


def _humidity_in(readings: list[Reading]) -> Fraction | None:
    for reading in readings:
        if reading.quantity == HUMIDITY and not reading.part and reading.quality == GOOD:
            return quantity_value(reading)
    return None


def _corrected(readings: list[Reading], correction: Correction, humidity: Fraction | None) -> list[Reading]:
    """Return the corrected readings of one quantity; none where the formula's domain ends or humidity is unknown.

    Their quality is that of the raw one: a correction makes nothing good that was doubted.
    """
    found = []
    for reading in readings:
        if reading.quantity != correction.quantity or reading.quality == STALE:
            continue
        value = calibrated(quantity_value(reading), exact(correction.slope), exact(correction.offset))
        dry = _dried(value, correction, humidity)
        if dry is not None:
            exp10 = min(reading.exp10, CORRECTED_PLACES)
            found.append(reading_of(reading.quantity + CORRECTED, dry, exp10, reading.part, reading.quality))
    return found


def _dried(value: Fraction, correction: Correction, humidity: Fraction | None) -> Fraction | None:
    if correction.formula == "linear":
        return value
    if humidity is None:
        return None
    if correction.formula == "barkjohn_2021":
        return barkjohn_2021(value, humidity)
    return kappa_koehler(value, humidity, exact(correction.kappa))


def _is_news(reading: Reading, band: Band, reported: dict[str, Deadband], time_ms: int) -> bool:
    if reading.quantity != band.quantity or reading.quality != GOOD:
        return True
    if reading.part not in reported:
        reported[reading.part] = Deadband(exact(band.width), round(1000 * band.longest_s))
    return reported[reading.part].passes(time_ms, quantity_value(reading))
