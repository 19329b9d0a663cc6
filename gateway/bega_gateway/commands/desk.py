"""Commands as they come: in order, at a bounded pace, each begun at most once, each with a result in the spool.

    heard -> understood -> signed? -> begun before? -> expired? -> allowed? -> committed as begun -> done -> result

Nothing is begun before the ledger has it on the disk. What was begun and has no end when the gateway starts is said
to be unknown, and never begun again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from bega.clock import CLOCK_FLOOR_MS, Clock
from bega_gateway.commands.ledger import LONGEST_AHEAD_S, Begun, Forgotten, Ledger, LedgerFull
from bega_gateway.commands.order import LARGEST_BYTES, VERBS, Order, Refused, id_of, understand
from bega_gateway.lines.errand import Done

if TYPE_CHECKING:
    from bega.mqtt import Message
    from bega.outbox.spool import StorageClass

log = logging.getLogger(__name__)

MOST_WAITING = 100  # commands that came and were not looked at yet
MOST_IN_HAND = 100  # that were begun and have not ended: a node may take until its command expires
BUSY = "busy"  # the kind of a refusal that may be sent again
DEFECT = "a defect; see the log of the gateway"
MOST_TURNED_AWAY = 10  # answers "busy" between two looks; beyond, it is only counted

Result = TypeVar("Result")
Work = Callable[[], Awaitable["Ended"]]


class Ended(NamedTuple):
    """What came of a command that was begun."""

    done: Done
    facts: dict[str, Any] = {}  # noqa: RUF012 - of a NamedTuple: never changed


class Seal(Protocol):
    """Tells whether a signature is good."""

    def fits(self, signature: str, signed: bytes) -> bool:
        """Return whether `signature` is of `signed`."""


class Store(Protocol):
    """Where results are kept until they are sent: the spool."""

    def add(
        self, topic: str, payload: bytes, *, storage_class: StorageClass = "routine", at_once: bool = False
    ) -> asyncio.Future[None]:
        """Put it in the next commit; the result comes when it is."""


class Desk:
    """Takes the commands of one gateway."""

    def __init__(
        self,
        root: str,
        ledger: Ledger,
        executor: Executor,
        store: Store,
        prepare: Callable[[Order], Work],
        wall_ms: Clock,
        *,
        seal: Seal | None = None,
        per_second: float = 10.0,
    ) -> None:
        """root: "city/<city>/<gateway>/" of this gateway; executor: the one thread that owns the ledger.

        prepare(order): returns what does it; raises Refused for what is not allowed. seal: whose signature each
        command must bear; None: whoever the broker lets publish may command.
        """
        self._root = root
        self._ledger = ledger
        self._executor = executor
        self._store = store
        self._prepare = prepare
        self._wall_ms = wall_ms
        self._seal = seal
        self._pause_s = 1 / per_second
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(MOST_WAITING)
        self._in_hand: dict[str, asyncio.Task[None]] = {}
        self._unwritten: dict[str, str] = {}  # results that the disk did not take yet, by id
        self._turned_away = 0  # since the last look
        # By what came of them since the start: status, and for a refusal its kind.
        self.counted: Counter[tuple[str, str]] = Counter()

    def hear(self, message: Message) -> None:
        """Take a command in; one too many is turned away. Of one that is too long only so much is kept as shows it."""
        message = message._replace(payload=message.payload[: LARGEST_BYTES + 1])
        if not self._waiting.full():
            self._waiting.put_nowait(message)
            return
        self.counted["refused", BUSY] += 1
        if self._turned_away == 0:
            log.warning("commands come faster than they are done, some are refused")
        self._turned_away += 1
        if self._turned_away <= MOST_TURNED_AWAY:
            self._say(id_of(message.payload), self._verb(message), "refused", "busy: send it again later")

    async def run(self) -> None:
        """Do commands until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            await self._open()
            while True:
                message = await self._waiting.get()
                await self._take(message, tasks)
                self._turned_away = 0
                await asyncio.sleep(self._pause_s)

    async def _open(self) -> None:
        """Open the ledger, if the disk lets us, and say once more what may not have been said."""
        if self._ledger.is_open:
            return
        try:
            rows = await self._in_thread(self._ledger.open)
        except sqlite3.Error as error:
            log.error("ledger of commands cannot be opened, all are refused error=%s", error)
            return
        for begun in rows:
            if begun.result:
                self._tell(begun.id, begun.result)
            else:
                why = "the gateway was restarted while doing it; look whether it was done"
                log.warning("command unknown id=%s verb=%s", begun.id, begun.verb)
                self.counted["unknown", ""] += 1
                await self._end(begun.id, self._result(begun.id, begun.verb, "unknown", why))

    async def _take(self, message: Message, tasks: asyncio.TaskGroup) -> None:
        try:
            order = understand(f"{self._root}cmd/", message.topic, message.payload)
            if self._seal and not self._seal.fits(order.signature, order.canonical):
                raise Refused("it is not signed by whoever may command", kind="unsigned")
            if await self._is_repeated(order):
                return
            work = await self._begun(order)
        except Refused as error:
            self.counted[error.status, error.kind if error.status == "refused" else ""] += 1
            id_, verb = id_of(message.payload), self._verb(message)
            log.warning("command %s id=%s verb=%s why=%s", error.status, id_ or "-", verb or "-", error.why)
            self._say(id_, verb, error.status, error.why, {"ledger": error.ledger} if error.ledger else None)
            return
        self._in_hand[order.id] = tasks.create_task(self._carry_out(order, work))

    async def _is_repeated(self, order: Order) -> bool:
        """Return whether it was begun before, and answer it then as it was answered first."""
        await self._catch_up()
        try:
            begun = await self._in_thread(lambda: self._ledger.find(order.id))
        except sqlite3.Error:
            raise Refused("it could not be noted: the disk takes nothing", kind="disk") from None
        if begun is None:
            return False
        if begun.digest != order.digest:
            raise Refused("its id was that of another command", kind="id_used")
        self.counted["repeated", ""] += 1
        if begun.result:
            first = {**json.loads(begun.result), "repeated": True}
            self._answer(_encoded(first))
        else:
            self._say(order.id, order.verb, "begun", "it is being done; its result comes")
        return True

    async def _begun(self, order: Order) -> Work:
        """Commit that it is begun, and return what does it; raises Refused."""
        now_ms = self._wall_ms()
        if now_ms < CLOCK_FLOOR_MS:
            why = "the gateway does not know the time, and cannot tell whether it has expired"
            raise Refused(why, kind="no_time")
        now_s = now_ms // 1000
        if order.expires_s <= now_s:
            raise Refused("it came too late", "expired")
        if order.expires_s > now_s + LONGEST_AHEAD_S:
            raise Refused("it expires more than 24 hours ahead", kind="too_far_ahead")
        try:
            work = self._prepare(order)
        except Refused as error:
            raise Refused(error.why, kind="not_allowed") from None
        except Exception:  # a defect in one of them must not end the others
            log.exception("command could not be looked at id=%s verb=%s", order.id, order.verb)
            raise Refused(DEFECT, kind="defect") from None
        if len(self._in_hand) >= MOST_IN_HAND:
            raise Refused("busy: send it again later", kind=BUSY)
        begun = Begun(order.id, order.verb, order.digest, "")

        def note() -> None:
            self._ledger.admit(order.ledger, order.expires_s)
            self._ledger.begin(begun, order.said(), order.expires_s, now_ms)

        try:
            await self._in_thread(note)
        except Forgotten as error:
            what = "with this ledger's name" if error.name else "with a later expiry"
            why = f"one like it may have been done, and is no longer known: send it {what}"
            raise Refused(why, kind="forgotten", ledger=error.name) from None
        except LedgerFull:
            raise Refused("too many commands have not expired yet", kind="full") from None
        except sqlite3.Error:
            raise Refused("it could not be noted: the disk takes nothing", kind="disk") from None
        return work

    async def _carry_out(self, order: Order, work: Work) -> None:
        try:
            done, facts = await work()
            result = self._outcome(order, done, facts)
        except Exception:  # a defect in one of them must not end the others
            log.exception("command failed id=%s verb=%s", order.id, order.verb)
            done = Done(False, DEFECT)
            result = self._outcome(order, done, {})
        status = _status(done)
        self.counted[status, ""] += 1
        log.log(
            logging.INFO if done.well else logging.WARNING, "command %s id=%s verb=%s", status, order.id, order.verb
        )
        await self._end(order.id, result)
        del self._in_hand[order.id]

    def _outcome(self, order: Order, done: Done, facts: dict[str, Any]) -> str:
        facts = {**facts, "value": done.value} if done.value else facts
        return self._result(order.id, order.verb, _status(done), done.reason, facts)

    async def _end(self, id_: str, result: str) -> None:
        """Commit the result, then hand it on; what the disk does not take is handed on, and tried again."""
        try:
            await self._in_thread(lambda: self._ledger.end(id_, result))
        except sqlite3.Error as error:
            log.error("result of a command could not be noted yet id=%s error=%s", id_, error)
            self._unwritten[id_] = result
        self._tell(id_, result)

    async def _catch_up(self) -> None:
        """Open what could not be opened, note what could not be noted."""
        await self._open()
        for id_, result in list(self._unwritten.items()):
            try:
                await self._in_thread(functools.partial(self._ledger.end, id_, result))
            except sqlite3.Error:
                return
            del self._unwritten[id_]

    def _tell(self, id_: str, result: str) -> None:
        """Hand a result to the spool; once it is there the ledger need not remember to."""
        stored = self._store.add(f"{self._root}result", result.encode(), storage_class="billing", at_once=True)

        def note(outcome: asyncio.Future[None]) -> None:
            if not outcome.cancelled() and not outcome.exception():
                with contextlib.suppress(RuntimeError):  # the gateway ends: it is told once more at the next start
                    self._executor.submit(self._ledger.told, [id_])

        stored.add_done_callback(note)

    def _say(self, id_: str, verb: str, status: str, reason: str, facts: dict[str, Any] | None = None) -> None:
        """Answer what was not begun. Routine: a flood must not fill the room that nothing is dropped from."""
        self._answer(self._result(id_, verb, status, reason, facts).encode())

    def _answer(self, result: bytes) -> None:
        stored = self._store.add(f"{self._root}result", result, storage_class="routine", at_once=True)
        stored.add_done_callback(lambda outcome: outcome.cancelled() or outcome.exception())

    def _result(self, id_: str, verb: str, status: str, reason: str, facts: dict[str, Any] | None = None) -> str:
        said: dict[str, Any] = {"id": id_ or None, "verb": verb, "status": status, "time_ms": self._wall_ms()}
        if reason:
            said["reason"] = reason
        if facts:
            said["result"] = facts
        return _encoded(said).decode()

    def _verb(self, message: Message) -> str:
        """Return the verb, '' for one that nobody knows: what a stranger writes is not repeated."""
        verb = message.topic.rpartition("/")[2]
        return verb if verb in VERBS else ""

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _status(done: Done) -> str:
    return "done" if done.well else "failed"


def _encoded(said: dict[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":"), allow_nan=False).encode()
