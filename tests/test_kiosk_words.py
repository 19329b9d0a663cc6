"""The words: whole in every language, plain, and written as a person of that language writes them."""

import re
import shutil
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import bega_kiosk
from bega_kiosk.air import BAND_COUNT
from bega_kiosk.pages.air import VIEWS
from bega_kiosk.words import LANGUAGES, catalogue_problems, load_words, locale_folder, read_catalogue
from bega_protocols.errors import ConfigError

ZONE = ZoneInfo("Europe/Bucharest")
WORDS = load_words(ZONE)
PACKAGE = Path(bega_kiosk.__file__).parent
CATALOGUES = {language: read_catalogue(language, locale_folder()) for language in LANGUAGES}
SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000


def key_of(message):
    return message.id if isinstance(message.id, str) else message.id[0]


def forms_of(message):
    return message.string if isinstance(message.string, tuple | list) else (message.string,)


def texts(language):
    return [(key_of(message), text) for message in CATALOGUES[language] if message.id for text in forms_of(message)]


EVERY_TEXT = [
    pytest.param(language, key, text, id=f"{language}-{key}") for language in LANGUAGES for key, text in texts(language)
]


def asked_for():
    """Return every key that templates and code name, and those that they put together."""
    sources = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]
    named = {
        key
        for source in sources
        for key in re.findall(r"[\"']([a-z]+(?:\.[a-z0-9_]+)+)[\"']", source.read_text(encoding="utf-8"))
        if key.partition(".")[0] in {"common", "age", "home", "air", "unit", "err"} and not key.endswith(".html")
    }
    bands = range(1, BAND_COUNT + 1)
    named |= {f"air.{band}.{kind}" for band in bands for kind in ("name", "verdict", "all", "sensitive")}
    return named | {f"air.{state}.verdict" for state in ("not_yet", "unknown")} | {f"air.view.{view}" for view in VIEWS}


@pytest.mark.parametrize("language", LANGUAGES)
def test_catalogue_has_every_text_that_pages_ask_for_and_no_other(language):
    assert {key_of(message) for message in CATALOGUES[language] if message.id} == asked_for()


@pytest.mark.parametrize("language", LANGUAGES)
def test_catalogue_is_whole(language):
    assert catalogue_problems(CATALOGUES[language], asked_for()) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_catalogue_says_who_still_has_to_read_it(language):
    assert dict(CATALOGUES[language].mime_headers).get("X-Review") or "X-Review" in (
        locale_folder() / language / "LC_MESSAGES" / "kiosk.po"
    ).read_text(encoding="utf-8")


def test_languages_fill_the_same_places():
    places = {
        language: {key: set(re.findall(r"{(\w+)}", text)) - {"n"} for key, text in texts(language)}
        for language in LANGUAGES
    }
    assert places["ro"] == places["en"]


@pytest.mark.parametrize(("language", "key", "text"), EVERY_TEXT)
def test_sentence_has_at_most_15_words(language, key, text):
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        assert len(re.findall(r"[^\s–-]+", sentence)) <= 15


@pytest.mark.parametrize(("language", "key", "text"), EVERY_TEXT)
def test_text_is_plain(language, key, text):
    text = text.replace("ETC HE ", "")  # who wrote the report
    assert not re.search(r"\b(click|clic|link|log ?in|logare|user|app|etc|nr|str|e\.g|i\.e)\b\.?", text, re.IGNORECASE)
    assert not re.search("[şţŞŢ]", text), "ș and ț have a comma below, not a cedilla"
    assert not re.search(r"\s\s|^\s|\s$", text)


@pytest.mark.parametrize(("language", "key", "text"), EVERY_TEXT)
def test_text_has_only_letters_that_the_font_has(language, key, text):
    """Atkinson Hyperlegible Next lacks the micro sign and arrows among others (look.css, unicode-range)."""
    assert all(ord(letter) < 0x180 or letter in "șțȘȚ„”–…" for letter in text)
    assert "µ" not in text


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
    path = copy / "ro" / "LC_MESSAGES" / "kiosk.po"
    whole = path.read_text(encoding="utf-8")
    broken = re.sub(*damage, whole)
    assert broken != whole
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_words(ZONE, copy)


def test_start_is_refused_when_a_catalogue_is_gone(copy):
    (copy / "en" / "LC_MESSAGES" / "kiosk.po").unlink()
    with pytest.raises(ConfigError, match=r"kiosk\.po"):
        load_words(ZONE, copy)
