"""Example of a carrier: a meter node on a DIN rail, around an ESP32-DevKitC.

UART1 is the customer's port P1 of a smart meter: its line is inverted and
open-collector, so a transistor on the carrier turns it round and pulls it up;
the node never speaks on it, and tx leads nowhere. UART2 is an optical head
(IEC 62056-21) with its own transistors.
"""

NAME = "meter carrier with an ESP32-DevKitC"
CHIP = "esp32"
FLASH_MB = 4

BUSES = {
    "p1": {"kind": "uart", "id": 1, "tx": 25, "rx": 34},
    "head": {"kind": "uart", "id": 2, "tx": 17, "rx": 16},
}

DEVICES = {
    "main": {"driver": "dsmr_p1", "bus": "p1"},
    "heat": {"driver": "iec62056_meter", "bus": "head"},
}
