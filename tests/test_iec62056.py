"""IEC 62056-21 beyond the device contract: the framing, what the driver asks, and every lie we know."""

import subprocess
import sys
import tracemalloc
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.checks import xor8
from bega_protocols.devices.iec62056_meter.codec import TEXTS
from bega_protocols.devices.iec62056_meter.driver import Driver
from bega_protocols.devices.iec62056_meter.sim import REGISTERS, Sim
from bega_protocols.errors import ChecksumError, ConfigError, WireError
from bega_protocols.iec62056 import (
    NEVER_SENT,
    READOUT_SIZE,
    Readouts,
    acknowledgement,
    characters,
    data_lines,
    identification,
    readout_ends,
    request,
    seven_bits,
    with_even_parity,
)
from bega_protocols.reading import QUANTITIES, Reading

NOW_MS = 1_790_000_000_000
NAME = b"/BGA5METER\r\n"
VOLTAGE = Reading("voltage", 2316, -1, "l1")
SEVEN = st.binary(max_size=60).map(lambda octets: bytes(octet & 0x7F for octet in octets))


def message(*lines: str) -> bytes:
    text = "\r\n".join([*lines, "!", ""]).encode() + b"\x03"
    return b"\x02" + text + bytes([xor8(text)])


def hear(driver: Driver, *chunks: bytes) -> list[list[Reading]]:
    return [group for chunk in chunks for group in driver.feed(chunk, NOW_MS)]


def asked(driver: Driver, answers: list[bytes | None]) -> tuple[list, list[list[Reading]]]:
    """Return (the questions of one measurement, what it gives) when this is what comes back."""
    measurement, questions, rest = driver.measure(NOW_MS), [], iter(answers)
    try:
        ask = next(measurement)
        while True:
            questions.append(ask)
            ask = measurement.send(next(rest) if ask.read else b"")
    except StopIteration as stop:
        return questions, stop.value


def meter(**values: str) -> Sim:
    sim = Sim({}, seed=4711)
    sim.set("voltage", "l1", Decimal("231.6"))
    return sim


# framing


def test_check_character_is_that_of_the_published_stop_message():
    """SOH "B0" ETX 71, as two readers send it: the exclusive or behind the first SOH or STX, with ETX."""
    assert bytes.fromhex("0142300371")[-1] == xor8(bytes.fromhex("423003"))


def test_request_and_acknowledgement_are_the_published_ones():
    assert acknowledgement("5") == bytes.fromhex("063035300d0a")
    assert acknowledgement("0") == bytes.fromhex("063030300d0a")
    assert request() == b"/?!\r\n"
    assert request("00123 A") == b"/?00123 A!\r\n"


@given(SEVEN)
def test_parity_is_even_and_comes_off_again(octets):
    sent = with_even_parity(octets)
    assert all(octet.bit_count() % 2 == 0 for octet in sent)
    assert seven_bits(sent) == seven_bits(sent, has_parity=True) == characters(sent) == octets


@given(SEVEN.filter(bool), st.data())
def test_one_flipped_bit_is_a_wrong_parity(octets, data):
    hit = bytearray(with_even_parity(octets))
    at = data.draw(st.integers(0, len(hit) - 1))
    hit[at] ^= 1 << data.draw(st.integers(0, 7))
    assert seven_bits(bytes(hit), has_parity=True)[at] == NEVER_SENT
    with pytest.raises(WireError, match="parity"):
        characters(bytes(hit), has_parity=True)


@pytest.mark.parametrize("before", [b"", b"/?!\r\n", b"/?123!\r\n", b"\x00\xff/", b"/12\r\n", b"/A5\r\n", bytes(300)])
@pytest.mark.parametrize("parity", [False, True])
def test_identification_is_found_behind_an_echo_and_noise(before, parity):
    heard = before + (with_even_parity(NAME) if parity else NAME)
    named = identification(heard + b"rest")
    assert named is not None
    assert (named.text, named.speed, named.end) == ("BGA5METER", "5", len(heard))
    assert identification(heard[:-1]) is None


@pytest.mark.parametrize(
    "line", [b"/BG15X\r\n", b"/BGA\r\n", b"/BGA\x075\r\n", b"/BGA5" + b"x" * 60 + b"\r\n", b"BGA5X\r\n"]
)
def test_line_of_another_shape_is_no_identification(line):
    assert identification(line) is None


@pytest.mark.parametrize("parity", [False, True])
def test_readout_ends_with_its_check_character_and_not_before(parity):
    whole = message("1.8.0(1*kWh)", "32.7.0(230.0*V)")
    if parity:
        whole = with_even_parity(whole)
    heard = NAME + whole
    for size in range(len(heard)):
        assert not readout_ends(heard[:size], len(NAME), has_check=True), size
    assert readout_ends(heard, len(NAME), has_check=True)
    assert readout_ends(b"/?!\r\n" + heard, len(NAME) + 5, has_check=False)


def test_readout_without_check_character_ends_behind_its_mark_and_not_with_an_echo():
    heard = b"/?!\r\n" + NAME + b"1.8.0(1*kWh)\r\n!\r\n"
    start = heard.index(NAME) + len(NAME)
    assert [readout_ends(heard[:size], start, has_check=False) for size in range(len(heard) + 1)].count(True) == 1
    assert not readout_ends(heard, start, has_check=True)


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("1.8.0(1*kWh)", [("1.8.0", ["1*kWh"])]),
        ("1.8.0(1*kWh)2.8.0(2*kWh)\r\n\r\nF.F(0)\r\n", [("1.8.0", ["1*kWh"]), ("2.8.0", ["2*kWh"]), ("F.F", ["0"])]),
        ("1.6.1(02.6*kW)(2611011015)", [("1.6.1", ["02.6*kW", "2611011015"])]),
        ("C.1()", [("C.1", [""])]),
        ("x/y(a/b)", [("x/y", ["a/b"])]),
        ("no brackets", [("", ["no brackets"])]),
        ("(1)", [("", ["(1)"])]),
        ("a(1", [("", ["a(1"])]),
        ("a(1)b", [("a", ["1"]), ("", ["b"])]),
        ("a((1))", [("", ["a((1))"])]),
        ("a)b(1)", [("", ["a)b(1)"])]),
    ],
)
def test_data_line_reads_as_its_shape_says(text, sets):
    assert list(data_lines(text)) == sets


@given(st.text(st.characters(max_codepoint=0x7E), max_size=200))
def test_no_line_raises_and_each_ends(text):
    for code, values in data_lines(text):
        assert values
        assert "(" not in code and all("(" not in value or not code for value in values)


# the stream


def test_damage_has_its_reason_and_its_place():
    good = message("32.7.0(231.6*V)")
    hurt = {
        good[:-1] + bytes([good[-1] ^ 1]): ("check character", ChecksumError),
        b"\x02abc\x03" + bytes([xor8(b"abc\x03")]): ("end mark", WireError),
        good[:12]: ("breaks off", WireError),
        good[:9] + bytes([good[9] | 0x80]) + good[10:]: ("parity", WireError),
    }
    for size in (1, 3, 1000):
        for spoilt, (why, kind) in hurt.items():
            listener, stream = Driver({}), b"noise" + good + spoilt + NAME + good
            heard = hear(listener, *[stream[at : at + size] for at in range(0, len(stream), size)])
            assert heard == [[VOLTAGE]] * 2, why
            [(offset, error)] = listener.damaged
            assert offset == 5 + len(good)
            assert why in error.why and type(error) is kind


@given(
    noise=st.binary(max_size=80),
    cut=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    has_check=st.booleans(),
)
def test_noise_and_a_cut_message_cost_no_other(noise, cut, cuts, has_check):
    good = NAME + message("32.7.0(231.6*V)", "F.F(00)")
    stream = noise + b"\r\n" + good[:cut] + good + good
    edges = [0, *sorted(cuts), len(stream)]
    listener = Driver({"check_character": has_check})
    heard = hear(listener, *[stream[start:end] for start, end in pairwise(edges)])
    assert heard[-1] == [VOLTAGE]
    assert all(group == [VOLTAGE] for group in heard) or noise


@pytest.mark.parametrize(
    "filler", [b"1.8.0(1*kWh)\r\n", b"x", b"/", b"\x02", b"(", b"!\r\n", b"/BGA5\r\n", b"\x02\x03", b"\x02abc\x03"]
)
@pytest.mark.parametrize("has_check", [True, False])
def test_message_that_never_ends_is_damage_and_not_growth(filler, has_check):
    listener = Driver({"check_character": has_check})
    flood = (filler * 1000)[:1000]
    hear(listener, NAME if not has_check else b"\x02")
    tracemalloc.start()
    for _ in range(200):
        hear(listener, flood)
        assert len(listener.damaged) <= len(flood) // 5
        listener.damaged.clear()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * READOUT_SIZE
    assert hear(listener, b"\r\n", NAME, message("32.7.0(231.6*V)"))[-1:] == [[VOLTAGE]]


@given(st.lists(st.tuples(st.sampled_from([*[row[0] for row in REGISTERS.values()], "F.F", "1-0:1.8.0", "", "1.8.99"]),
                          st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=24),
                          st.sampled_from([")", "*kWh)", "*V)", ")(1)", ""])), max_size=12))  # fmt: skip
def test_no_lie_under_a_right_check_character_is_more_than_passed_over(parts):
    listener = Driver({})
    for group in hear(listener, message(*[f"{code}({value}{end}" for code, value, end in parts])):
        for row in group:
            assert row.quantity in QUANTITIES
            assert 0 <= row.value < 10**16 and -16 <= row.exp10 <= 6


def test_message_never_tells_its_meter_in_an_error():
    sim = meter()
    sim.faults.add("bcc")
    whole = sim.answer(b"/?!\r\n") + sim.answer(acknowledgement("5"))
    listener = Driver({})
    assert hear(listener, whole, NAME, whole[:60], NAME, message()) == []
    assert listener.damaged
    assert not [error for _, error in listener.damaged if "4711" in str(error) or b"4711" in error.raw]


@pytest.mark.parametrize("begin", [b"\x02", NAME])
def test_message_may_be_so_long_and_no_longer(begin):
    for size, damaged in ((READOUT_SIZE - 100, 0), (READOUT_SIZE + 1, 1)):
        listener = Driver({"check_character": False})
        assert hear(listener, begin, b"x" * size) == []
        assert [error.why for _, error in listener.damaged] == [
            f"IEC 62056-21 data message does not end within {READOUT_SIZE} bytes"
        ] * damaged


@pytest.mark.parametrize("noise", [b"\x02", b"\x02noise\r\n", b"\x02\x03\x02"])
def test_readout_without_check_character_is_heard_behind_a_beginning_that_was_none(noise):
    listener = Driver({"check_character": False})
    assert hear(listener, noise + b"/BGA METER\r\n32.7.0(231.6*V)\r\n!\r\n") == [[VOLTAGE]]


def test_slash_in_a_code_is_part_of_it():
    listener = Driver({})
    assert hear(listener, message("1/8/0(1*kWh)", "32.7.0(231.6*V)")) == [[VOLTAGE]]
    assert listener.attributes["1/8/0"] == "1*kWh"


# texts


def test_texts_are_bounded_and_all_that_is_left_out_is_counted():
    lines = [f"C.{number}(text {number})" for number in range(500)] + ["1.8.1*01(5*kWh)", "1.8.1&02(5*kWh)", "rubbish"]
    listener = Driver({})
    assert hear(listener, NAME + message(*lines, "32.7.0(231.6*V)", "32.7.0(999.9*V)")) == [[VOLTAGE]]
    assert listener.attributes["left_out"] == "504"
    assert listener.attributes["C.7"] == "text 7"
    assert listener.attributes["identification"] == "BGA5METER"
    assert len(listener.attributes) == TEXTS + 2
    assert not [code for code in listener.attributes if "*" in code or "&" in code]


def test_values_of_the_past_are_counted_and_nothing_else():
    listener = Driver({})
    assert hear(listener, message("1.8.1*01(5*kWh)", "1.8.1&02(5*kWh)", "1-0:1.8.0*07(5*kWh)")) == []
    assert listener.attributes == {"left_out": "3"}
    assert hear(listener, message("1-0:1.8.0*255(5*kWh)")) == [[Reading("active_energy_import", 5, 0)]]


def test_register_without_its_unit_is_a_text_under_its_code():
    listener = Driver({})
    assert hear(listener, message("1.8.0(00012.3)", "32.7.0(231.6*V)")) == [[VOLTAGE]]
    assert listener.attributes["1.8.0"] == "00012.3"


@pytest.mark.parametrize(
    "line", ["1.8.0(12.3*mWh)", "1.7.0(5*mW)", "1.7.0(5*V)", "1.7.0(-5*kW)", "1.7.0(0,5*kW)", "1.7.0(5*kW)(2611221200)"]
)
def test_value_that_may_mean_something_else_is_no_reading(line):
    assert hear(Driver({}), message(line, "32.7.0(231.6*V)")) == [[VOLTAGE]]


def test_unit_is_read_with_its_prefix():
    assert hear(Driver({}), message("1.8.0(12.3*MWh)", "1.7.0(5*kW)")) == [
        [Reading("active_energy_import", 123, 2), Reading("active_power_import", 5, 3)]
    ]


def test_meter_with_years_of_history_is_read_whole():
    sim = meter()
    sim.longest = 400
    sim.answer(b"/?!\r\n")
    readout = sim.answer(acknowledgement("5"))
    assert 40_000 < len(readout) < READOUT_SIZE
    listener = Driver({})
    assert hear(listener, *[readout[at : at + 7] for at in range(0, len(readout), 7)]) == [[VOLTAGE]]
    assert int(listener.attributes["left_out"]) > 2000


# what is asked


def test_meter_is_asked_at_300_baud_and_acknowledged_at_its_own_rate():
    questions, groups = asked(Driver({}), [NAME, message("32.7.0(231.6*V)")])
    assert [ask.write for ask in questions] == [b"/?!\r\n", b"\x06050\r\n"]
    assert "baud" not in questions[0].line
    assert questions[1].line == {"baud": 9600, "gap_ms": 2000, "total_ms": 180_000}
    assert groups == [[VOLTAGE]]


@pytest.mark.parametrize(
    ("settings", "name", "write", "baud"),
    [
        ({"stay_at_300": True}, NAME, b"\x06000\r\n", 300),
        ({"data_baud": 300}, NAME, b"\x06050\r\n", 300),
        ({}, b"/BGA0METER\r\n", b"\x06000\r\n", 300),
        ({}, b"/BGA6METER\r\n", b"\x06060\r\n", 19200),
        ({}, b"/BGA3\\2METER\r\n", b"\x06030\r\n", 2400),
    ],
)
def test_rate_is_what_meter_and_settings_say(settings, name, write, baud):
    questions, _ = asked(Driver(settings), [name, None])
    assert (questions[1].write, questions[1].line["baud"]) == (write, baud)


def test_timing_is_the_devices_own():
    settings = {
        "reaction_ms": 1600,
        "gap_ms": 800,
        "readout_s": 600,
        "wake_ms": 2200,
        "wake_rest_ms": 1700,
        "switch_ms": 250,
    }
    questions, groups = asked(Driver(settings), [NAME, message("32.7.0(231.6*V)")])
    wake, opening, acknowledge, readout = questions
    assert (wake.write, wake.wait_ms, wake.read) == (bytes(66), 1700, 0)
    assert (opening.wait_ms, opening.line) == (1600, {"gap_ms": 800, "total_ms": 600_000})
    assert (acknowledge.write, acknowledge.wait_ms, acknowledge.read) == (b"\x06050\r\n", 250, 0)
    assert (readout.write, readout.line["baud"]) == (b"", 9600)
    assert groups == [[VOLTAGE]]


def test_address_is_in_the_request_and_parity_in_all_that_is_sent():
    questions, _ = asked(Driver({"address": "00 12ab", "parity_in_bit_7": True}), [with_even_parity(NAME), None])
    assert [seven_bits(ask.write, has_parity=True) for ask in questions] == [b"/?00 12ab!\r\n", b"\x06050\r\n"]


def test_head_that_hears_itself_is_no_trouble():
    answers = [b"/?!\r\n" + NAME, b"\x06050\r\n" + message("32.7.0(231.6*V)")]
    driver = Driver({})
    assert asked(driver, answers)[1] == [[VOLTAGE]]
    assert not driver.damaged


def test_opening_ends_with_the_name_in_mode_c_and_with_the_readout_in_mode_a():
    [opening, _], _ = asked(Driver({}), [NAME, None])
    assert opening.complete(NAME) and not opening.complete(NAME[:-1])
    plain = b"/BGA METER\r\n1.8.0(1*kWh)\r\n!\r\n"
    driver = Driver({"check_character": False})
    questions, groups = asked(driver, [plain])
    assert [questions[0].complete(plain[:size]) for size in range(len(plain) + 1)].count(True) == 1
    assert groups == [[Reading("active_energy_import", 1, 0)]]
    checked = b"/BGA METER\r\n" + message("32.7.0(231.6*V)")
    assert asked(Driver({}), [checked])[1] == [[VOLTAGE]]
    assert asked(driver, [checked])[1] == [[VOLTAGE]]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([b"nonsense"], "no identification"),
        ([b"/BGAAMETER\r\n"], "mode B"),
        ([b"/BGAIMETER\r\n"], "mode B"),
        ([b"/BGA7METER\r\n"], "reserves"),
        ([NAME, None], "try stay_at_300"),
        ([NAME, b"\x15"], "lacks a data message"),
        ([NAME, message("32.7.0(231.6*V)")[:-2]], "lacks its end"),
        ([NAME, message("32.7.0(231.6*V)")[:-1]], "lacks its check character"),
        ([NAME, b"32.7.0(231.6*V)\r\n!\r\n"], "lacks a data message"),
        ([b"/BGA METER\r\n1.8.0(1*kWh)\r\n!\r\n"], "lacks a data message"),
    ],
)
def test_answer_that_gives_nothing_says_why(answers, why):
    driver = Driver({})
    assert asked(driver, answers)[1] == []
    [(offset, error)] = driver.damaged
    assert offset == 0 and why in error.why
    assert "METER" not in error.why and not error.raw


def test_silence_is_no_damage():
    driver = Driver({})
    assert asked(driver, [None])[1] == []
    assert not driver.damaged


@pytest.mark.parametrize(
    "settings",
    [
        {"address": "1" * 33},
        {"address": "1!"},
        {"address": 12},
        {"address": "é"},
        {"stay_at_300": 1},
        {"data_baud": 1000},
        {"data_baud": "9600"},
        {"check_character": "no"},
        {"parity_in_bit_7": "E"},
        {"reaction_ms": 0},
        {"readout_s": 100_000},
        {"mode": "C"},
    ],
)
def test_setting_that_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError):
        Driver(settings)


# the simulator


VALUES = {
    key: st.integers(0, 10**digits - 1).map(lambda steps, places=places: Decimal(steps).scaleb(-places))
    for key, (_, digits, places, _) in REGISTERS.items()
    if key[0] != "power_factor"
}


@given(st.fixed_dictionaries({}, optional=VALUES), st.sampled_from("0123456 $"), st.booleans())
def test_any_meter_of_either_mode_reads_as_it_shows(shown, announced, parity):
    sim = Sim({}, seed=1)
    sim.announced = announced
    sim.has_check = announced != "$"
    for (quantity, part), value in shown.items():
        sim.set(quantity, part, value * 1000 if "_power_" in quantity else value)
    driver = Driver({"check_character": sim.has_check, "parity_in_bit_7": parity})
    measurement = driver.measure(NOW_MS)
    ask = next(measurement)
    try:
        while True:
            said = sim.answer(seven_bits(ask.write, parity))
            ask = measurement.send(with_even_parity(said) if parity else said)
    except StopIteration as stop:
        read = {(row.quantity, row.part): Decimal(row.value).scaleb(row.exp10) for group in stop.value for row in group}
    assert not driver.damaged
    assert read == {key: value * 1000 if "_power_" in key[0] else value for key, value in shown.items()}


@pytest.mark.parametrize("fault", ["bcc", "cut", "noise", "endless", "no_readout", "wrong device"])
def test_fault_of_the_simulator_is_damage_and_heals(fault):
    driver, sim = Driver({}), meter()
    for faults, expected in (({fault}, []), (set(), [[VOLTAGE]])):
        sim.faults = faults
        measurement = driver.measure(NOW_MS)
        ask, groups = next(measurement), None
        while groups is None:
            try:
                ask = measurement.send(sim.answer(ask.write))
            except StopIteration as stop:
                groups = stop.value
        assert groups == expected
        assert len(driver.damaged) == 1


def test_sleeping_meter_answers_whoever_woke_it():
    sim = meter()
    sim.sleeps = True
    assert sim.answer(b"/?!\r\n") is None
    assert sim.answer(bytes(66)) is None
    assert sim.answer(b"/?!\r\n") is not None


def test_decode_prints_a_capture_of_several_readouts(tmp_path):
    capture = tmp_path / "capture.bin"
    capture.write_bytes(
        with_even_parity(b"/?!\r\n" + NAME + b"\x06050\r\n")
        + message("1.8.0(2.5*MWh)")
        + NAME[:7]
        + message("1.8.0(1*Wh)")
    )
    outcome = subprocess.run(
        [sys.executable, "-m", "bega", "decode", "iec62056_meter", capture], capture_output=True, text=True, timeout=60
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.splitlines() == [
        '{"quantity": "active_energy_import", "value": 25e2, "unit": "kW.h"}',
        '{"quantity": "active_energy_import", "value": 0.001, "unit": "kW.h"}',
    ]


def test_readouts_say_what_is_missing():
    for chunk, missing in ((b"", "a data message"), (b"/BGA", "the end of the identification"), (b"\x02abc", "its end"),
                           (b"\x02abc\x03", "its check character")):  # fmt: skip
        readouts = Readouts()
        readouts.feed(chunk, [])
        assert readouts.missing() == missing
