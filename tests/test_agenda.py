"""What is sent next: the new before the old, everything once, and no reading of now behind an endless queue."""

import asyncio
from bisect import bisect_right

from hypothesis import given
from hypothesis import strategies as st

from bega.outbox.agenda import LATE_MS, Agenda
from bega.outbox.spool import Row


class Stored:
    """A spool as the agenda sees it."""

    def __init__(self, count: int) -> None:
        self.ids = list(range(1, count + 1))

    @property
    def last_id(self) -> int:
        return self.ids[-1] if self.ids else 0

    def store(self, count: int) -> None:
        self.ids += range(self.last_id + 1, self.last_id + count + 1)

    async def take(self, after_id: int, limit: int, up_to_id: int | None = None) -> list[Row]:
        start = bisect_right(self.ids, after_id)
        found = self.ids[start : start + limit]
        return [Row(id_, "t", b"") for id_ in found if up_to_id is None or id_ <= up_to_id]


class Clock:
    now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


def ids(rows: list[Row]) -> list[int]:
    return [row.id for row in rows]


def test_what_comes_now_goes_before_what_waited():
    async def work():
        spool = Stored(50)
        agenda = Agenda(spool, Clock())
        assert ids(await agenda.next(10)) == list(range(1, 11))
        spool.store(3)
        assert ids(await agenda.next(10)) == [51, 52, 53, *range(11, 18)]

    asyncio.run(work())


@given(st.integers(0, 200), st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(0, 60_000))))
def test_everything_is_given_out_once_whatever_comes_meanwhile(backlog, rounds):
    async def work():
        spool, clock = Stored(backlog), Clock()
        agenda = Agenda(spool, clock)
        given_out = []
        for stored, limit, later_ms in rounds:
            spool.store(stored)
            clock.now_ms += later_ms
            given_out += ids(await agenda.next(limit))
        while rows := await agenda.next(25):
            given_out += ids(rows)
        assert sorted(given_out) == spool.ids

    asyncio.run(work())


@given(st.integers(11, 60), st.integers(0, 5_000))
def test_on_a_link_that_is_too_slow_the_newest_is_never_later_than_promised(stored_per_s, backlog):
    """Ten messages a second leave, more are stored: the age of the newest one given out stays bounded."""

    async def work():
        spool, clock = Stored(backlog), Clock()
        agenda = Agenda(spool, clock)
        stored_at = dict.fromkeys(spool.ids, 0)
        newest_ms = 0
        for second in range(1, 400):
            clock.now_ms = 1000 * second
            spool.store(stored_per_s)
            for id_ in spool.ids[-stored_per_s:]:
                stored_at[id_] = clock.now_ms
            for row in await agenda.next(10):
                newest_ms = max(newest_ms, stored_at[row.id])
            assert clock.now_ms - newest_ms <= 2 * LATE_MS

    asyncio.run(work())


def test_the_list_of_what_was_put_back_stays_short_over_days():
    async def work():
        spool, clock = Stored(0), Clock()
        agenda = Agenda(spool, clock)
        for _ in range(3_000):
            clock.now_ms += 2_000
            spool.store(50)
            await agenda.next(1)
        assert len(agenda._backlog) <= 101

    asyncio.run(work())
