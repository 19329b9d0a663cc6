"""SHT4x beyond the device contract: figures worked out elsewhere, settings, and what silence and damage mean."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.checks import crc8_sensirion
from bega_protocols.devices.sht4x.codec import decode
from bega_protocols.devices.sht4x.driver import Driver
from bega_protocols.devices.sht4x.sim import Sim
from bega_protocols.errors import ChecksumError, ConfigError, WireError
from bega_protocols.reading import GOOD, SUSPECT, Reading

WORD = st.integers(0, 65535)
HUNDREDTH = Decimal("0.01")
START_MS = 1_790_000_000_000


def word(value: int) -> bytes:
    octets = value.to_bytes(2, "big")
    return octets + bytes([crc8_sensirion(octets)])


def readings(temperature: int, humidity: int) -> list[Reading]:
    return [Reading("temperature", temperature, -2), Reading("humidity", humidity, -2)]


@given(temperature=WORD, humidity=WORD)
def test_codec_agrees_with_the_formula_to_the_last_place(temperature, humidity):
    climate = decode(word(temperature) + word(humidity))
    cel = Decimal(175 * temperature) / 65535 - 45
    percent = min(Decimal(100), max(Decimal(0), Decimal(125 * humidity) / 65535 - 6))
    # Halves go up, also below zero, as the integer arithmetic does.
    assert climate.temperature_ccel == int(((cel + 45) / HUNDREDTH).to_integral_value(ROUND_HALF_UP)) - 4500
    assert climate.humidity_cpct == max(0, int((percent / HUNDREDTH).to_integral_value(ROUND_HALF_UP)))


@given(cel=st.integers(-4000, 12500), percent=st.integers(0, 10000))
def test_any_climate_passes_from_simulator_to_reading(cel, percent):
    sim = Sim({}, seed=1)
    sim.set("temperature", "", Decimal(cel) / 100)
    sim.set("humidity", "", Decimal(percent) / 100)
    assert Driver({}).feed(sim.answer(b"\xfd"), 0) == [readings(cel, percent)]


def test_asks_with_the_command_and_pause_of_its_precision():
    for precision, command, wait_ms in (("high", b"\xfd", 10), ("medium", b"\xf6", 5), ("low", b"\xe0", 2)):
        ask = next(Driver({"precision": precision, "address": 0x45}).measure(0))
        assert (ask.write, ask.wait_ms, ask.read, ask.line) == (command, wait_ms, 6, {"address": 0x45})
        assert wait_ms * 1000 > Sim({}, seed=1).busy_us(command)


@pytest.mark.parametrize("settings", [{"address": 0x43}, {"address": "0x44"}, {"precision": "best"}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ConfigError):
        Driver(settings)


def test_damaged_answer_is_counted_and_gives_no_reading():
    driver, sim = Driver({}), Sim({}, seed=1)
    sim.faults.add("checksum")
    measurement = driver.measure(0)
    with pytest.raises(StopIteration) as stop:
        measurement.send(sim.answer(next(measurement).write))
    assert stop.value.value == []
    assert isinstance(driver.damaged[0][1], ChecksumError)


def test_answer_of_a_wrong_length_is_refused():
    with pytest.raises(WireError):
        decode(b"\x66\x66\x93")


def test_listener_keeps_its_place_behind_a_damaged_answer():
    """Shifted by one word everything would pass its check, humidity read as temperature."""
    good = word(26214) + word(40000)
    for byte in range(6):
        broken = bytearray(good)
        broken[byte] ^= 0x10
        driver = Driver({})
        assert driver.feed(bytes(broken) + good + good, 0) == [readings(2500, 7030)] * 2
        assert len(driver.damaged) == 1


def test_listener_takes_an_answer_of_its_own_chunk_whatever_waited_before():
    driver = Driver({})
    assert driver.feed(word(1234), 0) == []  # half an answer, then the bus was reset
    assert driver.feed(word(26214) + word(40000), 0) == [readings(2500, 7030)]
    assert [(offset, len(error.raw)) for offset, error in driver.damaged] == [(0, 3)]


def test_sensor_tells_its_serial_number_with_check_values():
    answer = Sim({}, seed=7).answer(b"\x89")
    assert crc8_sensirion(answer[:2]) == answer[2]
    assert crc8_sensirion(answer[3:5]) == answer[5]


def test_stuck_sensor_repeats_itself():
    sim = Sim({}, seed=1)
    sim.faults.add("stuck")
    first = sim.answer(b"\xfd")
    sim.set("temperature", "", 3)
    assert sim.answer(b"\xfd") == first
    sim.faults.clear()
    assert sim.answer(b"\xfd") != first


def measured(driver: Driver, sim: Sim, now_ms: int) -> list[Reading]:
    measurement = driver.measure(now_ms)
    ask = next(measurement)
    with pytest.raises(StopIteration) as stop:
        measurement.send(sim.answer(ask.write))
    return stop.value.value[0]


def test_wet_sensor_is_doubted_in_its_humidity_alone():
    driver, sim = Driver({}), Sim({}, seed=1)
    sim.faults.add("wet")
    assert [(row.quantity, row.quality) for row in measured(driver, sim, START_MS)] == [
        ("temperature", GOOD),
        ("humidity", SUSPECT),
    ]
    sim.faults.clear()
    assert {row.quality for row in measured(driver, sim, START_MS + 1000)} == {GOOD}


def test_sensor_that_repeats_itself_for_a_minute_and_ten_times_is_doubted():
    driver, sim = Driver({}), Sim({}, seed=1)
    sim.faults.add("stuck")
    qualities = [measured(driver, sim, START_MS + 10_000 * turn)[0].quality for turn in range(12)]
    assert qualities == [GOOD] * 9 + [SUSPECT] * 3


def test_sensor_in_still_air_is_not_doubted():
    """Its noise moves the last bits."""
    driver, sim = Driver({}), Sim({}, seed=1)
    qualities = {measured(driver, sim, START_MS + 10_000 * turn)[0].quality for turn in range(50)}
    assert qualities == {GOOD}
