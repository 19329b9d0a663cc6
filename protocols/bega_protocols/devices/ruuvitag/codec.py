"""Ruuvi's advertisements: bytes <-> readings.

Spec: docs.ruuvi.com, "Data format 5 (RAWv2)" (the RuuviTag) and "Data format
6" (Ruuvi Air), which travel as manufacturer data of company 0x0499. Numbers
are big-endian. "Not available" is the largest number of an unsigned field
and the smallest of a signed one; it is no reading.
"""

import struct

from bega_protocols.doubt import suspect
from bega_protocols.errors import WireError
from bega_protocols.reading import GOOD, SUSPECT, Reading

COMPANY = b"\x99\x04"  # 0x0499 as it is sent
SIZES = {5: 24, 6: 20}  # bytes of a payload, by its format
ADDRESS_SIZE = {5: 6, 6: 3}  # of the sender's own address at the end, its last bytes

_MANUFACTURER_DATA = 0xFF  # AD type
_NO_SIGNED, _NO_WORD, _NO_BYTE, _NO_VOLTAGE, _NO_TX_POWER, _NO_INDEX = -0x8000, 0xFFFF, 0xFF, 2047, 31, 0x1FF
_FULL = 1000000  # 100 % relative humidity in 0.0001 %
_STANDARD_GRAVITY = 980665  # of 10^-8 m/s2 in one mG: exact by definition (ISO 80000-3)
_LARGEST = 0x7FFF  # of a signed field; the largest of an unsigned one stands before its "not available"
_CALIBRATING = 0x01  # bit of format 6's flags


def payload_in(chunk: bytes) -> "bytes | None":
    """Return Ruuvi's payload, from its format's number on; None if this is somebody else's advertisement.

    `chunk` is manufacturer data with its company (99 04 ..), or a row of
    advertising structures. Raises WireError if it is neither.
    """
    if chunk[:2] == COMPANY:
        return chunk[2:]
    at = 0
    while at < len(chunk) and chunk[at]:
        end = at + 1 + chunk[at]
        if end > len(chunk):
            raise WireError("no Ruuvi payload, and no row of advertising structures", chunk)
        if chunk[at + 1] == _MANUFACTURER_DATA and chunk[at + 2 : at + 4] == COMPANY and end >= at + 4:
            return chunk[at + 4 : end]
        at = end
    return None


def checked(payload: bytes) -> bytes:
    """Return `payload` if it is whole; raises WireError for a format that is not read here or a length that is not its.

    The payload has no check value: the radio's own CRC-24 goes before it.
    """
    if not payload:
        raise WireError("Ruuvi manufacturer data without a format", payload)
    size = SIZES.get(payload[0])
    if size is None:
        raise WireError("Ruuvi format %d; 5 and 6 are read" % payload[0], payload)
    if len(payload) != size:
        raise WireError("Ruuvi format %d has %d bytes, not %d" % (payload[0], size, len(payload)), payload)
    return payload


def owner(payload: bytes) -> "bytes | None":
    """Return the last bytes of the sender's address that a whole payload holds, None if it does not tell."""
    said = payload[-ADDRESS_SIZE[payload[0]] :]
    return None if said == b"\xff" * len(said) else said


def readings(payload: bytes) -> "list[Reading]":
    """Return what a whole payload measured, `packet_id` first, which is its sequence number."""
    climate = _climate(payload)
    if payload[0] == 5:
        return _sequence(struct.unpack_from(">H", payload, 16)[0], _NO_WORD) + climate + _tag(payload)
    group = climate + _air(payload)
    if payload[16] & _CALIBRATING:
        group = suspect(group)
    return _sequence(payload[15], None) + group


def tx_power_dbm(payload: bytes) -> "int | None":
    """Return the transmitter's power that a whole payload of format 5 tells, None where it does not."""
    if payload[0] != 5 or payload[14] & 0x1F == _NO_TX_POWER:
        return None
    return 2 * (payload[14] & 0x1F) - 40


def _sequence(number: int, missing: "int | None") -> "list[Reading]":
    return [] if number == missing else [Reading("packet_id", number)]


def _climate(payload: bytes) -> "list[Reading]":
    """Bytes 1 to 6, the same in both formats: 0.005 degrees, 0.0025 %, Pa over 50000."""
    temperature, humidity, pressure = struct.unpack_from(">hHH", payload, 1)
    group = []
    if temperature != _NO_SIGNED:
        group.append(Reading("temperature", 5 * temperature, -3, "", _at_end(temperature, -_LARGEST, _LARGEST)))
    if humidity != _NO_WORD:
        # More than 100 % can be sent; the page: "generally indicate a faulty or miscalibrated sensor".
        quality = SUSPECT if 25 * humidity > _FULL else GOOD
        group.append(Reading("humidity", 25 * humidity, -4, "", quality))
    if pressure != _NO_WORD:
        group.append(Reading("pressure", 50000 + pressure, -2, "", _at_end(pressure, 0, _NO_WORD - 1)))
    return group


def _at_end(number: int, lowest: int, highest: int) -> int:
    """Return SUSPECT for the last number at either end of a field: what lies beyond is sent as the same number."""
    return GOOD if lowest < number < highest else SUSPECT


def _tag(payload: bytes) -> "list[Reading]":
    """Bytes 7 to 15 of format 5: acceleration in mG, 11 bits of battery above 1.6 V, movements."""
    group = []
    for part, milli_g in zip(("x", "y", "z"), struct.unpack_from(">3h", payload, 7)):
        if milli_g != _NO_SIGNED:
            quality = _at_end(milli_g, -_LARGEST, _LARGEST)
            group.append(Reading("acceleration", _STANDARD_GRAVITY * milli_g, -8, part, quality))
    millivolts = struct.unpack_from(">H", payload, 13)[0] >> 5
    if millivolts != _NO_VOLTAGE:
        group.append(Reading("voltage", 1600 + millivolts, -3))
    if payload[15] != _NO_BYTE:
        group.append(Reading("movement_count", payload[15]))
    return group


def _air(payload: bytes) -> "list[Reading]":
    """Bytes 7 to 12 of format 6: 0.1 ug/m3, ppm, and two indices of nine bits whose lowest is in the flags."""
    dust, co2 = struct.unpack_from(">HH", payload, 7)
    voc = payload[11] << 1 | payload[16] >> 6 & 1
    nox = payload[12] << 1 | payload[16] >> 7
    group = []
    if dust != _NO_WORD:
        group.append(Reading("pm2_5", dust, -1))
    if co2 != _NO_WORD:
        group.append(Reading("co2", co2))
    if voc != _NO_INDEX:
        group.append(Reading("voc_index", voc))
    if nox != _NO_INDEX:
        group.append(Reading("nox_index", nox))
    return group
