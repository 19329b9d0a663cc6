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

from bega.clock import Clock, mono_ms, wall_ms
from bega.mqtt import Credentials, Session
from bega_kiosk.agent_child import parent_ended
from bega_kiosk.config import Config
from bega_kiosk.notice_feed import HINT as HINT_FILE
from bega_kiosk.outbox import Outbox
from bega_kiosk.reconnect import stay_connected
from bega_kiosk.report import HINT, REPORT, STATUS, read_status
from bega_protocols.errors import ConfigError, WireError

log = logging.getLogger("bega.kiosk.agent")

LOOK_EVERY_S = 0.5
# The desk did not say that it has it: each time twice as long. Seldom, since a broker keeps each copy for a desk that
# is away, and mosquitto writes all that it keeps at each change: 3.5 ms for each message where 2,000 lie there.
AGAIN_AFTER_MS, LONGEST_AGAIN_MS = 10_000, 86_400_000
ALL_AGAIN_EVERY_MS = 600_000  # a desk that speaks is there: what it has not yet acknowledged goes again


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
        # By code: when to send it again, and the pause after that.
        self._again: dict[str, tuple[int, int]] = {}
        self._all_again_ms = mono_ms()
        self.sent = self.heard = 0

    async def run(self) -> None:
        """Serve for ever: where the broker is away, again and again."""

        def up() -> None:
            log.info("agent up broker=%s", self._broker)

        def down(why: str) -> None:
            log.warning("agent down, reports wait broker=%s error=%s", self._broker, why)

        root = self._root + "cmd/#"
        await stay_connected(self._broker, self._name, self._credentials, root, up, down, self._hear, self._send)

    async def _hear(self, session: Session) -> None:
        failing = ""
        async for message in session.messages():
            if message.topic == self._root + HINT:
                with contextlib.suppress(OSError):  # a full disk: notices are fetched by the clock
                    self._hint.touch()
            if message.topic != self._root + STATUS:
                continue
            try:
                self._outbox.note(read_status(message.payload))
            except WireError as error:
                log.warning("desk not understood error=%s", error)
            except (sqlite3.Error, OSError) as error:  # a full disk: the report stays, and its desk says so again
                if str(error) != failing:
                    log.error("news of the desk cannot be kept error=%s", error)
                failing = str(error)
            else:
                failing = ""
                self.heard += 1
                self._send_all_again()

    def _send_all_again(self) -> None:
        now_ms = self._mono_ms()
        if now_ms - self._all_again_ms >= ALL_AGAIN_EVERY_MS:
            self._all_again_ms = now_ms
            self._again.clear()

    async def _send(self, session: Session) -> None:
        topic = self._root + REPORT
        while True:
            for question in self._outbox.asked():
                await session.publish(topic, question)
            await self._send_waiting(session, topic)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _send_waiting(self, session: Session, topic: str) -> None:
        """Send what is due. Who waits for hours is not read each time: of thousands only the codes are."""
        codes = self._outbox.waiting_codes()
        self._again = {code: again for code, again in self._again.items() if code in codes}
        now_ms = self._mono_ms()
        due = [id_ for code, id_ in codes.items() if self._again.get(code, (now_ms, 0))[0] <= now_ms]
        after_id = due[0] - 1 if due else 0
        while due and after_id < due[-1] and (waiting := self._outbox.waiting(after_id)):
            after_id = waiting[-1].id
            for message in waiting:
                now_ms = self._mono_ms()
                at_ms, pause_ms = self._again.get(message.code, (now_ms, AGAIN_AFTER_MS))
                if now_ms < at_ms:
                    continue
                await session.publish(topic, message.payload)
                self._again[message.code] = (now_ms + pause_ms, min(2 * pause_ms, LONGEST_AGAIN_MS))
                self.sent += 1


async def run(config: Config, stop: asyncio.Event) -> None:
    """Carry the reports of the kiosk that `config` describes until `stop`; raises ConfigError without a broker."""
    reports, name = config.reports, config.kiosk.name
    if reports.mqtt is None:
        raise ConfigError("reports.mqtt: say which broker the reports go to, there or with --mqtt URL")
    folder = Path(config.kiosk.state_dir)
    outbox = Outbox(folder, name, wall_ms, os.urandom)
    credentials = Credentials(reports.ca_file, reports.cert_file, reports.key_file)
    root = f"city/{config.kiosk.city}/{name}/"
    carrying = asyncio.create_task(
        Agent(outbox, root, reports.mqtt, name, mono_ms, folder / HINT_FILE, credentials).run()
    )
    stopping, left = asyncio.create_task(stop.wait()), asyncio.create_task(parent_ended())
    await asyncio.wait({carrying, stopping, left}, return_when=asyncio.FIRST_COMPLETED)
    for task in (carrying, stopping, left):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await carrying
