"""What a city says of its vehicles now: delays, trips that do not run, stops that are left out, and alerts.

Spec: GTFS Realtime reference v2.0 (gtfs.org/documentation/realtime/reference), messages TripUpdate and Alert; how a
delay goes on to later stops is in "Trip Updates", section Stop Time Updates. They are read with the bindings of the
spec itself, imported only where a kiosk is told of such a feed: 3 MB and 22 ms of start that others need not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bega_kiosk.gtfs import day_of, seconds_of
from bega_kiosk.store import AHEAD_MS
from bega_kiosk.timetable import Call, Passing, Timetable
from bega_protocols.errors import WireError

if TYPE_CHECKING:
    from google.transit.gtfs_realtime_pb2 import FeedMessage

MOST_TRIPS = 2_000  # that pass here
MOST_UPDATES = 500  # of one trip
MOST_ALERTS = 500
MOST_APART_MS = 6 * 3_600_000  # a vehicle that is later than that is a mistake
NEVER_MS = 1 << 53
ALERT_LASTS_MS = 3_600_000  # after the operator was last heard to say so
REPEATED_MS = 86_400_000  # a message that is older is repeated by a server that nobody looks after
CANCELLED = (3, 7)  # TripDescriptor.ScheduleRelationship CANCELED, DELETED
EXTRA = (1, 6, 8)  # ADDED, DUPLICATED, NEW: a vehicle besides those of the timetable, whatever trip it is named after
SKIPPED, NO_DATA = 1, 2  # StopTimeUpdate.ScheduleRelationship
STEP_FREE = {2: True, 3: False}  # VehicleDescriptor.WheelchairAccessible

State = Literal["comes", "cancelled", "skipped"]
AlertKind = Literal["stopped", "fewer", "late", "detour", "moved"]
SAID_OF_ALL = ("stopped", "fewer", "late")  # an operator goes another way, or elsewhere, with some line only
EFFECTS: dict[int, AlertKind] = {1: "stopped", 2: "fewer", 3: "late", 4: "detour", 9: "moved"}  # Alert.Effect


class Departure(msgspec.Struct, frozen=True):
    """Who leaves from here, and when as far as is known."""

    passing: Passing
    time_ms: int
    is_real: bool = False  # the time is where the vehicle is now, not what was planned
    state: State = "comes"
    is_step_free: bool | None = None


class Update(msgspec.Struct, frozen=True):
    """What is said of one stop of a trip."""

    sequence: int | None
    stop: str
    relation: int
    delay_ms: int | None
    time_ms: int | None


class Trip(msgspec.Struct, frozen=True):
    """What is said of one trip."""

    day: date | None
    start_s: int | None
    relation: int
    told_ms: int | None  # when the vehicle was seen
    delay_ms: int | None
    is_step_free: bool | None
    updates: tuple[Update, ...]


class Alert(msgspec.Struct, frozen=True):
    """What is wrong with a line or a stop; without a line, with all lines; without a stop, with all stops here."""

    kind: AlertKind
    line: str
    stop: str
    periods: tuple[tuple[int, int], ...]
    heard_ms: int

    def is_now(self, now_ms: int) -> bool:
        """Return whether it is so at this moment, as far as anybody has said lately."""
        if not -AHEAD_MS <= now_ms - self.heard_ms <= ALERT_LASTS_MS:
            return False
        return not self.periods or any(begins <= now_ms < ends for begins, ends in self.periods)


class Live(msgspec.Struct, frozen=True):
    """One message of the feed, as far as it speaks of here."""

    told_ms: int
    trips: dict[str, tuple[Trip, ...]]
    alerts: tuple[Alert, ...]


def read_live(body: bytes, timetable: Timetable, now_ms: int) -> Live:
    """Return what a message says of the trips and stops of `timetable`; raises WireError if it is none."""
    message = _message(body)
    told_s = int(message.header.timestamp)
    trips: dict[str, list[Trip]] = {}
    alerts: list[Alert] = []
    told_ms = told_s * 1000 if told_s else now_ms  # a feed that does not say speaks of now
    for entity in message.entity:
        if entity.is_deleted:
            continue
        if entity.HasField("trip_update") and len(trips) < MOST_TRIPS:
            trip = str(entity.trip_update.trip.trip_id)
            is_extra = entity.trip_update.trip.schedule_relationship in EXTRA
            if not is_extra and timetable.has_trip(trip) and len(trips.get(trip, ())) < MOST_UPDATES:
                trips.setdefault(trip, []).append(_trip(entity.trip_update))
        if entity.HasField("alert") and len(alerts) < MOST_ALERTS and now_ms - told_ms <= REPEATED_MS:
            alerts += _alerts(entity.alert, timetable, now_ms)
    return Live(told_ms, {trip: tuple(said) for trip, said in trips.items()}, tuple(alerts))


def departure(passing: Passing, live: Live, calls: Callable[[str], list[Call]], oldest_ms: int) -> Departure:
    """Return what is known of a passing with what is said now; `calls` gives all stops of a trip.

    Where a vehicle was before `oldest_ms` says nothing of now; that a trip was cancelled stays true.
    """
    planned = Departure(passing, passing.planned_ms, is_step_free=passing.is_step_free)
    trip = next((one for one in live.trips.get(passing.trip, ()) if _is_of(one, passing)), None)
    if trip is None:
        return planned
    if trip.is_step_free is not None:
        planned = msgspec.structs.replace(planned, is_step_free=trip.is_step_free)
    if trip.relation in CANCELLED:
        return msgspec.structs.replace(planned, state="cancelled")
    stops = calls(passing.trip)
    update = _update_for(trip.updates, passing, stops)
    if update is not None and update.relation == SKIPPED and _is_at(update, passing):
        return msgspec.structs.replace(planned, state="skipped")
    if trip.told_ms is not None and trip.told_ms < oldest_ms:
        return planned
    real_ms = _real_ms(passing, trip, update, stops)
    if real_ms is None or abs(real_ms - passing.planned_ms) > MOST_APART_MS:
        return planned
    return msgspec.structs.replace(planned, time_ms=real_ms, is_real=True)


def _message(body: bytes) -> FeedMessage:
    from google.protobuf.message import DecodeError
    from google.transit.gtfs_realtime_pb2 import FeedMessage

    message = FeedMessage()
    try:
        message.ParseFromString(body)
    except (DecodeError, RecursionError, ValueError) as error:
        raise WireError(f"no GTFS Realtime message: {error}") from None
    if not message.header.gtfs_realtime_version:
        raise WireError("no GTFS Realtime message: it has no version")
    return message


def _trip(said: Any) -> Trip:
    descriptor = said.trip
    return Trip(
        day=_day(str(descriptor.start_date)),  # the bindings give a text that is no UTF-8 as bytes
        start_s=_seconds(str(descriptor.start_time)),
        relation=int(descriptor.schedule_relationship),
        told_ms=int(said.timestamp) * 1000 if said.timestamp else None,
        delay_ms=int(said.delay) * 1000 if said.HasField("delay") else None,
        is_step_free=STEP_FREE.get(int(said.vehicle.wheelchair_accessible)),
        updates=tuple(_update(one) for one in islice(said.stop_time_update, MOST_UPDATES)),
    )


def _update(said: Any) -> Update:
    delay_ms = time_ms = None
    for event in ("departure", "arrival"):  # whoever waits wants to know when it leaves
        if said.HasField(event) and delay_ms is None and time_ms is None:
            one = getattr(said, event)
            time_ms = int(one.time) * 1000 if one.time > 0 else None
            delay_ms = int(one.delay) * 1000 if one.HasField("delay") else None
    return Update(
        sequence=int(said.stop_sequence) if said.HasField("stop_sequence") else None,
        stop=str(said.stop_id),
        relation=int(said.schedule_relationship),
        delay_ms=delay_ms,
        time_ms=time_ms,
    )


def _alerts(said: Any, timetable: Timetable, now_ms: int) -> Iterable[Alert]:
    kind = EFFECTS.get(int(said.effect))
    if kind is None:
        return
    periods = tuple(
        (int(period.start) * 1000, int(period.end) * 1000 if period.end else NEVER_MS)
        for period in islice(said.active_period, MOST_UPDATES)
    )
    lines = {line.id for line in timetable.lines}
    stops = {stop.id for stop in timetable.stops}
    stations = {stop.station for stop in timetable.stops if stop.station}
    for entity in islice(said.informed_entity, MOST_UPDATES):
        line, stop = str(entity.route_id), str(entity.stop_id)
        if entity.HasField("trip") or (line and line not in lines) or (stop and stop not in stops | stations):
            continue
        if line or stop:
            is_whole = stop in stations and {one.station for one in timetable.stops} == {stop}
            yield Alert(kind, line, "" if is_whole else stop, periods, now_ms)
        elif kind in SAID_OF_ALL and {entity.agency_id} == timetable.agencies and not entity.HasField("route_type"):
            yield Alert(kind, "", "", periods, now_ms)


def _is_of(trip: Trip, passing: Passing) -> bool:
    if passing.start_s is not None and trip.start_s != passing.start_s:
        # Which of those that go every few minutes? Without a start_time all of them, or nobody knows (TripDescriptor).
        return trip.start_s is None and trip.relation in CANCELLED
    return trip.day is None or trip.day == passing.day


def _is_at(update: Update, passing: Passing) -> bool:
    if update.sequence is not None:
        return update.sequence == passing.sequence
    return update.stop == passing.stop.id


def _update_for(updates: Iterable[Update], passing: Passing, stops: list[Call]) -> Update | None:
    """Return what is said of this stop, or of the last one before it of which anything is said."""
    places = {call.stop: call.sequence for call in reversed(stops)}
    found, found_at = None, -1
    for update in updates:
        if _is_at(update, passing):
            return update
        at = update.sequence if update.sequence is not None else places.get(update.stop)
        # A stop that is left out changes no delay (Trip Updates, Stop Time Updates).
        if at is not None and found_at < at < passing.sequence and update.relation != SKIPPED:
            found, found_at = update, at
    return found


def _real_ms(passing: Passing, trip: Trip, update: Update | None, stops: list[Call]) -> int | None:
    if update is None:
        return None if trip.delay_ms is None else passing.planned_ms + trip.delay_ms
    if update.relation == NO_DATA:
        return None
    if _is_at(update, passing) and update.time_ms is not None:
        return update.time_ms
    if update.delay_ms is not None:
        return passing.planned_ms + update.delay_ms
    if update.time_ms is None:
        return None
    # Only a moment is said of an earlier stop: held against what was planned there, it is a delay.
    call = next((one for one in stops if _is_call(update, one)), None)
    here = next((one for one in stops if one.sequence == passing.sequence), None)
    if call is None or here is None:
        return None
    planned_ms = passing.planned_ms - (here.departs_s - call.departs_s) * 1000
    return passing.planned_ms + update.time_ms - planned_ms


def _is_call(update: Update, call: Call) -> bool:
    return call.sequence == update.sequence if update.sequence is not None else call.stop == update.stop


def _day(text: str) -> date | None:
    try:
        return day_of(text)
    except ValueError:
        return None


def _seconds(text: str) -> int | None:
    try:
        return seconds_of(text)
    except ValueError:
        return None
