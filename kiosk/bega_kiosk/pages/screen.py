"""What every screen has: words, a panel, a reader's wishes, a moment; and the two shapes that most screens take.

A *choice* is a question and the things to tap. An *answer* is a sentence, what belongs to it, and where to go on. Both
are cut into parts that fit the panel: nothing scrolls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bega import __version__
from bega.clock import CLOCK_FLOOR_MS
from bega.look.panels import Panel
from bega_kiosk.display import AT, Display
from bega_kiosk.words import Words

# Measured of our fonts and texts: a letter's share of its size, and what a line loses because words do not break.
LETTER_EM, LETTER_EM_CYRILLIC, FULL = 0.50, 0.57, 0.90
LINE_EM = 1.25
BETWEEN_LINES = 0.45  # of a line, between two paragraphs
SENTENCE_LINES = {"wide": 1.35, "tall": 1.35, "small": 1.22}  # of text, as high as one of the sentence
SENTENCE_LARGER = 1.9  # its size in letters of text, in large letters on a large panel (kiosk.css)
LONG_NAME = 18  # letters of a tile that find no room in three columns of the lowest tiles
LONG_ROW = 46  # letters of a row of a list that need a second line on a small panel
EDGES_MM = {"wide": 24.0, "tall": 24.0, "small": 12.0}  # left and right, and what a line ends with
STILL_THERE = "/still"  # the question that comes before a screen is cleared (pages/still.py)
ASKS_AFTER_S, CLEARS_AFTER_S = 9 * 60, 60  # without a touch; the draft lies for a minute longer (drafts.py)
KEYS_A_ROW = {"wide": 4, "tall": 2, "small": 4}  # of an answer (kiosk.css)
FRAME_MM = {"wide": 45.0, "tall": 45.0, "small": 38.0}  # edges, the row of controls, the footer


@dataclass(frozen=True)
class Key:
    """Something to tap: its name in words, where it leads, its drawing, and its answer in a few words."""

    name: str
    address: str
    icon: str = ""
    answer: str = ""
    band: int | None = None  # the European Air Quality Index, where the answer is one
    is_here: bool = False
    lang: str = ""  # of its name, where that is not the page's
    value: str | None = None  # what the screen's form sends as `answer`; such a key leads nowhere by itself
    picture: Markup | None = None  # in the place of a drawing


@dataclass(frozen=True)
class Drawn:
    """A screen as HTML, and of how many parts it is one."""

    html: str
    parts: int = 1


@dataclass(frozen=True)
class Screen:
    """One screen for one reader."""

    words: Words
    panel: Panel
    distance_mm: int
    display: Display
    path: str
    parent: str | None  # where "back" leads; None on the first screen
    title: str  # in words
    now_ms: int
    page: int = 1
    at: str = "/"  # the screen that this one stands in for
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leaving(self) -> tuple[int, str] | None:
        """Return after how many seconds without a touch which address comes; None where the next citizen begins."""
        if self.path == STILL_THERE:
            return CLEARS_AFTER_S, "/"
        if self.path == "/" and self.page == 1 and self.display == Display():
            return None
        return ASKS_AFTER_S, f"{self.display.address(STILL_THERE, self.page)}&{urlencode({AT: self.path})}"

    @property
    def font_px(self) -> float:
        """Return the size of the smallest text."""
        return self.panel.font_px(self.distance_mm, self.display.is_larger)

    @property
    def is_roomy(self) -> bool:
        """Return whether a question and all of its answers fit on one screen."""
        return self.panel.is_large and not self.display.is_larger and not self.display.is_reach

    @property
    def is_tight(self) -> bool:
        """Return whether there is no room for the heading of an answer or a wordy list, nor for a second row of keys.

        Who tapped on it knows it, who listens hears it.
        """
        return self.display.is_larger and not self.panel.is_large

    @property
    def has_title_on_top(self) -> bool:
        """Return whether the heading stands between the controls, where a wide screen has room for it."""
        return self.panel.shape == "wide" and not self.display.is_reach and not self.display.is_larger

    @property
    def classes(self) -> str:
        """Return the classes of the page: a layout each."""
        said = [self.panel.shape]
        said += ["dark"] if self.display.is_dark else []
        said += ["larger"] if self.display.is_larger else []
        said += ["reach"] if self.display.is_reach else []
        return " ".join(said)

    @property
    def is_clock_set(self) -> bool:
        """Return whether the clock can be right; one that stands at 1970 is not shown."""
        return self.now_ms >= CLOCK_FLOOR_MS

    @property
    def is_read_by_a_native(self) -> bool:
        """Return whether a native reader has signed every text of this language."""
        return self.words.is_read_by_a_native

    def address(self, path: str, page: int = 1, **changed: Any) -> str:
        """Return the address of a screen for this reader, or for one who wants something else (see Display)."""
        return replace(self.display, **changed).address(path, page)

    @property
    def letters_a_line(self) -> float:
        """Return how many letters a line of running text has."""
        return self._letters()

    def lines_for(self, keys: Sequence[Key], notes: Sequence[str], is_titled: bool = True) -> float:
        """Return how many lines of text there is room for above these keys, one for "next" and notes."""
        return (self if is_titled else replace(self, title=""))._lines(len(keys) + 1, notes)

    def most_listed(self, keys: Sequence[Key]) -> int:
        """Return how many rows of two or three lines fit: what a list shows at once."""
        if not self.panel.is_large:
            is_long = any(len(key.name) > LONG_ROW or len(key.answer) > LONG_ROW for key in keys)
            return 2 if self.display.is_larger or self.display.is_reach or is_long else 3
        return 6 if self.panel.shape == "tall" and not self.display.is_reach else 4

    def choice(
        self,
        keys: Sequence[Key],
        intro: str = "",
        kind: str = "plain",
        values: Mapping[str, Any] | None = None,
        template: str = "choice.html",
    ) -> Drawn:
        """Return a question with what can be tapped, as many as the panel may show; a "list" has long names."""
        is_wordy = self.display.is_reach and any(len(key.name) > LONG_NAME for key in keys)
        most = self.panel.most_things(self.display.is_larger or is_wordy)
        if kind == "list":
            is_wordy, most = False, self.most_listed(keys)
        parts = _parted(keys, most)
        shown = list(parts[min(self.page, len(parts)) - 1])
        page = min(self.page, len(parts))
        if page < len(parts):
            more = self.words.text("common.more")
            shown.append(Key(more, self.address(self.path, page + 1), "more"))
        said = {"keys": shown, "intro": intro, "kind": kind, "is_wordy": is_wordy}
        said |= {"is_title_spoken": self.is_tight and kind == "list" and bool(intro)} | dict(values or {})
        return Drawn(self.draw(template, said, before=page - 1), len(parts))

    def answer(
        self,
        sentence: str,
        paragraphs: Sequence[str] = (),
        keys: Sequence[Key] = (),
        notes: Sequence[str] = (),
        values: Mapping[str, Any] | None = None,
        is_list: bool = False,
    ) -> Drawn:
        """Return a sentence and what belongs to it, to tick off if `is_list`; notes below: age, source, "exemplu"."""
        scale, height = 1.35, SENTENCE_LINES["wide" if self.display.is_larger else self.panel.shape]
        if self.panel.is_large and self.display.is_larger:  # where nothing else leaves room for what it really takes
            scale, height = SENTENCE_LARGER, SENTENCE_LARGER * 1.08 / LINE_EM
        taken = self._lines_of(sentence, scale) / scale * height + BETWEEN_LINES
        parts = [list(paragraphs)]
        if self._needed(paragraphs) > self._lines(len(keys), notes) - taken:  # and so there is a key more
            parts = self._parted_text(paragraphs, self._lines(len(keys) + 1, notes) - taken)
        page = min(self.page, len(parts))
        shown = list(keys)
        if page < len(parts):
            shown = [Key(self.words.text("common.next"), self.address(self.path, page + 1), "arrow"), *shown]
        said = {"sentence": sentence, "paragraphs": parts[page - 1], "keys": shown, "notes": notes, "is_list": is_list}
        said |= {"is_title_spoken": self.is_tight} | dict(values or {})
        return Drawn(self.draw("answer.html", said, before=page - 1), len(parts))

    def draw(self, template: str, values: Mapping[str, Any], before: int = 0) -> str:
        """Return the page; `before`: the part that "back" leads to, 0 for the screen above."""
        return (
            _environment()
            .get_template(template)
            .render(
                screen=self,
                text=self.words.text,
                spoken=self.words.spoken,
                before=before,
                version=__version__,
                **values,
            )
        )

    def _letters(self) -> float:
        """Return how many letters a line of running text has."""
        cyrillic = self.display.language == "sr"
        edges_mm = EDGES_MM["wide" if self.display.is_larger else self.panel.shape]
        width_px = self.panel.width_px - edges_mm * self.panel.px_per_mm
        return FULL * width_px / (self.font_px * (LETTER_EM_CYRILLIC if cyrillic else LETTER_EM))

    def _lines_of(self, text: str, scale: float = 1.0) -> float:
        is_plain = self.panel.shape == "small" and not self.display.is_larger
        if is_plain and 0 < len(text) * scale * FULL <= self._letters():
            return scale  # on a single line no room is lost before a word that does not break
        return math.ceil(len(text) * scale / self._letters()) * scale if text else 0.0

    def _lines(self, keys: int, notes: Sequence[str]) -> float:
        """Return how many lines of text the panel has room for between its keys."""
        mm = self.panel.px_per_mm
        heading = 0.0 if self.is_tight else self._lines_of(self.title, 1.2) + 0.4
        frame_mm = FRAME_MM[self.panel.shape]
        if self.display.is_larger:  # controls and keys of several lines
            frame_mm += 8.0 if self.is_tight else 18.0
        taken_px = frame_mm * mm + self.font_px * LINE_EM * heading
        rows = math.ceil(keys / KEYS_A_ROW[self.panel.shape])
        taken_px += rows * 24 * mm
        taken_px += sum(self._lines_of(note) for note in notes) * self.font_px * LINE_EM
        return (self.panel.height_px - taken_px) / (self.font_px * LINE_EM)

    def _needed(self, paragraphs: Sequence[str]) -> float:
        return sum(self._lines_of(paragraph) + BETWEEN_LINES for paragraph in paragraphs) - BETWEEN_LINES

    def _parted_text(self, paragraphs: Sequence[str], room: float) -> list[list[str]]:
        parts: list[list[str]] = [[]]
        left = room
        for paragraph in paragraphs:
            needed = self._lines_of(paragraph)
            if parts[-1] and needed > left:
                parts.append([])
                left = room
            parts[-1].append(paragraph)
            left -= needed + BETWEEN_LINES
        return parts


def _parted(keys: Sequence[Key], most: int) -> list[Sequence[Key]]:
    """Return the keys of each part; one place of each but the last is taken by "more"."""
    if len(keys) <= most:
        return [keys]
    return [keys[: most - 1], *_parted(keys[most - 1 :], most)]


def prepare_templates() -> None:
    """Compile every template now, each some 8 ms that somebody would wait for at a first tap."""
    for name in _environment().list_templates():
        _environment().get_template(name)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("bega_kiosk", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
