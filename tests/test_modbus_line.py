"""The gateway's Modbus line against slaves on a wire that keeps time, against TCP servers, and against pymodbus."""

import asyncio
import contextlib
import errno
import logging
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
import tty
from decimal import Decimal

import pytest
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer
from pymodbus.server import ModbusTcpServer as PymodbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from bega.clock import mono_ms, mono_s, wall_ms
from bega.devices import load_driver, with_profile
from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines import modbus_bus
from bega_gateway.lines.modbus import ModbusLine
from bega_gateway.lines.modbus_bus import bus_of
from bega_gateway.lines.station import Station
from bega_protocols.devices.modbus_meter.sim import Sim
from bega_protocols.errors import ConfigError, LineError
from bega_simulators.hosts.rs485 import Rs485Segment
from bega_simulators.hosts.tcp import ModbusTcpServer
from tests.conftest import IS_NIGHT

SDM630 = with_profile({"profile": "sdm630"})["profile"]
# Five voltages and currents in one question, 33 bytes on the wire: a bus that has time for several a second.
# Nothing is read before the numbers.
BARE = {**SDM630, "identify": None, "settings": [], "attributes": [], "pause_ms": 0}
FIVE = {**BARE, "registers": [row for row in SDM630["registers"] if row["address"] < 10]}
PATIENCE_S = 45  # what a test waits for something that takes a moment, on a busy machine


def meter(unit: int) -> Sim:
    """Return an SDM630 whose five numbers tell which unit it is."""
    sim = Sim({"profile": SDM630}, seed=1)
    for value, (quantity, part) in enumerate(truth(unit), start=10 * unit):
        sim.set(quantity, part, value)
    return sim


def truth(unit: int) -> dict[tuple[str, str], Decimal]:
    names = [("voltage", "l1"), ("voltage", "l2"), ("voltage", "l3"), ("current", "l1"), ("current", "l2")]
    return {name: Decimal(value) for value, name in enumerate(names, start=10 * unit)}


class Desk:
    """Takes what the line delivers, and holds every value against the truth."""

    def __init__(self, units: tuple[int, ...], every_s: float, profile: dict[str, object]) -> None:
        self.units = units
        self.right = dict.fromkeys(units, 0)
        self.wrong: list[object] = []
        self.times_ms: list[int] = []
        self.stations = {
            unit: Station(f"meter-{unit}", self._driver(unit, profile), every_s, self._take(unit)) for unit in units
        }

    def counters(self, unit: int) -> object:
        return self.stations[unit].counters

    async def until_right(self, unit: int, count: int, for_s: float = PATIENCE_S) -> None:
        """Wait until `unit` has delivered `count` more records."""
        wanted = self.right[unit] + count
        await until(lambda: self.right[unit] >= wanted, for_s)

    def _driver(self, unit: int, profile: dict[str, object]) -> object:
        return load_driver("modbus_meter", {"profile": profile, "address": unit})

    def _take(self, unit: int) -> object:
        async def deliver(groups: list[list[object]], read_ms: int) -> None:
            self.times_ms.append(read_ms)
            read = {(r.quantity, r.part): Decimal(r.value).scaleb(r.exp10) for group in groups for r in group}
            if read == truth(unit):
                self.right[unit] += 1
            else:
                self.wrong.append((unit, read))

        return deliver


@contextlib.asynccontextmanager
async def polling(settings, units=(1,), every_s=0.2, profile=FIVE, clock=wall_ms):
    """Run a line as the gateway runs it, for as long as the block."""
    desk = Desk(units, every_s, profile)
    line = ModbusLine("cellar", settings, list(desk.stations.values()), mono_ms, clock)
    task = asyncio.create_task(line.run())
    try:
        yield desk
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert not desk.wrong


def segment(units=(1, 2, 3), baud=115200, **more) -> Rs485Segment:
    return Rs485Segment({unit: meter(unit) for unit in units}, baud, **more)


def run(coroutine) -> None:
    async def bounded():
        async with asyncio.timeout(100):
            await coroutine

    asyncio.run(bounded())


async def until(condition, for_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(for_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# A bus.


@pytest.fixture
def patient(monkeypatch):
    """Meters that live in this process are as late as a busy machine lets it run, and that is not what is asked."""
    monkeypatch.setattr("bega_gateway.lines.polling.SHORTEST_WAIT_MS", 20_000)
    return {"timeout_s": 20}


@pytest.mark.parametrize("baud", [9600, 19200])
def test_three_meters_that_frame_by_silence_lose_no_poll(baud, patient):
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=baud, **patient), (1, 2, 3), every_s=0.4) as desk:
            await asyncio.sleep(3)
            await until(lambda: min(desk.right.values()) >= 4)
        counts = wire.take_counts()
        assert counts.collisions == counts.glued == 0
        assert min(counts.master_gaps_s) >= wire.silence_s
        assert counts.functions == {4}
        for unit in desk.units:
            counters = desk.counters(unit)
            assert counters.silent == counters.damaged == counters.refused == 0
            assert counters.asked - desk.right[unit] in (0, 1)  # one may be in hand

    with segment(baud=baud) as wire:
        run(main())


def test_bare_client_is_not_understood_by_the_same_meters():
    """Why there is a gate: pymodbus alone keeps no silence, and slaves that frame by it miss the question."""

    async def main():
        client = AsyncModbusSerialClient(wire.port, baudrate=9600, timeout=0.2, retries=0)
        assert await client.connect()
        lost = 0
        for number in range(60):  # on a busy machine the bare client is sometimes slow enough to be understood
            try:
                await client.read_input_registers(0, count=10, device_id=1 + number % 3)
            except Exception:
                lost += 1
            if lost >= 2:
                break
        client.close()
        assert lost >= 2
        assert wire.take_counts().glued >= 1

    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    with segment(baud=9600) as wire:
        run(main())


def test_bus_that_is_asked_too_much_leaves_polls_out_and_counts_them():
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=19200), (1, 2, 3), every_s=0.02) as desk:
            await desk.until_right(1, 5)
            await desk.until_right(3, 5)
        assert all(desk.counters(unit).skipped > desk.right[unit] for unit in desk.units)

    with segment(baud=19200) as wire:
        run(main())


def test_dead_meter_is_tried_rarely_and_read_again_when_it_returns(monkeypatch):
    """The same with real pauses, and with the neighbours counted, is the nightly test below."""
    monkeypatch.setattr("bega_gateway.lines.polling.PAUSES_MS", (100, 200, 400, 650))
    monkeypatch.setattr("bega_gateway.lines.polling.PAUSE_TO_COST", 1)

    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.2), (1, 2, 3), 0.05) as desk:
            await desk.until_right(2, 2)
            wire.silent(2)
            await asyncio.sleep(1)
            wire.take_counts()
            before = desk.counters(2).silent
            await desk.until_right(1, 20)
            await desk.until_right(3, 20)
            assert wire.take_counts().questions.get(2, 0) <= 6
            assert desk.counters(2).silent > before or desk.counters(2).silent >= 3
            wire.silent(2, False)
            await desk.until_right(2, 3)

    with segment() as wire:
        run(main())


TEN = tuple(range(1, 11))
at_night = pytest.mark.skipif(not IS_NIGHT, reason="up to a minute and a half of waiting: make nightly PART=engine")


async def dead_one_of_ten(settings, every_s, die, live):
    """Real time, real pauses: unit 4 is dead for 40 s, then is read again; the others go on.

    They are held against what they gave before, and loosely, since a busy machine costs polls too. The two per cent
    are held in virtual time (test_modbus_polling.py), by day too, and measured by `bega bench dead-unit`.
    """
    alive_s, dead_s = 15, 40
    others = [unit for unit in TEN if unit != 4]
    async with polling(settings, TEN, every_s) as desk:
        for unit in TEN:
            await desk.until_right(unit, 2)
        before = dict(desk.right)
        await asyncio.sleep(alive_s)
        usual = sum(desk.right[unit] - before[unit] for unit in others) / alive_s
        die()
        await asyncio.sleep(2)  # the polls that find out are not those that a dead meter costs
        before = dict(desk.right)
        await asyncio.sleep(dead_s)
        got = sum(desk.right[unit] - before[unit] for unit in others)
        assert got >= 0.7 * min(usual, len(others) / every_s) * dead_s
        assert desk.right[4] == before[4]
        live()
        await desk.until_right(4, 1, for_s=30)


@at_night
def test_dead_meter_of_ten_on_a_nearly_full_bus_does_not_stop_the_others_and_is_read_again():
    async def main():
        settings = ModbusRtuLine(port=wire.port, baud=19200)
        await dead_one_of_ten(settings, 0.26, lambda: wire.silent(4), lambda: wire.silent(4, False))

    with segment(TEN, baud=19200) as wire:
        run(main())


@at_night
@pytest.mark.parametrize("silence_s", [0.0, 0.4])
def test_dead_meter_of_ten_behind_a_converter_does_not_stop_the_others_and_is_read_again(silence_s):
    async def main():
        async with tcp_server(TEN) as server:
            faults = server.sims[4].faults
            server.silence_s = silence_s
            server.faults |= {"says no path"} if silence_s else set()
            server.late_s = 0.02  # nine live units keep it busy for 0.2 s of each 0.25
            settings = tcp_line(server, timeout_s=2.0)
            await dead_one_of_ten(settings, 0.25, lambda: faults.add("silent"), lambda: faults.discard("silent"))

    run(main())


async def ask_a_late_meter(wire, bus, late_s, count, unit):
    """Return (right, wrong, refused) over questions at changing addresses, all with answers of one length."""
    wire.late(unit, late_s)
    right = wrong = refused = 0
    values = [struct.pack(">f", float(value)) for value in truth(unit).values()]
    for number in range(count):
        which = number % len(values)
        outcome = await bus.exchange(unit, struct.pack(">BHH", 4, 2 * which, 2), wait_ms=50, is_try=False)
        right += outcome.answer == b"\x04\x04" + values[which]
        wrong += outcome.answer is not None and outcome.answer != b"\x04\x04" + values[which]
        refused += outcome.refused
    return right, wrong, refused


async def late_answers(wire, count, then):
    """Ask a meter `count` times that is slower than the time-out, `then` as quick; return how many were right then."""
    bus = bus_of(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.05), mono_s)
    await bus.open()
    slower_s = (50 + modbus_bus.SLACK_MS) / 1000 + 0.02
    right, wrong, refused = await ask_a_late_meter(wire, bus, slower_s, count, unit=1)
    assert wrong == 0
    assert right <= 0.1 * count
    assert refused >= 0.9 * count  # they were heard, and known for what they are
    right, wrong, _ = await ask_a_late_meter(wire, bus, 0.05, then, unit=1)
    assert wrong == 0
    bus.close()
    return right


def test_late_answer_never_becomes_another_registers_value():
    async def main():
        assert await late_answers(wire, 12, 30) >= 9  # that it is read again; how often, the nightly one says

    with segment() as wire:
        run(main())


def test_answer_that_comes_in_the_time_of_the_next_question_is_not_taken_for_its_answer():
    """Three times as late as the line waits and rests: without a number of the question, only its length can tell."""

    async def main():
        bus = bus_of(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.05), mono_s)
        await bus.open()
        right, wrong, refused = await ask_a_late_meter(wire, bus, 0.3, 12, unit=1)
        assert (right, wrong) == (0, 0)
        assert refused >= 3
        wire.late(1, 0.0)
        await asyncio.sleep(0.5)
        right, wrong, _ = await ask_a_late_meter(wire, bus, 0.0, 20, unit=1)
        assert (right, wrong) == (20, 0)
        bus.close()

    with segment() as wire:
        run(main())


@at_night
def test_late_answers_over_two_hundred_questions_are_never_wrong():
    async def main():
        right = await asyncio.gather(*(late_answers(wire, 50, 50) for wire in wires))
        assert sum(right) >= 0.95 * 200, "once the meter is as quick as the time-out"

    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(segment((1,))) for _ in range(4)]
        run(main())


def test_slow_meter_is_not_a_dead_one_and_is_read_once_it_is_quick_enough():
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.1), (1, 2), 0.1) as desk:
            await desk.until_right(1, 2)
            wire.late(1, 0.1 + modbus_bus.SLACK_MS / 1000 + 0.02)
            refused = desk.counters(1).refused
            await until(lambda: desk.counters(1).refused >= refused + 5)
            wire.late(1, 0.08)
            silent = desk.counters(1).silent
            await desk.until_right(1, 10)
            assert desk.counters(1).silent - silent <= 1

    with segment((1, 2)) as wire:
        run(main())


@pytest.mark.parametrize("fault", ["bit errors", "jam", "drop"])
def test_noise_costs_polls_and_never_gives_a_wrong_value(fault):
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.1), (1, 2, 3), 0.05) as desk:
            await desk.until_right(1, 3)
            if fault == "bit errors":
                wire.bit_errors(1e-3)
            elif fault == "jam":
                wire.jam(1.0)
            else:
                for unit in desk.units:
                    wire.drop(unit, 0.3)
            await asyncio.sleep(2.5)
            lost = sum(desk.counters(unit).damaged + desk.counters(unit).silent for unit in desk.units)
            assert lost, "the fault did nothing"
            wire.bit_errors(0)
            for unit in desk.units:
                wire.drop(unit, 0)
            await desk.until_right(1, 3)

    with segment(seed=7) as wire:
        run(main())


def test_answer_lost_by_chance_does_not_cost_the_reading_of_a_long_period():
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.1), (1,), every_s=3600) as desk:
            await until(lambda: wire.counts.questions.get(1))
            wire.drop(1, 0)
            await desk.until_right(1, 1)
            assert (desk.counters(1).silent, desk.counters(1).asked) == (1, 2)

    with segment((1,)) as wire:
        wire.drop(1, 1)
        run(main())


def test_meter_that_answers_for_another_is_refused():
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, timeout_s=0.1), (1, 2), 0.1) as desk:
            await desk.until_right(2, 3)
            assert desk.right[1] == 0
            assert desk.counters(1).refused >= 2

    with segment((1, 2)) as wire:
        wire.impersonate(1, 2)
        run(main())


def test_meter_that_refuses_is_counted_and_the_others_are_read(patient):
    async def main():
        async with polling(ModbusRtuLine(port=wire.port, baud=115200, **patient), (1, 2), 0.1) as desk:
            await desk.until_right(2, 3)
            assert desk.right[1] == 0
            assert desk.counters(1).damaged >= 2
            assert desk.counters(1).silent == 0

    with segment((1, 2)) as wire:
        wire.sims[1].faults.add("busy")
        run(main())


def test_line_ends_when_it_is_cancelled_in_the_moment_an_answer_arrives(monkeypatch):
    """Python 3.11's wait_for forgets such a cancellation, so nothing here waits in it."""
    hear = modbus_bus.RtuBus._take
    tasks = []

    def hear_and_cancel(bus, *arguments):
        hear(bus, *arguments)
        tasks[0].cancel()

    async def main():
        bus = bus_of(ModbusRtuLine(port=wire.port, baud=115200), mono_s)
        await bus.open()
        tasks.append(asyncio.create_task(bus.exchange(1, bytes.fromhex("0400000002"), 500, False)))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        bus.close()

    monkeypatch.setattr(modbus_bus.RtuBus, "_take", hear_and_cancel)
    with segment() as wire:
        run(main())


def test_whole_sdm630_is_one_record_stamped_when_its_first_answer_came():
    async def main():
        delivered = []
        driver = load_driver("modbus_meter", {"profile": "sdm630", "address": 1})

        async def deliver(groups, read_ms):
            delivered.append((len(groups), len(groups[0]), read_ms))

        station = Station("meter", driver, 60.0, deliver)
        settings = ModbusRtuLine(port=wire.port, baud=19200)
        task = asyncio.create_task(
            ModbusLine("l", settings, [station], mono_ms, lambda: 1000 * station.counters.asked).run()
        )
        await until(lambda: delivered)
        task.cancel()
        assert delivered == [(1, 53, 1000)]  # this clock counts questions: the record is as old as the first answer
        assert station.counters.asked == 13  # four signs of its model, two settings, three texts, four blocks

    with segment((1,), baud=19200) as wire:
        run(main())


def test_port_that_vanishes_and_returns_is_said_once_and_read_again(tmp_path, caplog):
    caplog.set_level(logging.INFO, "bega_gateway")

    async def main():
        async with polling(ModbusRtuLine(port=str(tmp_path / "rs485"), timeout_s=0.2), (1,), 0.1) as desk:
            await desk.until_right(1, 2)
            wire.unplug()
            await asyncio.sleep(1.5)
            wire.open()
            await desk.until_right(1, 2)
            await asyncio.sleep(1.2)

    with segment((1,), baud=9600, link=tmp_path / "rs485") as wire:
        run(main())
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("line ")]
    assert [message.split(" line=")[0] for message in said] == ["line down", "line back"]
    assert "plug the adapter in" in said[0]


def test_port_that_is_missing_is_said_once_with_what_to_do(tmp_path, caplog):
    async def main():
        async with polling(ModbusRtuLine(port=str(tmp_path / "none"))):
            await asyncio.sleep(1.3)

    run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is not there: plug the adapter in" in caplog.text


def test_port_in_use_is_said_with_who_to_ask():
    async def main():
        settings = ModbusRtuLine(port=wire.port)
        first, second = bus_of(settings, mono_s), bus_of(settings, mono_s)
        await first.open()
        with pytest.raises(LineError, match="in use by another program"):
            await second.open()
        first.close()

    with segment() as wire:
        run(main())


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "group dialout"),
        (termios.error(22, "Invalid argument"), "does not take 9600 baud, parity E"),
        (OSError(errno.ENOMEM, "no memory"), "no memory"),
    ],
)
def test_port_that_cannot_be_opened_is_said_with_what_to_do(error, advice, monkeypatch):
    async def main():
        monkeypatch.setattr("serial.serial_for_url", failing)
        with pytest.raises(LineError, match=advice):
            await bus_of(ModbusRtuLine(port="/dev/ttyS9", parity="E"), mono_s).open()

    def failing(*_, **__):
        raise error

    run(main())


@pytest.mark.parametrize("question", ["0600010001", "100001000102abcd", "04", "", "0f00000001", "030000000001"])
def test_nothing_but_reads_leaves_the_gateway(question):
    async def main():
        bus = bus_of(ModbusRtuLine(port=wire.port), mono_s)
        await bus.open()
        with pytest.raises(ConfigError, match="only reads"):
            await bus.exchange(1, bytes.fromhex(question), 100, False)
        bus.close()

    with segment() as wire:
        run(main())
        assert not wire.take_counts().busy_s


def test_driver_that_wants_to_write_stops_the_line():
    class Writer:
        damaged = ()

        def measure(self, now_ms):
            from bega_protocols.ask import Ask

            yield Ask(bytes.fromhex("0600010001"), 100, 5, unit=1)

    async def main():
        station = Station("writer", Writer(), 1.0, None)
        with pytest.raises(ConfigError, match="only reads"):
            await ModbusLine("l", ModbusRtuLine(port=wire.port), [station], mono_ms, wall_ms).run()

    with segment() as wire:
        run(main())


# TCP.


@contextlib.asynccontextmanager
async def tcp_server(units=(1, 2, 3)):
    server = ModbusTcpServer({unit: meter(unit) for unit in units})
    server.port = await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.stop()


def tcp_line(server, timeout_s=0.3) -> ModbusTcpLine:
    return ModbusTcpLine(host="127.0.0.1", port=server.port, timeout_s=timeout_s)


def test_meters_behind_one_tcp_connection_are_read():
    async def main():
        async with tcp_server() as server, polling(tcp_line(server), (1, 2, 3), 0.1) as desk:
            for unit in desk.units:
                await desk.until_right(unit, 3)
            assert server.functions == {4}

    run(main())


def test_server_that_refuses_is_said_once_and_read_when_it_comes(caplog):
    caplog.set_level(logging.INFO, "bega_gateway")

    async def main():
        async with tcp_server() as server:
            port = server.port
            await server.stop()
            async with polling(tcp_line(server), (1,), 0.1) as desk:
                await asyncio.sleep(1.3)
                await server.start("127.0.0.1", port)
                await desk.until_right(1, 2)
                await asyncio.sleep(1.2)

    run(main())
    said = [record.getMessage() for record in caplog.records]
    assert [message.split(" line=")[0] for message in said] == ["line down", "line back"]
    assert "is Modbus TCP switched on there" in said[0]


def test_connection_closed_in_the_middle_of_an_answer_gives_nothing_and_is_made_anew():
    async def main():
        async with tcp_server() as server:
            server.faults.add("cut")
            async with polling(tcp_line(server, timeout_s=10 * PATIENCE_S), (1,), 0.1) as desk:
                await until(lambda: server.questions)
                server.faults.clear()  # and the loss is noticed at once, not after the time-out
                await desk.until_right(1, 3)

    run(main())


@pytest.mark.parametrize("fault", ["wrong transaction", "wrong unit", "noise"])
def test_answer_that_is_not_to_this_question_is_refused(fault, caplog):
    async def main():
        async with tcp_server() as server, polling(tcp_line(server, 0.1), (1, 2), 0.1) as desk:
            await desk.until_right(1, 2)
            server.faults.add(fault)
            await asyncio.sleep(1.0)
            before = dict(desk.right)
            await asyncio.sleep(0.5)
            assert desk.right == before
            if fault != "noise":
                assert desk.counters(1).refused + desk.counters(2).refused >= 1
            server.faults.clear()
            await desk.until_right(1, 2)
        assert ("sends what is no Modbus TCP" in caplog.text) == (fault == "noise")

    run(main())


def test_late_answer_over_tcp_is_refused_by_its_number():
    async def main():
        async with tcp_server() as server, polling(tcp_line(server, 0.1), (1,), 0.1) as desk:
            await desk.until_right(1, 2)
            server.late_s = 0.17
            await until(lambda: desk.counters(1).refused >= 3)
            server.late_s = 0.0
            await desk.until_right(1, 3)

    run(main())


def test_silent_server_is_connected_to_anew():
    """A server that restarted may have forgotten the connection without a word: nothing would ever come."""

    async def main():
        connections = []

        async def forget(reader, writer):
            connections.append(writer)
            await reader.read()

        server = await asyncio.start_server(forget, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with polling(ModbusTcpLine(host="127.0.0.1", port=port, timeout_s=0.1), (1, 2, 3), 0.1):
            await until(lambda: len(connections) >= 2)
        for writer in connections:
            writer.close()
        server.close()

    run(main())


def test_unit_that_a_converter_cannot_reach_is_tried_rarely(monkeypatch):
    """The converter answers at once, but it waits for the unit itself: asking in every period would starve the bus."""

    async def main():
        async with tcp_server((1,)) as server, polling(tcp_line(server), (1, 9), 0.05) as desk:
            await desk.until_right(1, 20)
            assert desk.counters(9).asked <= 4
            assert desk.counters(9).silent >= 1

    run(main())


@pytest.mark.parametrize(
    ("host", "advice"),
    [("no-such-host.invalid", "nobody knows the name"), ("127.0.0.1", "refuses")],
)
def test_host_that_cannot_be_reached_is_said_with_what_to_do(host, advice):
    async def main():
        with pytest.raises(LineError, match=advice):
            await bus_of(ModbusTcpLine(host=host, port=1, timeout_s=5.0), mono_s).open()

    run(main())


def test_pymodbus_is_not_loaded_before_a_modbus_line_is_configured():
    script = "import sys, bega_gateway.app; sys.exit('pymodbus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


# The oracle: pymodbus's own server and client.


def pymodbus_meter(unit: int) -> SimDevice:
    values = [float(value) for value in truth(unit).values()]
    return SimDevice(id=unit, simdata=[SimData(0, values=values, datatype=DataType.FLOAT32)])


def test_pymodbus_server_is_read_over_tcp():
    async def main():
        server = PymodbusTcpServer([pymodbus_meter(1), pymodbus_meter(2)], address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        port = server.transport.sockets[0].getsockname()[1]
        async with polling(ModbusTcpLine(host="127.0.0.1", port=port), (1, 2), 0.1) as desk:
            await desk.until_right(1, 3)
            await desk.until_right(2, 3)
        await server.shutdown()

    run(main())


@contextlib.contextmanager
def null_modem():
    """Two serial ports whose wires are crossed."""
    masters, slaves = zip(*(pty.openpty() for _ in range(2)), strict=True)
    for slave in slaves:
        tty.setraw(slave)
    stop = threading.Event()

    def carry():
        while not stop.is_set():
            for ready in select.select(masters, (), (), 0.05)[0]:
                os.write(masters[1 - masters.index(ready)], os.read(ready, 4096))

    thread = threading.Thread(target=carry)
    thread.start()
    try:
        yield [os.ttyname(slave) for slave in slaves]
    finally:
        stop.set()
        thread.join()
        for descriptor in (*masters, *slaves):
            os.close(descriptor)


def test_pymodbus_server_is_read_over_a_serial_line():
    async def main():
        server = ModbusSerialServer([pymodbus_meter(1)], framer=FramerType.RTU, port=far, baudrate=19200)
        await server.serve_forever(background=True)
        async with polling(ModbusRtuLine(port=near, baud=19200), (1,), 0.1) as desk:
            await desk.until_right(1, 3)
        await server.shutdown()

    with null_modem() as (near, far):
        run(main())


def test_our_simulators_are_read_by_pymodbus():
    async def main():
        async with tcp_server() as server:
            over_tcp = AsyncModbusTcpClient("127.0.0.1", port=server.port)
            over_serial = AsyncModbusSerialClient(wire.port, baudrate=19200)
            for client in (over_tcp, over_serial):
                assert await client.connect()
                answer = await client.read_input_registers(0, count=10, device_id=2)
                numbers = client.convert_from_registers(answer.registers, client.DATATYPE.FLOAT32)
                assert [Decimal(number) for number in numbers] == list(truth(2).values())
                await asyncio.sleep(0.05)
                assert (await client.read_input_registers(1, count=10, device_id=2)).exception_code == 2
                await asyncio.sleep(0.05)
                assert (await client.read_coils(0, count=2, device_id=2)).exception_code == 1
                client.close()

    with segment(baud=19200) as wire:
        run(main())
