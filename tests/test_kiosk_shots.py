"""`bega kiosk shots`: a picture of each part of each screen, as large as its panel; what cannot be drawn is said."""

import pytest

from bega.browser import Page
from bega.clock import wall_ms
from bega.settings import parse_assignments
from bega_kiosk import shots
from bega_kiosk.command import main
from bega_kiosk.config import make
from bega_kiosk.display import Display
from bega_kiosk.notices import Board
from bega_kiosk.places import Known
from bega_kiosk.store import Store
from bega_protocols.errors import LineError
from tests.kiosk_notices import CITY, KEYS, listed, public_key, samples


def size(png):
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


@pytest.mark.slow
def test_each_part_of_a_screen_is_drawn_as_large_as_the_panel(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shots, "SETTLE_S", 0)
    words = ["--panel", "10", "--lang", "hu", "--only", "/air"]
    assert main(["shots", str(tmp_path / "pictures"), "--data", str(tmp_path / "none"), *words]) == 0
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "pictures/10/hu").iterdir()}
    assert {"air.png", "air_dust.png", "air_day.png", "air_advice.png"} <= drawn.keys()
    assert {size(png) for png in drawn.values()} == {(1280, 800)}
    shown = (tmp_path / "pictures" / shots.INDEX).read_text()
    assert all(f'src="10/hu/{name}"' in shown for name in drawn)
    assert "index.html" in capsys.readouterr().out


def test_every_look_has_a_name_of_its_own():
    looks = shots.every_look(["ro", "sr-Latn"], whole=True)
    names = {shots.file_of(look, path, part) for look in looks for path in ("/", "/air/dust") for part in (1, 2)}
    assert len(names) == 16 * 2 * 2
    assert str(shots.file_of(Display("ro"), "/", 1)) == "ro/home.png"
    assert (
        str(shots.file_of(Display("hu", is_dark=True, is_reach=True), "/air/dust", 2)) == "hu/air_dust-dark-reach-2.png"
    )


def test_kiosk_without_notices_is_drawn_with_samples_that_say_so(tmp_path):
    config = make({"kiosk": {"name": "k", "city": "timisoara", "state_dir": str(tmp_path)}})
    more = parse_assignments(shots._copied(config, tmp_path))
    own = make({"kiosk": {"name": "k", "city": "timisoara", "state_dir": str(tmp_path)}, **more})
    assert own.notices.has_place
    store = Store(tmp_path / "store", wall_ms)
    known = Known(own, store, wall_ms).notices
    store.close()
    assert len(known.every()) == 3 and all(notice.is_example for notice in known.every())
    assert known.listed.is_good(wall_ms(), 1)
    assert known.heard_ms is not None
    assert not (tmp_path / "sample.key").exists()


def test_notices_that_a_kiosk_has_are_drawn_as_they_are(tmp_path):
    real, copy = tmp_path / "real", tmp_path / "copy"
    real.mkdir()
    copy.mkdir()
    (real / "city.pub").write_bytes(public_key())
    Board(real / "notices", KEYS, CITY, wall_ms).take_all(*listed(samples(wall_ms()), wall_ms()))
    said = {"kiosk": {"name": "k", "city": CITY, "state_dir": str(real)}}
    config = make({**said, "notices": {"keys": [str(real / "city.pub")]}})
    assert shots._copied(config, copy) == []
    assert (copy / "notices").read_bytes() == (real / "notices").read_bytes()


def test_screen_that_is_none_is_an_error(tmp_path, capsys):
    assert main(["shots", str(tmp_path), "--only", "/nothing"]) == 1
    assert "bega kiosk screens" in capsys.readouterr().err


def test_page_that_fails_is_said_and_not_drawn(tmp_path):
    class Failing(Page):
        def __init__(self):
            self.went = []

        def go(self, address):
            self.went.append(address)

        def run(self, script):
            return 500

    page = Failing()
    with pytest.raises(LineError, match="answers 500"):
        shots._draw_parts(page, "http://kiosk", Display("en"), "/air", tmp_path)
    assert page.went == ["http://kiosk/air?lang=en"]
    assert not [*tmp_path.iterdir()]
