"""Check values of the wires we speak, each with its source and its published check value.

The check value of a CRC is its result over the nine bytes "123456789"
(the convention of Ross Williams' "A Painless Guide to CRC Error Detection Algorithms").
"""

import binascii


def crc16_modbus(data: bytes) -> int:
    """CRC-16 of Modbus RTU, to be sent low byte first; check value 0x4B37.

    Spec: MODBUS over Serial Line V1.02, section 2.5.1.2 and appendix B.
    """
    return _crc16_reflected(data, 0xFFFF)


def crc16_arc(data: bytes, crc: int = 0) -> int:
    """CRC-16/ARC of a P1 telegram, "/" to "!" inclusive; check value 0xBB3D. `crc` continues an earlier one.

    Spec: DSMR P1 Companion Standard 5.0.2, section 6.2.
    """
    return _crc16_reflected(data, crc)


def crc16_x25(data: bytes) -> int:
    """CRC-16/X-25 of our own uplink frame (and of SML, HDLC); check value 0x906E.

    Spec: ITU-T X.25, section 2.2.7.4.
    """
    return _crc16_reflected(data, 0xFFFF, _TABLE_8408) ^ 0xFFFF


def crc16_kermit(data: bytes) -> int:
    """CRC-16/KERMIT, which some SML meters send in place of X-25; check value 0x2189.

    Spec: the Kermit protocol manual, sixth edition, "block check type 3".
    """
    return _crc16_reflected(data, 0, _TABLE_8408)


def crc8_sensirion(data: bytes) -> int:
    """CRC-8 over one Sensirion word: polynomial 0x31, start 0xFF; 0xBEEF gives 0x92.

    Spec: SHT4x datasheet version 1 (October 2020), section 4.4.
    """
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return crc


def crc32(data: bytes, crc: int = 0) -> int:
    """CRC-32 of what we keep on flash; check value 0xCBF43926. `crc` continues an earlier one.

    Spec: IEEE 802.3, section 3.2.9.
    """
    return binascii.crc32(data, crc) & 0xFFFFFFFF


def sum8(data: bytes) -> int:
    """Return the sum of all bytes modulo 256 (SDS011, MH-Z19, M-Bus)."""
    return sum(data) & 0xFF


def xor8(data: bytes) -> int:
    """Return the exclusive or of all bytes (the BCC of IEC 62056-21)."""
    result = 0
    for byte in data:
        result ^= byte
    return result


def _table(polynomial: int) -> bytes:
    """Return 256 reflected CRC-16 remainders, two bytes each: a list would cost an ESP32 four times as much."""
    rows = bytearray(512)
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = crc >> 1 ^ polynomial if crc & 1 else crc >> 1
        rows[2 * index] = crc & 0xFF
        rows[2 * index + 1] = crc >> 8
    return bytes(rows)


_TABLE_A001 = _table(0xA001)
_TABLE_8408 = _table(0x8408)


def _crc16_reflected(data: bytes, crc: int, table: bytes = _TABLE_A001) -> int:
    for byte in data:
        row = 2 * ((crc ^ byte) & 0xFF)
        crc = crc >> 8 ^ (table[row] | table[row + 1] << 8)
    return crc
