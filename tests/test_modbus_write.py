"""What commands may write on a Modbus line, byte by byte, and that nothing else leaves the gateway."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bega.clock import mono_ms, mono_s, wall_ms
from bega.devices import load_driver, with_profile
from bega_gateway.config import ModbusRtuLine, ModbusTcpLine
from bega_gateway.lines.errand import DOWN, LATE, Done
from bega_gateway.lines.modbus import ModbusLine
from bega_gateway.lines.modbus_bus import bus_of
from bega_gateway.lines.modbus_write import Permit, is_permitted, problems, question_of, raw_of, value_of, writes_of
from bega_gateway.lines.station import Station
from bega_protocols.devices.modbus_meter.sim import Sim
from bega_protocols.errors import ConfigError
from bega_simulators.hosts.rs485 import Rs485Segment
from bega_simulators.hosts.tcp import ModbusTcpServer

SETPOINT = {"function": 6, "address": 100, "type": "int16", "scale": -1, "least": 5, "most": 30}
RELAY = {"function": 5, "address": 3, "type": "bool"}
LIMIT = {"function": 16, "address": 40, "type": "uint32", "words": "low first", "least": 0, "most": 100_000}
PUMP = {"function": 15, "address": 19, "type": "bool"}
TABLES = {"setpoint": SETPOINT, "relay": RELAY, "limit": LIMIT, "pump": PUMP}
WRITES = writes_of(TABLES)
UNIT = 7
PERMITS = tuple(Permit(UNIT, write) for write in WRITES.values())


class Controller:
    """A meter that takes writes, typed from MODBUS Application Protocol V1.1b3, section 6."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.coils: dict[int, int] = {}
        self.registers: dict[int, int] = {}
        self.written: list[bytes] = []
        self._meter = Sim({"profile": with_profile({"profile": "sdm630"})["profile"]}, seed=1)

    def answer(self, request: bytes) -> bytes | None:
        function, where = request[0], int.from_bytes(request[1:3], "big")
        if function == 1:
            return bytes((1, 1, self.coils.get(where, 0)))
        if function == 3 and where in (40, 100):
            count = int.from_bytes(request[3:5], "big")
            words = [self.registers.get(where + index, 0).to_bytes(2, "big") for index in range(count)]
            return bytes((3, 2 * count)) + b"".join(words)
        if function not in (5, 6, 15, 16):
            return self._meter.answer(request)
        if "refuses" in self.faults:
            return bytes((function | 0x80, 2))
        self.written.append(request)
        if "forgets" not in self.faults:
            self._keep(function, where, request)
        if "converter gives up" in self.faults:
            return bytes((function | 0x80, 0x0B))
        if "silent at writes" in self.faults:
            return None
        return request[:5]

    def _keep(self, function: int, where: int, request: bytes) -> None:
        if function == 5:
            self.coils[where] = int(request[3:5] == b"\xff\x00")
        elif function == 15:
            self.coils[where] = request[6] & 1
        elif function == 6:
            self.registers[where] = int.from_bytes(request[3:5], "big")
        else:
            for index in range(request[5] // 2):
                self.registers[where + index] = int.from_bytes(request[6 + 2 * index : 8 + 2 * index], "big")


@pytest.mark.parametrize(
    ("name", "value", "pdu"),
    [
        # sections 6.5 and 6.6, worked out by hand for these addresses
        ("relay", True, "050003ff00"),
        ("relay", False, "0500030000"),
        ("setpoint", "21.5", "06006400d7"),
        ("setpoint", 30, "060064012c"),
        ("limit", 70_000, "10002800020411700001"),
        ("pump", True, "0f001300010101"),
    ],
)
def test_a_value_becomes_the_bytes_that_the_standard_says(name, value, pdu):
    write = WRITES[name]
    assert question_of(write, raw_of(write, value)).hex() == pdu


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("setpoint", "30.1", "from 5 to 30"),
        ("setpoint", 4, "from 5 to 30"),
        ("setpoint", "21.55", "no whole multiple of 0.1"),
        ("setpoint", "warm", "no number"),
        ("setpoint", "1/0", "no number"),
        ("setpoint", "43/2", "no number"),
        ("setpoint", "1e999999999", "no number"),
        ("setpoint", "٢١", "no number"),
        ("setpoint", "2_1", "no number"),
        ("setpoint", True, "must be a number"),
        ("relay", 2, "true or false"),
        ("relay", "on", "true or false"),
        ("limit", -1, "from 0 to 100000"),
    ],
)
def test_a_value_that_the_table_does_not_allow_is_refused_in_words(name, value, why):
    with pytest.raises(ValueError, match=why):
        raw_of(WRITES[name], value)


@given(raw=st.integers(50, 300))
def test_a_value_is_called_what_was_asked_for(raw):
    said = value_of(WRITES["setpoint"], raw)
    assert raw_of(WRITES["setpoint"], said) == raw


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"function": 3}, "function"),
        ({"type": "bool"}, "type"),
        ({"type": "uint32"}, "type"),
        ({"least": 31}, "least"),
        ({"most": 5000}, "most"),
        ({"least": 5.05}, "least"),
        ({"least": float("nan")}, "least"),
        ({"most": float("inf")}, "most"),
        ({"scale": 0.1}, "scale"),
        ({"address": 70_000}, "address"),
        ({"unit": 3}, "unit"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_at_its_place(change, place):
    assert [where for where, _ in problems("w", {**SETPOINT, **change})] == [f"w.{place}"]


def test_who_may_write_must_be_told_how_far():
    bare = {key: value for key, value in SETPOINT.items() if key not in ("least", "most")}
    assert [where for where, _ in problems("w", bare)] == ["w.least", "w.most"]
    assert not list(problems("w", RELAY))


@given(
    question=st.binary(max_size=20)
    | st.builds(bytes, st.lists(st.sampled_from(b"\x05\x06\x0f\x10\x00\x01\x03\xff\x64")))
)
def test_only_what_a_table_writes_is_permitted(question):
    """Held against a list of every question that the tables can make."""
    allowed = {question_of(WRITES["relay"], raw) for raw in (0, 1)} | {
        question_of(WRITES["pump"], raw) for raw in (0, 1)
    }
    allowed |= {question_of(WRITES["setpoint"], raw) for raw in range(50, 301)}
    reads = {bytes.fromhex(text) for text in ("0100030001", "0100130001", "0300640001", "0300280002")}
    is_limit = question[:6].hex() == "100028000204" and len(question) == 10
    count = int.from_bytes(question[8:10] + question[6:8], "big")
    expected = question in allowed | reads or (is_limit and count <= 100_000)
    assert is_permitted(PERMITS, UNIT, question) == expected
    assert not is_permitted(PERMITS, UNIT + 1, question)
    assert not is_permitted((), UNIT, question)


@pytest.mark.parametrize("kind", ["rtu", "tcp"])
@pytest.mark.parametrize("question", ["0600640032", "060064ffff", "0500040000", "0300000002", "2b0e0100", ""])
def test_nothing_that_no_table_lists_leaves_a_bus(kind, question):
    settings = ModbusRtuLine(port="/dev/null") if kind == "rtu" else ModbusTcpLine(host="localhost")
    permits = PERMITS if question != "0600640032" else ()
    bus = bus_of(settings, mono_s, permits=permits)
    with pytest.raises(ConfigError, match="nothing permits"):
        asyncio.run(bus.write(UNIT, bytes.fromhex(question), 100))
    if question[:2] not in ("03", ""):
        with pytest.raises(ConfigError, match="only reads"):
            asyncio.run(bus.exchange(UNIT, bytes.fromhex(question), 100, False))


class Writing:
    """A line with one controller, that is polled all the while."""

    def __init__(self, settings: ModbusRtuLine | ModbusTcpLine) -> None:
        self.records = 0
        profile = with_profile({"profile": "sdm630"})["profile"]
        bare = {**profile, "identify": None, "settings": [], "attributes": [], "pause_ms": 0}
        bare["registers"] = [row for row in profile["registers"] if row["address"] < 10]
        self.station = Station("c", load_driver("modbus_meter", {"profile": bare, "address": UNIT}), 0.2, self._take)
        self.line = ModbusLine("l", settings, [self.station], mono_ms, wall_ms, permits=PERMITS)

    async def write(self, name: str, value: object) -> Done:
        write = WRITES[name]
        async with asyncio.timeout(10):
            return await self.line.write(self.station, UNIT, write, raw_of(write, value))

    async def _take(self, groups: list, wall_ms: int) -> None:
        self.records += len(groups)


@contextlib.asynccontextmanager
async def wired(kind: str):
    """Give (a line that is polled, the controller on it)."""
    controller = Controller()
    async with contextlib.AsyncExitStack() as stack:
        if kind == "tcp":
            server = ModbusTcpServer({UNIT: controller})
            settings = ModbusTcpLine(host="127.0.0.1", port=await server.start(), timeout_s=0.5)
            stack.push_async_callback(server.stop)
        else:
            segment = stack.enter_context(Rs485Segment({UNIT: controller}, baud=19200))
            settings = ModbusRtuLine(port=segment.port, baud=19200, timeout_s=0.5)
        writing = Writing(settings)
        running = asyncio.create_task(writing.line.run())
        try:
            await until(lambda: writing.records)
            yield writing, controller
        finally:
            running.cancel()
            await asyncio.wait([running])


BOTH = pytest.mark.parametrize("kind", ["rtu", "tcp"])


async def until(holds, for_s: float = 15) -> None:
    async with asyncio.timeout(for_s):
        while not holds():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)


@BOTH
def test_what_is_written_is_read_back_and_polls_go_on(kind):
    async def scene():
        async with wired(kind) as (writing, controller):
            assert await writing.write("setpoint", "21.5") == Done(True, "", "21.5")
            assert await writing.write("relay", True) == Done(True, "", "true")
            assert await writing.write("limit", 70_000) == Done(True, "", "70000")
            assert await writing.write("pump", True) == Done(True, "", "true")
            assert controller.registers == {100: 215, 40: 0x1170, 41: 1}
            assert controller.coils == {3: 1, 19: 1}
            before = writing.records
            await until(lambda: writing.records > before + 1)
            assert [pdu[0] for pdu in controller.written] == [6, 5, 16, 15], "each once"

    asyncio.run(scene())


@BOTH
def test_what_came_of_a_write_is_told_by_what_stands_there(kind):
    async def scene():
        async with wired(kind) as (writing, controller):
            controller.faults = {"refuses"}
            assert await writing.write("setpoint", 20) == Done(False, "the device refuses it (Modbus exception 2)")
            controller.faults = {"forgets"}
            assert await writing.write("setpoint", 20) == Done(False, "something else stands there", "0")
            controller.faults = {"silent at writes"}
            assert await writing.write("setpoint", 20) == Done(True, "", "20")

    asyncio.run(scene())


@BOTH
def test_a_converter_that_gave_up_a_write_has_put_it_on_the_wire(kind):
    """Whoever is told "refused" sends it once more, and the relay clicks twice."""

    async def scene():
        async with wired(kind) as (writing, controller):
            controller.faults = {"converter gives up"}
            assert await writing.write("setpoint", 20) == Done(True, "", "20")
            controller.faults.add("forgets")
            assert await writing.write("setpoint", 21) == Done(
                False, "Modbus exception 11 came; look again whether it was done: something else stands there", "20"
            )

    asyncio.run(scene())


@BOTH
def test_what_expires_before_its_turn_is_not_written(kind):
    async def scene():
        async with wired(kind) as (writing, controller):
            late = writing.line.write(writing.station, UNIT, WRITES["relay"], 1, lambda: False)
            assert await asyncio.wait_for(late, 10) == LATE
            assert not controller.written

    asyncio.run(scene())


def test_many_writes_leave_the_polls_their_turn():
    async def scene():
        async with wired("rtu") as (writing, controller):
            before = writing.records
            done = await asyncio.gather(*(writing.write("relay", bool(turn % 2)) for turn in range(50)))
            assert all(each.well for each in done)
            assert len(controller.written) == 50
            assert writing.records > before + 3

    asyncio.run(scene())


@BOTH
def test_a_device_is_measured_at_once_when_that_is_asked_for(kind):
    async def scene():
        async with wired(kind) as (writing, _):
            before = writing.records
            assert await writing.line.read_now(writing.station) == Done(True)
            assert writing.records > before

    asyncio.run(scene())


def test_a_line_that_is_not_open_says_so():
    async def scene():
        writing = Writing(ModbusTcpLine(host="127.0.0.1", port=1))
        assert await writing.line.write(writing.station, UNIT, WRITES["relay"], 1) == DOWN
        assert await writing.line.read_now(writing.station) == DOWN

    asyncio.run(scene())
