"""How one reader wants the pages: carried by every address, and gone with it. No cookie, nothing kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from bega_kiosk.drafts import TOKEN
from bega_kiosk.words import DEFAULT, LANGUAGES

LANGUAGE, LOOK, TEXT, REACH, DRAFT, AT = "lang", "look", "text", "reach", "draft", "at"
OURS = re.compile(r"(/[a-z0-9_-]+)+", re.IGNORECASE)  # a screen, and never another machine ("//x")


@dataclass(frozen=True)
class Display:
    """Language, colours, size of letters, whether all keys are in the lower half; and the token of a draft."""

    language: str = DEFAULT
    is_dark: bool = False
    is_larger: bool = False
    is_reach: bool = False
    draft: str = ""

    def query(self) -> dict[str, str]:
        """Return what an address says of it."""
        said = {LANGUAGE: self.language}
        if self.is_dark:
            said[LOOK] = "dark"
        if self.is_larger:
            said[TEXT] = "large"
        if self.is_reach:
            said[REACH] = "1"
        if self.draft:
            said[DRAFT] = self.draft
        return said

    def address(self, path: str, page: int = 1) -> str:
        """Return the address of a page for this reader; home leads away from what was about to be sent."""
        said = (replace(self, draft="") if path == "/" else self).query() | ({"page": str(page)} if page > 1 else {})
        return f"{path}?{urlencode(said)}"


def read_display(query: Mapping[str, str]) -> Display:
    """Return what an address asks for; what is not known is as usual."""
    language = query.get(LANGUAGE, DEFAULT)
    return Display(
        language=language if language in LANGUAGES else DEFAULT,
        is_dark=query.get(LOOK) == "dark",
        is_larger=query.get(TEXT) == "large",
        is_reach=query.get(REACH) == "1",
        draft=query[DRAFT] if TOKEN.fullmatch(query.get(DRAFT, "")) else "",
    )


def read_page(query: Mapping[str, str]) -> int:
    """Return which part of a long page is asked for, 1 for the first or for nonsense."""
    asked = query.get("page", "1")
    return int(asked) if asked.isascii() and asked.isdigit() and 0 < len(asked) <= 3 and int(asked) else 1


def read_at(query: Mapping[str, str]) -> str:
    """Return the path of the screen that an address says it stands in for, home for nonsense."""
    asked = query.get(AT, "/")
    return asked if OURS.fullmatch(asked) else "/"
