"""How an M-Bus meter is addressed and asked, and which readings its telegrams hold."""

from bega_protocols.devices.mbus_meter.codec import clock, describe, groups
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.frames import Frames
from bega_protocols.mbus import (
    ACK,
    BAUDS,
    HEAD,
    LAST_ADDRESS,
    MEDIA,
    RSP_MASK,
    RSP_UD,
    SELECTED,
    frame_in,
    parse,
    read_telegram,
    request,
    reset,
    secondary_mask,
    select,
    selects,
    size_of,
)
from bega_protocols.reading import Reading
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Generator

    from bega_protocols.ask import Ask
    from bega_protocols.devices.mbus_meter.codec import Group
    from bega_protocols.driver import Aes, Exchange, Settings
    from bega_protocols.mbus import Telegram
    from bega_protocols.mbus_records import Record

    Step = Generator[Ask, bytes | None, bool]
    Received = Generator[Ask, bytes | None, Telegram | None]
    Readout = Generator[Ask, bytes | None, tuple[list[Telegram], bool]]

ATTEMPTS = 3
MOST_TELEGRAMS = 20  # of one readout: about 5 kB
MOST_STAMPS = 200  # remembered; a meter has at most some dozen storages with a date
MOST_LISTED = 80  # records that were not read, by number; `unread` counts all of them


class Driver:
    """A meter on a wired M-Bus; it speaks when asked.

    settings: `address`: primary (0 to 250), or secondary as text ("12345678", "12345678.KAM.1B.04"; F stands for any
    digit, which finds the wrong meter as soon as two fit); `baud` of the line, for how long to wait; minutes that the
    meters' normal time is ahead of UTC, `normal_time_utc_min`
    """

    line = "mbus 2400 8E1"
    is_households = True

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "address", "baud", "normal_time_utc_min")
        self._primary, self._mask = _address(settings)
        self._hears_all = "address" not in settings
        self.baud = whole_number(settings, "baud", BAUDS[0], BAUDS[-1], 2400)
        if self.baud not in BAUDS:
            raise ConfigError("baud must be one of %s" % ", ".join([str(baud) for baud in BAUDS]))
        self._utc_min = whole_number(settings, "normal_time_utc_min", -720, 840, 60)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._frames = Frames(HEAD, size_of)
        # (identification, storage): what was given last, as (Unix second, number of readings, quality)
        self._stamps: dict[tuple[str, int], tuple[int, int, int]] = {}

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each answer that `chunk` completes; without an `address`, of every meter's."""
        found = []
        for telegram in self._frames.feed(chunk, _telegram, self.damaged):
            if telegram and (self._hears_all or self._is_mine(telegram)):
                found += self._read([telegram], True)
        return found

    def measure(self, now_ms: int) -> "Exchange":
        """Read the meter out, in as many telegrams as it has.

        The link is reset first, and the meter must say so: else its frame count bit may be where it was left, and what
        it sends is the telegram of last time. The bit is turned round after a good answer only, so that what noise has
        eaten comes again.
        """
        if self._mask is None:
            if not (yield from self._acknowledged(reset(self._primary, self.baud))):
                return []
        else:
            # A reset at SELECTED takes the selection back too; only a selected meter hears it.
            for ask in (
                select(self._mask, self.baud),
                reset(SELECTED, self.baud),
                select(self._mask, self.baud),
            ):
                if not (yield from self._acknowledged(ask)):
                    return []
        telegrams, is_whole = yield from self._read_out()
        return self._read(telegrams, is_whole)

    def _acknowledged(self, ask: "Ask") -> "Step":
        for _ in range(ATTEMPTS):
            answer = yield ask
            if answer == ACK:
                return True
            if answer:
                self.damaged.append((0, WireError("no acknowledgement", answer)))
        return False

    def _read_out(self) -> "Readout":
        """Return the telegrams, and whether that is all that the meter has: False where one did not come through."""
        telegrams: list[Telegram] = []
        count_bit = 1  # the first after a reset
        while len(telegrams) < MOST_TELEGRAMS:
            telegram = yield from self._received(count_bit, telegrams)
            if telegram is None:
                return telegrams, False
            if telegrams and telegram.body.records == telegrams[-1].body.records:
                break  # the same once more: the meter does not heed the count bit, and has nothing else to say
            telegrams.append(telegram)
            if not telegram.body.more:
                break
            count_bit ^= 1
        return telegrams, True

    def _received(self, count_bit: int, before: "list[Telegram]") -> "Received":
        """Return the next telegram; what is damaged, or another meter's, is asked for again."""
        for _ in range(ATTEMPTS):
            heard = yield request(self._primary, count_bit, self.baud)
            if heard is None:
                continue
            try:
                return self._checked(heard, before)
            except WireError as error:
                self.damaged.append((0, error))
        return None

    def _checked(self, heard: bytes, before: "list[Telegram]") -> "Telegram":
        """Return the telegram in what was heard; raises WireError if there is none, or it is not this meter's."""
        frame = frame_in(heard)
        if frame is None:
            raise WireError("no whole frame: noise, or two meters at once", heard[:300])
        telegram = read_telegram(frame)
        if not self._is_mine(telegram):
            raise WireError("another meter has answered", frame)
        if before and _meter(before[0]) != _meter(telegram):
            raise WireError("another meter goes on", frame)
        return telegram

    def _is_mine(self, telegram: "Telegram") -> bool:
        if self._mask is None:
            return telegram.address == self._primary
        return selects(self._mask, telegram.header)

    def _read(self, telegrams: "list[Telegram]", is_whole: bool) -> "list[list[Reading]]":
        """Return the groups of one readout, and tell the rest as attributes. What is enciphered is no reading."""
        records: list[Record] = []
        for telegram in telegrams:
            if telegram.body.damage:
                self.damaged.append(telegram.body.damage)
            if telegram.header.signature:
                self.damaged.append((0, WireError("enciphered: signature %04X" % telegram.header.signature)))
            else:
                records += telegram.body.records
        if not telegrams:
            return []
        header = telegrams[0].header
        status = 0
        for telegram in telegrams:
            status |= telegram.header.status
        found, unread = groups(records, header.medium, status, self._utc_min, is_whole)
        self._tell(telegrams[0], status, records, unread)
        return [group.readings for group in found if self._is_new(header.identification, group)]

    def _is_new(self, identification: str, group: "Group") -> bool:
        """Return whether a storage has another stamp, or more or better readings; what holds now always is new.

        A readout that broke off gave a part of it, a meter in error all of it as suspect.
        """
        if group.unix_s is None:
            return True
        key = (identification, group.storage)
        count, quality = len(group.readings), group.readings[0].quality
        before = self._stamps.get(key)
        if before and before[0] == group.unix_s and count <= before[1] and quality >= before[2]:
            return False
        if len(self._stamps) >= MOST_STAMPS:
            self._stamps.clear()
        self._stamps[key] = (group.unix_s, count, quality)
        return True

    def _tell(self, telegram: "Telegram", status: int, records: "list[Record]", unread: "list[int]") -> None:
        header, told = telegram.header, self.attributes
        told.clear()
        if header.identification:
            told["id"] = header.identification
        if header.manufacturer:
            told["manufacturer"] = header.manufacturer
        if header.version is not None:
            told["version"] = "%02X" % header.version
        if header.medium is not None:
            told["medium"] = MEDIA.get(header.medium, "%02X" % header.medium)
        told["status"] = "%02X" % status
        shown = clock(records)
        if shown:
            told["clock"] = shown
        told["records"] = str(len(records))
        told["unread"] = str(len(unread))
        for index in unread[:MOST_LISTED]:
            told["record_%d" % index] = describe(records[index])


def _address(settings: "Settings") -> "tuple[int, bytes | None]":
    """Return (primary address, mask of the secondary one or None)."""
    address = settings.get("address", 0)
    if isinstance(address, str):
        try:
            return SELECTED, secondary_mask(address)
        except ValueError as error:
            raise ConfigError("address %r: %s" % (address, error))
    if not isinstance(address, int) or isinstance(address, bool) or not 0 <= address <= LAST_ADDRESS:
        raise ConfigError('address must be 0 to %d, or a secondary one in quotes: "12345678"' % LAST_ADDRESS)
    return address, None


def _telegram(frame: bytes) -> "Telegram | None":
    """Return what a slave sent, None for what a master sent."""
    return read_telegram(frame) if parse(frame).control & RSP_MASK == RSP_UD else None


def _meter(telegram: "Telegram") -> "tuple[object, ...]":
    header = telegram.header
    return telegram.address, header.identification, header.manufacturer, header.version, header.medium
