"""BTHome v2: sensor data in Bluetooth advertisements; bytes <-> objects.

Spec: bthome.io/format and bthome.io/encryption (version 2, November 2022,
objects up to 0x65), and Bluetooth Core Supplement 11, part A, section 1.11
for the service data around them. Numbers are little-endian.
"""

from collections import namedtuple

from bega_protocols.ccm import open_sealed
from bega_protocols.errors import ChecksumError, WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module

UUID = b"\xd2\xfc"  # 0xFCD2 as it is sent
VERSION = 2  # bits 5 to 7 of the device information
ENCRYPTED, RESERVED, ON_TRIGGER = 0x01, 0x02, 0x04  # bits of the device information
PACKET_ID = 0x00
COUNTER_SIZE = 4
TAG_SIZE = 4
ADDRESS_SIZE = 6

_SERVICE_DATA_16_BIT = 0x16  # AD type: service data, 16-bit UUID

# Bytes of each object, by its id from 0x00 on: "." is an id that the format does not give.
# "v" counts its own bytes (text, raw); "c" is a command: the lower 5 bits count the bytes behind its operation.
_SIZES = (
    "1122332221332221"  # 00 packet id, battery, temperature ... 0F generic boolean
    "1122211111111111"  # 10 power on, opening, CO2, TVOC, moisture; 15 on: booleans
    "1111111111111111"  # 20 booleans; 2E humidity, 2F moisture
    "..........1c2242"  # 3A button, 3B command, 3C dimmer, 3D and 3E count, 3F rotation
    "2232221222234444"  # 40 distance ... 4B gas, 4C gas, 4D energy, 4E volume, 4F water
    "422vv42111244222"  # 50 timestamp ... 53 text, 54 raw ... 5F precipitation
    "124411"  # 60 channel ... 65 settings revision
)
_SIZES_FROM_F0 = "243"  # F0 device type, F1 and F2 firmware version

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple

    class Packet(NamedTuple):
        """What one advertisement carries: `info` is the device information byte, `body` all that follows it."""

        info: int
        body: bytes

    class Object(NamedTuple):
        """One object: its id and its bytes, without the id and without a length."""

        id: int
        data: bytes

else:
    Packet = namedtuple("Packet", ("info", "body"))
    Object = namedtuple("Object", ("id", "data"))


def parse(chunk: bytes) -> "Packet | None":
    """Return the BTHome packet in an advertisement, None if it is somebody else's advertisement, whole and sound.

    `chunk` is told apart by its first byte: D2 FC is service data with its
    UUID; 40 to 5F (a device information of version 2) is service data without
    it; all else is a row of advertising structures (02 01 06 .. 16 D2 FC ..).
    Extended advertising (Bluetooth 5) allows structures of 64 to 95 bytes,
    whose length looks like a device information: what is a row to its last
    byte is taken for one.

    Raises WireError if it is none of the three, or BTHome of another version.
    """
    if chunk[:2] == UUID:
        service_data = chunk[2:]
    elif chunk[:1] and chunk[0] >> 5 == VERSION and not _is_row(chunk):
        service_data = chunk
    else:
        return advertised(chunk)
    return _packet(service_data, chunk)


def advertised(chunk: bytes) -> "Packet | None":
    """Return the BTHome packet in a row of advertising structures, None if there is none; raises WireError as `parse`.

    Whoever knows that he has a row says so by calling this.
    """
    service_data = _service_data(chunk)
    return None if service_data is None else _packet(service_data, chunk)


def is_encrypted(packet: "Packet") -> bool:
    """Return whether `packet` must be opened before its objects can be read."""
    return packet.info & ENCRYPTED != 0


def counter(packet: "Packet") -> int:
    """Return the counter of an encrypted packet, which rises with each one that is sealed; raises WireError."""
    return int.from_bytes(_counter_bytes(packet), "little")


def unsealed(packet: "Packet", encipher: "Callable[[bytes], bytes]", address: bytes) -> bytes:
    """Return the objects of an encrypted packet; `address` is the sender's, in the order in which it is written.

    Raises ChecksumError if the key behind `encipher` or the address is another, or a byte was changed.
    """
    count = _counter_bytes(packet)
    nonce = address + UUID + bytes((packet.info,)) + count
    sealed = packet.body[: -COUNTER_SIZE - TAG_SIZE] + packet.body[-TAG_SIZE:]
    try:
        return open_sealed(encipher, nonce, sealed, TAG_SIZE)
    except ChecksumError:
        raise ChecksumError("BTHome tag differs", bytes((packet.info,)) + packet.body)


def objects(body: bytes) -> "tuple[list[Object], bytes]":
    """Return the objects in `body` and what was left unread: from the first object that is unknown, or cut off, on.

    The format lets a receiver stop there: ids rise, so what is newer than the receiver stands last.
    """
    found = []
    at = 0
    while at < len(body):
        start, size = _span(body, at)
        if size is None or start + size > len(body):
            break
        found.append(Object(body[at], body[start : start + size]))
        at = start + size
    return found, body[at:]


def is_known(object_id: int) -> bool:
    """Return whether the format, as far as this file goes, gives this id."""
    return _size_code(object_id) != "."


def _packet(service_data: bytes, chunk: bytes) -> "Packet":
    if not service_data:
        raise WireError("BTHome without its device information", chunk)
    info = service_data[0]
    if info >> 5 != VERSION:
        raise WireError("BTHome version %d; 2 is known" % (info >> 5), chunk)
    if info & RESERVED:
        raise WireError("BTHome with the reserved bit 1 of its device information set", chunk)
    return Packet(info, service_data[1:])


def _is_row(chunk: bytes) -> bool:
    """Return whether structures fill `chunk` to its last byte."""
    at = 0
    while at < len(chunk) and chunk[at]:
        at += 1 + chunk[at]
    return at == len(chunk)


def _service_data(chunk: bytes) -> "bytes | None":
    """Return BTHome's service data out of advertising structures (length, type, data); a length of 0 ends them."""
    at = 0
    while at < len(chunk) and chunk[at]:
        end = at + 1 + chunk[at]
        if end > len(chunk):
            raise WireError("no BTHome, and no row of advertising structures", chunk)
        if chunk[at + 1] == _SERVICE_DATA_16_BIT and chunk[at + 2 : at + 4] == UUID and end >= at + 4:
            return chunk[at + 4 : end]
        at = end
    return None


def _counter_bytes(packet: "Packet") -> bytes:
    if len(packet.body) < COUNTER_SIZE + TAG_SIZE:
        raise WireError("encrypted BTHome, too short for its counter and tag", bytes((packet.info,)) + packet.body)
    return packet.body[-COUNTER_SIZE - TAG_SIZE : -TAG_SIZE]


def _span(body: bytes, at: int) -> "tuple[int, int | None]":
    """Return where the data of the object at `at` begins and how long it is; None if that cannot be told."""
    code = _size_code(body[at])
    if code == ".":
        return at, None
    if code not in "vc":
        return at + 1, int(code)
    if at + 1 >= len(body):
        return at, None
    return at + 2, body[at + 1] if code == "v" else 1 + (body[at + 1] & 0x1F)


def _size_code(object_id: int) -> str:
    if object_id < len(_SIZES):
        return _SIZES[object_id]
    if 0xF0 <= object_id < 0xF0 + len(_SIZES_FROM_F0):
        return _SIZES_FROM_F0[object_id - 0xF0]
    return "."
