"""Bluetooth: who advertises what one of our drivers reads. Nobody is connected to, and of strangers nothing is kept."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from bleak import BleakScanner

from bega.devices import driver_class, must_be_asked
from bega_gateway.lines import ble
from bega_gateway.scan.attempt import drivers_on, loaded
from bega_gateway.scan.search import note_of

if TYPE_CHECKING:
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData

    from bega_gateway.scan.findings import FoundLine
    from bega_gateway.scan.search import Search

EARSHOT = "Bluetooth by {}: whoever is in earshot. Delete what is not yours: a neighbour's sensor is a household's"
MOST_SENSORS = 1000
MOST_SAID = 20  # different advertisements of one sensor


class Air:
    """The different advertisements of each address that a driver recognises."""

    def __init__(self, drivers: list[str]) -> None:
        self.said: dict[str, list[bytes]] = {}
        self.names: dict[str, str] = {}
        self._drivers = drivers

    def hear(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        """Keep one advertisement if it is a sensor's; called by bleak for every one in the air."""
        chunk = ble.structures(advertisement)
        if not any(recognises(name, chunk) for name in self._drivers):
            return
        address = device.address.upper()
        if address not in self.said and len(self.said) >= MOST_SENSORS:
            return
        said = self.said.setdefault(address, [])
        self.names[address] = advertisement.local_name or self.names.get(address, "")
        if chunk not in said and len(said) < MOST_SAID:
            said.append(chunk)


def recognises(driver: str, chunk: bytes) -> bool:
    """Return whether `chunk`, of nobody knows whom, is what this driver's devices advertise."""
    recognise = getattr(driver_class(driver), "recognises", None)
    return bool(recognise(chunk)) if recognise else _understands(driver, chunk)


def _understands(driver: str, chunk: bytes) -> bool:
    listener = loaded(driver, {})
    return bool(listener and (listener.feed(chunk, 0) or listener.damaged))


async def scan_air(search: Search, adapter: str, for_s: float) -> None:
    """Listen on `adapter`, and add every sensor that one of our drivers recognises."""
    logging.getLogger("bleak").setLevel(logging.INFO)  # its debug lines name every passer-by's phone
    drivers = drivers_on("ble")
    air = Air(drivers)
    search.progress.step(adapter, "listening for Bluetooth sensors")
    try:
        async with BleakScanner(air.hear, bluez={"adapter": adapter}):
            try:
                await asyncio.sleep(for_s)
            finally:  # broken off: what was heard is good
                line = search.findings.line(f"ble-{adapter}", "ble", EARSHOT.format(adapter), {"adapter": adapter})
                for address in sorted(air.said):
                    _add(search, line, air, address)
    except Exception as error:  # bleak and dbus-fast raise many kinds; each is the end of this part alone
        search.findings.notes.append(note_of(ble._advice(adapter, error)))
        search.progress.say(search.findings.notes[-1])


def _add(search: Search, line: FoundLine, air: Air, address: str) -> None:
    """Add the sensor at `address`; one whose key is not known is added as a comment."""
    chunks = air.said[address]
    settings: dict[str, Any] = {"address": address}
    for name in drivers_on("ble"):
        if not any(recognises(name, chunk) for chunk in chunks):
            continue
        driver = loaded(name, settings)
        if driver is None:
            continue
        groups = [group for at, chunk in enumerate(chunks) for group in driver.feed(chunk, 10_000 * at)]
        readings = groups[-1] if groups else []
        lacks = driver.damaged[-1][1].why if driver.damaged and not readings else ""
        if not readings and not lacks and not must_be_asked(driver):
            lacks = "it is known, and said nothing that is a reading while it was listened to"
        facts = {"readings": readings, "attributes": dict(driver.attributes), "lacks": lacks}
        heard = f"heard by Bluetooth as {air.names[address]}" if air.names[address] else "heard by Bluetooth"
        search.findings.add(line, f"{name}-{address[-5:].replace(':', '')}", name, settings, heard=heard, **facts)
        search.progress.say(f"{line.table['adapter']}: {name} at {address}")
        return
