"""What a beacon puts on the air: the reference parser and the gateway's own driver read it as it was measured."""

import json
import os
import subprocess
import sys
import zlib
from decimal import Decimal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from bega.devices import load_driver
from bega_protocols import bthome
from bega_protocols.bthome_write import OBJECTS, ROOM, STATES, advertisement, bodies, encoded
from bega_protocols.devices.bthome import codec
from bega_protocols.devices.bthome.codec import MEANINGS
from bega_protocols.devices.bthome.sim import OBJECTS as PAGE
from bega_protocols.devices.bthome.sim import RANGES
from bega_protocols.reading import Reading, decimal_text
from tests.test_bthome import ADDRESS, KEY, SECRET, ours, reference

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(os.environ.get("BEGA_MICROPYTHON", Path(sys.executable).with_name("micropython")))
needs_micropython = pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine")
OWN = bytes.fromhex(ADDRESS.replace(":", ""))
LARGEST_ADVERTISEMENT = 31
READ_AS = {"active_energy_import": "active_energy_total"}  # "0x4D energy": of no direction
SAID_BY_PAGE = sorted({*OBJECTS, *STATES} & set(PAGE))


def encipher(block):
    context = Cipher(algorithms.AES(bytes.fromhex(KEY)), modes.ECB()).encryptor()  # CCM is built on it
    return context.update(block)


def said(body, counter=1):
    return advertisement(body, encipher, OWN, counter)


def heard(body):
    """Return what the gateway's driver reads in one packet, without its counter."""
    return ours([group[1:] for group in load_driver("bthome", SECRET).feed(said(body), 0)])


def number(reading):
    return Decimal(decimal_text(reading.value, reading.exp10))


def step_of(octets):
    """Return the value of one step of an object, as the reading side of the format has it."""
    meaning = MEANINGS.get(octets[0])
    return Decimal(1).scaleb(meaning.exp10) if meaning else Decimal(1)


@st.composite
def measured(draw):
    """Return readings of different quantities, each in the range that the format's page gives its object."""
    quantities = draw(st.lists(st.sampled_from(SAID_BY_PAGE), unique=True, min_size=1, max_size=12))
    readings = []
    for quantity in quantities:
        _, data_type, factor = PAGE[quantity]
        low, high, _ = RANGES[data_type]
        steps = draw(st.integers(low, high))
        exp10 = Decimal(factor).as_tuple().exponent
        finer = draw(st.integers(0, 3))
        readings.append(Reading(quantity, steps * 10**finer, exp10 - finer))
    return readings


@given(measured())
def test_reference_and_gateway_read_what_was_measured(readings):
    packets = bodies([encoded(reading) for reading in readings])
    by_reference, by_gateway = {}, {}
    for body in packets:
        assert len(said(body)) <= LARGEST_ADVERTISEMENT
        by_reference.update(reference(SECRET, said(body)[7:]))
        by_gateway.update(heard(body))
    wanted = {(reading.quantity, ""): number(reading) for reading in readings}
    assert by_gateway == wanted
    # Its floats, and what it rounds to the digits that it shows.
    assert {key: float(value) for key, value in by_reference.items()} == pytest.approx(
        {key: float(value) for key, value in wanted.items()}, rel=1e-6
    )


@given(st.sampled_from(sorted(OBJECTS)), st.integers(-(10**12), 10**12), st.integers(-8, 4))
def test_any_reading_is_said_to_half_a_step_or_not_at_all(quantity, value, exp10):
    reading = Reading(quantity, value, exp10)
    octets = encoded(reading)
    if octets is None:
        low, high = reach(quantity)
        assert not low <= number(reading) <= high
        return
    [said_number] = heard(octets).values()
    assert abs(said_number - number(reading)) * 2 <= step_of(octets)


def reach(quantity):
    """Return the lowest and highest value of all that its objects hold."""
    ends = []
    for _, size, exp10 in OBJECTS[quantity]:
        low, high = (0, 2 ** (8 * size) - 1) if size > 0 else (-(2 ** (-8 * size - 1)), 2 ** (-8 * size - 1) - 1)
        ends += [Decimal(low).scaleb(exp10), Decimal(high).scaleb(exp10)]
    return min(ends), max(ends)


def test_table_says_what_the_reading_side_reads():
    for quantity, objects in OBJECTS.items():
        for object_id, size, exp10 in objects:
            assert bthome._size_code(object_id) == str(abs(size))
            assert MEANINGS[object_id] == (READ_AS.get(quantity, quantity), exp10, size < 0, 1)
    assert {object_id: quantity for quantity, object_id in STATES.items()} == codec.STATES


def test_every_quantity_that_is_read_can_be_said():
    readable = {meaning.quantity for meaning in MEANINGS.values()}
    assert set(OBJECTS) - set(READ_AS) == readable - {"packet_id"}, "a packet's counter is its id"


@pytest.mark.parametrize(
    ("reading", "octets"),
    [
        (Reading("temperature", 2134, -2), "025608"),
        (Reading("temperature", -5, -1), "02ceff"),
        (Reading("temperature", 500, 0), "458813"),
        (Reading("pm2_5", 125, -1), "0d0d00"),
        (Reading("pm2_5", 124, -1), "0d0c00"),
        (Reading("voltage", 2301, -1), "4afd08"),
        (Reading("active_power", -12, 2), "5c402bfeff"),
        (Reading("active_power", 12, 2), "0bc0d401"),
        (Reading("active_energy_total", 123456789, -3), "4d15cd5b07"),
        (Reading("active_energy_import", 1, 0), "4de8030000"),
        (Reading("water_volume", 1234567, -3), "4f58ff9549"),
        (Reading("problem", 1), "2601"),
    ],
)
def test_object_is_what_the_page_says(reading, octets):
    """bthome.io/format, "Sensor data": worked out by hand from its table."""
    assert encoded(reading) == bytes.fromhex(octets)


@pytest.mark.parametrize(
    "reading",
    [
        Reading("pm1", 5),
        Reading("voltage", 230, 0, "l1"),
        Reading("temperature", 4000),
        Reading("humidity", -1),
        Reading("water_volume", 4295, 0),
        Reading("active_energy_export", 1, 0),
    ],
)
def test_what_the_format_has_no_place_for_is_not_said(reading):
    assert encoded(reading) is None


def test_fifteen_bytes_are_a_packet_and_a_sixteenth_begins_another():
    air = [Reading("temperature", 1), Reading("humidity", 1), Reading("pm2_5", 1), Reading("pm10", 1)]
    more = [Reading("problem", 0), Reading("battery", 90), Reading("co2", 400), Reading("pressure", 1013)]
    assert [len(body) for body in bodies([encoded(reading) for reading in [*air, more[0]]])] == [14]
    packed = bodies([encoded(reading) for reading in air + more])
    assert [len(body) for body in packed] == [15, 8]
    assert [len(said(body)) for body in packed] == [31, 24]
    assert all(len(body) <= ROOM for body in packed)
    ids = [found.id for body in packed for found in bthome.objects(body)[0]]
    assert ids == sorted(ids), "the page: objects in numerical order"
    assert bodies([]) == []


def test_packet_of_the_encryption_page_is_made_byte_for_byte():
    """bthome.io/encryption, "Full example": temperature 25.06, humidity 50.55; its counter is 00112233."""
    body = encoded(Reading("temperature", 2506, -2)) + encoded(Reading("humidity", 5055, -2))
    packet = advertisement(body, encipher, OWN, int.from_bytes(bytes.fromhex("00112233"), "little"))
    assert packet.hex() == "020106" + "1216d2fc" + "41a47266c95f730011223378237214"


def test_replay_of_a_beacon_is_refused_by_the_gateway_and_by_the_reference():
    driver = load_driver("bthome", SECRET)
    body = encoded(Reading("temperature", 2100, -2))
    assert len(driver.feed(said(body, 7), 0)) == 1
    assert driver.feed(said(body, 7), 100_000) == [], "the same packet again is the same measurement"
    assert not driver.damaged
    assert driver.feed(said(body, 6), 200_000) == []
    assert "replay" in driver.damaged[0][1].why


SCRIPT = """
import json, sys
import cryptolib
from bega_protocols.bthome_write import advertisement, bodies, encoded
from bega_protocols.reading import Reading
encipher = cryptolib.aes(bytes.fromhex(sys.argv[1]), 1).encrypt
address = bytes.fromhex(sys.argv[2])
for row in json.load(open(sys.argv[3])):
    objects = [encoded(Reading(*reading)) for reading in row]
    packets = bodies([one for one in objects if one])
    print(json.dumps([advertisement(body, encipher, address, 9).hex() for body in packets]))
"""


@needs_micropython
def test_micropython_says_the_same_bytes(tmp_path):
    values = (0, 1, 255, 32767, 65535, 10**6 + 5, 2**32 - 1, -1, -32768, -(10**7) - 5)
    rows = [
        [[quantity, value, exp10, "", 0] for quantity in (*OBJECTS, *STATES)]
        for value in values
        for exp10 in (-7, -3, 0, 2)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=200wk", "-c", SCRIPT, KEY, OWN.hex(), tmp_path / "rows.json"],
        env={"MICROPYPATH": f"{ROOT / 'protocols'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    for row, line in zip(rows, outcome.stdout.splitlines(), strict=True):
        objects = [encoded(Reading(*reading)) for reading in row]
        assert json.loads(line) == [said(body, 9).hex() for body in bodies([one for one in objects if one])]


@needs_micropython
@pytest.mark.parametrize("kind", ["clean", "torn"])
def test_counter_gives_no_number_twice_wherever_the_power_fails(kind):
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=400wk", ROOT / "tests/micropython/counter_powercut.py", kind],
        env={"MICROPYPATH": f"{ROOT / 'firmware/node'}:{ROOT / 'protocols'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert int(outcome.stdout.splitlines()[-1].split()[0]) >= 10


COUNT = """
import json, sys
from counter import Counter
folder, floor, contents = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
for ending in contents:
    with open(folder + "/counter." + ending, "w") as file:
        file.write(contents[ending])
counter = Counter(folder, floor)
print(json.dumps([counter.next(), counter.next()]))
"""


def kept(number):
    return f"{number} {zlib.crc32(str(number).encode()):08x}"


@needs_micropython
@pytest.mark.parametrize(
    ("floor", "copies", "first"),
    [
        (0, {}, 1),
        (1000, {}, 1001),
        (1000, {"a": ""}, 1001),
        (1000, {"a": kept(1256), "b": kept(1512)}, 1513),
        (5000, {"a": kept(1256), "b": kept(1512)}, 5001),
        (1000, {"a": kept(1256), "b": "rotten"}, 1256 + 256 + 1),
        (1000, {"a": kept(1256)[:-1] + "z", "b": "rotten"}, 1000 + 2**26 + 1),
        (1000, {"a": "rotten", "b": ""}, 1000 + 2**26 + 1),
    ],
    ids=["new", "configured", "cut at its first", "kept", "configured anew", "newer rotten", "both rotten", "one only"],
)
def test_counter_begins_above_all_that_may_have_been_used(tmp_path, floor, copies, first):
    outcome = subprocess.run(
        [MICROPYTHON, "-c", COUNT, tmp_path, str(floor), json.dumps(copies)],
        env={"MICROPYPATH": f"{ROOT / 'firmware/node'}:{ROOT / 'protocols'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert json.loads(outcome.stdout) == [first, first + 1]
