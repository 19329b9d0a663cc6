"""What stands on the sheet of a form that no clerk has drawn, and where it lies (sheets.py makes it).

A sheet's file is named after all that staff's records say on it. So what was printed a year ago, when somebody had just
asked whether it is so, is not printed any more once it is not so: there is none until it is made anew, with its mark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bega_kiosk.config import Config
from bega_kiosk.content import FORMS, Content, Desk, Form, Service, said
from bega_kiosk.desks import source_line, today, where_lines
from bega_kiosk.display import Display
from bega_kiosk.pages.screen import Screen
from bega_kiosk.words import Words

MARK_DIGITS = 12


def sheet_screen(config: Config, words: Words, form: Form, now_ms: int) -> Screen:
    """Return what a sheet is drawn with where nobody looks at a page."""
    return Screen(
        words=words,
        panel=config.panel,
        distance_mm=config.distance_mm,
        display=Display(words.language),
        path=f"/forms/{form.id}",
        parent=None,
        title=said(form.title, words.language),
        now_ms=now_ms,
    )


def sheet_values(screen: Screen, content: Content, form: Form) -> dict[str, Any]:
    """Return what stands on it: what it is for, what to bring, where to go, where that was read, whether it is so."""
    language, text = screen.words.language, screen.words.text
    service = content.find(Service, form.service)
    desks = [desk for name in form.desks if (desk := content.find(Desk, name))]
    return {
        "title": said(form.title, language),
        "example": "" if form.is_checked(today(screen)) else text("sheet.example"),
        "purpose": [said(one, language) for one in form.purpose],
        "bring": [said(one, language) for one in service.bring] if service else [],
        "is_list_checked": service is not None and service.is_checked(today(screen)),
        "where": [line for desk in desks for line in where_lines(screen, desk)],
        "address": form.address or "",
        "source": source_line(screen, form),
    }


def sheet_path(state_dir: Path, screen: Screen, content: Content, form: Form) -> Path:
    """Return where the sheet lies that says this, in the reader's language."""
    mark = hashlib.sha256(msgspec.json.encode(sheet_values(screen, content, form))).hexdigest()[:MARK_DIGITS]
    return state_dir / FORMS / f"{form.id}-{screen.words.language}-{mark}.pdf"


def others(path: Path) -> Iterator[Path]:
    """Yield the sheets of the same form and language that say something else, or are of before they had a mark."""
    name = path.stem[: -MARK_DIGITS - 1]
    for one in (path.with_name(f"{name}.pdf"), *path.parent.glob(f"{name}-{'?' * MARK_DIGITS}.pdf")):
        if one != path:
            yield one
