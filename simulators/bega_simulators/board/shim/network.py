# The board's `network`: a station whose radio is the simulator's; sockets are the host's own.
from _board import call

STA_IF, AP_IF = 0, 1
STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
STAT_BEACON_TIMEOUT, STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD = 200, 201, 202
STAT_ASSOC_FAIL, STAT_HANDSHAKE_TIMEOUT = 203, 204


class WLAN:
    IF_STA, IF_AP = 0, 1
    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 2

    def __init__(self, interface_id=0):
        self._id = interface_id

    def active(self, is_active=None):
        return call("wlan_active", on=is_active)

    def connect(self, ssid=None, key=None, *, bssid=None):
        call("wlan_connect", ssid=ssid, key=key)

    def disconnect(self):
        call("wlan_disconnect")

    def isconnected(self):
        return call("wlan_status") == STAT_GOT_IP

    def status(self, param=None):
        return call("wlan_rssi") if param == "rssi" else call("wlan_status")

    def ifconfig(self, config=None):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")

    def config(self, *param, **values):
        return bytes.fromhex(call("unique_id")) if param == ("mac",) else None
