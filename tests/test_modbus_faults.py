"""Bad input on a Modbus line, each fault by its name: what may be lost is polls, and never is a value wrong.

What to do about each is in docs/runbook-gateway.md.
"""

import asyncio
import contextlib
import itertools
import os
import pty
import struct
import threading
import tty
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bega.clock import mono_ms, mono_s, wall_ms
from bega.devices import load_driver, with_profile
from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.modbus import ModbusLine
from bega_gateway.lines.modbus_bus import RtuBus, TcpBus, bus_of
from bega_gateway.lines.station import Station
from bega_protocols.devices.modbus_meter.sim import Sim
from bega_protocols.errors import LineError
from bega_protocols.modbus_rtu import MAX_FRAME
from bega_protocols.modbus_rtu import frame as rtu_frame
from bega_protocols.modbus_tcp import MAX_LENGTH
from bega_simulators.hosts.rs485 import Rs485Segment
from bega_simulators.hosts.tcp import ModbusTcpServer

SDM630 = with_profile({"profile": "sdm630"})["profile"]
# Nothing is read before the numbers.
BARE = {**SDM630, "identify": None, "settings": [], "attributes": [], "pause_ms": 0}
FIVE = {**BARE, "registers": [row for row in SDM630["registers"] if row["address"] < 10]}
NAMES = [("voltage", "l1"), ("voltage", "l2"), ("voltage", "l3"), ("current", "l1"), ("current", "l2")]
PATIENCE_S = 45
QUESTION = bytes.fromhex("0400000002")
ANSWER = bytes.fromhex("040443668000")
OTHER_QUESTION = bytes.fromhex("0400020002")
OTHER_ANSWER = bytes.fromhex("040443673333")


def meter(unit: int) -> Sim:
    sim = Sim({"profile": SDM630}, seed=1)
    for value, name in enumerate(NAMES, start=10 * unit):
        sim.set(*name, value)
    return sim


class Reader:
    """Takes what the line delivers, and holds every value against the truth."""

    def __init__(self, units: tuple[int, ...], every_s: float) -> None:
        self.right = dict.fromkeys(units, 0)
        self.wrong: list[object] = []
        self.stations = {unit: self._station(unit, every_s) for unit in units}

    async def until_right(self, unit: int, count: int) -> None:
        wanted = self.right[unit] + count
        await until(lambda: self.right[unit] >= wanted)

    def _station(self, unit: int, every_s: float) -> Station:
        async def deliver(groups: list[list[object]], read_ms: int) -> None:
            read = {(r.quantity, r.part): Decimal(r.value).scaleb(r.exp10) for group in groups for r in group}
            if read == {name: Decimal(value) for value, name in enumerate(NAMES, start=10 * unit)}:
                self.right[unit] += 1
            else:
                self.wrong.append((unit, read))

        driver = load_driver("modbus_meter", {"profile": FIVE, "address": unit})
        return Station(f"meter-{unit}", driver, every_s, deliver)


@contextlib.asynccontextmanager
async def polling(line_settings, units=(1, 2), every_s=0.1):
    reader = Reader(units, every_s)
    line = ModbusLine("cellar", line_settings, list(reader.stations.values()), mono_ms, wall_ms)
    task = asyncio.create_task(line.run())
    try:
        yield reader
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert not reader.wrong


@contextlib.asynccontextmanager
async def tcp_server(units=(1, 2)):
    server = ModbusTcpServer({unit: meter(unit) for unit in units})
    server.port = await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def listening(serve):
    """A TCP server that does what `serve(reader, writer)` does."""
    writers = []

    async def keep(reader, writer):
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], writers
    finally:
        for writer in writers:
            writer.close()
        server.close()


def tcp_line(port: int, timeout_s: float = 0.2) -> ModbusTcpLine:
    return ModbusTcpLine(host="127.0.0.1", port=port, timeout_s=timeout_s)


def run(coroutine) -> None:
    async def bounded():
        async with asyncio.timeout(100):
            await coroutine

    asyncio.run(bounded())


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def segment(units=(1, 2), baud=115200, **more) -> Rs485Segment:
    return Rs485Segment({unit: meter(unit) for unit in units}, baud, **more)


@contextlib.contextmanager
def serial_peer(reply):
    """A port whose other end writes what `reply(question)` gives, without the time that a wire takes."""
    master, slave = pty.openpty()
    tty.setraw(slave)

    def serve():
        with contextlib.suppress(OSError):
            while question := os.read(master, 256):
                for chunk in reply(question):
                    os.write(master, chunk)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        os.close(slave)
        thread.join(2)
        os.close(master)


# A device that answers for another.


def test_device_that_answers_for_another_on_a_serial_line_gives_no_value():
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.1)) as reader:
            await reader.until_right(2, 3)
            assert reader.right[1] == 0
            assert reader.stations[1].counters.refused >= 1

    with segment() as wire:
        wire.impersonate(1, 2)
        run(main())


def test_device_that_answers_for_another_over_tcp_gives_no_value():
    async def main():
        async with tcp_server() as server, polling(tcp_line(server.port)) as reader:
            await reader.until_right(1, 2)
            server.faults.add("wrong unit")
            await asyncio.sleep(0.5)
            before = dict(reader.right)
            await asyncio.sleep(0.5)
            assert reader.right == before
            assert sum(station.counters.refused for station in reader.stations.values()) >= 1

    run(main())


# Check values that are wrong, without end.


def test_flood_of_frames_with_wrong_check_values_gives_no_value_and_is_over_when_it_is_over():
    def reply(question):
        if flooding:
            return [b"\x01" + ANSWER + b"\xde\xad"] * 50
        octets = 2 * (question[4] << 8 | question[5])  # another length than before proves that it is the turn's answer
        return [rtu_frame(1, bytes((4, octets)) + ANSWER[2:] * (octets // 4))]

    async def main():
        nonlocal flooding
        bus = RtuBus(ModbusRtuLine(port=port, baud=115200, timeout_s=0.1), mono_s)
        await bus.open()
        for _ in range(5):
            outcome = await bus.exchange(1, QUESTION, 20, is_try=False)
            assert outcome.answer is None
            assert outcome.noise
            assert len(bus._buffer) <= MAX_FRAME
        flooding = False
        outcomes = [await bus.exchange(1, QUESTION, 200, is_try=False) for _ in range(3)]
        assert outcomes[-1].answer == ANSWER
        assert all(outcome.answer in (None, ANSWER) for outcome in outcomes)
        bus.close()

    flooding = True
    with serial_peer(reply) as port:
        run(main())


@given(chunks=st.lists(st.binary(max_size=300), max_size=12))
@settings(deadline=None)
def test_noise_of_any_kind_on_a_serial_line_is_never_an_answer_and_takes_no_memory(chunks):
    bus = RtuBus(ModbusRtuLine(port="none"), mono_s)
    bus._question = (1, QUESTION)
    taken = []
    bus._take = lambda unit, pdu: taken.append((unit, pdu))
    for chunk in chunks:
        bus._hear(chunk)
        assert len(bus._buffer) <= MAX_FRAME
    assert all(rtu_frame(unit, pdu) in b"".join(chunks) for unit, pdu in taken), "only what has its check value"


# Frames cut anywhere.


def test_serial_answer_cut_at_any_place_gives_nothing_and_the_next_one_is_right():
    whole = rtu_frame(1, ANSWER)
    cut = 0

    def reply(question):
        is_first = question[1:6] == QUESTION
        return [whole[:cut]] if is_first else [rtu_frame(1, OTHER_ANSWER[:1] + b"\x08" + b"\x43\x66\x80\x00" * 2)]

    async def main():
        nonlocal cut
        bus = RtuBus(ModbusRtuLine(port=port, baud=115200, timeout_s=0.1), mono_s)
        await bus.open()
        for cut in range(len(whole)):
            outcome = await bus.exchange(1, QUESTION, 5, is_try=True)
            assert outcome.answer is None
            assert outcome.noise == (cut > 0)
            outcome = await bus.exchange(1, bytes.fromhex("0400000004"), 300, is_try=False)
            assert outcome.answer == bytes.fromhex("0408") + b"\x43\x66\x80\x00" * 2, cut
        bus.close()

    with serial_peer(reply) as port:
        run(main())


def test_serial_answer_that_comes_in_two_pieces_is_read_wherever_it_is_parted():
    whole = rtu_frame(1, ANSWER)
    cut = 0

    async def main():
        nonlocal cut
        bus = RtuBus(ModbusRtuLine(port=port, baud=115200), mono_s)
        await bus.open()
        while (cut := cut + 1) < len(whole):
            assert (await bus.exchange(1, QUESTION, 500, is_try=False)).answer == ANSWER
        bus.close()

    with serial_peer(lambda question: [whole[:cut], whole[cut:]]) as port:
        run(main())


def hearing(bus: TcpBus, question: bytes) -> "asyncio.Future[bytes | None]":
    """Let `bus` wait for the answer to `question`, number 7 to unit 1, without a connection."""
    bus._number, bus._unit, bus._question = 7, 1, question
    bus._head = bytes((0, 7, 0, 0, 0, 7, 1, 4, 4))
    bus._size = 13
    bus._answer = asyncio.get_running_loop().create_future()
    return bus._answer


@given(cuts=st.lists(st.integers(0, 39), max_size=5), number=st.sampled_from([6, 7]), unit=st.sampled_from([1, 2]))
@settings(deadline=None)
def test_tcp_answer_is_read_wherever_it_is_cut_and_only_if_it_is_the_one(cuts, number, unit):
    """Frames of others before and behind it, and the stream cut anywhere."""

    async def main():
        bus = TcpBus(tcp_line(502), mono_s)
        answer = hearing(bus, QUESTION)
        stranger = struct.pack(">HHHB", 9, 0, 7, 1) + OTHER_ANSWER
        stream = stranger + struct.pack(">HHHB", number, 0, 7, unit) + ANSWER + stranger
        places = [0, *sorted(cuts), len(stream)]
        for start, end in itertools.pairwise(places):
            if start < end:
                bus._hear(stream[start:end])
        assert (answer.done() and answer.result() == ANSWER) == (number == 7 and unit == 1)
        assert bus._buffer == b""

    run(main())


@pytest.mark.parametrize("cut", range(13))
def test_tcp_answer_cut_at_any_place_ends_the_connection_and_gives_nothing(cut):
    async def main():
        async def serve(reader, writer):
            header = await reader.readexactly(12)
            writer.write((header[:4] + b"\0\x07\x01" + ANSWER)[:cut])
            await reader.read()

        async with listening(serve) as (port, _):
            bus = bus_of(tcp_line(port, timeout_s=1.0), mono_s)
            await bus.open()
            if cut:
                with pytest.raises(LineError, match="in the middle of an answer"):
                    await bus.exchange(1, QUESTION, 5, is_try=True)
            else:
                assert (await bus.exchange(1, QUESTION, 5, is_try=True)).answer is None
            bus.close()

    run(main())


# A server that accepts and says nothing.


def test_tcp_server_that_accepts_and_says_nothing_is_connected_to_anew_and_polls_are_not_queued():
    async def main():
        async with listening(lambda reader, writer: reader.read()) as (port, writers):
            async with polling(tcp_line(port, 0.1), every_s=0.02) as reader:
                await until(lambda: len(writers) >= 2)
            counters = reader.stations[1].counters
            assert counters.records == 0
            assert counters.silent >= 1
            assert counters.asked <= 20

    run(main())


# Garbage without end.


@pytest.mark.parametrize("kind", ["no header", "frames that nobody asked for"])
def test_tcp_server_that_sends_garbage_without_end_is_left_and_costs_no_memory(kind, caplog):
    sent = 0
    unit = b"\xa5" * 4096 if kind == "no header" else (struct.pack(">HHHB", 60000, 0, 7, 1) + ANSWER) * 300

    async def main():
        async def serve(reader, writer):
            nonlocal sent
            while True:
                writer.write(unit)
                await writer.drain()
                sent += len(unit)

        async with listening(serve) as (port, writers), polling(tcp_line(port), every_s=0.05):
            await asyncio.sleep(2.5)
            assert 1 <= len(writers) <= 4, "tried again with a growing pause"
            assert sent <= len(writers) * 8_000_000, "what the sockets hold, and not more"

    run(main())
    said = [record.getMessage() for record in caplog.records if "line down" in record.getMessage()]
    assert len(said) == 1
    assert ("what is no Modbus TCP" if kind == "no header" else "nobody asked for") in said[0]


@given(chunks=st.lists(st.binary(max_size=400), max_size=12))
@settings(deadline=None)
def test_garbage_of_any_kind_over_tcp_is_never_an_answer_and_takes_no_memory(chunks):
    async def main():
        bus = TcpBus(tcp_line(502), mono_s)
        answer = hearing(bus, QUESTION)
        for chunk in chunks:
            bus._hear(chunk)
            assert len(bus._buffer) <= 6 + MAX_LENGTH
        if answer.done() and not answer.exception():
            assert ANSWER[:2] in b"".join(chunks)

    run(main())


# A connection that ends in the middle.


def test_tcp_server_that_closes_in_the_middle_of_an_answer_is_connected_to_anew():
    async def main():
        async with tcp_server() as server:
            server.faults.add("cut")
            async with polling(tcp_line(server.port, timeout_s=5 * PATIENCE_S)) as reader:
                await until(lambda: server.questions >= 1)
                server.faults.clear()  # and the loss is noticed at once, not after the time-out
                await reader.until_right(1, 3)
                await reader.until_right(2, 3)

    run(main())


# Answers given twice.


def test_answers_given_twice_over_tcp_count_once():
    async def main():
        async with tcp_server() as server:
            server.faults.add("twice")
            async with polling(tcp_line(server.port), every_s=0.02) as reader:
                await reader.until_right(1, 20)
                counters = reader.stations[1].counters
                assert counters.records <= counters.asked
                assert counters.refused >= 10

    run(main())


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.003, 0.01])
def test_answers_given_twice_on_a_serial_line_count_once_and_give_no_wrong_value(after_s):
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.1), every_s=0.03) as reader:
            await reader.until_right(2, 6)
            counters = reader.stations[1].counters
            assert counters.records <= counters.asked

    with segment() as wire:
        wire.double(1, after_s)
        wire.double(2, after_s)
        run(main())


# A dead unit behind a converter that waits for it.


@pytest.mark.parametrize("faults", [set(), {"says no path"}], ids=["says nothing", "says no path"])
def test_dead_unit_behind_a_converter_leaves_its_neighbours_their_values_and_is_read_when_it_returns(
    faults, monkeypatch
):
    """The converter answers nobody while it waits: a question to another unit must not count as its silence."""
    monkeypatch.setattr("bega_gateway.lines.polling.PAUSES_MS", (500, 4000, 4000, 4000))
    monkeypatch.setattr("bega_gateway.lines.polling.PAUSE_TO_COST", 1)

    async def main():
        async with (
            tcp_server((1, 2, 3)) as server,
            polling(tcp_line(server.port, timeout_s=2.0), (1, 2, 3), every_s=0.2) as reader,
        ):
            await reader.until_right(2, 3)
            server.sims[2].faults.add("silent")
            server.silence_s = 0.6
            server.faults |= faults
            await asyncio.sleep(1)
            asked = reader.stations[2].counters.asked
            await asyncio.sleep(3)
            assert reader.stations[2].counters.asked - asked <= 2, "a converter's late excuse is no sign of life"
            for unit in (1, 3):
                assert reader.stations[unit].counters.silent == 0
                await reader.until_right(unit, 5)
            server.sims[2].faults.discard("silent")
            await reader.until_right(2, 3)

    run(main())
