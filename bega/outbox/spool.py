"""The store that loses nothing it said it had: messages are committed in groups, and only then called stored.

The commit window is what a power cut may cost. `spool_file.py` has the file,
this module the waiting: what goes into which commit, and who is told.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, TypeVar

from bega.outbox.spool_file import HEADS_KEPT, Entry, Head, Row, SpoolFile, StorageClass

__all__ = ["HEADS_KEPT", "Head", "Row", "Spool", "StorageClass"]

log = logging.getLogger(__name__)

COMMIT_AT_ROWS = 5_000  # a burst is committed before the window ends, so that memory stays bounded
ROOM_ROWS = 20_000  # what may wait for a commit; whoever brings more waits
RETRY_S = 1.0
DELETE_WITHIN_S = 5.0  # what was sent is deleted with the next messages, or by itself after this
RECENT_ROWS, RECENT_BYTES = 2_000, 4_000_000  # kept in memory after the commit: a publisher that keeps up reads no file

Result = TypeVar("Result")


class _Waiting(NamedTuple):
    """A message that waits for its commit, and whom to tell."""

    entry: Entry
    stored: asyncio.Future[None]


class Spool:
    """Messages in the order in which they were stored. One thread (`executor`) owns the file.

    Use: `spool = await Spool.open(...)`, keep `spool.run()` running in a task, `add` and `forget` from the loop.
    """

    def __init__(self, file: SpoolFile, executor: Executor, window_s: float) -> None:
        """Use `open`."""
        self._file = file
        self._executor = executor
        self._window_s = window_s
        self._waiting: list[_Waiting] = []
        self._in_hand = 0  # of these, how many a commit that is under way has taken
        self._heads: list[Head] = []  # that wait for a commit without a message
        self._leaving: set[int] = set()  # what `forget` was told of and no commit has deleted yet
        self._deletion: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()  # something waits for a commit
        self._at_once = asyncio.Event()  # and must not wait for the window
        self._room = asyncio.Event()
        self._room.set()
        self._stored = asyncio.Event()  # replaced at each commit that brought messages
        # All that is stored behind `_file_to` and not forgotten. What lies before is in the file alone.
        self._recent: dict[int, Row] = {}
        self._recent_bytes = 0
        self._recent_after = file.last_id  # none of them is older
        self._file_to = file.last_id if file.rows else 0
        self._rows = file.rows
        self.last_id = file.last_id  # of the newest stored message; 0 if there was none
        self.committed = 0  # messages stored since the start
        self.commits = 0  # rises with each successful commit
        self.tries = 0  # rises with each commit that came to an end, good or bad
        self.set_aside = 0  # messages moved to the table `aside`: refused by whoever they were for, or damaged
        self.failing = False  # the disk takes nothing at the moment

    @classmethod
    async def open(
        cls, path: Path, executor: Executor, *, window_s: float = 1.0, quota_bytes: int = 1_000_000_000
    ) -> Spool:
        """Open or make the store at `path`; a damaged file is set aside with its name said, never a reason to stop.

        quota_bytes: the file grows to this and no further: a full disk could not even be drained (WAL).
        """
        loop = asyncio.get_running_loop()
        return cls(await loop.run_in_executor(executor, SpoolFile, path, quota_bytes), executor, window_s)

    @property
    def depth(self) -> int:
        """How many messages are stored and not yet acknowledged."""
        return max(0, self._rows - len(self._leaving))

    @property
    def quota_bytes(self) -> int:
        """What the file may grow to."""
        return self._file.quota_bytes

    @property
    def used_bytes(self) -> int:
        """What of the file holds something."""
        return self._file.used_bytes

    async def settle(self, window_s: float, quota_bytes: int) -> None:
        """Take another window and another quota, while it runs."""
        self._window_s = window_s
        await self._in_thread(lambda: self._file.set_quota(quota_bytes))

    async def run(self) -> None:
        """Commit what is added, a group at a time, until cancelled; the last group is committed on the way out.

        A full or failing disk is tried again for ever. Raises sqlite3.DatabaseError where the file itself is
        damaged: only a new start, which sets it aside, helps.
        """
        try:
            while True:
                await self._work.wait()
                if self._window_s and not self._at_once.is_set():
                    await _wait_at_most(self._at_once, self._window_s)
                if not await self._commit_whole():
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._commit_whole()
            self._forget_deletion()

    def add(
        self,
        topic: str,
        payload: bytes,
        *,
        storage_class: StorageClass = "routine",
        head: Head | None = None,
        state: tuple[str, bytes] | None = None,
        at_once: bool = False,
    ) -> asyncio.Future[None]:
        """Put one message in the next commit, with what must be true together with it; the result comes when it is.

        storage_class: routine waits for the window; billing and alarm do not.
        head: up to where a node's records are now had; state: (device, what its driver asked to keep).
        at_once: do not wait for the window (records that a node waits for).
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(Entry(topic, payload, storage_class, head, state), stored))
        if len(self._waiting) >= ROOM_ROWS:
            self._room.clear()
        self._wake(at_once or storage_class != "routine" or len(self._waiting) >= COMMIT_AT_ROWS)
        return stored

    def set_head(self, head: Head) -> None:
        """Put a head in the next commit: what lies below counts as had, though it never came."""
        self._heads.append(head)
        self._wake(at_once=True)

    def forget(self, ids: Iterable[int]) -> None:
        """Delete acknowledged messages with the next messages, or soon; a crash before it only sends them again."""
        for id_ in ids:
            if id_ in self._recent or id_ <= self._file_to:  # else it is gone already
                self._leaving.add(id_)
                self._drop_recent(id_)
        if self._leaving and self._deletion is None:
            after_s = max(self._window_s, DELETE_WITHIN_S)
            self._deletion = asyncio.get_running_loop().call_later(after_s, self._wake, True)

    async def refuse(self, row_id: int, reason: str) -> None:
        """Move a message that nobody will ever take to the table `aside`, counted and said."""
        moved = await self._in_thread(lambda: self._file.set_aside([row_id], reason))
        self._drop_recent(row_id)
        self._rows -= moved
        self.set_aside += moved
        if moved:
            log.error("message refused, set aside in the spool's table `aside` id=%d reason=%s", row_id, reason)

    @property
    def waiting(self) -> int:
        """How many messages are not yet committed."""
        return self._in_hand + len(self._waiting)

    def has_room(self) -> bool:
        """Return whether another message may be added; `room` waits for it."""
        return self._room.is_set()

    async def room(self) -> None:
        """Wait while more than enough waits for a commit."""
        await self._room.wait()

    async def take(self, after_id: int, limit: int, up_to_id: int | None = None) -> list[Row]:
        """Return the oldest messages behind `after_id`, in order, without those that `forget` was told of.

        up_to_id: none behind this one. What was committed just now comes from memory, without a look at the file.
        """
        up_to_id = self.last_id if up_to_id is None else up_to_id
        while True:
            if after_id >= self._file_to:
                return self._take_recent(after_id, limit, up_to_id)
            found, aside = await self._in_thread(functools.partial(self._file.take, after_id, limit, up_to_id))
            self._rows -= aside
            self.set_aside += aside
            rows = [row for row in found if row.id not in self._leaving]
            if rows or not found:
                return rows
            after_id = found[-1].id

    def next_commit(self) -> asyncio.Event:
        """Return the event that the next commit with messages sets; fetched before `take`, none can be missed."""
        return self._stored

    async def heads(self) -> dict[tuple[str, int], int]:
        """Return {(source, boot): seq} of all nodes."""
        return await self._in_thread(self._file.heads)

    async def driver_states(self) -> dict[str, bytes]:
        """Return what each driver asked to keep."""
        return await self._in_thread(self._file.driver_states)

    async def close(self) -> None:
        """Close the file; `run` must have ended."""
        self._forget_deletion()
        await self._in_thread(self._file.close)

    def _wake(self, at_once: bool) -> None:
        self._work.set()
        if at_once:
            self._at_once.set()

    def _forget_deletion(self) -> None:
        if self._deletion:
            self._deletion.cancel()
        self._deletion = None

    async def _commit_whole(self) -> bool:
        """Commit what waits; whoever is cancelled meanwhile waits until it is known what became of it."""
        commit = asyncio.create_task(self._commit_group())
        try:
            return await asyncio.shield(commit)
        except asyncio.CancelledError:
            await commit
            raise

    async def _commit_group(self) -> bool:
        """Commit what waits; return whether that worked. On failure all of it waits for the next try."""
        self._work.clear()
        self._at_once.clear()
        self._forget_deletion()
        waiting, self._waiting = self._waiting, []
        heads, self._heads = self._heads, []
        sent = frozenset(self._leaving)
        if not (waiting or heads or sent):
            return True
        entries = [each.entry for each in waiting]
        self._in_hand = len(waiting)
        try:
            outcome = await self._in_thread(lambda: self._file.commit(entries, heads, sent))
        except sqlite3.OperationalError as error:
            await self._drain(sent)
            self._put_back(waiting, heads)
            if not self.failing:
                log.error("spool cannot store, what comes waits in memory error=%s", error)
            self.failing = True
            return False
        except BaseException:
            self._put_back(waiting, heads)
            raise
        finally:
            self._in_hand = 0
            self.tries += 1
        if self.failing:
            log.info("spool stores again rows=%d", len(waiting))
        self.failing = False
        self._room.set()
        self._leaving -= sent
        self._rows += len(waiting) - outcome.deleted
        self.commits += 1
        self._tell_stored(waiting, outcome.first_id)
        return True

    def _tell_stored(self, waiting: list[_Waiting], first_id: int) -> None:
        if not waiting:
            return
        for id_, (entry, stored) in enumerate(waiting, first_id):
            self._recent[id_] = Row(id_, entry.topic, entry.payload)
            self._recent_bytes += len(entry.payload)
            if not stored.done():  # whoever waited may have been cancelled; the row is stored all the same
                stored.set_result(None)
        self.last_id = first_id + len(waiting) - 1
        self.committed += len(waiting)
        self._trim_recent()
        arrived, self._stored = self._stored, asyncio.Event()
        arrived.set()

    def _take_recent(self, after_id: int, limit: int, up_to_id: int) -> list[Row]:
        rows: list[Row] = []
        for id_ in range(max(after_id, self._recent_after) + 1, min(up_to_id, self.last_id) + 1):
            row = self._recent.get(id_)
            if row is not None:
                rows.append(row)
                if len(rows) == limit:
                    break
        return rows

    def _drop_recent(self, id_: int) -> None:
        row = self._recent.pop(id_, None)
        if row is not None:
            self._recent_bytes -= len(row.payload)
            self._trim_recent()

    def _trim_recent(self) -> None:
        """Keep what is in memory within its bounds, and `_recent_after` just before the oldest of it."""
        while self._recent_after < self.last_id:
            oldest = self._recent.get(self._recent_after + 1)
            if oldest is not None:
                if len(self._recent) <= RECENT_ROWS and self._recent_bytes <= RECENT_BYTES:
                    return
                del self._recent[oldest.id]
                self._recent_bytes -= len(oldest.payload)
                self._file_to = oldest.id
            self._recent_after += 1

    async def _drain(self, sent: frozenset[int]) -> None:
        """Delete what was sent, by itself: a full spool takes nothing new, and must become empty all the same."""
        if not sent:
            return
        try:
            self._rows -= await self._in_thread(lambda: self._file.delete(sent))
        except sqlite3.OperationalError:
            return
        self._leaving -= sent

    def _put_back(self, waiting: list[_Waiting], heads: list[Head]) -> None:
        self._waiting = waiting + self._waiting
        self._heads = heads + self._heads
        self._wake(at_once=True)  # it has waited long enough

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
