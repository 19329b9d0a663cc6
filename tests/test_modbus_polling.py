"""When a Modbus device is polled and how long it is waited for: pure arithmetic, over hours in no time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_gateway.lines.polling import (
    BURST_MS,
    HIGH,
    LONG_TRY_MS,
    LOW,
    NORMAL,
    SLACK_MS,
    Patience,
    PollClock,
    Schedule,
    Seat,
    phase_ms,
)

LONGEST_MS = 1000
QUIET_MS = 100  # what the line rests after a time-out, at most
TRY_QUIET_MS = 50  # after a try of a unit that has been silent all along
MINUTE_MS = 60_000


def heard_before(took_ms: int, longest_ms: int = LONGEST_MS, numbered: bool = False) -> Patience:
    patience = Patience(longest_ms, numbered)
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
        patience.silent(now_ms, waited_ms + TRY_QUIET_MS)
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


def test_after_one_silence_a_unit_that_was_heard_gets_so_long_that_only_a_dead_one_misses_it():
    patience = heard_before(8)
    patience.silent(0, 200)
    assert not patience.is_silent
    assert patience.wait_ms() == LONG_TRY_MS


def test_where_answers_are_numbered_the_next_question_need_not_wait_for_a_late_one():
    patience = heard_before(8, numbered=True)
    patience.silent(500, 200)
    assert patience.ready_ms <= 500 + 1000 < 500 + 2 * LONGEST_MS


def test_question_after_a_silence_waits_until_no_late_answer_can_come():
    patience = heard_before(8)
    patience.silent(500, 200)
    assert patience.ready_ms >= 500 + 2 * LONGEST_MS


@pytest.mark.parametrize(
    "patience",
    [
        heard_before(40),
        heard_before(40, 3000),
        heard_before(40, 3000, numbered=True),
        Patience(1000),
        Patience(3000),
        heard_before(400),
    ],
    ids=["usual", "long time-out", "numbered", "never heard", "never heard, long time-out", "slow"],
)
def test_dead_unit_costs_the_bus_at_most_one_fiftieth(patience):
    tries = [(at_ms, wait_ms) for at_ms, wait_ms in tries_of_a_dead_unit(patience, 60 * MINUTE_MS) if at_ms > MINUTE_MS]
    cost_ms = sum(wait_ms + TRY_QUIET_MS for _, wait_ms in tries)
    assert cost_ms / (59 * MINUTE_MS) <= 0.021


def test_first_minute_of_a_death_costs_less_than_a_tenth_of_the_bus():
    tries = tries_of_a_dead_unit(heard_before(40), MINUTE_MS)
    assert sum(wait_ms + QUIET_MS for _, wait_ms in tries) < MINUTE_MS / 10


@given(returns_ms=st.integers(0, 10 * MINUTE_MS), took_ms=st.integers(5, 700), numbered=st.booleans())
def test_unit_that_returns_is_heard_within_thirty_seconds_and_if_it_has_become_slow_within_sixty(
    returns_ms, took_ms, numbered
):
    """Some question asked within that time waits as long as the unit now takes."""
    tries = tries_of_a_dead_unit(heard_before(8, numbered=numbered), 12 * MINUTE_MS)
    heard = [at_ms + took_ms for at_ms, wait_ms in tries if at_ms >= returns_ms and wait_ms >= took_ms]
    assert heard[0] - returns_ms <= (30_000 if took_ms <= 100 else 60_000)


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


# Who is next on a bus that is asked too much.


class Bus:
    """A bus in virtual time: each question takes its time, and a dead unit takes what is waited for it."""

    def __init__(self, costs_ms: list[int], periods_ms: list[int], priorities: list[int], dead: set[int]) -> None:
        self.now_ms = 0
        self.costs_ms = costs_ms
        self.dead = dead
        self.schedule = Schedule()
        self.reads: list[list[int]] = [[] for _ in costs_ms]
        self.skipped = [0 for _ in costs_ms]
        self.tries: list[int] = []
        self.seats = []
        for index, (period_ms, priority) in enumerate(zip(periods_ms, priorities, strict=True)):
            clock = PollClock(0, period_ms, phase_ms("bus", index, len(costs_ms), period_ms))
            seat = Seat(clock, heard_before(8), priority)
            self.seats.append(seat)
            self.schedule.add(seat)

    def run(self, until_ms: int) -> None:
        while self.now_ms < until_ms:
            seat = self.schedule.next(self.now_ms)
            for late in self.schedule.waiting():
                self.skipped[self.seats.index(late)] += late.clock.missed(self.now_ms)
            if seat is None:
                self.now_ms = max(self.now_ms + 1, self.schedule.wake_ms())
                continue
            index = self.seats.index(seat)
            self.skipped[index] += seat.clock.start(self.now_ms)
            self._ask(index, seat)
            self.schedule.put_back(seat)

    def _ask(self, index: int, seat: Seat) -> None:
        cost_ms = self.costs_ms[index]
        if index in self.dead:
            self.tries.append(self.now_ms)
            cost_ms = seat.patience.wait_ms() + SLACK_MS + (TRY_QUIET_MS if seat.patience.is_silent else 2 * QUIET_MS)
        self.now_ms += cost_ms
        self.schedule.took(seat, self.now_ms, cost_ms)
        if index in self.dead:
            seat.patience.silent(self.now_ms, cost_ms)
        else:
            seat.patience.answered(8)
            self.reads[index].append(self.now_ms)


@given(cost_ms=st.integers(20, 105), dead=st.integers(0, 9), dies_ms=st.integers(0, 5_000))
def test_dead_unit_of_ten_costs_the_others_at_most_one_fiftieth_of_their_values(cost_ms, dead, dies_ms):
    """Nine live units keep the bus busy for up to 95 of 100 ms."""
    bus = Bus([cost_ms] * 10, [1000] * 10, [NORMAL] * 10, set())
    bus.run(dies_ms)
    bus.dead = {dead}
    bus.run(dies_ms + 5 * MINUTE_MS)
    for index, reads in enumerate(bus.reads):
        if index != dead:
            assert len([at_ms for at_ms in reads if at_ms > dies_ms]) >= 0.98 * 300


@given(costs=st.lists(st.integers(5, 200), min_size=2, max_size=8), period_ms=st.integers(50, 1000))
def test_polls_and_skips_add_up_to_the_periods_and_nothing_is_queued(costs, period_ms):
    bus = Bus(costs, [period_ms] * len(costs), [NORMAL] * len(costs), set())
    bus.run(MINUTE_MS)
    for index, reads in enumerate(bus.reads):
        assert abs(len(reads) + bus.skipped[index] - bus.now_ms // period_ms) <= 3 + max(costs) // period_ms
    assert len(bus.schedule.waiting()) <= len(costs)


@given(costs=st.lists(st.integers(20, 60), min_size=2, max_size=8))
def test_units_of_a_bus_that_is_asked_too_much_get_equal_turns(costs):
    bus = Bus(costs, [10] * len(costs), [NORMAL] * len(costs), set())
    bus.run(10 * MINUTE_MS)
    taken_ms = [len(reads) * cost_ms for reads, cost_ms in zip(bus.reads, costs, strict=True)]
    assert max(taken_ms) <= 3 * min(taken_ms) + BURST_MS


def test_device_that_asks_more_than_its_share_of_a_full_bus_does_not_starve_the_others():
    """One device would fill the bus by itself; nine others want 90 % of it together, and get it all but in full."""
    bus = Bus([100] * 10, [100] + [1000] * 9, [NORMAL] * 10, set())
    bus.run(10 * MINUTE_MS)
    assert all(len(reads) >= 0.97 * 600 for reads in bus.reads[1:])
    assert len(bus.reads[0]) >= 0.9 * 600


def test_slow_device_on_a_bus_that_is_asked_too_much_gets_its_share_of_the_time_and_not_more():
    """By due times alone the slow one would take seven tenths of the bus."""
    bus = Bus([700] + [50] * 4, [1000] + [100] * 4, [NORMAL] * 5, set())
    bus.run(10 * MINUTE_MS)
    shares = [len(reads) * cost_ms / bus.now_ms for reads, cost_ms in zip(bus.reads, bus.costs_ms, strict=True)]
    assert 0.15 <= shares[0] <= 0.25
    assert all(0.15 <= share <= 0.25 for share in shares[1:])


@given(low=st.integers(1, 5), normal=st.integers(1, 5))
def test_low_ones_are_left_out_first_and_high_ones_keep_their_period(low, normal):
    priorities = [HIGH] * 2 + [NORMAL] * normal + [LOW] * low
    bus = Bus([100] * len(priorities), [1000] * 2 + [200] * (normal + low), priorities, set())
    bus.run(2 * MINUTE_MS)
    for index in (0, 1):
        assert bus.skipped[index] == 0
        gaps = [after - before for before, after in itertools.pairwise(bus.reads[index][1:])]
        assert max(gaps) <= 1000 + 3 * 100
    if normal >= 2:  # they alone fill what the high ones leave
        assert all(len(bus.reads[2 + normal + index]) <= 2 for index in range(low))
        assert all(bus.skipped[2 + normal + index] >= 500 for index in range(low))


def test_unit_that_is_found_alive_takes_its_turn_at_once():
    schedule = Schedule()
    seat = Seat(PollClock(0, 1000, 0), heard_before(8))
    schedule.add(seat)
    assert schedule.next(0) is seat
    seat.clock.start(0)
    seat.patience.silent(100, 100)
    seat.patience.silent(200, 100)
    schedule.put_back(seat)
    assert schedule.next(1500) is None
    seat.patience.answered(900)  # late, but it came
    schedule.put_back(seat)
    assert schedule.next(1500) is seat
    assert schedule.next(60_000) is None, "its older place in the queue does not count"
