"""The desk's end of MQTT: reports in, stored, acknowledged; each change told to the kiosk that the report came from."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from bega.clock import Clock, mono_ms
from bega.mqtt import Credentials, Message, Session
from bega_kiosk.desk.guesses import Guesses
from bega_kiosk.desk.store import DeskStore
from bega_kiosk.reconnect import stay_connected
from bega_kiosk.report import HINT, REPORT, STATUS, Ask, Status, encode, read_sent
from bega_protocols.errors import WireError

log = logging.getLogger("bega.desk")

LOOK_EVERY_S = 0.5


class Link:
    """One broker, one city. `taken` counts reports stored, `again` those that came once more, `refused` nonsense."""

    def __init__(
        self,
        store: DeskStore,
        city: str,
        broker: str,
        name: str,
        credentials: Credentials | None = None,
        mono_ms: Clock = mono_ms,
    ) -> None:
        self._store = store
        self._city = city
        self._broker = broker
        self._name = name
        self._credentials = credentials
        self._guesses = Guesses(mono_ms)  # of a kiosk that was stolen, until its certificate is revoked
        self._is_hinting = asyncio.Event()
        self.taken = self.again = self.refused = 0

    async def run(self) -> None:
        """Serve for ever: where the broker is away, again and again."""

        def up() -> None:
            log.info("desk hears kiosks broker=%s city=%s", self._broker, self._city)

        def down(why: str) -> None:
            log.warning("desk hears no kiosk broker=%s error=%s", self._broker, why)

        topics = self._topic("+", REPORT)
        await stay_connected(self._broker, self._name, self._credentials, topics, up, down, self._hear, self._tell)

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
        parts = message.topic.split("/")
        kiosk = parts[2] if len(parts) == len(self._topic("", REPORT).split("/")) else ""
        try:
            if message.topic != self._topic(kiosk, REPORT):  # what was subscribed to once, for another city
                raise WireError("no report of a kiosk of this city")
            sent = read_sent(message.payload)
            if isinstance(sent, Ask):
                return self._topic(kiosk, STATUS), encode(self._asked(kiosk, sent.code))
            if sent.source != kiosk:
                raise WireError("a report of another kiosk")
            if self._store.is_here_under_another_name(sent):
                self.again += 1
                return self._topic(kiosk, STATUS), encode(self._store.status(sent.code))
            is_new = self._store.take(sent)
        except (WireError, sqlite3.IntegrityError) as error:
            self.refused += 1
            if self.refused & (self.refused - 1) == 0:  # the 1st, 2nd, 4th, ...: a kiosk that lies fills no log
                log.warning("message refused kiosk=%s refused=%d error=%s", kiosk, self.refused, error)
            return None
        self.taken += is_new
        self.again += not is_new
        return None

    def _asked(self, kiosk: str, code: str) -> Status:
        if self._guesses.are_too_many(kiosk):
            raise WireError("too many codes that nobody has")
        status = self._store.status(code)
        if status.state == "unknown":
            self._guesses.note(kiosk)
        return status

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
