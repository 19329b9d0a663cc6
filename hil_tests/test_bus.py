"""One dead meter on a bus is its own trouble, not its neighbours'."""

import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WATCH_S = 20
SETTLES_S = 5  # what was measured before the silence has reached the broker by then
RETURNS_WITHIN_S = 30


def test_bus_survives_a_dead_unit(gateway, bus, eventually):
    def count():
        return {device: len(gateway.records(device=device)) for device in bus.devices}

    eventually(lambda: all(count().values()), "every meter is read", 60)
    bus.silence()
    time.sleep(max(SETTLES_S, 2 * bus.every_s))
    before = count()
    time.sleep(WATCH_S)
    gained = {device: after - before[device] for device, after in count().items()}
    bus.restore()
    assert gained.pop(bus.mortal) == 0, "a dead unit gives no readings"
    due = WATCH_S / bus.every_s
    assert all(polls >= 0.95 * due - 1 for polls in gained.values()), gained
    dead = count()[bus.mortal]
    eventually(lambda: count()[bus.mortal] > dead, "the unit is read again after its return", RETURNS_WITHIN_S)
