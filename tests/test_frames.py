"""Frames cut from a stream that begins, breaks and lies anywhere: one length-prefixed protocol made up for it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_protocols.errors import ChecksumError, WireError
from bega_protocols.frames import Frames

HEAD = b"\xab\xba\xab"  # its own beginning is its end too: a head may hide in a head
PAYLOADS = st.lists(st.binary(max_size=20) | st.sampled_from([HEAD, HEAD[:2], HEAD + b"\x00"]), max_size=6)


def frame(payload: bytes) -> bytes:
    return HEAD + bytes([len(payload)]) + payload + bytes([sum(payload) & 0xFF ^ 0x5A])


def size_of(so_far: bytes) -> int | None:
    """Length of the frame; more than 20 bytes of payload are none of ours."""
    if len(so_far) <= len(HEAD):
        return None
    return 0 if so_far[len(HEAD)] > 20 else len(HEAD) + 2 + so_far[len(HEAD)]


def decode(whole: bytes) -> bytes:
    payload = whole[len(HEAD) + 1 : -1]
    if whole != frame(payload):
        raise ChecksumError("differs", whole)
    return payload


def cut(stream: bytes, *at: int) -> list[bytes]:
    edges = [0, *sorted(at), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def hear(chunks: list[bytes]) -> tuple[list[bytes], list[tuple[int, WireError]]]:
    frames, damaged, heard = Frames(HEAD, size_of), [], []
    for chunk in chunks:
        heard += frames.feed(chunk, decode, damaged)
    return heard, damaged


@given(PAYLOADS, st.lists(st.integers(0, 200), max_size=6))
def test_frames_come_out_in_any_chunking(payloads, at):
    assert hear(cut(b"".join(map(frame, payloads)), *at)) == (payloads, [])


@given(st.binary(max_size=60) | st.lists(st.sampled_from(HEAD)).map(bytes), st.lists(st.integers(0, 100), max_size=4))
def test_noise_costs_no_frame_behind_the_next(noise, at):
    """What the noise pretends may swallow what follows for a while, and gives it back once it was found out."""
    payloads = [b"first", b"second", b"third", b"fourth", b"fifth"]
    heard, _ = hear(cut(noise + b"".join(map(frame, payloads)), *at))
    assert heard[-5:] == payloads


@given(PAYLOADS, PAYLOADS, st.binary(min_size=1, max_size=20), st.data())
def test_one_wrong_byte_loses_its_own_frame_alone(before, after, payload, data):
    hurt = bytearray(frame(payload))
    at = data.draw(st.integers(len(HEAD) + 1, len(hurt) - 1))
    hurt[at] ^= data.draw(st.integers(1, 255))
    stream = b"".join(map(frame, before)) + bytes(hurt) + b"".join(map(frame, after))
    heard, damaged = hear([stream])
    assert heard[: len(before)] == before
    assert heard[len(heard) - len(after) :] == after
    assert damaged[0][0] == sum(len(frame(one)) for one in before)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_chunking_changes_neither_frames_nor_damage(stream, at):
    whole, in_pieces = hear([stream]), hear(cut(stream, *at))
    assert whole[0] == in_pieces[0]
    assert [(offset, str(error)) for offset, error in whole[1]] == [
        (offset, str(error)) for offset, error in in_pieces[1]
    ]


def test_frame_cut_short_does_not_take_the_next_with_it():
    heard, damaged = hear([frame(b"a long payload")[:9], frame(b"next"), frame(b"and on"), frame(b"and on and on")])
    assert heard == [b"next", b"and on", b"and on and on"]
    assert [offset for offset, _ in damaged] == [0]


def test_impossible_length_is_damage_of_one_byte():
    heard, damaged = hear([HEAD + b"\xff" + frame(b"true")])
    assert heard == [b"true"]
    assert [(offset, error.why) for offset, error in damaged] == [(0, "impossible length")]


def test_offset_counts_from_the_start_of_the_stream():
    hurt = frame(b"x")[:-1] + b"\x00"
    stream = b"noise" + frame(b"one") + b"more noise" + hurt + frame(b"two") + hurt + b"....."
    first = stream.index(hurt)
    for size in (1, 2, 5, 100):
        heard, damaged = hear([stream[at : at + size] for at in range(0, len(stream), size)])
        assert heard == [b"one", b"two"]
        assert [offset for offset, _ in damaged] == [first, stream.index(hurt, first + 1)]


@pytest.mark.parametrize("flood", [b"x", HEAD, HEAD[:2], HEAD + b"\x14", HEAD + b"\xff"])
def test_what_is_kept_does_not_grow(flood):
    frames, damaged = Frames(HEAD, size_of), []
    for _ in range(200):
        frames.feed(flood * 50, decode, damaged)
        damaged.clear()
        assert len(frames._waiting) <= len(HEAD) + 2 + 20


def test_work_grows_with_the_chunk_and_not_with_its_square():
    """Each look at what is left of a chunk copies it: a whole capture in one chunk must not be looked at whole."""
    longest = 0

    def watched(so_far: bytes) -> int | None:
        nonlocal longest
        longest = max(longest, len(so_far))
        return size_of(so_far)

    heard = Frames(HEAD, watched).feed(frame(b"payload") * 10_000, decode, [])
    assert heard == [b"payload"] * 10_000
    assert longest < 4096
