"""One contract for every device: this file finds each folder under devices/ and asks the same of all of them.

A device's vectors.json:
  "sim": {"settings": {...}, "set": [[quantity, part, "12.34"], ...]}   what its simulator is made with and told
  "vectors": [{"name", "source" or "made": true, "settings"?, "frame" or "chunks": hex,
               "readings": [[quantity, value, exp10, part?, quality?], ...]  or  "groups": [readings, ...]}]
  "outside"?: [{"file": pattern below BEGA_VECTORS, "settings"?, "readings"? as above, "groups"?: how many,
                "reads"?: {name in the file: [quantity, part]}}]   frames captured elsewhere: test_vectors_outside.py
  "actions"?: {name: [value, ...]}   what `act` is given, where an action wants a value
  "unprotected"?: why a flipped bit of this device's frames cannot be noticed (no check value on the wire);
                  in a vector it speaks for that frame alone (BTHome: plain packets, while encrypted ones have a tag)
  "weak_check"?: which check value it is that a burst of noise passes now and then (a sum, an exclusive or)
"""

import contextlib
import json
import os
import re
import subprocess
import tracemalloc
from decimal import Decimal
from itertools import cycle, islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bega.devices import device_names, driver_class, load_driver, with_profile
from bega_protocols.errors import ConfigError, WireError
from bega_protocols.reading import GOOD, MANTISSA_DIGITS, QUANTITIES
from tests.contract import (
    BOOKS,
    FOLDER,
    MICROPYTHON,
    NOW_MS,
    chunks_of,
    drive,
    exact,
    exchange,
    groups_of,
    hear,
    is_stream,
    make_sim,
    question_of,
    set_as_booked,
    sim_driver,
    through,
    who_offers,
    wire_of,
)

KINDS_OF_WIRE = {"serial", "modbus", "mbus", "ble", "i2c"}
FILES = ("__init__.py", "driver.py", "sim.py", "vectors.json", "README.md")
IS_NIGHT = os.environ.get("BEGA_PROFILE") == "nightly"
LIES_BYTES = 10_000_000 if IS_NIGHT else 330_000
KEPT_BYTES = 50_000  # what a driver may hold on to: a P1 telegram and what was wrong with the last chunk are 37,000
MOST_ATTRIBUTES = 100

VECTORS = [
    pytest.param(name, vector, id=f"{name}-{vector['name']}") for name in BOOKS for vector in BOOKS[name]["vectors"]
]
LARGE = {"dsmr_p1", "mbus_meter", "modbus_meter"}  # compiled where they run they take more than a 120wk has left
ASKED = who_offers("measure")
ACTING = who_offers("act")
KEEPING = who_offers("state")

each_device = pytest.mark.parametrize("device", device_names())
each_vector = pytest.mark.parametrize(("device", "vector"), VECTORS)
# A hundred vectors are a hundred times as many examples: by day each gets a quarter of what other properties get.
a_quarter = settings(max_examples=settings.default.max_examples // (1 if IS_NIGHT else 4))
each_asked_device = pytest.mark.parametrize("device", ASKED)
each_acting_device = pytest.mark.parametrize("device", ACTING)
each_keeping_device = pytest.mark.parametrize("device", KEEPING)


@each_device
def test_folder_is_whole(device):
    assert not [file for file in FILES if not (FOLDER / device / file).exists()]
    assert json.loads((FOLDER / device / "vectors.json").read_text())["vectors"]


@each_vector
def test_frame_reads_as_its_source_says(device, vector):
    driver = load_driver(device, vector.get("settings", {}))
    assert hear(driver, chunks_of(vector)) == groups_of(vector)
    assert not driver.damaged


@each_vector
def test_vector_says_where_it_comes_from(device, vector):
    assert vector.get("made") is True or len(vector.get("source", "")) > 10


@pytest.mark.parametrize(("device", "vector"), [each for each in VECTORS if is_stream(each.values[0])])
@a_quarter
@given(data=st.data())
def test_any_chunking_gives_the_same_readings(device, vector, data):
    whole = b"".join(chunks_of(vector))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert hear(load_driver(device, vector.get("settings", {})), pieces) == groups_of(vector)


@each_vector
@a_quarter
@given(noise=st.binary(max_size=60))
def test_noise_before_a_frame_loses_at_most_that_frame(device, vector, noise):
    """The frame comes twice behind the noise: whatever the noise pretends to be, the second one is heard."""
    driver = load_driver(device, vector.get("settings", {}))
    groups = groups_of(vector)
    heard = hear(driver, [noise, *chunks_of(vector), *chunks_of(vector), *chunks_of(vector)])
    assert [group for group in heard if group in groups][-len(groups) :] == groups


@each_vector
@a_quarter
@given(data=st.data())
def test_one_flipped_bit_loses_at_most_its_own_frame(device, vector, data):
    driver = load_driver(device, vector.get("settings", {}))
    chunks, groups = chunks_of(vector), groups_of(vector)
    which = data.draw(st.integers(0, len(chunks) - 1))
    bit = data.draw(st.integers(0, 8 * len(chunks[which]) - 1))
    flipped = bytearray(chunks[which])
    flipped[bit // 8] ^= 1 << bit % 8
    heard = hear(driver, [*chunks[:which], bytes(flipped), *chunks[which + 1 :], *chunks, *chunks])
    assert [group for group in heard if group in groups][-len(groups) :] == groups
    if "unprotected" not in BOOKS[device] and "unprotected" not in vector:
        assert all(group in groups for group in heard), "a damaged frame was taken for a true one"


@each_device
@given(noise=st.lists(st.binary(max_size=300), max_size=4))
def test_driver_never_raises_on_wire_bytes(device, noise):
    """And what it gives has the shape of readings, and what it refuses has its place in the stream."""
    driver = sim_driver(device)
    heard = 0
    for chunk in noise:
        heard += len(chunk)
        for group in driver.feed(chunk, NOW_MS):
            assert all(reading.quantity in QUANTITIES for reading in group)
            assert all(abs(reading.value) < 10**MANTISSA_DIGITS for reading in group)
        for offset, error in driver.damaged:
            assert 0 <= offset <= heard
            assert isinstance(error, WireError)


@each_device
def test_lies_are_not_kept(device):
    """Heads without end, frames without end, true frames cut short: for days, if need be, in bounded memory."""
    whole = [chunk for vector in BOOKS[device]["vectors"] for chunk in chunks_of(vector) if chunk]
    longest = max(whole, key=len)
    lies = [longest[:1], longest[:4], longest[: len(longest) // 2], longest[:-1], longest[:9] + bytes(200), b"A"]
    total = LIES_BYTES // len(lies)
    if wire_of(device) == "i2c":  # who reads a transfer has chosen its length: only a capture can go on and on
        lies = lies[2:4]
    for lie in lies:
        driver = sim_driver(device)
        tracemalloc.start()
        for chunk in _chunks(lie, total, 250 if is_stream(device) else 31):
            driver.feed(chunk, NOW_MS)
            driver.damaged.clear()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < KEPT_BYTES, lie
        assert len(driver.attributes) <= MOST_ATTRIBUTES


def _chunks(lie, total, size):
    """Return `total` bytes of `lie` said again and again, in chunks."""
    stream = cycle(lie)
    return (bytes(islice(stream, size)) for _ in range(total // size))


@each_device
def test_driver_talks_to_its_simulator(device):
    driver, sim = sim_driver(device), set_as_booked(device, make_sim(device))
    groups = exchange(driver, sim)
    assert groups, "no readings"
    assert not driver.damaged
    last = {(reading.quantity, reading.part): reading for group in groups for reading in group}
    for quantity, part, value in BOOKS[device]["sim"]["set"]:
        assert exact(last[quantity, part]) == Decimal(value), (quantity, part)


@each_device
def test_silent_device_gives_no_readings(device):
    driver, sim = sim_driver(device), make_sim(device)
    sim.faults.add("silent")
    assert not [reading for group in exchange(driver, sim) for reading in group]


@each_asked_device
def test_silence_at_any_question_gives_nothing_wrong(device):
    """From a question on, and at that question alone: the device hangs, or one answer was lost."""
    questions, truth = _clean(device)
    for lost in range(questions):
        for until in (lost + 1, questions + 1000):
            groups, _ = _interrupted(
                device, lambda number, said, span=range(lost, until): None if number in span else said
            )
            _must_be_true(groups, truth)


@each_asked_device
def test_answer_cut_off_anywhere_gives_nothing_wrong(device):
    """On I2C and Modbus an answer cannot come in part; the line sees to that."""
    if wire_of(device) not in ("serial", "mbus"):
        return
    questions, truth = _clean(device)
    for cut in range(questions):
        for size in range(1, 300, 1 if questions < 4 else 7):
            groups, reached = _interrupted(
                device, lambda number, said, cut=cut, size=size: said[:size] if number == cut and said else said
            )
            _must_be_true(groups, truth)
            if not reached(cut, size):
                break


@each_asked_device
@given(said=st.lists(st.none() | st.binary(max_size=80), min_size=1, max_size=6))
def test_driver_never_raises_on_answers(device, said):
    answers = cycle(said)
    driver = sim_driver(device)
    wire = wire_of(device)
    for group in drive(driver.measure(NOW_MS), lambda ask: through(ask, next(answers), wire)):
        assert all(reading.quantity in QUANTITIES for reading in group)
    assert all(isinstance(error, WireError) and offset >= 0 for offset, error in driver.damaged)


def _clean(device):
    """Return how many questions one measurement asks, and what is true."""
    count = [0]

    def counted(number, said):
        count[0] = number + 1
        return said

    groups, _ = _interrupted(device, counted)
    return count[0], {(reading.quantity, reading.part): exact(reading) for group in groups for reading in group}


def _interrupted(device, say):
    """Measure once; say(number of the question, what the simulator answers) is what the wire carries."""
    driver, sim = sim_driver(device), set_as_booked(device, make_sim(device))
    sizes = []

    def answer(ask):
        said = sim.answer(question_of(ask))
        sizes.append(len(said or b""))
        return through(ask, say(len(sizes) - 1, said), wire_of(device))

    groups = drive(driver.measure(NOW_MS), answer)
    return groups, lambda number, size: number < len(sizes) and size < sizes[number]


def _must_be_true(groups, truth):
    for reading in (reading for group in groups for reading in group if reading.quality == GOOD):
        assert truth[reading.quantity, reading.part] == exact(reading), reading


@each_keeping_device
@given(state=st.binary(max_size=40))
def test_any_state_lets_a_driver_start(device, state):
    """It comes from a disk, from an older version, or from the sensor that hung here before."""
    settings = BOOKS[device]["sim"]["settings"]
    for kept in (state, *_cut_states(device)):
        again = load_driver(device, settings, kept)
        assert load_driver(device, settings, again.state()).state() == again.state()
        exchange(again, set_as_booked(device, make_sim(device)))


def _cut_states(device):
    """Return the state after a measurement, whole and cut at each byte."""
    driver = sim_driver(device)
    exchange(driver, set_as_booked(device, make_sim(device)))
    return [driver.state()[:size] for size in range(len(driver.state()) + 1)]


@each_device
def test_other_lines_of_a_device_are_ones_that_it_takes(device):
    for line, set_to in getattr(driver_class(device), "also_found", ()):
        assert line.split()[0] == wire_of(device)
        assert load_driver(device, set_to)


@each_acting_device
def test_every_action_reaches_the_simulator(device):
    for name, value in _actions(device):
        driver, sim = sim_driver(device), make_sim(device)
        exchange(driver, sim)
        drive(driver.act(name, value), lambda ask, sim=sim: through(ask, sim.answer(question_of(ask)), wire_of(device)))
        assert not driver.damaged, (name, value)


@each_acting_device
def test_action_upon_a_silent_device_ends(device):
    driver = sim_driver(device)
    for name, value in _actions(device):
        drive(driver.act(name, value), lambda ask: through(ask, None, wire_of(device)))


@each_acting_device
def test_unknown_action_is_refused(device):
    with pytest.raises(ConfigError):
        drive(sim_driver(device).act("no such action", None), lambda ask: None)


def _actions(device):
    """Return each action with each value that the book has for it."""
    values = BOOKS[device].get("actions", {})
    return [(name, value) for name in sim_driver(device).actions for value in values.get(name, [None])]


@each_device
def test_readme_names_every_quantity(device):
    """In a row of a table: whoever looks for a unit looks there."""
    readme = (FOLDER / device / "README.md").read_text()
    rows = "\n".join(line for line in readme.splitlines() if line.startswith("|"))
    spoken = {row[0] for vector in BOOKS[device]["vectors"] for group in groups_of(vector) for row in group}
    spoken |= {
        reading.quantity
        for group in exchange(sim_driver(device), set_as_booked(device, make_sim(device)))
        for reading in group
    }
    assert not [quantity for quantity in sorted(spoken) if f"`{quantity}`" not in rows]


@each_device
def test_readme_names_the_device_and_its_settings(device):
    readme = (FOLDER / device / "README.md").read_text()
    assert re.match(r"# \S.{5,}\n", readme), "its first line is what `bega decode --list` shows"
    assert not [setting for setting in _known_settings(device) if f"`{setting}`" not in readme]


@each_device
@pytest.mark.parametrize("value", [None, "", "x", "°", -1, 10**12, 1.5, True], ids=repr)
def test_setting_of_another_kind_is_refused_in_words(device, value):
    """Whatever stands in a configuration, the operator is told, or it is taken; the program does not break."""
    for setting in _known_settings(device):
        with contextlib.suppress(ConfigError):
            load_driver(device, {**BOOKS[device]["sim"]["settings"], setting: value})


def _known_settings(device):
    """Return the names of all settings, as the refusal of an unknown one lists them."""
    with pytest.raises(ConfigError) as refused:
        load_driver(device, {**BOOKS[device]["sim"]["settings"], "adress": 1})
    known = re.search(r"known here: (.*)", str(refused.value))
    return known[1].split(", ") if known and known[1] != "none" else []


@each_device
def test_driver_names_its_line(device):
    assert driver_class(device).line.split()[0] in KINDS_OF_WIRE


@each_device
def test_unknown_setting_is_refused(device):
    with pytest.raises(ConfigError, match="adress"):
        load_driver(device, {**BOOKS[device]["sim"]["settings"], "adress": 1})


@each_device
def test_device_keeps_its_contract_on_micropython(device, tmp_path):
    said = on_micropython(vectors_for_micropython(device), tmp_path)
    assert f"{len(BOOKS[device]['vectors'])} vectors hold" in said


@each_asked_device
def test_recorded_measurements_come_out_the_same_on_micropython(device, tmp_path):
    said = on_micropython(measurements_for_micropython(device), tmp_path)
    assert "0 measurements" not in said


def vectors_for_micropython(device):
    """Return the vectors of a device, as the contract's other half reads them."""
    cases = [
        {
            "name": vector["name"],
            "settings": with_profile(vector.get("settings", {})),
            "chunks": [chunk.hex() for chunk in chunks_of(vector)],
            "groups": [[list(reading) for reading in group] for group in groups_of(vector)],
        }
        for vector in BOOKS[device]["vectors"]
    ]
    return {"device": device, "stream": is_stream(device), "cases": cases}


def measurements_for_micropython(device):
    """The same, of measurements that are recorded here."""
    settings = with_profile(BOOKS[device]["sim"]["settings"])
    return {"device": device, "settings": settings, "now_ms": NOW_MS, "measured": _recorded(device)}


def write_book(book, folder):
    """Write what the contract's other half reads; return the file."""
    cases = book.pop("cases", [])
    file = folder / f"{book['device']}.json"
    file.write_text("\n".join(json.dumps(line) for line in [book, *cases]))
    return file


def on_micropython(book, folder):
    """Run the contract's other half on the real MicroPython; return what it printed."""
    if not MICROPYTHON.exists():
        pytest.skip("no MicroPython for this machine: its wheel is for x86-64 Linux")
    heap = "160wk" if book["device"] in LARGE else "60wk"
    file = write_book(book, folder)
    outcome = subprocess.run(
        [MICROPYTHON, "-X", f"heapsize={heap}", Path(__file__).parent / "micropython" / "device_contract.py", file],
        env={"MICROPYPATH": f"{FOLDER.parent.parent}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def _recorded(device):
    """Return measurements as they went here: whole, without any answer, and with the last answer lost or cut."""
    questions, _ = _clean(device)
    says = [
        ("whole", lambda number, said: said),
        ("silent", lambda number, said: None),
        ("last answer lost", lambda number, said: None if number >= questions - 1 else said),
        ("last answer cut", lambda number, said: said[:-1] if said and number >= questions - 1 else said),
    ]
    return [_record(device, name, say) for name, say in says]


def _record(device, name, say):
    driver, sim = sim_driver(device), set_as_booked(device, make_sim(device))
    exchanges = []

    def answer(ask):
        heard = through(ask, say(len(exchanges), sim.answer(question_of(ask))), wire_of(device))
        exchanges.append([ask.write.hex(), None if heard is None else heard.hex()])
        return heard

    groups = drive(driver.measure(NOW_MS), answer)
    return {
        "name": name,
        "exchanges": exchanges,
        "groups": [[list(reading) for reading in group] for group in groups],
        "attributes": driver.attributes,
    }
