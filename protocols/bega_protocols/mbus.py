"""Wired M-Bus: frames, addresses and headers of telegrams, bytes <-> numbers.

Spec: EN 13757-2 (frames, control field, answer times), EN 13757-3 (control
information, headers, secondary addresses), and EN 1434-3 for the old fixed
data structure. What the records behind a header say is in mbus_records.py.
Multi-byte values come low byte first; the other order (CI 76 and 77) was seen
in no meter, and is refused. No IO, no clock, no floats.
"""

from collections import namedtuple

from bega_protocols.ask import Ask
from bega_protocols.checks import sum8
from bega_protocols.errors import ChecksumError, WireError
from bega_protocols.mbus_records import INSTANT, Record, Records, bcd, read_records

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from typing import NamedTuple

    class Frame(NamedTuple):
        """A control or long frame whose check value holds."""

        control: int
        address: int
        ci: int
        data: bytes

    class Header(NamedTuple):
        """Who speaks, and how it is.

        identification: eight digits, as text; "" where the header has none
        manufacturer: three letters, or ""; version and medium: None where the header has none
        signature: not zero where the records are enciphered
        """

        identification: str
        manufacturer: str
        version: int | None
        medium: int | None
        access: int
        status: int
        signature: int

    class Telegram(NamedTuple):
        """What a slave answers to a request for data."""

        address: int
        header: Header
        body: Records

else:
    Frame = namedtuple("Frame", ("control", "address", "ci", "data"))
    Header = namedtuple(
        "Header", ("identification", "manufacturer", "version", "medium", "access", "status", "signature")
    )
    Telegram = namedtuple("Telegram", ("address", "header", "body"))

ACK = b"\xe5"
SHORT, LONG, STOP = 0x10, 0x68, 0x16
HEAD = b"\x68"
LARGEST_FRAME = 261
MOST_SEARCHED = 4 * LARGEST_FRAME

# Control field: the master's, then the slave's.
SND_NKE = 0x40  # reset the link
SND_UD = 0x53
REQ_UD2 = 0x5B  # data, please
FCB = 0x20  # frame count bit: turned round when something new is wanted
RSP_UD = 0x08
RSP_MASK = 0xCF  # without ACD (20: alarm data wait) and DFC (10: the slave is busy)

SELECT = 0x52  # CI
ERROR, FIXED, VARIABLE, NO_HEADER, SHORT_HEADER = 0x70, 0x73, 0x72, 0x78, 0x7A

LAST_ADDRESS = 250  # of a meter; 0 is one that nobody has given an address
SELECTED = 253  # whoever is selected by its secondary address

LOW_BATTERY, PERMANENT_ERROR, TEMPORARY_ERROR = 0x04, 0x08, 0x10  # status bits

HEX_DIGITS = "0123456789ABCDEF"
BAUDS = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400)
BITS_A_CHARACTER = 11  # 8E1
ADAPTER_MS = 100  # a level converter, a USB adapter and an operating system, each a little

APPLICATION_ERRORS = {
    0: "unspecified",
    1: "request not known",
    2: "buffer too long",
    3: "too many records",
    4: "premature end of record",
    5: "more than 10 DIFE",
    6: "more than 10 VIFE",
    8: "busy",
    9: "too many readouts",
}
MEDIA = {
    0x00: "other",
    0x01: "oil",
    0x02: "electricity",
    0x03: "gas",
    0x04: "heat (outlet)",
    0x05: "steam",
    0x06: "hot water",
    0x07: "water",
    0x08: "heat cost allocator",
    0x09: "compressed air",
    0x0A: "cooling (outlet)",
    0x0B: "cooling (inlet)",
    0x0C: "heat (inlet)",
    0x0D: "heat and cooling",
    0x0E: "bus",
    0x0F: "unknown",
    0x14: "calorific value",
    0x15: "hot water above 90 degrees",
    0x16: "cold water",
    0x17: "dual water",
    0x18: "pressure",
    0x19: "A/D converter",
    0x1B: "room sensor",
    0x20: "breaker",
    0x21: "valve",
    0x28: "waste water",
    0x36: "radio converter",
    0x37: "radio converter",
}


def answer_ms(baud: int) -> int:
    """Return how long an answer may take to begin: 330 bit times and 50 ms, and what stands between us and the wire."""
    return -(-330 * 1000 // baud) + 50 + ADAPTER_MS


def idle_ms(baud: int) -> int:
    """Return how long the wire must rest before a question is put again: 33 bit times."""
    return -(-33 * 1000 // baud)


def longest_ms(baud: int) -> int:
    """Return how long the longest frame takes."""
    return -(-LARGEST_FRAME * BITS_A_CHARACTER * 1000 // baud)


def reset(address: int, baud: int) -> Ask:
    """Return the question that forgets the frame count bit, and the selection at SELECTED; the answer is ACK."""
    return _ask_ack(short_frame(SND_NKE, address), baud)


def select(mask: bytes, baud: int) -> Ask:
    """Return the question that selects whoever fits `mask` and nobody else; the answer is ACK."""
    return _ask_ack(long_frame(SND_UD, SELECTED, SELECT, mask), baud)


def request(address: int, count_bit: int, baud: int) -> Ask:
    """Return the question for data; with the count bit of last time it is for the same telegram once more."""
    write = short_frame(REQ_UD2 | (FCB if count_bit else 0), address)
    wait_ms = answer_ms(baud)
    gap_ms = idle_ms(baud) + ADAPTER_MS
    total_ms = wait_ms + longest_ms(baud) + gap_ms
    return Ask(write, wait_ms, has_frame, gap_ms=gap_ms, total_ms=total_ms, pause_ms=idle_ms(baud))


def _ask_ack(write: bytes, baud: int) -> Ask:
    return Ask(write, answer_ms(baud), len(ACK), pause_ms=idle_ms(baud))


def short_frame(control: int, address: int) -> bytes:
    """Return a frame that only asks or resets."""
    return bytes((SHORT, control, address, (control + address) & 0xFF, STOP))


def long_frame(control: int, address: int, ci: int, data: bytes = b"") -> bytes:
    """Return a frame with data, at most 252 bytes of it; without, it is a control frame."""
    body = bytes((control, address, ci)) + data
    return bytes((LONG, len(body), len(body), LONG)) + body + bytes((sum8(body), STOP))


def size_of(so_far: bytes) -> "int | None":
    """Return the length of the control or long frame that begins here. None: more bytes needed. 0: it is none."""
    if len(so_far) >= 3 and (so_far[1] != so_far[2] or so_far[1] < 3):
        return 0
    if len(so_far) < 4:
        return None
    return so_far[1] + 6 if so_far[3] == LONG else 0


def parse(frame: bytes) -> Frame:
    """Return what a control or long frame holds.

    Raises WireError if it is none, ChecksumError if only its check value differs.
    """
    if len(frame) < 9 or frame[0] != LONG or size_of(frame) != len(frame):
        raise WireError("no M-Bus frame", frame)
    if frame[-1] != STOP:
        raise WireError("M-Bus frame without its end", frame)
    if sum8(frame[4:-2]) != frame[-2]:
        raise ChecksumError("M-Bus check value differs", frame)
    return Frame(frame[4], frame[5], frame[6], frame[7:-2])


def frame_in(heard: bytes) -> "bytes | None":
    """Return the first frame in what was heard that is whole and whose check value holds, None if there is none.

    Noise may stand before it, and may pretend to be the beginning of a longer one. Only the end of what was heard is
    looked at, lest a babbling meter make this ever slower.
    """
    at = max(0, len(heard) - MOST_SEARCHED)
    while True:
        at = heard.find(HEAD, at)
        if at < 0:
            return None
        size = size_of(heard[at : at + 4]) or 0
        frame = heard[at : at + size]
        if size and len(frame) == size and frame[-1] == STOP and sum8(frame[4:-2]) == frame[-2]:
            return frame
        at += 1


def has_frame(so_far: bytes) -> bool:
    """Return whether a whole frame has come: for `Ask.read`."""
    return frame_in(so_far) is not None


def read_telegram(frame: bytes) -> Telegram:
    """Return the telegram in a frame that a slave sent.

    Damage inside the records is in `body.damage`: what stands before it is good, since the check value holds.
    Raises WireError if it is no answer with data, or tells of an error.
    """
    control, address, ci, data = parse(frame)
    if control & RSP_MASK != RSP_UD:
        raise WireError("not from a slave: control field %02X" % control, frame)
    if ci == ERROR:
        code = data[0] if data else 0
        raise WireError("the meter refuses: %s" % APPLICATION_ERRORS.get(code, "error %d" % code), frame)
    if ci == VARIABLE:
        if len(data) < 12:
            raise WireError("header cut off", frame)
        header = Header(
            identification(data), manufacturer(data[4:6]), data[6], data[7], data[8], data[9], data[10] | data[11] << 8
        )
        return Telegram(address, header, read_records(data[12:]))
    if ci == SHORT_HEADER:
        if len(data) < 4:
            raise WireError("header cut off", frame)
        header = Header("", "", None, None, data[0], data[1], data[2] | data[3] << 8)
        return Telegram(address, header, read_records(data[4:]))
    if ci == NO_HEADER:
        return Telegram(address, Header("", "", None, None, 0, 0, 0), read_records(data))
    if ci == FIXED:
        return Telegram(address, *_fixed(frame, data))
    raise WireError("control information %02X is not read" % ci, frame)


def identification(data: bytes) -> str:
    """Return the eight digits of an identification number, low byte first; hex digits where a meter sends such."""
    return "%02X%02X%02X%02X" % (data[3], data[2], data[1], data[0])


def manufacturer(code: bytes) -> str:
    """Return three letters: five bits each, the first one highest."""
    number = code[0] | code[1] << 8
    return "".join([chr(64 + (number >> shift & 31)) for shift in (10, 5, 0)])


def manufacturer_code(letters: str) -> bytes:
    """Return the two bytes of three capital letters; raises ValueError."""
    if len(letters) != 3 or not all("A" <= letter <= "Z" for letter in letters):
        raise ValueError("a manufacturer is three capital letters")
    number = 0
    for letter in letters:
        number = number << 5 | ord(letter) - 64
    return bytes((number & 0xFF, number >> 8))


def secondary_mask(text: str) -> bytes:
    """Return the eight bytes that select "12345678", or "12345678.KAM.1B.04" with manufacturer, version and medium.

    F in the place of a digit, "FFF" for the manufacturer and "FF" for version and medium stand for any. A to E are no
    digits, but some meters have them.
    Raises ValueError.
    """
    parts = text.upper().split(".")
    if len(parts) not in (1, 4):
        raise ValueError("a secondary address is 12345678, or 12345678.KAM.1B.04")
    digits, letters, version, medium = parts if len(parts) == 4 else (parts[0], "FFF", "FF", "FF")
    if len(digits) != 8 or not all(digit in HEX_DIGITS for digit in digits):
        raise ValueError("an identification number has eight digits; F stands for any")
    if not _is_hex_octet(version) or not _is_hex_octet(medium):
        raise ValueError("version and medium are two hex digits each; FF stands for any")
    code = b"\xff\xff" if letters == "FFF" else manufacturer_code(letters)
    octets = bytes([int(digits[at : at + 2], 16) for at in (6, 4, 2, 0)])
    return octets + code + bytes((int(version, 16), int(medium, 16)))


def selects(mask: bytes, header: Header) -> bool:
    """Return whether a slave with this header is one that `mask` selects."""
    if header.version is None or header.medium is None:
        return False
    own = header.identification
    wanted = identification(mask)
    if any(wanted[at] not in ("F", own[at]) for at in range(8)):
        return False
    if mask[4:6] != b"\xff\xff" and manufacturer(mask[4:6]) != header.manufacturer:
        return False
    return mask[6] in (0xFF, header.version) and mask[7] in (0xFF, header.medium)


def _is_hex_octet(text: str) -> bool:
    return len(text) == 2 and all(digit in HEX_DIGITS for digit in text)


# Units of the fixed data structure (EN 1434-3): (first code, meaning, unit, exponent of the first), nine codes each.
FIXED_UNITS = (
    (0x02, "energy", "Wh", 0),
    (0x0B, "energy", "J", 3),
    (0x14, "power", "W", 0),
    (0x1D, "power", "J/h", 3),
    (0x26, "volume", "m3", -6),
    (0x2F, "volume flow", "m3/h", -6),
)
FIXED_TEMPERATURE, FIXED_ALLOCATOR, FIXED_HISTORIC = 0x38, 0x39, 0x3E
FIXED_SIZE = 16
FIXED_NOTE = ("fixed structure",)
BINARY = 0x80  # status bit of the fixed structure: counters are binary, not decimal


def _fixed(frame: bytes, data: bytes) -> "tuple[Header, Records]":
    """Return the two counters of the fixed data structure, each with the note "fixed structure".

    Its units are known from one program alone, and no meter of that kind was seen: whoever reads them is warned.
    Its medium has four bits, two of them above each unit; the numbers up to 8 mean what they do elsewhere. Its status
    has other bits than the variable one, so none of them is passed on.
    """
    if len(data) != FIXED_SIZE:
        raise WireError("fixed data structure of %d bytes" % len(data), frame)
    medium = data[6] >> 6 | data[7] >> 4 & 0x0C
    header = Header(identification(data), "", None, medium if medium <= 8 else None, data[4], 0, 0)
    first = _counter(data[6], data[8:12], data[5], None)
    second = _counter(data[7], data[12:16], data[5], first)
    return header, Records([first, second], False, b"", None)


def _counter(code: int, octets: bytes, status: int, before: "Record | None") -> Record:
    """`before`: the first counter; the second may be its historic value, in its unit."""
    value = int.from_bytes(octets, "little") if status & BINARY else bcd(octets)
    code &= 0x3F
    if code == FIXED_HISTORIC and before:
        return Record(INSTANT, 1, 0, 0, before.meaning, before.unit, value, before.exp10, FIXED_NOTE, bytes((code,)))
    meaning, unit, exp10 = "", "", 0
    for first, row_meaning, row_unit, row_exp10 in FIXED_UNITS:
        if first <= code < first + 9:
            meaning, unit, exp10 = row_meaning, row_unit, row_exp10 + code - first
    if code == FIXED_ALLOCATOR:
        meaning = "cost allocator units"
    elif code == FIXED_TEMPERATURE:
        meaning, unit, exp10 = "temperature", "Cel", -3
    return Record(INSTANT, 0, 0, 0, meaning, unit, value, exp10, FIXED_NOTE, bytes((code,)))
