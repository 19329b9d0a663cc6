"""SGP41 beyond the device contract: how long it is conditioned, what it is told of the air, and its self test."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.devices.sgp41.codec import humidity_ticks, temperature_ticks
from bega_protocols.devices.sgp41.driver import Driver
from bega_protocols.devices.sgp41.sim import Sim
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, SUSPECT, Reading

START_MS = 1_790_000_000_000


class Bus:
    """Carries asks to a sensor, letting the time pass that they take, and a little more."""

    LATE_MS = 90  # of a busy board, with each exchange

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.now_ms = START_MS
        self.written: list[bytes] = []
        self.mute_from: int | None = None  # exchanges from this one on are not answered

    def drive(self, steps: Any) -> Any:
        answer: bytes | None = None
        try:
            while True:
                ask = steps.send(answer)
                answer = self._exchange(ask)
        except StopIteration as stop:
            return stop.value

    def measure(self, driver: Driver, after_ms: int = 1000) -> list[Any]:
        self.now_ms += after_ms
        self.sim.tick(self.now_ms)
        return self.drive(driver.measure(self.now_ms))

    def _exchange(self, ask: Any) -> bytes | None:
        said: bytes | None = b""
        if ask.write:
            self.written.append(ask.write)
            said = self.sim.answer(ask.write)
        self.now_ms += ask.wait_ms + self.LATE_MS
        self.sim.tick(self.now_ms)
        if self.mute_from is not None and len(self.written) > self.mute_from:
            return None
        return said[: ask.read] if said is not None else None


def codes(bus: Bus) -> list[str]:
    return [written[:2].hex() for written in bus.written]


def test_sensor_is_conditioned_once_for_less_than_ten_seconds():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    for _ in range(100):
        assert bus.measure(driver)
    assert not sim.burnt
    assert codes(bus)[:4] == ["3615", "3682", "2612", "2619"]
    assert codes(bus).count("2612") == 1


def test_conditioning_that_got_no_answer_is_ended():
    """It may have begun all the same, and the next measurement may be an hour away."""
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.mute_from = 2
    assert bus.measure(driver) == []
    bus.mute_from = None
    assert codes(bus)[-1] == "3615"
    assert bus.measure(driver, after_ms=3_600_000)
    assert not sim.burnt


def test_sensor_that_another_program_left_in_conditioning_is_not_conditioned_on():
    sim = Sim({}, seed=1)
    bus = Bus(sim)
    sim.tick(START_MS)
    cut_off = Driver({}).measure(START_MS)
    answer = None
    for _ in range(3):
        answer = sim.answer(cut_off.send(answer).write)
    assert bus.measure(Driver({}), after_ms=5000)
    assert not sim.burnt


def test_sensor_that_came_back_from_silence_is_conditioned_again():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("silent")
    assert bus.measure(driver) == []
    sim.faults.clear()
    assert bus.measure(driver)
    assert codes(bus).count("2612") == 2


def test_first_signals_are_suspect_until_it_is_warm():
    driver, bus = Driver({}), Bus(Sim({}, seed=1))
    qualities = [bus.measure(driver, after_ms=5000)[0][0].quality for _ in range(14)]
    assert qualities[0] == SUSPECT
    assert driver.attributes["doubt"] == ""
    assert qualities[-1] == GOOD
    assert 6 <= qualities.count(SUSPECT) <= 10


def warm(bus: Bus, driver: Driver) -> None:
    for _ in range(15):
        bus.measure(driver, after_ms=5000)


@pytest.mark.parametrize(("fault", "why"), [("saturated", "at the end of its range"), ("stuck", "repeats itself")])
def test_signals_that_cannot_be_air_are_doubted(fault, why):
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    warm(bus, driver)
    sim.faults.add(fault)
    groups = [bus.measure(driver, after_ms=10_000)[0] for _ in range(12)]
    assert {row.quality for row in groups[-1]} == {SUSPECT}
    assert driver.attributes["doubt"].startswith(why) or fault == "saturated"


@given(voc=st.integers(1, 64990), nox=st.integers(1, 64990))
def test_any_signal_passes_from_simulator_to_reading(voc, nox):
    sim = Sim({}, seed=1)
    sim.set("voc_raw", "", voc)
    sim.set("nox_raw", "", nox)
    assert [row.value for row in Bus(sim).measure(Driver({}))[0]] == [voc, nox]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, (0x8000, 0x6666)),
        ({"humidity_pct": 100, "temperature_cel": 130}, (65535, 65535)),
        ({"humidity_pct": 0}, (0, 0x6666)),
    ],
)
def test_sensor_is_told_the_air_of_its_settings(settings, told):
    sim = Sim({}, seed=1)
    Bus(sim).measure(Driver(settings))
    assert sim.arguments == told


def test_sensor_is_told_the_air_that_a_sensor_beside_it_measures():
    sim, driver = Sim({}, seed=1), Driver({"humidity_pct": 50})
    bus = Bus(sim)
    bus.measure(driver)
    driver.beside([Reading("temperature", -712, -2), Reading("humidity", 8849, -2), Reading("pressure", 98_700, -2)])
    bus.measure(driver)
    told = (humidity_ticks(88), temperature_ticks(-7))
    assert sim.arguments == told
    driver.beside([Reading("temperature", 3000, -2, "", SUSPECT), Reading("humidity", 10_100, -2)])
    bus.measure(driver)
    assert sim.arguments == told, "what is doubted, or cannot be, is left"


@given(percent=st.integers(0, 100), cel=st.integers(-45, 130))
def test_ticks_are_the_nearest_steps(percent, cel):
    assert abs(humidity_ticks(percent) * 100 - percent * 65535) <= 50
    assert abs(temperature_ticks(cel) * 175 - (cel + 45) * 65535) <= 87.5


@pytest.mark.parametrize(("fault", "passed", "says"), [("", True, "passed"), ("broken", False, "failed: 4b01")])
def test_self_test_tells_what_the_sensor_said(fault, passed, says):
    sim, driver = Sim({}, seed=1), Driver({})
    sim.faults = {fault} - {""}
    assert Bus(sim).drive(driver.act("self_test", 0)) is passed
    assert driver.attributes["self_test"] == says


def test_heater_that_was_switched_off_is_conditioned_before_the_next_measurement():
    driver, bus = Driver({}), Bus(Sim({}, seed=1))
    bus.measure(driver)
    assert bus.drive(driver.act("heater_off", 0)) is True
    bus.measure(driver)
    assert codes(bus).count("2612") == 2


@pytest.mark.parametrize("settings", [{"humidity_pct": 101}, {"temperature_cel": -46}, {"humidity_pct": 50.0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ConfigError):
        Driver(settings)


def test_unknown_action_is_refused_before_anything_is_sent():
    with pytest.raises(ConfigError, match="self_test, heater_off"):
        next(Driver({}).act("clean", 0))
