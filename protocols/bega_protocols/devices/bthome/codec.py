"""What the objects of BTHome v2 mean: ids and bytes <-> readings.

Spec: bthome.io/format (version 2), "Sensor data". A value is the object's
number x `factor` x 10^`exp10` in the quantity's unit.
"""

from collections import namedtuple

from bega_protocols.bthome import PACKET_ID, Object
from bega_protocols.reading import Reading

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
    0x02: _meaning("temperature", -2, signed=True),
    0x45: _meaning("temperature", -1, signed=True),
    0x57: _meaning("temperature", 0, signed=True),
    0x58: _meaning("temperature", -2, signed=True, factor=35),
    0x03: _meaning("humidity", -2),
    0x2E: _meaning("humidity", 0),
    0x04: _meaning("pressure", -2),
    0x05: _meaning("illuminance", -2),
    0x08: _meaning("dew_point", -2, signed=True),
    0x0A: _meaning("active_energy_total", -3),  # the format does not say in which direction
    0x4D: _meaning("active_energy_total", -3),
    0x0B: _meaning("active_power", -2),
    0x5C: _meaning("active_power", -2, signed=True),
    0x0C: _meaning("voltage", -3),
    0x4A: _meaning("voltage", -1),
    0x43: _meaning("current", -3),
    0x5D: _meaning("current", -3, signed=True),
    0x0D: _meaning("pm2_5", 0),
    0x0E: _meaning("pm10", 0),
    0x12: _meaning("co2", 0),
    0x13: _meaning("tvoc", 0),
    0x4B: _meaning("gas_volume", -3),
    0x4C: _meaning("gas_volume", -3),
    0x4F: _meaning("water_volume", -6),  # the object counts in 0.001 L
}
DEVICE_TYPE, FIRMWARE_4, FIRMWARE_3 = 0xF0, 0xF1, 0xF2


def readings(objects: "list[Object]") -> "list[Reading]":
    """Return the readings of the objects whose quantity Bega has; the others are left out.

    Where a packet holds one quantity several times they are the parts "c1",
    "c2" and so on, in the order in which they stand: the format has no other name for them.
    """
    known = [(MEANINGS[found.id], found.data) for found in objects if found.id in MEANINGS]
    quantities = [meaning.quantity for meaning, _ in known]
    result = []
    for index, (meaning, data) in enumerate(known):
        part = ""
        if quantities.count(meaning.quantity) > 1:
            part = "c%d" % (quantities[: index + 1].count(meaning.quantity))
        result.append(Reading(meaning.quantity, _number(data, meaning.signed) * meaning.factor, meaning.exp10, part))
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


def _number(data: bytes, signed: bool) -> int:
    number = int.from_bytes(data, "little")
    if signed and data[-1] & 0x80:
        number -= 1 << 8 * len(data)
    return number
