"""A form on paper where no clerk has drawn one: made of what the content says of it, in the reader's language.

It is nobody's official form, and says so. A4 is ISO 216; a slip printer's roll is 80 mm wide, of which 72 mm are
printed (576 dots of 1/203 inch), and as long as what stands on it. Chromium draws the pages (bega/browser.py).
"""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bega import look
from bega.browser import Browser, running_browser
from bega_kiosk.config import Config
from bega_kiosk.content import Content, Form, load_content
from bega_kiosk.pages.screen import Screen
from bega_kiosk.sheet import others, sheet_path, sheet_screen, sheet_values
from bega_kiosk.words import load_words
from bega_protocols.errors import LineError

PX_PER_MM = 96 / 25.4  # of CSS
FONTS = (  # file, family, and which letters it has (look.css)
    ("atkinson-hyperlegible-next-latin-wght-normal.woff2", "Atkinson Hyperlegible Next", "U+0000-00FF, U+2000-20AC"),
    ("atkinson-hyperlegible-next-latin-ext-wght-normal.woff2", "Atkinson Hyperlegible Next", "U+0100-02BA"),
    ("noto-sans-cyrillic-wght-normal.woff2", "Noto Sans", "U+0400-045F"),
)
Said = Callable[[int, str], None]


@dataclass(frozen=True)
class Paper:
    """What a printer takes; a roll has no height of its own."""

    name: str
    width_mm: int
    height_mm: int | None = None


PAPERS = {"a4": Paper("a4", 210, 297), "slip": Paper("slip", 72)}


def make(config: Config, paper: Paper, languages: Sequence[str], now_ms: int, say: Said) -> list[str]:
    """Write the sheet of every form that has no file, in each of these languages; return what went wrong, in words."""
    content, words = load_content(config.content_folder), load_words(config.timezone)
    forms = [form for form in content.every(Form) if form.file is None]
    failed: list[str] = []
    with running_browser() as browser:
        for form in forms:
            for language in languages:
                screen = sheet_screen(config, words[language], form, now_ms)
                path = sheet_path(Path(config.kiosk.state_dir), screen, content, form)
                try:
                    pdf = printed(browser, html_of(screen, content, form, paper), paper)
                    _put(path, pdf)
                except (LineError, OSError) as error:
                    failed.append(f"{path}: {error}")
                say(len(forms) * len(languages), path.name)
    return failed


def html_of(screen: Screen, content: Content, form: Form, paper: Paper) -> str:
    """Return the page: title, what it is for, lines to write on, what to bring, where to go, where that was read."""
    values = {"paper": paper, "fonts": [*_fonts()], **sheet_values(screen, content, form)}
    return screen.draw("sheet.html", values)


def printed(browser: Browser, html: str, paper: Paper) -> bytes:
    """Return the page as a PDF of one sheet; raises LineError if it does not fit on one."""
    with tempfile.TemporaryDirectory(prefix="bega-sheet-") as folder:
        file = Path(folder) / "sheet.html"
        file.write_text(html, encoding="utf-8")
        page = browser.open(round(paper.width_mm * PX_PER_MM), 400)
        try:
            page.go(file.as_uri())
            width_px, height_px = page.run("[document.documentElement.scrollWidth, document.body.scrollHeight]")
            height_mm = math.ceil(height_px / PX_PER_MM)
            if width_px > round(paper.width_mm * PX_PER_MM) or height_mm > (paper.height_mm or height_mm):
                raise LineError(f"does not fit on {paper.name}: {height_mm} mm; shorten its texts")
            return page.pdf(paper.width_mm, paper.height_mm or height_mm)
        finally:
            page.close()


def _fonts() -> Iterator[tuple[str, str, str]]:
    for name, family, letters in FONTS:
        raw = (look.STATIC / "fonts" / name).read_bytes()
        yield base64.b64encode(raw).decode(), family, letters


def _put(path: Path, pdf: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(pdf)
    fresh.replace(path)
    for one in others(path):
        one.unlink(missing_ok=True)
