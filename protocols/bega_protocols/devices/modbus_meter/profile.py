"""A register map of a meter, from its profile or from the user's tags: checked strictly.

The format is described in this folder's README, with profiles/sdm630.toml as
the example. What arrives here is the parsed table: TOML is read by the host.
"""

from collections import namedtuple

from bega_protocols.devices.modbus_meter.codec import FLOAT, TYPES
from bega_protocols.errors import ConfigError
from bega_protocols.modbus_rtu import MAX_COUNT, READS
from bega_protocols.reading import QUANTITIES
from bega_protocols.senml import is_name
from bega_protocols.settings import attempt

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    class Row(NamedTuple):
        """One number in the map, and the reading that it becomes."""

        function: int  # 3 or 4
        address: int  # of its first register, as it goes into the frame: from 0
        length: int  # registers
        kind: str  # of codec.TYPES
        low_word_first: bool
        absent: tuple[bytes, ...]  # register bytes, as on the wire, that mean "no value"
        quantity: str
        part: str
        scale: int
        exponent: int

    class Request(NamedTuple):
        """One question, and the rows that its answer holds."""

        function: int
        address: int
        length: int
        rows: tuple[Row, ...]

    class Profile(NamedTuple):
        """All that the driver knows of one model."""

        part: str
        maker: str
        wait_ms: int  # how long an answer may take
        pause_ms: int  # rest that the meter needs between its answer and the next question
        max_registers: int  # in one request
        gap_registers: int  # so many unwanted registers are read along rather than asked for separately
        even: bool  # start and count of a request must be even
        any_address: int  # at which a device answers whatever its own address is; 0: it has none
        rows: tuple[Row, ...]

else:
    Row = namedtuple(
        "Row",
        ("function", "address", "length", "kind", "low_word_first")
        + ("absent", "quantity", "part", "scale", "exponent"),
    )
    Request = namedtuple("Request", ("function", "address", "length", "rows"))
    Profile = namedtuple(
        "Profile",
        ("part", "maker", "wait_ms", "pause_ms", "max_registers", "gap_registers", "even", "any_address", "rows"),
    )

MAP_KEYS = ("part", "maker", "document", "wait_ms", "pause_ms", "max_registers", "gap_registers", "even", "any_address")
SECTIONS = ("registers", "settings", "attributes", "identify")  # commission.py and identify.py read the last three
DEFAULTS = {"function": None, "type": None, "words": "high first", "absent": ()}  # given once for all rows, or by row
ROW_KEYS = ("address", "quantity", "part", "scale", "exponent")
# What a user's tag need not say. Reading 16 registers along is as long on a serial line as a further question with its
# silences; a thousandth is what most displays show.
TAG_DEFAULTS = {"function": 3, "type": "uint16", "exponent": -3, "max_registers": MAX_COUNT, "gap_registers": 16}
TAG_KEYS = ("function", "type", "words", "absent", "exponent") + (
    "max_registers", "gap_registers", "even", "pause_ms",
)  # fmt: skip
WORD_ORDERS = ("high first", "low first")
MOST_PLACES = 24  # that a float may keep: with the 16 before them no more than a record may have (reading.py)


def read_profile(table: "Mapping[str, Any]") -> Profile:
    """Return what the driver needs; raises ConfigError with a line for each problem, which names the row."""
    problems = []
    for key in table:
        if key not in MAP_KEYS and key not in DEFAULTS and key not in SECTIONS:
            problems.append("profile: unknown key %s" % key)
    for key in ("part", "maker", "document"):
        if not isinstance(table.get(key), str) or not table[key]:
            problems.append("profile: %s must be a text" % key)
    rows = attempt(problems, _read_rows, table, table.get("registers"), "profile: row %d", 1)
    profile: Profile = attempt(
        problems, _whole_profile, table, "profile", table.get("part"), table.get("maker"), rows or ()
    )
    if problems:
        raise ConfigError("\n".join(problems))
    return profile


def read_tags(settings: "Mapping[str, Any]") -> Profile:
    """Return the same of the rows under `tags`; raises ConfigError that names the tag if they cannot be.

    A user's tag may leave out what a meter's profile must say: see TAG_DEFAULTS.
    """
    table = dict(TAG_DEFAULTS)
    for key in settings:
        if key in TAG_KEYS:
            table[key] = settings[key]
    rows = _read_rows(table, settings["tags"], "tags[%d]", 0)
    return _whole_profile(table, "settings", "", "", rows)


def whole(table: "Mapping[str, Any]", place: str, key: str, low: int, high: int, default: "int | None") -> int:
    """Return table[key]; raises ConfigError if it is missing without a default, no whole number, or out of range."""
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError("%s: %s must be a whole number from %d to %d, not %r" % (place, key, low, high, value))
    return value


def _whole_profile(table: "Mapping[str, Any]", place: str, part: str, maker: str, rows: "Sequence[Row]") -> Profile:
    max_registers = whole(table, place, "max_registers", 1, MAX_COUNT, None)
    even = table.get("even", False)
    if not isinstance(even, bool):
        raise ConfigError("%s: even must be true or false" % place)
    for row in rows:
        if row.length > max_registers:
            raise ConfigError("%s: max_registers is less than %s needs" % (place, _name(row.quantity, row.part)))
    return Profile(
        part,
        maker,
        whole(table, place, "wait_ms", 1, 60000, 1000),
        whole(table, place, "pause_ms", 0, 60000, 0),
        max_registers,
        whole(table, place, "gap_registers", 0, MAX_COUNT, 0),
        even,
        whole(table, place, "any_address", 248, 254, 0) if "any_address" in table else 0,
        tuple(rows),
    )


def _read_rows(table: "Mapping[str, Any]", entries: "Any", place: str, first: int) -> "list[Row]":
    """place: what an entry is called, with its number, which is counted from `first`."""
    if not isinstance(entries, (list, tuple)) or not entries:
        what = "profile: registers must list at least one row" if first else "tags must list at least one"
        raise ConfigError(what)
    rows: list[Row] = []
    problems: list[str] = []
    places: dict[tuple[str, str], str] = {}
    for index, entry in enumerate(entries):
        here = place % (index + first)
        row = attempt(problems, _read_row, table, entry, here)
        if row is None:
            continue
        name = (row.quantity, row.part)
        if name in places:
            problems.append("%s: repeats %s; `part` tells two apart" % (here, _name(*name)))
            continue
        places[name] = here
        rows.append(row)
    in_order = sorted(rows, key=lambda row: (row.function, row.address))
    for index in range(1, len(in_order)):
        before, row = in_order[index - 1], in_order[index]
        if row.function == before.function and row.address < before.address + before.length:
            here = places[row.quantity, row.part]
            names = (here, _name(row.quantity, row.part), _name(before.quantity, before.part))
            problems.append("%s: %s overlaps %s" % names)
    if problems:
        raise ConfigError("\n".join(problems))
    return rows


def _read_row(table: "Mapping[str, Any]", entry: "Any", place: str) -> Row:
    """Return one row; raises ConfigError with a line for each problem in it."""
    if not isinstance(entry, dict):
        raise ConfigError("%s: must be a table" % place)
    problems: list[str] = []
    quantity: Any = entry.get("quantity")
    part: Any = entry.get("part", "")
    if not isinstance(quantity, str) or quantity not in QUANTITIES:
        problems.append(
            "%s: quantity is missing" % place if quantity is None else "%s: there is no quantity %r" % (place, quantity)
        )
    else:
        place = "%s (%s)" % (place, _name(quantity, part))
    unknown = [str(key) for key in entry if key not in ROW_KEYS and key not in DEFAULTS]
    if unknown:
        problems.append("%s: unknown key %s" % (place, ", ".join(unknown)))
    if not isinstance(part, str) or len(part) > 8 or (part and not is_name(part)):
        problems.append("%s: part must be at most 8 letters, digits, _ or -" % place)
    given = {}
    for key in DEFAULTS:
        given[key] = entry.get(key, table.get(key, DEFAULTS[key]))
    if given["function"] not in READS:
        problems.append("%s: function must be 3 or 4" % place)
    if given["words"] not in WORD_ORDERS:
        problems.append("%s: words must be one of %s" % (place, ", ".join(WORD_ORDERS)))
    size, kind = 2, ""
    if isinstance(given["type"], str) and given["type"] in TYPES:
        size, kind = TYPES[given["type"]]
        if kind != FLOAT and "exponent" in entry:
            problems.append("%s: exponent says where a float is rounded; a whole number has only a scale" % place)
    else:
        problems.append("%s: type must be one of %s" % (place, ", ".join(sorted(TYPES))))
    address = attempt(problems, whole, entry, place, "address", 0, 65536 - size // 2, None)
    absent = attempt(problems, _absent, given["absent"], size, "absent" in entry and kind != "", place)
    scale = attempt(problems, whole, entry, place, "scale", -18, 18, 0)
    exponent = 0
    if kind == FLOAT:
        exponent = attempt(problems, whole, entry, place, "exponent", -18, 18, table.get("exponent"))
        if not problems and scale - exponent > MOST_PLACES:
            problems.append("%s: exponent %d keeps more digits than any number has" % (place, exponent))
    if problems:
        raise ConfigError("\n".join(problems))
    low_word_first = given["words"] == "low first"
    return Row(given["function"], address, size // 2, kind, low_word_first, absent, quantity, part, scale, exponent)


def _name(quantity: str, part: str) -> str:
    return ("%s %s" % (quantity, part)).rstrip()


def _absent(texts: "Any", size: int, of_row: bool, place: str) -> "tuple[bytes, ...]":
    """Return the values that mean "none"; of those given for all rows, each row takes the ones of its size."""
    if not isinstance(texts, (list, tuple)):
        raise ConfigError("%s: absent must be a list of hex texts" % place)
    found = []
    for text in texts:
        try:
            octets = bytes.fromhex(text)
        except (ValueError, TypeError):
            raise ConfigError("%s: absent must be a list of hex texts, not %r" % (place, text))
        if len(octets) == size:
            found.append(octets)
        elif of_row:
            raise ConfigError("%s: absent %s has not the size of this type" % (place, text))
    return tuple(found)
