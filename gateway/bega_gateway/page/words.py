"""Figures and times as a technician reads them: units as on a nameplate, ages in one unit, no float in between."""

from __future__ import annotations

from datetime import datetime, tzinfo

from bega_gateway.page.recent import Last
from bega_protocols.reading import GOOD, SUSPECT, Reading, decimal_text, units

# UCUM writes for machines; what is not here reads the same for people.
UNITS = {
    "1": "", "ug/m3": "µg/m³", "m3": "m³", "m3/h": "m³/h", "1/cm3": "1/cm³", "um": "µm", "Cel": "°C", "[ppm]": "ppm",
    "kW.h": "kWh", "kV.A.h": "kVAh", "V.A": "VA", "V.A{reactive}": "var", "kV.A.h{reactive}": "kvarh",
    "dB[mW]": "dBm", "deg": "°", "{count}": "", "{tick}": "", "m/s2": "m/s²",
}  # fmt: skip
QUALITIES = {GOOD: "good", SUSPECT: "suspect"}
MOST_ZEROS = 12  # behind a value; beyond, its exponent is shown


def value(reading: Reading) -> str:
    """Return value and unit: "230.1 V"."""
    zeros = reading.exp10 if 0 < reading.exp10 <= MOST_ZEROS else 0
    number = f"{reading.value}{'0' * zeros}" if zeros else decimal_text(reading.value, reading.exp10)
    return f"{number} {unit(reading.quantity)}".rstrip()


def unit(quantity: str) -> str:
    """Return the unit of a quantity, '' if it has none or is not known here."""
    known = units(quantity)
    return UNITS.get(known[0], known[0]) if known else ""


def name(quantity: str, part: str) -> str:
    """Return what is measured, as the configuration and the feed call it: "voltage l1", "pm2_5"."""
    return f"{quantity} {part}".rstrip()


def quality(readings: list[Last]) -> str:
    """Return the worst quality of some readings in a word, '' where there are none."""
    worst = max((last.reading.quality for last in readings), default=None)
    return "" if worst is None else QUALITIES.get(worst, "stale")


def lasting(duration_ms: float) -> str:
    """Return how long something lasts: "12 s", "5 min", "3 h", "4 days"."""
    seconds = max(0, round(duration_ms / 1000))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} days"


def clock(time_ms: int, zone: tzinfo | None) -> str:
    """Return the time of day, to the millisecond; '' for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, zone).strftime("%H:%M:%S.") + f"{time_ms % 1000:03d}"
    except (ValueError, OverflowError, OSError):
        return ""


def hexed(octets: bytes) -> list[str]:
    """Return bytes as hex in pairs, eight a piece: no line breaks within one."""
    return [octets[at : at + 8].hex(" ") for at in range(0, len(octets), 8)]
