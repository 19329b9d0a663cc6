"""A register map of a meter: checked strictly, then planned into the fewest requests.

The format is described in this folder's README, with profiles/sdm630.toml as
the example. What arrives here is the parsed table: TOML is read by the host.
"""

from collections import namedtuple

from bega_protocols.devices.modbus_meter.codec import FLOAT, TYPES
from bega_protocols.errors import ConfigError
from bega_protocols.modbus_rtu import MAX_COUNT, READS
from bega_protocols.reading import QUANTITIES

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Mapping
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
        requests: tuple[Request, ...]

else:
    Row = namedtuple(
        "Row",
        ("function", "address", "length", "kind", "low_word_first")
        + ("absent", "quantity", "part", "scale", "exponent"),
    )
    Request = namedtuple("Request", ("function", "address", "length", "rows"))
    Profile = namedtuple("Profile", ("part", "maker", "wait_ms", "pause_ms", "requests"))

MAP_KEYS = ("part", "maker", "document", "wait_ms", "pause_ms", "max_registers", "gap_registers", "even")
DEFAULTS = {"function": None, "type": None, "words": "high first", "absent": ()}  # given once for all rows, or by row
ROW_KEYS = ("address", "quantity", "part", "scale", "exponent")
WORD_ORDERS = ("high first", "low first")


def read_profile(table: "Mapping[str, Any]") -> Profile:
    """Return what the driver needs; raises ConfigError that names the row if the map cannot be."""
    for key in table:
        if key not in MAP_KEYS and key not in DEFAULTS and key != "registers":
            raise ConfigError("profile: unknown key %s" % key)
    for key in ("part", "maker", "document"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise ConfigError("profile: %s must be a text" % key)
    rows = _read_rows(table)
    max_registers = _whole(table, "profile", "max_registers", 1, MAX_COUNT, None)
    for row in rows:
        if row.length > max_registers:
            raise ConfigError("profile: max_registers is less than %s %s needs" % (row.quantity, row.part))
    even = table.get("even", False)
    if not isinstance(even, bool):
        raise ConfigError("profile: even must be true or false")
    gap_registers = _whole(table, "profile", "gap_registers", 0, MAX_COUNT, 0)
    return Profile(
        table["part"],
        table["maker"],
        _whole(table, "profile", "wait_ms", 1, 60000, 1000),
        _whole(table, "profile", "pause_ms", 0, 60000, 0),
        tuple(plan(rows, max_registers, gap_registers, even)),
    )


def plan(rows: "list[Row]", max_registers: int, gap_registers: int, even: bool) -> "list[Request]":
    """Return the fewest requests that read all `rows`, in the order in which to ask.

    gap_registers: at most so many registers that nobody wants are read along to save a request
    even: first register and count must be even
    """
    requests: list[Request] = []
    pending = sorted(rows, key=lambda row: (row.function, row.address))
    while pending:
        taken = 1
        while taken < len(pending) and _fits(pending[: taken + 1], max_registers, gap_registers, even):
            taken += 1
        request = _request(pending[:taken], even)
        full = taken < len(pending) and _fits(pending[: taken + 1], MAX_COUNT, gap_registers, even)
        if full and taken > 1 and requests and requests[-1].length == request.length:
            taken -= 1  # two full requests in a row would have answers of one length
            request = _request(pending[:taken], even)
        requests.append(request)
        pending = pending[taken:]
    return _apart(requests)


def _apart(requests: "list[Request]") -> "list[Request]":
    """Return `requests` so that neighbours differ in length where that can be.

    A late answer then never has the length of the one that is waited for.
    After a time-out the measurement ends, so the next question is the first
    one: it gets the rarest length.
    """
    left = list(requests)
    ordered: list[Request] = []
    while left:
        counts = [request.length for request in left]
        if ordered:
            others = [request for request in left if request.length != ordered[-1].length] or left
            chosen = max(others, key=lambda request: (counts.count(request.length), -request.address))
        else:
            chosen = min(left, key=lambda request: (counts.count(request.length), request.address))
        ordered.append(chosen)
        left.remove(chosen)
    return ordered


def _fits(rows: "list[Row]", max_registers: int, gap_registers: int, even: bool) -> bool:
    """Return whether one request may read all `rows`; only the last of them is new."""
    before, last = rows[-2], rows[-1]
    if last.function != before.function or last.address - (before.address + before.length) > gap_registers:
        return False
    return _request(rows, even).length <= max_registers


def _request(rows: "list[Row]", even: bool) -> Request:
    first = rows[0].address
    end = rows[-1].address + rows[-1].length
    if even:
        first -= first % 2
        end += end % 2
    return Request(rows[0].function, first, end - first, tuple(rows))


def _read_rows(table: "Mapping[str, Any]") -> "list[Row]":
    entries = table.get("registers")
    if not isinstance(entries, list) or not entries:
        raise ConfigError("profile: registers must list at least one row")
    rows = []
    names = []
    for index, entry in enumerate(entries):
        row = _read_row(table, entry, "profile: row %d" % (index + 1))
        if (row.quantity, row.part) in names:
            raise ConfigError("profile: row %d repeats %s %s" % (index + 1, row.quantity, row.part))
        names.append((row.quantity, row.part))
        rows.append(row)
    in_order = sorted(rows, key=lambda row: (row.function, row.address))
    for index in range(1, len(in_order)):
        before, row = in_order[index - 1], in_order[index]
        if row.function == before.function and row.address < before.address + before.length:
            raise ConfigError("profile: %s %s overlaps %s %s" % (row.quantity, row.part, before.quantity, before.part))
    return rows


def _read_row(table: "Mapping[str, Any]", entry: "Any", place: str) -> Row:
    if not isinstance(entry, dict):
        raise ConfigError("%s must be a table" % place)
    quantity, part = entry.get("quantity"), entry.get("part", "")
    if quantity not in QUANTITIES:
        raise ConfigError("%s: there is no quantity %r" % (place, quantity))
    place = "%s (%s %s)" % (place, quantity, part)
    for key in entry:
        if key not in ROW_KEYS and key not in DEFAULTS:
            raise ConfigError("%s: unknown key %s" % (place, key))
    if not isinstance(part, str) or len(part) > 8:
        raise ConfigError("%s: part must be a short text" % place)
    given = {}
    for key in DEFAULTS:
        given[key] = entry.get(key, table.get(key, DEFAULTS[key]))
    if given["function"] not in READS:
        raise ConfigError("%s: function must be 3 or 4" % place)
    if given["type"] not in TYPES:
        raise ConfigError("%s: type must be one of %s" % (place, ", ".join(sorted(TYPES))))
    if given["words"] not in WORD_ORDERS:
        raise ConfigError("%s: words must be one of %s" % (place, ", ".join(WORD_ORDERS)))
    size, kind = TYPES[given["type"]]
    if kind != FLOAT and "exponent" in entry:
        raise ConfigError("%s: exponent says where a float is rounded; a whole number has only a scale" % place)
    return Row(
        given["function"],
        _whole(entry, place, "address", 0, 65536 - size // 2, None),
        size // 2,
        kind,
        given["words"] == "low first",
        _absent(given["absent"], size, "absent" in entry, place),
        quantity,
        part,
        _whole(entry, place, "scale", -18, 18, 0),
        _whole(entry, place, "exponent", -18, 18, None) if kind == FLOAT else 0,
    )


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


def _whole(table: "Mapping[str, Any]", place: str, key: str, low: int, high: int, default: "int | None") -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError("%s: %s must be a whole number from %d to %d, not %r" % (place, key, low, high, value))
    return value
