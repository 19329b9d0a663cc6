"""The chip's non-volatile storage (NVS): small values by namespace and key, old or new after any power cut.

It keeps what ESP-IDF's "Non-Volatile Storage Library" promises (names of at most 15 characters, a value per key and
type, its error codes) in a layout of its own: an image made by Espressif's tool is not read, and counts as empty. The
partition has two banks. Values are appended to one of them, each with a CRC; when it is full, what still counts is
copied to the other, whose head is written last. What was set and not committed is lost at a reset: the IDF promises
no more, though it mostly writes at once.
"""

from __future__ import annotations

import struct

from bega_protocols.checks import crc32
from bega_simulators.board.cut import SECTOR, FlashFile

HEAD = struct.Struct("<4sII")  # magic, generation, CRC of both
ENTRY = struct.Struct("<IHBBB")  # CRC of the rest, length of the value, type, lengths of namespace and key
MAGIC = b"BNVS"
I32, BLOB, ERASED = 0, 1, 2  # what an entry is; ERASED + type says that the key is gone
LONGEST_NAME = 15
NOT_FOUND, NOT_ENOUGH_SPACE, INVALID_NAME = 0x1102, 0x1105, 0x1106
KEY_TOO_LONG, INVALID_LENGTH = 0x1109, 0x110C
NAMES = {
    NOT_FOUND: "ESP_ERR_NVS_NOT_FOUND",
    NOT_ENOUGH_SPACE: "ESP_ERR_NVS_NOT_ENOUGH_SPACE",
    INVALID_NAME: "ESP_ERR_NVS_INVALID_NAME",
    KEY_TOO_LONG: "ESP_ERR_NVS_KEY_TOO_LONG",
    INVALID_LENGTH: "ESP_ERR_NVS_INVALID_LENGTH",
}

Key = tuple[str, str, int]  # namespace, key, type


class Nvs:
    """One boot's view of the partition that begins at `start`."""

    def __init__(self, flash: FlashFile, start: int, size: int) -> None:
        self._flash = flash
        self._bank_bytes = size // SECTOR // 2 * SECTOR
        self._banks = (start, start + self._bank_bytes)
        self._generation, self._bank = max((self._generation_of(bank), bank) for bank in (0, 1))
        self._values: dict[Key, bytes] = {}
        self._pending: dict[Key, bytes | None] = {}
        self._end = self._read() if self._generation else self._bank_bytes

    def do_nvs_open(self, space: str) -> None:
        if len(space) > LONGEST_NAME:
            raise _error(INVALID_NAME)

    def do_nvs_get(self, space: str, key: str, type: int, room: int = 4) -> str:
        name = (space, key, type)
        value = self._pending[name] if name in self._pending else self._values.get(name)
        if value is None:
            raise _error(NOT_FOUND)
        if len(value) > room:
            raise _error(INVALID_LENGTH)
        return value.hex()

    def do_nvs_set(self, space: str, key: str, type: int, value: str) -> None:
        if len(key) > LONGEST_NAME:
            raise _error(KEY_TOO_LONG)
        self._pending[space, key, type] = bytes.fromhex(value)

    def do_nvs_erase(self, space: str, key: str) -> None:
        names = [(space, key, type) for type in (I32, BLOB)]
        found = [name for name in names if self._pending.get(name, self._values.get(name)) is not None]
        if not found:
            raise _error(NOT_FOUND)
        for name in found:
            self._pending[name] = None

    def do_nvs_commit(self, space: str) -> None:
        """Each value is old or new after a power cut, those before it are new, those after it old."""
        for name in [name for name in self._pending if name[0] == space]:
            value = self._pending.pop(name)
            if value != self._values.get(name):
                self._store(name, value)

    def _store(self, name: Key, value: bytes | None) -> None:
        entry = _entry(name, value)
        values = {**self._values, name: value} if value is not None else self._without(name)
        if self._end + len(entry) > self._bank_bytes:
            self._move(values)
        else:
            self._flash.write(self._banks[self._bank] + self._end, entry)
            self._end += len(entry)
        self._values = values

    def _without(self, name: Key) -> dict[Key, bytes]:
        return {other: value for other, value in self._values.items() if other != name}

    def _move(self, values: dict[Key, bytes]) -> None:
        """Write all of them to the other bank, which counts from the moment when its head is there."""
        entries = b"".join(_entry(name, value) for name, value in values.items())
        if HEAD.size + len(entries) > self._bank_bytes:
            raise _error(NOT_ENOUGH_SPACE)
        bank = 1 - self._bank
        start = self._banks[bank]
        for sector in range(0, self._bank_bytes, SECTOR):
            self._flash.erase(start + sector)
        self._flash.write(start + HEAD.size, entries)
        head = struct.pack("<4sI", MAGIC, self._generation + 1)
        self._flash.write(start, head + struct.pack("<I", crc32(head)))
        self._generation += 1
        self._bank = bank
        self._end = HEAD.size + len(entries)

    def _generation_of(self, bank: int) -> int:
        magic, generation, check = HEAD.unpack(self._flash.read(self._banks[bank], HEAD.size))
        return int(generation) if (magic, check) == (MAGIC, crc32(struct.pack("<4sI", MAGIC, generation))) else 0

    def _read(self) -> int:
        """Take the values of the bank; return where the next entry goes: behind what is torn there is no place."""
        raw = self._flash.read(self._banks[self._bank], self._bank_bytes)
        at = HEAD.size
        while at + ENTRY.size <= len(raw):
            check, size, kind, space_size, key_size = ENTRY.unpack_from(raw, at)
            end = at + ENTRY.size + space_size + key_size + size
            if end > len(raw) or crc32(raw[at + 4 : end]) != check:
                break
            names = raw[at + ENTRY.size : end - size].decode()
            name = (names[:space_size], names[space_size:], kind % ERASED)
            self._values.pop(name, None)
            if kind < ERASED:
                self._values[name] = raw[end - size : end]
            at = end
        return at if raw[at:].count(0xFF) == len(raw) - at else self._bank_bytes


def _entry(name: Key, value: bytes | None) -> bytes:
    space, key, kind = name
    kind += ERASED if value is None else 0
    rest = ENTRY.pack(0, len(value or b""), kind, len(space.encode()), len(key.encode()))[4:]
    rest += space.encode() + key.encode() + (value or b"")
    return struct.pack("<I", crc32(rest)) + rest


def _error(code: int) -> OSError:
    return OSError(-code, NAMES[code])
