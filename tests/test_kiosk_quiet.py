"""The quiet pages: nothing unchecked as fact, nothing past its day, a call asked for on the disk and in no address."""

import asyncio
import datetime
import shutil

import httpx
import pytest

from bega_kiosk.config import load
from bega_kiosk.content import sample_folder
from bega_kiosk.outbox import Outbox
from bega_kiosk.report import read_sent
from bega_kiosk.server import Pages
from bega_kiosk.store import Store
from bega_kiosk.words import load_words
from tests.kiosk_feed import CORNER

NOW = datetime.datetime(2026, 11, 18, 11, 6, tzinfo=datetime.UTC)  # a Wednesday, 13:06 in Timișoara
YEAR = datetime.timedelta(days=366)
UNCHECKED = 'phone = { number = "0356 914", source = "impactpress.ro", seen_on = 2026-11-21 }'
CHECKED = UNCHECKED.replace(" }", ', checked_on = 2026-11-17, checked_by = "Ana" }')
HELPER_HOURS = """
[helper.hours]
source = "city hall"
seen_on = 2026-11-01
checked_on = 2026-11-02
checked_by = "Ana"
open = [{ days = ["mon", "tue", "wed"], opens = 09:00:00, closes = 15:30:00 }]
"""


class Quiet:
    """A kiosk's pages over the content of `folder`, at a moment that the test sets."""

    def __init__(self, folder, now=NOW):
        self.now_ms = int(now.timestamp() * 1000)
        given = {"panel": "24", "state_dir": str(folder.parent), "content_dir": str(folder)}
        config = load(CORNER, {"kiosk": given})
        self.store = Store(folder.parent / "kiosk.sqlite", lambda: self.now_ms)
        pages = Pages(config, self.store, load_words(config.timezone), lambda: self.now_ms)
        self._way = httpx.ASGITransport(app=pages.app())

    def ask(self, method, path, **more):
        """Return the answer to a request."""

        async def asked():
            async with httpx.AsyncClient(transport=self._way, base_url="http://kiosk") as client:
                return await client.request(method, path, **more)

        return asyncio.run(asked())

    def shows(self, path, lang="en"):
        """Return the text of a screen; it must be one."""
        answer = self.ask("GET", path, params={"lang": lang})
        assert answer.status_code == 200
        return answer.text


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(sample_folder(), tmp_path / "content")
    return tmp_path / "content"


def change(folder, name, old, new):
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def test_a_number_that_nobody_rang_is_not_shown(folder):
    said = Quiet(folder).shows("/help/number/water")
    assert "0356" not in said
    assert "We have no checked number." in said


def test_a_number_is_shown_when_somebody_rang_it_and_not_a_year_later(folder):
    change(folder, "numbers.toml", UNCHECKED, CHECKED)
    assert "0356 914" in Quiet(folder).shows("/help/number/water")
    assert "0356 914" not in Quiet(folder, NOW + YEAR).shows("/help/number/water")


def test_a_kiosk_that_wakes_in_1970_shows_112_and_no_other_number(folder):
    change(folder, "numbers.toml", UNCHECKED, CHECKED)
    lost = Quiet(folder, datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
    assert "0356 914" not in lost.shows("/help/number/water")
    assert "Call 112" in lost.shows("/help/112")
    assert "1970" not in lost.shows("/"), "the clock of the footer"


def test_a_human_is_there_until_the_hour_that_somebody_checked(folder):
    assert "We do not know now if somebody is here." in Quiet(folder).shows("/human")
    with (folder / "helpers.toml").open("a", encoding="utf-8") as file:
        file.write(HELPER_HOURS)
    assert "The digital ambassador can help you, until 15:30." in Quiet(folder).shows("/human")
    assert "Open: Monday–Wednesday, 9:00–15:30." in Quiet(folder).shows("/human")
    evening = NOW + datetime.timedelta(hours=3)
    assert "Nobody is here now." in Quiet(folder, evening).shows("/human")
    assert "We do not know now if somebody is here." in Quiet(folder, NOW + YEAR).shows("/human")


def test_a_list_that_no_clerk_signed_says_that_it_is_an_example(folder):
    assert "EXEMPLU" in Quiet(folder).shows("/services/taxes", "ro")
    change(
        folder,
        "services.toml",
        "seen_on = 2026-11-21",
        'seen_on = 2026-11-21\nchecked_on = 2026-11-18\nchecked_by = "Ana"',
    )
    assert "EXEMPLU" not in Quiet(folder).shows("/services/taxes", "ro")
    assert "EXEMPLU" in Quiet(folder).shows("/services/taxes/where", "ro"), "nobody signed the desk"


@pytest.mark.parametrize(("lang", "word"), [("ro", "EXEMPLU"), ("hu", "PÉLDA"), ("sr", "ПРИМЕР"), ("en", "EXAMPLE")])
@pytest.mark.parametrize(
    ("path", "file"), [("/events", "events"), ("/jobs", "jobs"), ("/participate", "consultations")]
)
def test_a_list_of_what_nobody_checked_says_so_itself(folder, path, file, lang, word):
    assert word in Quiet(folder).shows(path, lang)
    signed = 'seen_on = 2026-11-21\nchecked_on = 2026-11-18\nchecked_by = "Ana"'
    change(folder, f"{file}.toml", "seen_on = 2026-11-21", signed)
    assert word not in Quiet(folder).shows(path, lang)


def test_what_is_past_is_not_offered(folder):
    assert "Reading evening" in Quiet(folder).shows("/events")
    later = Quiet(folder, NOW + 2 * YEAR)
    assert "We know of no event now." in later.shows("/events")
    assert "Gardener" not in later.shows("/jobs")
    assert "New rules for the parks" not in later.shows("/participate")


def test_the_day_of_a_street_is_known_only_when_checked(folder):
    day = '\n[[day]]\nid = "lunga"\nsource = "RETIM"\nseen_on = 2026-11-01\nstreet = "Lungă"\ndays = ["thu", "mon"]\n'
    assert "We do not know the day for your street." in Quiet(folder).shows("/waste/day")
    with (folder / "waste.toml").open("a", encoding="utf-8") as file:
        file.write(day)
    assert "We do not know the day" in Quiet(folder).shows("/waste/day/lunga")
    change(folder, "waste.toml", 'street = "Lungă', 'checked_on = 2026-11-02\nchecked_by = "Ana"\nstreet = "Lungă')
    assert "Lungă" in Quiet(folder).shows("/waste/day")
    assert "Collected here: Monday, Thursday." in Quiet(folder).shows("/waste/day/lunga")


def test_what_no_record_has_is_no_page(folder):
    kiosk = Quiet(folder)
    for path in ("/services/none", "/help/number/none", "/events/none", "/waste/thing/none", "/appointments/none"):
        assert kiosk.ask("GET", path).status_code == 404


def test_pages_of_a_city_that_wrote_nothing_are_sentences(tmp_path):
    (tmp_path / "content").mkdir()
    kiosk = Quiet(tmp_path / "content")
    for path in ("/services", "/help", "/human", "/waste", "/waste/points", "/events", "/participate", "/jobs"):
        assert "<h1" in kiosk.shows(path)
    assert "We have no list of services now." in kiosk.shows("/services")


@pytest.mark.parametrize(
    ("path", "kind", "more"),
    [("/human/call", "callback", {}), ("/appointments/taxes/call", "appointment", {"service": "taxes"})],
)
def test_a_call_asked_for_is_on_the_disk_and_in_no_address(folder, path, kind, more):
    kiosk = Quiet(folder)
    answer = kiosk.ask("POST", path, data={"text": "0700 000 000", "key": "next"})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/report/sent")
    assert "0700" not in answer.headers["location"]
    outbox = Outbox(folder.parent, "kiosk-corner", lambda: 0, lambda count: bytes(count))
    report = read_sent(outbox.waiting()[0].payload)
    assert (report.kind, report.answers) == (kind, {"contact": "0700 000 000", **more})


def test_a_number_of_few_digits_is_asked_again(folder):
    kiosk = Quiet(folder)
    answer = kiosk.ask("POST", "/human/call", data={"text": "07", "key": "next"})
    assert "The number has too few digits." in kiosk.ask("GET", answer.headers["location"] + "&lang=en").text
    assert Outbox(folder.parent, "kiosk-corner", lambda: 0, lambda count: bytes(count)).waiting() == []
