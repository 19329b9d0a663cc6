"""What Bluetooth sensors say to one adapter: those that the configuration names, and no other.

Most advertise, and are only listened to. Those whose driver must ask are connected to and read, apart from the
listening (ble_gatt.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from functools import partial
from typing import NamedTuple
from uuid import UUID

from bleak import BleakScanner
from bleak.backends.bluezdbus.manager import get_global_bluez_manager
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakDBusError, BleakError

from bega.clock import Clock
from bega.devices import must_be_asked
from bega_gateway.config import BleLine as BleSettings
from bega_gateway.lines.asked import AskedLine
from bega_gateway.lines.ble_counters import BleCounters
from bega_gateway.lines.ble_gatt import GattWire
from bega_gateway.lines.ble_power import power_cycle, power_on
from bega_gateway.lines.station import Station
from bega_protocols.errors import ConfigError, LineError

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
DEAF_AFTER_S = 60.0
RESET_AT, RESET_EVERY = 2, 10  # a second scan that hears nothing, then each tenth: a cellar may simply be silent
RESET_WITHIN_S = 15.0
OPEN_WITHIN_S = 10.0
CLOSE_WITHIN_S = 1.0  # part of the 2 s in which the gateway ends
SAY_AGAIN_MS = 3_600_000
MOST_SAID = 10  # kinds of damage of one sensor in that time: what comes by air may name anything
KEPT = 4  # different advertisements of a sensor that wait: some say their quantities by turns, in two or three packets

# AD types, Bluetooth Assigned Numbers section 2.3
UUIDS_16_BIT = 0x03
SERVICE_DATA_16_BIT, SERVICE_DATA_32_BIT, SERVICE_DATA_128_BIT, MANUFACTURER_DATA = 0x16, 0x20, 0x21, 0xFF
LONGEST_STRUCTURE = 255
BLUETOOTH_BASE_UUID = 0x0000000000001000800000805F9B34FB
BLUETOOTH_BASE = "-0000-1000-8000-00805f9b34fb"


class _Heard(NamedTuple):
    """One advertisement, and when it came."""

    advertisement: AdvertisementData
    mono_ms: int
    wall_ms: int


class BleLine:
    """Listens, hands each sensor's advertisements to its driver, listens again when the adapter was gone."""

    def __init__(
        self,
        name: str,
        settings: BleSettings,
        stations: list[Station],
        mono_ms: Clock,
        wall_ms: Clock,
        deaf_after_s: float = DEAF_AFTER_S,
    ) -> None:
        """Raises ConfigError if a station's driver has no `address`, or the address of another."""
        self.counters = BleCounters(settings.adapter)
        self._name = name
        self._adapter = settings.adapter
        self._stations = _by_address(stations)
        self._found: dict[str, BLEDevice | None] = {
            address: None for address, station in self._stations.items() if must_be_asked(station.driver)
        }  # what was heard of those that are connected to
        self._mono_ms = mono_ms
        self._wall_ms = wall_ms
        self._deaf_after_ms = int(deaf_after_s * 1000)
        self._scanner: BleakScanner | None = None
        # The last few of each sensor: a storm costs the older ones, no memory.
        self._waiting: dict[str, deque[_Heard]] = {address: deque(maxlen=KEPT) for address in self._stations}
        self._ready: dict[str, None] = {}  # whose turn it is, in order
        self._arrived = asyncio.Event()
        self._heard_ms = 0  # when anything at all was heard, foreign or ours
        self._down = False
        self._deaf_spells = 0  # scans in a row that heard nothing
        self._owes_power = False  # we have switched the adapter off, and could not switch it on
        self._said: dict[str, dict[str, int]] = {}  # by sensor: each kind of damage, and when it was said
        self.tries = 0  # to begin a scan, since the start
        turns = asyncio.Lock()
        self._polls = [self._poll(address, turns) for address in self._found]
        for address, station in self._stations.items():
            if station.window:
                station.window.when_open(partial(self._make_ready, address))

    async def run(self) -> None:
        """Listen and ask until cancelled; an adapter that is gone is opened again with a growing pause."""
        # bleak's debug lines name every passer-by's phone: they stay off, whatever the gateway's own level is.
        logging.getLogger("bleak").setLevel(logging.INFO)
        # And this one's warnings name a sensor that a household may own.
        logging.getLogger("bleak.backends.bluezdbus.client").setLevel(logging.ERROR)
        async with asyncio.TaskGroup() as tasks:
            for poll in self._polls:
                tasks.create_task(poll.run())
            tasks.create_task(self._listen_for_ever())

    async def finish(self) -> None:
        """Begin no further poll; return when those in hand have ended."""
        await asyncio.gather(*(poll.finish() for poll in self._polls))

    def _poll(self, address: str, turns: asyncio.Lock) -> AskedLine:
        station = self._stations[address]
        wire = GattWire(self._name, station, lambda: self._found[address], turns, self.counters, self._mono_ms)
        return AskedLine(self._name, wire, [station], self._mono_ms, self._wall_ms)

    async def _listen_for_ever(self) -> None:
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                self.tries += 1
                try:
                    await self._open()
                    self._say_back()
                    pause_s = FIRST_PAUSE_S
                    await self._listen()
                    if self._deaf_spells % RESET_EVERY == RESET_AT:
                        await self._reset()
                except LineError as error:
                    if not self._down:
                        log.warning("line down line=%s error=%s", self._name, error)
                    self._down = True
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            await self._close()

    async def _open(self) -> None:
        """Begin a scan in the place of the last one; raises LineError if that cannot be."""
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self._end_scan()
                if self._owes_power:
                    await power_on(self._adapter)
                    self._owes_power = False
                scanner = BleakScanner(self._hear, bluez={"adapter": self._adapter})
                await scanner.start()
        except LineError:
            raise
        except Exception as error:  # bleak and dbus-fast raise many kinds; the remedy is one: wait and open again
            raise LineError(_advice(self._adapter, error)) from None
        self._scanner = scanner
        self._heard_ms = self._mono_ms()

    async def _reset(self) -> None:
        """Switch the adapter off and on; raises LineError if that cannot be."""
        self.counters.resets += 1
        if self._deaf_spells == RESET_AT:
            log.warning("line still deaf, %s is switched off and on line=%s", self._adapter, self._name)
        self._owes_power = True
        try:
            async with asyncio.timeout(RESET_WITHIN_S):
                await self._end_scan()
                await power_cycle(self._adapter)
        except LineError:
            raise
        except Exception as error:
            raise LineError(_advice(self._adapter, error)) from None
        self._owes_power = False

    async def _end_scan(self) -> None:
        """End the last scan; raises what bleak raises where there is no bus."""
        # This renews a bus connection that was lost. Without it bleak 3.1 would write to the closed socket, and
        # dbus-fast wait on a file descriptor that may be another connection's by now.
        await get_global_bluez_manager()
        scanner, self._scanner = self._scanner, None
        if scanner:
            with contextlib.suppress(BleakError):  # a bluetoothd that was started anew knows of no scan
                await scanner.stop()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._end_scan()
        except Exception as error:  # whatever it is, nobody scans any more
            log.debug("scan did not end line=%s error=%s", self._name, type(error).__name__)

    async def _listen(self) -> None:
        """Hand on what is heard until nothing at all was heard for a while.

        bleak does not notice when bluetoothd dies and comes back: the scan is forgotten, and silence is the only sign.
        """
        while True:
            quiet_ms = self._mono_ms() - self._heard_ms
            if quiet_ms >= self._deaf_after_ms:
                self._count_deaf(quiet_ms)
                return
            try:
                async with asyncio.timeout((self._deaf_after_ms - quiet_ms) / 1000):
                    await self._arrived.wait()
            except TimeoutError:
                continue
            self._arrived.clear()
            while self._ready:
                address = next(iter(self._ready))
                del self._ready[address]
                if not _is_open(self._stations[address]):  # it closed meanwhile
                    continue
                for _ in range(len(self._waiting[address])):
                    await self._take(self._stations[address], self._waiting[address].popleft())

    def _hear(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        """Keep one advertisement if it is a configured sensor's; called by bleak for every one in the air.

        While the sensor's window is closed it is not looked at: of ten a second for a minute one becomes a record.
        """
        now_ms = self._mono_ms()
        self._heard_ms = now_ms
        self._deaf_spells = 0
        address = device.address.upper()
        if address not in self._stations:
            self.counters.foreign += 1
            return
        self.counters.ours += 1
        if address in self._found:
            self._found[address] = device
            return
        waiting = self._waiting[address]
        if waiting and _says_the_same(waiting[-1].advertisement, advertisement):
            waiting.pop()
        station = self._stations[address]
        is_open = _is_open(station)
        self.counters.overtaken += is_open and len(waiting) == KEPT
        waiting.append(_Heard(advertisement, now_ms, self._wall_ms()))
        if is_open:
            self._ready[address] = None
            self._arrived.set()

    def _make_ready(self, address: str) -> None:
        """Take what was kept while the sensor's window was closed."""
        if self._waiting[address]:
            self._ready[address] = None
            self._arrived.set()

    async def _take(self, station: Station, heard: _Heard) -> None:
        chunk = structures(heard.advertisement)
        if station.tap:
            station.tap("in", chunk)
        groups = station.driver.feed(chunk, heard.mono_ms)
        for _, error in station.take_damage():
            self._say_damage(station, error.why)
        if groups:
            station.counters.records += len(groups)
            station.heard_mono_ms = heard.mono_ms
            await station.deliver(groups, heard.wall_ms)

    def _say_back(self) -> None:
        if self._down:
            log.info("line back line=%s", self._name)
        self._down = False

    def _count_deaf(self, quiet_ms: int) -> None:
        self.counters.restarted += 1
        if not self._deaf_spells:
            log.warning("line deaf, the scan is begun anew line=%s for_s=%d", self._name, quiet_ms // 1000)
        self._deaf_spells += 1

    def _say_damage(self, station: Station, why: str) -> None:
        """Say each kind of damage once an hour: a wrong key comes with every advertisement."""
        now_ms = self._mono_ms()
        said = self._said.setdefault(station.name, {})
        for known in [known for known, said_ms in said.items() if now_ms - said_ms >= SAY_AGAIN_MS]:
            del said[known]
        if why not in said and len(said) < MOST_SAID:
            said[why] = now_ms
            log.warning("advertisement refused line=%s device=%s error=%s", self._name, station.said_name, why)


def _is_open(station: Station) -> bool:
    """Return whether what `station` says is looked at now: it may become a record, or somebody listens."""
    return station.window is None or not station.window.is_closed or station.tap is not None


def _says_the_same(one: AdvertisementData, other: AdvertisementData) -> bool:
    return one.service_data == other.service_data and one.manufacturer_data == other.manufacturer_data


def structures(advertisement: AdvertisementData) -> bytes:
    """Return service data, manufacturer data and services of an advertisement as the structures that went over the air.

    BlueZ takes advertisements apart; drivers read what a sensor sent (Core Supplement 11, part A).
    """
    rows = [_service_data(UUID(uuid), data) for uuid, data in advertisement.service_data.items()]
    short = [uuid for uuid in advertisement.service_uuids if uuid[:4] == "0000" and uuid[8:] == BLUETOOTH_BASE]
    if short:
        rows.append(bytes((UUIDS_16_BIT,)) + b"".join(bytes.fromhex(uuid[4:8])[::-1] for uuid in short))
    for company, data in advertisement.manufacturer_data.items():
        rows.append(bytes((MANUFACTURER_DATA,)) + company.to_bytes(2, "little") + data)
    return b"".join(bytes((len(row),)) + row for row in rows if len(row) <= LONGEST_STRUCTURE)


def _service_data(uuid: UUID, data: bytes) -> bytes:
    short, is_long = divmod(uuid.int - BLUETOOTH_BASE_UUID, 1 << 96)
    if is_long:
        return bytes((SERVICE_DATA_128_BIT,)) + uuid.bytes[::-1] + data
    if short >> 16:
        return bytes((SERVICE_DATA_32_BIT,)) + short.to_bytes(4, "little") + data
    return bytes((SERVICE_DATA_16_BIT,)) + short.to_bytes(2, "little") + data


def _by_address(stations: list[Station]) -> dict[str, Station]:
    found: dict[str, Station] = {}
    for station in stations:
        octets: bytes = getattr(station.driver, "address", b"")
        if not octets:
            raise ConfigError(f"devices.{station.name}.settings.address: is missing; a line finds a sensor by it")
        other = found.setdefault(octets.hex(":").upper(), station)
        if other is not station:
            raise ConfigError(f"devices.{station.name}.settings.address: {other.name} has it already")
    return found


def _advice(adapter: str, error: Exception) -> str:
    """Return what happened and what to do, in a sentence."""
    kind = error.dbus_error if isinstance(error, BleakDBusError) else ""
    if kind == "org.bluez.Error.NotReady":
        return f"{adapter} is switched off: bluetoothctl power on, or rfkill unblock bluetooth; trying again"
    if kind == "org.bluez.Error.InProgress":
        return f"{adapter} still holds an earlier scan of ours: systemctl restart bluetooth; trying again"
    if kind.endswith((".ServiceUnknown", ".NameHasNoOwner", ".UnknownObject", ".NoReply")):
        return "bluetoothd does not answer: systemctl start bluetooth (package bluez); trying again"
    if kind.endswith(".AccessDenied"):
        return "Bluetooth may not be used: add the gateway's user to the group bluetooth; trying again"
    if isinstance(error, BleakError) and "not found" in str(error):
        return f"there is no adapter {adapter}: plug it in, or correct `adapter` (bluetoothctl list); trying again"
    if isinstance(error, TimeoutError):
        return (
            f"bluetoothd did not begin to scan within {OPEN_WITHIN_S:.0f} s: systemctl restart bluetooth; trying again"
        )
    if isinstance(error, OSError | EOFError):
        return "the system D-Bus is not there: systemctl start dbus; trying again"
    return f"{adapter}: {type(error).__name__} {error}; trying again"
