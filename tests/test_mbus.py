"""M-Bus telegrams: captured frames against what libmbus made of them, made ones against pyMeterBus, and lies."""

import contextlib
import random
import struct
import sys
import xml.etree.ElementTree as ET
from decimal import Decimal
from pathlib import Path

import meterbus
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bega_protocols.errors import ChecksumError, WireError
from bega_protocols.mbus import (
    answer_ms,
    frame_in,
    has_frame,
    idle_ms,
    long_frame,
    longest_ms,
    manufacturer,
    manufacturer_code,
    parse,
    read_telegram,
    reset,
    secondary_mask,
    select,
    selects,
)
from bega_protocols.mbus_records import Record, read_records
from tests.contract import CAPTURED, NO_CAPTURED

FRAMES = sorted((CAPTURED / "mbus").glob("*.hex"))
FUNCTIONS = {"Instantaneous value": 0, "Maximum value": 1, "Minimum value": 2, "Value during error state": 3}
# Theirs: ours. What is not here has one name in both.
THEIR_QUANTITY = {
    "Fabrication No": "fabrication number",
    "Time point (date)": "date",
    "Time point (date & time)": "date and time",
    "H.C.A.": "cost allocator units",
    "Model / Version": "model",
    "Parameter set identification": "parameter set",
    "Manufacturer specific": "maker's own",
    "Reserved": "",
}
THEIR_UNIT = {"°C": "Cel", "-": "", "Reserved": "", "Units for H.C.A.": "", "m^3": "m3", "m^3/h": "m3/h"}
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
HEADER = bytes.fromhex("785634122440010755000000")


def frame_of(file: Path) -> bytes:
    return bytes.fromhex(file.read_text())


def read_by_libmbus(file: Path) -> ET.Element:
    """The files call themselves ISO-8859-1 and are UTF-8."""
    return ET.fromstring(file.with_suffix(".norm.xml").read_text().partition("?>")[2])


def telegram_of(body: bytes, header: bytes = HEADER) -> bytes:
    return long_frame(0x08, 2, 0x72, header + body)


def records_of(body: bytes) -> list[Record]:
    return read_telegram(telegram_of(body)).body.records


def text(node: ET.Element, name: str, default: str = "") -> str:
    return node.findtext(name) or default


def meant(record: Record) -> tuple[str, str, object]:
    """Return (meaning, unit, value) as libmbus words them: durations in seconds, numbers as they are."""
    value: object = record.value
    if isinstance(value, int):
        value = Decimal(value).scaleb(record.exp10) * SECONDS.get(record.unit, 1)
    return record.meaning.lower(), "s" if record.unit in SECONDS else record.unit, value


@pytest.mark.skipif(not FRAMES, reason=NO_CAPTURED)
@pytest.mark.parametrize("file", FRAMES, ids=lambda file: file.stem)
def test_captured_frame_reads_as_libmbus_reads_it(file):
    """Two things differ, each on purpose: a date that is not set is none (theirs is 2000-00-00, or 1900-01-00 where
    the meter says that its clock is invalid), and what is in no table has no name (theirs is "Reserved")."""
    telegram = read_telegram(frame_of(file))
    theirs = read_by_libmbus(file)
    slave = theirs.find("SlaveInformation")
    header = telegram.header
    assert int(header.identification) == int(text(slave, "Id"))
    assert header.manufacturer == text(slave, "Manufacturer")
    assert header.version == int(text(slave, "Version"))
    assert f"{header.status:02X}" == text(slave, "Status")
    assert header.access == int(text(slave, "AccessNumber"))
    assert f"{header.signature:04X}" == text(slave, "Signature")
    assert telegram.body.damage is None

    rows = theirs.findall("DataRecord")
    if rows[-1].findtext("Function") in ("Manufacturer specific", "More records follow"):
        last = rows.pop()
        assert telegram.body.more == (last.findtext("Function") == "More records follow")
        assert telegram.body.tail.hex(" ").upper() == text(last, "Value")
    else:
        assert not telegram.body.more and not telegram.body.tail
    assert len(rows) == len(telegram.body.records)
    for row, record in zip(rows, telegram.body.records, strict=True):
        assert record.function == FUNCTIONS[text(row, "Function")]
        place = [int(text(row, name, "0")) for name in ("StorageNumber", "Tariff", "Device")]
        assert [record.storage, record.tariff, record.subunit] == place
        meaning, unit, value = meant(record)
        quantity = text(row, "Quantity")
        assert meaning == THEIR_QUANTITY.get(quantity, quantity).lower()
        assert unit == THEIR_UNIT.get(text(row, "Unit"), text(row, "Unit"))
        check_value(record, value, row.findtext("Value") or "")


def check_value(record: Record, value: object, their: str) -> None:
    if record.meaning in ("date", "date and time"):
        is_set = "-00" not in their
        assert value == (their.removesuffix("Z").removesuffix(":00") if is_set else None)
    elif isinstance(value, str):
        assert value == their
    else:
        assert value == Decimal(their)


MEDIA = {
    "Cold water": 0x16, "Warm water (30-90°C)": 0x06, "Heat: Outlet": 0x04, "Gas": 0x03, "Electricity": 0x02,
    "Water": 0x07, "Heat Cost Allocator": 0x08, "Breaker: Electricity": 0x20, "Heat: Inlet": 0x0C,
}  # fmt: skip


@pytest.mark.skipif(not FRAMES, reason=NO_CAPTURED)
@pytest.mark.parametrize("file", FRAMES, ids=lambda file: file.stem)
def test_captured_frame_is_of_the_medium_that_libmbus_says(file):
    their = read_by_libmbus(file).findtext("SlaveInformation/Medium")
    assert read_telegram(frame_of(file)).header.medium == MEDIA[their]


# pyMeterBus: 10,000 made telegrams.

UNITS = {
    "WH": "Wh", "J": "J", "m^3": "m3", "kg": "kg", "seconds": "s", "W": "W", "J/h": "J/h", "m^3/h": "m3/h",
    "m^3/min": "m3/min", "m^3/s": "m3/s", "kg/h": "kg/h", "C": "Cel", "K": "K", "bar": "bar", "none": "",
    "V": "V", "A": "A", "H.C.A": "", "Currency unit": "", "date": "", "date time": "", "Baud": "", "Bittimes": "",
}  # fmt: skip
# What pyMeterBus 0.8.5 is known to read otherwise is not asked of it: LVAR numbers (it takes twice the bytes), codes
# behind a VIF (it leaves the value as it is), decimal digits above 9, a record without data (it drops it), FB 08
# and 09 (GJ; "Reserved" there, as in libmbus), FB 30 and 31 (GJ/h; it says J), months and years as seconds.
PRIMARY = [*range(0x00, 0x6C), *range(0x70, 0x7B)]
ORACLE_FD = [
    *range(0x00, 0x12), 0x17, 0x18, *range(0x1A, 0x1E), *range(0x20, 0x23), *range(0x24, 0x28), *range(0x2C, 0x30),
    *range(0x31, 0x38), 0x3A, *range(0x40, 0x65), 0x68, 0x69, 0x6C, 0x6D, 0x70,
]  # fmt: skip
ORACLE_FB = [0x00, 0x01, 0x10, 0x11, 0x18, 0x19, 0x28, 0x29]
SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: 6, 7: 8, 9: 1, 10: 2, 11: 3, 12: 4, 14: 6}


def made_record(rng: random.Random) -> bytes:
    """Return a record with any place, any unit and any number, or a text or a date."""
    kind = rng.choice([*SIZES, *SIZES, 0x0D, "date", "date and time"])
    dif = rng.getrandbits(2) << 4 | rng.getrandbits(1) << 6
    difes = [rng.getrandbits(7) for _ in range(rng.choice([0, 0, 0, 1, 2, 9]))]
    block = rng.choice(
        [[rng.choice(PRIMARY)], [rng.choice(PRIMARY)], [0xFD, rng.choice(ORACLE_FD)], [0xFB, rng.choice(ORACLE_FB)]]
    )
    if kind == "date":
        kind, block, data = 2, [0x6C], made_day(rng)
    elif kind == "date and time":
        kind, block, data = 4, [0x6D], bytes([rng.randrange(60), rng.randrange(24)]) + made_day(rng)
    elif kind == 0x0D:
        words = bytes(rng.choices(b"abcdefghijklmnop QRS 0123", k=rng.randrange(1, 20)))
        data = bytes([len(words)]) + words
    elif kind == 5:
        data = struct.pack("<f", rng.choice([1, -1]) * rng.random() * 10 ** rng.randrange(-6, 9))
    elif kind >= 9:
        data = bytes(rng.randrange(10) << 4 | rng.randrange(10) for _ in range(SIZES[kind]))
    else:
        data = rng.randbytes(SIZES[kind])
    heads = [dif | kind, *difes]
    return bytes([head | 0x80 for head in heads[:-1]] + heads[-1:] + block) + data


def made_day(rng: random.Random) -> bytes:
    year = rng.randrange(0, 81)
    return bytes([rng.randrange(1, 29) | (year & 7) << 5, rng.randrange(1, 13) | (year & 0x78) << 1])


def test_pymeterbus_agrees_on_ten_thousand_telegrams():
    rng = random.Random(13757)
    for _ in range(10_000):
        body = b"".join(made_record(rng) for _ in range(rng.randrange(1, 4)))
        frame = telegram_of(body, rng.randbytes(8) + bytes(4))
        ours, theirs = read_telegram(frame), meterbus.TelegramLong.parse(frame)
        assert ours.body.damage is None
        assert ours.header.manufacturer == theirs.body.bodyHeader.manufacturer_field.decodeManufacturer
        assert len(ours.body.records) == len(theirs.records), frame.hex()
        for record, their in zip(ours.body.records, theirs.records, strict=True):
            check_against_oracle(record, their, frame)


def check_against_oracle(record: Record, their: object, frame: bytes) -> None:
    storage, tariff, device = their.dib.parse_dife()
    assert (record.storage, record.tariff, record.subunit) == (storage, tariff or 0, device or 0), frame.hex()
    assert record.function == their.function
    value = their.value
    if record.meaning in ("date", "date and time"):
        assert record.value == value, frame.hex()
        return
    if isinstance(record.value, str):
        assert record.value == value, frame.hex()
        return
    unit, ours = record.unit, Decimal(record.value or 0).scaleb(record.exp10)
    if unit in SECONDS:
        unit, ours = "s", ours * SECONDS[unit]
    assert unit == UNITS.get(their.unit, their.unit), (frame.hex(), record)
    assert abs(ours - Decimal(value)) <= abs(ours) * Decimal("1e-7"), (frame.hex(), record, value)


# What is not in the frames above.


def test_three_records_read_as_worked_out_by_hand():
    """12.565 m3, 0.113 m3/h at most in storage 5, 218.37 kWh in tariff 2 of subunit 1."""
    volume, flow, energy = records_of(bytes.fromhex("03 13 15 31 00 DA 02 3B 13 01 8B 60 04 37 18 02"))
    assert volume[:8] == (0, 0, 0, 0, "volume", "m3", 12565, -3)
    assert flow[:8] == (1, 5, 0, 0, "volume flow", "m3/h", 113, -3)
    assert energy[:8] == (0, 0, 2, 1, "energy", "Wh", 21837, 1)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("0C 13 78 56 34 12", 12345678),
        ("0A 13 23 F1", -123),
        ("0A 13 FF FF", None),
        ("0A 13 2A 01", None),
        ("0A 13 F1 01", None),
        ("09 13 F0", 0),
        ("01 13 FF", -1),
        ("02 13 00 80", -32768),
        ("07 13 FF FF FF FF FF FF FF 7F", 2**63 - 1),
        ("0D 13 C2 34 12", 1234),
        ("0D 13 D2 34 12", -1234),
        ("0D 13 E2 34 12", b"\x34\x12"),
        ("0D 13 F0" + "11" * 16, b"\x11" * 16),
        ("0D 13 F6" + "11" * 64, b"\x11" * 64),
        ("0D 78 03 43 42 41", "ABC"),
        ("00 13", None),
        ("08 13", None),
    ],
)
def test_number_is_read_by_its_type(data, value):
    assert records_of(bytes.fromhex(data))[0].value == value


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("02 6C 7F 1C", "2011-12-31"),
        ("02 6C 00 00", None),
        ("02 6C 1F 12", "2008-02-31"),
        ("02 6C 1D 12", "2008-02-29"),
        ("02 6C 3D 12", None),  # 29 February 2009
        ("02 6C FF FF", None),
        ("04 6D 32 14 86 16", "2012-06-06T20:50"),
        ("04 6D B2 14 86 16", None),  # "invalid"
        ("04 6D 32 94 86 16", "2012-06-06T20:50"),  # summer time
        ("04 6D 3C 14 86 16", None),  # minute 60
        ("06 6D 1E 32 14 86 16 17", "2012-06-06T20:50:30"),
        ("03 6D 1E 32 14", "20:50:30"),
    ],
)
def test_date_is_read_by_its_type(data, value):
    expected = None if value == "2008-02-31" else value
    assert records_of(bytes.fromhex(data))[0].value == expected


def test_summer_time_is_noted():
    assert records_of(bytes.fromhex("04 6D 32 94 86 16"))[0].notes == ("summer time",)
    assert records_of(bytes.fromhex("06 6D 5E 32 14 86 16 17"))[0].notes == ("summer time",)


@pytest.mark.parametrize(
    ("block", "meaning", "unit", "exp10", "notes"),
    [
        ("93 70", "volume", "m3", -9, ()),
        ("93 7D", "volume", "m3", 0, ()),
        ("93 12", "volume", "m3", -3, ("average",)),
        ("93 3B", "volume", "m3", -3, ("forward",)),
        ("FD C8 FC 02", "voltage", "V", -1, ("l2",)),
        ("93 FF 55", "volume", "m3", -3, ("maker's own",)),
        ("FF 82 13", "maker's own", "", 0, ("02", "13")),
        ("FC 03 48 52 25 74", "%RH", "", -2, ()),
        ("FB 0F", "", "", 0, ()),
        ("7B", "", "", 0, ()),
        ("43", "volume flow", "m3/min", -4, ()),
        ("FB 09", "energy", "J", 9, ()),
    ],
)
def test_codes_behind_a_unit_say_what_they_change(block, meaning, unit, exp10, notes):
    record = records_of(bytes.fromhex("02" + block + "0100"))[0]
    assert (record.meaning, record.unit, record.exp10, record.notes, record.value) == (meaning, unit, exp10, notes, 1)


@given(st.integers(0, 2**32 - 1))
@example(0x00000001)
@example(0x00800000)
@example(0x4B800000)
@example(0x7F7FFFFF)
@example(0x80000000)
@example(0x3DCCCCCD)
def test_real_number_is_the_shortest_decimal_that_reads_back(bits):
    raw = struct.pack("<I", bits)
    record = records_of(b"\x05\x2b" + raw)[0]
    number = struct.unpack("<f", raw)[0]
    if record.value is None:
        assert number != number or abs(number) == float("inf")
        return
    exact = Decimal(record.value).scaleb(record.exp10)
    assert struct.pack("<f", float(exact)) == raw or (exact == 0 and number == 0)
    assert len(str(abs(record.value))) <= 9


def test_real_number_is_as_short_as_it_was_written():
    for written in ("0.1", "12.5", "123456.8", "1E-7", "3.4E+38"):
        raw = struct.pack("<f", float(written))
        record = records_of(b"\x05\x2b" + raw)[0]
        assert Decimal(record.value).scaleb(record.exp10) == Decimal(written)


def test_fixed_structure_gives_two_counters_with_a_warning():
    """By hand: identification 12345678, 1 l, and 135 l at the last key day."""
    frame = bytes.fromhex("68 13 13 68 08 05 73 78 56 34 12 0A 00 E9 7E 01 00 00 00 35 01 00 00 3C 16")
    telegram = read_telegram(frame)
    assert telegram.header[:4] == ("12345678", "", None, 7)
    now, before = telegram.body.records
    assert now == Record(0, 0, 0, 0, "volume", "m3", 1, -3, ("fixed structure",), b"\x29")
    assert before == Record(0, 1, 0, 0, "volume", "m3", 135, -3, ("fixed structure",), b"\x3e")


def test_short_and_absent_header_are_read():
    assert read_telegram(long_frame(0x08, 1, 0x7A, bytes.fromhex("55040000 0113 05"))).header[4:] == (0x55, 4, 0)
    assert read_telegram(long_frame(0x08, 1, 0x78, bytes.fromhex("0113 05"))).body.records[0].value == 5


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (long_frame(0x08, 1, 0x70, b"\x08"), "busy"),
        (long_frame(0x08, 1, 0x70), "unspecified"),
        (long_frame(0x08, 1, 0x76, HEADER), "76"),
        (long_frame(0x08, 1, 0x72, HEADER[:11]), "header"),
        (long_frame(0x08, 1, 0x73, HEADER), "fixed"),
        (long_frame(0x53, 1, 0x51, b""), "not from a slave"),
    ],
)
def test_what_holds_no_data_says_why(frame, why):
    with pytest.raises(WireError, match=why):
        read_telegram(frame)


def test_each_byte_of_a_frame_is_checked():
    frame = telegram_of(bytes.fromhex("0C 13 78 56 34 12"))
    for at in range(len(frame)):
        with pytest.raises(WireError):
            parse(frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :])
    with pytest.raises(ChecksumError):
        parse(frame[:-2] + bytes([frame[-2] ^ 1]) + frame[-1:])


# Lies.


@pytest.mark.parametrize(
    ("body", "offset", "why"),
    [
        (b"\x81" + b"\x80" * 200, 3, "10 DIFE"),
        (b"\x81" + b"\x80" * 9 + b"\x00\x13\x01", None, ""),
        (b"\x01\x93" + b"\x80" * 200, 3, "10 VIFE"),
        (b"\x01" + b"\xff" * 100, 3, "10 VIFE"),
        (b"\x0d\x7c\xff", 3, "ends early"),
        (b"\x0d\x13\xbf", 3, "ends early"),
        (b"\x0d\x13\xca", 3, "reserved"),
        (b"\x0d\x13\xff", 3, "reserved"),
        (b"\x07\x13\x00", 3, "ends early"),
        (b"\x8f\x00", 3, "special"),
        (b"\x3f", 3, "special"),
        (b"\x01", 3, "ends early"),
    ],
)
def test_lie_ends_the_records_where_it_stands_and_keeps_those_before(body, offset, why):
    telegram = read_telegram(telegram_of(b"\x01\x13\x05" + body))
    assert telegram.body.records[0].value == 5
    if offset is None:
        assert telegram.body.damage is None
        return
    at, error = telegram.body.damage
    assert at == offset
    assert why in error.why


@given(st.binary(max_size=252))
def test_any_body_is_read_without_harm(body):
    read = read_records(body)
    assert len(read.records) <= len(body)
    for record in read.records:
        assert isinstance(record.value, int | str | bytes | None)


@given(st.binary(max_size=252), st.integers(0, 255), st.integers(0, 255))
def test_any_frame_is_read_or_refused(data, control, ci):
    with contextlib.suppress(WireError):
        read_telegram(long_frame(control, 1, ci, data))


@pytest.mark.parametrize(
    "worst",
    [b"\x85" + b"\x80" * 9 + b"\x00\x13\xff\xff\x7f\x7f", b"\x05\x13\x01\x00\x00\x00", b"\x2f", b"\x00\x13"],
    ids=["chain", "smallest real", "filler", "no data"],
)
def test_work_grows_with_the_length_of_a_body(worst):
    """Counted in calls, which do not depend on the machine: so many times the bytes, so many times the calls."""

    def calls(body: bytes) -> int:
        count = 0

        def count_one(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(count_one)
        try:
            read_records(body)
        finally:
            sys.setprofile(None)
        return count

    assert calls(worst * 200) < 12 * calls(worst * 20)


# Finding an answer in what was heard.


@given(noise=st.binary(max_size=40), more=st.binary(max_size=10))
def test_answer_is_found_behind_noise(noise, more):
    frame = telegram_of(b"\x01\x13\x05")
    found = frame_in(noise + frame + more)
    assert found is not None
    assert parse(found)


def test_pretended_long_frame_does_not_hide_the_answer_in_it():
    frame = telegram_of(b"\x01\x13\x05")
    assert frame_in(b"\x68\xff\xff\x68" + frame) == frame
    assert not has_frame(b"\x68\xff\xff\x68" + frame[:-1])


def test_babbling_is_not_looked_through_ever_again(monkeypatch):
    """A meter that sends for minutes: of 64 KiB of the worst only the end is summed up."""
    summed = []
    monkeypatch.setattr("bega_protocols.mbus.sum8", lambda octets: summed.append(len(octets)) or sum(octets) & 0xFF)
    assert not has_frame(b"\x68\xfe\xfe\x68\x16" * 13_107)
    assert 100 < len(summed) <= 4 * 261


# Addresses.


def test_times_of_the_line_are_those_of_the_standard():
    """The table of EN 13757-2 for 2400 Bd, with 100 ms for what stands between us and the wire."""
    assert (answer_ms(2400), idle_ms(2400), longest_ms(2400)) == (138 + 50 + 100, 14, 1197)
    assert (answer_ms(300), idle_ms(300), longest_ms(300)) == (1100 + 50 + 100, 110, 9570)


def test_reset_and_selection_are_sent_as_worked_out_by_hand():
    """53 + FD + 52 + 76 + 57 + 02 + 00 + 4 x FF = 66D."""
    assert reset(5, 2400).write.hex() == "1040054516"
    assert select(secondary_mask("00025776"), 2400).write.hex() == "680b0b6853fd5276570200ffffffff6d16"


@pytest.mark.parametrize("letters", ["ABB", "KAM", "DME", "ZRI", "EFE", "SEN", "LUG", "REL", "LGZ"])
def test_manufacturer_survives_both_ways(letters):
    assert manufacturer(manufacturer_code(letters)) == letters


def test_manufacturers_have_their_published_codes():
    codes = {"ABB": 0x0442, "KAM": 0x2C2D, "DME": 0x11A5, "ZRI": 0x6A49, "HYD": 0x2324, "LGZ": 0x30FA}
    for letters, code in codes.items():
        assert manufacturer_code(letters) == struct.pack("<H", code)


@pytest.mark.parametrize(
    ("mask", "fits"),
    [
        ("12345678", True),
        ("1234567F", True),
        ("FFFFFFFF", True),
        ("12345679", False),
        ("12345678.PAD.01.07", True),
        ("12345678.FFF.FF.07", True),
        ("12345678.PAD.02.07", False),
        ("12345678.PAD.01.06", False),
        ("12345678.KAM.01.07", False),
    ],
)
def test_mask_selects_whom_it_describes(mask, fits):
    header = read_telegram(telegram_of(b"")).header
    assert selects(secondary_mask(mask), header) is fits


@pytest.mark.parametrize(
    "text", ["1234567", "123456789", "1234567G", "12345678.KAM", "12345678.KA.01.07", "", "x.y.z.w"]
)
def test_wrong_secondary_address_is_refused(text):
    with pytest.raises(ValueError):
        secondary_mask(text)
