"""What a citizen is about to send: in memory alone, for a few minutes, and thrown away whole.

An address carries the draft's token (display.py), never what was written; the token is a secret of one session, and
worth nothing once the draft is gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bega.clock import Clock
from bega_kiosk.report import Chance

TOKEN = re.compile(r"[0-9a-f]{16}")
KEPT_MS = 10 * 60_000  # without a tap
MOST = 50  # of several people at one server, as in a demo; a kiosk has one


@dataclass
class Draft:
    """The answers by question, where their writer is, what the last answer lacked; after sending, the code alone."""

    token: str
    answers: dict[str, str] = field(default_factory=dict)
    at: str = "/"  # the screen that an interruption leads back to
    lacks: str = ""  # the key of a text
    code: str = ""
    sent_ms: int = 0
    touched_ms: int = 0


class Drafts:
    """All of them, by token."""

    def __init__(self, mono_ms: Clock, chance: Chance) -> None:
        self._mono_ms = mono_ms
        self._chance = chance
        self._drafts: dict[str, Draft] = {}

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
        """Throw one away."""
        self._drafts.pop(token, None)

    def _forget_the_old(self) -> None:
        oldest_ms = self._mono_ms() - KEPT_MS
        self._drafts = {token: draft for token, draft in self._drafts.items() if draft.touched_ms >= oldest_ms}
