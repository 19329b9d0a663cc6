"""What is counted of one Bluetooth adapter; apart from ble.py, so that who reads it needs no Bluetooth."""

from dataclasses import dataclass


@dataclass
class BleCounters:
    """What happened on the adapter since the start."""

    adapter: str
    ours: int = 0  # advertisements of configured sensors
    foreign: int = 0  # all others: counted, and nothing of them is looked at or kept
    overtaken: int = 0  # ours, replaced by a newer one of the same sensor before the gateway got to them
    restarted: int = 0  # scans begun anew because nothing at all was heard
    resets: int = 0  # times that the adapter was switched off and on because a new scan heard nothing either
    connects: int = 0  # connections that came about, to sensors that are read by GATT
    failed_connects: int = 0  # and those that did not
