"""What was reported of the kiosk's own place: a kind, a code and a day each, so that the next citizen hears of it.

Of other places nothing is kept: what somebody typed as a street may hold a name, and two who mean one corner write it
differently. "Here, beside the kiosk" is the one place that is surely the same. The report itself is not here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec

from bega.clock import CLOCK_FLOOR_MS
from bega_kiosk.outbox import Outbox
from bega_kiosk.private import require_private
from bega_kiosk.report import Code, Kind, Number
from bega_kiosk.store import AHEAD_MS

log = logging.getLogger("bega.kiosk.reported")

FILE = "here.json"
MOST = 200
KEPT_MS = 60 * 86_400_000  # a report of two months ago is asked after by its code, not told to strangers
OPEN = ("received", "forwarded", "work")


class Earlier(msgspec.Struct, frozen=True):
    """A report of this place."""

    kind: Kind
    code: Code
    time_ms: Number


Kept = Annotated[list[Earlier], msgspec.Meta(max_length=MOST)]


class Reported:
    """The file in one kiosk's `folder`; `outbox` knows how each report is."""

    def __init__(self, folder: Path, outbox: Outbox) -> None:
        self._path = folder / FILE
        self._outbox = outbox

    def note(self, kind: str, code: str, time_ms: int) -> None:
        """Keep that this was reported here; nothing where the clock was never set: then there is no day to tell."""
        if time_ms < CLOCK_FLOOR_MS:
            return
        kept = [*self._read(), Earlier(kind, code, time_ms)][-MOST:]
        fresh = self._path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            require_private(fresh)
            fresh.write_bytes(msgspec.json.encode(kept))
            fresh.replace(self._path)
        except OSError as error:  # the report itself is safe: the next citizen is only not told of it
            log.warning("a report of this place is not remembered error=%s", error)

    def find(self, kind: str, now_ms: int) -> Earlier | None:
        """Return the oldest report of this kind that is not done; only what the desk, or the outbox, still has."""
        for earlier in self._read():
            age_ms = now_ms - earlier.time_ms
            if earlier.kind == kind and -AHEAD_MS <= age_ms <= KEPT_MS and self._is_open(earlier.code):
                return earlier
        return None

    def _is_open(self, code: str) -> bool:
        heard = self._outbox.heard(code)
        if heard is None or heard.status.state == "unknown":
            return self._outbox.is_waiting(code)
        return heard.status.state in OPEN

    def _read(self) -> list[Earlier]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("reports of this place are forgotten path=%s error=%s", self._path, error)
            return []
