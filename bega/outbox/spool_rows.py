"""What a spool holds: messages with their class and check value, and how much room each takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

from bega_protocols.checks import crc32

StorageClass = Literal["routine", "billing", "alarm"]
CLASSES: tuple[StorageClass, ...] = get_args(StorageClass)  # the file holds the place in this row: append only
ROUTINE = CLASSES.index("routine")


class Row(NamedTuple):
    """One message on its way out."""

    id: int
    topic: str
    payload: bytes
    storage_class: StorageClass = "routine"


class Head(NamedTuple):
    """Up to where the records of one boot of a node are stored."""

    source: str
    boot: int
    seq: int

    @property
    def key(self) -> tuple[str, int]:
        """What has one head: a boot of a node."""
        return self.source, self.boot


class Entry(NamedTuple):
    """One message to be stored, with what must be true together with it."""

    topic: str
    payload: bytes
    storage_class: StorageClass = "routine"
    head: Head | None = None
    state: tuple[str, bytes] | None = None  # (device, what its driver asked to keep)

    @property
    def size_bytes(self) -> int:
        """What it takes in memory and, before its page is full, in the file."""
        return len(self.topic) + len(self.payload) + 32


class SpoolFull(Exception):
    """There is no room for a message, and what is stored may not be dropped for it.

    Whoever holds a copy keeps it; else it is lost, and counted.
    """


def crc_of(topic: bytes, payload: bytes) -> int:
    """Return the check value of a message."""
    return crc32(payload, crc32(topic))


def crc_of_head(source: str, boot: int, seq: int) -> int:
    """Return the check value of a head: one that grew on the card would free records that never came."""
    return crc32(f"{source} {boot} {seq}".encode())


def row_of(id_: object, topic: object, payload: object, crc: object, storage_class: object) -> Row | None:
    """Return the message that was stored; None if any of it changed since, or it is none of ours.

    `topic` as bytes: a flipped bit makes a text of the file no text at all.
    """
    if not (isinstance(id_, int) and isinstance(topic, bytes) and isinstance(payload, bytes)):
        return None
    if crc != crc_of(topic, payload):
        return None
    if not (isinstance(storage_class, int) and 0 <= storage_class < len(CLASSES)):
        storage_class = ROUTINE
    return Row(id_, topic.decode(), payload, CLASSES[storage_class])


def ranges_of(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Return `ids` as closed ranges, so that neighbours go in one statement."""
    ranges: list[tuple[int, int]] = []
    for id_ in sorted(ids):
        if ranges and id_ <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], id_)
        else:
            ranges.append((id_, id_))
    return ranges
