"""What a spool had no room for: counted by class, said once when it begins and once when it is over."""

from __future__ import annotations

import logging

from bega.outbox.spool_rows import CLASSES, StorageClass

log = logging.getLogger(__name__)


class Losses:
    """Messages that were dropped to make room, and messages that were refused."""

    def __init__(self) -> None:
        """Nothing is lost yet."""
        self.dropped: dict[StorageClass, int] = dict.fromkeys(CLASSES, 0)
        self.refused: dict[StorageClass, int] = dict.fromkeys(CLASSES, 0)
        self._dropped_before: int | None = None  # while some are dropped: how many had been
        self._refused_before: dict[StorageClass, int] = {}  # by class, while it is refused

    def drop(self, storage_class: StorageClass, count: int, where: str) -> None:
        """Count messages that were dropped, the oldest first, `where` it was full."""
        if self._dropped_before is None:
            self._dropped_before = sum(self.dropped.values())
            log.warning("%s is full, the oldest %s messages are dropped count=%d", where, storage_class, count)
        self.dropped[storage_class] += count

    def refuse(self, storage_class: StorageClass) -> None:
        """Count a message that was not taken."""
        if storage_class not in self._refused_before:
            self._refused_before[storage_class] = self.refused[storage_class]
            log.error("%s records refused, the spool is full of what may not be dropped", storage_class)
        self.refused[storage_class] += 1

    def take(self, classes: set[StorageClass]) -> None:
        """Note that messages of `classes` were stored, all that came."""
        for storage_class in classes & self._refused_before.keys():
            count = self.refused[storage_class] - self._refused_before.pop(storage_class)
            log.info("%s records are taken again refused=%d", storage_class, count)

    def has_room(self) -> None:
        """Note that nothing needs to be dropped any more."""
        if self._dropped_before is not None:
            log.info("spool has room again dropped=%d", sum(self.dropped.values()) - self._dropped_before)
            self._dropped_before = None
