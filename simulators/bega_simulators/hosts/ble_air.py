"""Bluetooth air made of code: advertisers, and controllers that hear them, on Bumble's link layer.

An advertiser is a function that says what it sends at a moment: it needs no controller and no host stack. A controller
that scans reports what it hears by HCI, byte for byte, to whatever host is on it. There are no collisions, channels or
scan windows here: every scanning controller hears every advertisement.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable

from bumble import ll
from bumble.controller import Controller
from bumble.hci import Address
from bumble.host import Host
from bumble.link import LocalLink

STEP_S = 0.05  # advertisers are asked this often
LEGACY_NON_CONNECTABLE = 0x10  # event type, Core specification volume 4, part E, section 7.7.65.13
RSSI_DBM = range(-95, -40)
RSSI_JITTER_DBM = 3


class Air(LocalLink):
    """Everything that advertises, and everybody who listens."""

    def __init__(self, seed: int, now_ms: Callable[[], int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chance = random.Random(seed)
        self._now_ms = now_ms
        self._advertisers: dict[str, tuple[Address, Callable[[int], bytes]]] = {}

    def place(self, address: str, tick: Callable[[int], bytes]) -> None:
        """Let `tick(now_ms)` say what is advertised from `address` (a random static one), b"" for nothing now."""
        self._advertisers[address] = (Address(address), tick)

    def remove(self, address: str) -> None:
        """Take an advertiser out of reach."""
        del self._advertisers[address]

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            now_ms = self._now_ms()
            for address, tick in list(self._advertisers.values()):
                advertisement = tick(now_ms)
                if advertisement:
                    self._send(ll.AdvNonConnInd(advertiser_address=address, data=advertisement))
            await asyncio.sleep(STEP_S)

    def _send(self, pdu: ll.AdvNonConnInd) -> None:
        """Bumble's link hands a PDU to every controller; most of them do not listen, and it would cost each a call."""
        for controller in self.controllers:
            if controller.le_scan_enable:
                controller.on_ll_advertising_pdu(pdu)


class ScanningController(Controller):
    """Bumble 0.0.236's controller, with what a scanner would notice put right.

    It reports every advertisement twice, the second time as a scan response of the same bytes, and all at -50 dBm; it
    knows no advertisement that cannot be connected to. Here each is reported once, as what it is, with the strength of
    its sender. (A connection that cannot be made is never given up in that version either: nothing connects here yet.)
    """

    def __init__(self, name: str, air: Air, public_address: str) -> None:
        super().__init__(name, link=air, public_address=public_address)
        self._chance = air.chance
        self._rssi_dbm: dict[bytes, int] = {}

    def on_ll_advertising_pdu(self, packet: ll.AdvertisingPdu) -> None:
        if isinstance(packet, ll.AdvNonConnInd) and self.hci_sink:
            self.hci_sink.on_packet(self._report(packet))

    def _report(self, pdu: ll.AdvNonConnInd) -> bytes:
        """Return an LE Extended Advertising Report event (volume 4, part E, section 7.7.65.13).

        Written as bytes: building it of Bumble's data classes takes ten times as long.
        """
        address = bytes(pdu.advertiser_address)
        rssi_dbm = self._rssi_dbm.setdefault(address, self._chance.choice(RSSI_DBM))
        rssi_dbm += self._chance.randint(-RSSI_JITTER_DBM, RSSI_JITTER_DBM)
        report = struct.pack("<HB", LEGACY_NON_CONNECTABLE, pdu.advertiser_address.address_type) + address
        report += struct.pack("<BBBbbHB", 1, 0, 0xFF, 0x7F, rssi_dbm, 0, 0)  # LE 1M, no set id, tx power unknown
        report += bytes(6) + bytes((len(pdu.data),)) + pdu.data
        return bytes((0x04, 0x3E, len(report) + 2, 0x0D, 1)) + report


async def host_on(air: Air, name: str, public_address: str) -> Host:
    """Return an HCI host, ready for commands, on a controller of its own in `air`."""
    controller = ScanningController(name, air, public_address)
    host = Host(controller, controller)
    await host.reset()
    return host
