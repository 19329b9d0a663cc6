"""What Home Assistant is to see: devices and the newest value of each of their entities. No IO, no clock.

Values are live: what was measured long ago, and comes now because a node was away, is not shown. A value that holds
no longer is not repeated: its entity is said to be unavailable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from bega.clock import CLOCK_FLOOR_MS
from bega_gateway.edge.tables import AirIndex, Alarm, Means, NightFlow, Totals
from bega_gateway.health import NODE_SILENCE_S, SILENT_AFTER_PERIODS, quiet_after_s
from bega_gateway.home_assistant import discovery
from bega_gateway.home_assistant.discovery import OFF, OFFLINE, ON, ONLINE, Described, Key, Topics
from bega_gateway.home_assistant.kinds import BINARY, Kind, kind_of
from bega_gateway.home_assistant.table import is_shown
from bega_protocols.reading import GOOD, STALE, decimal_text

if TYPE_CHECKING:
    from bega_gateway.config import Config
    from bega_gateway.edge.derive import ThresholdAlarm
    from bega_protocols.reading import Reading
    from bega_protocols.record import Record

MOST_ENTITIES = 5000  # a node that makes up names must not fill the memory, nor Home Assistant
LONGEST_STATE = 255  # characters that Home Assistant takes
SETTLE_MS = 5000  # so long Home Assistant may take to make entities of a description, before it hears their values
PERIODS = 3  # without its total, until that of the last period counts no more
PERIOD_S = {"15min": 900, "hour": 3600, "day": 86_400}
OF_SUFFIX_S = {"_15min": 900, "_1h": 3600, "_1d": 86_400}
GOOD_WORDS, SUSPECT_WORDS = b'{"quality": "good"}', b'{"quality": "suspect"}'
ALARM = ("alarm", "")
Device = tuple[str, str]


class Message(NamedTuple):
    """What goes out; `is_kept` by the broker."""

    topic: str
    payload: bytes
    is_kept: bool = False


@dataclass(slots=True)
class _Entity:
    kind: Kind
    topic: str  # of its values
    fresh_s: float | None  # without a new value for so long, the last one holds no more; None: its device tells
    state: bytes | None = None
    attributes: bytes = b""
    is_good_for_now: bool = False  # neither stale nor too old
    is_available: bool = False  # and its device is not silent: as it was said last
    heard_ms: int = 0
    order: tuple[int, int] = (0, 0)  # boot and seq of the record that said so


@dataclass(slots=True)
class _Shown:
    entities: dict[Key, _Entity] = field(default_factory=dict)
    is_changed: bool = True  # its description is to be sent
    resend_ms: int | None = None  # when its values are to be sent once more
    can_age: bool = False  # one of its entities has a time after which its value holds no more
    heard_ms: int | None = None  # when its newest record came
    gaps_ms: tuple[int, int] = (0, 0)  # between its last records: by these it is seen how often a node reads it

    def hear(self, now_ms: int) -> None:
        """Note that a record of it has come."""
        if self.heard_ms is not None:
            self.gaps_ms = self.gaps_ms[1], now_ms - self.heard_ms
        self.heard_ms = now_ms


class Picture:
    """Takes records, and gives the messages that make Home Assistant see them to `put`."""

    def __init__(self, config: Config, put: Callable[[Message], None]) -> None:
        assert config.home_assistant
        self._config = config
        self._put = put
        self.topics = Topics(config.home_assistant.prefix, config.gateway.name)
        self._shown: dict[Device, _Shown] = {}
        self._may: dict[Device, bool] = {}  # who is shown by this configuration
        self._known = 0
        self.left_out = 0  # entities for which there was no room

    @property
    def entities(self) -> int:
        """How many entities are known."""
        return self._known

    def use(self, config: Config) -> None:
        """From now on it is `config` that says who is shown. Who is no more is taken away, with all that was kept."""
        self._config = config
        self._may = {}
        for device in [device for device in self._shown if not self._is_shown(device)]:
            self._put_away(device, self._shown[device].entities)
            self._known -= len(self._shown.pop(device).entities)
        for shown in self._shown.values():
            shown.is_changed = True  # a label, a period
        for device, shown in self._shown.items():
            for (quantity, _), entity in shown.entities.items():
                entity.fresh_s = _fresh_s(config, device, quantity)
            shown.can_age = any(entity.fresh_s is not None for entity in shown.entities.values())

    def take(self, record: Record, wall_ms: int, now_ms: int, *, simulated: bool) -> bool:
        """Take a record that has just come; two clocks, of the day and of the machine.

        Returns whether it is one of our alarms: of these `look` tells, whether they are raised and whether anybody
        knows. What raised one is in its record as it was then; what it is now its own device shows.
        """
        device = record.source, record.device
        if not self._is_shown(device):
            return False
        if self._alarm(device):
            return True
        order = record.boot, record.seq
        is_of_now = False
        for reading in record.readings:
            key = reading.quantity, reading.part
            entity = self._entity(device, key)
            if entity is None or order < entity.order or _is_late(record, entity, wall_ms):
                continue
            entity.order = order
            is_of_now = True
            self._hear(device, key, entity, reading, _words(record, reading, simulated), now_ms)
        if is_of_now:
            self._shown[device].hear(now_ms)
        return False

    def look(self, now_ms: int, quiet_s_of: Callable[[Device], float], alarms: Mapping[str, ThresholdAlarm]) -> None:
        """Say what has changed without a record: who fell silent, what is too old; and send changed descriptions.

        quiet_s_of: after how many seconds without a record a device is silent; 0 if it is so now
        alarms: those that are watched, by name; they are known from the start, and not only when they change
        """
        for name, alarm in alarms.items():
            self._look_at(name, alarm, now_ms)
        for device, shown in self._shown.items():
            if shown.is_changed:
                self._describe(device, shown, now_ms)
            watch = self._alarm(device)  # an alarm is as silent as what it watches
            silent = self._is_silent(self._config.input_of(watch.input) if watch else device, now_ms, quiet_s_of)
            for key, entity in shown.entities.items() if silent or shown.can_age or watch else ():
                if silent or (entity.fresh_s is not None and now_ms - entity.heard_ms > 1000 * entity.fresh_s):
                    entity.is_good_for_now = False  # until it is measured anew, even if its device was only quiet
                self._say_available(device, key, entity, entity.is_good_for_now)
            if shown.resend_ms is not None and now_ms >= shown.resend_ms:
                shown.resend_ms = None
                self._say_values(device, shown)

    def adopt(self, kept: Mapping[str, bytes], now_ms: int) -> None:
        """Take over the descriptions that an earlier run left on the broker, and put away whoever is shown no more.

        Without that a restart would forget the meter's gas, say, until its next hour. What Home Assistant itself lets
        expire goes on until then; all else is unavailable until it is heard.
        """
        for topic, payload in kept.items():
            device = discovery.names_in(topic)
            if device == ("", ""):
                continue
            if device is None or not self._is_shown(device):
                self._put(Message(topic, b"", True))
            if device is None:
                continue
            keys = discovery.keys_in(payload)
            if not self._is_shown(device):
                self._put_away(device, keys)
                continue
            for key in keys:
                entity = self._entity(device, key)
                if entity and not entity.heard_ms:
                    entity.heard_ms = now_ms
                    entity.is_good_for_now = entity.fresh_s is not None

    def say_all(self, now_ms: int) -> None:
        """Say everything, to a broker or to a Home Assistant that may know nothing of it."""
        self._put(Message(self.topics.config("", ""), discovery.of_gateway(self.topics), True))
        for device, shown in self._shown.items():
            self._describe(device, shown, now_ms)
            for key, entity in shown.entities.items():
                self._put(self._availability(device, key, entity))
            self._say_values(device, shown)

    def _is_silent(self, device: Device, now_ms: int, quiet_s_of: Callable[[Device], float]) -> bool:
        """Return whether nobody hears `device`. One that a node reads rarely may be quiet for some of its periods."""
        quiet_s, shown = quiet_s_of(device), self._shown.get(device)
        if not quiet_s or shown is None or shown.heard_ms is None:
            return not quiet_s
        return now_ms - shown.heard_ms > max(1000 * quiet_s, SILENT_AFTER_PERIODS * min(shown.gaps_ms))

    def _is_shown(self, device: Device) -> bool:
        may = self._may.get(device)
        if may is None:
            may = is_shown(self._config, *device)
            if len(self._may) < MOST_ENTITIES:
                self._may[device] = may
        return may

    def _entity(self, device: Device, key: Key) -> _Entity | None:
        """Return an entity, made if it is new; None if it is of no quantity that is known, or there is no room."""
        shown = self._shown.get(device)
        entity = shown.entities.get(key) if shown else None
        if entity:
            return entity
        kind = kind_of(key[0])
        if kind is None:
            return None
        if self._known >= MOST_ENTITIES:
            self.left_out += 1
            return None
        self._known += 1
        shown = self._shown.setdefault(device, _Shown())
        shown.is_changed = True
        fresh_s = _fresh_s(self._config, device, key[0])
        shown.can_age |= fresh_s is not None
        entity = shown.entities[key] = _Entity(kind, self.topics.state(*device, key), fresh_s)
        return entity

    def _hear(
        self, device: Device, key: Key, entity: _Entity, reading: Reading, attributes: bytes, now_ms: int
    ) -> None:
        state = None if reading.quality == STALE else state_text(entity.kind, reading)
        if state is None:
            entity.is_good_for_now = False
            self._say_available(device, key, entity, False)
            return
        entity.state, entity.heard_ms = state, now_ms
        if attributes != entity.attributes:
            entity.attributes = attributes
            self._put(Message(self.topics.attributes(*device, key), attributes))
        self._put(Message(entity.topic, state))
        entity.is_good_for_now = True
        self._say_available(device, key, entity, True)

    def _look_at(self, name: str, alarm: ThresholdAlarm, now_ms: int) -> None:
        device = self._config.gateway.name, name
        entity = self._entity(device, ALARM) if self._is_shown(device) else None
        if entity is None:
            return
        state = ON if alarm.is_raised else OFF
        attributes = json.dumps({"acknowledged": alarm.is_raised and alarm.is_acknowledged}).encode()
        if (state, attributes) != (entity.state, entity.attributes):
            entity.state, entity.attributes = state, attributes
            self._put(Message(self.topics.attributes(*device, ALARM), attributes))
            self._put(Message(entity.topic, state))
        entity.heard_ms, entity.is_good_for_now = now_ms, True

    def _alarm(self, device: Device) -> Alarm | None:
        source, name = device
        table = self._config.edge.get("alarms", {}).get(name) if source == self._config.gateway.name else None
        return table if isinstance(table, Alarm) else None

    def _describe(self, device: Device, shown: _Shown, now_ms: int) -> None:
        source, name = device
        model = ""
        if source == self._config.gateway.name and name in self._config.devices:
            model = self._config.devices[name].driver
        entities = [
            (key, Described(entity.kind, None if entity.fresh_s is None else math.ceil(entity.fresh_s)))
            for key, entity in shown.entities.items()
        ]
        label = self._config.label_of(source, name)
        if label and source != self._config.gateway.name:
            label = f"{label}, {name}"  # a node's label is that of all its devices
        payload = discovery.of_device(self.topics, source, name, label, model, entities)
        self._put(Message(self.topics.config(source, name), payload, True))
        shown.is_changed = False
        shown.resend_ms = now_ms + SETTLE_MS

    def _say_values(self, device: Device, shown: _Shown) -> None:
        for key, entity in shown.entities.items():
            if entity.state is not None and entity.is_good_for_now:
                self._put(Message(self.topics.attributes(*device, key), entity.attributes))
                self._put(Message(entity.topic, entity.state))

    def _say_available(self, device: Device, key: Key, entity: _Entity, available: bool) -> None:
        if available != entity.is_available:
            entity.is_available = available
            self._put(self._availability(device, key, entity))

    def _availability(self, device: Device, key: Key, entity: _Entity) -> Message:
        return Message(self.topics.available(*device, key), ONLINE if entity.is_available else OFFLINE, True)

    def _put_away(self, device: Device, keys: Iterable[Key]) -> None:
        """Take a device from Home Assistant, and all that the broker keeps of it."""
        self._put(Message(self.topics.config(*device), b"", True))
        for key in keys:
            self._put(Message(self.topics.available(*device, key), b"", True))


def state_text(kind: Kind, reading: Reading) -> bytes | None:
    """Return the value as Home Assistant takes it: decimal text without an exponent, never through a float.

    None if it cannot be said there: a time beyond the calendar, more digits than a state may have.
    """
    if kind.platform == BINARY:
        return ON if reading.value else OFF
    if kind.device_class == "timestamp":
        return _time_text(reading)
    if reading.exp10 <= 0:
        text = decimal_text(reading.value, reading.exp10)
    elif reading.exp10 > LONGEST_STATE:
        return None
    else:
        text = str(reading.value * 10**reading.exp10)
    return text.encode() if len(text) <= LONGEST_STATE else None


def _time_text(reading: Reading) -> bytes | None:
    if abs(reading.exp10) > LONGEST_STATE:
        return None
    scale = 10 ** abs(reading.exp10)
    seconds = reading.value * scale if reading.exp10 > 0 else reading.value // scale
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().encode()
    except (ValueError, OverflowError, OSError):
        return None


def _words(record: Record, reading: Reading, simulated: bool) -> bytes:
    """Return what is said of a value beside it; sent when it changes."""
    said: dict[str, str | bool] = {"quality": "good" if reading.quality == GOOD else "suspect"}
    if record.time_ms is None:
        said["time"] = "unknown"
    if simulated:
        said["simulated"] = True
    return json.dumps(said).encode() if len(said) > 1 else GOOD_WORDS if reading.quality == GOOD else SUSPECT_WORDS


def _is_late(record: Record, entity: _Entity, wall_ms: int) -> bool:
    """Return whether it was measured too long ago to be shown as what is now."""
    if record.time_ms is None or wall_ms < CLOCK_FLOOR_MS:
        return False
    longest_s = NODE_SILENCE_S if entity.fresh_s is None else entity.fresh_s
    return wall_ms - record.time_ms > 1000 * longest_s


def _fresh_s(config: Config, device: Device, quantity: str) -> float | None:
    """Return for how long a value holds; None where nothing says so: then it does while its device is heard."""
    source, name = device
    if source != config.gateway.name:
        return None
    if name in config.devices:
        return config.devices[name].stale_after_s
    table = config.computed().get(name)
    if isinstance(table, AirIndex):
        return quiet_after_s(table.every_s)
    if isinstance(table, Totals | Means):
        return PERIODS * PERIOD_S[table.period]
    if isinstance(table, NightFlow):
        return PERIODS * PERIOD_S["day"]
    if table is None or isinstance(table, Alarm):
        return None
    periods_s = [period_s for suffix, period_s in OF_SUFFIX_S.items() if suffix in getattr(table, "quantity", "")]
    return PERIODS * max(periods_s, default=PERIOD_S["day"])
