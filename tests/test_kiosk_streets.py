"""Streets and outages: who looks for a street finds it in three taps; nothing is said that is not known now."""

import asyncio
import contextlib
import html
import re
import threading
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from starlette.applications import Starlette

from bega.clock import wall_ms
from bega.web import bind, serve
from bega_kiosk.command import main
from bega_kiosk.config import load
from bega_kiosk.notice_list import read_given, write_given
from bega_kiosk.notice_routes import notice_routes
from bega_kiosk.notices import Board, write_notice
from bega_kiosk.server import Pages
from bega_kiosk.signed import read_public_keys
from bega_kiosk.store import Store
from bega_kiosk.words import load_words
from tests.kiosk_feed import CORNER
from tests.kiosk_notices import CITY, DAY_MS, HOUR_MS, KEY, listed, notice, public_key, publish, samples

ZONE = ZoneInfo("Europe/Bucharest")
WORDS = load_words(ZONE)
NOW_MS = 1_795_000_000_000  # Wednesday 18 November 2026, 13:06 in Timișoara


class Corner:
    """A kiosk's pages without a server."""

    def __init__(self, folder, **notices):
        (folder / "city.pub").write_bytes(public_key())
        said = {"keys": [str(folder / "city.pub")], "district": "Cetate", **notices}
        self.now_ms = NOW_MS
        config = load(CORNER, {"kiosk": {"state_dir": str(folder)}, "notices": said})
        store = Store(folder / "kiosk.sqlite", lambda: self.now_ms)
        self.pages = Pages(config, store, WORDS, lambda: self.now_ms)
        self.board = self.pages.known.notices

    def see(self, path, language="ro"):
        """Return what a screen says, without its markup."""
        place = next(place for place in self.pages.places if path in place.paths())
        drawn = place.draw(self.pages.screen(place, place.params(path), {"lang": language}))
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", drawn.html.partition("<main")[2])).split())


@pytest.fixture
def corner(tmp_path):
    return Corner(tmp_path)


def test_street_is_three_taps_away_under_each_of_its_names(corner):
    publish(corner.board, write_notice(KEY, notice(NOW_MS)), NOW_MS)
    for letters in ("g", "a"):
        said = corner.see(f"/streets/street/{letters}")
        assert "Strada George Ardelean Se oprește apa. Acum, până la ora 21:06." in said
    assert "George Ardelean" not in corner.see("/streets/street/s"), "the word Strada is no name"


def test_notices_are_found_by_place_and_by_district(corner):
    corner.board.take_all(*listed(samples(NOW_MS), NOW_MS))
    assert "Piața Libertății" in corner.see("/streets/near")
    assert "Brâncoveanu" not in corner.see("/streets/near")
    assert "Brâncoveanu" in corner.see("/streets/district/girocului")
    assert "3 anunțuri" in corner.see("/streets")


def test_names_of_every_script_stay_apart(corner):
    streets = ["Улица Његошева", "Улица Пушкина", "Strada Đorđević", "Οδός Αθηνάς"]
    notices = [notice(NOW_MS, id=f"n{at}", streets=[one], districts=[one]) for at, one in enumerate(streets)]
    corner.board.take_all(*listed([write_notice(KEY, one) for one in notices], NOW_MS))
    for path, found in {"ulica-njegoseva": "Његошева", "ulica-puskina": "Пушкина", "strada-dordevic": "Đor"}.items():
        said = corner.see(f"/streets/district/{path}")
        assert found in said.partition("Strada 3")[0]
        assert sum(name in said for name in ("Његошева Se", "Пушкина Se", "Đorđević Se", "Αθηνάς Se")) == 1
    assert "Αθηνάς" in corner.see("/streets/street/a"), "who has no Latin letter is under the first key"
    assert "Његошева" in corner.see("/streets/street/l")


def test_nothing_known_is_said_only_of_a_fresh_list(corner):
    assert "Nu știm acum." in corner.see("/streets")
    corner.board.take_all(*listed([], NOW_MS))
    assert "Nu avem niciun anunț acum." in corner.see("/streets")
    corner.now_ms += 61 * 60_000
    assert "Nu știm acum." in corner.see("/streets")
    assert "Ultima listă este de acum o oră." in corner.see("/streets/near")


def test_list_that_nobody_signed_anew_for_a_week_is_not_believed_however_often_it_is_given(corner):
    """A desk, or whoever sits on the way to it, may give an old list again and again."""
    old = listed([], NOW_MS)
    corner.now_ms += 8 * DAY_MS
    corner.board.take_all(*old)
    assert "Nu știm acum." in corner.see("/streets")
    assert "Ultima listă este de acum 8 zile." in corner.see("/streets/near")
    corner.board.take_all(*listed([], corner.now_ms))
    assert "Nu avem niciun anunț acum." in corner.see("/streets")


def test_list_that_comes_from_the_future_says_that_the_clock_is_wrong(corner):
    """A kiosk whose clock stood still for a day: what it calls "now" is not now."""
    corner.board.take_all(*listed(samples(NOW_MS), NOW_MS + DAY_MS))
    for path in ("/streets/every", "/streets/notice/road-section"):
        assert "Ceasul acestui aparat este greșit." in corner.see(path)
        assert "Poate sunt anunțuri mai noi." not in corner.see(path)


def test_old_list_goes_on_being_shown_and_says_how_old_it_is(corner):
    corner.board.take_all(*listed(samples(NOW_MS), NOW_MS))
    corner.now_ms += 2 * HOUR_MS
    assert "Poate sunt anunțuri mai noi. Ultima listă este de acum 2 ore." in corner.see("/streets/every")
    assert "Strada George Ardelean" in corner.see("/streets/every")
    assert "Ultima listă este de acum 2 ore." in corner.see("/streets/notice/road-section"), "it may be taken back"
    assert "Pentru ea nu avem niciun anunț" not in corner.see("/streets/street/a"), "nobody knows that now"
    assert "Ultima listă este de acum 2 ore." in corner.see("/streets/street/a")


def test_notice_that_ended_leaves_the_lists_and_says_so_itself(corner):
    corner.board.take_all(*listed(samples(NOW_MS), NOW_MS))
    corner.now_ms += 4 * HOUR_MS
    assert "George Ardelean" not in corner.see("/streets/every")
    assert "S-a terminat." in corner.see("/streets/notice/water-many")
    corner.now_ms += 2 * DAY_MS
    assert not any("water-many" in path for place in corner.pages.places for path in place.paths())


def test_clock_at_1970_names_days_and_never_says_now(corner):
    corner.board.take_all(*listed(samples(NOW_MS), NOW_MS))
    corner.now_ms = 1000
    said = corner.see("/streets/every")
    assert "Ceasul acestui aparat este greșit." in said
    assert "Miercuri, 18 noiembrie, ora 8:06." in said
    assert "Acum" not in said


@pytest.mark.parametrize(
    ("begins_ms", "lasts_ms", "said"),
    [
        (-HOUR_MS, 2 * HOUR_MS, "Acum, până la ora 14:06."),
        (-HOUR_MS, 26 * HOUR_MS, "Acum, până joi, 19 noiembrie, ora 14:06."),
        (HOUR_MS, HOUR_MS, "Azi, de la ora 14:06."),
        (11 * HOUR_MS, HOUR_MS, "Mâine, de la ora 0:06."),
        (3 * DAY_MS, HOUR_MS, "Sâmbătă, 21 noiembrie, ora 13:06."),
    ],
)
def test_when_is_said_as_briefly_as_is_true(corner, begins_ms, lasts_ms, said):
    begins = {"from_ms": NOW_MS + begins_ms, "until_ms": NOW_MS + begins_ms + lasts_ms}
    publish(corner.board, write_notice(KEY, notice(NOW_MS, **begins)), NOW_MS)
    assert said in corner.see("/streets/every")


def test_sample_says_that_it_is_one(corner):
    publish(corner.board, write_notice(KEY, notice(NOW_MS)), NOW_MS)
    for path in ("/streets/notice/water-1", "/streets/every", "/streets/street/a"):
        assert "EXEMPLU" in corner.see(path)
    publish(corner.board, write_notice(KEY, notice(NOW_MS + 1, is_example=False)), NOW_MS)
    for path in ("/streets/notice/water-1", "/streets/every", "/streets/street/a"):
        assert "EXEMPLU" not in corner.see(path)


@contextlib.contextmanager
def desk_of(known):
    """Serve a board as a desk does, in a thread: the command needs the main one for its signals."""
    listener = bind("listen", "127.0.0.1:0")
    loop = asyncio.new_event_loop()
    serving = loop.create_task(serve(Starlette(routes=notice_routes(known)), listener))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.gather(serving, return_exceptions=True)))
    thread.start()
    try:
        yield "http://127.0.0.1:%d" % listener.getsockname()[1]
    finally:  # also where a test fails: a thread that goes on would keep the whole run from its end
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(10)
        loop.close()
        listener.close()


DAYS = [f"{datetime.fromtimestamp(wall_ms() / 1000 + days * 86_400, ZONE):%Y-%m-%d} 08:00" for days in range(4)]
WHAT = ["--effect", "water_stop", "--street", "Strada Polonă", "--from", DAYS[2]]


@pytest.fixture
def key(tmp_path):
    """Return a city's private key; the public one lies beside it."""
    assert main(["key", "new", str(tmp_path / "city.key")]) == 0
    return tmp_path / "city.key"


def board_of(key, path=None):
    return Board(path, read_public_keys([key.with_name("city.key.pub")]), CITY, wall_ms)


def test_what_staff_publish_is_on_the_board_and_can_be_withdrawn(key, capsys):
    known = board_of(key)
    with desk_of(known) as url:
        way = ["--key", str(key), "--city", CITY, "--desk", url]
        published = ["notice", "publish", *way, *WHAT, "--until", DAYS[3], "--id", "w"]
        done = [main(published)]
        shown = [one.streets for one in known.every()]
        done.append(main(["notice", "withdraw", *way, "w"]))
        done.append(main(["notice", "publish", *way, *WHAT, "--until", DAYS[1]]))
        done.append(main(["notice", "publish", *way, *WHAT, "--until", "tomorrow"]))
        done.append(main(["notice", "withdraw", *way, "another"]))
        done.append(main(["notice", "withdraw", *way, "no name"]))
        done.append(main(["notice", "confirm", *way]))
    done.append(main(published))
    assert (done, shown, known.every()) == ([0, 0, 1, 1, 1, 1, 0, 1], [["Strada Polonă"]], [])
    assert known.listed.number == 3
    told = capsys.readouterr()
    said = told.err.splitlines()
    assert "ends before it begins" in said[0]
    assert "write a day and an hour" in said[1]
    assert "shows no notice another; is the id right?" in said[2]
    assert "this is no notice" in said[3]
    assert "does not answer" in said[4]
    assert len(said) == 5
    assert told.out.splitlines()[-1] == "list 3: 0 notices"


def test_desk_that_holds_the_newer_list_back_is_found_out_by_who_publishes(key, tmp_path, capsys):
    known = board_of(key, tmp_path / "notices")
    way = ["--key", str(key), "--city", CITY, "--desk"]
    with desk_of(known) as url:
        assert main(["notice", "publish", *way, url, *WHAT, "--until", DAYS[3], "--id", "closed"]) == 0
        kept = (tmp_path / "notices").read_bytes()
        assert main(["notice", "withdraw", *way, url, "closed"]) == 0
    (tmp_path / "notices").write_bytes(kept)
    with desk_of(board_of(key, tmp_path / "notices")) as url:
        assert main(["notice", "confirm", *way, url]) == 1
        assert "has list 1, and list 2 was signed here" in capsys.readouterr().err
        assert main(["notice", "confirm", *way, url, "--restored"]) == 0
    assert capsys.readouterr().out.splitlines() == ["list 3: 1 notices", "closed"], "beyond what kiosks have"


def test_who_publishes_with_another_key_is_told_how_to_name_the_first(key, tmp_path, capsys):
    assert main(["key", "new", str(tmp_path / "other.key")]) == 0
    public = [tmp_path / "city.key.pub", tmp_path / "other.key.pub"]
    with desk_of(Board(None, read_public_keys(public), CITY, wall_ms)) as url:
        way = ["--city", CITY, "--desk", url]
        assert main(["notice", "confirm", "--key", str(key), *way]) == 0
        other = ["notice", "confirm", "--key", str(tmp_path / "other.key"), *way]
        assert main(other) == 1
        assert "no signature of the city; if another key of the city signed it, name" in capsys.readouterr().err
        assert main([*other, "--city-key", str(public[0])]) == 0


def test_what_no_desk_would_take_is_not_given_to_anybody_to_carry(key, tmp_path, capsys):
    out = tmp_path / "signed.json"
    way = ["notice", "publish", "--key", str(key), "--out", str(out), *WHAT, "--until", DAYS[3]]
    many = [word for at in range(39) for word in ("--street", f"{'Ș' * 58}{at}")]
    more = [word for at in range(20) for word in ("--district", f"{'Ț' * 58}{at}", "--line", f"{'Ț' * 58}{at}")]
    assert main([*way, "--city", CITY, *many, *more]) == 1
    assert "no desk would take this: a notice of more than 8192 bytes; nothing was" in capsys.readouterr().err
    assert main(["notice", "confirm", "--key", str(key), "--out", str(out), "--city", "Timișoara"]) == 1
    assert "no desk would take this: signed, but no list" in capsys.readouterr().err
    assert not out.exists()
    assert main([*way, "--city", CITY]) == 0, "no number was spent on what nobody got"


def test_notices_are_carried_to_a_desk_without_a_network(key, tmp_path, capsys):
    known = board_of(key)
    way = ["--key", str(key), "--city", CITY, "--out", str(tmp_path / "signed.json")]
    publish_it = ["notice", "publish", *way, *WHAT, "--until", DAYS[3]]
    for name in ("first", "second"):
        more = ["--known", str(tmp_path / "known.json")] if name == "second" else []
        assert main([*publish_it, "--id", name, *more]) == 0
        known.publish(*read_given((tmp_path / "signed.json").read_bytes()))
        (tmp_path / "known.json").write_bytes(write_given(known.messages(), known.list_message))
    assert {one.id for one in known.every()} == {"first", "second"}
    assert main([*publish_it, "--id", "third"]) == 1
    assert "--out needs --known" in capsys.readouterr().err
