"""Sheets of forms that no clerk has given: one page of the paper's size, in every language, marked as an example."""

import contextlib
import re

import httpx
import pytest

from bega.browser import running_browser
from bega.clock import wall_ms
from bega_kiosk import sheets
from bega_kiosk.command import main
from bega_kiosk.config import load
from bega_kiosk.content import Form, load_content, pdf_bytes
from bega_kiosk.sheet import sheet_path, sheet_screen
from bega_kiosk.words import LANGUAGES, load_words
from bega_protocols.errors import LineError
from tests.conftest import IS_NIGHT
from tests.kiosk_feed import CORNER
from tests.kiosk_gate import Kiosk
from tests.test_kiosk_forms import Citizen, content_with, opened  # noqa: F401 -- a fixture

POINTS_PER_MM = 72 / 25.4
OUT = """[...document.querySelectorAll('body *')].filter((one) => {
  const r = one.getBoundingClientRect(); return r.right > innerWidth + .5 || one.scrollWidth > one.clientWidth + 1;
}).map((one) => one.textContent.slice(0, 40))"""
LETTERS = "[...new Set([...document.fonts].filter((one) => one.status === 'loaded').map((one) => one.family))].sort()"


def pages_mm(pdf):
    """Return the size of each page of a PDF as Chromium writes it (ISO 32000-1, 7.7.3.3: a page's MediaBox)."""
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    return [tuple(float(side) / POINTS_PER_MM for side in box) for box in boxes]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return load(CORNER, {"kiosk": {"state_dir": str(tmp_path_factory.mktemp("kiosk"))}})


@pytest.fixture(scope="module")
def drawing():
    with running_browser() as browser:
        yield browser


def html_of(config, language, name, paper, content=None):
    content = content or load_content(config.content_folder)
    form = content.find(Form, name)
    screen = sheet_screen(config, load_words(config.timezone)[language], form, wall_ms())
    return sheets.html_of(screen, content, form, sheets.PAPERS[paper])


@pytest.mark.parametrize("paper", sheets.PAPERS)
def test_every_form_is_one_sheet_of_the_paper_in_every_language(config, drawing, tmp_path, paper):
    width_mm, height_mm = sheets.PAPERS[paper].width_mm, sheets.PAPERS[paper].height_mm
    forms = [form.id for form in load_content(config.content_folder).every(Form)]
    for turn, (name, language) in enumerate((name, language) for name in forms for language in LANGUAGES):
        if turn % 4 and not IS_NIGHT:
            continue
        html = html_of(config, language, name, paper)
        ((wide_mm, high_mm),) = pages_mm(sheets.printed(drawing, html, sheets.PAPERS[paper]))
        assert wide_mm == pytest.approx(width_mm, abs=0.5), (name, language)
        assert high_mm == pytest.approx(height_mm or high_mm, abs=0.5), (name, language)
        (tmp_path / "sheet.html").write_text(html, encoding="utf-8")
        page = drawing.open(round(width_mm * sheets.PX_PER_MM), 800)
        page.go((tmp_path / "sheet.html").as_uri())
        assert page.run(OUT) == [], (name, language)
        assert page.run(LETTERS)[-1] == ("Noto Sans" if language == "sr" else "Atkinson Hyperlegible Next")
        page.close()


def test_sheet_says_that_it_is_an_example_until_somebody_has_checked_it(config):
    html = html_of(config, "ro", "tax-certificate-request", "a4")
    assert html.count("EXEMPLU. Nu este formularul oficial.") == 2
    assert "Ce aduceți" in html
    assert "dfmt.ro" in html


def test_sheet_that_is_too_long_for_its_paper_is_an_error(config, drawing):
    html = html_of(config, "de", "parking-card-request", "a4").replace("<ul>", "<ul>" + "<li>Papier</li>" * 60)
    with pytest.raises(LineError, match="does not fit on a4"):
        sheets.printed(drawing, html, sheets.PAPERS["a4"])


def test_command_makes_what_the_kiosk_prints(tmp_path, capsys):
    words = ["forms", "--data", str(tmp_path), "--lang", "hu", "--paper", "slip"]
    assert main(words) == 0
    content = load_content(load(CORNER).content_folder)
    form = content.every(Form)[0]

    def sheet(language):
        screen = sheet_screen(load(CORNER), load_words(load(CORNER).timezone)[language], form, wall_ms())
        return pdf_bytes(sheet_path(tmp_path, screen, content, form))

    assert pages_mm(sheet("hu"))[0][0] == pytest.approx(72, abs=0.5)
    assert sheet("ro") is None
    assert "forms has them" in capsys.readouterr().out


def test_sheet_that_says_more_than_is_checked_now_is_not_printed(tmp_path, monkeypatch):
    """Paper has no date of expiry: a sheet without its mark, made when somebody had just asked, says so for ever."""
    checked = 'desks = ["tax"]\naddress = "https://dfmt.ro"\nchecked_on = 2026-11-01\nchecked_by = "a clerk"'
    content_with(tmp_path / "content", ("one", checked))
    monkeypatch.setattr(sheets, "running_browser", contextlib.nullcontext)
    monkeypatch.setattr(sheets, "printed", lambda *_: b"%PDF-1.4\n%%EOF\n")
    with (
        Kiosk("24", tmp_path, "forms", content_dir=str(tmp_path / "content")) as kiosk,
        httpx.Client(base_url=kiosk.address, trust_env=False) as browser,
    ):
        citizen = Citizen(kiosk, browser)

        def make():
            assert sheets.make(kiosk.config, sheets.PAPERS["a4"], ["en"], kiosk.now_ms, lambda *_: None) == []
            assert len([*(tmp_path / "forms").iterdir()]) == 1, "what it was before is gone"

        make()
        assert "Print" in citizen.reads("/forms/one")
        kiosk.now_ms += 366 * 86_400_000
        assert "Print" not in citizen.reads("/forms/one")
        make()
        assert "Print" in citizen.reads("/forms/one")


def test_sheet_is_printed_in_the_language_of_the_reader_where_the_clerk_gave_nothing(opened, tmp_path):  # noqa: F811
    citizen = opened("forms")
    citizen.reads("/forms/two")
    assert "<button" not in citizen.html
    content, config = citizen.kiosk.pages.known.content, citizen.kiosk.config
    form = content.find(Form, "two")
    screen = sheet_screen(config, load_words(config.timezone)["en"], form, citizen.kiosk.now_ms)
    sheet = sheet_path(tmp_path, screen, content, form)
    sheet.parent.mkdir()
    sheet.write_bytes(b"%PDF-1.4 cut in half")
    citizen.reads("/forms/two")
    assert "<button" not in citizen.html
    sheet.write_bytes(b"%PDF-1.4\n%%EOF\n")
    assert "Print" in citizen.reads("/forms/two")
    assert "<button" not in citizen.browser.get("/forms/two?lang=hu").text
