"""Who is on an M-Bus: a search by primary address, and one by secondary address that finds meters which share one.

Spec: EN 13757-3, selection with wildcards. Each search has `asks()`, a
generator that yields an Ask and is sent its answer, as a driver's `measure` is; what
it found so far, and how far it is, can be read at any time. No IO, no clock.
"""

from collections import namedtuple

from bega_protocols.errors import WireError
from bega_protocols.mbus import (
    ACK,
    LAST_ADDRESS,
    SELECTED,
    frame_in,
    read_telegram,
    request,
    reset,
    secondary_mask,
    select,
    selects,
)

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import NamedTuple

    from bega_protocols.ask import Ask
    from bega_protocols.mbus import Header

    Search = Generator[Ask, bytes | None, None]
    Found = Generator[Ask, bytes | None, "Identity | None"]

    class Identity(NamedTuple):
        """One meter. `primary` is the address that it gives for itself, None where it is not known.

        Where the header names nobody (CI 78, 7A, fixed structure), the fields are "" and None.
        """

        identification: str
        manufacturer: str
        version: int | None
        medium: int | None
        primary: int | None

else:
    Identity = namedtuple("Identity", ("identification", "manufacturer", "version", "medium", "primary"))

ATTEMPTS = 2  # of each question that got an answer before, or noise
DIGITS = 8
MOST_SELECTIONS = 3000  # ten to twelve for each meter are usual; noise that answers everything would take for ever


def secondary_text(identity: Identity) -> str:
    """Return the whole secondary address, "12345678.KAM.1B.04", with wildcards for what the meter does not tell."""
    letters = identity.manufacturer
    if len(letters) != 3 or not all("A" <= letter <= "Z" for letter in letters):
        letters = "FFF"
    version = "FF" if identity.version is None else "%02X" % identity.version
    medium = "FF" if identity.medium is None else "%02X" % identity.medium
    return ".".join((identity.identification, letters, version, medium))


class PrimarySearch:
    """Asks each primary address in turn.

    found: meters; collisions: addresses at which more than one answers, or noise does; done and total: addresses
    """

    def __init__(self, baud: int, first: int = 0, last: int = LAST_ADDRESS) -> None:
        """0 is the address of meters that nobody has given one: two of them are a collision."""
        self._baud = baud
        self._first, self._last = first, last
        self.found: list[Identity] = []
        self.collisions: list[int] = []
        self.done = 0
        self.total = last - first + 1

    def asks(self) -> "Search":
        """Reset each link; who acknowledges, is asked for data."""
        for address in range(self._first, self._last + 1):
            answer = yield reset(address, self._baud)
            if answer is not None:
                yield from self._look(address)
            self.done += 1

    def _look(self, address: int) -> "Search":
        identity = yield from _asked_for_data(address, self._baud, None)
        if identity is None:
            self.collisions.append(address)
        else:
            self.found.append(identity)


class SecondarySearch:
    """Narrows a wildcard digit by digit, wherever more than one answers.

    That more than one did is seen by what they destroy. Two telegrams of which one has a 1 only where the other has one
    too are heard as that one, and its meter hides the other: the sums of two different telegrams make that unlikely.

    found: meters
    collisions: masks with all digits given at which still more than one answers, or a meter that sends no data
    at: the mask that is tried now; done and total: selections made, and at most allowed
    complete: whether all was searched; False too when noise used up all selections
    """

    def __init__(self, baud: int) -> None:
        self._baud = baud
        self.found: list[Identity] = []
        self.collisions: list[str] = []
        self.at = ""
        self.done = 0
        self.total = MOST_SELECTIONS
        self.complete = False

    def asks(self) -> "Search":
        """Try FFFFFFFF, and narrow while it is needed; at the end nobody is selected."""
        waiting = [""]
        while waiting and self.done < self.total:
            digits = waiting.pop()
            self.at = digits + "F" * (DIGITS - len(digits))
            mask = secondary_mask(self.at)
            self.done += 1
            answer = yield select(mask, self._baud)
            if answer is None:
                continue
            identity = None
            if answer == ACK:
                identity = yield from _asked_for_data(SELECTED, self._baud, mask)
            if identity:
                self.found.append(identity)
            elif len(digits) < DIGITS:
                waiting += [digits + digit for digit in "9876543210"]
            else:
                self.collisions.append(self.at)
        self.complete = not waiting
        yield reset(SELECTED, self._baud)


def _asked_for_data(address: int, baud: int, mask: "bytes | None") -> "Found":
    """Return who answers alone with a good telegram, None if nobody does, or several do."""
    for _ in range(ATTEMPTS):
        heard = yield request(address, 1, baud)
        identity = _identity(heard, address, mask)
        if identity:
            return identity
    return None


def _identity(heard: "bytes | None", address: int, mask: "bytes | None") -> "Identity | None":
    frame = frame_in(heard or b"")
    if frame is None:
        return None
    try:
        telegram = read_telegram(frame)
    except WireError:
        return None
    header: Header = telegram.header
    if mask is None and telegram.address != address:
        return None
    if mask is not None and not selects(mask, header):
        return None
    primary = telegram.address if telegram.address <= LAST_ADDRESS else None
    return Identity(header.identification, header.manufacturer, header.version, header.medium, primary)
