"""What an ESP32's flash is divided into, and which half of an over-the-air pair boots.

Spec: ESP-IDF programming guide, "Partition Tables" (table at 0x8000, entries of 32 bytes) and "Over The Air Updates"
(two sectors of otadata, states of "App Rollback"). Codes of errors are the IDF's; MicroPython raises them negated.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from bega_protocols.checks import crc32
from bega_simulators.board.cut import FlashFile

TABLE, TABLE_BYTES, ENTRY = 0x8000, 0xC00, struct.Struct("<2sBBII16sI")
MAGIC = b"\xaa\x50"
APP, DATA = 0, 1
FACTORY, OTA_0, OTA_LAST = 0x00, 0x10, 0x1F
OTADATA, NVS = 0x00, 0x02
ANY = 0xFF
NEW, PENDING, VALID, ABORTED = 0, 1, 2, 4
SECTOR = 4096
OTA_ENTRY = struct.Struct("<I20sII")
IMAGE_MAGIC = 0xE9
NOT_FOUND, NO_SUCH_FILE, VALIDATE_FAILED = 0x105, 2, 0x1503


class Partition(NamedTuple):
    """One row of the table, as MicroPython's Partition.info() gives it."""

    type: int
    subtype: int
    start: int
    size: int
    label: str
    encrypted: bool = False


# ports/esp32/partitions-4MiB.csv: what a flash without a table of its own is taken for.
USUAL = (
    Partition(DATA, NVS, 0x9000, 0x6000, "nvs"),
    Partition(DATA, 0x01, 0xF000, 0x1000, "phy_init"),
    Partition(APP, FACTORY, 0x10000, 0x1F0000, "factory"),
    Partition(DATA, 0x81, 0x200000, 0x200000, "vfs"),
)


def read_table(flash: FlashFile) -> tuple[Partition, ...]:
    """Return the rows of the table on the flash, the usual ones if there is none."""
    rows = []
    raw = flash.read(TABLE, TABLE_BYTES)
    for magic, kind, subtype, start, size, label, flags in ENTRY.iter_unpack(raw):
        if magic != MAGIC:
            break
        rows.append(Partition(kind, subtype, start, size, label.rstrip(b"\0").decode("ascii", "replace"), bool(flags)))
    return tuple(rows) or USUAL


def table_bytes(rows: tuple[Partition, ...]) -> bytes:
    """Return the table with these rows, as it lies on the flash."""
    return b"".join(
        ENTRY.pack(MAGIC, row.type, row.subtype, row.start, row.size, row.label.encode(), row.encrypted) for row in rows
    )


class Bootloader:
    """Chooses what boots, and rolls back what was on trial and did not say that it is well."""

    def __init__(self, flash: FlashFile) -> None:
        self.rows = read_table(flash)
        self._flash = flash
        self._slots = sorted(
            (row for row in self.rows if row.type == APP and OTA_0 <= row.subtype <= OTA_LAST),
            key=lambda row: row.subtype,
        )
        self._data = next((row.start for row in self.rows if (row.type, row.subtype) == (DATA, OTADATA)), None)
        self.running = self._choose()

    def do_partition_find(self, type: int, subtype: int, label: str | None) -> list[Partition]:
        return [
            row
            for row in self.rows
            if row.type == type and subtype in (ANY, row.subtype) and label in (None, row.label)
        ]

    def do_partition(self, which: int | str) -> Partition:
        """0: what boots next; 1: what runs; else by its label."""
        if which == 1:
            return self.running
        if which == 0:
            _, sequence, _ = self._latest()
            return self._slots[(sequence - 1) % len(self._slots)] if sequence else self._first()
        return self._named(str(which))

    def do_partition_next(self, label: str) -> Partition:
        row = self._named(label)
        if not self._slots:
            raise OSError(NO_SUCH_FILE, "no partition for updates")
        place = self._slots.index(row) + 1 if row in self._slots else 0
        return self._slots[place % len(self._slots)]

    def do_partition_set_boot(self, label: str) -> None:
        row = self._named(label)
        if self._flash.read(row.start, 1) != bytes((IMAGE_MAGIC,)):
            raise OSError(-VALIDATE_FAILED, "ESP_ERR_OTA_VALIDATE_FAILED")
        if self._data is None or row not in self._slots:
            raise OSError(-NOT_FOUND, "ESP_ERR_NOT_FOUND")
        place, latest, _ = self._latest()
        sequence = latest + 1
        while (sequence - 1) % len(self._slots) != self._slots.index(row):
            sequence += 1
        self._write(1 - place, sequence, NEW)

    def do_partition_valid(self) -> None:
        place, sequence, state = self._latest()
        if not sequence:
            raise OSError(-NOT_FOUND, "ESP_ERR_NOT_FOUND")
        if state != VALID:
            self._write(place, sequence, VALID)

    def _choose(self) -> Partition:
        place, sequence, state = self._latest()
        if sequence and state == PENDING:
            self._write(place, sequence, ABORTED)
            place, sequence, state = self._latest()
        elif sequence and state == NEW:
            self._write(place, sequence, PENDING)
        return self._slots[(sequence - 1) % len(self._slots)] if sequence else self._first()

    def _first(self) -> Partition:
        return next((row for row in self.rows if row.type == APP), self.rows[0])

    def _named(self, label: str) -> Partition:
        found = next((row for row in self.rows if row.label == label), None)
        if found is None:
            raise OSError(NO_SUCH_FILE, "no such partition")
        return found

    def _latest(self) -> tuple[int, int, int]:
        """Return (its sector, sequence, state) of the entry that counts; sequence 0 if none does."""
        best = (1, 0, VALID)
        if self._data is None or not self._slots:
            return best
        for place in (0, 1):
            raw = self._flash.read(self._data + place * SECTOR, OTA_ENTRY.size)
            sequence, _, state, check = OTA_ENTRY.unpack(raw)
            if check == _check(sequence) and state not in (3, ABORTED) and sequence > best[1]:
                best = (place, sequence, state)
        return best

    def _write(self, place: int, sequence: int, state: int) -> None:
        assert self._data is not None
        at = self._data + place * SECTOR
        self._flash.erase(at)
        self._flash.write(at, OTA_ENTRY.pack(sequence, b"\xff" * 20, state, _check(sequence)))


def _check(sequence: int) -> int:
    """Return the bootloader's CRC of an entry, which covers its sequence alone and begins with ones."""
    return crc32(struct.pack("<I", sequence), 0xFFFFFFFF)
