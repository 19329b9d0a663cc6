"""Many BTHome sensors in simulated air behind org.bluez on a D-Bus of its own, for the bench.

Started by the bench with `python -m bega_simulators.bench.beacons`; asked on standard input, one JSON object a line.
Each advertisement is a new measurement: the most that a sensor can ask of whoever listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from bega.clock import mono_ms
from bega_protocols.devices.bthome.sim import Sim
from bega_simulators.hosts.ble import ADAPTER_ADDRESS
from bega_simulators.hosts.ble_air import Air, host_on
from bega_simulators.hosts.org_bluez import OrgBluez
from bega_simulators.hosts.private_bus import PrivateBus

STEP_S = 0.01  # else what is due each 100 ms would be sent each 150
KEY = "231d39c1d7cc1ab1aee224cd096db932"


class Beacon(Sim):
    """A sensor that measures each time it advertises."""

    def __init__(self, settings: dict[str, object], seed: int, every_ms: int) -> None:
        super().__init__(settings, seed)
        self.advertise_ms = self.measure_ms = every_ms
        self.sent = 0
        self.set("temperature", "", 21)
        self.set("humidity", "", 45)

    def tick(self, now_ms: int) -> bytes:
        """Return the advertisement that is due, and count it."""
        advertisement = super().tick(now_ms)
        self.sent += bool(advertisement)
        return advertisement


def sensors(count: int, encrypted: int) -> dict[str, dict[str, object]]:
    """Return name and settings of each sensor; the first `encrypted` of them have a key."""
    addresses = [f"F0:00:00:00:{number >> 8:02X}:{number & 255:02X}" for number in range(count)]
    keys: list[dict[str, object]] = [{"key": KEY} if number < encrypted else {} for number in range(count)]
    return {f"s{number}": {"address": addresses[number], **keys[number]} for number in range(count)}


async def main(argv: list[str]) -> None:
    """Advertise until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensors", type=int, required=True)
    parser.add_argument("--encrypted", type=int, required=True, help="so many of them have a key")
    parser.add_argument("--every-ms", type=int, required=True)
    args = parser.parse_args(argv)
    table = sensors(args.sensors, args.encrypted)
    air = Air(1, mono_ms, STEP_S)
    beacons = [Beacon(settings, number, args.every_ms) for number, settings in enumerate(table.values())]
    for settings, beacon in zip(table.values(), beacons, strict=True):
        air.place(str(settings["address"]), beacon.tick)
    bus = PrivateBus()
    sending = None
    try:
        await bus.start()
        bluez = OrgBluez(bus.address, await host_on(air, "hci0", ADAPTER_ADDRESS))
        await bluez.start()
        sending = asyncio.create_task(air.run())
        print(json.dumps({"bus": bus.address, "sensors": table}), flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if json.loads(line)["verb"] == "silence":
                sending.cancel()
            print(json.dumps(_counts(beacons, bluez)), flush=True)
        await bluez.stop()
    finally:
        if sending:
            sending.cancel()
        await bus.close()


def _counts(beacons: list[Beacon], bluez: OrgBluez) -> dict[str, Any]:
    return {"sent": sum(beacon.sent for beacon in beacons), "published": bluez.published}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
