"""Who leaves from here, as far as is known at this moment: the timetable that was kept, and what is said of now.

What nobody knows is told apart, since it is said otherwise: no timetable yet, one that has not begun, one that is
over, one that nobody has confirmed for too long, a clock that was never set.
"""

from __future__ import annotations

import logging
import os
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

from bega.clock import CLOCK_FLOOR_MS, Clock
from bega_kiosk.config import Transport as Settings
from bega_kiosk.realtime import Alert, Departure, Live, departure
from bega_kiosk.store import AHEAD_MS
from bega_kiosk.timetable import Passing, Timetable, open_timetable, timetable_in_memory
from bega_protocols.errors import WireError

log = logging.getLogger("bega.kiosk.transport")

FILE = "transport.sqlite"
EXAMPLE_STOPS = ["here-out", "here-back"]
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LATEST_MS = HOUR_MS  # a vehicle that is later than that is looked for no more
GONE_MS = 30_000  # a vehicle that left so long ago is not shown
NIGHT_ENDS = 3  # o'clock: until then the evening is not over for who waits
MOST = 24  # three screens
LEAST_AHEAD_MS = 3 * HOUR_MS

Why = Literal["", "never", "clock", "stale", "early", "over"]


class Transport:
    """Buses and trams of the stops here."""

    def __init__(self, settings: Settings, folder: Path, example: Path | None, wall_ms: Clock) -> None:
        """Read what was kept in `folder`; `example` is the feed that stands in where none is named."""
        self.live: Live | None = None
        self.alerts: tuple[Alert, ...] = ()
        self.path = folder / FILE
        self.is_example = settings.feed is None and example is not None
        self.settings = settings
        self._wall_ms = wall_ms
        self._heard_ms: int | None = None
        self._timetable: Timetable | None = None
        self._example = example if settings.feed is None else None  # not yet read: the first page needs none of it
        if settings.feed is not None:
            self.reload()

    @property
    def timetable(self) -> Timetable | None:
        """Return the timetable of these stops; the example is read when it is first asked for."""
        if self._example is not None:
            try:
                self._timetable = timetable_in_memory(self._example, EXAMPLE_STOPS)
            except WireError as error:  # a wheel that lost its files
                log.warning("no example of a timetable why=%s", error.why)
            self._example = None
        return self._timetable

    @timetable.setter
    def timetable(self, timetable: Timetable | None) -> None:
        self._timetable, self._example = timetable, None

    @property
    def is_offered(self) -> bool:
        """Return whether this kiosk has anything to do with buses and trams."""
        return self.settings.feed is not None or self.is_example

    def reload(self) -> None:
        """Take the timetable that was prepared; the one that is here stays if that cannot be read."""
        self.take(open_timetable(self.path))

    def take(self, found: Timetable | None) -> None:
        """Take what was opened of `path`; the timetable that is here stays if that could not be read."""
        if found is None or found.wanted != self.settings.stops:
            return
        old, self.timetable = self.timetable, found
        self.live, self.alerts = None, ()  # they were read for another timetable
        if old is not None:
            old.close()
        self._heard_ms = self.path.stat().st_mtime_ns // 1_000_000

    def require_no_worse(self, path: Path) -> None:
        """Raise WireError if the timetable in `path` says nothing of today, and the one that is here does.

        Cities publish the next timetable days before its first; the one before it is good until then.
        """
        if self.timetable is None or self._wall_ms() < CLOCK_FLOOR_MS:
            return
        today = self._local(self._wall_ms()).date()
        found = open_timetable(path)
        if found is None:
            raise WireError("what was made of it cannot be read")
        with closing(found):
            # Where nothing calls any more it speaks of no day, and is believed: nobody shall wait there.
            if found.until_day is not None and self.timetable.covers(today) and not found.covers(today):
                raise WireError(f"it is good from {found.from_day} until {found.until_day}, and not today")

    def confirm(self) -> None:
        """Note that the source still says so: the file carries when that was, if the clock knows."""
        if self._wall_ms() < CLOCK_FLOOR_MS:
            return
        self._heard_ms = self._wall_ms()
        try:
            os.utime(self.path, ns=(self._heard_ms * 1_000_000, self._heard_ms * 1_000_000))
        except OSError as error:
            log.warning("timetable cannot be marked error=%s", error.strerror)

    def why_unknown(self, now_ms: int) -> Why:
        """Return why nothing can be said of now, "" where it can."""
        if self.timetable is None:
            return "never"
        if now_ms < CLOCK_FLOOR_MS:
            return "clock"
        limit_ms = self.settings.limit_days * DAY_MS
        if not self.is_example and (self._heard_ms is None or not -AHEAD_MS <= now_ms - self._heard_ms <= limit_ms):
            return "stale"
        now = self._local(now_ms)
        if self.timetable.covers(now.date()):
            return ""
        if self.timetable.from_day is not None and now.date() < self.timetable.from_day:
            return "early"
        # In the night after its last day it still speaks of that day's last vehicles, and of nothing else.
        is_last_night = now.hour < NIGHT_ENDS and self.timetable.covers(now.date() - timedelta(days=1))
        if is_last_night and self.timetable.passings(now_ms, self._until_ms(now_ms)):
            return ""
        return "over"

    def age_ms(self, now_ms: int) -> int | None:
        """Return how long ago the source said so."""
        return None if self._heard_ms is None else max(0, now_ms - self._heard_ms)

    def live_age_ms(self, now_ms: int) -> int | None:
        """Return how old what is said of now is; None where nothing is, or it is too old to speak of now."""
        if self.live is None:
            return None
        age_ms = now_ms - self.live.told_ms
        return max(0, age_ms) if -AHEAD_MS <= age_ms <= self.settings.realtime_limit_seconds * 1000 else None

    def departures(self, now_ms: int, line: str = "", most: int = MOST) -> list[Departure]:
        """Return who leaves from here until the night ends, the first first."""
        if self.timetable is None or self.why_unknown(now_ms):
            return []
        is_live = self.live_age_ms(now_ms) is not None
        from_ms = now_ms - now_ms % MINUTE_MS - (LATEST_MS if is_live else 0)
        coming: list[Departure] = []
        for until_ms in (now_ms + HOUR_MS, self._until_ms(now_ms)):  # mostly the next hour has enough
            passings = self.timetable.passings(from_ms, until_ms)
            found = [self._departure(one, now_ms) for one in passings if not line or one.line == line]
            coming = [one for one in found if one.time_ms >= now_ms - _grace_ms(one, now_ms)]
            if len(_once(coming)) >= most:
                break
        return sorted(_once(coming), key=lambda one: one.time_ms)[:most]

    def first_later(self, now_ms: int) -> Passing | None:
        """Return the first who comes after the night."""
        if self.timetable is None or self.why_unknown(now_ms):
            return None
        return self.timetable.next_passing(self._until_ms(now_ms))

    def alerts_now(self, now_ms: int) -> list[Alert]:
        """Return what the operator says of these lines and stops at this moment."""
        return [alert for alert in self.alerts if alert.is_now(now_ms)]

    def is_over_on(self) -> date | None:
        """Return the last day of the timetable."""
        return None if self.timetable is None else self.timetable.until_day

    def _departure(self, passing: Passing, now_ms: int) -> Departure:
        planned = Departure(passing, passing.planned_ms, is_step_free=passing.is_step_free)
        if self.timetable is None or self.live is None or self.live_age_ms(now_ms) is None:
            return planned
        oldest_ms = now_ms - self.settings.realtime_limit_seconds * 1000
        return departure(passing, self.live, self.timetable.calls, oldest_ms)

    def _until_ms(self, now_ms: int) -> int:
        """Return until when it is "today" for who waits."""
        now = self._local(now_ms)
        night = now.replace(hour=NIGHT_ENDS, minute=0, second=0, microsecond=0)
        if now.hour >= NIGHT_ENDS:
            night += timedelta(days=1)
        return max(now_ms + LEAST_AHEAD_MS, round(night.timestamp() * 1000))

    def _local(self, at_ms: int) -> datetime:
        assert self.timetable is not None, "asked only where there is one"
        return datetime.fromtimestamp(at_ms / 1000, self.timetable.zone)


def _once(coming: list[Departure]) -> list[Departure]:
    """Return no vehicle twice that a reader could not tell apart: in many feeds the seasons overlap."""
    told: dict[tuple[object, ...], Departure] = {}
    for one in coming:
        key = (one.passing.name, one.passing.towards, one.passing.stop, one.time_ms, one.state)
        if key not in told or one.is_real:
            told[key] = one
    return [*told.values()]


def _grace_ms(one: Departure, now_ms: int) -> int:
    """Return how long after its time a vehicle is still shown: a planned one through the minute that is named."""
    return GONE_MS if one.is_real else now_ms % MINUTE_MS
