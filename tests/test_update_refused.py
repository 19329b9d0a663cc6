"""Twelve bad updates and more: each is refused on the node, with a reason of its own, and nothing of it is left."""

import contextlib
import json
import subprocess
import time
import zlib
from base64 import b64encode
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols import slots
from bega_protocols.archive import Archive
from bega_protocols.errors import WireError
from bega_protocols.update import read_facts, read_manifest, version_of
from tests.node_update_park import Bundle
from tests.test_node_gates import MICROPYTHON, ROOT, SCRIPTS
from tests.test_update_powercut import small_slot

OLD, NEW = "1.2.0", "1.2.3"


def case(bundle: Bundle, **more: Any) -> dict[str, Any]:
    told = {
        "files": {path: b64encode(content).decode() for path, content in small_slot(OLD).items()},
        "payload": b64encode(bundle.payload).decode(),
        "now_ms": time.time_ns() // 1_000_000,
        **bundle.asked(),
        **more,
    }
    return {key: value for key, value in told.items() if value is not None}


def spoiled(octets: bytes, at: int) -> str:
    return b64encode(octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]).decode()


def archive_of(*entries: tuple[str, bytes]) -> bytes:
    rows = [bytes([len(path)]) + path.encode() + len(data).to_bytes(4, "big") + data for path, data in entries]
    return b"".join(rows) + b"\0"


def bundle_of(archive: bytes, unpacked: int | None = None) -> Bundle:
    """Return a bundle that is signed, and whose payload is this archive whatever it is."""
    press = zlib.compressobj(9, zlib.DEFLATED, -10, 9)
    payload = press.compress(archive) + press.flush()
    facts = {"size": len(payload), "unpacked": unpacked or len(archive), "sha256": sha256(payload).hexdigest()}
    bundle = Bundle(small_slot(NEW), **facts)
    bundle.payload = payload
    return bundle


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, str]:
    good, other = Bundle(small_slot(NEW)), Bundle(small_slot("1.2.1"))
    bare = Bundle(small_slot(NEW))
    bare.signature = b""
    later = good.text.replace(NEW, "1.2.4")
    swapped = Bundle(small_slot("1.2.1"), version=NEW)
    cases = {
        "good": case(good),
        "bit flip": case(good, payload=None, signature=spoiled(good.signature, 200)) | {"payload": ""},
        "truncated": case(good, payload=b64encode(good.payload[:-9]).decode()),
        "signature cut off": case(good, signature=b64encode(good.signature[:-1]).decode()),
        "wrong key": case(Bundle(small_slot(NEW), key=1)),
        "older": case(Bundle(small_slot("1.1.9"))),
        "wrong hardware": case(Bundle(small_slot(NEW), hardware="esp32_c3")),
        "swapped image": case(swapped),
        "expired": case(Bundle(small_slot(NEW), expires=1795000000)),
        "replayed": case(good, failed=NEW),
        "replayed, and it runs": case(Bundle(small_slot(OLD))),
        "oversize": case(Bundle(small_slot(NEW), size=400_000)),
        "no room": case(Bundle(small_slot(NEW), unpacked=200_000)),
        "empty": case(Bundle(small_slot(NEW), size=0)),
        "wrong hash": case(good, payload=spoiled(good.payload, 300)),
        "payload of another": case(good, payload=b64encode(other.payload).decode()),
        "unsigned": case(bare),
        "changed after signing": case(good, manifest=later),
        "no signature at all": case(good, signature=None),
        "from a later one": case(Bundle(small_slot(NEW), **{"from": "1.2.1"})),
        "no driver": case(Bundle(small_slot(NEW), devices=["scd41"])),
        "no way": case(Bundle(small_slot(NEW), ways=["uplink"])),
        "other bytecode": case(Bundle(small_slot(NEW), mpy=7)),
        "no manifest": case(good, manifest="[" * 900),
        "path out of the slot": case(bundle_of(archive_of(("../config.json", b"{}")))),
        "absolute path": case(bundle_of(archive_of(("/main.py", b"x")))),
        "a bomb": case(bundle_of(archive_of(("app.mpy", bytes(60_000))), unpacked=2_000)),
        "no facts": case(bundle_of(archive_of(("app.mpy", b"x")))),
        "no key": case(Bundle(small_slot(NEW, without="keys"))),
        "no archive": case(bundle_of(b"\xff" * 40)),
        "signed block with room for a forger": case(good, signature=b64encode(bytes(383) + b"\1").decode()),
    }
    place = tmp_path_factory.mktemp("cases") / "cases.json"
    place.write_text(json.dumps(cases))
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=16m", SCRIPTS / "update_refused.py", place],
        env={"MICROPYPATH": f"{SCRIPTS / 'soak'}:{SCRIPTS}:{ROOT / 'protocols'}:{ROOT / 'firmware/node'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    told: dict[str, str] = json.loads(outcome.stdout.splitlines()[-1])
    return told


TWELVE = ("bit flip", "truncated", "wrong key", "older", "wrong hardware", "swapped image", "expired", "replayed",
          "oversize", "empty", "wrong hash", "unsigned")  # fmt: skip


@pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine: its wheel is for x86-64 Linux")
class TestOnTheNode:
    def test_a_good_one_is_taken(self, found):
        assert found.pop("good") == ""

    def test_each_of_the_twelve_has_a_reason_of_its_own(self, found):
        assert all(found[name] for name in TWELVE)
        assert len({found[name] for name in TWELVE}) == 12

    def test_every_other_lie_is_refused_too(self, found):
        assert [name for name, why in found.items() if not why and name != "good"] == []
        assert not [why for why in found.values() if "Traceback" in why or "left behind" in why]

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("bit flip", "its signature does not fit"),
            ("wrong hardware", "it is for the board esp32_c3, and this is esp32_devkitc"),
            ("older", "it is version 1.1.9, older than 1.2.0, which runs"),
            ("replayed", "version 1.2.3 failed here: only a higher one is tried"),
            ("wrong hash", "its files are not those that were signed: the hash differs"),
            ("swapped image", "its files are those of another: version 1.2.1 for the board esp32_devkitc"),
            ("path out of the slot", "a path in it leads nowhere in its slot"),
        ],
    )
    def test_reason_is_said_in_words(self, found, name, why):
        assert found[name] == why


def put_aside(bundle: Bundle, **more: Any) -> str:
    told = {"id": "u-1", "expires": 1, "now_ms": time.time_ns() // 1_000_000, **bundle.asked()}
    needs = {"devices": [{"driver": "sht4x"}], "way": "broker", "worked": ["sht"]}
    return json.dumps(told | needs | more)


@pytest.fixture(scope="module")
def aside(tmp_path_factory) -> dict[str, tuple[dict[str, Any], bool]]:
    good = Bundle(small_slot(NEW))
    slot = {path: b64encode(content).decode() for path, content in small_slot(OLD).items()}
    nowhere = Bundle(small_slot(NEW), ways=[])
    nowhere.signature = b""
    cases = {
        "good": put_aside(good),
        "no way, and nobody signed it": put_aside(nowhere),
        "other devices": put_aside(good, devices=[{"driver": "scd41"}]),
        "another way": put_aside(good, way="uplink"),
        "rotten": "[1]",
        "cut": put_aside(good)[:40],
        "no text": put_aside(good, manifest=7),
    }
    place = tmp_path_factory.mktemp("cases") / "cases.json"
    place.write_text(json.dumps({name: {"files": slot, "asked": asked} for name, asked in cases.items()}))
    outcome = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=16m", SCRIPTS / "update_asked.py", place],
        env={"MICROPYPATH": f"{SCRIPTS / 'soak'}:{SCRIPTS}:{ROOT / 'protocols'}:{ROOT / 'firmware/node'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert outcome.returncode == 0, outcome.stdout[-2000:] + outcome.stderr[-2000:]
    told: dict[str, tuple[dict[str, Any], bool]] = json.loads(outcome.stdout.splitlines()[-1])
    return told


@pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine: its wheel is for x86-64 Linux")
class TestAtAStart:
    """A node with little memory looks at an offer before its application starts."""

    def test_none_ends_a_start_or_comes_again_at_the_next_one(self, aside):
        """Whoever can publish in the gateway's name could otherwise have a node restart for ever."""
        assert {name: note["state"] for name, (note, _) in aside.items()} == {
            name: "loading" if name == "good" else "refused" for name in aside
        }
        assert all(is_gone for _, is_gone in aside.values())

    def test_what_worked_when_it_was_offered_is_known_after_the_restart(self, aside):
        """It may have come before a sensor is warm: a version by which that is dead must not be confirmed."""
        assert aside["good"][0]["worked"] == ["sht"]

    def test_a_refusal_says_of_which_version_and_drivers_and_way_are_compared(self, aside):
        assert aside["other devices"][0] == {
            "version": NEW,
            "state": "refused",
            "why": "it has no driver scd41, and this node needs it",
        }
        assert aside["another way"][0]["why"] == "it has no way uplink, and this node needs it"
        assert aside["no way, and nobody signed it"][0]["why"] == "it is not signed"


@given(text=st.binary(max_size=300))
def test_any_manifest_is_read_or_refused(text):
    for read in (read_manifest, read_facts):
        with contextlib.suppress(WireError):
            read(text)


@given(text=st.text(max_size=14))
def test_a_version_is_three_numbers_and_nothing_else(text):
    with contextlib.suppress(WireError):
        assert "%d.%d.%d" % version_of(text) == text


@given(archive=st.binary(max_size=200), unpacked=st.integers(0, 220))
def test_any_archive_is_read_to_its_end_or_refused(archive, unpacked):
    left = [archive]

    def read(most: int) -> bytes:
        octets, left[0] = left[0][:most], left[0][most:]
        return octets

    reader = Archive(read, unpacked)
    try:
        while (path := reader.next()) is not None:
            assert path[0] != "/" and ".." not in path.split("/")
    except WireError:
        return
    assert unpacked == len(archive)


VERSIONS = st.sampled_from(("-", OLD, NEW))
STATES = st.builds(slots.State, st.sampled_from("ab"), st.sampled_from("-012"), VERSIONS, VERSIONS)


@given(state=STATES)
def test_state_is_read_as_it_was_written_and_not_if_it_rots(state):
    octets = slots.written(state)
    assert slots.read(octets) == state
    for bit in range(8 * len(octets)):
        rotten = bytearray(octets)
        rotten[bit // 8] ^= 1 << bit % 8
        assert slots.read(bytes(rotten)) in (None, state)  # the CRC's own letters may change their case


@pytest.mark.skipif(not MICROPYTHON.exists(), reason="no MicroPython for this machine: its wheel is for x86-64 Linux")
def test_what_no_update_changes_counts_starts_by_the_same_rule():
    """pick.py imports nothing of ours, so that it says the rule a second time."""
    states = [
        slots.State(slot, left, version, failed)
        for slot in "ab"
        for left, version in (("-", "-"), ("0", NEW), ("1", NEW), ("2", NEW))
        for failed in ("-", OLD)
    ]
    script = f"""
import machine, pick
pick._write = lambda state: None
found = []
for cause in (machine.PWRON_RESET, machine.HARD_RESET, machine.WDT_RESET, machine.SOFT_RESET):
    machine.reset_cause = lambda: cause
    found.append([pick._count(list(state)) for state in {[list(state) for state in states]}])
print(found)
"""
    outcome = subprocess.run(
        [MICROPYTHON, "-c", script],
        env={"MICROPYPATH": f"{SCRIPTS / 'soak'}:{ROOT / 'firmware/node'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    expected = [[list(slots.started(state, is_fault)) for state in states] for is_fault in (False, True, True, False)]
    assert outcome.stdout.strip() == str(expected)
