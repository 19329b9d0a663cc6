"""The chip's radio: a Wi-Fi station whose access point a script makes fail, and Bluetooth that advertises.

Spec: MicroPython's library pages `network.WLAN` and `bluetooth`; the order of states is that of its ESP32 port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bega.clock import mono_ms

IDLE, CONNECTING, GOT_IP, NO_AP_FOUND, WRONG_PASSWORD, BEACON_TIMEOUT = 1000, 1001, 1010, 201, 202, 200
NO_SUCH_DEVICE = 19  # errno of MicroPython's BLE while it is off
JOINING_MS = 200
USUAL_RSSI_DBM = -60
LONGEST_ADVERTISEMENT = 31  # bytes: legacy advertising is all that MicroPython does


class Wifi:
    """The station. faults: "away" (no access point answers)."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self._password: str | None = None
        self._rssi_dbm = USUAL_RSSI_DBM
        self._script: list[tuple[int, int]] = []  # (status, for so many ms) after each connect
        self._lost = 0  # the status after the connection dropped
        self.reset()

    def reset(self) -> None:
        """What a reset does to the radio: it is off."""
        self._on = False
        self._since_ms: int | None = None
        self._key: str | None = None
        self._lost = 0

    def obey(self, order: dict[str, Any]) -> None:
        """Take a script: "statuses" [[202, 500], [1010, 0]], "password", "rssi", "drop" (the status that follows)."""
        if "statuses" in order:
            self._script = [(int(status), int(for_ms)) for status, for_ms in order["statuses"]]
        self._password = order.get("password", self._password)
        self._rssi_dbm = order.get("rssi", self._rssi_dbm)
        if "drop" in order and self.do_wlan_status() == GOT_IP:
            self._lost = int(order["drop"])
        if unknown := set(order) - {"statuses", "password", "rssi", "drop"}:
            raise KeyError(f"wifi.{min(unknown)}")

    def do_wlan_active(self, on: bool | None) -> bool:
        if on is not None:
            self._on = on
            if not on:
                self._since_ms = None
        return self._on

    def do_wlan_connect(self, ssid: str | None, key: str | None) -> None:
        """The IDF refuses to be configured while a station is off, or on its way."""
        if not self._on:
            raise OSError(0, "Wifi Not Started")
        if self._since_ms is not None and self.do_wlan_status() == CONNECTING:
            raise OSError(0, "Wifi Internal State Error")
        self._since_ms = mono_ms()
        self._key = key
        self._lost = 0

    def do_wlan_disconnect(self) -> None:
        self._since_ms = None
        self._lost = 0

    def do_wlan_status(self) -> int:
        if self._since_ms is None:
            return IDLE
        if "away" in self.faults:
            return NO_AP_FOUND
        if self._lost:
            return self._lost
        if self._password is not None and self._key != self._password:
            return WRONG_PASSWORD
        left_ms = mono_ms() - self._since_ms
        if not self._script:
            return GOT_IP if left_ms >= JOINING_MS else CONNECTING
        return _at(self._script, left_ms)

    def do_wlan_rssi(self) -> int:
        if self.do_wlan_status() != GOT_IP:
            raise OSError(0, "Wifi Not Connected")
        return self._rssi_dbm


class Bluetooth:
    """The advertiser. `changed` is called whenever what it advertises, or whether it does, becomes another thing."""

    def __init__(self, address: bytes, changed: Callable[[], None]) -> None:
        self.advertises: dict[str, Any] | None = None  # "address", "data" (hex), "interval_ms", "connectable"
        self._address = address
        self._changed = changed
        self._on = False
        self._data = ""

    def reset(self) -> None:
        """A reset switches it off."""
        self._on = False
        self._data = ""
        self._advertise(None)

    def do_ble_active(self, on: bool | None) -> bool:
        if on is not None:
            self._on = on
            if not on:
                self._advertise(None)
        return self._on

    def do_ble_mac(self) -> str:
        return self._address.hex()

    def do_ble_advertise(self, interval_us: int | None, data: str | None, connectable: bool) -> None:
        """Without data, what was advertised before goes on; MicroPython's interval counts in steps of 625 us."""
        if not self._on:
            raise OSError(NO_SUCH_DEVICE, "BLE is off")
        if interval_us is None:
            self._advertise(None)
            return
        if data is not None:
            if len(data) > 2 * LONGEST_ADVERTISEMENT:
                raise OSError(22, "advertisement too long")
            self._data = data
        address = ":".join(f"{octet:02X}" for octet in self._address)
        interval_ms = max(20, interval_us // 1000)
        self._advertise(
            {"address": address, "data": self._data, "interval_ms": interval_ms, "connectable": connectable}
        )

    def _advertise(self, what: dict[str, Any] | None) -> None:
        if what != self.advertises:
            self.advertises = what
            self._changed()


def _at(script: Iterable[tuple[int, int]], after_ms: int) -> int:
    """Return the status that a script shows after so many ms; its last one stays."""
    shown = IDLE
    for status, for_ms in script:
        shown = status
        after_ms -= for_ms
        if after_ms < 0:
            break
    return shown
