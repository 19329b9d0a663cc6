"""Registers of a Modbus meter: PDU bytes <-> numbers.

Spec: MODBUS Application Protocol V1.1b3, sections 6.3 and 6.4 (reads) and 7
(exceptions); IEEE 754 for the floats. Registers are big-endian; where a number
takes several, most meters send the highest first and some the lowest. No IO,
no clock, no floats.
"""

import struct

from bega_protocols.errors import WireError
from bega_protocols.modbus_rtu import EXCEPTION

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

# type: (bytes, kind)
UNSIGNED, SIGNED, FLOAT = "unsigned", "signed", "float"
TYPES = {
    "uint16": (2, UNSIGNED),
    "int16": (2, SIGNED),
    "uint32": (4, UNSIGNED),
    "int32": (4, SIGNED),
    "float32": (4, FLOAT),
    "uint64": (8, UNSIGNED),
    "int64": (8, SIGNED),
    "float64": (8, FLOAT),
}
# float size in bytes: (bits of the fraction, bias of the exponent)
FLOATS = {4: (23, 127), 8: (52, 1023)}
# A float of 2^50 (10^15) or more is no number either: no meter counts so far, and words in another order do at once.
BEYOND_BITS = 50
BEYOND = 127 + BEYOND_BITS  # as the power that stands in a float32

# Section 7 of the application protocol.
REFUSALS = {
    1: "function not known",
    2: "no such register",
    3: "value not allowed",
    4: "device failure",
    5: "accepted, still working",
    6: "busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "no answer from the device behind the gateway",
}


def question(function: int, address: int, count: int) -> bytes:
    """Return the PDU that asks for `count` registers from the zero-based `address`."""
    return struct.pack(">BHH", function, address, count)


def registers(asked: bytes, answer: bytes) -> bytes:
    """Return the register bytes in `answer`, the PDU that came upon the PDU `asked`.

    Raises WireError if it refuses, or if it is no answer to this question.
    """
    function, _, count = struct.unpack(">BHH", asked)
    if len(answer) == 2 and answer[0] == function | EXCEPTION:
        raise WireError("refused, exception %d (%s)" % (answer[1], REFUSALS.get(answer[1], "unknown")), answer)
    if len(answer) != 2 + 2 * count or answer[0] != function or answer[1] != 2 * count:
        raise WireError("no answer to function %d, %d registers" % (function, count), answer)
    return answer[2:]


def words_turned(octets: bytes) -> bytes:
    """Return `octets` with the order of their 16-bit words turned round."""
    turned = b""
    for at in range(len(octets), 0, -2):
        turned += octets[at - 2 : at]
    return turned


def number(raw: int, size: int, kind: str, scale: int, exponent: int) -> "tuple[int, int] | None":
    """Return (value, exp10) of what the `size` bytes in `raw` hold, or None if they are no number.

    scale: the meter's unit is 10^scale of the quantity's, e.g. 3 for kW where the quantity is in W
    exponent: where a float is rounded, in the quantity's unit; a whole number is never rounded
    """
    if kind == FLOAT:
        value = float_in_units(raw, size, exponent - scale)
        return None if value is None else (value, exponent)
    if kind == SIGNED and raw >> (8 * size - 1):
        raw -= 1 << 8 * size
    return raw, scale


def float_in_units(raw: int, size: int, exponent: int) -> "int | None":
    """Return the IEEE 754 number in the bits of `raw` as a whole number of 10^exponent; None if it is none of a meter.

    None are NaN, infinity, and all that is BEYOND. Rounded to the nearest, a tie
    to the even one (as IEEE 754 itself rounds), by whole numbers alone: the
    result is exact on an ESP32 too.
    """
    if size == 4 and exponent <= 0:
        return float32_times(raw, 10**-exponent)
    fraction_bits, bias = FLOATS[size]
    fraction = raw & (1 << fraction_bits) - 1
    power = raw >> fraction_bits & 2 * bias + 1
    if power >= bias + BEYOND_BITS:
        return None
    if power:
        fraction |= 1 << fraction_bits
    else:  # subnormal: no hidden bit, and the smallest power
        power = 1
    power -= bias + fraction_bits
    above, below = fraction, 1
    if power >= 0:
        above <<= power
    else:
        below <<= -power
    if exponent >= 0:
        below *= 10**exponent
    else:
        above *= 10**-exponent
    value, rest = divmod(above, below)
    if 2 * rest > below or (2 * rest == below and value & 1):
        value += 1
    return -value if raw >> (8 * size - 1) else value


def float32_times(raw: int, factor: int) -> "int | None":
    """Return the float32 in the bits of `raw` times `factor`, rounded as above; None for what is no number.

    Most registers of most meters are these: by shifts it takes a third of the time.
    """
    power = raw >> 23 & 0xFF
    if power >= BEYOND:
        return None
    # Below the smallest power there is no hidden bit, and the fraction counts double.
    value = (raw & 0x7FFFFF | 0x800000 if power else (raw & 0x7FFFFF) << 1) * factor
    places = 150 - power  # bits behind the point
    if places > 0:  # a half less one carries what is above the tie; the last bit that stays carries the odd tie
        value = value + (1 << places - 1) - 1 + (value >> places & 1) >> places
    else:
        value <<= -places
    return -value if raw >> 31 else value


def float_bits(whole: int, size: int) -> int:
    """Return the bits of the IEEE 754 number of `size` bytes that is exactly `whole`, which its fraction can hold."""
    if whole == 0:
        return 0
    fraction_bits, bias = FLOATS[size]
    magnitude = abs(whole)
    power = 0
    while magnitude >> power + 1:
        power += 1
    fraction = (magnitude << fraction_bits - power) & (1 << fraction_bits) - 1
    sign = 1 << 8 * size - 1 if whole < 0 else 0
    return sign | power + bias << fraction_bits | fraction
