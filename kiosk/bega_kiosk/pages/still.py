"""Is anybody there? Asked a minute before a screen that nobody touches is cleared (WCAG 2.2, 2.2.1 and 2.2.6).

`at` in its address is the screen that it stands in for. With a script that screen is only put aside, with what was
typed in it (static/leave.js); without one its refresh leads here, and the key leads back to it.
"""

from __future__ import annotations

from bega_kiosk.pages.screen import STILL_THERE, Drawn, Key, Screen
from bega_kiosk.places import Known, Place


def places(_: Known) -> list[Place]:
    """Return the screens of this module."""
    return [Place(STILL_THERE, "timeout.title", draw)]


def draw(screen: Screen) -> Drawn:
    """Return the question, with one key; home is where it is on every screen."""
    text = screen.words.text
    key = Key(text("timeout.more"), screen.address(screen.at, screen.page), "clock")
    values = {
        "sentence": text("timeout.title"),
        "paragraphs": [text("timeout.text")],
        "keys": [key],
        "notes": [],
        "is_list": False,
        "is_title_spoken": True,  # it is the sentence
    }
    return Drawn(screen.draw("still.html", values))
