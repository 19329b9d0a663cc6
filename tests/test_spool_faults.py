"""What a spool makes of a disk that fails and comes back, and of a page that is bad where no check looks."""

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from bega.outbox import spool as spool_module
from bega.outbox import spool_file as file_module
from bega.outbox import spool_open
from bega.outbox.agenda import Agenda
from bega.outbox.spool import Head, Spool
from bega.outbox.spool_file import SpoolFile
from bega.outbox.spool_rows import Entry
from bega.outbox.spool_salvage import PAGE_BYTES

QUOTA_BYTES = 1_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture(autouse=True)
def quick_retry(monkeypatch):
    monkeypatch.setattr(spool_module, "RETRY_S", 0.01)


@contextlib.asynccontextmanager
async def opened(path: Path):
    with ThreadPoolExecutor(1) as executor:
        spool = await Spool.open(path, executor, window_s=0)
        task = asyncio.create_task(spool.run())
        try:
            yield spool
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await spool.close()


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


def fill(path: Path, count: int, **beside: object) -> int:
    """Store `count` messages and stop cleanly; return the page where the largest table's middle lies."""
    file = SpoolFile(path, QUOTA_BYTES)
    file.commit([Entry("t", b"%d " % number + bytes(300), **beside) for number in range(count)], [], [])
    file.close()
    return path.stat().st_size // 2 // PAGE_BYTES


def spoil(path: Path, page: int, octets: bytes = b"\xff" * PAGE_BYTES) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(octets)


@contextlib.contextmanager
def read_only_disk() -> Iterator[None]:
    """Have every attempt to open the spool for writing fail as on a read-only file system."""

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_open, "_open_or_set_aside", refuse)
        patch.setattr(spool_open, "_disk_fault", lambda path: errno.EROFS)
        yield


async def all_of(agenda: Agenda, limit: int = 100) -> list[bytes]:
    given = []
    while rows := await agenda.next(limit):
        given += [row.payload.split()[0] for row in rows]
    return given


def failing_with(error: Exception):
    def fail(*_):
        raise error

    return fail


def read_only_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY
    return error


# ------------------------------------------------------------------ a bad page


@pytest.mark.parametrize("table", ["outbox", "driver_state", "head", "aside"])
def test_a_spool_too_large_to_be_checked_starts_with_a_bad_page_in_any_table(path, table, monkeypatch):
    monkeypatch.setattr(spool_open, "CHECKED_BYTES", 100_000)
    middle = fill(path, 2000, head=Head("air-1", 7, 1), state=("meter", b"9"))
    with contextlib.closing(sqlite3.connect(path)) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    spoil(path, middle if table == "outbox" else root - 1)

    async def work():
        async with opened(path) as spool:
            states, heads = await spool.driver_states(), await spool.heads()
            assert states == ({} if table == "driver_state" else {"meter": b"9"})
            assert heads == ({} if table == "head" else {("air-1", 7): 1})
            assert spool.depth > 1900
            await spool.add("t", b"new")

    run(work())
    assert path.with_name("spool.db.damaged-1").exists()


@pytest.mark.parametrize("page", ["the head", "the middle"])
def test_what_is_salvaged_after_a_clean_stop_brings_heads_and_driver_states_and_nothing_twice(path, page, caplog):
    middle = fill(path, 2000, head=Head("air-1", 7, 1), state=("meter", b"counter=9"))
    assert not path.with_name("spool.db-wal").exists()
    spoil(path, middle) if page == "the middle" else spoil(path, 0, bytes(100))
    file = SpoolFile(path, QUOTA_BYTES)
    if page == "the middle":
        assert (file.heads(), file.driver_states()) == ({("air-1", 7): 1}, {"meter": b"counter=9"})
    ids = [row.id for row in file.take(0, 10_000, None)[0]]
    assert ids == sorted(set(ids)) and len(ids) == file.rows > 1900
    assert f"saved={len(ids)} " in caplog.text
    file.close()


def test_what_stands_in_the_file_and_in_its_journal_too_is_saved_once(path, tmp_path, caplog):
    file = SpoolFile(tmp_path / "other.db", QUOTA_BYTES)
    file.commit([Entry("t", b"%d " % number + bytes(300)) for number in range(500)], [], [])
    file._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"other.db{suffix}", path.with_name(path.name + suffix))
    file.close()
    spoil(path, 0, bytes(100))
    spoil(path.with_name("spool.db-wal"), 0, bytes(32))
    spool_open.set_aside(path, "neither has a head")
    file = SpoolFile(path, QUOTA_BYTES)
    assert file.rows == 500 and "saved=500 " in caplog.text
    file.close()


# ------------------------------------------------------------------ a failed fsync


@contextlib.contextmanager
def fsync_that_fails() -> Iterator[None]:
    """Have a commit be in the file, and called failed all the same."""
    whole = SpoolFile._transaction

    @contextlib.contextmanager
    def failing(self):
        with whole(self):
            yield
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpoolFile, "_transaction", failing)
        yield


def test_a_commit_that_is_taken_back_takes_its_heads_and_driver_states_with_it(path):
    """Else the next start would acknowledge a record that exists nowhere, and the node would free it."""
    file = SpoolFile(path, QUOTA_BYTES)
    file.commit([Entry("t", b"1", head=Head("air-1", 7, 1), state=("meter", b"counter=1"))], [], [])
    with fsync_that_fails(), pytest.raises(sqlite3.OperationalError):
        entry = Entry("t", b"2", head=Head("air-1", 7, 2), state=("meter", b"counter=2"))
        file.commit([entry, Entry("t", b"3", head=Head("air-2", 1, 1), state=("park", b"x"))], [], [])
    with fsync_that_fails(), pytest.raises(sqlite3.OperationalError):
        file.reopen([], None)
    assert file.reopen([], None) == (0, 1, 1)
    file.close()
    file = SpoolFile(path, QUOTA_BYTES)
    assert [row.payload for row in file.take(0, 9, None)[0]] == [b"1"]
    assert (file.heads(), file.driver_states()) == ({("air-1", 7): 1}, {"meter": b"counter=1"})
    file.close()


def test_heads_of_a_node_that_boots_for_ever_are_put_back_as_they_were(path):
    file = SpoolFile(path, QUOTA_BYTES)
    for boot in range(1, 101):
        file.commit([Entry("t", b"1", head=Head("air-1", boot, 5))], [Head("air-1", boot, 3)], [])
    before = file.heads()
    with fsync_that_fails(), pytest.raises(sqlite3.OperationalError):
        file.commit([Entry("t", b"2", head=Head("air-1", 101, 1))], [], [])
    file.reopen([], None)
    assert file.heads() == before and len(before) == file_module.HEADS_KEPT
    assert len(file._heads["air-1"]) == file_module.HEADS_KEPT, "nor does memory grow"
    file.close()


KILLED_AFTER_A_FAILED_FSYNC = """
import os, sqlite3, sys
from pathlib import Path
from bega.outbox.spool_file import SpoolFile
from bega.outbox.spool_rows import Entry, Head
file = SpoolFile(Path(sys.argv[1]), 1_000_000_000)
failed = 0
for seq in range(1, 5):
    try:
        file.commit([Entry("t", b"%d" % seq, head=Head("air-1", 7, seq))], [], [])
    except sqlite3.OperationalError:
        failed = seq
        break
while failed:
    try:
        file.reopen([], None)
        break
    except sqlite3.OperationalError:
        pass
print(failed, flush=True)
os._exit(9)
"""


def test_after_an_fsync_that_the_kernel_failed_no_head_is_ahead_of_what_is_stored(tmp_path):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    failures = 0
    for nth in range(2, 18):
        path = tmp_path / f"{nth}.db"
        rule = f"inject=fdatasync:error=EIO:when={nth}..{nth + 1}"
        command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", rule]
        child = [sys.executable, "-c", KILLED_AFTER_A_FAILED_FSYNC, path]
        told = subprocess.run([*command, *child], capture_output=True, text=True)
        if "ptrace" in told.stderr:
            pytest.skip(f"strace may not attach here: {told.stderr}")
        failures += told.stdout.strip() not in ("", "0")
        file = SpoolFile(path, QUOTA_BYTES)
        assert file.heads().get(("air-1", 7), 0) == file.rows
        file.close()
    assert failures >= 2


# ------------------------------------------------------------------ a disk that takes nothing for a while


def test_a_read_only_start_after_a_clean_stop_gives_out_what_is_stored(path):
    fill(path, 50)

    async def work():
        with read_only_disk():
            async with opened(path) as spool:
                assert spool.failing and spool.depth == 50
                assert len(await all_of(Agenda(spool, lambda: 0))) == 50

    run(work())


def test_what_could_not_even_be_read_at_the_start_is_given_out_when_the_disk_is_back(path):
    fill(path, 50)
    spoil(path, 0, bytes(100))

    async def work():
        with read_only_disk():
            context = opened(path)
            spool = await context.__aenter__()
            assert spool.failing and spool.depth == 0
            waiting = spool.add("t", b"new")
            agenda = Agenda(spool, lambda: 0)
        await waiting
        assert sorted(await all_of(agenda)) == sorted([*[b"%d" % number for number in range(50)], b"new"])
        assert len(await all_of(Agenda(spool, lambda: 0))) == spool.depth == 51
        spool.forget(range(1, 52))
        await spool.add("t", b"next")
        assert spool.depth == 1
        await context.__aexit__(None, None, None)

    run(work())


def test_time_on_a_read_only_disk_uses_up_no_attempt_to_salvage(path, monkeypatch):
    commit, reopen = SpoolFile.commit, SpoolFile.reopen

    async def work():
        async with opened(path) as spool:
            refuse = failing_with(read_only_error())
            monkeypatch.setattr(SpoolFile, "commit", refuse)
            monkeypatch.setattr(SpoolFile, "reopen", refuse)
            stored = spool.add("t", b"record")
            await asyncio.sleep(0.2)
            assert spool.tries > 5
            bad = [sqlite3.DatabaseError("database disk image is malformed")]

            def bad_once(self, *given):
                if bad:
                    raise bad.pop()
                return commit(self, *given)

            monkeypatch.setattr(SpoolFile, "commit", bad_once)
            monkeypatch.setattr(SpoolFile, "reopen", reopen)
            await asyncio.wait_for(stored, 5)

    run(work())
    assert path.with_name("spool.db.damaged-1").exists()


def test_a_bad_page_on_a_disk_that_takes_nothing_is_the_disks_fault_and_ends_nobody(path, monkeypatch):
    page = fill(path, 5000)

    async def work():
        async with opened(path) as spool:
            await spool._in_thread(lambda: spool._file._database.execute("PRAGMA shrink_memory"))
            spoil(path, page)
            monkeypatch.setattr(SpoolFile, "commit", failing_with(read_only_error()))
            monkeypatch.setattr(SpoolFile, "reopen", failing_with(read_only_error()))
            spool.add("t", b"record")
            await asyncio.sleep(0.1)
            assert spool.failing
            with pytest.raises(sqlite3.OperationalError, match="malformed"):
                await spool.take(0, 5000)
            monkeypatch.undo()

    run(work())


def test_a_damaged_row_hides_nothing_behind_it_on_a_disk_that_takes_nothing(path):
    fill(path, 50)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE outbox SET payload = 'x' WHERE id IN (3, 4)")
        database.commit()

    async def work():
        with read_only_disk():
            async with opened(path) as spool:
                assert len(await all_of(Agenda(spool, lambda: 0), 1)) == 48

    run(work())


def test_what_is_lost_at_a_stop_is_said_by_class_without_what_its_node_keeps(path, caplog):
    async def work():
        with read_only_disk():
            async with opened(path) as spool:
                for number in range(5):
                    spool.add("t", b"%d" % number, storage_class="billing" if number < 2 else "routine")
                spool.add("t", b"of a node", head=Head("air-1", 7, 1))
                await asyncio.sleep(0.05)

    run(work())
    assert "records could not be stored and are lost count=5 routine=3 billing=2 alarm=0" in caplog.text


# ------------------------------------------------------------------ a smaller quota


def test_a_smaller_quota_is_reached_in_steps_that_the_journal_can_hold(path, monkeypatch):
    monkeypatch.setattr(file_module, "STEP_PAGES", 200)
    fill(path, 20_000)
    file = SpoolFile(path, 1_000_000)
    pages = [file.used_bytes // PAGE_BYTES]
    while file.used_bytes > file.quota_bytes:
        outcome = file.commit([Entry("t", b"new")], [], [])
        assert not outcome.refused and outcome.dropped
        pages.append(file.used_bytes // PAGE_BYTES)
    steps = [before - after for before, after in pairwise(pages)]
    assert len(steps) > 10 and min(steps[:-1]) > 150 and max(steps) < 230
    for _ in range(3):
        assert not file.commit([Entry("t", b"new")], [], []).refused
    assert file.used_bytes <= file.quota_bytes
    file.close()
