"""One record as one SenML pack in JSON.

Spec: RFC 8428 (SenML), RFC 8798 (further units). Extension labels: `boot`
and `seq` in the first entry (with the source they are the record's identity),
`tq` time quality in the first entry, `q` a reading's quality. Absent means 0.
"""

import json

from bega_protocols.errors import WireError
from bega_protocols.reading import GOOD, QUANTITIES, STALE, Reading, decimal_text, parse_decimal
from bega_protocols.record import SYNCHRONISED, UNKNOWN, Record

VERSION_WITH_SECONDARY_UNITS = 26  # 10 + 2^4, RFC 8798 section 4
SECONDARY_UNITS = (
    "ug/m3", "hPa", "ppm", "min", "kWh", "kvarh", "kVAh", "dBm",
)  # those of RFC 8798 section 5 that the quantity table uses  # fmt: skip


def encode(record: Record) -> bytes:
    """Return the pack, as compact JSON in the order that ARCHITECTURE names.

    Raises KeyError for a quantity that the table does not know, ValueError for a record without readings.
    """
    if not record.readings:
        raise ValueError("a record without readings")
    units = [QUANTITIES[reading.quantity][1] for reading in record.readings]
    head = '"bn":"%s/%s/"' % (record.source, record.device)
    if record.time_ms is not None:
        head += ',"bt":%s' % decimal_text(record.time_ms, -3)
    if any(unit in SECONDARY_UNITS for unit in units):
        head += ',"bver":%d' % VERSION_WITH_SECONDARY_UNITS
    head += ',"boot":%d,"seq":%d' % (record.boot, record.seq)
    if record.time_quality != SYNCHRONISED:
        head += ',"tq":%d' % record.time_quality
    entries = [_entry(reading, unit) for reading, unit in zip(record.readings, units)]
    return ("[{" + head + "," + "},{".join(entries) + "}]").encode()


def decode(pack: bytes) -> Record:
    """Return the record in a pack that `encode` made; numbers never pass through a float.

    CPython only: MicroPython's json cannot leave numbers as text, and a node never reads packs.
    Raises WireError if the bytes are no such pack.
    """
    try:
        entries = json.loads(pack, parse_float=str, parse_int=str, parse_constant=_refuse)
        head = entries[0]
        source, device, nothing = head["bn"].split("/")
        if nothing or not source or not device:
            raise ValueError("bn is not <source>/<device>/")
        time_ms = None if "bt" not in head else _milliseconds(head["bt"])
        time_quality = int(head.get("tq", SYNCHRONISED if time_ms is not None else UNKNOWN))
        readings = [_reading(entry) for entry in entries]
        return Record(source, int(head["boot"]), int(head["seq"]), device, time_ms, time_quality, readings)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise WireError("no record in SenML (%s: %s)" % (type(error).__name__, error), bytes(pack[:80]))


def _entry(reading: Reading, unit: "str | None") -> str:
    text = '"n":"%s"' % (reading.quantity + ":" + reading.part if reading.part else reading.quantity)
    if reading.quality == STALE:  # never the old value: nobody could tell it from a new one
        return text + ',"vs":"stale","q":%d' % STALE
    if unit is not None:
        text += ',"u":"%s"' % unit
    text += ',"v":' + decimal_text(reading.value, reading.exp10)
    return text if reading.quality == GOOD else text + ',"q":%d' % reading.quality


def _reading(entry: "dict[str, str]") -> Reading:
    quantity, _, part = entry["n"].partition(":")
    if quantity not in QUANTITIES:
        raise ValueError("unknown quantity " + quantity)
    quality = int(entry.get("q", GOOD))
    if quality == STALE:
        return Reading(quantity, 0, 0, part, STALE)
    if "u" in entry and entry["u"] != QUANTITIES[quantity][1]:
        raise ValueError("%s in %s" % (quantity, entry["u"]))
    value, exp10 = parse_decimal(entry["v"])
    return Reading(quantity, value, exp10, part, quality)


def _milliseconds(seconds: str) -> int:
    value, exp10 = parse_decimal(seconds)
    if exp10 < -3:
        raise ValueError("bt finer than a millisecond")
    for _ in range(exp10 + 3):
        value *= 10
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant + " is no value")
