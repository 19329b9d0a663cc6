"""What to ask a Modbus meter, and which readings its answers hold."""

from bega_protocols.devices.modbus_meter.block import Block
from bega_protocols.devices.modbus_meter.codec import registers
from bega_protocols.devices.modbus_meter.commission import Commission, read_settings
from bega_protocols.devices.modbus_meter.plan import Plan
from bega_protocols.devices.modbus_meter.profile import TAG_KEYS, Request, read_profile, read_tags
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.modbus_rtu import EXCEPTION, RtuListener
from bega_protocols.modbus_tcp import TcpListener
from bega_protocols.reading import Reading
from bega_protocols.settings import attempt, only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.devices.modbus_meter.commission import Setting
    from bega_protocols.devices.modbus_meter.profile import Profile
    from bega_protocols.driver import Aes, Exchange, Settings
    from bega_protocols.modbus_rtu import Exchange as Heard

FRAMINGS = ("rtu", "tcp")
TOO_MUCH = (2, 3)  # exceptions "no such register" and "value not allowed": a smaller stretch may be allowed
MOST_REFUSALS = 24  # in one measurement, lest a device that refuses everything holds the bus


def _read_map(settings: "Settings", problems: "list[str]") -> "tuple[Profile, tuple[Setting, ...]]":
    """Return the registers, by tags or by profile, and the settings that they hang on.

    Raises ConfigError; unknown keys, and what a profile lacks, are further `problems`.
    """
    if "tags" in settings:
        if "profile" in settings:
            raise ConfigError("give either profile or tags, not both")
        attempt(problems, only, settings, "tags", "address", "framing", *TAG_KEYS)
        return read_tags(settings), ()
    strays = [key for key in TAG_KEYS if key in settings]
    if strays and "profile" not in settings:
        raise ConfigError("%s: only with tags, so list the tags of this device" % ", ".join(strays))
    attempt(problems, only, settings, "profile", "address", "framing")
    if not isinstance(settings.get("profile"), dict):
        raise ConfigError("profile must name a register map; or list tags")
    profile = attempt(problems, read_profile, settings["profile"])
    return profile, attempt(problems, read_settings, settings["profile"])


class Driver:
    """A meter whose numbers stand in registers, as its profile or the user's tags lay them out; it speaks when asked.

    settings: `profile` (the register map), or `tags` (rows of one's own) with
    what a map says for all its rows; `address` (unit 1 to 247), and for
    captures `framing` ("rtu", or "tcp" with its header). What they lack is
    one ConfigError with a line for each problem.
    """

    line = "modbus"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        problems: list[str] = []
        found: tuple[Profile, tuple[Setting, ...]] = attempt(problems, _read_map, settings, problems)
        is_any = found and found[0] and 0 < found[0].any_address == settings.get("address")
        self._address: int = attempt(problems, whole_number, settings, "address", 1, 254 if is_any else 247)
        framing = settings.get("framing", "rtu")
        if framing not in FRAMINGS:
            problems.append("framing must be one of %s, not %r" % (", ".join(FRAMINGS), framing))
        if problems:
            raise ConfigError("\n".join(problems))
        self._profile, checked = found
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {"maker": self._profile.maker}
        self._heard = TcpListener() if framing == "tcp" else RtuListener()
        profile = self._profile
        self._plan = Plan(profile.rows, profile.max_registers, profile.gap_registers, profile.even)
        self._blocks = self._planned()
        self._commission = Commission(checked, self._address, profile)

    def lacking(self) -> "list[str]":
        """Return the names of the numbers that the device refuses, each asked for by itself."""
        return [(row.quantity + " " + row.part).rstrip() for row in self._plan.lacking()]

    def to_set(self) -> "list[str]":
        """Return what a technician has to set on the meter, since its numbers mean something else as it is."""
        return self._commission.to_set()

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of each answer of this unit that `chunk` completes; one answer is one group.

        Who only listens does not know how the meter is set: the profile is believed.
        """
        groups = [self._group(heard) for heard in self._heard.feed(chunk, self.damaged)]
        return [group for group in groups if group]

    def measure(self, now_ms: int) -> "Exchange":
        """Ask block by block; all readings of one measurement are one group.

        A block that is not answered ends the measurement with what is there.
        One that is refused as too much is asked for in halves, and what is
        found out by that is heeded from then on; any other refusal costs that
        block alone: the meter lives. What the numbers hang on is read first,
        when it is due; without it none of them would be believed.
        """
        commission = self._commission
        if commission.comes_first(now_ms):
            all_said = yield from commission.ask(now_ms, self.attributes, self.damaged)
            if not all_said:
                return []
        if self._plan.recheck(now_ms):
            self._blocks = self._planned()
        readings: list[Reading] = []
        refusals = 0
        blocks = self._blocks[:]
        waiting = blocks[::-1]
        while waiting and refusals < MOST_REFUSALS:
            block = waiting.pop()
            if refusals:  # a device may end the connection after each: then the halves are asked for next time
                self._blocks = blocks
            answer = yield block.ask
            if answer is None:
                waiting.append(block)
                if block is blocks[0]:
                    commission.forget()
                break
            if answer[:2] == block.head and len(answer) == block.ask.read:
                readings += block.readings(answer[2:])
                if not block.is_known:
                    self._plan.answered(block.request)
                    block.is_known = True
                continue
            refusal = self._refusal(block, answer)
            if refusal == 0:
                break  # out of step: nothing that follows can be trusted
            if refusal in TOO_MUCH:
                refusals += 1
                halves = [self._block(half) for half in self._plan.refused(block.request)]
                at = blocks.index(block)
                blocks[at : at + 1] = halves
                waiting += halves[::-1]
        if waiting and refusals:
            self._blocks = blocks
            self._plan.put_off(now_ms)
        elif self._plan.settle(now_ms):
            self._blocks = self._planned()
        if readings and not waiting and commission.comes_last():
            yield from commission.ask(now_ms, self.attributes, self.damaged)
        readings = commission.fit(readings)
        return [readings] if readings else []

    def _refusal(self, block: Block, answer: bytes) -> int:
        """Return the exception code of an answer that holds no registers, 0 if it has none, and count the damage.

        Where halves are asked for next, nothing is lost yet.
        """
        try:
            registers(block.asked, answer)
        except WireError as error:
            code = answer[1] if len(answer) == 2 and answer[0] & EXCEPTION else 0
            if code not in TOO_MUCH or len(block.request.rows) == 1:
                self.damaged.append((0, error))
            return code
        return 0

    def _planned(self) -> "list[Block]":
        return [self._block(request) for request in self._plan.requests]

    def _block(self, request: Request) -> Block:
        return Block(request, self._address, self._profile.wait_ms, self._profile.pause_ms)

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
        for row in self._profile.rows:
            inside = first <= row.address and row.address + row.length <= first + len(octets) // 2
            if row.function == function and inside:
                rows.append(row)
        rows.sort(key=lambda row: row.address)
        return self._block(Request(function, first, len(octets) // 2, tuple(rows))).readings(octets)
