"""One Modbus wire, RTU or TCP: pymodbus speaks, our bus discipline around it.

Spec: MODBUS over Serial Line V1.02, section 2.5.1; MODBUS Messaging on TCP/IP
V1.0b. What pymodbus leaves open is kept here: 3.5 characters of silence before
each question; only the answer to the question in hand is let through; no
retries, and quiet on the line after a time-out, so that a late answer never
becomes another register's value.

Nothing but reads (function codes 3 and 4) leaves the gateway on these lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import termios
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException
from pymodbus.framer.base import FramerBase
from pymodbus.framer.rtu import FramerRTU
from pymodbus.framer.socket import FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU

from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.advice import host_advice, port_advice
from bega_gateway.lines.polling import SLACK_MS
from bega_protocols.errors import ConfigError, LineError
from bega_protocols.modbus_rtu import EXCEPTION, READS, characters_us, silence_us

Client = AsyncModbusSerialClient | AsyncModbusTcpClient

QUIET_S = 0.1  # after a time-out the line rests at least so long
TRY_QUIET_S = 0.05  # and so long after a try of a unit that has been silent all along
DRAINED_S = 0.05  # nothing more comes when nothing came for so long: a USB adapter hands bytes over every 16 ms
COARSE_S = 0.0012  # epoll wakes up to 1 ms late: what is shorter than this is slept exactly
OWED_S = 30.0  # a device that takes longer than this has forgotten the question
MOST_REGISTERS = 125  # MODBUS Application Protocol V1.1b3, section 6.3
UNANSWERED_LIMIT = 3  # so many silences in a row from a whole TCP server, and the connection is made anew


class Outcome(NamedTuple):
    """What came of one question."""

    answer: bytes | None  # PDU
    took_ms: int = 0  # how long the device thought before its answer, in time or late
    noise: bool = False  # there was no answer, and the line was not silent
    is_late: bool = False  # the answer came while the line was kept quiet, and was thrown away
    refused: int = 0  # whole frames that were no answer to this question


@dataclass
class _Owed:
    """Questions to one unit that were never answered: how many registers they asked for, and until when it matters."""

    registers: set[int] = field(default_factory=set)
    until_s: float = 0.0


class Bus:
    """A serial port or a TCP connection, with one question on it at a time."""

    def __init__(self, settings: ModbusRtuLine | ModbusTcpLine) -> None:
        self._settings = settings
        self._baud = settings.baud if isinstance(settings, ModbusRtuLine) else None
        self._silence_s = silence_us(self._baud) / 1e6 if self._baud else 0.0
        self._framer: _OnlyTheAnswer = _RtuAnswer() if self._baud else _TcpAnswer()
        self._client: Client | None = None
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
        self._why = ""  # it was lost; empty where that is no trouble
        self._unanswered = 0
        self._owed: dict[int, _Owed] = {}
        self.opened = asyncio.Event()

    @property
    def port(self) -> str:
        """What the operator calls this wire."""
        if isinstance(self._settings, ModbusRtuLine):
            return self._settings.port
        return f"{self._settings.host}:{self._settings.port}"

    async def open(self) -> None:
        """Open the port or connect; raises LineError that says what to do."""
        # pymodbus tells every time-out as an error; here they are counters, and a line is down or back once.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._lost.clear()
        self._why = ""
        self._unanswered = 0
        client = self._new_client()
        client.ctx.framer = self._framer
        client.set_max_no_responses(1_000_000)  # when to connect anew is decided here
        try:
            # What client.connect() does, without swallowing the reason why it cannot.
            async with asyncio.timeout(self._settings.timeout_s):
                client.ctx.transport, _ = await client.ctx.call_create()
        except (OSError, ValueError, TimeoutError, termios.error) as error:
            raise LineError(_advice(self._settings, error)) from None
        self._client = client
        self._framer.heard_s = asyncio.get_running_loop().time()
        self.opened.set()

    def close(self) -> None:
        """Close; does nothing if it is closed."""
        self.opened.clear()
        if self._client:
            client, self._client = self._client, None
            client.close()

    async def stands_for(self, for_s: float) -> bool:
        """Return whether the connection still stands after `for_s`."""
        try:
            async with asyncio.timeout(for_s):
                await self._lost.wait()
        except TimeoutError:
            return True
        return False

    async def until_lost(self) -> None:
        """Wait for the end of the connection; raises LineError unless it was ended to make it anew."""
        await self._lost.wait()
        self.close()
        if self._why:
            raise LineError(self._why)

    async def exchange(self, unit: int, question: bytes, wait_ms: int, is_try: bool) -> Outcome:
        """Ask `unit` and return what came of it; raises LineError if the wire is lost.

        wait_ms: how long the device may think before it answers
        is_try: it has been silent all along, so no late answer is expected of it
        """
        if len(question) != 5 or question[0] not in READS:
            raise ConfigError(f"only reads leave the gateway on a Modbus line, not {question.hex()}")
        async with self._turn:
            if not await self._wait_for_silence():
                return Outcome(None, noise=True)
            if self._could_be_mistaken(unit, question):
                outcome = await self._exchange(unit, self._of_another_length(unit, question), wait_ms, is_try)
                if outcome.answer is None:
                    return outcome
                if not await self._wait_for_silence():
                    return Outcome(None, noise=True, refused=outcome.refused)
            outcome = await self._exchange(unit, question, wait_ms, is_try)
        self._unanswered = 0 if outcome.answer is not None or outcome.is_late else self._unanswered + 1
        if self._baud is None and self._unanswered >= UNANSWERED_LIMIT:
            self._lose("")  # a server that restarted may have forgotten the connection without a word
        return outcome

    async def _exchange(self, unit: int, question: bytes, wait_ms: int, is_try: bool) -> Outcome:
        client = self._open_client()
        framer = self._framer
        wire_s = self._wire_s(question)
        limit_s = (wait_ms + SLACK_MS) / 1000 + wire_s
        client.ctx.comm_params.timeout_connect = limit_s
        asked_s = asyncio.get_running_loop().time()
        framer.expect(unit, question)
        try:
            answer = await client.execute(False, _Question(unit, question))
            _heed_cancellation()
            self._owed.pop(unit, None)  # a device answers in turn: what came before this one is lost
            return Outcome(answer.pdu, _ms(framer.heard_s - asked_s - wire_s), refused=framer.refused)
        except ModbusIOException:
            _heed_cancellation()
            framer.give_up()
            self._check_in_step(client)
            await self._keep_quiet(limit_s, is_try)
            self._owe(unit, question)
            noise = framer.heard_s > asked_s and not framer.answered_late
            took_ms = _ms(framer.heard_s - asked_s - wire_s)
            return Outcome(None, took_ms, noise, framer.answered_late, framer.refused)
        except ConnectionException:
            raise LineError(self._why) from None
        finally:
            framer.expect_nothing()

    def _owe(self, unit: int, question: bytes) -> None:
        """Remember a question without an answer: should it come in the time of a later one, it must be known."""
        if self._baud is None:
            return  # on TCP each answer carries the number of its question
        if self._framer.answered_late:
            self._owed.pop(unit, None)
            return
        owed = self._owed.setdefault(unit, _Owed())
        owed.registers.add(_registers(question))
        owed.until_s = asyncio.get_running_loop().time() + OWED_S

    def _could_be_mistaken(self, unit: int, question: bytes) -> bool:
        """Return whether an answer that `unit` still owes would look like the answer to `question`.

        RTU carries no number of the question. A device that is later than the quiet after a time-out would else give
        each answer in the time of the next question, for ever, every one with a good check value.
        """
        owed = self._owed.get(unit)
        if owed is None:
            return False
        if asyncio.get_running_loop().time() > owed.until_s:
            del self._owed[unit]
            return False
        return _registers(question) in owed.registers

    def _of_another_length(self, unit: int, question: bytes) -> bytes:
        """Return `question` for a number of registers that no answer still owed has: its own answer proves the turn.

        An even number stays even, since some meters refuse an odd one; a refusal is an answer too.
        """
        count, owed = _registers(question), self._owed[unit].registers
        steps = (sign * step for step in range(2, MOST_REGISTERS) for sign in (1, -1))
        other = next(count + step for step in steps if 1 <= count + step <= MOST_REGISTERS and count + step not in owed)
        return question[:3] + bytes((other >> 8, other & 0xFF))

    def _check_in_step(self, client: Client) -> None:
        """Half an answer, or what is no header: on TCP nothing marks where the next one begins."""
        if self._baud is None and client.ctx.recv_buffer:
            self._lose(f"{self.port} sends what is no Modbus TCP: is `port` right? trying again")
            raise LineError(self._why)

    async def _keep_quiet(self, limit_s: float, is_try: bool) -> None:
        """After a time-out of `limit_s`, wait as long as the answer may still come, and on while something comes."""
        loop = asyncio.get_running_loop()
        rest_s = max(QUIET_S, min(limit_s, self._settings.timeout_s - limit_s))
        until_s = loop.time() + (TRY_QUIET_S if is_try else rest_s)
        give_up_s = until_s + self._settings.timeout_s
        # What ends this wait is that nothing happens.
        while (left_s := min(give_up_s, max(until_s, self._framer.heard_s + DRAINED_S)) - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)

    async def _wait_for_silence(self) -> bool:
        """Hold most of the 3.5 characters of silence; the rest is held in `_about_to_send`.

        Return False if the line does not fall silent within the longest answer time.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + self._settings.timeout_s
        while (left_s := self._silence_left_s()) > COARSE_S:
            if loop.time() > give_up_s:
                return False
            await asyncio.sleep(left_s - COARSE_S)
        return True

    def _about_to_send(self, sending: bool, packet: bytes) -> bytes:
        """Called by pymodbus with what it sends and receives: the last moment before a question.

        Blocking is meant: the event loop would wake up to 1 ms late, which is 2 % of the bus at 9600 baud.
        """
        if sending and self._baud is not None:
            time.sleep(min(COARSE_S, max(0.0, self._silence_left_s())))
            self._forget_input()
        return packet

    def _silence_left_s(self) -> float:
        return self._framer.heard_s + self._silence_s - asyncio.get_running_loop().time()

    def _forget_input(self) -> None:
        """Drop what the port holds and the event loop has not seen yet: it belongs to no question."""
        port = getattr(self._open_client().ctx.transport, "sync_serial", None)
        if port is not None:
            with contextlib.suppress(OSError, termios.error):  # the loss is noticed by whoever reads
                port.reset_input_buffer()

    def _wire_s(self, question: bytes) -> float:
        """Return how long question and answer are on the wire, with the silence between them."""
        if self._baud is None:
            return 0.0
        return characters_us(8 + 5 + 2 * _registers(question), self._baud) / 1e6 + self._silence_s

    def _new_client(self) -> Client:
        settings = self._settings
        if isinstance(settings, ModbusTcpLine):
            return AsyncModbusTcpClient(
                settings.host,
                port=settings.port,
                retries=0,
                reconnect_delay=0,
                trace_connect=self._connection_changed,
            )
        return AsyncModbusSerialClient(
            settings.port,
            baudrate=settings.baud,
            parity=settings.parity,
            stopbits=settings.stop_bits,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._about_to_send,
            trace_connect=self._connection_changed,
        )

    def _open_client(self) -> Client:
        if self._client is None or not self._client.connected:
            raise LineError(self._why or "the line is not open")
        return self._client

    def _connection_changed(self, connected: bool) -> None:
        """Called by pymodbus."""
        if not connected:
            self._lose(_lost_advice(self._settings))

    def _lose(self, why: str) -> None:
        """The connection is over: whoever waits for an answer hears of it at once."""
        if self._lost.is_set():
            return
        self._why = why
        self.opened.clear()
        self._lost.set()
        if self._client and self._framer.is_waiting and not self._client.ctx.response_future.done():
            self._client.ctx.response_future.set_exception(ConnectionException("the connection ended"))


def _heed_cancellation() -> None:
    """Before Python 3.12 `asyncio.wait_for`, which pymodbus awaits in, loses a cancellation that meets an answer."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


def _registers(question: bytes) -> int:
    return question[3] << 8 | question[4]


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))


class _Question(ModbusPDU):
    """A question as the driver wrote it."""

    def __init__(self, unit: int, question: bytes) -> None:
        super().__init__(dev_id=unit)
        self.function_code = question[0]
        self._rest = question[1:]

    def encode(self) -> bytes:
        return self._rest


class _Answer(ModbusPDU):
    """An answer as it came."""

    rtu_byte_count_pos = 2

    def __init__(self, unit: int, transaction: int, pdu: bytes) -> None:
        super().__init__(dev_id=unit, transaction_id=transaction)
        self.function_code = pdu[0]
        self.pdu = pdu


class _Reads(DecodePDU):
    """Tells pymodbus's framing how long an answer to a read is; every other function is noise to it."""

    pdu_table = dict.fromkeys(READS, (_Answer, _Answer))


class _OnlyTheAnswer(FramerBase):
    """pymodbus's framing, which lets nothing through but the answer to the question in hand."""

    def __init__(self) -> None:
        super().__init__(_Reads(False))
        self._question: tuple[int, bytes] | None = None
        self._given_up = False
        self.heard_s = 0.0  # by the event loop's clock: when the last bytes came
        self.refused = 0  # whole frames since the question that were no answer to it
        self.answered_late = False

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is awaited."""
        return self._question is not None and not self._given_up

    def expect(self, unit: int, question: bytes) -> None:
        """From now on the answer to `question` is awaited."""
        self._question = (unit, question)
        self._given_up = self.answered_late = False
        self.refused = 0

    def give_up(self) -> None:
        """The answer is not awaited any more; if it comes, it is known for what it is and refused."""
        self._given_up = True

    def expect_nothing(self) -> None:
        """Whatever comes now is thrown away."""
        self._question = None

    def handleFrame(self, data: bytes, exp_devid: int, exp_tid: int) -> tuple[int, ModbusPDU | None]:
        """Return (bytes done with, the answer or None); pymodbus calls it with all that came and was not done with."""
        self.heard_s = asyncio.get_running_loop().time()
        if self._question is None:
            return len(data), None
        done = 0
        while done < len(data):
            size, unit, transaction, pdu = self.decode(data[done:])
            done += size
            if not size or not pdu:
                break
            if self._fits(unit, transaction, pdu, exp_tid):
                if not self._given_up:
                    return done, _Answer(unit, transaction, pdu)
                self.answered_late = True
            self.refused += 1
        return done, None

    def _fits(self, unit: int, transaction: int, pdu: bytes, expected_transaction: int) -> bool:
        assert self._question
        expected_unit, question = self._question
        if unit != expected_unit or transaction != expected_transaction:
            return False
        if pdu[0] == question[0] | EXCEPTION:
            return len(pdu) == 2
        registers = question[3] << 8 | question[4]
        return pdu[0] == question[0] and len(pdu) == 2 + 2 * registers and pdu[1] == 2 * registers


class _RtuAnswer(_OnlyTheAnswer, FramerRTU):
    pass


class _TcpAnswer(_OnlyTheAnswer, FramerSocket):
    pass


def _lost_advice(settings: ModbusRtuLine | ModbusTcpLine) -> str:
    if isinstance(settings, ModbusRtuLine):
        return f"{settings.port} is gone: plug the adapter in again; trying again"
    return (
        f"{settings.host} ended the connection: does it take only one, and does another program have it? trying again"
    )


def _advice(settings: ModbusRtuLine | ModbusTcpLine, error: Exception) -> str:
    """Return what happened and what to do, in a sentence."""
    if isinstance(settings, ModbusTcpLine):
        return host_advice(settings.host, settings.port, error)
    how = f"{settings.baud} baud, parity {settings.parity}, {settings.stop_bits} stop bits"
    return port_advice(settings.port, how, error)
