"""The store that loses nothing it said it had: messages are committed in groups, and only then called stored.

The commit window is what a power cut may cost. `spool_file.py` has the file,
this module the waiting: what goes into which commit, and who is told.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, TypeVar

from bega.outbox.aside import is_damage
from bega.outbox.spool_file import HEADS_KEPT, Outcome, SpoolFile
from bega.outbox.spool_losses import Losses
from bega.outbox.spool_recent import Recent
from bega.outbox.spool_rows import Entry, Head, Row, SpoolFull, StorageClass

__all__ = ["HEADS_KEPT", "Head", "Row", "Spool", "SpoolFull", "StorageClass"]

log = logging.getLogger(__name__)

COMMIT_AT_ROWS = 500  # a burst is committed before the window ends
# What may wait for a commit; whoever brings more waits. A group behind the one in hand is enough: with more, a machine
# at its limit reads what it cannot store (the thread of the commit got one turn in a second of 6,000 readings).
ROOM_ROWS = 1_000
MEMORY_ROWS, MEMORY_BYTES = 20_000, 16_000_000  # what may wait while the disk takes nothing
RETRY_S = 1.0
DELETE_WITHIN_S = 5.0  # what was sent is deleted with the next messages, or by itself after this
MOST_MENDS = 3  # of a file that is damaged again before it took anything; then only a new start is left
REOPENED_AFTER = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
DEFAULT_QUOTA_BYTES = 1_000_000_000

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
        self._waiting_bytes = 0
        self._heads: list[Head] = []  # that wait for a commit without a message
        self._without: dict[tuple[str, int], int] = {}  # (source, boot): the first record that was refused
        self._leaving: set[int] = set()  # what `forget` was told of and no commit has deleted yet
        self._deletion: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()  # something waits for a commit
        self._at_once = asyncio.Event()  # and must not wait for the window
        self._room = asyncio.Event()
        self._room.set()
        self._stored = asyncio.Event()  # replaced at each commit that brought messages
        self._recent = Recent(file.last_id, file.last_id if file.rows else 0)
        self._rows = file.rows
        self._losses = Losses()
        self._mending = asyncio.Lock()
        self._fault: Exception | None = None  # after which nothing may be called stored before the file was reopened
        self._mends = 0  # since the start
        self._in_vain = {"commit": 0, "take": 0}  # mends since each of the two last worked
        self.committed = 0  # messages stored since the start
        self.commits = 0  # rises with each successful commit
        self.tries = 0  # rises with each commit that came to an end, good or bad
        self._in_hand = 0  # messages that a commit under way has taken
        self.set_aside = 0  # messages moved to the table `aside`: refused by whoever they were for, or damaged
        self.failing = False  # the disk takes nothing at the moment
        if not file.writable:
            self._fail(sqlite3.OperationalError("the disk takes nothing"))
            self._wake(at_once=True)

    @classmethod
    async def open(
        cls, path: Path, executor: Executor, *, window_s: float = 1.0, quota_bytes: int = DEFAULT_QUOTA_BYTES
    ) -> Spool:
        """Open or make the store at `path`; a damaged file is set aside and salvaged, never a reason to stop.

        quota_bytes: the file grows to this and no further: a full disk could not even be drained (WAL).
        Where the disk takes nothing, messages wait in memory. Raises sqlite3.OperationalError if the place itself
        cannot be used (no permission).
        """
        loop = asyncio.get_running_loop()
        return cls(await loop.run_in_executor(executor, SpoolFile, path, quota_bytes), executor, window_s)

    @property
    def last_id(self) -> int:
        """The id of the newest stored message; 0 if there was none."""
        return self._recent.last_id

    @property
    def depth(self) -> int:
        """How many messages are stored and not yet acknowledged."""
        return max(0, self._rows - len(self._leaving))

    @property
    def waiting(self) -> int:
        """How many messages are not yet committed; those of a commit under way are not."""
        return self._in_hand + len(self._waiting)

    @property
    def quota_bytes(self) -> int:
        """What the file may grow to."""
        return self._file.quota_bytes

    @property
    def used_bytes(self) -> int:
        """What of the file holds something."""
        return self._file.used_bytes

    @property
    def dropped(self) -> dict[StorageClass, int]:
        """How many messages of each class made room for newer ones, since the start."""
        return self._losses.dropped

    @property
    def refused(self) -> dict[StorageClass, int]:
        """How many messages of each class found no room, since the start."""
        return self._losses.refused

    async def settle(self, window_s: float, quota_bytes: int) -> None:
        """Take another window and another quota, while it runs."""
        self._window_s = window_s
        await self._in_thread(lambda: self._file.set_quota(quota_bytes))

    async def run(self) -> None:
        """Commit what is added, a group at a time, until cancelled; the last group is committed on the way out.

        A full or failing disk is tried again for ever, and a damaged file is set aside and salvaged. Raises
        sqlite3.DatabaseError if that does not help.
        """
        try:
            while True:
                await self._work.wait()
                if self._window_s and not self._at_once.is_set():
                    await _wait_at_most(self._at_once, self._window_s)
                if not await self._commit_whole():
                    await asyncio.sleep(RETRY_S)
        finally:
            try:
                await self._commit_whole()
            finally:
                self._cancel_deletion()
                self._say_what_is_lost()

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

        The result is SpoolFull if there is no room for it: neither its head nor its state is stored then, and no
        later record of that node's boot before this one has come again.
        storage_class: routine waits for the window, and the oldest is dropped when the spool is full; billing and
        alarm do not wait, and are never dropped for others.
        head: up to where a node's records are now had; state: (device, what its driver asked to keep).
        at_once: do not wait for the window (records that a node waits for).
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        message = _Waiting(Entry(topic, payload, storage_class, head, state), stored)
        if head and head.seq > self._without.get(head.key, head.seq):
            self._refuse(message)
            return stored
        if head:
            self._without.pop(head.key, None)
        self._waiting.append(message)
        self._waiting_bytes += message.entry.size_bytes
        if self._is_over():
            self._make_room()
        self._wake(at_once or storage_class != "routine" or len(self._waiting) >= COMMIT_AT_ROWS)
        return stored

    def set_head(self, head: Head) -> None:
        """Put a head in the next commit: what lies below counts as had, though it never came."""
        if head.seq >= self._without.get(head.key, head.seq):
            self._without.pop(head.key, None)
        self._heads.append(head)
        self._wake(at_once=True)

    def forget(self, ids: Iterable[int]) -> None:
        """Delete acknowledged messages with the next messages, or soon; a crash before it only sends them again."""
        self._leaving.update(self._recent.drop(ids))
        if self._leaving and self._deletion is None:
            after_s = max(self._window_s, DELETE_WITHIN_S)
            self._deletion = asyncio.get_running_loop().call_later(after_s, self._wake, True)

    async def refuse(self, row_id: int, reason: str) -> None:
        """Move a message that nobody will ever take to the table `aside`, counted and said."""
        moved = await self._in_thread(lambda: self._file.set_aside([row_id], reason))
        self._recent.drop([row_id])
        self._rows -= moved
        self.set_aside += moved
        if moved:
            log.error("message refused, set aside in the spool's table `aside` id=%d reason=%s", row_id, reason)

    def has_room(self) -> bool:
        """Return whether a record may be added that its node keeps until it is stored."""
        return self._room.is_set() and not self.failing

    async def room(self) -> None:
        """Wait while more than enough waits for a commit. On a disk that takes nothing, the oldest make room."""
        await self._room.wait()

    async def take(self, after_id: int, limit: int, up_to_id: int | None = None) -> list[Row]:
        """Return the oldest messages behind `after_id`, in order, without those that `forget` was told of.

        up_to_id: none behind this one. What was committed just now comes from memory, without a look at the file.
        """
        up_to_id = self.last_id if up_to_id is None else up_to_id
        while True:
            if after_id >= self._recent.file_to:
                return self._recent.take(after_id, limit, up_to_id)
            mends = self._mends
            try:
                found, aside = await self._in_thread(functools.partial(self._file.take, after_id, limit, up_to_id))
            except sqlite3.DatabaseError as error:
                if not _calls_for_mending(error):
                    raise
                if self.failing:  # it cannot be mended now, and must not end those who have what waits in memory
                    raise sqlite3.OperationalError(str(error)) from error
                if self._mends == mends:  # nobody else has mended it meanwhile
                    await self._mend(error, "take")
                continue
            self._in_vain["take"] = 0
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
        return await self._in_thread(lambda: self._file.heads())

    async def driver_states(self) -> dict[str, bytes]:
        """Return what each driver asked to keep."""
        return await self._in_thread(lambda: self._file.driver_states())

    async def close(self) -> None:
        """Close the file; `run` must have ended."""
        self._cancel_deletion()
        await self._in_thread(lambda: self._file.close())

    def _wake(self, at_once: bool) -> None:
        self._work.set()
        if at_once:
            self._at_once.set()

    def _cancel_deletion(self) -> None:
        if self._deletion:
            self._deletion.cancel()
        self._deletion = None

    def _say_what_is_lost(self) -> None:
        """Say what waited in memory to the last; the records of nodes are not lost, their nodes keep them."""
        lost = Counter(each.entry.storage_class for each in self._waiting if not each.entry.head)
        if lost:
            log.error(
                "records could not be stored and are lost count=%d routine=%d billing=%d alarm=%d",
                lost.total(), lost["routine"], lost["billing"], lost["alarm"],
            )  # fmt: skip

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
        self._cancel_deletion()
        if self._fault and not await self._mended():
            self.tries += 1
            return False
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        heads, self._heads = self._heads, []
        sent = frozenset(self._leaving)
        if not (waiting or heads or sent):
            return True
        entries = [each.entry for each in waiting]
        self._in_hand = len(waiting)
        try:
            outcome = await self._in_thread(lambda: self._file.commit(entries, heads, sent))
        except sqlite3.DatabaseError as error:
            await self._drain(sent)
            self._put_back(waiting, heads)
            self._fail(error)
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
        self._in_vain["commit"] = 0
        self._room.set()
        self._leaving -= sent
        self._rows -= outcome.deleted
        self.commits += 1
        self._settle_losses(waiting, outcome)
        self._tell_stored([each for place, each in enumerate(waiting) if place not in outcome.refused], outcome)
        return True

    def _tell_stored(self, waiting: list[_Waiting], outcome: Outcome) -> None:
        if not waiting:
            return
        self._recent.add(
            Row(id_, entry.topic, entry.payload, entry.storage_class)
            for id_, (entry, _) in enumerate(waiting, outcome.first_id)
        )
        for _, stored in waiting:
            if not stored.done():  # whoever waited may have been cancelled; the row is stored all the same
                stored.set_result(None)
        self._rows += len(waiting)
        self.committed += len(waiting)
        arrived, self._stored = self._stored, asyncio.Event()
        arrived.set()

    def _settle_losses(self, waiting: list[_Waiting], outcome: Outcome) -> None:
        """Count what made room and what found none; the records of a node that come after a refused one go with it."""
        if outcome.dropped:
            self._losses.drop("routine", len(outcome.dropped), "spool")
            self._recent.drop(outcome.dropped)
            self._leaving.difference_update(outcome.dropped)
            self._rows -= len(outcome.dropped)
        elif self.used_bytes < 0.9 * self.quota_bytes:
            self._losses.has_room()
        classes = {each.entry.storage_class for each in waiting}
        self._losses.take(classes - {waiting[place].entry.storage_class for place in outcome.refused})
        for place in sorted(outcome.refused):
            self._refuse(waiting[place])
        if any(waiting[place].entry.head for place in outcome.refused):
            later, self._waiting = self._waiting, []
            for each in later:
                head = each.entry.head
                if head and head.seq > self._without.get(head.key, head.seq):
                    self._refuse(each)
                else:
                    self._waiting.append(each)
            self._heads = [head for head in self._heads if head.key not in self._without]

    def _refuse(self, message: _Waiting) -> None:
        head = message.entry.head
        if head:
            self._without[head.key] = min(head.seq, self._without.get(head.key, head.seq))
        self._losses.refuse(message.entry.storage_class)
        if not message.stored.done():
            message.stored.set_exception(SpoolFull("no room in the spool"))
            message.stored.exception()  # heard: who does not wait for it is not told a second time

    def _is_over(self) -> bool:
        most = MEMORY_ROWS if self.failing else ROOM_ROWS
        return len(self._waiting) >= most or self._waiting_bytes >= MEMORY_BYTES

    def _make_room(self) -> None:
        """Have whoever brings more wait; on a disk that takes nothing, let the oldest routine messages go instead.

        Records of nodes are not among them: their nodes keep them, since `has_room` says no.
        """
        if not self.failing:
            self._room.clear()
        elif not self._drop_oldest():
            self._waiting_bytes -= self._waiting[-1].entry.size_bytes
            self._refuse(self._waiting.pop())

    def _drop_oldest(self) -> bool:
        """Let a sixteenth of what waits go, or all that is too much; return whether there was any that may go."""
        surplus = max(1, len(self._waiting) // 16, len(self._waiting) - MEMORY_ROWS)
        kept: list[_Waiting] = []
        gone: list[_Waiting] = []
        for each in self._waiting[:-1]:
            may_go = each.entry.storage_class == "routine" and not each.entry.head
            (gone if may_go and len(gone) < surplus else kept).append(each)
        if not gone:
            return False
        self._losses.drop("routine", len(gone), "memory")
        for each in gone:
            if not each.stored.done():
                each.stored.set_exception(SpoolFull("dropped for a newer one while the disk took nothing"))
                each.stored.exception()
        self._waiting = [*kept, self._waiting[-1]]
        self._waiting_bytes = sum(each.entry.size_bytes for each in self._waiting)
        return True

    async def _drain(self, sent: frozenset[int]) -> None:
        """Delete what was sent, by itself: a full disk takes nothing new, and must become empty all the same."""
        if not sent:
            return
        try:
            self._rows -= await self._in_thread(lambda: self._file.delete(sent))
        except sqlite3.DatabaseError:
            return
        self._leaving -= sent

    def _put_back(self, waiting: list[_Waiting], heads: list[Head]) -> None:
        self._waiting = waiting + self._waiting
        self._waiting_bytes = sum(each.entry.size_bytes for each in self._waiting)
        self._heads = heads + self._heads
        self._wake(at_once=True)  # it has waited long enough

    def _fail(self, error: sqlite3.DatabaseError) -> None:
        if not self.failing:
            log.error("spool cannot store, what comes waits in memory error=%s", error)
        self.failing = True
        self._room.set()  # whoever waits would miss what it should measure; the oldest make room
        while self._is_over() and self._drop_oldest():
            pass
        if _calls_for_mending(error) or not self._file.writable:
            self._fault = error

    async def _mended(self) -> bool:
        """Try to make the file one that can be trusted; return whether it is."""
        assert self._fault
        try:
            await self._mend(self._fault, "commit")
        except sqlite3.OperationalError:
            self._wake(at_once=True)
            return False
        return True

    async def _mend(self, error: Exception, for_what: str) -> None:
        """Close the file, open it again, compare it with what memory has; a damaged one is set aside and salvaged.

        After a failed fsync the kernel forgets what it could not write, and the page cache goes on showing it.
        Raises `error` if that was done again and again.
        """
        async with self._mending:
            damaged = isinstance(error, sqlite3.DatabaseError) and is_damage(error)
            if damaged and self._in_vain[for_what] >= MOST_MENDS:
                raise error
            remembered = list(self._recent.rows.values())
            self._mends += 1
            self._in_vain[for_what] += damaged  # a disk that takes nothing for a while says nothing of the file
            reopened = await self._in_thread(lambda: self._file.reopen(remembered, error if damaged else None))
            self._fault = None
            self._rows = reopened.rows
            self._recent.find(reopened.last_id)
            log.info(
                "spool reopened and compared with memory rows=%d written_again=%d",
                reopened.rows,
                reopened.written_again,
            )

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _calls_for_mending(error: sqlite3.DatabaseError) -> bool:
    """Return whether the file must be opened again: it or what the system knows of it cannot be trusted any more."""
    return is_damage(error) or getattr(error, "sqlite_errorcode", 0) & 0xFF in REOPENED_AFTER


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
