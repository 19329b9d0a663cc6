"""Somebody reported this already: add one's own, say that it is something else, or see how the first report is.

Told only of the kiosk's own place, of a report that is not done (reported.py). Neither its code nor its number is
shown: they are the first citizen's.
"""

from __future__ import annotations

from collections.abc import Mapping

from bega_kiosk.pages.report import AGAIN, SAME, STATES, age_of, answered, draft_of
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place
from bega_kiosk.reported import Earlier

WAY = "/report/earlier"


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""

    def take(screen: Screen, sent: Mapping[str, str]) -> str:
        return answered(screen, known, SAME, sent.get("answer", ""))

    return [
        Place(SAME.path, SAME.text, lambda screen: draw_same(screen, known), parent="/report/where", take=take),
        Place(WAY, "report.earlier", lambda screen: draw_earlier(screen, known), parent=SAME.path),
    ]


def draw_same(screen: Screen, known: Known) -> Drawn:
    """Return the question whether it is the same problem."""
    text, earlier = screen.words.text, _earlier(screen, known)
    if earlier is None:
        return _nothing(screen)
    what = text(f"report.cat.{earlier.kind}")
    intro = text("report.duplicate", date=screen.words.day(screen.words.local(earlier.time_ms).date()), what=what)
    keys = [
        Key(text("report.same.yes"), "", "megaphone", value="yes"),
        Key(text("report.same.no"), "", "pencil", value="no"),
        Key(text("report.earlier"), screen.address(WAY), "clock"),
    ]
    return screen.choice(keys, intro, kind="question")


def draw_earlier(screen: Screen, known: Known) -> Drawn:
    """Return how the first report is, as the desk last said."""
    text, earlier = screen.words.text, _earlier(screen, known)
    if earlier is None:
        return _nothing(screen)
    heard = known.outbox.heard(earlier.code)
    if heard is None:
        return screen.answer(text("report.state.waiting"), [text("report.later")])
    return screen.answer(text(STATES[heard.status.state]), notes=[age_of(screen, heard)])


def _earlier(screen: Screen, known: Known) -> Earlier | None:
    draft = draft_of(screen, known)
    if draft is None or draft.answers.get(AGAIN) != "yes":
        return None
    return known.reported.find(draft.answers.get("what", ""), screen.now_ms)


def _nothing(screen: Screen) -> Drawn:
    text = screen.words.text
    return screen.answer(text("report.empty"), keys=[Key(text("report.begin"), screen.address("/report"), "arrow")])
