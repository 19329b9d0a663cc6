"""What was committed just now, in memory: a publisher that keeps up needs no look at the file."""

from __future__ import annotations

from collections.abc import Iterable

from bega.outbox.spool_rows import Row

RECENT_ROWS, RECENT_BYTES = 2_000, 4_000_000


class Recent:
    """The newest stored messages, without those that were forgotten. What is not behind `file_to` is in the file."""

    def __init__(self, last_id: int, file_to: int) -> None:
        """last_id: of the newest stored message; file_to: the newest that is in the file alone."""
        self.last_id = last_id
        self.file_to = file_to
        self._after = last_id  # none of `rows` is older
        self.rows: dict[int, Row] = {}
        self._bytes = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Take in messages whose ids follow the last one's."""
        for row in rows:
            self.rows[row.id] = row
            self._bytes += len(row.payload)
            self.last_id = row.id
        self._trim()

    def find(self, last_id: int) -> None:
        """Take note of messages up to `last_id` that are in the file, though none could be read when it began."""
        if last_id > self.last_id:
            self.last_id = self.file_to = self._after = last_id

    def drop(self, ids: Iterable[int]) -> list[int]:
        """Leave out messages; return those of `ids` that may still be stored."""
        stored = [id_ for id_ in ids if id_ in self.rows or id_ <= self.file_to]
        for id_ in stored:
            row = self.rows.pop(id_, None)
            self._bytes -= len(row.payload) if row else 0
        self._trim()
        return stored

    def take(self, after_id: int, limit: int, up_to_id: int) -> list[Row]:
        """Return the oldest messages behind `after_id`, which is not before `file_to`."""
        rows: list[Row] = []
        for id_ in range(max(after_id, self._after) + 1, min(up_to_id, self.last_id) + 1):
            row = self.rows.get(id_)
            if row is not None:
                rows.append(row)
                if len(rows) == limit:
                    break
        return rows

    def _trim(self) -> None:
        """Keep within the bounds, and `_after` just before the oldest."""
        while self._after < self.last_id:
            oldest = self.rows.get(self._after + 1)
            if oldest is not None:
                if len(self.rows) <= RECENT_ROWS and self._bytes <= RECENT_BYTES:
                    return
                del self.rows[oldest.id]
                self._bytes -= len(oldest.payload)
                self.file_to = oldest.id
            self._after += 1
