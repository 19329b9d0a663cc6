"""What a Modbus meter says of itself: settings that change meaning are read first, and nothing wrong is called good."""

import copy
import struct
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.devices import profile_names, with_profile
from bega_protocols.devices.modbus_meter.codec import float_bits, float_in_units
from bega_protocols.devices.modbus_meter.driver import Driver
from bega_protocols.devices.modbus_meter.identify import identification
from bega_protocols.devices.modbus_meter.sim import Sim
from bega_protocols.errors import ConfigError
from bega_protocols.reading import GOOD, SUSPECT

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
PROFILES = {name: with_profile({"profile": name})["profile"] for name in profile_names()}
SETTINGS = [(name, setting["name"]) for name in PROFILES for setting in PROFILES[name].get("settings", [])]


def pair(name):
    return Driver({"profile": PROFILES[name], "address": 1}), Sim({"profile": PROFILES[name]}, seed=1)


def ask(driver, answer, now_ms=0):
    """Return (readings, questions) of one measurement; `answer(question)` is the device."""
    asked, measurement = [], driver.measure(now_ms)
    try:
        question = next(measurement)
        while True:
            asked.append(question.write)
            question = measurement.send(answer(question.write))
    except StopIteration as stop:
        return [reading for group in stop.value for reading in group], asked


def is_number(question):
    return question[0] == 4


def quantities(readings, quality):
    return {reading.quantity for reading in readings if reading.quality == quality}


# What a setting does.


def test_energies_counted_in_mega_are_not_given_and_it_is_said_what_to_set():
    driver, meter = pair("sdm630")
    meter.faults.add("energy prefix set wrongly")
    readings, _ = ask(driver, meter.answer)
    assert len(readings) == 53 - 17
    assert not [reading for reading in readings if "energy" in reading.quantity]
    assert driver.to_set() == [driver.damaged[0][1].why]
    assert "energy prefix is 1: 1 counts energies in MWh" in driver.to_set()[0]
    assert driver.attributes["energy prefix"].startswith("1: ")


def test_nothing_is_read_of_a_meter_that_turns_the_words_of_its_floats():
    driver, meter = pair("sdm630")
    meter.faults.add("register order set wrongly")
    assert ask(driver, meter.answer)[0] == []
    assert "write 2141.0 to 40041" in driver.to_set()[0]


def test_meter_that_counts_without_direction_gives_no_export_and_doubtful_import():
    driver, meter = pair("em340")
    meter.faults.add("counting mode set wrongly")
    readings, _ = ask(driver, meter.answer)
    assert quantities(readings, SUSPECT) == {"active_energy_import", "active_power", "power_factor"}
    assert not quantities(readings, GOOD) & {"active_energy_export", "reactive_energy_export"}
    assert "voltage" in quantities(readings, GOOD)


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_setting_that_is_corrected_is_seen_within_a_minute_and_said_no_more(name, setting):
    driver, meter = pair(name)
    everything, _ = ask(driver, meter.answer)
    meter.faults.add(f"{setting} set wrongly")
    driver = pair(name)[0]
    assert ask(driver, meter.answer)[0] != everything
    assert len(driver.damaged) == 1
    assert ask(driver, meter.answer, 59_000)[0] != everything
    assert len(driver.damaged) == 1
    meter.faults.clear()
    assert ask(driver, meter.answer, MINUTE_MS)[0] == everything
    assert driver.to_set() == []


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_setting_that_is_changed_later_is_seen_within_the_hour(name, setting):
    driver, meter = pair(name)
    everything, _ = ask(driver, meter.answer)
    meter.faults.add(f"{setting} set wrongly")
    assert ask(driver, meter.answer, HOUR_MS)[0] != everything


@pytest.mark.parametrize("name", sorted({name for name, _ in SETTINGS}))
def test_older_meter_that_refuses_to_tell_is_read_and_the_attribute_says_what_to_make_sure_of(name):
    driver, meter = pair(name)
    everything, _ = ask(driver, meter.answer)
    driver = pair(name)[0]
    meter.faults.add("old")
    assert ask(driver, meter.answer)[0] == everything
    assert not driver.damaged
    for setting in PROFILES[name]["settings"]:
        assert driver.attributes[setting["name"]].startswith("not told (refused, exception 2")
    assert "serial_number" not in driver.attributes


def test_register_that_holds_nothing_is_no_setting():
    """An SDM630 of V1.8 may answer 0 where V2.0 has the register order: 2141.0 in no order is 0."""
    driver, meter = pair("sdm630")

    def old(question):
        return bytes.fromhex("030400000000") if question == bytes.fromhex("0300280002") else meter.answer(question)

    assert len(ask(driver, old)[0]) == 53
    assert driver.attributes["register order"].startswith("not told (no such setting)")


# Another device.


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("other", profile_names())
def test_no_value_of_another_device_is_called_good(name, other):
    driver, meter = pair(name)[0], pair(other)[1]
    for turn in range(3):
        readings, _ = ask(driver, meter.answer, 1000 * turn)
        assert bool(quantities(readings, GOOD)) == (name == other)
    assert name == other or not readings or driver.to_set()


def test_meter_in_whose_place_another_was_hung_is_told_apart_after_the_silence():
    driver, meter = pair("sdm630")
    assert quantities(ask(driver, meter.answer)[0], GOOD)
    ask(driver, lambda question: None, 1000)
    readings, _ = ask(driver, pair("sdm120")[1].answer, 2000)
    assert not quantities(readings, GOOD)
    assert driver.to_set()[0].endswith("this is no Eastron SDM630; check address and profile")
    ask(driver, lambda question: None, 3000)
    assert quantities(ask(driver, meter.answer, 4000)[0], GOOD)
    assert driver.to_set() == []
    assert not [name for name in driver.attributes if name.startswith("model")]


# When it is asked.


def test_settings_come_before_the_first_number_and_then_once_an_hour():
    driver, meter = pair("sdm630")
    asked = ask(driver, meter.answer)[1]
    assert [question[2] for question in asked[:4]] == [0x46, 0x00, 0x2A, 0x02], "is it an SDM630 at all?"
    assert [is_number(question) for question in asked[4:]] == [False] * 5 + [True] * 4
    for now_ms in (1000, HOUR_MS - 1):
        assert all(map(is_number, ask(driver, meter.answer, now_ms)[1]))
    assert len(ask(driver, meter.answer, HOUR_MS)[1]) == 9, "its model was settled"
    assert len(ask(driver, meter.answer, 1)[1]) == 9, "a clock that was set back brings the question early"


def test_meter_that_was_exchanged_tells_its_own_serial_number():
    driver, meter = pair("sdm630")
    ask(driver, meter.answer)
    other = Sim({"profile": PROFILES["sdm630"]}, seed=1)
    other.faults.add("energy prefix set wrongly")
    assert ask(driver, lambda question: None, 1000)[0] == []
    readings, _ = ask(driver, other.answer, 2000)
    assert "active_energy_import" not in quantities(readings, GOOD)


def test_meter_that_is_exchanged_between_two_settings_is_asked_for_both():
    driver, meter = pair("sdm630")
    ask(driver, meter.answer)
    assert ask(driver, lambda question: None if question[2] == 0x1E else meter.answer(question), HOUR_MS)[0] == []
    assert ask(driver, lambda question: None, HOUR_MS + 1000)[0] == []
    other = Sim({"profile": PROFILES["sdm630"]}, seed=1)
    other.faults.add("register order set wrongly")
    assert ask(driver, other.answer, HOUR_MS + 2000)[0] == []


def test_silence_ends_a_measurement_whatever_is_still_to_ask():
    driver, meter = pair("sdm630")
    for turn in range(3):
        ask(driver, lambda question: None, 1000 * turn)
    asked = ask(driver, lambda question: None if question[2] == 0xC8 else meter.answer(question), 9000)[1]
    assert asked[-1][:3] == b"\x04\x00\xc8"


def test_number_next_to_the_right_one_is_wrong():
    """1.0 with its words turned is 2.3e-41, which rounds to the 0 that is wanted."""
    driver, meter = pair("sdm630")

    def turned(question):
        return bytes.fromhex("030400003f80") if question == bytes.fromhex("03001e0002") else meter.answer(question)

    assert "active_energy_import" not in quantities(ask(driver, turned)[0], GOOD)


def test_meter_that_is_silent_upon_a_setting_alone_is_read_after_three_measurements():
    driver, meter = pair("sdm630")

    def deaf(question):
        return meter.answer(question) if is_number(question) else None

    counts = [len(ask(driver, deaf, 1000 * turn)[0]) for turn in range(30)]
    assert counts[:3] == [0, 0, 0]
    assert counts[-1] == 53
    assert "not told (no answer)" in driver.attributes["energy prefix"]


@given(st.lists(st.sampled_from(["answer", "silence", "refusal", "busy", "noise"]), max_size=60), st.booleans())
def test_whatever_the_line_does_a_wrong_prefix_never_gives_energies_called_good(course, is_late):
    """A refusal means an older meter by the paper, so it is not among what this one does to a question for settings."""
    driver, meter = pair("sdm630")
    meter.faults.add("energy prefix set wrongly")
    events = iter(course)

    def trouble(question):
        event = next(events, "answer")
        if event == "silence":
            return None if is_number(question) or is_late else meter.answer(question)
        if event in ("refusal", "busy") and is_number(question):
            return bytes([question[0] | 0x80, 2 if event == "refusal" else 6])
        return b"\x04\x02\x00" if event == "noise" else meter.answer(question)

    for turn in range(8):
        readings, _ = ask(driver, trouble, 1000 * turn)
        told = driver.attributes.get("energy prefix", "")
        assert told.startswith("not told") or not [reading for reading in readings if "energy" in reading.quantity]


# Whole numbers as floats.


@given(st.integers(1 - 2**24, 2**24 - 1))
def test_bits_of_a_whole_number_are_those_of_the_float(value):
    assert float_bits(value, 4) == int.from_bytes(struct.pack(">f", value))
    assert float_bits(value, 8) == int.from_bytes(struct.pack(">d", value))
    assert float_in_units(float_bits(value, 4), 4, 0) == value


# What means "no value".


@pytest.mark.parametrize(
    ("name", "number", "octets"),
    [
        ("b23", "active_energy_export", "ffff ffff ffff ffff"),
        ("b23", "voltage:l2", "ffff ffff"),
        ("b23", "current:n", "ffff ffff"),
        ("b23", "active_power:l3", "7fff ffff"),
        ("b23", "reactive_power", "7fff ffff"),
        ("b23", "frequency", "ffff"),
        ("b23", "power_factor:l1", "7fff"),
        ("em340", "voltage:l1", "ffff 7fff"),
        ("em340", "active_energy_export", "ffff 7fff"),
        ("gmw80", "co2", "8000"),
        ("gmw80", "temperature", "8000"),
        ("gmp252", "co2", "0000 7fc0"),
        ("iem3155", "active_power", "ffc0 0000"),
        ("sdm120", "voltage", "7f80 0000"),
    ],
)
def test_what_the_paper_says_means_no_value_is_no_reading(name, number, octets):
    source = files("bega_protocols").joinpath("profiles", f"{name}.sim.toml")
    paper = tomllib.loads(source.read_text(encoding="utf-8"))
    row = next(row for row in paper["registers"] if row["is"] == number)
    assert len(bytes.fromhex(row["hex"])) == len(bytes.fromhex(octets))
    before, _ = ask(pair(name)[0], Sim.of_paper(paper).answer)
    row["hex"] = octets
    after, _ = ask(pair(name)[0], Sim.of_paper(paper).answer)
    names = [f"{reading.quantity}:{reading.part}".rstrip(":") for reading in before]
    assert [f"{reading.quantity}:{reading.part}".rstrip(":") for reading in after] == [
        name for name in names if name != number
    ]
    assert number in names


# Profiles that cannot be.


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"must_be": []}, "must_be"),
        ({"must_be": [1.5]}, "must_be"),
        ({"must_be": [2**25 + 1]}, "must_be"),
        ({"otherwise": ""}, "otherwise"),
        ({"absent": ["0000"]}, "absent"),
        ({"leaves_out": ["volts"]}, "leaves_out: there is no quantity 'volts'"),
        ({"function": 6}, "function"),
        ({"type": "text", "registers": 2}, "a text has no right value"),
        ({"registers": 2}, "registers is for a text"),
        ({"adress": 1}, "unknown key adress"),
        ({"name": ""}, "settings 2: name"),
        ({"name": "register order"}, "repeats register order"),
    ],
)
def test_setting_that_cannot_be_is_refused_with_its_place(change, complaint):
    table = copy.deepcopy(PROFILES["sdm630"])
    table["settings"][1] |= change
    with pytest.raises(ConfigError, match=complaint):
        Driver({"profile": table, "address": 1})


def test_address_that_each_of_them_answers_is_for_the_profile_that_names_it():
    Driver({"profile": PROFILES["senseair_s8"], "address": 254})
    for name, address in (("senseair_s8", 253), ("sdm630", 254)):
        with pytest.raises(ConfigError, match="address"):
            Driver({"profile": PROFILES[name], "address": address})


# Which profile fits.


def identified(answer, profiles=PROFILES):
    questions, asked = identification(7, profiles), []
    try:
        question = next(questions)
        while True:
            assert question.line["unit"] == 7
            asked.append(question.write)
            question = questions.send(answer(question.write))
    except StopIteration as stop:
        return stop.value, asked


@pytest.mark.parametrize("name", profile_names())
def test_each_meter_is_known_by_its_own_profile_alone(name):
    names, asked = identified(Sim({"profile": PROFILES[name]}, seed=1).answer)
    assert names == [name]
    assert len(asked) == len(set(asked)) <= 17
    assert all(question[0] in (3, 4) for question in asked)


@pytest.mark.parametrize("name", profile_names())
def test_older_meter_is_known_by_its_own_profile_or_by_none(name):
    meter = Sim({"profile": PROFILES[name]}, seed=1)
    meter.faults.add("old")
    assert identified(meter.answer)[0] in ([name], [])


def test_unit_that_is_silent_is_left_after_two_questions():
    names, asked = identified(lambda question: None)
    assert (names, len(asked)) == ([], 2)


def test_unit_that_refuses_everything_fits_nothing():
    assert identified(lambda question: bytes([question[0] | 0x80, 2]))[0] == []


@given(st.binary(min_size=1, max_size=300))
def test_unit_that_answers_anything_never_raises(noise):
    identified(lambda question: noise)
    identified(lambda question: bytes([question[0], 2 * question[4]]) + (noise * 10)[: 2 * question[4]])


def test_code_of_the_maker_comes_before_a_number_that_lies_where_it_may():
    near = [{"address": 0x46, "between": [45, limit]} for limit in (60, 65, 70)]
    vague = {**PROFILES["sdm120"], "identify": {"fits": near}}
    meter = Sim({"profile": PROFILES["sdm120"]}, seed=1)
    assert identified(meter.answer, {"a": vague, "sdm120": PROFILES["sdm120"]})[0] == ["sdm120", "a"]


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({}, "at least one sign"),
        ({"fits": [{"address": 1}], "maybe": []}, "unknown key maybe"),
        ({"fits": [{"address": 1}]}, "either is"),
        ({"fits": [{"address": 1, "is": [1], "between": [1, 2]}]}, "either is"),
        ({"fits": [{"address": 1, "between": [1]}]}, "between must be"),
        ({"fits": [{"address": 1, "is": ["B23"]}]}, "values that the register can hold"),
        ({"fits": [3]}, "must be a table"),
    ],
)
def test_sign_that_cannot_be_is_refused_with_its_place(section, complaint):
    with pytest.raises(ConfigError, match=complaint):
        identified(lambda question: None, {"x": {**PROFILES["sdm120"], "identify": section}})
