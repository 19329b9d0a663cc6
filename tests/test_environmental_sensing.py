"""Environmental Sensing: what a poll reads, and what it leaves out."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.devices import load_driver
from bega_protocols.devices.environmental_sensing.driver import Driver
from bega_protocols.devices.environmental_sensing.sim import CHARACTERISTICS, Sim
from bega_protocols.reading import GOOD, SUSPECT, Reading, decimal_text
from tests.contract import converse

ADDRESS = "C0:FF:EE:00:00:01"


def sensor(**quantities):
    sim = Sim({"address": ADDRESS}, seed=1)
    for quantity, value in quantities.items():
        sim.set(quantity, "", Decimal(value))
    return sim


def values(groups):
    return {reading.quantity: decimal_text(reading.value, reading.exp10) for group in groups for reading in group}


def measured(sim):
    driver = load_driver("environmental_sensing", {"address": ADDRESS})
    return values(converse(driver, sim)), [error.why for _, error in driver.damaged]


STEPS = {
    quantity: st.integers(low, high).map(lambda number, steps=steps: Decimal(number) / steps)
    for quantity, (_, _, steps, low, high) in CHARACTERISTICS.items()
}


@given(st.fixed_dictionaries({}, optional=STEPS))
def test_any_climate_is_read_as_it_is(climate):
    found, damage = measured(sensor(**climate))
    assert {quantity: Decimal(text) for quantity, text in found.items()} == climate
    assert not damage


def test_what_the_sensor_does_not_know_is_left_out():
    sim = sensor(temperature="21.5", humidity="40", pressure="1013.253", battery="93")
    sim.faults.add("unknown")
    assert measured(sim) == ({"pressure": "1013.253", "battery": "93"}, [])


@pytest.mark.parametrize(("fault", "left", "damage"), [("short", {}, 3), ("out of range", {"pressure": "1013.253"}, 3)])
def test_values_that_break_the_specification_are_damage(fault, left, damage):
    sim = sensor(temperature="21.5", humidity="40", pressure="1013.253", battery="93")
    sim.faults.add(fault)
    found, whys = measured(sim)
    assert (found, len(whys)) == (left, damage)


@pytest.mark.parametrize(("value", "allowed"), [("4d95", True), ("4c95", False), ("0180", False)])
def test_nothing_is_colder_than_absolute_zero(value, allowed):
    driver = load_driver("environmental_sensing", {})
    assert bool(driver.feed(bytes.fromhex("2a6e" + value), 0)) == allowed
    assert bool(driver.damaged) != allowed


def test_another_kind_of_device_gives_its_battery_alone():
    sim = sensor(temperature="21.5", battery="93")
    sim.faults.add("wrong device")
    assert measured(sim) == ({"battery": "93"}, [])


def test_stuck_sensor_says_the_same_for_ever():
    sim = sensor(temperature="21.5")
    sim.faults.add("stuck")
    measured(sim)
    sim.set("temperature", "", 3)
    assert measured(sim) == ({"temperature": "21.50"}, [])


def test_recorded_poll_with_a_foreign_end_keeps_what_stands_before_it():
    driver = load_driver("environmental_sensing", {})
    assert driver.feed(bytes.fromhex("2a6ec409ffff01"), 0) == [[Reading("temperature", 2500, -2)]]
    assert [(offset, error.why) for offset, error in driver.damaged] == [(4, "no characteristic that is read here")]


def test_it_is_recognised_by_the_service_that_it_names():
    assert Driver.recognises(sensor(temperature="1").tick(0))
    assert not Driver.recognises(bytes.fromhex("020106" + "03030F18"))


@given(st.binary(max_size=40))
def test_anything_may_be_asked_whether_it_is_recognised(chunk):
    assert Driver.recognises(chunk) in (True, False)


@pytest.mark.parametrize(
    ("poll", "quality"),
    [
        ("2a6dffffffff", SUSPECT), ("2a6d00000000", SUSPECT), ("2a6d90630f00", GOOD),
        ("2a6eff7f", SUSPECT), ("2a6efe7f", GOOD),
    ],
)  # fmt: skip
def test_end_of_a_field_is_suspect(poll, quality):
    [[reading]] = load_driver("environmental_sensing", {}).feed(bytes.fromhex(poll), 0)
    assert reading.quality == quality
