"""Our own nodes over MQTT: their records are acknowledged when the spool has committed them (nodes.py).

A PUBACK on their way frees nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from bega.clock import Clock
from bega.mqtt import Message, Session, SessionLost
from bega_gateway.lines.nodes import NodeRecords, Pieces

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
TIME_EVERY_S = 60.0
LARGEST_PIECE = 2_048  # octets of an update in one message: a node reads past a packet of more than 4,096

Connect = Callable[[], AbstractAsyncContextManager[Session]]


class NodeLine:
    """The nodes of one broker."""

    def __init__(
        self,
        name: str,
        nodes: list[str],
        connect: Connect,
        records: NodeRecords,
        wall_ms: Callable[[], int | None],
        mono_ms: Clock,
        pieces: Pieces | None = None,
        is_pulling: Callable[[str], bool] = lambda node: False,
    ) -> None:
        """wall_ms gives None while our own clock is not to be trusted.

        pieces: gives those of updates; is_pulling(node): whether it may ask for one.
        """
        self._name = name
        self._nodes = frozenset(nodes)
        self._connect = connect
        self.records = records
        self._wall_ms = wall_ms
        self._mono_ms = mono_ms
        self._pieces = pieces
        self._is_pulling = is_pulling
        self._has_piece: set[str] = set()  # nodes to which one is on its way
        self._is_refused = False  # what nodes want, and that was said
        self._down = False
        self._session: Session | None = None  # that is served
        self.tries = 0  # to connect, since the start
        self.heard_mono_ms: dict[str, int] = {}

    @property
    def refused(self) -> int:
        """Return how many messages were no record of their sender, or out of order."""
        return self.records.refused

    async def run(self) -> None:
        """Serve the nodes until cancelled; a broker that is gone is asked again with a growing pause."""
        pause_s = FIRST_PAUSE_S
        while True:
            self.tries += 1
            try:
                async with self._connect() as session:
                    await self._serve(session)
            except* (SessionLost, OSError, TimeoutError) as errors:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if self._down else FIRST_PAUSE_S
                self._say_down(errors)
            await asyncio.sleep(pause_s)

    async def command(self, node: str, verb: str, id_: str, payload: bytes) -> dict[str, Any]:
        """Hand a command to `node` and return its result, whenever that comes: whoever asks says how long he waits.

        Raises SessionLost if the broker is away, or does not let us hear results.
        """
        if self._session is None:
            raise SessionLost("the broker of the nodes is away")
        with self.records.result(node, id_) as result:
            # Not with the others at the start: a gateway whose access list lacks it must hear its nodes all the same.
            await self._session.subscribe(f"node/{node}/result")
            if self._pieces and self._is_pulling(node):
                await self._session.subscribe(f"node/{node}/want")
            await self._session.publish(f"node/{node}/cmd/{verb}", payload)
            return await result

    async def _serve(self, session: Session) -> None:
        self._session = session
        self._has_piece.clear()
        try:
            await self._serve_nodes(session)
        finally:
            self._session = None

    async def _serve_nodes(self, session: Session) -> None:
        to_acknowledge: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._subscribe(session))  # beside the reading, which hears at once when all is over
            tasks.create_task(self._acknowledge(session, to_acknowledge))
            tasks.create_task(self._tell_time(session))
            async for message in session.messages():
                await self._take(session, message, to_acknowledge)

    async def _subscribe(self, session: Session) -> None:
        for node in sorted(self._nodes):
            await session.subscribe(f"node/{node}/up", f"node/{node}/status")
        await self._subscribe_wants(session)
        if self._down:
            self._down = False
            log.info("line back line=%s", self._name)

    async def _subscribe_wants(self, session: Session) -> None:
        """Hear who was in the middle of an update; a broker whose access list lacks it serves records all the same."""
        try:
            for node in sorted(self._nodes):
                if self._pieces and self._is_pulling(node):
                    await session.subscribe(f"node/{node}/want")
        except SessionLost as error:
            if not self._is_refused:
                log.warning("updates are not heard line=%s error=%s", self._name, error)
            self._is_refused = True

    async def _take(self, session: Session, message: Message, to_acknowledge: asyncio.Queue[str]) -> None:
        node, _, kind = message.topic.removeprefix("node/").partition("/")
        if node not in self._nodes:  # the broker keeps a subscription that an earlier configuration asked for
            self.records.refused += 1
            return
        if self.records.bars(node):
            return
        self.heard_mono_ms[node] = self._mono_ms()
        if kind == "status":
            self.records.take_status(node, message.payload)
            await self._send_time(session, node)
            to_acknowledge.put_nowait(node)
        elif kind == "up":
            self.records.take_pack(node, message.payload, to_acknowledge.put_nowait)
        elif kind == "result":
            self.records.take_result(node, message.payload)
        elif kind == "want" and self._pieces and node not in self._has_piece:
            piece = self._pieces(node, message.payload, LARGEST_PIECE)
            if piece:
                self._has_piece.add(node)  # one at a time: a node that asks without end fills no memory here
                session.send(f"node/{node}/piece", piece, lambda: self._has_piece.discard(node))

    async def _acknowledge(self, session: Session, waiting: asyncio.Queue[str]) -> None:
        """Tell nodes what is stored; what came meanwhile goes into one message."""
        while True:
            nodes = {await waiting.get()}
            while not waiting.empty():
                nodes.add(waiting.get_nowait())
            for node in sorted(nodes):
                pairs = self.records.pairs(node)
                if pairs:
                    await session.publish(f"node/{node}/ack", json.dumps(pairs).encode())

    async def _tell_time(self, session: Session) -> None:
        while True:
            await asyncio.sleep(TIME_EVERY_S)
            for node in sorted(self.heard_mono_ms):
                await self._send_time(session, node)

    async def _send_time(self, session: Session, node: str) -> None:
        wall_ms = self._wall_ms()
        if wall_ms is not None:
            await session.publish(f"node/{node}/time", json.dumps({"unix_ms": wall_ms}).encode())

    def _say_down(self, errors: BaseExceptionGroup[BaseException]) -> None:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not self._down:
            log.warning("line down, nodes keep their records line=%s error=%s", self._name, error)
        self._down = True
