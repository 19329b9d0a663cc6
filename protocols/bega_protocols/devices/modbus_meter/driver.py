"""What to ask a Modbus meter, and which readings its answers hold."""

from bega_protocols.ask import Ask
from bega_protocols.devices.modbus_meter.codec import number, question, registers, words_turned
from bega_protocols.devices.modbus_meter.profile import Request, read_profile
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.modbus_rtu import EXCEPTION, RtuListener
from bega_protocols.modbus_tcp import TcpListener
from bega_protocols.reading import Reading
from bega_protocols.settings import only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Exchange, Settings
    from bega_protocols.modbus_rtu import Exchange as Heard

FRAMINGS = ("rtu", "tcp")


class Driver:
    """A meter whose numbers stand in registers, as its profile lays them out; it speaks when asked.

    settings: `profile` (the register map), `address` (unit 1 to 247), and for
    captures `framing` ("rtu", or "tcp" with its header).
    """

    line = "modbus"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "profile", "address", "framing")
        if not isinstance(settings.get("profile"), dict):
            raise ConfigError("profile must name a register map")
        self._profile = read_profile(settings["profile"])
        self._address = whole_number(settings, "address", 1, 247)
        framing = settings.get("framing", "rtu")
        if framing not in FRAMINGS:
            raise ConfigError("framing must be one of %s, not %r" % (", ".join(FRAMINGS), framing))
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {"maker": self._profile.maker}
        self._heard = TcpListener() if framing == "tcp" else RtuListener()

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each answer of this unit that `chunk` completes; one answer is one group."""
        groups = [self._group(heard) for heard in self._heard.feed(chunk, self.damaged)]
        return [group for group in groups if group]

    def measure(self, now_ms: int) -> "Exchange":
        """Ask block by block; all readings of one measurement are one group.

        A block that is not answered ends the measurement with what is there.
        A refusal costs that block alone: the meter lives, and this model may
        lack those registers.
        """
        readings: list[Reading] = []
        for request in self._profile.requests:
            asked = question(request.function, request.address, request.length)
            line = {"unit": self._address, "pause_ms": self._profile.pause_ms}
            answer = yield Ask(asked, self._profile.wait_ms, 2 + 2 * request.length, **line)
            if answer is None:
                break
            try:
                readings += _readings(request, registers(asked, answer))
            except WireError as error:
                self.damaged.append((0, error))
                if not answer or not answer[0] & EXCEPTION:
                    break  # out of step: nothing that follows can be trusted
        return [readings] if readings else []

    def _group(self, heard: "Heard") -> "list[Reading]":
        """Return what one heard answer holds; a capture may ask for other stretches than this driver does."""
        if heard.unit != self._address:
            return []
        try:
            octets = registers(heard.question, heard.answer)
        except WireError as error:
            self.damaged.append((0, error))
            return []
        function = heard.question[0]
        first = heard.question[1] << 8 | heard.question[2]
        rows = []
        for request in self._profile.requests:
            for row in request.rows:
                inside = first <= row.address and row.address + row.length <= first + len(octets) // 2
                if row.function == function and inside:
                    rows.append(row)
        return _readings(Request(function, first, len(octets) // 2, tuple(rows)), octets)


def _readings(request: Request, octets: bytes) -> "list[Reading]":
    """Return the reading of each row of `request`; what the meter marks as absent, and NaN, give none."""
    readings = []
    for row in request.rows:
        start = 2 * (row.address - request.address)
        raw = octets[start : start + 2 * row.length]
        if raw in row.absent:
            continue
        found = number(words_turned(raw) if row.low_word_first else raw, row.kind, row.scale, row.exponent)
        if found is not None:
            readings.append(Reading(row.quantity, found[0], found[1], row.part))
    return readings
