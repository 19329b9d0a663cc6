"""Sensors on an I2C bus of the gateway's own machine, as Linux sees it: the ioctl I2C_RDWR, byte for byte.

What smbus2 hands to the kernel is read here as the kernel reads it (include/uapi/linux/i2c.h and i2c-dev.h); behind
it hangs the simulated bus with the devices' own simulators.
"""

import asyncio
import contextlib
import ctypes
import errno
import logging
import struct
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import smbus2.smbus2

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway.lines.asked import AskedLine
from bega_gateway.lines.station import Station
from bega_gateway.lines.wire_i2c import I2cWire
from bega_protocols.devices.bme280.sim import Sim as Bme280
from bega_protocols.devices.scd41.sim import Sim as Scd41
from bega_protocols.devices.sgp41.sim import Sim as Sgp41
from bega_protocols.devices.sht4x.sim import Sim as Sht4x
from bega_protocols.reading import GOOD, Reading
from bega_simulators.hosts.i2c import I2cBus, NotAcknowledged

I2C_FUNCS, I2C_RDWR = 0x0705, 0x0707
I2C_M_RD = 0x0001
FUNCTIONS = 0x0EFF0001  # I2C_FUNC_I2C and the emulated SMBus, as a Pi's adapter has
MESSAGE = struct.Struct("@HHHP")  # addr, flags, len, buf
DESCRIPTOR = 4242


class Kernel:
    """/dev/i2c-1 and what hangs on it. `refuses` is the errno of opening, `fails` that of every transfer."""

    O_RDWR = 2

    def __init__(self, *sims: Any) -> None:
        self.refuses = self.fails = 0
        self.opened: list[str] = []
        self.transfers: list[tuple[int, str, str]] = []  # address, w or r, hex
        self._bus = I2cBus({sim.address: sim for sim in sims}, lambda: time.monotonic_ns() // 1000)

    def open(self, path: str, flags: int) -> int:
        self.opened.append(path)
        if self.refuses:
            raise OSError(self.refuses, "refused", path)
        return DESCRIPTOR

    def close(self, descriptor: int) -> None:
        assert descriptor == DESCRIPTOR
        self.opened.append("closed")

    def ioctl(self, descriptor: int, request: int, argument: Any) -> int:
        assert descriptor == DESCRIPTOR
        octets = bytes(memoryview(argument))
        if request == I2C_FUNCS:
            ctypes.memmove(ctypes.addressof(argument), struct.pack("@L", FUNCTIONS)[: len(octets)], len(octets))
            return 0
        assert request == I2C_RDWR, hex(request)
        if self.fails:
            raise OSError(self.fails, "failed")
        address_of_messages, count = struct.unpack_from("@PI", octets)
        raw = ctypes.string_at(address_of_messages, count * struct.calcsize("@HHHP0P"))
        for message in MESSAGE.iter_unpack(raw):
            self._carry(*message)
        return count

    def _carry(self, address: int, flags: int, size: int, buffer: int) -> None:
        try:
            if flags & I2C_M_RD:
                octets = self._bus.read(address, size)
                ctypes.memmove(buffer, octets, size)
            else:
                octets = ctypes.string_at(buffer, size)
                self.transfers.append((address, "w", octets.hex()))
                self._bus.write(address, octets)
        except NotAcknowledged:
            raise OSError(errno.EREMOTEIO, "Remote I/O error") from None
        if flags & I2C_M_RD:
            self.transfers.append((address, "r", octets.hex()))


@pytest.fixture
def plug(monkeypatch) -> Callable[..., Kernel]:
    def plugged(*sims: Any) -> Kernel:
        kernel = Kernel(*sims)
        monkeypatch.setattr(smbus2.smbus2, "os", kernel)
        monkeypatch.setattr(smbus2.smbus2, "ioctl", kernel.ioctl)
        return kernel

    return plugged


class Taken:
    """What the gateway got, by device."""

    def __init__(self) -> None:
        self.groups: dict[str, list[list[Reading]]] = {}

    def station(self, name: str, driver: str, every_s: float = 0.1, **settings: Any) -> Station:
        async def deliver(groups: list[list[Reading]], at_ms: int) -> None:
            assert abs(at_ms - wall_ms()) < 1000
            self.groups[name] += groups

        self.groups[name] = []
        return Station(name, load_driver(driver, settings), every_s, deliver)

    def last(self, name: str) -> dict[str, Decimal]:
        return {row.quantity: Decimal(row.value).scaleb(row.exp10) for row in self.groups[name][-1]}


def run(stations: list[Station], enough: Callable[[], bool], limit_s: float = 30) -> None:
    async def session() -> None:
        line = asyncio.create_task(AskedLine("attic", I2cWire(1, mono_ms), stations, mono_ms, wall_ms).run())
        try:
            async with asyncio.timeout(limit_s):
                while not enough():
                    assert not line.done(), line.exception()
                    await asyncio.sleep(0.02)
        finally:
            line.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await line

    asyncio.run(session())


def climate(sim: Any) -> Any:
    sim.set("temperature", "", Decimal("21.34"))
    sim.set("humidity", "", Decimal("48.75"))
    return sim


def test_kernel_is_asked_for_a_write_then_a_read_of_the_datasheets_bytes(plug):
    kernel = plug(climate(Sht4x({}, seed=1)))
    taken = Taken()
    run([taken.station("sht", "sht4x")], lambda: bool(taken.groups["sht"]))
    assert kernel.opened[0] == "/dev/i2c-1"
    assert kernel.transfers[0] == (0x44, "w", "fd")
    address, way, octets = kernel.transfers[1]
    assert (address, way, len(octets)) == (0x44, "r", 12)
    assert taken.last("sht") == {"temperature": Decimal("21.34"), "humidity": Decimal("48.75")}
    assert kernel.opened[-1] == "closed"


@pytest.mark.slow
def test_four_sensors_share_a_bus_and_none_waits_for_another(plug):
    """Nine seconds of conditioning, six until the first CO2, five a single shot would take: the others go on."""
    sims = [climate(Sht4x({}, seed=1)), climate(Scd41({}, seed=2)), climate(Bme280({}, seed=3)), Sgp41({}, seed=4)]
    sims[1].set("co2", "", 843)
    sims[2].set("pressure", "", Decimal("1006.53"))
    kernel = plug(*sims)
    taken = Taken()
    stations = [
        taken.station("sht", "sht4x"),
        taken.station("co2", "scd41", 0.5, altitude_m=90),
        taken.station("bme", "bme280"),
        taken.station("gas", "sgp41", 0.5),
    ]
    run(stations, lambda: all(len(groups) >= 2 for groups in taken.groups.values()))
    assert len(taken.groups["sht"]) > 50
    assert len(taken.groups["bme"]) > 50
    both = {"temperature": Decimal("21.34"), "humidity": Decimal("48.75")}
    assert taken.last("sht") == both
    assert taken.last("co2") == {**both, "co2": 843}
    assert taken.last("bme") == {**both, "pressure": Decimal("1006.53")}
    assert {row.quality for row in taken.groups["co2"][-1]} == {GOOD}
    assert not sims[3].burnt
    assert any(address == 0x62 and octets.startswith("2427005a") for address, _, octets in kernel.transfers)
    assert [station.counters.damaged for station in stations] == [0, 0, 0, 0]


def test_sensor_that_is_absent_is_counted_and_asked_more_rarely(plug):
    kernel = plug(climate(Sht4x({}, seed=1)))
    taken = Taken()
    stations = [taken.station("sht", "sht4x"), taken.station("gone", "sht4x", address=0x45)]
    run(stations, lambda: len(taken.groups["sht"]) >= 15)
    assert not taken.groups["gone"]
    assert stations[1].counters.silent >= 2
    assert stations[0].counters.silent == 0
    asked = sum(1 for address, _, _ in kernel.transfers if address == 0x45)
    assert asked == stations[1].counters.silent


def test_sensor_that_falls_silent_comes_back_by_itself(plug):
    sim = climate(Bme280({}, seed=1))
    plug(sim)
    taken = Taken()
    station = taken.station("bme", "bme280", 0.05)

    def later() -> bool:
        if station.counters.silent >= 3:
            sim.faults.clear()
        elif len(taken.groups["bme"]) == 3:
            sim.faults.add("silent")
        return len(taken.groups["bme"]) >= 8

    run([station], later)
    assert station.counters.silent >= 3
    assert taken.last("bme")["temperature"] == Decimal("21.34")


def test_sensor_that_measures_too_long_is_silent_not_wrong(plug, monkeypatch):
    """It does not acknowledge the read: nobody may take ones for an answer."""
    sim = climate(Sht4x({}, seed=1))
    monkeypatch.setattr(sim, "busy_us", lambda request: 60_000)
    plug(sim)
    taken = Taken()
    station = taken.station("sht", "sht4x", 0.05)
    run([station], lambda: station.counters.silent >= 3)
    assert not taken.groups["sht"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "/dev/i2c-1 may not be opened: add the gateway's user to the group i2c"),
        (errno.ENOENT, "/dev/i2c-1 is not there: switch I2C on"),
    ],
)
def test_bus_that_cannot_be_opened_says_what_to_do(plug, caplog, number, advice):
    kernel = plug()
    kernel.refuses = number
    taken = Taken()
    with caplog.at_level(logging.WARNING):
        run([taken.station("sht", "sht4x")], lambda: bool(caplog.records))
    assert advice in caplog.text
    assert "Traceback" not in caplog.text


def test_bus_that_fails_is_opened_again(plug, caplog):
    """A USB adapter that is pulled out: ENODEV is no silence of one sensor."""
    kernel = plug(climate(Sht4x({}, seed=1)))
    kernel.fails = errno.ENODEV
    taken = Taken()

    def mended() -> bool:
        if caplog.records:
            kernel.fails = 0
        return len(taken.groups["sht"]) >= 2

    with caplog.at_level(logging.INFO):
        run([taken.station("sht", "sht4x")], mended)
    assert kernel.opened[:3] == ["/dev/i2c-1", "closed", "/dev/i2c-1"]
    assert "line down line=attic" in caplog.text
    assert "line back line=attic" in caplog.text


@pytest.mark.parametrize("number", [errno.ENXIO, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN])
def test_every_way_to_say_that_nobody_acknowledged_is_silence(plug, caplog, number):
    kernel = plug(climate(Sht4x({}, seed=1)))
    kernel.fails = number
    taken = Taken()
    station = taken.station("sht", "sht4x", 0.05)
    run([station], lambda: station.counters.silent >= 2)
    assert "line down" not in caplog.text
    assert kernel.opened == ["/dev/i2c-1", "closed"]
