"""Ruuvi: formats 5 and 6 against the reference decoder, and what is refused."""

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruuvitag_sensor.decoder import Df5Decoder, Df6Decoder

from bega.devices import load_driver
from bega_protocols.devices.ruuvitag.driver import REPEAT_MS, REPEAT_OF_SEQUENCE_MS, Driver
from bega_protocols.devices.ruuvitag.sim import Sim
from bega_protocols.reading import GOOD, SUSPECT, Reading

ADDRESS = "CB:B8:33:4C:88:4F"
TAIL = {5: bytes.fromhex(ADDRESS.replace(":", "")), 6: bytes.fromhex(ADDRESS.replace(":", ""))[3:]}
STANDARD_GRAVITY = Decimal("0.00980665")  # m/s2 in one mG
# The reference's name of a value: our quantity and part, and how many of ours are in one of its.
REFERENCE = {
    "temperature": ("temperature", "", 1),
    "humidity": ("humidity", "", 1),
    "pressure": ("pressure", "", 1),
    "acceleration_x": ("acceleration", "x", STANDARD_GRAVITY),
    "acceleration_y": ("acceleration", "y", STANDARD_GRAVITY),
    "acceleration_z": ("acceleration", "z", STANDARD_GRAVITY),
    "battery": ("voltage", "", Decimal("0.001")),
    "movement_counter": ("movement_count", "", 1),
    "measurement_sequence_number": ("packet_id", "", 1),
    "pm_2_5": ("pm2_5", "", 1),
    "co2": ("co2", "", 1),
    "voc": ("voc_index", "", 1),
    "nox": ("nox_index", "", 1),
}
PLACES = {  # to which the reference rounds; the sensor's own steps are finer
    (5, "temperature"): Decimal("0.005"),
    (5, "humidity"): Decimal("0.005"),
    (6, "humidity"): Decimal("0.0005"),
}


def ours(groups):
    return {(row.quantity, row.part): Decimal(row.value).scaleb(row.exp10) for group in groups for row in group}


def reference(payload):
    """Return what ruuvitag-sensor reads: for it counters are always available, and the three axes are so together."""
    found = (Df5Decoder() if payload[0] == 5 else Df6Decoder()).decode_data(payload.hex())
    return {
        REFERENCE[name][:2]: Decimal(str(value)) * REFERENCE[name][2]
        for name, value in found.items()
        if name in REFERENCE and value is not None
    }


def payload_of(number, chance):
    """Return any payload of a format: random fields, every third one with a field at its end or not available."""
    size = {5: 18, 6: 17}[number]
    payload = bytearray(bytes([number]) + chance.randbytes(size - 1) + TAIL[number])
    if chance.random() < 0.33:
        at = chance.choice((1, 3, 5, 7, 9) if number == 6 else (1, 3, 5, 13))
        payload[at : at + 2] = chance.choice((b"\x80\x00", b"\xff\xff", b"\x00\x00", b"\x7f\xff"))
    return bytes(payload)


@pytest.mark.parametrize("number", [5, 6])
def test_reference_agrees_on_ten_thousand_payloads(number):
    chance = random.Random(number)
    driver = load_driver("ruuvitag", {"address": ADDRESS})
    for count in range(10_000):
        payload = payload_of(number, chance)
        found, read = ours(driver.feed(b"\x99\x04" + payload, count * 100_000)), reference(payload)
        for key in [key for key in read if key not in found]:  # the counters' own "not available"
            assert (key[0], read.pop(key)) in {("movement_count", 255), ("packet_id", 65535)}
        for key in [key for key in found if key not in read]:
            assert key[0] == "acceleration" and b"\x80\x00" in payload
            del found[key]
        assert found.keys() == read.keys()
        for key, value in found.items():
            assert abs(value - read[key]) <= PLACES.get((number, key[0]), 0), (payload.hex(), key)
    assert not driver.damaged


def sensor(number=5, **quantities):
    sim = Sim({"address": ADDRESS, "format": number}, seed=1)
    for quantity, value in quantities.items():
        sim.set(quantity, "", Decimal(value))
    return sim


def minute(driver, sim):
    return [group for now_ms in range(0, 60_000, 100) for group in driver.feed(sim.tick(now_ms), now_ms)]


@given(
    temperature=st.integers(-32767, 32767).map(lambda steps: Decimal(steps) / 200),
    humidity=st.integers(0, 40_000).map(lambda steps: Decimal(steps) / 400),
    pressure=st.integers(50_000, 115_534).map(lambda pascal: Decimal(pascal) / 100),
)
def test_any_climate_is_read_as_it_is(temperature, humidity, pressure):
    for number in (5, 6):
        sim = sensor(number, temperature=temperature, humidity=humidity, pressure=pressure)
        found = ours(load_driver("ruuvitag", {"address": ADDRESS}).feed(sim.tick(0), 0))
        del found["packet_id", ""]
        assert found == {("temperature", ""): temperature, ("humidity", ""): humidity, ("pressure", ""): pressure}


def test_air_sensor_that_calibrates_itself_is_suspect():
    sim = sensor(6, pm2_5="11.2", co2=640, voc_index=101, nox_index=2)
    sim.faults.add("calibrating")
    [group] = load_driver("ruuvitag", {}).feed(sim.tick(0), 0)
    assert {row.quantity: (row.value, row.quality) for row in group} == {
        "packet_id": (1, GOOD),
        "pm2_5": (112, SUSPECT),
        "co2": (640, SUSPECT),
        "voc_index": (101, SUSPECT),
        "nox_index": (2, SUSPECT),
    }


def test_each_measurement_is_one_group_though_it_is_said_twice():
    groups = minute(load_driver("ruuvitag", {"address": ADDRESS}), sensor(temperature="20"))
    ids = [group[0].value for group in groups]
    assert ids == list(range(1, len(ids) + 1))
    assert 20 <= len(ids) <= 24


def test_tag_that_is_stuck_is_still_there_once_a_minute():
    driver, sim = load_driver("ruuvitag", {}), sensor(temperature="20")
    sim.faults.add("stuck")
    [[*first]] = minute(driver, sim)
    [again] = driver.feed(sim.tick(10**6), REPEAT_OF_SEQUENCE_MS)
    assert {row.quality for row in first} == {GOOD}
    assert {row.quality for row in again} == {SUSPECT}, "it no longer measures"
    sim.faults.clear()
    [alive] = driver.feed(sim.tick(2 * 10**6), REPEAT_OF_SEQUENCE_MS + 1)
    assert {row.quality for row in alive} == {GOOD}


def test_without_a_sequence_number_equal_bytes_are_news_after_four_seconds():
    chunk = bytes.fromhex("990405" + "12FC5394C37C" + "800080008000" + "FFFF" + "FF" + "FFFF" + "CBB8334C884F")
    driver = load_driver("ruuvitag", {})
    assert [len(driver.feed(chunk, now_ms)) for now_ms in (0, 1000, REPEAT_MS, REPEAT_MS + 1)] == [1, 0, 1, 0]


@pytest.mark.parametrize("number", [5, 6])
def test_payload_of_another_sensor_is_refused(number):
    driver, sim = load_driver("ruuvitag", {"address": ADDRESS}), sensor(number, temperature="20")
    sim.faults.add("wrong device")
    assert minute(driver, sim) == []
    assert {error.why for _, error in driver.damaged} == {"the payload is of another sensor"}, "whoever it names"


@pytest.mark.parametrize("chunk", ["9904", "990405", "99040512FC", "0306FF9904" + "06", "0aff9904"])
def test_what_is_cut_off_is_damage(chunk):
    driver = load_driver("ruuvitag", {})
    assert driver.feed(bytes.fromhex(chunk), 0) == []
    assert len(driver.damaged) == 1


def test_format_that_is_not_read_is_named_and_no_damage():
    driver = load_driver("ruuvitag", {})
    assert driver.feed(bytes.fromhex("9904E1") + bytes(38), 0) == []
    assert not driver.damaged
    assert driver.attributes == {"unread_format": "0xe1"}


def test_it_is_recognised_and_strangers_are_not():
    assert Driver.recognises(sensor(temperature="1").tick(0))
    assert Driver.recognises(sensor(6, temperature="1").tick(0))
    strangers = ("02011a0303aafe", "07ff4c0010050102", "05ff99040512", "9904e100", "", "0aff")
    assert not any(Driver.recognises(bytes.fromhex(chunk)) for chunk in strangers)


@given(st.binary(max_size=60))
def test_anything_may_come_and_damage_has_its_place(chunk):
    driver = load_driver("ruuvitag", {"address": ADDRESS})
    driver.feed(b"xy", 0)
    driver.damaged.clear()
    driver.feed(b"\x99\x04" + chunk, 0)
    assert all(offset == 2 for offset, _ in driver.damaged)
    assert Driver.recognises(chunk) in (True, False)


def test_vectors_read_transmit_power_too():
    driver = load_driver("ruuvitag", {})
    frame = bytes.fromhex("99040512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F")
    assert Reading("packet_id", 205) in driver.feed(frame, 0)[0]
    assert driver.attributes == {"tx_power_dbm": "4"}
