"""Notices: the city's signature alone is believed; the later word is true; half a file is half of the notices."""

import json
import stat
from base64 import b64encode

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st

from bega_kiosk.notice_list import MOST_LISTED, read_list, write_list
from bega_kiosk.notices import LAST_MS, MOST_NOTICES, NOTICE, Board, Notice, read_notice, write_notice
from bega_kiosk.signed import new_key, opened, read_private_key, read_public_keys, sign
from bega_protocols.errors import ConfigError, WireError
from tests.kiosk_notices import CITY, HOUR_MS, KEY, KEYS, STRANGER, listed
from tests.kiosk_notices import publish as publish_at

NOW_MS = 1_795_000_000_000


def notice(**more):
    said = {"id": "water-1", "city": CITY, "published_ms": NOW_MS, "effect": "water_stop"}
    said |= {"streets": ["Strada George Ardelean"], "from_ms": NOW_MS, "until_ms": NOW_MS + 8 * HOUR_MS}
    return Notice(**said | more)


def signed(key=KEY, **more):
    return write_notice(key, notice(**more))


def board(path=None):
    return Board(path, KEYS, CITY, lambda: NOW_MS)


def given(*messages, number=None):
    return listed(messages, NOW_MS, number)


def publish(known, message):
    return publish_at(known, message, NOW_MS)


def test_signature_is_that_of_the_rfc():
    """RFC 8032, 7.1, test 2; ours has the kind and a line feed before the body."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    wanted = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    key = Ed25519PrivateKey.from_private_bytes(secret)
    assert key.sign(b"\x72").hex() == wanted
    assert sign(key, "kind", b"body") == key.sign(b"kind\nbody") + b"body"


@given_any(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=200)
def test_no_bit_of_a_notice_can_change(at, bit):
    message = bytearray(signed())
    message[at % len(message)] ^= 1 << bit
    with pytest.raises(WireError, match="no signature of the city"):
        read_notice(KEYS, CITY, bytes(message))


@given_any(noise=st.binary(max_size=300), cut=st.integers(0, 400))
def test_noise_and_halves_are_refused(noise, cut):
    whole = signed()
    for message in (noise, whole[: cut % len(whole)], whole + b" ", noise[:64].ljust(64) + whole[64:]):
        with pytest.raises(WireError):
            read_notice(KEYS, CITY, message)


def test_what_is_signed_as_something_else_is_no_notice():
    body = msgspec.json.encode(notice())
    with pytest.raises(WireError):
        read_notice(KEYS, CITY, sign(KEY, "bega content 1", body))
    assert opened(KEYS, "bega content 1", sign(KEY, "bega content 1", body)) == body


def test_unsigned_bytes_are_not_parsed(monkeypatch):
    monkeypatch.setattr(msgspec.json, "decode", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(WireError):
        read_notice(KEYS, CITY, signed(STRANGER))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"until_ms": NOW_MS}, "ends before it begins"),
        ({"until_ms": NOW_MS + 401 * 24 * HOUR_MS}, "more than 400 days"),
        ({"section_from": "Strada A"}, "a section has two ends"),
        ({"from_ms": LAST_MS - 1, "until_ms": LAST_MS + 1}, "after the year 2099"),
        ({"published_ms": LAST_MS + 1}, "after the year 2099"),
        ({"city": "arad"}, "of the city arad"),
        ({"streets": []}, "no notice"),
        ({"streets": ["<b>"]}, "no notice"),
        ({"streets": ["line\nfeed"]}, "no notice"),
        ({"effect": "water_red"}, "no notice"),
        ({"later": 1}, "no notice"),
    ],
)
def test_signed_nonsense_is_refused_in_words(body, why):
    said = msgspec.to_builtins(notice()) | body
    with pytest.raises(WireError, match=why):
        read_notice(KEYS, CITY, sign(KEY, NOTICE.signed_as, json.dumps(said).encode()))


def test_second_key_of_the_city_is_good_too():
    keys = [STRANGER.public_key(), KEY.public_key()]
    assert read_notice(keys, CITY, signed()) == notice()
    assert read_notice(keys, CITY, signed(STRANGER)) == notice()


def test_later_word_is_true_whatever_comes_last():
    known = board()
    publish(known, signed(published_ms=NOW_MS + 2, until_ms=NOW_MS + HOUR_MS))
    known.take_all([signed(published_ms=NOW_MS + 1)], known.list_message)
    assert [one.until_ms for one in known.every()] == [NOW_MS + HOUR_MS]


def test_word_that_changes_nothing_is_not_taken_as_if_it_did():
    """Who withdraws with a clock that is behind has to hear that the notice is still shown."""
    known = board()
    publish(known, signed())
    publish(known, signed())
    with pytest.raises(WireError, match="a later word of this id is here; is the clock right"):
        publish(known, signed(published_ms=NOW_MS - 1, is_withdrawn=True))
    assert known.every() == [notice()]


def test_word_from_days_to_come_is_refused_or_nothing_could_put_it_right():
    with pytest.raises(WireError, match="stamped later than now"):
        publish(board(), signed(published_ms=NOW_MS + HOUR_MS))
    without_clock = Board(None, KEYS, CITY, lambda: 1000)
    publish(without_clock, signed())
    assert without_clock.every() == [notice()]


def test_brackets_without_end_are_no_notice():
    with pytest.raises(WireError, match="no notice"):
        read_notice(KEYS, CITY, sign(KEY, NOTICE.signed_as, b'{"x": ' + b"[" * 4000))


def test_notice_that_was_withdrawn_stays_so_when_an_old_copy_comes():
    known = board()
    publish(known, signed())
    publish(known, signed(published_ms=NOW_MS + 1, is_withdrawn=True))
    known.take_all([signed()], known.list_message)
    assert known.every() == []
    assert known.find("water-1") is None


def test_wrong_signatures_are_counted_and_the_good_ones_stand():
    known = board()
    with pytest.raises(WireError):
        publish(known, signed(STRANGER))
    known.take_all([b"", signed(STRANGER, id="other"), signed()], given(signed())[1])
    assert (known.refused, [one.id for one in known.every()]) == (3, ["water-1"])


def test_board_is_the_same_after_a_restart(tmp_path):
    first = board(tmp_path / "notices")
    first.take_all([signed(), signed(id="gone", is_withdrawn=True)], given(signed())[1])
    again = board(tmp_path / "notices")
    assert (again.every(), again.heard_ms, again.listed) == ([notice()], NOW_MS, first.listed)
    assert len(again.messages()) == 2


def test_half_a_file_is_half_of_the_notices(tmp_path):
    path = tmp_path / "notices"
    board(path).take_all(*given(*(signed(id=f"n{at}") for at in range(10))))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert 5 <= len(board(path).every()) <= 7
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[4:]))
    half = board(path)
    assert (len(half.every()), half.heard_ms) == (6, None), "nobody can say that these are all"


def test_file_that_somebody_else_wrote_shows_nothing(tmp_path):
    path = tmp_path / "notices"
    path.write_bytes(b"\xff\x00\n" + b64encode(signed(STRANGER)) + b"\nheard x\n" + b64encode(signed()) + b"\n")
    known = board(path)
    assert (known.every(), known.heard_ms) == ([notice()], None)


def test_full_disk_costs_a_kiosk_nothing_but_the_memory_of_a_restart(tmp_path):
    known = board(tmp_path / "a folder" / "notices")  # it is not there
    known.take_all(*given(signed()))
    assert known.every() == [notice()]


def test_desk_with_a_full_disk_publishes_nothing_that_it_would_forget(tmp_path):
    """A kiosk that has the new list refuses the old one that comes back, and who published thinks that all is well."""
    known = board(tmp_path / "a folder" / "notices")
    with pytest.raises(WireError, match=r"cannot be kept here \(No such file or directory\), so it was not published"):
        publish(known, signed())
    assert (known.every(), known.listed) == ([], None)
    (tmp_path / "a folder").mkdir()
    publish(known, signed())
    assert board(tmp_path / "a folder" / "notices").every() == [notice()]


def test_list_signed_by_a_clock_that_is_years_behind_is_refused_since_no_kiosk_would_believe_it():
    day_ms = 24 * HOUR_MS
    with pytest.raises(WireError, match="signed more than 7 days ago; was the clock right"):
        board().publish(*listed([signed()], NOW_MS - 8 * day_ms))
    Board(None, KEYS, CITY, lambda: 1000).publish(*listed([signed()], NOW_MS - 8 * day_ms))
    board().publish(*listed([signed()], NOW_MS - 6 * day_ms))  # carried there, a few days later


def test_board_has_an_end_and_lets_go_of_nothing_that_is_listed():
    known = board()
    many = [signed(id=f"n{at}", until_ms=NOW_MS + at + 1) for at in range(MOST_NOTICES + 5)]
    known.take_all(many, given(*many[:MOST_LISTED])[1])
    assert len(known.messages()) == MOST_NOTICES
    assert known.find("n0") is not None
    assert known.find(f"n{MOST_LISTED}") is None, "no list names it"
    with pytest.raises(WireError, match="at most 250 notices, and these are 251"):
        given(*many[: MOST_LISTED + 1])


def test_withdrawals_of_a_year_leave_room_for_what_is_cut_off_today():
    known = board()
    gone = [signed(id=f"n{at}", published_ms=NOW_MS + at, is_withdrawn=True) for at in range(MOST_NOTICES)]
    there = [signed(id=f"m{at}") for at in range(MOST_LISTED)]
    known.take_all([*gone, *there], given(*there)[1])
    assert len(known.every()) == MOST_LISTED
    known.take_all(gone[-2:], given(*there)[1])
    assert len(known.messages()) == MOST_NOTICES


@given_any(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=100)
def test_no_bit_of_a_list_can_change(at, bit):
    message = bytearray(given(signed(), number=1)[1])
    message[at % len(message)] ^= 1 << bit
    with pytest.raises(WireError, match="no signature of the city"):
        read_list(KEYS, CITY, bytes(message))


def test_list_of_another_city_or_signed_as_a_notice_is_none():
    with pytest.raises(WireError, match="of the city arad"):
        read_list(KEYS, CITY, write_list(KEY, "arad", 1, 0, NOW_MS, []))
    with pytest.raises(WireError, match="no signature"):
        read_list(KEYS, CITY, sign(KEY, NOTICE.signed_as, given()[1][64:]))


def test_list_of_which_a_notice_is_left_out_changes_nothing():
    known = board()
    known.take_all(*given(signed()))
    both = [signed(), signed(id="second")]
    with pytest.raises(WireError, match=r"of the 2 notices of list \d+ 1 are missing"):
        known.take_all(both[:1], given(*both)[1])
    assert known.every() == [notice()]
    known.take_all(both, given(*both)[1])
    assert len(known.every()) == 2


def test_closure_that_was_cancelled_cannot_be_shown_again_by_the_list_of_yesterday(tmp_path):
    path = tmp_path / "notices"
    yesterday, today = given(signed()), given()
    board(path).take_all(*yesterday)
    known = board(path)
    known.take_all(*today)
    with pytest.raises(WireError, match=r"gives list \d+, and list \d+ is here already"):
        known.take_all(*yesterday)
    again = board(path)
    assert again.every() == []
    with pytest.raises(WireError, match="is here already"):
        again.take_all(*yesterday)


def test_two_lists_with_one_number_are_not_both_true():
    known = board()
    known.take_all(*given(number=7))
    with pytest.raises(WireError, match="two lists with the number 7"):
        known.take_all(*given(signed(), number=7))


def test_of_two_who_publish_in_one_moment_the_second_is_told_so():
    known = board()
    known.publish(*given(signed(), number=1))
    with pytest.raises(WireError, match="list 1 is here, and 1 does not follow it"):
        known.publish(*given(signed(id="other"), number=1))
    assert known.every() == [notice()]


def test_what_would_be_refused_can_be_asked_without_a_change():
    known = board()
    known.take_all(*given(signed(), number=7))
    with pytest.raises(WireError, match="gives list 6, and list 7 is here already"):
        known.require_good(*given(number=6))
    known.require_good(*given(number=8))
    assert known.listed.number == 7


def test_new_key_is_for_its_owner_alone_and_is_never_written_over(tmp_path):
    public = new_key(tmp_path / "city.key")
    assert stat.S_IMODE((tmp_path / "city.key").stat().st_mode) == 0o600
    message = write_notice(read_private_key(tmp_path / "city.key"), notice())
    assert read_notice(read_public_keys([public]), CITY, message) == notice()
    with pytest.raises(ConfigError, match="is there already"):
        new_key(tmp_path / "city.key")
    for wrong in (lambda: read_private_key(public), lambda: read_public_keys([tmp_path / "city.key"])):
        with pytest.raises(ConfigError, match="bega kiosk key new"):
            wrong()
