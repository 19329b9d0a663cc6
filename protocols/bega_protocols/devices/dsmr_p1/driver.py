"""When a P1 meter speaks and which readings come out."""

from bega_protocols.devices.dsmr_p1.codec import NORMAL_TIME_UTC_MIN, Telegrams
from bega_protocols.devices.dsmr_p1.counters import Counters
from bega_protocols.errors import WireError
from bega_protocols.iec62056 import seven_bits
from bega_protocols.reading import SUSPECT, Reading
from bega_protocols.settings import only, whole_number, yes_or_no

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Settings


class Driver:
    """A meter with a P1 port: it sends a telegram each second (V5) or each ten, we only listen.

    settings: normal_time_utc_min, minutes that its normal ("winter") time is ahead of UTC (60);
    parity_in_bit_7, the meter sends 7E1 (V2.2, V3) and the port is open as 8N1: the driver checks the parity
    """

    line = "serial 115200 8N1"
    is_households = True
    also_found: "tuple[tuple[str, dict[str, bool]], ...]" = (
        ("serial 9600 7E1", {}),
        ("serial 9600 8N1", {"parity_in_bit_7": True}),
    )  # V2.2 and V3

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "normal_time_utc_min", "parity_in_bit_7")
        self._has_parity = yes_or_no(settings, "parity_in_bit_7", False)
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self._normal_time_utc_min = whole_number(settings, "normal_time_utc_min", -720, 840, NORMAL_TIME_UTC_MIN)
        self._telegrams = Telegrams()
        self._counters = Counters()
        self._stamps: dict[int, int] = {}  # M-Bus channel: Unix seconds of what was given last

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return a group for each telegram that `chunk` completes, and one for each meter behind it that was read anew.

        `attributes` are those of the last telegram that was whole.
        """
        if self._has_parity:
            chunk = seven_bits(chunk, has_parity=True)
        groups = []
        for telegram in self._telegrams.feed(chunk, self.damaged):
            self.attributes.clear()
            self.attributes.update(telegram.attributes)
            readings = telegram.readings
            if not telegram.is_checked:
                readings = self._counters.judge(readings, now_ms)
            if readings:
                groups.append(readings)
            for stamped in telegram.stamped(self._normal_time_utc_min):
                if self._stamps.get(stamped.channel) == stamped.unix_s:
                    continue
                readings = stamped.readings
                if not telegram.is_checked:
                    readings = self._counters.judge(readings, now_ms)
                if readings[0].quality != SUSPECT:
                    self._stamps[stamped.channel] = stamped.unix_s
                groups.append(readings)
        return groups
