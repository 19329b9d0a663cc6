"""Modbus meters: numbers against another reckoning, profiles against the makers' displays, and what is refused."""

import contextlib
import copy
import itertools
import math
import struct
import subprocess
import sys
import tomllib
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import bega_protocols
from bega.devices import load_driver, profile_names, with_profile
from bega_protocols.checks import crc16_modbus
from bega_protocols.devices.modbus_meter.codec import float_in_units, number, registers, words_turned
from bega_protocols.devices.modbus_meter.driver import Driver
from bega_protocols.devices.modbus_meter.plan import Plan, plan
from bega_protocols.devices.modbus_meter.profile import Profile, read_profile
from bega_protocols.devices.modbus_meter.sim import Sim
from bega_protocols.errors import ChecksumError, ConfigError, WireError
from bega_protocols.modbus_rtu import RtuListener, characters_us, frame, silence_us, unframe
from bega_protocols.modbus_tcp import TcpListener
from bega_protocols.modbus_tcp import frame as tcp_frame
from bega_protocols.reading import QUANTITIES, Reading, decimal_text, parse_decimal

MICROPYTHON = Path(sys.executable).with_name("micropython")
PROTOCOLS = Path(bega_protocols.__file__).parent.parent
# What a display's unit is, counted in UCUM's unit of the quantity.
DISPLAYED = {"kW": 1000, "kvar": 1000, "kVA": 1000, "%": Decimal("0.01")}
# What each profile costs: questions of a measurement, registers that they carry.
COST = {
    "b23": (3, 106),
    "em340": (4, 66),
    "gmp252": (1, 2),
    "gmw80": (1, 3),
    "iem3155": (9, 62),
    "sdm120": (2, 42),
    "sdm230": (2, 48),
    "sdm630": (4, 156),
    "senseair_s8": (1, 1),
}


def profile(name: str = "sdm630", **changes: object) -> dict[str, object]:
    return {**copy.deepcopy(with_profile({"profile": name})["profile"]), **changes}


def driver(name: str = "sdm630", address: int = 1, **settings: object) -> Driver:
    return Driver({"profile": profile(name), "address": address, **settings})


def bare(name: str = "sdm630", address: int = 1) -> Driver:
    """Return a driver that reads the same registers and nothing before them."""
    return Driver({"profile": profile(name, identify=None, settings=[], attributes=[]), "address": address})


def sim(name: str = "sdm630") -> Sim:
    return Sim(with_profile({"profile": name, "address": 1}), seed=1)


def rows(*given_rows: tuple[int, int]) -> list[dict[str, object]]:
    """Return rows of a profile from (address, number of registers), each with a quantity of its own."""
    types = {1: "uint16", 2: "uint32", 4: "uint64"}
    names = itertools.product(sorted(QUANTITIES), ("", "l1", "l2", "l3"))
    return [
        {"address": address, "type": types[size], "quantity": quantity, "part": part}
        for (address, size), (quantity, part) in zip(given_rows, names, strict=False)
    ]


def small_profile(*given_rows: tuple[int, int], **changes: object) -> dict[str, object]:
    paper = {"part": "x", "maker": "x", "document": "x", "function": 3, "max_registers": 125}
    return {**paper, "registers": rows(*given_rows), **changes}


def requests_of(read: Profile) -> list[object]:
    return Plan(read.rows, read.max_registers, read.gap_registers, read.even).requests


def answers(measurement: object, reply: object) -> list[list[Reading]]:
    """Drive one measurement, `reply(question)` being the device."""
    try:
        ask = next(measurement)
        while True:
            ask = measurement.send(reply(ask.write))
    except StopIteration as stop:
        return stop.value


# Numbers.


def bits(form: str, value: float) -> int:
    return int.from_bytes(struct.pack(form, value))


FARTHEST = float(2**50 - 2**26)  # the largest float32 below 2^50


@given(st.floats(-FARTHEST, FARTHEST, width=32), st.integers(-6, 6), st.integers(-6, 6))
def test_float32_comes_out_as_decimal_arithmetic_rounds_it(value, scale, exponent):
    with localcontext() as context:
        context.prec = 400
        exact = Decimal(value).scaleb(scale - exponent).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    assert number(bits(">f", value), 4, "float", scale, exponent) == (int(exact), exponent)


@given(st.floats(-FARTHEST, FARTHEST), st.integers(-9, 9))
def test_float64_comes_out_as_decimal_arithmetic_rounds_it(value, exponent):
    with localcontext() as context:
        context.prec = 1200
        exact = Decimal(value).scaleb(-exponent).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    assert float_in_units(struct.unpack(">Q", struct.pack(">d", value))[0], 8, exponent) == int(exact)


@pytest.mark.parametrize("octets", ["7fc00000", "7f800000", "ff800000", "ffc00001", "7f800001"])
def test_float_that_is_no_number_is_no_reading(octets):
    assert number(int(octets, 16), 4, "float", 0, -3) is None


@pytest.mark.parametrize("value", [2.0**50, -(2.0**50), -8.3e37, 3.4e38])
@pytest.mark.parametrize(("form", "size"), [(">f", 4), (">d", 8)])
@pytest.mark.parametrize("exponent", [-18, -3, 3])
def test_float_that_no_meter_counts_to_is_no_reading(form, size, value, exponent):
    assert number(bits(form, value), size, "float", 0, exponent) is None


def test_largest_float_that_a_profile_can_read_makes_a_record_that_is_read_again():
    row = {"address": 0, "quantity": "voltage", "type": "float64", "function": 3, "scale": 6, "exponent": -18}
    raw = bits(">d", math.nextafter(2.0**50, 0))
    driver = Driver({"tags": [row], "address": 1})
    groups = answers(driver.measure(0), lambda question: bytes([3, 8]) + raw.to_bytes(8))
    value, exp10 = groups[0][0].value, groups[0][0].exp10
    assert parse_decimal(decimal_text(value, exp10)) == (value, exp10)
    with pytest.raises(ConfigError, match="more digits"):
        Driver({"tags": [{**row, "scale": 7}], "address": 1})


@pytest.mark.parametrize("part", ["l 1", "l1:x", "é", "a/b", '"', "123456789", 1])
def test_part_that_no_record_can_name_is_refused(part):
    with pytest.raises(ConfigError, match="part must be"):
        Driver({"tags": [{"address": 0, "quantity": "voltage", "part": part}], "address": 1})


def test_tie_goes_to_the_even_digit():
    assert [number(bits(">f", value), 4, "float", 0, 0) for value in (0.5, 1.5, 2.5, -2.5)] == [
        (0, 0),
        (2, 0),
        (2, 0),
        (-2, 0),
    ]


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_number_is_never_rounded(value):
    octets = struct.pack(">q", value)
    assert number(int.from_bytes(octets), 8, "signed", -3, 0) == (value, -3)
    assert number(int.from_bytes(octets), 8, "unsigned", -3, 0) == (value % 2**64, -3)
    assert words_turned(words_turned(octets)) == octets


def test_low_word_first_float_reads_as_its_maker_prints_it():
    """Vaisala GMP252, user guide M211897EN: D47A 43E8 is 465.66 ppm."""
    table = small_profile(function=3, registers=[])
    row = {"address": 0, "type": "float32", "words": "low first", "quantity": "co2", "exponent": -2}
    meter = Driver({"profile": {**table, "registers": [row]}, "address": 240})
    groups = answers(meter.measure(0), lambda question: bytes.fromhex("0304d47a43e8"))
    assert groups == [[Reading("co2", 46566, -2)]]


def test_value_that_means_none_is_no_reading():
    """ABB B23: a quantity that the meter lacks answers all ones, or the largest positive number where it is signed."""
    table = small_profile((0, 2), (2, 2), (4, 2), (6, 4), (10, 4), absent=["ffffffff", "7fffffff", "ff" * 8])
    reply = bytes.fromhex("031c ffffffff 00000005 7fffffff ffffffffffffffff 00000000ffffffff")
    groups = answers(Driver({"profile": table, "address": 1}).measure(0), lambda question: reply)
    assert [reading.value for reading in groups[0]] == [5, 0xFFFFFFFF]


# Profiles.


@pytest.mark.parametrize("name", profile_names())
def test_meter_reads_as_its_display_shows(name):
    """<part>.sim.toml holds raw registers and what the display shows, typed from the maker's paper."""
    paper = tomllib.loads(files("bega_protocols").joinpath("profiles", f"{name}.sim.toml").read_text(encoding="utf-8"))
    groups = answers(driver(name).measure(0), sim(name).answer)
    assert len(groups) == 1
    read = {f"{reading.quantity}:{reading.part}".rstrip(":"): reading for reading in groups[0]}
    assert sorted(read) == sorted(row["is"] for row in paper["registers"])
    for row in paper["registers"]:
        shown, _, unit = row["shows"].partition(" ")
        reading = read[row["is"]]
        assert Decimal(reading.value).scaleb(reading.exp10) == Decimal(shown) * DISPLAYED.get(unit, 1), row["is"]


@pytest.mark.parametrize("name", profile_names())
def test_profile_keeps_its_own_limits(name):
    table = profile(name)
    requests = requests_of(read_profile(table))
    for request in requests:
        assert request.length <= table["max_registers"]
        if table.get("even"):
            assert request.address % 2 == 0
            assert request.length % 2 == 0
    lengths = [request.length for request in requests]
    assert all(before != after for before, after in itertools.pairwise(lengths))
    assert (len(requests), sum(lengths)) == COST[name]


@given(
    starts=st.lists(st.integers(0, 400), min_size=1, max_size=40, unique=True),
    max_registers=st.integers(4, 125),
    gap=st.integers(0, 40),
    even=st.booleans(),
)
def test_plan_reads_every_row_once_within_the_limits(starts, max_registers, gap, even):
    table = small_profile(*((2 * start, 2) for start in starts), max_registers=max_registers)
    wanted = [row for request in requests_of(read_profile(table)) for row in request.rows]
    requests = plan([sorted(wanted, key=lambda row: row.address)], max_registers, gap, even)
    planned = [row for request in requests for row in request.rows]
    assert sorted(planned) == sorted(wanted)
    for request in requests:
        assert request.length <= max_registers
        assert not even or (request.address % 2 == 0 and request.length % 2 == 0)
        for row in request.rows:
            assert request.address <= row.address
            assert row.address + row.length <= request.address + request.length
        for before, after in itertools.pairwise(request.rows):
            assert after.address - before.address - before.length <= gap


def test_full_requests_in_a_row_differ_in_length():
    """RTU numbers no question: a late answer is told from the awaited one by its length alone."""
    table = small_profile(*((2 * index, 2) for index in range(100)), max_registers=60)
    lengths = [request.length for request in requests_of(read_profile(table))]
    assert sum(lengths) == 200
    assert all(before != after for before, after in itertools.pairwise(lengths))


def test_lengths_do_not_differ_where_that_would_cost_a_request():
    table = small_profile(*((index, 1) for index in range(180)), max_registers=60)
    assert [request.length for request in requests_of(read_profile(table))] == [60, 60, 60]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"max_registers": 126}, "max_registers"),
        ({"max_registers": 1}, "max_registers"),
        ({"even": "yes"}, "even"),
        ({"part": ""}, "part"),
        ({"document": None}, "document"),
        ({"speed": 9600}, "speed"),
        ({"function": 6}, "row 1.*function"),
        ({"registers": []}, "registers"),
        ({"registers": ["voltage"]}, "row 1"),
        ({"registers": [{"address": 0, "quantity": "volts"}]}, "row 1: there is no quantity 'volts'"),
        ({"registers": rows((0, 2), (1, 2))}, "row 2: .*overlaps"),
        ({"registers": [*rows((0, 2)), *rows((2, 2))]}, "row 2: repeats"),
        ({"registers": [{**rows((0, 2))[0], "adress": 3}]}, "row 1.*adress"),
        ({"registers": [{**rows((0, 2))[0], "address": 65535}]}, "row 1.*address"),
        ({"registers": [{**rows((0, 2))[0], "address": "0x10"}]}, "row 1.*address"),
        ({"registers": [{**rows((0, 2))[0], "type": "float16"}]}, "row 1.*type"),
        ({"registers": [{**rows((0, 2))[0], "type": "float32"}]}, "row 1.*exponent"),
        ({"registers": [{**rows((0, 2))[0], "exponent": -1}]}, "row 1.*exponent"),
        ({"registers": [{**rows((0, 2))[0], "words": "middle first"}]}, "row 1.*words"),
        ({"registers": [{**rows((0, 2))[0], "absent": ["ffff"]}]}, "row 1.*absent"),
        ({"registers": [{**rows((0, 2))[0], "absent": [0xFFFF]}]}, "row 1.*absent"),
        ({"registers": [{**rows((0, 2))[0], "scale": True}]}, "row 1.*scale"),
    ],
)
def test_profile_that_cannot_be_is_refused_with_its_row(change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Driver({"profile": small_profile((0, 2), **change), "address": 1})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"address": 1}, "profile"),
        ({"profile": "sdm630"}, "address"),
        ({"profile": "sdm630", "address": 0}, "address"),
        ({"profile": "sdm630", "address": 248}, "address"),
        ({"profile": "sdm631", "address": 1}, "no profile 'sdm631'"),
        ({"profile": "sdm630", "address": 1, "framing": "ascii"}, "framing"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_driver("modbus_meter", settings)


# Asking.


def test_measurement_asks_the_fewest_questions_and_tells_how_long_the_answers_are():
    asks = []
    measurement = bare(address=17).measure(0)
    meter = sim()
    try:
        ask = next(measurement)
        while True:
            asks.append(ask)
            ask = measurement.send(meter.answer(ask.write))
    except StopIteration as stop:
        readings = stop.value[0]
    assert [(ask.write.hex(), ask.read) for ask in asks] == [
        ("040000003a", 118),
        ("04003c0016", 46),
        ("0400c8002e", 94),
        ("04015a001e", 62),
    ]
    assert all(ask.line == {"unit": 17, "pause_ms": 100} for ask in asks)
    assert len(readings) == 53


def test_block_that_is_not_answered_ends_the_measurement_with_what_is_there():
    meter, asked = sim(), []

    def reply(question):
        asked.append(question)
        return None if len(asked) == 2 else meter.answer(question)

    groups = answers(bare().measure(0), reply)
    assert len(asked) == 2
    assert "voltage" in {reading.quantity for reading in groups[0]}
    assert "frequency" not in {reading.quantity for reading in groups[0]}


def test_refused_block_is_counted_and_costs_itself_alone():
    meter, listener = sim(), bare()

    def reply(question):
        return b"\x84\x04" if question == bytes.fromhex("04015a001e") else meter.answer(question)

    groups = answers(listener.measure(0), reply)
    assert len(groups[0]) == 41
    assert ["device failure" in str(error) for _, error in listener.damaged] == [True]


@given(answer=st.binary(max_size=140), good=st.integers(0, 2))
def test_answer_that_does_not_fit_the_question_gives_no_reading(answer, good):
    """Whatever comes instead of an answer, the readings are those of the blocks before it."""
    meter, listener, asked = sim(), bare(), []

    def reply(question):
        asked.append(question)
        return meter.answer(question) if len(asked) <= good else answer

    groups = answers(listener.measure(0), reply)
    assert len(groups[0]) if good else not groups
    assert sum(len(group) for group in groups) in (0, 23, 32)
    assert listener.damaged


def test_answer_to_another_question_is_refused_by_its_length():
    for wrong in ("0302000a", "04040000", "040800000000 00000000", "0404 0000 0000 00", "84", "830200"):
        with pytest.raises(WireError):
            registers(bytes.fromhex("0400000002"), bytes.fromhex(wrong))
    assert registers(bytes.fromhex("0400000002"), bytes.fromhex("040412345678")) == bytes.fromhex("12345678")


def test_meter_that_sends_nan_gives_the_numbers_that_it_has():
    meter = sim("iem3155")
    meter.faults.add("not a number")
    groups = answers(driver("iem3155").measure(0), meter.answer)
    assert {reading.quantity for reading in groups[0]} == {
        "active_energy_import",
        "active_energy_export",
        "reactive_energy_import",
        "reactive_energy_export",
    }


@pytest.mark.parametrize("fault", ["busy", "short", "silent"])
def test_meter_in_trouble_gives_no_reading(fault):
    meter = sim()
    meter.faults.add(fault)
    assert answers(driver().measure(0), meter.answer) == []


def test_recorded_replies_read_the_same_on_micropython(tmp_path):
    if not MICROPYTHON.exists():
        pytest.skip("no MicroPython for this machine: its wheel is for x86-64 Linux")
    script = Path(__file__).parent / "micropython" / "modbus_measure.py"
    for name in profile_names():
        meter, exchanges = sim(name), []

        def reply(question, meter=meter, exchanges=exchanges):
            exchanges.append((question, meter.answer(question)))
            return exchanges[-1][1]

        groups = answers(driver(name).measure(0), reply)
        recorded = tmp_path / f"{name}.py"
        recorded.write_text(f"profile = {profile(name)!r}\nexchanges = {exchanges!r}\n")
        outcome = subprocess.run(
            [MICROPYTHON, "-X", "heapsize=120wk", script, recorded],
            env={"MICROPYPATH": f"{PROTOCOLS}:.frozen"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        assert outcome.stdout.strip() == repr([[tuple(reading) for reading in group] for group in groups])


# Frames.


def test_frame_is_the_one_that_the_standard_prints():
    """MODBUS over Serial Line V1.02, section 2.5.1.2: unit 2, function 7 gives CRC bytes 41 12."""
    assert frame(2, b"\x07") == bytes.fromhex("02074112")
    assert unframe(bytes.fromhex("02074112")) == (2, b"\x07")


@given(unit=st.integers(0, 255), pdu=st.binary(min_size=1, max_size=253), bit=st.integers(0, 10**6))
def test_one_flipped_bit_is_always_noticed(unit, pdu, bit):
    whole = bytearray(frame(unit, pdu))
    assert unframe(bytes(whole)) == (unit, pdu)
    whole[bit // 8 % len(whole)] ^= 1 << bit % 8
    with pytest.raises(ChecksumError):
        unframe(bytes(whole))


def test_frame_too_short_to_be_one_is_refused():
    with pytest.raises(WireError):
        unframe(b"\x01\x02\x03")


def test_silence_is_three_and_a_half_characters_and_fixed_above_19200():
    assert [silence_us(baud) for baud in (2400, 9600, 19200, 38400, 115200)] == [16042, 4011, 2006, 1750, 1750]
    assert characters_us(8, 9600) == 9166


def test_listener_pairs_answers_with_questions_of_all_units():
    questions = [(1, "0400000002"), (2, "0300100001"), (1, "0400460002")]
    replies = [(1, "040443668000"), (2, "8302"), (1, "04044247eb85")]
    stream = b"".join(
        frame(unit, bytes.fromhex(question)) + frame(other, bytes.fromhex(reply))
        for (unit, question), (other, reply) in zip(questions, replies, strict=True)
    )
    damaged = []
    heard = RtuListener().feed(stream, damaged)
    assert [(unit, question.hex(), reply.hex()) for unit, question, reply in heard] == [
        (1, "0400000002", "040443668000"),
        (2, "0300100001", "8302"),
        (1, "0400460002", "04044247eb85"),
    ]
    assert not damaged


def test_answer_is_not_taken_for_that_of_a_question_of_another_length():
    """A late answer behind the next question: it has another length, so it is no answer to that one."""
    stream = frame(1, bytes.fromhex("0400000002")) + frame(1, bytes.fromhex("0400460004"))
    stream += frame(1, bytes.fromhex("040443668000")) + frame(1, bytes.fromhex("04084247eb8500000000"))
    damaged = []
    heard = RtuListener().feed(stream, damaged)
    assert [exchange.question.hex() for exchange in heard] == ["0400460004"]
    assert len(damaged) == 1


@given(noise=st.binary(max_size=300), cut=st.integers(0, 400))
def test_tcp_listener_survives_noise_and_any_chunking(noise, cut):
    exchange = tcp_frame(7, 1, bytes.fromhex("0400000002")) + tcp_frame(7, 1, bytes.fromhex("040443668000"))
    stream = noise + exchange * 12
    listener = driver(framing="tcp")
    heard = listener.feed(stream[:cut], 0) + listener.feed(stream[cut:], 0)
    assert heard[-1] == [Reading("voltage", 23050, -2, "l1")]


def test_tcp_answers_are_paired_by_transaction_and_unit():
    stream = tcp_frame(1, 1, bytes.fromhex("0400000002")) + tcp_frame(2, 1, bytes.fromhex("0400020002"))
    stream += tcp_frame(9, 1, bytes.fromhex("040400000000")) + tcp_frame(2, 3, bytes.fromhex("040400000000"))
    stream += tcp_frame(2, 1, bytes.fromhex("040443673333")) + tcp_frame(1, 1, bytes.fromhex("040443668000"))
    damaged = []
    heard = TcpListener().feed(stream, damaged)
    assert [(exchange.question.hex(), exchange.answer.hex()) for exchange in heard] == [
        ("0400020002", "040443673333"),
        ("0400000002", "040443668000"),
    ]
    assert not damaged


@given(st.binary(max_size=64))
def test_crc_agrees_with_one_reckoned_bit_by_bit(octets):
    crc = 0xFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    assert crc16_modbus(octets) == crc


def test_rounding_loses_less_than_half_of_its_place():
    raw = struct.unpack(">I", struct.pack(">f", math.pi))[0]
    assert float_in_units(raw, 4, -3) == 3142


# What a device refuses.


class Holed:
    """A device whose registers from 0 on read as their address, but for its holes; its longest read may be limited."""

    def __init__(self, holes: set[int], longest: int = 125, code: int = 2) -> None:
        self.holes, self.longest, self.code = holes, longest, code
        self.asked: list[tuple[int, int]] = []  # first register and count, since `poll`
        self.refused: list[tuple[int, int]] = []

    def answer(self, request: bytes) -> bytes:
        function, first, count = struct.unpack(">BHH", request)
        self.asked.append((first, count))
        if count > self.longest or any(first <= hole < first + count for hole in self.holes):
            self.refused.append((first, count))
            return bytes([function | 0x80, self.code])
        return struct.pack(f">BB{count}H", function, 2 * count, *range(first, first + count))

    def poll(self, meter: Driver, now_ms: int = 0) -> set[int]:
        """Return the values that one measurement gives."""
        self.asked, self.refused = [], []
        return {reading.value for group in answers(meter.measure(now_ms), self.answer) for reading in group}


def tags(*addresses: int) -> list[dict[str, object]]:
    return [{key: row[key] for key in ("address", "quantity", "part")} for row in rows(*((at, 1) for at in addresses))]


def fewest(wanted: list[int], holes: set[int], gap: int, longest: int) -> int:
    """Reckon how many requests the rows of one register need at least."""
    count, start, before = 0, -1, -1
    for at in sorted(wanted):
        reaches = start >= 0 and at - start < longest and at - before - 1 <= gap
        if not reaches or holes & set(range(before, at)):
            count, start = count + 1, at
        before = at
    return count


@given(
    wanted=st.lists(st.integers(0, 150), min_size=1, max_size=30, unique=True),
    holes=st.sets(st.integers(0, 150), max_size=40),
    gap=st.integers(0, 20),
    longest=st.integers(2, 125),
)
@example(
    wanted=list(range(18)), holes={*range(9), 11, 13}, gap=0, longest=12
)  # more refusals than one measurement bears
def test_every_tag_that_can_be_read_is_read_with_the_fewest_requests_whatever_holes_there_are(
    wanted, holes, gap, longest
):
    meter = Driver({"tags": tags(*wanted), "address": 1, "gap_registers": gap, "max_registers": longest})
    device, readable = Holed(holes), set(wanted) - holes
    refused_before: set[tuple[int, int]] = set()
    unrefused = 0
    for _ in range(2 * len(wanted) + 2):
        values = device.poll(meter)
        assert values <= readable
        assert all(count <= longest for _, count in device.asked)
        assert not refused_before & set(device.refused), "the same question was refused twice in a row"
        refused_before = set(device.refused)
        unrefused = 0 if device.refused else unrefused + 1
        if unrefused == 2:  # what was learned over several measurements is drawn together after the first of these
            break
    assert values == readable
    assert not device.refused
    assert len(device.asked) == fewest(sorted(readable), holes, gap, longest)
    assert len(meter.lacking()) == len(set(wanted) & holes)


@given(
    wanted=st.lists(st.integers(0, 150), min_size=1, max_size=12, unique=True),
    holes=st.sets(st.integers(0, 150), max_size=40),
)
def test_few_tags_are_all_read_in_the_first_measurement_whatever_the_device_refuses(wanted, holes):
    meter, device = Driver({"tags": tags(*wanted), "address": 1}), Holed(holes)
    assert device.poll(meter) == set(wanted) - holes


@pytest.mark.parametrize("code", [2, 3])
def test_device_that_takes_fewer_registers_than_its_papers_say_is_read_in_pieces(code):
    meter, device = Driver({"tags": tags(*range(60)), "address": 1}), Holed(set(), longest=20, code=code)
    for _ in range(4):
        assert device.poll(meter) == set(range(60))
    assert not device.refused
    assert len(device.asked) <= 5


def test_refused_registers_are_asked_for_again_after_a_minute_and_then_each_hour():
    meter, device = Driver({"tags": tags(0, 1, 5), "address": 1}), Holed({1, 3})
    minute_ms = 60_000
    assert device.poll(meter, 0) == {0, 5}
    asked_again = []
    for minute in range(1, 600):
        device.poll(meter, minute * minute_ms)
        if device.refused:
            asked_again.append(minute)
    assert asked_again[:4] == [1, 3, 7, 15]
    assert {after - before for before, after in itertools.pairwise(asked_again[6:])} == {60}
    device.holes.clear()  # new firmware
    assert any(device.poll(meter, (600 + minute) * minute_ms) == {0, 1, 5} for minute in range(61))
    assert device.poll(meter, 661 * minute_ms) == {0, 1, 5}
    assert len(device.asked) == 1


def test_device_that_refuses_everything_while_it_starts_is_read_a_minute_later():
    meter, device = Driver({"tags": tags(0, 2, 9), "address": 1}), Holed(set(range(20)))
    assert device.poll(meter, 0) == set()
    device.holes.clear()
    assert device.poll(meter, 1000) == set()
    assert device.poll(meter, 61_000) == {0, 2, 9}


def test_device_that_loses_registers_while_it_runs_is_read_as_far_as_it_goes():
    meter, device = Driver({"tags": tags(0, 1, 2, 3), "address": 1}), Holed(set())
    assert device.poll(meter) == {0, 1, 2, 3}
    device.holes = {2}
    for _ in range(3):
        assert device.poll(meter) == {0, 1, 3}
    assert not device.refused


def test_device_that_refuses_much_does_not_hold_the_bus():
    device, meter = Holed(set(range(200))), Driver({"tags": tags(*range(0, 180, 3)), "address": 1})
    for _ in range(20):
        device.poll(meter)
        assert len(device.asked) <= 24
    assert device.asked == []


def test_number_that_the_device_lacks_is_named_and_counted_once():
    meter, device = Driver({"tags": tags(0, 1, 2), "address": 1}), Holed({1})
    for _ in range(3):
        device.poll(meter)
    assert len(meter.lacking()) == 1
    assert ["no such register" in str(error) for _, error in meter.damaged] == [True]


@pytest.mark.parametrize(
    ("kind", "words", "octets", "value"),
    [
        ("uint16", "high first", "fffe", 65534),
        ("int16", "high first", "fffe", -2),
        ("int32", "high first", "fffffffe", -2),
        ("int32", "low first", "fffeffff", -2),
        ("uint32", "low first", "00020001", 0x00010002),
        ("int64", "low first", "fffeffffffffffff", -2),
        ("float32", "low first", "000043e8", 464_000),
        ("float64", "low first", "00000000d0004075", 349_000),
        ("float64", "high first", "4075d00000000000", 349_000),
    ],
)
def test_tag_of_each_type_and_word_order_reads_as_reckoned_by_hand(kind, words, octets, value):
    row = {"address": 7, "type": kind, "words": words, "quantity": "co2"}
    meter = Driver({"tags": [row], "address": 1})
    answer = bytes([3, len(octets) // 2]) + bytes.fromhex(octets)
    exponent = -3 if kind.startswith("float") else 0
    assert answers(meter.measure(0), lambda question: answer) == [[Reading("co2", value, exponent)]]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tags": []}, "tags must list at least one"),
        ({"tags": {}}, "tags must list at least one"),
        ({"tags": [{"address": 1}]}, r"tags\[0\]: quantity is missing"),
        ({"tags": [*tags(0), {**tags(1)[0], "function": 6}]}, r"tags\[1\].*repeats|tags\[1\].*function"),
        ({"tags": [{**tags(0)[0], "typ": "int16"}]}, r"tags\[0\].*unknown key typ"),
        ({"tags": [*tags(3), {**tags(3, 3)[1]}]}, r"tags\[1\]: .*overlaps"),
        ({"gap_registers": 126}, "gap_registers"),
        ({"profile": {}}, "either profile or tags, not both"),
        ({"speed": 1}, "speed"),
    ],
)
def test_tags_that_cannot_be_are_refused_with_their_place(change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Driver({"tags": tags(0), "address": 1, **change})


def test_device_that_ends_the_connection_after_each_refusal_is_learned_all_the_same():
    """The line breaks each measurement off then; the next one asks for the halves, and nothing grows."""
    tags = [{"address": address, "quantity": "voltage", "part": f"l{address}"} for address in (0, 4, 8)]
    meter = Driver({"address": 1, "tags": tags})
    holes = {2, 8}  # one in a gap, one that a tag names
    for turn in range(20):
        measurement = meter.measure(1000 * turn)
        ask = measurement.send(None)
        with contextlib.suppress(StopIteration):
            while True:
                first, count = struct.unpack(">HH", ask.write[1:])
                if holes & set(range(first, first + count)):
                    measurement.send(bytes((0x83, 2)))
                    measurement.send(None)
                    raise AssertionError("a question without an answer ends the measurement")
                ask = measurement.send(bytes((3, 2 * count)) + bytes(2 * count))
        assert len(meter._plan._split) <= 5
    assert [(request.address, request.length) for request in meter._plan.requests] == [(0, 1), (4, 1)]
    assert meter.lacking() == ["voltage l8"]
