"""What to read from a sensor with Bluetooth's Environmental Sensing Service, and which readings come out."""

from bega_protocols.ask import Ask
from bega_protocols.devices.environmental_sensing.codec import CHARACTERISTICS, ORDER, SERVICE, decode, size_of
from bega_protocols.errors import WireError
from bega_protocols.settings import hex_bytes, only

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Exchange, Settings
    from bega_protocols.reading import Reading

WAIT_MS = 5000  # for one value; the protocol itself gives up after 30 s (Core, volume 3, part F, section 3.3.3)
UUID_SIZE = 2

_UUIDS_16_BIT = (0x02, 0x03)  # AD types: some, and all, of the services' 16-bit UUIDs


class Driver:
    """A sensor that is connected to and read: temperature, humidity, pressure, and its battery.

    settings: `address` (six bytes in hex, with or without colons), needed on a gateway's line.
    """

    line = "ble"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "address")
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self.address = hex_bytes(settings, "address", 6) if "address" in settings else b""
        self._offset = 0

    @staticmethod
    def recognises(chunk: bytes) -> bool:
        """Return whether a row of advertising structures names the Environmental Sensing Service."""
        at = 0
        while at + 1 < len(chunk) and chunk[at] and at + 1 + chunk[at] <= len(chunk):
            end = at + 1 + chunk[at]
            if chunk[at + 1] in _UUIDS_16_BIT:
                for place in range(at + 2, end - 1, UUID_SIZE):
                    if chunk[place] | chunk[place + 1] << 8 == SERVICE:
                        return True
            at = end
        return False

    def measure(self, now_ms: int) -> "Exchange":
        """Read each characteristic once; what the sensor does not have, or does not know, is left out."""
        group = []
        for characteristic in ORDER:
            value = yield Ask(b"", WAIT_MS, size_of(characteristic), characteristic=characteristic)
            if value is not None:
                group.extend(self._readings(characteristic, value))
        return [group] if group else []

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of one poll: a row of UUIDs (two bytes, as they are written) and values.

        A row that begins with another UUID is not ours, an advertisement for one; what stands behind the first value
        that cannot be told is damage.
        """
        group: "list[Reading]" = []
        at = 0
        while at + UUID_SIZE <= len(chunk):
            characteristic = chunk[at] << 8 | chunk[at + 1]
            if characteristic not in CHARACTERISTICS:
                break
            end = at + UUID_SIZE + size_of(characteristic)
            group.extend(self._readings(characteristic, chunk[at + UUID_SIZE : end], self._offset + at))
            at = min(end, len(chunk))
        if 0 < at < len(chunk):
            self.damaged.append((self._offset + at, WireError("no characteristic that is read here", chunk[at:])))
        self._offset += len(chunk)
        return [group] if group else []

    def _readings(self, characteristic: int, value: bytes, offset: int = 0) -> "list[Reading]":
        try:
            reading = decode(characteristic, value)
        except WireError as error:
            self.damaged.append((offset, error))
            return []
        return [] if reading is None else [reading]
