"""An interpreter's image made by hand, from ESP-IDF's pages "App Image Format" and "Partition Tables". It never ran."""

import hashlib
import struct
from functools import reduce
from operator import xor


def program(number: int, data: bytes, hashed: bool = True) -> bytes:
    """Return a program of one segment for the chip with this number."""
    head = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40080000) + b"\xee" + bytes(3) + struct.pack("<H", number)
    image = head + bytes(9) + bytes([hashed]) + struct.pack("<II", 0x3F400020, len(data)) + data
    image += bytes(15 - len(image) % 16) + bytes([reduce(xor, data, 0xEF)])
    return image + hashlib.sha256(image).digest() if hashed else image


def partition_table(*rows: tuple[int, int, int, int, bytes]) -> bytes:
    """Return the table of (type, subtype, place, size, name), with its hash."""
    table = b"".join(struct.pack("<HBBII16sI", 0x50AA, *row, 0) for row in rows)
    return (table + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(table).digest()).ljust(0xC00, b"\xff")


def interpreter(number: int = 0, version: str = "v1.29.0", vfs: tuple[int, int] | None = None) -> bytes:
    """Return a whole image; vfs: place and size of the file system's partition, if it has one."""
    start = 0x1000 if number in (0, 2) else 0
    rows = [(1, 2, 0x9000, 0x6000, b"nvs"), (0, 0, 0x10000, 0x1F0000, b"factory")]
    if vfs:
        rows.append((1, 0x81, *vfs, b"vfs"))
    facts = struct.pack("<I", 0xABCD5432) + bytes(252)
    greeting = b"MicroPython %s on 2026-04-06; Generic ESP32 module with ESP32" % version.encode()
    app = program(number, facts + bytes(range(256)) * 64 + greeting)
    image = program(number, bytes(range(200))).ljust(0x8000 - start, b"\xff") + partition_table(*rows)
    return image.ljust(0x10000 - start, b"\xff") + app
