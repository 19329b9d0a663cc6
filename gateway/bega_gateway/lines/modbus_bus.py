"""One Modbus wire, RTU or TCP: pymodbus connects and frames, our bus discipline around it.

Spec: MODBUS over Serial Line V1.02, section 2.5.1; MODBUS Messaging on TCP/IP
V1.0b. What pymodbus leaves open is kept here: only the answer to the question
in hand is let through, and there are no retries. On a serial line 3.5
characters of silence stand before each question, and quiet after a time-out, so
that a late answer never becomes another register's value; on TCP an answer
carries the number of its question.

Nothing but reads (function codes 3 and 4) leaves the gateway on these lines by
`exchange`; `write` lets pass what a table of the configuration permits, byte by
byte, and nothing else. A bus takes one question at a time: whoever asks waits for the outcome first.
"""

from __future__ import annotations

import asyncio
import logging
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from pymodbus.framer.rtu import FramerRTU
from pymodbus.framer.socket import FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.transport import CommParams, CommType, ModbusProtocol

from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.advice import host_advice, port_advice
from bega_gateway.lines.modbus_write import READ_COILS, REPEATED, WRITES, Permit, is_permitted
from bega_gateway.lines.polling import SLACK_MS
from bega_protocols.errors import ConfigError, LineError
from bega_protocols.modbus_rtu import EXCEPTION, MAX_FRAME, READS, characters_us, silence_us
from bega_protocols.modbus_tcp import HEADER_SIZE, MAX_LENGTH

if TYPE_CHECKING:
    from bega.clock import FineClock

QUIET_S = 0.1  # after a time-out a serial line rests at least so long
TRY_QUIET_S = 0.05  # and so long after a try of a unit that has been silent all along
DRAINED_S = 0.05  # nothing more comes when nothing came for so long: a USB adapter hands bytes over every 16 ms
COARSE_S = 0.0012  # epoll wakes up to 1 ms late: what is shorter than this is slept exactly
SPIN_S = 0.0001  # and the last of it waited through: the system wakes a sleeper some 60 us late
OWED_S = 30.0  # a device that takes longer than this has forgotten the question
MOST_REGISTERS = 125  # MODBUS Application Protocol V1.1b3, section 6.3
UNANSWERED_LIMIT = 3  # so many silences in a row from a whole TCP server, and the connection is made anew
REFUSED_LIMIT = 100  # so many frames upon one question that are no answer to it, and nobody speaks Modbus there
MOST_GIVEN_UP = 16  # questions on TCP whose late answers are still known for what they are

Late = Callable[[int, bytes, int], None]


class Outcome(NamedTuple):
    """What came of one question."""

    answer: bytes | None  # PDU
    took_ms: int = 0  # how long the device thought before its answer, in time or late
    noise: bool = False  # there was no answer, and the line was not silent
    is_late: bool = False  # the answer came while the line was kept quiet, and was thrown away
    refused: int = 0  # whole frames since the last outcome that were no answer to their question


def bus_of(
    settings: ModbusRtuLine | ModbusTcpLine,
    mono_s: FineClock,
    late: Late | None = None,
    permits: tuple[Permit, ...] = (),
) -> RtuBus | TcpBus:
    """Return the wire that `settings` describe, closed.

    mono_s: counts microseconds, and is not the event loop's, which may be coarse
    late(unit, answer, took_ms): called when an answer comes after its question was given up and others were asked (TCP)
    permits: what may be written; () is nothing
    """
    if isinstance(settings, ModbusRtuLine):
        return RtuBus(settings, mono_s, permits)
    return TcpBus(settings, mono_s, late, permits)


class _Wire(ModbusProtocol):
    """pymodbus's connection; what comes goes straight to the bus."""

    def __init__(self, params: CommParams, hear: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        super().__init__(params, is_server=False)
        self._hear = hear
        self._lost = lost

    def data_received(self, data: bytes) -> None:
        self._hear(data)

    def callback_disconnected(self, exc: Exception | None) -> None:
        self._lost()

    def callback_connected(self) -> None:
        pass

    def callback_new_connection(self) -> ModbusProtocol:
        raise NotImplementedError("a gateway takes no connections")

    def callback_data(self, data: bytes, addr: tuple[str, int] | None = None) -> int:
        return len(data)


class _Connection:
    """What a serial port and a TCP connection have in common: opened, lost, and one question at a time."""

    def __init__(self, port: str, timeout_s: float, mono_s: FineClock, permits: tuple[Permit, ...]) -> None:
        self.port = port  # what the operator calls this wire
        self._permits = permits
        self.opened = asyncio.Event()
        self._timeout_s = timeout_s
        self._mono_s = mono_s
        self._wire: _Wire | None = None
        self._lost = asyncio.Event()
        self._why = ""  # it was lost; empty where that is no trouble
        self._answer: asyncio.Future[bytes | None] | None = None  # None after the time-out
        self._buffer = b""
        self._heard_s = 0.0  # when the last bytes came
        self._refused = 0

    async def open(self) -> None:
        """Open the port or connect; raises LineError that says what to do."""
        # What pymodbus would say of each time-out is a counter here, and a line is down or back once.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._lost.clear()
        self._why = ""
        self._begin()
        wire = _Wire(self._parameters(), self._hear, lambda: self._lose(self._lost_advice()))
        try:
            # What wire.connect() does, without swallowing the reason why it cannot.
            async with asyncio.timeout(self._timeout_s):
                wire.transport, _ = await wire.call_create()
        except (OSError, ValueError, TimeoutError, termios.error) as error:
            raise LineError(self._advice(error)) from None
        self._wire = wire
        self._heard_s = self._mono_s()
        self.opened.set()

    def close(self) -> None:
        """Close; does nothing if it is closed."""
        self.opened.clear()
        if self._wire:
            wire, self._wire = self._wire, None
            wire.close()

    async def until_lost(self) -> None:
        """Wait for the end of the connection; raises LineError unless it was ended to make it anew."""
        await self._lost.wait()
        self.close()
        if self._why:
            raise LineError(self._why)

    def _begin(self) -> None:
        self._buffer = b""
        self._refused = 0

    def _open_wire(self) -> _Wire:
        if self._wire is None or not self._wire.transport or self._lost.is_set():
            raise LineError(self._why or "the line is not open")
        return self._wire

    async def _answer_within(self, limit_s: float) -> bytes | None:
        """Return the answer that `_hear` finds, None after `limit_s`; raises LineError if the wire is lost."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes | None] = loop.create_future()
        self._answer = answer
        timer = loop.call_later(limit_s, _give_up, answer)
        try:
            return await answer
        finally:
            timer.cancel()
            self._answer = None

    def _check_permitted(self, unit: int, question: bytes) -> None:
        if not is_permitted(self._permits, unit, question):
            raise ConfigError(f"nothing permits {question.hex()} to unit {unit}")

    def _take_refused(self) -> int:
        refused, self._refused = self._refused, 0
        return refused

    def _lose(self, why: str) -> None:
        """The connection is over: whoever waits for an answer hears of it at once."""
        if self._lost.is_set():
            return
        self._why = why
        self.opened.clear()
        self._lost.set()
        if self._answer and not self._answer.done():
            self._answer.set_exception(LineError(why))

    def _hear(self, data: bytes) -> None:
        raise NotImplementedError

    def _parameters(self) -> CommParams:
        raise NotImplementedError

    def _lost_advice(self) -> str:
        raise NotImplementedError

    def _advice(self, error: Exception) -> str:
        raise NotImplementedError


class TcpBus(_Connection):
    """A TCP connection to a meter, or to a converter with several behind it."""

    def __init__(
        self, settings: ModbusTcpLine, mono_s: FineClock, late: Late | None = None, permits: tuple[Permit, ...] = ()
    ) -> None:
        super().__init__(f"{settings.host}:{settings.port}", settings.timeout_s, mono_s, permits)
        self._settings = settings
        self._late = late
        self._framer = FramerSocket(DecodePDU(False))
        self._number = 0
        self._question = b""
        self._unit = 0
        self._head = b""  # how the answer begins that holds what was asked for
        self._size = 0  # of that answer
        self._unanswered = 0
        self._given_up: dict[tuple[int, int], float] = {}  # (number, unit): when it was asked

    async def exchange(self, unit: int, question: bytes, wait_ms: int, is_try: bool) -> Outcome:
        """Ask `unit` and return what came of it; raises LineError if the wire is lost.

        wait_ms: how long the device may think before it answers
        is_try: it has been silent all along
        """
        _check_read(question)
        return await self._exchange(unit, question, wait_ms, is_try)

    async def write(self, unit: int, question: bytes, wait_ms: int) -> Outcome:
        """Do the same with a question that the permits list; raises ConfigError for any other."""
        self._check_permitted(unit, question)
        return await self._exchange(unit, question, wait_ms, False)

    async def _exchange(self, unit: int, question: bytes, wait_ms: int, is_try: bool) -> Outcome:
        transport = cast("asyncio.WriteTransport", self._open_wire().transport)
        if self._unanswered and not is_try:
            # A converter may still be waiting for a unit that was given up; this one must not suffer for it.
            wait_ms = max(wait_ms, round(1000 * self._timeout_s))
        self._number = number = self._number % 0xFFFF + 1
        begin, octets = _answer_to(question)
        length = 1 + len(begin) + octets
        self._question, self._unit = question, unit
        self._head = bytes((number >> 8, number & 0xFF, 0, 0, 0, length, unit)) + begin
        self._size = len(self._head) + octets
        asked_s = self._mono_s()
        transport.write(self._framer.encode(question, unit, number))
        answer = await self._answer_within((wait_ms + SLACK_MS) / 1000)
        if answer is not None:
            self._unanswered = 0
            return Outcome(answer, _ms(self._heard_s - asked_s), refused=self._take_refused())
        self._give_up(number, unit, asked_s)
        return Outcome(None, refused=self._take_refused())

    def _begin(self) -> None:
        super()._begin()
        self._unanswered = 0
        self._given_up.clear()

    def _give_up(self, number: int, unit: int, asked_s: float) -> None:
        self._head = b""
        if self._buffer:  # half an answer: nothing marks where the next one begins
            self._lose(f"{self.port} stopped in the middle of an answer; trying again")
            raise LineError(self._why)
        if len(self._given_up) >= MOST_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]
        self._given_up[number, unit] = asked_s
        self._unanswered += 1
        if self._unanswered >= UNANSWERED_LIMIT:
            self._lose("")  # a server that restarted may have forgotten the connection without a word

    def _hear(self, data: bytes) -> None:
        """Take what came. All but always that is the answer, whole, and nothing else."""
        self._heard_s = self._mono_s()
        if len(data) == self._size and not self._buffer and self._head and data.startswith(self._head):
            self._resolve(data[HEADER_SIZE:])
            return
        self._buffer += data
        while len(self._buffer) >= HEADER_SIZE and not self._lost.is_set():
            if self._buffer[2:4] != b"\0\0" or not 3 <= (self._buffer[4] << 8 | self._buffer[5]) <= MAX_LENGTH:
                self._lose(f"{self.port} sends what is no Modbus TCP: is `port` right? trying again")
                break
            size, unit, number, pdu = self._framer.decode(self._buffer)
            if not size:
                return
            self._buffer = self._buffer[size:]
            self._take(unit, number, pdu)
        if self._lost.is_set():
            self._buffer = b""

    def _take(self, unit: int, number: int, pdu: bytes) -> None:
        if number == self._number and self._head and unit == self._unit and _fits(self._question, pdu):
            self._resolve(pdu)
            return
        asked_s = self._given_up.pop((number, unit), None)
        if asked_s is not None and self._late:
            self._late(unit, pdu, _ms(self._heard_s - asked_s))
            return
        self._refused += 1
        if self._refused >= REFUSED_LIMIT:
            self._lose(f"{self.port} sends what nobody asked for: is `port` right? trying again")

    def _resolve(self, pdu: bytes) -> None:
        self._head = b""  # a second answer with this number is one too many
        if self._answer and not self._answer.done():
            self._answer.set_result(pdu)

    def _parameters(self) -> CommParams:
        return CommParams(
            comm_name="bega",
            comm_type=CommType.TCP,
            reconnect_delay=0.0,
            timeout_connect=self._timeout_s,
            host=self._settings.host,
            port=self._settings.port,
        )

    def _lost_advice(self) -> str:
        host = self._settings.host
        return f"{host} ended the connection: does it take only one, and does another program have it? trying again"

    def _advice(self, error: Exception) -> str:
        return host_advice(self._settings.host, self._settings.port, error)


@dataclass
class _Owed:
    """Questions to one unit that were never answered: how many registers they asked for, and until when it matters."""

    registers: set[int] = field(default_factory=set)
    until_s: float = 0.0


class _Answer(ModbusPDU):
    """Tells pymodbus's framing where an answer to a read says how long it is."""

    rtu_byte_count_pos = 2


class _Reads(DecodePDU):
    """Every other function is noise to the framing."""

    pdu_table = dict.fromkeys(READS, (_Answer, _Answer))


class _Repeated(ModbusPDU):
    """Tells it how long the answer to a write is, on a serial line."""

    rtu_frame_size = 1 + REPEATED + 2


class _Writes(DecodePDU):
    """What may come while something is written: reads are late ones, of which the framing must know the length."""

    pdu_table = dict.fromkeys((READ_COILS, *READS), (_Answer, _Answer)) | dict.fromkeys(WRITES, (_Repeated, _Repeated))


class RtuBus(_Connection):
    """A serial port with any number of units."""

    def __init__(self, settings: ModbusRtuLine, mono_s: FineClock, permits: tuple[Permit, ...] = ()) -> None:
        super().__init__(settings.port, settings.timeout_s, mono_s, permits)
        self._settings = settings
        self._silence_s = silence_us(settings.baud) / 1e6
        self._framer = self._reads = FramerRTU(_Reads(False))
        self._writes = FramerRTU(_Writes(False))
        self._question: tuple[int, bytes] | None = None  # None: whatever comes is thrown away
        self._answered_late = False
        self._is_unclear = False  # a refusal came that may be an answer still owed
        self._owed: dict[int, _Owed] = {}

    async def exchange(self, unit: int, question: bytes, wait_ms: int, is_try: bool) -> Outcome:
        """Ask `unit` and return what came of it; raises LineError if the wire is lost.

        wait_ms: how long the device may think before it answers
        is_try: it has been silent all along, so no late answer is expected of it
        """
        _check_read(question)
        if not await self._wait_for_silence():
            return Outcome(None, noise=True)
        if self._could_be_mistaken(unit, question):
            outcome = await self._exchange(unit, self._of_another_length(unit, question), wait_ms, is_try)
            if outcome.answer is None:
                return outcome
            if not await self._wait_for_silence():
                return Outcome(None, noise=True, refused=outcome.refused)
        return await self._exchange(unit, question, wait_ms, is_try)

    async def write(self, unit: int, question: bytes, wait_ms: int) -> Outcome:
        """Do the same with a question that the permits list; raises ConfigError for any other.

        What a late answer could be taken for is the same question once more, and then it is true of that one, too.
        """
        self._check_permitted(unit, question)
        if not await self._wait_for_silence():
            return Outcome(None, noise=True)
        if question[0] in READS and self._could_be_mistaken(unit, question):
            return Outcome(None, noise=True)  # what comes may be what stood there before
        self._framer = self._writes
        try:
            return await self._exchange(unit, question, wait_ms, False)
        finally:
            self._framer = self._reads

    async def _exchange(self, unit: int, question: bytes, wait_ms: int, is_try: bool) -> Outcome:
        wire_s = self._wire_s(question)
        limit_s = (wait_ms + SLACK_MS) / 1000 + wire_s
        self._question, self._buffer = (unit, question), b""
        self._answered_late = self._is_unclear = False
        try:
            self._send(self._framer.encode(question, unit, 0))
            asked_s = self._mono_s()
            begin_s = limit_s - self._answer_s(question) if is_try else limit_s
            answer = await self._answer_within(begin_s)
            if answer is None and is_try and self._heard_s > asked_s:  # a try need not last until the end of an answer
                answer = await self._answer_within(limit_s - begin_s)
            if answer is not None:
                self._owed.pop(unit, None)  # a device answers in turn: what came before this one is lost
                return Outcome(answer, _ms(self._heard_s - asked_s - wire_s), refused=self._take_refused())
            await self._keep_quiet(limit_s, is_try)
            if not self._is_unclear and question[0] in READS:
                self._owe(unit, question)
            noise = self._heard_s > asked_s and not self._answered_late
            took_ms = _ms(self._heard_s - asked_s - wire_s)
            return Outcome(None, took_ms, noise, self._answered_late, self._take_refused())
        finally:
            self._question = None

    def _send(self, frame: bytes) -> None:
        """Put the question on the wire at the first moment that the silence allows.

        Blocking for a millisecond is meant: the event loop would wake up to 1 ms late, which is 2 % of the bus at 9600
        baud and 10 % at 115200; and the transport would write a turn of the loop later.
        """
        port = getattr(self._open_wire().transport, "sync_serial", None)
        if port is None:
            raise LineError(self._why or "the line is not open")
        if (left_s := self._silence_left_s() - SPIN_S) > 0:
            time.sleep(min(COARSE_S, left_s))
        try:
            port.reset_input_buffer()  # what the loop has not seen yet belongs to no question
            while self._silence_left_s() > 0:
                pass
            sent = port.write(frame)
        except (OSError, termios.error):
            sent = 0
        if sent != len(frame):
            self._lose(self._lost_advice())
            raise LineError(self._why)

    def _hear(self, data: bytes) -> None:
        self._heard_s = self._mono_s()
        if self._question is None:
            return
        self._buffer += data
        if len(self._buffer) > MAX_FRAME:
            self._buffer = b""  # a babbler: nothing that long is a frame
        while self._buffer:
            size, unit, _, pdu = self._framer.decode(self._buffer)
            self._buffer = self._buffer[size:]
            if not size or not pdu:
                return
            self._take(unit, pdu)

    def _take(self, unit: int, pdu: bytes) -> None:
        if self._question and unit == self._question[0] and _fits(self._question[1], pdu):
            if pdu[0] & EXCEPTION and pdu[0] & ~EXCEPTION in READS and self._owes(unit):
                self._is_unclear = True
            elif self._answer and not self._answer.done():
                self._answer.set_result(pdu)
                return
            else:
                self._answered_late = True
        self._refused += 1

    def _owe(self, unit: int, question: bytes) -> None:
        """Remember a question without an answer: should it come in the time of a later one, it must be known."""
        if self._answered_late:
            self._owed.pop(unit, None)
            return
        owed = self._owed.setdefault(unit, _Owed())
        owed.registers.add(_registers(question))
        owed.until_s = self._mono_s() + OWED_S

    def _could_be_mistaken(self, unit: int, question: bytes) -> bool:
        """Return whether an answer that `unit` still owes would look like the answer to `question`.

        RTU carries no number of the question. A device that is later than the quiet after a time-out would else give
        each answer in the time of the next question, for ever, every one with a good check value.
        """
        return self._owes(unit) and _registers(question) in self._owed[unit].registers

    def _owes(self, unit: int) -> bool:
        """Return whether an answer of `unit` may still come. Until then a refusal of it is nobody's.

        Refusals all look alike. Nor does one that came renew the debt: a unit that lives and refuses would else be
        owed an answer for ever.
        """
        owed = self._owed.get(unit)
        if owed and self._mono_s() > owed.until_s:
            del self._owed[unit]
        return unit in self._owed

    def _of_another_length(self, unit: int, question: bytes) -> bytes:
        """Return `question` for a number of registers that no answer still owed has: its own answer proves the turn.

        An even number stays even, since some meters refuse an odd one, and a refusal proves nothing.
        """
        count, owed = _registers(question), self._owed[unit].registers
        steps = (sign * step for step in range(2, MOST_REGISTERS) for sign in (1, -1))
        other = next(count + step for step in steps if 1 <= count + step <= MOST_REGISTERS and count + step not in owed)
        return question[:3] + bytes((other >> 8, other & 0xFF))

    async def _keep_quiet(self, limit_s: float, is_try: bool) -> None:
        """After a time-out of `limit_s`, wait as long as the answer may still come, and on while something comes."""
        rest_s = max(QUIET_S, min(limit_s, self._timeout_s - limit_s))
        until_s = self._mono_s() + (TRY_QUIET_S if is_try else rest_s)
        give_up_s = until_s + self._timeout_s
        # What ends this wait is that nothing happens.
        while (left_s := min(give_up_s, max(until_s, self._heard_s + DRAINED_S)) - self._mono_s()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)

    async def _wait_for_silence(self) -> bool:
        """Hold most of the 3.5 characters of silence; the rest is held in `_send`.

        Return False if the line does not fall silent within the longest answer time.
        """
        give_up_s = self._mono_s() + self._timeout_s
        while (left_s := self._silence_left_s()) > COARSE_S:
            if self._mono_s() > give_up_s:
                return False
            await asyncio.sleep(left_s - COARSE_S)
        return True

    def _silence_left_s(self) -> float:
        return self._heard_s + self._silence_s - self._mono_s()

    def _wire_s(self, question: bytes) -> float:
        """Return how long question and answer are on the wire, with the silence between them."""
        sent_us = characters_us(len(question) + 3, self._settings.baud)
        return sent_us / 1e6 + self._silence_s + self._answer_s(question)

    def _answer_s(self, question: bytes) -> float:
        begin, octets = _answer_to(question)
        return characters_us(3 + len(begin) + octets, self._settings.baud) / 1e6

    def _parameters(self) -> CommParams:
        return CommParams(
            comm_name="bega",
            comm_type=CommType.SERIAL,
            reconnect_delay=0.0,
            timeout_connect=self._timeout_s,
            host=self._settings.port,
            baudrate=self._settings.baud,
            bytesize=8,
            parity=self._settings.parity,
            stopbits=self._settings.stop_bits,
        )

    def _lost_advice(self) -> str:
        return f"{self.port} is gone: plug the adapter in again; trying again"

    def _advice(self, error: Exception) -> str:
        settings = self._settings
        how = f"{settings.baud} baud, parity {settings.parity}, {settings.stop_bits} stop bits"
        return port_advice(settings.port, how, error)


def _check_read(question: bytes) -> None:
    if len(question) != 5 or question[0] not in READS:
        raise ConfigError(f"only reads leave the gateway on a Modbus line, not {question.hex()}")


def _fits(question: bytes, pdu: bytes) -> bool:
    """Return whether `pdu` can be the answer to `question`: what was asked for, or a refusal."""
    if pdu[0] == question[0] | EXCEPTION:
        return len(pdu) == 2
    begin, octets = _answer_to(question)
    return len(pdu) == len(begin) + octets and pdu.startswith(begin)


def _answer_to(question: bytes) -> tuple[bytes, int]:
    """Return how the answer to `question` begins, and how many bytes follow that nobody knows before."""
    if question[0] in WRITES:
        return question[:REPEATED], 0
    octets = (_registers(question) + 7) // 8 if question[0] == READ_COILS else 2 * _registers(question)
    return bytes((question[0], octets)), octets


def _give_up(answer: asyncio.Future[bytes | None]) -> None:
    if not answer.done():
        answer.set_result(None)


def _registers(question: bytes) -> int:
    return question[3] << 8 | question[4]


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))
