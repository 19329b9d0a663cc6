"""A serial line on a pty: it opens, reads, says what is wrong in a sentence, and opens again."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tty
from pathlib import Path

import pytest

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway.config import SerialLine as SerialSettings
from bega_gateway.lines import port as port_module
from bega_gateway.lines import serial as serial_module
from bega_gateway.lines.port import LARGEST_BACKLOG_BYTES, Inbox
from bega_gateway.lines.serial import SerialLine
from bega_gateway.lines.station import Station
from bega_protocols.devices.pms5003.sim import Sim


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(serial_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(serial_module, "LONGEST_PAUSE_S", 0.05)


class Wire:
    """The far end of a port: plugged in, it speaks what it is given."""

    def __init__(self, port: Path) -> None:
        self.port = port
        self.sim = Sim({}, seed=1)
        self._ends: tuple[int, int] = (-1, -1)
        self._now_ms = 0

    def plug_in(self) -> None:
        self._ends = os.openpty()
        tty.setraw(self._ends[1])
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(self._ends[1]))

    def unplug(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                os.close(end)
        self._ends = (-1, -1)
        self.port.unlink(missing_ok=True)

    def speak(self, pm2_5: int, noise: bytes = b"") -> None:
        self.sim.set("pm2_5", "", pm2_5)
        self._now_ms += 1000
        os.write(self._ends[0], noise + self.sim.tick(self._now_ms))


@pytest.fixture
def wire(tmp_path):
    wire = Wire(tmp_path / "port")
    yield wire
    wire.unplug()


@contextlib.asynccontextmanager
async def reading(port: object, **settings):
    """Give (values of PM2.5 as they come, the station) of a line that runs on `port`."""
    heard: list[int] = []

    async def deliver(groups, read_ms):
        assert abs(read_ms - wall_ms()) < 5000
        heard.extend(reading.value for group in groups for reading in group if reading.quantity == "pm2_5")

    station = Station("roadside-air", load_driver("pms5003", {}), 1, deliver)
    line = SerialLine("pms", SerialSettings(port=str(port), **settings), [station], mono_ms, wall_ms)
    task = asyncio.create_task(line.run())
    try:
        yield heard, station
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds, what) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what() if callable(what) else what)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def test_what_the_sensor_says_arrives(wire):
    wire.plug_in()

    async def work():
        async with reading(wire.port) as (heard, station):
            await asyncio.sleep(0.05)
            for number in range(1, 20):
                wire.speak(number)
                await asyncio.sleep(0)
            await until(lambda: heard == list(range(1, 20)), lambda: f"all frames: {heard}")
            assert station.heard_mono_ms is not None
            assert station.counters.damaged == 0

    run(work())


def test_noise_is_counted_and_costs_no_frame_behind_it(wire):
    wire.plug_in()

    async def work():
        async with reading(wire.port) as (heard, station):
            await asyncio.sleep(0.05)
            wire.speak(1)
            for number in range(2, 12):
                wire.speak(number, noise=b"\x42\x4d\x00\x1c" + bytes(range(7)))
            wire.speak(12)
            wire.speak(13)
            await until(lambda: 13 in heard, "the last frame")
            assert station.counters.damaged > 0
            assert station.driver.damaged == [], "the list is emptied, however long the noise lasts"
            assert len(heard) >= 10

    run(work())


def test_a_missing_port_is_said_once_and_opened_when_it_is_there(wire, caplog):
    caplog.set_level("INFO")

    async def work():
        async with reading(wire.port) as (heard, _):
            await asyncio.sleep(0.3)
            assert caplog.text.count("line down") == 1
            assert f"line=pms error={wire.port} is not there: plug the adapter in, or correct `port`" in caplog.text
            wire.plug_in()
            await asyncio.sleep(0.15)
            wire.speak(5)
            await until(lambda: heard == [5], "it reads")
            assert caplog.text.count("line back") == 1

    run(work())


def test_a_port_that_vanishes_and_returns_is_read_again_and_leaks_nothing(wire, caplog):
    caplog.set_level("INFO")

    async def work():
        async with reading(wire.port) as (heard, _):
            descriptors = []
            for number in range(1, 6):
                wire.plug_in()
                await asyncio.sleep(0.15)
                wire.speak(number)
                await until(lambda number=number: heard[-1:] == [number], f"frame {number} of {heard}")
                wire.unplug()
                await asyncio.sleep(0.05)
                descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
            assert heard == [1, 2, 3, 4, 5]
            assert descriptors[-1] <= descriptors[0]

    run(work())
    assert caplog.text.count("line down") == 5
    assert caplog.text.count("line back") == 4, "the first time it was never down"


def test_a_port_in_use_is_said_and_read_when_it_is_free(wire, caplog):
    wire.plug_in()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import serial,sys,time\nport = serial.Serial(sys.argv[1], exclusive=True)\nprint('held', flush=True)\n"
            "sys.stdin.read()",
            wire.port,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"

    async def work():
        async with reading(wire.port) as (heard, _):
            await until(lambda: "line down" in caplog.text, "it is said")
            assert f"{wire.port} is in use by another program (fuser {wire.port} names it)" in caplog.text
            holder.stdin.close()
            holder.wait(10)
            await asyncio.sleep(0.1)
            wire.speak(9)
            await until(lambda: heard == [9], "it reads")

    run(work())
    assert caplog.text.count("line down") == 1


@pytest.mark.parametrize("port", ["/dev/null", "/etc/hostname", "/", "", "/dev/null/x", "\0"])
def test_a_port_that_is_none_is_a_sentence_and_tried_again(port, caplog):
    async def work():
        async with reading(port):
            await asyncio.sleep(0.1)

    run(work())
    assert caplog.text.count("line down") == 1
    assert "trying again" in caplog.text


def test_settings_of_the_line_win_over_those_of_the_driver(wire, monkeypatch):
    wire.plug_in()
    opened = []
    real = port_module.serial.Serial

    def noting(*arguments, **options):
        opened.append((options["baudrate"], options["bytesize"], options["parity"], options["stopbits"]))
        return real(*arguments, **options)

    monkeypatch.setattr(port_module.serial, "Serial", noting)

    async def work(**settings):
        async with reading(wire.port, **settings):
            await asyncio.sleep(0.05)

    run(work())
    run(work(baud=19200, parity="E"))
    assert opened == [(9600, 8, "N", 1), (19200, 8, "E", 1)]


def test_a_reader_that_lies_behind_loses_the_oldest_bytes_and_no_memory():
    async def work():
        read, write = os.pipe()
        os.set_blocking(read, False)
        inbox = Inbox(read)
        for number in range(40):
            os.write(write, bytes([number]) * 4096)
            inbox.fill()
        taken = await inbox.take()
        assert len(taken) == LARGEST_BACKLOG_BYTES
        assert taken[-1] == 39 and taken[0] == 40 - LARGEST_BACKLOG_BYTES // 4096
        os.write(write, b"last")
        inbox.fill()
        os.close(write)
        asyncio.get_running_loop().add_reader(read, lambda: None)
        inbox.fill()
        assert await inbox.take() == b"last", "what came before the end is not lost with it"
        with pytest.raises(OSError, match="unplugged"):
            await inbox.take()
        os.close(read)

    run(work())
