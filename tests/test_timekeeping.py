"""A node's time: what it believes, what it marks, and what it never changes again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.errors import WireError
from bega_protocols.record import ESTIMATED, SYNCHRONISED, UNKNOWN
from bega_protocols.ring import read_acknowledgement
from bega_protocols.timekeeping import (
    AGREEING,
    GOOD_FOR_MS,
    GRACE_MS,
    TICKS_PERIOD,
    TOLERANCE_MS,
    WAIT_FOR_TIME_MS,
    Clock,
    Monotonic,
    Patience,
    mark_unknown,
    read_by,
    read_time,
)

NOON = 1_790_000_000_000
HOUR = 3_600_000
MINUTE = 60_000


def synchronised(mono_ms: int = 0) -> Clock:
    clock = Clock(floor_ms=0)
    assert clock.heard(NOON + mono_ms, mono_ms)
    return clock


@given(start=st.integers(0, TICKS_PERIOD - 1), steps=st.lists(st.integers(0, TICKS_PERIOD - 1), max_size=20))
def test_monotonic_never_wraps(start, steps):
    monotonic = Monotonic(start)
    total = 0
    for step in steps:
        total += step
        assert monotonic.ms((start + total) % TICKS_PERIOD) == total


def test_clock_knows_nothing_until_it_is_told():
    assert Clock(0).stamp(5) == (None, UNKNOWN)


def test_clock_counts_on_from_what_it_was_told():
    assert synchronised(1000).stamp(4500) == (NOON + 4500, SYNCHRONISED)


def test_time_before_the_node_was_configured_is_not_believed():
    clock = Clock(floor_ms=NOON)
    assert not clock.heard(946_684_800_000, 0)
    assert clock.stamp(0) == (None, UNKNOWN)


def test_time_is_estimated_when_it_was_not_confirmed_for_long():
    clock = synchronised()
    assert clock.stamp(GOOD_FOR_MS)[1] == SYNCHRONISED
    assert clock.stamp(GOOD_FOR_MS + 1)[1] == ESTIMATED
    clock.heard(NOON + 7 * HOUR, 7 * HOUR)
    assert clock.stamp(8 * HOUR) == (NOON + 8 * HOUR, SYNCHRONISED)


def test_late_message_does_not_turn_the_clock_back():
    clock = synchronised()
    assert clock.heard(NOON + MINUTE - 1500, MINUTE)
    behind_ms = NOON + MINUTE - clock.stamp(MINUTE)[0]
    assert 0 <= behind_ms <= MINUTE * 200 // 1_000_000


def test_fast_crystal_is_followed_by_slewing():
    """80 ppm fast for a day of minutes: never back, and within a tenth of a second of the gateway."""
    clock = synchronised()
    last_ms = 0
    for minute in range(1, 1440):
        mono_ms = minute * MINUTE + minute * MINUTE * 80 // 1_000_000
        clock.heard(NOON + minute * MINUTE, mono_ms)
        stamp_ms = clock.stamp(mono_ms)[0]
        assert stamp_ms > last_ms
        assert abs(stamp_ms - (NOON + minute * MINUTE)) < 100
        last_ms = stamp_ms


def test_stale_message_is_refused_and_makes_the_time_an_estimate_until_it_is_confirmed():
    clock = synchronised()
    assert not clock.heard(NOON - HOUR, MINUTE)
    assert clock.stamp(MINUTE) == (NOON + MINUTE, ESTIMATED)
    assert clock.heard(NOON + 2 * MINUTE, 2 * MINUTE)
    assert clock.stamp(2 * MINUTE) == (NOON + 2 * MINUTE, SYNCHRONISED)


def test_gateway_that_corrects_itself_is_believed_when_it_insists():
    clock = synchronised()
    outcomes = [clock.heard(NOON - HOUR + minute * MINUTE, minute * MINUTE) for minute in range(1, AGREEING + 1)]
    assert outcomes == [False] * (AGREEING - 1) + [True]
    assert clock.stamp(4 * MINUTE) == (NOON - HOUR + 4 * MINUTE, SYNCHRONISED)


def test_late_messages_that_disagree_are_never_believed():
    clock = synchronised()
    for minute in range(1, 20):
        assert not clock.heard(NOON + minute * MINUTE - 10 * minute * TOLERANCE_MS, minute * MINUTE)


def test_time_that_the_chip_kept_is_an_estimate_until_the_gateway_tells_it():
    clock = Clock(NOON)
    clock.resume(NOON + 50_000, 1_000)
    assert clock.stamp(3_000) == (NOON + 52_000, ESTIMATED)
    assert clock.heard(NOON + 31_000, 2_000), "a sleeping chip's clock may have run far ahead"
    assert clock.stamp(3_000) == (NOON + 32_000, SYNCHRONISED)


def test_a_chip_that_kept_no_time_is_not_believed():
    clock = Clock(NOON)
    clock.resume(946_684_805_000, 1_000)
    assert clock.stamp(3_000) == (None, UNKNOWN)


def test_waiting_record_is_stamped_by_the_mark_of_its_boot():
    mark = synchronised(90_000).mark(last_seq=7)
    assert read_by([mark], 7, 30_000) == (NOON + 30_000, SYNCHRONISED)
    assert read_by([mark], 8, 30_000) is None
    assert read_by([], 1, 30_000) is None


def test_record_that_waited_for_hours_is_stamped_as_an_estimate():
    mark = synchronised(8 * HOUR).mark(last_seq=7)
    assert read_by([mark], 1, HOUR) == (NOON + HOUR, ESTIMATED)


def test_record_that_went_as_unknown_stays_so():
    marks = [mark_unknown(5), synchronised(HOUR).mark(last_seq=9)]
    assert read_by(marks, 5, 1000) == (None, UNKNOWN)
    assert read_by(marks, 6, 1000) == (NOON + 1000, SYNCHRONISED)


def test_records_wait_ten_minutes_of_connection():
    patience = Patience()
    assert not patience.is_over(0, 10 * HOUR), "without a connection there is nothing to wait for"
    patience.connected(HOUR)
    assert not patience.is_over(0, HOUR + WAIT_FOR_TIME_MS - 1)
    assert patience.is_over(0, HOUR + WAIT_FOR_TIME_MS)
    assert not patience.is_over(HOUR + 1, HOUR + WAIT_FOR_TIME_MS), "measured less than ten minutes ago"


def test_connection_that_comes_and_goes_is_added_up():
    patience = Patience()
    for start in range(0, 10):
        patience.connected(start * HOUR)
        assert not patience.is_over(0, start * HOUR + MINUTE - 1)
        patience.disconnected(start * HOUR + MINUTE)
    patience.connected(10 * HOUR)
    assert not patience.is_over(0, 10 * HOUR + GRACE_MS - 1), "the gateway needs a moment to tell the time"
    assert patience.is_over(0, 10 * HOUR + GRACE_MS)


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"{", b"5", b"null", b"[]", b"{}", b'{"unix_ms": "1"}', b'{"unix_ms": 1.5}', b"[" * 9999),
        *(b'{"unix_ms": %d}' % unix_ms for unix_ms in (-1, 0, 1_577_836_799_999, 4_102_444_800_000, 1 << 80)),
        b'{"unix_ms": true}',
    ],
)
def test_time_that_is_none_is_refused(payload):
    with pytest.raises(WireError):
        read_time(payload)


def test_time_is_read():
    assert read_time(b'{"unix_ms": 1790000000123}') == 1790000000123


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"5", b"[5]", b"[[1]]", b"[[1, 2, 3]]", b'[["1", 2]]', b"[[1, -2]]", b"[" * 9999, b'["ab"]']
)
def test_acknowledgement_that_is_none_is_refused(payload):
    with pytest.raises(WireError):
        read_acknowledgement(payload)


def test_acknowledgement_is_read():
    assert read_acknowledgement(b"[[1790000000, 41], [1790000001, 7]]") == [(1790000000, 41), (1790000001, 7)]
