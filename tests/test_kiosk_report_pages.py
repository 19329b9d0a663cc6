"""Reporting a problem on the screen: what is asked, what is kept and what is not, and what the slip may say."""

import re
from types import SimpleNamespace

import httpx
import pytest

from bega_kiosk.outbox import NotKept
from bega_kiosk.pages import appointments, keyboard
from bega_kiosk.report import LONGEST_ANSWER, Status, read_sent
from bega_kiosk.server import LARGEST_FORM_BYTES
from bega_kiosk.words import LANGUAGES
from tests.kiosk_gate import NOW_MS, Kiosk

HOUR_MS = 3_600_000
SECRETS = ("Maria Ionescu", "Strada Lungă", "0256", "trotuarul")


class Citizen:
    """A browser without a script: it follows forms and addresses, and remembers every address that it saw."""

    def __init__(self, kiosk, browser):
        self.kiosk, self.browser = kiosk, browser
        self.outbox, self.drafts = kiosk.pages.known.outbox, kiosk.pages.known.drafts
        self.addresses = []
        self.at = "/report?lang=en"

    def opens(self, address=None):
        answer = self.browser.get(address or self.at)
        self.addresses.append(str(answer.url))
        assert answer.status_code == 200
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text.partition("<main")[2]))

    def sends(self, **form):
        answer = self.browser.post(self.at, data=form, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        self.at = answer.headers["location"]
        self.addresses.append(self.at)
        return self.opens()

    def answers(self, *given):
        for answer in given:
            self.sends(**({"answer": answer[1:]} if answer.startswith("=") else {"text": answer, "key": "next"}))
        return self.opens()

    def path(self):
        return self.at.partition("?")[0]


@pytest.fixture
def citizen(tmp_path):
    with (
        Kiosk("24", tmp_path) as kiosk,
        httpx.Client(base_url=kiosk.address, follow_redirects=True, trust_env=False) as browser,
    ):
        yield Citizen(kiosk, browser)


WAY = (
    "=road",
    "=street",
    "Strada Lungă 3",
    "=weeks",
    "=yes",
    "=write",
    "trotuarul e spart",
    "=yes",
    "Maria Ionescu",
    "0256 1",
)
SHORT_WAY = ("=light", "=here", "=today", "=no", "=nothing", "=no")


def test_report_goes_from_question_to_question_to_the_outbox_and_leaves_the_screen(citizen):
    said = citizen.answers(*WAY)
    assert citizen.path() == "/report/check"
    assert all(secret in said for secret in SECRETS)
    said = citizen.sends(answer="send")
    (waiting,) = citizen.outbox.waiting()
    report = read_sent(waiting.payload)
    assert report.answers == {
        "what": "road", "where": "street", "street": "Strada Lungă 3", "since": "weeks", "risk": "yes",
        "text": "trotuarul e spart", "person": "Maria Ionescu", "contact": "0256 1",
    }  # fmt: skip
    assert f"{report.code[:4]} {report.code[4:]}" in said
    assert not any(secret in str(draft) for draft in citizen.drafts._drafts.values() for secret in SECRETS)
    assert not any(secret in citizen.opens("/report/check?" + citizen.at.partition("?")[2]) for secret in SECRETS)


def test_nothing_that_was_written_is_in_an_address(citizen):
    citizen.answers(*WAY)
    citizen.sends(answer="send")
    assert len(citizen.addresses) > 20
    assert not any(word in address for address in citizen.addresses for word in ("Maria", "Lung", "0256", "trotuar"))


def test_short_way_asks_for_no_name_and_sends_none(citizen):
    citizen.answers(*SHORT_WAY)
    citizen.sends(answer="send")
    report = read_sent(citizen.outbox.waiting()[0].payload)
    assert report.answers == {"what": "light", "where": "here", "since": "today", "risk": "no"}


def test_answer_that_is_changed_leads_back_to_what_was_understood(citizen):
    citizen.answers(*SHORT_WAY)
    citizen.at = "/report/since?" + citizen.at.partition("?")[2]
    assert "For some days" in citizen.sends(answer="days")
    assert citizen.path() == "/report/check"


def test_other_letters_and_languages_lose_nothing_and_lead_back(citizen):
    citizen.answers("=road", "=street")
    citizen.sends(text="Strada Lun", key="g")
    query = citizen.at.partition("?")[2]
    assert "/report/street" in citizen.browser.get("/easier?" + query).text
    to = re.search(r'href="(/report/street\?lang=sr[^"]*)"', citizen.browser.get("/language?" + query).text)
    assert "Strada Lung" in citizen.opens(to[1].replace("&amp;", "&"))
    assert "draft" not in re.search(r'control home" href="([^"]*)"', citizen.browser.get("/easier?" + query).text)[1]


@pytest.mark.parametrize(("letters", "path"), [(LONGEST_ANSWER, "/report/name"), (LONGEST_ANSWER + 1, "/report/text")])
def test_text_of_ten_thousand_letters_is_taken_and_a_longer_one_is_told_so(citizen, letters, path):
    citizen.answers("=road", "=here", "=today", "=no", "=write")
    said = citizen.sends(text="ж" * letters, key="next")
    assert citizen.path() == path
    assert ("too long" in said) == (letters > LONGEST_ANSWER)


def test_form_that_lies_of_its_length_is_refused(citizen):
    body = b"text=" + b"x" * LARGEST_FORM_BYTES
    answer = citizen.browser.post("/report/text?lang=en", content=body, headers={"Content-Length": f"{len(body):015}"})
    assert answer.status_code == 413


def test_form_of_megabytes_is_refused_in_words(citizen):
    answer = citizen.browser.post("/report/text?lang=en", content=b"text=" + b"x" * LARGEST_FORM_BYTES)
    assert answer.status_code == 413
    assert "It is not your fault" in answer.text


def test_second_tap_on_send_shows_the_slip_and_sends_nothing(citizen):
    citizen.answers(*SHORT_WAY)
    before = citizen.at
    first = citizen.sends(answer="send")
    citizen.at = before
    assert citizen.sends(answer="send") == first
    assert citizen.path() == "/report/sent"
    assert len(citizen.outbox.waiting()) == 1


def test_number_that_is_sent_twice_in_a_moment_rings_once(citizen):
    """The first tap has no draft yet, so that the second knows nothing of it."""
    slips = []
    for number in ("0256 123456", "0256 123456", "0256 123457"):
        citizen.at = "/human/call?lang=en"
        slips.append(citizen.sends(text=number, key="next"))
        assert citizen.path() == "/report/sent"
    assert slips[0] == slips[1] != slips[2]
    assert [read_sent(each.payload).answers["contact"][-1] for each in citizen.outbox.waiting()] == ["6", "7"]


def test_call_for_help_in_the_middle_loses_nothing_and_its_slip_has_its_own_time(citizen):
    citizen.answers(*SHORT_WAY)
    citizen.sends(answer="send")
    citizen.kiosk.now_ms += HOUR_MS
    citizen.at = "/report?" + citizen.at.partition("?")[2]
    citizen.answers(*WAY[:3])
    citizen.at = "/human/call?" + citizen.at.partition("?")[2]
    said = citizen.sends(text="0256 123456", key="next")
    assert "at 14:06." in said
    assert "We have kept your request." in said
    citizen.at = "/report/street?" + citizen.at.partition("?")[2]
    assert "Strada Lungă 3" in citizen.opens()


def test_what_no_paper_shows_is_not_written(citizen):
    citizen.answers("=road", "=street")
    said = citizen.sends(text="a\x00\x1b\x7f\x9bb\u202ec\u2066\t\U0001f475\u200d", key="\x07")
    assert "abc\U0001f475" in said
    token = citizen.at.rpartition("=")[2]
    assert citizen.drafts.find(token).answers["street"] == "abc\U0001f475\u200d"


def test_street_that_was_erased_is_asked_for_again(citizen):
    citizen.answers("=road", "=street")
    citizen.sends(text="a", key="erase")
    citizen.at = "/report/where?" + citizen.at.partition("?")[2]
    citizen.sends(answer="street")
    assert citizen.path() == "/report/street"


def test_slip_says_nothing_of_sent_while_the_desk_knows_nothing(citizen):
    citizen.answers(*SHORT_WAY)
    citizen.sends(answer="send")
    code = read_sent(citizen.outbox.waiting()[0].payload).code
    citizen.outbox.note(Status(code=code, state="unknown"))
    assert "We have kept your report." in citizen.opens()


def test_code_that_is_looked_up_makes_no_slip(citizen):
    citizen.at = "/report/code?lang=en"
    citizen.sends(text="K7TM R4QX", key="next")
    assert "You have not written anything yet." in citizen.opens("/report/sent?" + citizen.at.partition("?")[2])


def test_draft_that_its_writer_left_is_gone(citizen):
    citizen.answers(*WAY)
    assert citizen.browser.post("/end?" + citizen.at.partition("?")[2]).status_code == 204
    assert citizen.drafts._drafts == {}
    assert "Maria" not in citizen.opens()
    assert citizen.browser.post("/end?draft=nonsense").status_code == 204


def test_empty_text_is_asked_for_again(citizen):
    citizen.answers("=road", "=street")
    assert "Please write something" in citizen.sends(text="  ", key="next")
    assert citizen.path() == "/report/street"


@pytest.mark.parametrize("answer", ["", "nonsense", "road\x00", "x" * 9999])
def test_answer_that_is_none_asks_again(citizen, answer):
    citizen.sends(answer=answer)
    assert citizen.path() == "/report"


def test_disk_that_is_full_is_told_and_nothing_is_lost(citizen, monkeypatch):
    citizen.answers(*SHORT_WAY)

    def full(*_):
        raise NotKept("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(citizen.outbox, "keep", full)
        assert "We could not keep your report. Please talk to a person." in citizen.sends(answer="send")
    citizen.sends(answer="send")
    assert citizen.path() == "/report/sent"
    assert len(citizen.outbox.waiting()) == 1


def test_draft_that_lay_too_long_is_gone_and_the_way_begins_anew(citizen):
    citizen.answers(*WAY)
    citizen.drafts._drafts.clear()
    assert "You have not written anything yet." in citizen.opens()
    citizen.sends(answer="send")
    assert citizen.path() == "/report"


def test_two_citizens_never_see_each_other(citizen):
    citizen.answers(*WAY)
    mine, citizen.at = citizen.at, "/report?lang=en"
    citizen.answers(*SHORT_WAY)
    assert "Maria" not in citizen.opens()
    assert "Maria" in citizen.opens(mine)


def test_slip_says_sent_when_the_desk_has_it_and_a_number_when_there_is_one(citizen):
    citizen.answers(*SHORT_WAY)
    said = citizen.sends(answer="send")
    assert "We have kept your report." in said
    assert "Written on Wednesday, 18 November 2026, at 13:06." in said
    citizen.kiosk.now_ms += HOUR_MS
    assert "at 13:06." in citizen.opens(), "the slip tells when it was written, not when it is looked at"
    assert "not a registration number" in said
    assert "Without a connection it leaves later." in said
    code = read_sent(citizen.outbox.waiting()[0].payload).code
    citizen.outbox.note(Status(code=code, state="received", changed_ms=NOW_MS))
    said = citizen.opens()
    assert "We have sent it. Thank you!" in said
    assert "Without a connection" not in said, "it has left"
    citizen.outbox.note(Status(code=code, state="work", number="20114", changed_ms=NOW_MS))
    said = citizen.opens()
    assert "The number of your report is 20114." in said
    assert "not a registration number" not in said


def test_state_that_is_asked_offline_is_the_last_known_with_its_age(citizen):
    code = citizen.outbox.keep("problem", {}, "en")
    citizen.at = "/report/code?lang=en"
    citizen.sends(text=code.lower(), key="next")
    assert citizen.path() == "/report/state"
    assert "It has not left yet." in citizen.opens()
    citizen.outbox.note(Status(code=code, state="refused", detail="private land", changed_ms=NOW_MS))
    citizen.kiosk.now_ms += 30 * HOUR_MS
    said = citizen.opens()
    assert "It could not be solved. The reason: private land" in said
    assert "Last news from city hall: one day ago." in said
    assert len(citizen.outbox.asked()) == 1


def test_age_that_a_wrong_clock_gave_is_not_told(citizen):
    code = citizen.outbox.keep("problem", {}, "en")
    citizen.at = "/report/code?lang=en"
    citizen.sends(text=code, key="next")
    as_it_was = citizen.kiosk.now_ms
    for heard_ms, asked_ms, age in (
        (5_000, as_it_was, None),
        (as_it_was, 5_000, None),
        (as_it_was, as_it_was - HOUR_MS, None),
        (as_it_was, as_it_was + HOUR_MS, "Last news from city hall: one hour ago."),
    ):
        citizen.kiosk.now_ms = heard_ms
        citizen.outbox.note(Status(code=code, state="work", changed_ms=NOW_MS))
        citizen.kiosk.now_ms = asked_ms
        assert (age or "We do not know how old this news is.") in citizen.opens()


def test_code_of_another_kiosk_is_asked_for_and_one_that_is_none_is_not(citizen):
    citizen.at = "/report/code?lang=en"
    assert "eight letters and digits" in citizen.sends(text="K7", key="next")
    assert citizen.outbox.asked() == []
    said = citizen.sends(text="K7TM R4QX", key="next")
    assert "We do not know now. We are asking city hall." in said
    citizen.outbox.note(Status(code="K7TMR4QX", state="unknown"))
    assert "We cannot find this code." in citizen.opens()


def test_code_is_in_no_address(citizen):
    citizen.at = "/report/code?lang=en"
    citizen.sends(text="K7TMR4QX", key="next")
    assert not any("K7TM" in address for address in citizen.addresses)


@pytest.mark.parametrize("tag", LANGUAGES)
@pytest.mark.parametrize("shape", keyboard.ROOM)
@pytest.mark.parametrize("is_reach", [False, True])
def test_keyboard_has_every_letter_of_the_language_once(tag, shape, is_reach):
    screen = SimpleNamespace(
        display=SimpleNamespace(language=tag, is_reach=is_reach), panel=SimpleNamespace(shape=shape)
    )
    parts = keyboard.parts(screen)
    letters = "".join(parts)
    assert sorted(letters) == sorted(keyboard.LETTERS[tag] + keyboard.DIGITS)
    columns, rows = (keyboard.ROOM_REACH if is_reach else keyboard.ROOM)[shape]
    assert all(len(part) <= columns * rows for part in parts)


@pytest.mark.parametrize(("shape", "columns"), [("tall", 3), ("wide", 11), ("small", 6)])
def test_digits_alone_stand_as_on_a_telephone_where_there_is_room(shape, columns):
    screen = SimpleNamespace(
        display=SimpleNamespace(language="ro", is_reach=False),
        panel=SimpleNamespace(shape=shape, is_large=shape != "small"),
        page=1,
        draw=lambda _, values: values,
    )
    assert keyboard.draw(screen, "", letters=appointments.DIGITS).html["columns"] == columns


def test_keys_write_as_people_do(citizen):
    citizen.answers("=road", "=street")
    for key in "str. b":
        said = citizen.sends(text=citizen.drafts.find(citizen.at.rpartition("=")[2]).answers.get("street", ""), key=key)
    assert "Str. B" in said
    citizen.sends(text="Str. B", key="erase")
    assert citizen.drafts.find(citizen.at.rpartition("=")[2]).answers["street"] == "Str. "
