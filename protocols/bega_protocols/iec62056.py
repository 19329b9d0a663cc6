"""IEC 62056-21, direct local data exchange: seven-bit characters <-> identification and data lines.

Spec: IEC 62056-21:2002, modes A and C, as three open readers agree on them
(pwitab/iec62056-21, volkszaehler/vzlogger, the notes of lvzon): the standard
itself is not public. Where they disagree, mode B's letters, nothing is read.
P1 telegrams are its mode D, with lines of the same shape and a CRC of their own
(devices/dsmr_p1). No IO, no clock, no floats.
"""

from bega_protocols.checks import xor8
from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

STX, ETX, ACK, LF, SLASH = 0x02, 0x03, 0x06, 0x0A, 0x2F
BAUDS = (300, 600, 1200, 2400, 4800, 9600, 19200)  # mode C: by the baud rate character "0" to "6"
READOUT_SIZE = 65536  # fifteen months of thirty registers are 11 KiB
NAME_SIZE = 48  # "XXXZ", "\W", 16 characters and CR LF are 24; some names are longer
NEVER_SENT = 0x7F  # stands for a character whose parity was wrong: no message holds it

PIECE_SIZE = 1024  # a chunk is cut up so that looking into what is left of it stays cheap

_HEAD_SIZE = 512  # an identification is looked for in the beginning of an answer, behind noise and an echo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple

    class Identification(NamedTuple):
        """What a meter says of itself: `text` is the line ("ISK5MT382-1000"), `speed` its baud rate character."""

        text: str
        speed: str
        end: int  # where the line ends, in what it was found in

    class Readout(NamedTuple):
        """One data message: `text` is its lines without the end mark, `name` the identification before it, or ''."""

        name: str
        text: str

else:
    from collections import namedtuple

    Identification = namedtuple("Identification", ("text", "speed", "end"))
    Readout = namedtuple("Readout", ("name", "text"))


def request(address: str = "") -> bytes:
    """Return the request message; with an `address` only the meter that has it answers."""
    return b"/?" + address.encode() + b"!\r\n"


def acknowledgement(speed: str) -> bytes:
    """Return ACK V Z Y: normal protocol, this baud rate character, data readout."""
    return bytes((ACK,)) + b"0" + speed.encode() + b"0\r\n"


def with_even_parity(octets: bytes) -> bytes:
    """Return seven-bit `octets` with the parity bit that a 7E1 wire carries, for a port that is open as 8N1."""
    return bytes(octet | _odd(octet) << 7 for octet in octets)


def seven_bits(octets: bytes, has_parity: bool = False) -> bytes:
    """Return `octets` without bit 7; with `has_parity` that bit is checked, and a wrong one gives NEVER_SENT."""
    if not has_parity:
        return bytes(octet & 0x7F for octet in octets)
    return bytes(octet & 0x7F if _odd(octet & 0x7F) == octet >> 7 else NEVER_SENT for octet in octets)


def characters(octets: bytes, has_parity: bool = False) -> bytes:
    """Return the characters of a message. Bit 7 is clear in all of them, or the even parity of each.

    A port that is open as 7E1 gives the first, one that is open as 8N1 the second; `has_parity` takes only that.
    Raises WireError if it is neither: something was hit on the wire.
    """
    plain = seven_bits(octets)
    if octets == plain and not has_parity:
        return plain
    if octets != with_even_parity(plain):
        raise WireError("parity of an IEC 62056-21 data message differs")
    return plain


def identification(octets: bytes) -> "Identification | None":
    """Return the first whole identification in the answer to a request; None if there is none (yet).

    What stands before it is noise, or an optical head that hears itself: an echo of the request is passed over.
    """
    head = seven_bits(octets[:_HEAD_SIZE])
    at = head.find(b"/")
    while at >= 0:
        end = head.find(b"\n", at) + 1
        text = _name(head[at + 1 : end])
        if end and text:
            return Identification(text, text[3], end)
        at = head.find(b"/", at + 1)
    return None


def readout_ends(octets: bytes, start: int, has_check: bool) -> bool:
    """Return whether a data message that begins at or behind `start` is whole.

    Fast, since it is asked after each piece: ETX and "!" have an even number of ones, so a parity bit changes neither.
    """
    text = octets.find(b"\x02", start)
    if text < 0:
        text = octets.find(b"\x82", start)
    if text >= 0:
        return 0 <= octets.find(b"\x03", text) < len(octets) - 1
    end = octets.find(b"!", start)
    return not has_check and 0 <= end < len(octets) - 2


def data_lines(text: str) -> "Iterator[tuple[str, list[str]]]":
    """Yield (code, values) of each data set, in the order of the message: "1.8.0(1*kWh)" gives ("1.8.0", ["1*kWh"]).

    A line may hold several sets, a set several values. A rest of a line that has another shape is ("", [rest]).
    """
    for line in text.split("\n"):
        line = line.rstrip("\r")
        at = 0
        while at < len(line):
            code, values, at = _data_set(line, at)
            yield code, values


class Readouts:
    """Cuts data messages from a stream that may begin, break and lie anywhere.

    STX begins one and "!" CR LF ETX and a right check character end it; what
    stands between them is skipped, but for the identifications. A message that
    another STX, or a line that begins with "/", cuts short is damage, and so is
    one that does not end; the stream goes on.
    """

    def __init__(self, has_check: bool = True, has_parity: bool = False) -> None:
        """Without `has_check`, lines that follow an identification at once are a message too, up to "!" CR LF."""
        self._has_check = has_check
        self._has_parity = has_parity
        self._state = _IDLE
        self._part = bytearray()
        self._begun = 0  # offset of what is under way
        self._offset = 0  # of the chunk, counted from the start of the stream
        self.name = ""  # of the meter that spoke last

    def expect(self, name: str) -> None:
        """Be told what feed() would have heard: a meter has named itself, and its readout is what follows."""
        self.name = name
        self._part = bytearray()
        self._state = _IDLE if self._has_check else _PLAIN

    def feed(self, chunk: bytes, damaged: "list[tuple[int, WireError]]") -> "list[Readout]":
        """Return each message that `chunk` completes and that is whole; what is not goes to `damaged`.

        The errors hold no more than the check character: a message names a household's meter, and errors are logged.
        """
        found: list[Readout] = []
        for start in range(0, len(chunk), PIECE_SIZE):
            raw = chunk[start : start + PIECE_SIZE]
            self._feed(raw, seven_bits(raw), found, damaged)
            self._offset += len(raw)
        return found

    def missing(self) -> str:
        """Return what the message under way lacks; of several exchanges, what the last one lacks."""
        return _MISSING[self._state]

    def _feed(self, raw: bytes, data: bytes, found: "list[Readout]", damaged: "list[tuple[int, WireError]]") -> None:
        """`data` is `raw` without bit 7: marks are looked for in it, and what is kept keeps its parity."""
        at = 0
        while at < len(data):
            try:
                at = self._step(raw, data, at, found, damaged)
            except WireError as error:
                damaged.append((self._begun, error))
                self._state = _IDLE
                if data[at] not in _MARKS:
                    at += 1

    def _step(
        self, raw: bytes, data: bytes, at: int, found: "list[Readout]", damaged: "list[tuple[int, WireError]]"
    ) -> int:
        """Take what the state makes of `data` from `at`; return where the next step begins."""
        if self._state == _IDLE:
            return self._begin(data, _first(data, at, _MARKS))
        if self._state == _NAMED:
            return self._take_name(data, at)
        if self._state == _CHECKED:
            return self._take_checked(raw, data, at, damaged)
        if self._state == _ENDED:
            self._part.append(raw[at])
            found.append(self._checked())
            return at + 1
        return self._take_plain(raw, data, at, found)

    def _begin(self, data: bytes, at: int) -> int:
        """Begin what the mark at `at` begins, nothing if `data` ends there; return where it goes on."""
        if at == len(data):
            return at
        self._begun = self._offset + at
        self._part = bytearray()
        self._state = _CHECKED if data[at] == STX else _NAMED
        return at + 1

    def _take_name(self, data: bytes, at: int) -> int:
        end = _first(data, at, b"/\x02\n")
        self._part.extend(data[at:end])
        if len(self._part) > NAME_SIZE:
            self._state = _IDLE
            return end
        if end == len(data) or data[end] != LF:
            return self._begin(data, end)
        self._state = _IDLE
        text = _name(bytes(self._part))
        if text:
            self.expect(text)
        return end + 1

    def _take_checked(self, raw: bytes, data: bytes, at: int, damaged: "list[tuple[int, WireError]]") -> int:
        end = _first(data, at, b"/\x02\x03")
        self._grow(raw[at:end])
        if end == len(data):
            return end
        if data[end] == STX or (data[end] == SLASH and self._part[-1:] in _LINE_BEGINS):
            if len(self._part) >= _LEAST_SIZE:
                damaged.append((self._begun, WireError("IEC 62056-21 data message breaks off")))
            return self._begin(data, end)
        self._part.append(raw[end])  # ETX, or a "/": some meters have it in their codes
        if data[end] == ETX:
            self._state = _ENDED if len(self._part) >= _LEAST_SIZE else _IDLE
        return end + 1

    def _checked(self) -> Readout:
        self._state = _IDLE
        part = characters(bytes(self._part), self._has_parity)
        if xor8(part):  # of the message and its check character
            raise ChecksumError("IEC 62056-21 check character differs", part[-1:])
        if part[-5:-1] != b"!\r\n\x03":
            raise WireError("IEC 62056-21 data message has no end mark")
        return Readout(self.name, _printable(part[:-5]))

    def _take_plain(self, raw: bytes, data: bytes, at: int, found: "list[Readout]") -> int:
        end = _first(data, at, b"/\x02\n")
        self._grow(raw[at:end])
        if end == len(data) or data[end] != LF:
            return self._begin(data, end)
        self._part.append(raw[end])
        if seven_bits(bytes(self._part[-4:])) in (b"\n!\r\n", b"!\r\n"):
            self._state = _IDLE
            found.append(self._plain())
        return end + 1

    def _plain(self) -> Readout:
        """Without a check character the shape of the lines is all that can be checked."""
        text = _printable(characters(bytes(self._part), self._has_parity)[:-3])
        for code, _ in data_lines(text):
            if not code:
                raise WireError("IEC 62056-21 data message without check character has a garbled line")
        return Readout(self.name, text)

    def _grow(self, octets: bytes) -> None:
        self._part.extend(octets)
        if len(self._part) > READOUT_SIZE:
            raise WireError("IEC 62056-21 data message does not end within %d bytes" % READOUT_SIZE)


_LEAST_SIZE = 4  # "!" CR LF ETX: what is shorter is noise that looks like a beginning
_LINE_BEGINS = (bytearray(), bytearray(b"\n"))  # behind these
_MARKS = b"/\x02"  # what begins an identification, and a data message
_IDLE, _NAMED, _CHECKED, _ENDED, _PLAIN = range(5)  # between messages, in an identification, behind STX, ETX, a name
_MISSING = ("a data message", "the end of the identification", "its end", "its check character", "its end mark")


def _name(line: bytes) -> str:
    """Return an identification without its "/" and line end; '' if `line` is none: three letters, then a character."""
    text = line.rstrip(b"\r\n")
    letters = all(0x41 <= octet & 0x5F <= 0x5A for octet in text[:3])
    if len(text) < 4 or len(line) > NAME_SIZE or not letters or not all(0x20 <= octet <= 0x7E for octet in text):
        return ""
    return text.decode()


def _data_set(line: str, at: int) -> "tuple[str, list[str], int]":
    """Return (code, values, where the next set begins) of the set that begins at `at`; ("", [rest], end) if none."""
    opening = line.find("(", at)
    code = line[at:opening]
    values: list[str] = []
    end = opening
    while opening > at and line[end : end + 1] == "(":
        closing = line.find(")", end)
        value = line[end + 1 : closing]
        if closing < 0 or "(" in value:
            return "", [line[at:]], len(line)
        values.append(value)
        end = closing + 1
    if not values or ")" in code or not code.strip():
        return "", [line[at:]], len(line)
    return code, values, end


def _printable(octets: bytes) -> str:
    """Return `octets` as text; what no data line may hold becomes "(", which makes a line garbled."""
    return bytes(octet if 0x20 <= octet <= 0x7E or octet in b"\r\n" else 0x28 for octet in octets).decode()


def _first(data: bytes, at: int, marks: bytes) -> int:
    """Return where the first of `marks` stands from `at` on, len(data) if none does."""
    end = len(data)
    for mark in marks:
        found = data.find(bytes((mark,)), at, end)
        if found >= 0:
            end = found
    return end


def _odd(octet: int) -> int:
    """Return 1 if `octet` has an odd number of ones, else 0."""
    octet ^= octet >> 4
    octet ^= octet >> 2
    return (octet ^ octet >> 1) & 1
