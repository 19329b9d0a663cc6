"""What to ask a meter with an optical head, at which rate and with how much patience."""

from bega_protocols.ask import Ask
from bega_protocols.devices.iec62056_meter.codec import decode
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.iec62056 import (
    BAUDS,
    Identification,
    Readout,
    Readouts,
    acknowledgement,
    identification,
    readout_ends,
    request,
    with_even_parity,
)
from bega_protocols.reading import Reading
from bega_protocols.settings import only, whole_number, yes_or_no

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from bega_protocols.driver import Aes, Exchange, Settings

REACTION_MS = 2000  # meters answer within 1500 ms; the rest is for a USB adapter
GAP_MS = 2000  # and are silent for at most 1500 ms between two characters
READOUT_S = 180  # an Iskra MT174 with fifteen months of history takes minutes at 300 baud
ADDRESS_SIZE = 32
NULS_A_SECOND = 30  # 300 baud, ten bits a character

_MODE_B = "ABCDEFGHI"
_MODE_C = "0123456"
_RESERVED = "789"


class Driver:
    """A meter that is read out through its optical head, in mode C (acknowledged, at its own rate) or A (300 baud).

    Settings, all of them optional:
    address: of the meter, where several share a wire
    stay_at_300: acknowledge 300 baud, whatever the meter offers
    data_baud: the rate at which the readout comes, whatever was acknowledged
    check_character: false for a meter of mode A that sends none
    parity_in_bit_7: the port is open as 8N1, and the driver makes and checks the parity of 7E1
    reaction_ms, gap_ms, readout_s: longest time until an answer, between two characters, for a whole readout
    switch_ms: rest between the acknowledgement and the change of rate, for adapters that are slow to send
    wake_ms, wake_rest_ms: NULs for so long, then so much silence, before each request: battery meters sleep
    """

    line = "serial 300 7E1"
    is_households = True
    also_found = (("serial 300 8N1", {"parity_in_bit_7": True}),)  # on a port that makes no parity

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(
            settings, "address", "stay_at_300", "data_baud", "check_character", "parity_in_bit_7",
            "reaction_ms", "gap_ms", "readout_s", "switch_ms", "wake_ms", "wake_rest_ms",
        )  # fmt: skip
        self._request = request(_address(settings))
        self._stay_at_300 = yes_or_no(settings, "stay_at_300", False)
        self._data_baud = whole_number(settings, "data_baud", 0, BAUDS[-1], 0)
        if self._data_baud and self._data_baud not in BAUDS:
            raise ConfigError("data_baud must be one of %s" % ", ".join(str(baud) for baud in BAUDS))
        self._has_check = yes_or_no(settings, "check_character", True)
        self._has_parity = yes_or_no(settings, "parity_in_bit_7", False)
        self._reaction_ms = whole_number(settings, "reaction_ms", 20, 60_000, REACTION_MS)
        self._gap_ms = whole_number(settings, "gap_ms", 20, 60_000, GAP_MS)
        self._total_ms = 1000 * whole_number(settings, "readout_s", 1, 3600, READOUT_S)
        self._switch_ms = whole_number(settings, "switch_ms", 0, 1500, 0)
        self._wake_ms = whole_number(settings, "wake_ms", 0, 10_000, 0)
        self._wake_rest_ms = whole_number(settings, "wake_rest_ms", 0, 10_000, 1600)
        self._readouts = Readouts(self._has_check, self._has_parity)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}

    def measure(self, now_ms: int) -> "Exchange":
        """Read out once; return one group, or none if the meter kept silent or what it said was damaged."""
        if self._wake_ms:
            yield Ask(bytes(self._wake_ms * NULS_A_SECOND // 1000), self._wake_rest_ms, 0)
        answer = yield self._ask(self._request, self._is_opening_whole)
        if answer is None:
            return []
        named = identification(answer)
        if named is None:
            return self._damage("no identification in what answered the request")
        if named.speed in _MODE_B:
            return self._damage("meter of mode B: what its letters mean is disputed, and it is not read")
        if named.speed in _RESERVED:
            return self._damage("meter offers a rate that IEC 62056-21 reserves")
        if named.speed not in _MODE_C:
            return self._read_out(named, answer[named.end :])
        answer = yield from self._acknowledge("0" if self._stay_at_300 else named.speed)
        if answer is None:
            return self._damage("meter named itself and sent nothing when acknowledged: try stay_at_300")
        return self._read_out(named, answer)

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each readout that `chunk` completes, oldest first; `attributes` are the last one's."""
        groups = [self._readings(readout) for readout in self._readouts.feed(chunk, self.damaged)]
        return [group for group in groups if group]

    def _acknowledge(self, speed: str) -> "Generator[Ask, bytes | None, bytes | None]":
        """Carry out the exchange that begins with an acknowledgement; return the answer, at its own rate."""
        write = acknowledgement(speed)
        if self._switch_ms:
            yield Ask(self._on_wire(write), self._switch_ms, 0)
            write = b""
        answer = yield self._ask(write, self._is_readout_whole, baud=self._data_baud or BAUDS[int(speed)])
        return answer

    def _ask(self, write: bytes, read: "Callable[[bytes], bool]", **line: int) -> Ask:
        write = self._on_wire(write)
        return Ask(write, self._reaction_ms, read, gap_ms=self._gap_ms, total_ms=self._total_ms, **line)

    def _on_wire(self, octets: bytes) -> bytes:
        return with_even_parity(octets) if self._has_parity else octets

    def _is_opening_whole(self, so_far: bytes) -> bool:
        """A meter of mode A sends its readout right behind its identification; any other waits for what we say."""
        named = identification(so_far)
        if named is None:
            return False
        if named.speed in _MODE_B or named.speed in _MODE_C or named.speed in _RESERVED:
            return True
        return readout_ends(so_far, named.end, self._has_check)

    def _is_readout_whole(self, so_far: bytes) -> bool:
        return readout_ends(so_far, 0, self._has_check)

    def _read_out(self, named: Identification, answer: bytes) -> "list[list[Reading]]":
        readouts = Readouts(self._has_check, self._has_parity)
        readouts.expect(named.text)
        known = len(self.damaged)
        whole = readouts.feed(answer, self.damaged)
        if not whole and len(self.damaged) == known:
            return self._damage("readout of %d bytes lacks %s" % (len(answer), readouts.missing()))
        groups = [self._readings(readout) for readout in whole[:1]]
        return [group for group in groups if group]

    def _readings(self, readout: Readout) -> "list[Reading]":
        readings, texts = decode(readout)
        self.attributes.clear()
        self.attributes.update(texts)
        return readings

    def _damage(self, why: str) -> "list[list[Reading]]":
        """Count a measurement as damaged; never with what was heard, which names a household's meter."""
        self.damaged.append((0, WireError(why)))
        return []


def _address(settings: "Settings") -> str:
    """Digits, letters and spaces: anything else could end the request, or begin another."""
    address = settings.get("address", "")
    if not isinstance(address, str) or len(address) > ADDRESS_SIZE or not all(_is_addressable(one) for one in address):
        raise ConfigError("address must be up to %d digits, letters and spaces as text" % ADDRESS_SIZE)
    return address


def _is_addressable(one: str) -> bool:
    return one == " " or "0" <= one <= "9" or "A" <= one <= "Z" or "a" <= one <= "z"
