"""A record as SenML and back: nothing lost, and every lie answered with a WireError."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols import senml
from bega_protocols.errors import WireError
from bega_protocols.reading import GOOD, QUANTITIES, STALE, SUSPECT, Reading
from bega_protocols.record import ESTIMATED, SYNCHRONISED, UNKNOWN, Record

NAMES = st.text("abcXYZ019_-", min_size=1, max_size=20)
GOOD_READINGS = st.builds(
    Reading,
    st.sampled_from(sorted(QUANTITIES)),
    st.integers(-(2**64), 2**64),
    st.integers(-12, 12),
    st.just("") | NAMES,
    st.sampled_from([GOOD, SUSPECT]),
)
STALE_READINGS = st.builds(Reading, st.sampled_from(sorted(QUANTITIES)), st.just(0), st.just(0), NAMES, st.just(STALE))
TIMES = st.tuples(st.integers(0, 253_402_300_799_999), st.sampled_from([SYNCHRONISED, ESTIMATED, UNKNOWN]))
RECORDS = st.builds(
    lambda source, boot, seq, device, time, readings: Record(source, boot, seq, device, *time, readings),
    NAMES,
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    NAMES,
    TIMES | st.just((None, UNKNOWN)),
    st.lists(GOOD_READINGS | STALE_READINGS, min_size=1, max_size=8),
)

RECORD = Record(
    "gw-1",
    1_790_000_000,
    7,
    "meter",
    1_790_000_123_456,
    SYNCHRONISED,
    [Reading("active_energy_import", 1581123, -3, "t1"), Reading("voltage", 2301, -1, "l1", SUSPECT)],
)
PACK = json.loads(senml.encode(RECORD))


def changed(entry: int, **labels: object) -> bytes:
    """Return the pack with labels changed in one entry; None takes a label away."""
    entries = [dict(one) for one in PACK]
    for label, value in labels.items():
        if value is None:
            entries[entry].pop(label)
        else:
            entries[entry][label] = value
    return json.dumps(entries).encode()


@given(RECORDS)
def test_record_comes_back_whole(record):
    assert senml.decode(senml.encode(record)) == record


@given(RECORDS)
def test_pack_is_json_in_the_order_of_the_wire_format(record):
    pack = json.loads(senml.encode(record), parse_float=Decimal)
    head = list(pack[0])
    assert head[0] == "bn"
    assert head.index("boot") + 1 == head.index("seq") < head.index("n")
    assert pack[0]["bn"] == f"{record.source}/{record.device}/"
    assert all(set(entry) <= {"n", "u", "v", "vs", "q"} for entry in pack[1:])


def test_pack_reads_as_the_wire_format_says():
    assert senml.encode(RECORD) == (
        b'[{"bn":"gw-1/meter/","bt":1790000123.456,"bver":26,"boot":1790000000,"seq":7,'
        b'"n":"active_energy_import:t1","u":"kWh","v":1581.123},{"n":"voltage:l1","u":"V","v":230.1,"q":1}]'
    )


def test_stale_reading_never_carries_the_old_value():
    record = RECORD._replace(readings=[Reading("pm2_5", 35, 0, "", STALE)])
    pack = json.loads(senml.encode(record))
    assert (pack[0]["vs"], pack[0]["q"]) == ("stale", 2)
    assert "v" not in pack[0] and b"35" not in senml.encode(record)
    assert senml.decode(senml.encode(record)).readings == [Reading("pm2_5", 0, 0, "", STALE)]


@pytest.mark.parametrize("quality", [SYNCHRONISED, ESTIMATED, UNKNOWN])
def test_time_that_is_not_there_is_unknown(quality):
    pack = senml.encode(RECORD._replace(time_ms=None, time_quality=quality))
    assert json.loads(pack)[0]["tq"] == UNKNOWN
    assert "bt" not in json.loads(pack)[0]
    assert senml.decode(pack).time_quality == UNKNOWN


def test_bver_stands_only_where_a_secondary_unit_does():
    assert "bver" not in json.loads(senml.encode(RECORD._replace(readings=[Reading("voltage", 230)])))[0]


@pytest.mark.parametrize("name", ["", "a/b", "a b", 'a"b', "a\\b", "a\nb", "é", "#", "+", "x" * 65])
def test_name_that_would_break_pack_or_topic_is_not_encoded(name):
    for record in (
        RECORD._replace(source=name),
        RECORD._replace(device=name),
        RECORD._replace(readings=[Reading("voltage", 1, 0, name or "/")]),
    ):
        with pytest.raises(ValueError, match="no name"):
            senml.encode(record)


def test_record_without_readings_is_not_encoded():
    with pytest.raises(ValueError, match="without readings"):
        senml.encode(RECORD._replace(readings=[]))
    with pytest.raises(KeyError):
        senml.encode(RECORD._replace(readings=[Reading("luck", 7)]))


def test_a_node_whose_firmware_no_longer_knows_a_quantity_hands_it_on_and_the_gateway_knows_its_unit(monkeypatch):
    """Its ring may hold records of devices that the firmware of today was not built for."""
    whole = senml.encode(RECORD)
    monkeypatch.setattr(senml, "units", lambda quantity: None)
    without_units = senml.encode(RECORD, every_unit=False)
    with pytest.raises(KeyError):
        senml.encode(RECORD)
    monkeypatch.undo()
    assert b'"u":' in whole and b'"u":' not in without_units
    assert senml.decode(without_units) == senml.decode(whole) == RECORD


LIES = {
    "nothing": b"",
    "no JSON": b"[{",
    "no list": json.dumps(PACK[0]).encode(),
    "an empty list": b"[]",
    "a list of text": b'["bn"]',
    "text": b'"bn"',
    "number": b"5",
    "null": b"null",
    "an entry that is a list": json.dumps([*PACK, []]).encode(),
    "an entry that is text": json.dumps([*PACK, "n"]).encode(),
    "an entry that is empty": json.dumps([*PACK, {}]).encode(),
    "UTF-16": json.dumps(PACK).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(PACK).encode(),
    "no UTF-8": json.dumps(PACK).encode().replace(b"meter", b"m\xff"),
    "nested lists": b"[" * 200_000,
    "nested objects": b'[{"bn":' * 10_000,
    "a megabyte": json.dumps(PACK).encode() + b" " * 1_000_000,
    "NaN": changed(0, v=float("nan")),
    "Infinity": changed(0, v=float("inf")),
    "a huge exponent": json.dumps(PACK).encode().replace(b"1581.123", b"1e999999999"),
    "a huge time": json.dumps(PACK).encode().replace(b"1790000123.456", b"1e999999999"),
    "a huge number": json.dumps(PACK).encode().replace(b"1581.123", b"9" * 5000),
    "a huge seq": changed(0, seq=2**63),
    "a time past all calendars": changed(0, bt=253_402_300_800),
    "a negative time": changed(0, bt=-1),
    "a time finer than ms": json.dumps(PACK).encode().replace(b"1790000123.456", b"1790000123.4567"),
    "time as text": changed(0, bt="1790000123.456"),
    "time as truth": changed(0, bt=True),
    "negative boot": changed(0, boot=-1),
    "boot with places": changed(0, boot=1.0),
    "boot as text": changed(0, boot="5"),
    "boot as truth": changed(0, boot=True),
    "boot null": changed(0, boot=[None]),
    "seq as list": changed(0, seq=[1]),
    "no boot": changed(0, boot=None),
    "no seq": changed(0, seq=None),
    "no bn": changed(0, bn=None),
    "bn in three parts": changed(0, bn="a/b/c"),
    "bn without end": changed(0, bn="a/b"),
    "bn without device": changed(0, bn="a//"),
    "bn with a wildcard": changed(0, bn="a/+/"),
    "bn with a quotation mark": changed(0, bn='a/b"/'),
    "bn as a number": changed(0, bn=5),
    "a later bver": changed(0, bver=27),
    "bver as list": changed(0, bver=[]),
    "tq out of range": changed(0, tq=3),
    "tq as truth": changed(0, tq=True),
    "a time known and missing": changed(0, bt=None, tq=0),
    "no n": changed(1, n=None),
    "n as a number": changed(1, n=5),
    "n as list": changed(1, n=["voltage"]),
    "an unknown quantity": changed(1, n="luck"),
    "an empty part": changed(1, n="voltage:"),
    "two parts": changed(1, n="voltage:l1:l2"),
    "a part with a quotation mark": changed(1, n='voltage:l1","v":5,"n":"x'),
    "another unit": changed(1, u="kV"),
    "unit as list": changed(1, u=["V"]),
    "no value": changed(1, v=None),
    "value as text": changed(1, v="230.1"),
    "value as truth": changed(1, v=True),
    "value as list": changed(1, v=[230]),
    "quality out of range": changed(1, q=3),
    "quality with places": changed(1, q=1.5),
    "quality as truth": changed(1, q=True),
    "a second name": changed(1, bn="gw-2/meter/"),
    "a base value": changed(0, bv=1000),
    "a base unit": changed(0, bu="V"),
    "a time of its own": changed(1, t=-5),
    "a sum": changed(1, s=5),
}


@pytest.mark.parametrize("lie", LIES)
def test_lie_is_a_wire_error(lie):
    with pytest.raises(WireError) as caught:
        senml.decode(LIES[lie])
    assert len(str(caught.value)) < 400, "an error is a line in a log"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
LABELS = st.sampled_from(["bn", "bt", "bver", "boot", "seq", "tq", "n", "u", "v", "vs", "q", "t", "bu", "x"])


@given(st.integers(0, 1), LABELS, JSON)
def test_one_label_changed_to_anything_is_a_record_or_a_wire_error(entry, label, value):
    entries = [dict(one) for one in PACK]
    entries[entry][label] = value
    try:
        record = senml.decode(json.dumps(entries).encode())
    except WireError:
        return
    assert senml.decode(senml.encode(record)) == record


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_wire_error(pack):
    with pytest.raises(WireError):
        senml.decode(pack)


@given(st.integers(0, len(senml.encode(RECORD)) - 1), st.integers(0, 255))
def test_one_changed_byte_is_a_record_or_a_wire_error(at, byte):
    pack = bytearray(senml.encode(RECORD))
    pack[at] = byte
    try:
        record = senml.decode(bytes(pack))
    except WireError:
        return
    assert senml.decode(senml.encode(record)) == record
