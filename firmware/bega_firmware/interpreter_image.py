"""An interpreter's image, as MicroPython publishes one for an ESP32: loader, partition table and program in one file.

Spec: ESP-IDF Programming Guide v5.4, "App Image Format" (esp_image_header_t, esp_image_segment_header_t,
esp_app_desc_t) and "Partition Tables"; words are little-endian. The image says itself by checksum and hash whether it
is whole; whether it is the one that MicroPython published, it cannot say.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from bega_firmware.board import VFS_START
from bega_protocols.errors import ConfigError

HEAD, SEGMENT, ROW = struct.Struct("<BBBBI4xHBHH4xB"), struct.Struct("<II"), struct.Struct("<HBBII16sI")
MAGIC, MOST_SEGMENTS = 0xE9, 16
CHECKSUM_SEED, HASH_BYTES = 0xEF, 32
TABLE_AT, TABLE_BYTES, ROW_MAGIC, HASH_MAGIC = 0x8000, 0xC00, 0x50AA, 0xEBEB
APP, DATA, FACTORY, FIRST_OTA = 0, 1, 0x00, 0x10
APP_MAGIC, APP_FACTS_AT = 0xABCD5432, HEAD.size + SEGMENT.size  # it begins the first segment
LARGEST_BYTES = 16 << 20
# By the number in the header: the chip as esptool calls it, and where its flash begins to be read.
CHIPS = {
    0: ("esp32", 0x1000),
    2: ("esp32s2", 0x1000),
    5: ("esp32c3", 0),
    9: ("esp32s3", 0),
    12: ("esp32c2", 0),
    13: ("esp32c6", 0),
    16: ("esp32h2", 0),
}
# Its greeting: the one place in which every release names itself (the app's own facts name the IDF's version).
GREETING = re.compile(rb"MicroPython v((\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?:-[!-~]{1,60})?) on \d{4}-\d\d-\d\d")
# The first whose images for 4 MB leave all behind 2 MiB to the file system (ports/esp32/partitions-4MiBplus.csv).
OLDEST = (1, 26, 0)
REMEDY = "take the whole image (.bin, not .app-bin) for your chip from micropython.org/download"


@dataclass(frozen=True)
class Interpreter:
    """What an image says of itself."""

    chip: str  # as esptool calls it
    start: int  # where it goes in the flash
    version: tuple[int, int, int]
    text: str  # the version as MicroPython writes it: "1.29.0-preview"
    vfs_bytes: int | None  # the room of its file system; None: all of the flash behind it
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """How a person calls it."""
        return f"MicroPython {self.text} for {self.chip}"


def read_interpreter(content: bytes) -> Interpreter:
    """Return what the image says of itself, once it proved whole. Raises ConfigError: why it is none, or not whole."""
    if len(content) > LARGEST_BYTES:
        raise ConfigError(f"it has {len(content) >> 20} MB, more than any interpreter: {REMEDY}")
    try:
        return _read(content)
    except struct.error:
        raise ConfigError(f"it ends too early, at {len(content)} bytes: {REMEDY}") from None


def require_supported(interpreter: Interpreter) -> None:
    """Raise ConfigError if Bega's firmware does not run on it."""
    if interpreter.version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigError(f"MicroPython {interpreter.text} is too old, Bega needs {oldest} or newer: {REMEDY}")


def _read(content: bytes) -> Interpreter:
    number = _head(content, 0)[5]
    if number not in CHIPS:
        raise ConfigError(f"it is for a chip that Bega does not know (number {number}): {REMEDY}")
    chip, start = CHIPS[number]
    _check_program(content, 0, TABLE_AT - start, "its loader")
    rows = list(_partitions(content[TABLE_AT - start :][:TABLE_BYTES]))
    apps = [row for row in rows if row[0] == APP and row[1] in (FACTORY, FIRST_OTA)]
    if not apps:
        raise ConfigError(f"it has no place for a program in its partition table: {REMEDY}")
    _, _, app_at, app_bytes, _ = apps[0]
    at = app_at - start
    if at <= 0 or app_at + app_bytes > VFS_START:
        raise ConfigError(f"its program does not end before 0x{VFS_START:x}, where Bega's file system begins: {REMEDY}")
    if _head(content, at)[5] != number:
        raise ConfigError(f"its loader and its program are for two kinds of chip: {REMEDY}")
    end = _check_program(content, at, app_bytes, "its program")
    if struct.unpack_from("<I", content, at + APP_FACTS_AT)[0] != APP_MAGIC:
        raise ConfigError(f"its program does not say what it is: {REMEDY}")
    version, text = _version(content[at : at + end])
    return Interpreter(chip, start, version, text, _room(rows), len(content), hashlib.sha256(content).hexdigest())


def _head(content: bytes, at: int) -> tuple[int, ...]:
    fields = HEAD.unpack_from(content, at)
    if fields[0] != MAGIC or not 0 < fields[1] <= MOST_SEGMENTS:
        raise ConfigError(f"it is no interpreter's image (no program's head at 0x{at:x}): {REMEDY}")
    return fields


def _check_program(content: bytes, at: int, room: int, name: str) -> int:
    """Raise ConfigError if a program is not whole; return its length, with its hash."""
    head = _head(content, at)
    place, check = at + HEAD.size, CHECKSUM_SEED
    for _ in range(head[1]):
        _, size = SEGMENT.unpack_from(content, place)
        place += SEGMENT.size
        data = content[place : place + size]
        if len(data) != size or place + size - at > room:
            raise ConfigError(f"{name} is cut off: the file was not copied whole, or {REMEDY}")
        check ^= _folded(data)
        place += size
    end = at + (place - at) // 16 * 16 + 16  # filled up, the checksum being the last byte
    if len(content) < end or content[end - 1] != check:
        raise ConfigError(f"{name} was damaged (its checksum differs): copy the file again, or {REMEDY}")
    if not head[-1]:
        return end - at
    if content[end : end + HASH_BYTES] != hashlib.sha256(content[at:end]).digest():
        raise ConfigError(f"{name} was damaged (its hash differs): copy the file again, or {REMEDY}")
    return end - at + HASH_BYTES


def _folded(data: bytes) -> int:
    """Return all bytes XORed: in halves, as one number after the other."""
    whole = int.from_bytes(data, "big")
    size = 1 << max(0, len(data) - 1).bit_length()
    while size > 1:
        size //= 2
        whole = (whole >> (8 * size)) ^ (whole & ((1 << (8 * size)) - 1))
    return whole


def _partitions(table: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Yield type, subtype, place, size and name of each. Raises ConfigError if the table's hash differs."""
    for at in range(0, len(table) - ROW.size + 1, ROW.size):
        magic, kind, subtype, place, size, label, _ = ROW.unpack_from(table, at)
        if magic == HASH_MAGIC:
            if table[at + 16 : at + 32] != hashlib.md5(table[:at], usedforsecurity=False).digest():
                raise ConfigError(f"its partition table was damaged (its hash differs): {REMEDY}")
            return
        if magic != ROW_MAGIC:
            return
        yield kind, subtype, place, size, label.rstrip(b"\0")


def _room(rows: list[tuple[int, int, int, int, bytes]]) -> int | None:
    """Return the size of the file system's partition, None if the interpreter takes what the flash has behind it."""
    for kind, _, place, size, label in rows:
        if kind == DATA and label == b"vfs":
            if place != VFS_START:
                raise ConfigError(
                    f"its file system begins at 0x{place:x}, and Bega's at 0x{VFS_START:x}: {REMEDY}, one without OTA"
                )
            return size
    return None


def _version(program: bytes) -> tuple[tuple[int, int, int], str]:
    found = GREETING.search(program)
    if found is None:
        raise ConfigError(f"its program is no MicroPython, or does not say which: {REMEDY}")
    return (int(found[2]), int(found[3]), int(found[4] or 0)), found[1].decode("ascii")
