"""What the objects of BTHome v2 mean: ids and bytes <-> readings.

Spec: bthome.io/format (version 2), "Sensor data". A value is the object's
number x `factor` x 10^`exp10` in the quantity's unit.
"""

from collections import namedtuple

from bega_protocols.bthome import PACKET_ID, Object
from bega_protocols.reading import GOOD, SUSPECT, Reading

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Meaning(NamedTuple):
        """How an object's bytes become a reading."""

        quantity: str
        exp10: int
        signed: bool
        factor: int

else:
    Meaning = namedtuple("Meaning", ("quantity", "exp10", "signed", "factor"))


def _meaning(quantity: str, exp10: int, signed: bool = False, factor: int = 1) -> Meaning:
    return Meaning(quantity, exp10, signed, factor)


MEANINGS = {
    PACKET_ID: _meaning("packet_id", 0),
    0x01: _meaning("battery", 0),
    # air and weather
    0x02: _meaning("temperature", -2, signed=True),
    0x45: _meaning("temperature", -1, signed=True),
    0x57: _meaning("temperature", 0, signed=True),
    0x58: _meaning("temperature", -2, signed=True, factor=35),
    0x03: _meaning("humidity", -2),
    0x2E: _meaning("humidity", 0),
    0x04: _meaning("pressure", -2),
    0x05: _meaning("illuminance", -2),
    0x08: _meaning("dew_point", -2, signed=True),
    0x0D: _meaning("pm2_5", 0),
    0x0E: _meaning("pm10", 0),
    0x12: _meaning("co2", 0),
    0x13: _meaning("tvoc", 0),
    0x46: _meaning("uv_index", -1),
    0x44: _meaning("speed", -2),
    0x5E: _meaning("direction", -2),
    0x5F: _meaning("precipitation", -1),
    # meters
    0x0A: _meaning("active_energy_total", -3),  # the format does not say in which direction
    0x4D: _meaning("active_energy_total", -3),
    0x0B: _meaning("active_power", -2),
    0x5C: _meaning("active_power", -2, signed=True),
    0x0C: _meaning("voltage", -3),
    0x4A: _meaning("voltage", -1),
    0x43: _meaning("current", -3),
    0x5D: _meaning("current", -3, signed=True),
    0x4B: _meaning("gas_volume", -3),
    0x4C: _meaning("gas_volume", -3),
    0x4F: _meaning("water_volume", -6),  # the object counts in 0.001 L
    0x49: _meaning("volume_flow", -3),
    0x47: _meaning("volume", -4),  # 0.1 L
    0x48: _meaning("volume", -6),  # mL
    0x4E: _meaning("volume", -6),  # 0.001 L
    0x55: _meaning("stored_volume", -6),  # 0.001 L
    # soil, bins, machines
    0x14: _meaning("moisture", -2),
    0x2F: _meaning("moisture", 0),
    0x56: _meaning("conductivity", -4),  # 1 uS/cm is 0.0001 S/m
    0x06: _meaning("mass", -2),
    0x40: _meaning("distance", -3),
    0x41: _meaning("distance", -1),
    0x3F: _meaning("rotation", -1, signed=True),
    0x42: _meaning("duration", -3),
    0x09: _meaning("count", 0),
    0x3D: _meaning("count", 0),
    0x3E: _meaning("count", 0),
    0x59: _meaning("count", 0, signed=True),
    0x5A: _meaning("count", 0, signed=True),
    0x5B: _meaning("count", 0, signed=True),
    0x50: _meaning("measured_at", 0),
}
STATES = {
    0x11: "opening",
    0x15: "battery_low",
    0x16: "battery_charging",
    0x17: "co_detected",
    0x1A: "door_open",
    0x1C: "gas_detected",
    0x20: "moisture_detected",
    0x21: "motion",
    0x23: "occupancy",
    0x26: "problem",
    0x27: "running",
    0x29: "smoke_detected",
    0x2B: "tamper",
    0x2C: "vibration",
    0x2D: "window_open",
}
HIGHEST = {"humidity": 100, "moisture": 100, "battery": 100, "direction": 360}  # in the unit; fields can hold more
DEVICE_TYPE, FIRMWARE_4, FIRMWARE_3 = 0xF0, 0xF1, 0xF2


def readings(objects: "list[Object]") -> "list[Reading]":
    """Return the readings of the objects whose quantity Bega has; the others are left out.

    Where a packet holds one quantity several times they are the parts "c1",
    "c2" and so on, in the order in which they stand: the format has no other name for them.
    """
    known = [found for found in map(_reading, objects) if found is not None]
    quantities = [reading.quantity for reading in known]
    if len(set(quantities)) == len(quantities):
        return known
    result = []
    for index, reading in enumerate(known):
        part = ""
        if quantities.count(reading.quantity) > 1:
            part = "c%d" % (quantities[: index + 1].count(reading.quantity))
        result.append(Reading(reading.quantity, reading.value, reading.exp10, part, reading.quality))
    return result


def attributes(objects: "list[Object]") -> "dict[str, str]":
    """Return what a packet says of the device itself: its type, its firmware's version."""
    texts = {}
    for found in objects:
        if found.id == DEVICE_TYPE:
            texts["device_type"] = str(_number(found.data, False))
        elif found.id in (FIRMWARE_4, FIRMWARE_3):  # the last number of the version is sent first
            texts["firmware"] = ".".join([str(byte) for byte in reversed(found.data)])
    return texts


def _reading(found: Object) -> "Reading | None":
    meaning = MEANINGS.get(found.id)
    if meaning is not None:
        value = _number(found.data, meaning.signed) * meaning.factor
        return Reading(meaning.quantity, value, meaning.exp10, "", _quality(meaning, value))
    if found.id in STATES:
        return Reading(STATES[found.id], int(found.data != b"\x00"))  # a boolean is 0 or 1; the reference takes any
    return None


def _quality(meaning: Meaning, value: int) -> int:
    """Return SUSPECT for more than there can be of the quantity: a sensor that is faulty or miscalibrated."""
    highest = HIGHEST.get(meaning.quantity)
    return GOOD if highest is None or value <= highest * 10**-meaning.exp10 else SUSPECT


def _number(data: bytes, signed: bool) -> int:
    number = int.from_bytes(data, "little")
    if signed and data[-1] & 0x80:
        number -= 1 << 8 * len(data)
    return number
