"""One measurement on a Modbus line: what time its record has, how it ends early, and what a reload leaves of it."""

import asyncio
import contextlib
import logging

import pytest

from bega.clock import mono_ms, mono_s, wall_ms
from bega.devices import load_driver
from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.modbus import ModbusLine
from bega_gateway.lines.modbus_bus import Outcome, RtuBus
from bega_gateway.lines.station import Station
from bega_protocols.devices.modbus_meter.driver import Driver as ModbusMeter
from bega_protocols.errors import LineError
from bega_protocols.modbus_rtu import frame

WALL_MS = 1_800_000_000_000
STEP_MS = 20  # one exchange
NO_PATH = bytes((0x83, 0x0B))
SILENT = None
TCP, RTU = ModbusTcpLine(host="none"), ModbusRtuLine(port="/none")


class ScriptedBus:
    """A bus in virtual time whose answers are given: 230 in each register, a refusal, SILENT, or an error."""

    port = "script"

    def __init__(self, answers):
        self.opened = asyncio.Event()
        self.answers = iter(answers)
        self.now_ms = 0
        self.asked = []

    def close(self):
        pass

    async def open(self):
        self.opened.set()

    async def until_lost(self):
        await asyncio.Event().wait()

    async def exchange(self, unit, question, wait_ms, is_try):
        self.now_ms += STEP_MS
        self.asked.append((self.now_ms, unit))
        answer = next(self.answers, SILENT)
        if isinstance(answer, LineError):
            raise answer
        await asyncio.sleep(0)
        if answer == 230:
            answer = bytes((question[0], 2, 0, 230))
        return Outcome(answer, 10)


async def records(settings, blocks, answers, end_ms=60_000):
    """Poll a device of `blocks` requests until virtual `end_ms`; return [(stamped, readings)], bus and station."""
    taken = []

    async def deliver(groups, read_ms):
        taken.append((read_ms - WALL_MS, sum(map(len, groups))))

    tags = [{"address": 200 * number, "quantity": "voltage", "part": f"l{number}"} for number in range(1, blocks + 1)]
    station = Station("m", load_driver("modbus_meter", {"tags": tags, "address": 1}), 3600.0, deliver)
    bus = ScriptedBus(answers)
    line = ModbusLine("x", settings, [station], lambda: bus.now_ms, lambda: WALL_MS + bus.now_ms)
    line._bus = bus

    async def sleep(wake_ms, now_ms):
        bus.now_ms = max(now_ms, wake_ms)
        if bus.now_ms > end_ms:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    line._sleep_until = sleep
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await line.run()
    return taken, bus, station


@pytest.mark.parametrize("settings", [TCP, RTU], ids=["tcp", "rtu"])
def test_converter_that_says_silence_ends_the_measurement_and_makes_no_value_newer(settings):
    taken, bus, station = asyncio.run(records(settings, 6, [230] + [NO_PATH] * 100))
    assert taken[0] == (STEP_MS, 1)
    assert station.counters.silent == len(bus.asked) - 1
    assert station.counters.damaged == 0


@pytest.mark.parametrize("settings", [TCP, RTU], ids=["tcp", "rtu"])
def test_record_has_the_time_of_its_first_values(settings):
    taken, bus, _ = asyncio.run(records(settings, 4, [SILENT, 230, 230, 230, 230]))
    assert taken == [(bus.asked[1][0], 4)]


@pytest.mark.parametrize("settings", [TCP, RTU], ids=["tcp", "rtu"])
def test_block_that_is_lost_by_chance_is_asked_for_once_more_and_a_second_one_ends_the_measurement(settings):
    taken, bus, _ = asyncio.run(records(settings, 4, [230, SILENT, 230, SILENT, 230, 230], end_ms=10_000))
    assert taken[0] == (STEP_MS, 2)
    assert bus.asked[3][0] - bus.asked[0][0] < 3_000


def test_measurement_that_stands_still_for_long_ends_with_what_it_has():
    slow = ModbusRtuLine(port="/none", timeout_s=10.0)
    taken, _, _ = asyncio.run(records(slow, 2, [230, SILENT, 230], end_ms=30_000))
    assert taken == [(STEP_MS, 1)]


def test_what_was_read_before_the_line_was_lost_is_handed_on():
    taken, _, _ = asyncio.run(records(TCP, 3, [230, LineError("gone")], end_ms=1_000))
    assert taken == [(STEP_MS, 1)]


def test_measurement_is_told_a_time_that_nobody_can_set(monkeypatch):
    told_ms = []
    measure = ModbusMeter.measure
    monkeypatch.setattr(
        ModbusMeter, "measure", lambda driver, now_ms: told_ms.append(now_ms) or measure(driver, now_ms)
    )
    asyncio.run(records(TCP, 1, [230], end_ms=3_600_000))
    assert told_ms
    assert max(told_ms) < WALL_MS


# How the device is set.


def test_wrong_setting_is_said_once_with_what_to_do_and_once_more_when_it_is_right(caplog):
    caplog.set_level(logging.WARNING, "bega_gateway")
    table = {"part": "x", "maker": "x", "document": "x", "function": 3, "type": "uint16", "max_registers": 9}
    table["registers"] = [{"address": 0, "quantity": "voltage"}]
    table["settings"] = [{"name": "prefix", "address": 9, "must_be": [0], "otherwise": "set menu 7 to 0"}]
    delivered = []

    async def deliver(groups, read_ms):
        delivered.extend(groups)

    def said(number):
        return bytes((3, 2, 0, number))

    station = Station("m", load_driver("modbus_meter", {"profile": table, "address": 1}), 60.0, deliver)
    bus = ScriptedBus([said(1), said(230), said(1), said(230), said(0), said(230)])
    line = ModbusLine("x", TCP, [station], lambda: bus.now_ms, lambda: WALL_MS + bus.now_ms)
    line._bus = bus

    async def sleep(wake_ms, now_ms):
        bus.now_ms = max(now_ms, wake_ms)
        if bus.now_ms > 200_000:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    line._sleep_until = sleep

    async def main():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await line.run()

    asyncio.run(main())
    words = [record.getMessage() for record in caplog.records]
    assert words == [
        "device set wrongly line=x device=m advice=prefix is 1: set menu 7 to 0",
        "device set wrongly line=x device=m advice=none: it is right now",
    ]
    assert [group[0].value for group in delivered] == [230]
    assert station.counters.damaged == 1


# The end of a line.


class LiveBus(ScriptedBus):
    """The same in real time."""

    is_handing_on = False

    async def exchange(self, unit, question, wait_ms, is_try):
        await asyncio.sleep(0.02)
        return await super().exchange(unit, question, wait_ms, is_try)


async def finished(answers, until, hand_on_s=0.0):
    """Run a line of two blocks until `until(bus)`, finish it, and return (readings delivered, how long that took)."""
    taken = []

    async def deliver(groups, read_ms):
        line._bus.is_handing_on = True
        await asyncio.sleep(hand_on_s)
        taken.extend(len(group) for group in groups)

    tags = [{"address": 200 * number, "quantity": "voltage", "part": f"l{number}"} for number in (1, 2)]
    station = Station("m", load_driver("modbus_meter", {"tags": tags, "address": 1}), 60.0, deliver)
    line = ModbusLine("x", RTU, [station], mono_ms, wall_ms)
    line._bus = LiveBus(answers)
    task = asyncio.create_task(line.run())
    async with asyncio.timeout(10):
        while not until(line._bus):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    began_s = mono_s()
    async with asyncio.timeout(10):
        await line.finish()
    took_s = mono_s() - began_s
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return taken, took_s


def test_finish_waits_for_what_is_being_handed_on():
    async def main():
        taken, _ = await finished([230, 230], lambda bus: bus.is_handing_on, hand_on_s=0.3)
        assert taken == [2]

    asyncio.run(main())


@pytest.mark.parametrize(("answers", "left"), [([SILENT], []), ([230, SILENT], [1])], ids=["nothing", "one block"])
def test_finish_does_not_wait_for_a_unit_that_was_silent_and_hands_on_what_is_there(answers, left):
    """The next question would be put two time-outs later, and nothing is on the wire until then."""

    async def main():
        taken, took_s = await finished(answers, lambda bus: len(bus.asked) == len(answers))
        assert taken == left
        assert took_s < 2 * RTU.timeout_s

    asyncio.run(main())


# A refusal that may be an answer still owed.


def test_refusal_that_comes_late_never_proves_whose_turn_it_is():
    """A slave behind a modem that buffers: each answer comes one question late. It refuses all but single registers."""
    values = {200: 1111, 300: 2222, 400: 3333}  # 100 is a hole
    pending = []

    class Port:
        def reset_input_buffer(self):
            pass

        def write(self, sent):
            first, count = sent[2] << 8 | sent[3], sent[4] << 8 | sent[5]
            is_refused = count > 1 or first not in values
            pdu = bytes((0x83, 2)) if is_refused else bytes((3, 2)) + values[first].to_bytes(2, "big")
            pending.append(frame(sent[0], pdu))
            if len(pending) > 1:
                asyncio.get_running_loop().call_later(0.01, bus._hear, pending.pop(0))
            return len(sent)

    class Wire:
        class transport:
            sync_serial = Port()

    async def main():
        for first in (100, 100, 200, 300, 400):
            outcome = await bus.exchange(1, bytes((3, first >> 8, first & 0xFF, 0, 1)), 50, is_try=False)
            assert outcome.answer in (None, bytes((3, 2)) + values.get(first, 0).to_bytes(2, "big"))
        debt = bus._owed[1].until_s
        await bus.exchange(1, bytes((3, 1, 144, 0, 1)), 50, is_try=False)
        assert bus._owed[1].until_s == debt, "a device that lives and refuses is heard again when the debt is over"

    bus = RtuBus(ModbusRtuLine(port="/none", timeout_s=0.1), mono_s)
    bus._wire = Wire()
    asyncio.run(main())


# A try of a unit that has been silent.


def serial_bus(pieces):
    """Return a bus at 1200 baud without a port, on which each question is answered by `pieces`: [(after s, bytes)]."""

    class Port:
        def reset_input_buffer(self):
            pass

        def write(self, sent):
            for after_s, piece in pieces:
                asyncio.get_running_loop().call_later(after_s, bus._hear, piece)
            return len(sent)

    class Wire:
        class transport:
            sync_serial = Port()

    bus = RtuBus(ModbusRtuLine(port="/none", baud=1200), mono_s)
    bus._wire = Wire()
    return bus


LONG_QUESTION = bytes((3, 0, 0, 0, 60))  # its answer takes 1.1 s on this wire
LONG_ANSWER = bytes((3, 120)) + bytes(120)


def test_try_that_is_not_answered_does_not_wait_for_the_end_of_an_answer(monkeypatch):
    limits_s = []

    async def nothing(bus, limit_s):
        limits_s.append(limit_s)

    async def main():
        for is_try in (True, False):
            await serial_bus([]).exchange(1, LONG_QUESTION, 100, is_try)
        assert len(limits_s) == 2
        assert limits_s[1] - limits_s[0] == pytest.approx(125 * 11 / 1200, rel=0.01)

    monkeypatch.setattr(RtuBus, "_answer_within", nothing)
    asyncio.run(main())


def test_try_whose_answer_has_begun_waits_for_its_end():
    async def main():
        whole = frame(1, LONG_ANSWER)
        outcome = await serial_bus([(0.02, whole[:9]), (0.6, whole[9:])]).exchange(1, LONG_QUESTION, 100, is_try=True)
        assert outcome.answer == LONG_ANSWER

    asyncio.run(main())


# Down and back.


def test_line_that_only_takes_connections_is_not_back_and_is_tried_ever_more_rarely(caplog, monkeypatch):
    """It sends garbage a moment after each connection is made."""
    monkeypatch.setattr("bega_gateway.lines.modbus.FIRST_PAUSE_S", 0.1)
    caplog.set_level(logging.INFO, "bega_gateway")
    connections = []

    async def serve(reader, writer):
        connections.append(mono_s())
        await asyncio.sleep(1.2)
        writer.write(b"\xa5" * 64)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        settings = ModbusTcpLine(host="127.0.0.1", port=server.sockets[0].getsockname()[1], timeout_s=5.0)
        driver = load_driver("modbus_meter", {"profile": "sdm630", "address": 1})
        line = ModbusLine("x", settings, [Station("m", driver, 1.0, None)], mono_ms, wall_ms)
        task = asyncio.create_task(line.run())
        async with asyncio.timeout(20):
            while len(connections) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert line._pause_s == pytest.approx(0.4)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        server.close()

    asyncio.run(main())
    said = [record.getMessage().split(" line=")[0] for record in caplog.records if record.name.startswith("bega")]
    assert said == ["line down"]
