"""The words: whole in every language, plain, and written as a person of that language writes them."""

import re
import shutil
import tempfile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import bega_kiosk
from bega_kiosk.air import BAND_COUNT
from bega_kiosk.config import load
from bega_kiosk.latin import to_latin
from bega_kiosk.pages.air import PATHS
from bega_kiosk.places import Known, every_place
from bega_kiosk.plain import findings
from bega_kiosk.store import Store
from bega_kiosk.words import (
    SPOKEN,
    catalogue_problems,
    load_words,
    locale_folder,
    read_catalogue,
    reviews,
    written_languages,
)
from bega_protocols.errors import ConfigError
from tests.kiosk_feed import CORNER

ZONE = ZoneInfo("Europe/Bucharest")
WORDS = load_words(ZONE)
PACKAGE = Path(bega_kiosk.__file__).parent
STORE = Store(Path(tempfile.mkdtemp()) / "kiosk.sqlite", lambda: 0)
PLACES = every_place(Known(load(CORNER), STORE, lambda: 0))
WRITTEN = written_languages()
CATALOGUES = {language: read_catalogue(language, locale_folder()) for language in WRITTEN}
TOPICS = {path.stem for path in (locale_folder() / "ro" / "LC_MESSAGES").glob("*.po")}
SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000


def texts(language):
    return [(key, form) for (_, key), text in CATALOGUES[language].texts.items() for form in text.forms]


def asked_for():
    """Return every key that templates and code name, and those that they put together."""
    sources = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]
    named = {
        key
        for source in sources
        for key in re.findall(r"[\"']([a-z]+(?:\.[a-z0-9_]+)+)[\"']", source.read_text(encoding="utf-8"))
        if key.partition(".")[0] in TOPICS and not key.endswith((".html", ".py", ".toml"))
    }
    bands = range(1, BAND_COUNT + 1)
    named |= {f"air.{band}.{kind}" for band in bands for kind in ("name", "verdict", "all", "sensitive")}
    named |= {f"home.tile.{place.path[1:]}" for place in PLACES if place.tile}
    return named | {f"air.{state}.verdict" for state in ("not_yet", "unknown")} | {f"air.view.{view}" for view in PATHS}


@pytest.mark.parametrize("language", WRITTEN)
def test_catalogue_has_every_text_that_pages_ask_for_and_no_other(language):
    assert {key for _, key in CATALOGUES[language].texts} == asked_for()


@pytest.mark.parametrize("language", WRITTEN)
def test_catalogue_is_whole(language):
    assert catalogue_problems(CATALOGUES[language], asked_for()) == []


def test_every_topic_says_who_still_has_to_read_it():
    found = reviews()
    assert found.keys() == set(WRITTEN)
    assert all(review != "nobody has said who read it" for topic in found.values() for review in topic.values())
    assert "native" in found["hu"]["air"], "nobody signed the Hungarian"


@pytest.mark.parametrize("language", WRITTEN)
def test_languages_fill_the_same_places(language):
    def places(of):
        return {key: set(re.findall(r"{(\w+)}", text)) - {"n"} for key, text in texts(of)}

    assert places(language) == places("ro")


@pytest.mark.parametrize(
    ("cyrillic", "latin"),
    [
        ("Ваздух је веома лош.", "Vazduh je veoma loš."),
        ("Њихова љубав, џеп, ђак, ћуп", "Njihova ljubav, džep, đak, ćup"),
        ("ЊЕГОШ, Љубица, ХИТНО: 112 {place}", "NJEGOŠ, Ljubica, HITNO: 112 {place}"),
        ("КРАЉ ПЕТАР. СМЕЉ! КОЊ", "KRALJ PETAR. SMELJ! KONJ"),
        ("Џ, Њ. Петровић, А Љубица", "Dž, Nj. Petrović, A Ljubica"),
    ],
)
def test_serbian_is_the_same_in_latin_letters(cyrillic, latin):
    assert to_latin(cyrillic) == latin


def test_no_cyrillic_letter_is_left_in_latin_serbian():
    for name, text in WORDS["sr-Latn"]._texts.items():
        assert not any(re.search("[\u0400-\u04ff]", form) for form in text.forms), name


def test_text_that_is_heard_otherwise_has_a_second_entry(copy):
    path = copy / "ro" / "LC_MESSAGES" / "air.po"
    spoken = f'\n\nmsgctxt "{SPOKEN}"\nmsgid "air.dust"\nmsgstr "Praf foarte fin, pe scurt pe em doi virgulă cinci"\n'
    path.write_text(path.read_text(encoding="utf-8") + spoken, encoding="utf-8")
    words = load_words(ZONE, copy)["ro"]
    assert (words.text("air.dust"), words.spoken("air.dust")) == (
        "Praf foarte fin (PM2.5)",
        "Praf foarte fin, pe scurt pe em doi virgulă cinci",
    )
    assert words.spoken("air.title") == words.text("air.title")


@pytest.mark.parametrize("language", WRITTEN)
def test_every_text_is_plain(language):
    assert [(key, found) for key, text in texts(language) for found in findings(language, text)] == []


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("ro", "unu " * 14 + "cinci.", None),
        (
            "ro",
            "unu " * 15 + "cinci.",
            "16",
        ),
        ("ro", "Str. Lungă nr. 3", "an abbreviation"),
        ("de", "Heute, z. B. am Abend", "an abbreviation"),
        ("sr", "за 5 мин", "an abbreviation"),
        ("en", "Click here", "a word from elsewhere"),
        ("ro", "Aţi greşit", "cedilla"),
        ("ro", "12 µg", "letters that no font"),
        ("en", "Ваздух", "letters that no font"),
        ("ro", " de două ori", "spaces"),
    ],
)
def test_lint_finds_what_is_not_plain(language, text, found):
    said = [*findings(language, text)]
    assert said == [] if found is None else any(found in line for line in said), said


@pytest.mark.parametrize(
    ("age_ms", "ro", "en"),
    [
        (0, "acum câteva secunde", "a few seconds ago"),
        (59 * SECOND_MS, "acum câteva secunde", "a few seconds ago"),
        (MINUTE_MS, "acum un minut", "one minute ago"),
        (2 * MINUTE_MS + 59 * SECOND_MS, "acum 2 minute", "2 minutes ago"),
        (19 * MINUTE_MS, "acum 19 minute", "19 minutes ago"),
        (20 * MINUTE_MS, "acum 20 de minute", "20 minutes ago"),
        (59 * MINUTE_MS, "acum 59 de minute", "59 minutes ago"),
        (HOUR_MS, "acum o oră", "one hour ago"),
        (3 * HOUR_MS, "acum 3 ore", "3 hours ago"),
        (23 * HOUR_MS, "acum 23 de ore", "23 hours ago"),
        (DAY_MS, "acum o zi", "one day ago"),
        (101 * DAY_MS, "acum 101 zile", "101 days ago"),
        (120 * DAY_MS, "acum 120 de zile", "120 days ago"),
    ],
)
def test_age_agrees_with_its_number(age_ms, ro, en):
    assert (WORDS["ro"].ago(age_ms), WORDS["en"].ago(age_ms)) == (ro, en)


@pytest.mark.parametrize(
    ("ugm3", "ro"),
    [
        (0, "micrograme pe metru cub"),
        (1, "microgram pe metru cub"),
        (8, "micrograme pe metru cub"),
        (8.5, "micrograme pe metru cub"),
        (20, "de micrograme pe metru cub"),
        (23, "de micrograme pe metru cub"),
        (101, "micrograme pe metru cub"),
        (123, "de micrograme pe metru cub"),
    ],
)
def test_unit_agrees_with_its_number(ugm3, ro):
    assert WORDS["ro"].counted("unit.ugm3", ugm3) == ro


def test_numbers_are_written_as_the_language_writes_them():
    assert (WORDS["ro"].number(8.46), WORDS["en"].number(8.46)) == ("8,5", "8.5")
    assert (WORDS["ro"].number(1234), WORDS["en"].number(1234)) == ("1.234", "1,234")
    assert [WORDS["ro"].concentration(value) for value in (0, 3.04, 9.96, 12.6)] == ["0", "3", "10", "13"]


def test_date_and_time_are_those_of_the_place():
    """1 795 000 000 s is 18 November 2026, 11:06:40 UTC: 13:06 in Timișoara."""
    at_ms = 1_795_000_000_000
    assert (WORDS["ro"].date(at_ms), WORDS["ro"].time(at_ms)) == ("miercuri, 18 noiembrie 2026", "13:06")
    assert WORDS["en"].date(at_ms) == "Wednesday, 18 November 2026"
    assert WORDS["ro"].time(at_ms - 5 * HOUR_MS) == "8:06"


def test_text_that_is_missing_is_never_shown_by_its_name():
    with pytest.raises(KeyError, match=r"air\.none"):
        WORDS["ro"].text("air.none")


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(locale_folder(), tmp_path / "locale")
    return tmp_path / "locale"


@pytest.mark.parametrize(
    ("what", "damage", "said"),
    [
        ("missing", (r'msgid "air\.2\.all"\nmsgstr ".*"\n', ""), "air.2.all is missing"),
        ("empty", (r'(msgid "air\.2\.all"\nmsgstr) ".*"', r'\1 ""'), "air.2.all has no words"),
        ("guessed", (r'(msgid "air\.2\.all")', r"#, fuzzy\n\1"), "air.2.all is marked fuzzy"),
        ("half", (r'msgstr\[2\] "acum \{n\} de ore"\n', ""), "age.hours has"),
    ],
)
def test_start_is_refused_when_a_text_is(copy, what, damage, said):
    path = copy / "ro" / "LC_MESSAGES" / ("age.po" if what == "half" else "air.po")
    whole = path.read_text(encoding="utf-8")
    broken = re.sub(*damage, whole)
    assert broken != whole
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_words(ZONE, copy)


def test_start_is_refused_when_a_catalogue_is_gone(copy):
    shutil.rmtree(copy / "en")
    with pytest.raises(ConfigError, match="there are no texts"):
        load_words(ZONE, copy)
