"""One RS-485 segment on a pseudo-terminal: the gateway has the port, any number of Modbus slaves hang on the wire.

Spec: MODBUS over Serial Line V1.02, section 2.5.1. The slaves live inside and are judged on wire time, not on the
machine's: each byte takes its eleven bit times, a slave takes as one frame what no silence of 3.5 characters parts,
and whoever speaks while another speaks destroys both. So a busy machine can slow an exchange down, but neither split
nor glue a frame: only what the master really did can.

    with Rs485Segment({1: meter, 2: other}, baud=9600) as segment:   # a thread of its own, for as long as the block
        ... segment.port ...
    segment = Rs485Segment({1: meter}); port = segment.open(); await segment.serve()   # until cancelled

A pty knows no parity, so the port is opened as 8N1; the wire counts eleven bits a character all the same.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bega_simulators.hosts.segment import BITS_A_CHARACTER, Segment

BROADCAST = 0
EDGE_S = 1e-9  # a character that begins when another ends touches it and does not overlap


def exchanges_a_second(baud: int, registers: int) -> float:
    """Return how many reads of `registers` registers a bus carries at most with legal silences.

    Question (8 characters) and answer (5 and two a register), each followed by 3.5 characters of silence, or by 1.75 ms
    above 19200 baud; slaves that answer at once, and no pause of any master.
    """
    characters_s = (8 + 5 + 2 * registers) * BITS_A_CHARACTER / baud
    return 1 / (characters_s + 2 * silence_s(baud))


def silence_s(baud: int) -> float:
    """Return how long 3.5 characters of silence are (section 2.5.1.1)."""
    return 0.00175 if baud > 19200 else 3.5 * BITS_A_CHARACTER / baud


class AskedSim(Protocol):
    """What a device's sim.py offers to the wire it hangs on."""

    faults: set[str]

    def answer(self, request: bytes) -> bytes | None: ...


@dataclass
class Counts:
    """What the wire saw, since the start or since `Rs485Segment.take_counts`."""

    answered: int = 0  # answers that slaves began
    collisions: int = 0  # characters destroyed because two spoke at once
    glued: int = 0  # stretches longer than a question that no silence parted, heard by a slave
    busy_s: float = 0.0  # time for which characters were on the wire
    functions: set[int] = field(default_factory=set)  # function codes that a slave was asked
    questions: dict[int, int] = field(default_factory=dict)  # unit -> whole questions heard
    master_gaps_s: list[float] = field(default_factory=list)  # from the end of an answer to the next question


@dataclass(order=True)
class _Event:
    at_s: float
    number: int
    act: Callable[[], None] = field(compare=False)


class _Slave:
    """One device on the wire, with a UART that hears everyone but itself."""

    def __init__(self, sim: AskedSim, unit: int) -> None:
        self.sim = sim
        self.unit = unit
        self.heard = bytearray()
        self.heard_s = -1.0  # end of the last character heard
        self.late_s = 0.0
        self.drop = 0.0
        self.said_unit = unit
        self.again_s: float | None = None  # so long after an answer it gives the same again
        self.free_s = 0.0  # when it has said what it began to say


class Rs485Segment(Segment):
    """A bus with its slaves. The faults (silent, late, drop, ...) may be set at any time, from any thread."""

    def __init__(self, sims: dict[int, AskedSim], baud: int = 9600, seed: int = 1, link: Path | None = None) -> None:
        """sims: by unit; link: a name for the port that stays when it is unplugged and plugged in again."""
        super().__init__(link)
        self._character_s = BITS_A_CHARACTER / baud
        self.silence_s = silence_s(baud)
        self.sims = sims
        self.counts = Counts()
        self._slaves = [_Slave(sim, unit) for unit, sim in sims.items()]
        self._random = random.Random(seed)
        self._events: list[_Event] = []
        self._numbers = 0
        self._bit_error_rate = 0.0
        self._jammed_until_s = 0.0
        self._end_s = -1.0  # of the last character on the wire
        self._talker: _Slave | str | None = None  # who sent it: a slave, None for the master, "noise"
        self._master_free_s = 0.0
        self._silence_due_s: float | None = None

    # What a test or a demo does.

    def take_counts(self) -> Counts:
        """Return what was counted and begin at nothing."""
        counts, self.counts = self.counts, Counts()
        return counts

    # Faults.

    def silent(self, unit: int, silent: bool = True) -> None:
        """Let `unit` be without power, or have it back."""
        change = self.sims[unit].faults.add if silent else self.sims[unit].faults.discard
        change("silent")

    def late(self, unit: int, late_s: float) -> None:
        """Let `unit` think for so long before each answer."""
        self._slave_of(unit).late_s = late_s

    def drop(self, unit: int, share: float) -> None:
        """Let `unit` overhear this share of the questions to it."""
        self._slave_of(unit).drop = share

    def impersonate(self, unit: int, other: int) -> None:
        """Let `unit` answer in the name of `other`."""
        self._slave_of(unit).said_unit = other

    def double(self, unit: int, after_s: float | None) -> None:
        """Let `unit` give each answer twice, with so much silence between; None lets it be."""
        self._slave_of(unit).again_s = after_s

    def bit_errors(self, rate: float) -> None:
        """Turn each bit on the wire round with this probability."""
        self._bit_error_rate = rate

    def jam(self, for_s: float) -> None:
        """Let something babble on the wire for so long."""
        self._jammed_until_s = time.monotonic() + for_s

    # The wire.

    def _slave_of(self, unit: int) -> _Slave:
        return next(slave for slave in self._slaves if slave.unit == unit)

    def _due_s(self, now_s: float) -> float:
        due_s = min(
            self._events[0].at_s if self._events else float("inf"),
            self._silence_due_s if self._silence_due_s is not None else float("inf"),
        )
        return min(due_s, now_s + self._character_s) if now_s < self._jammed_until_s else due_s

    def _hear_master(self, octets: bytes, now_s: float) -> None:
        start_s = max(now_s, self._master_free_s)
        for octet in octets:
            self._send_character(None, octet, start_s)
            start_s += self._character_s
        self._master_free_s = start_s

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._events, _Event(at_s, self._numbers, act))

    def _send_character(self, talker: _Slave | str | None, octet: int, start_s: float) -> None:
        self._at(start_s + self._character_s, lambda: self._character(talker, octet, start_s))

    def _advance(self, now_s: float) -> None:
        if now_s < self._jammed_until_s and self._talker != "noise":
            self._babble()
        while True:
            event_s = self._events[0].at_s if self._events else float("inf")
            silence_s = self._silence_due_s if self._silence_due_s is not None else float("inf")
            if min(event_s, silence_s) > now_s:
                return
            if silence_s < event_s:
                self._silence_due_s = None
                self._fall_silent(silence_s)
            else:
                heapq.heappop(self._events).act()

    def _babble(self) -> None:
        start_s = time.monotonic()
        if start_s < self._jammed_until_s:
            self._send_character("noise", self._random.getrandbits(8), start_s)
            self._at(start_s + self._character_s, self._babble)

    def _character(self, talker: _Slave | str | None, octet: int, start_s: float) -> None:
        """A character has ended: everyone else hears it, or what is left of it."""
        end_s = start_s + self._character_s
        self.counts.busy_s += self._character_s
        if talker is not self._talker:
            if start_s < self._end_s - EDGE_S:
                self.counts.collisions += 1
                octet = self._random.getrandbits(8)
            elif talker is None:
                self.counts.master_gaps_s.append(start_s - self._end_s)
        if self._bit_error_rate:
            for bit in range(8):
                if self._random.random() < self._bit_error_rate:
                    octet ^= 1 << bit
        self._end_s = max(end_s, self._end_s)
        self._talker = talker
        if talker is not None:
            self._tell_master(octet)
        for slave in self._slaves:
            if slave is not talker:
                if start_s - slave.heard_s >= self.silence_s:
                    slave.heard.clear()
                slave.heard.append(octet)
                slave.heard_s = end_s
        self._silence_due_s = end_s + self.silence_s

    def _fall_silent(self, at_s: float) -> None:
        """3.5 characters of silence: every slave takes what it heard as one frame."""
        for slave in self._slaves:
            frame = bytes(slave.heard)
            slave.heard.clear()
            if len(frame) < 4 or _crc(frame[:-2]) != frame[-2:]:
                self.counts.glued += len(frame) > 8
            elif frame[0] == slave.unit:
                self._answer(slave, frame[1:-2], at_s)
            elif frame[0] == BROADCAST:
                slave.sim.answer(frame[1:-2])

    def _answer(self, slave: _Slave, request: bytes, at_s: float) -> None:
        self.counts.functions.add(request[0])
        self.counts.questions[slave.unit] = self.counts.questions.get(slave.unit, 0) + 1
        response = None if self._random.random() < slave.drop else slave.sim.answer(request)
        if response is None:
            return
        self.counts.answered += 1
        body = bytes([slave.said_unit]) + response
        start_s = max(at_s + slave.late_s, slave.free_s)
        for pause_s in (0.0,) if slave.again_s is None else (0.0, slave.again_s):
            start_s += pause_s
            for octet in body + _crc(body):
                self._send_character(slave, octet, start_s)
                start_s += self._character_s
        slave.free_s = start_s


def _crc(octets: bytes) -> bytes:
    """CRC-16 of the paper's appendix B, bit by bit: the product's own is built from a table."""
    crc = 0xFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            low_bit = crc & 1
            crc >>= 1
            if low_bit:
                crc ^= 0xA001
    return bytes([crc & 0xFF, crc >> 8])
