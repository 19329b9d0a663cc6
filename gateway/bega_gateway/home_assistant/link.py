"""The way to Home Assistant's broker: a session of its own, live only, and no more in memory than one message a topic.

It goes round the spool: what cannot be sent now is not kept, and the newest value of a topic takes the place of an
older one that waits. So a broker that is dead or slow holds up no record, and costs no disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from bega.mqtt import ANSWER_S, WINDOW, Session, SessionLost
from bega_gateway.home_assistant import discovery
from bega_gateway.home_assistant.discovery import OFFLINE, ONLINE
from bega_gateway.home_assistant.picture import Message, Picture

if TYPE_CHECKING:
    from bega.clock import Clock
    from bega_gateway.config import Config
    from bega_gateway.edge.derive import ThresholdAlarm
    from bega_gateway.home_assistant.picture import Device
    from bega_protocols.record import Record

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
LOOK_EVERY_S = 1.0
KEPT_S = 2.0  # so long the broker may take to send what it keeps, after it has sent our own words back
MOST_REASONS = 10  # said in one outage
MOST_KEPT = 2000  # descriptions that are read back: more are not ours
SETTLED_MS = 5000  # a connection that was down and stands so long is said to be back

Connect = Callable[[], AbstractAsyncContextManager[Session]]


class Link:
    """Keeps a picture in Home Assistant's mind: sends what changes, and all of it after each connect and its start."""

    def __init__(
        self,
        config: Config,
        broker: str,
        connect: Connect,
        clocks: tuple[Clock, Clock],
        quiet_s_of: Callable[[], Callable[[Device], float]],
        alarms: Callable[[], Mapping[str, ThresholdAlarm]],
    ) -> None:
        """connect: gives a session with the will of `Topics.status`. clocks: of the day, and of the machine, in ms.

        quiet_s_of: what `Picture.look` asks, as of this moment. alarms: those that are watched, by name
        """
        assert config.home_assistant
        self._broker = broker
        self._connect = connect
        self._wall_ms, self._mono_ms = clocks
        self._quiet_s_of = quiet_s_of
        self._alarms = alarms
        self._birth_topic = config.home_assistant.birth_topic
        self._picture = Picture(config, self._put)
        self._topics = self._picture.topics
        self._waiting: dict[str, Message] | None = None  # by topic; None: nobody is there to send it to
        self._filled = asyncio.Event()
        self._in_flight = 0
        self._freed = asyncio.Event()
        self._moved_ms = 0  # when something was last acknowledged
        self._up_ms = 0  # when it was connected
        self._said: set[str] = set()  # why it is down: each reason once
        self._has_said_full = False
        self._is_deaf = False  # it was said that the broker refuses the subscription to Home Assistant's start
        self._fault: Exception | None = None
        self.connected_to: str | None = None
        self.keeps: bool | None = None  # whether the broker keeps retained messages; None: not known yet
        self.sent = 0  # messages that were acknowledged, since the start

    @property
    def entities(self) -> int:
        """How many entities Home Assistant is told of."""
        return self._picture.entities

    def use(self, config: Config) -> None:
        """From now on it is `config` that says who is shown."""
        self._picture.use(config)

    def take(self, record: Record, arrival_ms: int, simulated: bool) -> None:
        """Take a record, as a listener of the recorder."""
        now_ms = self._mono_ms()
        try:
            if self._picture.take(record, self._wall_ms(), now_ms, simulated=simulated):
                self._look(now_ms)
        except Exception as fault:  # it is our own task that ends, and not the line that has read the record
            self._fault = fault

    async def run(self) -> None:
        """Connect, say all, send what changes; on any failure pause and begin again. Ends only when cancelled."""
        self.connected_to = self._waiting = self._fault = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_again())
            pause_s = FIRST_PAUSE_S
            while True:
                try:
                    async with self._connect() as session:
                        await self._serve(session)
                except* (SessionLost, OSError, TimeoutError) as errors:
                    self._say_down(errors)
                pause_s = FIRST_PAUSE_S if self._stands() else min(2 * pause_s, LONGEST_PAUSE_S)
                self.connected_to = self._waiting = None
                await asyncio.sleep(pause_s * (0.5 + secrets.SystemRandom().random()))

    async def _look_again(self) -> None:
        while True:
            if self._fault:
                raise self._fault
            self._look(self._mono_ms())
            if self._said and self._stands():
                self._said.clear()
                self._say_up()
            if self._picture.left_out and not self._has_said_full:
                self._has_said_full = True
                log.warning("home assistant is told of no further entity entities=%d", self._picture.entities)
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self, now_ms: int) -> None:
        self._picture.look(now_ms, self._quiet_s_of(), self._alarms())

    async def _serve(self, session: Session) -> None:
        """Find out what the broker keeps of us, say all, and send until the connection ends."""
        self._in_flight = 0
        kept: dict[str, bytes] = {}
        proved, said = asyncio.Event(), asyncio.Event()
        token = secrets.token_hex(8).encode()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(session, token, proved, said, kept))
            await self._read_back(session, token, proved, said)
            self._begin(kept)
            tasks.create_task(self._hear_births(session))
            tasks.create_task(self._watch_progress())
            try:
                await self._send_all(session)
            except asyncio.CancelledError:
                with contextlib.suppress(SessionLost):  # a good-bye that is not said is said by the broker
                    session.send(self._topics.status, OFFLINE, lambda: None, retain=True)
                raise

    async def _read_back(self, session: Session, token: bytes, proved: asyncio.Event, said: asyncio.Event) -> None:
        """Have the broker send what it keeps of us. Where it does not send what we just said, it keeps nothing."""
        own = self._topics.config("", "")
        await session.publish(own, discovery.of_gateway(self._topics), retain=True)
        await session.subscribe(self._topics.probe, self._topics.configs)
        await session.publish(self._topics.probe, token)
        try:
            async with asyncio.timeout(ANSWER_S):
                await proved.wait()
        except TimeoutError:
            raise SessionLost(f"no probe came back from {self._topics.probe}: see the broker's access list") from None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEPT_S):
                await said.wait()
        await session.unsubscribe(self._topics.configs)
        self._say_whether_kept(said.is_set())

    def _say_whether_kept(self, keeps: bool) -> None:
        if not keeps and self.keeps is not False:
            log.warning(
                "the broker keeps no retained messages, or its access list denies us %s; Home Assistant forgets every"
                " device when it starts anew, and may show a gateway that is gone as there: use mosquitto broker=%s",
                self._topics.configs,
                self._broker,
            )
        self.keeps = keeps

    def _begin(self, kept: dict[str, bytes]) -> None:
        """Have everything wait to be sent, and last of all that the gateway is there."""
        now_ms = self._mono_ms()
        self._waiting = {}
        self._picture.adopt(kept, now_ms)
        self._look(now_ms)
        self._picture.say_all(now_ms)
        self._put(Message(self._topics.status, ONLINE, True))
        self._moved_ms = self._up_ms = now_ms
        self.connected_to = self._broker
        if not self._said:
            self._say_up()

    async def _hear(
        self, session: Session, token: bytes, proved: asyncio.Event, said: asyncio.Event, kept: dict[str, bytes]
    ) -> None:
        """Read what arrives: the probe, what the broker keeps, the start of Home Assistant; and that all is over."""
        async for message in session.messages():
            if message.topic == self._topics.probe:
                if message.payload == token:
                    proved.set()
            elif message.topic == self._birth_topic:
                if message.payload == ONLINE and not message.is_retained and self._waiting is not None:
                    log.info("home assistant has started, it is told everything")
                    self._picture.say_all(self._mono_ms())
            elif message.is_retained and message.payload and len(kept) < MOST_KEPT:
                kept[message.topic] = message.payload
                if message.topic == self._topics.config("", ""):
                    said.set()

    async def _hear_births(self, session: Session) -> None:
        try:
            await session.subscribe(self._birth_topic)
        except SessionLost as error:  # where the connection is gone, others hear of it, too
            if not self._is_deaf:
                self._is_deaf = True
                log.warning("home assistant's start is not heard, values come when they are measured error=%s", error)

    async def _watch_progress(self) -> None:
        """A socket may stay open for hours over a link that is dead: what tells is whether anything is acknowledged."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._in_flight and self._mono_ms() - self._moved_ms > 1000 * ANSWER_S:
                raise SessionLost(f"no PUBACK for {ANSWER_S:g} s")

    async def _send_all(self, session: Session) -> None:
        while self._waiting is not None:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            while self._in_flight >= WINDOW:
                self._freed.clear()
                await self._freed.wait()
            message = self._waiting.pop(next(iter(self._waiting)))
            if not self._in_flight:
                self._moved_ms = self._mono_ms()
            self._in_flight += 1
            session.send(message.topic, message.payload, self._acknowledge, retain=message.is_kept)

    def _acknowledge(self) -> None:
        self._in_flight -= 1
        self._moved_ms = self._mono_ms()
        self.sent += 1
        self._freed.set()

    def _put(self, message: Message) -> None:
        """Have a message wait; what waits for the same topic is older, and dropped."""
        if self._waiting is not None:
            self._waiting[message.topic] = message
            self._filled.set()

    def _stands(self) -> bool:
        return self.connected_to is not None and self._mono_ms() - self._up_ms > SETTLED_MS

    def _say_up(self) -> None:
        log.info("home assistant up broker=%s entities=%d", self._broker, self._picture.entities)

    def _say_down(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        reason = str(error)
        if self.keeps is None and "no answer" in reason:
            reason += " Does it keep retained messages? mosquitto without (retain_available) answers no such client"
        if reason not in self._said and len(self._said) < MOST_REASONS:
            self._said.add(reason)
            log.warning("home assistant's broker down, it is told nothing broker=%s error=%s", self._broker, reason)
