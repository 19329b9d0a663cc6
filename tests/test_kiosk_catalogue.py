"""Texts and calendars without Babel at the kiosk: here Babel says whether they are read and written right."""

import io
import string
from datetime import date, timedelta

import pytest
from babel import Locale
from babel.dates import format_date
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po as babel_reads
from babel.messages.pofile import write_po
from babel.numbers import format_decimal
from hypothesis import given
from hypothesis import strategies as st

from bega_kiosk.calendars import CALENDARS
from bega_kiosk.catalogue import Catalogue, Text, read_po
from bega_kiosk.words import LANGUAGES, Words, load_words, locale_folder
from tests.test_kiosk_words import ZONE

LOCALES = {tag: tag.replace("-", "_") for tag in LANGUAGES} | {"en": "en_GB"}
WORDS = load_words(ZONE)
FILES = sorted(locale_folder().glob("*/LC_MESSAGES/*.po"))
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0\x85\u2028\u2029"), max_size=200)
KEY = st.text(string.ascii_lowercase + "._", min_size=1, max_size=12)
DAY = st.dates(date(1970, 1, 1), date(2099, 12, 31))


def as_babel_reads(written):
    found = {}
    for message in babel_reads(io.BytesIO(written.encode()), abort_invalid=True):
        if message.id:
            is_counted = isinstance(message.id, tuple | list)
            forms = tuple(message.string) if is_counted else (message.string,)
            key = message.id[0] if is_counted else message.id
            found[message.context, key] = Text(forms, is_counted, message.fuzzy)
    return found


@pytest.mark.parametrize("language", CALENDARS)
def test_babel_reads_the_same_texts(language):
    for path in locale_folder().glob(f"{language}/LC_MESSAGES/*.po"):
        written = path.read_text(encoding="utf-8")
        assert read_po(written).texts == as_babel_reads(written), path


@given(
    texts=st.dictionaries(KEY, st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, "spoken"]), ANY_TEXT)),
    width=st.sampled_from([20, 76, 10_000]),
)
def test_whatever_a_translators_program_writes_is_read(texts, width):
    catalog = Catalog(locale="ro")
    for key, (is_counted, is_guessed, context, text) in texts.items():
        names, forms = ((key, key), (text, text + "1", "2" + text)) if is_counted else (key, text)
        catalog.add(names, forms, context=context, flags=["fuzzy"] if is_guessed else [], user_comments=[key])
    written = io.BytesIO()
    write_po(written, catalog, width=width)
    found = read_po(written.getvalue().decode())
    for key, (is_counted, is_guessed, context, text) in texts.items():
        forms = (text, text + "1", "2" + text) if is_counted else (text,)
        assert found.texts[context, key] == Text(forms, is_counted, is_guessed)
    assert found.form_count == 3


@given(
    written=st.one_of(ANY_TEXT, st.lists(st.sampled_from(['msgid "a"', 'msgstr "b', '"c"', "#, fuzzy"])).map("\n".join))
)
def test_noise_is_refused_with_its_line_or_read(written):
    try:
        assert isinstance(read_po(written), Catalogue)
    except ValueError as error:
        assert str(error).startswith("line ")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('msgid "a.b"\nmsgstr "x"\n\nmsgid "a.b"\nmsgstr "y"\n', "line 5: a.b is there twice"),
        ('msgid "a.b"\n\nmsgid "a.c"\nmsgstr "y"\n', "line 4: a.b has no msgstr"),
        ('msgid "a.b"\nmsgid "a.c"\nmsgstr "y"\n', "line 2: msgid cannot stand here"),
        ('msgid "a.b"\nmsgstr "half of', "line 2: this is no part"),
        ('msgid "a.b"\n', "line 2: a.b has no msgstr"),
        ('msgstr "x"\n', "line 1: msgstr cannot stand here"),
        ('msgid "a.b"\nmsgstr[0] "x"\n', r"line 2: msgstr\[0\] cannot stand here"),
        ('"x"\n', "line 1: words that belong to nothing"),
    ],
)
def test_file_that_is_none_says_where(written, said):
    with pytest.raises(ValueError, match=said):
        read_po(written)


def test_old_texts_and_remarks_of_programs_are_passed_over():
    remarks = '#~ msgid "a.old"\n#~ msgstr "x"\n#: air.html:3\n#. remark\n#| msgid "a.was"\n'
    assert read_po(remarks + 'msgid ""\n"a.b"\nmsgstr ""\n"x "\n"y"\n').texts == {(None, "a.b"): Text(("x y",))}


@pytest.mark.parametrize("tag", LANGUAGES)
@given(day=DAY)
def test_dates_are_those_of_the_unicode_consortium(tag, day):
    words, locale = WORDS[tag], LOCALES[tag]
    # noon in Timișoara, whatever its clock does that day
    noon_ms = round((day - date(1970, 1, 1)) / timedelta(milliseconds=1)) + 10 * 3_600_000
    full = {"hu": "y. MMMM d., EEEE", "de": "EEEE, d. MMMM y", "sr": "EEEE, d. MMMM y."}
    full |= {"sr-Latn": full["sr"]}
    near = {"hu": "MMMM d., EEEE", "de": "EEEE, d. MMMM", "sr": "EEEE, d. MMMM", "sr-Latn": "EEEE, d. MMMM"}
    assert words.day(day) == format_date(day, "long", locale=locale)
    assert words.date(noon_ms) == format_date(day, full.get(tag, "EEEE, d MMMM y"), locale=locale)
    assert words.near_date(noon_ms) == format_date(day, near.get(tag, "EEEE, d MMMM"), locale=locale)
    assert words.weekdays(day.weekday(), day.weekday()) == Locale.parse(locale).days["format"]["wide"][day.weekday()]


@pytest.mark.parametrize("tag", LANGUAGES)
@given(value=st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9)), places=st.integers(0, 3))
def test_numbers_are_those_of_the_unicode_consortium(tag, value, places):
    pattern = "#,##0." + "#" * places if places else "#,##0"
    said = format_decimal(round(value, places), format=pattern, locale=LOCALES[tag])
    assert WORDS[tag].number(value, places) == said


@pytest.mark.parametrize("plural", ["n/0", "n ==", "__import__('os')", "n" * 2000])
def test_nonsense_for_a_plural_is_refused_or_harmless(plural):
    with pytest.raises((ValueError, ZeroDivisionError)):
        Words("ro", Catalogue({}, plural=plural), ZONE)._form_of(1)
