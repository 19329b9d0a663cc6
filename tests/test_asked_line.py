"""A wire whose devices speak when asked: what a driver is sent, whose turn it is, and what a fault costs."""

import asyncio
import contextlib
import os
import termios
import threading
import time
import tty

import pytest

from bega.clock import mono_ms, wall_ms
from bega_gateway import parts
from bega_gateway.lines import asked as asked_module
from bega_gateway.lines.asked import AskedLine
from bega_gateway.lines.station import Station
from bega_gateway.lines.wire_serial import LARGEST_ANSWER_BYTES, SerialWire
from bega_protocols.ask import Ask
from bega_protocols.errors import LineError
from bega_protocols.reading import Reading


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asked_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(asked_module, "LONGEST_PAUSE_S", 0.05)


class FarEnd:
    """A thread at the other end of a port: answers each request from a table of (pause before, bytes) rows."""

    def __init__(self, path) -> None:
        self.path = path
        self.answers: dict[bytes, list[tuple[float, bytes]]] = {}
        self.heard: list[tuple[bytes, int]] = []  # request, and the rate that the near end had set
        self._stop = threading.Event()
        self._ends = (-1, -1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.plug_in()
        self._thread.start()

    def plug_in(self) -> None:
        self._ends = os.openpty()
        tty.setraw(self._ends[1])
        os.set_blocking(self._ends[0], False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._ends[1]))

    def unplug(self) -> None:
        ends, self._ends = self._ends, (-1, -1)
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)
        self.path.unlink(missing_ok=True)

    def say(self, octets: bytes) -> None:
        os.write(self._ends[0], octets)

    def baud(self) -> int:
        rate = termios.tcgetattr(self._ends[0])[5]
        return next(int(name[1:]) for name in dir(termios) if name[1:].isdigit() and getattr(termios, name) == rate)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.unplug()

    def _serve(self) -> None:
        so_far = b""
        while not self._stop.wait(0.001):
            with contextlib.suppress(OSError, StopIteration):
                so_far += os.read(self._ends[0], 4096)
                request = next(known for known in self.answers if so_far.endswith(known))
                self.heard.append((so_far, self.baud()))
                so_far = b""
                for pause_s, octets in self.answers[request]:
                    time.sleep(pause_s)
                    self.say(octets)


class Scripted:
    """A driver that puts the questions it was given, and keeps what it was sent."""

    line = "serial 9600 8N1"

    def __init__(self, *asks: Ask, defect: bool = False) -> None:
        self.damaged = []
        self.attributes = {}
        self.asks = asks
        self.defect = defect
        self.sent: list[bytes | None] = []

    def feed(self, chunk, now_ms):
        return []

    def measure(self, now_ms):
        if self.defect:
            raise ZeroDivisionError("a defect")
        spoke = False
        for ask in self.asks:
            answer = yield ask
            self.sent.append(answer)
            spoke = spoke or bool(answer)
        return [[Reading("co2", 400)]] if spoke else []


@pytest.fixture
def far_end(tmp_path):
    end = FarEnd(tmp_path / "port")
    yield end
    end.close()


def wire(far_end, baud=9600):
    return SerialWire(str(far_end.path), baud, "8N1", mono_ms)


def exchange(far_end, *asks, baud=9600):
    async def work():
        line = wire(far_end, baud)
        await line.open()
        try:
            async with line.turn():
                return [await line.exchange(ask) for ask in asks]
        finally:
            line.close()

    return asyncio.run(work())


class Taken:
    """What a line handed on."""

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.times_ms: list[int] = []

    def station(self, name, driver, every_s=0.05) -> Station:
        async def deliver(groups, read_ms):
            self.groups += [name] * len(groups)
            self.times_ms.append(read_ms)

        return Station(name, driver, every_s, deliver)


async def until(condition, within_s=10.0):
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # what is waited for is a list that fills
            await asyncio.sleep(0.01)


def run_line(line, condition, then=None):
    async def work():
        task = asyncio.create_task(line.run())
        try:
            await until(condition)
            if then:
                await then()
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(work())


def test_a_whole_answer_ends_the_question_at_once(far_end):
    far_end.answers[b"?"] = [(0, b"12"), (0.01, b"34")]
    assert exchange(far_end, Ask(b"?", 5000, 4), Ask(b"?", 5000, lambda so_far: so_far.endswith(b"4"))) == [b"1234"] * 2


def test_what_came_of_a_cut_answer_is_handed_over_and_silence_is_none(far_end):
    far_end.answers = {b"?": [(0, b"12")], b"!": []}
    assert exchange(far_end, Ask(b"?", 100, 4), Ask(b"!", 50, 4)) == [b"12", None]


def test_an_answer_may_go_on_while_its_silences_are_short(far_end):
    far_end.answers[b"?"] = [(0.02, b"1")] * 10
    long = Ask(b"?", 100, 10, gap_ms=100)
    assert exchange(far_end, long) == [b"1" * 10]
    far_end.answers[b"?"] = [(0, b"1"), (0.3, b"2")]
    assert exchange(far_end, Ask(b"?", 100, 10, gap_ms=100)) == [b"1"]


def test_a_device_that_never_stops_sending_is_cut_off_in_time_and_in_bytes(far_end):
    far_end.answers[b"?"] = [(0.01, b"x")] * 60
    [cut] = exchange(far_end, Ask(b"?", 100, lambda so_far: False, gap_ms=100, total_ms=200))
    assert cut and 1 <= len(cut) < 60
    far_end.answers[b"?"] = [(0.0005, b"x" * 2000)] * 60
    [cut] = exchange(far_end, Ask(b"?", 1000, lambda so_far: False, gap_ms=1000))
    assert cut and LARGEST_ANSWER_BYTES <= len(cut) < LARGEST_ANSWER_BYTES + 70_000


def test_what_came_before_the_question_is_no_answer(far_end):
    far_end.answers[b"?"] = [(0, b"good")]

    async def work():
        line = wire(far_end)
        await line.open()
        far_end.say(b"late")
        await asyncio.sleep(0.05)
        assert await line.exchange(Ask(b"?", 1000, 4)) == b"good"
        line.close()

    asyncio.run(work())


def test_a_question_without_answer_waits_and_goes_on(far_end):
    far_end.answers = {b"wake": [], b"?": [(0, b"1")]}
    assert exchange(far_end, Ask(b"wake", 20, 0), Ask(b"?", 1000, 1)) == [b"", b"1"]


@pytest.mark.parametrize(("frame", "wire_s"), [("7E1", 2.1), ("8N1", 2.1), ("8E1", 2.31)])
def test_a_rest_begins_when_the_last_bit_has_left_the_wire(far_end, monkeypatch, frame, wire_s):
    slept_s = []
    sleep = asyncio.sleep

    async def at_once(delay_s):
        slept_s.append(delay_s)
        await sleep(0)

    async def work():
        line = SerialWire(str(far_end.path), 300, frame, mono_ms)
        await line.open()
        monkeypatch.setattr(asyncio, "sleep", at_once)
        await line.exchange(Ask(bytes(63), 1600, 0))
        line.close()

    asyncio.run(work())
    assert slept_s == [pytest.approx(wire_s), 1.6]


def test_the_rate_changes_behind_a_question_and_is_the_lines_own_in_the_next_turn(far_end):
    far_end.answers = {b"?": [(0.1, b"1")], b"!": [(0, b"2")]}

    async def work():
        line = wire(far_end, 300)
        await line.open()
        async with line.turn():
            await line.exchange(Ask(b"?", 1000, 1, baud=9600))
            await line.exchange(Ask(b"!", 1000, 1))
        async with line.turn():
            await line.exchange(Ask(b"!", 1000, 1))
        line.close()

    asyncio.run(work())
    assert far_end.heard == [(b"?", 300), (b"!", 9600), (b"!", 300)]


def test_a_measurement_is_one_turn_that_nobody_comes_into(far_end):
    far_end.answers = {b"a": [(0.02, b"1")], b"b": [(0.02, b"2")]}
    first = Scripted(Ask(b"a", 1000, 1), Ask(b"a", 1000, 1))
    second = Scripted(Ask(b"b", 1000, 1), Ask(b"b", 1000, 1))
    taken = Taken()
    stations = [taken.station("first", first), taken.station("second", second)]
    run_line(AskedLine("cellar", wire(far_end), stations, mono_ms, wall_ms), lambda: len(taken.groups) > 7)
    spoken = [request for request, _ in far_end.heard]
    assert all(spoken[index] == spoken[index + 1] for index in range(0, len(spoken) - 1, 2))
    assert {"first", "second"} <= set(taken.groups)


def test_a_silent_device_is_asked_more_rarely_where_others_wait(far_end):
    far_end.answers = {b"a": [(0, b"1")], b"dead": []}
    taken = Taken()
    dead = taken.station("dead", Scripted(Ask(b"dead", 20, 1)), every_s=0.01)
    living = taken.station("living", Scripted(Ask(b"a", 1000, 1)), every_s=0.01)
    line = AskedLine("cellar", wire(far_end), [dead, living], mono_ms, wall_ms)
    run_line(line, lambda: len(taken.groups) >= 50)
    assert dead.counters.silent <= 3
    assert set(taken.groups) == {"living"}


def test_a_port_that_goes_away_is_said_once_and_opened_again(far_end, caplog):
    caplog.set_level("INFO")
    far_end.answers[b"?"] = [(0, b"1")]
    taken = Taken()
    line = AskedLine("lab", wire(far_end), [taken.station("co2", Scripted(Ask(b"?", 200, 1)))], mono_ms, wall_ms)

    async def replug():
        far_end.unplug()
        await until(lambda: line.tries > 3)
        before = len(taken.groups)
        far_end.plug_in()
        await until(lambda: len(taken.groups) > before)

    run_line(line, lambda: taken.groups, replug)
    said = [record.message for record in caplog.records]
    assert [text.split()[1] for text in said if "line=lab" in text] == ["down", "back"]
    assert any("plug the adapter in" in text for text in said)


def test_the_time_of_a_record_is_when_its_last_answer_began(far_end):
    far_end.answers = {b"wake": [(0, b"!")], b"?": [(0.2, b"1"), (0.3, b"2")]}
    asks = Ask(b"wake", 1000, 1), Ask(b"?", 2000, 2)
    taken = Taken()
    line = AskedLine("lab", wire(far_end), [taken.station("co2", Scripted(*asks), 60.0)], mono_ms, lambda: mono_ms())
    began_ms = mono_ms()
    run_line(line, lambda: taken.groups)
    ended_ms = mono_ms()
    assert began_ms + 200 <= taken.times_ms[0] <= ended_ms - 250


def test_a_defect_of_one_driver_costs_its_own_readings_and_is_said_once(far_end, caplog):
    far_end.answers[b"?"] = [(0, b"1")]
    taken = Taken()
    broken = taken.station("broken", Scripted(defect=True), every_s=0.01)
    line = AskedLine(
        "lab", wire(far_end), [broken, taken.station("co2", Scripted(Ask(b"?", 500, 1)), 0.01)], mono_ms, wall_ms
    )
    run_line(line, lambda: len(taken.groups) > 10)
    assert sum("driver failed" in record.message for record in caplog.records) == 1


def test_a_measurement_in_hand_is_finished_and_none_begun(far_end):
    far_end.answers[b"?"] = [(0.2, b"1")]
    taken = Taken()
    line = AskedLine("lab", wire(far_end), [taken.station("co2", Scripted(Ask(b"?", 2000, 1)))], mono_ms, wall_ms)

    async def finish():
        await until(lambda: line._in_hand)
        before = len(taken.groups)
        await line.finish()
        assert len(taken.groups) == before + 1
        heard = len(far_end.heard)
        await asyncio.sleep(0.3)
        assert len(far_end.heard) == heard

    run_line(line, lambda: taken.groups, finish)


def test_a_missing_port_says_what_to_do(tmp_path):
    with pytest.raises(LineError, match="plug the adapter in"):
        asyncio.run(SerialWire(str(tmp_path / "none"), 9600, "8N1", mono_ms).open())


def test_a_line_ends_though_its_first_cancellation_was_lost(monkeypatch):
    """As a TaskGroup of Python 3.11 loses one that comes in the turn in which it ends with an error."""
    monkeypatch.setattr(parts, "CANCEL_AGAIN_S", 0.02)
    lost = []

    async def stubborn():
        while len(lost) < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost.append(1)
        await asyncio.sleep(60)

    async def work():
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await parts.ended([task])
        assert task.cancelled()

    asyncio.run(work())
    assert len(lost) == 2
