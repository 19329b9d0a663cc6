"""Values of Bluetooth's Environmental Sensing Service (0x181A) and Battery Service: bytes <-> readings.

Spec: Bluetooth GATT Specification Supplement, sections Temperature, Humidity,
Pressure and Battery Level; UUIDs from Bluetooth Assigned Numbers. Numbers are
little-endian.
"""

import struct
from collections import namedtuple

from bega_protocols.errors import WireError
from bega_protocols.reading import GOOD, SUSPECT, Reading

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Meaning(NamedTuple):
        """How a characteristic's value becomes a reading: struct format, exponent, allowed range, "not known"."""

        quantity: str
        form: str
        exp10: int
        low: int
        high: int
        unknown: "int | None"

else:
    Meaning = namedtuple("Meaning", ("quantity", "form", "exp10", "low", "high", "unknown"))

SERVICE = 0x181A
CHARACTERISTICS = {
    0x2A6E: Meaning("temperature", "<h", -2, -27315, 32767, -0x8000),
    0x2A6F: Meaning("humidity", "<H", -2, 0, 10000, 0xFFFF),
    0x2A6D: Meaning("pressure", "<I", -3, 0, 0xFFFFFFFF, None),  # 0.1 Pa
    0x2A19: Meaning("battery", "<B", 0, 0, 100, None),
}
ENDS = {0x2A6E: (32767,), 0x2A6D: (0, 0xFFFFFFFF)}  # of a field that has no other way to say "beyond", or "nothing yet"
ORDER = (0x2A6E, 0x2A6F, 0x2A6D, 0x2A19)  # in which they are asked; MicroPython's dicts keep none


def size_of(characteristic: int) -> int:
    """Return the bytes of a value."""
    return struct.calcsize(CHARACTERISTICS[characteristic].form)


def decode(characteristic: int, value: bytes) -> "Reading | None":
    """Return the reading in a value, None if it says that it is not known; at the end of its field it is SUSPECT.

    Raises WireError for a value of another length, or one that the specification prohibits.
    """
    meaning = CHARACTERISTICS[characteristic]
    if len(value) != size_of(characteristic):
        raise WireError("characteristic %04X has %d bytes" % (characteristic, size_of(characteristic)), value)
    number = struct.unpack(meaning.form, value)[0]
    if number == meaning.unknown:
        return None
    if not meaning.low <= number <= meaning.high:
        raise WireError("characteristic %04X is out of its range" % characteristic, value)
    quality = SUSPECT if number in ENDS.get(characteristic, ()) else GOOD
    return Reading(meaning.quantity, number, meaning.exp10, "", quality)
