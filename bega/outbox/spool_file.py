"""The spool's SQLite file: WAL, `synchronous=FULL`, its own quota. Everything here runs in the one thread that owns it.

With `synchronous=NORMAL` 910 of 1,552 acknowledged rows were lost over crash
images, with FULL none of 2,040. A full disk could not even be drained in WAL
mode, so the file has a quota of its own (`max_page_count`).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from bega.outbox import spool_open
from bega.outbox.spool_open import CHANGED, INSERT_HEAD, INSERT_MESSAGE, INSERT_STATE, Opened
from bega.outbox.spool_rows import CLASSES, ROUTINE, Entry, Head, Row, StorageClass, ranges_of, row_of
from bega.outbox.spool_salvage import heads_in, states_in

log = logging.getLogger(__name__)

LEAST_PAGES = 64
RESERVE = 50  # one page of so many stays free for alarms, heads and deletes
DROP_ROWS = 100  # so many are dropped at once, so that the next commits find room
HEADS_KEPT = 32  # boots of one source whose head is remembered; a node that holds older ones says so itself
LARGEST_ID = 2**63 - 1
STEP_PAGES = 2_000  # 4 MB: a smaller quota is reached by so much with each commit
# Messages in one statement. Around each step of SQLite the lock of the interpreter is let go and has to be won back,
# which a busy loop makes a matter of milliseconds: with a step a message a commit of 500 took longer than a second.
AT_ONCE = 50
INSERT_MANY = INSERT_MESSAGE + ", (?, ?, ?, ?, ?)" * (AT_ONCE - 1)


@dataclass
class Outcome:
    """What one commit did."""

    first_id: int  # of the stored messages; the others follow without a gap
    deleted: int = 0
    refused: set[int] = field(default_factory=set)  # places in `entries` for which there was no room
    dropped: dict[int, StorageClass] = field(default_factory=dict)  # ids that made room


class Reopened(NamedTuple):
    """What a file that was opened again holds."""

    written_again: int  # messages that memory had and the file had not
    rows: int
    last_id: int


class SpoolFile:
    """Messages by rising id, node heads and driver states in one SQLite file."""

    def __init__(self, path: Path, quota_bytes: int) -> None:
        """Open or make the file at `path`; a damaged one is set aside and salvaged, never a reason to stop.

        quota_bytes: the file grows to this and no further. Where the disk takes nothing, `writable` is False.
        Raises sqlite3.OperationalError if the place cannot be used at all.
        """
        self._path = path
        self._quota_bytes = quota_bytes
        self.quota_bytes = self.used_bytes = 0
        # As the last commit left them that is known to have worked: the ids, and these two.
        self._heads: dict[str, dict[int, int]] = {}  # source: {boot: seq}
        self._states: dict[str, bytes] = {}
        opened = spool_open.open_spool(path)
        self._begin(opened)
        self.last_id = opened.last_id
        self._knows_last_commit = self.writable
        self._note(opened)

    def _begin(self, opened: Opened) -> None:
        self._database = opened.database
        self.writable = opened.writable
        self._routine_after = 0  # no routine message has a smaller id
        self.set_quota(self._quota_bytes)
        self.rows = opened.rows

    def _note(self, opened: Opened) -> None:
        self._heads = {}
        for (source, boot), seq in opened.heads.items():
            self._heads.setdefault(source, {})[boot] = seq
        self._states = opened.states

    def set_quota(self, quota_bytes: int) -> None:
        """Let the file grow to `quota_bytes`; one that is larger already keeps its size and becomes empty inside.

        It does so by STEP_PAGES with each commit: all at once would be a commit of minutes, and a journal as large.
        """
        self._quota_bytes = quota_bytes
        self._page_bytes = self._ask("PRAGMA page_size")
        self._quota_pages = max(LEAST_PAGES, quota_bytes // self._page_bytes)
        self.quota_bytes = self._quota_pages * self._page_bytes
        self._database.execute(f"PRAGMA max_page_count = {self._quota_pages}")
        self._measure()

    def commit(self, entries: Sequence[Entry], heads: Iterable[Head], sent: Iterable[int]) -> Outcome:
        """Store `entries` and `heads` and delete what was `sent`, all or nothing, but for what finds no room."""
        outcome = Outcome(self.last_id + 1)
        heads = list(heads)
        with self._transaction():
            outcome.deleted = self._delete_rows(ranges_of(sent))  # first: what it frees, the new ones may use
            self._make_room(entries, outcome)
            kept = entries
            if outcome.refused:
                kept = [entry for place, entry in enumerate(entries) if place not in outcome.refused]
                lost = {head.key for place in outcome.refused if (head := entries[place].head)}
                heads = [head for head in heads if head.key not in lost]  # they count what lies below as had
            self._insert(outcome.first_id, kept)
            heads += [entry.head for entry in kept if entry.head]
            self._raise_heads(heads)
            states = dict(entry.state for entry in kept if entry.state)
            self._put_states(states)
        self._note_heads(heads)
        self._states |= states
        self.last_id += len(kept)
        self.rows += len(kept) - outcome.deleted - len(outcome.dropped)
        if outcome.dropped:
            self._routine_after = max(outcome.dropped)
        self._measure()
        return outcome

    def delete(self, ids: Iterable[int]) -> int:
        """Delete messages, all or none; return how many there were."""
        with self._transaction():
            deleted = self._delete_rows(ranges_of(ids))
        self.rows -= deleted
        self._measure()
        return deleted

    def take(self, after_id: int, limit: int, up_to_id: int | None) -> tuple[list[Row], int]:
        """Return the next messages, and how many were set aside because their bytes changed on the card.

        SQLite notices a broken page, not a flipped bit in a value: what is sent must be what was stored.
        """
        aside = 0
        while True:
            found = self._database.execute(
                "SELECT id, CAST(topic AS BLOB), payload, crc, class FROM outbox"
                " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after_id, LARGEST_ID if up_to_id is None else up_to_id, limit),
            ).fetchall()
            rows = [row for row in (row_of(*fields) for fields in found) if row]
            if len(rows) == len(found) or (rows and not self.writable):
                return rows, aside
            if not self.writable:  # none is whole and none can be set aside: "no more" would hide what lies behind
                after_id = found[-1][0]
                continue
            damaged = {fields[0] for fields in found} - {row.id for row in rows}
            aside += self.set_aside(sorted(damaged), CHANGED)
            log.error("messages damaged in the spool, set aside in its table `aside` count=%d", len(damaged))

    def set_aside(self, ids: Sequence[int], reason: str) -> int:
        """Move messages to the table `aside`, where nobody sends them; return how many there were."""
        with self._transaction():
            for id_ in ids:
                self._database.execute(
                    "REPLACE INTO aside (id, reason, topic, payload, crc)"
                    " SELECT id, ?, topic, payload, crc FROM outbox WHERE id = ?",
                    (reason, id_),
                )
            deleted = self._delete_rows(ranges_of(ids))
        self.rows -= deleted
        return deleted

    def heads(self) -> dict[tuple[str, int], int]:
        """Return {(source, boot): seq} of all nodes; one that changed on the card is not there, the node helps."""
        return {head.key: head.seq for head in heads_in(self._database)}

    def driver_states(self) -> dict[str, bytes]:
        """Return what each driver asked to keep."""
        return states_in(self._database)

    def reopen(self, remembered: Iterable[Row], damaged: Exception | None) -> Reopened:
        """Close the file, open it again from the medium, and store again what of `remembered` is not in it.

        What a commit left there that was not known to have worked is taken back, its heads and driver states too:
        they would free at the node what was never called stored.
        damaged: what shows that the file itself is bad, so that it is set aside and salvaged first.
        Raises sqlite3.OperationalError while the disk takes nothing.
        """
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        try:
            spool_open.forget_cached(self._path)
            if damaged:
                spool_open.set_aside(self._path, damaged)
            opened = spool_open.open_spool(self._path)
        except (OSError, sqlite3.OperationalError) as error:
            self._database, self.writable = spool_open.substitute(self._path).database, False
            raise sqlite3.OperationalError(str(error)) from None
        self._begin(opened)
        if not self.writable:
            raise sqlite3.OperationalError("the disk takes nothing")
        with self._transaction():
            deleted = 0
            if self._knows_last_commit:  # one whose fsync failed may be in the file all the same; it is tried again
                deleted = self._delete_rows([(self.last_id + 1, LARGEST_ID)])
                self._put_back_heads_and_states(opened)
            missing = [row for row in remembered if not self._holds(row)]
            deleted += self._delete_rows(ranges_of(row.id for row in missing))
            self._database.executemany(INSERT_MESSAGE, [spool_open.message_fields(*row) for row in missing])
        if not self._knows_last_commit:
            self.last_id = max(self.last_id, opened.last_id)
            self._note(opened)
        self._knows_last_commit = True
        self.rows += len(missing) - deleted
        self._measure()
        return Reopened(len(missing), self.rows, self.last_id)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _put_back_heads_and_states(self, opened: Opened) -> None:
        heads = [Head(source, *boot) for source, boots in self._heads.items() for boot in boots.items()]
        if opened.heads != {head.key: head.seq for head in heads}:
            self._database.execute("DELETE FROM head")
            self._raise_heads(heads)
        if opened.states != self._states:
            self._database.execute("DELETE FROM driver_state")
            self._put_states(self._states)

    def _holds(self, row: Row) -> bool:
        fields = self._database.execute(
            "SELECT id, CAST(topic AS BLOB), payload, crc, class FROM outbox WHERE id = ?", (row.id,)
        ).fetchone()
        return fields is not None and row_of(*fields) == row

    def _make_room(self, entries: Sequence[Entry], outcome: Outcome) -> None:
        """Drop the oldest routine messages for new ones; what finds no room even so is refused.

        Billing and alarms are never dropped for others, and find room before what is routine.
        """
        step = self.used_bytes // self._page_bytes - STEP_PAGES
        self._most_pages = max(self._quota_pages, step + step // (RESERVE - 1))  # its reserve is no part of the step
        if 2 * sum(entry.size_bytes for entry in entries) + LEAST_PAGES // 4 * self._page_bytes < self._room_bytes(
            "routine"
        ):
            return  # twice: a page may be left half empty
        need_bytes = sum(map(self._cost_bytes, entries))
        while need_bytes > self._room_bytes("routine") and self._drop_routine(outcome):
            pass
        taken_bytes = 0
        without: set[tuple[str, int]] = set()  # a node's records come in order: no later one in the place of a lost one
        places = sorted(range(len(entries)), key=lambda place: -CLASSES.index(entries[place].storage_class))
        for place in places:
            entry = entries[place]
            cost_bytes = self._cost_bytes(entry)
            fits = taken_bytes + cost_bytes <= self._room_bytes(entry.storage_class)
            if fits and not (entry.head and entry.head.key in without):
                taken_bytes += cost_bytes
                continue
            outcome.refused.add(place)
            if entry.head:
                without.add(entry.head.key)

    def _drop_routine(self, outcome: Outcome) -> bool:
        after_id = next(reversed(outcome.dropped), self._routine_after)  # they rise
        ids = [
            row[0]
            for row in self._database.execute(
                "SELECT id FROM outbox WHERE id > ? AND class = ? ORDER BY id LIMIT ?", (after_id, ROUTINE, DROP_ROWS)
            )
        ]
        self._delete_rows(ranges_of(ids))
        outcome.dropped.update(dict.fromkeys(ids, CLASSES[ROUTINE]))
        return bool(ids)

    def _room_bytes(self, storage_class: StorageClass) -> int:
        reserve = 0 if storage_class == "alarm" else max(8, self._most_pages // RESERVE)
        used = self._ask("PRAGMA page_count") - self._ask("PRAGMA freelist_count")
        return (self._most_pages - reserve - used) * self._page_bytes

    def _cost_bytes(self, entry: Entry) -> int:
        """Return what an entry takes of pages, at most."""
        body_bytes = self._page_bytes - 48
        if entry.size_bytes > body_bytes:
            return (2 + entry.size_bytes // body_bytes) * self._page_bytes
        return self._page_bytes // (body_bytes // entry.size_bytes)

    def _insert(self, first_id: int, entries: Sequence[Entry]) -> None:
        rows = [
            spool_open.message_fields(id_, entry.topic, entry.payload, entry.storage_class)
            for id_, entry in enumerate(entries, first_id)
        ]
        whole = len(rows) - len(rows) % AT_ONCE
        for place in range(0, whole, AT_ONCE):
            self._database.execute(INSERT_MANY, list(chain.from_iterable(rows[place : place + AT_ONCE])))
        self._database.executemany(INSERT_MESSAGE, rows[whole:])

    def _raise_heads(self, heads: Sequence[Head]) -> None:
        highest: dict[tuple[str, int], Head] = {}
        for head in heads:
            highest[head.key] = max(head, highest.get(head.key, head))
        self._database.executemany(INSERT_HEAD, [spool_open.head_fields(head) for head in highest.values()])
        for source in Counter(head.source for head in heads):
            self._database.execute(
                "DELETE FROM head WHERE source = ?1 AND boot NOT IN"
                " (SELECT boot FROM head WHERE source = ?1 ORDER BY boot DESC LIMIT ?2)",
                (source, HEADS_KEPT),
            )

    def _note_heads(self, heads: Sequence[Head]) -> None:
        """Remember `heads` as `_raise_heads` has them in the file."""
        for source, boot, seq in heads:
            boots = self._heads.setdefault(source, {})
            boots[boot] = max(seq, boots.get(boot, seq))
        for source in {head.source for head in heads}:
            for boot in sorted(self._heads[source])[:-HEADS_KEPT]:
                del self._heads[source][boot]

    def _put_states(self, states: dict[str, bytes]) -> None:
        self._database.executemany(INSERT_STATE, [spool_open.state_fields(*state) for state in states.items()])

    def _delete_rows(self, ranges: Iterable[tuple[int, int]]) -> int:
        before = self._database.total_changes
        self._database.executemany("DELETE FROM outbox WHERE id BETWEEN ? AND ?", ranges)
        return self._database.total_changes - before

    def _measure(self) -> None:
        pages = self._ask("PRAGMA page_count") - self._ask("PRAGMA freelist_count")
        self.used_bytes = pages * self._page_bytes

    def _ask(self, question: str) -> int:
        return int(self._database.execute(question).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._database.in_transaction:  # a rollback failed together with what it was to undo
            self._database.rollback()
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield
