"""Which advertisements of a Ruuvi sensor become readings, and which are repeats or another's."""

from bega_protocols.devices.ruuvitag.codec import SIZES, checked, owner, payload_in, readings, tx_power_dbm
from bega_protocols.doubt import suspect
from bega_protocols.errors import WireError
from bega_protocols.reading import Reading
from bega_protocols.settings import hex_bytes, only

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Settings

REPEAT_MS = 4000  # without a sequence number, equal bytes later than this say that the air is still the same
REPEAT_OF_SEQUENCE_MS = 60_000  # with one they say that nothing was measured since: said again, and doubted


class Driver:
    """A RuuviTag or a Ruuvi Air: it advertises, we only listen.

    settings: `address` (six bytes in hex, with or without colons), needed on a gateway's line.
    """

    line = "ble"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "address")
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self.address = hex_bytes(settings, "address", 6) if "address" in settings else b""
        self._offset = 0
        self._last = (b"", 0)  # the payload that gave the last readings, and when

    @staticmethod
    def recognises(chunk: bytes) -> bool:
        """Return whether an advertisement is a Ruuvi sensor's in a format that is read here."""
        try:
            payload = payload_in(chunk)
        except WireError:
            return False
        return payload is not None and len(payload) == SIZES.get(payload[0] if payload else 0)

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of one advertisement: [] if it repeats the last one, is damaged, or not Ruuvi's."""
        offset = self._offset
        self._offset += len(chunk)
        try:
            payload = payload_in(chunk) if chunk else None
            if payload is None:
                return []
            if payload and payload[0] not in SIZES:  # a Ruuvi Air says E1 beside its 06
                self.attributes["unread_format"] = "0x%02x" % payload[0]
                return []
            self._check_owner(checked(payload))
        except WireError as error:
            self.damaged.append((offset, error))
            return []
        power_dbm = tx_power_dbm(payload)
        if power_dbm is not None:
            self.attributes["tx_power_dbm"] = str(power_dbm)
        return self._news(payload, readings(payload), now_ms)

    def _check_owner(self, payload: bytes) -> None:
        """Raise WireError if a payload names another sender than the one it was heard from.

        A repeater, or somebody who plays back what he recorded, sends under an address of his own.
        """
        said = owner(payload)
        if said is not None and self.address and said != self.address[-len(said) :]:
            raise WireError("the payload is of another sensor", payload)

    def _news(self, payload: bytes, group: "list[Reading]", now_ms: int) -> "list[list[Reading]]":
        has_sequence = bool(group) and group[0].quantity == "packet_id"
        if len(group) == has_sequence:  # every field is "not available"
            return []
        within_ms = REPEAT_OF_SEQUENCE_MS if has_sequence else REPEAT_MS
        last, heard_ms = self._last
        is_same = payload == last
        if is_same and 0 <= now_ms - heard_ms < within_ms:
            return []
        self._last = (payload, now_ms)
        return [suspect(group) if is_same and has_sequence and now_ms > heard_ms else group]
