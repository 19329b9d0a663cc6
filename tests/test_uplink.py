"""Our serial link, without a wire: stuffing, frames, messages, seals, and both ends of a session over a bad line."""

import contextlib
import hashlib
import hmac
import json
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bega_gateway.lines.uplink_session import GIVE_UP_AFTER, Session
from bega_protocols import cobs, uplink
from bega_protocols.checks import crc32
from bega_protocols.errors import ChecksumError, WireError
from bega_protocols.uplink_node import NodeEnd

ROOT = Path(__file__).parent.parent
MICROPYTHON = Path(sys.executable).with_name("micropython")
KEY = bytes(range(32))
RUN = bytes(range(1, 255))

# (plain, stuffed): the paper's figure 2, its longest run, and what lies beside it.
COBS = [
    (b"", b"\x01"),
    (b"\x00", b"\x01\x01"),
    (b"\x00\x00", b"\x01\x01\x01"),
    (b"\x11\x22\x00\x33", b"\x03\x11\x22\x02\x33"),
    (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
    (b"\x11\x00\x00\x00", b"\x02\x11\x01\x01\x01"),
    (RUN, b"\xff" + RUN),
    (b"\x00" + RUN, b"\x01\xff" + RUN),
    (RUN + b"\xff", b"\xff" + RUN + b"\x02\xff"),
    (RUN + b"\x00", b"\xff" + RUN + b"\x01\x01"),
    (RUN[1:] + b"\xff\x00", b"\xff" + RUN[1:] + b"\xff\x01\x01"),
    (RUN[2:] + b"\xff\x00\x01", b"\xfe" + RUN[2:] + b"\xff\x02\x01"),
]


# ------------------------------------------------------------------ stuffing


@pytest.mark.parametrize(("plain", "stuffed"), COBS)
def test_stuffing_is_the_papers(plain, stuffed):
    assert cobs.encode(plain) == stuffed
    assert cobs.decode(stuffed) == plain


@given(st.binary(max_size=1200) | st.builds(bytes, st.lists(st.sampled_from([0, 1, 255]), max_size=1200)))
def test_whatever_is_stuffed_has_no_zero_and_comes_out_again(plain):
    stuffed = cobs.encode(plain)
    assert 0 not in stuffed
    assert len(stuffed) <= len(plain) + 1 + len(plain) // 254
    assert cobs.decode(stuffed) == plain


@given(st.binary(max_size=300))
def test_what_is_no_stuffing_is_refused_or_a_text_of_no_more_octets(stuffed):
    with contextlib.suppress(WireError):
        assert len(cobs.decode(stuffed)) < len(stuffed)


# ------------------------------------------------------------------ frames


def block_of(frame: bytes) -> bytes:
    assert frame[0] == frame[-1] == 0 and 0 not in frame[1:-1]
    return frame[1:-1]


KINDS = st.sampled_from([uplink.HELLO, uplink.WELCOME, uplink.POLL, uplink.ANSWER, uplink.MORE])


@given(kind=KINDS, rest=st.binary(max_size=241), key=st.sampled_from([b"", KEY]))
def test_frame_comes_out_as_it_went_in(kind, rest, key):
    frame = uplink.decode(block_of(uplink.encode(kind, rest, key, b"context")))
    assert (frame.kind, frame.body[1:]) == (kind, rest)
    assert uplink.is_sealed(frame, key, b"context")
    assert not uplink.is_sealed(frame, KEY if not key else b"", b"context")
    if key:
        assert not uplink.is_sealed(frame, KEY, b"another") and not uplink.is_sealed(frame, KEY[::-1], b"context")


@given(rest=st.binary(min_size=1, max_size=200), data=st.data())
def test_a_damaged_frame_is_damage(rest, data):
    block = bytearray(block_of(uplink.encode(uplink.POLL, rest)))
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WireError):
        uplink.decode(bytes(block))
    with pytest.raises(WireError):
        uplink.decode(bytes(block[:at]))


def test_a_frame_of_another_version_or_kind_is_refused():
    for first in (0x23, 0x03, 0x10, 0x17):
        data = bytes((first,)) + b"abcdefgh"
        with pytest.raises(WireError) as refused:
            uplink.decode(cobs.encode(data + crc32(data).to_bytes(4, "big")))
        assert not isinstance(refused.value, ChecksumError)


@given(noise=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2200), max_size=20), rest=st.binary(max_size=200))
def test_a_frame_behind_any_noise_is_found_in_any_chunking(noise, cuts, rest):
    frame = uplink.encode(uplink.POLL, rest)
    stream = noise + frame
    blocks, found, before = uplink.Blocks(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        found += blocks.feed(stream[before:cut])
        before = max(before, min(cut, len(stream)))
    assert found[-1] == block_of(frame)
    assert all(0 < len(block) <= uplink.LONGEST_BLOCK for block in found)
    assert blocks.is_between


def test_a_node_that_babbles_costs_no_memory():
    blocks = uplink.Blocks()
    for _ in range(1000):
        assert blocks.feed(b"\x55" * 4096) == []
    assert len(blocks._waiting) <= uplink.LONGEST_BLOCK
    assert not blocks.is_between
    with pytest.raises(WireError):
        uplink.decode(blocks.feed(b"\0")[0])


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=600)), max_size=8), st.integers(1, 300))
def test_messages_are_joined_of_any_pieces(said, size):
    stream = b"".join(uplink.message(*each) for each in said)
    messages, heard = uplink.Messages(), []
    for at in range(0, len(stream), size):
        heard += messages.feed(stream[at : at + size])
    assert heard == said


def test_a_message_that_is_larger_than_any_is_refused_at_its_first_octets():
    with pytest.raises(WireError):
        uplink.Messages().feed(b"\xff\xff\x01")


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=50))
def test_acknowledgements_come_out_as_they_went_in(pairs):
    assert uplink.read_acknowledgement(uplink.acknowledgement(pairs)) == pairs


def test_half_an_acknowledgement_frees_nothing():
    with pytest.raises(WireError):
        uplink.read_acknowledgement(bytes(7))


# RFC 4231, test cases 1 to 3.
HMAC = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
]


@pytest.mark.parametrize(("key", "text", "digest"), HMAC)
def test_seal_is_the_rfcs(key, text, digest):
    assert uplink.hmac_sha256(key, text).hex() == digest


@given(st.binary(max_size=64), st.binary(max_size=300))
def test_seal_is_the_librarys(key, text):
    assert uplink.hmac_sha256(key, text) == hmac.new(key, text, hashlib.sha256).digest()


# ------------------------------------------------------------------ both ends


class Chance:
    """Random octets that a test can have again."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, count: int) -> bytes:
        return self._random.randbytes(count)


def always(chip: str) -> bool:
    return True


class Node:
    """A node's end, and what it heard."""

    def __init__(self, name: str = "air-1", key: bytes = b"", seed: int = 1, chip: str = "a1") -> None:
        self.heard: list[tuple[int, bytes]] = []
        self.begun = 0
        self.end = NodeEnd(name, chip, key, Chance(seed), lambda *message: self.heard.append(message), self._begin)

    def _begin(self) -> None:
        self.begun += 1


def turn(session: Session, *nodes: Node, may_begin=always) -> list[tuple[int, bytes]] | None:
    """One question to the bus, and what comes of the answers; None if there is none."""
    question = session.ask()
    answers = b"".join(node.end.hear(question) for node in nodes)
    heard = None
    for block in uplink.Blocks().feed(answers):
        heard = session.hear(block, may_begin) if heard is None else heard
    if heard is None:
        session.unanswered()
    return heard


@pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])
def test_what_one_end_says_the_other_hears(key):
    node, session = Node(key=key), Session("air-1", key, Chance(2))
    assert turn(session, node) == [] and session.is_open and session.chip == "a1"
    node.end.say(uplink.STATUS, b"{}")
    assert turn(session, node) == [] and node.begun == 1, "what is said before the session began belongs to none"
    node.end.say(uplink.STATUS, b"s" * 700)
    node.end.say(uplink.RESULT, b"r")
    session.say(uplink.COMMAND, b"c" * 500)
    session.say(uplink.ACK, bytes(8))
    heard = []
    for _ in range(3):
        heard += turn(session, node)
    assert heard == [(uplink.STATUS, b"s" * 700), (uplink.RESULT, b"r")]
    assert node.heard == [(uplink.COMMAND, b"c" * 500), (uplink.ACK, bytes(8))]
    assert not session.has_something


def test_node_speaks_only_when_it_is_asked():
    node = Node()
    node.end.say(uplink.STATUS, b"s")
    session = Session("air-1", b"", Chance(2))
    other = Session("air-2", b"", Chance(3))
    assert node.end.hear(other.ask()) == b""
    assert node.end.hear(b"\0\0noise\0") == b""
    question = session.ask()
    assert node.end.hear(question + other.ask()) == b"", "somebody else was asked meanwhile"
    assert node.end.hear(question + b"\x05") == b"", "somebody speaks"
    assert node.end.hear(b"\0") == b""
    assert node.end.hear(question) != b""


def test_a_question_asked_again_is_answered_again_with_the_same():
    node, session = Node(key=KEY), Session("air-1", KEY, Chance(2))
    turn(session, node), turn(session, node)
    node.end.say(uplink.STATUS, b"once")
    session.say(uplink.TIME, bytes(8))
    question = session.ask()
    first = node.end.hear(question)
    session.unanswered()
    assert session.ask() == question
    assert node.end.hear(question) == first
    assert session.hear(block_of(first), always) == [(uplink.STATUS, b"once")]
    assert session.hear(block_of(first), always) is None, "late, and had"
    assert node.heard == [(uplink.TIME, bytes(8))]


def test_an_old_question_is_not_taken_for_a_new_one():
    node, session = Node(), Session("air-1", b"", Chance(2))
    turn(session, node)
    session.say(uplink.COMMAND, b"once")
    old = session.ask()
    turn(session, node), turn(session, node)
    assert node.end.hear(old) == b"" and node.heard == [(uplink.COMMAND, b"once")]


def test_a_node_that_lost_its_session_gets_a_new_one():
    session = Session("air-1", b"", Chance(2))
    node = Node()
    turn(session, node), turn(session, node)
    node = Node(seed=5)  # its power was cut
    for _ in range(GIVE_UP_AFTER):
        assert turn(session, node) is None
    assert turn(session, node) == [] and turn(session, node) == []
    assert node.begun == 1 and session.sessions == 2


def test_a_gateway_that_lost_its_session_begins_a_new_one():
    node = Node()
    for seed in (2, 3):
        session = Session("air-1", b"", Chance(seed))
        assert turn(session, node) == [] and turn(session, node) == []
    assert node.begun == 2


def test_a_stray_hello_ends_no_session():
    node, session = Node(), Session("air-1", b"", Chance(2))
    turn(session, node), turn(session, node)
    node.end.hear(Session("air-1", b"", Chance(3)).ask())
    node.end.say(uplink.STATUS, b"s")
    assert turn(session, node) == [(uplink.STATUS, b"s")] and node.begun == 1


@pytest.mark.parametrize(("theirs", "ours"), [(KEY, b""), (b"", KEY), (KEY, KEY[::-1])])
def test_ends_with_different_keys_never_meet(theirs, ours):
    node, session = Node(key=theirs), Session("air-1", ours, Chance(2))
    for _ in range(10):
        assert turn(session, node) is None
    assert node.end.refused == 10 and not session.is_open


def test_a_seal_of_another_exchange_is_refused():
    """What a tapper recorded is worth nothing, though a frame tells only the last eight bits of the count."""
    node, session = Node(key=KEY), Session("air-1", KEY, Chance(2))
    turn(session, node)
    session.say(uplink.TIME, b"old time")
    recorded = session.ask()
    turn(session, node)
    for _ in range(255):
        assert turn(session, node) == []
    assert node.end.hear(recorded) == b"" and node.end.refused == 1
    assert turn(session, node) == [] and node.heard == [(uplink.TIME, b"old time")]


def test_of_two_boards_with_one_name_the_first_is_served():
    """Both answer a HELLO; where one is louder the session is its, and the other keeps silent in it."""
    first, second = Node(seed=1, chip="a1"), Node(seed=9, chip="b2")
    session = Session("air-1", b"", Chance(2))
    assert turn(session, first, second, may_begin=lambda chip: chip == "a1") == []
    first.end.say(uplink.STATUS, b"lost, the session begins now")
    second.end.say(uplink.STATUS, b"of the other")
    assert turn(session, first, second) == []
    first.end.say(uplink.STATUS, b"of the first")
    assert turn(session, first, second) == [(uplink.STATUS, b"of the first")]
    assert second.begun == 0


@pytest.mark.parametrize("noise", [b"", b"\0", b"\x11\x22", bytes(300)])
@given(garbage=st.binary(max_size=600))
@example(garbage=block_of(uplink.encode(uplink.ANSWER, b"abcd\1")))
@settings(max_examples=50)
def test_garbage_on_either_side_ends_nothing(noise, garbage):
    node, session = Node(), Session("air-1", b"", Chance(2))
    turn(session, node), turn(session, node)
    node.end.hear(noise + garbage + b"\0")
    for block in uplink.Blocks().feed(garbage + b"\0"):
        session.hear(block, always)
    node.end.say(uplink.STATUS, b"s")
    assert turn(session, node) == [(uplink.STATUS, b"s")]


FAULTS = ["question lost", "answer lost", "spoiled", "cut", "late", "old question first", "old answer first"]


FIRST_OCTETS = st.builds(lambda kind, sealed: 0x10 | kind | 8 * sealed, st.integers(0, 7), st.booleans())


@given(st.lists(st.tuples(FIRST_OCTETS, st.binary(max_size=60), st.booleans()), max_size=12))
def test_frames_that_are_sound_and_say_nonsense_end_nothing(lies):
    """Of both ends: short ones, unknown kinds, and some in this very session."""
    node, session = Node(), Session("air-1", b"", Chance(2))
    turn(session, node), turn(session, node)
    for first, rest, is_ours in lies:
        data = bytes((first,)) + (session.ask()[3:7] if is_ours else b"") + rest
        lie = cobs.encode(data + crc32(data).to_bytes(4, "big"))
        node.end.hear(b"\0" + lie + b"\0")
        session.hear(lie, always)
    for _ in range(GIVE_UP_AFTER + 3):
        turn(session, node)
    node.end.say(uplink.STATUS, b"s")
    assert (uplink.STATUS, b"s") in [each for _ in range(3) for each in turn(session, node) or ()]


class BadLine(RuleBasedStateMachine):
    """Two ends, and a line that loses, cuts, spoils, delays and repeats.

    What is said in a session arrives in order, once, and without a gap.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed = 0
        self.key = b""
        self.heard: list[tuple[tuple[int, int], int]] = []  # (session, number of what was said)
        self.heard_by_node: list[int] = []
        self.taken = 0
        self.said: list[int] = []  # by the node
        self.gateways = 0
        self.count = 0
        self.restart_node()
        self.restart_gateway()
        self.old: list[bytes] = []  # answers
        self.questions: list[bytes] = []

    @initialize(key=st.sampled_from([b"", KEY]))
    def has_key(self, key):
        self.key = key
        self.restart_node()
        self.restart_gateway()

    @rule(how=st.sampled_from(["not"] * 5 + ["node", "gateway"]))
    def something_restarts(self, how):
        if how == "node":
            self.restart_node()
        elif how == "gateway":
            self.restart_gateway()

    def restart_node(self):
        self.seed += 1
        self.taken = 0
        self.node = Node(key=self.key, seed=self.seed)

    def restart_gateway(self):
        self.seed += 1
        self.gateways += 1
        self.session = Session("air-1", self.key, Chance(self.seed))

    @rule(size=st.integers(0, 700))
    def say(self, size):
        self.count += 1
        self.said.append(self.count)
        self.node.end.say(uplink.STATUS, b"%d:" % self.count + b"x" * size)

    @rule(count=st.integers(2, 6))
    def all_is_well(self, count):
        for _ in range(count):
            self.say(9)
            self.exchange("none", 0)

    @rule(size=st.integers(0, 300))
    def gateway_says(self, size):
        self.count += 1
        self.session.say(uplink.COMMAND, b"%d:" % self.count + b"x" * size)

    @rule(
        fault=st.sampled_from(
            ["none"] * 6
            + ["question lost", "answer lost", "spoiled", "cut", "late", "old question first", "old answer first"]
        ),
        at=st.integers(0, 300),
    )
    def exchange(self, fault, at):
        question = self.session.ask()
        if fault == "old question first" and self.questions:
            self.node.end.hear(self.questions[at % len(self.questions)])
        self.questions.append(question)
        answer = b"" if fault == "question lost" else self.node.end.hear(question)
        if answer:
            self.old.append(answer)
        if fault == "old answer first" and self.old:
            answer = self.old[at % len(self.old)] + answer
        if fault == "spoiled" and answer:
            at %= len(answer)
            answer = answer[:at] + bytes((answer[at] ^ 0x10,)) + answer[at + 1 :]
        if fault in ("answer lost", "late"):
            answer = b""
        if fault == "cut":
            answer = answer[: at % (len(answer) + 1)]
        self.hear(answer)

    @rule(at=st.integers(0, 300))
    def an_old_answer_comes(self, at):
        if self.old:
            self.hear(self.old[at % len(self.old)])

    def hear(self, answer):
        heard = None
        for block in uplink.Blocks().feed(answer):
            heard = self.session.hear(block, always) if heard is None else heard
        if heard is None:
            self.session.unanswered()
            return
        sessions = self.gateways, self.session.sessions
        self.heard += [(sessions, int(payload.partition(b":")[0])) for _, payload in heard]

    @invariant()
    def what_is_heard_is_in_order_and_once(self):
        for payload in (payload for _, payload in self.node.heard[self.taken :]):
            self.heard_by_node.append(int(payload.partition(b":")[0]))
        self.taken = len(self.node.heard)
        assert self.heard_by_node == sorted(set(self.heard_by_node))
        for (session, number), (next_session, next_number) in pairwise(self.heard):
            between = self.said[self.said.index(number) : self.said.index(next_number) + 1]
            assert len(between) == 2 if session == next_session else len(between) >= 2

    def teardown(self):
        for _ in range(2 * GIVE_UP_AFTER):
            self.exchange("none", 0)
        assert self.session.is_open
        self.say(5)
        before = len(self.heard)
        for _ in range(200):
            self.exchange("none", 0)
            if len(self.heard) > before and self.heard[-1][1] == self.count:
                return
        raise AssertionError("the line does not recover")


TestBadLine = BadLine.TestCase
TestBadLine.settings = settings(stateful_step_count=40)


# ------------------------------------------------------------------ MicroPython


@pytest.mark.skipif(
    not MICROPYTHON.exists() and "BEGA_MICROPYTHON" not in os.environ,
    reason="no MicroPython for this machine: its wheel is for x86-64 Linux",
)
def test_micropython_says_the_same_to_the_octet(tmp_path):
    """One conversation, recorded here: the node's end there gives each answer as it does here."""
    exchanges = []
    for key in (b"", KEY):
        node, session = Node(key=key, seed=7), Session("air-1", key, Chance(2))
        for count in range(300):
            if count % 3 == 0:
                node.end.say(uplink.STATUS, bytes(range(256)) * (count % 5))
                session.say(uplink.COMMAND, b"c" * (count % 400))
            question = session.ask()
            answer = node.end.hear(question)
            says = (bytes(range(256)) * (count % 5)).hex() if count % 3 == 0 else None
            exchanges.append([key.hex(), count, says, question.hex(), answer.hex()])
            for block in uplink.Blocks().feed(answer):
                session.hear(block, always)
    cases = tmp_path / "cases.json"
    chance = Chance(7)(8).hex()
    hmacs = [[key.hex(), text.hex(), digest] for key, text, digest in HMAC]
    stuffed = [[plain.hex(), text.hex()] for plain, text in COBS]
    cases.write_text(json.dumps({"chance": chance, "hmac": hmacs, "cobs": stuffed, "exchanges": exchanges}))
    outcome = subprocess.run(
        [
            os.environ.get("BEGA_MICROPYTHON", MICROPYTHON),
            *("-X", "heapsize=1500k", ROOT / "tests/micropython/uplink_node.py", cases),
        ],
        env={"MICROPYPATH": f"{ROOT}/protocols:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stdout.strip() == f"{len(exchanges)} exchanges"
