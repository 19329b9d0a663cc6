"""The air by district: what is said of each, the worst of several places, and "nu știm acum" where nothing is known."""

import re
import shutil

import pytest

from bega_kiosk.air import air_at
from bega_kiosk.config import Air
from bega_kiosk.content import Area, District, load_content, sample_folder
from bega_kiosk.display import Display
from bega_kiosk.pages import districts
from bega_kiosk.store import Store, Value
from bega_kiosk.words import LANGUAGES
from tests.kiosk_feed import index_rows, reading
from tests.kiosk_gate import NOW_MS, Kiosk

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def station(label, band, dust, age_ms=MINUTE_MS, device="x"):
    """Return the rows of one place: an index and a number."""
    rows = [*index_rows(band, NOW_MS - age_ms), reading("pm2_5", dust, NOW_MS - age_ms, f"{device}-dust")]
    return [
        row | {"label": label, "device": f"{device}-{row['quantity']}" if "dust" in row["device"] else device}
        for row in rows
    ]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "kiosk.sqlite", lambda: NOW_MS)
    yield store
    store.close()


def heard(store, *stations):
    fields = Value.__struct_fields__
    rows = [row for rows in stations for row in rows]
    store.take_values(
        Value(**{key: row[key] for key in fields if key in row}, is_simulated=row["simulated"]) for row in rows
    )
    return store


def at(store, *places, **limits):
    return air_at(store, NOW_MS, Air(**limits), places)


def test_a_district_has_the_air_of_its_own_places(store):
    heard(store, station("Piața Victoriei", 2, 8.0, device="a"), station("Parcul Rozelor", 5, 123.0, device="b"))
    air = at(store, "Parcul Rozelor")
    assert (air.verdict.state, air.verdict.band, air.dust.value_ugm3, air.dust.place) == (
        "known",
        5,
        123.0,
        "Parcul Rozelor",
    )
    assert at(store, "Piața Victoriei").verdict.band == 2
    assert at(store, "a").verdict.band == 2, "a device by its name"


def test_the_worst_of_several_places_is_told(store):
    heard(
        store, station("A", 2, 8.0, device="a"), station("B", 5, 123.0, device="b"), station("C", 3, 30.0, device="c")
    )
    assert at(store, "A", "B", "C").verdict.band == 5
    assert at(store, "C", "A").dust.value_ugm3 == 30.0


def test_a_place_that_is_silent_hides_none_that_speaks(store):
    heard(store, station("A", 6, 400.0, age_ms=27 * HOUR_MS, device="a"), station("B", 1, 3.0, device="b"))
    assert at(store, "A", "B").verdict.band == 1


def test_what_is_past_its_limit_is_not_known_and_has_an_age(store):
    heard(store, station("A", 3, 30.0, age_ms=3 * HOUR_MS, device="a"))
    air = at(store, "A")
    assert (air.verdict.state, air.verdict.band, air.verdict.age_ms) == ("unknown", None, 3 * HOUR_MS)
    assert air.dust.value_ugm3 is None


@pytest.mark.parametrize("places", [(), ("nowhere",), ("",)])
def test_a_district_that_nobody_measures_is_not_known(store, places):
    heard(store, station("Piața Victoriei", 2, 8.0))
    assert (at(store, *places).verdict.state, at(store, *places).verdict.age_ms) == ("unknown", None)


def test_the_device_of_the_kiosks_own_page_is_not_asked_of_other_districts(store):
    heard(store, station("A", 4, 61.0, device="a"))
    assert at(store, "A", index="corner-index", dust="roadside").verdict.band == 4


def test_step_is_a_digit_and_as_many_bars_and_a_colour():
    for band in range(1, 7):
        drawn = str(districts.cells([band]))
        assert (drawn.count('class="bar"'), f">{band}</text>" in drawn, f"cell-{band}" in drawn) == (band, True, True)
    assert 'class="bar"' not in districts.cells([None])
    assert ">?</text>" in districts.cells([None])


def test_sample_has_six_areas_of_at_most_six_districts_and_each_has_its_area():
    content = load_content(sample_folder())
    assert len(content.every(Area)) == 6
    of = [
        [district for district in content.every(District) if district.area == area.id] for area in content.every(Area)
    ]
    assert all(1 <= len(some) <= 6 for some in of)
    assert sum(map(len, of)) == len(content.every(District)) == 34


def test_a_district_of_an_area_that_is_not_there_is_named(tmp_path):
    shutil.copytree(sample_folder(), tmp_path / "content")
    path = tmp_path / "content" / "districts.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('area = "centre"', 'area = "center"', 1), encoding="utf-8")
    (problem,) = load_content(tmp_path / "content").problems
    assert problem.endswith("district cetate: there is no area 'center'")


class Reader:
    """Reads the screens of a kiosk as words, without a browser."""

    def __init__(self, kiosk):
        self.kiosk = kiosk

    def page(self, path, language="ro", panel_page=1):
        place = next(place for place in self.kiosk.pages.places if path in place.paths())
        query = Display(language).query() | {"page": str(panel_page)}
        return place.draw(self.kiosk.pages.screen(place, place.params(path), query)).html

    def said(self, path, language="ro"):
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", self.page(path, language).partition("<main")[2]))


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory):
    with Kiosk("24", tmp_path_factory.mktemp("kiosk")) as kiosk:
        yield kiosk


@pytest.fixture
def reader(kiosk):
    far = station("Parcul Rozelor", 5, 123.0, 2 * MINUTE_MS, "b")
    kiosk.knows(*station("Piața Victoriei", 2, 8.0, device="a"), *far)
    return Reader(kiosk)


def test_every_district_is_three_taps_from_home(reader):
    def leads(path):
        return {address.partition("?")[0] for address in re.findall(r'href="(/[^"]*)"', reader.page(path))}

    first = leads("/") & {"/air"}
    second = {path for one in first for path in leads(one) if path == "/air/districts"}
    third = {path for one in second for path in leads(one) if path.startswith("/air/area/")}
    told = " ".join(reader.said(path) for path in third)
    for district in reader.kiosk.pages.known.content.every(District):
        assert f"{district.name}" in told
    assert "Acceptabil. Praf: 8" in told
    assert "Foarte rău. Praf: 123" in told
    assert "Nu știm acum" in told


def test_a_tap_on_a_district_gives_verdict_number_age_and_what_to_do(reader):
    said = reader.said("/air/district/elisabetin")
    for words in (
        "Aerul este foarte rău.",
        "123 de micrograme pe metru cub, acum 2 minute.",
        "Locul: Parcul Rozelor.",
        "EXEMPLU",
    ):
        assert words in said
    assert "Reduceți efortul" in said


def test_a_district_that_nobody_measures_says_so_and_gives_no_advice(reader):
    said = reader.said("/air/district/iosefin")
    assert "Nu știm acum. În acest cartier nu măsurăm aerul." in said
    assert "Pentru toată lumea" not in said


def test_list_and_map_tell_the_same_the_worst_first(reader):
    told, listed = reader.said("/air/districts"), reader.said("/air/list")
    for line in ("Elisabetin: Foarte rău. Praf: 123, acum 2 minute.", "Cetate: Acceptabil. Praf: 8, acum un minut."):
        assert line in told
        assert line in listed
    assert listed.index("Elisabetin") < listed.index("Cetate")
    assert "Știm acum despre 2 cartiere." in listed


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_known_is_said_in_every_language(reader, language):
    reader.kiosk.knows()
    unknown = reader.kiosk.pages._words[language].text("air.unknown.verdict")
    assert unknown in reader.said("/air/list", language)
    assert unknown in reader.said("/air/district/cetate", language)


def test_without_districts_the_air_page_is_as_it_was(tmp_path):
    (tmp_path / "content").mkdir()
    with Kiosk("24", tmp_path, content_dir=str(tmp_path / "content")) as kiosk:
        paths = [path for place in kiosk.pages.places for path in place.paths()]
        assert not [path for path in paths if path.startswith("/air") and "district" in path]
        assert "/air/districts" not in Reader(kiosk).page("/air")
