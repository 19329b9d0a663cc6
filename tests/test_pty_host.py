"""A simulated device on a pty: the pace of a wire, and a reader who comes and goes."""

import asyncio
import os
import termios
import time
import tty

import pytest
import serial

from bega.clock import wall_ms
from bega.devices import load_driver
from bega_protocols.devices.pms5003.sim import Sim
from bega_simulators.hosts.pty import PtyHost, sampled


class Chatter:
    """A device without an end: always more to say than the wire carries."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.asked: list[bytes] = []

    def tick(self, now_ms: int) -> bytes:
        return bytes(range(256)) * 4

    def answer(self, request: bytes) -> bytes | None:
        self.asked.append(request)
        return None


class Echo(Chatter):
    def tick(self, now_ms: int) -> bytes:
        return b""

    def answer(self, request: bytes) -> bytes | None:
        return b"you said " + request


class Changing(Echo):
    """Hears at 300 baud and answers at 9600."""

    answer_baud = 9600
    answer_after_ms = 100


@pytest.fixture
def host(request):
    sim, baud, *frame = request.param
    served = PtyHost(sim(), baud, wall_ms, *frame)
    yield served
    served.close()


def on(sim, baud, *frame):
    return pytest.mark.parametrize("host", [(sim, baud, *frame)], indirect=True)


def dust():
    sim = Sim({}, seed=1)
    sim.set("pm2_5", "", 23)
    return sim


def during(host, work):
    """Run `work` while the host runs, and return what it returns."""

    async def both():
        async with asyncio.timeout(20):
            serving = asyncio.create_task(host.run())
            try:
                return await work
            finally:
                serving.cancel()

    return asyncio.run(both())


def reopen(port):
    reader = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(reader)
    return reader


def pending(reader):
    try:
        return os.read(reader, 65536)
    except BlockingIOError:
        return b""


@on(dust, 9600)
def test_gateway_like_reader_gets_readings_through_pyserial(host):
    async def read():
        driver = load_driver("pms5003", {})
        with serial.Serial(host.port, 9600, timeout=0) as wire:
            while True:
                await asyncio.sleep(0.01)
                groups = driver.feed(wire.read(4096), 0)
                if groups:
                    return groups[0]

    assert ("pm2_5", 23) in [(reading.quantity, reading.value) for reading in during(host, read())]


@on(Chatter, 9600)
def test_bytes_leave_at_the_pace_of_the_baud_rate(host):
    """However busy the machine is, not more than the wire carries, and in pieces."""

    async def read():
        reader = reopen(host.port)
        began, pieces = time.monotonic(), []
        while len(pieces) < 100:
            await asyncio.sleep(0.002)
            if piece := pending(reader):
                pieces.append(piece)
        os.close(reader)
        return time.monotonic() - began, b"".join(pieces)

    seconds, heard = during(host, read())
    assert 100 <= len(heard) <= 960 * seconds + 50
    assert heard == bytes((heard[0] + number) % 256 for number in range(len(heard))), "no byte lost or doubled"


@on(Chatter, 115_200)
def test_what_nobody_reads_is_dropped(host):
    async def read_late():
        await asyncio.sleep(0.3)
        assert not host.open_elsewhere
        reader = reopen(host.port)
        stale = pending(reader)
        assert host.open_elsewhere
        await asyncio.sleep(0.1)
        fresh = pending(reader)
        os.close(reader)
        return stale, fresh

    stale, fresh = during(host, read_late())
    assert stale == b""
    assert fresh


@on(Chatter, 115_200)
def test_reader_that_opens_and_does_not_read_blocks_nobody(host):
    async def ignore():
        reader = reopen(host.port)
        steps = 0
        for _ in range(100):
            await asyncio.sleep(0.01)
            steps += 1
        os.close(reader)
        return steps

    assert during(host, ignore()) == 100


@on(Chatter, 57_600)
def test_reader_may_close_and_open_again(host):
    async def come_and_go():
        counts = []
        for _ in range(3):
            reader = reopen(host.port)
            await asyncio.sleep(0.1)
            counts.append(len(pending(reader)))
            os.close(reader)
            await asyncio.sleep(0.05)
        return counts

    assert all(during(host, come_and_go()))


@on(Chatter, 9600)
def test_device_never_hears_itself(host):
    """A terminal echoes by default; before a reader asks for raw, the device would be asked its own words."""

    async def stay_cooked():
        reader = os.open(host.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        await asyncio.sleep(0.2)
        os.close(reader)
        return host.sim.asked

    assert during(host, stay_cooked()) == []


@on(Echo, 9600)
def test_request_reaches_the_device_whole(host):
    async def ask():
        reader = reopen(host.port)
        os.write(reader, b"hel")
        await asyncio.sleep(0.005)
        os.write(reader, b"lo")
        answer = b""
        while len(answer) < len(b"you said hello"):
            await asyncio.sleep(0.01)
            answer += pending(reader)
        os.close(reader)
        return answer

    assert during(host, ask()) == b"you said hello"


@on(dust, 9600)
def test_fault_set_on_the_device_is_on_the_wire(host):
    async def listen():
        host.sim.faults.add("silent")
        reader = reopen(host.port)
        await asyncio.sleep(0.3)
        silent = pending(reader)
        host.sim.faults.clear()
        heard = b""
        while not heard:
            await asyncio.sleep(0.05)
            heard = pending(reader)
        os.close(reader)
        return silent, heard

    silent, heard = during(host, listen())
    assert silent == b""
    assert heard


def speed(reader, baud):
    attributes = termios.tcgetattr(reader)
    attributes[4] = attributes[5] = getattr(termios, f"B{baud}")
    termios.tcsetattr(reader, termios.TCSANOW, attributes)


def spoken(host, ask_at, listen_at):
    """Return what a reader hears who asks at one rate and listens at another."""

    async def ask():
        reader = reopen(host.port)
        speed(reader, ask_at)
        os.write(reader, b"hello")
        await asyncio.sleep(0.06)
        speed(reader, listen_at)
        answer = b""
        for _ in range(60):
            await asyncio.sleep(0.01)
            answer += pending(reader)
        os.close(reader)
        return answer

    return during(host, ask())


@on(Changing, 300)
def test_device_that_changes_its_rate_is_understood_at_that_rate(host):
    assert spoken(host, 300, 9600) == b"you said hello"


@on(Changing, 300)
def test_reader_who_does_not_change_hears_no_word(host):
    heard = spoken(host, 300, 300)
    assert heard
    assert not set(heard) & set(b"you said hello")


@on(Changing, 300)
def test_device_does_not_understand_a_reader_at_another_rate(host):
    spoken(host, 9600, 9600)
    assert b"hello" not in b"".join(host.sim.asked)


@on(Echo, 9600, "7E1")
def test_parity_of_a_wire_is_the_eighth_bit_of_a_port_without(host):
    async def ask():
        reader = reopen(host.port)
        os.write(reader, b"a\xe1b")  # "a" and "b" have three ones: without a parity bit they are not heard
        answer = b""
        while len(answer) < len(b"you said a"):
            await asyncio.sleep(0.01)
            answer += pending(reader)
        os.close(reader)
        return answer

    heard = during(host, ask())
    assert all(octet.bit_count() % 2 == 0 for octet in heard)
    assert bytes(octet & 0x7F for octet in heard) == b"you said a"


@pytest.mark.parametrize("baud", [300, 9600, 115_200])
def test_bits_sampled_at_their_own_rate_are_what_was_sent(baud):
    whole = bytes(range(256))
    assert sampled(whole, baud, baud) == whole
    assert sampled(whole, baud * 100, baud * 101) == whole, "a clock may be one percent off"


def test_bits_sampled_too_slowly_are_fewer_and_too_fast_are_more():
    assert len(sampled(b"1.8.0(0012345.678*kWh)", 9600, 300)) <= 2
    assert len(sampled(b"1.8.0", 300, 9600)) > 5
    assert sampled(b"", 300, 9600) == b""
