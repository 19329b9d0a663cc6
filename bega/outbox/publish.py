"""From the spool to the broker: oldest first, a window at a time, deleted only when it was acknowledged."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from bega.clock import Clock
from bega.mqtt import ANSWER_S, WINDOW, Session, SessionLost
from bega.outbox.spool import Row, Spool

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0

Connect = Callable[[str], AbstractAsyncContextManager[Session]]


class Publisher:
    """Sends what the spool holds, for ever.

    After each connect nothing is deleted before a message to our own `probe_topic` has come back: a broker
    acknowledges a publish that its access list denies, just the same.
    """

    def __init__(
        self, spool: Spool, brokers: Sequence[str], connect: Connect, probe_topic: str, mono_ms: Clock
    ) -> None:
        """`connect(address)` gives a session; `brokers` are tried in turn."""
        self._spool = spool
        self._brokers = brokers
        self._connect = connect
        self._probe_topic = probe_topic
        self._mono_ms = mono_ms
        self._down_since_ms: int | None = None
        self.acknowledged = 0  # messages since the start
        self.connected_to: str | None = None

    async def run(self) -> None:
        """Connect, prove the way, send; on any failure pause and take the next broker. Ends only when cancelled."""
        pause_s = FIRST_PAUSE_S
        turn = 0
        while True:
            broker = self._brokers[turn % len(self._brokers)]
            before = self.acknowledged
            try:
                async with self._connect(broker) as session:
                    await self._serve(session, broker)
            except* (SessionLost, OSError, TimeoutError, sqlite3.OperationalError) as errors:
                self._say_down(broker, errors.exceptions[0])
            self.connected_to = None
            turn += 1
            pause_s = FIRST_PAUSE_S if self.acknowledged > before else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

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
            self._say_up(broker)
            await self._send_all(session, tasks)

    async def _watch(self, session: Session, token: bytes, proved: asyncio.Event) -> None:
        """Read what arrives: the probe, and with it the news that the connection is gone."""
        async for message in session.messages():
            if message.topic == self._probe_topic and message.payload == token:
                proved.set()

    async def _send_all(self, session: Session, tasks: asyncio.TaskGroup) -> None:
        slots = asyncio.Semaphore(WINDOW)
        last_id = 0
        while True:
            more = self._spool.next_commit()
            rows = await self._spool.take(last_id, WINDOW)
            if not rows:
                await more.wait()
            for row in rows:
                await slots.acquire()
                tasks.create_task(self._send(session, row, slots))
                last_id = row.id

    async def _send(self, session: Session, row: Row, slots: asyncio.Semaphore) -> None:
        try:
            await session.publish(row.topic, row.payload)
        except ValueError as error:  # paho refuses the message itself; it must not hold up those behind it
            log.error("message cannot be published, it stays in the spool topic=%s error=%s", row.topic, error)
        else:
            self.acknowledged += 1
            self._spool.forget([row.id])
        slots.release()

    def _say_down(self, broker: str, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._down_since_ms is None:
            self._down_since_ms = self._mono_ms()
            log.warning(
                "uplink down, records wait in the spool broker=%s depth=%d error=%s", broker, self._spool.depth, error
            )

    def _say_up(self, broker: str) -> None:
        self.connected_to = broker
        down_s = 0 if self._down_since_ms is None else (self._mono_ms() - self._down_since_ms) // 1000
        self._down_since_ms = None
        log.info("uplink up broker=%s after_s=%d depth=%d", broker, down_s, self._spool.depth)
