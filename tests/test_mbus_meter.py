"""The M-Bus driver: what it asks, what it believes, and what it never calls good."""

import random
from decimal import Decimal

import pytest

from bega_protocols.devices.mbus_meter.driver import Driver
from bega_protocols.devices.mbus_meter.sim import Sim
from bega_protocols.errors import ConfigError
from bega_protocols.mbus import long_frame
from bega_protocols.reading import GOOD, SUSPECT
from tests.contract import NOW_MS, drive, exact, through

NKE, FIRST, SECOND = "1040054516", "107b058016", "105b056016"
STAMP = 1_767_221_940


def meter(**settings: object) -> Sim:
    sim = Sim({"address": 5, **settings}, seed=1)
    sim.set("heat_energy", "", Decimal(36_000_000))
    sim.set("heat_energy", "s1", Decimal(18_000_000))
    sim.set("measured_at", "", STAMP)
    return sim


def read(driver, sim, spoil=lambda number, answer: answer):
    """Return (groups, what was asked in hex); `spoil` makes of each answer what the wire makes of it."""
    asked = []

    def answer(ask):
        asked.append(ask.write.hex())
        return through(ask, spoil(len(asked), sim.answer(ask.write)), "mbus")

    return drive(driver.measure(NOW_MS), answer), asked


def values(groups):
    return {(reading.quantity, reading.part): exact(reading) for group in groups for reading in group}


def test_meter_is_reset_then_asked_with_the_count_bit_turned_round():
    groups, asked = read(Driver({"address": 5}), meter())
    assert asked == [NKE, FIRST, SECOND]
    assert len(groups) == 2
    assert values(groups)["heat_energy", "s1"] == 18_000_000


def test_damaged_answer_is_asked_for_with_the_same_count_bit():
    def spoil(number, answer):
        return answer[:-3] + b"\x00\x00\x16" if number == 2 else answer

    driver = Driver({"address": 5})
    groups, asked = read(driver, meter(), spoil)
    assert asked == [NKE, FIRST, FIRST, SECOND]
    assert len(groups) == 2
    assert len(driver.damaged) == 1


def test_lost_answer_is_asked_for_with_the_same_count_bit_and_comes_again():
    groups, asked = read(Driver({"address": 5}), meter(), lambda number, answer: None if number == 3 else answer)
    assert asked == [NKE, FIRST, SECOND, SECOND]
    assert values(groups)["heat_energy", "s1"] == 18_000_000


def test_each_step_is_tried_three_times_and_a_dead_meter_costs_three_waits():
    sim = meter()
    sim.faults.add("silent")
    assert read(Driver({"address": 5}), sim) == ([], [NKE] * 3)
    sim.faults = {"mute"}
    assert read(Driver({"address": 5}), sim) == ([], [NKE] + [FIRST] * 3)


def test_meter_that_does_not_acknowledge_the_reset_is_not_believed():
    """Its count bit is where the last master left it: it would repeat that master's telegram."""
    sim = meter()
    stale = sim.answer(bytes.fromhex(FIRST))
    sim.set("heat_energy", "", Decimal(72_000_000))
    assert sim.answer(bytes.fromhex(FIRST)) == stale, "the trap is real: without a reset the old values come"
    groups, _ = read(Driver({"address": 5}), sim)
    assert values(groups)["heat_energy", ""] == 72_000_000
    sim.faults.add("deaf to resets")
    assert read(Driver({"address": 5}), sim) == ([], [NKE] * 3)


def test_readout_that_breaks_off_gives_what_came():
    groups, _ = read(Driver({"address": 5}), meter(), lambda number, answer: None if number > 2 else answer)
    assert values(groups)["heat_energy", ""] == 36_000_000
    assert ("heat_energy", "s1") not in values(groups)


def test_meter_that_ignores_the_count_bit_is_read_once():
    sim = meter()
    sim.faults.add("count bit")
    driver = Driver({"address": 5})
    groups, asked = read(driver, sim)
    assert asked == [NKE, FIRST, SECOND]
    assert values(groups)["heat_energy", ""] == 36_000_000
    assert driver.attributes["records"] == "7"


def test_meter_that_always_has_more_is_left_after_twenty_telegrams():
    header = bytes.fromhex("785634122440010755000000")
    endless = [long_frame(8, 5, 0x72, header + bytes([1, 0x13, number, 0x1F])).hex() for number in range(100)]
    groups, asked = read(Driver({"address": 5}), meter(telegrams=endless))
    assert len(asked) == 1 + 20
    assert len(groups) == 1


def test_stored_values_come_when_their_date_changes():
    driver, sim = Driver({"address": 5}), meter()
    assert [len(read(driver, sim)[0]) for _ in range(3)] == [2, 1, 1]
    sim.set("measured_at", "", STAMP + 86_400)
    assert len(read(driver, sim)[0]) == 2


# Addresses.


def test_secondary_address_is_selected_and_the_link_reset_while_it_is():
    sim = meter(primary=9, identification="00025776")
    groups, asked = read(Driver({"address": "00025776"}), sim)
    select = "680b0b6853fd5276570200ffffffff6d16"
    assert asked == [select, "1040fd3d16", select, "107bfd7816", "105bfd5816"]
    assert values(groups)["heat_energy", ""] == 36_000_000


@pytest.mark.parametrize("address", ["12345678.PAD.01.04", "1234567F", "12345678"])
def test_whole_and_wild_secondary_addresses_find_the_meter(address):
    sim = Sim({"identification": "12345678"}, seed=1)
    assert read(Driver({"address": address}), sim)[0]


@pytest.mark.parametrize("address", ["12345679", "12345678.KAM.01.04", "12345678.PAD.02.04", "12345678.PAD.01.07"])
def test_another_meter_is_not_selected(address):
    sim = Sim({"identification": "12345678"}, seed=1)
    assert not read(Driver({"address": address}), sim)[0]


@pytest.mark.parametrize("address", [5, "12345678"])
def test_answer_of_another_meter_is_refused(address):
    """By primary address another address answers, by secondary another identification."""
    sim = Sim({"address": 5, "identification": "12345678"}, seed=1)
    sim.faults.add("wrong device")
    other = Sim({"address": 6}, seed=1)
    driver = Driver({"address": address})

    def spoil(number, answer):
        return other.answer(bytes.fromhex("107b068116")) if address == 5 and answer and len(answer) > 1 else answer

    groups, _ = read(driver, sim, spoil)
    assert not groups
    assert {error.why for _, error in driver.damaged} == {"another meter has answered"}


def test_meter_that_changes_between_two_telegrams_is_refused():
    driver, sim = Driver({"address": 5}), meter()

    def spoil(number, answer):
        if number == 2:
            sim.identification = "87654321"
            sim._sent[1:] = [sim._telegram_of([0x01, 0x13, 0x05])]
        return answer

    groups, _ = read(driver, sim, spoil)
    assert {error.why for _, error in driver.damaged} == {"another meter goes on"}
    assert ("volume", "s1") not in values(groups)


@pytest.mark.parametrize(
    "settings",
    [
        {"address": 251},
        {"address": -1},
        {"address": True},
        {"address": 12345678},
        {"address": "1234"},
        {"address": "12345678.kam.1B"},
        {"address": 5, "baud": 1000},
        {"address": 5, "normal_time_utc_min": 900},
        {"adress": 5},
    ],
)
def test_wrong_setting_is_refused(settings):
    with pytest.raises(ConfigError):
        Driver(settings)


def test_time_to_wait_follows_the_rate_of_the_line():
    waits = [next(Driver({"address": 5, "baud": baud}).measure(NOW_MS)).wait_ms for baud in (300, 2400, 9600)]
    assert waits == [1250, 288, 185]


# What is no reading.


def test_status_of_an_error_makes_every_reading_suspect():
    sim = meter()
    sim.faults.add("temporary error")
    groups, _ = read(Driver({"address": 5}), sim)
    assert {reading.quality for group in groups for reading in group} == {SUSPECT}


def test_enciphered_telegram_is_damage_and_no_reading():
    header = bytes.fromhex("785634122440010755000505")
    driver = Driver({"address": 5})
    groups, _ = read(driver, meter(telegrams=[long_frame(8, 5, 0x72, header + b"\x01\x13\x05").hex()]))
    assert not groups
    assert "enciphered" in driver.damaged[0][1].why


@pytest.mark.parametrize(("fault", "why"), [("busy", "busy"), ("babble", "no whole frame"), ("cut", "no whole frame")])
def test_what_is_no_telegram_is_named_and_asked_again(fault, why):
    sim = meter()
    sim.faults.add(fault)
    driver = Driver({"address": 5})
    groups, asked = read(driver, sim)
    assert not groups
    assert asked == [NKE] + [FIRST] * 3
    assert all(why in error.why for _, error in driver.damaged)


HEAT, ELECTRICITY, WATER = "04", "02", "07"


def alone(medium: str, body: str) -> dict:
    """Return what a telegram of one meter with these records reads as."""
    header = bytes.fromhex("78563412244001" + medium + "55000000")
    return values(
        read(Driver({"address": 5}), meter(telegrams=[long_frame(8, 5, 0x72, header + bytes.fromhex(body)).hex()]))[0]
    )


@pytest.mark.parametrize(
    ("medium", "body"),
    [
        (WATER, "1413 01000000"),  # maximum
        (WATER, "2413 01000000"),  # minimum
        (WATER, "3413 01000000"),  # during an error
        (WATER, "844013 01000000"),  # subunit 1
        (WATER, "0493 28 01000000"),  # per pulse
        (WATER, "0493 7F 01000000"),  # the maker's own
        (WATER, "0493 3B 01000000"),  # forward: which way is that in a pipe?
        (HEAT, "0486 3C 01000000"),  # reverse, in a heat meter: cooling, or not
        (ELECTRICITY, "02FD C8 FC 81 12 0100"),  # the average of a phase
        (ELECTRICITY, "02FD C8 FC 05 0100"),  # between two phases
        (ELECTRICITY, "0408 01000000"),  # joules are no tenfold of kW.h
        (HEAT, "0430 01000000"),  # power in J/h
        (WATER, "0406 01000000"),  # energy of a water meter
        (HEAT, "0CFB 1A 01000000"),  # humidity: one source
        (WATER, "0D13 03 434241"),  # a text
        (WATER, "0513 0000807F"),  # infinity
    ],
)
def test_record_that_is_not_plain_is_no_reading(medium, body):
    assert alone(medium, body) == {}


@pytest.mark.parametrize("body", ["0403 01000000 0483 3B 02000000", "0483 3B 02000000 0403 01000000"])
def test_energy_without_a_direction_beside_one_with_is_no_import(body):
    assert alone(ELECTRICITY, body) == {("active_energy_import", ""): Decimal("0.002")}


@pytest.mark.parametrize(
    ("medium", "body", "quantity", "value"),
    [
        (WATER, "0244 6400", "volume_flow", "6"),  # 100 x 0.001 m3/min
        (WATER, "024C 0100", "volume_flow", "0.036"),  # 10^-5 m3/s
        (HEAT, "0AFB 09 0200", "heat_energy", "2E9"),
        (HEAT, "0AFB 01 0200", "heat_energy", "7.2E9"),
        ("0A", "0406 02000000", "cold_energy", "7200000"),
        ("0A", "042B 02000000", "thermal_power", "2"),
        ("1B", "0266 D200", "temperature", "21"),
        (WATER, "0269 0A00", "pressure", "100"),
        (WATER, "0223 0300", "on_time", "259200"),
        (ELECTRICITY, "04FD D9 FC 03 E8030000", "current", "1"),
        ("03", "0513 CDCCCC3D", "gas_volume", "0.0001"),
    ],
)
def test_record_is_read_in_the_quantitys_unit(medium, body, quantity, value):
    (((found, _), number),) = alone(medium, body).items()
    assert (found, number) == (quantity, Decimal(value))


def test_anything_but_an_acknowledgement_is_none():
    driver = Driver({"address": 5})
    groups, asked = read(driver, meter(), lambda number, answer: b"\xe4" if number <= 3 else answer)
    assert (groups, asked) == ([], [NKE] * 3)
    assert len(driver.damaged) == 3


def test_unread_records_are_listed_by_number_and_counted():
    driver = Driver({"address": 5})
    body = bytes.fromhex("0413 01000000 1413 02000000 844013 03000000 41933A 04")
    header = bytes.fromhex("785634122440010755000000")
    read(driver, meter(telegrams=[long_frame(8, 5, 0x72, header + body).hex()]))
    told = driver.attributes
    assert (told["records"], told["unread"]) == ("4", "3")
    assert told["record_1"] == "maximum volume 0.002 m3"
    assert told["record_2"] == "volume 0.003 m3, subunit 1"
    assert told["record_3"] == "volume 0.004 m3, storage 1, uncorrected"


def test_damaged_record_costs_itself_and_what_follows_not_what_stands_before():
    driver = Driver({"address": 5})
    header = bytes.fromhex("785634122440010755000000")
    groups, _ = read(driver, meter(telegrams=[long_frame(8, 5, 0x72, header + b"\x01\x13\x05\x04\x13\x00").hex()]))
    assert values(groups) == {("water_volume", ""): Decimal("0.005")}
    assert driver.damaged[0][0] == 3


def test_second_date_of_a_storage_is_listed_and_one_in_the_future_is_no_stamp():
    header = bytes.fromhex("785634122440010755000000")
    clock, stored, again = (
        "046D 1E 14 56 3B",
        "426C 5F 3A 426C 5E 3B",
        "4413 02000000",
    )  # 22 Nov 2026; 31 Oct, 30 Nov 2026
    due = "82016C 5F 3C 840113 03000000"  # storage 2 on 31 Dec 2026
    driver = Driver({"address": 5})
    body = bytes.fromhex(clock + stored + again + due)
    groups, _ = read(driver, meter(telegrams=[long_frame(8, 5, 0x72, header + body).hex()]))
    assert values(groups) == {("water_volume", "s1"): Decimal("0.002"), ("measured_at", ""): Decimal(1_793_401_200)}
    listed = [text for name, text in driver.attributes.items() if name.startswith("record_")]
    assert listed[1:] == ["date 2026-11-30, storage 1", "date 2026-12-31, storage 2", "volume 0.003 m3, storage 2"]


def test_storage_whose_date_is_not_set_has_stored_nothing():
    header = bytes.fromhex("785634122440010755000000")
    body = bytes.fromhex("0413 01000000 426C 0000 4413 02000000")
    groups, _ = read(Driver({"address": 5}), meter(telegrams=[long_frame(8, 5, 0x72, header + body).hex()]))
    assert values(groups) == {("water_volume", ""): Decimal("0.001")}


def test_date_of_a_maximum_that_is_not_set_leaves_the_storage_its_own():
    header = bytes.fromhex("785634122440010755000000")
    body = bytes.fromhex("526C 0000 42EC7E 0000 426C 5F 3A 4413 02000000")
    groups, _ = read(Driver({"address": 5}), meter(telegrams=[long_frame(8, 5, 0x72, header + body).hex()]))
    assert values(groups)["water_volume", "s1"] == Decimal("0.002")


def test_storage_that_a_broken_readout_gave_in_part_comes_whole_with_the_next_one():
    first, second = "0413 01000000 426C 5F 3A 4413 02000000 1F", "443B 07000000"
    sim, driver = meter(telegrams=[telegram(7, first), telegram(7, second)]), Driver({"address": 5})
    groups, _ = read(driver, sim, lambda number, answer: None if number > 2 else answer)
    assert ("water_volume", "s1") in values(groups)
    groups, _ = read(driver, sim)
    assert values(groups)["volume_flow", "s1"] == Decimal("0.007")
    groups, _ = read(driver, sim)
    assert set(values(groups)) == {("water_volume", "")}


def test_storage_that_an_error_made_suspect_comes_again_when_the_error_is_gone():
    driver, sim = Driver({"address": 5}), meter()
    sim.faults.add("temporary error")
    assert [reading.quality for reading in read(driver, sim)[0][1]] == [SUSPECT, SUSPECT]
    assert len(read(driver, sim)[0]) == 1
    sim.faults.clear()
    assert [reading.quality for reading in read(driver, sim)[0][1]] == [GOOD, GOOD]


@pytest.mark.parametrize(
    ("medium", "first", "second"),
    [
        (7, "0413 01000000 4413 02000000 1F", "426C 5F 3A"),  # the date of the storage comes behind its value
        (2, "0422 01000000 0404 02000000 1F", "04843B 05000000 04843C 03000000"),  # and the directions of an energy
    ],
)
def test_broken_readout_gives_nothing_whose_meaning_is_in_what_did_not_come(medium, first, second):
    sim = meter(telegrams=[telegram(medium, first), telegram(medium, second)])
    broken, _ = read(Driver({"address": 5}), sim, lambda number, answer: None if number > 2 else answer)
    whole, _ = read(Driver({"address": 5}), sim)
    assert len(values(broken)) == 1
    assert values(broken).items() <= values(whole).items()
    assert len(whole) > 1 or len(values(whole)) == 3


def telegram(medium: int, body: str) -> str:
    header = bytes.fromhex("785634122440010755000000")
    return long_frame(8, 5, 0x72, header[:7] + bytes([medium]) + header[8:] + bytes.fromhex(body)).hex()


def test_group_of_a_storage_has_the_meters_time():
    """Half past one on 1 July, summer time, an hour and another ahead of UTC."""
    header = bytes.fromhex("785634122440010755000000")
    body = bytes.fromhex("0413 01000000 446D 1E 81 41 37 4413 02000000")
    groups, _ = read(
        Driver({"address": 5, "normal_time_utc_min": 120}),
        meter(telegrams=[long_frame(8, 5, 0x72, header + body).hex()]),
    )
    assert exact(groups[1][-1]) == 1_782_858_600  # 2026-06-30T22:30 UTC
    assert [reading.part for reading in groups[1]] == ["s1", ""]


def test_ten_thousand_measurements_with_faults_call_no_wrong_value_good():
    """Noise in any answer, silence, meters that repeat, stop in the middle or are another: what is good, is true.

    The noise is of flips that the sum sees (one bit in a frame) and of whole bursts: of those, one in 256 passes a sum
    of eight bits and is no fault of ours, so a burst here always changes the sum.
    """
    rng = random.Random(7)
    driver, sim = Driver({"address": 5}), meter()
    good = 0
    for _ in range(10_000):
        true = {("heat_energy", ""): Decimal(rng.randrange(10**8)) * 3_600_000}
        true["heat_energy", "s1"] = Decimal(rng.randrange(10**8)) * 3_600_000
        true["volume_flow", ""] = Decimal(rng.randrange(-99_999, 999_999)).scaleb(-3)
        for (quantity, part), value in true.items():
            sim.set(quantity, part, value)
        sim.set("measured_at", "", STAMP + 60 * rng.randrange(100_000))
        sim.faults = {fault for fault in ("silent", "cut", "checksum", "count bit", "wrong device", "mute", "babble")
                      if rng.random() < 0.03}  # fmt: skip
        groups, _ = read(driver, sim, lambda _, answer: spoilt(rng, answer))
        driver.damaged.clear()
        for group in groups:
            for reading in group:
                if (reading.quantity, reading.part) in true and reading.quality == GOOD:
                    assert exact(reading) == true[reading.quantity, reading.part], (reading, sim.faults)
                    good += 1
    assert good > 15_000


def spoilt(rng: random.Random, answer: bytes | None) -> bytes | None:
    """Return what is left of an answer: one in ten is hit."""
    if answer is None or rng.random() > 0.1:
        return answer
    kind = rng.randrange(4)
    if kind == 0:
        return None
    if kind == 1:
        return answer[: rng.randrange(len(answer))]
    if kind == 2:
        return rng.randbytes(rng.randrange(1, 20)) + answer
    hit = bytearray(answer)
    hit[rng.randrange(len(hit))] ^= 1 << rng.randrange(8)
    return bytes(hit)
