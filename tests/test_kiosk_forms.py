"""Forms on paper: what a printer's program gets, how long it may take, what is said of it; and the way without one."""

import asyncio
import contextlib
import re
from pathlib import Path

import httpx
import pytest

from bega_kiosk.config import load
from bega_kiosk.content import Form, form_bytes, load_content, sample_folder
from bega_kiosk.printer import AGAIN_AFTER_MS, KEPT_MS, Printer
from tests import kiosk_gate
from tests.kiosk_feed import wait_until
from tests.kiosk_gate import Kiosk

PDF = b"%PDF-1.4\n" + bytes(range(256)) * 40 + b"\ntrailer\n%%EOF\n"
KEEPS = """#!/bin/sh
printf '%s\\n' "$@" > "${0%lp}asked"
/bin/cat > "${0%lp}printed"
"""
FAILS = "#!/bin/sh\necho 'lp: The printer or class does not exist.' >&2\nexit 1\n"
HANGS = """#!/bin/sh
/bin/sleep 600 &
echo $! > "${0%lp}child"
wait
"""
DEAF = "#!/bin/sh\nexit 0\n"
RECORD = """
[[form]]
id = "%s"
service = "taxes"
source = "a clerk"
seen_on = 2026-11-01
title = "Formular"
%s
"""


@pytest.fixture
def lp(tmp_path, monkeypatch):
    """Return a function that puts a program called lp on the path; without one there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(text):
        path = folder / "lp"
        path.write_text(text, encoding="ascii")
        path.chmod(0o755)
        return folder

    return put


def printed(limit_s=5.0, document=PDF, name="form", title="Cererea"):
    """Have a document printed and return what became of it, once the pages were told."""

    async def run():
        called = asyncio.Event()
        printer = Printer("forms", limit_s, lambda: 0, called.set)
        printer.begin(name, title, document)
        assert printer.state(name) == "doing"
        await asyncio.wait_for(called.wait(), 10)
        return printer.state(name)

    return asyncio.run(run())


def test_queue_gets_the_very_bytes(lp):
    folder = lp(KEEPS)
    assert printed() == "taken"
    assert (folder / "printed").read_bytes() == PDF
    assert (folder / "asked").read_text().split("\n")[:4] == ["-d", "forms", "-t", "Cererea"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (FAILS, "lp ended with 1: lp: The printer or class does not exist."),
        (None, "lp cannot be run: No such file or directory"),
        ("no program at all", "lp cannot be run: Exec format error"),
        ("#!/bin/sh\nkill -9 $$\n", "lp ended with -9"),
    ],
    ids=["fails", "is not there", "is no program", "is killed"],
)
def test_failure_is_told_and_its_reason_logged(lp, caplog, program, said):
    if program:
        lp(program)
    assert printed() == "failed"
    assert said in caplog.text


def test_title_that_no_command_line_can_hold_is_a_failure_and_not_a_wait_without_end(lp, caplog):
    lp(KEEPS)
    assert printed(title="Cererea\0") == "failed"
    assert "lp cannot be run: embedded null byte" in caplog.text


def test_program_that_hangs_is_ended_with_all_that_it_started(lp, caplog):
    folder = lp(HANGS)
    assert printed(limit_s=0.4) == "failed"
    assert "no answer within 0.4 s" in caplog.text
    child = int((folder / "child").read_text())
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())


def test_program_that_reads_nothing_is_no_trouble(lp):
    lp(DEAF)
    assert printed(document=PDF * 400) == "taken"


def test_complaint_without_end_is_cut(lp, caplog):
    lp("#!/bin/sh\n/usr/bin/yes no | /usr/bin/head -c 3000000 >&2\nexit 1\n")
    assert printed() == "failed"
    assert len(caplog.text) < 1000


def test_second_tap_prints_no_second_form_and_a_later_one_does(lp):
    folder = lp('#!/bin/sh\necho once >> "${0%lp}times"\n')
    now_ms = [0]

    async def run():
        called = asyncio.Event()
        printer = Printer("forms", 5.0, lambda: now_ms[0], called.set)

        async def tap():
            called.clear()
            printer.begin("form", "x", PDF)
            printer.begin("form", "x", PDF)
            if printer.state("form") == "doing":
                await asyncio.wait_for(called.wait(), 10)

        await tap()
        await tap()
        assert (folder / "times").read_text().count("once") == 1
        now_ms[0] = AGAIN_AFTER_MS
        await tap()
        assert (folder / "times").read_text().count("once") == 2
        now_ms[0] += KEPT_MS
        assert printer.state("form") == "", "the next citizen is told nothing of it"

    asyncio.run(run())


def test_other_sheet_of_the_same_form_is_printed_at_once(lp):
    """Who sees that it is in another language, and who comes next and reads another, has no 15 seconds to wait."""
    folder = lp('#!/bin/sh\n/bin/cat >> "${0%lp}times"\n')

    async def run():
        called = asyncio.Event()
        printer = Printer("forms", 5.0, lambda: 0, called.set)
        for document in (b"in Romanian,", b"in Hungarian", b"in Romanian,"):
            called.clear()
            printer.begin("form", "x", document)
            if printer.state("form") == "doing":
                await asyncio.wait_for(called.wait(), 10)

    asyncio.run(run())
    assert (folder / "times").read_bytes() == b"in Romanian,in Hungarian"


# ---- what a form is


def content_with(folder, *records, files=()):
    (folder / "forms").mkdir(parents=True, exist_ok=True)
    for name in ("services.toml", "desks.toml"):
        (folder / name).write_bytes((sample_folder() / name).read_bytes())
    for name, raw in files:
        (folder / "forms" / name).write_bytes(raw)
    (folder / "forms.toml").write_text("".join(RECORD % one for one in records), encoding="utf-8")
    return load_content(folder)


@pytest.mark.parametrize(
    "raw",
    [b"", b"PDF", b"%PDF-1.4 cut", b"<p>%PDF-1.4 %%EOF", PDF[: len(PDF) // 2], b"%PDF-" + bytes(6_000_000) + b"%%EOF"],
    ids=["empty", "no pdf", "half", "a page", "cut", "large"],
)  # fmt: skip
def test_file_that_no_printer_understands_is_named_and_not_printed(tmp_path, raw):
    content = content_with(tmp_path, ("a", 'desks = ["tax"]\nfile = "a.pdf"'), files=[("a.pdf", raw)])
    (problem,) = content.problems
    assert problem.endswith("form a: forms/a.pdf is not there, or no whole PDF of at most 5000000 bytes")
    assert form_bytes(tmp_path, content.find(Form, "a")) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("", "give an address or a desk"),
        ('address = "http://dfmt.ro"', "address: Expected `str` matching regex"),
        ('address = "https://dfmt.ro/?cnp=1"', "address: Expected `str` matching regex"),
        ('desks = ["tax"]\nfile = "../secret.pdf"', "file: Expected `str` matching regex"),
        ('desks = ["tax"]\nfile = "-d.pdf.sh"', "file: Expected `str` matching regex"),
        ('desks = ["tacks"]', "there is no desk 'tacks'"),
    ],
    ids=["nowhere", "plain http", "a question", "outside", "an option", "no desk"],
)
def test_form_that_makes_no_sense_is_named(tmp_path, fields, said):
    assert said in content_with(tmp_path, ("a", fields)).problems[0]


def test_every_form_of_the_sample_belongs_to_a_service_and_can_be_got_somewhere():
    forms = load_content(sample_folder()).every(Form)
    assert len(forms) == 4
    assert all(form.address or form.desks for form in forms)


# ---- on the screen


class Citizen:
    """Reads and taps without a script."""

    def __init__(self, kiosk, browser):
        self.kiosk, self.browser = kiosk, browser

    def reads(self, path):
        answer = self.browser.get(path + "?lang=en")
        assert answer.status_code == 200, answer.text
        self.html = answer.text
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text.partition("<main")[2]))

    def prints(self, path, answer="print"):
        sent = self.browser.post(path + "?lang=en", data={"answer": answer}, follow_redirects=False)
        assert sent.status_code == 303
        return sent.headers["location"].partition("?")[0]


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Return a function that gives a citizen at a kiosk with this queue, or with none."""
    one = 'desks = ["tax"]\naddress = "https://dfmt.ro"\nfile = "one.pdf"'
    two = 'desks = ["tax", "social"]\naddress = "https://dfmt.ro/two"'
    content_with(tmp_path / "content", ("one", one), ("two", two), files=[("one.pdf", PDF)])
    with contextlib.ExitStack() as stack:

        def at(queue=None):
            printer = {"printer": {"queue": queue, "limit_seconds": 1}} if queue else {}
            monkeypatch.setattr(kiosk_gate, "load", lambda path, said: load(path, said | printer))
            kiosk = stack.enter_context(Kiosk("24", tmp_path, content_dir=str(tmp_path / "content")))
            return Citizen(kiosk, stack.enter_context(httpx.Client(base_url=kiosk.address, trust_env=False)))

        yield at


def test_without_a_printer_there_is_no_key_to_print_but_a_square_and_a_desk(opened):
    citizen = opened()
    said = citizen.reads("/forms/one")
    assert "dfmt.ro" in said
    assert 'class="square"' in citizen.html
    assert "<button" not in citizen.html
    assert 'href="/services/taxes/where?' in citizen.html, "its desk is the service's: one tap fewer"
    assert "Strada Aristide Demetriade" in citizen.reads("/services/taxes/where")
    assert citizen.browser.get("/forms/one/where").status_code == 404
    assert citizen.prints("/forms/one") == "/forms/one", "a form that is posted all the same leads back"
    assert citizen.browser.get("/forms/one/printed").status_code == 404


def test_form_that_lies_on_a_desk_of_its_own_says_on_which(opened):
    citizen = opened()
    citizen.reads("/forms/two")
    assert 'href="/forms/two/where?' in citizen.html
    assert "Bulevardul Regele Carol I 10" in citizen.reads("/forms/two/where")
    assert "Bulevardul Regele Carol I 10" not in citizen.reads("/services/taxes/where")


def test_form_without_a_file_has_no_key_to_print(opened, lp):
    lp(KEEPS)
    citizen = opened("forms")
    citizen.reads("/forms/two")
    assert "<button" not in citizen.html


def test_form_is_printed_and_no_more_is_said_than_is_known(opened, lp):
    folder = lp(KEEPS)
    citizen = opened("forms")
    assert "Print" in citizen.reads("/forms/one")
    revision = citizen.kiosk.store.revision
    assert citizen.prints("/forms/one") == "/forms/one/printed"
    wait_until(lambda: "The printer has the form." in citizen.reads("/forms/one/printed"))
    assert "Does no paper come out? Call a person." in citizen.reads("/forms/one/printed")
    assert (folder / "printed").read_bytes() == PDF
    assert citizen.kiosk.store.revision > revision, "an open page is told"


@pytest.mark.parametrize("program", [FAILS, HANGS, None], ids=["fails", "hangs", "is not there"])
def test_printer_that_does_not_work_is_told_with_another_way(opened, lp, program):
    if program:
        lp(program)
    citizen = opened("forms")
    citizen.prints("/forms/one")
    wait_until(lambda: "The printer does not work now." in citizen.reads("/forms/one/printed"))
    assert 'href="/forms/one?' in citizen.html
    assert "dfmt.ro" in citizen.reads("/forms/one")


def test_while_a_printer_hangs_the_pages_go_on(opened, lp):
    lp(HANGS)
    citizen = opened("forms")
    citizen.prints("/forms/one")
    assert "We are sending it to the printer." in citizen.reads("/forms/one/printed")
    assert citizen.browser.get("/", timeout=0.9).status_code == 200
    wait_until(lambda: "does not work" in citizen.reads("/forms/one/printed"))


def test_file_that_was_taken_away_since_the_start_is_not_printed(opened, lp, tmp_path):
    folder = lp(KEEPS)
    citizen = opened("forms")
    (tmp_path / "content" / "forms" / "one.pdf").unlink()
    citizen.reads("/forms/one")
    assert "<button" not in citizen.html
    citizen.prints("/forms/one")
    assert "Nothing is being printed now." in citizen.reads("/forms/one/printed")
    assert not (folder / "printed").exists()


def test_service_leads_to_its_forms(opened):
    citizen = opened()
    citizen.reads("/services/taxes")
    assert 'href="/services/taxes/forms?' in citizen.html, "two forms: which?"
    citizen.reads("/services/taxes/forms")
    assert [name in citizen.html for name in ("/forms/one?", "/forms/two?")] == [True, True]
