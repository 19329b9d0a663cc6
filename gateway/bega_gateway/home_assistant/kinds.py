"""What a quantity is called in Home Assistant: platform, device class, unit and state class, by its own lists.

Home Assistant 2026.9: device classes and units of the `sensor` and `binary_sensor` integrations, and which state
class goes with which device class (homeassistant/components/sensor/const.py, DEVICE_CLASS_UNITS and
DEVICE_CLASS_STATE_CLASSES). It refuses an entity whose unit is not in the list of its class, so that a class stands
here only where our unit is in it.
"""

from __future__ import annotations

from typing import NamedTuple

from bega_protocols.reading import units

SENSOR, BINARY = "sensor", "binary_sensor"
MEASUREMENT, ANGLE, TOTAL, INCREASING = "measurement", "measurement_angle", "total", "total_increasing"
DIAGNOSTIC = "diagnostic"


class Kind(NamedTuple):
    """What an entity is, apart from its part."""

    platform: str
    name: str  # in words
    device_class: str | None = None
    state_class: str | None = None
    unit: str | None = None
    category: str | None = None
    is_enabled: bool = True


# UCUM: as Home Assistant spells it. The micro sign is U+00B5: every release takes it, those before 2025.9 take no
# Greek mu. What counts or is a ratio has no unit there.
UNITS = {
    "ug/m3": "\N{MICRO SIGN}g/m³",
    "1/cm3": "1/cm³",
    "um": "\N{MICRO SIGN}m",
    "Cel": "°C",
    "%": "%",
    "hPa": "hPa",
    "[ppm]": "ppm",
    "lx": "lx",
    "1": None,
    "mm": "mm",
    "{tick}": None,
    "min": "min",
    "m3/h": "m³/h",
    "kW.h": "kWh",
    "kV.A.h{reactive}": "kvarh",
    "kV.A.h": "kVAh",
    "W": "W",
    "V.A{reactive}": "var",
    "V.A": "VA",
    "deg": "°",
    "V": "V",
    "A": "A",
    "Hz": "Hz",
    "m3": "m³",
    "J": "J",
    "K": "K",
    "{count}": None,
    "s": "s",
    "S/m": "S/m",
    "kg": "kg",
    "m": "m",
    "m/s": "m/s",
    "m/s2": "m/s²",
    "dB[mW]": "dBm",
}

# quantity: (name, device class, state class). No class: Home Assistant has none for it, or not with our unit
# (conductivity in S/m, the size of particles in um), or one that means something else (bands 1 to 6 are no "aqi").
_SENSORS: dict[str, tuple[str, str | None, str | None]] = {
    "pm1": ("PM1", "pm1", MEASUREMENT),
    "pm2_5": ("PM2.5", "pm25", MEASUREMENT),
    "pm4": ("PM4", "pm4", MEASUREMENT),
    "pm10": ("PM10", "pm10", MEASUREMENT),
    "particles_0_3": ("Particles above 0.3 µm", None, MEASUREMENT),
    "particles_0_5": ("Particles above 0.5 µm", None, MEASUREMENT),
    "particles_1": ("Particles above 1 µm", None, MEASUREMENT),
    "particles_2_5": ("Particles above 2.5 µm", None, MEASUREMENT),
    "particles_5": ("Particles above 5 µm", None, MEASUREMENT),
    "particles_10": ("Particles above 10 µm", None, MEASUREMENT),
    "particles_to_0_5": ("Particles up to 0.5 µm", None, MEASUREMENT),
    "particles_to_1": ("Particles up to 1 µm", None, MEASUREMENT),
    "particles_to_2_5": ("Particles up to 2.5 µm", None, MEASUREMENT),
    "particles_to_4": ("Particles up to 4 µm", None, MEASUREMENT),
    "particles_to_10": ("Particles up to 10 µm", None, MEASUREMENT),
    "particle_size": ("Typical particle size", None, MEASUREMENT),
    "formaldehyde": ("Formaldehyde", None, MEASUREMENT),
    "temperature": ("Temperature", "temperature", MEASUREMENT),
    "humidity": ("Humidity", "humidity", MEASUREMENT),
    "dew_point": ("Dew point", "temperature", MEASUREMENT),
    "pressure": ("Air pressure", "atmospheric_pressure", MEASUREMENT),
    "co2": ("CO₂", "carbon_dioxide", MEASUREMENT),
    "tvoc": ("Volatile organic compounds", "volatile_organic_compounds", MEASUREMENT),
    "illuminance": ("Illuminance", "illuminance", MEASUREMENT),
    "uv_index": ("UV index", None, MEASUREMENT),
    "precipitation": ("Precipitation", "precipitation", MEASUREMENT),
    "voc_index": ("VOC index", None, MEASUREMENT),
    "nox_index": ("NOx index", None, MEASUREMENT),
    "voc_raw": ("VOC, raw", None, MEASUREMENT),
    "nox_raw": ("NOx, raw", None, MEASUREMENT),
    "pm_index": ("Particulate index, band", None, MEASUREMENT),
    "pm2_5_mean_1h": ("PM2.5, mean of an hour", "pm25", MEASUREMENT),
    "pm10_mean_1h": ("PM10, mean of an hour", "pm10", MEASUREMENT),
    "coverage": ("Minutes with data", "duration", MEASUREMENT),
    "us_aqi": ("US air quality index", "aqi", MEASUREMENT),
    "loss_percent": ("Loss", None, MEASUREMENT),
    "produced_over_delivered": ("Produced over delivered", None, MEASUREMENT),
    "efficiency_percent": ("Efficiency", None, MEASUREMENT),
    "minimum_night_flow": ("Minimum night flow", "volume_flow_rate", MEASUREMENT),
    "net_night_flow": ("Net night flow", "volume_flow_rate", MEASUREMENT),
    "active_energy_import": ("Energy import", "energy", INCREASING),
    "active_energy_export": ("Energy export", "energy", INCREASING),
    "active_energy_total": ("Energy", "energy", TOTAL),  # some meters subtract what is exported
    "reactive_energy_import": ("Reactive energy import", "reactive_energy", INCREASING),
    "reactive_energy_export": ("Reactive energy export", "reactive_energy", INCREASING),
    "apparent_energy": ("Apparent energy", None, INCREASING),
    "active_power": ("Power", "power", MEASUREMENT),
    "active_power_import": ("Power import", "power", MEASUREMENT),
    "active_power_export": ("Power export", "power", MEASUREMENT),
    "active_demand_import": ("Demand import", "power", MEASUREMENT),
    "active_demand_export": ("Demand export", "power", MEASUREMENT),
    "active_demand_import_max": ("Highest demand of the month", "power", MEASUREMENT),
    "reactive_demand_import": ("Reactive demand import", "reactive_power", MEASUREMENT),
    "reactive_demand_export": ("Reactive demand export", "reactive_power", MEASUREMENT),
    "reactive_power": ("Reactive power", "reactive_power", MEASUREMENT),
    "reactive_power_import": ("Reactive power import", "reactive_power", MEASUREMENT),
    "reactive_power_export": ("Reactive power export", "reactive_power", MEASUREMENT),
    "apparent_power": ("Apparent power", "apparent_power", MEASUREMENT),
    "apparent_power_import": ("Apparent power import", "apparent_power", MEASUREMENT),
    "apparent_power_export": ("Apparent power export", "apparent_power", MEASUREMENT),
    "power_factor": ("Power factor", "power_factor", MEASUREMENT),
    "phase_angle": ("Phase angle", None, ANGLE),
    "voltage": ("Voltage", "voltage", MEASUREMENT),
    "current": ("Current", "current", MEASUREMENT),
    "voltage_thd": ("Voltage distortion", None, MEASUREMENT),
    "current_thd": ("Current distortion", None, MEASUREMENT),
    "frequency": ("Frequency", "frequency", MEASUREMENT),
    "active_tariff": ("Tariff", None, None),  # a number that is a name: its mean says nothing
    "gas_volume": ("Gas", "gas", INCREASING),
    "water_volume": ("Water", "water", INCREASING),
    "heat_energy": ("Heat", "energy", INCREASING),
    "cold_energy": ("Cold", "energy", INCREASING),
    "thermal_power": ("Thermal power", "power", MEASUREMENT),
    "flow_temperature": ("Flow temperature", "temperature", MEASUREMENT),
    "return_temperature": ("Return temperature", "temperature", MEASUREMENT),
    "temperature_difference": ("Temperature difference", "temperature_delta", MEASUREMENT),
    "allocator_units": ("Allocator units", None, INCREASING),
    "on_time": ("On time", "duration", INCREASING),
    "operating_time": ("Operating time", "duration", INCREASING),
    "moisture": ("Moisture", "moisture", MEASUREMENT),
    "conductivity": ("Conductivity", None, MEASUREMENT),
    "volume": ("Volume", "volume", TOTAL),
    "stored_volume": ("Stored volume", "volume_storage", MEASUREMENT),
    "volume_flow": ("Flow", "volume_flow_rate", MEASUREMENT),
    "mass": ("Mass", "weight", MEASUREMENT),
    "distance": ("Distance", "distance", MEASUREMENT),
    "speed": ("Speed", "speed", MEASUREMENT),
    "direction": ("Direction", None, ANGLE),  # of the wind or of anything else
    "rotation": ("Rotation", None, MEASUREMENT),
    "acceleration": ("Acceleration", None, MEASUREMENT),
    "duration": ("Duration", "duration", MEASUREMENT),
    "count": ("Count", None, MEASUREMENT),
    "movement_count": ("Movements", None, INCREASING),
    "laser_time": ("Laser time", "duration", INCREASING),
    "battery": ("Battery", "battery", MEASUREMENT),
    "rssi": ("Signal strength", "signal_strength", MEASUREMENT),
    "packet_id": ("Packet number", None, None),
    "measured_at": ("Measured at", "timestamp", None),  # a time in words, so without our unit
}
# quantity: (name, device class); the state is ON for 1, OFF for 0
_STATES: dict[str, tuple[str, str]] = {
    "alarm": ("Alarm", "problem"),
    "motion": ("Motion", "motion"),
    "occupancy": ("Occupancy", "occupancy"),
    "vibration": ("Vibration", "vibration"),
    "opening": ("Opening", "opening"),
    "door_open": ("Door", "door"),
    "window_open": ("Window", "window"),
    "moisture_detected": ("Moisture detected", "moisture"),
    "smoke_detected": ("Smoke", "smoke"),
    "gas_detected": ("Gas detected", "gas"),
    "co_detected": ("Carbon monoxide", "carbon_monoxide"),
    "running": ("Running", "running"),
    "problem": ("Problem", "problem"),
    "tamper": ("Tamper", "tamper"),
    "battery_low": ("Battery low", "battery"),
    "battery_charging": ("Battery charging", "battery_charging"),
}
_OF_THE_DEVICE = ("laser_time", "battery", "battery_low", "rssi", "packet_id", "measured_at")
_HIDDEN = ("packet_id",)  # a new one with each record: it would fill the database of who did not ask for it
KNOWN = frozenset(_SENSORS) | frozenset(_STATES)

# What is computed of a quantity is named after it (reading.py).
SUFFIXES = {
    "_corrected": "corrected",
    "_15min": "15 minutes",
    "_1h": "hour",
    "_1d": "day",
    "_mean": "mean",
    "_min": "least",
    "_max": "most",
    "_loss": "loss",
    "_uncertainty": "uncertainty",
}
_LIKE_ITS_BASE = {"_corrected"}
_SAMPLED = {"_corrected", "_15min", "_1h", "_1d", "_mean", "_min", "_max"}
_PARTS = {"t": "tariff ", "s": "storage "}
_PHASES = {"l1": "L1", "l2": "L2", "l3": "L3", "l12": "L1 to L2", "l23": "L2 to L3", "l31": "L3 to L1", "n": "neutral"}


def kind_of(quantity: str) -> Kind | None:
    """Return what a quantity, or what is computed of one, is there; None if there is no such quantity.

    The total of an hour is no running total: with a state class Home Assistant would add up the differences of such
    totals, so it has none. An uncertainty is nothing that its class could convert: 1 K of it is no -272 °C.
    """
    known = units(quantity)
    if known is None:
        return None
    base, suffixes = _taken_apart(quantity)
    category = DIAGNOSTIC if base in _OF_THE_DEVICE else None
    if base in _STATES:
        name, state = _STATES[base]
        return Kind(BINARY, _named(name, suffixes), state, category=category)
    unit = UNITS.get(known[0], known[0])
    name, device_class, state_class = _SENSORS.get(base, (base.replace("_", " ").capitalize(), None, MEASUREMENT))
    if device_class == "timestamp":
        unit = None
    if "_uncertainty" in suffixes:
        device_class = state_class = None
    elif state_class in (MEASUREMENT, ANGLE):
        state_class = state_class if set(suffixes) <= _SAMPLED else None
    elif not set(suffixes) <= _LIKE_ITS_BASE:
        state_class = None
    return Kind(SENSOR, _named(name, suffixes), device_class, state_class, unit, category, base not in _HIDDEN)


def part_words(part: str) -> str:
    """Return a part in words: "t2" is "tariff 2"."""
    if part in _PHASES:
        return _PHASES[part]
    if part[:1] in _PARTS and part[1:].isdigit():
        return _PARTS[part[:1]] + part[1:]
    return part.replace("_", " ").replace("-", " ").strip() or part


def words(name: str) -> str:
    """Return the name of a device as one reads it: "roadside-air" is "Roadside air"."""
    spaced = name.replace("_", " ").replace("-", " ").strip()
    return spaced[:1].upper() + spaced[1:] if spaced else name


def _named(name: str, suffixes: list[str]) -> str:
    return ", ".join([name, *(SUFFIXES[suffix] for suffix in suffixes)])


def _taken_apart(quantity: str) -> tuple[str, list[str]]:
    """Return the quantity that the table has, and the suffixes behind it; an unknown one is all of itself."""
    base, suffixes = quantity, list[str]()
    while base not in KNOWN:
        suffix = next((suffix for suffix in SUFFIXES if base.endswith(suffix)), None)
        if suffix is None:
            return quantity, []
        base = base.removesuffix(suffix)
        suffixes.insert(0, suffix)
    return base, suffixes
