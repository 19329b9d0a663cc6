"""M-Bus data records: what stands behind the header of a telegram, as numbers, texts and dates.

Spec: EN 13757-3, variable data structure: data information block (DIF and
DIFE), value information block (VIF and VIFE; the codes are in mbus_units.py),
types of data. Multi-byte values come low byte first. No IO, no clock, no floats.
"""

from collections import namedtuple

from bega_protocols.dates import month_days
from bega_protocols.errors import WireError
from bega_protocols.mbus_units import DATE, DATE_TIME, PLAIN_TEXT, describe

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Record(NamedTuple):
        """One value of a telegram, as it came.

        function: INSTANT, MAXIMUM, MINIMUM or ERROR (the value while an error lasted)
        meaning: "energy", "volume" and so on, the meter's own text, or "" where the code is in no table
        value: a whole number, to be taken times 10^exp10 in `unit`; a text; a date "2024-12-31", a time
            "2024-12-31T23:59" or "23:59:59"; bytes without a known shape; None if there is no valid value
        notes: what further codes add: "forward", "average", "l1", "future", "summer time" and so on
        block: the codes of value and unit as sent; with function, storage, tariff and subunit the record's key
        """

        function: int
        storage: int
        tariff: int
        subunit: int
        meaning: str
        unit: str
        value: int | str | bytes | None
        exp10: int
        notes: tuple[str, ...]
        block: bytes

    class Records(NamedTuple):
        """All records of one telegram.

        more: a further telegram holds more records
        tail: bytes that only the maker understands
        damage: (offset, what was wrong), where reading had to stop; the records before are good
        """

        records: list[Record]
        more: bool
        tail: bytes
        damage: tuple[int, WireError] | None

else:
    Record = namedtuple(
        "Record",
        ("function", "storage", "tariff", "subunit", "meaning", "unit", "value", "exp10", "notes", "block"),
    )
    Records = namedtuple("Records", ("records", "more", "tail", "damage"))

INSTANT, MAXIMUM, MINIMUM, ERROR = 0, 1, 2, 3
FUNCTIONS = ("", "maximum", "minimum", "during error")

MOST_EXTENSIONS = 10  # DIFE and VIFE each: the standard's own bound
END, MORE_FOLLOWS, FILLER = 0x0F, 0x1F, 0x2F  # special DIFs
REAL = 0x05
INTEGERS = (0x01, 0x02, 0x03, 0x04, 0x06, 0x07)
BCD = (0x09, 0x0A, 0x0B, 0x0C, 0x0E)
SIZES = (0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, None, 6, None)  # bytes of data by the lower half of the DIF


def read_records(data: bytes) -> Records:
    """Return all records in `data`, which stands behind the header. Never raises: what is damaged ends the list."""
    records: list[Record] = []
    at = 0
    while at < len(data):
        start = at
        dif = data[at]
        if dif == FILLER:
            at += 1
            continue
        if dif in (END, MORE_FOLLOWS):
            return Records(records, dif == MORE_FOLLOWS, data[at + 1 :], None)
        try:
            record, at = _record(data, at)
        except WireError as error:
            return Records(records, False, b"", (start, error))
        records.append(record)
    return Records(records, False, b"", None)


def _record(data: bytes, start: int) -> "tuple[Record, int]":
    """Return the record that begins at `start`, and where it ends; raises WireError with what is left."""
    dif = data[start]
    if dif & 0x0F == 0x0F:
        raise WireError("special record %02X" % dif, data[start : start + 16])
    size = SIZES[dif & 0x0F]
    storage, tariff, subunit, at = _places(data, start)
    block_at = at
    meaning, unit, exp10, notes, at = _block(data, at)
    block = data[block_at:at]
    if size is None:
        value, at = _variable(data, at)
    else:
        octets = _take(data, at, size)
        at += size
        value, exp10 = _fixed(dif & 0x0F, octets, exp10)
        if block[0] & 0x7F in (DATE, DATE_TIME) and dif & 0x0F in INTEGERS:
            value, summer = _moment(block[0] & 0x7F, octets)
            exp10 = 0
            notes += ("summer time",) if summer else ()
    return Record(dif >> 4 & 3, storage, tariff, subunit, meaning, unit, value, exp10, notes, block), at


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise WireError("a record ends early", data[at : at + 16])
    return data[at : at + size]


def _places(data: bytes, at: int) -> "tuple[int, int, int, int]":
    """Return (storage, tariff, subunit, end): each DIFE adds bits above those before it."""
    octet = data[at]
    storage, tariff, subunit = octet >> 6 & 1, 0, 0
    at += 1
    count = 0
    while octet & 0x80:
        if count == MOST_EXTENSIONS:
            raise WireError("more than 10 DIFE", data[at : at + 16])
        octet = _take(data, at, 1)[0]
        storage |= (octet & 0x0F) << 1 + 4 * count
        tariff |= (octet >> 4 & 3) << 2 * count
        subunit |= (octet >> 6 & 1) << count
        at += 1
        count += 1
    return storage, tariff, subunit, at


def _block(data: bytes, at: int) -> "tuple[str, str, int, tuple[str, ...], int]":
    """Return (meaning, unit, exp10, notes, end) of the value information block at `at`."""
    vif = _take(data, at, 1)[0]
    at += 1
    code = vif & 0x7F
    more = vif >> 7
    extensions: list[int] = []
    meaning = ""
    if code == PLAIN_TEXT:  # its text stands right behind it, before any VIFE
        size = _take(data, at, 1)[0]
        meaning = _text(_take(data, at + 1, size))
        at += 1 + size
    while more:
        if len(extensions) == MOST_EXTENSIONS:
            raise WireError("more than 10 VIFE", data[at : at + 16])
        octet = _take(data, at, 1)[0]
        extensions.append(octet & 0x7F)
        more = octet >> 7
        at += 1
    named, unit, exp10, notes = describe(vif, extensions)
    return meaning or named, unit, exp10, notes, at


def _fixed(kind: int, octets: bytes, exp10: int) -> "tuple[int | str | bytes | None, int]":
    """Return (value, exp10) of data whose length the DIF gives."""
    if not octets:
        return None, exp10
    if kind == REAL:
        return _real(octets, exp10)
    if kind in BCD:
        return bcd(octets), exp10
    return _integer(octets), exp10


def _integer(octets: bytes) -> int:
    """Two's complement, low byte first."""
    value = int.from_bytes(octets, "little")
    return value - (1 << 8 * len(octets)) if octets[-1] & 0x80 else value


def bcd(octets: bytes) -> "int | None":
    """Return the number of packed decimal digits, low byte first; None if a digit is none.

    F in the place of the highest digit is a minus sign; A to E are what a
    display shows when it cannot show a number.
    """
    value = 0
    for index in range(len(octets) - 1, -1, -1):
        high, low = octets[index] >> 4, octets[index] & 0x0F
        if high == 0x0F and index == len(octets) - 1:
            high = 0
        if high > 9 or low > 9:
            return None
        value = 100 * value + 10 * high + low
    return -value if octets and octets[-1] >> 4 == 0x0F else value


def _real(octets: bytes, exp10: int) -> "tuple[int | None, int]":
    """Return (value, exp10) of an IEEE 754 number of 32 bits: the shortest decimal that reads back as the same bits.

    Nine significant digits always do. NaN and infinity are None. By whole numbers alone.
    """
    bits = int.from_bytes(octets, "little")
    power, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if power == 0xFF:
        return None, exp10
    if power == 0 and fraction == 0:
        return 0, exp10
    # Four times the number, and how far from it another one is nearer, in units of 2^power.
    mantissa = fraction | 0x800000 if power else fraction
    near = 1 if fraction == 0 and power > 1 else 2  # below a power of two the next number is half as far
    power = max(power, 1) - 152
    above, below = 4 * mantissa << max(power, 0), 1 << max(-power, 0)
    near <<= max(power, 0)
    digits = -45  # below the smallest number that is not zero
    while above >= below * 10 ** (digits + 1) if digits >= -1 else above * 10 ** -(digits + 1) >= below:
        digits += 1
    value = shift = 0
    for places in range(10):
        shift = digits - places
        up, down = (1, 10**shift) if shift >= 0 else (10**-shift, 1)
        value, rest = divmod(above * up, below * down)
        if 2 * rest >= below * down:
            value += 1
        if abs(value * below * down - above * up) < near * up:
            break
    while value % 10 == 0:
        value //= 10
        shift += 1
    return (-value if bits >> 31 else value), exp10 + shift


def _variable(data: bytes, at: int) -> "tuple[int | str | bytes | None, int]":
    """Return (value, end) of data that says its own length (LVAR)."""
    mark = _take(data, at, 1)[0]
    at += 1
    if mark <= 0xBF:
        return _text(_take(data, at, mark)), at + mark
    if 0xC0 <= mark <= 0xC9 or 0xD0 <= mark <= 0xD9:
        size = mark & 0x0F
        value = bcd(_take(data, at, size))
        return -value if value and mark >= 0xD0 else value, at + size
    size = 0
    if 0xE0 <= mark <= 0xEF:
        size = mark - 0xE0
    elif 0xF0 <= mark <= 0xF4:
        size = 4 * (mark - 0xEC)
    elif mark in (0xF5, 0xF6):
        size = 48 if mark == 0xF5 else 64
    else:
        raise WireError("reserved length %02X" % mark, data[at : at + 16])
    return _take(data, at, size), at + size


def _text(octets: bytes) -> str:
    """Return a text: sent last character first, one byte each."""
    return "".join([chr(octets[index]) for index in range(len(octets) - 1, -1, -1)])


def _moment(vif: int, octets: bytes) -> "tuple[str | None, bool]":
    """Return (date or time as text, whether it is summer time); None where it is not set, or cannot be.

    Types G (2 bytes), J (3), F (4) and I (6).
    """
    if vif == DATE:
        return (_date(octets[0], octets[1], 0) if len(octets) == 2 else None), False
    if len(octets) == 3:
        return _time(octets[2] & 0x1F, octets[1] & 0x3F, octets[0] & 0x3F), False
    if len(octets) == 4:
        date = _date(octets[2], octets[3], octets[1] >> 5 & 3)
        time, invalid, summer = _time(octets[1] & 0x1F, octets[0] & 0x3F, None), octets[0] & 0x80, octets[1] & 0x80
    elif len(octets) == 6:
        date = _date(octets[3], octets[4], 0)
        time = _time(octets[2] & 0x1F, octets[1] & 0x3F, octets[0] & 0x3F)
        invalid, summer = octets[1] & 0x80, octets[0] & 0x40
    else:
        return None, False
    if invalid or date is None or time is None:
        return None, False
    return date + "T" + time, bool(summer)


def _date(low: int, high: int, century: int) -> "str | None":
    """Year: seven bits, of this century up to 80 where the century is not given, else of the last."""
    year, month, day = low >> 5 | high >> 1 & 0x78, high & 0x0F, low & 0x1F
    year += 2000 if century == 0 and year <= 80 else 1900 + 100 * century
    return "%04d-%02d-%02d" % (year, month, day) if 1 <= month <= 12 and 1 <= day <= month_days(year, month) else None


def _time(hour: int, minute: int, second: "int | None") -> "str | None":
    if hour > 23 or minute > 59 or (second or 0) > 59:
        return None
    return "%02d:%02d" % (hour, minute) if second is None else "%02d:%02d:%02d" % (hour, minute, second)
