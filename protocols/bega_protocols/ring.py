"""A node's store: what it measured, until the next one has stored it. Storage is passed in.

Records lie in segments, files of about 4 kB that are only ever appended to.
Each is freed by the gateway's own acknowledgement, and a segment is removed
once all before its end is freed: nothing is ever rewritten, so there is
nothing that a power cut could leave half changed. What was freed inside a
segment is not written down; after a restart it is offered again, and the
gateway, which keeps its heads, acknowledges it again.

When the ring is full it drops its oldest segment: the newest air is worth
more than the oldest. What it dropped, and what rotted on the flash, it
declares as ranges [boot, from, to], so that the gateway, which takes a boot's
records only in order, does not wait for what will never come.

An entry on flash: 0xB6, kind, length of the body (2 bytes), body, CRC-32 over
all of these but the first. Big-endian.
"""

import json
import struct

from bega_protocols.checks import crc32
from bega_protocols.errors import WireError

TYPE_CHECKING = False  # the type checker takes this name for true; MicroPython has no typing module
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NamedTuple, Protocol

    Position = tuple[int, int]  # (segment, offset)
    Range = tuple[int, int, int]  # (boot, first seq, last seq)
    Pair = tuple[int, int]  # (boot, seq)

    class Storage(Protocol):
        """Numbered files. Any method may raise OSError."""

        def numbers(self) -> list[int]:
            """Return the numbers of all segments, in any order."""

        def read(self, number: int) -> bytes:
            """Return the whole of a segment; the next read may overwrite it."""

        def append(self, number: int, data: bytes) -> None:
            """Add to a segment, making it if it is new; when this returns, `data` survives a power cut."""

        def remove(self, number: int) -> None:
            """Remove a segment; one that is not there is removed already."""

    class Held(NamedTuple):
        """One record in the ring; `after` is where to go on reading."""

        after: Position
        boot: int
        seq: int
        shape: bytes
        body: bytes

else:
    from collections import namedtuple

    Held = namedtuple("Held", ("after", "boot", "seq", "shape", "body"))

MAGIC = 0xB6
DAMAGED, SHAPE, RECORD, DROP, MARK = 0, 1, 2, 3, 4  # DAMAGED is never written: it stands for what cannot be read
OVERHEAD = 8  # bytes of an entry that are not its body
DECLARED_AT_MOST = 100  # ranges kept; beyond, the oldest is forgotten: its boot is gone from `holds` and blocks nobody
START = (0, 0)
LONGEST_PAUSES = 40  # times the patience, between two repetitions into silence

_ROW = ">4I"  # segment, boot, first seq, last seq: 16 bytes a run, where a list of tuples would take 100 on an ESP32
_ROW_SIZE = 16


class Ring:
    """Append, read in order, free what was acknowledged."""

    def __init__(self, storage: "Storage", segments: int, segment_bytes: int = 4096) -> None:
        """Read what `storage` holds; keep at most `segments` of about `segment_bytes`, and one more while it turns."""
        self.damaged = 0  # places on flash where something unreadable began
        self._storage = storage
        self.most_segments = max(2, segments)
        self._segment_bytes = segment_bytes
        self._runs = bytearray()  # rows of _ROW: what each segment holds, oldest first
        self._drops: list[Range] = []
        self._marks: list[tuple[int, int, bytes]] = []  # (segment, boot, body)
        self._freed: dict[int, int] = {}  # boot: acknowledged up to this seq
        self._shapes: dict[bytes, int] = {}  # of the segment that is being written
        self._size = segment_bytes  # of that segment; so large, that the first append begins a new one
        self._cached: tuple[int, bytes] = (-1, b"")  # the segment that was read last
        self._cached_shapes: dict[int, bytes] = {}  # those of its shapes that were passed so far
        numbers = sorted(storage.numbers())
        self._first = numbers[0] if numbers else 1
        self._last = numbers[-1] if numbers else 0
        for number in numbers:
            self._load(number)
        # A drop that was written down just before a cut, its segment not yet removed, did not happen.
        for _, boot, first, last in self._rows():
            self._drops = _without(self._drops, (boot, first, last))
        self._drops = _merged(self._drops)

    def append(self, records: "list[tuple[int, int, bytes, bytes]]") -> None:
        """Store (boot, seq, shape, body) of each record, seq rising; on return all of them survive a power cut.

        A shape (what a device's records have in common) is stored once a segment.
        Raises OSError if the storage does: then those of them that are on flash count as stored.
        """
        batch = b""
        runs: list[Range] = []
        for boot, seq, shape, body in records:
            entries = self._record_entries(boot, seq, shape, body)
            if self._size + len(batch) + len(entries) > self._segment_bytes:
                self._write(batch, runs)
                batch, runs = b"", []
                self._turn()
                entries = self._record_entries(boot, seq, shape, body)
            if shape not in self._shapes:
                self._shapes[shape] = len(self._shapes)
            batch += entries
            runs.append((boot, seq, seq))
        self._write(batch, runs)

    def mark(self, boot: int, body: bytes) -> None:
        """Store a remark about `boot`; it is kept as long as records of that boot are held."""
        entry = _entry(MARK, struct.pack(">I", boot) + body)
        if self._size + len(entry) > self._segment_bytes:
            self._turn()
        self._write(entry, [])
        self._marks.append((self._last, boot, body))

    def marks(self) -> "list[tuple[int, bytes]]":
        """Return (boot, body) of all marks, oldest first."""
        return [(boot, body) for _, boot, body in self._marks]

    def next(self, after: "Position" = START) -> "Held | None":
        """Return the first record at or behind `after` that is not freed, None if there is none yet."""
        number, offset = after
        if number < self._first:
            number, offset = self._first, 0
        while number <= self._last:
            fresh = self._cached[0] != number
            data, shapes = self._read(number), self._cached_shapes
            for end, kind, body in _entries(data, 0 if fresh else offset):
                if kind == SHAPE:
                    shapes[body[0]] = body[1:]
                elif kind == RECORD and end > offset:
                    boot, seq, index = struct.unpack_from(">IIB", body)
                    if seq > self._freed.get(boot, 0) and index in shapes:
                        return Held((number, end), boot, seq, shapes[index], body[9:])
            number, offset = number + 1, 0
        return None

    def free(self, pairs: "list[Pair]") -> int:
        """Free each boot's records up to seq, no other boot's; return how many that were.

        A pair that names more than the ring ever held frees only what it holds.
        Raises OSError if a segment that is done with cannot be removed.
        """
        count = 0
        for boot, seq in pairs:
            count += self._free(boot, seq)
        while self._first < self._last and not self._held_in(self._first):
            self._remove_first()
        return count

    def reread_oldest(self) -> None:
        """Learn anew what is in the segment of the oldest held record; what rotted since the start becomes a hole.

        Without this the gateway would wait for it until the next start of the node.
        """
        rows = list(self._rows())
        held = [row for row in rows if row[3] > self._freed.get(row[1], 0)]
        if not held:
            return
        number = held[0][0]
        readable = self._readable(number)
        self._runs = bytearray()
        for row in rows:
            if row[0] != number:
                self._runs.extend(struct.pack(_ROW, *row))
                continue
            for boot, seq in readable:
                self._note(number, boot, seq, seq)
            readable = []
        if list(self._rows()) != rows:
            self.damaged += 1

    def holds(self) -> "list[list[int]]":
        """Return [boot, first, last] of what is held, oldest boot first."""
        found: list[list[int]] = []
        for boot, first, last in self._held():
            known = [row for row in found if row[0] == boot]
            if known:
                known[0][2] = max(known[0][2], last)
            else:
                found.append([boot, first, last])
        return found

    def dropped(self) -> "list[list[int]]":
        """Return [boot, from, to] of what will never come: dropped when full, or unreadable."""
        ranges = list(self._drops)
        ends: dict[int, int] = {}
        for boot, first, last in self._held():
            if boot in ends and first > ends[boot] + 1:
                ranges.append((boot, ends[boot] + 1, first - 1))
            ends[boot] = max(last, ends.get(boot, 0))
        return [list(row) for row in _merged(ranges)]

    def oldest(self) -> "Pair | None":
        """Return (boot, seq) of the oldest record that is held, None if none is."""
        for boot, first, _ in self._held():
            return boot, first
        return None

    def held_count(self) -> int:
        """Return how many records are held."""
        return sum([last - first + 1 for _, first, last in self._held()])

    def last_boot(self) -> int:
        """Return the highest boot of which anything is on flash, 0 if nothing is."""
        boots = [boot for _, boot, _, _ in self._rows()] + [drop[0] for drop in self._drops]
        return max(boots) if boots else 0

    def used_segments(self) -> int:
        """Return how many segments are in use."""
        return self._last - self._first + 1

    # what is where

    def _rows(self) -> "Iterator[tuple[int, int, int, int]]":
        for at in range(0, len(self._runs), _ROW_SIZE):
            yield struct.unpack_from(_ROW, self._runs, at)

    def _held(self) -> "Iterator[Range]":
        """Yield the runs that are not freed, oldest first."""
        for _, boot, first, last in self._rows():
            first = max(first, self._freed.get(boot, 0) + 1)
            if first <= last:
                yield boot, first, last

    def _held_in(self, number: int) -> "list[Range]":
        found = []
        for segment, boot, first, last in self._rows():
            first = max(first, self._freed.get(boot, 0) + 1)
            if segment == number and first <= last:
                found.append((boot, first, last))
        return found

    def _note(self, number: int, boot: int, first: int, last: int) -> None:
        """Add a run, lengthening the last one if it goes on there."""
        at = len(self._runs) - _ROW_SIZE
        if at >= 0:
            row = struct.unpack_from(_ROW, self._runs, at)
            if row[:2] == (number, boot) and row[2] <= first <= row[3] + 1:
                struct.pack_into(_ROW, self._runs, at, number, boot, row[2], max(last, row[3]))
                return
        self._runs.extend(struct.pack(_ROW, number, boot, first, last))

    def _free(self, boot: int, seq: int) -> int:
        lasts = [row[3] for row in self._rows() if row[1] == boot]
        before = self.held_count()
        if lasts:
            self._freed[boot] = max(self._freed.get(boot, 0), min(seq, max(lasts)))
        self._drops = [drop for drop in self._drops if drop[0] != boot or drop[2] > seq]
        return before - self.held_count()

    # flash

    def _load(self, number: int) -> None:
        """Learn what a segment holds; go on writing in it only if it is the last one and whole."""
        data = b""
        damaged = 0
        self._shapes = {}
        try:
            data = self._storage.read(number)
        except OSError:
            damaged = 1
        for _, kind, body in _entries(data):
            if kind == DAMAGED:
                damaged += 1
            elif kind == SHAPE:
                self._shapes[body[1:]] = body[0]
            elif kind == RECORD:
                boot, seq, index = struct.unpack_from(">IIB", body)
                if index in self._shapes.values():  # else its shape is lost, and with it what the record means
                    self._note(number, boot, seq, seq)
            elif kind == DROP:
                self._drops.append(struct.unpack(">III", body))
            elif kind == MARK:
                self._marks.append((number, struct.unpack_from(">I", body)[0], body[4:]))
        self._size = len(data) if number == self._last and not damaged else self._segment_bytes
        self.damaged += damaged

    def _read(self, number: int) -> bytes:
        if self._cached[0] != number:
            self._forget_cached()
            try:
                self._cached = (number, self._storage.read(number))
            except OSError:  # its records are a hole, and declared as one by `reread_oldest` or at the next start
                self._cached = (number, b"")
        return self._cached[1]

    def _readable(self, number: int) -> "list[Pair]":
        """Return (boot, seq) of each record that can be read in a segment, from flash itself."""
        self._forget_cached()
        shapes: list[int] = []
        found = []
        for _, kind, body in _entries(self._read(number)):
            if kind == SHAPE:
                shapes.append(body[0])
            elif kind == RECORD and body[8] in shapes:
                found.append(struct.unpack_from(">II", body))
        return found

    def _forget_cached(self) -> None:
        self._cached = (-1, b"")
        self._cached_shapes = {}

    def _record_entries(self, boot: int, seq: int, shape: bytes, body: bytes) -> bytes:
        index = self._shapes.get(shape)
        preface = b""
        if index is None:
            index = len(self._shapes)
            preface = _entry(SHAPE, bytes((index,)) + shape)
        return preface + _entry(RECORD, struct.pack(">IIB", boot, seq, index) + body)

    def _write(self, data: bytes, runs: "list[Range]") -> None:
        if not data:
            return
        self._forget_cached()
        size, self._size = self._size, self._segment_bytes  # should this fail, the next append begins a new segment
        self._storage.append(self._last, data)
        self._size = size + len(data)
        for boot, first, last in runs:
            self._note(self._last, boot, first, last)

    def _write_if_there_is_room(self, data: bytes) -> None:
        """Write what may be lost rather than block the ring: on a full flash only a removal makes room."""
        try:
            self._write(data, [])
        except OSError:
            pass

    def _turn(self) -> None:
        """Begin a new segment; if that is one too many, give up the oldest, and say so on flash first."""
        self._last += 1
        self._size = 0
        self._shapes = {}
        while self._last - self._first >= self.most_segments:
            self._drops = _merged(self._drops + self._held_in(self._first))[-DECLARED_AT_MOST:]
            self._remove_first()

    def _remove_first(self) -> None:
        """Remove the oldest segment; what still matters of what it says is written to the newest one before."""
        number = self._first
        keep = [row for row in self._rows() if row[0] != number]
        boots = [row[1] for row in keep if row[3] > self._freed.get(row[1], 0)]
        marks = [mark for mark in self._marks if mark[0] == number and mark[1] in boots]
        carried = b"".join([_entry(DROP, struct.pack(">III", *drop)) for drop in self._drops])
        carried += b"".join([_entry(MARK, struct.pack(">I", mark[1]) + mark[2]) for mark in marks])
        self._write_if_there_is_room(carried)
        self._storage.remove(number)
        self._first = number + 1
        self._runs = bytearray(b"".join([struct.pack(_ROW, *row) for row in keep]))
        self._marks = [mark for mark in self._marks if mark[0] != number] + [(self._last,) + m[1:] for m in marks]
        held = [row[1] for row in keep]
        self._freed = {boot: seq for boot, seq in self._freed.items() if boot in held}


class Window:
    """Which records are on their way: at most `size` unacknowledged, and from the oldest again when nothing moves.

    The gateway takes a boot's records only in order, so after a loss all that
    follows is sent again (go-back-N). While nothing at all is heard of it, the
    pause doubles each time: a broker would keep every repetition for it.
    """

    def __init__(self, ring: Ring, size: int, patience_ms: int) -> None:
        self._ring = ring
        self._size = size
        self._patience_ms = patience_ms
        self._pause_ms = patience_ms
        self._position: Position = START
        self._sent: list[Pair] = []
        self._progress_ms = 0

    def restart(self, now_ms: int) -> None:
        """Begin with the oldest record that is held: after each connect."""
        self._position = START
        self._sent = []
        self._progress_ms = now_ms
        self._pause_ms = self._patience_ms

    def resend(self, now_ms: int) -> None:
        """Begin again with the oldest that can be read, because it `stalled`."""
        self._ring.reread_oldest()
        pause_ms = min(2 * self._pause_ms, LONGEST_PAUSES * self._patience_ms)
        self.restart(now_ms)
        self._pause_ms = pause_ms

    def next(self) -> "Held | None":
        """Return the record to send next, None if there is none or the window is full."""
        if len(self._sent) >= self._size:
            return None
        return self._ring.next(self._position)

    def sent(self, held: "Held", now_ms: int) -> None:
        """Note that `held` is on its way."""
        if not self._sent:
            self._progress_ms = now_ms
        self._sent.append((held.boot, held.seq))
        self._position = held.after

    def acknowledged(self, pairs: "list[Pair]", now_ms: int) -> bool:
        """Free what the gateway has stored; return whether the oldest record that was held is among it.

        Only that is progress: of two boots the newer may flow for months
        beside an older one, of which the gateway waits for what was lost.
        """
        self._pause_ms = self._patience_ms  # the gateway lives
        oldest = self._ring.oldest()
        self._ring.free(pairs)
        for boot, seq in pairs:
            self._sent = [sent for sent in self._sent if sent[0] != boot or sent[1] > seq]
        moved = self._ring.oldest() != oldest
        if moved:
            self._progress_ms = now_ms
        return moved

    def stalled(self, now_ms: int) -> bool:
        """Return whether something is on its way and the oldest stays for so long that it must be lost."""
        return bool(self._sent) and now_ms - self._progress_ms >= self._pause_ms


def read_acknowledgement(payload: bytes) -> "list[Pair]":
    """Return the pairs in what the gateway sent to `node/<node>/ack`; raises WireError if they are none."""
    try:
        pairs = [(boot, seq) for boot, seq in json.loads(payload)]
    except (ValueError, TypeError, RuntimeError):  # RuntimeError: nested too deep
        raise WireError("no acknowledgement", bytes(payload[:40]))
    for pair in pairs:
        for number in pair:
            if not isinstance(number, int) or not 0 <= number < 1 << 53:
                raise WireError("no acknowledgement", bytes(payload[:40]))
    return pairs


def _entry(kind: int, body: bytes) -> bytes:
    checked = struct.pack(">BH", kind, len(body)) + body
    return bytes((MAGIC,)) + checked + struct.pack(">I", crc32(checked))


def _entries(data: bytes, at: int = 0) -> "Iterator[tuple[int, int, bytes]]":
    """Yield (end, kind, body) of each sound entry from `at` on; a damaged place is stepped over, and yielded once."""
    sound = True
    while at < len(data):
        body = _body_at(data, at)
        if body is not None:
            kind = data[at + 1]
            at += OVERHEAD + len(body)
            sound = True
            yield at, kind, body
        else:
            at += 1
            if sound:
                yield at, DAMAGED, b""
            sound = False


def _body_at(data: bytes, at: int) -> "bytes | None":
    """Return the body of the entry that begins at `at`, None if none begins there."""
    if data[at] != MAGIC or len(data) - at < OVERHEAD:
        return None
    size = struct.unpack_from(">H", data, at + 2)[0]
    end = at + 4 + size
    if end + 4 > len(data) or crc32(data[at + 1 : end]) != struct.unpack_from(">I", data, end)[0]:
        return None
    return bytes(data[at + 4 : end])  # a storage may hand out room that its next read overwrites


def _merged(ranges: "list[Range]") -> "list[Range]":
    """Return the same numbers in as few ranges as can be, lowest boot first."""
    merged: list[Range] = []
    for boot, first, last in sorted(ranges):
        if merged and merged[-1][0] == boot and first <= merged[-1][2] + 1:
            merged[-1] = (boot, merged[-1][1], max(merged[-1][2], last))
        else:
            merged.append((boot, first, last))
    return merged


def _without(ranges: "list[Range]", held: "Range") -> "list[Range]":
    """Return `ranges` without the numbers of `held`."""
    rest = []
    for boot, first, last in ranges:
        if boot != held[0] or last < held[1] or held[2] < first:
            rest.append((boot, first, last))
            continue
        if first < held[1]:
            rest.append((boot, first, held[1] - 1))
        if held[2] < last:
            rest.append((boot, held[2] + 1, last))
    return rest
