"""What our own nodes send, whatever it comes over: taken in order, stored, then acknowledged.

A node frees a record only on our acknowledgement. It sends oldest first, so
that one number, the head, says for each of its boots what we have: seq head + 1
is next, what lies below is had, anything else is refused and comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from bega.outbox.spool import HEADS_KEPT, Head
from bega_gateway.lines.node_said import Nodes
from bega_protocols import senml
from bega_protocols.errors import WireError
from bega_protocols.record import Record

log = logging.getLogger(__name__)

LARGEST_RESULT = 4_096  # bytes, of a command to a node
LARGEST = 2**53  # boot and seq beyond this are no numbers of ours
LARGEST_STATUS = 65_536  # bytes; one with fifty rows of each kind has five thousand
MOST_BOOTS = 1_000  # of one node; no ring holds records of as many, so whoever names more is no node of ours

Store = Callable[[Record, bytes, Head], "asyncio.Future[None]"]
Acknowledge = Callable[[str], None]
Pieces = Callable[[str, bytes, int], "bytes | None"]  # (node, what it wants, octets at most): a piece of an update


class NodeRecords:
    """Heads of the nodes of one line, and what waits for their results."""

    def __init__(
        self,
        store: Store,
        skip_to: Callable[[Head], None],
        heads: dict[tuple[str, int], int],
        has_room: Callable[[], bool] = lambda: True,
        said_name: Callable[[str], str] = str,
        said: Nodes | None = None,
        is_barred: Callable[[str], bool] = lambda node: False,
    ) -> None:
        """store(record, pack, head) commits a record with its head; skip_to(head) commits a head alone.

        heads: {(node, boot): seq} as the spool has them. What store was given it commits sooner or later; has_room()
        tells whether it should be given more. said_name(node): its name for the log, where no household may be.
        said: takes what each node says of itself. is_barred(node): tells whether it was revoked.
        """
        self.refused = 0  # messages that were no record of their sender, or out of order
        self._store = store
        self._skip_to = skip_to
        self._stored = dict(heads)
        self._accepted = dict(heads)
        # Boots that a node still speaks of: an acknowledgement of all its past ones would outgrow what a node can read.
        self._spoken_of: dict[str, set[int]] = {}
        self._has_room = has_room
        self._said_name = said_name
        self._said = said
        self._is_barred = is_barred
        self._skipped: dict[tuple[str, int, int], int] = {}  # (node, boot, stored up to here): is then had up to this
        self._dropped: dict[str, list[tuple[int, int, int]]] = {}  # as each node's last status says
        self._complained: set[str] = set()  # nodes whose nonsense was said, until they make sense again
        self._awaited: dict[tuple[str, str], asyncio.Future[dict[str, Any]]] = {}  # (node, id of a command)

    def take_pack(self, node: str, pack: bytes, acknowledge: Acknowledge) -> None:
        """Take a record as `node` sent it in SenML; acknowledge(node) is called whenever there is something to say."""
        try:
            record = senml.decode(pack)
        except WireError as error:
            self.refuse(node, f"no record: {error.why}")
            return
        self.take(node, record, pack, acknowledge)

    def take(self, node: str, record: Record, pack: bytes, acknowledge: Acknowledge) -> None:
        """Take a record, `pack` its SenML; acknowledge(node) is called whenever there is something to say."""
        if record.source != node or not (0 < record.seq < LARGEST and 0 < record.boot < LARGEST):
            self.refuse(node, "a record that is not its own")
            return
        key = (node, record.boot)
        if key not in self._accepted and sum(source == node for source, _ in self._accepted) >= MOST_BOOTS:
            self.refuse(node, "records of more boots than it can hold")
            return
        self._complained.discard(node)
        self._spoken_of.setdefault(node, set()).add(record.boot)
        if record.seq <= self._accepted.get(key, 0):
            acknowledge(node)  # it came before, and the acknowledgement was lost
            return
        if record.seq != self._accepted.get(key, 0) + 1:
            self._skip_dropped(node)
        if record.seq != self._accepted.get(key, 0) + 1 or not self._has_room():
            self.refused += 1  # the node sends again from its oldest
            return
        stored = self._store(record, pack, Head(node, record.boot, record.seq))
        self._accepted[key] = record.seq
        stored.add_done_callback(lambda outcome: self._when_stored(outcome, key, record.seq, acknowledge))

    def take_result(self, node: str, payload: bytes) -> None:
        """Hand the result of a command to whoever waits for it."""
        try:
            result = json.loads(payload, parse_constant=_no_number) if len(payload) <= LARGEST_RESULT else None
        except (ValueError, RecursionError):
            result = None
        if not isinstance(result, dict) or not isinstance(result.get("id"), str):
            self.refuse(node, "no result")
            return
        awaited = self._awaited.get((node, result["id"]))
        if awaited and not awaited.done():
            awaited.set_result(result)

    @contextlib.contextmanager
    def result(self, node: str, id_: str) -> Iterator[asyncio.Future[dict[str, Any]]]:
        """Give what will be the result of a command to `node`."""
        result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._awaited[node, id_] = result
        try:
            yield result
        finally:
            del self._awaited[node, id_]

    def take_status(self, node: str, payload: bytes) -> None:
        """Keep what the node says of itself; move the heads past what it no longer holds.

        That was freed by an earlier gateway, or dropped.
        """
        try:
            if len(payload) > LARGEST_STATUS:
                raise ValueError("too large")
            status = json.loads(payload)
            holds = [_three_numbers(row) for row in status.get("holds", [])]
            dropped = [_three_numbers(row) for row in status.get("dropped", [])]
        except (ValueError, TypeError, AttributeError, RecursionError):
            self.refuse(node, "no status")
            return
        if self._said:
            self._said.take(node, status, self._said_name)
        if "holds" not in status:  # a node in safe mode has not looked into its ring: it may hold anything
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

    def pairs(self, node: str) -> list[tuple[int, int]]:
        """Return the acknowledgement of `node`: up to where each boot that it speaks of is stored."""
        boots = sorted(self._spoken_of.get(node, ()))
        return [(boot, self._stored[node, boot]) for boot in boots if self._stored.get((node, boot))]

    def bars(self, node: str) -> bool:
        """Return whether nothing of `node` is to be taken; what came is refused then."""
        if not self._is_barred(node):
            return False
        self.refuse(node, "its certificate was revoked")
        return True

    def refuse(self, node: str, what: str) -> None:
        """Count what makes no sense, and say the first of it."""
        self.refused += 1
        if node not in self._complained:
            self._complained.add(node)
            log.warning("node sent nonsense, it is refused node=%s error=%s", self._said_name(node), what)

    def _when_stored(
        self, outcome: asyncio.Future[None], key: tuple[str, int], seq: int, acknowledge: Acknowledge
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
        acknowledge(key[0])

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
            had = self._accepted.get((node, boot), 0)
            if had >= lost_from - 1 and self._raise_head(node, boot, lost_to):
                said = self._said_name(node)
                log.warning("node dropped records node=%s boot=%d from=%d to=%d", said, boot, lost_from, lost_to)
                if self._said:
                    self._said.dropped(node, lost_to - had)

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


def _three_numbers(row: Any) -> tuple[int, int, int]:
    """Return [boot, from, to] if it is that; raises ValueError."""
    boot, start, end = row
    if not all(type(number) is int and 0 <= number < LARGEST for number in row):
        raise ValueError("no [boot, from, to]")
    return boot, start, end


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"JSON has no {text}")
