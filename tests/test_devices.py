"""One contract for every device: this file finds each folder under devices/ and asks the same of all of them.

A device's vectors.json:
  "sim": {"settings": {...}, "set": [[quantity, part, "12.34"], ...]}   what its simulator is made with and told
  "vectors": [{"name", "source" or "made": true, "settings"?, "frame" or "chunks": hex,
               "readings": [[quantity, value, exp10, part?, quality?], ...]  or  "groups": [readings, ...]}]
  "unprotected"?: why a flipped bit of this device's frames cannot be noticed (no check value on the wire);
                  in a vector it speaks for that frame alone (BTHome: plain packets, while encrypted ones have a tag)
"""

import json
import subprocess
import sys
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bega_protocols.devices
from bega.devices import aes_block_cipher, device_names, driver_class, load_driver, must_be_asked, with_profile
from bega_protocols.errors import ConfigError
from bega_protocols.reading import QUANTITIES, Reading

FOLDER = Path(bega_protocols.devices.__file__).parent
NOW_MS = 1_790_000_000_000
MINUTE_MS = 60_000
MICROPYTHON = Path(sys.executable).with_name("micropython")
KINDS_OF_WIRE = {"serial", "modbus", "mbus", "ble", "i2c"}

BOOKS = {name: json.loads((FOLDER / name / "vectors.json").read_text()) for name in device_names()}
VECTORS = [
    pytest.param(name, vector, id=f"{name}-{vector['name']}") for name in BOOKS for vector in BOOKS[name]["vectors"]
]

each_device = pytest.mark.parametrize("device", device_names())
each_vector = pytest.mark.parametrize(("device", "vector"), VECTORS)


def chunks_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(chunk) for chunk in vector.get("chunks", [vector.get("frame", "")])]


def groups_of(vector: dict[str, Any]) -> list[list[Reading]]:
    rows = vector["groups"] if "groups" in vector else [vector["readings"]]
    return [[Reading(*row) for row in group] for group in rows]


def hear(driver: Any, chunks: list[bytes]) -> list[list[Reading]]:
    return [group for chunk in chunks for group in driver.feed(chunk, NOW_MS)]


def is_stream(device: str) -> bool:
    """Return whether frames follow each other without a border that the line keeps; an advertisement comes whole."""
    return driver_class(device).line.split()[0] != "ble"


def make_sim(device: str, seed: int = 1) -> Any:
    sim = import_module(f"bega_protocols.devices.{device}.sim").Sim
    return sim(with_profile(BOOKS[device]["sim"]["settings"]), seed, aes_block_cipher)


def sim_driver(device: str) -> Any:
    return load_driver(device, BOOKS[device]["sim"]["settings"])


def converse(driver: Any, sim: Any) -> list[list[Reading]]:
    """Carry each Ask of one measurement to the simulator and its answer back."""
    measurement = driver.measure(NOW_MS)
    try:
        ask = next(measurement)
        while True:
            ask = measurement.send(sim.answer(ask.write))
    except StopIteration as stop:
        return stop.value


def listen(driver: Any, sim: Any) -> list[list[Reading]]:
    """Let the device speak for a minute."""
    return hear(driver, [sim.tick(NOW_MS + ms) for ms in range(0, MINUTE_MS, 250)])


def exchange(driver: Any, sim: Any) -> list[list[Reading]]:
    return converse(driver, sim) if must_be_asked(driver) else listen(driver, sim)


@each_vector
def test_frame_reads_as_its_source_says(device, vector):
    driver = load_driver(device, vector.get("settings", {}))
    assert hear(driver, chunks_of(vector)) == groups_of(vector)
    assert not driver.damaged


@each_vector
def test_vector_says_where_it_comes_from(device, vector):
    assert vector.get("made") is True or len(vector.get("source", "")) > 10


@each_vector
@given(data=st.data())
def test_any_chunking_gives_the_same_readings(device, vector, data):
    if not is_stream(device):
        return
    whole = b"".join(chunks_of(vector))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert hear(load_driver(device, vector.get("settings", {})), pieces) == groups_of(vector)


@each_vector
@given(noise=st.binary(max_size=60))
def test_noise_before_a_frame_loses_at_most_that_frame(device, vector, noise):
    """The frame comes twice behind the noise: whatever the noise pretends to be, the second one is heard."""
    driver = load_driver(device, vector.get("settings", {}))
    groups = groups_of(vector)
    heard = hear(driver, [noise, *chunks_of(vector), *chunks_of(vector), *chunks_of(vector)])
    assert [group for group in heard if group in groups][-len(groups) :] == groups


@each_vector
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
    driver = sim_driver(device)
    for chunk in noise:
        for group in driver.feed(chunk, NOW_MS):
            assert all(reading.quantity in QUANTITIES for reading in group)


@each_device
def test_driver_talks_to_its_simulator(device):
    driver, sim = sim_driver(device), make_sim(device)
    for quantity, part, value in BOOKS[device]["sim"]["set"]:
        sim.set(quantity, part, Decimal(value))
    groups = exchange(driver, sim)
    assert groups, "no readings"
    assert not driver.damaged
    last = {(reading.quantity, reading.part): reading for group in groups for reading in group}
    for quantity, part, value in BOOKS[device]["sim"]["set"]:
        reading = last[quantity, part]
        assert Decimal(reading.value).scaleb(reading.exp10) == Decimal(value), (quantity, part)


@each_device
def test_silent_device_gives_no_readings(device):
    driver, sim = sim_driver(device), make_sim(device)
    sim.faults.add("silent")
    assert not [reading for group in exchange(driver, sim) for reading in group]


@each_device
def test_readme_names_every_quantity(device):
    readme = (FOLDER / device / "README.md").read_text()
    spoken = {row[0] for vector in BOOKS[device]["vectors"] for group in groups_of(vector) for row in group}
    spoken |= {reading.quantity for group in exchange(sim_driver(device), make_sim(device)) for reading in group}
    assert not [quantity for quantity in sorted(spoken) if f"`{quantity}`" not in readme]


@each_device
def test_driver_names_its_line(device):
    assert driver_class(device).line.split()[0] in KINDS_OF_WIRE


@each_device
def test_unknown_setting_is_refused(device):
    with pytest.raises(ConfigError, match="adress"):
        load_driver(device, {**BOOKS[device]["sim"]["settings"], "adress": 1})


@each_device
def test_device_keeps_its_contract_on_micropython(device, tmp_path):
    if not MICROPYTHON.exists():
        pytest.skip("no MicroPython for this machine: its wheel is for x86-64 Linux")
    cases = [
        {
            "name": vector["name"],
            "settings": with_profile(vector.get("settings", {})),
            "chunks": [chunk.hex() for chunk in chunks_of(vector)],
            "groups": [[list(reading) for reading in group] for group in groups_of(vector)],
        }
        for vector in BOOKS[device]["vectors"]
    ]
    book = tmp_path / "cases.json"
    book.write_text(json.dumps({"device": device, "stream": is_stream(device), "cases": cases}))
    script = Path(__file__).parent / "micropython" / "device_contract.py"
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=120wk", script, book],
        env={"MICROPYPATH": f"{FOLDER.parent.parent}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert f"{len(cases)} vectors hold" in outcome.stdout
