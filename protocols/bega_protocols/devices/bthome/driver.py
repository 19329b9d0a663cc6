"""Which advertisements of a BTHome v2 sensor become readings, and which are repeats, replays or forgeries."""

import struct

from bega_protocols import bthome
from bega_protocols.devices.bthome.codec import attributes, readings
from bega_protocols.errors import ChecksumError, ConfigError, WireError
from bega_protocols.reading import Reading
from bega_protocols.settings import hex_bytes, only, whole_number

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from bega_protocols.driver import Aes, Settings

REPEAT_MS = 4000  # equal bytes later than this say that the air is still the same (bthome-ble takes this time too)
REPEAT_OF_PACKET_ID_MS = 60_000  # with a packet id they say that nothing was measured since; a stuck id is no silence

_STATE = ">B4sI"  # version of this layout, check of key and address, last counter
_STATE_VERSION = 1


class Driver:
    """A BTHome v2 sensor: it advertises, we only listen. README.md says what is refused and why.

    settings: `address` (six bytes in hex, with or without colons), needed on a gateway's line and with a `key`;
    `key` (16 bytes in hex); `restart_below`: a counter below this is taken for a sensor that lost its counter.
    """

    line = "ble"

    def __init__(self, settings: "Settings", state: bytes = b"", aes: "Aes | None" = None) -> None:
        only(settings, "address", "key", "restart_below")
        self.damaged: list[tuple[int, WireError]] = []
        self.attributes: dict[str, str] = {}
        self.address = b""  # of the sensor, in the order in which it is written; b"" for a capture of just one
        self._encipher = None
        self._restart_below = whole_number(settings, "restart_below", 0, 1_000_000, default=0)
        self._counter = -1  # of the last packet that was opened
        self._proven = False  # the key has opened a packet, now or before the last restart
        self._offset = 0
        self._last = (b"", 0)  # body of the last packet that gave readings, and when
        if "address" in settings or "key" in settings:
            self.address = hex_bytes(settings, "address", bthome.ADDRESS_SIZE)
        if "key" in settings:
            if aes is None:
                raise ConfigError("this host has no AES, which a BTHome key needs")
            self._encipher = aes(hex_bytes(settings, "key", 16))
            self._restore(state)

    @staticmethod
    def recognises(chunk: bytes) -> bool:
        """Return whether an advertisement is BTHome's of version 2, plain or encrypted."""
        try:
            return bthome.advertised(chunk) is not None
        except WireError:
            return False

    def feed(self, chunk: bytes, now_ms: int) -> "list[list[Reading]]":
        """Return the readings of one advertisement: [] if it repeats the last one, is damaged, or not BTHome's."""
        offset = self._offset
        self._offset += len(chunk)
        try:
            body = self._believed(chunk)
        except WireError as error:
            self.damaged.append((offset, error))
            return []
        if body is None:
            return []
        group = self._group(body, offset)
        if not group or self._repeats(body, group, now_ms):
            return []
        return [group]

    def state(self) -> bytes:
        """Return the counter that the next packet must exceed, with a check of the key that it belongs to."""
        if self._encipher is None or self._counter < 0:
            return b""
        return struct.pack(_STATE, _STATE_VERSION, self._key_check(), self._counter)

    def _believed(self, chunk: bytes) -> "bytes | None":
        """Return the objects in an advertisement, opened where it is encrypted; None if there is nothing new in it.

        Raises WireError for what must not be believed.
        """
        packet = bthome.parse(chunk) if chunk else None
        if packet is None:
            return None
        if self._encipher is None:
            if bthome.is_encrypted(packet):
                raise WireError("encrypted; put this sensor's key into its settings", chunk)
            return packet.body
        if not bthome.is_encrypted(packet):
            raise WireError(
                "not encrypted, and this sensor has a key: forged, or its encryption is switched off", chunk
            )
        if bthome.counter(packet) == self._counter:
            return None
        return self._opened(packet, chunk)

    def _opened(self, packet: bthome.Packet, chunk: bytes) -> bytes:
        """Return the objects of an encrypted packet and remember its counter; raises WireError."""
        assert self._encipher is not None
        try:
            body = bthome.unsealed(packet, self._encipher, self.address)
        except ChecksumError as error:
            if self._proven:
                raise error
            raise ChecksumError("the key does not fit this sensor (or the address is not its own)", chunk)
        counter = bthome.counter(packet)
        if self._restart_below <= counter < self._counter:
            raise WireError(
                "counter went back: a replay, or the sensor lost its counter (new battery?);"
                " if so set restart_below = 100 until it is heard again",
                chunk,
            )
        self._counter = counter
        self._proven = True
        return body

    def _group(self, body: bytes, offset: int) -> "list[Reading]":
        """Return the readings in `body`, an encrypted one's counter as packet id where it has no other."""
        objects, unread = bthome.objects(body)
        if unread and bthome.is_known(unread[0]):
            self.damaged.append((offset, WireError("BTHome object 0x%02x is cut off" % unread[0], body)))
        elif unread:  # newer than this file, which is no damage; whoever looks for a missing quantity finds it here
            self.attributes["unread_object"] = "0x%02x" % unread[0]
        self.attributes.update(attributes(objects))
        group = readings(objects)
        if all(reading.quantity == "packet_id" for reading in group):  # a button, a door: no quantity of ours
            return []
        if self._encipher is not None and not _has_packet_id(group):
            group.insert(0, Reading("packet_id", self._counter))
        return group

    def _repeats(self, body: bytes, group: "list[Reading]", now_ms: int) -> bool:
        """Return whether `body` was said just before: an advertisement is sent many times so that one is heard."""
        if self._encipher is not None:
            return False  # its counter has told already
        within_ms = REPEAT_OF_PACKET_ID_MS if _has_packet_id(group) else REPEAT_MS
        last, heard_ms = self._last
        if body == last and 0 <= now_ms - heard_ms < within_ms:
            return True
        self._last = (body, now_ms)
        return False

    def _restore(self, state: bytes) -> None:
        """Take up the counter of the last run, unless it was counted under another key or address."""
        if len(state) != struct.calcsize(_STATE):
            return
        version, key_check, counter = struct.unpack(_STATE, state)
        if version == _STATE_VERSION and key_check == self._key_check():
            self._counter = counter
            self._proven = True

    def _key_check(self) -> bytes:
        """Return four bytes that another key or address would not give, and from which neither can be told."""
        assert self._encipher is not None
        return self._encipher(self.address + b"bega check")[:4]


def _has_packet_id(group: "list[Reading]") -> bool:
    return any(reading.quantity == "packet_id" for reading in group)
