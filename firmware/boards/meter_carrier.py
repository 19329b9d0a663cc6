"""Example of a carrier: a meter node on a DIN rail, around an ESP32-DevKitC.

UART1 is the customer's port P1 of a smart meter: its line is inverted and
open-collector, so a transistor on the carrier turns it round and pulls it up;
the node never speaks on it, and tx leads nowhere. UART2 is a socket for one of
three plug-ins: an optical head (IEC 62056-21), a level converter for M-Bus, or
a transceiver for RS-485, whose direction is switched by pin 4.

Two contacts (S0, IEC 62053-31) between the terminals s0 and s1 and ground: on
the carrier each is pulled up to 3.3 V by 1 kOhm, since a meter's output wants
some mA, and has 1 kOhm and 100 nF before the pin.
"""

NAME = "meter carrier with an ESP32-DevKitC"
CHIP = "esp32"
FLASH_MB = 4

BUSES = {
    "p1": {"kind": "uart", "id": 1, "tx": 33, "rx": 32},
    "meters": {"kind": "uart", "id": 2, "tx": 17, "rx": 16, "de": 4},
    "s0": {"kind": "pulses", "id": 0, "pin": 27},
    "s1": {"kind": "pulses", "id": 1, "pin": 26},
}

DEVICES = {
    "main": {"driver": "dsmr_p1", "bus": "p1"},
    "heat": {"driver": "iec62056_meter", "bus": "meters"},
    "flat": {"driver": "pulses", "bus": "s0", "settings": {"pulses_per_kwh": 1000}},
    "water": {"driver": "pulses", "bus": "s1", "settings": {"litres_per_pulse": 10, "contact": "reed"}},
}
