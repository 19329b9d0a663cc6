"""ESP32-C3-DevKitM-1 (ESP32-C3-MINI-1, 4 MB in the chip) as an air node: pins, and which device hangs on which bus.

The chip has one UART beside the console's and one I2C. 2, 8 and 9 are read at
the start (8 drives the LED on the board), 18 and 19 are the USB socket of the
chip itself. I2C needs 4.7 kOhm to 3.3 V on each of its two lines, once.
"""

NAME = "ESP32-C3-DevKitM-1"
CHIP = "esp32c3"
FLASH_MB = 4

BUSES = {
    "uart1": {"kind": "uart", "id": 1, "tx": 7, "rx": 6},
    "i2c0": {"kind": "i2c", "id": 0, "scl": 5, "sda": 4},
}

DEVICES = {
    "pms": {"driver": "pms5003", "bus": "uart1"},
    "sht": {"driver": "sht4x", "bus": "i2c0"},
    "co2": {"driver": "scd41", "bus": "i2c0"},
}
