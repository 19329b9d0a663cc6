"""What counts as progress, and for how long none is borne. Time is passed in."""

from hypothesis import given
from hypothesis import strategies as st

from bega_gateway.progress import Progress, Sight, Stuck

OWES = Sight("spool", 7, True, 20.0)


def test_work_that_is_owed_and_not_done_is_stuck_when_patience_ends():
    progress = Progress()
    assert progress.look([OWES], 1_000) == []
    assert progress.look([OWES], 21_000) == []
    assert progress.look([OWES], 21_001) == [Stuck("spool", 20.001)]
    assert progress.look([OWES._replace(done=8)], 22_000) == [], "one piece of work, and all is well"


def test_who_owes_nothing_may_rest_for_ever_and_then_has_all_the_time_it_may_take():
    progress = Progress()
    progress.look([OWES._replace(owes=False)], 0)
    assert progress.look([OWES._replace(owes=False)], 10**9) == []
    assert progress.look([OWES], 10**9 + 20_000) == []
    assert progress.look([OWES], 10**9 + 20_001) == [Stuck("spool", 20.001)]


def test_a_duty_that_ended_is_forgotten_and_one_that_begins_starts_anew():
    progress = Progress()
    progress.look([OWES], 0)
    assert progress.look([], 60_000) == []
    assert progress.look([OWES], 61_000) == []


LOOKS = st.lists(
    st.tuples(st.integers(1, 5_000), st.integers(0, 2), st.booleans()), min_size=1, max_size=60
)  # ms since the last look, work done since, owes


@given(looks=LOOKS, patience_s=st.integers(1, 10))
def test_stuck_is_exactly_who_owed_at_every_look_since_it_last_did_something_and_longer_than_it_may(looks, patience_s):
    progress = Progress()
    now_ms = done = 0
    good_ms = None
    for step_ms, work, owes in looks:
        now_ms += step_ms
        done += work
        if good_ms is None or work or not owes:
            good_ms = now_ms
        stuck = progress.look([Sight("line", done, owes, patience_s)], now_ms)
        assert bool(stuck) == (now_ms - good_ms > 1000 * patience_s)


@given(looks=LOOKS)
def test_duties_do_not_answer_for_each_other(looks):
    alone, beside = Progress(), Progress()
    now_ms = done = 0
    for step_ms, work, owes in looks:
        now_ms += step_ms
        done += work
        sight = Sight("line", done, owes, 3.0)
        busy = Sight("spool", now_ms, True, 3.0)
        assert beside.look([busy, sight], now_ms) == alone.look([sight], now_ms)
