"""From the spool to the broker: what is new first, a window at a time, deleted only when it was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from bega.clock import Clock
from bega.mqtt import ANSWER_S, WINDOW, Message, Session, SessionLost
from bega.outbox.agenda import Agenda
from bega.outbox.spool import Row, Spool
from bega.outbox.suspects import Suspects

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
MOST_REASONS = 10  # said in one outage
LOOK_EVERY_S = 0.5
BLAME_WITHIN_S = 5.0  # a broker that ends a connection over a message does so at once; a link that dies does not
SETTLED_S = 5.0  # an uplink that was down and stands so long is said to be back
RETURN_AFTER_S = 600.0  # connected to another, it looks so often whether the first broker is back

Connect = Callable[[str], AbstractAsyncContextManager[Session]]
Chance = Callable[[], float]
Hear = Callable[[Message], None]


class Publisher:
    """Sends what the spool holds, for ever.

    After each connect nothing is deleted before a message to our own `probe_topic` has come back: a broker
    acknowledges a publish that its access list denies, just the same. What counts as life is progress of
    acknowledgements: a connection on which messages wait and none is acknowledged for ANSWER_S is over.
    """

    def __init__(
        self,
        spool: Spool,
        brokers: Sequence[str],
        connect: Connect,
        probe_topic: str,
        mono_ms: Clock,
        chance: Chance | None = None,
        listens_to: tuple[str, Hear] | None = None,
    ) -> None:
        """`connect(address)` gives a session. `brokers`: the first is preferred, the others are tried in turn.

        chance() gives a number from 0 to 1: after an outage not all gateways of a city come back in one second.
        listens_to: a topic filter ending in "/#", and what takes each message that comes under it.
        """
        self._spool = spool
        self._brokers = brokers
        self._connect = connect
        self._probe_topic = probe_topic
        self._mono_ms = mono_ms
        self._chance = chance or secrets.SystemRandom().random
        self._listens_to = listens_to
        self._is_deaf = False  # it was said that the broker refuses that subscription
        self._down_since_ms: int | None = None
        self._said: set[str] = set()  # why it is down: each reason once
        self._in_flight: dict[int, None] = {}  # ids, oldest first
        self._freed = asyncio.Event()  # room in the window
        self._is_finishing = False
        self._moved_ms = 0  # when something was last acknowledged, or sent into an empty window
        self._suspects = Suspects()
        self._agenda: Agenda | None = None
        self.acknowledged = 0  # messages since the start
        self.attempts = 0  # connects begun since the start
        self.connected_to: str | None = None

    @property
    def in_flight(self) -> int:
        """How many messages were sent and are not yet acknowledged."""
        return len(self._in_flight)

    @property
    def behind(self) -> int:
        """How many messages were stored since the connect and not sent yet; 0 without a connection."""
        return self._agenda.behind if self._agenda else 0

    async def run(self) -> None:
        """Connect, prove the way, send; on any failure pause and take the next broker. Ends only when cancelled."""
        pause_s = FIRST_PAUSE_S
        turn = 0
        while True:
            broker = self._brokers[turn % len(self._brokers)]
            before = self.acknowledged
            self.attempts += 1
            try:
                async with self._connect(broker) as session:
                    await self._serve(session, broker)
            except* (SessionLost, OSError, TimeoutError, sqlite3.OperationalError) as errors:
                self._say_down(broker, errors.exceptions[0])
            self.connected_to = self._agenda = None
            await self._take_stock()
            worked = self.acknowledged > before
            turn = 0 if worked else turn + 1
            pause_s = FIRST_PAUSE_S if worked else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s * (0.5 + self._chance()))

    async def finish(self, within_s: float) -> None:
        """Send nothing more, and wait for the answers to what is under way; without them it would go twice."""
        self._is_finishing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._in_flight:
                    self._freed.clear()
                    await self._freed.wait()

    async def _serve(self, session: Session, broker: str) -> None:
        proved = asyncio.Event()
        token = secrets.token_hex(8).encode()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(session, token, proved))  # first: only it hears at once that all is over
            await session.subscribe(self._probe_topic)
            await session.publish(self._probe_topic, token)
            try:
                async with asyncio.timeout(ANSWER_S):
                    await proved.wait()
            except TimeoutError:
                raise SessionLost(
                    f"no probe came back from {self._probe_topic}: see the broker's access list"
                ) from None
            self.connected_to = broker
            tasks.create_task(self._say_up(broker))
            tasks.create_task(self._listen(session))
            tasks.create_task(self._watch_progress())
            if broker != self._brokers[0]:
                tasks.create_task(self._look_for_the_first())
            await self._send_suspects(session)
            await self._send_all(session)

    async def _watch(self, session: Session, token: bytes, proved: asyncio.Event) -> None:
        """Read what arrives: the probe, and with it the news that the connection is gone; and what is listened to."""
        async for message in session.messages():
            if message.topic == self._probe_topic and message.payload == token:
                proved.set()
            elif self._listens_to and message.topic.startswith(self._listens_to[0].removesuffix("#")):
                self._listens_to[1](message)

    async def _listen(self, session: Session) -> None:
        """Subscribe to what is listened to. A broker that refuses it gets the records all the same."""
        if not self._listens_to:
            return
        try:
            await session.subscribe(self._listens_to[0])
            self._is_deaf = False
        except SessionLost as error:  # where the connection is gone, others hear of it, too
            if not self._is_deaf:
                log.warning("commands are not heard error=%s", error)
            self._is_deaf = True

    async def _watch_progress(self) -> None:
        """A socket may stay open for hours over a link that is dead: what tells is whether anything is acknowledged."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._in_flight and self._mono_ms() - self._moved_ms > 1000 * ANSWER_S:
                raise SessionLost(f"no PUBACK for {ANSWER_S:g} s")

    async def _look_for_the_first(self) -> None:
        while True:
            await asyncio.sleep(RETURN_AFTER_S)
            try:
                async with self._connect(self._brokers[0]):
                    pass
            except (SessionLost, OSError, TimeoutError):
                continue
            raise SessionLost(f"{self._brokers[0]} is back, and preferred")

    async def _send_all(self, session: Session) -> None:
        self._agenda = agenda = Agenda(self._spool, self._mono_ms)
        while not self._is_finishing:
            if len(self._in_flight) >= WINDOW:
                self._freed.clear()
                await self._freed.wait()
            more = self._spool.next_commit()
            rows = await agenda.next(WINDOW - len(self._in_flight))
            if not rows:
                await more.wait()
            for row in rows:
                await self._send(session, row)

    async def _send_suspects(self, session: Session) -> None:
        """Send one by one what was under way when a broker ended the connection: one of them may be why."""
        while (id_ := self._suspects.next()) is not None:
            if self._suspects.needs_another(id_, self.acknowledged):
                await self._send_another(session)
            rows = await self._spool.take(id_ - 1, 1, id_)
            if rows:
                await self._send_alone(session, rows[0])
            self._suspects.clear(id_)

    async def _send_another(self, session: Session) -> None:
        """Send the oldest message that is no suspect, to see whether this broker takes any at all."""
        rows = await self._spool.take(0, len(self._suspects) + 1)
        for row in rows:
            if row.id not in self._suspects:
                await self._send_alone(session, row)
                return

    async def _send_alone(self, session: Session, row: Row) -> None:
        await self._send(session, row)
        while self._in_flight:
            self._freed.clear()
            await self._freed.wait()

    async def _send(self, session: Session, row: Row) -> None:
        if row.id in self._in_flight or self._is_finishing:
            return
        if not self._in_flight:
            self._moved_ms = self._mono_ms()
        self._in_flight[row.id] = None
        try:
            session.send(row.topic, row.payload, partial(self._acknowledge, row.id))
        except ValueError as error:  # paho refuses the message itself; it must not hold up those behind it
            del self._in_flight[row.id]
            self._freed.set()
            await self._spool.refuse(row.id, f"cannot be published: {error}")

    def _acknowledge(self, id_: int) -> None:
        self._in_flight.pop(id_, None)
        self._moved_ms = self._mono_ms()
        self.acknowledged += 1
        self._spool.forget([id_])
        self._freed.set()

    async def _take_stock(self) -> None:
        """A connection has ended: what was under way is sent again, and with care if it may be why."""
        under_way, self._in_flight = list(self._in_flight), {}
        self._freed.set()
        if self._mono_ms() - self._moved_ms > 1000 * BLAME_WITHIN_S:
            return
        guilty = self._suspects.note_loss(under_way, self.acknowledged)
        if guilty is not None:
            try:
                await self._spool.refuse(guilty, "the broker ended the connection at each of three attempts")
            except sqlite3.OperationalError:
                return  # it stays a suspect, and comes here again
            self._suspects.clear(guilty)

    def _say_down(self, broker: str, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._down_since_ms is None:
            self._down_since_ms = self._mono_ms()
        reason = str(error)
        if reason not in self._said and len(self._said) < MOST_REASONS:
            self._said.add(reason)
            log.warning(
                "uplink down, records wait in the spool broker=%s depth=%d error=%s", broker, self._spool.depth, reason
            )

    async def _say_up(self, broker: str) -> None:
        """Say that the uplink is up: once it stands, if it was down, since some brokers end what they just took."""
        if self._down_since_ms is not None:
            await asyncio.sleep(SETTLED_S)
        down_s = 0 if self._down_since_ms is None else (self._mono_ms() - self._down_since_ms) // 1000
        self._down_since_ms = None
        self._said.clear()
        log.info("uplink up broker=%s after_s=%d depth=%d", broker, down_s, self._spool.depth)
