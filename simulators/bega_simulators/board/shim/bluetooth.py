# The board's `bluetooth`: it advertises into the simulated air. Nothing connects to it, and it does not scan.
from _board import call

_NOT_HERE = 95  # EOPNOTSUPP


class BLE:
    _only = None

    def __new__(cls):
        if cls._only is None:
            cls._only = object.__new__(cls)
        return cls._only

    def active(self, active=None):
        return call("ble_active", on=active)

    def config(self, *param, **values):
        if param == ("mac",):
            return 0, bytes.fromhex(call("ble_mac"))

    def irq(self, handler):
        pass  # there is no event without a connection or a scan

    def gap_advertise(self, interval_us, adv_data=None, *, resp_data=None, connectable=True):
        data = None if adv_data is None else bytes(adv_data).hex()
        call("ble_advertise", interval_us=interval_us, data=data, connectable=connectable)

    def gap_scan(self, duration_ms, interval_us=1280000, window_us=11250, active=False):
        raise OSError(_NOT_HERE)
