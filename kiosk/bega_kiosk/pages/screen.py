"""What every page has: a language, a panel, a moment, and the way to draw a template with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bega.look.panels import Panel
from bega_kiosk.words import LANGUAGES, Words


@dataclass(frozen=True)
class Screen:
    """One page for one reader: the words, the panel with its reader's distance, where it is, and when."""

    words: Words
    panel: Panel
    distance_mm: int
    path: str
    now_ms: int

    @property
    def font_px(self) -> float:
        """Return the size of the smallest text."""
        return self.panel.font_px(self.distance_mm)

    def address(self, path: str, language: str | None = None) -> str:
        """Return the address of a page, in this or another language."""
        return f"{path}?lang={language or self.words.language}"

    def draw(self, template: str, values: Mapping[str, Any]) -> str:
        """Return the page."""
        others = {language: name for language, name in LANGUAGES.items() if language != self.words.language}
        return (
            _environment()
            .get_template(template)
            .render(screen=self, text=self.words.text, other_languages=others, version=version("bega"), **values)
        )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("bega_kiosk", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
