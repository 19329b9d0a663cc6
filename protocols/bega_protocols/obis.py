"""OBIS codes of electricity meters -> quantity and part; values as printed -> readings.

Codes: P1 Companion Standard 5.0.2, section 6.12; e-MUCS H 1.3 (demand, Belgium);
ESO p1-duomenu-modelis 2025/07 (apparent power, demand; Lithuania); Swedish
branschrekommendation 2.0. Meters with an optical head (IEC 62056-21) print the
same ones. Written C.D.E here: what stands before (medium and channel) is the
caller's to look at. No floats.
"""

from bega_protocols.reading import Reading

NUMBER_SIZE = 16  # F9(3,3) has ten characters, Austria prints nine digits

_KWH = {"kwh": 0, "wh": -3, "mwh": 3}
_KVARH = {"kvarh": 0, "varh": -3, "mvarh": 3}
_W = {"kw": 3, "w": 0, "mw": 6}
_VAR = {"kvar": 3, "var": 0, "mvar": 6}
_VA = {"kva": 3, "va": 0, "mva": 6}
_M3 = {"m3": 0}

# quantity: {unit as printed, in lower case: exponent that turns it into the quantity's unit}
_UNITS = {
    "active_energy_import": _KWH,
    "active_energy_export": _KWH,
    "active_energy_total": _KWH,
    "reactive_energy_import": _KVARH,
    "reactive_energy_export": _KVARH,
    "active_power_import": _W,
    "active_power_export": _W,
    "active_demand_import": _W,
    "active_demand_export": _W,
    "active_demand_import_max": _W,
    "reactive_power_import": _VAR,
    "reactive_power_export": _VAR,
    "reactive_demand_import": _VAR,
    "reactive_demand_export": _VAR,
    "apparent_power_import": _VA,
    "apparent_power_export": _VA,
    "voltage": {"v": 0},
    "current": {"a": 0},
    "frequency": {"hz": 0},
    "power_factor": {"": 0},
    "active_tariff": {"": 0},
    "gas_volume": _M3,
    "water_volume": _M3,
    "heat_energy": {"gj": 9, "mj": 6},
}
_MEGA = ("mwh", "mvarh", "mw", "mvar", "mva", "mj")  # only with a capital M: "mWh" would be a thousandth

# OBIS C.D of energy registers, whose E is the tariff (0: all of them)
_ENERGIES = {
    "1.8": "active_energy_import",
    "2.8": "active_energy_export",
    "3.8": "reactive_energy_import",
    "4.8": "reactive_energy_export",
}

# OBIS C.D.E: (quantity, part). Quadrants 1 and 2 are import of reactive energy, 3 and 4 export.
_REGISTERS = {
    "5.8.0": ("reactive_energy_import", "q1"),
    "6.8.0": ("reactive_energy_import", "q2"),
    "7.8.0": ("reactive_energy_export", "q3"),
    "8.8.0": ("reactive_energy_export", "q4"),
    "15.8.0": ("active_energy_total", ""),
    "1.7.0": ("active_power_import", ""),
    "21.7.0": ("active_power_import", "l1"),
    "41.7.0": ("active_power_import", "l2"),
    "61.7.0": ("active_power_import", "l3"),
    "2.7.0": ("active_power_export", ""),
    "22.7.0": ("active_power_export", "l1"),
    "42.7.0": ("active_power_export", "l2"),
    "62.7.0": ("active_power_export", "l3"),
    "3.7.0": ("reactive_power_import", ""),
    "23.7.0": ("reactive_power_import", "l1"),
    "43.7.0": ("reactive_power_import", "l2"),
    "63.7.0": ("reactive_power_import", "l3"),
    "4.7.0": ("reactive_power_export", ""),
    "24.7.0": ("reactive_power_export", "l1"),
    "44.7.0": ("reactive_power_export", "l2"),
    "64.7.0": ("reactive_power_export", "l3"),
    "5.7.0": ("reactive_power_import", "q1"),
    "6.7.0": ("reactive_power_import", "q2"),
    "7.7.0": ("reactive_power_export", "q3"),
    "8.7.0": ("reactive_power_export", "q4"),
    "9.7.0": ("apparent_power_import", ""),
    "10.7.0": ("apparent_power_export", ""),
    "1.4.0": ("active_demand_import", ""),
    "2.4.0": ("active_demand_export", ""),
    "3.4.0": ("reactive_demand_import", ""),
    "4.4.0": ("reactive_demand_export", ""),
    "32.7.0": ("voltage", "l1"),
    "52.7.0": ("voltage", "l2"),
    "72.7.0": ("voltage", "l3"),
    "31.7.0": ("current", "l1"),
    "51.7.0": ("current", "l2"),
    "71.7.0": ("current", "l3"),
    "13.7.0": ("power_factor", ""),
    "33.7.0": ("power_factor", "l1"),
    "53.7.0": ("power_factor", "l2"),
    "73.7.0": ("power_factor", "l3"),
    "14.7.0": ("frequency", ""),
}


def electricity(code: str) -> "tuple[str, str] | None":
    """Return (quantity, part) of the register "C.D.E"; None if we do not know it.

    The part of an energy is its tariff, "t1". A code with F ("*01", "&01") is a value of the past and unknown,
    but for "*255": the value as it is now.
    """
    if code.endswith("*255"):
        code = code[:-4]
    if code in _REGISTERS:
        return _REGISTERS[code]
    kind, _, tariff = code.rpartition(".")
    if kind in _ENERGIES and len(tariff) <= 2 and is_digits(tariff) and str(int(tariff)) == tariff:
        return _ENERGIES[kind], "" if tariff == "0" else "t" + tariff
    return None


def reading(quantity: str, part: str, text: str) -> "Reading | None":
    """Return the reading in `text` ("00.244*kW"), digit for digit; None if it holds no number in a unit we know.

    A value without unit, or in a unit of something else, is none: what it means is never guessed.
    """
    number, _, unit = text.partition("*")
    exp10 = _exp10(quantity, unit)
    whole, _, places = number.partition(".")
    if exp10 is None or len(number) > NUMBER_SIZE or not is_digits(whole + places):
        return None
    value = int(whole + places)
    exp10 -= len(places)
    if quantity == "power_factor" and value > 10 ** len(places):
        return None  # a Hungarian sample prints 4.556, and nothing says what that means
    return Reading(quantity, value, exp10, part)


def is_digits(text: str) -> bool:
    """Return whether `text` is decimal digits and nothing else; str.isdigit takes digits of other scripts too."""
    return bool(text) and all("0" <= character <= "9" for character in text)


def _exp10(quantity: str, unit: str) -> "int | None":
    printed = unit.lower()
    if printed in _MEGA and unit[0] != "M":
        return None
    return _UNITS[quantity].get(printed)
