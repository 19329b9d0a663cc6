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

from bumble import hci, ll
from bumble.controller import Controller
from bumble.hci import Address
from bumble.host import Host
from bumble.link import LocalLink

STEP_S = 0.05  # advertisers are asked this often, unless whoever makes the air says otherwise
LEGACY_NON_CONNECTABLE, LEGACY_CONNECTABLE = 0x10, 0x13  # event types, Core volume 4, part E, section 7.7.65.13
RSSI_DBM = range(-95, -40)
RSSI_JITTER_DBM = 3


class Air(LocalLink):
    """Everything that advertises, and everybody who listens."""

    def __init__(self, seed: int, now_ms: Callable[[], int], step_s: float = STEP_S) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._step_s = step_s
        self.chance = random.Random(seed)
        self._now_ms = now_ms
        self._advertisers: dict[str, tuple[Address, Callable[[int], bytes], Controller | None]] = {}

    def place(self, address: str, tick: Callable[[int], bytes], peripheral: Controller | None = None) -> None:
        """Let `tick(now_ms)` say what is advertised from `address` (a random static one), b"" for nothing now.

        peripheral: who accepts connections there, if it can be connected to; while it is connected it says nothing.
        """
        self._advertisers[address] = (Address(address), tick, peripheral)

    def remove(self, address: str) -> None:
        """Take an advertiser out of reach."""
        del self._advertisers[address]

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            now_ms = self._now_ms()
            for address, tick, peripheral in list(self._advertisers.values()):
                advertisement = tick(now_ms)
                if advertisement and peripheral is None:
                    self._send(ll.AdvNonConnInd(advertiser_address=address, data=advertisement))
                elif advertisement and peripheral and not peripheral.le_connections:
                    peripheral.le_legacy_advertiser.own_address_type = Address.RANDOM_DEVICE_ADDRESS
                    peripheral.le_legacy_advertiser.enabled = True  # without its timer: it is this loop that sends
                    self._send(ll.AdvInd(advertiser_address=address, data=advertisement))
            await asyncio.sleep(self._step_s)

    def _send(self, pdu: ll.AdvNonConnInd | ll.AdvInd) -> None:
        """Bumble's link hands a PDU to every controller; most of them do not listen, and it would cost each a call."""
        for controller in self.controllers:
            if controller.le_scan_enable or controller.pending_le_connection:
                controller.on_ll_advertising_pdu(pdu)


class ScanningController(Controller):
    """Bumble 0.0.236's controller, with what a scanner would notice put right.

    It reports every advertisement twice, the second time as a scan response of the same bytes, and all at -50 dBm; it
    knows no advertisement that cannot be connected to; and a cancelled attempt to connect goes on for ever. Here
    each advertisement is reported once, as what it is, with the strength of its sender, and a cancelled attempt ends.
    """

    def __init__(self, name: str, air: Air, public_address: str) -> None:
        super().__init__(name, link=air, public_address=public_address)
        self._chance = air.chance
        self._rssi_dbm: dict[bytes, int] = {}

    def on_ll_advertising_pdu(self, packet: ll.AdvertisingPdu) -> None:
        if not isinstance(packet, ll.AdvNonConnInd | ll.AdvInd):
            return
        if self.le_scan_enable and self.hci_sink:
            self.hci_sink.on_packet(self._report(packet))
        pending = self.pending_le_connection
        if isinstance(packet, ll.AdvInd) and pending and pending.peer_address == packet.advertiser_address:
            self.create_le_connection(packet.advertiser_address)

    def on_hci_le_create_connection_cancel_command(
        self, _command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Volume 4, part E, section 7.8.13: the cancelled attempt ends with a Connection Complete of its own."""
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        ended = hci.HCI_LE_Connection_Complete_Event(
            status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR, connection_handle=0, role=0,
            peer_address_type=pending.peer_address.address_type, peer_address=pending.peer_address,
            connection_interval=0, peripheral_latency=0, supervision_timeout=0, central_clock_accuracy=0,
        )  # fmt: skip
        asyncio.get_running_loop().call_soon(self.send_hci_packet, ended)
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def _report(self, pdu: ll.AdvNonConnInd | ll.AdvInd) -> bytes:
        """Return an LE Extended Advertising Report event (volume 4, part E, section 7.7.65.13).

        Written as bytes: building it of Bumble's data classes takes ten times as long.
        """
        address = bytes(pdu.advertiser_address)
        rssi_dbm = self._rssi_dbm.setdefault(address, self._chance.choice(RSSI_DBM))
        rssi_dbm += self._chance.randint(-RSSI_JITTER_DBM, RSSI_JITTER_DBM)
        kind = LEGACY_CONNECTABLE if isinstance(pdu, ll.AdvInd) else LEGACY_NON_CONNECTABLE
        report = struct.pack("<HB", kind, pdu.advertiser_address.address_type) + address
        report += struct.pack("<BBBbbHB", 1, 0, 0xFF, 0x7F, rssi_dbm, 0, 0)  # LE 1M, no set id, tx power unknown
        report += bytes(6) + bytes((len(pdu.data),)) + pdu.data
        return bytes((0x04, 0x3E, len(report) + 2, 0x0D, 1)) + report


async def host_on(air: Air, name: str, public_address: str) -> Host:
    """Return an HCI host, ready for commands, on a controller of its own in `air`."""
    controller = ScanningController(name, air, public_address)
    host = Host(controller, controller)
    await host.reset()
    own = Address("C0" + public_address[2:])  # connections are made under it
    await host.send_sync_command(hci.HCI_LE_Set_Random_Address_Command(random_address=own))
    return host
