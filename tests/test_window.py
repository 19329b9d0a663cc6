"""A window hands on the last good frame of each kind, once in its time, the very first at once."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from bega_gateway.lines.window import Window
from bega_protocols.reading import Reading

POWER = [Reading("active_power", 100), Reading("voltage", 230, 0, "l1")]
GAS = [Reading("gas_volume", 5), Reading("measured_at", 7)]


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


class Delivered(list):
    """Takes what a window hands on, as (readings, when it was read)."""

    async def __call__(self, groups, wall_ms):
        assert len(groups) == 1
        self.append((groups[0], wall_ms))


async def windowed(every_s, work):
    delivered = Delivered()
    window = Window(every_s, delivered)
    task = asyncio.create_task(window.run())
    try:
        await work(window, delivered)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return delivered


def test_the_first_frame_goes_through_at_once():
    async def work(window, delivered):
        await window.take([POWER], 1000)
        await asyncio.sleep(0.01)
        assert delivered == [(POWER, 1000)]

    run(windowed(3600, work))


def test_of_many_frames_in_a_window_the_last_is_handed_on_with_its_own_time():
    async def work(window, delivered):
        await window.take([[Reading("pm2_5", 0)]], 0)
        await asyncio.sleep(0.01)
        for number in range(1, 50):
            await window.take([[Reading("pm2_5", number)]], number)
        assert len(delivered) == 1
        await asyncio.sleep(0.2)
        assert delivered == [([Reading("pm2_5", 0)], 0), ([Reading("pm2_5", 49)], 49)]

    run(windowed(0.1, work))


def test_a_device_that_falls_silent_is_not_repeated():
    async def work(window, delivered):
        await window.take([POWER], 1)
        await asyncio.sleep(0.6)
        assert len(delivered) == 1
        await window.take([POWER], 2)
        await asyncio.sleep(0.05)
        assert len(delivered) == 2, "and after the silence the first goes through at once"

    run(windowed(0.4, work))


def test_one_kind_does_not_replace_another():
    """A meter's gas, once an hour, must not be lost behind its electricity, once a second."""

    async def work(window, delivered):
        await window.take([POWER], 1)
        await asyncio.sleep(0.01)
        await window.take([POWER, GAS], 2)
        await window.take([POWER], 3)
        await asyncio.sleep(0.2)
        assert sorted(delivered[1:], key=lambda row: row[1]) == [(GAS, 2), (POWER, 3)]

    run(windowed(0.1, work))


def test_it_takes_while_what_it_hands_on_has_to_wait():
    """A spool without room holds up the records, not the reading of the line."""
    gate = asyncio.Event()
    delivered = []

    async def waits(groups, wall_ms):
        await gate.wait()
        delivered.append((groups[0], wall_ms))

    async def work():
        window = Window(0.01, waits)
        task = asyncio.create_task(window.run())
        for number in range(100):
            await window.take([[Reading("pm2_5", number)]], number)
            await asyncio.sleep(0)
        gate.set()
        await asyncio.sleep(0.1)
        task.cancel()
        assert [wall_ms for _, wall_ms in delivered] in ([0, 99], [1, 99])

    run(work())


@settings(max_examples=15, deadline=None)
@given(
    frames=st.lists(
        st.tuples(st.sampled_from(["pm2_5", "pm10", "temperature"]), st.integers(0, 3)), min_size=1, max_size=30
    )
)
def test_of_every_kind_the_newest_arrives_and_nothing_else_than_was_taken(frames):
    async def work(window, delivered):
        for number, (quantity, pauses) in enumerate(frames):
            await window.take([[Reading(quantity, number)]], number)
            for _ in range(pauses):
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.03)

    delivered = run(windowed(0.01, work))
    numbers = [wall_ms for _, wall_ms in delivered]
    assert all(group == [Reading(frames[number][0], number)] for group, number in delivered)
    assert len(numbers) == len(set(numbers))
    for kind in {quantity for quantity, _ in frames}:
        newest = max(number for number, (quantity, _) in enumerate(frames) if quantity == kind)
        assert newest in numbers
        of_kind = [number for number in numbers if frames[number][0] == kind]
        assert of_kind == sorted(of_kind)
