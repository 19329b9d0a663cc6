"""The desk's end of MQTT: reports in, stored, acknowledged; each change told to the kiosk that the report came from."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from bega import mqtt
from bega.mqtt import Credentials, Message, Session, SessionLost
from bega_kiosk.desk.store import DeskStore
from bega_kiosk.report import HINT, REPORT, STATUS, Ask, encode, read_sent
from bega_protocols.errors import WireError

log = logging.getLogger("bega.desk")

LOOK_EVERY_S = 0.5
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Link:
    """One broker, one city. `taken` counts reports stored, `again` those that came once more, `refused` nonsense."""

    def __init__(
        self, store: DeskStore, city: str, broker: str, name: str, credentials: Credentials | None = None
    ) -> None:
        self._store = store
        self._city = city
        self._broker = broker
        self._name = name
        self._credentials = credentials
        self._is_hinting = asyncio.Event()
        self.taken = self.again = self.refused = 0

    async def run(self) -> None:
        """Serve for ever: where the broker is away, again and again."""
        turn, said = 0, ""
        while True:
            try:
                async with mqtt.connect(self._broker, self._name, self._credentials) as session:
                    await session.subscribe(self._topic("+", REPORT))
                    log.info("desk hears kiosks broker=%s city=%s", self._broker, self._city)
                    turn, said = 0, ""
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._hear(session))
                        tasks.create_task(self._tell(session))
            except* (SessionLost, OSError, TimeoutError, sqlite3.OperationalError) as errors:
                why = str(errors.exceptions[0])
                if why != said:
                    log.warning("desk hears no kiosk broker=%s error=%s", self._broker, why)
                said = why
            await asyncio.sleep(PAUSES_S[min(turn, len(PAUSES_S) - 1)])
            turn += 1

    def hint(self) -> None:
        """Have every kiosk that reports came from fetch the notices now; the others do so within minutes anyway."""
        self._is_hinting.set()

    async def _hear(self, session: Session) -> None:
        async for message in session.messages():
            answer = self.answer(message)
            if answer is not None:
                await session.publish(*answer)

    def answer(self, message: Message) -> tuple[str, bytes] | None:
        """Store what a kiosk sent; return (topic, payload) of what it is told at once.

        Nothing is told of what could not be stored: the kiosk keeps it, and sends it again.
        """
        kiosk = message.topic.split("/")[2]
        try:
            sent = read_sent(message.payload)
            if isinstance(sent, Ask):
                return self._topic(kiosk, STATUS), encode(self._store.status(sent.code))
            if sent.source != kiosk:
                raise WireError("a report of another kiosk")
            is_new = self._store.take(sent)
        except (WireError, sqlite3.IntegrityError) as error:
            self.refused += 1
            log.warning("message refused kiosk=%s refused=%d error=%s", kiosk, self.refused, error)
            return None
        self.taken += is_new
        self.again += not is_new
        return None

    async def _tell(self, session: Session) -> None:
        """Tell kiosks what is stored and what changed, also by another process."""
        while True:
            for kiosk, status in self._store.untold():
                await session.publish(self._topic(kiosk, STATUS), encode(status))
                self._store.told(status)
            if self._is_hinting.is_set():
                self._is_hinting.clear()
                for kiosk in self._store.kiosks():
                    await session.publish(self._topic(kiosk, HINT), b"")
            await asyncio.sleep(LOOK_EVERY_S)

    def _topic(self, kiosk: str, end: str) -> str:
        return f"city/{self._city}/{kiosk}/{end}"
