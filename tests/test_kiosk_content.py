"""What staff edit: read record by record, a mistake named and the rest shown, nothing unchecked as fact."""

import datetime
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega_kiosk.content import (
    Desk,
    Event,
    Hours,
    Opening,
    Phone,
    Service,
    load_content,
    said,
    sample_folder,
    texts_of,
)
from bega_kiosk.plain import findings
from bega_kiosk.words import LANGUAGES, written_languages

TODAY = datetime.date(2026, 11, 18)
SAMPLE = load_content(sample_folder())
DESK = """
[[desk]]
id = "%s"
source = "a clerk"
seen_on = 2026-11-01
name = "Birou"
address = "Strada Lungă 1"
"""


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(sample_folder(), tmp_path / "content")
    return tmp_path / "content"


def test_sample_is_whole():
    assert SAMPLE.problems == []
    assert len(SAMPLE.every(Service)) == 8


def test_nothing_in_the_sample_pretends_that_somebody_checked_it():
    facts = sum(len(records) for records in SAMPLE.records.values())
    assert len(SAMPLE.unchecked(TODAY)) >= facts


@pytest.mark.parametrize("language", written_languages())
def test_every_text_of_the_sample_is_plain(language):
    records = [record for kind in SAMPLE.records for record in SAMPLE.every(kind)]
    told = [(record.id, said(text, language)) for record in records for text in texts_of(record)]
    assert [(name, found) for name, text in told for found in findings(language, text)] == []


def test_a_text_is_said_in_each_language_and_serbian_in_both_alphabets():
    title = SAMPLE.find(Service, "identity-card").title
    assert {tag: said(title, tag) for tag in LANGUAGES} == {
        "ro": "Carte de identitate nouă",
        "hu": "Új személyi igazolvány",
        "de": "Neuer Personalausweis",
        "sr": "Нова лична карта",
        "sr-Latn": "Nova lična karta",
        "en": "New identity card",
    }


@pytest.mark.parametrize(
    ("checked_on", "is_checked"),
    [
        (None, False),
        (TODAY, True),
        (TODAY - datetime.timedelta(days=365), True),
        (TODAY - datetime.timedelta(days=366), False),
        (TODAY + datetime.timedelta(days=1), False),
    ],
)
def test_a_number_is_a_fact_for_a_year_after_somebody_rang_it(checked_on, is_checked):
    phone = Phone(number="0256 123 456", source="x", seen_on=TODAY, checked_on=checked_on, checked_by="Ana")
    assert phone.is_checked(TODAY) is is_checked
    assert not phone.is_checked(datetime.date(1970, 1, 1)), "a clock that has lost its time knows no ages"


@pytest.mark.parametrize(
    ("moment", "closes"),
    [
        ("2026-11-18T08:00:00", datetime.time(16)),
        ("2026-11-18T15:59:00", datetime.time(16)),
        ("2026-11-18T16:00:00", None),
        ("2026-11-18T07:59:00", None),
        ("2026-11-21T10:00:00", None),
    ],
)
def test_hours_say_until_when_somebody_is_there(moment, closes):
    span = Opening(days=["mon", "wed"], opens=datetime.time(8), closes=datetime.time(16))
    assert Hours(source="x", seen_on=TODAY, open=(span,)).closing(datetime.datetime.fromisoformat(moment)) == closes


@pytest.mark.parametrize(
    ("damage", "said_of_it"),
    [
        (("id = \"b\"", "id = \"b\"\nfone = 1"), "desk b: Object contains unknown field `fone`"),
        (("id = \"b\"", "id = \"a\""), "desk a: there is another 'a'"),
        (("name = \"Birou\"", "name = { ro = \"Birou\" }"), "desk b: name: Object missing required field"),
        (("address", "checked_on = 2026-11-02\naddress"), "desk b: checked_on needs checked_by"),
        (("address", "checked_on = 2026-11-02\nchecked_by = \" \"\naddress"), "desk b: checked_on needs checked_by"),
        (("name = \"Birou\"", "name = \" \""), "desk b: name: Expected `str` matching regex"),
        (
            (
                "address",
                "hours = { source = \"x\", seen_on = 2026-01-01, "
                "open = [{ days = [\"mon\"], opens = \"08:00:00Z\", closes = 16:00:00 }] }\naddress",
            ),
            "desk b: hours.open[0].opens: Expected `time` with no timezone component",
        ),
        (
            (
                "address",
                "hours = { source = \"x\", seen_on = 2026-01-01, "
                "open = [{ days = [\"mon\"], opens = 16:00:00, closes = 08:00:00 }] }\naddress",
            ),
            "desk b: hours: open: closes at 08:00:00",
        ),
        (
            ("address", "phone = { number = \"0800 12x\", source = \"x\", seen_on = 2026-01-01 }\naddress"),
            "desk b: phone.number: Expected `str` matching regex",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_the_rest_is_shown(tmp_path, damage, said_of_it):
    (tmp_path / "desks.toml").write_text(DESK % "a" + (DESK % "b").replace(*damage) + DESK % "c", encoding="utf-8")
    content = load_content(tmp_path)
    assert [desk.id for desk in content.every(Desk)] == ["a", "c"]
    assert len(content.problems) == 1
    assert content.problems[0].startswith(f"{tmp_path / 'desks.toml'}: {said_of_it}")


def test_an_event_by_another_clock_than_the_city_s_is_a_mistake(folder):
    """It can not be put in order among the others, and its hour would be shown as if it were the city's."""
    path = folder / "events.toml"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("2026-12-12T17:00:00", "2026-12-12T17:00:00+02:00"), encoding="utf-8")
    content = load_content(folder)
    assert [event.id for event in content.every(Event)] == [event.id for event in SAMPLE.every(Event)][1:]
    assert "event reading: starts: Expected `datetime` with no timezone" in content.problems[0]


def test_a_file_that_is_cut_in_half_takes_no_other_with_it(folder):
    whole = (folder / "services.toml").read_bytes()
    (folder / "services.toml").write_bytes(whole[: len(whole) // 2])
    content = load_content(folder)
    assert content.every(Desk) != []
    assert any("services.toml: no TOML" in problem for problem in content.problems) or content.every(Service) != []


def test_a_folder_that_is_not_there_has_nothing_to_tell(tmp_path):
    content = load_content(tmp_path / "none")
    assert (content.every(Desk), content.problems) == ([], [])


def test_a_service_names_desks_that_exist(folder):
    text = (folder / "services.toml").read_text(encoding="utf-8")
    (folder / "services.toml").write_text(text.replace('desks = ["tax"]', 'desks = ["tacks"]', 1), encoding="utf-8")
    problems = load_content(folder).problems
    assert len(problems) == 1
    assert "there is no desk 'tacks'" in problems[0]


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_file_is_read_or_named(tmp_path_factory, noise, cut):
    folder = tmp_path_factory.mktemp("content")
    (folder / "desks.toml").write_bytes((DESK % "a").encode()[:cut] + noise)
    content = load_content(folder)
    assert all(isinstance(problem, str) and problem for problem in content.problems)
