"""A reading: one quantity of one device, exactly as the device resolves it.

`value` x 10^`exp10` in the quantity's unit. Whole numbers only: an ESP32's
floats have 24 significant bits, and 123456.789 kWh would read back as 123457.
"""

from collections import namedtuple

GOOD, SUSPECT, STALE = 0, 1, 2

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Reading(NamedTuple):
        """`part` is '' or a phase, tariff or storage ('l1', 't2', 's1'); `quality` is GOOD, SUSPECT or STALE."""

        quantity: str
        value: int
        exp10: int = 0
        part: str = ""
        quality: int = GOOD

else:
    _Row = namedtuple("Reading", ("quantity", "value", "exp10", "part", "quality"))

    def Reading(quantity, value, exp10=0, part="", quality=GOOD):
        """Return the row; MicroPython's namedtuple knows no defaults."""
        return _Row(quantity, value, exp10, part, quality)


# quantity: (UCUM code, SenML unit or None where the IANA registry has none).
# It fixes meaning and unit and nothing else: limits and texts belong to who needs them.
# UCUM v2.2; SenML units registry (RFC 8428 section 12.1, RFC 8798 section 5).
QUANTITIES = {
    # air
    "pm1": ("ug/m3", "ug/m3"),
    "pm2_5": ("ug/m3", "ug/m3"),
    "pm4": ("ug/m3", "ug/m3"),
    "pm10": ("ug/m3", "ug/m3"),
    "particles_0_3": ("1/cm3", None),  # number of particles larger than 0.3 um, and so on
    "particles_0_5": ("1/cm3", None),
    "particles_1": ("1/cm3", None),
    "particles_2_5": ("1/cm3", None),
    "particles_5": ("1/cm3", None),
    "particles_10": ("1/cm3", None),
    "particles_to_0_5": ("1/cm3", None),  # number of particles from what the sensor sees at all up to 0.5 um, and so on
    "particles_to_1": ("1/cm3", None),
    "particles_to_2_5": ("1/cm3", None),
    "particles_to_4": ("1/cm3", None),
    "particles_to_10": ("1/cm3", None),
    "particle_size": ("um", None),  # the typical one
    "formaldehyde": ("ug/m3", "ug/m3"),
    "temperature": ("Cel", "Cel"),
    "humidity": ("%", "%RH"),
    "dew_point": ("Cel", "Cel"),
    "pressure": ("hPa", "hPa"),
    "co2": ("[ppm]", "ppm"),
    "tvoc": ("ug/m3", "ug/m3"),
    "illuminance": ("lx", "lx"),
    "uv_index": ("1", "/"),
    "precipitation": ("mm", "mm"),
    # indices without a unit, as the sensor's own algorithm gives them: VOC 100 and NOx 1 are its usual air
    "voc_index": ("1", "/"),
    "nox_index": ("1", "/"),
    # what such a sensor measures, in its own steps: no concentration, and no two sensors agree
    "voc_raw": ("{tick}", None),
    "nox_raw": ("{tick}", None),
    # what the gateway makes of air: European Air Quality Index band 1 to 6, and the means behind it
    "pm_index": ("1", "/"),
    "pm2_5_mean_1h": ("ug/m3", "ug/m3"),
    "pm10_mean_1h": ("ug/m3", "ug/m3"),
    "coverage": ("min", "min"),  # minutes of an interval that hold data
    "us_aqi": ("1", "/"),  # index of the US EPA for particulates
    # what the gateway makes of meters
    "loss_percent": ("%", "/100"),
    "produced_over_delivered": ("1", "/"),  # heat put into a network, for each that its consumers took
    "efficiency_percent": ("%", "/100"),  # the other way round; may exceed 100 (heat pumps)
    "minimum_night_flow": ("m3/h", None),
    "net_night_flow": ("m3/h", None),
    "alarm": ("1", "/"),  # 1 raised, 0 cleared
    # electricity; import is what flows to the customer
    "active_energy_import": ("kW.h", "kWh"),
    "active_energy_export": ("kW.h", "kWh"),
    "active_energy_total": ("kW.h", "kWh"),
    "reactive_energy_import": ("kV.A.h{reactive}", "kvarh"),
    "reactive_energy_export": ("kV.A.h{reactive}", "kvarh"),
    "apparent_energy": ("kV.A.h", "kVAh"),
    "active_power": ("W", "W"),  # positive is import
    "active_power_import": ("W", "W"),
    "active_power_export": ("W", "W"),
    # demand: the mean power of the running demand period (a quarter of an hour in most of Europe)
    "active_demand_import": ("W", "W"),
    "active_demand_export": ("W", "W"),
    "active_demand_import_max": ("W", "W"),  # the highest of the month
    "reactive_demand_import": ("V.A{reactive}", "var"),
    "reactive_demand_export": ("V.A{reactive}", "var"),
    "reactive_power": ("V.A{reactive}", "var"),
    "reactive_power_import": ("V.A{reactive}", "var"),
    "reactive_power_export": ("V.A{reactive}", "var"),
    "apparent_power": ("V.A", "VA"),
    "apparent_power_import": ("V.A", "VA"),
    "apparent_power_export": ("V.A", "VA"),
    "power_factor": ("1", "/"),
    "phase_angle": ("deg", "deg"),
    "voltage": ("V", "V"),
    "current": ("A", "A"),
    "voltage_thd": ("1", "/"),  # total harmonic distortion, as a ratio to the fundamental
    "current_thd": ("1", "/"),
    "frequency": ("Hz", "Hz"),
    "active_tariff": ("1", "/"),
    # other media
    "gas_volume": ("m3", "m3"),
    "water_volume": ("m3", "m3"),
    "heat_energy": ("J", "J"),
    "cold_energy": ("J", "J"),
    "thermal_power": ("W", "W"),
    "flow_temperature": ("Cel", "Cel"),  # of the water to the consumer, and back
    "return_temperature": ("Cel", "Cel"),
    "temperature_difference": ("K", "K"),
    "allocator_units": ("{count}", "count"),  # of a heat cost allocator
    "on_time": ("s", "s"),
    "operating_time": ("s", "s"),
    # soil, bins, machines and whatever else has a sensor on it
    "moisture": ("%", "/100"),
    "conductivity": ("S/m", "S/m"),
    "volume": ("m3", "m3"),
    "stored_volume": ("m3", "m3"),  # what is in a tank now
    "volume_flow": ("m3/h", None),
    "mass": ("kg", "kg"),
    "distance": ("m", "m"),
    "speed": ("m/s", "m/s"),
    "direction": ("deg", "deg"),
    "rotation": ("deg", "deg"),
    "acceleration": ("m/s2", "m/s2"),  # parts x, y, z
    "duration": ("s", "s"),
    "count": ("{count}", "count"),
    "movement_count": ("{count}", "count"),
    # states: 1 is what the name says, 0 is not
    "motion": ("1", "/"),
    "occupancy": ("1", "/"),
    "vibration": ("1", "/"),
    "opening": ("1", "/"),
    "door_open": ("1", "/"),
    "window_open": ("1", "/"),
    "moisture_detected": ("1", "/"),
    "smoke_detected": ("1", "/"),
    "gas_detected": ("1", "/"),
    "co_detected": ("1", "/"),
    "running": ("1", "/"),
    "problem": ("1", "/"),
    "tamper": ("1", "/"),
    "battery_low": ("1", "/"),
    "battery_charging": ("1", "/"),
    # the device itself
    "laser_time": ("s", "s"),  # how long a dust sensor's laser has run, as far as it was watched
    "battery": ("%", "%EL"),
    "rssi": ("dB[mW]", "dBm"),
    "packet_id": ("{count}", "count"),
    "measured_at": ("s", "s"),  # unix seconds that the meter itself stamped
}


# What is computed of a quantity keeps its unit, and is named after it: a corrected value, the total of a register or
# the mean of samples over a quarter-hour, an hour or a day, the loss of a network in that time, and how sure that is.
_DERIVED = ("_corrected", "_15min", "_1h", "_1d", "_mean", "_min", "_max", "_loss", "_uncertainty")


def units(quantity: str) -> "tuple[str, str | None] | None":
    """Return (UCUM code, SenML unit) of a quantity or of what is computed of one; None if there is no such quantity."""
    while quantity not in QUANTITIES:
        shorter = [quantity[: -len(suffix)] for suffix in _DERIVED if quantity.endswith(suffix)]
        if not shorter:
            return None
        quantity = min(shorter, key=len)
    return QUANTITIES[quantity]


def ucum(quantity: str) -> str:
    """Return the UCUM code of a quantity, or of what is computed of one; raises KeyError if there is none."""
    known = units(quantity)
    if known is None:
        raise KeyError(quantity)
    return known[0]


MANTISSA_DIGITS = 40  # a 64-bit register has 20; what is longer came from no device
EXPONENT = 99  # beyond it 10 ** exponent fills a memory for whoever needs the number itself


def decimal_text(value: int, exp10: int) -> str:
    """Return value x 10^exp10 as a decimal number, digit for digit: (2500, -2) gives "25.00", (12, 3) gives "12e3"."""
    if exp10 > 0:
        return "%de%d" % (value, exp10)
    if exp10 == 0:
        return str(value)
    digits = str(abs(value))
    if len(digits) <= -exp10:
        digits = "0" * (1 - exp10 - len(digits)) + digits
    text = digits[:exp10] + "." + digits[exp10:]
    return text if value >= 0 else "-" + text


def nearest_whole(value: int, exp10: int) -> int:
    """Return value x 10^exp10 to the nearest whole number, half up: (101325, -2) gives 1013."""
    step: int = 10 ** abs(exp10)
    if exp10 >= 0:
        return value * step
    return (value + step // 2) // step


def parse_decimal(text: str) -> tuple[int, int]:
    """Return (value, exp10) of a decimal number, keeping the places it was written with: "25.00" gives (2500, -2).

    The number is written as in JSON (RFC 8259, section 6), leading zeros allowed; "-0.0" is (0, -1).
    Raises ValueError if `text` is none, or has more than MANTISSA_DIGITS significant digits or an
    exponent beyond EXPONENT.
    """
    mantissa, letter, exponent = text.replace("E", "e").partition("e")
    whole, point, places = mantissa[1:].partition(".") if mantissa[:1] == "-" else mantissa.partition(".")
    power = exponent[1:] if exponent[:1] in ("+", "-") else exponent
    if not _digits(whole) or (point and not _digits(places)) or (letter and not _digits(power)):
        raise ValueError("no decimal number: %r" % text[:MANTISSA_DIGITS])
    significant = (whole + places).lstrip("0")  # "0.000...1" has as many places as its exponent asks for
    if len(whole) > MANTISSA_DIGITS or len(significant) > MANTISSA_DIGITS or len(power) > 4:
        raise ValueError("no number that a device would give: %r" % text[:MANTISSA_DIGITS])
    value = int(significant or "0")
    exp10 = (int(exponent) if exponent else 0) - len(places)
    if not -EXPONENT <= exp10 <= EXPONENT:
        raise ValueError("no number that a device would give: %r" % text)
    return (-value if mantissa[:1] == "-" else value), exp10


def _digits(text: str) -> bool:
    """str.isdigit takes digits of other scripts too, and int() takes "1_0" and " 1"."""
    return bool(text) and all("0" <= character <= "9" for character in text)
