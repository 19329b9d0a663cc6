"""What the tests of Bluetooth share: a simulated park behind org.bluez, and a line that listens to it."""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from bega.clock import mono_ms, wall_ms
from bega.devices import load_driver
from bega_gateway import config
from bega_gateway.lines.ble import BleLine
from bega_gateway.lines.station import Station
from bega_protocols.devices.bthome.sim import Sim
from bega_protocols.reading import decimal_text
from bega_simulators.hosts.ble import ADAPTER_ADDRESS, SENSORS
from bega_simulators.hosts.ble_air import Air, host_on
from bega_simulators.hosts.org_bluez import OrgBluez
from bega_simulators.hosts.private_bus import PrivateBus

FAST = 20  # the air's clock runs so many times as fast: a sensor measures every quarter of a second
WITHIN_S = 8.0
PLAIN, SECRET = SENSORS["park-1"], SENSORS["park-2"]


def skip_without_dbus_daemon():
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is missing: apt-get install dbus")


class Park:
    """The simulated side of a test: bus, org.bluez, air and the two sensors of the example configuration."""

    def __init__(self) -> None:
        self.bus = PrivateBus()
        self.air = Air(1, lambda: mono_ms() * FAST)
        self.sims = {name: Sim(settings, seed=1) for name, settings in SENSORS.items()}
        for name, sim in self.sims.items():
            sim.set("temperature", "", Decimal("21.5"))
            self.air.place(SENSORS[name]["address"], sim.tick)
        self.bluez: OrgBluez | None = None

    async def start_bluez(self) -> None:
        self.bluez = OrgBluez(self.bus.address, await host_on(self.air, "hci0", ADAPTER_ADDRESS))
        await self.bluez.start()


@asynccontextmanager
async def park(monkeypatch, bus=True):
    skip_without_dbus_daemon()
    there = Park()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", there.bus.address)
    air = asyncio.create_task(there.air.run())
    try:
        if bus:
            await there.bus.start()
            await there.start_bluez()
        yield there
    finally:
        air.cancel()
        if there.bluez:
            await there.bluez.stop()
        await there.bus.close()


class Listener:
    """The gateway's side: a line, its stations, and what they delivered."""

    def __init__(self, settings=SENSORS, states=None, deaf_after_s=60.0, adapter="hci0") -> None:
        self.delivered: list[tuple[str, dict[str, str]]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.stations = {
            name: Station(name, load_driver("bthome", table, (states or {}).get(name, b"")), 10.0, self.take(name))
            for name, table in settings.items()
        }
        self.line = BleLine(
            "park", config.BleLine(adapter=adapter), [*self.stations.values()], mono_ms, wall_ms, deaf_after_s
        )

    def take(self, name):
        async def deliver(groups, heard_wall_ms):
            await self.hold.wait()
            assert abs(heard_wall_ms - wall_ms()) < 60_000
            for group in groups:
                self.delivered.append((name, {row.quantity: decimal_text(row.value, row.exp10) for row in group}))

        return deliver

    def of(self, name):
        return [values for who, values in self.delivered if who == name]

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.line.run())
        try:
            yield self
            assert not task.done(), "a line runs until it is cancelled"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # what is waited for is a list that fills, a log that is written
            await asyncio.sleep(0.02)


def said(caplog, words):
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]
