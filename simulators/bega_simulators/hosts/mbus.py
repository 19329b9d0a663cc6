"""One M-Bus segment on a pseudo-terminal: the gateway has the port, any number of meters hang on the wire.

Spec: EN 13757-2. The master speaks by voltage and every slave hears it; a slave speaks by drawing current, which the
master alone hears. A bit 0 of anybody wins, so slaves that speak at once are heard as the AND of their bits: two that
acknowledge in the same moment are one clean E5, two telegrams are garbage. The wire is computed bit by bit in its own
time, not the machine's: a busy machine slows an exchange down and changes nothing else.

    with MbusSegment([meter, other], baud=2400) as segment:   # a thread of its own, for as long as the block
        ... segment.port ...
    segment = MbusSegment([meter]); port = segment.open(); await segment.serve()   # until cancelled

A pty knows no parity, so the port is opened as 8N1; the wire counts eleven bits a character all the same.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bega_simulators.hosts.segment import BITS_A_CHARACTER, Segment

IDLE_BITS = 33  # so much silence ends whatever has begun
THINKS_BITS = 22  # before a slave answers; at least 11, at most 330 and 50 ms


class AskedSim(Protocol):
    """What a meter's sim.py offers to the wire it hangs on."""

    faults: set[str]

    def answer(self, request: bytes) -> bytes | None: ...


@dataclass
class Counts:
    """What the wire saw, since the start or since `MbusSegment.take_counts`."""

    questions: int = 0  # whole frames of the master
    damaged: int = 0  # what the master sent and was no frame
    answers: int = 0  # that slaves began
    collisions: int = 0  # questions that more than one slave answered
    master_gaps_s: list[float] = field(default_factory=list)  # from the end of an answer to the next question


@dataclass(order=True)
class _Heard:
    """A character of the master that has ended."""

    at_s: float
    number: int
    octet: int = field(compare=False)


class _Said:
    """What one slave says: from when on, and its bits."""

    def __init__(self, start_s: float, octets: bytes, bit_s: float) -> None:
        self.start_s = start_s
        self.end_s = start_s + len(octets) * BITS_A_CHARACTER * bit_s
        self._octets = octets
        self._bit_s = bit_s

    def level(self, at_s: float) -> int:
        index = math.floor((at_s - self.start_s) / self._bit_s)
        return self._bit(index) if 0 <= index < BITS_A_CHARACTER * len(self._octets) else 1

    def next_zero_s(self, from_s: float) -> float:
        """Return when the line is next drawn to 0, infinity if it is not."""
        index = max(0, math.floor((from_s - self.start_s) / self._bit_s))
        while index < BITS_A_CHARACTER * len(self._octets):
            if not self._bit(index):
                return max(from_s, self.start_s + index * self._bit_s)
            index += 1
        return math.inf

    def _bit(self, index: int) -> int:
        octet, place = self._octets[index // BITS_A_CHARACTER], index % BITS_A_CHARACTER
        if place == 0:
            return 0
        if place <= 8:
            return octet >> place - 1 & 1
        return octet.bit_count() & 1 if place == 9 else 1


class MbusSegment(Segment):
    """A bus with its meters. The faults (silent, late, jam, ...) may be set at any time, from any thread."""

    def __init__(self, sims: list[AskedSim], baud: int = 2400, seed: int = 1, link: Path | None = None) -> None:
        """link: a name for the port that stays when it is unplugged and plugged in again."""
        super().__init__(link)
        self._bit_s = 1 / baud
        self.sims = sims
        self.counts = Counts()
        self._thinks_s = [THINKS_BITS * self._bit_s] * len(sims)
        self._random = random.Random(seed)
        self._bit_error_rate = 0.0
        self._coming: list[_Heard] = []
        self._numbers = 0
        self._master_free_s = 0.0
        self._heard = bytearray()
        self._heard_s = 0.0
        self._said: list[_Said] = []
        self._free_s = 0.0  # when the receiver is ready for the next start bit

    # What a test or a demo does.

    def take_counts(self) -> Counts:
        """Return what was counted and begin at nothing."""
        counts, self.counts = self.counts, Counts()
        return counts

    # Faults.

    def silent(self, index: int, silent: bool = True) -> None:
        """Let the meter of this index be cut off, or have the wire back."""
        change = self.sims[index].faults.add if silent else self.sims[index].faults.discard
        change("silent")

    def late(self, index: int, late_s: float) -> None:
        """Let it think for so long before each answer."""
        self._thinks_s[index] = late_s

    def bit_errors(self, rate: float) -> None:
        """Turn each bit that the master hears round with this probability."""
        self._bit_error_rate = rate

    def jam(self, for_s: float) -> None:
        """Let something babble on the wire for so long, from now on."""
        octets = self._random.randbytes(round(for_s / self._bit_s / BITS_A_CHARACTER))
        self._said.append(_Said(time.monotonic(), octets, self._bit_s))

    # The wire.

    def _due_s(self, now_s: float) -> float:
        due_s = self._start_s() + (BITS_A_CHARACTER - 0.5) * self._bit_s
        return min(due_s, self._coming[0].at_s) if self._coming else due_s

    def _hear_master(self, octets: bytes, now_s: float) -> None:
        start_s = max(now_s, self._master_free_s)
        if self._said == [] and self._free_s:
            self.counts.master_gaps_s.append(start_s - self._free_s)
        for octet in octets:
            start_s += BITS_A_CHARACTER * self._bit_s
            self._numbers += 1
            heapq.heappush(self._coming, _Heard(start_s, self._numbers, octet))
        self._master_free_s = start_s

    def _advance(self, now_s: float) -> None:
        while self._coming and self._coming[0].at_s <= now_s:
            self._hear(heapq.heappop(self._coming))
        while self._start_s() + (BITS_A_CHARACTER - 0.5) * self._bit_s <= now_s:
            self._receive()

    def _hear(self, heard: _Heard) -> None:
        """A character of the master has ended: all slaves heard it, and answer if it ends a frame."""
        if heard.at_s - self._heard_s > (IDLE_BITS + BITS_A_CHARACTER) * self._bit_s:
            self.counts.damaged += bool(self._heard)
            self._heard.clear()
        self._heard.append(heard.octet)
        self._heard_s = heard.at_s
        size = _size(self._heard)
        if size is None or len(self._heard) < size:
            return
        frame = bytes(self._heard)
        self._heard.clear()
        if size == 0:
            self.counts.damaged += 1
            return
        self.counts.questions += 1
        said = 0
        for sim, thinks_s in zip(self.sims, self._thinks_s, strict=True):
            answer = sim.answer(frame)
            if answer:
                said += 1
                self._said.append(_Said(heard.at_s + thinks_s, answer, self._bit_s))
        self.counts.answers += said
        self.counts.collisions += said > 1

    def _start_s(self) -> float:
        """Return when the master's receiver sees the next start bit: the line is drawn to 0 by anybody."""
        return min((said.next_zero_s(self._free_s) for said in self._said), default=math.inf)

    def _receive(self) -> None:
        """One character of the receiver: it samples the middle of each bit, whoever draws the line."""
        start_s = self._start_s()
        octet = 0
        for place in range(8):
            at_s = start_s + (place + 1.5) * self._bit_s
            level = min(said.level(at_s) for said in self._said)
            if self._bit_error_rate and self._random.random() < self._bit_error_rate:
                level ^= 1
            octet |= level << place
        self._free_s = start_s + (BITS_A_CHARACTER - 0.5) * self._bit_s
        self._said = [said for said in self._said if said.end_s > self._free_s + self._bit_s]
        self._tell_master(octet)


def _size(heard: bytes | bytearray) -> int | None:
    """Return the length of the frame that begins here, 0 if none does, None while nobody can know."""
    if heard[0] == 0x10:
        return 5
    if heard[0] != 0x68:
        return 0
    if len(heard) < 4:
        return None
    return heard[1] + 6 if heard[1] == heard[2] and heard[3] == 0x68 else 0
