"""What a citizen is about to send: in memory alone, for a few minutes, and thrown away whole.

An address carries the draft's token (display.py), never what was written; the token is a secret of one session, and
worth nothing once the draft is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bega.clock import Clock
from bega_kiosk.report import Chance

AGAIN_MS = 5_000  # who sends the same twice in such a moment meant it once
TOKEN = re.compile(r"[0-9a-f]{16}")
KEPT_MS = 11 * 60_000  # without a tap: a minute longer than its screen (pages/screen.py), which ends it by itself
MOST = 50  # of several people at one server, as in a demo; a kiosk has one


@dataclass
class Draft:
    """The answers by question, where their writer is, what the last answer lacked; after sending, the code alone.

    `code` is that of what was sent here, `asked` one that was typed to hear how it is.
    """

    token: str
    answers: dict[str, str] = field(default_factory=dict)
    at: str = "/"  # the screen that an interruption leads back to
    lacks: str = ""  # the key of a text
    code: str = ""
    is_call: bool = False  # what has this code asks for a call
    owed: str = ""  # the code of what was sent with a name and a contact: the law gives its writer an answer
    asked: str = ""
    sent_ms: int = 0
    touched_ms: int = 0


class Drafts:
    """All of them, by token."""

    def __init__(self, mono_ms: Clock, chance: Chance) -> None:
        self._mono_ms = mono_ms
        self._chance = chance
        self._drafts: dict[str, Draft] = {}
        self._last: tuple[int, str, int] | None = None  # what was sent last, as a hash; its code; when

    def find(self, token: str) -> Draft | None:
        """Return the draft of an address, None where there is none or it lay for too long."""
        self._forget_the_old()
        draft = self._drafts.get(token)
        if draft:
            draft.touched_ms = self._mono_ms()
        return draft

    def begun(self, token: str) -> Draft:
        """Return the draft of an address, or a new one."""
        draft = self.find(token)
        if draft is None:
            draft = Draft(self._chance(8).hex(), touched_ms=self._mono_ms())
            self._drafts[draft.token] = draft
            while len(self._drafts) > MOST:
                del self._drafts[min(self._drafts.values(), key=lambda each: each.touched_ms).token]
        return draft

    def drop(self, token: str) -> None:
        """Throw one away: whoever wrote it went home, or left."""
        self._drafts.pop(token, None)

    def sent_once(self, answers: Mapping[str, str], keep: Callable[[], str]) -> str:
        """Return the code that keep() gives; the first one's where the same comes twice from a finger that trembles."""
        now_ms, what = self._mono_ms(), hash(tuple(answers.items()))
        if self._last and self._last[0] == what and now_ms - self._last[2] < AGAIN_MS:
            return self._last[1]
        code = keep()
        self._last = (what, code, now_ms)
        return code

    def _forget_the_old(self) -> None:
        oldest_ms = self._mono_ms() - KEPT_MS
        self._drafts = {token: draft for token, draft in self._drafts.items() if draft.touched_ms >= oldest_ms}
