"""M-Bus meters: which records are readings, of what quantity, and when they were true. No IO, no clock, no floats.

Spec: EN 13757-3 for the records; the quantity table (reading.py) for what they
become. A record that is not plainly one of these quantities is no reading:
maxima, minima, what held during an error, what belongs to a subunit (some
makers count cooling, reactive energy or pulse inputs there), and any with a
code behind it that changes its meaning.
"""

from collections import namedtuple

from bega_protocols.dates import days
from bega_protocols.mbus import PERMANENT_ERROR, TEMPORARY_ERROR
from bega_protocols.mbus_records import FUNCTIONS, INSTANT, Record
from bega_protocols.reading import GOOD, SUSPECT, Reading, decimal_text

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Group(NamedTuple):
        """Readings that were true at one time: now (storage 0), or at the Unix second that the meter stamped."""

        storage: int
        unix_s: int | None
        readings: list[Reading]

else:
    Group = namedtuple("Group", ("storage", "unix_s", "readings"))

ELECTRICITY, GAS, ROOM_SENSOR = 0x02, 0x03, 0x1B
WATER = (0x06, 0x07, 0x15, 0x16, 0x17)  # hot, any, very hot, cold, dual
HEAT = (0x04, 0x0C, 0x0D)  # outlet, inlet, heat and cooling
COLD = (0x0A, 0x0B)

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
DURATIONS = {"on time": "on_time", "operating time": "operating_time"}
FLOWS = {"m3/h": 1, "m3/min": 60, "m3/s": 3600}
LARGEST_EXPONENT = 40  # beyond it no meter measures, and whoever writes the number out would be at it for long

# meaning: (quantity, unit that the record must have, what our unit adds to the exponent)
PLAIN = {
    "flow temperature": ("flow_temperature", "Cel", 0),
    "return temperature": ("return_temperature", "Cel", 0),
    "temperature difference": ("temperature_difference", "K", 0),
    "pressure": ("pressure", "bar", 3),
    "voltage": ("voltage", "V", 0),
    "current": ("current", "A", 0),
    "cost allocator units": ("allocator_units", "", 0),
}
PHASED = ("voltage", "current", "power")
PHASES = ("l1", "l2", "l3")


def groups(
    records: "list[Record]", medium: "int | None", status: int, utc_min: int, is_whole: bool = True
) -> "tuple[list[Group], list[int]]":
    """Return (groups of readings, the indexes of the records that became none).

    The first group is what holds now, and storages that have no date; then one for each storage that has its own. One
    whose date is not set, or lies in the meter's future, has stored nothing yet.
    medium, status: of the header; an error that the meter reports makes all of its readings SUSPECT
    utc_min: minutes that the meter's normal time is ahead of UTC
    is_whole: False where further records did not come through: what they could turn the meaning of is no reading, a
        storage without its date and an energy without a direction
    """
    quality = SUSPECT if status & (PERMANENT_ERROR | TEMPORARY_ERROR) else GOOD
    stamps, empty, used = _stamps(records, utc_min)
    directed = not is_whole or any(record.meaning == "energy" and "forward" in record.notes for record in records)
    found = {0: Group(0, None, [])}
    seen = set()
    unread = []
    for index, record in enumerate(records):
        reading = _reading(record, medium, quality, directed)
        if record.storage in empty or (record.storage and record.storage not in stamps and not is_whole):
            reading = None
        if reading is None or (reading.quantity, reading.part) in seen:
            if index not in used:
                unread.append(index)
            continue
        seen.add((reading.quantity, reading.part))
        storage = record.storage if record.storage in stamps else 0
        if storage not in found:
            found[storage] = Group(storage, stamps[storage], [])
        found[storage].readings.append(reading)
    for storage in found:
        unix_s = found[storage].unix_s
        if unix_s is not None:
            found[storage].readings.append(Reading("measured_at", unix_s, 0, "", quality))
    return [found[storage] for storage in sorted(found) if found[storage].readings], unread


def describe(record: Record) -> str:
    """Return a record in words, for a list of what was not read: "maximum volume flow 2.070 m3/h, storage 1"."""
    words = [FUNCTIONS[record.function], record.meaning or "code " + _hex(record.block)]
    value = record.value
    if value is None:
        words.append("-")
    elif isinstance(value, int):
        words.append(decimal_text(value, record.exp10))
    else:
        words.append(_hex(value) if isinstance(value, bytes) else value)
    words.append(record.unit)
    text = " ".join([word for word in words if word])
    for name, number in (("storage", record.storage), ("tariff", record.tariff), ("subunit", record.subunit)):
        if number:
            text += ", %s %d" % (name, number)
    return ", ".join([text] + list(record.notes))


def clock(records: "list[Record]") -> "str | None":
    """Return the date and time that the meter's own clock shows, if it tells."""
    for record in records:
        if _is_moment(record, 0) and record.meaning == "date and time":
            return str(record.value)
    return None


def _hex(octets: bytes) -> str:
    return "".join(["%02x" % octet for octet in octets])


def _reading(record: Record, medium: "int | None", quality: int, directed: bool) -> "Reading | None":
    if record.function != INSTANT or record.subunit or not isinstance(record.value, int):
        return None
    phase = ""
    direction = ""
    if record.notes:
        note = record.notes[0]
        if len(record.notes) > 1:
            return None
        if note in PHASES and medium == ELECTRICITY and record.meaning in PHASED:
            phase = note
        elif note in ("forward", "reverse") and medium == ELECTRICITY and record.meaning == "energy":
            direction = note
        else:
            return None
    if record.meaning == "energy" and medium == ELECTRICITY and directed and not direction:
        return None  # beside import and export it may be their sum or their difference
    quantity, factor, added = _quantity(record, medium, direction)
    exp10 = record.exp10 + added
    if not quantity or not -LARGEST_EXPONENT <= exp10 <= LARGEST_EXPONENT:
        return None
    return Reading(quantity, record.value * factor, exp10, _part(record, phase), quality)


def _quantity(record: Record, medium: "int | None", direction: str) -> "tuple[str, int, int]":
    """Return (quantity or "", what its unit multiplies the value with, and adds to the exponent)."""
    meaning, unit = record.meaning, record.unit
    if meaning == "energy":
        return _energy(unit, medium, direction)
    if meaning == "volume":
        return _volume(medium), 1, 0
    if meaning == "power" and unit == "W":
        if medium == ELECTRICITY:
            return "active_power", 1, 0
        return ("thermal_power" if medium in HEAT + COLD else ""), 1, 0
    if meaning == "volume flow":
        return "volume_flow", FLOWS[unit], 0
    if meaning in DURATIONS:
        return DURATIONS[meaning], SECONDS[unit], 0
    if meaning == "external temperature" and medium == ROOM_SENSOR and unit == "Cel":
        return "temperature", 1, 0
    quantity, wanted, added = PLAIN.get(meaning, ("", "", 0))
    return (quantity if unit == wanted else ""), 1, added


def _energy(unit: str, medium: "int | None", direction: str) -> "tuple[str, int, int]":
    """Electricity in kW.h, heat and cold in J: 1 Wh is 36 x 10^2 J."""
    if medium == ELECTRICITY:
        quantity = "active_energy_export" if direction == "reverse" else "active_energy_import"
        return (quantity if unit == "Wh" else ""), 1, -3
    quantity = "heat_energy" if medium in HEAT else "cold_energy" if medium in COLD else ""
    return (quantity, 36, 2) if unit == "Wh" else (quantity, 1, 0)


def _volume(medium: "int | None") -> str:
    if medium == GAS:
        return "gas_volume"
    if medium in WATER:
        return "water_volume"
    return "volume" if medium in HEAT + COLD else ""


def _part(record: Record, phase: str) -> str:
    storage = "s%d" % record.storage if record.storage else ""
    tariff = "t%d" % record.tariff if record.tariff else ""
    return storage + tariff + phase


def _is_moment(record: Record, storage: int) -> bool:
    """Return whether this is the plain date, or date and time, of a storage, and set."""
    is_whole = isinstance(record.value, str) and len(record.value) >= 10  # a time of the day alone is shorter
    return is_whole and _is_date(record, storage)


def _is_date(record: Record, storage: int) -> bool:
    """Return whether this is where a storage says its date: not that of a maximum, nor when the next is due."""
    if record.function != INSTANT or record.storage != storage or record.tariff or record.subunit:
        return False
    return record.meaning in ("date", "date and time") and record.notes in ((), ("summer time",))


def _stamps(records: "list[Record]", utc_min: int) -> "tuple[dict[int, int], list[int], list[int]]":
    """Return (Unix second of each storage that has a date of its own, storages still empty, indexes of those dates).

    The first date of a storage counts. The one that stands at storage 0 is the meter's clock, or the day of the next
    reading: no stamp.
    """
    shown = clock(records)
    stamps: dict[int, int] = {}
    empty = []
    used = []
    for index, record in enumerate(records):
        if not record.storage or record.storage in stamps or record.storage in empty:
            continue
        if _is_moment(record, record.storage):
            text = str(record.value)
            if shown and text > shown[: len(text)]:
                empty.append(record.storage)
            else:
                stamps[record.storage] = _unix_s(text, "summer time" in record.notes, utc_min)
                used.append(index)
        elif record.value is None and _is_date(record, record.storage):
            empty.append(record.storage)
    return stamps, empty, used


def _unix_s(text: str, summer: bool, utc_min: int) -> int:
    """A date without a time is its first second; whether a maker means that or its end, the record does not say."""
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    hour = int(text[11:13]) if len(text) > 10 else 0
    minute = int(text[14:16]) if len(text) > 10 else 0
    second = int(text[17:19]) if len(text) > 16 else 0
    if summer:
        hour -= 1
    return ((days(year, month, day) * 24 + hour) * 60 + minute - utc_min) * 60 + second
