"""Our own nodes on a serial line, asked in turn: their records are acknowledged when the spool has them (nodes.py).

Spec: docs/uplink.md. We ask, one node answers: on RS-485 and on a cable with one node alike.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bega.clock import Clock
from bega.mqtt import SessionLost
from bega_gateway.lines.nodes import NodeRecords, Pieces
from bega_gateway.lines.uplink_session import Session
from bega_gateway.lines.wire_serial import SerialWire
from bega_protocols import senml, uplink
from bega_protocols.ask import Ask
from bega_protocols.errors import LineError, WireError
from bega_protocols.record import UNKNOWN, Record
from bega_protocols.stored import restore

if TYPE_CHECKING:
    from bega_gateway.config import UplinkLine as UplinkSettings

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before the port is opened again, and before a silent node is asked again
FIRST_MS = 300  # until an answer begins: a node that writes to its flash takes a tenth of that
GAP_MS = 100  # inside an answer; a USB adapter collects for 16 ms
TURN_S = 0.005  # after an answer, before the next question: who answered lets go of the bus
STUCK_S = 5.0  # a port that takes nothing for so long counts as a question without an answer
IDLE_MS = 500  # between questions to a node that had nothing to say
WANT_MS, WANTS = 40, 6  # between questions to a node that was given a piece of an update, and how many of them
LOADING_IDLES = 4  # times as long
LONGEST_IDLE_MS = 10_000  # a node takes a gateway that asks nothing for so much longer for dead
IDLE_SHARE = 4  # such questions take at most one part in so many of the line
BITS_A_BYTE = 10
IDLE_OCTETS = 42  # of a question and its answer with nothing in them, sealed
TIME_EVERY_MS = 60_000
SAME_NAME_MS = 60_000  # so long after one board was heard no other may have its name
MOST_SHAPES = 256
MESSAGE_HEAD, PIECE_HEAD = 3, 12  # length and kind; hash and offset before the octets of a piece
LARGEST_PIECE = uplink.room(True) - MESSAGE_HEAD - PIECE_HEAD
LARGEST_VALUE, LARGEST_EXPONENT = 1 << 63, 18


class UplinkLine:
    """The nodes of one port."""

    def __init__(
        self,
        name: str,
        settings: UplinkSettings,
        nodes: list[str],
        records: NodeRecords,
        key_of: Callable[[str], bytes],
        chance: Callable[[int], bytes],
        wall_ms: Callable[[], int | None],
        mono_ms: Clock,
        pieces: Pieces | None = None,
    ) -> None:
        """key_of(node): its key, b"" if it has none; raises LineError. chance(n): n octets that nobody can guess.

        wall_ms gives None while our own clock is not to be trusted. pieces: gives those of updates.
        """
        self.records = records
        self.tries = 0
        self.asked = 0
        self.heard_mono_ms: dict[str, int] = {}
        self._name = name
        self._key_of = key_of
        self._chance = chance
        self._wall_ms = wall_ms
        self._mono_ms = mono_ms
        self._pieces = pieces
        self._wire = SerialWire(settings.port, settings.baud, "8N1", mono_ms)
        self._seats = {node: _Seat(node) for node in nodes}
        turn_ms = IDLE_OCTETS * BITS_A_BYTE * 1000 // settings.baud + 10
        self._total_ms = FIRST_MS + GAP_MS + uplink.LONGEST_BLOCK * BITS_A_BYTE * 1000 // settings.baud
        self._idle_ms = min(max(IDLE_MS, IDLE_SHARE * len(nodes) * turn_ms), LONGEST_IDLE_MS)
        self._wake = asyncio.Event()
        self._down = False

    def damaged(self, node: str) -> int:
        """Return how many frames were spoiled or not sealed while `node` was asked."""
        session = self._seats[node].session
        return session.damaged + session.refused if session else 0

    async def run(self) -> None:
        """Ask until cancelled; a port that fails is opened again with a growing pause."""
        pause_s = FIRST_PAUSE_S
        while True:
            self.tries += 1
            try:
                await self._serve()
            except LineError as error:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if self._down else FIRST_PAUSE_S
                if not self._down:
                    log.warning("line down, nodes keep their records line=%s error=%s", self._name, error)
                self._down = True
            await asyncio.sleep(pause_s)

    async def command(self, node: str, verb: str, id_: str, payload: bytes) -> dict[str, Any]:
        """Hand a command to `node` and return its result, whenever that comes: whoever asks says how long he waits.

        Raises SessionLost if the node is away, or has too much to hear already.
        """
        seat = self._seats[node]
        if not (seat.session and seat.session.is_open and seat.session.has_room):
            raise SessionLost("the node is away")
        with self.records.result(node, id_) as result:
            seat.session.say(uplink.COMMAND, verb.encode() + b"\0" + payload)
            self._hurry(seat)
            return await result

    async def _serve(self) -> None:
        """Open the port and ask whoever is due, until the port fails; raises LineError."""
        try:
            await self._wire.open()
            for seat in self._seats.values():
                if seat.session:
                    seat.session.end()
                seat.due_ms = self._mono_ms()
            while True:
                seat = min(self._seats.values(), key=lambda seat: seat.due_ms)
                if seat.due_ms > self._mono_ms():
                    await self._wait(seat.due_ms - self._mono_ms())
                else:
                    await self._ask(seat)
        finally:
            self._wire.close()

    async def _wait(self, wait_ms: int) -> None:
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _hurry(self, seat: _Seat) -> None:
        """Ask a node soon: there is something to tell it."""
        if seat.session and seat.session.is_open:
            seat.due_ms = min(seat.due_ms, self._mono_ms())
            self._wake.set()

    async def _ask(self, seat: _Seat) -> None:
        """One question, and what comes of it."""
        session = seat.session = seat.session or self._session_of(seat)
        if session is None:
            seat.due_ms = self._mono_ms() + round(1000 * LONGEST_PAUSE_S)
            return
        if session.is_open and not session.is_asking:
            self._tell(seat, session)
        self.asked += 1
        heard = await self._exchange(seat, session)
        now_ms = self._mono_ms()
        if heard is None:
            session.unanswered()
            if not session.is_open:
                seat.pause_s = min(2 * seat.pause_s, LONGEST_PAUSE_S)
                seat.due_ms = now_ms + round(1000 * seat.pause_s)
            return
        if self._down:
            self._down = False
            log.info("line back line=%s", self._name)
        if session.sessions != seat.sessions:
            seat.begin(session.sessions)
        self.heard_mono_ms[seat.node] = now_ms
        for kind, payload in heard:
            self._take(seat, kind, payload)
        is_to_be_told = seat.is_to_be_told_time and self._wall_ms() is not None
        is_busy = session.has_something or seat.is_to_acknowledge or is_to_be_told
        seat.due_ms = now_ms if is_busy else now_ms + (WANT_MS if seat.wants else self._idle_now_ms())
        seat.wants = max(0, seat.wants - 1)
        await asyncio.sleep(TURN_S)

    def _idle_now_ms(self) -> int:
        """Return how long a node that had nothing to say is left alone: longer while another one loads an update."""
        is_loading = any(seat.wants for seat in self._seats.values())
        return min(LOADING_IDLES * self._idle_ms, LONGEST_IDLE_MS) if is_loading else self._idle_ms

    def _session_of(self, seat: _Seat) -> Session | None:
        """Return our end of a session with a node; None while its key cannot be read, for which no other node waits."""
        try:
            return Session(seat.node, self._key_of(seat.node), self._chance)
        except LineError as error:
            if not seat.is_keyless:
                log.warning("no key line=%s error=%s", self._name, error)
            seat.is_keyless = True
            return None

    async def _exchange(self, seat: _Seat, session: Session) -> list[tuple[int, bytes]] | None:
        """Return what the node says; None if no answer comes, or none that makes sense."""
        blocks = uplink.Blocks()
        heard: list[tuple[int, bytes]] | None = None
        looked = 0

        def is_complete(so_far: bytes) -> bool:
            nonlocal heard, looked
            for block in blocks.feed(so_far[looked:]):
                if heard is None:
                    heard = session.hear(block, lambda chip: self._may_begin(seat, session, chip))
            looked = len(so_far)
            return heard is not None

        try:
            async with asyncio.timeout(STUCK_S):
                await self._wire.exchange(
                    Ask(session.ask(), FIRST_MS, is_complete, gap_ms=GAP_MS, total_ms=self._total_ms)
                )
        except TimeoutError:
            pass
        return heard

    def _may_begin(self, seat: _Seat, session: Session, chip: str) -> bool:
        """Two boards with one name would free each other's records: the one that was heard last keeps the name."""
        heard_ms = self.heard_mono_ms.get(seat.node)
        if heard_ms is None or session.chip in ("", chip) or self._mono_ms() - heard_ms > SAME_NAME_MS:
            return True
        self.records.refuse(seat.node, "another board has its name: give each its own")
        return False

    def _tell(self, seat: _Seat, session: Session) -> None:
        """Put into the next question what the node should know."""
        now_ms = self._mono_ms()
        wall_ms = self._wall_ms()
        # First, and only where nothing waits before it: the node takes it for the time at which it hears it.
        if wall_ms is not None and not session.is_behind and seat.is_due_time(now_ms):
            seat.is_to_be_told_time = False
            seat.told_time_ms = now_ms
            session.say(uplink.TIME, json.dumps({"unix_ms": wall_ms}).encode())
        if seat.is_to_acknowledge:
            seat.is_to_acknowledge = False
            pairs = [(boot, min(seq, 0xFFFFFFFF)) for boot, seq in self.records.pairs(seat.node) if boot >> 32 == 0]
            if pairs:
                session.say(uplink.ACK, uplink.acknowledgement(pairs))

    def _take(self, seat: _Seat, kind: int, payload: bytes) -> None:
        node = seat.node
        if self.records.bars(node):
            return
        if kind == uplink.STATUS:
            self.records.take_status(node, payload)
            seat.is_to_acknowledge = seat.is_to_be_told_time = True
        elif kind == uplink.SHAPE and len(payload) > 1:
            seat.shapes[payload[0]] = payload[1:]
        elif kind == uplink.RECORD:
            try:
                pack = senml.encode(_record(node, payload, seat.shapes))
            except (WireError, KeyError, ValueError) as error:
                self.records.refuse(node, f"no record: {error}")
                return
            self.records.take_pack(node, pack, self._acknowledge)
        elif kind == uplink.RESULT:
            self.records.take_result(node, payload)
        elif kind == uplink.WANT:
            self._give(seat, payload)
        else:
            self.records.refuse(node, f"a message of the kind {kind}")

    def _give(self, seat: _Seat, want: bytes) -> None:
        """Give a piece that fits one frame, sealed too; where one is lost the node asks again."""
        piece = self._pieces(seat.node, want, LARGEST_PIECE) if self._pieces else None
        if piece and seat.session:
            seat.session.say(uplink.PIECE, piece)
            seat.wants = WANTS

    def _acknowledge(self, node: str) -> None:
        seat = self._seats[node]
        seat.is_to_acknowledge = True
        self._hurry(seat)


class _Seat:
    """One node, as the line sees it."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.session: Session | None = None  # of the port as it is open now
        self.is_keyless = False  # its key could not be read, and that was said
        self.sessions = 0
        self.shapes: dict[int, bytes] = {}  # of this session, by their number
        self.due_ms = 0
        self.pause_s = FIRST_PAUSE_S / 2
        self.told_time_ms = 0
        self.is_to_acknowledge = False
        self.is_to_be_told_time = False
        self.wants = 0  # questions in which its next want may come: it writes the piece first, and had answered by then

    def is_due_time(self, now_ms: int) -> bool:
        """Return whether the node should be told the time."""
        return self.is_to_be_told_time or now_ms - self.told_time_ms >= TIME_EVERY_MS

    def begin(self, sessions: int) -> None:
        """A session began: what was told in the one before may not have arrived."""
        self.sessions = sessions
        self.shapes.clear()
        self.pause_s = FIRST_PAUSE_S / 2
        self.is_to_be_told_time = True


def node_key(file: str | None) -> bytes:
    """Return the key in `file`, b"" if there is no file for one; raises LineError."""
    if file is None:
        return b""
    try:
        key = bytes.fromhex(Path(file).read_text(encoding="ascii"))
    except OSError as error:
        raise LineError(f"{file}: {error.strerror}; its node waits") from None
    except ValueError:
        key = b""
    if len(key) != uplink.KEY_SIZE:
        raise LineError(f"{file} is no key: it must be {2 * uplink.KEY_SIZE} hex digits, and the same on its node")
    return key


def _record(node: str, payload: bytes, shapes: dict[int, bytes]) -> Record:
    """Return the record in a RECORD; raises WireError."""
    boot, seq, shape, body = uplink.read_record(payload)
    if shape not in shapes:
        raise WireError("a record of a shape that was not told", payload[:16])
    try:
        stored = restore(shapes[shape], body)
    except (ValueError, IndexError, struct.error) as error:
        raise WireError(f"no stored record ({type(error).__name__})", payload[:16]) from None
    for reading in stored.readings:
        # Text of such a number could fill the memory; no device resolves as much.
        if abs(reading.value) >= LARGEST_VALUE or abs(reading.exp10) > LARGEST_EXPONENT:
            raise WireError("a number beyond all devices", payload[:16])
    if stored.time_quality > UNKNOWN:
        raise WireError("a record that still waits for its time", payload[:16])
    return Record(node, boot, seq, *stored)
