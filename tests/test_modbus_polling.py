"""When a Modbus device is polled and how long it is waited for: pure arithmetic, over hours in no time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_gateway.lines.polling import SLACK_MS, Patience, PollClock, phase_ms

LONGEST_MS = 1000
QUIET_MS = 100  # what the line rests after a time-out, at most
MINUTE_MS = 60_000


def heard_before(took_ms: int, longest_ms: int = LONGEST_MS) -> Patience:
    patience = Patience(longest_ms)
    patience.answered(took_ms)
    return patience


def tries_of_a_dead_unit(patience: Patience, for_ms: int) -> list[tuple[int, int]]:
    """Return (when, how long) of each question to a unit that answers none."""
    tries = []
    now_ms = 0
    while now_ms < for_ms:
        waited_ms = patience.wait_ms() + SLACK_MS
        tries.append((now_ms, waited_ms))
        now_ms += waited_ms
        patience.silent(now_ms)
        now_ms = max(now_ms, patience.ready_ms)
    return tries


def test_unit_that_was_never_heard_gets_all_the_time_it_may_take():
    assert Patience(LONGEST_MS).wait_ms() == LONGEST_MS


def test_quick_unit_is_given_up_quickly_but_not_hastily():
    assert heard_before(8).wait_ms() == 100
    assert heard_before(120).wait_ms() == 290


@given(st.lists(st.integers(0, LONGEST_MS), min_size=1))
def test_wait_covers_the_last_answer_and_never_exceeds_the_longest(answers):
    patience = Patience(LONGEST_MS)
    for took_ms in answers:
        patience.answered(took_ms)
    assert min(LONGEST_MS, max(100, answers[-1])) <= patience.wait_ms() <= LONGEST_MS


def test_after_one_silence_a_unit_gets_all_its_time():
    patience = heard_before(8)
    patience.silent(0)
    assert not patience.is_silent
    assert patience.wait_ms() == LONGEST_MS


def test_question_after_a_silence_waits_until_no_late_answer_can_come():
    patience = heard_before(8)
    patience.silent(500)
    assert patience.ready_ms >= 500 + 2 * LONGEST_MS


@pytest.mark.parametrize(
    "patience",
    [heard_before(40), heard_before(40, 3000), Patience(1000), Patience(3000), heard_before(400)],
    ids=["usual", "long time-out", "never heard", "never heard, long time-out", "slow"],
)
def test_dead_unit_costs_the_bus_at_most_one_twentieth(patience):
    tries = [(at_ms, wait_ms) for at_ms, wait_ms in tries_of_a_dead_unit(patience, 60 * MINUTE_MS) if at_ms > MINUTE_MS]
    cost_ms = sum(wait_ms + 50 for _, wait_ms in tries)  # 50: the rest after a try
    assert cost_ms / (59 * MINUTE_MS) <= 0.05


def test_first_minute_of_a_death_costs_less_than_a_tenth_of_the_bus():
    tries = tries_of_a_dead_unit(heard_before(40), MINUTE_MS)
    assert sum(wait_ms + QUIET_MS for _, wait_ms in tries) < MINUTE_MS / 10


@given(returns_ms=st.integers(0, 10 * MINUTE_MS), took_ms=st.integers(5, 700))
def test_unit_that_returns_is_asked_long_enough_within_thirty_seconds(returns_ms, took_ms):
    """Also if it has become slow: some question within 30 s waits as long as it now takes."""
    tries = tries_of_a_dead_unit(heard_before(8), 12 * MINUTE_MS)
    heard = [at_ms for at_ms, wait_ms in tries if at_ms >= returns_ms and wait_ms >= took_ms]
    assert heard[0] - returns_ms <= 30_000


def test_returned_unit_is_polled_as_before():
    patience = heard_before(8)
    tries_of_a_dead_unit(patience, MINUTE_MS)
    patience.answered(8)
    assert not patience.is_silent
    assert patience.ready_ms == 0


def test_noise_is_the_lines_fault_unless_it_never_ends():
    patience = heard_before(8)
    for _ in range(4):
        patience.disturbed(0)
    assert not patience.is_silent
    for _ in range(3):
        patience.disturbed(0)
    assert patience.is_silent


@given(
    phase_ms=st.integers(0, 999),
    lags_ms=st.lists(st.integers(0, 5000), max_size=50),
)
def test_poll_clock_does_not_drift_and_counts_what_it_leaves_out(phase_ms, lags_ms):
    """However late each poll begins, the next one is due on the grid, and polls and skips add up to the periods."""
    clock = PollClock(10_000, 1000, phase_ms)
    now_ms = clock.due_ms
    assert now_ms == 10_000
    clock.start(now_ms)
    first_ms = clock.due_ms
    assert 500 <= first_ms - now_ms < 1500
    polls = skips = 0
    for lag_ms in lags_ms:
        assert (clock.due_ms - 10_000 - phase_ms) % 1000 == 0
        now_ms = max(now_ms, clock.due_ms) + lag_ms
        skips += clock.start(now_ms)
        polls += 1
    assert clock.due_ms - first_ms == 1000 * (polls + skips)
    assert clock.due_ms > now_ms - 1000


def test_early_try_takes_no_poll_away():
    clock = PollClock(0, 60_000, 0)
    clock.start(0)
    assert clock.due_ms == 60_000
    assert clock.start(13_000) == 0
    assert clock.due_ms == 60_000


@given(line=st.text(max_size=20), devices=st.integers(1, 32), period_ms=st.integers(1, 600_000))
def test_devices_of_a_line_are_polled_evenly_over_the_period(line, devices, period_ms):
    phases = sorted(phase_ms(line, index, devices, period_ms) for index in range(devices))
    gaps = [after - before for before, after in itertools.pairwise([*phases, phases[0] + period_ms])]
    assert max(gaps) - min(gaps) <= 2
    assert all(0 <= phase < period_ms for phase in phases)


def test_lines_with_one_device_each_are_not_polled_all_at_once():
    phases = [phase_ms(f"meter-{number}", 0, 1, 1000) for number in range(100)]
    assert max(sum(low <= phase < low + 100 for phase in phases) for low in range(0, 1000, 100)) < 30
