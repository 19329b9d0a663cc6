"""A gateway as shipped, with Bluetooth sensors: what its spool remembers of them over a restart, and its counters."""

import asyncio
import contextlib
import json
import threading
import urllib.request

import pytest

from bega_protocols.devices.environmental_sensing.sim import SERVICES
from bega_protocols.devices.environmental_sensing.sim import Sim as Climate
from bega_protocols.reading import decimal_text
from bega_simulators.hosts.ble_gatt import connectable
from tests.ble_park import SECRET, Park, skip_without_dbus_daemon

CLIMATE = "C0:FF:EE:00:00:01"
CONFIGURATION = f"""
[gateway]
name = "gw-park"
city = "timisoara"
commit_window_s = 0.05
[uplink]
brokers = ["{{broker}}"]
[metrics]
listen = "127.0.0.1:0"
[lines.park]
kind = "ble"
[devices.secret]
line = "park"
driver = "bthome"
every_s = 0.2
settings = {{{{ address = "{SECRET["address"]}", key = "{SECRET["key"]}" }}}}
[devices.climate]
line = "park"
driver = "environmental_sensing"
every_s = 0.3
settings = {{{{ address = "{CLIMATE}" }}}}
"""


class ParkInAThread:
    """The simulated park, while the test itself waits for processes."""

    def __init__(self) -> None:
        self.park: Park | None = None
        self.climate = Climate({"address": CLIMATE}, seed=1)
        self.climate.set("temperature", "", 21)
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()], daemon=True)
        self._thread.start()
        assert self._up.wait(20)

    async def _run(self) -> None:
        self._over = asyncio.Event()
        park = self.park = Park()
        await park.bus.start()
        await park.start_bluez()
        await connectable(park.air, CLIMATE, self.climate.tick, SERVICES, self.climate.answer)
        air = asyncio.create_task(park.air.run())
        self._up.set()
        await self._over.wait()
        air.cancel()
        await park.bluez.stop()
        await park.bus.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def there():
    skip_without_dbus_daemon()
    with contextlib.closing(ParkInAThread()) as park:
        yield park


def ids(reader):
    """Return the packet ids of the encrypted sensor's records; a record that came twice, as QoS 1 may, counts once."""
    records = {(record.boot, record.seq): record for record in list(reader.records) if record.device == "secret"}
    return [row.value for record in records.values() for row in record.readings if row.quantity == "packet_id"]


def counted(process, name):
    address = json.loads(process._ready.read_text())["metrics"]
    said = urllib.request.urlopen(f"{address}/metrics", timeout=10).read().decode()
    return [float(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith(name)]


def test_replay_is_refused_by_the_gateway_that_was_killed_and_started(
    there, embedded, make_gateway, make_reader, eventually
):
    reader = make_reader(embedded.url)
    process = make_gateway(CONFIGURATION.format(broker=embedded.url))
    bus = {"DBUS_SYSTEM_BUS_ADDRESS": there.park.bus.address}
    process.start(**bus)
    eventually(lambda: len(ids(reader)) >= 3, "encrypted packets arrive")
    there.park.sims["park-2"].faults.add("replay")
    process.kill()
    before = ids(reader)
    process.start(**bus)
    eventually(lambda: "a replay" in process.log.read_text(), "the gateway says that it is a replay")
    there.park.sims["park-2"].faults.clear()
    eventually(lambda: len(ids(reader)) >= len(before) + 2, "true packets arrive again")
    found = ids(reader)
    assert len(found) == len(set(found)), "no packet is recorded twice"
    assert found == sorted(found)
    assert process.stop() == 0


def test_sensor_that_is_connected_to_is_read_counted_and_let_go(there, embedded, make_gateway, make_reader, eventually):
    reader = make_reader(embedded.url)
    process = make_gateway(CONFIGURATION.format(broker=embedded.url))
    process.start(DBUS_SYSTEM_BUS_ADDRESS=there.park.bus.address)

    def climates():
        return [record for record in list(reader.records) if record.device == "climate"]

    eventually(lambda: len(climates()) >= 3, "the climate arrives")
    [reading] = climates()[0].readings
    assert (reading.quantity, decimal_text(reading.value, reading.exp10)) == ("temperature", "21.00")
    assert counted(process, "bega_gateway_ble_connects_total")[0] >= 3
    assert counted(process, "bega_gateway_ble_failed_connects_total") == [0]
    assert sum(counted(process, "bega_gateway_ble_advertisements_total")) > 3
    assert process.stop() == 0
    said = process.log.read_text()
    assert "Traceback" not in said
    assert CLIMATE not in said
