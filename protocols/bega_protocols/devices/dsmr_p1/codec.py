"""The P1 port of electricity meters: telegrams of text -> numbers and texts.

Spec: P1 Companion Standard 5.0.2 (Netbeheer Nederland, 26-02-2016), sections
6.2 (telegram, check value), 6.4 (formats) and 6.12 (objects); 2.2 and 3.0 for
telegrams without check value and for 0-n:24.3.0; e-MUCS H 1.3 (Belgium) for
0-n:24.2.3. Lines are those of IEC 62056-21 mode D, codes those of OBIS.
No IO, no clock, no floats.
"""

from bega_protocols.checks import crc16_arc
from bega_protocols.dates import days, month_days
from bega_protocols.errors import ChecksumError, WireError
from bega_protocols.obis import electricity, is_digits, reading
from bega_protocols.reading import Reading

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

LINE_SIZE = 2100  # longest line that is read: a message of 1024 characters in hex; longer ones are only checked
PIECE_SIZE = 1024  # a chunk is cut up so that looking into what is left of it stays cheap
TELEGRAM_SIZE = 16384  # 96 lines, the longest profile known (Lithuania), are far below

NORMAL_TIME_UTC_MIN = 60  # Dutch stamps: W is UTC+1, S one hour more
NEVER = "70"  # the year of the stamp 700101010000W, which a meter gives before it was ever read

_TEXTS = {
    "1-3:0.2.8": "version",
    "0-0:96.1.4": "version",  # Belgium
    "0-0:1.0.0": "clock",
    "0-0:96.3.10": "breaker",
    "0-0:17.0.0": "limiter",
}
_HEX_TEXTS = {
    "0-0:96.1.1": "meter_id",
    "0-0:96.1.0": "meter_id",  # Hungary
    "0-0:42.0.0": "device_name",
    "0-0:96.13.1": "message_code",
    "0-0:96.13.0": "message",
}
_SINCE_V4 = ("1-3:0.2.8", "0-0:96.1.4", "0-0:1.0.0")  # whoever sends one of these sends a check value too

_ELECTRICITY = ("1-0", "1-1")  # Austria prints 1-1
MONTH_PEAK = "1.6.0"  # Belgium: highest quarter-hour mean of the running month, with its stamp
THIS_METER = 0  # among the channels of those behind it
_CHANNELS = {"0-1": 1, "0-2": 2, "0-3": 3, "0-4": 4}

# M-Bus device type (EN 13757-3), printed in decimal: what the meter behind counts
_MEDIA = {2: "active_energy_import", 3: "gas_volume", 4: "heat_energy", 7: "water_volume", 12: "heat_energy"}

if TYPE_CHECKING:
    from typing import NamedTuple

    class Stamped(NamedTuple):
        """What the meter on one M-Bus channel read at a time of its own, or THIS_METER itself."""

        channel: int
        unix_s: int
        readings: list[Reading]

else:
    from collections import namedtuple

    Stamped = namedtuple("Stamped", ("channel", "unix_s", "readings"))


class Telegrams:
    """Cuts telegrams from a stream and checks them, line by line: no line is too long, and none is kept.

    "/" begins a telegram and "!" ends one wherever they stand, since neither
    may occur inside (IEC 62056-21, data message), so damage reaches at most
    to the next "/". What stands between telegrams is skipped.
    """

    def __init__(self) -> None:
        self._waiting = b""
        self._offset = 0  # of the first waiting byte, counted from the start of the stream
        self._telegram: "Telegram | None" = None
        self._begun = 0  # offset of its "/"
        self._size = 0
        self._crc = 0
        self._long = False  # the line under way is too long to be read
        self._checked = ""  # identification of the last telegram whose check value was right

    def feed(self, chunk: bytes, damaged: "list[tuple[int, WireError]]") -> "list[Telegram]":
        """Return each telegram that `chunk` completes and that is whole; what is not goes to `damaged`.

        The errors carry no more than the last line: a telegram names a household's meters, and errors are logged.
        """
        whole: list[Telegram] = []
        for start in range(0, len(chunk), PIECE_SIZE):
            self._feed(chunk[start : start + PIECE_SIZE], whole, damaged)
        return whole

    def _feed(self, piece: bytes, whole: "list[Telegram]", damaged: "list[tuple[int, WireError]]") -> None:
        data = self._waiting + piece
        at = 0
        while at < len(data):
            if self._telegram is None:
                at = self._begin(data, at)
                continue
            end = self._piece_end(data, at)
            if end is None:
                break
            try:
                telegram = self._take(data[at:end], data[end : end + 1] == b"/")
                if telegram is not None:
                    whole.append(telegram)
            except WireError as error:
                damaged.append((self._begun, error))
                self._telegram = None
            at = end
        self._waiting = data[at:]
        self._offset += at

    def _begin(self, data: bytes, at: int) -> int:
        """Return where the next telegram begins, len(data) if none does."""
        at = data.find(b"/", at)
        if at < 0:
            return len(data)
        self._telegram = Telegram()
        self._begun = self._offset + at
        self._size = 0
        self._crc = 0
        self._long = False
        return at

    def _piece_end(self, data: bytes, at: int) -> "int | None":
        """Return where the line from `at` ends, or breaks off, or grows too long to wait for; None if it goes on."""
        stop = data.find(b"\n", at) + 1 or len(data)
        slash = data.find(b"/", at if self._size else at + 1, stop)
        if slash >= 0:
            stop = slash
        mark = data.find(b"!", at, stop)
        if mark >= 0:
            size = _check_size(data, mark + 1)
            return None if size is None else mark + 1 + size
        if slash >= 0 or data[stop - 1] == 0x0A or self._long or stop - at > LINE_SIZE:
            return stop
        return None

    def _take(self, piece: bytes, another_begins: bool) -> "Telegram | None":
        """Take a line, or what there is of one; return the telegram if this ends it and it was whole."""
        assert self._telegram is not None
        if b"!" in piece:
            return self._end(piece)
        if another_begins:
            raise WireError("P1 telegram breaks off")
        self._crc = crc16_arc(piece, self._crc)
        self._size += len(piece)
        if self._size > TELEGRAM_SIZE:
            raise WireError("P1 telegram does not end within %d bytes" % TELEGRAM_SIZE)
        too_long = self._long or len(piece) > LINE_SIZE
        self._long = too_long and piece[-1:] != b"\n"
        if not self._long:
            self._telegram.take(b"" if too_long else piece)
        return None

    def _end(self, line: bytes) -> "Telegram":
        """Return the telegram that `line` ("!" and what follows of its check value) ends."""
        telegram, self._telegram = self._telegram, None
        assert telegram is not None
        if self._long or line[:1] != b"!":
            raise WireError("P1 telegram ends inside a line")
        digits = line[1:].rstrip(b"\r\n")
        line_ended = len(digits) < len(line) - 1
        if not digits and line_ended:
            if telegram.since_v4 or telegram.identification == self._checked:
                raise WireError("P1 telegram has lost its check value", line)
            if telegram.garbled:
                raise WireError("P1 telegram without check value has a garbled line", line)
            return telegram
        if len(digits) < (3 if line_ended else 4):
            raise WireError("no check value behind the end of a P1 telegram", line)
        if int(digits, 16) != crc16_arc(b"!", self._crc):
            raise ChecksumError(
                "P1 check value differs" + ("" if telegram.has_cr else ": line ends are not CR LF"), line
            )
        self._checked = telegram.identification
        telegram.is_checked = True
        return telegram


class Telegram:
    """What the lines taken so far say; true only once the telegram has ended and was checked."""

    def __init__(self) -> None:
        self.identification = ""  # the first line, without its "/"
        self.readings: "list[Reading]" = []  # of the electricity meter itself, as it stands now
        self.attributes: "dict[str, str]" = {}
        self.since_v4 = False  # has a line that only meters with a check value send
        self.garbled = False  # has a line that is none of IEC 62056-21
        self.is_checked = False  # its check value was right
        self.has_cr = True  # some editors and version controls take the CR away, and the check value with it
        self._first = True
        self._seen: "set[tuple[str, str]]" = set()
        self._channels: "dict[int, _Channel]" = {}
        self._peak: "tuple[str, str] | None" = None  # stamp and value
        self._pending: "_Channel | None" = None  # its value stands on the next line

    def take(self, line: bytes) -> None:
        """Take one line with its end; what is unknown or makes no sense is passed over."""
        pending, self._pending = self._pending, None
        text = line.rstrip(b"\r\n")
        if self._first and line:
            self.has_cr = line[-2:] == b"\r\n"
        if not _is_printable(text):
            self.garbled = True
            text = b""
        self._take(text.decode(), pending)
        self._first = False

    def stamped(self, normal_time_utc_min: int = NORMAL_TIME_UTC_MIN) -> "list[Stamped]":
        """Return what has a stamp of its own: the highest demand of the month, and what each meter behind has read.

        The first channel of a medium has part '', a further one 'm' and its number: n is the order of
        installation, and an exchanged meter may come back on another. Electricity always has its number.
        """
        found = []
        if self._peak is not None:
            found += _stamped(THIS_METER, "active_demand_import_max", "", *self._peak, normal_time_utc_min)
        taken = {"active_energy_import"}
        for number in sorted(self._channels):
            channel = self._channels[number]
            quantity = _MEDIA.get(channel.medium)
            if quantity is None or channel.vacant:
                continue
            part = "m%d" % number if quantity in taken else ""
            taken.add(quantity)
            found += _stamped(number, quantity, part, channel.stamp, channel.value, normal_time_utc_min)
        return found

    def _take(self, text: str, pending: "_Channel | None") -> None:
        if self._first:
            self._identify(text)
            return
        if not text:
            return
        code, values = _split(text)
        if not values:
            self.garbled = True
            return
        if not code:
            if pending is not None:
                pending.value = values[0] + pending.value
            return
        group, _, register = code.partition(":")
        if code in _SINCE_V4:
            self.since_v4 = True
        if code in _TEXTS:
            self._text(_TEXTS[code], values[0])
        elif code in _HEX_TEXTS:
            self._text(_HEX_TEXTS[code], _from_hex(values[0]))
        elif code == "0-0:96.14.0":
            self._add("active_tariff", "", values[0])
        elif group in _ELECTRICITY:
            self._electricity(register, values)
        elif group in _CHANNELS:
            self._channel(_CHANNELS[group], register, values)

    def _identify(self, text: str) -> None:
        """IEC 62056-21, identification message: "/", three letters of the maker, a baud rate character, a name."""
        self.identification = text[1:]
        self.garbled = len(text) < 5 or not text[1:4].isalpha()
        self.attributes["identification"] = self.identification

    def _electricity(self, register: str, values: "list[str]") -> None:
        if register == MONTH_PEAK and len(values) == 2:
            self._peak = self._peak or (values[0], values[1])
            return
        known = electricity(register)
        if known is not None and len(values) == 1:
            self._add(known[0], known[1], values[0])

    def _channel(self, number: int, register: str, values: "list[str]") -> None:
        channel = self._channels.setdefault(number, _Channel())
        if register == "24.1.0":
            channel.medium = int(values[0]) if is_digits(values[0]) and len(values[0]) <= 3 else 0
        elif register in ("96.1.0", "96.1.1"):
            channel.vacant = not values[0]
            self._text("m%d_id" % number, _from_hex(values[0]))
        elif register == "24.4.0":
            self._text("m%d_valve" % number, values[0])
        elif register in ("24.2.1", "24.2.3") and len(values) == 2:
            channel.stamp, channel.value = values
        elif register == "24.3.0" and len(values) == 6 and values[3] in ("1", "01"):
            channel.stamp, channel.value = values[0], "*" + values[5]
            self._pending = channel

    def _add(self, quantity: str, part: str, value: str) -> None:
        found = reading(quantity, part, value)
        if found is not None and (quantity, part) not in self._seen:
            self._seen.add((quantity, part))
            self.readings.append(found)

    def _text(self, name: str, value: str) -> None:
        if value and name not in self.attributes:
            self.attributes[name] = value


class _Channel:
    """What the lines 0-n say, in whatever order they come."""

    def __init__(self) -> None:
        self.medium = 0
        self.vacant = False  # an empty id: no device there
        self.stamp = ""
        self.value = ""


def _stamped(
    number: int, quantity: str, part: str, stamp: str, value: str, normal_time_utc_min: int
) -> "list[Stamped]":
    """Return [what one register read at its stamp], [] if it was never read or makes no sense."""
    stamp_s = None if stamp.startswith(NEVER) else unix_s(stamp, normal_time_utc_min)
    found = reading(quantity, part, value)
    if stamp_s is None or found is None:
        return []
    return [Stamped(number, stamp_s, [found, Reading("measured_at", stamp_s, 0, part)])]


def unix_s(stamp: str, normal_time_utc_min: int = NORMAL_TIME_UTC_MIN) -> "int | None":
    """Return Unix seconds of a stamp YYMMDDhhmmss with S (summer time) or W; None if there is no such time.

    Without its letter (V2.2, V3) the European rule decides; the hour that comes twice is taken for summer time.
    """
    if len(stamp) not in (12, 13) or not is_digits(stamp[:12]) or stamp[12:] not in ("", "S", "W"):
        return None
    year, month, day, hour, minute, second = [int(stamp[at : at + 2]) for at in range(0, 12, 2)]
    year += 2000
    if not 1 <= month <= 12 or not 1 <= day <= month_days(year, month) or hour > 23 or minute > 59 or second > 59:
        return None
    normal_s = ((days(year, month, day) * 24 + hour) * 60 + minute - normal_time_utc_min) * 60 + second
    summer_s = normal_s - 3600
    if stamp[12:]:
        return summer_s if stamp[12:] == "S" else normal_s
    return summer_s if _last_sunday_s(year, 3) <= summer_s < _last_sunday_s(year, 10) else normal_s


def _last_sunday_s(year: int, month: int) -> int:
    """Return Unix seconds of 01:00 UTC of the last Sunday of a month of 31 days: Directive 2000/84/EC."""
    last = days(year, month, 31)
    return (last - (last + 4) % 7) * 86400 + 3600  # day 0 was a Thursday


def _check_size(data: bytes, at: int) -> "int | None":
    """Return how many bytes from `at` belong to the end of a telegram; None if that is not yet to be told.

    They are four hex digits, or fewer and the end of the line: one published telegram has three, V2.2 and V3 none.
    """
    for size in range(4):
        if at + size == len(data):
            return None
        if data[at + size] in b"\r\n":
            return size + 1
        if not _is_hex(data[at + size : at + size + 1]):
            return size
    return 4


def _split(line: str) -> "tuple[str, list[str]]":
    """Return the code and the texts in brackets behind it; no texts if the line has another shape."""
    start = line.find("(")
    if start < 0 or line[-1] != ")":
        return line, []
    values = line[start + 1 : -1].split(")(")
    if any("(" in value or ")" in value for value in values):
        return line, []
    return line[:start], values


def _from_hex(text: str) -> str:
    """Return the ASCII that ids and messages hide in hex (section 6.4, tag 9); any other text as it is."""
    if len(text) % 2 or not _is_hex(text.encode()):
        return text
    octets = bytes.fromhex(text)
    return octets.decode() if len(octets) > 1 and _is_printable(octets) else text


def _is_hex(text: bytes) -> bool:
    return all(byte in b"0123456789ABCDEFabcdef" for byte in text)


def _is_printable(text: bytes) -> bool:
    return all(0x20 <= byte <= 0x7E for byte in text)
