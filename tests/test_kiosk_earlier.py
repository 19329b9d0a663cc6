"""Somebody reported this already: told of the kiosk's own place and of what is not done alone; and the deadline."""

import json
import os
import re

import httpx
import pytest

from bega_kiosk.outbox import Outbox
from bega_kiosk.report import Status, read_sent, spaced
from bega_kiosk.reported import FILE, KEPT_MS, MOST, Earlier, Reported
from tests.kiosk_gate import NOW_MS, Kiosk
from tests.test_kiosk_report_pages import Citizen

DAY_MS = 86_400_000
REST = ("=today", "=no", "=nothing", "=no")
NAMED = ("=today", "=no", "=nothing", "=yes", "Maria Ionescu", "0256 123456")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with (
        Kiosk("24", tmp_path_factory.mktemp("kiosk")) as kiosk,
        httpx.Client(base_url=kiosk.address, follow_redirects=True, trust_env=False) as browser,
    ):
        yield kiosk, browser


@pytest.fixture
def citizen(opened):
    kiosk, browser = opened
    kiosk.now_ms = NOW_MS
    folder = kiosk.pages.known.outbox._folder
    for name in (FILE, "reports.sqlite", "reports.sqlite-wal", "reports.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    return Citizen(kiosk, browser)


def report(citizen, *answers):
    """Send a report and return its code."""
    citizen.at = "/report?lang=en"
    citizen.answers(*answers)
    citizen.sends(answer="send")
    assert citizen.path() == "/report/sent"
    return read_sent(citizen.outbox.waiting()[-1].payload).code


def begins(citizen, what="light", where="here"):
    citizen.at = "/report?lang=en"
    return citizen.answers(f"={what}", f"={where}")


def test_second_citizen_hears_of_the_first_and_the_desk_of_both(citizen):
    first = report(citizen, "=light", "=here", *REST)
    citizen.kiosk.now_ms += 2 * DAY_MS
    said = begins(citizen)
    assert citizen.path() == "/report/same"
    assert "Somebody already reported here, on 18 November 2026: " in said
    assert spaced(first) not in said
    citizen.answers("=yes", *REST)
    citizen.sends(answer="send")
    told = read_sent(citizen.outbox.waiting()[-1].payload).answers
    assert told == {"what": "light", "where": "here", "same": spaced(first), "since": "today", "risk": "no"}


def test_something_else_is_a_report_of_its_own(citizen):
    report(citizen, "=light", "=here", *REST)
    begins(citizen)
    citizen.answers("=no", *REST)
    citizen.sends(answer="send")
    assert read_sent(citizen.outbox.waiting()[-1].payload).answers["same"] == "no"
    assert len(json.loads((citizen.outbox._folder / FILE).read_bytes())) == 2


@pytest.mark.parametrize(("what", "where"), [("road", "here"), ("light", "street")])
def test_other_kinds_and_other_places_are_not_taken_for_it(citizen, what, where):
    report(citizen, "=light", "=here", *REST)
    begins(citizen, what, where)
    assert citizen.path() in ("/report/since", "/report/street")


def test_what_is_reported_elsewhere_or_is_no_kind_is_not_remembered(citizen):
    report(citizen, "=light", "=street", "Strada Lungă 3", *REST)
    report(citizen, "=other", "=here", *REST)
    assert not (citizen.outbox._folder / FILE).exists()


@pytest.mark.parametrize(
    ("state", "is_told"),
    [("received", True), ("forwarded", True), ("work", True), ("done", False), ("refused", False), ("unknown", True)],
)
def test_only_what_is_open_is_told(citizen, state, is_told):
    """A desk that does not know the code yet has not got it: the report still waits here."""
    code = report(citizen, "=light", "=here", *REST)
    citizen.outbox.note(Status(code=code, state=state, changed_ms=NOW_MS))
    begins(citizen)
    assert citizen.path() == ("/report/same" if is_told else "/report/since")


def test_its_state_is_shown_with_its_age_and_without_its_code_and_number(citizen):
    code = report(citizen, "=light", "=here", *REST)
    begins(citizen)
    query = citizen.at.partition("?")[2]
    assert "It has not left yet." in citizen.opens("/report/earlier?" + query)
    citizen.outbox.note(Status(code=code, state="work", number="20114", changed_ms=NOW_MS))
    citizen.kiosk.now_ms += 3 * 3_600_000
    said = citizen.opens("/report/earlier?" + query)
    assert "Last news from city hall: 3 hours ago." in said
    assert "20114" not in said
    assert spaced(code) not in said


def test_place_that_is_changed_is_asked_about_again(citizen):
    report(citizen, "=light", "=here", *REST)
    begins(citizen)
    citizen.sends(answer="yes")
    query = citizen.at.partition("?")[2]
    citizen.at = "/report/where?" + query
    citizen.sends(answer="street")
    assert citizen.path() == "/report/street"
    citizen.at = "/report/where?" + query
    citizen.sends(answer="here")
    assert citizen.path() == "/report/same"


def test_address_without_a_report_says_so(citizen):
    for path in ("/report/same", "/report/earlier"):
        assert "You have not written anything yet." in citizen.opens(path + "?lang=en")


# ---- the file


def reported(folder):
    return Reported(folder, Outbox(folder, "kiosk-corner", lambda: NOW_MS, os.urandom))


def test_file_holds_a_kind_a_code_and_a_day_and_is_its_owners_alone(citizen):
    report(citizen, "=light", "=here", *NAMED)
    path = citizen.outbox._folder / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    (kept,) = json.loads(path.read_bytes())
    assert kept.keys() == {"kind", "code", "time_ms"}
    assert not re.search("Maria|0256", path.read_text())


@pytest.mark.parametrize("raw", [b"", b"[", b"\xff\xfe", b"{}", b'[{"kind": "light"}]', b"[" * 9999, bytes(4096)])
def test_file_that_is_damaged_is_forgotten_and_written_anew(tmp_path, raw):
    (tmp_path / FILE).write_bytes(raw)
    here = reported(tmp_path)
    assert here.find("light", NOW_MS) is None
    here.note("light", "K7TMR4QX", NOW_MS)
    assert len(here._read()) == 1


def test_file_has_an_end_and_a_report_too(tmp_path):
    here = reported(tmp_path)
    codes = [here._outbox.keep("problem", {}, "en") for _ in range(2)]
    for code in codes:
        here.note("light", code, NOW_MS)
    assert here.find("light", NOW_MS + KEPT_MS) == Earlier("light", codes[0], NOW_MS), "the first one"
    assert here.find("light", NOW_MS + KEPT_MS + 1) is None
    for _ in range(MOST):
        here.note("road", "K7TMR4QX", NOW_MS)
    assert len(here._read()) == MOST


@pytest.mark.parametrize("now_ms", [0, NOW_MS - 3_600_000])
def test_clock_that_is_wrong_tells_of_nothing(tmp_path, now_ms):
    here = reported(tmp_path)
    here.note("light", here._outbox.keep("problem", {}, "en"), NOW_MS)
    assert here.find("light", now_ms) is None
    here.note("road", here._outbox.keep("problem", {}, "en"), 5_000)
    assert here.find("road", NOW_MS) is None


def test_disk_that_is_full_loses_no_report(citizen, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bega_kiosk.reported.require_private", full)
    assert report(citizen, "=light", "=here", *REST)
    assert "not remembered" in caplog.text


# ---- when an answer is owed


DEADLINE = "city hall answers within 30 days"


def test_deadline_is_told_to_who_gave_a_name_once_there_is_a_number(citizen):
    code = report(citizen, "=light", "=here", *NAMED)
    slip = citizen.at
    assert DEADLINE not in citizen.opens()
    citizen.outbox.note(Status(code=code, state="received", changed_ms=NOW_MS))
    assert DEADLINE not in citizen.opens(), "no number, no registration: the days do not run"
    citizen.outbox.note(Status(code=code, state="received", number="20114", changed_ms=NOW_MS))
    assert DEADLINE in citizen.opens(slip)
    citizen.at = "/report/code?" + slip.partition("?")[2]
    citizen.sends(text=code, key="next")
    assert DEADLINE in citizen.opens()
    citizen.outbox.note(Status(code=code, state="done", number="20114", changed_ms=NOW_MS))
    assert DEADLINE not in citizen.opens()


def test_deadline_is_not_promised_without_a_name_nor_to_who_asks_after_another(citizen):
    code = report(citizen, "=light", "=here", *REST)
    citizen.outbox.note(Status(code=code, state="received", number="20114", changed_ms=NOW_MS))
    assert DEADLINE not in citizen.opens()
    named = report(citizen, "=road", "=here", *NAMED)
    citizen.outbox.note(Status(code=named, state="received", number="20115", changed_ms=NOW_MS))
    citizen.at = "/report/code?lang=en"
    citizen.sends(text=named, key="next")
    assert DEADLINE not in citizen.opens(), "another session: the report is gone from here, and who wrote it with it"


def test_deadline_is_told_later_too_where_the_desk_says_that_it_was_signed(citizen):
    """Another day, another session, another kiosk: the desk knows that a name was given."""
    named = report(citizen, "=road", "=here", *NAMED)
    citizen.outbox.note(Status(code=named, state="work", number="20115", changed_ms=NOW_MS, is_owed=True))
    citizen.at = "/report/code?lang=en"
    citizen.sends(text=named, key="next")
    assert DEADLINE in citizen.opens()
    citizen.outbox.note(Status(code=named, state="work", number="20115", changed_ms=NOW_MS))
    assert DEADLINE not in citizen.opens(), "who wrote it was forgotten"
