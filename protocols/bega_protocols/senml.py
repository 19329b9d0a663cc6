"""One record as one SenML pack in JSON.

Spec: RFC 8428 (SenML), RFC 8798 (further units). Extension labels: `boot`
and `seq` in the first entry (with the source they are the record's identity),
`tq` time quality in the first entry, `q` a reading's quality. Absent means 0.
Names are segments of a topic, [A-Za-z0-9_-]; so is a part.
"""

import json

from bega_protocols.errors import WireError
from bega_protocols.reading import GOOD, STALE, Reading, decimal_text, parse_decimal, units
from bega_protocols.record import SYNCHRONISED, UNKNOWN, Record

VERSION_WITH_SECONDARY_UNITS = 26  # 10 + 2^4, RFC 8798 section 4
SECONDARY_UNITS = (
    "ug/m3", "hPa", "ppm", "min", "kWh", "kvarh", "kVAh", "dBm", "mm", "/100",
)  # those of RFC 8798 section 5 that the quantity table uses  # fmt: skip

PACK_SIZE = 65536  # a hundred readings take 6 kB
NAME_SIZE = 64
WHOLE_LIMIT = 1 << 63  # what SQLite holds in an integer
TIME_LIMIT_MS = 253_402_300_800_000  # the year 10000, which no calendar of Python has

_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_FIRST_ONLY = ("bn", "bt", "bver")
_UNUSED = ("bu", "bv", "bs", "s", "t", "ut", "vb", "vd")  # of RFC 8428: they would change what our labels say


def encode(record: Record, every_unit: bool = True) -> bytes:
    """Return the pack, as compact JSON in the order that ARCHITECTURE names.

    Raises KeyError for a quantity that the table does not know, ValueError for a record without readings
    or with a name that is none. every_unit=False: such a quantity goes without its unit, which whoever reads it
    has in his table (a node's has its own devices' rows only, and its ring may hold records of former ones).
    """
    return Encoder(every_unit).encode(record)


def is_name(text: str) -> bool:
    """Return whether a source, a device or a part can be called so."""
    return 0 < len(text) <= NAME_SIZE and all(character in _NAME for character in text)


class Encoder:
    """Encodes record after record: what it has worked out for a quantity once, it need not work out again."""

    def __init__(self, every_unit: bool = True) -> None:
        self._every_unit = every_unit
        self._names: dict[str, str] = {}  # of a source or a device, checked
        self._heads: dict[tuple[str, str], tuple[str, str, bool]] = {}

    def encode(self, record: Record) -> bytes:
        """Return the pack of `record`; raises as `encode` above."""
        source, boot, seq, device, time_ms, time_quality, readings = record
        if not readings:
            raise ValueError("a record without readings")
        heads = self._heads
        entries = []
        secondary = False
        for quantity, value, exp10, part, quality in readings:
            known = heads.get((quantity, part))
            if known is None:
                known = heads[quantity, part] = _entry_head(quantity, part, self._every_unit)
            name, with_unit, is_secondary = known
            secondary = secondary or is_secondary
            if quality == GOOD:
                entries.append(with_unit + decimal_text(value, exp10))
            elif quality == STALE:  # never the old value: nobody could tell it from a new one
                entries.append(name + ',"vs":"stale","q":%d' % STALE)
            else:
                entries.append(with_unit + decimal_text(value, exp10) + ',"q":%d' % quality)
        names = self._names
        head = '[{"bn":"%s/%s/"' % (
            names.get(source) or self._checked(source),
            names.get(device) or self._checked(device),
        )
        if time_ms is not None:
            head += ',"bt":' + decimal_text(time_ms, -3)
        if secondary:
            head += ',"bver":%d' % VERSION_WITH_SECONDARY_UNITS
        head += ',"boot":%d,"seq":%d,' % (boot, seq)
        if time_ms is None:
            time_quality = UNKNOWN
        if time_quality != SYNCHRONISED:
            head += '"tq":%d,' % time_quality
        return (head + "},{".join(entries) + "}]").encode()

    def _checked(self, name: str) -> str:
        _check_name(name)
        self._names[name] = name
        return name


def decode(pack: bytes) -> Record:
    """Return the record in a pack that `encode` made; numbers never pass through a float.

    CPython only: MicroPython's json cannot leave numbers as text, and a node never reads packs.
    Raises WireError if the bytes are no such pack.
    """
    try:
        if len(pack) > PACK_SIZE:
            raise ValueError("%d bytes" % len(pack))
        text = bytes(pack).decode("utf-8")  # json.loads would guess, and take UTF-16 too
        return _record(json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_refuse))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise WireError("no record in SenML (%s: %s)" % (type(error).__name__, str(error)[:80]), bytes(pack[:80]))


class _Number(str):
    """A number of JSON as it was written: a string that looks like one is none."""


def _record(entries: "list[dict[str, str]]") -> Record:
    head = entries[0]
    source, device, nothing = head["bn"].split("/")
    if nothing:
        raise ValueError("bn is not <source>/<device>/")
    for name in (source, device):
        _check_name(name)
    if "bver" in head and head["bver"] not in ("10", str(VERSION_WITH_SECONDARY_UNITS)):
        raise ValueError("bver " + head["bver"])
    time_ms = _milliseconds(head["bt"]) if "bt" in head else None
    time_quality = _whole(head, "tq", UNKNOWN + 1, SYNCHRONISED if time_ms is not None else UNKNOWN)
    if time_ms is None and time_quality != UNKNOWN:
        raise ValueError("a known time that is not there")
    for entry in entries:
        for label in _UNUSED if entry is head else _UNUSED + _FIRST_ONLY:
            if label in entry:
                raise ValueError("label " + label)
    readings = [_reading(entry) for entry in entries]
    boot, seq = _whole(head, "boot", WHOLE_LIMIT), _whole(head, "seq", WHOLE_LIMIT)
    return Record(source, boot, seq, device, time_ms, time_quality, readings)


def _entry_head(quantity: str, part: str, must_know: bool) -> "tuple[str, str, bool]":
    """Return (entry up to the name, entry up to the value, whether its unit is one of RFC 8798)."""
    known = units(quantity)
    if known is None and must_know:
        raise KeyError(quantity)
    unit = known[1] if known else None
    name = '"n":"' + quantity
    if part:
        _check_name(part)
        name += ":" + part
    name += '"'
    return name, name + ("" if unit is None else ',"u":"%s"' % unit) + ',"v":', unit in SECONDARY_UNITS


def _reading(entry: "dict[str, str]") -> Reading:
    quantity, colon, part = entry["n"].partition(":")
    known = units(quantity)
    if known is None:
        raise ValueError("unknown quantity " + quantity)
    if colon:
        _check_name(part)
    quality = _whole(entry, "q", STALE + 1, GOOD)
    if quality == STALE:
        return Reading(quantity, 0, 0, part, STALE)
    if "u" in entry and entry["u"] != known[1]:
        raise ValueError("%s in %s" % (quantity, entry["u"]))
    value, exp10 = parse_decimal(_number(entry["v"]))
    return Reading(quantity, value, exp10, part, quality)


def _milliseconds(seconds: str) -> int:
    value, exp10 = parse_decimal(_number(seconds))
    if exp10 < -3:
        raise ValueError("bt finer than a millisecond")
    time_ms: int = value * 10 ** (exp10 + 3)
    if not 0 <= time_ms < TIME_LIMIT_MS:
        raise ValueError("bt beyond all calendars")
    return time_ms


def _whole(entry: "dict[str, str]", label: str, limit: int, default: "int | None" = None) -> int:
    """Return a whole number from 0 to below `limit`; it may be missing only if it has a default."""
    if label not in entry and default is not None:
        return default
    value, exp10 = parse_decimal(_number(entry[label]))
    if exp10 != 0 or not 0 <= value < limit:
        raise ValueError(label + " is out of range")
    return value


def _number(value: str) -> str:
    if not isinstance(value, _Number):
        raise TypeError("no number")
    return value


def _check_name(name: str) -> None:
    """Raise ValueError for what is no segment of a topic: it would break the JSON, or somebody's path."""
    if not is_name(name):
        raise ValueError("no name: %r" % name[:NAME_SIZE])


def _refuse(constant: str) -> None:
    raise ValueError(constant + " is no value")
