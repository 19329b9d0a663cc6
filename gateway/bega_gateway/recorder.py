"""Readings become records: numbered, timed once, committed; and what is public goes to the feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from bega.clock import CLOCK_FLOOR_MS
from bega.outbox.spool import Head, Spool
from bega_gateway.config import Audience, Config
from bega_gateway.edge.tables import Band, Correction, Limit
from bega_gateway.edge.treatment import Device, Treatments
from bega_gateway.feed_store import FeedStore
from bega_gateway.pace import Pace
from bega_protocols import senml
from bega_protocols.reading import Reading
from bega_protocols.record import SYNCHRONISED, UNKNOWN, Record

# The attributes in which drivers tell their meter's number, in the words of Modbus profiles, P1, SML, M-Bus and of
# IEC 62056-21 (device numbers, IEC 62056-61). Another number is another meter.
NUMBERS = ("serial_number", "meter_id", "server_id", "id", "C.1.0", "0.0.0")
Listener = Callable[[Record, int, bool], None]


class Recorder:
    """Allots seq, writes to the spool, tells the feed and whoever computes with records.

    What the gateway reads itself has the gateway as its source; what a node sends keeps the node's numbers.
    """

    def __init__(self, config: Config, boot: int, spool: Spool, feed: FeedStore | None) -> None:
        self._config = config
        self.source = config.gateway.name  # of what the gateway reads itself
        self._boot = boot
        self._seq = 0
        self._spool = spool
        self._feed = feed
        self._listeners: dict[Device | None, list[Listener]] = {}  # by whose records they want; None: all
        self._encoder = senml.Encoder()
        self._pace: Pace | None = None
        self._treatments = Treatments()
        self._attributes: dict[str, dict[str, str]] = {}  # what each of our devices says of itself
        self.use(config)

    def use(self, config: Config) -> None:
        """From now on it is `config` that says who may see what, and what is done to readings."""
        self._config = config
        self._treatments.use(*_treated(config))

    def serial_of(self, device: tuple[str, str]) -> str:
        """Return the number of a meter (source, device), '' if it does not tell it."""
        source, name = device
        told = self._attributes.get(name, {}) if source == self.source else {}
        if not told:
            return ""  # asked for each record of each calculation, and most devices tell nothing
        return next((told[attribute] for attribute in NUMBERS if told.get(attribute)), "")

    def audience_of(self, source: str, device: str) -> Audience | None:
        """Return who may see what `device` of `source` says, as of now; None if it is configured no more."""
        found = self._config.nodes.get(source) or self._config.devices.get(device)
        return found.audience if found else None

    def keep(self, pace: Pace) -> None:
        """From now on whoever brings records waits when `pace` holds."""
        self._pace = pace

    def listen(self, listener: Listener, devices: Iterable[Device] | None = None) -> Callable[[], None]:
        """Call `listener(record, arrival_ms, simulated)` for each record from now on; return what ends that.

        devices: (source, device) of those whose records it wants, all if left out. With calculations on every device,
        to ask each of them about each record would cost more than they do.
        """
        wanted: set[Device | None] = {None} if devices is None else set(devices)
        for device in wanted:
            self._listeners.setdefault(device, []).append(listener)

        def end() -> None:
            for device in wanted:
                self._listeners[device].remove(listener)

        return end

    async def record(
        self,
        device: str,
        groups: list[list[Reading]],
        wall_ms: int,
        *,
        keeps: object = None,
        simulated: bool = False,
        at_once: bool = False,
    ) -> None:
        """Make a record of each group, read at `wall_ms`, and put it in the next commit; waits only for room there,
        and for a machine that has more to do than it can.

        keeps: whose `state()`, if it has one, is stored in the same commit.
        """
        if self._pace and self._pace.holds:
            await self._pace.turn()
        if not self._spool.has_room():
            await self._spool.room()
        if hasattr(keeps, "attributes"):
            self._attributes[device] = keeps.attributes
        is_treated = self._treatments.concerns((self.source, device))
        for readings in groups:
            if is_treated:
                readings = self._treatments.treat((self.source, device), readings, wall_ms)
            if not readings:
                continue
            self._seq += 1
            known = wall_ms >= CLOCK_FLOOR_MS
            time_ms, time_quality = (wall_ms, SYNCHRONISED) if known else (None, UNKNOWN)
            record = Record(self.source, self._boot, self._seq, device, time_ms, time_quality, readings)
            state = (device, keeps.state()) if hasattr(keeps, "state") else None
            self._spool.add(
                self._topic(record),
                self._encoder.encode(record),
                storage_class=self._config.storage_class_of(self.source, device),
                state=state,
                at_once=at_once,
            )
            self._tell(record, wall_ms, simulated)

    def record_of_node(self, record: Record, pack: bytes, head: Head, arrival_ms: int) -> asyncio.Future[None]:
        """Put a node's record, as it came, and its head in the next commit, at once: the node waits for it.

        The result is SpoolFull if there is no room: the node keeps the record, and sends it again.
        """
        device = record.source, record.device
        if self._treatments.concerns(device):
            time_ms = arrival_ms if record.time_ms is None else record.time_ms
            record = record._replace(readings=self._treatments.treat(device, record.readings, time_ms))
            pack = self._encoder.encode(record)
        storage_class = self._config.storage_class_of(record.source, record.device)
        stored = self._spool.add(self._topic(record), pack, storage_class=storage_class, head=head, at_once=True)

        def tell(outcome: asyncio.Future[None]) -> None:
            if not outcome.cancelled() and not outcome.exception():  # one that is refused comes again
                self._tell(record, arrival_ms, False)

        stored.add_done_callback(tell)
        return stored

    def _topic(self, record: Record) -> str:
        gateway = self._config.gateway
        return f"city/{gateway.city}/{gateway.name}/{record.source}/{record.device}/up"

    def _tell(self, record: Record, arrival_ms: int, simulated: bool) -> None:
        if self._feed and self._config.audience_of(record.source, record.device) == "public":
            self._feed.add(record, arrival_ms, simulated)
        for wanted in (None, (record.source, record.device)):
            for listener in self._listeners.get(wanted, ()):
                listener(record, arrival_ms, simulated)


def _treated(
    config: Config,
) -> tuple[list[tuple[Device, Correction, Device | None]], list[tuple[Device, Limit]], list[tuple[Device, Band]]]:
    """Return what is configured to be done to readings, each with its device. What a node reports is its own affair."""
    corrections, limits, bands = [], [], []
    for rows in config.edge.values():
        for table in rows.values():
            if isinstance(table, Correction):
                humidity_of = config.input_of(table.humidity_from) if table.humidity_from else None
                corrections.append((config.input_of(table.input), table, humidity_of))
            elif isinstance(table, Limit):
                limits.append((config.input_of(table.input), table))
            elif isinstance(table, Band):
                bands.append((config.input_of(table.input), table))
    return corrections, limits, bands
