"""Our own nodes: their records come over MQTT, and are acknowledged when the spool has committed them.

A node frees a record only on this acknowledgement; a PUBACK on its way frees
nothing. It sends oldest first, so that one number, the head, says for each of
its boots what we have: seq head + 1 is next, what lies below is had, anything
else is refused and comes again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

from bega.clock import Clock
from bega.mqtt import Message, Session, SessionLost
from bega.outbox.spool import HEADS_KEPT, Head
from bega_protocols import senml
from bega_protocols.errors import WireError
from bega_protocols.record import Record

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
TIME_EVERY_S = 60.0
LARGEST_RESULT = 4_096  # bytes, of a command to a node
LARGEST = 2**53  # boot and seq beyond this are no numbers of ours
LARGEST_STATUS = 65_536  # bytes; one with fifty rows of each kind has five thousand
MOST_BOOTS = 1_000  # of one node; no ring holds records of as many, so whoever names more is no node of ours

Connect = Callable[[], AbstractAsyncContextManager[Session]]
Store = Callable[[Record, bytes, Head], "asyncio.Future[None]"]


class NodeLine:
    """The nodes of one broker."""

    def __init__(
        self,
        name: str,
        nodes: list[str],
        connect: Connect,
        store: Store,
        skip_to: Callable[[Head], None],
        heads: dict[tuple[str, int], int],
        wall_ms: Callable[[], int | None],
        mono_ms: Clock,
        has_room: Callable[[], bool] = lambda: True,
        said_name: Callable[[str], str] = str,
    ) -> None:
        """store(record, pack, head) commits a record with its head; skip_to(head) commits a head alone.

        heads: {(node, boot): seq} as the spool has them; wall_ms gives None while our own clock is not to be trusted.
        What store was given it commits sooner or later; has_room() tells whether it should be given more.
        said_name(node): its name for the log, where no household may be.
        """
        self._name = name
        self._nodes = frozenset(nodes)
        self._connect = connect
        self._store = store
        self._skip_to = skip_to
        self._stored = dict(heads)
        self._accepted = dict(heads)
        # Boots that a node still speaks of: an acknowledgement of all its past ones would outgrow what a node can read.
        self._spoken_of: dict[str, set[int]] = {}
        self._wall_ms = wall_ms
        self._mono_ms = mono_ms
        self._has_room = has_room
        self._said_name = said_name
        self._skipped: dict[tuple[str, int, int], int] = {}  # (node, boot, stored up to here): is then had up to this
        self._dropped: dict[str, list[tuple[int, int, int]]] = {}  # as each node's last status says
        self._complained: set[str] = set()  # nodes whose nonsense was said, until they make sense again
        self._down = False
        self._session: Session | None = None  # that is served
        self._awaited: dict[tuple[str, str], asyncio.Future[dict[str, Any]]] = {}  # (node, id of a command)
        self.tries = 0  # to connect, since the start
        self.refused = 0  # messages that were no record of their sender, or out of order
        self.heard_mono_ms: dict[str, int] = {}

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
        result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._awaited[node, id_] = result
        try:
            # Not with the others at the start: a gateway whose access list lacks it must hear its nodes all the same.
            await self._session.subscribe(f"node/{node}/result")
            await self._session.publish(f"node/{node}/cmd/{verb}", payload)
            return await result
        finally:
            del self._awaited[node, id_]

    async def _serve(self, session: Session) -> None:
        self._session = session
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
        if self._down:
            self._down = False
            log.info("line back line=%s", self._name)

    async def _take(self, session: Session, message: Message, to_acknowledge: asyncio.Queue[str]) -> None:
        node, _, kind = message.topic.removeprefix("node/").partition("/")
        if node not in self._nodes:  # the broker keeps a subscription that an earlier configuration asked for
            self.refused += 1
            return
        self.heard_mono_ms[node] = self._mono_ms()
        if kind == "status":
            self._take_status(node, message.payload)
            await self._send_time(session, node)
            to_acknowledge.put_nowait(node)
        elif kind == "up":
            self._take_record(node, message.payload, to_acknowledge)
        elif kind == "result":
            self._take_result(node, message.payload)

    def _take_record(self, node: str, pack: bytes, to_acknowledge: asyncio.Queue[str]) -> None:
        try:
            record = senml.decode(pack)
        except WireError as error:
            self._refuse(node, f"no record: {error.why}")
            return
        if record.source != node or not (0 < record.seq < LARGEST and 0 < record.boot < LARGEST):
            self._refuse(node, "a record that is not its own")
            return
        key = (node, record.boot)
        if key not in self._accepted and sum(source == node for source, _ in self._accepted) >= MOST_BOOTS:
            self._refuse(node, "records of more boots than it can hold")
            return
        self._complained.discard(node)
        self._spoken_of.setdefault(node, set()).add(record.boot)
        if record.seq <= self._accepted.get(key, 0):
            to_acknowledge.put_nowait(node)  # it came before, and the acknowledgement was lost
            return
        if record.seq != self._accepted.get(key, 0) + 1:
            self._skip_dropped(node)
        if record.seq != self._accepted.get(key, 0) + 1 or not self._has_room():
            self.refused += 1  # the node sends again from its oldest
            return
        stored = self._store(record, pack, Head(node, record.boot, record.seq))
        self._accepted[key] = record.seq
        stored.add_done_callback(lambda outcome: self._when_stored(outcome, key, record.seq, to_acknowledge))

    def _take_result(self, node: str, payload: bytes) -> None:
        try:
            result = json.loads(payload, parse_constant=_no_number) if len(payload) <= LARGEST_RESULT else None
        except (ValueError, RecursionError):
            result = None
        if not isinstance(result, dict) or not isinstance(result.get("id"), str):
            self._refuse(node, "no result")
            return
        awaited = self._awaited.get((node, result["id"]))
        if awaited and not awaited.done():
            awaited.set_result(result)

    def _refuse(self, node: str, what: str) -> None:
        self.refused += 1
        if node not in self._complained:
            self._complained.add(node)
            log.warning("node sent nonsense, it is refused node=%s error=%s", self._said_name(node), what)

    def _when_stored(
        self, outcome: asyncio.Future[None], key: tuple[str, int], seq: int, to_acknowledge: asyncio.Queue[str]
    ) -> None:
        if outcome.cancelled():
            return
        if outcome.exception():  # no room: the node keeps it, sends it again, and all that follows it
            self._accepted[key] = self._stored.get(key, 0)
            return
        while seq:
            self._stored[key] = max(seq, self._stored.get(key, 0))
            self._accepted[key] = max(seq, self._accepted.get(key, 0))  # that the next one is refused may be told first
            seq = self._skipped.pop((*key, seq), 0)
        to_acknowledge.put_nowait(key[0])

    def _take_status(self, node: str, payload: bytes) -> None:
        """Move the heads past what the node no longer holds: it was freed by an earlier gateway, or dropped."""
        try:
            if len(payload) > LARGEST_STATUS:
                raise ValueError("too large")
            status = json.loads(payload)
            holds = [_three_numbers(row) for row in status.get("holds", [])]
            dropped = [_three_numbers(row) for row in status.get("dropped", [])]
        except (ValueError, TypeError, AttributeError, RecursionError):
            self._refuse(node, "no status")
            return
        self._spoken_of[node] = {row[0] for row in holds + dropped}
        self._forget_boots(node)
        lowest: dict[int, int] = {}
        for boot, first, _ in holds:
            lowest[boot] = min(first, lowest.get(boot, first))
        for boot, first in lowest.items():
            self._raise_head(node, boot, first - 1)
        self._dropped[node] = sorted(dropped)
        self._skip_dropped(node)

    def _forget_boots(self, node: str) -> None:
        """Forget heads of boots that a node holds nothing of, but for the newest and what waits to be stored."""
        boots = sorted(boot for source, boot in self._accepted if source == node)
        for boot in boots[:-HEADS_KEPT]:
            key = (node, boot)
            if boot not in self._spoken_of[node] and self._stored.get(key) == self._accepted[key]:
                del self._accepted[key], self._stored[key]

    def _skip_dropped(self, node: str) -> None:
        """Move the heads past what the node dropped, where they have come so far."""
        for boot, lost_from, lost_to in self._dropped.get(node, ()):
            if self._accepted.get((node, boot), 0) >= lost_from - 1 and self._raise_head(node, boot, lost_to):
                said = self._said_name(node)
                log.warning("node dropped records node=%s boot=%d from=%d to=%d", said, boot, lost_from, lost_to)

    def _raise_head(self, node: str, boot: int, seq: int) -> bool:
        """Count the records of a boot up to `seq` as had; return whether that was news."""
        key, before = (node, boot), self._accepted.get((node, boot), 0)
        if seq <= before:
            return False
        self._accepted[key] = seq
        if self._stored.get(key, 0) == before:
            self._stored[key] = seq
        else:  # to acknowledge it now would free what waits for its commit below it
            self._skipped[node, boot, before] = seq
        self._skip_to(Head(node, boot, seq))
        return True

    async def _acknowledge(self, session: Session, waiting: asyncio.Queue[str]) -> None:
        """Tell nodes what is stored; what came meanwhile goes into one message."""
        while True:
            nodes = {await waiting.get()}
            while not waiting.empty():
                nodes.add(waiting.get_nowait())
            for node in sorted(nodes):
                boots = sorted(self._spoken_of.get(node, ()))
                pairs = [[boot, self._stored[node, boot]] for boot in boots if self._stored.get((node, boot))]
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


def _three_numbers(row: Any) -> tuple[int, int, int]:
    """Return [boot, from, to] if it is that; raises ValueError."""
    boot, start, end = row
    if not all(type(number) is int and 0 <= number < LARGEST for number in row):
        raise ValueError("no [boot, from, to]")
    return boot, start, end


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"JSON has no {text}")
