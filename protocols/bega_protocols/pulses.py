"""Pulses of a meter: which closings of its contact are one, what they add up to, how they are kept.

Spec: IEC 62053-31:1998 (S0), section 4.1.3: a pulse lasts 30 ms at least, and
so does the pause behind it; the contact changes, its bouncing included, in
less than 5 ms. No IO, no clock; the total is a whole number of pulses.
"""

from bega_protocols.checks import crc32
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import Reading, decimal_text, parse_decimal
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Settings

SHORTEST_MS = 20  # of what is a pulse, and of a pause: the paper's 30, less a bouncing contact's 5 at either end
LATE_MS = 10  # an interrupt may be heard so long after its closing
DOUBT_MS = 600000  # a contact that has bounced or caught noise is believed only what was seen, for so long
MOST_PLACES = 6  # of a weight that no decimal number is, as 1/375 kWh: its total is rounded down
# quantity: what the pulses come to in time, its exponent, and that for one unit in an hour
RATES = {
    "active_energy_import": ("active_power", 0, 1000),
    "active_energy_export": ("active_power", 0, -1000),
    "active_energy_total": ("active_power", 0, 1000),
    "water_volume": ("volume_flow", -3, 1000),
    "gas_volume": ("volume_flow", -3, 1000),
    "volume": ("volume_flow", -3, 1000),
    "count": ("", 0, 0),
}
CONTACTS = ("switch", "reed")
# how a meter's label says what a pulse is: what such a meter usually counts, and whether it is so many a unit
WEIGHTS = {
    "pulses_per_kwh": ("active_energy_import", True),
    "pulses_per_m3": ("water_volume", True),
    "litres_per_pulse": ("water_volume", False),
}


class Contact:
    """Tells pulses from bouncing and noise. `look` may come late: then what can have been a pulse is one.

    A counter in hardware knows how often the contact closed meanwhile, and not for how long. Of a contact that
    bounces (a reed, or any that was caught at it) only those pulses are believed then that were seen to last.
    """

    def __init__(self, shortest_ms: int, is_reed: bool, now_ms: int, is_closed: bool) -> None:
        """A contact that is closed at the start has closed before it: that pulse was counted, or missed, then."""
        self.noise = 0  # closings that were none
        self._shortest_ms = shortest_ms
        self._is_reed = is_reed
        self._doubt_ms = now_ms  # until when
        self._seen_ms = now_ms
        self._was_closed = is_closed
        self._closed_ms = now_ms if is_closed else now_ms - shortest_ms  # it may have been open since then
        self._began_ms = -1  # what may become a pulse began after this; -1: nothing may
        self._first_ms = -1  # it was seen closed, and has not opened since; -1: not seen yet
        self._is_counted = is_closed  # what it closed for last

    def is_quiet(self) -> bool:
        """Return whether there is nothing to be looked at before the next closing."""
        return not self._was_closed and self._began_ms < 0 and self._seen_ms - self._closed_ms >= self._shortest_ms

    def rest(self, now_ms: int) -> None:
        """It is quiet, open, and has not closed since the last look or rest: nothing can have begun before this."""
        self._seen_ms = now_ms

    def look(self, now_ms: int, closings: int, is_closed: bool) -> int:
        """Return how many pulses there were; `closings`: how often it closed since the last look."""
        if is_closed and not closings and not self._was_closed:
            closings = 1  # nobody counts here, and its interrupt was lost
        pulses = self._took(now_ms, closings) if closings else 0
        if is_closed:
            pulses += self._lasts(now_ms)
        elif self._began_ms >= 0:
            pulses += self._ended(now_ms)
        if is_closed:
            self._closed_ms = now_ms
        elif closings or (self._was_closed and self._is_doubted(now_ms)):
            self._closed_ms = max(self._closed_ms, self._seen_ms)
        self._was_closed = is_closed
        self._seen_ms = now_ms
        return pulses

    def _took(self, now_ms: int, closings: int) -> int:
        """It has closed since the last look: return how many pulses were over before the last closing."""
        pulses = 0
        if closings > 1 + (now_ms - self._seen_ms + LATE_MS) // (3 * self._shortest_ms):
            self._doubt(now_ms, closings - 1)
            closings = 1
        if self._began_ms >= 0:
            if now_ms - self._began_ms >= 2 * self._shortest_ms and not self._is_doubted(now_ms):
                pulses = 1
            else:
                self._doubt(now_ms, 1)
        elif self._is_counted and now_ms - self._closed_ms < self._shortest_ms:
            self._doubt(now_ms, 1)  # the pulse that was counted bounces at its end
            return 0
        if not self._is_doubted(now_ms):
            pulses += closings - 1
        self._began_ms = self._seen_ms
        self._first_ms = -1
        return pulses

    def _lasts(self, now_ms: int) -> int:
        if self._began_ms < 0:
            return 0
        if self._first_ms < 0:
            self._first_ms = now_ms
        if now_ms - self._first_ms < self._shortest_ms:
            return 0
        self._began_ms = -1
        self._is_counted = True
        return 1

    def _ended(self, now_ms: int) -> int:
        if self._is_doubted(now_ms):  # three quarters: a look comes late at either end
            is_pulse = self._first_ms >= 0 and 4 * (self._seen_ms - self._first_ms) >= 3 * self._shortest_ms
        else:
            is_pulse = now_ms - self._began_ms >= self._shortest_ms
        self._began_ms = -1
        self._is_counted = is_pulse
        if not is_pulse:
            self._doubt(now_ms, 1)
        return int(is_pulse)

    def _is_doubted(self, now_ms: int) -> bool:
        return self._is_reed or now_ms < self._doubt_ms

    def _doubt(self, now_ms: int, closings: int) -> None:
        self.noise += closings
        self._doubt_ms = now_ms + DOUBT_MS


class Total:
    """What the meter shows: a reading at which somebody set it, and the pulses since.

    A pulse weighs num/den of the quantity's unit. `series` is the boot in which it began, or was set.
    """

    def __init__(
        self, quantity: str, num: int, den: int, value: int = 0, exp10: int = 0, since: int = 0, series: int = 0
    ) -> None:
        self.quantity = quantity
        self.since = since
        self.series = series
        self._num = num
        self._den = den
        self._set_to = (value, exp10)

    def add(self, pulses: int) -> None:
        """Count so many more."""
        self.since += pulses

    def set(self, value: int, exp10: int) -> None:
        """Let it show value x 10^exp10 now."""
        self._set_to = (value, exp10)
        self.since = 0

    def shows(self) -> "tuple[int, int]":
        """Return (value, exp10): never less than before, however often it is asked."""
        value, exp10 = self._set_to
        places = max(_places(self._num, self._den), -exp10)
        return value * 10 ** (exp10 + places) + self.since * self._num * 10**places // self._den, -places

    def rate(self, pulses: int, span_ms: int) -> "Reading | None":
        """Return what so many pulses in that time come to: W or m3/h, rounded; None for a count."""
        quantity, exp10, hourly = RATES[self.quantity]
        if not quantity:
            return None
        in_hour = abs(hourly) * 3600000 * pulses * self._num
        rounded = (2 * in_hour + self._den * span_ms) // (2 * self._den * span_ms)
        return Reading(quantity, rounded if hourly > 0 else -rounded, exp10)

    def weighs_as(self, other: "Total") -> bool:
        """Return whether a pulse is the same to both."""
        return self.quantity == other.quantity and self._num * other._den == other._num * self._den

    def pack(self, number: int) -> bytes:
        """Return it as text with a check value; `number` rises with each copy that is written."""
        value, exp10 = self._set_to
        numbers = (number, self._num, self._den, value, exp10, self.since, self.series)
        text = " ".join([str(one) for one in numbers] + [self.quantity]).encode()
        return text + b" %08x" % crc32(text)


def unpack(octets: bytes) -> "tuple[int, Total]":
    """Return (number, total) of a copy that `pack` made; raises WireError if it is damaged."""
    text, _, check = octets.rpartition(b" ")
    try:
        if check != b"%08x" % crc32(text):
            raise ValueError
        *numbers, quantity = text.decode().split(" ")
        number, num, den, value, exp10, since, series = [int(one) for one in numbers]
        return number, Total(quantity, num, den, value, exp10, since, series)
    except (ValueError, UnicodeError):
        raise WireError("no pulse total", octets[:100])


def newest(copies: "list[bytes]") -> "tuple[int, Total | None]":
    """Return the copy that was written last and is whole; (0, None) if there is none."""
    found: tuple[int, Total | None] = (0, None)
    for copy in copies:
        try:
            number, total = unpack(copy)
        except WireError:
            continue
        if number > found[0]:
            found = (number, total)
    return found


def read_settings(settings: "Settings") -> "tuple[Total, int, bool]":
    """Return (a total that shows `start`, shortest pulse in ms, whether it is a reed contact). Raises ConfigError.

    pulses_per_kwh, pulses_per_m3 or litres_per_pulse: one of them, none for a plain `count`; quantity, where it is not
    active_energy_import or water_volume; start: what the meter shows, as text; contact: "switch" or "reed".
    """
    only(settings, "quantity", "start", "contact", "shortest_ms", *WEIGHTS)
    named = [key for key in WEIGHTS if key in settings]
    if len(named) > 1:
        raise ConfigError("give one of %s" % " and ".join(named))
    usual, num, den = "count", 1, 1
    if named:
        usual, is_per_unit = WEIGHTS[named[0]]
        number = whole_number(settings, named[0], 1, 1000000)
        num, den = (1, number) if is_per_unit else (number, 1000)
    quantity = settings.get("quantity", usual)
    kind = "energy" if "energy" in usual else usual.split("_")[-1]
    fits = [name for name in RATES if kind in name]
    if quantity not in fits:
        raise ConfigError("quantity must be one of %s, not %r" % (", ".join(fits), quantity))
    if settings.get("contact", CONTACTS[0]) not in CONTACTS:
        raise ConfigError("contact must be one of %s" % ", ".join(CONTACTS))
    total = Total(quantity, num, den)
    total.set(*read_total(settings.get("start", "0")))
    shortest_ms = whole_number(settings, "shortest_ms", 5, 1000, SHORTEST_MS)
    return total, shortest_ms, settings.get("contact") == "reed"


def read_total(text: object) -> "tuple[int, int]":
    """Return (value, exp10) of what a meter shows, as a person types it: "123456.789". Raises ConfigError."""
    try:
        if not isinstance(text, str):
            raise ValueError
        value, exp10 = parse_decimal(text)
    except ValueError:
        raise ConfigError('a total is digits in quotes, as "123456.789", not %r' % (text,))
    if not 0 <= value < 10**15 or not -9 <= exp10 <= 0:
        raise ConfigError("no meter shows %s" % decimal_text(value, exp10))
    return value, exp10


def _places(num: int, den: int) -> int:
    """Return how many decimal places a pulse's weight has, MOST_PLACES if they never end."""
    for places in range(MOST_PLACES):
        if num * 10**places % den == 0:
            return places
    return MOST_PLACES
