"""SCD41 beyond the device contract: who else left it measuring, what is set and what is not, brown-outs, actions."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.checks import crc8_sensirion
from bega_protocols.devices.scd41.codec import decode, word_of
from bega_protocols.devices.scd41.driver import Driver
from bega_protocols.devices.scd41.sim import Sim
from bega_protocols.errors import ChecksumError, ConfigError
from bega_protocols.reading import GOOD, SUSPECT, Reading

WORD = st.integers(0, 65535)
HUNDREDTH = Decimal("0.01")
START_MS = 1_790_000_000_000


def word(value: int) -> bytes:
    octets = value.to_bytes(2, "big")
    return octets + bytes([crc8_sensirion(octets)])


class Bus:
    """Carries asks to a sensor, letting the time pass that they take; `written` is what went out."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.now_ms = START_MS
        self.written: list[bytes] = []
        sim.tick(self.now_ms)

    def drive(self, steps: Any) -> Any:
        answer = None
        try:
            while True:
                ask = steps.send(answer)
                answer = self._exchange(ask)
        except StopIteration as stop:
            return stop.value

    def measure(self, driver: Driver, after_ms: int = 0) -> list[Any]:
        self.now_ms += after_ms
        self.sim.tick(self.now_ms)
        return self.drive(driver.measure(self.now_ms))

    def _exchange(self, ask: Any) -> bytes | None:
        assert ask.line == {"address": 0x62}
        answer: bytes | None = b""
        if ask.write:
            self.written.append(ask.write)
            answer = self.sim.answer(ask.write)
            assert answer is None or ask.wait_ms * 1000 >= self.sim.busy_us(ask.write)
        self.now_ms += ask.wait_ms
        self.sim.tick(self.now_ms)
        if answer is None:
            return None
        return answer[: ask.read] if ask.read and answer else None if ask.read else b""

    def count(self, code: str) -> int:
        return sum(1 for written in self.written if written[:2].hex() == code)


@given(co2=WORD, temperature=WORD, humidity=WORD)
def test_codec_agrees_with_the_formula_to_the_last_place(co2, temperature, humidity):
    sample = decode(word(co2) + word(temperature) + word(humidity))
    cel = Decimal(175 * temperature) / 65535
    percent = Decimal(100 * humidity) / 65535
    assert sample.co2_ppm == co2
    assert sample.temperature_ccel == int((cel / HUNDREDTH).to_integral_value(ROUND_HALF_UP)) - 4500
    assert sample.humidity_cpct == int((percent / HUNDREDTH).to_integral_value(ROUND_HALF_UP))


def test_offset_is_written_as_the_datasheet_writes_it():
    """5.4 degrees are 07E6, and the 4 that it is made with are 1498 steps."""
    assert word_of("temperature_offset_ccel", 540) == 0x07E6
    assert word_of("temperature_offset_ccel", 400) == 1498


@given(cel=st.integers(-1000, 6000), percent=st.integers(10, 9990), ppm=st.integers(1, 40000))
def test_any_air_passes_from_simulator_to_reading(cel, percent, ppm):
    sim, driver = Sim({}, seed=1), Driver({})
    sim.set("co2", "", ppm)
    sim.set("temperature", "", Decimal(cel) / 100)
    sim.set("humidity", "", Decimal(percent) / 100)
    group = Bus(sim).measure(driver)[0]
    assert [(row.value, row.quality) for row in group] == [(ppm, GOOD), (cel, GOOD), (percent, GOOD)]


def test_sensor_that_somebody_left_measuring_is_taken_over():
    """It acknowledges neither its serial number nor its settings before it is stopped."""
    sim = Sim({}, seed=1)
    bus = Bus(sim)
    sim.answer(bytes.fromhex("21ac"))
    assert sim.answer(bytes.fromhex("3682")) is None
    driver = Driver({"altitude_m": 90})
    assert bus.measure(driver, after_ms=10)
    assert bus.written[0].hex() == "3f86"
    assert driver.attributes["variant"] == "SCD41"
    assert len(driver.attributes["serial_number"]) == 12


def test_samples_come_once_a_period_and_never_twice():
    driver, bus = Driver({}), Bus(Sim({}, seed=1))
    groups = [bus.measure(driver, after_ms=1000) for _ in range(60)]
    assert 10 <= sum(map(len, groups)) <= 12
    assert bus.count("21b1") == 1, "it was set up more than once"


def test_low_power_gives_a_sample_each_half_minute():
    driver, bus = Driver({"mode": "low_power"}), Bus(Sim({}, seed=1))
    groups = [bus.measure(driver, after_ms=10_000) for _ in range(30)]
    assert 9 <= sum(map(len, groups)) <= 10
    assert (bus.count("21ac"), bus.count("21b1")) == (1, 0)


def test_settings_are_sent_only_where_they_differ_and_never_kept_by_itself():
    sim = Sim({}, seed=1)
    settings = {"altitude_m": 90, "self_calibration": True, "temperature_offset_ccel": 400}
    bus = Bus(sim)
    bus.measure(Driver(settings))
    assert [bus.count(code) for code in ("2427", "2416", "241d")] == [1, 0, 0]
    bus.measure(Driver(settings))
    assert bus.count("2427") == 1, "the gateway was started again: the sensor still has it"
    assert (sim.eeprom_writes, bus.count("3615")) == (0, 0)


def test_settings_that_are_not_named_are_not_touched():
    bus = Bus(Sim({}, seed=1))
    bus.measure(Driver({}))
    assert {written.hex() for written in bus.written} == {"3f86", "3682", "202f", "21b1", "e4b8", "ec05"}


def test_pressure_is_set_in_hpa():
    bus = Bus(Sim({}, seed=1))
    bus.measure(Driver({"pressure_hpa": 987}))
    assert any(written.hex().startswith("e00003db") for written in bus.written)


@pytest.mark.parametrize("mode", ["periodic", "low_power", "single_shot"])
def test_pressure_that_a_sensor_beside_it_measured_is_told_when_it_changes(mode):
    bus = Bus(Sim({}, seed=1))
    driver = Driver({"mode": mode, "altitude_m": 90})
    for _ in range(3):
        bus.measure(driver, after_ms=30_000)
    bus.written.clear()
    samples = []
    for pressure in (98_749, 98_749, 98_702, 98_651):  # 987, 987, 987, 987 hPa
        driver.beside([Reading("temperature", 2134, -2), Reading("pressure", pressure, -2)])
        samples += bus.measure(driver, after_ms=30_000)
    set_pressure = bytes.fromhex("e000") + word(987)
    assert bus.written.count(set_pressure) == 1
    assert bus.sim._pressure == 987
    assert bytes.fromhex("2427") + word(90) not in bus.written, "the pressure stands in the place of the altitude"
    assert len(samples) == 4 and all(row.quality == GOOD for group in samples for row in group), "it lost no power"


def test_pressure_that_cannot_be_or_is_doubted_is_not_told():
    bus = Bus(Sim({}, seed=1))
    driver = Driver({})
    driver.beside([Reading("pressure", 98_700, -2, "", SUSPECT)])
    driver.beside([Reading("pressure", 3_000, -2)])
    bus.measure(driver)
    assert bus.sim._pressure == 1013


def test_pressure_that_was_not_acknowledged_is_told_again():
    bus = Bus(Sim({}, seed=1))
    driver = Driver({})
    bus.measure(driver)
    driver.beside([Reading("pressure", 98_700, -2)])
    bus.sim.faults.add("silent")
    bus.measure(driver, after_ms=5000)
    bus.sim.faults.clear()
    bus.measure(driver, after_ms=5000)
    assert bus.sim._pressure == 987


def test_sensor_that_lost_its_power_is_set_up_again():
    """A supply that sags under its peak leaves it idle, its altitude forgotten."""
    sim, driver = Sim({}, seed=1), Driver({"altitude_m": 90})
    bus = Bus(sim)
    assert bus.measure(driver)
    sim.faults.add("brown-out")
    groups = [bus.measure(driver, after_ms=5000) for _ in range(8)]
    assert groups[-1], "it never came back"
    assert bus.count("2427") == 2
    assert bus.count("21b1") == 2


def test_flipped_bit_does_not_interrupt_the_sensor():
    """Its self-calibration wants hours of unbroken work."""
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("checksum")
    assert bus.measure(driver, after_ms=5000) == []
    sim.faults.clear()
    assert bus.measure(driver, after_ms=5000)
    assert bus.count("3f86") == 1


def test_sensor_that_came_back_from_silence_is_set_up_again():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("silent")
    assert bus.measure(driver, after_ms=5000) == []
    sim.faults.clear()
    assert bus.measure(driver, after_ms=5000)
    assert bus.count("3f86") == 2


def test_first_two_single_shots_are_suspect():
    driver, bus = Driver({"mode": "single_shot"}), Bus(Sim({}, seed=1))
    groups = [bus.measure(driver, after_ms=60_000)[0] for _ in range(4)]
    assert [{row.quality for row in group} for group in groups] == [{SUSPECT}, {SUSPECT}, {GOOD}, {GOOD}]
    assert bus.count("219d") == 4
    assert bus.count("21b1") == 0


def test_sensor_that_lost_its_power_between_two_shots_is_told_its_settings_again():
    sim, driver = Sim({}, seed=1), Driver({"mode": "single_shot", "altitude_m": 1500})
    bus = Bus(sim)
    for _ in range(3):
        bus.measure(driver, after_ms=60_000)
    assert bus.count("2427") == 1
    sim.faults.add("brown-out")
    groups = [bus.measure(driver, after_ms=60_000)[0] for _ in range(3)]
    assert bus.count("2427") == 2
    assert [{row.quality for row in group} for group in groups] == [{SUSPECT}, {SUSPECT}, {GOOD}]


def test_single_shot_of_a_sensor_that_has_none_is_said():
    driver, bus = Driver({"mode": "single_shot"}), Bus(Sim({"variant": 0}, seed=1))
    assert bus.measure(driver) == []
    assert "SCD40" in str(driver.damaged[0][1])
    assert bus.count("219d") == 0


def test_dead_cell_gives_no_co2_and_fails_its_test():
    sim, driver = Sim({}, seed=1), Driver({})
    sim.faults.add("dead cell")
    bus = Bus(sim)
    assert [row.quantity for row in bus.measure(driver)[0]] == ["temperature", "humidity"]
    assert bus.drive(driver.act("self_test", 0)) is False
    assert driver.attributes["self_test"] == "failed: 00c4"
    assert bus.drive(driver.act("recalibrate", 420)) is False
    assert "recalibrated_by_ppm" not in driver.attributes


def test_recalibration_tells_by_how_much():
    sim, driver = Sim({}, seed=1), Driver({})
    sim.set("co2", "", 500)
    bus = Bus(sim)
    assert bus.drive(driver.act("recalibrate", 420)) is True
    assert driver.attributes["recalibrated_by_ppm"] == "-80"
    assert bus.measure(driver), "it measures again"


def test_persisting_is_counted_over_restarts_and_ends():
    sim = Sim({}, seed=1)
    bus = Bus(sim)
    driver = Driver({}, b"1998")
    assert bus.drive(driver.act("persist", 0)) is True
    assert bus.drive(Driver({}, driver.state()).act("persist", 0)) is True
    with pytest.raises(ConfigError, match="2000 times"):
        next(Driver({}, b"2000").act("persist", 0))
    assert sim.eeprom_writes == 2


def test_sensor_that_repeats_itself_is_doubted_after_ten_samples():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("stuck")
    qualities = []
    while len(qualities) < 16:
        for group in bus.measure(driver, after_ms=5000):
            qualities.append(group[0].quality)
    assert SUSPECT not in qualities[:8]
    assert set(qualities[13:]) == {SUSPECT}
    assert driver.attributes["doubt"]


def test_damaged_sample_is_counted_and_gives_no_reading():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("checksum")
    groups: list[object] = []
    for _ in range(3):
        groups += bus.measure(driver, after_ms=5000)
    assert groups == []
    assert all(isinstance(error, ChecksumError) for _, error in driver.damaged)
    assert driver.damaged


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "fast"}, "mode must be"),
        ({"altitude_m": 90, "pressure_hpa": 1000}, "not both"),
        ({"altitude_m": 4000}, "altitude_m"),
        ({"pressure_hpa": 70000}, "pressure_hpa"),
        ({"self_calibration": 1}, "self_calibration"),
        ({"temperature_offset_ccel": 4.0}, "temperature_offset_ccel"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Driver(settings)


@pytest.mark.parametrize(("name", "value"), [("recalibrate", 100), ("recalibrate", None), ("reset", 0)])
def test_actions_that_cannot_be_are_refused_before_anything_is_sent(name, value):
    with pytest.raises(ConfigError):
        next(Driver({}).act(name, value))
