"""Every driver against its own simulator over a bad wire: 0 wrong values called good.

Each exchange begins with new true values. A clean driver reads them from a clean simulator: that is the truth, and
test_devices.py has shown that it is what the simulator was told. The driver under test hears the same through a wire
that is silent, flips bits, drops, doubles, glues and delays bytes, or carries what another device said.

What the wire itself guards is put between: a Modbus line checks CRC and unit and counts its questions, a radio checks
its CRC-24, an I2C transfer has borders that nothing shifts. A device without a check value of its own (`unprotected` in
vectors.json) is spared noise; one with a sum or an exclusive or (`weak_check`), or the eight bits of a sensor on I2C,
is spared bursts, of which such a check lets one in 256 pass, and not single bytes.
"""

import os
import random
import re
from collections import Counter
from decimal import Decimal

import pytest

from bega.devices import device_names
from bega_protocols.reading import GOOD
from tests.contract import (
    BOOKS,
    NOW_MS,
    chunks_of,
    drive,
    exact,
    make_sim,
    question_of,
    set_as_booked,
    sim_driver,
    through,
    who_offers,
    wire_of,
)

IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
EXCHANGES = 10_000 if IS_NIGHT else 1_500  # the same ones in every run: by day their beginning
SEED = 20_260_101
PERIOD_MS = 10_000  # of what is asked
TICK_MS = 500
ALL = -1
CALM = ("none", "none", "silent", "late", "another", "echo")
NOISE = ("byte", "bit", "cut")
SHIFTS = ("extra", "twice", "glued")
BURST = ("burst",)
OF_THEIR_OWN = {"packet_id", "measured_at", "laser_time"}  # of a message or of the driver, not of the world

ASKED = who_offers("measure")
AIR = {"temperature", "humidity", "pressure", "co2", "pm1", "pm2_5", "pm4", "pm10", "voc_raw", "nox_raw"}
LASTS = 120 if IS_NIGHT else 60  # measurements with a fault of the device, as many before and after it
TAKE_TIME = {"warming"}  # faults that show by what stays the same, after half of them at the latest
FROZEN_MS = 2 * 3_600_000  # within so long a sensor that repeats itself is found out

each_device = pytest.mark.parametrize("device", device_names())


class BadWire:
    """Spoils what is said, in one way at a time."""

    def __init__(self, device: str, chance: random.Random) -> None:
        book = BOOKS[device]
        self.kind = wire_of(device)
        guarded = self.kind in ("modbus", "ble") or "unprotected" in book
        self.ways = CALM + (() if guarded else NOISE)
        if not guarded and self.kind != "i2c":
            self.ways += SHIFTS + (() if "weak_check" in book else BURST)
        # Where the line asks for an address or a characteristic, nobody else answers, and what is read is what stands.
        self._by_name = self.kind in ("modbus", "i2c") or (self.kind == "ble" and device in ASKED)
        self.spoilt: Counter[str] = Counter()
        self._chance = chance
        self._others = [
            chunk
            for name in BOOKS
            if name != device
            for vector in BOOKS[name]["vectors"]
            for chunk in chunks_of(vector)
        ]
        self.last: tuple[object, ...] = ()
        self._before = b""
        self._way = "none"
        self._which = ALL
        self._count = 0

    def choose(self) -> None:
        """Choose what is spoilt in the measurement that begins: one answer, or (one time in eight) all of them."""
        self._way = self._chance.choice(self.ways)
        self._which = self._chance.randrange(max(1, self._count)) if self._chance.randrange(8) else ALL
        self._count = 0

    def carry(self, said: bytes | None, question: bytes = b"") -> bytes | None:
        """Return what arrives of what was `said` upon `question`."""
        way = self._way if self._which in (ALL, self._count) else "none"
        self._count += 1
        before, self._before = self._before, said or self._before
        if not said:
            return said
        self.spoilt[way] += 1
        heard: bytes | None = getattr(self, "_" + way)(said, before, question)
        self.last = (way, said.hex(), heard.hex() if heard else heard)
        return heard

    def _none(self, said: bytes, before: bytes, question: bytes) -> bytes:
        return said

    def _silent(self, said: bytes, before: bytes, question: bytes) -> None:
        return None

    def _late(self, said: bytes, before: bytes, question: bytes) -> bytes:
        return said if self._by_name else before

    def _another(self, said: bytes, before: bytes, question: bytes) -> bytes:
        return said if self._by_name else self._chance.choice(self._others)

    def _echo(self, said: bytes, before: bytes, question: bytes) -> bytes:
        """Some adapters hear what they say themselves."""
        return question + said if self.kind in ("serial", "mbus") else said

    def _byte(self, said: bytes, before: bytes, question: bytes) -> bytes:
        at = self._chance.randrange(len(said))
        return said[:at] + bytes([said[at] ^ self._chance.randint(1, 255)]) + said[at + 1 :]

    def _bit(self, said: bytes, before: bytes, question: bytes) -> bytes:
        at = self._chance.randrange(len(said))
        return said[:at] + bytes([said[at] ^ 1 << self._chance.randrange(8)]) + said[at + 1 :]

    def _burst(self, said: bytes, before: bytes, question: bytes) -> bytes:
        at = self._chance.randrange(len(said))
        size = self._chance.randint(2, 12)
        return said[:at] + self._chance.randbytes(size) + said[at + size :]

    def _cut(self, said: bytes, before: bytes, question: bytes) -> bytes:
        return said[: self._chance.randrange(len(said))]

    def _extra(self, said: bytes, before: bytes, question: bytes) -> bytes:
        at = self._chance.choice((0, 0, len(said), self._chance.randrange(len(said))))
        return said[:at] + self._chance.randbytes(self._chance.randint(1, 6)) + said[at:]

    def _twice(self, said: bytes, before: bytes, question: bytes) -> bytes:
        return said + said

    def _glued(self, said: bytes, before: bytes, question: bytes) -> bytes:
        """The end of what came before, then this."""
        return before[self._chance.randrange(len(before) + 1) :] + said


class World:
    """What is true: new values before each exchange, within a few steps of those that the book gives."""

    def __init__(self, device: str, chance: random.Random) -> None:
        self._rows = BOOKS[device]["sim"]["set"]
        self._chance = chance
        self._truths: dict[tuple[str, str], list[Decimal]] = {}  # the last one is the newest
        self._once: set[tuple[str, str, Decimal]] = set()  # what a meter may have stamped at some time

    def change(self, *sims) -> None:
        for quantity, part, text in self._rows:
            value = Decimal(text)
            step = Decimal(1).scaleb(value.as_tuple().exponent)
            near = value + step * self._chance.randint(-9, 9)
            if near * value > 0:
                value = near
            self._once.add((quantity, part, value))
            for sim in sims:
                sim.set(quantity, part, value)

    def read(self, groups) -> None:
        """Take what the clean driver read for true, and what it read before: a late answer is one measurement old."""
        said: dict[tuple[str, str], list[Decimal]] = {}
        for reading in (reading for group in groups for reading in group):
            said.setdefault((reading.quantity, reading.part), []).append(exact(reading))
        for key, values in said.items():
            self._truths[key] = [*self._truths.get(key, [])[-1:], *values]

    def wrong(self, groups) -> list:
        """Return what is called good and is not so."""
        return [
            reading
            for group in groups
            for reading in group
            if reading.quality == GOOD and reading.quantity not in OF_THEIR_OWN and not self._holds(reading, group)
        ]

    def _holds(self, reading, group) -> bool:
        if exact(reading) in self._truths.get((reading.quantity, reading.part), ()):
            return True
        is_stamped = any(row.quantity == "measured_at" for row in group)
        return is_stamped and (reading.quantity, reading.part, exact(reading)) in self._once


@pytest.mark.slow
@each_device
def test_no_wrong_value_is_called_good(device):
    chance = random.Random(f"{SEED} {device}")
    wire, world = BadWire(device, chance), World(device, chance)
    play = _asked if device in ASKED else _overheard
    good = 0
    for groups, wrong in play(device, wire, world):
        assert not wrong, (wire.last, wrong)
        good += bool(groups)
    assert good > EXCHANGES // 10, "hardly anything came through: this test proves little"
    assert len(wire.spoilt) >= len(set(wire.ways)) - 1, wire.spoilt


def _asked(device, wire, world):
    """Yield what each measurement over the bad wire gives, and what of it is wrong."""
    sim, twin = make_sim(device), make_sim(device)
    driver, clean = sim_driver(device), sim_driver(device)
    chance = random.Random(f"{SEED} pieces {device}")
    for now_ms in range(NOW_MS, NOW_MS + EXCHANGES * PERIOD_MS, PERIOD_MS):
        world.change(sim, twin)
        for each in (sim, twin):
            each.tick(now_ms)
        truth = drive(clean.measure(now_ms), _patient(twin, now_ms, wire.kind, through))
        world.read(truth)

        def carried(ask, said, kind):
            return through(ask, wire.carry(said, ask.write), kind, lambda left: chance.randint(1, left))

        wire.choose()
        groups = drive(driver.measure(now_ms), _patient(sim, now_ms, wire.kind, carried))
        driver.damaged.clear()
        yield groups, world.wrong(groups)


def _patient(sim, now_ms, kind, carried):
    """Return a line on which time passes while it waits: on I2C a sensor is read only when it has measured."""
    waited_ms = 0

    def answer(ask):
        nonlocal waited_ms
        said = sim.answer(question_of(ask))
        waited_ms += ask.wait_ms
        if kind == "i2c":
            sim.tick(now_ms + waited_ms)
        return carried(ask, said, kind)

    return answer


def _overheard(device, wire, world):
    """The same for a device that speaks by itself: what it says goes to the clean driver, and spoilt to the other."""
    sim, driver, clean = make_sim(device), sim_driver(device), sim_driver(device)
    now_ms = NOW_MS
    for _ in range(EXCHANGES):
        world.change(sim)
        said = b""
        while not said:
            now_ms += TICK_MS
            said = sim.tick(now_ms)
        world.read(clean.feed(said, now_ms))
        wire.choose()
        heard = wire.carry(said) or b""
        groups = driver.feed(heard, now_ms)
        driver.damaged.clear()
        yield groups, world.wrong(groups)


def measures_air(device):
    """BLE is let off: what such a sensor resolves is its maker's own, and 0.1 degrees may stand still for a night."""
    return wire_of(device) != "ble" and AIR & {row[0] for row in BOOKS[device]["sim"]["set"]}


@pytest.mark.parametrize("device", [name for name in BOOKS if measures_air(name)])
def test_air_that_stands_still_is_called_good_no_more(device):
    """Noise moves every true measurement of air; meters are let off, whose numbers may stand still for years."""
    chance = random.Random(f"{SEED} {device}")
    world, sim, driver = World(device, chance), make_sim(device), sim_driver(device)
    assert '"stuck"' in (sim.__doc__ or ""), "its simulator knows no sensor that repeats itself"
    good = []
    for now_ms in range(NOW_MS, NOW_MS + 3 * FROZEN_MS, PERIOD_MS):
        if now_ms == NOW_MS + FROZEN_MS:
            sim.faults.add("stuck")
        world.change(sim)
        groups = _measured(device, driver, sim, now_ms)
        good += [now_ms for group in groups for reading in group if reading.quality == GOOD and reading.quantity in AIR]
    assert good and good[0] < NOW_MS + FROZEN_MS, "never good: this test proves little"
    assert good[-1] < NOW_MS + 2 * FROZEN_MS, "still good"


def own_faults():
    """Return (device, fault) for all that the simulators say of themselves; standing still has a test of its own."""
    found = []
    for device in BOOKS:
        words = (make_sim(device).__doc__ or "").partition("faults:")[2]
        found += [(device, fault) for fault in re.findall(r'"([a-z0-9 _-]+)"', words) if fault != "stuck"]
    return found


@pytest.mark.parametrize(("device", "fault"), own_faults())
def test_fault_of_a_device_is_called_good_by_nobody_and_ends(device, fault):
    chance = random.Random(f"{SEED} {device} {fault}")
    world, sim, twin = World(device, chance), make_sim(device), make_sim(device)
    driver, clean = sim_driver(device), sim_driver(device)
    good_again = False
    period_ms = PERIOD_MS if device in ASKED else 1000
    for number in range(3 * LASTS):
        now_ms = NOW_MS + number * period_ms
        sim.faults = {fault} if LASTS <= number < 2 * LASTS else set()
        world.change(sim, twin)
        world.read(_measured(device, clean, twin, now_ms))
        groups = _measured(device, driver, sim, now_ms)
        assert not world.wrong(groups) or (fault in TAKE_TIME and number < LASTS + LASTS // 2)
        good_again |= number > 2 * LASTS and any(row.quality == GOOD for group in groups for row in group)
    assert good_again, "the fault is over, and nothing is good again"


def _measured(device, driver, sim, now_ms):
    said = sim.tick(now_ms)
    if device in ASKED:
        return drive(driver.measure(now_ms), _patient(sim, now_ms, wire_of(device), through))
    return driver.feed(said, now_ms)


@each_device
def test_another_device_in_its_place_is_not_taken_for_it(device):
    """Somebody plugged in the wrong cable, or gave two sensors one address: all of the conversation is another's."""
    for other in BOOKS:
        if other == device or wire_of(other) != wire_of(device):
            continue
        driver, stranger = sim_driver(device), set_as_booked(other, make_sim(other))
        for now_ms in range(NOW_MS, NOW_MS + 30 * PERIOD_MS, PERIOD_MS):
            groups = _measured(device, driver, stranger, now_ms)
            assert not [row for group in groups for row in group if row.quality == GOOD], other
