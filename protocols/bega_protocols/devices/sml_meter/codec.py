"""SML, the Smart Message Language of German electricity meters: bytes <-> numbers and texts.

Layout: README.md, "layout"; it is what open decoders agree on (libsml, and a
dump explained byte by byte by N. Menke), since BSI TR-03109-1 was not at hand.
Numbers are big-endian, check values low byte first. No IO, no clock, no floats.
"""

from collections import namedtuple

from bega_protocols.errors import ChecksumError, WireError
from bega_protocols.reading import SUSPECT, Reading

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

ESCAPE = b"\x1b\x1b\x1b\x1b"
HEAD = ESCAPE + b"\x01\x01\x01\x01"  # begins a file of version 1
FILE_END = 0x1A  # behind an escape; then the number of padding bytes and the check value
TAIL_SIZE = 8
FILE_SIZE = 4096  # bytes; a push of 30 values has 700
MOST_PADDING = 3

TEXT, BOOLEAN, SIGNED, UNSIGNED, LIST = 0, 4, 5, 6, 7  # bits 4 to 6 of a type-length byte
MORE_LENGTH = 0x80
LENGTH_BYTES = 3  # four bits of length in each: 4095 at most
DEPTH = 8  # a list of values in a message has its times at 6
END_OF_MESSAGE = ()
LONGEST_INTEGER = 8

GET_LIST_RESPONSE = 0x0701
MOST_SCALE = 9  # powers of ten
MOST_UNREAD = 16

WATT, WATT_HOUR, AMPERE, VOLT, HERTZ = 0x1B, 0x1E, 0x21, 0x23, 0x2C  # units of DLMS

# OBIS C, D, E of A-B = 1-0: (quantity, part, unit, exponent that turns it into the quantity's unit)
_REGISTERS = {
    (1, 8, 0): ("active_energy_import", "", WATT_HOUR, -3),
    (1, 8, 1): ("active_energy_import", "t1", WATT_HOUR, -3),
    (1, 8, 2): ("active_energy_import", "t2", WATT_HOUR, -3),
    (2, 8, 0): ("active_energy_export", "", WATT_HOUR, -3),
    (2, 8, 1): ("active_energy_export", "t1", WATT_HOUR, -3),
    (2, 8, 2): ("active_energy_export", "t2", WATT_HOUR, -3),
    (16, 7, 0): ("active_power", "", WATT, 0),
    (32, 7, 0): ("voltage", "l1", VOLT, 0),
    (52, 7, 0): ("voltage", "l2", VOLT, 0),
    (72, 7, 0): ("voltage", "l3", VOLT, 0),
    (31, 7, 0): ("current", "l1", AMPERE, 0),
    (51, 7, 0): ("current", "l2", AMPERE, 0),
    (71, 7, 0): ("current", "l3", AMPERE, 0),
    (14, 7, 0): ("frequency", "", HERTZ, 0),
}
_NEVER_NEGATIVE = ("active_energy_import", "active_energy_export")
_NOW = 0xFF  # OBIS F; other F are of the past

# DZG DVS74: its server ids and numbers, as DZG told libsml (pull request 136)
_DVS74_HEAD = b"\x0a\x01DZG\x00"
_DVS74_NUMBERS = ((42_000_000, 48_999_999), (55_000_000, 58_999_999))

_IDS = {  # OBIS: attribute, for what identifies the meter
    b"\x81\x81\xc7\x82\x03\xff": "maker",
    b"\x01\x00\x00\x00\x09\xff": "device_id",
    b"\x01\x00\x60\x01\x00\xff": "server_id",
}

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple

    class Push(NamedTuple):
        """What one file says."""

        readings: list[Reading]
        attributes: dict[str, str]

else:
    Push = namedtuple("Push", ("readings", "attributes"))


def size_of(so_far: bytes) -> "int | None":
    """Return the length of the file that begins here; None if its end has not come, 0 if it breaks off.

    Inside a file an escape is followed by itself, when it stands for data, or by the end.
    """
    blanked = so_far.replace(ESCAPE + ESCAPE, bytes(2 * len(ESCAPE)))
    at = blanked.find(ESCAPE, len(HEAD))
    if at < 0 or at + TAIL_SIZE > len(blanked):
        return None if len(so_far) < FILE_SIZE else 0
    return at + TAIL_SIZE if so_far[at + len(ESCAPE)] == FILE_END else 0


def decode(whole: bytes, check: "Callable[[bytes], int]") -> Push:
    """Return what a file says of the present; `check` computes its check value.

    The errors carry the place and no more: a file names a household's meter, and errors are logged.
    Raises WireError if this is no file, ChecksumError if it was one.
    """
    if len(whole) < len(HEAD) + TAIL_SIZE or whole[:8] != HEAD or whole[-8:-3] != ESCAPE + bytes((FILE_END,)):
        raise WireError("no SML file", whole[:8])
    if check(whole[:-2]) != whole[-2] | whole[-1] << 8:
        raise ChecksumError("SML check value differs", whole[-TAIL_SIZE:])
    padding = whole[-3]
    payload = whole[len(HEAD) : -TAIL_SIZE].replace(ESCAPE + ESCAPE, ESCAPE)
    end = len(payload) - padding
    if padding > MOST_PADDING or end < 0:
        raise WireError("SML file with %d bytes of padding" % padding, whole[-TAIL_SIZE:])
    push = Push([], {})
    at = 0
    while at < end:
        message, at = _item(payload, at, end, 0)
        _take(push, message)
    return push


def _item(data: bytes, at: int, end: int, depth: int) -> "tuple[Any, int]":
    """Return the item at `at` and where the next one begins.

    A list is a list, a text bytes, a number int; None stands for what is left out. Raises WireError.
    """
    start = at
    if at < end and data[at] == 0:
        return END_OF_MESSAGE, at + 1
    length = 0
    while True:
        if at == end or at - start == LENGTH_BYTES:
            raise WireError("SML length without end at byte %d" % start, data[start : start + 4])
        length = length << 4 | data[at] & 15
        at += 1
        if not data[at - 1] & MORE_LENGTH:
            break
    kind = data[start] >> 4 & 7
    if kind == LIST:
        return _list(data, at, end, depth, length)
    size = length - (at - start)
    if size < 0 or at + size > end:
        raise WireError("SML item is cut off at byte %d" % start, data[start : start + 4])
    return _scalar(kind, data[at : at + size], start), at + size


def _list(data: bytes, at: int, end: int, depth: int, count: int) -> "tuple[list[Any], int]":
    if depth == DEPTH:
        raise WireError("SML lists lie too deep at byte %d" % at, data[at : at + 4])
    items = []
    for _ in range(count):
        item, at = _item(data, at, end, depth + 1)
        items.append(item)
    return items, at


def _scalar(kind: int, octets: bytes, start: int) -> "bytes | int | bool | None":
    if kind == TEXT:
        return octets or None
    if kind == BOOLEAN and len(octets) == 1:
        return octets != b"\x00"
    if kind not in (SIGNED, UNSIGNED) or not 1 <= len(octets) <= LONGEST_INTEGER:
        raise WireError("no SML item at byte %d: type %d with %d bytes" % (start, kind, len(octets)))
    value = int.from_bytes(octets, "big")
    if kind == SIGNED and octets[0] & 0x80:
        value -= 1 << 8 * len(octets)
    return value


def _take(push: Push, message: "Any") -> None:
    """Add what a message says, if it is a list of values: transaction, group, abort, [tag, body], check value, end."""
    if type(message) is not list or len(message) != 6 or message[5] != END_OF_MESSAGE:
        raise WireError("no SML message")
    body = message[3]
    if type(body) is not list or len(body) != 2 or body[0] != GET_LIST_RESPONSE:
        return
    response = body[1]
    if type(response) is not list or len(response) != 7 or type(response[4]) is not list:
        raise WireError("no SML list of values")
    _identify(push, "server_id", response[1])
    for entry in response[4]:
        if type(entry) is list and len(entry) == 7 and type(entry[0]) is bytes and len(entry[0]) == 6:
            _entry(push, entry[0], entry[3], entry[4], entry[5])
    if _tags_unsigned_as_signed(response[1]):
        push.readings[:] = [_doubted(one) for one in push.readings]


def _entry(push: Push, obis: bytes, unit: "Any", scale: "Any", value: "Any") -> None:
    if obis in _IDS:
        _identify(push, _IDS[obis], value)
        return
    reading = _reading(obis, unit, scale, value)
    if reading is None:
        _note_unread(push, obis)
    elif not any(row[0] == reading[0] and row[3] == reading[3] for row in push.readings):
        push.readings.append(reading)


def _reading(obis: bytes, unit: "Any", scale: "Any", value: "Any") -> "Reading | None":
    if obis[:2] != b"\x01\x00" or obis[5] != _NOW or (obis[2], obis[3], obis[4]) not in _REGISTERS:
        return None
    quantity, part, its_unit, exp10 = _REGISTERS[obis[2], obis[3], obis[4]]
    if type(value) is not int or type(scale) is not int or unit != its_unit or abs(scale) > MOST_SCALE:
        return None
    if value < 0 and quantity in _NEVER_NEGATIVE:
        return None
    return Reading(quantity, value, exp10 + scale, part)


def _tags_unsigned_as_signed(server_id: "Any") -> bool:
    """Return whether a DZG DVS74 speaks: its 16.7.0 is unsigned in one to three bytes, and reads as negative."""
    if type(server_id) is not bytes or len(server_id) != 10 or server_id[:6] != _DVS74_HEAD:
        return False
    number = int.from_bytes(server_id[6:], "big")
    return any(first <= number <= last for first, last in _DVS74_NUMBERS)


def _doubted(one: Reading) -> Reading:
    """Return `one`, suspect if it is power whose sign cannot be told."""
    if one.quantity != "active_power" or one.value >= 0:
        return one
    return Reading(one.quantity, one.value, one.exp10, one.part, SUSPECT)


def _identify(push: Push, name: str, octets: "Any") -> None:
    """The maker is three letters, an id ten bytes whose meaning is the maker's: in hex, as the meter's label has it."""
    if type(octets) is not bytes or name in push.attributes:
        return
    is_text = name == "maker" and all(0x20 < octet < 0x7F for octet in octets)
    push.attributes[name] = octets.decode() if is_text else octets.hex().upper()


def _note_unread(push: Push, obis: bytes) -> None:
    """Tell which values are there and are not read, as people write them."""
    code = "%d-%d:%d.%d.%d*%d" % tuple(obis)
    codes = push.attributes["unread"].split() if "unread" in push.attributes else []
    if code not in codes and len(codes) < MOST_UNREAD:
        push.attributes["unread"] = " ".join(codes + [code])
