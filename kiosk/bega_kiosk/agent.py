"""The kiosk's agent: with its certificate it carries reports to the desk and brings back how they are.

A process of its own, so that the pages hold no credentials. A report leaves the outbox when the desk says that it has
stored it: a broker's acknowledgement alone frees nothing, and what the desk is silent about is sent again. The
desk counts each once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from bega import mqtt
from bega.clock import Clock, mono_ms, wall_ms
from bega.mqtt import Credentials, Session, SessionLost
from bega_kiosk.config import Config
from bega_kiosk.notice_feed import HINT as HINT_FILE
from bega_kiosk.outbox import Outbox
from bega_kiosk.report import HINT, REPORT, STATUS, read_status
from bega_protocols.errors import ConfigError, WireError

log = logging.getLogger("bega.kiosk.agent")

LOOK_EVERY_S = 0.5
AGAIN_AFTER_MS, LONGEST_AGAIN_MS = 10_000, 3_600_000  # the desk did not say that it has it; each time twice as long
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Agent:
    """Carries one kiosk's reports. `sent` counts what was published, `heard` what the desk said."""

    def __init__(
        self,
        outbox: Outbox,
        root: str,
        broker: str,
        name: str,
        mono_ms: Clock,
        hint: Path,
        credentials: Credentials | None = None,
    ) -> None:
        """`root`: the kiosk's topic, "city/<city>/<kiosk>/"; `hint`: the file that has the pages fetch notices."""
        self._outbox = outbox
        self._root = root
        self._broker = broker
        self._name = name
        self._mono_ms = mono_ms
        self._hint = hint
        self._credentials = credentials
        self._again: dict[
            int, tuple[int, int]
        ] = {}  # by id in the outbox: (when to send it again, the pause after that)
        self.sent = self.heard = 0

    async def run(self) -> None:
        """Serve for ever: where the broker is away, again and again."""
        turn, said = 0, ""
        while True:
            try:
                async with mqtt.connect(self._broker, self._name, self._credentials) as session:
                    await session.subscribe(self._root + "cmd/#")
                    log.info("agent up broker=%s", self._broker)
                    turn, said = 0, ""
                    self._again.clear()
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._hear(session))
                        tasks.create_task(self._send(session))
            except* (SessionLost, OSError, TimeoutError, sqlite3.Error) as errors:
                why = str(errors.exceptions[0])
                if why != said:
                    log.warning("agent down, reports wait broker=%s error=%s", self._broker, why)
                said = why
            await asyncio.sleep(PAUSES_S[min(turn, len(PAUSES_S) - 1)])
            turn += 1

    async def _hear(self, session: Session) -> None:
        async for message in session.messages():
            if message.topic == self._root + HINT:
                self._hint.touch()
            if message.topic != self._root + STATUS:
                continue
            try:
                self._outbox.note(read_status(message.payload))
            except WireError as error:
                log.warning("desk not understood error=%s", error)
                continue
            self.heard += 1

    async def _send(self, session: Session) -> None:
        topic = self._root + REPORT
        while True:
            for question in self._outbox.asked():
                await session.publish(topic, question)
            await self._send_waiting(session, topic)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _send_waiting(self, session: Session, topic: str) -> None:
        after_id = 0
        seen: set[int] = set()
        while waiting := self._outbox.waiting(after_id):
            after_id = waiting[-1].id
            for message in waiting:
                seen.add(message.id)
                now_ms = self._mono_ms()
                at_ms, pause_ms = self._again.get(message.id, (now_ms, AGAIN_AFTER_MS))
                if now_ms < at_ms:
                    continue
                await session.publish(topic, message.payload)
                self._again[message.id] = (now_ms + pause_ms, min(2 * pause_ms, LONGEST_AGAIN_MS))
                self.sent += 1
        self._again = {id_: again for id_, again in self._again.items() if id_ in seen}


async def run(config: Config, stop: asyncio.Event) -> None:
    """Carry the reports of the kiosk that `config` describes until `stop`; raises ConfigError without a broker."""
    reports, name = config.reports, config.kiosk.name
    if reports.mqtt is None:
        raise ConfigError("reports.mqtt: say which broker the reports go to, there or with --mqtt URL")
    folder = Path(config.kiosk.state_dir)
    outbox = Outbox(folder, name, wall_ms, os.urandom)
    credentials = Credentials(reports.ca_file, reports.cert_file, reports.key_file) if reports.ca_file else None
    root = f"city/{config.kiosk.city}/{name}/"
    carrying = asyncio.create_task(
        Agent(outbox, root, reports.mqtt, name, mono_ms, folder / HINT_FILE, credentials).run()
    )
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({carrying, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in (carrying, stopping):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await carrying
