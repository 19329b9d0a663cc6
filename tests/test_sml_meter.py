"""SML behind a check value that is right: whatever a meter packs into its file, the next file is heard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.checks import crc16_x25
from bega_protocols.devices.sml_meter.codec import FILE_SIZE
from bega_protocols.devices.sml_meter.driver import Driver
from bega_protocols.devices.sml_meter.sim import Sim
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import GOOD, SUSPECT, Reading

ESCAPE = b"\x1b" * 4
ITEM = st.sampled_from([b"\x01", b"\x00", b"\x71", b"\x76", b"\x77", b"\xf1\x0e", b"\xff\xff\xff", b"\x63\x07\x01"])


def file(payload: bytes, padding: int = 0, check=crc16_x25) -> bytes:
    whole = ESCAPE + b"\x01" * 4 + payload.replace(ESCAPE, 2 * ESCAPE) + ESCAPE + bytes([0x1A, padding])
    return whole + check(whole).to_bytes(2, "little")


def sound() -> bytes:
    return Sim({}, seed=1).tick(0)


@given(payload=st.binary(max_size=200) | st.lists(ITEM | st.binary(max_size=6), max_size=60).map(b"".join))
def test_whatever_stands_in_a_file_costs_no_more_than_that_file(payload):
    driver = Driver({})
    driver.feed(file(payload), 0)
    assert driver.feed(sound(), 0)
    assert all(isinstance(error, WireError) for _, error in driver.damaged)


@pytest.mark.parametrize("count", [9, 100, 4000])
def test_lists_in_lists_are_refused_before_they_use_up_the_stack(count):
    driver = Driver({})
    assert driver.feed(file(b"\x71" * count + b"\x01"), 0) == []
    assert "deep" in driver.damaged[0][1].why
    assert driver.feed(sound(), 0)


@pytest.mark.parametrize(
    ("payload", "padding", "why"),
    [
        (b"\x00" * 8, 4, "padding"),
        (b"", 1, "padding"),
        (b"\x76\x05\x01", 0, "cut off"),
        (b"\xf0\xf0\xf0\xf0", 0, "without end"),
        (b"\x76\x21\x00\x00", 0, "no SML item"),
        (b"\x0b\x0a\x01", 0, "cut off"),
        (b"\x00", 0, "no SML message"),
        (b"\x76\x01\x01\x01\x72\x63\x07\x01\x01\x01\x00", 0, "no SML list of values"),
    ],
)
def test_broken_file_is_told_why(payload, padding, why):
    driver = Driver({})
    assert driver.feed(file(payload, padding), 0) == []
    assert why in driver.damaged[0][1].why


def test_file_that_breaks_off_is_lost_alone():
    driver, sim = Driver({}), Sim({}, seed=1)
    sim.faults.add("cut")
    torn = sim.tick(0)
    sim.faults.clear()
    assert len(driver.feed(torn + sim.tick(1000) + torn + sim.tick(2000), 0)) == 2
    assert [offset for offset, _ in driver.damaged] == [0, len(torn) + len(sound())]


def test_file_without_end_is_given_up():
    driver = Driver({})
    endless = ESCAPE + b"\x01" * 4 + bytes(2 * FILE_SIZE)
    assert len(driver.feed(endless + sound(), 0)) == 1
    assert driver.damaged[0][0] == 0


def test_household_meter_stands_in_no_error():
    driver, sim = Driver({}), Sim({}, seed=1)
    sim.faults.add("crc")
    driver.feed(sim.tick(0), 0)
    driver.feed(sim.tick(1000)[:300] + sound(), 0)
    for _, error in driver.damaged:
        assert "014247410000" not in str(error)


@pytest.mark.parametrize(
    ("server_id", "quality"),
    [
        ("0a01445a470002822220", SUSPECT),  # 1 DZG 00 42082848
        ("0a01445a47000280de80", SUSPECT),  # 42000000, the first
        ("0a01445a47000280de7f", GOOD),
        ("0a01445a470002ebae3f", SUSPECT),  # 48999999, the last
        ("0a01445a470002ebae40", GOOD),
        ("0a01445a4700039e2053", GOOD),  # 60694611: mended by its maker
        ("0a0142474100028222ae", GOOD),  # the same number of another maker
        ("0a01445a4700028222", GOOD),
    ],
)
def test_power_whose_sign_a_dvs74_leaves_open_is_suspect(server_id, quality):
    identified = bytes([len(server_id) // 2 + 1]) + bytes.fromhex(server_id)
    energy = bytes.fromhex("77 070100010800ff 01 01 621e 52ff 65000f4240 01")
    power = bytes.fromhex("77 070100100700ff 01 01 621b 52fe 538b28 01")  # 356.24 W, as such a meter sends it
    values = b"\x77\x01" + identified + b"\x01\x01\x72" + energy + power + b"\x01\x01"
    message = b"\x76\x01\x01\x01\x72\x63\x07\x01" + values + b"\x01\x00"
    expected = [Reading("active_energy_import", 1_000_000, -4), Reading("active_power", -29912, -2, "", quality)]
    assert Driver({}).feed(file(message), 0) == [expected]
    sound_power = message.replace(bytes.fromhex("538b28"), bytes.fromhex("537b28"))
    assert Driver({}).feed(file(sound_power), 0)[0][1] == Reading("active_power", 31528, -2)


@pytest.mark.parametrize("obis", ["010001080000", "010001080063", "0200010800ff", "0101010800ff"])
def test_register_of_the_past_or_of_another_medium_is_no_reading(obis):
    entries = (f"77 07{of} 01 01 621e 52ff 65000f4240 01" for of in (obis, "0100020800ff"))
    values = b"\x77\x01\x01\x01\x01\x72" + bytes.fromhex("".join(entries)) + b"\x01\x01"
    message = b"\x76\x01\x01\x01\x72\x63\x07\x01" + values + b"\x01\x00"
    assert Driver({}).feed(file(message), 0) == [[Reading("active_energy_export", 1_000_000, -4)]]


@pytest.mark.parametrize("crc", ["x26", 25, ["x25"], {}])
def test_check_value_that_nobody_computes_is_refused(crc):
    with pytest.raises(ConfigError, match="crc must be"):
        Driver({"crc": crc})


@pytest.mark.parametrize(("said", "expected"), [("kermit", "x25"), ("x25", "kermit")])
def test_other_check_value_is_damage(said, expected):
    driver = Driver({"crc": expected})
    assert driver.feed(Sim({"crc": said}, seed=1).tick(0), 0) == []
    assert "check value" in driver.damaged[0][1].why
    assert Driver({"crc": said}).feed(Sim({"crc": said}, seed=1).tick(0), 0)


def test_meter_that_waits_for_its_pin_tells_energy_alone():
    sim = Sim({}, seed=1)
    sim.faults.add("no power")
    (group,) = Driver({}).feed(sim.tick(0), 0)
    quantities = {reading.quantity for reading in group}
    assert "active_energy_import" in quantities and "active_power" not in quantities
