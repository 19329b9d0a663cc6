"""At the machine's limit polls are left out, and latency stays; a slow link leaves out none."""

import asyncio
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from bega.mqtt import WINDOW
from bega_gateway.pace import BEHIND, LATE_MS, LONGEST_HOLD_MS, Pace


class Clock:
    now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


def made(behind: int, in_flight: int) -> tuple[Pace, SimpleNamespace, Clock]:
    publisher, clock = SimpleNamespace(behind=behind, in_flight=in_flight), Clock()
    return Pace(publisher, clock), publisher, clock


def test_a_publisher_that_finds_no_time_holds_the_polls_until_it_has_caught_up():
    pace, publisher, _ = made(BEHIND + 1, WINDOW - 1)
    pace.look(0)
    assert pace.holds
    publisher.behind = BEHIND // 2
    pace.look(0)
    assert pace.holds
    publisher.behind = BEHIND // 2 - 1
    pace.look(0)
    assert not pace.holds


def test_a_late_loop_holds_even_with_a_full_window():
    pace, _, _ = made(BEHIND + 1, WINDOW)
    pace.look(LATE_MS + 1)
    assert pace.holds


def test_if_it_was_the_link_the_hold_ends_by_itself():
    pace, _, clock = made(BEHIND + 1, WINDOW)
    pace.look(LATE_MS + 1)
    clock.now_ms += LONGEST_HOLD_MS + 1
    pace.look(0)
    assert not pace.holds


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, LATE_MS))))
def test_a_link_that_is_too_slow_holds_nobody(looks):
    pace, publisher, clock = made(0, WINDOW)
    for behind, late_ms in looks:
        publisher.behind = behind
        clock.now_ms += 50
        pace.look(late_ms)
        assert not pace.holds


@given(st.lists(st.tuples(st.integers(0, BEHIND), st.integers(0, WINDOW), st.integers(0, 5_000))))
def test_without_anything_behind_nobody_is_held_however_late_the_loop(looks):
    pace, publisher, _ = made(0, 0)
    for publisher.behind, publisher.in_flight, late_ms in looks:
        pace.look(late_ms)
        assert not pace.holds


def test_whoever_waits_goes_on_when_the_hold_ends_and_when_the_gateway_does():
    async def work():
        pace, publisher, _ = made(BEHIND + 1, 0)
        looking = asyncio.create_task(pace.run())
        await asyncio.sleep(0.15)
        waiting = asyncio.create_task(pace.turn())
        await asyncio.sleep(0.1)
        assert not waiting.done() and pace.held == 1
        publisher.behind = 0
        await asyncio.wait_for(waiting, 5)
        publisher.behind = BEHIND + 1
        await asyncio.sleep(0.15)
        waiting = asyncio.create_task(pace.turn())
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(work())
