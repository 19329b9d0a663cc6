"""One number or text that is read by itself: a setting of the meter, its serial number, what tells its model.

A profile describes it as it describes a row, with `type = "text"` and
`registers` for ASCII. No IO, no clock.
"""

from collections import namedtuple

from bega_protocols.devices.modbus_meter.codec import (
    FLOAT,
    FLOATS,
    TYPES,
    float_bits,
    float_in_units,
    number,
    question,
    words_turned,
)
from bega_protocols.devices.modbus_meter.profile import WORD_ORDERS, whole
from bega_protocols.errors import ConfigError
from bega_protocols.modbus_rtu import MAX_COUNT, READS
from bega_protocols.settings import attempt

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NamedTuple

    class Spot(NamedTuple):
        """Where it stands and how it is coded."""

        function: int
        address: int
        length: int  # registers
        kind: str  # of codec.TYPES, or TEXT
        low_word_first: bool

else:
    Spot = namedtuple("Spot", ("function", "address", "length", "kind", "low_word_first"))

TEXT = "text"
SPOT_KEYS = ("function", "address", "type", "words", "registers")
PLACES = 3  # of a float, where a person reads it


def read_spot(table: "Mapping[str, Any]", entry: "Mapping[str, Any]", place: str) -> Spot:
    """Return the spot that `entry` describes, `table` being the profile; raises ConfigError with all its problems."""
    problems: list[str] = []
    function = entry.get("function", table.get("function"))
    if function not in READS:
        problems.append("%s: function must be 3 or 4" % place)
    words = entry.get("words", table.get("words", WORD_ORDERS[0]))
    if words not in WORD_ORDERS:
        problems.append("%s: words must be one of %s" % (place, ", ".join(WORD_ORDERS)))
    form = entry.get("type", table.get("type"))
    length, kind = 1, ""
    if form == TEXT:
        kind = TEXT
        length = attempt(problems, whole, entry, place, "registers", 1, MAX_COUNT, None) or 1
    elif isinstance(form, str) and form in TYPES:
        length, kind = TYPES[form][0] // 2, TYPES[form][1]
        if "registers" in entry:
            problems.append("%s: registers is for a text; a %s has its own length" % (place, form))
    else:
        problems.append("%s: type must be one of %s" % (place, ", ".join(sorted(TYPES) + [TEXT])))
    address = attempt(problems, whole, entry, place, "address", 0, 65536 - length, None)
    if problems:
        raise ConfigError("\n".join(problems))
    return Spot(function, address, length, kind, words == WORD_ORDERS[1])


def question_for(spot: Spot) -> bytes:
    """Return the PDU that asks for it."""
    return question(spot.function, spot.address, spot.length)


def text_of(spot: Spot, octets: bytes) -> str:
    """Return what the register bytes say, for people: a text without what fills it up, a number in decimal."""
    if spot.kind == TEXT:
        letters = [chr(octet) for octet in octets if 32 <= octet < 127]
        return "".join(letters).strip()
    if spot.kind == FLOAT:
        thousandths = in_thousandths(spot, octets)
        if thousandths is None:
            return "no number"
        digits = "%0*d" % (PLACES + 1, abs(thousandths))
        text = (digits[:-PLACES] + "." + digits[-PLACES:]).rstrip("0").rstrip(".")
        return "-" + text if thousandths < 0 else text
    return str(_whole_of(spot, octets))


def in_thousandths(spot: Spot, octets: bytes) -> "int | None":
    """Return a number in thousandths of the meter's unit, rounded; None for a text and for what is no number."""
    if spot.kind == TEXT:
        return None
    if spot.kind == FLOAT:
        return float_in_units(_raw(spot, octets), 2 * spot.length, -PLACES)
    return 1000 * _whole_of(spot, octets)


def is_exactly(spot: Spot, octets: bytes, wanted: "int | str") -> bool:
    """Return whether the register bytes say `wanted`, to the last bit: a float next to zero is not zero."""
    if spot.kind == TEXT:
        return text_of(spot, octets) == wanted
    if not isinstance(wanted, int):
        return False
    if spot.kind == FLOAT:
        return _raw(spot, octets) == float_bits(wanted, 2 * spot.length)
    return _whole_of(spot, octets) == wanted


def can_be(spot: Spot, wanted: "Any") -> bool:
    """Return whether `wanted`, out of a profile, is a value that such a spot can hold exactly."""
    if spot.kind == TEXT:
        return isinstance(wanted, str) and 0 < len(wanted) <= 2 * spot.length
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        return False
    if spot.kind == FLOAT:
        return abs(wanted) < 1 << FLOATS[2 * spot.length][0] + 1
    return -(1 << 63) <= wanted < 1 << 64


def _raw(spot: Spot, octets: bytes) -> int:
    return int.from_bytes(words_turned(octets) if spot.low_word_first else octets, "big")


def _whole_of(spot: Spot, octets: bytes) -> int:
    found = number(_raw(spot, octets), 2 * spot.length, spot.kind, 0, 0)
    return found[0] if found else 0
