"""BME280 beyond the device contract: Bosch's own figures, the sensor's memory, and what has no check value."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.devices.bme280 import codec
from bega_protocols.devices.bme280.driver import Driver
from bega_protocols.devices.bme280.sim import Sim
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import GOOD, SUSPECT, Reading

START_MS = 1_790_000_000_000
FIRST = bytes.fromhex("706b436718fc7d8e43d6d00b270b8c00f9ff8c3cf8c67017004b")
SECOND = bytes.fromhex("6a0100140d001e")
CALIBRATION = codec.decode_calibration(FIRST, SECOND)
FINE = 128422  # t_fine of the example


class Bus:
    """Carries asks to a sensor, letting the time pass that they take."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.now_ms = START_MS
        self.written: list[bytes] = []

    def measure(self, driver: Driver, after_ms: int = 1000) -> list[list[Reading]]:
        self.now_ms += after_ms
        self.sim.tick(self.now_ms)
        measurement = driver.measure(self.now_ms)
        answer: bytes | None = None
        try:
            while True:
                ask = measurement.send(answer)
                self.written.append(ask.write)
                said = self.sim.answer(ask.write)
                self.now_ms += ask.wait_ms
                self.sim.tick(self.now_ms)
                answer = said[: ask.read] if said is not None else None
        except StopIteration as stop:
            return stop.value


def test_calibration_is_taken_apart_as_the_memory_map_says():
    assert CALIBRATION.t == (27504, 26435, -1000)
    assert CALIBRATION.p == (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
    assert CALIBRATION.h == (75, 362, 0, 333, 0, 30)


@pytest.mark.parametrize(
    ("second", "h4", "h5"),
    [("6a01001f2b041e", 0x1FB, 0x042), ("6a0100ff9fff1e", -1, -7), ("6a010080007f1e", -2048, 0x7F0)],
)
def test_numbers_of_twelve_bits_share_a_byte(second, h4, h5):
    assert codec.decode_calibration(FIRST, bytes.fromhex(second)).h[3:5] == (h4, h5)


def test_example_reads_as_published():
    assert codec.heat(519888, CALIBRATION.t) == FINE
    assert codec.pressure_256(415148, FINE, CALIBRATION.p) == 25767233
    assert codec.decode(bytes.fromhex("655ac07eed0061a8"), CALIBRATION) == codec.Air(2508, 100653, 2078)


@pytest.mark.parametrize(("raw", "steps"), [(20000, 0), (25000, 21277), (28000, 38492), (30000, 49922), (35000, 78332)])
def test_humidity_is_what_boschs_own_code_gives(raw, steps):
    assert codec.humidity_1024(raw, FINE, CALIBRATION.h) == steps


def test_chip_whose_numbers_divide_by_zero_gives_no_pressure():
    assert codec.pressure_256(415148, FINE, (0, *CALIBRATION.p[1:])) is None


@given(cel=st.integers(-3900, 8400), percent=st.integers(100, 9900), pascal=st.integers(30_100, 109_900))
def test_whole_numbers_agree_with_the_formulas_in_double_precision(cel, percent, pascal):
    """The simulator searches the raw values by the datasheet's other formulas, so each side checks the other."""
    sim = Sim({}, seed=1)
    sim.set("temperature", "", Decimal(cel) / 100)
    sim.set("humidity", "", Decimal(percent) / 100)
    sim.set("pressure", "", Decimal(pascal) / 100)
    group = Bus(sim).measure(Driver({}))[0]
    assert [row.quantity for row in group] == ["temperature", "humidity", "pressure"]
    assert abs(group[0].value - cel) <= 1
    assert abs(group[1].value - percent) <= 2
    assert abs(group[2].value - pascal) <= 1
    assert {row.quality for row in group} == {GOOD}


@given(
    values=st.binary(min_size=8, max_size=8), first=st.binary(min_size=26, max_size=26), second=st.binary(min_size=7)
)
def test_nothing_that_a_chip_could_say_breaks_the_arithmetic(values, first, second):
    try:
        air = codec.decode(values, codec.decode_calibration(first, second[:7]))
    except WireError:
        return
    assert air.humidity_cpct is None or 0 <= air.humidity_cpct <= 10000


def test_chip_sleeps_between_measurements_and_its_calibration_is_read_once():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    for _ in range(5):
        assert bus.measure(driver)
    assert [bus.written.count(bytes([register])) for register in (0xD0, 0x88, 0xE1)] == [1, 2, 2]
    assert bus.written.count(b"\xf4\x25") == 5
    assert sim.answer(b"\xf2")[:3] == bytes([0x01, 0x00, 0x24])


def test_values_are_read_when_they_are_ready_and_not_before():
    sim = Sim({}, seed=1)
    bus = Bus(sim)
    sim.tick(START_MS)
    driver = Driver({})
    bus.measure(driver)
    sim.set("temperature", "", 5)
    assert bus.measure(driver)[0][0].value == 500


def test_chip_that_lost_its_power_is_set_up_again_before_anything_is_believed():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("brown-out")
    group = bus.measure(driver)[0]
    assert [row.quantity for row in group] == ["temperature", "humidity", "pressure"]
    assert bus.written.count(b"\x88") == 4


def test_flipped_bit_is_noticed_because_values_are_read_twice():
    sim, driver = Sim({}, seed=1), Driver({})
    sim.faults.add("noise")
    assert Bus(sim).measure(driver) == []
    assert "read twice" in str(driver.damaged[0][1])


@given(bit=st.integers(0, 8 * 33 - 1))
def test_flipped_bit_in_a_calibration_is_noticed(bit):
    sim, driver = Sim({}, seed=1), Driver({})
    spoilt = []

    def answer(request: bytes) -> bytes | None:
        said = Sim.answer(sim, request)
        at = bit // 8 if request == b"\x88" else bit // 8 - 26
        if request in (b"\x88", b"\xe1") and 0 <= at < len(said) and not spoilt:
            spoilt.append(at)
            return said[:at] + bytes([said[at] ^ 1 << bit % 8]) + said[at + 1 :]
        return said

    bus = Bus(sim)
    sim.answer = answer  # type: ignore[method-assign]
    assert bus.measure(driver) == []
    assert spoilt
    assert bus.measure(driver), "the next one reads it anew"


@pytest.mark.parametrize(("fault", "said"), [("wrong device", "chip id is 60"), ("bus held", "chip id is 60")])
def test_chip_that_is_no_bme280_is_refused(fault, said):
    sim, driver = Sim({}, seed=1), Driver({})
    sim.faults.add(fault)
    assert Bus(sim).measure(driver) == []
    assert said in str(driver.damaged[0][1])


def test_chip_that_was_not_heard_when_it_was_to_measure_gives_no_old_values():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.set("temperature", "", 40)
    sim.answer = lambda request: None if request[:1] == b"\xf4" else Sim.answer(sim, request)  # type: ignore[method-assign]
    assert bus.measure(driver) == []


def test_bus_that_is_held_later_is_noticed():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("bus held")
    assert bus.measure(driver) == []


@pytest.mark.parametrize("octets", ["0000000000000000", "ffffffffffffffff"])
def test_lines_that_nobody_drives_are_no_values(octets):
    with pytest.raises(WireError, match="bus"):
        codec.decode(bytes.fromhex(octets), CALIBRATION)


def test_wet_sensor_is_doubted_at_its_end_of_the_scale_alone():
    sim, driver = Sim({}, seed=1), Driver({})
    sim.faults.add("wet")
    group = Bus(sim).measure(driver)[0]
    assert [(row.quantity, row.quality) for row in group] == [
        ("temperature", GOOD),
        ("humidity", SUSPECT),
        ("pressure", GOOD),
    ]
    assert driver.attributes["doubt"].endswith("humidity")


def test_sensor_that_repeats_itself_for_a_minute_is_doubted():
    sim, driver = Sim({}, seed=1), Driver({})
    bus = Bus(sim)
    bus.measure(driver)
    sim.faults.add("stuck")
    qualities = [bus.measure(driver, after_ms=10_000)[0][0].quality for _ in range(12)]
    assert SUSPECT not in qualities[:8]
    assert qualities[-1] == SUSPECT


def test_values_without_a_calibration_before_them_are_damage():
    driver = Driver({})
    assert driver.feed(bytes.fromhex("655ac07eed0061a8"), 0) == []
    assert "no calibration" in str(driver.damaged[0][1])


@pytest.mark.parametrize("settings", [{"address": 0x75}, {"address": "0x76"}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError):
        Driver(settings)
